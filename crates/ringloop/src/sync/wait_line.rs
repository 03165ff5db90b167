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
/// They are woken outside of the borrow: a foreign waker is user code. Whoever leaves stays in the list, marked, until it comes to
/// the front or most have left: so leaving is cheap wherever one stands.
#[derive(Default)]
pub(super) struct WaitLine {
    places: RefCell<VecDeque<Rc<Place>>>,
    /// Those of them that have left.
    left: Cell<usize>,
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
        let is_there =
            |place: &Rc<Place>| place.in_line.get() && place.state.get() != State::Cancelled;
        self.places.borrow().iter().any(is_there)
    }

    pub(super) fn len(&self) -> usize {
        self.places.borrow().len() - self.left.get()
    }

    /// Wakes the first, unless it is woken or cancelled: then its going on, or its drop, does the rest.
    pub(super) fn wake_first(&self) {
        let first = self.places.borrow().front().cloned(); // `leave()` has it in the line.
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
            let waits = place.is_waiting();
            if !place.in_line.replace(false) {
                self.left.set(self.left.get() - 1);
            }
            if waits {
                self.tidy();
                return place.wake();
            }
        }
    }

    /// Takes all out of the line, and wakes those who were not woken yet.
    pub(super) fn release_all(&self) {
        let places = self.places.take();
        self.left.set(0);
        let waits = |place: &Rc<Place>| {
            let waits = place.is_waiting();
            place.in_line.set(false);
            waits
        };
        let waiting: Vec<_> = places.into_iter().filter(waits).collect();
        for place in waiting {
            place.wake();
        }
    }

    /// Takes those who have left from the front, and all of them when they are most.
    fn tidy(&self) {
        let mut places = self.places.borrow_mut();
        let mut left = self.left.get();
        if left * 2 > places.len() {
            places.retain(|place| place.in_line.get());
            left = 0;
        }
        while places.front().is_some_and(|place| !place.in_line.get()) {
            places.pop_front(); // Without a waker, if its turn is gone: no user code runs here.
            left -= 1;
        }
        self.left.set(left);
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
            self.line.left.set(self.line.left.get() + 1);
            self.line.tidy();
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

/// A turn that goes to another who waits if it is given up: who is woken looks again, as those who wait for asyncio's conditions do.
pub(super) struct PassedOn<'a> {
    pub(super) turn: Turn<'a>,
    /// It is not given up any more.
    pub(super) over: bool,
}

impl<'a> PassedOn<'a> {
    pub(super) fn join(line: &'a WaitLine) -> Self {
        Self { turn: line.join(), over: false }
    }
}

impl Drop for PassedOn<'_> {
    fn drop(&mut self) {
        self.turn.leave();
        if !self.over {
            self.turn.line.wake(1);
        }
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
    /// In the line, and neither woken nor cancelled.
    fn is_waiting(&self) -> bool {
        self.in_line.get() && self.state.get() == State::Waiting
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

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(turns: &[Option<Turn<'_>>]) -> Vec<usize> {
        let is_woken = |turn: &Option<Turn<'_>>| turn.as_ref().is_some_and(Turn::is_woken);
        (0..turns.len()).filter(|&at| is_woken(&turns[at])).collect()
    }

    #[test]
    fn those_who_stay_are_in_their_order_whoever_leaves() {
        let line = WaitLine::default();
        let mut turns: Vec<_> = (0..100).map(|_| Some(line.join())).collect();
        for at in (0..100).rev().filter(|at| at % 3 != 1) {
            turns[at] = None;
        }
        assert_eq!(line.len(), 33);
        line.wake_first();
        assert!(line.wake_next());
        assert_eq!(woken(&turns), [1, 4]);
        line.release_next();
        assert_eq!(woken(&turns), [1, 4, 7]);
        assert_eq!(line.len(), 30, "those who were woken before it are out of the line as well");
        turns[10] = None;
        turns[1] = None;
        line.wake(2);
        assert_eq!(woken(&turns), [4, 7, 13, 16]);
        line.release_all();
        assert_eq!((woken(&turns).len(), line.len(), line.has_anybody()), (31, 0, false));
        drop(turns);
        assert_eq!((line.len(), line.places.borrow().len()), (0, 0));
        let _turn = line.join();
        assert!(line.has_anybody() && line.len() == 1);
    }

    #[test]
    fn places_of_those_who_have_left_are_given_up() {
        let line = WaitLine::default();
        let _first = line.join();
        for _ in 0..1000 {
            let _leaves = [(); 4].map(|()| line.join());
        }
        assert!(line.places.borrow().len() < 10 && line.len() == 1);
    }
}
