//! Who waits for something: wakers and callbacks, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// The watchers of one thing. Each has a place, which stays valid until it leaves.
///
/// Wakers are cloned and dropped outside of the borrow: with a foreign one that runs user code.
pub(super) struct Watchers<C> {
    watchers: RefCell<Vec<(u64, Watcher<C>)>>,
    next_place: Cell<u64>,
}

pub(super) enum Watcher<C> {
    Waker(Waker),
    Callback(C),
}

impl<C> Watchers<C> {
    pub(super) fn add(&self, watcher: Watcher<C>) -> u64 {
        let place = self.next_place.replace(self.next_place.get() + 1);
        self.watchers.borrow_mut().push((place, watcher));
        place
    }

    /// Keeps `waker` at the place that it has, or gives it one.
    pub(super) fn watch(&self, place: Option<u64>, waker: &Waker) -> u64 {
        let Some(place) = place else { return self.add(Watcher::Waker(waker.clone())) };
        if !self.is_at(place, waker) {
            let waker = waker.clone();
            let mut watchers = self.watchers.borrow_mut();
            let known = watchers.iter_mut().find(|(known, _)| *known == place);
            let old = known.map(|(_, old)| std::mem::replace(old, Watcher::Waker(waker)));
            drop(watchers);
            drop(old);
        }
        place
    }

    /// Whether `waker` waits at `place`.
    pub(super) fn is_at(&self, place: u64, waker: &Waker) -> bool {
        self.watchers.borrow().iter().any(|(known, watcher)| {
            *known == place && matches!(watcher, Watcher::Waker(known) if known.will_wake(waker))
        })
    }

    pub(super) fn unwatch(&self, place: u64) {
        let mut watchers = self.watchers.borrow_mut();
        let at = watchers.iter().position(|(known, _)| *known == place);
        let old = at.map(|at| watchers.remove(at));
        drop(watchers);
        drop(old);
    }

    /// Takes back all callbacks that are `equal` and gives their number. The caller holds them, too.
    pub(super) fn remove_callbacks(&self, equal: impl Fn(&C) -> bool) -> usize {
        let mut watchers = self.watchers.borrow_mut();
        let before = watchers.len();
        watchers
            .retain(|(_, watcher)| !matches!(watcher, Watcher::Callback(known) if equal(known)));
        before - watchers.len()
    }

    pub(super) fn take(&self) -> impl Iterator<Item = Watcher<C>> + use<C> {
        self.watchers.take().into_iter().map(|(_, watcher)| watcher)
    }
}

impl<C> Default for Watchers<C> {
    fn default() -> Self {
        Self { watchers: RefCell::default(), next_place: Cell::new(0) }
    }
}
