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
//! itself. Every call to a protocol goes through one [`door`], which checks that, and which catches panics, so that none
//! unwinds through the user's own call to the transport.
//!
//! # A new kind of stream transport
//!
//! It keeps a [`TransportBase`] for what all kinds have in common, implements [`StreamTransport`], and is used through a
//! [`Transport`]. If it receives by ops of the driver, a [`StagedSource`](crate::source::StagedSource) does that.

mod base;
mod delivery;
mod door;
mod exclusive;
pub mod extra_info;
mod flow_control;
mod halves;
mod kind;
mod protocol;
mod seldom;
mod socket_view;
mod stream;
mod upgrade;
mod write_buffer;

use std::any::Any;
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::task::{Context, Poll};

use ringloop_driver::{Chunk, Descriptor, Received};

pub use self::exclusive::{Exclusive, Handler};
use self::extra_info::ExtraKey;
use self::kind::Called;
pub use self::protocol::{
    AfterEof, Buffered, BufferedProtocol, IntoProtocol, Protocol, ProtocolError, ProtocolRef,
    ProtocolResult,
};
pub use self::socket_view::TransportSocket;
pub(crate) use self::stream::{Connection, Keeper};
pub use self::upgrade::Upgrade;
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public with `testing`")
)]
pub use self::{
    base::TransportBase,
    kind::{AnyProtocol, AnyTransport},
};
use crate::event_loop::EventLoopBuilder;
use crate::event_loop::door::{Kept, catch, let_go};
use crate::{Error, EventLoop, Result};

/// A handle to one connection. Clones are the same connection. Dropping them all does not close it: the loop keeps an open
/// connection alive until `connection_lost()` of its protocol was called.
///
/// After that the handle can still be used, but does nothing: writes are ignored, sizes are zero, it has no protocol.
///
/// ```
/// # ringloop::run(async {
/// use std::rc::Rc;
/// use ringloop::{EventLoop, Exclusive, WriteMode};
///
/// let event_loop = EventLoop::running()?;
/// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
/// let (transport, _) = event_loop.create_connection(|| Exclusive::new(()), ours).await?;
/// assert!(transport.is_reading() && !transport.is_closing());
/// assert_eq!(transport.get_write_buffer_limits(), (16 * 1024, 64 * 1024));
///
/// transport.set_protocol(Rc::new(Exclusive::new(())));
/// assert!(transport.get_protocol().is_some());
///
/// transport.writelines(["one\n", "two\n"])?;
/// assert_eq!(transport.get_write_buffer_size(), 0); // The kernel has it.
/// assert!(transport.can_write_eof());
/// transport.write_eof()?;
/// transport.close();
/// assert!(transport.is_closing());
/// transport.abort(); // Nothing that is buffered is waited for.
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Transport {
    /// Counted in its [`TransportBase`] as one that somebody holds. `None` only where it is [released](Self::release).
    inner: Option<Rc<dyn StreamTransport>>,
}

/// When written bytes go to the kernel.
///
/// ```
/// use ringloop::{EventLoop, WriteMode};
///
/// let event_loop = EventLoop::builder().write_mode(WriteMode::Immediate).build()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// With the system call that ends the iteration, together with everything else that was written in it. Whatever would
    /// show a program the difference sends first: asking for the size of the buffer, closing the sending side, aborting, or
    /// using the socket itself. What remains: the peer sees the bytes a little later, a failed write shows in the next
    /// iteration, and a process that ends at once loses them
    /// ([`EventLoop::flush`](crate::EventLoop::flush) sends them).
    #[default]
    Batched,
    /// Before `write()` returns, as in asyncio. Costs a system call for each write.
    Immediate,
}

/// What a stream transport is, below the handle. Where a method has the name of one of [`Transport`], it does what that one
/// says.
///
/// No public API: outside of the crate it is seen only with the unstable feature `testing`.
pub trait StreamTransport {
    /// What it has in common with all others.
    fn base(&self) -> &TransportBase;

    /// Whether none of its own cells is borrowed, so that user code may run.
    fn is_unborrowed(&self) -> bool {
        true
    }

    /// See [`Transport::is_closing`]. A layer is closing, too, when the transport below it is.
    fn is_closing(&self) -> bool {
        self.base().is_closing()
    }

    /// See [`Transport::close`].
    fn close(self: Rc<Self>);

    /// Ends the connection with `error`, unless it is ending already. Without an error this is [`Transport::abort`].
    fn force_close(self: Rc<Self>, error: Option<io::Error>);

    /// The value that the transport itself has under the name of an [`ExtraKey`].
    fn extra_info(self: Rc<Self>, name: &str) -> Option<Rc<dyn Any>> {
        let _ = name;
        None
    }

    /// See [`Transport::pause_reading`].
    fn pause_reading(self: Rc<Self>);

    /// See [`Transport::resume_reading`].
    fn resume_reading(self: Rc<Self>);

    /// Puts `data` in front of all that has arrived; delivered later, and not before reading goes on if it is paused.
    fn unread(self: Rc<Self>, data: Received);

    /// See [`Transport::write`].
    ///
    /// # Errors
    ///
    /// As there.
    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()>;

    /// See [`Transport::writelines`]. Unless the transport has a better way, this joins the chunks and writes the result.
    ///
    /// # Errors
    ///
    /// As there.
    fn writelines<'a>(self: Rc<Self>, list: &mut dyn Iterator<Item = Chunk<'a>>) -> Result<()> {
        self.base().check_eof("writelines")?;
        let mut joined = Vec::new();
        catch(|| list.for_each(|chunk| joined.extend_from_slice(&chunk)))?;
        self.write(joined.into())
    }

    /// See [`Transport::write_eof`].
    ///
    /// # Errors
    ///
    /// As there.
    fn write_eof(self: Rc<Self>) -> Result<()> {
        Err(Error::Unsupported("this transport has no half-closed state".into()))
    }

    /// See [`Transport::can_write_eof`].
    fn can_write_eof(&self) -> bool {
        false
    }

    /// See [`Transport::get_write_buffer_size`].
    fn write_buffer_size(self: Rc<Self>) -> usize;

    /// Whether everything that was written is with the kernel. What an `abort()` has dropped never will be.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    fn is_flushed(self: Rc<Self>) -> bool {
        self.write_buffer_size() == 0
    }

    /// See [`Transport::write_mode`].
    fn write_mode(&self) -> WriteMode {
        WriteMode::Immediate
    }

    /// See [`Transport::set_write_mode`].
    fn set_write_mode(self: Rc<Self>, mode: WriteMode) {
        let _ = mode;
    }

    /// Gives unsent bytes to the kernel, as far as it takes them.
    fn flush_now(self: Rc<Self>) {}

    /// Lends the descriptor to a caller that sends on it by other calls. Writes fail until [`end_lending`](Self::end_lending).
    ///
    /// # Errors
    ///
    /// [`Error::State`] while it is closing or lent already; [`Error::Unsupported`] without a descriptor of its own.
    fn begin_lending(self: Rc<Self>) -> Result<()> {
        Err(Error::Unsupported("this transport has no descriptor of its own".into()))
    }

    /// The descriptor, once all that was written is sent.
    fn poll_drained(self: Rc<Self>, cx: &Context<'_>) -> Poll<Result<Descriptor>> {
        let _ = cx;
        Poll::Pending
    }

    /// Why the connection is no more, once it is.
    fn poll_lost(self: Rc<Self>, cx: &Context<'_>) -> Poll<Error> {
        let _ = cx;
        Poll::Pending
    }

    /// Allows writes again.
    fn end_lending(self: Rc<Self>) {}

    /// Does what [`flush_now`](Self::flush_now) does, for a caller that gets the descriptor itself. From then on the room that
    /// the socket has is not predicted any more, as the caller may use it up.
    fn lend(self: Rc<Self>) {
        self.flush_now();
    }

    /// Writes what `{:?}` shows of the transport.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Transport {
    pub(crate) fn base(&self) -> &TransportBase {
        self.inner().base()
    }

    /// A number that no other transport of this thread has or will have.
    ///
    /// ```
    /// use ringloop::{Protocol, Transport};
    ///
    /// struct Log;
    ///
    /// impl Protocol for Log {
    ///     fn connection_made(&self, transport: &Transport) {
    ///         println!("connection {}", transport.id());
    ///     }
    /// }
    /// ```
    pub fn id(&self) -> u64 {
        self.base().id()
    }

    /// Whether the connection is closing or closed: true from the call of [`close`](Self::close) or
    /// [`abort`](Self::abort) on, or from a fatal error on. With [`WriteMode::Batched`] the error of a write shows in the next
    /// iteration.
    pub fn is_closing(&self) -> bool {
        self.inner().is_closing()
    }

    /// Closes the connection: sends what is buffered, then calls `connection_lost()` and closes the socket. Nothing is
    /// received from now on. There is no time limit, so a peer that does not read can hold this up: see
    /// [`abort`](Self::abort). `connection_lost()` is called in a later iteration, never inside this call. A second call does
    /// nothing.
    ///
    /// If the peer had sent something that was not delivered, it sees a reset, as it would with asyncio. On a Unix socket it
    /// sees the end of the stream, if what it had sent was received already.
    pub fn close(&self) {
        self.strong().close();
    }

    /// Ends the connection at once: what is buffered is dropped. `connection_lost()` is called in the next iteration, never
    /// inside this call.
    pub fn abort(&self) {
        self.force_close(None);
    }

    /// What is known about the connection under `key`, such as its addresses or its socket: see
    /// [`extra_info`]. Values stay available after the connection is closed.
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
        // While it is cloned, which is user code, it may be replaced.
        let value = Kept::new("extra info", self.find_extra_info(key.name())?);
        value.downcast_ref().cloned()
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
        let_go("extra info", self.base().set_extra_info(key.name(), Rc::new(value)));
    }

    /// Replaces the protocol. The next call goes to the new one, whose `connection_made()` is not called; it also gets the
    /// bytes that have arrived and were not delivered. Does nothing after `connection_lost()`, when nothing would ever free
    /// the protocol again.
    pub fn set_protocol(&self, protocol: impl Into<ProtocolRef>) {
        drop(Called::new(self.base().replace_protocol(protocol.into())));
    }

    /// The protocol; `None` after `connection_lost()`.
    pub fn get_protocol(&self) -> Option<ProtocolRef> {
        self.base().protocol()
    }

    /// Whether it is neither closing nor paused.
    pub fn is_reading(&self) -> bool {
        self.base().is_reading()
    }

    /// Stops reading: no data and no end of the stream are delivered until [`resume_reading`](Self::resume_reading), from now
    /// on. The peer is throttled once the kernel's buffers are full. Does nothing if paused or closing.
    pub fn pause_reading(&self) {
        self.strong().pause_reading();
    }

    /// Goes on reading. Data are delivered in a later iteration, never inside this call. Does nothing unless reading is
    /// paused, or if the connection is closing.
    pub fn resume_reading(&self) {
        self.strong().resume_reading();
    }

    /// Writes `data`: a slice is copied; a `Vec`, [`Bytes`](bytes::Bytes) or [`Received`] is taken as it is. The order of
    /// writes is kept, and the call never blocks.
    ///
    /// Nothing is refused, however much is buffered already. If that is more than the high-water mark,
    /// [`pause_writing()`](crate::Protocol::pause_writing) is called before this returns, and it is up to the protocol to
    /// stop. **A protocol that answers what it receives must then also stop receiving**: a peer that sends and does not
    /// read makes the buffer grow without bound otherwise.
    ///
    /// ```
    /// use ringloop::{Protocol, ProtocolResult, Received, Transport};
    ///
    /// struct Echo;
    ///
    /// impl Protocol for Echo {
    ///     fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
    ///         Ok(transport.write(data)?)
    ///     }
    ///
    ///     fn pause_writing(&self, transport: &Transport) {
    ///         transport.pause_reading();
    ///     }
    ///
    ///     fn resume_writing(&self, transport: &Transport) {
    ///         transport.resume_reading();
    ///     }
    /// }
    /// ```
    ///
    /// On a lost connection the call does nothing; from the sixth time on there is a warning.
    ///
    /// # Errors
    ///
    /// "Cannot call write() after write_eof()". This call does not return whether the peer gets the bytes: a failure is the
    /// argument of `connection_lost()`. Bytes that are refused are dropped; if the drop of their owner panics, that is reported, as
    /// after a send, and the call gives its error.
    ///
    /// ```compile_fail
    /// # fn f(transport: &ringloop::Transport) {
    /// let _ = transport.write(1.5); // Not bytes.
    /// # }
    /// ```
    pub fn write<'a>(&self, data: impl Into<Chunk<'a>>) -> Result<()> {
        self.strong().write(data.into())
    }

    /// Writes all chunks of `list` as one gathered send, which is tried at once even if bytes are waiting. If that makes room,
    /// `resume_writing()` is called before this returns; if it empties the buffer of a closing transport,
    /// `connection_lost()` is.
    ///
    /// # Errors
    ///
    /// "Cannot call writelines() after write_eof()". [`Error::Panic`] if `list` panics: nothing of it is written then.
    pub fn writelines<'a, I>(&self, list: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<Chunk<'a>>,
    {
        let mut list = Kept::new("chunks to write", list.into_iter().map(Into::into));
        self.strong().writelines(&mut *list)
    }

    /// Closes the sending side once everything is sent; with nothing buffered, before this returns. The
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
        self.inner().can_write_eof()
    }

    /// The number of bytes that were written and that the kernel has not taken. Bytes that were not given to the kernel
    /// yet are given to it first.
    pub fn get_write_buffer_size(&self) -> usize {
        self.strong().write_buffer_size()
    }

    /// The water marks in bytes: (low, high).
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.base().flow().limits()
    }

    /// Sets the water marks of the write buffer, in bytes. If one is not given, it follows from the other: high is four times
    /// low. Without either they are 64 KiB and 16 KiB. If the buffer is over the new high mark, `pause_writing()` is called
    /// before this returns; nothing is ever resumed here.
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
        let base = self.base();
        base.flow().set_limits(high, low)?;
        base.maybe_pause_protocol(self.get_write_buffer_size(), || self.clone());
        Ok(())
    }

    /// When written bytes go to the kernel.
    pub fn write_mode(&self) -> WriteMode {
        self.inner().write_mode()
    }

    /// Sets it. What is unsent goes out first.
    ///
    /// ```
    /// # ringloop::run(async {
    /// # use ringloop::{EventLoop, Exclusive};
    /// use ringloop::WriteMode;
    ///
    /// # let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// # let event_loop = EventLoop::running()?;
    /// # let (transport, _) = event_loop.create_connection(|| Exclusive::new(()), ours).await?;
    /// transport.set_write_mode(WriteMode::Immediate);
    /// assert_eq!(transport.write_mode(), WriteMode::Immediate);
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn set_write_mode(&self, mode: WriteMode) {
        self.strong().set_write_mode(mode);
    }

    /// Ready once everything that was written is with the kernel, or `connection_lost()` was called: whether it is.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn poll_flush(&self, place: &Cell<Option<u64>>, cx: &Context<'_>) -> Poll<bool> {
        let base = self.base();
        let is_flushed = !base.is_lost() && self.strong().is_flushed();
        if is_flushed || base.is_over() {
            return Poll::Ready(is_flushed || self.strong().is_flushed());
        }
        base.flushes().wait(place, cx.waker());
        Poll::Pending
    }

    pub(crate) fn begin_lending(&self) -> Result<()> {
        if self.is_closing() {
            return Err(Error::state("Transport is closing"));
        }
        self.strong().begin_lending().map_err(|error| match error {
            Error::Unsupported(_) => {
                Error::state(format!("sendfile is not supported for transport {self:?}"))
            }
            error => error,
        })
    }

    pub(crate) fn poll_drained(&self, cx: &Context<'_>) -> Poll<Result<Descriptor>> {
        self.strong().poll_drained(cx)
    }

    pub(crate) fn poll_lost(&self, cx: &Context<'_>) -> Poll<Error> {
        self.strong().poll_lost(cx)
    }

    pub(crate) fn end_lending(&self) {
        self.strong().end_lending();
    }

    /// What a drop does, where that is done for each message, and its base is known.
    #[inline(always)]
    fn release(self, base: &TransportBase) {
        let inner = ManuallyDrop::new(self).inner.take();
        base.drop_handle();
        drop(inner);
    }

    #[inline(always)]
    fn inner(&self) -> &Rc<dyn StreamTransport> {
        self.inner.as_ref().expect("it is there until it is released")
    }

    fn strong(&self) -> Rc<dyn StreamTransport> {
        Rc::clone(self.inner())
    }
}

impl AnyTransport for Transport {
    type Protocol = ProtocolRef;

    fn base(&self) -> &TransportBase {
        self.base()
    }

    fn is_unborrowed(&self) -> bool {
        self.inner().is_unborrowed()
    }

    fn force_close(&self, error: Option<io::Error>) {
        self.strong().force_close(error);
    }

    fn find_extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.strong().extra_info(name).or_else(|| self.base().extra_info(name))
    }
}

#[doc(hidden)]
impl From<Rc<dyn StreamTransport>> for Transport {
    #[inline]
    fn from(inner: Rc<dyn StreamTransport>) -> Self {
        inner.base().add_handle();
        Self { inner: Some(inner) }
    }
}

impl Clone for Transport {
    fn clone(&self) -> Self {
        self.strong().into()
    }
}

impl Drop for Transport {
    #[inline]
    fn drop(&mut self) {
        self.base().drop_handle();
    }
}

impl EventLoopBuilder {
    /// The write mode of connections for which nothing else is said.
    ///
    /// ```
    /// use ringloop::{EventLoop, WriteMode};
    ///
    /// let event_loop = EventLoop::builder().write_mode(WriteMode::Immediate).build()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn write_mode(self, mode: WriteMode) -> Self {
        self.extension(Rc::new(mode))
    }
}

impl EventLoop {
    /// The write mode of connections for which nothing else is said.
    pub(crate) fn write_mode(&self) -> WriteMode {
        self.extension().map_or_else(WriteMode::default, |mode| *mode)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner().describe(f)
    }
}
