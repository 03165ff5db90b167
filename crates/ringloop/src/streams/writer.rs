//! The writing half of a stream.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ringloop_driver::Chunk;

use super::link::{Link, WaitForRoom};
use super::reader::{Shared, StreamReader};
use crate::transport::Transport;
use crate::transport::extra_info::ExtraKey;
use crate::{Result, YieldNow, yield_now};

/// The writing half of a stream: asyncio's `StreamWriter`.
///
/// `write()` never waits: what the kernel has no room for is buffered. So a program that writes much calls
/// [`drain`](Self::drain) now and then, which waits while more than 64 KiB are buffered.
///
/// One that is dropped closes the connection, with a warning unless [`close`](Self::close) was called before: only
/// [`wait_closed`](Self::wait_closed) tells whether everything could be sent.
///
/// ```
/// use ringloop::{StreamReader, StreamWriter};
///
/// async fn answer(reader: StreamReader, writer: StreamWriter) -> ringloop::Result<()> {
///     let line = reader.read_line().await?;
///     writer.write(line)?;
///     writer.drain().await?;
///     writer.close();
///     writer.wait_closed().await
/// }
/// ```
pub struct StreamWriter {
    transport: Transport,
    link: Rc<Link>,
    /// Alive as long as the writer: `drain()` gives its error.
    reader: Rc<Shared>,
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    places: super::polling::Places,
}

impl StreamWriter {
    pub(super) fn new(transport: Transport, link: Rc<Link>, reader: &StreamReader) -> Self {
        Self {
            transport,
            link,
            reader: Rc::clone(reader.shared()),
            #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
            places: super::polling::Places::default(),
        }
    }

    /// The transport below.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Writes `data`, now or later: a slice is copied; a `Vec`, [`Bytes`](bytes::Bytes) or
    /// [`Received`](ringloop_driver::Received) is taken as it is. See [`Transport::write`].
    ///
    /// # Errors
    ///
    /// [`Error::State`](crate::Error::State) after [`write_eof`](Self::write_eof).
    pub fn write<'a>(&self, data: impl Into<Chunk<'a>>) -> Result<()> {
        self.transport.write(data)
    }

    /// Writes all of `list` as one. See [`Transport::writelines`].
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn writelines<'a, I>(&self, list: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: Into<Chunk<'a>>,
    {
        self.transport.writelines(list)
    }

    /// Waits until there is room for more: the pattern is `write()`, then `drain().await`.
    ///
    /// Returns at once while less than the high-water mark (64 KiB) is buffered; if it waits, until no more than the
    /// low-water mark (16 KiB) is. Several tasks may wait. If the connection is closed, it first gives up control for one
    /// iteration, so that a loop of `write()` and `drain()` sees the loss.
    ///
    /// # Errors
    ///
    /// What ended the connection; a [reset](std::io::ErrorKind::ConnectionReset) "Connection lost" if it was closed
    /// here.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it changes nothing: what was written is sent.
    pub fn drain(&self) -> impl Future<Output = Result<()>> {
        Drain { writer: self, state: Draining::Begins }
    }

    /// Whether [`write_eof`](Self::write_eof) is supported: true for sockets.
    pub fn can_write_eof(&self) -> bool {
        self.transport.can_write_eof()
    }

    /// Closes the sending side once everything is sent; reading goes on. See [`Transport::write_eof`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the transport cannot.
    ///
    /// ```
    /// use ringloop::{Result, StreamWriter, extra_info};
    ///
    /// fn finish(writer: &StreamWriter) -> Result<()> {
    ///     writer.writelines(["one\n", "two\n"])?;
    ///     if writer.can_write_eof() && !writer.is_closing() {
    ///         writer.write_eof()?;
    ///     }
    ///     println!("sent to {:?}", writer.get_extra_info(extra_info::PEERNAME));
    ///     println!("{} bytes wait", writer.transport().get_write_buffer_size());
    ///     Ok(())
    /// }
    /// ```
    pub fn write_eof(&self) -> Result<()> {
        self.transport.write_eof()
    }

    /// Closes the connection once everything is sent. What the reader has already can still be read. A second call does
    /// nothing.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Whether the connection is closed, or about to be.
    pub fn is_closing(&self) -> bool {
        self.transport.is_closing()
    }

    /// Waits until the connection is closed, which [`close`](Self::close) begins: then everything is sent. May be called
    /// many times, and by several tasks.
    ///
    /// # Errors
    ///
    /// What ended the connection if it was not `close()`: something may not have been sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, and changes nothing for the connection.
    pub async fn wait_closed(&self) -> Result<()> {
        self.link.wait_closed().await
    }

    /// What is known about the connection. See [`Transport::get_extra_info`].
    pub fn get_extra_info<T: Clone + 'static>(&self, key: ExtraKey<T>) -> Option<T> {
        self.transport.get_extra_info(key)
    }

    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(super) fn places(&self) -> &super::polling::Places {
        &self.places
    }

    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(super) fn check_error(&self) -> Result<()> {
        self.reader.check_error()
    }

    pub(super) fn link(&self) -> &Rc<Link> {
        &self.link
    }
}

/// A `drain()`. As a rule it returns at once, so that is all that stands in its `poll()`.
struct Drain<'a> {
    writer: &'a StreamWriter,
    state: Draining<'a>,
}

enum Draining<'a> {
    Begins,
    /// The connection is closed.
    Yields(YieldNow),
    Waits(WaitForRoom<'a>),
}

impl Future for Drain<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let StreamWriter { link, reader, transport, .. } = self.writer;
        let has_room = link.is_flowing() && !reader.has_failed() && !transport.is_closing();
        match self.state {
            Draining::Begins if has_room => Poll::Ready(Ok(())),
            _ => self.get_mut().poll_slowly(cx),
        }
    }
}

impl Drain<'_> {
    #[inline(never)]
    fn poll_slowly(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let StreamWriter { link, reader, transport, .. } = self.writer;
        loop {
            self.state = match &mut self.state {
                Draining::Begins => {
                    reader.check_error()?;
                    if transport.is_closing() {
                        Draining::Yields(yield_now())
                    } else {
                        Draining::Waits(link.wait_for_room())
                    }
                }
                Draining::Yields(yielding) => {
                    ready!(Pin::new(yielding).poll(cx));
                    Draining::Waits(link.wait_for_room())
                }
                Draining::Waits(waiting) => return waiting.poll(cx),
            };
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
        self.places.leave(&self.transport, &self.link);
        if self.transport.is_closing() {
            return;
        }
        self.transport.close();
        #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
        if self.places.is_ended.get() {
            return; // `poll_close()` or `poll_shutdown()` has ended it: those traits have no other way to close.
        }
        if self.link.is_handled.get() {
            self.link.is_unclosed.set(true); // If the handler fails, that is what is reported.
        } else {
            warn_unclosed(&self.transport);
        }
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<StreamWriter transport={:?} reader={:?}>", self.transport, self.reader)
    }
}

/// Tells the user of a connection that was not closed.
pub(super) fn warn_unclosed(transport: &Transport) {
    if let Some(event_loop) = transport.base().event_loop() {
        event_loop.warn_unclosed(&format!("<StreamWriter transport={transport:?}>"));
    }
}
