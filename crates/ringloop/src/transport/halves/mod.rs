//! The two halves of a transport that moves its bytes by ops of the driver: [`Receives`] and [`Sends`].
//!
//! # How a transport is made of them
//!
//! A half has its state in a value of its own, a [`StagedSource`](crate::source::StagedSource) or a [`Sending`], and knows neither
//! the other half nor what its descriptor is. A transport has a field for each half that it has, and implements [`Receives`] or
//! [`Sends`] or both: it says where the half is, and what is special about its kind. All that a half does comes with that trait.
//! A socket has both; a pipe has one.
//!
//! ```text
//! completion -> received() -> staged -- queue_io() --> read_ready() -> the protocol
//! write() -> unsent -- list() --> flush_writing() -> the driver -> sent() -- queue_io() --> write_ready()
//! ```

mod lending;
mod receiving;
mod sending;
mod writing;

use std::cell::Cell;
use std::io;
use std::rc::Rc;

pub(super) use self::lending::Lends;
pub(super) use self::receiving::Receives;
pub(super) use self::sending::{Sending, Sends};
pub(super) use self::writing::Writes;
use super::{StreamTransport, Transport};
use crate::EventLoop;
use crate::event_loop::Source;
use crate::source::Attachment;

/// What both halves ask of the transport that they are a half of.
pub(crate) trait Whole: StreamTransport + Source + Sized + 'static {
    fn attachment(&self) -> &Attachment;

    fn schedule(&self) -> &Schedule;

    /// Ends the connection: `connection_lost(error)` comes soon.
    fn lose(self: &Rc<Self>, error: Option<io::Error>, event_loop: &EventLoop);

    /// Calls `connection_lost()` now: the last byte of a closing transport is sent.
    fn call_connection_lost(self: &Rc<Self>, event_loop: &EventLoop);

    fn transport(self: &Rc<Self>) -> Transport {
        Transport::from(Rc::clone(self) as Rc<dyn StreamTransport>)
    }

    /// Asks the loop to call [`flush`](Source::flush) before it waits.
    #[inline(always)]
    fn list(self: &Rc<Self>) {
        if !self.schedule().is_listed.replace(true) {
            self.base().flush_list().push(Rc::clone(self) as Rc<dyn Source>);
        }
    }

    /// Asks the loop to call [`run`](Source::run) with [`IO`] in this iteration.
    #[inline(always)]
    fn queue_io(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.schedule().io_is_to_be_queued() {
            event_loop.queue_source(Rc::clone(self) as Rc<dyn Source>, IO);
        }
    }
}

/// What the loop was asked for, and has not done yet: one handle serves both halves, and one flush.
#[derive(Default)]
pub(crate) struct Schedule {
    is_io_queued: Cell<bool>,
    is_listed: Cell<bool>,
}

impl Schedule {
    /// Whether the handle is not queued yet. It counts as queued from here on.
    #[inline]
    pub(super) fn io_is_to_be_queued(&self) -> bool {
        !self.is_io_queued.replace(true)
    }

    /// The handle runs: what completes from now on queues another one.
    pub(super) fn begin_io(&self) {
        self.is_io_queued.set(false);
    }

    /// The flush runs: what is written from now on asks for another one.
    pub(super) fn begin_flush(&self) {
        self.is_listed.set(false);
    }

    fn is_listed(&self) -> bool {
        self.is_listed.get()
    }
}

/// The event for both halves, in the order of asyncio's reader and writer of one descriptor.
pub(super) const IO: u8 = 1;
