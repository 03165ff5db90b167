//! Who waits for something: wakers and callbacks, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::task::{Context, Waker};

use super::door::{self, let_go};

/// Those who wait for one thing. Each has a place, which stays valid until it leaves or all are taken.
///
/// Wakers are cloned, woken and dropped outside of the borrow: with a foreign one that runs user code.
pub(crate) struct Waiters<C = Infallible> {
    queue: RefCell<Queue<C>>,
    next_place: Cell<u64>,
    /// How often all were woken, if anybody was there or not.
    wakes: Cell<u64>,
}

pub(crate) enum Waiter<C = Infallible> {
    Waker(Waker),
    Callback(C),
}

/// Most things are waited for by one, who therefore costs no allocation. Where there are thousands, each leaves at the cost
/// of a look-up.
struct Queue<C> {
    /// Came before the rest.
    first: Option<(u64, Waiter<C>)>,
    /// In the order of their places. Who has left is `None`.
    rest: Vec<(u64, Option<Waiter<C>>)>,
    /// How many of the rest have left.
    left: usize,
}

impl<C> Waiters<C> {
    pub(crate) fn add(&self, waiter: Waiter<C>) -> u64 {
        let place = self.next_place.replace(self.next_place.get() + 1);
        self.queue.borrow_mut().push(place, waiter);
        place
    }

    /// Keeps `waker` at the place that it has, or gives it one.
    pub(crate) fn join(&self, place: Option<u64>, waker: &Waker) -> u64 {
        if let Some(place) = place.filter(|&place| self.is_at(place, waker)) {
            return place;
        }
        let wakes = self.wakes.get();
        let mut clone = Waiter::Waker(waker.clone());
        let place = match place {
            None => self.add(clone),
            Some(place) => {
                if let Some(kept) = self.queue.borrow_mut().get_mut(place) {
                    std::mem::swap(kept, &mut clone);
                }
                let_go("a waker", clone); // The old one; or the new one, if nobody waits at the place any more.
                place
            }
        };
        if self.wakes.get() != wakes {
            door::wake(waker); // The clone of a foreign waker has brought about what it is to wait for.
        }
        place
    }

    /// Waits at the place in `place`, or at a new one if nobody waits there any more.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn wait(&self, place: &Cell<Option<u64>>, waker: &Waker) {
        let held = place.get().filter(|&place| self.holds(place));
        place.set(Some(self.join(held, waker)));
    }

    /// Whether `waker` waits at `place`.
    pub(crate) fn is_at(&self, place: u64, waker: &Waker) -> bool {
        let queue = self.queue.borrow();
        matches!(queue.get(place), Some(Waiter::Waker(known)) if known.will_wake(waker))
    }

    /// Whether who had got `place` still waits there: not taken, and not left.
    pub(crate) fn holds(&self, place: u64) -> bool {
        self.queue.borrow().get(place).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Gives whether anybody was there.
    pub(crate) fn leave(&self, place: u64) -> bool {
        let old = self.queue.borrow_mut().remove(place);
        old.map(|old| let_go("a waker", old)).is_some()
    }

    /// Takes back all callbacks that are `equal` and gives their number. The caller holds them, too.
    pub(crate) fn remove_callbacks(&self, equal: impl Fn(&C) -> bool) -> usize {
        let equal = |waiter: &Waiter<C>| matches!(waiter, Waiter::Callback(known) if equal(known));
        let mut queue = self.queue.borrow_mut();
        let first = queue.first.take_if(|(_, waiter)| equal(waiter));
        let mut removed = 0;
        for (_, waiter) in &mut queue.rest {
            if waiter.take_if(|waiter| equal(waiter)).is_some() {
                removed += 1;
            }
        }
        queue.left += removed;
        queue.tidy();
        removed + usize::from(first.is_some())
    }

    /// Wakes all and calls `call` with the callbacks, in their order; they are not there any more. A waker that panics is
    /// reported.
    pub(crate) fn wake(&self, mut call: impl FnMut(C)) {
        self.wakes.set(self.wakes.get() + 1);
        if self.is_empty() {
            return;
        }
        door::call_all(&"a waker", self.take(), |waiter| match waiter {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Callback(callback) => call(callback),
        });
    }

    /// All leave, and nobody is woken.
    pub(crate) fn dismiss(&self) {
        if !self.is_empty() {
            door::let_go_all("a waker", self.take());
        }
    }

    fn take(&self) -> impl Iterator<Item = Waiter<C>> + use<C> {
        let Queue { first, rest, .. } = self.queue.take();
        let first = first.map(|(_, waiter)| waiter);
        first.into_iter().chain(rest.into_iter().filter_map(|(_, waiter)| waiter))
    }
}

/// That of one who waits, once it does. It is left when this is dropped.
pub(crate) struct Place<'a, C = Infallible> {
    waiters: &'a Waiters<C>,
    place: Option<u64>,
}

impl<'a, C> Place<'a, C> {
    pub(crate) fn new(waiters: &'a Waiters<C>) -> Self {
        Self { waiters, place: None }
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.place.is_some()
    }

    /// Begins to wait, or goes on; false once `must_wait` is. The clone of a foreign waker may change that.
    ///
    /// Whoever wakes has made `must_wait` false before, and it stays so: a place that was woken is not taken again.
    pub(crate) fn is_waiting(&mut self, cx: &Context<'_>, must_wait: impl Fn() -> bool) -> bool {
        if !must_wait() {
            return false;
        }
        self.place = Some(self.waiters.join(self.place, cx.waker()));
        must_wait()
    }
}

impl<C> Drop for Place<'_, C> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.waiters.leave(place);
        }
    }
}

impl Waiters {
    /// Wakes all, in their order; they are not there any more.
    pub(crate) fn wake_all(&self) {
        self.wake(|never| match never {});
    }
}

impl<C> Drop for Waiters<C> {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl<C> Default for Waiters<C> {
    fn default() -> Self {
        Self { queue: RefCell::default(), next_place: Cell::new(0), wakes: Cell::new(0) }
    }
}

impl<C> Queue<C> {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.len() == self.left
    }

    fn push(&mut self, place: u64, waiter: Waiter<C>) {
        if self.is_empty() {
            self.first = Some((place, waiter));
        } else {
            self.rest.push((place, Some(waiter)));
        }
    }

    fn remove(&mut self, place: u64) -> Option<Waiter<C>> {
        if let Some((_, first)) = self.first.take_if(|(known, _)| *known == place) {
            return Some(first);
        }
        let at = self.at(place)?;
        let waiter = self.rest[at].1.take()?;
        self.left += 1;
        self.tidy();
        Some(waiter)
    }

    fn get(&self, place: u64) -> Option<&Waiter<C>> {
        match &self.first {
            Some((known, first)) if *known == place => Some(first),
            _ => self.rest[self.at(place)?].1.as_ref(),
        }
    }

    fn get_mut(&mut self, place: u64) -> Option<&mut Waiter<C>> {
        if self.first.as_ref().is_some_and(|(known, _)| *known == place) {
            return self.first.as_mut().map(|(_, first)| first);
        }
        let at = self.at(place)?;
        self.rest[at].1.as_mut()
    }

    fn at(&self, place: u64) -> Option<usize> {
        self.rest.binary_search_by_key(&place, |&(known, _)| known).ok()
    }

    /// Gives up the places of those who have left, when most have.
    fn tidy(&mut self) {
        if self.left * 2 > self.rest.len() {
            self.rest.retain(|(_, waiter)| waiter.is_some());
            self.left = 0;
        }
    }
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new(), left: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_stay_are_in_their_order_whoever_leaves() {
        let waiters = Waiters::default();
        let places: Vec<u64> =
            (0..100).map(|number| waiters.add(Waiter::Callback(number))).collect();
        let leave = |number: usize| waiters.leave(places[number]);
        assert!((0..100).filter(|number| number % 3 != 1).all(leave));
        assert!(!leave(0) && !leave(98), "they have left");
        assert!(waiters.holds(places[97]) && !waiters.holds(places[98]));
        assert_eq!(waiters.remove_callbacks(|&number| number > 90), 3);
        assert_eq!(waiters.remove_callbacks(|&number| number > 90), 0);
        waiters.add(Waiter::Callback(100));
        let left = waiters.take().map(|waiter| match waiter {
            Waiter::Callback(number) => number,
            Waiter::Waker(_) => unreachable!(),
        });
        assert!(left.eq((1..90).step_by(3).chain([100])));
        assert!(waiters.is_empty() && !leave(1));
    }

    #[test]
    fn when_all_have_left_the_next_is_the_first_again() {
        let waiters = Waiters::<()>::default();
        let places: Vec<u64> = (0..3).map(|_| waiters.add(Waiter::Callback(()))).collect();
        assert!(places.iter().all(|&place| waiters.leave(place)) && waiters.is_empty());
        let place = waiters.add(Waiter::Callback(()));
        assert!(waiters.holds(place) && !waiters.is_empty());
        assert!(waiters.leave(place) && waiters.is_empty());
    }
}
