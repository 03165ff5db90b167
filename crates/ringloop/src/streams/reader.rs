//! The reading half of a stream.
//!
//! # The life of a read
//!
//! ```text
//! first poll: an error? enough there? -- yes --> done
//!                     '-- no --> waits: the one place for who waits is taken, reading goes on if it was paused
//!                                  '-- feed_data(), feed_eof(), set_exception(): woken, the place is free --> looks again
//! ```
//!
//! Bytes leave the buffer in the step that returns them, so a read that is dropped has taken none.
//!
//! # What is lent
//!
//! The buffer holds leases of the kernel's buffers. What it holds for longer than an iteration, in pieces of less than 2 KiB,
//! is copied, so that a slow peer does not keep buffers from the others.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ringloop_driver::{Chunk, Completion, Received};

use super::buffer::{Buffer, SMALL};
use super::lines::Lines;
use super::search::{Found, Search};
use crate::event_loop::Source;
use crate::event_loop::door::{self, let_go};
use crate::transport::Transport;
use crate::{Error, EventLoop, Result};

/// The reading half of a stream: asyncio's `StreamReader`.
///
/// [`open_connection`](crate::open_connection) gives one, and a server's handler gets one. What a read gives is a lease of
/// the buffer that the kernel has filled, as a [`Received`]: nothing is copied unless it lies in several pieces.
///
/// Reads take `&self`, but only one of them may wait at a time; one that need not wait may come in between.
///
/// # Memory
///
/// Above twice the limit the connection is paused, at or below the limit it goes on, and the peer is throttled meanwhile. A
/// read that waits for more lets it go on, however much is there.
///
/// # Cancel safety
///
/// All reads are: dropped while it waits, a read has taken nothing. The next one finds all bytes.
///
/// # Examples
///
/// ```
/// use ringloop::StreamReader;
///
/// ringloop::run(async {
///     let reader = StreamReader::new(64 * 1024)?;
///     reader.feed_data(b"GET /\r\nHost: here\r\n\r\nbody")?;
///     reader.feed_eof();
///     assert_eq!(reader.read_line().await?, b"GET /\r\n");
///     assert_eq!(reader.read_until(b"\r\n\r\n").await?, b"Host: here\r\n\r\n");
///     assert_eq!(reader.read_to_end().await?, b"body");
///     assert!(reader.at_eof());
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct StreamReader {
    shared: Rc<Shared>,
    /// What was lent by `poll_fill_buf()`.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    held: Received,
}

/// What the reader has in common with those who feed it.
pub(super) struct Shared {
    limit: usize,
    buffer: RefCell<Buffer>,
    has_ended: Cell<bool>,
    has_failed: Cell<bool>,
    /// Shared, as copying it may run code of the user's: how an error of his shows itself.
    error: RefCell<Option<Rc<Error>>>,
    /// The read that waits, by its number, or [`NOBODY`].
    waiting: Cell<u64>,
    /// Its waker, kept for the next one: as a rule that is the same task's.
    waker: Cell<Option<Waker>>,
    last_wait: Cell<u64>,
    /// The wait of who polls, which others may end.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    polled_wait: Cell<u64>,
    /// The last wait that an error has ended.
    failed_wait: Cell<u64>,
    /// The wait for the end of the stream, from which everything is taken: it is never paused.
    wait_for_end: Cell<u64>,
    transport: RefCell<Option<Transport>>,
    is_paused: Cell<bool>,
    is_sweep_queued: Cell<bool>,
    /// The loop that fed it has closed: nothing comes any more.
    is_cut_off: Cell<bool>,
}

/// Reading.
impl StreamReader {
    /// A reader that is fed by hand. With more than twice `limit` bytes in it, it pauses the transport that feeds it. No line may
    /// be longer than `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the limit is zero.
    pub fn new(limit: usize) -> Result<Self> {
        if limit == 0 {
            return Err(Error::invalid_argument("Limit cannot be <= 0"));
        }
        Ok(Self {
            shared: Rc::new(Shared {
                limit,
                buffer: RefCell::default(),
                has_ended: Cell::new(false),
                has_failed: Cell::new(false),
                error: RefCell::new(None),
                waiting: Cell::new(NOBODY),
                waker: Cell::new(None),
                last_wait: Cell::new(NOBODY),
                #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
                polled_wait: Cell::new(NOBODY),
                failed_wait: Cell::new(NOBODY),
                wait_for_end: Cell::new(NOBODY),
                transport: RefCell::new(None),
                is_paused: Cell::new(false),
                is_sweep_queued: Cell::new(false),
                is_cut_off: Cell::new(false),
            }),
            #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
            held: Received::default(),
        })
    }

    /// The limit that it was made with, in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Waits until something is there, and takes up to `n` bytes of it. Empty only at the end of the stream, or if `n` is
    /// zero.
    ///
    /// What is given lies in one piece. Small pieces are joined, up to 2 KiB; of larger ones the next read gives the next.
    ///
    /// # Errors
    ///
    /// What ended the connection; [`Error::State`] if another read waits.
    ///
    /// ```
    /// # ringloop::run(async {
    /// let reader = ringloop::StreamReader::new(64 * 1024)?;
    /// assert_eq!(reader.limit(), 64 * 1024);
    /// reader.feed_data(b"GET /")?;
    /// assert_eq!(reader.read(3).await?, b"GET");
    /// assert_eq!(reader.read(100).await?, b" /");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn read(&self, n: usize) -> impl Future<Output = Result<Received>> {
        Read::new(&self.shared, Kind::Read, move |shared| shared.take_some(n).map(Ok))
    }

    /// Waits until the end of the stream, and takes all: asyncio's `read(-1)`. Not bounded by the limit, and the connection is
    /// not paused meanwhile.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); what was received before is lost then.
    pub fn read_to_end(&self) -> impl Future<Output = Result<Received>> {
        let take = |shared: &Shared| shared.has_ended.get().then(|| Ok(shared.take_all()));
        ReadToEnd(Read::new(&self.shared, Kind::Read, take))
    }

    /// Waits until `n` bytes are there, and takes them. Not bounded by the limit.
    ///
    /// ```compile_fail
    /// # async fn f(reader: &ringloop::StreamReader) {
    /// reader.read_exactly(-1).await; // A number of bytes is not negative.
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::IncompleteRead`] with what was there if the stream ends before; else as [`read`](Self::read).
    pub fn read_exactly(&self, n: usize) -> impl Future<Output = Result<Received>> {
        let take = move |shared: &Shared| {
            if shared.len() >= n {
                Some(Ok(shared.take(n)))
            } else if shared.has_ended.get() {
                Some(Err(shared.incomplete(Some(n))))
            } else {
                None
            }
        };
        Read::new(&self.shared, Kind::ReadExactly, take)
    }

    /// Takes everything up to `separator`, which is included.
    ///
    /// # Errors
    ///
    /// [`Error::LimitOverrun`] if more than the limit comes before the separator: the bytes stay and can be read otherwise.
    /// [`Error::IncompleteRead`] with all that was there if the stream ends before. [`Error::InvalidArgument`] if the
    /// separator is empty. Else as [`read`](Self::read).
    pub async fn read_until(&self, separator: impl AsRef<[u8]>) -> Result<Received> {
        self.until(Search::one(separator.as_ref())).await
    }

    /// As [`read_until`](Self::read_until), but up to whichever of the separators ends first.
    ///
    /// ```
    /// # use ringloop::StreamReader;
    /// # ringloop::run(async {
    /// let reader = StreamReader::new(100)?;
    /// reader.feed_data(b"one\r\ntwo\n")?;
    /// assert_eq!(reader.read_until_any(&["\n", "\r\n"]).await?, b"one\r\n");
    /// assert_eq!(reader.read_until_any(&["\n", "\r\n"]).await?, b"two\n");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read_until`](Self::read_until); [`Error::InvalidArgument`] if there is no separator.
    pub async fn read_until_any<S: AsRef<[u8]>>(&self, separators: &[S]) -> Result<Received> {
        self.until(Search::several(separators.iter().map(AsRef::as_ref))).await
    }

    /// Takes a line with its newline; at the end of the stream what is left without one, then nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the line is longer than the limit. It is dropped then, if its newline is there, else all
    /// that is there; reading may go on behind it. Else as [`read`](Self::read).
    pub fn read_line(&self) -> impl Future<Output = Result<Received>> {
        let mut search = Search::newline();
        Read::new(&self.shared, Kind::ReadUntil, move |shared| shared.take_line(&mut search))
    }

    /// As [`read_line`](Self::read_line), but appends the line to `line`, and gives how many bytes that were: no allocation
    /// even for a line that arrives in pieces, as long as there is room in `line`.
    ///
    /// # Errors
    ///
    /// As [`read_line`](Self::read_line); `line` is unchanged then.
    ///
    /// ```
    /// # ringloop::run(async {
    /// let reader = ringloop::StreamReader::new(100)?;
    /// reader.feed_data(b"one\ntwo\n")?;
    /// let mut line = Vec::new();
    /// while line.len() < 8 {
    ///     reader.read_line_into(&mut line).await?;
    /// }
    /// assert_eq!(line, b"one\ntwo\n");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn read_line_into(&self, line: &mut Vec<u8>) -> Result<usize> {
        let mut search = Search::newline();
        let take = |shared: &Shared| {
            let end = shared.next_line(&mut search)?;
            Some(end.inspect(|&len| shared.take_into(len, line)))
        };
        Read::new(&self.shared, Kind::ReadUntil, take).await
    }

    /// The lines, one after the other, until the end of the stream: asyncio's `async for line in reader`.
    ///
    /// ```
    /// # use ringloop::StreamReader;
    /// # ringloop::run(async {
    /// let reader = StreamReader::new(100)?;
    /// reader.feed_data(b"one\ntwo")?;
    /// reader.feed_eof();
    /// let mut lines = reader.lines();
    /// while let Some(line) = lines.next_line().await? {
    ///     println!("{}", line.escape_ascii());
    /// }
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn lines(&self) -> Lines<'_> {
        Lines::new(self)
    }

    /// Whether the stream has ended and everything was taken.
    pub fn at_eof(&self) -> bool {
        self.shared.has_ended.get() && self.shared.len() == 0
    }

    async fn until(&self, mut search: Search<'_>) -> Result<Received> {
        match search.lengths() {
            None => {
                let text = "Separator should contain at least one element";
                return Err(Error::invalid_argument(text));
            }
            Some((0, _)) => {
                let text = "Separator should be at least one-byte string";
                return Err(Error::invalid_argument(text));
            }
            Some(_) => {}
        }
        let take = |shared: &Shared| match shared.search(&mut search) {
            Some(Found::Separator { end, .. }) => Some(Ok(shared.take(end))),
            Some(Found::TooLate { start }) => Some(Err(overrun(FOUND_TOO_LATE, start))),
            Some(Found::NotWithin { searched }) => Some(Err(overrun(NOT_FOUND, searched))),
            None => shared.has_ended.get().then(|| Err(shared.incomplete(None))),
        };
        Read::new(&self.shared, Kind::ReadUntil, take).await
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Rc::downgrade(&self.shared)
    }
}

/// Feeding, for those who bring the bytes from elsewhere.
impl StreamReader {
    /// Appends bytes, and wakes who waits. A `Vec`, `Bytes` or [`Received`] is taken as it is.
    ///
    /// # Errors
    ///
    /// [`Error::State`] after [`feed_eof`](Self::feed_eof); the bytes are dropped then.
    pub fn feed_data<'a>(&self, data: impl Into<Chunk<'a>>) -> Result<()> {
        self.shared.feed_chunk(data.into())
    }

    /// Ends the stream, and wakes who waits.
    pub fn feed_eof(&self) {
        self.shared.feed_eof();
    }

    /// Fails the read that waits and all later ones, even if there are bytes.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::{Error, StreamReader};
    ///
    /// let reader = StreamReader::new(100)?;
    /// reader.set_exception(Error::Timeout);
    /// assert!(matches!(reader.exception(), Some(Error::Timeout)));
    /// assert!(matches!(reader.read(1).await, Err(Error::Timeout)));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn set_exception(&self, error: impl Into<Error>) {
        self.shared.set_exception(error.into());
    }

    /// What [`set_exception`](Self::set_exception) was given: the error that ended the connection.
    pub fn exception(&self) -> Option<Error> {
        self.shared.exception()
    }

    /// Has the reader pause `transport` above twice its limit.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if it has one already.
    ///
    /// ```
    /// use ringloop::{Result, StreamReader, Transport};
    ///
    /// fn reader_of(transport: &Transport) -> Result<StreamReader> {
    ///     let reader = StreamReader::new(64 * 1024)?;
    ///     reader.set_transport(transport)?;
    ///     Ok(reader)
    /// }
    /// ```
    pub fn set_transport(&self, transport: &Transport) -> Result<()> {
        self.shared.set_transport(transport)
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// A read: calls `take` until that gives something, and waits before each further call. A future of its own, as one that awaits
/// another costs each message the steps of both.
struct Read<'a, T> {
    shared: &'a Rc<Shared>,
    take: T,
    /// The number of its wait, while it waits and until it has looked again.
    wait: Cell<u64>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    ReadExactly,
    ReadUntil,
}

impl<'a, R, T: FnMut(&Shared) -> Option<Result<R>> + Unpin> Read<'a, T> {
    fn new(shared: &'a Rc<Shared>, kind: Kind, take: T) -> Self {
        Self { shared, take, wait: Cell::new(NOBODY), kind }
    }
}

impl<R, T: FnMut(&Shared) -> Option<Result<R>> + Unpin> Future for Read<'_, T> {
    type Output = Result<R>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<R>> {
        let Self { shared, take, wait, kind } = &mut *self;
        shared.poll_take(wait, *kind, cx, take)
    }
}

impl<T> Drop for Read<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.wait.get() != NOBODY {
            self.shared.end_wait(self.wait.get());
        }
    }
}

/// A read that waits for the end of the stream: the reader knows of its wait.
struct ReadToEnd<'a, T>(Read<'a, T>);

impl<R, T: FnMut(&Shared) -> Option<Result<R>> + Unpin> Future for ReadToEnd<'_, T> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<R>> {
        let last = self.0.wait.get();
        let polled = Pin::new(&mut self.0).poll(cx);
        let Read { shared, wait, .. } = &self.0;
        if wait.get() != last {
            shared.wait_for_end.set(wait.get());
        }
        polled
    }
}

impl<T> Drop for ReadToEnd<'_, T> {
    fn drop(&mut self) {
        if self.0.wait.get() != NOBODY {
            self.0.shared.wait_for_end.set(NOBODY);
        }
    }
}

/// For who feeds.
impl Shared {
    pub(super) fn feed_chunk(self: &Rc<Self>, chunk: Chunk<'_>) -> Result<()> {
        let small = chunk.len() < SMALL && !matches!(chunk, Chunk::Received(_));
        if small && !chunk.is_empty() {
            if let Err(refused) = self.check_open() {
                let_go("fed bytes", chunk);
                return Err(refused);
            }
            if self.buffer.borrow_mut().push_copy(&chunk) {
                let_go("fed bytes", chunk);
                self.fed();
                return Ok(());
            }
        }
        self.feed(match chunk {
            Chunk::Borrowed(bytes) => bytes.into(),
            Chunk::Vec(bytes) => bytes.into(),
            Chunk::Bytes(bytes) => bytes.into(),
            Chunk::Received(received) => received,
            other => (*other).into(),
        })
    }

    pub(super) fn feed(self: &Rc<Self>, data: Received) -> Result<()> {
        self.check_open()?;
        if !data.is_empty() {
            self.buffer.borrow_mut().push(data);
            self.fed();
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if self.has_ended.get() { Err(Error::state("feed_data after feed_eof")) } else { Ok(()) }
    }

    #[inline]
    fn fed(self: &Rc<Self>) {
        if !self.wake() {
            self.queue_sweep();
        }
        if self.len() > self.limit {
            self.pause_if_full();
        }
    }

    #[cold]
    fn pause_if_full(&self) {
        let is_full = self.len() > self.limit.saturating_mul(2);
        if is_full && !self.is_paused.get() && self.wait_for_end.get() == NOBODY {
            if let Some(transport) = self.transport() {
                self.is_paused.set(true);
                transport.pause_reading();
            }
        }
    }

    pub(super) fn feed_eof(&self) {
        self.has_ended.set(true);
        self.wake();
    }

    pub(super) fn set_exception(&self, error: Error) {
        let old = self.error.replace(Some(Rc::new(error)));
        self.has_failed.set(true);
        self.failed_wait.set(self.waiting.get());
        self.wake();
        let_go("an error", old);
    }

    pub(super) fn exception(&self) -> Option<Error> {
        let error = self.error.borrow().clone()?;
        let copy = Error::clone(&error);
        let_go("an error", error); // Another may have come meanwhile.
        Some(copy)
    }

    /// Nothing comes any more, though the stream has not ended: its loop has closed. What is there can be read.
    pub(super) fn cut_off(&self) {
        self.is_cut_off.set(true);
        self.wake();
    }

    pub(super) fn set_transport(&self, transport: &Transport) -> Result<()> {
        if self.transport.borrow().is_some() {
            return Err(Error::state("Transport already set"));
        }
        self.transport.replace(Some(transport.clone()));
        Ok(())
    }

    fn transport(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    /// Gives whether anybody has waited.
    #[inline(always)]
    fn wake(&self) -> bool {
        if self.waiting.replace(NOBODY) == NOBODY {
            return false;
        }
        if let Some(waker) = self.waker.take() {
            door::wake(&waker);
            if let Some(newer) = self.waker.replace(Some(waker)) {
                let_go("a waker", self.waker.replace(Some(newer))); // A read has begun to wait meanwhile.
            }
        }
        true
    }
}

/// For who reads.
impl Shared {
    pub(super) fn len(&self) -> usize {
        self.buffer.borrow().len()
    }

    pub(super) fn check_error(&self) -> Result<()> {
        if self.has_failed.get() { self.fail() } else { Ok(()) }
    }

    #[cold]
    fn fail(&self) -> Result<()> {
        self.exception().map_or(Ok(()), Err)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Calls `take`, and waits if that gives nothing. `wait` is the number of the wait, while there is one. Here stands what nearly
    /// every read does; all else is done by [`poll_slowly`](Self::poll_slowly).
    #[inline]
    fn poll_take<R>(
        self: &Rc<Self>,
        wait: &Cell<u64>,
        kind: Kind,
        cx: &Context<'_>,
        mut take: impl FnMut(&Self) -> Option<Result<R>>,
    ) -> Poll<Result<R>> {
        let waits = wait.get() != NOBODY && self.waiting.get() == wait.get();
        if !waits && !self.has_failed.get() {
            if let Some(taken) = take(self) {
                wait.set(NOBODY);
                self.taken();
                return Poll::Ready(taken);
            }
            let may_wait = !self.is_paused.get() && !self.is_cut_off.get();
            if may_wait && self.waiting.get() == NOBODY && self.has_waker(cx.waker()) {
                self.begin_wait(wait);
                return Poll::Pending;
            }
        }
        self.poll_slowly(wait, kind, cx, take)
    }

    /// A waker may be anybody's, and cloning it may feed this reader, read from it, or panic. So the reader is looked at again after
    /// that, and `wait` is true at each moment.
    #[inline(never)]
    fn poll_slowly<R>(
        self: &Rc<Self>,
        wait: &Cell<u64>,
        kind: Kind,
        cx: &Context<'_>,
        mut take: impl FnMut(&Self) -> Option<Result<R>>,
    ) -> Poll<Result<R>> {
        let mut clone = None;
        let last = wait.get();
        if last != NOBODY && self.waiting.get() == last {
            if self.has_waker(cx.waker()) {
                return Poll::Pending;
            }
            let waker = cx.waker().clone();
            if self.waiting.get() == last {
                let_go("a waker", self.waker.replace(Some(waker)));
                return Poll::Pending;
            }
            clone = Some(waker);
        }
        wait.set(NOBODY);
        if last == NOBODY || self.failed_wait.get() == last {
            self.check_error()?;
        }
        loop {
            if let Some(taken) = take(self) {
                self.taken();
                return Poll::Ready(taken);
            }
            self.check_error()?;
            self.resume(); // Who waits while it is paused would wait for ever.
            if self.is_cut_off.get() {
                return Poll::Ready(Err(Error::loop_closed()));
            }
            if self.is_waited_for() {
                return Poll::Ready(Err(waits_already(kind)));
            }
            if clone.is_some() || self.has_waker(cx.waker()) {
                break;
            }
            clone = Some(cx.waker().clone());
        }
        let old = clone.and_then(|clone| self.waker.replace(Some(clone)));
        self.begin_wait(wait);
        let_go("a waker", old);
        Poll::Pending
    }

    /// Takes the place of who waits. What is there already is copied after that: dropping it may run code of the user's, and
    /// what that feeds wakes.
    #[inline]
    fn begin_wait(&self, wait: &Cell<u64>) {
        let number = self.last_wait.get() + 1;
        self.last_wait.set(number);
        self.waiting.set(number);
        wait.set(number);
        if self.buffer.borrow().has_pieces() {
            self.absorb();
        }
    }

    /// A read that has begun to wait is dropped.
    fn end_wait(&self, wait: u64) {
        if self.waiting.get() == wait {
            self.waiting.set(NOBODY);
            let_go("a waker", self.waker.take());
        }
    }

    /// Whether a read waits that is an awaited future, whose drop ends the wait. One that was polled ends without notice.
    fn is_waited_for(&self) -> bool {
        let waiting = self.waiting.get();
        #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
        let waiting = if waiting == self.polled_wait.get() { NOBODY } else { waiting };
        waiting != NOBODY
    }

    /// Whether the waker that is kept is this one.
    #[inline]
    fn has_waker(&self, waker: &Waker) -> bool {
        let known = self.waker.take();
        let is_known = known.as_ref().is_some_and(|known| known.will_wake(waker));
        self.waker.set(known);
        is_known
    }

    /// What follows from bytes having left.
    fn taken(self: &Rc<Self>) {
        if self.is_paused.get() && self.len() <= self.limit {
            self.resume();
        }
        if self.len() > 0 {
            self.queue_sweep();
        }
    }

    fn resume(&self) {
        if self.is_paused.replace(false) {
            if let Some(transport) = self.transport() {
                transport.resume_reading();
            }
        }
    }

    fn search(&self, search: &mut Search<'_>) -> Option<Found> {
        search.run(&mut self.buffer.borrow_mut(), self.limit)
    }

    /// The length of the next line. One that is too long is dropped.
    fn next_line(&self, search: &mut Search<'_>) -> Option<Result<usize>> {
        match self.search(search) {
            Some(Found::Separator { end, .. }) => Some(Ok(end)),
            Some(Found::TooLate { start }) => {
                self.skip(start + 1);
                Some(Err(Error::invalid_argument(FOUND_TOO_LATE)))
            }
            Some(Found::NotWithin { .. }) => {
                self.skip(self.len());
                Some(Err(Error::invalid_argument(NOT_FOUND)))
            }
            None => self.has_ended.get().then(|| Ok(self.len())),
        }
    }

    fn take_line(&self, search: &mut Search<'_>) -> Option<Result<Received>> {
        Some(self.next_line(search)?.map(|len| self.take(len)))
    }

    #[inline]
    fn take_some(&self, most: usize) -> Option<Received> {
        let mut buffer = self.buffer.borrow_mut();
        let only = buffer.pop_only(most);
        drop(buffer);
        only.or_else(|| self.take_pieces_joined(most))
    }

    fn take_pieces_joined(&self, most: usize) -> Option<Received> {
        let mut buffer = self.buffer.borrow_mut();
        let there = buffer.len().min(most);
        if there == 0 {
            return (most == 0 || self.has_ended.get()).then(Received::default);
        }
        let first = buffer.pop(there);
        drop(buffer);
        let is_whole = first.len() == there || there > SMALL;
        Some(if is_whole { first } else { self.join(first, there) })
    }

    fn take_all(&self) -> Received {
        self.take(self.len())
    }

    /// Takes the first `len` bytes, which are there.
    fn take(&self, len: usize) -> Received {
        if len == 0 {
            return Received::default(); // None of the buffers is lent for it.
        }
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.pop_only(len).unwrap_or_else(|| buffer.pop(len));
        drop(buffer);
        if first.len() == len { first } else { self.join(first, len) }
    }

    #[cold]
    fn join(&self, first: Received, len: usize) -> Received {
        let mut joined = Vec::with_capacity(len);
        joined.extend_from_slice(&first);
        let_go("fed bytes", first);
        self.take_into(len - joined.len(), &mut joined);
        joined.into()
    }

    fn take_into(&self, len: usize, out: &mut Vec<u8>) {
        self.take_with(len, &mut |piece: &[u8]| out.extend_from_slice(piece));
    }

    fn take_with(&self, mut len: usize, put: &mut impl FnMut(&[u8])) {
        while len > 0 {
            let (count, gone) = self.buffer.borrow_mut().pop_with(len, put);
            let_go("fed bytes", gone);
            if count == 0 {
                return;
            }
            len -= count;
        }
    }

    fn skip(&self, mut len: usize) {
        while len > 0 {
            let (count, gone) = self.buffer.borrow_mut().skip(len);
            let_go("fed bytes", gone);
            if count == 0 {
                return;
            }
            len -= count;
        }
    }

    fn incomplete(&self, expected: Option<usize>) -> Error {
        let partial = self.take_all();
        Error::IncompleteRead { partial: Bytes::copy_from_slice(&partial), expected }
    }
}

/// For who polls.
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
impl Shared {
    /// A read whose caller polls, and may stop without notice.
    pub(super) fn poll_polled<R>(
        self: &Rc<Self>,
        cx: &Context<'_>,
        take: impl FnMut(&Self) -> Option<Result<R>>,
    ) -> Poll<Result<R>> {
        self.poll_take(&self.polled_wait, Kind::Read, cx, take)
    }

    /// The first piece, which stays there; nothing at the end.
    pub(super) fn first(&self) -> Option<Result<Received>> {
        let is_there = self.len() > 0 || self.has_ended.get();
        is_there.then(|| Ok(self.buffer.borrow_mut().first()))
    }

    pub(super) fn consume(self: &Rc<Self>, count: usize) {
        self.skip(count.min(self.len()));
        self.taken();
    }

    /// Gives up to `most` bytes to `put`.
    pub(super) fn take_pieces(
        &self,
        most: usize,
        put: &mut impl FnMut(&[u8]),
    ) -> Option<Result<()>> {
        let there = self.len().min(most);
        if there == 0 {
            return self.has_ended.get().then_some(Ok(()));
        }
        self.take_with(there, put);
        Some(Ok(()))
    }
}

#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
impl StreamReader {
    #[cfg(feature = "futures-io")]
    pub(super) fn poll_line(&self, cx: &Context<'_>) -> Poll<Result<Received>> {
        let mut search = Search::newline();
        self.shared.poll_polled(cx, |shared| shared.take_line(&mut search))
    }

    /// Keeps a piece alive that somebody looks at.
    pub(super) fn hold(&mut self, piece: Received) -> &[u8] {
        let_go("fed bytes", std::mem::replace(&mut self.held, piece));
        &self.held
    }
}

/// Giving leases back.
impl Shared {
    /// Small pieces are copied, so that nobody misses their buffers.
    fn absorb(&self) {
        if !self.buffer.borrow().is_wasteful() {
            return;
        }
        loop {
            let absorbed = self.buffer.borrow_mut().absorb();
            let Some(piece) = absorbed else { return };
            let_go("fed bytes", piece);
        }
    }

    /// Has the loop look in the next iteration whether what is there is still there.
    #[inline(never)]
    fn queue_sweep(self: &Rc<Self>) {
        if self.is_sweep_queued.get() || !self.buffer.borrow().has_pieces() {
            return;
        }
        if let Some(event_loop) = EventLoop::current() {
            self.is_sweep_queued.set(true);
            event_loop.queue_source(Rc::clone(self) as Rc<dyn Source>, SWEEP);
        }
    }
}

impl Source for Shared {
    /// It has no op.
    fn complete(self: Rc<Self>, _: Completion, _: &EventLoop) {}

    fn run(self: Rc<Self>, _: u8, _: &EventLoop) {
        self.is_sweep_queued.set(false);
        self.absorb();
    }

    fn on_loop_close(self: Rc<Self>) {}

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let_go("an error", self.error.take());
        let_go("a waker", self.waker.take());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<StreamReader")?;
        if self.len() > 0 {
            write!(f, " {} bytes", self.len())?;
        }
        if self.has_ended.get() {
            f.write_str(" eof")?;
        }
        if self.limit != DEFAULT_LIMIT {
            write!(f, " limit={}", self.limit)?;
        }
        if self.waiting.get() != NOBODY {
            f.write_str(" waiter")?;
        }
        // Shown outside of the borrow, as that may run code of the user's.
        let error = self.error.borrow().clone();
        if let Some(error) = error {
            write!(f, " exception={error:?}")?;
            let_go("an error", error);
        }
        if let Some(transport) = &*self.transport.borrow() {
            write!(f, " transport={transport:?}")?;
        }
        if self.is_paused.get() {
            f.write_str(" paused")?;
        }
        f.write_str(">")
    }
}

#[cold]
fn waits_already(kind: Kind) -> Error {
    let name = match kind {
        Kind::Read => "read",
        Kind::ReadExactly => "readexactly",
        Kind::ReadUntil => "readuntil",
    };
    let text = "called while another coroutine is already waiting for incoming data";
    Error::state(format!("{name}() {text}"))
}

fn overrun(message: &'static str, consumed: usize) -> Error {
    Error::LimitOverrun { message, consumed }
}

const FOUND_TOO_LATE: &str = "Separator is found, but chunk is longer than limit";
const NOT_FOUND: &str = "Separator is not found, and chunk exceed the limit";

/// The limit of a stream for which nothing else is said, in bytes.
pub(super) const DEFAULT_LIMIT: usize = 64 * 1024;

/// No wait has this number.
const NOBODY: u64 = 0;

/// What a queued handle is for.
const SWEEP: u8 = 0;
