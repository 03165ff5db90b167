//! What other threads have sent to a loop.
//!
//! # Life of a message
//!
//! A thread puts it into the inbox and then wakes the loop, which costs a system call only if the loop sleeps. The loop
//! clears the wake-up first and empties the inbox after that, in each iteration: so a message that comes at any moment
//! is either seen now or ends the next wait (LOOP-09).

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_queue::SegQueue;
use ringloop_driver::DriverWaker;

use super::handle::Callback;
use super::task::TaskWaker;

/// What a loop is running: what [`LoopProxy::running`](super::LoopProxy::running) gives.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// let proxy = event_loop.proxy();
/// if let Some(running) = proxy.running() {
///     println!("blocked by {} for {:?}", running.what, running.since.elapsed());
/// }
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunningHandle {
    /// The callback and where it was scheduled, or the task and where it was made.
    pub what: String,
    /// When it began.
    pub since: Instant,
}

/// What other threads have sent to one loop.
pub(super) struct Inbox {
    loop_id: u64,
    queue: SegQueue<Remote>,
    closed: AtomicBool,
    waker: DriverWaker,
    /// In debug mode, what the loop runs.
    running: Mutex<Option<RunningHandle>>,
}

pub(super) enum Remote {
    Call(Box<dyn Callback + Send>),
    Wake(Arc<TaskWaker>),
}

impl Inbox {
    pub(super) fn new(loop_id: u64, waker: DriverWaker) -> Self {
        Self {
            loop_id,
            queue: SegQueue::new(),
            closed: AtomicBool::new(false),
            waker,
            running: Mutex::default(),
        }
    }

    pub(super) fn loop_id(&self) -> u64 {
        self.loop_id
    }

    /// A message that races with the close is dropped here or there, unread.
    pub(super) fn send(&self, message: Remote) {
        self.queue.push(message);
        self.waker.wake();
        if self.is_closed() {
            self.clear();
        }
    }

    pub(super) fn pop(&self) -> Option<Remote> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn running(&self) -> Option<RunningHandle> {
        self.lock_running().clone()
    }

    /// Gives what ran before.
    pub(super) fn set_running(&self, handle: Option<RunningHandle>) -> Option<RunningHandle> {
        mem::replace(&mut *self.lock_running(), handle)
    }

    fn lock_running(&self) -> MutexGuard<'_, Option<RunningHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn clear(&self) {
        while let Some(message) = self.queue.pop() {
            drop(message); // A callback goes through the door by itself.
        }
    }
}
