//! Polls that would be ready for nothing, again and again.
//!
//! The kernel reports `POLLRDHUP` whether it was asked for or not. So a poll for room on a connection whose peer has ended
//! its stream is ready at once, without room; armed again, it would spin. A multishot poll reports that once, and then only
//! what changes: so one is armed in its place, under a subject of its own, until there is something that was asked for.

use std::io;

use io_uring::{opcode, types};
use std::os::fd::AsRawFd;

use super::Driver;
use crate::completion::Completion;
use crate::entry::Entry;
use crate::key::{Mark, OpKey, Tag};
use crate::op::{Kind, OpFile, State};

impl Driver {
    /// Goes on waiting for `key`, whose poll was ready for nothing.
    #[cold]
    pub(super) fn wait_quietly(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let Kind::Poll { interest, .. } = op.kind else { return };
        op.state = State::Quiet;
        let request = match &op.file {
            OpFile::Descriptor(fd) => {
                opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), interest.mask()).multi(true).build()
            }
            OpFile::Slot(slot) => {
                opcode::PollAdd::new(types::Fixed(*slot), interest.mask()).multi(true).build()
            }
        };
        // The poll outlives the op until it is cancelled, and the descriptor must outlive the poll.
        self.quiet.insert(key, op.file.clone());
        self.push(&request.user_data(Tag::Quiet(key).encode()));
    }

    #[cold]
    pub(super) fn decode_quiet(&mut self, mark: Mark, entry: Entry) -> Option<Completion> {
        let all = self.quiet.range(OpKey::all_at(mark)).map(|(&key, _)| key);
        let Some(key) = all.into_iter().find(|key| key.mark() == mark) else {
            self.counters.stale += 1;
            return None;
        };
        let result = entry.outcome();
        let waits = self.ops.get_mut(key).map(|op| match op.kind {
            Kind::Poll { interest, .. } => {
                result.as_ref().is_ok_and(|&mask| interest.is_missed_by(mask))
            }
            _ => false,
        });
        let over = !entry.has_more();
        if over {
            self.quiet.remove(&key);
        }
        match waits {
            None => None,
            Some(true) => {
                if over {
                    self.wait_quietly(key);
                }
                None
            }
            Some(false) => {
                if !over {
                    self.push_cancel(Tag::Quiet(key));
                }
                self.complete(key, result, entry, false)
            }
        }
    }

    /// The op ends here; the poll that was kept apart for it ends when the kernel says so.
    #[cold]
    pub(super) fn end_quiet(&mut self, key: OpKey) {
        self.push_cancel(Tag::Quiet(key));
        self.end_locally(key);
    }

    /// Whether the kernel knows nothing of `key` any more.
    pub(super) fn is_let_go(&self, key: OpKey) -> bool {
        !self.ops.contains(key) && !self.quiet.contains_key(&key)
    }

    pub(super) fn cancelled_error() -> io::Error {
        io::Error::from_raw_os_error(libc::ECANCELED)
    }
}
