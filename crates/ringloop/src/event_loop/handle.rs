//! Handles, and the callbacks in them.
//!
//! # Life of a callback
//!
//! `call_soon()` puts it at the end of the ready queue and gives a [`Handle`] out. The iteration takes it from the front and
//! runs it, or passes over it if it was cancelled meanwhile. A callback is taken out of its cell when it runs or is cancelled,
//! whichever is first: what it holds is freed then, and not when the last handle is dropped.

use std::fmt;
use std::rc::Rc;

use super::EventLoop;

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
