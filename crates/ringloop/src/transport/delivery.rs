//! What brings a stream protocol its bytes and their end, through the [`door`](super::door).

use std::mem;
use std::rc::Rc;

use ringloop_driver::Received;

use super::base::Reading;
use super::{
    AfterEof, BufferedProtocol, Protocol, ProtocolRef, ProtocolResult, Transport, TransportBase,
};
use crate::Error;

impl TransportBase {
    /// Gives bytes to the protocol that is current now: all of them, or as many as its buffer takes. `hint` is what
    /// [`BufferedProtocol::get_buffer`] gets. Gives whether they were taken; if not, the connection is lost.
    pub fn deliver(&self, transport: &Transport, data: &mut Received, hint: Option<usize>) -> bool {
        let Some(called) = self.called() else { return false };
        match &*called {
            ProtocolRef::Stream(protocol) => {
                self.data_received(transport, &**protocol, mem::take(data));
                true
            }
            ProtocolRef::Buffered(protocol) => {
                let fill = |buffer: &mut [u8]| take_into(data, buffer);
                let Some(len) = self.fill(transport, &**protocol, hint, fill) else { return false };
                self.buffer_updated(transport, &**protocol, len);
                true
            }
        }
    }

    /// Gives all of `data` to the protocol, in as many calls as its buffer needs, and stops early only if that loses the
    /// connection. This is for transports whose bytes do not come from a socket, such as TLS. If the protocol closes the
    /// transport in one of the calls, it still gets the rest, as with asyncio's TLS.
    pub fn feed(&self, transport: &Transport, data: impl Into<Received>) {
        let mut data = data.into();
        while !data.is_empty() && !self.is_lost() {
            let hint = Some(data.len());
            if !self.deliver(transport, &mut data, hint) {
                return;
            }
        }
    }

    /// Calls `eof_received()`, and gives what the transport is to do then. `None` if the call failed, which is fatal. If reading
    /// is paused and resumed after that, it is to be called again.
    pub fn deliver_eof(&self, transport: &Transport) -> Option<AfterEof> {
        self.ask_for_buffer(transport)?;
        self.announce(transport); // The old one may have put it there just now.
        let protocol = self.called()?;
        let after = self.call_eof(transport, || protocol.eof_received(transport))?;
        if after == AfterEof::KeepOpen {
            self.turn(Reading::On, Reading::AtEnd);
        }
        Some(after)
    }

    /// Calls `get_buffer()` of a buffered protocol, and fills nothing: asyncio calls it before each receive, also before the one
    /// that finds the end of the stream. `None` if the call failed, which is fatal.
    pub(super) fn ask_for_buffer(&self, transport: &Transport) -> Option<()> {
        if matches!(&*self.current(), Some(ProtocolRef::Stream(_))) {
            return Some(());
        }
        if let ProtocolRef::Buffered(protocol) = &*self.called()? {
            self.fill(transport, &**protocol, None, |_| 0)?;
        }
        Some(())
    }

    pub(super) fn call_eof(
        &self,
        transport: &Transport,
        call: impl FnOnce() -> ProtocolResult<AfterEof>,
    ) -> Option<AfterEof> {
        let after = self.call_fallible(transport, "eof_received", call);
        if after == Some(AfterEof::Close) {
            transport.close();
        }
        after
    }

    /// The protocol that is current now, if it takes all that there is. Its drop runs the user's code if it is the last.
    #[inline(always)]
    pub(super) fn stream_protocol(&self) -> Option<Rc<dyn Protocol>> {
        match &*self.current() {
            Some(ProtocolRef::Stream(protocol)) => Some(Rc::clone(protocol)),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn data_received(
        &self,
        transport: &Transport,
        protocol: &dyn Protocol,
        data: Received,
    ) {
        let call = || protocol.data_received(transport, data);
        self.call_fallible(transport, "data_received", call);
    }

    /// Has `fill` copy into the protocol's buffer, and gives how many bytes it did. `None` if there is no buffer, which is
    /// fatal.
    pub(super) fn fill(
        &self,
        transport: &Transport,
        protocol: &dyn BufferedProtocol,
        hint: Option<usize>,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.call_fallible(transport, "get_buffer", || {
            let mut buffer = protocol.get_buffer(hint)?;
            if buffer.is_empty() {
                return Err(Error::state("get_buffer() returned an empty buffer").into());
            }
            Ok(fill(&mut buffer)) // The loan ends here, before the protocol is called again.
        })
    }

    pub(super) fn buffer_updated(
        &self,
        transport: &Transport,
        protocol: &dyn BufferedProtocol,
        len: usize,
    ) {
        let call = || protocol.buffer_updated(transport, len);
        self.call_fallible(transport, "buffer_updated", call);
    }
}

/// Moves what fits of `data` into `buffer`, and gives how many bytes that were.
pub(super) fn take_into(data: &mut Received, buffer: &mut [u8]) -> usize {
    let len = buffer.len().min(data.len());
    buffer[..len].copy_from_slice(&data[..len]);
    data.advance(len);
    len
}
