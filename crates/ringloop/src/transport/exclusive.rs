//! Protocols whose methods take `&mut self`. Their calls do not nest.
//!
//! [`Exclusive`] differs from asyncio in one way: a call caused by the handler's own call, such as the pause that a
//! `write()` brings or the end that a `writelines()` on its closing transport brings, arrives right after that call returns,
//! not in the middle.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ringloop_driver::Received;

use super::door::{PAUSE_FAILED, RESUME_FAILED};
use super::{AfterEof, Protocol, ProtocolResult, Transport};
use crate::error::clone_io;
use crate::event_loop::door::let_go_all;

/// A protocol whose methods take `&mut self`: see [`Exclusive`].
///
/// ```
/// use std::io;
/// use ringloop::{AfterEof, Handler, ProtocolResult, Received, Transport};
///
/// #[derive(Default)]
/// struct Upper {
///     bytes: usize,
/// }
///
/// impl Handler for Upper {
///     fn connection_made(&mut self, transport: &Transport) {
///         println!("connection {}", transport.id());
///     }
///
///     fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
///         self.bytes += data.len();
///         Ok(transport.write(data.to_ascii_uppercase())?)
///     }
///
///     fn eof_received(&mut self, _: &Transport) -> ProtocolResult<AfterEof> {
///         Ok(AfterEof::Close)
///     }
///
///     fn writing_paused(&mut self, transport: &Transport, paused: bool) {
///         if paused { transport.pause_reading() } else { transport.resume_reading() }
///     }
///
///     fn connection_lost(&mut self, _: &Transport, error: Option<&io::Error>) {
///         println!("{} bytes, {error:?}", self.bytes);
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with what they are given")]
pub trait Handler {
    /// As [`Protocol::connection_made`].
    fn connection_made(&mut self, transport: &Transport) {}

    /// As [`Protocol::data_received`].
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
        Ok(())
    }

    /// As [`Protocol::eof_received`].
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn eof_received(&mut self, transport: &Transport) -> ProtocolResult<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {}

    /// The write buffer has gone over its high-water mark, or back under the low one. Comes after the call of yours that
    /// did it, so look at [`Transport::get_write_buffer_size`] where a long run of writes must stop in time.
    fn writing_paused(&mut self, transport: &Transport, paused: bool) {}
}

/// A protocol that does nothing.
impl Handler for () {}

/// A protocol with one [`Handler`], which may serve several transports.
///
/// ```
/// use ringloop::{Exclusive, Handler, ProtocolResult, Received, Transport};
///
/// #[derive(Default)]
/// struct Count {
///     bytes: usize,
/// }
///
/// impl Handler for Count {
///     fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
///         self.bytes += data.len();
///         transport.write(format!("{}\n", self.bytes))?;
///         Ok(())
///     }
/// }
///
/// let factory = || Exclusive::new(Count::default());
/// # let _ = factory();
/// ```
pub struct Exclusive<H> {
    handler: RefCell<H>,
    /// What came while the handler was running. Empty whenever it does not run, also after a panic.
    missed: RefCell<VecDeque<Missed>>,
}

struct Missed {
    transport: Transport,
    event: Event,
}

enum Event {
    Made,
    Data(Received),
    Eof,
    Paused(bool),
    Lost(Option<io::Error>),
}

impl<H: Handler> Exclusive<H> {
    /// Wraps `handler`.
    pub fn new(handler: H) -> Self {
        Self { handler: RefCell::new(handler), missed: RefCell::default() }
    }

    /// Calls the handler, then once more for each event that came during the call. After a panic those events are dropped,
    /// except for the ends of connections.
    fn run<R>(&self, call: impl FnOnce(&mut H) -> R) -> R {
        let called = catch_unwind(AssertUnwindSafe(|| call(&mut self.handler.borrow_mut())));
        if called.is_err() {
            let (ends, others): (Vec<_>, Vec<_>) =
                self.missed.take().into_iter().partition(|missed| missed.is_end());
            self.missed.borrow_mut().extend(ends);
            let_go_all("an event that was missed", others);
        }
        while let Some(missed) = self.pop_missed() {
            self.catch_up(missed);
        }
        called.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Calls the handler through the transport from which the event came, so that an error or a panic ends that one.
    fn catch_up(&self, Missed { transport, event }: Missed) {
        let (handler, base) = (&self.handler, transport.base());
        match event {
            Event::Made => {
                base.call_reported(&transport, "protocol.connection_made() failed", || {
                    handler.borrow_mut().connection_made(&transport);
                })
            }
            Event::Paused(paused) => {
                let message = if paused { PAUSE_FAILED } else { RESUME_FAILED };
                base.call_reported(&transport, message, || {
                    handler.borrow_mut().writing_paused(&transport, paused);
                });
            }
            Event::Lost(error) => {
                let error = error.as_ref();
                base.call_reported(&transport, "protocol.connection_lost() failed", || {
                    handler.borrow_mut().connection_lost(&transport, error);
                });
            }
            // A transport that is closing and not yet over still delivers: a layer does so inside `close()`.
            _ if base.is_over() && !self.misses_end_of(&transport) => {}
            Event::Data(data) => {
                base.call_fallible(&transport, "data_received", || {
                    handler.borrow_mut().data_received(&transport, data)
                });
            }
            Event::Eof => {
                let call = || handler.borrow_mut().eof_received(&transport);
                base.call_eof(&transport, call);
            }
        }
    }

    fn set_paused(&self, transport: &Transport, paused: bool) {
        if self.is_running() {
            self.miss(transport, Event::Paused(paused));
        } else {
            self.run(|handler| handler.writing_paused(transport, paused));
        }
    }

    fn is_running(&self) -> bool {
        self.handler.try_borrow_mut().is_err()
    }

    fn miss(&self, transport: &Transport, event: Event) {
        let transport = transport.clone();
        self.missed.borrow_mut().push_back(Missed { transport, event });
    }

    fn misses_end_of(&self, transport: &Transport) -> bool {
        let missed = self.missed.borrow();
        missed.iter().any(|missed| missed.is_end() && missed.transport.id() == transport.id())
    }

    fn pop_missed(&self) -> Option<Missed> {
        self.missed.borrow_mut().pop_front()
    }
}

impl Missed {
    fn is_end(&self) -> bool {
        matches!(self.event, Event::Lost(_))
    }
}

impl<H: Handler> Protocol for Exclusive<H> {
    fn connection_made(&self, transport: &Transport) {
        if self.is_running() {
            return self.miss(transport, Event::Made);
        }
        self.run(|handler| handler.connection_made(transport));
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        if self.is_running() {
            self.miss(transport, Event::Data(data));
            return Ok(());
        }
        self.run(|handler| handler.data_received(transport, data))
    }

    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        if self.is_running() {
            self.miss(transport, Event::Eof);
            return Ok(AfterEof::KeepOpen); // The handler's own answer is acted on when it gave it.
        }
        self.run(|handler| handler.eof_received(transport))
    }

    fn connection_lost(&self, transport: &Transport, error: Option<&io::Error>) {
        if self.is_running() {
            return self.miss(transport, Event::Lost(error.map(clone_io)));
        }
        self.run(|handler| handler.connection_lost(transport, error));
    }

    fn pause_writing(&self, transport: &Transport) {
        self.set_paused(transport, true);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.set_paused(transport, false);
    }
}

impl<H: fmt::Debug> fmt::Debug for Exclusive<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("handler", &self.handler).finish_non_exhaustive()
    }
}
