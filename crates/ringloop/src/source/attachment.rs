//! A descriptor, and its owner's place in the loop.

use std::cell::{Cell, Ref, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use ringloop_driver::{Descriptor, Token};
use socket2::SockRef;

use crate::EventLoop;
use crate::event_loop::{NO_TOKEN, Snapshot, Source};

/// A descriptor and the token by which completions of the ops on it find their source.
pub(crate) struct Attachment {
    /// `None` once it is closed, or was given away.
    descriptor: RefCell<Option<Descriptor>>,
    /// [`NO_TOKEN`] unless the loop keeps the source.
    token: Cell<Token>,
    /// What was set where it was registered.
    context: Cell<Snapshot>,
}

impl Attachment {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor: RefCell::new(Some(descriptor)),
            token: Cell::new(NO_TOKEN),
            context: Cell::default(),
        }
    }

    /// Has the loop keep `source`, for completions of its ops.
    pub(crate) fn register(&self, event_loop: &EventLoop, source: Rc<dyn Source>) {
        self.context.replace(Snapshot::current());
        self.token.set(event_loop.register(source));
    }

    /// What is set where the source's handles run.
    pub(crate) fn context(&self) -> Snapshot {
        let context = self.context.take();
        self.context.set(context.clone());
        context
    }

    /// Has the loop drop the source: later completions of its ops reach nobody.
    pub(crate) fn unregister(&self, event_loop: &EventLoop) {
        if let Some(token) = self.token() {
            self.token.set(NO_TOKEN);
            event_loop.unregister(token);
        }
    }

    /// Calls with what an op starts with, if the descriptor is open and the source registered.
    #[inline(always)]
    pub(crate) fn with<R>(&self, call: impl FnOnce(&Descriptor, Token) -> R) -> Option<R> {
        let token = self.token()?;
        self.descriptor.borrow().as_ref().map(|descriptor| call(descriptor, token))
    }

    /// `None` unless the source is registered.
    #[inline(always)]
    pub(crate) fn token(&self) -> Option<Token> {
        Some(self.token.get()).filter(|&token| token != NO_TOKEN)
    }

    #[inline]
    pub(crate) fn descriptor(&self) -> Ref<'_, Option<Descriptor>> {
        self.descriptor.borrow()
    }

    pub(crate) fn as_raw_fd(&self) -> Option<RawFd> {
        self.descriptor.borrow().as_ref().map(Descriptor::as_raw_fd)
    }

    /// Gives the descriptor away: it is closed with its last holder.
    #[must_use]
    pub(crate) fn take(&self) -> Option<Descriptor> {
        self.descriptor.take()
    }

    pub(crate) fn is_unborrowed(&self) -> bool {
        self.descriptor.try_borrow_mut().is_ok()
    }
}

/// Has the peer see a reset when the descriptor is closed, as the kernel does where something has arrived that nobody has read.
/// Only TCP has resets; with other sockets the peer sees the end of the stream.
pub(crate) fn reset_on_close(descriptor: &Descriptor) {
    let _ = SockRef::from(descriptor).set_linger(Some(Duration::ZERO));
}
