//! Timers: `call_later()` and `call_at()`.
//!
//! # Life of a timer
//!
//! A timer waits in a heap, ordered by deadline and then by registration. When its deadline has passed, it moves to the ready
//! queue, behind the I/O handles of that iteration. A timer that is cancelled drops its callback at once. Its place in the
//! heap stays until it comes to the head, or until more than half of the heap is cancelled: so cancelling is cheap, and the
//! heap stays small in a program that sets and cancels timers for ever. [`LazyHeap`] says how sorting is put off.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::EventLoop;
use super::handle::{Callback, Description};
use super::lazy_heap::LazyHeap;
use super::once::Once;

/// A callback that the loop is to run at a given time: what [`EventLoop::call_later`] gives.
///
/// Dropping it changes nothing. A clone is the same handle.
#[derive(Clone)]
pub struct TimerHandle {
    timer: Rc<dyn Callback>,
    when: Instant,
}

impl TimerHandle {
    pub(super) fn new(timer: Rc<dyn Callback>, when: Instant) -> Self {
        Self { timer, when }
    }

    /// The deadline; also after the timer ran or was cancelled.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let timer = event_loop.call_later(Duration::from_secs(3600), |_| ())?;
    /// assert!(timer.when() > event_loop.time() + Duration::from_secs(3500));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn when(&self) -> Instant {
        self.when
    }

    /// Makes the callback never run, and drops it and what it holds at once. Does nothing the second time, or if the
    /// callback has run.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let timer = event_loop.call_later(Duration::from_secs(3600), |_| unreachable!())?;
    /// timer.cancel();
    /// assert!(timer.cancelled());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.timer.cancel();
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.timer.cancelled()
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = if self.cancelled() { "cancelled " } else { "" };
        write!(f, "<TimerHandle {cancelled}when={:?} {}>", self.when, Description(&*self.timer))
    }
}

/// The timers of one loop that are not due yet.
#[derive(Default)]
pub(super) struct Timers {
    /// By deadline and sequence.
    heap: LazyHeap<(Instant, u64), Rc<dyn Callback>>,
    /// How many of them are cancelled; their places count it up.
    cancelled: Rc<Cell<usize>>,
    next_sequence: u64,
}

impl Timers {
    /// What a timer keeps to say that it was cancelled.
    pub(super) fn place(&self) -> TimerPlace {
        TimerPlace(Cell::new(Some(Rc::clone(&self.cancelled))))
    }

    pub(super) fn insert(&mut self, when: Instant, timer: Rc<dyn Callback>) {
        self.purge_if_mostly_cancelled();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.heap.push((when, sequence), timer);
    }

    /// The next deadline, cancelled timers aside.
    #[inline]
    pub(super) fn earliest(&mut self) -> Option<Instant> {
        if self.is_empty() { None } else { self.earliest_of_some() }
    }

    fn earliest_of_some(&mut self) -> Option<Instant> {
        self.purge_if_mostly_cancelled();
        while let Some(((when, _), timer)) = self.heap.peek() {
            if !timer.cancelled() {
                return Some(when);
            }
            self.pop();
        }
        None
    }

    /// The next timer whose deadline has passed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Rc<dyn Callback>> {
        if self.earliest()? <= now { self.pop() } else { None }
    }

    /// Those that wait, the cancelled ones included.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn cancelled(&self) -> usize {
        self.cancelled.get()
    }

    /// Everything that waited, for the caller to release.
    pub(super) fn take(&mut self) -> Vec<Rc<dyn Callback>> {
        let timers: Vec<_> = self.heap.take().collect();
        for timer in &timers {
            timer.leave_timers();
        }
        self.cancelled.set(0);
        timers
    }

    fn pop(&mut self) -> Option<Rc<dyn Callback>> {
        let timer = self.heap.pop()?;
        if timer.cancelled() {
            self.cancelled.set(self.cancelled.get() - 1);
        }
        timer.leave_timers();
        Some(timer)
    }

    /// No user code: a cancelled timer has let its callback go.
    fn purge_if_mostly_cancelled(&mut self) {
        if self.heap.len() <= PURGE_ABOVE || self.cancelled.get() * 2 <= self.heap.len() {
            return;
        }
        self.heap.retain(|timer| {
            let cancelled = timer.cancelled();
            if cancelled {
                timer.leave_timers();
            }
            !cancelled
        });
        self.cancelled.set(0);
    }
}

/// The heap's count of cancelled timers, for as long as the timer is in the heap.
pub(super) struct TimerPlace(Cell<Option<Rc<Cell<usize>>>>);

impl TimerPlace {
    /// For a timer that goes to the ready queue without waiting.
    pub(super) fn none() -> Self {
        Self(Cell::new(None))
    }

    /// The timer is cancelled, for the first time.
    pub(super) fn cancel(&self) {
        if let Some(cancelled) = self.0.take() {
            cancelled.set(cancelled.get() + 1);
        }
    }

    pub(super) fn leave(&self) {
        drop(self.0.take());
    }
}

/// The user's callback, to be run once when its time has come.
pub(super) struct Timer<F> {
    once: Once<F>,
    place: TimerPlace,
}

impl<F: FnOnce(&EventLoop)> Timer<F> {
    pub(super) fn new(once: Once<F>, place: TimerPlace) -> Self {
        Self { once, place }
    }
}

impl<F: FnOnce(&EventLoop)> Callback for Timer<F> {
    fn run(&self, event_loop: &EventLoop) {
        self.once.run(event_loop);
    }

    fn cancel(&self) {
        if !self.once.cancelled() {
            self.place.cancel();
        }
        self.once.cancel();
    }

    fn cancelled(&self) -> bool {
        self.once.cancelled()
    }

    fn release(&self) {
        self.once.release();
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.once.describe(f)
    }

    fn leave_timers(&self) {
        self.place.leave();
    }
}

/// `now + delay`; thirty years ahead if the clock cannot express that.
pub(crate) fn deadline(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay).unwrap_or_else(|| now + FAR)
}

/// Below this many timers, cancelled ones are left where they are.
const PURGE_ABOVE: usize = 100;

/// Thirty years.
pub(super) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
