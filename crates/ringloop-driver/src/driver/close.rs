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
use std::time::Instant;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::CancelBuilder;

use super::{Driver, PATIENCE, STEP};
use crate::SendQueue;
use crate::buffers::{Group, GroupSize};
use crate::completion::Outcome;
use crate::config::{DriverConfig, Features};
use crate::op::{Ops, Subject};
use crate::ring::Ring;
use crate::setup::Made;
use crate::wake::DriverWaker;
use crate::watch::FileTable;

impl Drop for Driver {
    fn drop(&mut self) {
        self.closing = true;
        // Dropped at the very end: it runs the user's code, which may make another driver.
        let mut of_users = OfUsers::default();
        if self.ring.is_ours() {
            self.drain(&mut of_users);
        } else {
            // The kernel knows none of this memory as this process's.
            of_users.ops = mem::take(&mut self.ops);
            self.quiet.clear();
            self.wake_armed = false;
        }
        self.drop_decoded(&mut of_users);
        // SAFETY: the field is not used again: what follows works on the value.
        let ring = unsafe { ManuallyDrop::take(&mut self.ring) };
        self.keep_or_close(ring);
    }
}

impl Driver {
    fn drain(&mut self, of_users: &mut OfUsers) {
        for key in mem::take(&mut self.starved) {
            self.ops.remove(key);
        }
        self.ops.cancel_all();
        let end = Instant::now() + PATIENCE;
        while self.has_unfinished() && Instant::now() < end {
            if !self.ops.is_empty() || !self.quiet.is_empty() || self.wake_armed {
                self.cancel_everything();
            }
            if self.enter_for_one(STEP).is_err() {
                return;
            }
            self.drop_decoded(of_users);
        }
    }

    /// What came too late goes, which closes and returns it; but for what runs the user's code.
    fn drop_decoded(&mut self, of_users: &mut OfUsers) {
        while let Some(completion) = self.reap() {
            if let Outcome::Sent(_, queue) = completion.outcome {
                of_users.queues.extend(Some(queue).filter(SendQueue::has_foreign));
            }
        }
    }

    fn has_unfinished(&self) -> bool {
        let is_known = !self.ops.is_empty() || !self.quiet.is_empty() || self.wake_armed;
        is_known || self.ring.queued() > 0 || !self.backlog.is_empty()
    }

    fn cancel_everything(&mut self) {
        let request = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push(&request.user_data(Subject::Aside.encode()).flags(Flags::SKIP_SUCCESS));
    }

    fn keep_or_close(&mut self, ring: Ring) {
        let ours = ring.is_ours();
        let group = self.drop_other_groups(&ring);
        if !self.ops.is_empty() || !self.quiet.is_empty() || self.wake_armed {
            self.groups.extend(group);
            self.groups.iter().for_each(|group| group.forget());
            let known =
                (mem::take(&mut self.ops), mem::take(&mut self.quiet), mem::take(&mut self.groups));
            Box::leak(Box::new(known));
            return;
        }
        if !ours || ring.queued() > 0 || !self.backlog.is_empty() || ring.lost() > 0 {
            group.iter().for_each(|group| group.forget());
            return;
        }
        if self.files.is_some() {
            FileTable::unregister(&ring);
        }
        let group = group.filter(|group| {
            let idle = group.leased() == 0 && self.config.memory().is_none();
            if !idle {
                group.unregister(&ring);
            }
            idle
        });
        let kept = Kept {
            ring,
            group,
            features: self.info.features,
            ops: mem::take(&mut self.ops),
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
            group.unregister(&ring);
        }
        fits
    });
    let group = match fits {
        Some(group) => group,
        None => Group::new(&ring, size, config.memory()).ok()?,
    };
    Some((Made { ring, group, features }, ops, waker))
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

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}
