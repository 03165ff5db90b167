//! Polls that would be ready for nothing, again and again.
//!
//! The kernel reports `POLLRDHUP` whether it was asked for or not. So a poll for room on a connection whose peer has ended
//! its stream is ready at once, without room; armed again, it would spin. A multishot poll reports that once, and then only
//! what changes: so one is armed in its place, under a subject of its own, until there is something that was asked for.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry as Request;
use io_uring::{opcode, types};

use crate::key::{Mark, OpKey, Tag};
use crate::op::{Kind, Op, OpFile, State};

/// The polls that the kernel has in place of those of ops, and what they are on: a poll outlives its op until it is cancelled,
/// and the descriptor must outlive the poll.
#[derive(Default)]
pub(crate) struct QuietPolls(BTreeMap<OpKey, OpFile>);

impl QuietPolls {
    /// Lets `op`, a poll, wait quietly. Gives what the kernel is to be asked for.
    pub(crate) fn start(&mut self, key: OpKey, op: &mut Op) -> Option<Request> {
        let Kind::Poll { interest, .. } = op.kind else { return None };
        op.state = State::Quiet;
        let mask = interest.mask();
        let poll = match &op.file {
            OpFile::Descriptor(fd) => opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), mask),
            OpFile::Slot(slot) => opcode::PollAdd::new(types::Fixed(*slot), mask),
        };
        self.0.insert(key, op.file.clone());
        Some(poll.multi(true).build().user_data(Tag::Quiet(key).encode()))
    }

    /// Whose poll an entry is of; without `more` it was its last.
    pub(crate) fn seen(&mut self, mark: Mark, more: bool) -> Option<OpKey> {
        let mut all = self.0.range(OpKey::all_at(mark)).map(|(&key, _)| key);
        let key = all.find(|key| key.mark() == mark)?;
        if !more {
            self.0.remove(&key);
        }
        Some(key)
    }

    /// Whether the kernel still has one for `key`.
    pub(crate) fn has(&self, key: OpKey) -> bool {
        self.0.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = OpKey> {
        self.0.keys().copied()
    }
}
