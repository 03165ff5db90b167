//! Callbacks that run once: those of `call_soon()`, of timers and of other threads.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;

use super::EventLoop;
use super::door::let_go;
use super::handle::Callback;

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
