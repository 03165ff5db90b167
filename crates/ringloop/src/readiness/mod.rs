//! `add_reader` and `add_writer`: readiness of descriptors that belong to others, on top of completions.
//!
//! # Life of a watcher
//!
//! ```text
//! add_reader -> armed before the wait -> completion: its handles are queued -> armed again before the next wait
//!                     ^                                                              |
//!                     '--------------------------------------------------------------'  until remove_reader
//! ```
//!
//! There is one watcher a descriptor, with a reader, a writer or both, and one one-shot poll op for what they wait for
//! together. The kernel looks at the state when the op is armed, so arming it anew in each iteration is level-triggered,
//! once an iteration; the request goes with the call that waits anyway. A watcher whose condition does not hold stays
//! armed and costs nothing.
//!
//! The file, not its number, is watched: it stands in the ring's file table meanwhile. So an event of the old owner of a
//! number cannot reach the new one. Who adds a watch under a number that names another file by now begins anew: what was
//! watched under it before ends. The price is a difference from epoll: a descriptor that is closed while it is watched
//! stays open until the watch is removed.
//!
//! An [`AsyncFd`] has a watcher of its own, for as long as it lives, armed while somebody waits. Whoever else would watch
//! its descriptor is refused, as with that of a transport.

mod async_fd;
mod watcher;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

pub use async_fd::AsyncFd;

use watcher::{Hold, WatchCallback, Watcher};

use crate::event_loop::EventLoop;
use crate::source::Direction;
use crate::{Error, Result};

/// Readiness of descriptors.
impl EventLoop {
    /// Calls `callback` once in each iteration in which `fd` can be read, is at its end or is broken, until it is removed.
    ///
    /// A descriptor has one reader. If it had one already, that is replaced and does not run any more, even if it was
    /// queued. If the descriptor also has a writer, the reader runs first. A callback that panics is reported and stays.
    ///
    /// The loop takes nothing out of `fd`. The callback reads with plain system calls, and has to expect
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock), as somebody else may have read before. Every kind of descriptor that
    /// `epoll` takes can be watched: sockets, pipes, terminals, eventfd, timerfd, signalfd, pidfd, inotify.
    ///
    /// What is watched is the file that `fd` names at the time of this call. If the descriptor is closed while it is
    /// watched, the file stays open until the watch is removed, and a peer does not see that it was closed. So remove the
    /// reader first; [`AsyncFd`] does that by itself.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop, and for a descriptor that an open transport or an [`AsyncFd`] uses.
    /// [`Error::InvalidArgument`] for a negative number. [`Error::Io`] with `EPERM` for files that are always ready, as
    /// regular files are, and with `EBADF` for a number that is not open. After an error nothing has changed.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let ours = Rc::new(ours);
    /// theirs.write_all(b"x")?;
    /// let socket = Rc::clone(&ours);
    /// event_loop.add_reader(&ours, move |event_loop| {
    ///     (&*socket).read_exact(&mut [0]).expect("there is a byte");
    ///     event_loop.remove_reader(&socket).expect("no transport has it");
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn add_reader(
        &self,
        fd: &impl AsRawFd,
        callback: impl FnMut(&Self) + 'static,
    ) -> Result<()> {
        self.add_watch(fd.as_raw_fd(), Direction::Read, WatchCallback::new(callback))
    }

    /// Calls `callback` once in each iteration in which `fd` can be written or is broken, until it is removed.
    ///
    /// A socket that is idle can always be written: its writer runs in every iteration and keeps the loop from sleeping, so
    /// remove it when nothing is left to write. Everything else is as for [`add_reader`](Self::add_reader).
    ///
    /// # Errors
    ///
    /// As [`add_reader`](Self::add_reader).
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let ours = Rc::new(ours);
    /// let socket = Rc::clone(&ours);
    /// event_loop.add_writer(&ours, move |event_loop| {
    ///     (&*socket).write_all(b"there is room").expect("there is");
    ///     event_loop.remove_writer(&socket).expect("no transport has it");
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn add_writer(
        &self,
        fd: &impl AsRawFd,
        callback: impl FnMut(&Self) + 'static,
    ) -> Result<()> {
        self.add_watch(fd.as_raw_fd(), Direction::Write, WatchCallback::new(callback))
    }

    /// Takes the reader of `fd` away; it does not run any more, even if it was queued. Gives `false` if there was none, and
    /// on a closed loop. After this the descriptor may be closed and its number used again at once.
    ///
    /// # Errors
    ///
    /// [`Error::State`] for a descriptor that an open transport or an [`AsyncFd`] uses; [`Error::InvalidArgument`] for a
    /// negative one.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// event_loop.add_reader(&ours, |_| println!("readable"))?;
    /// assert!(event_loop.remove_reader(&ours)?);
    /// assert!(!event_loop.remove_reader(&ours)?);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Read)
    }

    /// Takes the writer of `fd` away, as [`remove_reader`](Self::remove_reader) does the reader.
    ///
    /// # Errors
    ///
    /// As [`remove_reader`](Self::remove_reader).
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Write)
    }

    fn add_watch(
        &self,
        fd: RawFd,
        direction: Direction,
        callback: Rc<WatchCallback>,
    ) -> Result<()> {
        self.check_closed()?;
        check_number(fd)?;
        self.ensure_not_owned(fd)?;
        let watchers = self.watchers();
        // What is let go of here is dropped at the end: that may run user code.
        let (watcher, _stale) = match watchers.current(fd) {
            Some(watcher) => (watcher, None),
            None => {
                let watcher = Watcher::start(self, fd, Hold::Number)?;
                let stale = watchers.insert(fd, Rc::clone(&watcher));
                (watcher, stale.map(|stale| stale.end(self)))
            }
        };
        let _replaced = watcher.set(direction, callback, self);
        Ok(())
    }

    fn remove_watch(&self, fd: RawFd, direction: Direction) -> Result<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        check_number(fd)?;
        self.ensure_not_owned(fd)?;
        let watchers = self.watchers();
        let Some(watcher) = watchers.get(fd) else { return Ok(false) };
        // Dropped at the end: that may run user code.
        let removed = watcher.clear(direction);
        if watcher.is_idle() {
            watchers.remove(fd);
            drop(watcher.end(self));
        }
        Ok(removed.is_some())
    }

    /// Watches a descriptor for its owner.
    fn watch_as_owner(&self, fd: RawFd) -> Result<Rc<Watcher>> {
        self.ensure_not_owned(fd)?;
        if self.watchers().current(fd).is_some() {
            return Err(Error::state(format!(
                "File descriptor {fd} is watched by a reader or a writer"
            )));
        }
        Watcher::start(self, fd, Hold::Owner)
    }

    fn watchers(&self) -> Rc<Watchers> {
        self.extension().unwrap_or_else(|| {
            let watchers = Rc::new(Watchers::default());
            self.set_extension(Rc::clone(&watchers));
            watchers
        })
    }

    fn ensure_not_owned(&self, fd: RawFd) -> Result<()> {
        match self.source_using(fd) {
            Some(owner) => Err(Error::state(format!(
                "File descriptor {fd} is used by transport {}",
                owner.describe()
            ))),
            None => Ok(()),
        }
    }
}

/// The watchers of one loop that hold a number, by that.
#[derive(Default)]
struct Watchers(RefCell<BTreeMap<RawFd, Rc<Watcher>>>);

impl Watchers {
    fn get(&self, fd: RawFd) -> Option<Rc<Watcher>> {
        self.0.borrow().get(&fd).cloned()
    }

    /// The one of the file that the number names now.
    fn current(&self, fd: RawFd) -> Option<Rc<Watcher>> {
        self.get(fd).filter(|watcher| watcher.is_current())
    }

    /// Gives the one that was there.
    fn insert(&self, fd: RawFd, watcher: Rc<Watcher>) -> Option<Rc<Watcher>> {
        self.0.borrow_mut().insert(fd, watcher)
    }

    fn remove(&self, fd: RawFd) {
        self.0.borrow_mut().remove(&fd);
    }
}

fn check_number(fd: RawFd) -> Result<()> {
    if fd < 0 {
        return Err(Error::invalid_argument(format!("Invalid file descriptor: {fd}")));
    }
    Ok(())
}
