//! The ready queue, and the handles in it.
//!
//! # Life of a callback
//!
//! `call_soon()` puts an [`Entry`] at the end of the queue and gives a [`Handle`] out. The iteration takes the entry
//! from the front and runs it, or passes over it if it was cancelled meanwhile. A callback is taken out of its cell when it
//! runs or is cancelled, whichever is first: what it holds is freed then, and not when the last handle is dropped.
//!
//! # Re-entrancy
//!
//! A callback, and the drop of one, may reach the loop again: both happen with the queue released.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use super::EventLoop;
use super::door::let_go;
use super::proxy::{Inbox, Remote};
use super::registry::Source;
use super::task_core::TaskKey;

/// A callback that the loop is to run: what [`EventLoop::call_soon`] gives.
///
/// Dropping it changes nothing. A clone is the same handle.
#[derive(Clone)]
pub struct Handle {
    callback: Rc<dyn Callback>,
}

impl Handle {
    pub(super) fn new(callback: Rc<dyn Callback>) -> Self {
        Self { callback }
    }

    /// Makes the callback never run, and drops it and what it holds at once.
    ///
    /// Has no effect on a callback that ran already, but that [`cancelled`](Self::cancelled) is true. May be repeated.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let handle = event_loop.call_soon(|_| unreachable!())?;
    /// handle.cancel();
    /// assert!(handle.cancelled());
    /// event_loop.stop();
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.callback.cancel();
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.callback.cancelled()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = if self.cancelled() { "cancelled " } else { "" };
        write!(f, "<Handle {cancelled}{}>", Description(&*self.callback))
    }
}

/// The queue of the handles of one loop that are ready to run.
///
/// It is not part of the loop itself, so that the wakers of this thread reach it without keeping the loop alive.
pub(crate) struct Scheduler {
    /// Differs from that of any other loop in the process.
    pub(super) loop_id: u64,
    ready: RefCell<VecDeque<Entry>>,
    /// What other threads have sent and is still to be queued here.
    inbox: Arc<Inbox>,
}

impl Scheduler {
    pub(super) fn new(loop_id: u64, inbox: Arc<Inbox>) -> Self {
        Self { loop_id, ready: RefCell::default(), inbox }
    }

    /// Runs `callback` in the next iteration, after what is queued already.
    pub(crate) fn call_soon(&self, callback: Rc<dyn Callback>) {
        self.push(Entry::Callback(callback));
    }

    /// Appends a handle, behind those that other threads have sent until now.
    #[inline]
    pub(super) fn push(&self, entry: Entry) {
        self.receive();
        self.append(entry);
    }

    /// Appends what other threads have sent.
    #[inline]
    pub(super) fn receive(&self) {
        if !self.inbox.is_empty() {
            self.receive_all();
        }
    }

    #[cold]
    fn receive_all(&self) {
        // What comes while this runs is left for the next time: a busy sender must not keep the loop here.
        for _ in 0..self.inbox.len() {
            match self.inbox.pop() {
                Some(Remote::Call(callback)) => self.append(Entry::Remote(callback)),
                Some(Remote::Wake(waker)) => {
                    if let Some(task) = waker.received() {
                        self.append(Entry::Task(task));
                    }
                }
                None => break,
            }
        }
    }

    #[inline]
    fn append(&self, entry: Entry) {
        self.ready.borrow_mut().push_back(entry);
    }

    pub(super) fn pop(&self) -> Option<Entry> {
        self.ready.borrow_mut().pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Everything that was queued, for the caller to drop.
    pub(super) fn take(&self) -> VecDeque<Entry> {
        self.ready.take()
    }
}

/// One place in the ready queue.
pub(super) enum Entry {
    Callback(Rc<dyn Callback>),
    /// A callback from another thread; nobody has a handle of it.
    Remote(Box<dyn Callback + Send>),
    /// The next step of a task, by its key: an entry for a task that has finished meanwhile does not keep it alive.
    Task(TaskKey),
    /// A source and the event that it queued.
    Source(Rc<dyn Source>, u8),
}

/// Something to run, once or more often.
pub(crate) trait Callback {
    /// Runs user code.
    fn run(&self, event_loop: &EventLoop);
    /// Drops the user's callback.
    fn cancel(&self);
    fn cancelled(&self) -> bool;
    /// Drops the user's callback, uncancelled: the loop has closed.
    fn release(&self);
    /// The description of the callback in reports.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// It is no longer among the timers.
    fn leave_timers(&self) {}
}

/// Shows the description of a callback.
pub(super) struct Description<'a>(pub(super) &'a dyn Callback);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl fmt::Debug for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

/// A callback that runs once.
pub(super) struct Once<F> {
    callback: Cell<Option<F>>,
    cancelled: Cell<bool>,
    location: &'static Location<'static>,
}

impl<F: FnOnce(&EventLoop)> Once<F> {
    pub(super) fn new(callback: F, location: &'static Location<'static>) -> Self {
        Self { callback: Cell::new(Some(callback)), cancelled: Cell::new(false), location }
    }
}

impl<F: FnOnce(&EventLoop)> Callback for Once<F> {
    fn run(&self, event_loop: &EventLoop) {
        if let Some(callback) = self.callback.take() {
            callback(event_loop);
        }
    }

    fn cancel(&self) {
        self.cancelled.set(true);
        self.release();
    }

    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }

    fn release(&self) {
        if let Some(callback) = self.callback.take() {
            let_go("a callback", callback);
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe_callback::<F>(self.location, f)
    }
}

impl<F> Drop for Once<F> {
    /// One that nobody ran or cancelled, as its loop was closed before it came there.
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            let_go("a callback", callback);
        }
    }
}

/// The name of a callback's type contains the function that made it.
pub(super) fn describe_callback<F>(
    location: &Location<'_>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "{}() at {}:{}", std::any::type_name::<F>(), location.file(), location.line())
}

/// No loop has this number.
pub(super) const NO_LOOP: u64 = u64::MAX;
