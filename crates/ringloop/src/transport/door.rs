//! The door: the only way from a transport to its protocol.
//!
//! # Re-entrancy
//!
//! Whatever a protocol does, it does with nothing borrowed: it may call any method of any transport, this one too, replace
//! itself, or close the loop. A panic ends here, so that none unwinds through the user's own call to the transport.

use super::{AnyProtocol, AnyTransport, ProtocolError, ProtocolResult, TransportBase};
use crate::ExceptionContext;
use crate::event_loop::door::catch;

impl<P: AnyProtocol> TransportBase<P> {
    /// Calls a method of the protocol that fails only by a panic, which is reported with `message` and changes nothing else.
    pub fn notify(&self, transport: &P::Transport, message: &str, call: impl FnOnce(&P)) {
        if let Some(protocol) = self.called() {
            self.call_reported(transport, message, || call(&protocol));
        }
    }

    /// For callbacks whose error, or panic, is fatal to the transport. The caller holds the protocol, as
    /// [`Called`](super::kind::Called).
    #[inline(always)]
    pub(crate) fn call_fallible<R>(
        &self,
        transport: &P::Transport,
        name: &'static str,
        call: impl FnOnce() -> ProtocolResult<R>,
    ) -> Option<R> {
        let error = match self.call_protocol(transport, call) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) | Err(error) => error,
        };
        self.call_failed(transport, name, error);
        None
    }

    #[cold]
    fn call_failed(&self, transport: &P::Transport, name: &str, error: ProtocolError) {
        let message = format!("Fatal error: protocol.{name}() call failed.");
        self.fatal_error(transport, &message, error);
    }

    /// As [`notify`](Self::notify), where the caller holds the protocol.
    pub(crate) fn call_reported(
        &self,
        transport: &P::Transport,
        message: &str,
        call: impl FnOnce(),
    ) {
        if let Err(error) = self.call_protocol(transport, call) {
            self.report(transport, message, &error);
        }
    }

    /// Ends the connection with `error`: silently with that of the system, with a report of any other.
    pub fn fatal_error(&self, transport: &P::Transport, message: &str, error: ProtocolError) {
        if matches!(error, ProtocolError::Other(_)) {
            self.report(transport, message, &error);
        } else if let Some(event_loop) = self.event_loop() {
            event_loop.note(|| format!("{transport:?}: {message}: {}", error.as_error()));
        }
        transport.force_close(Some(error.into_io_error()));
    }

    #[inline(always)]
    fn call_protocol<R>(
        &self,
        transport: &P::Transport,
        call: impl FnOnce() -> R,
    ) -> ProtocolResult<R> {
        debug_assert!(
            self.is_unborrowed() && transport.is_unborrowed(),
            "borrowed across a user call"
        );
        catch(call).map_err(|panic| ProtocolError::from_panic(&panic))
    }

    fn report(&self, transport: &P::Transport, message: &str, error: &ProtocolError) {
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

pub(super) const PAUSE_FAILED: &str = "protocol.pause_writing() failed";
pub(super) const RESUME_FAILED: &str = "protocol.resume_writing() failed";
