//! The door: the only way from a transport to its protocol.
//!
//! # Re-entrancy
//!
//! Whatever a protocol does, it does with nothing borrowed: it may call any method of any transport, this one too, replace
//! itself, or close the loop. A panic ends here, so that none unwinds through the user's own call to the transport.

#[cfg(feature = "testing")]
use std::mem;

use ringloop_driver::Received;

#[cfg(feature = "testing")]
use super::ProtocolRef;
use super::{
    AfterEof, BufferedProtocol, Protocol, ProtocolError, ProtocolResult, Transport, TransportBase,
};
use crate::event_loop::door::catch;
use crate::{Error, ExceptionContext};

impl TransportBase {
    /// The caller holds the protocol, as [`Called`](super::protocol::Called).
    fn call_protocol<R>(
        &self,
        transport: &Transport,
        call: impl FnOnce() -> R,
    ) -> ProtocolResult<R> {
        debug_assert!(transport.is_unborrowed(), "borrowed across a user call");
        catch(call).map_err(|panic| ProtocolError::from_panic(&panic))
    }

    /// For callbacks whose error, or panic, is fatal to the transport.
    pub(crate) fn call_fallible<R>(
        &self,
        transport: &Transport,
        name: &'static str,
        call: impl FnOnce() -> ProtocolResult<R>,
    ) -> Option<R> {
        match self.call_protocol(transport, call).and_then(|result| result) {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!("Fatal error: protocol.{name}() call failed.");
                self.fatal_error(transport, &message, error);
                None
            }
        }
    }

    pub(crate) fn call_eof(
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

    pub(crate) fn call_paused(&self, transport: &Transport, paused: bool, call: impl FnOnce()) {
        let message = if paused {
            "protocol.pause_writing() failed"
        } else {
            "protocol.resume_writing() failed"
        };
        self.call_reported(transport, message, call);
    }

    /// For callbacks that fail only by a panic, which changes nothing else.
    pub(crate) fn call_reported(&self, transport: &Transport, message: &str, call: impl FnOnce()) {
        if let Err(error) = self.call_protocol(transport, call) {
            self.report(transport, message, &error);
        }
    }

    /// Gives bytes to the protocol that is current now: all of them, or as many as its buffer takes. `hint` is what
    /// [`BufferedProtocol::get_buffer`] gets. Gives whether they were taken; if not, the connection is lost.
    #[cfg(feature = "testing")]
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
    #[cfg(feature = "testing")]
    pub fn feed(&self, transport: &Transport, data: impl Into<Received>) {
        let mut data = data.into();
        while !data.is_empty() && !self.is_lost() {
            let hint = Some(data.len());
            if !self.deliver(transport, &mut data, hint) {
                return;
            }
        }
    }

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

    /// Ends the connection with `error`: silently with that of the system, with a report of any other.
    pub fn fatal_error(&self, transport: &Transport, message: &str, error: ProtocolError) {
        if matches!(error, ProtocolError::Other(_)) {
            self.report(transport, message, &error);
        } else if let Some(event_loop) = self.event_loop() {
            event_loop.note(|| format!("{transport:?}: {message}: {}", error.as_error()));
        }
        transport.strong().force_close(Some(error.into_io_error()));
    }

    fn report(&self, transport: &Transport, message: &str, error: &ProtocolError) {
        let Some(event_loop) = self.event_loop() else { return };
        let protocol = self.called();
        let mut context =
            ExceptionContext::new(message).error(error.as_error()).transport(transport);
        if let Some(protocol) = &protocol {
            context = context.protocol(&**protocol);
        }
        event_loop.call_exception_handler(&context);
    }
}

/// Moves what fits of `data` into `buffer`, and gives how many bytes that were.
pub(super) fn take_into(data: &mut Received, buffer: &mut [u8]) -> usize {
    let len = buffer.len().min(data.len());
    buffer[..len].copy_from_slice(&data[..len]);
    data.advance(len);
    len
}
