//! One watched descriptor.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use ringloop_driver::{Completion, Interest, OpKey, Outcome, Readiness, Token, WatchedFile};

use super::Callback;
use crate::Result;
use crate::event_loop::{EventLoop, Source};

/// A descriptor with its reader and writer.
pub(super) struct Watcher {
    fd: RawFd,
    token: Cell<Token>,
    /// `None` once the last watch is removed.
    file: RefCell<Option<WatchedFile>>,
    /// The poll op in flight, and what it waits for.
    armed: Cell<Option<(OpKey, Interest)>>,
    reader: Slot,
    writer: Slot,
    /// It is on the loop's list of those to be flushed.
    staged: Cell<bool>,
    /// The iteration in which it was put there. Arming waits for the next one: what is ready now may be taken by a handle
    /// that is still to run.
    since: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// A reader or a writer, if there is one.
#[derive(Default)]
struct Slot(RefCell<Option<Rc<Watch>>>);

struct Watch {
    callback: RefCell<Callback>,
    /// Its handle is in the ready queue. One that replaces it is not, and so does not run by that handle.
    queued: Cell<bool>,
}

impl Watcher {
    /// Takes the file that `fd` names now.
    pub(super) fn start(event_loop: &EventLoop, fd: RawFd) -> Result<Rc<Self>> {
        let file = event_loop.driver().watch(&fd)?;
        let watcher = Rc::new(Self {
            fd,
            token: Cell::new(Token(0)),
            file: RefCell::new(Some(file)),
            armed: Cell::new(None),
            reader: Slot::default(),
            writer: Slot::default(),
            staged: Cell::new(false),
            since: Cell::new(0),
        });
        watcher.token.set(event_loop.register(Rc::clone(&watcher) as _));
        Ok(watcher)
    }

    /// Puts a callback in place of the one that is there.
    pub(super) fn set(
        self: &Rc<Self>,
        direction: Direction,
        callback: Callback,
        event_loop: &EventLoop,
    ) -> Result<()> {
        self.renew(event_loop)?;
        let watch = Watch { callback: RefCell::new(callback), queued: Cell::new(false) };
        let old = self.slot(direction).0.replace(Some(Rc::new(watch)));
        drop(old); // Outside the borrow: what a callback holds may run user code.
        self.stage(event_loop);
        Ok(())
    }

    /// Takes a callback away; whether there was one.
    pub(super) fn clear(&self, direction: Direction) -> bool {
        let old = self.slot(direction).0.take();
        old.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.interest() == Interest::default()
    }

    /// The last watch was removed: nothing of it is left in the kernel when this returns.
    pub(super) fn end(&self, event_loop: &EventLoop) {
        self.armed.set(None);
        let file = self.file.take();
        if let Some(file) = file {
            event_loop.driver().unwatch(file);
        }
        event_loop.unregister(self.token.get());
    }

    /// The number may have been closed since, and name another file now.
    fn renew(&self, event_loop: &EventLoop) -> Result<()> {
        let mut file = self.file.borrow_mut();
        if file.as_ref().is_some_and(WatchedFile::is_current) {
            return Ok(());
        }
        self.armed.set(None);
        if let Some(old) = file.take() {
            event_loop.driver().unwatch(old);
        }
        *file = Some(event_loop.driver().watch(&self.fd)?);
        Ok(())
    }

    fn stage(self: &Rc<Self>, event_loop: &EventLoop) {
        self.since.set(event_loop.iteration());
        if !self.staged.replace(true) {
            event_loop.stage(Rc::clone(self) as _);
        }
    }

    fn interest(&self) -> Interest {
        Interest { read: self.reader.is_set(), write: self.writer.is_set() }
    }

    fn slot(&self, direction: Direction) -> &Slot {
        match direction {
            Direction::Read => &self.reader,
            Direction::Write => &self.writer,
        }
    }

    fn queue(self: &Rc<Self>, direction: Direction, event_loop: &EventLoop) {
        if let Some(watch) = self.slot(direction).get() {
            if !watch.queued.replace(true) {
                event_loop.queue_source(Rc::clone(self) as _, direction as u8);
            }
        }
    }
}

impl Source for Watcher {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        if self.armed.get().is_none_or(|(key, _)| key != completion.key) {
            return;
        }
        self.armed.set(None);
        // An error of the poll itself is for the callbacks to find, as one of the descriptor is.
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
        self.stage(event_loop);
    }

    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop) {
        let direction =
            if event == Direction::Read as u8 { Direction::Read } else { Direction::Write };
        let Some(watch) = self.slot(direction).get() else { return };
        if watch.queued.replace(false) {
            // Only handles call it, and they do not nest; it may replace itself, as this clone keeps it.
            if let Ok(mut callback) = watch.callback.try_borrow_mut() {
                callback(event_loop);
            }
        }
    }

    fn flush(self: Rc<Self>, event_loop: &EventLoop) {
        self.staged.set(false);
        if self.since.get() == event_loop.iteration() {
            self.stage(event_loop);
            return;
        }
        let interest = self.interest();
        let file = self.file.borrow();
        let (Some(file), false) = (&*file, interest == Interest::default()) else { return };
        if let Some((key, armed)) = self.armed.get() {
            if armed.read >= interest.read && armed.write >= interest.write {
                return;
            }
            // It waits for less than is wanted. What it may have seen, the new one sees too.
            drop(event_loop.driver().retire(key));
        }
        let key = event_loop.driver().poll_watched(file, interest, self.token.get());
        self.armed.set(Some((key, interest)));
    }

    fn on_loop_close(self: Rc<Self>) {
        self.armed.set(None);
        self.clear(Direction::Read);
        self.clear(Direction::Write);
        drop(self.file.take());
    }

    fn describe(&self) -> String {
        format!("<Watcher fd={}>", self.fd)
    }
}

impl Slot {
    fn get(&self) -> Option<Rc<Watch>> {
        self.0.borrow().clone()
    }

    fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }
}
