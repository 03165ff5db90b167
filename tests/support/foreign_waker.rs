//! Wakers whose clone, wake and drop run code of a test's. `std::task::Wake` has no clone of its own, so they are made by hand.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// What happens to a waker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is cloned.
    Clone,
    /// It is woken.
    Wake,
    /// It, or a clone of it, is dropped.
    Drop,
}

type Act = Box<dyn FnOnce()>;

thread_local! {
    static NEXT: RefCell<Vec<(Event, Act)>> = const { RefCell::new(Vec::new()) };
    static WAKES: Cell<usize> = const { Cell::new(0) };
}

/// A waker of this thread. Those with the same number wake the same.
pub fn foreign_waker(number: usize) -> Waker {
    // SAFETY: the functions of the table never look at the data, which only tells wakers apart.
    unsafe { Waker::new(ptr::without_provenance(number), &TABLE) }
}

/// Calls `act` when this happens to such a waker of this thread, once.
pub fn at_next(event: Event, act: impl FnOnce() + 'static) {
    NEXT.with_borrow_mut(|next| next.push((event, Box::new(act))));
}

/// Whether all that was given to [`at_next`] has been called.
pub fn has_acted() -> bool {
    NEXT.with_borrow(Vec::is_empty)
}

/// How often such wakers of this thread were woken since the last call.
pub fn wakes() -> usize {
    WAKES.take()
}

fn act(event: Event) {
    let act = NEXT.with_borrow_mut(|next| {
        let at = next.iter().position(|(known, _)| *known == event)?;
        Some(next.remove(at).1)
    });
    if let Some(act) = act {
        act();
    }
}

fn clone(data: *const ()) -> RawWaker {
    act(Event::Clone);
    RawWaker::new(data, &TABLE)
}

fn wake_by_ref(_: *const ()) {
    WAKES.set(WAKES.get() + 1);
    act(Event::Wake);
}

fn wake(data: *const ()) {
    wake_by_ref(data);
    act(Event::Drop);
}

fn drop_waker(_: *const ()) {
    act(Event::Drop);
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);
