//! Transports and protocols: both halves of a connection.
//!
//! # The life of a connection
//!
//! ```text
//! made -> connection_made, then reading is armed
//!      -> open:     received bytes go to the protocol, written ones to the kernel
//!      -> closing:  close(): nothing is delivered any more, what is buffered goes out first
//!      -> lost:     connection_lost, exactly once and last; then the descriptor is closed
//!      -> shell:    a handle that users still hold; it does nothing any more
//! ```
//!
//! # Rule
//!
//! No cell of a transport is borrowed while a protocol runs, so that it may call back into the transport and may replace
//! itself. Every call to a protocol goes through [`Transport::call_protocol`], which checks that, and which catches
//! panics, so that none unwinds through the user's own call to the transport.

mod exclusive;
pub mod extra_info;
mod flow_control;
mod protocol;
mod socket_view;
mod staged;
mod stream;
mod write_buffer;

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ringloop_driver::{Chunk, Received};

pub use self::exclusive::{Exclusive, Handler};
use self::extra_info::ExtraKey;
pub use self::protocol::{
    AfterEof, Buffered, BufferedProtocol, IntoProtocol, Protocol, ProtocolError, ProtocolRef,
    ProtocolResult,
};
pub use self::socket_view::TransportSocket;
pub(crate) use self::stream::{Connection, Keeper};
use crate::{Error, EventLoop, ExceptionContext, Result};

/// A handle to one connection. Clones are the same connection, and dropping them all does not close it: the loop keeps an
/// open connection alive.
///
/// After `connection_lost()` it is an empty shell: writes are ignored, sizes are zero, it has no protocol.
#[derive(Clone)]
pub struct Transport {
    inner: Rc<dyn StreamTransport>,
}

/// When written bytes go to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Together with all that the iteration writes, in one system call; at once where a program could see the difference
    /// (design §5, RISK-14).
    #[default]
    Batched,
    /// Before `write()` returns, as asyncio does (WRITE-03). Costs a system call per write.
    Immediate,
}

/// What a stream transport is, below the handle: the methods of asyncio's tables, and what the handle needs to call the
/// protocol. No public API: outside of the crate it is seen only with the unstable feature `testing`.
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public with `testing`"))]
#[cfg_attr(
    feature = "testing",
    expect(missing_docs, reason = "each is the method of the same name of `Transport`")
)]
pub trait StreamTransport {
    fn id(&self) -> u64;
    /// `None` once the loop is gone.
    fn event_loop(&self) -> Option<EventLoop>;

    fn protocol(&self) -> Option<ProtocolRef>;
    /// Gives the old one, to be dropped outside of borrows. After `connection_lost()` it gives `new` back.
    fn replace_protocol(&self, new: ProtocolRef) -> Option<ProtocolRef>;
    /// Whether nothing is borrowed, so that user code may run.
    fn is_unborrowed(&self) -> bool;

    fn is_closing(&self) -> bool;
    fn close(self: Rc<Self>);
    fn abort(self: Rc<Self>);
    /// Ends the connection with `error`, unless it has an end already (ERR-04).
    fn force_close(self: Rc<Self>, error: Option<io::Error>);
    /// The value found under the name of an [`ExtraKey`].
    fn extra_info(self: Rc<Self>, name: &str) -> Option<Rc<dyn Any>> {
        let _ = name;
        None
    }
    /// Gives what stood there, to be dropped outside of borrows.
    fn set_extra_info(&self, name: &'static str, value: Rc<dyn Any>) -> Option<Rc<dyn Any>> {
        let _ = name;
        Some(value)
    }

    fn is_reading(&self) -> bool;
    fn pause_reading(self: Rc<Self>);
    fn resume_reading(self: Rc<Self>);

    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()>;
    /// Joined, unless the transport knows better (TRANS-44).
    fn writelines<'a>(self: Rc<Self>, list: &mut dyn Iterator<Item = Chunk<'a>>) -> Result<()> {
        let joined = list.fold(Vec::new(), |mut joined, chunk| {
            joined.extend_from_slice(&chunk);
            joined
        });
        self.write(joined.into())
    }
    fn write_eof(self: Rc<Self>) -> Result<()> {
        Err(Error::Unsupported("this transport has no half-closed state".into()))
    }
    fn can_write_eof(&self) -> bool {
        false
    }
    fn write_buffer_size(self: Rc<Self>) -> usize;
    fn write_buffer_limits(&self) -> (usize, usize);
    fn set_write_buffer_limits(
        self: Rc<Self>,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<()>;
    fn write_mode(&self) -> WriteMode {
        WriteMode::Immediate
    }
    fn set_write_mode(self: Rc<Self>, mode: WriteMode) {
        let _ = mode;
    }
    /// Gives staged bytes to the kernel, as far as it takes them.
    fn flush_now(self: Rc<Self>) {}

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Transport {
    /// A handle to a transport of the caller's making.
    #[cfg(feature = "testing")]
    pub fn from_stream(inner: Rc<dyn StreamTransport>) -> Self {
        Self { inner }
    }

    #[cfg(not(feature = "testing"))]
    pub(crate) fn from_stream(inner: Rc<dyn StreamTransport>) -> Self {
        Self { inner }
    }

    /// A number that no other transport of this thread has or will have.
    pub fn id(&self) -> u64 {
        self.inner.id()
    }

    /// Whether it is closing or closed: from the call of [`close`](Self::close) or [`abort`](Self::abort), or a fatal
    /// error, on (TRANS-20). With [`WriteMode::Batched`] the error of a write shows with the next iteration.
    pub fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    /// Sends what is buffered, then loses the connection (TRANS-30, WRITE-20). Nothing is received any more.
    /// `connection_lost()` is called later, never inside. A second call does nothing.
    pub fn close(&self) {
        self.strong().close();
    }

    /// Loses the connection at once: what is buffered is dropped (TRANS-32). `connection_lost()` is called later, never
    /// inside.
    pub fn abort(&self) {
        self.strong().abort();
    }

    /// What is known about the connection; values stay available after it is closed (TRANS-05).
    ///
    /// ```
    /// use ringloop::{Protocol, Transport, extra_info};
    ///
    /// struct Greeter;
    ///
    /// impl Protocol for Greeter {
    ///     fn connection_made(&self, transport: &Transport) {
    ///         if let Some(peer) = transport.get_extra_info(extra_info::PEERNAME) {
    ///             println!("connection from {peer}");
    ///         }
    ///     }
    /// }
    /// ```
    pub fn get_extra_info<T: Clone + 'static>(&self, key: ExtraKey<T>) -> Option<T> {
        self.strong().extra_info(key.name())?.downcast_ref().cloned()
    }

    /// Notes something about the connection under a key of the caller's own; what the transport itself knows cannot be
    /// replaced. Forgotten with `connection_lost()`.
    ///
    /// ```
    /// use ringloop::{Transport, extra_info::ExtraKey};
    ///
    /// const USER: ExtraKey<String> = ExtraKey::new("user");
    ///
    /// fn logged_in(transport: &Transport, name: &str) {
    ///     transport.set_extra_info(USER, name.to_owned());
    ///     assert_eq!(transport.get_extra_info(USER).as_deref(), Some(name));
    /// }
    /// ```
    pub fn set_extra_info<T: Clone + 'static>(&self, key: ExtraKey<T>, value: T) {
        drop(self.inner.set_extra_info(key.name(), Rc::new(value)));
    }

    /// Replaces the protocol: the next call goes to the new one, without `connection_made()` (TRANS-41). Bytes that have
    /// arrived and were not delivered are its own. Without effect after `connection_lost()`: it would make a cycle that
    /// nothing breaks.
    pub fn set_protocol(&self, protocol: impl Into<ProtocolRef>) {
        drop(self.inner.replace_protocol(protocol.into()));
    }

    /// The protocol; `None` after `connection_lost()`.
    pub fn get_protocol(&self) -> Option<ProtocolRef> {
        self.inner.protocol()
    }

    /// Puts a layer between the connection and its protocol, as `start_tls` does: reading pauses at once, `protocol` gets
    /// the place of the old one, which is returned, and will be given what has arrived and what comes once
    /// [`resume_reading`](Self::resume_reading) is called. No callback is made. `None` after `connection_lost()`.
    pub fn upgrade(&self, protocol: impl Into<ProtocolRef>) -> Option<ProtocolRef> {
        self.inner.protocol()?;
        self.strong().pause_reading();
        self.strong().flush_now();
        self.inner.replace_protocol(protocol.into())
    }

    /// Whether it is neither closing nor paused.
    pub fn is_reading(&self) -> bool {
        self.inner.is_reading()
    }

    /// No data and no end of the stream are delivered until [`resume_reading`](Self::resume_reading), from now on
    /// (TRANS-21). The peer is throttled once the kernel's buffers are full. Does nothing if paused or closing.
    pub fn pause_reading(&self) {
        self.strong().pause_reading();
    }

    /// Goes on reading. Data come in a later iteration, never inside this call (TRANS-25). Does nothing unless paused, or
    /// if closing.
    pub fn resume_reading(&self) {
        self.strong().resume_reading();
    }

    /// Writes `data`: a slice is copied; a `Vec`, [`Bytes`](bytes::Bytes) or [`Received`] is
    /// taken as it is. Order is kept, nothing blocks, and nothing is refused however much is buffered; if that is over the
    /// high-water mark, `pause_writing()` is called before this returns (FLOW-05).
    ///
    /// On a lost connection it does nothing, but for a warning when that goes on (WRITE-10).
    ///
    /// # Errors
    ///
    /// "Cannot call write() after write_eof()". Whether the peer gets the bytes is not told here: a failure is the
    /// argument of `connection_lost()`.
    ///
    /// ```compile_fail
    /// # fn f(transport: &ringloop::Transport) {
    /// let _ = transport.write(1.5); // Not bytes.
    /// # }
    /// ```
    pub fn write<'a>(&self, data: impl Into<Chunk<'a>>) -> Result<()> {
        self.strong().write(data.into())
    }

    /// Writes all of `list`, as one gathered send (WRITE-21).
    ///
    /// # Errors
    ///
    /// "Cannot call writelines() after write_eof()".
    pub fn writelines<'a, I>(&self, list: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<Chunk<'a>>,
    {
        self.strong().writelines(&mut list.into_iter().map(Into::into))
    }

    /// Closes the sending side once everything is sent (WRITE-30); with nothing buffered, before it returns. The
    /// connection stays open for reading. Does nothing if closing, or the second time.
    ///
    /// # Errors
    ///
    /// If the transport cannot: see [`can_write_eof`](Self::can_write_eof).
    pub fn write_eof(&self) -> Result<()> {
        self.strong().write_eof()
    }

    /// Whether [`write_eof`](Self::write_eof) is supported: true for sockets.
    pub fn can_write_eof(&self) -> bool {
        self.inner.can_write_eof()
    }

    /// Bytes that were written and that the kernel has not taken (FLOW-08). Asks the kernel first if some were not even
    /// offered to it.
    pub fn get_write_buffer_size(&self) -> usize {
        self.strong().write_buffer_size()
    }

    /// The water marks: (low, high).
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.inner.write_buffer_limits()
    }

    /// Sets the water marks of the write buffer; a missing one follows from the other, high being four times low
    /// (FLOW-02). May call `pause_writing()` before it returns; never resumes.
    ///
    /// # Errors
    ///
    /// "high (H) must be >= low (L) must be >= 0"; the marks are unchanged then.
    ///
    /// ```compile_fail
    /// # fn f(transport: &ringloop::Transport) {
    /// let _ = transport.set_write_buffer_limits(Some(-1), None); // Limits are unsigned.
    /// # }
    /// ```
    pub fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        self.strong().set_write_buffer_limits(high, low)
    }

    /// When written bytes go to the kernel.
    pub fn write_mode(&self) -> WriteMode {
        self.inner.write_mode()
    }

    /// Sets it. What is staged goes out first.
    pub fn set_write_mode(&self, mode: WriteMode) {
        self.strong().set_write_mode(mode);
    }

    fn strong(&self) -> Rc<dyn StreamTransport> {
        Rc::clone(&self.inner)
    }
}

/// The door to user code.
impl Transport {
    /// The only way from a transport to its protocol. The caller holds its own `Rc` of the protocol.
    fn call_protocol<R>(&self, call: impl FnOnce() -> R) -> ProtocolResult<R> {
        debug_assert!(self.inner.is_unborrowed(), "borrowed across a user call");
        // Nothing of ours is half changed here: that is what the assertion says.
        catch_unwind(AssertUnwindSafe(call)).map_err(ProtocolError::from_panic)
    }

    /// For callbacks whose error, or panic, is fatal to the transport.
    pub(crate) fn call_fallible<R>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> ProtocolResult<R>,
    ) -> Option<R> {
        match self.call_protocol(call).and_then(|result| result) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fatal_error(&format!("Fatal error: protocol.{name}() call failed."), error);
                None
            }
        }
    }

    pub(crate) fn call_eof(
        &self,
        call: impl FnOnce() -> ProtocolResult<AfterEof>,
    ) -> Option<AfterEof> {
        let after = self.call_fallible("eof_received", call);
        if after == Some(AfterEof::Close) {
            self.close();
        }
        after
    }

    pub(crate) fn call_paused(&self, paused: bool, call: impl FnOnce()) {
        let message = if paused {
            "protocol.pause_writing() failed"
        } else {
            "protocol.resume_writing() failed"
        };
        self.call_reported(message, call);
    }

    /// Gives bytes to the protocol that is current now: all of them, or as many as its buffer takes. `hint` is what
    /// [`BufferedProtocol::get_buffer`] is told. Gives whether they were taken.
    pub(crate) fn deliver(&self, data: &mut Received, hint: Option<usize>) -> bool {
        match self.get_protocol() {
            Some(ProtocolRef::Stream(protocol)) => {
                let data = mem::take(data);
                self.call_fallible("data_received", || protocol.data_received(self, data));
                true
            }
            Some(ProtocolRef::Buffered(protocol)) => {
                let Some(len) = self.fill(&*protocol, data, hint) else { return false };
                data.advance(len);
                self.call_fallible("buffer_updated", || protocol.buffer_updated(self, len));
                true
            }
            None => false,
        }
    }

    /// Copies what fits of `data` into the protocol's buffer.
    pub(crate) fn fill(
        &self,
        protocol: &dyn BufferedProtocol,
        data: &[u8],
        hint: Option<usize>,
    ) -> Option<usize> {
        self.call_fallible("get_buffer", || {
            let mut buffer = protocol.get_buffer(hint)?;
            if buffer.is_empty() {
                return Err(Error::state("get_buffer() returned an empty buffer").into());
            }
            let len = buffer.len().min(data.len());
            buffer[..len].copy_from_slice(&data[..len]);
            Ok(len) // The loan ends here, before the protocol is called again.
        })
    }

    /// Gives bytes to the protocol, until all are taken or it closes the transport (PROTO-17): for a transport that has
    /// them from elsewhere than a socket.
    #[cfg(feature = "testing")]
    pub fn feed(&self, data: impl Into<Received>) {
        let mut data = data.into();
        while !data.is_empty() && !self.is_closing() {
            let hint = Some(data.len());
            if !self.deliver(&mut data, hint) {
                return;
            }
        }
    }

    /// For callbacks that fail only by a panic, which changes nothing else.
    pub(crate) fn call_reported(&self, message: &str, call: impl FnOnce()) {
        if let Err(error) = self.call_protocol(call) {
            self.report(message, &error);
        }
    }

    /// Ends the connection with `error`: silently with that of the system, with a report of any other (ERR-02).
    pub(crate) fn fatal_error(&self, message: &str, error: ProtocolError) {
        if matches!(error, ProtocolError::Other(_)) {
            self.report(message, &error);
        }
        self.strong().force_close(Some(error.into_io_error()));
    }

    fn report(&self, message: &str, error: &ProtocolError) {
        let Some(event_loop) = self.inner.event_loop() else { return };
        let protocol = self.get_protocol();
        let mut context = ExceptionContext::new(message).error(error.as_error()).transport(self);
        if let Some(protocol) = &protocol {
            context = context.protocol(protocol);
        }
        event_loop.call_exception_handler(&context);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)
    }
}
