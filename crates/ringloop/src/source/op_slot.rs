//! The place of one op.

use std::cell::Cell;
use std::io;

use ringloop_driver::{Completion, Driver, OpKey};

/// Holds the op that is in flight for its owner, one at a time, and sees to its end.
///
/// It is filled when the op starts, and empty again when its last completion has been seen, whichever way that came.
#[derive(Default)]
pub(crate) struct OpSlot {
    op: Cell<Option<OpKey>>,
    is_cancelled: Cell<bool>,
}

impl OpSlot {
    /// Takes a new op; the one before must be over.
    pub(crate) fn fill(&self, op: OpKey) {
        self.op.set(Some(op));
        self.is_cancelled.set(false);
    }

    pub(crate) fn key(&self) -> Option<OpKey> {
        self.op.get()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.op.get().is_some()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }

    /// A completion of the op is seen: the last one, unless there is `more` to come.
    pub(crate) fn completed(&self, more: bool) {
        if !more {
            self.clear();
        }
    }

    /// Forgets the op: it is over, or of no interest any more.
    pub(crate) fn clear(&self) {
        self.op.set(None);
        self.is_cancelled.set(false);
    }

    /// Cancels the op, once. Its last completion is still to come.
    pub(crate) fn cancel(&self, driver: &mut Driver) {
        if let Some(op) = self.op.get() {
            if !self.is_cancelled.replace(true) {
                driver.cancel(op);
            }
        }
    }

    /// Ends the op before this returns, and gives its remaining completions. If the kernel does not end it for long, it stays in
    /// flight.
    pub(crate) fn retire(&self, driver: &mut Driver) -> Vec<Completion> {
        let Some(op) = self.op.get() else { return Vec::new() };
        let completions = driver.retire(op);
        if completions.iter().any(|completion| !completion.more) {
            self.clear();
        }
        completions
    }

    /// Submits what is queued, and gives the completions that the op has by now: all of them, if what it waits for was there.
    pub(crate) fn look(&self, driver: &mut Driver) -> io::Result<Option<Completion>> {
        let Some(op) = self.op.get() else { return Ok(None) };
        let completion = driver.look(op)?;
        if let Some(completion) = &completion {
            self.completed(completion.more);
        }
        Ok(completion)
    }

    /// The completions that the kernel has posted by now, also those that the reap has not reached.
    pub(crate) fn peek(&self, driver: &mut Driver) -> Option<Completion> {
        let completion = driver.peek(self.op.get()?)?;
        self.completed(completion.more);
        Some(completion)
    }
}
