//! Where the fault layer takes a hand in the driver's work: `hooks.rs` with the feature `testing`.

use std::io;

use super::Driver;
use crate::DriverConfig;
use crate::backend::Backend;
use crate::completion::{Completion, Outcome};
use crate::entry::Entry;
use crate::key::OpKey;
use crate::op::Ops;
use crate::testing::{FaultCounts, FaultLayer};

/// `None` where no faults are asked for.
pub(super) struct Hooks(Option<Box<FaultLayer>>);

impl Hooks {
    pub(super) fn new(config: &DriverConfig) -> Self {
        Self(config.faults.map(FaultLayer::new))
    }

    pub(super) fn are_set(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn next(&mut self, backend: &mut Backend) -> Option<Entry> {
        match &mut self.0 {
            None => backend.next(),
            Some(faults) => faults.next(backend),
        }
    }

    pub(super) fn hold_any(&self) -> bool {
        self.0.as_ref().is_some_and(|faults| faults.has_any())
    }

    pub(super) fn interrupt(&mut self, waits: bool) -> bool {
        self.0.as_mut().is_some_and(|faults| faults.interrupts(waits))
    }

    pub(super) fn refuse(&mut self) -> io::Result<()> {
        fail_with(self.0.as_mut().and_then(|faults| faults.refuses()))
    }

    pub(super) fn refuse_call(&mut self) -> io::Result<()> {
        fail_with(self.0.as_mut().and_then(|faults| faults.refuses_call()))
    }

    pub(super) fn shorten(&mut self, len: usize) -> usize {
        self.0.as_mut().map_or(len, |faults| faults.shorten_send(len))
    }

    pub(super) fn spoil(&mut self, key: OpKey, ops: &mut Ops) -> bool {
        match (&mut self.0, ops.get_mut(key)) {
            (Some(faults), Some(op)) => faults.spoil(key, op),
            _ => false,
        }
    }

    pub(super) fn split(&mut self, mut completion: Completion) -> (Completion, Option<Completion>) {
        let Some(faults) = &mut self.0 else { return (completion, None) };
        let Outcome::Received(Ok(bytes)) = &mut completion.outcome else {
            return (completion, None);
        };
        let cut = if completion.more { faults.split(bytes.len()) } else { None };
        let Some(cut) = cut else { return (completion, None) };
        let outcome = Outcome::Received(Ok(bytes.split_to(cut)));
        let Completion { token, key, more, .. } = completion;
        (Completion { token, key, more, outcome }, Some(completion))
    }
}

impl Driver {
    /// What the fault layer has done so far.
    pub fn fault_counts(&self) -> FaultCounts {
        self.hooks.0.as_ref().map(|faults| faults.counts()).unwrap_or_default()
    }
}

fn fail_with(errno: Option<i32>) -> io::Result<()> {
    errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}
