//! The sending half: bytes are staged, go out with the iteration's enter, and what the kernel does not take at once waits
//! in one send in flight, as asyncio's `_write_ready` drives it.
//!
//! Two kinds of send are told apart. A *fresh* one was submitted and nobody has looked yet: asyncio's `write()` would have
//! made that system call itself, so its errors and its size show where somebody looks ([`Stream::offer`]). One that
//! *waits* was looked at, and the kernel had no room: asyncio's non-empty buffer, of which the protocol hears by the write
//! event.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use ringloop_driver::{Chunk, Completion, Outcome, SendQueue};
use socket2::SockRef;

use super::Stream;
use crate::transport::flow_control::FlowControl;
use crate::transport::write_buffer::WriteBuffer;
use crate::transport::{ProtocolError, StreamTransport, WriteMode};
use crate::{Error, EventLoop, Result};

pub(super) struct Writing {
    buffer: RefCell<WriteBuffer>,
    pub(super) flow: FlowControl,
    mode: Cell<WriteMode>,
    /// `write_eof()` was called.
    has_eof: Cell<bool>,
    /// The sending side is shut down.
    is_shut_down: Cell<bool>,
    /// The handle has something to do for the sending half.
    has_event: Cell<bool>,
    /// A send that must not be accounted in the reap: it failed, or dropping what it sent may run user code.
    landed: RefCell<Option<(io::Result<usize>, SendQueue)>>,
}

impl Writing {
    pub(super) fn new(mode: WriteMode) -> Self {
        Self {
            buffer: RefCell::default(),
            flow: FlowControl::new(),
            mode: Cell::new(mode),
            has_eof: Cell::new(false),
            is_shut_down: Cell::new(false),
            has_event: Cell::new(false),
            landed: RefCell::default(),
        }
    }

    pub(super) fn mode(&self) -> WriteMode {
        self.mode.get()
    }

    pub(super) fn set_mode(&self, mode: WriteMode) {
        self.mode.set(mode);
    }

    pub(super) fn size(&self) -> usize {
        self.buffer.borrow().size()
    }

    /// asyncio's non-empty buffer: the kernel is known to have no room.
    pub(super) fn is_flushing(&self) -> bool {
        self.buffer.borrow().is_waiting()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.buffer.borrow().key().is_some()
    }

    pub(super) fn is_unborrowed(&self) -> bool {
        self.buffer.try_borrow_mut().is_ok() && self.landed.try_borrow_mut().is_ok()
    }

    /// Whether a send has met a reset of which the protocol has not heard.
    pub(super) fn has_failed_by_reset(&self) -> bool {
        match &*self.landed.borrow() {
            Some((Err(error), _)) => error.raw_os_error() != Some(libc::EPIPE),
            _ => false,
        }
    }

    /// Everything that is not in flight, to be dropped outside of borrows.
    pub(super) fn take_all(&self) -> (SendQueue, Option<(io::Result<usize>, SendQueue)>) {
        (self.buffer.borrow_mut().take_staged(), self.landed.take())
    }

    fn wants_shut_down(&self) -> bool {
        self.has_eof.get() && !self.is_shut_down.get()
    }
}

impl Stream {
    pub(super) fn write_chunk(self: &Rc<Self>, data: Chunk<'_>) -> Result<()> {
        if self.writing.has_eof.get() {
            return Err(Error::state("Cannot call write() after write_eof()"));
        }
        if data.is_empty() || self.is_too_late() {
            return Ok(());
        }
        let was_empty = self.writing.buffer.borrow().is_empty();
        self.writing.buffer.borrow_mut().push(data);
        self.written(was_empty);
        Ok(())
    }

    pub(super) fn write_list<'a>(
        self: &Rc<Self>,
        list: &mut dyn Iterator<Item = Chunk<'a>>,
    ) -> Result<()> {
        if self.writing.has_eof.get() {
            return Err(Error::state("Cannot call writelines() after write_eof()"));
        }
        // The iterator is the user's own, so nothing is borrowed while it runs.
        let mut queue = SendQueue::new();
        for chunk in list {
            if !chunk.is_empty() {
                queue.push(chunk);
            }
        }
        if queue.is_empty() || self.is_too_late() {
            return Ok(());
        }
        self.writing.buffer.borrow_mut().append(queue);
        self.written(true); // asyncio tries to send even behind what is buffered (WRITE-21).
        Ok(())
    }

    /// What `write()` does once the bytes are staged.
    fn written(self: &Rc<Self>, was_empty: bool) {
        let Some(event_loop) = self.event_loop() else { return };
        let writing = &self.writing;
        match writing.mode.get() {
            WriteMode::Immediate if was_empty => self.offer(&event_loop),
            WriteMode::Immediate => {}
            // The kernel has had no room already, so there is nothing to find out.
            WriteMode::Batched if writing.flow.is_paused() => {}
            WriteMode::Batched if writing.flow.is_over(writing.size()) => self.offer(&event_loop),
            WriteMode::Batched => {
                if !writing.is_flushing() {
                    self.list(&event_loop);
                }
            }
        }
        self.maybe_pause_protocol();
    }

    /// Whether a write comes after the loss: it is counted, and warned of when that goes on (WRITE-10).
    fn is_too_late(self: &Rc<Self>) -> bool {
        if self.assumes_sent.get() {
            // Whether it comes too late depends on whether the kernel took all that was staged.
            self.flush_now_ref();
            if self.assumes_sent.get() && self.writing.size() == 0 {
                self.assumes_sent.set(false);
                self.conn_lost.set(1);
            }
        }
        let count = self.conn_lost.get();
        if count == 0 {
            return false;
        }
        if count >= WARNING_THRESHOLD {
            if let Some(event_loop) = self.event_loop() {
                event_loop.warn("socket.send() raised exception.");
            }
        }
        self.conn_lost.set(count.saturating_add(1));
        true
    }

    pub(super) fn end_writing(self: &Rc<Self>) {
        if self.closing.get() || self.writing.has_eof.replace(true) {
            return;
        }
        self.flush_now_ref();
        if self.conn_lost.get() == 0 && self.writing.size() == 0 {
            self.shut_down();
        }
    }

    /// What asyncio would show.
    pub(super) fn buffer_size(&self) -> usize {
        if self.conn_lost.get() > 0 { 0 } else { self.writing.size() }
    }

    pub(super) fn maybe_pause_protocol(self: &Rc<Self>) {
        if self.writing.flow.pauses(self.buffer_size()) {
            if let Some(protocol) = self.protocol() {
                let transport = self.transport();
                transport.call_paused(true, || protocol.pause_writing(&transport));
            }
        }
    }

    fn maybe_resume_protocol(self: &Rc<Self>) {
        if self.writing.flow.resumes(self.writing.size()) {
            if let Some(protocol) = self.protocol() {
                let transport = self.transport();
                transport.call_paused(false, || protocol.resume_writing(&transport));
            }
        }
    }

    pub(super) fn flush_now_ref(self: &Rc<Self>) {
        if let Some(event_loop) = self.event_loop() {
            self.offer(&event_loop);
        }
    }

    /// Makes it as if each `write()` had called the kernel itself: what is staged is offered to it, and what it did not
    /// take waits in a send. An error ends the connection here.
    pub(super) fn offer(self: &Rc<Self>, event_loop: &EventLoop) {
        let fresh = self.writing.buffer.borrow().fresh();
        if self.conn_lost.get() == 0 && fresh.is_some() {
            self.look(event_loop);
        }
        while self.conn_lost.get() == 0 && self.send(How::Now, event_loop) {
            if !self.look(event_loop) {
                break;
            }
        }
        if self.conn_lost.get() == 0 {
            self.send(How::Waiting, event_loop);
        }
    }

    /// Submits what is queued, and accounts for the send in flight if it has completed; one that has not is waiting. Gives
    /// whether to try again: it was interrupted.
    fn look(self: &Rc<Self>, event_loop: &EventLoop) -> bool {
        let key = self.writing.buffer.borrow().key();
        let looked = key.and_then(|key| event_loop.driver().look(key).ok().flatten());
        if let Some(Completion { outcome: Outcome::Sent(result, queue), .. }) = looked {
            let again = has_errno(&result, libc::EINTR);
            self.writing.buffer.borrow_mut().landed();
            self.account(result, queue, event_loop);
            return again;
        }
        self.writing.buffer.borrow_mut().looked();
        false
    }

    /// Gives what is staged to the driver, unless something is out.
    fn send(&self, how: How, event_loop: &EventLoop) -> bool {
        let sent = self.with_descriptor(|descriptor, token| {
            let queue = self.writing.buffer.borrow_mut().begin()?;
            let key = event_loop.driver().send(descriptor, queue, how == How::Now, token);
            self.writing.buffer.borrow_mut().flying(key, how != How::Waiting);
            Some(())
        });
        sent.flatten().is_some()
    }

    pub(super) fn cancel_send(&self, event_loop: &EventLoop) {
        let key = self.writing.buffer.borrow().key();
        if let Some(key) = key {
            event_loop.driver().cancel(key);
        }
    }

    /// Waits for the last completion, if it is not in yet.
    pub(super) fn retire_send(&self, event_loop: &EventLoop) {
        let key = self.writing.buffer.borrow().key();
        if let Some(key) = key {
            let completions = event_loop.driver().retire(key);
            if !completions.is_empty() {
                self.writing.buffer.borrow_mut().landed();
            }
            drop(completions); // And the queue with them, with nothing borrowed.
        }
    }

    /// A send has completed. In the reap: no user code.
    pub(super) fn sent(
        self: &Rc<Self>,
        result: io::Result<usize>,
        mut queue: SendQueue,
        event_loop: &EventLoop,
    ) {
        let writing = &self.writing;
        let was_fresh = writing.buffer.borrow_mut().landed();
        if self.conn_lost.get() > 0 {
            // Dropped when `LOST` runs.
            writing.landed.replace(Some((Ok(0), queue)));
            return;
        }
        match result {
            Err(error) if !is_passing(&error) => {
                writing.landed.replace(Some((Err(error), queue)));
                if was_fresh {
                    // asyncio's `write()` had met it, before any of what has arrived since (ERR-09).
                    self.lose_by_send(event_loop);
                } else {
                    writing.has_event.set(true);
                    self.queue_io(event_loop);
                }
            }
            result if queue.has_foreign() => {
                writing.landed.replace(Some((result, queue)));
                writing.has_event.set(true);
                self.queue_io(event_loop);
            }
            result => {
                queue.advance(result.unwrap_or(0));
                self.settle(queue, event_loop);
            }
        }
    }

    /// Before the loop waits, or in between.
    pub(super) fn flush_writing(self: &Rc<Self>, event_loop: &EventLoop) {
        // One that was submitted earlier in this iteration has mostly completed: what came since need not wait for it.
        let fresh = self.writing.buffer.borrow().fresh();
        let landed = fresh.and_then(|key| event_loop.driver().peek(key));
        if let Some(Completion { outcome: Outcome::Sent(result, queue), .. }) = landed {
            self.sent(result, queue, event_loop);
        }
        self.send(How::Batched, event_loop);
    }

    /// As [`sent`](Self::sent), but outside of the reap.
    fn account(
        self: &Rc<Self>,
        result: io::Result<usize>,
        mut queue: SendQueue,
        event_loop: &EventLoop,
    ) {
        match result {
            Err(error) if !is_passing(&error) => {
                self.writing.landed.replace(Some((Err(error), queue)));
                self.lose_by_send(event_loop);
                drop(self.writing.take_all());
            }
            result => {
                queue.advance(result.unwrap_or(0)); // May run user code, which may write: behind this.
                if self.conn_lost.get() == 0 {
                    self.writing.buffer.borrow_mut().settle(queue);
                    self.tell(event_loop);
                }
            }
        }
    }

    /// After a send, of which `rest` is left.
    fn settle(self: &Rc<Self>, rest: SendQueue, event_loop: &EventLoop) {
        // Where all was taken there may be room for what was written since.
        let how = if rest.is_empty() { How::Batched } else { How::Waiting };
        self.writing.buffer.borrow_mut().settle(rest);
        self.send(how, event_loop);
        self.tell(event_loop);
    }

    /// Queues the handle if the buffer has shrunk so far that there is something to tell or to do. Usually there is not.
    fn tell(self: &Rc<Self>, event_loop: &EventLoop) {
        let (writing, size) = (&self.writing, self.writing.size());
        let ends = size == 0
            && (writing.wants_shut_down() || self.closing.get() && !self.assumes_sent.get());
        if ends || writing.flow.is_paused() && size <= writing.flow.limits().0 {
            writing.has_event.set(true);
            self.queue_io(event_loop);
        }
    }

    fn lose_by_send(self: &Rc<Self>, event_loop: &EventLoop) {
        let landed = self.writing.landed.take();
        if let Some((Err(error), queue)) = landed {
            let is_broken = error.raw_os_error() == Some(libc::EPIPE);
            let reset = if is_broken { self.take_reset(event_loop) } else { None };
            self.lose(Some(reset.unwrap_or(error)), event_loop);
            self.writing.landed.replace(Some((Ok(0), queue)));
        }
    }

    /// asyncio's `_write_ready`, from where the send has returned.
    pub(super) fn write_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        let writing = &self.writing;
        if !writing.has_event.replace(false) || self.conn_lost.get() > 0 {
            return;
        }
        let landed = writing.landed.take();
        match landed {
            Some((Err(error), queue)) if !is_passing(&error) => {
                drop(queue);
                let message = "Fatal write error on socket transport";
                self.transport().fatal_error(message, ProtocolError::Io(error));
                return;
            }
            Some((result, queue)) => {
                self.account(result, queue, event_loop);
                writing.has_event.set(false); // This is it.
            }
            None => {}
        }
        if self.conn_lost.get() > 0 {
            return;
        }
        self.send(How::Waiting, event_loop);
        self.maybe_resume_protocol(); // May write, close or abort.
        if self.conn_lost.get() > 0 || self.assumes_sent.get() {
            return;
        }
        if self.closing.get() || writing.wants_shut_down() {
            self.offer(event_loop); // What it has written.
            if self.conn_lost.get() == 0 && writing.size() == 0 {
                if self.closing.get() {
                    self.call_connection_lost(event_loop);
                } else {
                    self.shut_down();
                }
            }
        }
    }

    /// An error means that the peer has gone, which the receiving side reports (WRITE-32).
    fn shut_down(&self) {
        if !self.writing.is_shut_down.replace(true) {
            self.with_descriptor(|descriptor, _| {
                let _ = SockRef::from(descriptor).shutdown(Shutdown::Write);
            });
        }
    }
}

/// What a send does where there is no room, and what it tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Goes with the next enter. Whether there was room is known to nobody before.
    Batched,
    /// Ends at once.
    Now,
    /// There was none: it waits.
    Waiting,
}

/// Nothing was sent, and nothing is wrong: there was no room, or the send was cancelled or interrupted.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED))
}

fn has_errno<T>(result: &io::Result<T>, errno: i32) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(errno))
}

const WARNING_THRESHOLD: u32 = 5;
