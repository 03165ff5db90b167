//! The receiving half: what arrives is staged in the reap and delivered from the handle, as asyncio's `_read_ready` does.
//!
//! A multishot receive is in flight while the protocol reads. It is cancelled when reading pauses, and when the connection
//! holds too many buffers; then one-shot receives go on, one per delivery, until it holds fewer. What arrives while reading
//! is paused is parked, and delivered first when it goes on.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ringloop_driver::{Account, OpKey, Outcome, Received};

use super::Stream;
use crate::EventLoop;
use crate::transport::staged::{Arrived, Staged};
use crate::transport::{AfterEof, ProtocolError, ProtocolRef, StreamTransport, Transport};

pub(super) struct Reading {
    /// The receive in flight.
    op: Cell<Option<OpKey>>,
    is_cancelled: Cell<bool>,
    account: Account,
    staged: RefCell<Staged>,
    /// What asyncio calls a registered reader: arrivals are delivered.
    is_registered: Cell<bool>,
    is_paused: Cell<bool>,
    /// The end or an error was staged: the kernel has no more to say.
    has_ended: Cell<bool>,
    /// The protocol has heard of the end, and kept the transport open.
    eof_was_kept: Cell<bool>,
    /// Data were thrown away undelivered.
    has_discarded: Cell<bool>,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self {
            op: Cell::new(None),
            is_cancelled: Cell::new(false),
            account: Account::new(),
            staged: RefCell::default(),
            is_registered: Cell::new(false),
            is_paused: Cell::new(false),
            has_ended: Cell::new(false),
            eof_was_kept: Cell::new(false),
            has_discarded: Cell::new(false),
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.is_registered.get()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.get()
    }

    pub(super) fn has_discarded(&self) -> bool {
        self.has_discarded.get()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.op.get().is_some()
    }

    pub(super) fn is_unborrowed(&self) -> bool {
        self.staged.try_borrow_mut().is_ok()
    }

    fn discard(&self) {
        let staged = self.staged.take();
        if staged.bytes() > 0 {
            self.has_discarded.set(true);
        }
    }

    fn next_within(&self, budget: usize, is_first: bool) -> Option<Arrived> {
        let mut staged = self.staged.borrow_mut();
        match staged.first()? {
            Arrived::Data(data) if data.len() <= budget || is_first => {}
            // The rest of the data, an end and an error each have an iteration of their own (TRANS-10, TRANS-16).
            _ if !is_first => return None,
            _ => {}
        }
        staged.pop()
    }
}

impl Stream {
    /// Step (2) of the construction (TRANS-04).
    pub(super) fn start_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.closing.get() && !self.reading.is_paused.get() {
            self.reading.is_registered.set(true);
            self.receive(event_loop);
        }
    }

    /// For good: the transport closes.
    pub(super) fn stop_reading(&self, event_loop: &EventLoop) {
        self.reading.is_registered.set(false);
        self.reading.discard();
        self.cancel_receive(event_loop);
    }

    pub(super) fn stop_for_good(&self) {
        self.reading.is_registered.set(false);
        self.reading.discard();
    }

    pub(super) fn pause(self: &Rc<Self>) {
        if self.closing.get() || self.reading.is_paused.replace(true) {
            return;
        }
        self.reading.is_registered.set(false);
        if let (Some(event_loop), Some(_)) = (self.event_loop(), self.reading.op.get()) {
            self.list(&event_loop); // It is cancelled then, unless reading has gone on.
        }
    }

    pub(super) fn resume(self: &Rc<Self>) {
        if self.closing.get() || !self.reading.is_paused.replace(false) {
            return;
        }
        let Some(event_loop) = self.event_loop() else { return };
        self.reading.is_registered.set(true);
        let mut staged = self.reading.staged.borrow_mut();
        if self.reading.eof_was_kept.get() && !staged.ends_with_eof() {
            staged.push(Arrived::Eof); // A socket at its end stays readable (TRANS-15).
        }
        drop(staged);
        self.go_on_reading(&event_loop);
    }

    /// A receive has completed. In the reap: no user code.
    pub(super) fn received(
        self: &Rc<Self>,
        result: io::Result<Received>,
        more: bool,
        event_loop: &EventLoop,
    ) {
        let reading = &self.reading;
        if !more {
            reading.op.set(None);
            reading.is_cancelled.set(false);
        }
        let arrived = match result {
            Ok(data) if data.is_empty() => Some(Arrived::Eof),
            Ok(data) => Some(Arrived::Data(data)),
            Err(error) if is_passing(&error) => None,
            Err(error) => Some(Arrived::Error(error)),
        };
        if let Some(arrived) = arrived {
            reading.has_ended.set(reading.has_ended.get() || !matches!(arrived, Arrived::Data(_)));
            reading.staged.borrow_mut().push(arrived);
        }
        if self.closing.get() {
            reading.discard();
        } else if reading.is_registered.get() {
            if reading.staged.borrow().is_empty() {
                self.receive(event_loop);
            } else {
                self.queue_io(event_loop);
            }
        }
    }

    /// asyncio's `_read_ready`, over what is staged.
    pub(super) fn read_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        let reading = &self.reading;
        if !reading.is_registered.get() {
            return;
        }
        let transport = self.transport();
        let mut delivered = 0;
        // Each callback may pause or close, which ends it here.
        while reading.is_registered.get() {
            let left = BUDGET.saturating_sub(delivered);
            let Some(arrived) = reading.next_within(left, delivered == 0) else { break };
            match arrived {
                Arrived::Data(data) => {
                    delivered += data.len();
                    self.deliver(&transport, data);
                }
                Arrived::Eof => {
                    self.deliver_eof(&transport);
                    break;
                }
                Arrived::Error(error) => {
                    let message = "Fatal read error on socket transport";
                    transport.fatal_error(message, ProtocolError::Io(error));
                    break;
                }
            }
        }
        if reading.is_registered.get() {
            self.go_on_reading(event_loop);
        }
    }

    /// Before the loop waits.
    pub(super) fn flush_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.reading.is_registered.get() {
            self.cancel_receive(event_loop);
        } else if !self.reading.staged.borrow().is_empty() {
            self.queue_io(event_loop);
        }
    }

    /// Reads on; what is parked already comes with the next poll, as it would if the kernel had it.
    fn go_on_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.reading.staged.borrow().is_empty() {
            self.list(event_loop);
        }
        self.receive(event_loop);
    }

    /// Keeps the receive in flight that suits what the connection holds.
    fn receive(&self, event_loop: &EventLoop) {
        let reading = &self.reading;
        let parked = reading.staged.borrow().bytes();
        let is_over = reading.account.is_over();
        if reading.op.get().is_some() {
            if is_over || parked >= BUDGET {
                self.cancel_receive(event_loop);
            }
        } else if !reading.has_ended.get() && parked < BUDGET {
            let op = self.with_descriptor(|descriptor, token| {
                if is_over {
                    event_loop.driver().recv(descriptor, &reading.account, token)
                } else {
                    event_loop.driver().recv_multishot(descriptor, &reading.account, token)
                }
            });
            reading.op.set(op);
        }
    }

    fn cancel_receive(&self, event_loop: &EventLoop) {
        if let Some(op) = self.reading.op.get() {
            if !self.reading.is_cancelled.replace(true) {
                event_loop.driver().cancel(op);
            }
        }
    }

    /// Waits for the last completion, if it is not in yet.
    pub(super) fn retire_receive(self: &Rc<Self>, event_loop: &EventLoop) {
        let Some(op) = self.reading.op.get() else { return };
        let completions = event_loop.driver().retire(op);
        for completion in completions {
            if let Outcome::Received(result) = completion.outcome {
                self.received(result, completion.more, event_loop);
            }
        }
    }

    /// One reset is told twice: the first who asks gets the errno, others a broken pipe or an end. If a send has met the
    /// broken pipe, what came first stands here (ERR-09).
    pub(super) fn take_reset(self: &Rc<Self>, event_loop: &EventLoop) -> Option<io::Error> {
        while let Some(op) = self.reading.op.get() {
            let Some(completion) = event_loop.driver().peek(op) else { break };
            if let Outcome::Received(result) = completion.outcome {
                self.received(result, completion.more, event_loop);
            }
        }
        self.reading.staged.borrow_mut().take_error()
    }

    fn deliver(self: &Rc<Self>, transport: &Transport, mut data: Received) {
        while !data.is_empty() {
            if !self.reading.is_registered.get() {
                self.reading.staged.borrow_mut().push_front(data);
                return self.discard_if_closing();
            }
            if !transport.deliver(&mut data, None) {
                self.reading.has_discarded.set(true);
                return;
            }
        }
    }

    fn discard_if_closing(&self) {
        if self.closing.get() {
            self.reading.discard();
        }
    }

    fn deliver_eof(self: &Rc<Self>, transport: &Transport) {
        let Some(protocol) = self.protocol() else { return };
        if let ProtocolRef::Buffered(protocol) = &protocol {
            // As asyncio, which asks before each receive, and learns only then (PROTO-10).
            if transport.fill(&**protocol, &[], None).is_none() {
                return;
            }
        }
        let Some(protocol) = self.protocol() else { return };
        let after = transport.call_eof(|| protocol.eof_received(transport));
        if after == Some(AfterEof::KeepOpen) {
            self.reading.is_registered.set(false);
            self.reading.eof_was_kept.set(true);
        }
    }
}

/// Neither the end nor an error: the receive ended because we wanted it, or may simply be repeated.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
}

/// What one transport may deliver in one iteration (TRANS-10).
const BUDGET: usize = 256 * 1024;
