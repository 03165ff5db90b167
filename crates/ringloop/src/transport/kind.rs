//! Kinds of protocols, and of the transports that they get: streams, and what else asyncio has or users of a layer think of.
//!
//! The life cycle, the water marks and the door of a [`TransportBase`] are the same for all kinds. What brings a kind its input
//! (`data_received()` of streams, in [`delivery`](super::delivery)) is a method more of its base, which goes through that door.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use super::TransportBase;
use crate::event_loop::door::let_go;

/// A protocol of some kind, as its transport holds it: asyncio's `BaseProtocol`. A clone is the same protocol.
pub trait AnyProtocol: Clone + fmt::Debug + 'static {
    /// What its methods get.
    type Transport: AnyTransport<Protocol = Self>;

    /// The first call.
    fn connection_made(&self, transport: &Self::Transport);

    /// The last call.
    fn connection_lost(&self, transport: &Self::Transport, error: Option<&io::Error>);

    /// What is buffered has gone over the high-water mark.
    fn pause_writing(&self, transport: &Self::Transport);

    /// It is at the low-water mark again.
    fn resume_writing(&self, transport: &Self::Transport);

    /// Whether the drop of this one runs the user's code.
    fn is_last(&self) -> bool;
}

/// A handle to a transport of some kind, as users hold it. A clone is the same transport.
pub trait AnyTransport: fmt::Debug + Clone + 'static {
    /// What it calls.
    type Protocol: AnyProtocol<Transport = Self>;

    /// What it has in common with all others.
    fn base(&self) -> &TransportBase<Self::Protocol>;

    /// Whether nothing of its own is borrowed, so that user code may run.
    fn is_unborrowed(&self) -> bool;

    /// Ends the connection with `error`, unless it is ending already.
    fn force_close(&self, error: Option<io::Error>);

    /// What users find under a name: for layers, which know what is below them, too.
    fn find_extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.base().extra_info(name)
    }
}

/// A protocol while it is called: it may be replaced meanwhile, and then this is the last that holds it.
pub(crate) struct Called<P: AnyProtocol>(Option<P>);

impl<P: AnyProtocol> Called<P> {
    pub(super) fn new(protocol: P) -> Self {
        Self(Some(protocol))
    }

    #[cold]
    fn let_go(&mut self) {
        let_go("a protocol", self.0.take());
    }
}

impl<P: AnyProtocol> Deref for Called<P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl<P: AnyProtocol> Drop for Called<P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(P::is_last) {
            self.let_go();
        }
    }
}
