//! A timer for a future: it wakes, and runs no callback.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::EventLoop;
use super::handle::Callback;
use super::ready::Entry;
use super::task::{Asking, Deadline, TaskKey};
use super::timers::TimerPlace;
use super::waker_slot::WakerSlot;

/// A timer that wakes whoever looked at it last. Goes off as asyncio's do: its handle runs, and the task soon after.
pub(crate) struct Alarm {
    timer: Rc<AlarmTimer>,
}

impl Alarm {
    /// One that is late already goes off in the next iteration, ahead of what is queued from now on.
    pub(crate) fn set(event_loop: &EventLoop, when: Instant) -> Self {
        let late = when <= event_loop.time();
        let place =
            if late { TimerPlace::none() } else { event_loop.inner.timers.borrow().place() };
        let alarm = Rc::new(AlarmTimer {
            place,
            rang: Cell::new(false),
            cancelled: Cell::new(false),
            waker: WakerSlot::default(),
            expires: Cell::new(None),
        });
        let timer: Rc<dyn Callback> = alarm.clone();
        if late {
            event_loop.scheduler().push(Entry::Callback(timer));
        } else {
            event_loop.inner.timers.borrow_mut().insert(when, timer);
        }
        Self { timer: alarm }
    }

    /// Has what is awaited inside of `deadline` cancelled when it goes off, ahead of whoever comes later in that iteration.
    pub(crate) fn expires(&self, deadline: &Deadline) {
        self.timer.expires.set(Some(deadline.key()));
    }

    /// Whether it went off; if not, `waker` is woken when it does.
    pub(crate) fn rang(&self, waker: &Waker) -> bool {
        if !self.timer.rang.get() {
            self.timer.waker.set(waker);
        }
        self.timer.rang.get()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.timer.cancel();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("rang", &self.timer.rang.get()).finish_non_exhaustive()
    }
}

struct AlarmTimer {
    place: TimerPlace,
    rang: Cell<bool>,
    cancelled: Cell<bool>,
    waker: WakerSlot,
    /// Which deadline of which task.
    expires: Cell<Option<(TaskKey, u64)>>,
}

impl Callback for AlarmTimer {
    fn run(&self, event_loop: &EventLoop) {
        if !self.cancelled.get() {
            self.rang.set(true);
            if let Some((task, deadline)) = self.expires.take() {
                let task = event_loop.tasks().borrow().get(task);
                if let Some(task) = task {
                    Asking::expire(&task, deadline);
                }
            }
            self.waker.wake();
        }
    }

    fn cancel(&self) {
        if !self.cancelled.replace(true) {
            self.place.cancel();
        }
        self.release();
    }

    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }

    fn release(&self) {
        self.waker.clear();
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sleep()")
    }

    fn leave_timers(&self) {
        self.place.leave();
    }
}
