//! One watched descriptor.
//!
//! # Re-entrancy
//!
//! User code runs in a callback, and in the drop of one: with nothing borrowed, so it may add and remove any watch, its
//! own included. What takes a callback out of its slot therefore gives it to the caller, who drops it last, when all is
//! as it will be.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use ringloop_driver::{Completion, Interest, Outcome, Readiness, Token, WatchedFile};

use crate::Result;
use crate::event_loop::door::Kept;
use crate::event_loop::{EventLoop, Snapshot, Source};
use crate::source::{Direction, OpSlot};

/// The file that a number named when this was started, with a reader, a writer, both or none.
pub(super) struct Watcher {
    number: RawFd,
    hold: Hold,
    token: Cell<Token>,
    /// `None` once this has ended.
    file: RefCell<Option<WatchedFile>>,
    poll: OpSlot,
    /// What it waits for, while it is in flight.
    armed: Cell<Interest>,
    reader: Slot,
    writer: Slot,
    /// It is on the loop's list of those to be flushed.
    is_listed: Cell<bool>,
    /// The iteration in which it was put there. Arming waits for the next one: what is ready now may be taken by a handle
    /// that is still to run.
    since: Cell<u64>,
}

/// Who watches a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Anybody, by its number.
    Number,
    /// Its owner: nobody else may watch it meanwhile.
    Owner,
}

/// What is called when a descriptor is ready.
pub(super) struct WatchCallback {
    call: RefCell<Call>,
    /// What was set where it was made.
    context: Snapshot,
    /// It stands in its slot and is to run once, by the next handle of that slot. What comes into the slot later does not
    /// run by that handle.
    queued: Cell<bool>,
}

type Call = Kept<Box<dyn FnMut(&EventLoop)>>;

/// The place of a reader or a writer.
#[derive(Default)]
struct Slot(RefCell<Option<Rc<WatchCallback>>>);

impl Watcher {
    /// Takes the file that `number` names now; nothing is waited for yet.
    pub(super) fn start(event_loop: &EventLoop, number: RawFd, hold: Hold) -> Result<Rc<Self>> {
        let file = event_loop.driver().watch(&number)?;
        let watcher = Rc::new(Self {
            number,
            hold,
            token: Cell::new(Token(0)),
            file: RefCell::new(Some(file)),
            poll: OpSlot::default(),
            armed: Cell::default(),
            reader: Slot::default(),
            writer: Slot::default(),
            is_listed: Cell::new(false),
            since: Cell::new(0),
        });
        watcher.token.set(event_loop.register(watcher.clone()));
        Ok(watcher)
    }

    /// Lets go of the file: nothing of this is left in the kernel when it returns. Gives its callbacks, to be dropped last.
    #[must_use]
    pub(super) fn end(&self, event_loop: &EventLoop) -> [Option<Rc<WatchCallback>>; 2] {
        self.disarm(event_loop);
        let file = self.file.take();
        if let (Some(file), Some(mut driver)) = (file, event_loop.try_driver()) {
            driver.unwatch(file);
        }
        event_loop.unregister(self.token.get());
        [self.clear(Direction::Read), self.clear(Direction::Write)]
    }

    /// Puts `callback` into its slot, and gives the one that was there, to be dropped last.
    #[must_use]
    pub(super) fn set(
        self: &Rc<Self>,
        direction: Direction,
        callback: Rc<WatchCallback>,
        event_loop: &EventLoop,
    ) -> Option<Rc<WatchCallback>> {
        let old = self.clear(direction);
        self.slot(direction).0.replace(Some(callback));
        self.list(event_loop);
        old
    }

    /// Empties a slot: what was there does not run any more, even if it was queued. Gives it, to be dropped last.
    #[must_use]
    pub(super) fn clear(&self, direction: Direction) -> Option<Rc<WatchCallback>> {
        let callback = self.slot(direction).0.take()?;
        callback.queued.set(false);
        Some(callback)
    }

    /// Ends the poll op, if there is one.
    pub(super) fn disarm(&self, event_loop: &EventLoop) {
        if let Some(mut driver) = event_loop.try_driver() {
            // Also if it is complete and waits to be reaped: what it has seen is of no interest any more.
            self.poll.retire(&mut driver);
            self.poll.clear();
        }
    }

    /// Whether the number still names this file.
    pub(super) fn is_current(&self) -> bool {
        self.file.borrow().as_ref().is_some_and(WatchedFile::is_current)
    }

    pub(super) fn has(&self, direction: Direction) -> bool {
        self.slot(direction).0.borrow().is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.interest() == Interest::default()
    }

    fn list(self: &Rc<Self>, event_loop: &EventLoop) {
        self.since.set(event_loop.iteration());
        if !self.is_listed.replace(true) {
            event_loop.list_for_flush(self.clone());
        }
    }

    fn arm(&self, event_loop: &EventLoop) {
        let wanted = self.interest();
        if self.poll.is_in_flight() {
            let armed = self.armed.get();
            if armed.read >= wanted.read && armed.write >= wanted.write {
                return;
            }
            // What it may have seen, the new one sees too.
            self.disarm(event_loop);
        }
        let file = self.file.borrow();
        if let (Some(file), false) = (&*file, self.is_idle()) {
            self.poll.fill(event_loop.driver().poll_watched(file, wanted, self.token.get()));
            self.armed.set(wanted);
        }
    }

    fn queue(self: &Rc<Self>, direction: Direction, event_loop: &EventLoop) {
        if let Some(callback) = self.slot(direction).get() {
            callback.queued.set(true);
            event_loop.queue_source(self.clone(), direction as u8);
        }
    }

    fn interest(&self) -> Interest {
        Interest { read: self.has(Direction::Read), write: self.has(Direction::Write) }
    }

    fn slot(&self, direction: Direction) -> &Slot {
        match direction {
            Direction::Read => &self.reader,
            Direction::Write => &self.writer,
        }
    }
}

impl Source for Watcher {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        if self.poll.key() != Some(completion.key) {
            return;
        }
        self.poll.clear();
        // If the poll itself fails, the callbacks run: their own calls on the descriptor return the error.
        let both = Readiness { read: true, write: true };
        let ready = match completion.outcome {
            Outcome::Polled(polled) => polled.unwrap_or(both),
            _ => both,
        };
        if ready.read {
            self.queue(Direction::Read, event_loop);
        }
        if ready.write {
            self.queue(Direction::Write, event_loop);
        }
        self.list(event_loop);
    }

    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop) {
        let direction =
            if event == Direction::Read as u8 { Direction::Read } else { Direction::Write };
        // This clone keeps the callback while it runs: it may take itself out of its slot.
        let Some(callback) = self.slot(direction).get() else { return };
        if callback.queued.replace(false) {
            let _context = callback.context.enter();
            // Nothing else borrows it: only handles call it, and they do not nest.
            (**callback.call.borrow_mut())(event_loop);
        }
    }

    fn flush(self: Rc<Self>, event_loop: &EventLoop) {
        self.is_listed.set(false);
        if self.since.get() == event_loop.iteration() {
            self.list(event_loop);
        } else {
            self.arm(event_loop);
        }
    }

    fn on_loop_close(self: Rc<Self>) {
        self.poll.clear(); // The driver ends what is in flight.
        drop(self.file.take());
        drop([self.clear(Direction::Read), self.clear(Direction::Write)]);
    }

    fn as_raw_fd(&self) -> Option<RawFd> {
        (self.hold == Hold::Owner && self.file.borrow().is_some()).then_some(self.number)
    }

    fn is_watcher(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        let name = match self.hold {
            Hold::Number => "Watcher",
            Hold::Owner => "AsyncFd",
        };
        format!("<{name} fd={}>", self.number)
    }
}

impl WatchCallback {
    pub(super) fn new(call: impl FnMut(&EventLoop) + 'static) -> Rc<Self> {
        let call: Box<dyn FnMut(&EventLoop)> = Box::new(call);
        let call = RefCell::new(Kept::new("a reader or a writer", call));
        Rc::new(Self { call, context: Snapshot::current(), queued: Cell::new(false) })
    }
}

impl Slot {
    fn get(&self) -> Option<Rc<WatchCallback>> {
        self.0.borrow().clone()
    }
}
