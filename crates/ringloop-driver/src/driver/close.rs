//! The end of a driver, and what is kept of it.
//!
//! 1. Everything in flight is cancelled, and every completion is read to the last: connections and bytes that came too
//!    late are dropped, which closes and returns them.
//! 2. What the kernel does not let go of is leaked: memory that a request still names must never be freed.
//! 3. What belongs to the user, the owners of bytes that were being sent, is dropped after all else: such a drop runs the
//!    user's code, and must meet no driver that is half gone.
//! 4. A ring that is drained is kept for the next driver of this thread, one per thread. The kernel counts the memory of
//!    a closed ring for some time after, so that a program that makes loops in a row would run into its limit.

use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Driver, PATIENCE, STEP};
use crate::SendQueue;
use crate::backend::Backend;
use crate::buffers::{Group, GroupSize};
use crate::completion::Outcome;
use crate::config::{DriverConfig, Features};
use crate::key::Tag;
use crate::op::Ops;
use crate::setup::Made;
use crate::uring::quiet::QuietPolls;
use crate::uring::ring::Ring;
use crate::wake::DriverWaker;

impl Drop for Driver {
    fn drop(&mut self) {
        self.closing = true;
        // This is dropped at the very end, since it runs the user's code, which may make another driver.
        let mut of_users = OfUsers::default();
        let ours = self.backend.is_ours();
        if ours {
            self.drain(&mut of_users);
        }
        if !ours || self.backend.ring().is_none() {
            // In a forked child the kernel has no address of this process's memory; with epoll only during its calls.
            of_users.ops = mem::take(&mut *self.ops);
            self.quiet = QuietPolls::default();
            self.wake_armed = false;
        }
        self.drop_decoded(&mut of_users);
        // SAFETY: the field is not used again: what follows works on the value.
        let backend = unsafe { ManuallyDrop::take(&mut self.backend) };
        self.keep_or_close(backend);
    }
}

impl Driver {
    /// Asks for the end of everything once, and again, less and less often, while nothing ends: an op that the kernel was
    /// about to try once more may have missed it. Gives up when nothing has ended for [`PATIENCE`].
    fn drain(&mut self, of_users: &mut OfUsers) {
        for key in mem::take(&mut self.starved) {
            self.ops.remove(key);
        }
        self.ops.cancel_all();
        self.cancel_everything();
        let mut last_end = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut next_cancel = last_end + pause;
        while self.has_unfinished() {
            let before = self.known();
            if self.enter_for(self.ends_to_wait_for(), STEP).is_err() {
                return;
            }
            self.drop_decoded(of_users);
            let now = Instant::now();
            if self.known() < before {
                last_end = now;
                next_cancel = now + pause;
            } else if now - last_end >= PATIENCE {
                return;
            } else if now >= next_cancel {
                self.cancel_everything();
                pause *= 2;
                next_cancel = now + pause;
            }
        }
    }

    /// What came too late goes, which closes and returns it; but for what runs the user's code.
    fn drop_decoded(&mut self, of_users: &mut OfUsers) {
        while let Some(completion) = self.next_completion() {
            if let Outcome::Sent(_, queue) = completion.outcome {
                of_users.queues.extend(Some(queue).filter(SendQueue::has_foreign));
            }
        }
    }

    fn has_unfinished(&self) -> bool {
        self.known() > 0 || self.backend.has_queued() || !self.backlog.is_empty()
    }

    /// How many ops and polls the kernel has not ended yet.
    fn known(&self) -> usize {
        self.ops.len() + self.quiet.len() + usize::from(self.wake_armed)
    }

    /// How many completions one call waits for: at most so many as are sure to come, and half of what the queue holds. The
    /// more a call waits for, the fewer calls a drop needs.
    fn ends_to_wait_for(&self) -> u32 {
        // An op that waits quietly has one end, that of its poll.
        let ends = self.ops.len().max(self.quiet.len()) + usize::from(self.wake_armed);
        let room = self.backend.completion_entries() / 2;
        room.min(u32::try_from(ends).unwrap_or(u32::MAX)).max(1)
    }

    /// Cancels each op by its own name. A cancel of "any" op would make the kernel search from the beginning for each one,
    /// past all that it has cancelled before, so that the cost would be quadratic.
    fn cancel_everything(&mut self) {
        let ops = self.ops.keys().map(Tag::Op);
        let quiet = self.quiet.keys().map(Tag::Quiet);
        let wake = self.wake_armed.then_some(Tag::Wake);
        let subjects: Vec<_> = ops.chain(quiet).chain(wake).collect();
        subjects.into_iter().for_each(|subject| self.push_cancel(subject));
    }

    /// Drops the backend before the groups, since it still has their addresses.
    fn close_backend(&mut self, backend: Backend) {
        self.all_groups().for_each(|group| group.forget());
        drop(backend);
        self.groups.clear();
        self.datagrams = None;
        self.large = None;
        self.direct = None;
    }

    fn keep_or_close(&mut self, backend: Backend) {
        if let Some(files) = &self.files {
            files.clear(backend.ring().filter(|ring| ring.is_ours()));
        }
        let ring = match backend {
            Backend::Uring(ring) => ring,
            // An epoll instance is cheap to make, so it is not kept for the next driver.
            Backend::Epoll(_) => return self.close_backend(backend),
        };
        let ours = ring.is_ours();
        if self.known() > 0 {
            // The ops are leaked, and with each the group that it is armed on: the kernel may still write to their memory.
            Box::leak(Box::new(mem::take(&mut self.quiet)));
            return self.close_backend(Backend::Uring(ring));
        }
        let ops = mem::take(&mut *self.ops);
        if !ours || ring.queued() > 0 || !self.backlog.is_empty() || ring.lost() > 0 {
            return self.close_backend(Backend::Uring(ring));
        }
        let group = self.drop_other_groups(Some(&ring));
        let group = group.filter(|group| {
            let idle = group.leased() == 0 && self.config.memory().is_none();
            if !idle {
                group.unregister(Some(&ring));
            }
            idle
        });
        let kept = Kept {
            ring,
            group,
            features: self.info.features,
            ops,
            waker: self.waker.clone(),
            asked: Asked::by(&self.config),
        };
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|place| place.replace(Some(kept)));
    }
}

/// What a driver that ends holds of its users.
#[derive(Default)]
struct OfUsers {
    queues: Vec<SendQueue>,
    ops: Ops,
}

/// The kept ring of this thread, if it is as `config` asks.
pub(super) fn take_kept(config: &DriverConfig) -> Option<(Made, Ops, DriverWaker)> {
    let kept = KEPT.try_with(RefCell::take).ok()??;
    let Kept { ring, group, features, ops, waker, asked } = kept;
    if asked != Asked::by(config) || !ring.is_ours() {
        return None;
    }
    let size = GroupSize::first(config);
    let fits = group.filter(|group| {
        let fits = group.size() == size && config.memory().is_none();
        if !fits {
            group.unregister(Some(&ring));
        }
        fits
    });
    let group = match fits {
        Some(group) => group,
        None => Group::new(Some(&ring), size, config.memory()).ok()?,
    };
    Some((Made { backend: Backend::Uring(ring), group, features }, ops, waker))
}

#[cfg(feature = "testing")]
pub(crate) fn close_kept() {
    drop(KEPT.take());
}

/// A drained ring, between two drivers. No op is in flight on it, and no buffer of it is lent.
struct Kept {
    // Closed before its buffers go.
    ring: Ring,
    group: Option<Rc<Group>>,
    features: Features,
    /// Empty; it goes on with its generations, so that a late completion finds nobody.
    ops: Ops,
    waker: DriverWaker,
    asked: Asked,
}

/// What makes one ring as good as another.
#[derive(PartialEq, Eq)]
struct Asked {
    submission_entries: u32,
    completion_entries: u32,
    mask: Features,
}

impl Asked {
    fn by(config: &DriverConfig) -> Self {
        Self {
            submission_entries: config.submission_entries,
            completion_entries: config.completion_entries,
            mask: config.mask,
        }
    }
}

/// For so long nothing may end before what is left is cancelled again; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}
