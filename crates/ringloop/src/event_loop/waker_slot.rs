//! The waker of the one who waits for something.

use std::cell::Cell;
use std::task::Waker;

use super::door::{call_all, let_go};

/// A place for one waker. It may be anybody's, so it is cloned, woken and dropped with nothing borrowed, and its panics go
/// no further.
#[derive(Default)]
pub(crate) struct WakerSlot(Cell<Option<Waker>>);

impl WakerSlot {
    /// Keeps `waker` in the place of the one that was there.
    pub(crate) fn set(&self, waker: &Waker) {
        let known = self.0.take();
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.0.set(known);
        } else {
            self.0.set(Some(waker.clone()));
            let_go("a waker", known);
        }
    }

    /// Whether `waker` is there.
    pub(crate) fn holds(&self, waker: &Waker) -> bool {
        let known = self.0.take();
        let is_there = known.as_ref().is_some_and(|known| known.will_wake(waker));
        self.0.set(known);
        is_there
    }

    /// Wakes, and is empty then.
    pub(crate) fn wake(&self) {
        call_all(&"a waker", self.0.take(), Waker::wake);
    }

    /// Lets go of the waker; gives whether there was one.
    pub(crate) fn clear(&self) -> bool {
        self.0.take().map(|waker| let_go("a waker", waker)).is_some()
    }
}

impl Drop for WakerSlot {
    fn drop(&mut self) {
        self.clear();
    }
}
