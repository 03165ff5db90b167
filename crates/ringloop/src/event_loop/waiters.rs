//! Who waits for something: wakers and callbacks, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::task::Waker;

/// Those who wait for one thing. Each has a place, which stays valid until it leaves or all are taken.
///
/// Wakers are cloned and dropped outside of the borrow: with a foreign one that runs user code.
pub(crate) struct Waiters<C = Infallible> {
    queue: RefCell<Queue<C>>,
    next_place: Cell<u64>,
}

pub(crate) enum Waiter<C = Infallible> {
    Waker(Waker),
    Callback(C),
}

/// Most things are waited for by one, who therefore costs no allocation.
struct Queue<C> {
    /// Came before the rest.
    first: Option<(u64, Waiter<C>)>,
    rest: Vec<(u64, Waiter<C>)>,
}

impl<C> Waiters<C> {
    pub(crate) fn add(&self, waiter: Waiter<C>) -> u64 {
        let place = self.next_place.replace(self.next_place.get() + 1);
        self.queue.borrow_mut().push((place, waiter));
        place
    }

    /// Keeps `waker` at the place that it has, or gives it one.
    pub(crate) fn join(&self, place: Option<u64>, waker: &Waker) -> u64 {
        let Some(place) = place else { return self.add(Waiter::Waker(waker.clone())) };
        if !self.is_at(place, waker) {
            let waker = waker.clone();
            let mut queue = self.queue.borrow_mut();
            let known = queue.iter_mut().find(|(known, _)| *known == place);
            let old = known.map(|(_, old)| std::mem::replace(old, Waiter::Waker(waker)));
            drop(queue);
            drop(old);
        }
        place
    }

    /// Whether `waker` waits at `place`.
    pub(crate) fn is_at(&self, place: u64, waker: &Waker) -> bool {
        self.queue.borrow().iter().any(|(known, waiter)| {
            *known == place && matches!(waiter, Waiter::Waker(known) if known.will_wake(waker))
        })
    }

    /// Whether who had got `place` still waits there: not taken, and not left.
    pub(crate) fn holds(&self, place: u64) -> bool {
        self.queue.borrow().iter().any(|(known, _)| *known == place)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().iter().next().is_none()
    }

    /// Gives whether anybody was there.
    pub(crate) fn leave(&self, place: u64) -> bool {
        let old = self.queue.borrow_mut().remove(place);
        old.is_some() // Dropped after the borrow.
    }

    /// Takes back all callbacks that are `equal` and gives their number. The caller holds them, too.
    pub(crate) fn remove_callbacks(&self, equal: impl Fn(&C) -> bool) -> usize {
        let equal = |waiter: &Waiter<C>| matches!(waiter, Waiter::Callback(known) if equal(known));
        let mut queue = self.queue.borrow_mut();
        let first = queue.first.take_if(|(_, waiter)| equal(waiter));
        let before = queue.rest.len();
        queue.rest.retain(|(_, waiter)| !equal(waiter));
        before - queue.rest.len() + usize::from(first.is_some())
    }

    pub(crate) fn take(&self) -> impl Iterator<Item = Waiter<C>> + use<C> {
        let Queue { first, rest } = self.queue.take();
        first.into_iter().chain(rest).map(|(_, waiter)| waiter)
    }
}

impl Waiters {
    /// Wakes all, in their order; they are not there any more.
    pub(crate) fn wake_all(&self) {
        for waiter in self.take() {
            match waiter {
                Waiter::Waker(waker) => waker.wake(),
                Waiter::Callback(never) => match never {},
            }
        }
    }
}

impl<C> Default for Waiters<C> {
    fn default() -> Self {
        Self { queue: RefCell::default(), next_place: Cell::new(0) }
    }
}

impl<C> Queue<C> {
    fn push(&mut self, entry: (u64, Waiter<C>)) {
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(entry);
        } else {
            self.rest.push(entry);
        }
    }

    fn remove(&mut self, place: u64) -> Option<(u64, Waiter<C>)> {
        if let Some(first) = self.first.take_if(|(known, _)| *known == place) {
            return Some(first);
        }
        let at = self.rest.iter().position(|(known, _)| *known == place)?;
        Some(self.rest.remove(at))
    }

    fn iter(&self) -> impl Iterator<Item = &(u64, Waiter<C>)> {
        self.first.iter().chain(&self.rest)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut (u64, Waiter<C>)> {
        self.first.iter_mut().chain(&mut self.rest)
    }
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}
