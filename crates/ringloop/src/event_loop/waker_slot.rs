//! The waker of the one who waits for something.

use std::cell::Cell;
use std::task::Waker;

use super::door::{call_all, let_go};

/// A place for one waker. It may be anybody's, so it is cloned, woken and dropped with nothing borrowed, and its panics go
/// no further.
#[derive(Default)]
pub(crate) struct WakerSlot {
    waker: Cell<Option<Waker>>,
    /// Since the last waker came.
    was_woken: Cell<bool>,
}

impl WakerSlot {
    /// Keeps `waker` in the place of the one that was there.
    pub(crate) fn set(&self, waker: &Waker) {
        if self.holds(waker) {
            return;
        }
        self.was_woken.set(false);
        let clone = waker.clone();
        let_go("a waker", self.waker.replace(Some(clone)));
        if self.was_woken.get() {
            self.wake(); // The clone of a foreign waker has brought about what it is to wait for.
        }
    }

    /// Whether `waker` is there.
    pub(crate) fn holds(&self, waker: &Waker) -> bool {
        let known = self.waker.take();
        let is_there = known.as_ref().is_some_and(|known| known.will_wake(waker));
        self.waker.set(known);
        is_there
    }

    /// Wakes, and is empty then.
    pub(crate) fn wake(&self) {
        self.was_woken.set(true);
        call_all(&"a waker", self.waker.take(), Waker::wake);
    }

    /// Lets go of the waker; gives whether there was one.
    pub(crate) fn clear(&self) -> bool {
        self.waker.take().map(|waker| let_go("a waker", waker)).is_some()
    }
}

impl Drop for WakerSlot {
    fn drop(&mut self) {
        self.clear();
    }
}
