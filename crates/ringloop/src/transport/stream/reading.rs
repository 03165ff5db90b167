//! The receiving half: what arrives is staged in the reap and delivered from the handle, as asyncio's `_read_ready` does.
//!
//! The [`StagedSource`] has the op, and what the op has brought. This file decides when to read, and what one delivery is. A
//! receive is in flight while the protocol reads; it is cancelled when reading pauses. What still arrives then is parked, and
//! delivered first when reading goes on.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use ringloop_driver::Received;

use super::Stream;
use crate::EventLoop;
use crate::source::{Arrived, BUDGET, Recv, StagedSource, Wants};
use crate::transport::door::take_into;
use crate::transport::{AfterEof, BufferedProtocol, ProtocolError, ProtocolRef, Transport};

pub(super) struct Reading {
    pub(super) source: StagedSource<Recv>,
    /// Whether what arrives is delivered: in asyncio a reader is registered then.
    is_registered: Cell<bool>,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { source: StagedSource::new(), is_registered: Cell::new(false) }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.is_registered.get()
    }
}

impl Stream {
    /// Begins to read: the second step of the construction (TRANS-04).
    pub(super) fn start_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.base.is_reading() {
            self.reading.is_registered.set(true);
            self.go_on_reading(event_loop);
        }
    }

    /// Stops reading for good, as the transport closes.
    pub(super) fn stop_reading(&self, event_loop: &EventLoop) {
        self.stop_for_good();
        self.cancel_receive(event_loop);
    }

    pub(super) fn stop_for_good(&self) {
        self.reading.is_registered.set(false);
        self.reading.source.discard();
    }

    pub(super) fn pause(self: &Rc<Self>) {
        if !self.base.pauses_reading() {
            return;
        }
        self.reading.is_registered.set(false);
        let Some(event_loop) = self.base.event_loop() else { return };
        event_loop.note(|| format!("{:?} pauses reading", super::Described(self)));
        if self.reading.source.is_in_flight() {
            self.list(&event_loop); // It is cancelled then, unless reading has gone on.
        }
    }

    pub(super) fn resume(self: &Rc<Self>) {
        if !self.base.resumes_reading() {
            return;
        }
        let Some(event_loop) = self.base.event_loop() else { return };
        event_loop.note(|| format!("{:?} resumes reading", super::Described(self)));
        self.reading.is_registered.set(true);
        if self.base.eof_was_kept() {
            self.reading.source.repeat_eof();
        }
        self.go_on_reading(&event_loop);
    }

    pub(super) fn put_back(self: &Rc<Self>, data: Received) {
        self.reading.source.put_back(data);
        if self.base.is_closing() {
            self.reading.source.discard();
        } else if let (Some(event_loop), true) =
            (self.base.event_loop(), self.reading.is_registered.get())
        {
            self.list(&event_loop);
        }
    }

    /// A receive has completed. In the reap: no user code.
    #[inline]
    pub(super) fn received(
        self: &Rc<Self>,
        result: io::Result<Received>,
        more: bool,
        event_loop: &EventLoop,
    ) {
        self.reading.source.stage(result, more);
        self.arrived(event_loop);
    }

    /// Something was staged, or the receive has ended.
    #[inline]
    fn arrived(self: &Rc<Self>, event_loop: &EventLoop) {
        let reading = &self.reading;
        if self.base.is_closing() {
            reading.source.discard();
        } else if reading.is_registered.get() {
            if reading.source.is_empty() {
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
        if reading.source.has_ended() && self.writing.size() > 0 {
            // If the peer has reset the connection, `write()` would have met that in asyncio, before this event: then no
            // data are delivered any more (ERR-09).
            self.show(event_loop);
        }
        let transport = self.transport();
        let mut delivered = 0;
        // Each callback may pause or close, which ends it here.
        while reading.is_registered.get() && !reading.source.is_empty() {
            let left = BUDGET.saturating_sub(delivered);
            let Some(arrived) = reading.source.next_within(left, delivered == 0) else { break };
            match arrived {
                Arrived::Data(data) => {
                    let is_first = delivered == 0;
                    delivered += data.len();
                    if !self.deliver(&transport, data, is_first) {
                        break;
                    }
                }
                Arrived::Eof => {
                    self.deliver_eof(&transport, event_loop);
                    break;
                }
                Arrived::Error(error) => {
                    self.deliver_error(&transport, error, event_loop);
                    break;
                }
            }
        }
        if reading.is_registered.get() {
            self.go_on_reading(event_loop);
        }
    }

    /// Before the loop waits.
    #[inline]
    pub(super) fn flush_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.reading.is_registered.get() {
            self.cancel_receive(event_loop);
        } else if !self.reading.source.is_empty() {
            self.queue_io(event_loop);
        }
    }

    /// Reads on; what is parked already comes with the next poll, as it would if the kernel had it.
    #[inline]
    fn go_on_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.reading.source.is_empty() {
            self.list(event_loop);
        }
        self.receive(event_loop);
    }

    /// Keeps the receive in flight that suits what the connection holds.
    #[inline]
    fn receive(&self, event_loop: &EventLoop) {
        let source = &self.reading.source;
        match source.wants() {
            Wants::Nothing => {}
            Wants::Cancel => source.cancel(&mut event_loop.driver()),
            Wants::Receive => {
                self.attachment.with(|descriptor, token| {
                    source.receive(&mut event_loop.driver(), descriptor, token);
                });
            }
        }
    }

    fn cancel_receive(&self, event_loop: &EventLoop) {
        if self.reading.source.is_in_flight() {
            self.reading.source.cancel(&mut event_loop.driver());
        }
    }

    /// Waits for the last completion, if it is not in yet.
    pub(super) fn retire_receive(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.reading.source.is_in_flight() {
            self.reading.source.retire(&mut event_loop.driver());
            self.arrived(event_loop);
        }
    }

    /// The error that the receiving half has met and not delivered. The kernel gives a reset to one call only; later calls get
    /// a broken pipe, or the end of the stream. So when a send has met a broken pipe, this may be the reset, which came first
    /// and counts (ERR-09). (On AF_UNIX a send gets the broken pipe even if it is the first call.)
    pub(super) fn take_reset(self: &Rc<Self>, event_loop: &EventLoop) -> Option<io::Error> {
        self.reading.source.take_error(&mut event_loop.driver())
    }

    /// Gives whether this read event may deliver more. A buffered protocol fills one buffer in each event, as in asyncio:
    /// one with a small buffer must not keep the loop until all is read.
    fn deliver(self: &Rc<Self>, transport: &Transport, data: Received, is_first: bool) -> bool {
        let Some(called) = self.base.called() else {
            self.reading.source.note_discarded();
            return false;
        };
        match &*called {
            ProtocolRef::Stream(protocol) => {
                self.base.data_received(transport, &**protocol, data);
                true
            }
            ProtocolRef::Buffered(protocol) if is_first => {
                self.deliver_buffered(transport, &**protocol, data);
                false
            }
            ProtocolRef::Buffered(_) => {
                self.reading.source.put_back(data);
                false
            }
        }
    }

    fn deliver_buffered(
        self: &Rc<Self>,
        transport: &Transport,
        protocol: &dyn BufferedProtocol,
        mut data: Received,
    ) {
        let source = &self.reading.source;
        let fill = |buffer: &mut [u8]| {
            let mut filled = take_into(&mut data, buffer);
            while data.is_empty() && filled < buffer.len() {
                let Some(Arrived::Data(next)) = source.next_within(usize::MAX, false) else {
                    break;
                };
                data = next;
                filled += take_into(&mut data, &mut buffer[filled..]);
            }
            filled
        };
        let Some(filled) = self.base.fill(transport, protocol, None, fill) else {
            return source.note_discarded();
        };
        if !data.is_empty() {
            source.put_back(data);
        }
        if self.base.is_closing() {
            source.discard();
        }
        self.base.buffer_updated(transport, protocol, filled);
    }

    fn deliver_error(
        self: &Rc<Self>,
        transport: &Transport,
        error: io::Error,
        event_loop: &EventLoop,
    ) {
        if self.base.ask_for_buffer(transport).is_none() {
            return;
        }
        if self.is_tcp {
            // In asyncio `write()` would have met this very error: so what is staged is not sent.
            self.lose(Some(error), event_loop);
            drop(self.writing.take_all());
        } else {
            let message = "Fatal read error on socket transport";
            self.base.fatal_error(transport, message, ProtocolError::Io(error));
        }
    }

    fn deliver_eof(self: &Rc<Self>, transport: &Transport, event_loop: &EventLoop) {
        event_loop.note(|| format!("{:?} received EOF", super::Described(self)));
        self.show(event_loop); // asyncio's `write()` would have met a peer that is gone.
        if self.base.is_lost() {
            return;
        }
        if !self.reading.is_registered.get() {
            // Sending dropped bytes of the user's, and their owner has paused reading in its drop.
            return self.reading.source.repeat_eof();
        }
        if self.base.deliver_eof(transport) == Some(AfterEof::KeepOpen) {
            self.reading.is_registered.set(false);
        }
    }
}
