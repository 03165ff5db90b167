//! Where tests take a hand in the driver's work. Without the feature `testing` it is this: nothing. With it, it is `faulty.rs`.

use std::io;

use crate::DriverConfig;
use crate::backend::Backend;
use crate::completion::Completion;
use crate::entry::Entry;
use crate::key::OpKey;
use crate::op::Ops;

/// What stands between the driver and the kernel.
pub(super) struct Hooks;

#[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "as with the feature")]
impl Hooks {
    pub(super) fn new(_: &DriverConfig) -> Self {
        Self
    }

    /// Whether there are any: then nothing may go past them.
    pub(super) fn are_set(&self) -> bool {
        false
    }

    /// The next entry of the completion queue.
    #[inline(always)]
    pub(super) fn next(&mut self, backend: &mut Backend) -> Option<Entry> {
        backend.next()
    }

    /// Whether entries are held back.
    pub(super) fn hold_any(&self) -> bool {
        false
    }

    /// Whether an enter, which `waits`, is not to wait.
    pub(super) fn interrupt(&mut self, _waits: bool) -> bool {
        false
    }

    /// What an enter is refused with, if it is to be.
    pub(super) fn refuse(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What a direct call fails with before the kernel hears of it, if it is to.
    pub(super) fn refuse_call(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// How many of `len` bytes a direct call shows the kernel.
    pub(super) fn shorten(&mut self, len: usize) -> usize {
        len
    }

    /// Ends an op instead of arming it, or takes a part of what it would send. True if it must not be armed.
    pub(super) fn spoil(&mut self, _: OpKey, _: &mut Ops) -> bool {
        false
    }

    /// Gives one result of many in two parts; the second comes next.
    #[inline(always)]
    pub(super) fn split(&mut self, completion: Completion) -> (Completion, Option<Completion>) {
        (completion, None)
    }
}
