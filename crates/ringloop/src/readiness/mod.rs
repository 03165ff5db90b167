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
//! number cannot reach the new one. The price is a difference from epoll: a descriptor that is closed while it is watched
//! stays open until the watch is removed.

mod async_fd;
mod watcher;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

pub use async_fd::AsyncFd;

use watcher::{Direction, Watcher};

use crate::event_loop::EventLoop;
use crate::{Error, Result};

/// Readiness of descriptors.
impl EventLoop {
    /// Calls `callback` once in each iteration in which `fd` can be read, or is at its end, until it is removed.
    ///
    /// A reader that was there is replaced, and does not run any more even if it was queued (spec READY-05). It takes
    /// nothing out of `fd`: read it with plain calls, and expect [`WouldBlock`](std::io::ErrorKind::WouldBlock) where
    /// somebody else was faster.
    ///
    /// A descriptor that is closed while it is watched stays open until the watch is removed: remove it first.
    /// [`AsyncFd`] does that by itself.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop, and for a descriptor that an open transport uses; [`Error::InvalidArgument`]
    /// for a negative one; `EPERM` for what is always ready, as regular files are (spec READY-12); `EBADF`.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// theirs.write_all(b"x")?;
    /// event_loop.add_reader(&ours.try_clone()?, move |event_loop| {
    ///     ours.read_exact(&mut [0]).expect("there is a byte");
    ///     event_loop.remove_reader(&ours).expect("no transport has it");
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
        self.add_watch(fd.as_raw_fd(), Direction::Read, Box::new(callback))
    }

    /// Calls `callback` once in each iteration in which `fd` can be written, until it is removed.
    ///
    /// An idle socket can always be written, so this keeps the loop spinning. Otherwise as
    /// [`add_reader`](Self::add_reader), also in its errors.
    ///
    /// # Errors
    ///
    /// As [`add_reader`](Self::add_reader).
    pub fn add_writer(
        &self,
        fd: &impl AsRawFd,
        callback: impl FnMut(&Self) + 'static,
    ) -> Result<()> {
        self.add_watch(fd.as_raw_fd(), Direction::Write, Box::new(callback))
    }

    /// Takes the reader of `fd` away; it does not run any more, even if it was queued (spec READY-06). `false` if there
    /// was none, or if the loop is closed. The descriptor may be closed, and its number used again, at once.
    ///
    /// # Errors
    ///
    /// [`Error::State`] for a descriptor that an open transport uses.
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Read)
    }

    /// Takes the writer of `fd` away: as [`remove_reader`](Self::remove_reader).
    ///
    /// # Errors
    ///
    /// As [`remove_reader`](Self::remove_reader).
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Write)
    }

    fn add_watch(&self, fd: RawFd, direction: Direction, callback: Callback) -> Result<()> {
        self.check_closed()?;
        check_descriptor(fd)?;
        self.ensure_no_transport(fd)?;
        let watchers = self.watchers();
        let watcher = match watchers.get(fd) {
            Some(watcher) => watcher,
            None => watchers.insert(fd, Watcher::start(self, fd)?),
        };
        watcher.set(direction, callback, self)
    }

    fn remove_watch(&self, fd: RawFd, direction: Direction) -> Result<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        check_descriptor(fd)?;
        self.ensure_no_transport(fd)?;
        let watchers = self.watchers();
        let Some(watcher) = watchers.get(fd) else { return Ok(false) };
        let removed = watcher.clear(direction);
        if watcher.is_idle() {
            watchers.remove(fd);
            watcher.end(self);
        }
        Ok(removed)
    }

    fn watchers(&self) -> Rc<Watchers> {
        self.extension().unwrap_or_else(|| {
            self.set_extension(Rc::new(Watchers::default()));
            self.extension().unwrap_or_default()
        })
    }

    fn ensure_no_transport(&self, fd: RawFd) -> Result<()> {
        match self.source_using(fd) {
            Some(source) => Err(Error::state(format!(
                "File descriptor {fd} is used by transport {}",
                source.describe()
            ))),
            None => Ok(()),
        }
    }
}

type Callback = Box<dyn FnMut(&EventLoop)>;

/// The watchers of one loop, by the number under which they were added.
#[derive(Default)]
struct Watchers(RefCell<BTreeMap<RawFd, Rc<Watcher>>>);

impl Watchers {
    fn get(&self, fd: RawFd) -> Option<Rc<Watcher>> {
        self.0.borrow().get(&fd).cloned()
    }

    fn insert(&self, fd: RawFd, watcher: Rc<Watcher>) -> Rc<Watcher> {
        self.0.borrow_mut().insert(fd, Rc::clone(&watcher));
        watcher
    }

    fn remove(&self, fd: RawFd) {
        self.0.borrow_mut().remove(&fd);
    }
}

fn check_descriptor(fd: RawFd) -> Result<()> {
    if fd < 0 {
        return Err(Error::invalid_argument(format!("Invalid file descriptor: {fd}")));
    }
    Ok(())
}
