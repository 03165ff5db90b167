//! Handles, and the callbacks in them.
//!
//! # Life of a callback
//!
//! `call_soon()` puts it at the end of the ready queue and gives a [`Handle`] out. The iteration takes it from the front and
//! runs it, or passes over it if it was cancelled meanwhile. A callback is taken out of its cell when it runs or is cancelled,
//! whichever is first: what it holds is freed then, and not when the last handle is dropped.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::EventLoop;
use super::door::let_go;

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
