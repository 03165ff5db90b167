//! A descriptor of one's own, and futures for its readiness.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::watcher::Direction;
use crate::event_loop::{EventLoop, LoopRef};
use crate::{Error, Result};

/// Owns something with a descriptor, and waits for its readiness.
///
/// For whatever `epoll` takes: pipes, terminals, eventfd, timerfd, signalfd, pidfd, inotify. A socket is better served by a
/// transport. Reads and writes are the inner value's own, which should not block.
///
/// All its futures may be dropped at any time: they take nothing out of the descriptor.
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
pub struct AsyncFd<T: AsRawFd> {
    /// Goes before what it watches.
    watch: Watch,
    inner: T,
}

/// The descriptor's number and those who wait for it.
struct Watch {
    number: RawFd,
    event_loop: LoopRef,
    readers: Waiters,
    writers: Waiters,
}

impl<T: AsRawFd> AsyncFd<T> {
    /// Takes `inner` for the loop that runs on this thread.
    ///
    /// # Errors
    ///
    /// [`Error::State`] where no loop runs, or if an open transport uses the descriptor; `EPERM` for what is always
    /// ready, as regular files are.
    pub fn new(inner: T) -> Result<Self> {
        let event_loop = EventLoop::running()?;
        let number = inner.as_raw_fd();
        // Asks whether it can be watched, now rather than at the first wait.
        event_loop.add_watch(number, Direction::Read, Box::new(|_| ()))?;
        event_loop.remove_watch(number, Direction::Read)?;
        let (readers, writers) = Default::default();
        Ok(Self {
            watch: Watch { number, event_loop: event_loop.downgrade(), readers, writers },
            inner,
        })
    }

    /// The inner value.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Gives the inner value back, unwatched.
    pub fn into_inner(self) -> T {
        drop(self.watch);
        self.inner
    }

    /// Waits until it can be read, or is at its end.
    ///
    /// # Errors
    ///
    /// [`Error::State`] once the loop is closed.
    pub async fn readable(&self) -> Result<()> {
        self.watch.ready(Direction::Read).await
    }

    /// Waits until it can be written.
    ///
    /// # Errors
    ///
    /// [`Error::State`] once the loop is closed.
    pub async fn writable(&self) -> Result<()> {
        self.watch.ready(Direction::Write).await
    }

    /// Tries `read`, and again whenever it can be read, until it gives anything but
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    ///
    /// # Errors
    ///
    /// That of `read`; [`Error::State`] once the loop is closed.
    pub async fn read_with<R>(&self, read: impl FnMut(&T) -> io::Result<R>) -> Result<R> {
        self.try_until_ready(Direction::Read, read).await
    }

    /// Tries `write`, and again whenever it can be written, until it gives anything but
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    ///
    /// # Errors
    ///
    /// That of `write`; [`Error::State`] once the loop is closed.
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

impl<T: AsRawFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}

impl Watch {
    async fn ready(&self, direction: Direction) -> Result<()> {
        let waiters = self.waiters(direction);
        let ticket = Ticket { watch: self, direction, id: waiters.take_number() };
        poll_fn(|cx| {
            if waiters.is_called(ticket.id) {
                return Poll::Ready(Ok(()));
            }
            let is_first = waiters.wait(ticket.id, cx.waker());
            if is_first {
                if let Err(error) = self.start_watching(direction) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn start_watching(&self, direction: Direction) -> Result<()> {
        let event_loop = self.event_loop.upgrade().ok_or_else(Error::loop_closed)?;
        let waiters = Rc::downgrade(&self.waiters(direction).0);
        let number = self.number;
        let call_all = move |event_loop: &EventLoop| {
            // Nobody waits any more until somebody asks again.
            let _ = event_loop.remove_watch(number, direction);
            if let Some(waiters) = waiters.upgrade() {
                Waiters(waiters).call_all();
            }
        };
        event_loop.add_watch(number, direction, Box::new(call_all))
    }

    fn waiters(&self, direction: Direction) -> &Waiters {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(event_loop) = self.event_loop.upgrade() else { return };
        for direction in [Direction::Read, Direction::Write] {
            if !self.waiters(direction).is_empty() {
                // It was watched, so no transport has it.
                let _ = event_loop.remove_watch(self.number, direction);
            }
        }
    }
}

/// Those who wait for one direction, in the order in which they came.
#[derive(Default)]
struct Waiters(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: Vec<(u64, Waker)>,
    called: Vec<u64>,
}

impl Waiters {
    fn take_number(&self) -> u64 {
        let mut queue = self.0.borrow_mut();
        queue.next += 1;
        queue.next
    }

    /// Whether nobody waited before.
    fn wait(&self, id: u64, waker: &Waker) -> bool {
        let mut queue = self.0.borrow_mut();
        let is_first = queue.waiting.is_empty();
        match queue.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, known)) => known.clone_from(waker),
            None => queue.waiting.push((id, waker.clone())),
        }
        is_first
    }

    fn call_all(&self) {
        let waiting = {
            let mut queue = self.0.borrow_mut();
            let waiting = std::mem::take(&mut queue.waiting);
            queue.called.extend(waiting.iter().map(|(id, _)| *id));
            waiting
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn is_called(&self, id: u64) -> bool {
        self.0.borrow().called.contains(&id)
    }

    /// Whether he was the last of those who waited.
    fn leave(&self, id: u64) -> bool {
        let mut queue = self.0.borrow_mut();
        queue.called.retain(|called| *called != id);
        let before = queue.waiting.len();
        queue.waiting.retain(|(waiting, _)| *waiting != id);
        before == 1 && queue.waiting.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().waiting.is_empty()
    }
}

/// One who waits; leaves the queue when he is dropped.
struct Ticket<'a> {
    watch: &'a Watch,
    direction: Direction,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.watch.waiters(self.direction).leave(self.id) {
            if let Some(event_loop) = self.watch.event_loop.upgrade() {
                let _ = event_loop.remove_watch(self.watch.number, self.direction);
            }
        }
    }
}
