//! Another protocol in the middle of a connection: how a layer such as TLS gets below the one that was there.
//!
//! ```text
//! peer -> kernel -> parked, in order -> [held by the old protocol] -> the new protocol
//! ```
//!
//! Whatever has come and was not used is the new one's, in the order of the stream: first what the old protocol was given and
//! hands over, then what the transport has staged, then what the kernel has.

use ringloop_driver::Received;

use super::{ProtocolRef, Transport};

/// What takes the place of a protocol: see [`Transport::upgrade`]. Made from the protocol alone, or with options.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Exclusive, Transport, Upgrade};
///
/// /// The peer has asked for another protocol, and sent its first bytes already.
/// fn switch(transport: &Transport, rest: &[u8]) {
///     let next = Rc::new(Exclusive::new(()));
///     transport.upgrade(Upgrade::to(next).unread(rest).connection_made());
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Upgrade {
    protocol: ProtocolRef,
    unread: Received,
    is_announced: bool,
}

impl Upgrade {
    /// With `protocol`.
    pub fn to(protocol: impl Into<ProtocolRef>) -> Self {
        Self { protocol: protocol.into(), unread: Received::default(), is_announced: false }
    }

    /// Bytes that the old protocol was given and did not use: the new protocol gets them before all others.
    pub fn unread(self, data: impl Into<Received>) -> Self {
        Self { unread: data.into(), ..self }
    }

    /// Has `connection_made()` of the new protocol called soon, as asyncio's `start_tls` does; reading goes on after that.
    ///
    /// It is the first callback of the protocol: if the connection is lost or writing is paused before, it is called right before
    /// that callback. Until then `resume_reading()` does nothing. If another protocol takes the place before the call, the call
    /// is never made, and reading goes on all the same.
    pub fn connection_made(self) -> Self {
        Self { is_announced: true, ..self }
    }
}

impl<P: Into<ProtocolRef>> From<P> for Upgrade {
    fn from(protocol: P) -> Self {
        Self::to(protocol)
    }
}

impl Transport {
    /// Puts another protocol into the place of the present one, which is returned, as `start_tls` does with a layer that
    /// stands between the connection and its protocol.
    ///
    /// Reading pauses at once, and what was written before is sent before anything that the new protocol writes. No callback is
    /// made, no second `connection_made()` in particular, unless [`Upgrade::connection_made`] asks for it. What has arrived
    /// and what comes is the new protocol's, once [`resume_reading`](Self::resume_reading) is called; what the old one was
    /// given too, if it is handed over ([`Upgrade::unread`]). If `pause_writing()` of the old one was called, `resume_writing()` of
    /// the new one will be.
    ///
    /// `None`, and nothing is changed, if the transport is closing: there is nothing to come.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ringloop::{Protocol, ProtocolResult, Received, Transport, Upgrade};
    ///
    /// struct Greeting;
    /// struct Echo;
    ///
    /// impl Protocol for Greeting {
    ///     /// The first line says that the rest is to be echoed.
    ///     fn data_received(&self, transport: &Transport, mut data: Received) -> ProtocolResult {
    ///         let Some(end) = data.iter().position(|&byte| byte == b'\n') else { return Ok(()) };
    ///         data.advance(end + 1);
    ///         transport.upgrade(Upgrade::to(Rc::new(Echo)).unread(data));
    ///         transport.resume_reading();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Protocol for Echo {
    ///     fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
    ///         Ok(transport.write(data)?)
    ///     }
    /// }
    /// ```
    pub fn upgrade(&self, upgrade: impl Into<Upgrade>) -> Option<ProtocolRef> {
        let Upgrade { protocol, unread, is_announced } = upgrade.into();
        // May find out that the connection is lost, and drops what is sent: that may call anything, so it comes first.
        self.strong().flush_now();
        if self.is_closing() {
            return None;
        }
        self.pause_reading();
        if !unread.is_empty() {
            self.strong().unread(unread);
        }
        let old = self.base().replace_protocol(protocol);
        let number = self.base().begin_upgrade(is_announced);
        if is_announced {
            self.announce_soon(number);
        }
        Some(old)
    }

    fn announce_soon(&self, number: u64) {
        let Some(event_loop) = self.base().event_loop() else { return };
        let transport = self.clone();
        // On a closed loop no callback is made.
        let _ = event_loop.call_soon(move |_| {
            let base = transport.base();
            if base.end_upgrade(number) {
                base.announce(&transport);
                if base.end_upgrade(number) {
                    transport.resume_reading();
                }
            }
        });
    }
}
