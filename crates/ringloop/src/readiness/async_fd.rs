//! A descriptor of one's own, and futures for its readiness.
//!
//! # Life of a wait
//!
//! ```text
//! polled: joins the waiters of its direction, the first one fills the watcher's slot
//!         -> ready: the handle empties the slot and calls all waiters
//!         -> dropped before: leaves, the last one empties the slot and ends the poll op
//! ```
//!
//! # Re-entrancy
//!
//! Wakers may be anybody's: they are cloned, woken and dropped with nothing borrowed.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::watcher::{WatchCallback, Watcher};
use crate::event_loop::{EventLoop, LoopRef, Waiters};
use crate::source::Direction;
use crate::{Error, Result};

/// Owns something with a descriptor, and waits for its readiness.
///
/// For whatever `epoll` takes: pipes, terminals, eventfd, timerfd, signalfd, pidfd, inotify. A socket is better served by a
/// transport. Reads and writes are the inner value's own, which should not block.
///
/// Any number of futures may wait at a time, in both directions; all that wait for a direction are woken together, so each
/// must expect that another was faster, as [`read_with`](Self::read_with) does.
///
/// # Cancel safety
///
/// All its futures may be dropped at any time: they take nothing out of the descriptor but in the call of `read_with` or
/// `write_with` that completes them. When the last one goes, nothing is left in the kernel.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// ringloop::run(async {
///     let (ours, mut theirs) = UnixStream::pair()?;
///     ours.set_nonblocking(true)?;
///     let ours = ringloop::AsyncFd::new(ours)?;
///     theirs.write_all(b"ring")?;
///     let mut bytes = [0; 8];
///     let count = ours.read_with(|mut inner| inner.read(&mut bytes)).await?;
///     assert_eq!(&bytes[..count], b"ring");
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// It owns what it watches; a mere number will not do:
///
/// ```compile_fail,E0277
/// ringloop::AsyncFd::new(0).unwrap();
/// ```
pub struct AsyncFd<T: AsFd> {
    /// Ends before what it watches is closed.
    watch: Watch,
    inner: T,
}

struct Watch {
    event_loop: LoopRef,
    watcher: Rc<Watcher>,
    readers: Side,
    writers: Side,
}

/// One direction.
struct Side {
    waiters: Rc<Waiters>,
    /// Stands in the watcher's slot while somebody waits.
    call: Rc<WatchCallback>,
}

/// One who waits for the next call.
struct Wait<'a> {
    watch: &'a Watch,
    direction: Direction,
    /// Among those who wait, from the first poll on.
    place: Cell<Option<u64>>,
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes `inner` for the loop that runs on this thread.
    ///
    /// # Errors
    ///
    /// [`Error::State`] where no loop runs, and if an open transport, a reader or a writer, or another `AsyncFd` uses the
    /// descriptor; `EPERM` for what is always ready, as regular files are. `inner` is dropped then.
    pub fn new(inner: T) -> Result<Self> {
        let watch = Watch::new(&EventLoop::running()?, &inner)?;
        Ok(Self { watch, inner })
    }

    /// The inner value.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Gives the inner value back, unwatched.
    ///
    /// ```
    /// ringloop::run(async {
    ///     let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    ///     let socket = ringloop::AsyncFd::new(ours)?.into_inner();
    ///     socket.set_nonblocking(false)?;
    ///     Ok::<(), ringloop::Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn into_inner(self) -> T {
        drop(self.watch);
        self.inner
    }

    /// Waits until it can be read, or is at its end or broken.
    ///
    /// # Errors
    ///
    /// [`Error::State`] once the loop is closed. A future that waits meanwhile says so when it is polled again; nobody
    /// wakes it.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any time; what made it readable stays.
    ///
    /// ```
    /// # ringloop::run(async {
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let ours = ringloop::AsyncFd::new(ours)?;
    /// drop(theirs);
    /// ours.readable().await?; // Its end can be read.
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn readable(&self) -> Result<()> {
        self.watch.ready(Direction::Read).await
    }

    /// Waits until it can be written, or is broken.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any time.
    pub async fn writable(&self) -> Result<()> {
        self.watch.ready(Direction::Write).await
    }

    /// Tries `read`, and again whenever it can be read, until it gives anything but
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). A call that was interrupted is repeated.
    ///
    /// # Errors
    ///
    /// That of `read`; [`Error::State`] as [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// It gives what `read` gave in the same step: dropped before, nothing is taken.
    pub async fn read_with<R>(&self, read: impl FnMut(&T) -> io::Result<R>) -> Result<R> {
        self.try_until_ready(Direction::Read, read).await
    }

    /// Tries `write`, and again whenever it can be written, until it gives anything but
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). A call that was interrupted is repeated.
    ///
    /// # Errors
    ///
    /// That of `write`; [`Error::State`] as [`readable`](Self::readable).
    ///
    /// # Cancel safety
    ///
    /// It gives what `write` gave in the same step: dropped before, nothing is written.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::io::Write;
    ///
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let ours = ringloop::AsyncFd::new(ours)?;
    /// ours.writable().await?;
    /// assert_eq!(ours.write_with(|mut inner| inner.write(b"ring")).await?, 4);
    /// println!("written to {:?}", ours.get_ref());
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn write_with<R>(&self, write: impl FnMut(&T) -> io::Result<R>) -> Result<R> {
        self.try_until_ready(Direction::Write, write).await
    }

    async fn try_until_ready<R>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&T) -> io::Result<R>,
    ) -> Result<R> {
        loop {
            match attempt(&self.inner) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch.ready(direction).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Ok(result?),
            }
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}

impl Watch {
    fn new(event_loop: &EventLoop, fd: &impl AsFd) -> Result<Self> {
        let watcher = event_loop.watch_as_owner(fd.as_fd().as_raw_fd())?;
        let readers = Side::new(&watcher, Direction::Read);
        let writers = Side::new(&watcher, Direction::Write);
        Ok(Self { event_loop: event_loop.downgrade(), watcher, readers, writers })
    }

    async fn ready(&self, direction: Direction) -> Result<()> {
        let wait = Wait { watch: self, direction, place: Cell::new(None) };
        poll_fn(|cx| wait.poll(cx)).await
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            drop(self.watcher.end(&event_loop));
        }
    }
}

impl Side {
    fn new(watcher: &Rc<Watcher>, direction: Direction) -> Self {
        let waiters = Rc::new(Waiters::default());
        let (watcher, called) = (Rc::downgrade(watcher), Rc::clone(&waiters));
        let call = WatchCallback::new(move |_| {
            // All that wait are woken below, so the slot is emptied. The next poll that has to wait fills it again.
            drop(watcher.upgrade().and_then(|watcher| watcher.clear(direction)));
            called.wake_all();
        });
        Self { waiters, call }
    }
}

impl Wait<'_> {
    fn poll(&self, cx: &Context<'_>) -> Poll<Result<()>> {
        let event_loop = self.watch.event_loop.upgrade().ok_or_else(Error::loop_closed)?;
        event_loop.check_closed()?;
        let Side { waiters, call } = self.watch.side(self.direction);
        if self.place.get().is_some_and(|place| !waiters.holds(place)) {
            return Poll::Ready(Ok(())); // It has been woken by the handle.
        }
        self.place.set(Some(waiters.join(self.place.get(), cx.waker())));
        let watcher = &self.watch.watcher;
        if !watcher.has(self.direction) {
            drop(watcher.set(self.direction, Rc::clone(call), &event_loop));
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Watch { event_loop, watcher, .. } = self.watch;
        let waiters = &self.watch.side(self.direction).waiters;
        // `leave()` gives `false` for a future that was woken, or that was never polled.
        let waited = self.place.get().is_some_and(|place| waiters.leave(place));
        if waited && waiters.is_empty() {
            drop(watcher.clear(self.direction));
            if let (true, Some(event_loop)) = (watcher.is_idle(), event_loop.upgrade()) {
                watcher.disarm(&event_loop);
            }
        }
    }
}
