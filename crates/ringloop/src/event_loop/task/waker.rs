//! Wakers of tasks, which may go to any thread.
//!
//! On the loop's own thread a wake-up is a flag and a place in the ready queue: no lock, no allocation, no atomic
//! read-modify-write. From another thread it goes through the loop's inbox, and wakes the loop if that sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Wake;

use super::key::{NO_KEY, TaskKey};
use crate::event_loop::inbox::{Inbox, Remote};
use crate::event_loop::ready::{Entry, Scheduler};
use crate::event_loop::running;

/// What the wakers of one task share.
pub(in crate::event_loop) struct TaskWaker {
    loop_id: u64,
    /// As [`TaskKey::to_bits`] gives it. Only the loop's thread touches it: an atomic because the type is `Sync`.
    key: AtomicU64,
    /// The task is in the ready queue. Only the loop's thread touches it: an atomic because the type is `Sync`.
    queued: AtomicBool,
    /// A wake-up of the task is in the inbox.
    sent: AtomicBool,
    /// `None` for a task that no loop has run.
    inbox: Option<Arc<Inbox>>,
}

impl TaskWaker {
    /// One that belongs to no task yet.
    pub(super) fn new(loop_id: u64, inbox: Option<Arc<Inbox>>) -> Self {
        Self {
            loop_id,
            key: AtomicU64::new(NO_KEY.to_bits()),
            queued: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            inbox,
        }
    }

    /// On the loop's thread: from now on it wakes the task with this key. Nobody has a waker of the last one, so no wake-up is in
    /// the inbox; one that may be left in the ready queue finds no task.
    pub(super) fn begin(&self, key: TaskKey) {
        self.key.store(key.to_bits(), Ordering::Relaxed);
        self.queued.store(false, Ordering::Relaxed);
    }

    /// On the loop's thread: queues the task unless it is queued already.
    #[inline(always)]
    pub(super) fn queue(&self, scheduler: &Scheduler) {
        if let Some(task) = self.to_queue() {
            scheduler.push(Entry::Task(task));
        }
    }

    /// The task, if it is not in the ready queue yet; the caller puts it there.
    #[inline]
    fn to_queue(&self) -> Option<TaskKey> {
        if self.queued.load(Ordering::Relaxed) {
            return None;
        }
        self.queued.store(true, Ordering::Relaxed);
        Some(TaskKey::from_bits(self.key.load(Ordering::Relaxed)))
    }

    /// On the loop's thread: the task left the ready queue. A wake-up from now on is another step.
    pub(super) fn dequeued(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }

    /// On the loop's thread: the wake-up left the inbox. Gives the task that the caller puts into the ready queue.
    pub(in crate::event_loop) fn received(&self) -> Option<TaskKey> {
        // Acquire: what the waking thread wrote is seen by the step, also if it found a wake-up under way.
        self.sent.swap(false, Ordering::AcqRel);
        self.to_queue()
    }

    /// Queues the task if its loop belongs to this thread.
    #[inline(never)]
    fn queue_here(&self) -> bool {
        running::with_scheduler(self.loop_id, |scheduler| self.queue(scheduler))
            || self.queue_idle()
    }

    /// The loop may belong to this thread and not run.
    #[cold]
    fn queue_idle(&self) -> bool {
        let scheduler = running::scheduler(self.loop_id);
        scheduler.inspect(|scheduler| self.queue(scheduler)).is_some()
    }

    fn send(self: Arc<Self>) {
        let Some(inbox) = self.inbox.clone() else { return };
        if !self.sent.swap(true, Ordering::AcqRel) {
            inbox.send(Remote::Wake(self));
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queue_here() {
            self.send();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queue_here() {
            Arc::clone(self).send();
        }
    }
}
