//! What stands between a transport and the two halves of its stream: asyncio's `StreamReaderProtocol`.
//!
//! # The life of a connection
//!
//! ```text
//! connection_made: the reader gets the transport; a server's handler gets reader and writer, and becomes a task
//! data_received, eof_received: to the reader; the end of the peer's stream leaves ours open
//! pause_writing, resume_writing: drain() waits from the one to the other
//! connection_lost: the reader gets the end or the error, then those who wait in wait_closed() and drain()
//! dropped before, as the loop has closed: all who wait are told that
//! ```
//!
//! The transport holds the protocol, and that holds the reader weakly: what arrives for a reader that nobody has any more is
//! dropped.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};

use ringloop_driver::Received;

use super::handler::Handler;
use super::link::Link;
use super::reader::{Shared, StreamReader};
use super::writer::StreamWriter;
use crate::transport::{AfterEof, Protocol, ProtocolResult, Transport};
use crate::{Error, LoopRef, Result};

pub(super) struct StreamProtocol {
    reader: Weak<Shared>,
    link: Rc<Link>,
    /// A server's, until the connection is made.
    serving: Cell<Option<(StreamReader, Rc<dyn Handler>)>>,
    /// From the start of the connection on.
    event_loop: RefCell<Option<LoopRef>>,
}

impl StreamProtocol {
    /// For the side that connects.
    pub(super) fn connecting(reader: &StreamReader) -> Self {
        Self {
            reader: reader.downgrade(),
            link: Rc::default(),
            serving: Cell::new(None),
            event_loop: RefCell::new(None),
        }
    }

    /// For the side that accepts.
    pub(super) fn accepting(limit: usize, handler: Rc<dyn Handler>) -> Result<Self> {
        let reader = StreamReader::new(limit)?;
        let protocol = Self::connecting(&reader);
        protocol.serving.set(Some((reader, handler)));
        Ok(protocol)
    }

    pub(super) fn link(&self) -> &Rc<Link> {
        &self.link
    }
}

impl Protocol for StreamProtocol {
    fn connection_made(&self, transport: &Transport) {
        let event_loop = transport.base().event_loop();
        self.event_loop.replace(event_loop.map(|event_loop| event_loop.downgrade()));
        if let Some(reader) = self.reader.upgrade() {
            // It is new, and has none; a reader whose user has set one keeps that.
            let _ = reader.set_transport(transport);
        }
        if let Some((reader, handler)) = self.serving.take() {
            let writer = StreamWriter::new(transport.clone(), Rc::clone(&self.link), &reader);
            handler.handle(reader, writer);
        }
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        if let Some(reader) = self.reader.upgrade() {
            reader.feed(data)?;
        }
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        if let Some(reader) = self.reader.upgrade() {
            reader.feed_eof();
        }
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        let ended = error.map_or(Ok(()), |error| Err(Error::from_io(error)));
        if let Some(reader) = self.reader.upgrade() {
            match &ended {
                Ok(()) => reader.feed_eof(),
                Err(error) => reader.set_exception(error.clone()),
            }
        }
        self.link.lost(ended);
    }

    fn pause_writing(&self, _: &Transport) {
        self.link.pause();
    }

    fn resume_writing(&self, _: &Transport) {
        self.link.resume();
    }
}

/// A loop that closes lets go of the protocols of its open transports, and calls them no more. Who waits in a task of another
/// loop would wait for ever.
impl Drop for StreamProtocol {
    fn drop(&mut self) {
        let Some(event_loop) = self.event_loop.take() else { return };
        if self.link.has_ended()
            || event_loop.upgrade().is_some_and(|event_loop| !event_loop.is_closed())
        {
            return;
        }
        if let Some(reader) = self.reader.upgrade() {
            reader.cut_off();
        }
        self.link.lost(Err(Error::loop_closed()));
    }
}
