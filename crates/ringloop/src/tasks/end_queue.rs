//! Ends of tasks, looked at one by one in callbacks, as asyncio's done callbacks look at them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};

use crate::EventLoop;
use crate::event_loop::{Callback, Scheduler, WatchesEnd};

/// Calls `look_at` with the place of each task that has ended: soon, and in the order of the ends.
///
/// It does so while `owner` lives: a wait that was given up looks at nothing.
pub(super) struct EndQueue<O> {
    owner: Weak<O>,
    look_at: fn(&Rc<O>, usize),
    scheduler: Rc<Scheduler>,
    ended: RefCell<VecDeque<usize>>,
    /// What reports call the callback.
    name: &'static str,
}

impl<O: 'static> EndQueue<O> {
    pub(super) fn new(
        event_loop: &EventLoop,
        owner: Weak<O>,
        name: &'static str,
        look_at: fn(&Rc<O>, usize),
    ) -> Rc<Self> {
        let scheduler = Rc::clone(event_loop.scheduler());
        Rc::new(Self { owner, look_at, scheduler, ended: RefCell::default(), name })
    }
}

impl<O: 'static> WatchesEnd for EndQueue<O> {
    fn ended(self: Rc<Self>, place: usize) {
        self.ended.borrow_mut().push_back(place);
        let scheduler = Rc::clone(&self.scheduler);
        scheduler.call_soon(self);
    }
}

impl<O: 'static> Callback for EndQueue<O> {
    fn run(&self, _: &EventLoop) {
        let place = self.ended.borrow_mut().pop_front();
        if let (Some(place), Some(owner)) = (place, self.owner.upgrade()) {
            (self.look_at)(&owner, place);
        }
    }

    fn cancel(&self) {}

    fn cancelled(&self) -> bool {
        false
    }

    fn release(&self) {}

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}()", self.name)
    }
}
