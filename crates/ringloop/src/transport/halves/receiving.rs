//! The receiving half: what arrives is staged in the reap and delivered from the handle, as asyncio's `_read_ready` does.
//!
//! The [`StagedSource`] has the op, and what the op has brought. This file decides when to read, and what one delivery is. A
//! receive is in flight while the protocol reads; it is cancelled when reading pauses. What still arrives then is parked, and
//! delivered first when reading goes on.

use std::io;
use std::rc::Rc;

use ringloop_driver::Received;

use super::Whole;
use crate::EventLoop;
use crate::event_loop::door::let_go;
use crate::source::{Arrived, BUDGET, ReceiveOp, StagedSource, Wants};
use crate::transport::delivery::take_into;
use crate::transport::{BufferedProtocol, ProtocolRef, Transport};

/// What a transport that receives says of itself, and what it has by that.
pub(crate) trait Receives: Whole {
    type Op: ReceiveOp<Item = Received>;

    /// What has come and was not delivered. Whether it is delivered, the base says.
    fn arrivals(&self) -> &StagedSource<Self::Op>;

    /// Called before the end of the stream or an error is delivered. It settles sends that have completed: in asyncio the
    /// error of a `write()` would have come first.
    fn foresee_end(self: &Rc<Self>, event_loop: &EventLoop);

    /// Receiving has failed: ends the connection.
    fn fail_receiving(
        self: &Rc<Self>,
        transport: &Transport,
        error: io::Error,
        event_loop: &EventLoop,
    );

    /// Begins to read: the second step of the construction (TRANS-04).
    fn start_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.base().delivers() {
            self.go_on_reading(event_loop);
        }
    }

    /// Stops reading for good, as the transport closes.
    fn stop_reading(&self, event_loop: &EventLoop) {
        self.arrivals().discard();
        self.cancel_receive(event_loop);
    }

    fn pause(self: &Rc<Self>) {
        if !self.base().try_pause_reading() {
            return;
        }
        let Some(event_loop) = self.base().event_loop() else { return };
        event_loop.note(|| format!("{:?} pauses reading", self.transport()));
        if self.arrivals().is_in_flight() {
            self.list(); // It is cancelled then, unless reading has gone on.
        }
    }

    fn resume(self: &Rc<Self>) {
        if !self.base().try_resume_reading() {
            return;
        }
        let Some(event_loop) = self.base().event_loop() else { return };
        event_loop.note(|| format!("{:?} resumes reading", self.transport()));
        self.arrivals().repeat_eof();
        self.go_on_reading(&event_loop);
    }

    fn put_back(self: &Rc<Self>, data: Received) {
        self.arrivals().put_back(data);
        if self.base().is_closing() {
            self.arrivals().discard();
        } else if self.base().delivers() {
            self.list();
        }
    }

    /// A receive has completed. In the reap: no user code.
    #[inline]
    fn received(self: &Rc<Self>, result: io::Result<Received>, more: bool, event_loop: &EventLoop) {
        self.arrivals().stage(result, more);
        self.arrived(event_loop);
    }

    /// Something was staged, or the receive has ended.
    #[inline(always)]
    fn arrived(self: &Rc<Self>, event_loop: &EventLoop) {
        let source = self.arrivals();
        if self.base().delivers() {
            if source.is_empty() {
                self.receive(event_loop);
            } else {
                self.queue_io(event_loop);
            }
        } else if self.base().is_closing() {
            source.discard();
        }
    }

    /// asyncio's `_read_ready`, over what is staged.
    fn read_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        let source = self.arrivals();
        if !self.base().delivers() {
            return;
        }
        if source.has_ended() {
            // If the peer has reset the connection, `write()` would have met that in asyncio, before this event: then no
            // data are delivered any more (ERR-09).
            self.foresee_end(event_loop);
        }
        self.deliver_from(0, event_loop);
    }

    /// [`read_ready`](Self::read_ready), for what is usual: one piece has come, for a protocol that takes all that there is.
    #[inline(always)]
    fn read_one(self: &Rc<Self>, event_loop: &EventLoop) {
        let (source, base) = (self.arrivals(), self.base());
        if !base.delivers() || source.has_ended() {
            return self.read_ready(event_loop);
        }
        let Some(protocol) = base.stream_protocol() else { return self.read_ready(event_loop) };
        let Some(data) = source.next_only() else {
            drop(protocol); // Nobody was called yet, so it is not the last one; after the calls that follow it might be.
            return self.read_ready(event_loop);
        };
        let len = data.len();
        let transport = self.transport();
        base.data_received(&transport, &*protocol, data);
        transport.release(base);
        if Rc::strong_count(&protocol) == 1 {
            let_go("a protocol", protocol); // It was replaced meanwhile.
        } else {
            drop(protocol);
        }
        if base.delivers() && !source.goes_on() {
            self.deliver_from(len, event_loop);
        }
    }

    /// Delivers the rest of what one read event may, after `delivered` bytes.
    #[inline(never)]
    fn deliver_from(self: &Rc<Self>, mut delivered: usize, event_loop: &EventLoop) {
        let source = self.arrivals();
        let transport = self.transport();
        // Each callback may pause or close, which ends it here.
        while self.base().delivers() {
            let left = BUDGET.saturating_sub(delivered);
            let Some(arrived) = source.next_within(left, delivered == 0) else { break };
            match arrived {
                Arrived::Data(data) => {
                    let is_first = delivered == 0;
                    delivered += data.len();
                    if !self.deliver(&transport, data, is_first) || source.is_empty() {
                        break; // Usually there is one piece.
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
        if self.base().delivers() {
            self.go_on_reading(event_loop);
        }
    }

    /// Before the loop waits.
    #[inline]
    fn flush_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.base().delivers() {
            self.cancel_receive(event_loop);
        } else if !self.arrivals().is_empty() {
            self.queue_io(event_loop);
        }
    }

    /// Reads on; what is parked already comes with the next poll, as it would if the kernel had it.
    #[inline(always)]
    fn go_on_reading(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.arrivals().is_empty() {
            self.list();
        }
        self.receive(event_loop);
    }

    /// Keeps the receive in flight that suits what the connection holds.
    #[inline(always)]
    fn receive(&self, event_loop: &EventLoop) {
        let source = self.arrivals();
        match source.wants() {
            Wants::Nothing => {}
            Wants::Cancel => source.cancel(&mut event_loop.driver()),
            Wants::Receive => {
                self.attachment().with(|descriptor, token| {
                    source.receive(&mut event_loop.driver(), descriptor, token);
                });
            }
        }
    }

    fn cancel_receive(&self, event_loop: &EventLoop) {
        if self.arrivals().is_in_flight() {
            self.arrivals().cancel(&mut event_loop.driver());
        }
    }

    /// Waits for the last completion, if it is not in yet.
    fn retire_receive(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.arrivals().is_in_flight() {
            self.arrivals().retire(&mut event_loop.driver());
            self.arrived(event_loop);
        }
    }

    /// The error that the receiving half has met and not delivered. The kernel gives a reset to one call only; later calls get
    /// a broken pipe, or the end of the stream. So when a send has met a broken pipe, this may be the reset, which came first
    /// and counts (ERR-09). (On AF_UNIX a send gets the broken pipe even if it is the first call.)
    fn take_reset(self: &Rc<Self>, event_loop: &EventLoop) -> Option<io::Error> {
        self.arrivals().take_error(&mut event_loop.driver())
    }

    /// Gives whether this read event may deliver more. A buffered protocol fills one buffer in each event, as in asyncio:
    /// one with a small buffer must not keep the loop until all is read.
    #[inline(always)]
    fn deliver(self: &Rc<Self>, transport: &Transport, data: Received, is_first: bool) -> bool {
        let Some(called) = self.base().called() else {
            self.arrivals().note_discarded();
            return false;
        };
        match &*called {
            ProtocolRef::Stream(protocol) => {
                self.base().data_received(transport, &**protocol, data);
                true
            }
            ProtocolRef::Buffered(protocol) if is_first => {
                self.deliver_buffered(transport, &**protocol, data);
                false
            }
            ProtocolRef::Buffered(_) => {
                self.arrivals().put_back(data);
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
        let source = self.arrivals();
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
        let Some(filled) = self.base().fill(transport, protocol, None, fill) else {
            return source.note_discarded();
        };
        if !data.is_empty() {
            source.put_back(data);
        }
        if self.base().is_closing() {
            source.discard();
        }
        self.base().buffer_updated(transport, protocol, filled);
    }

    fn deliver_error(
        self: &Rc<Self>,
        transport: &Transport,
        error: io::Error,
        event_loop: &EventLoop,
    ) {
        if self.base().ask_for_buffer(transport).is_none() {
            return;
        }
        self.fail_receiving(transport, error, event_loop);
    }

    fn deliver_eof(self: &Rc<Self>, transport: &Transport, event_loop: &EventLoop) {
        event_loop.note(|| format!("{transport:?} received EOF"));
        self.foresee_end(event_loop); // asyncio's `write()` would have met a peer that is gone.
        if self.base().is_lost() {
            return;
        }
        if !self.base().delivers() {
            // Sending dropped bytes of the user's, and their owner has paused reading in its drop.
            return self.arrivals().repeat_eof();
        }
        self.base().deliver_eof(transport);
    }
}
