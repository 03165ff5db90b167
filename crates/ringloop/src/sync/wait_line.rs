//! Those who wait for their turn, in the order in which they came.
//!
//! # Life of a place
//!
//! ```text
//! waiting -> woken      by who gives something
//!         -> cancelled  by a request to end the task, at once
//! ```
//!
//! The place stays in the line until whoever waits goes on or is dropped, unless the line itself took it out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::event_loop::{Asked, Asking, Awaited, WakerSlot, current};

/// A line of those who wait.
///
/// They are woken outside of the borrow: a foreign waker is user code.
#[derive(Default)]
pub(super) struct WaitLine {
    places: RefCell<VecDeque<Rc<Place>>>,
}

impl WaitLine {
    /// Goes to the end of the line.
    pub(super) fn join(&self) -> Turn<'_> {
        let place = Rc::new(Place {
            state: Cell::new(State::Waiting),
            waker: WakerSlot::default(),
            in_line: Cell::new(true),
        });
        self.places.borrow_mut().push_back(Rc::clone(&place));
        Turn { line: self, place }
    }

    /// Whether somebody is there whose wait was not cancelled, woken or not.
    pub(super) fn has_anybody(&self) -> bool {
        self.places.borrow().iter().any(|place| place.state.get() != State::Cancelled)
    }

    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Wakes the first, unless it is woken or cancelled: then its going on, or its drop, does the rest.
    pub(super) fn wake_first(&self) {
        let first = self.places.borrow().front().cloned();
        if let Some(first) = first.filter(|place| place.is_waiting()) {
            first.wake();
        }
    }

    /// Wakes the first who was not woken yet, and leaves it in the line; `false` if there is none.
    pub(super) fn wake_next(&self) -> bool {
        let next = self.places.borrow().iter().find(|place| place.is_waiting()).cloned();
        next.inspect(|place| place.wake()).is_some()
    }

    /// Wakes the first `most` who were not woken yet.
    pub(super) fn wake(&self, most: usize) {
        let places = self.places.borrow();
        let waiting = places.iter().filter(|place| place.is_waiting());
        let woken: Vec<_> = waiting.take(most).cloned().collect();
        drop(places);
        for place in woken {
            place.wake();
        }
    }

    /// Takes the first out of the line who was not woken yet, and wakes it.
    pub(super) fn release_next(&self) {
        loop {
            let Some(place) = self.places.borrow_mut().pop_front() else { return };
            place.in_line.set(false);
            if place.is_waiting() {
                return place.wake();
            }
        }
    }

    /// Takes all out of the line, and wakes those who were not woken yet.
    pub(super) fn release_all(&self) {
        let places = self.places.take();
        for place in &places {
            place.in_line.set(false);
        }
        for place in places.into_iter().filter(|place| place.is_waiting()) {
            place.wake();
        }
    }
}

/// One who waits: awaiting it gives whether it was woken; if not, its wait was cancelled and the request taken back.
///
/// Dropping it leaves the line.
pub(super) struct Turn<'a> {
    line: &'a WaitLine,
    place: Rc<Place>,
}

impl Turn<'_> {
    /// Whether it was woken.
    pub(super) fn is_woken(&self) -> bool {
        self.place.state.get() == State::Woken
    }

    pub(super) fn leave(&self) {
        if self.place.in_line.replace(false) {
            let mut places = self.line.places.borrow_mut();
            let at = places.iter().position(|place| Rc::ptr_eq(place, &self.place));
            let place = at.and_then(|at| places.remove(at));
            drop(places);
            drop(place);
        }
    }
}

impl Future for &mut Turn<'_> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let place = &self.place;
        match place.state.get() {
            State::Woken => Poll::Ready(true),
            State::Cancelled => Poll::Ready(false),
            State::Waiting => {
                place.waker.set(cx.waker());
                current::note_awaited(cx.waker(), place, 0);
                Poll::Pending
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.leave();
        self.place.waker.clear();
    }
}

struct Place {
    state: Cell<State>,
    waker: WakerSlot,
    in_line: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Woken,
    Cancelled,
}

impl Place {
    fn is_waiting(&self) -> bool {
        self.state.get() == State::Waiting
    }

    fn wake(&self) {
        self.end(State::Woken);
    }

    fn end(&self, state: State) {
        self.state.set(state);
        self.waker.wake();
    }
}

impl Awaited for Place {
    fn ask(self: Rc<Self>, _: u64, waker: &Waker, _: &mut Asking<'_>) -> Asked {
        if !self.waker.holds(waker) || !self.is_waiting() {
            return Asked::Nothing;
        }
        self.end(State::Cancelled);
        Asked::Cancelled
    }
}
