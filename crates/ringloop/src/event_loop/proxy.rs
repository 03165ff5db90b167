//! The way in from other threads.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use super::inbox::{Inbox, Remote, RunningHandle};
use super::once::Once;
use super::{EventLoop, Snapshot, running};
use crate::{Error, Result};

/// Reaches an [`EventLoop`] from any thread. A clone reaches the same loop; it does not keep the loop open.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// let proxy = event_loop.proxy();
/// let thread = std::thread::spawn(move || proxy.call_soon_threadsafe(|event_loop| event_loop.stop()));
/// event_loop.run_forever()?;
/// thread.join().unwrap()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct LoopProxy {
    inbox: Arc<Inbox>,
}

impl LoopProxy {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Runs `callback` on the loop's thread, after the callbacks that are ready there and before those that the loop's
    /// thread schedules afterwards; wakes the loop if it sleeps. What one thread sends arrives in its order.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the loop is closed; then the callback is dropped. If the loop is closed before it comes to
    /// the callback, that is dropped too.
    #[track_caller]
    pub fn call_soon_threadsafe(
        &self,
        callback: impl FnOnce(&EventLoop) + Send + 'static,
    ) -> Result<()> {
        let callback = Once::new(callback, Location::caller());
        if self.inbox.is_closed() {
            return Err(Error::loop_closed());
        }
        match running::scheduler(self.inbox.loop_id()) {
            Some(scheduler) => scheduler.call_soon(Snapshot::around(Rc::new(callback))),
            None => self.inbox.send(Remote::Call(Box::new(callback))),
        }
        Ok(())
    }

    /// Whether this is the loop's own thread.
    pub(super) fn is_here(&self) -> bool {
        running::scheduler(self.inbox.loop_id()).is_some()
    }

    /// Stops the loop: see [`EventLoop::stop`].
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the loop is closed.
    pub fn stop(&self) -> Result<()> {
        self.call_soon_threadsafe(EventLoop::stop)
    }

    /// What the loop is running, and since when: what a loop that does not answer is blocked by. `None` between callbacks,
    /// and outside of debug mode.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let event_loop = ringloop::EventLoop::builder().debug(true).build()?;
    /// let (proxy, (begun, begins)) = (event_loop.proxy(), mpsc::channel());
    /// let (answer, answered) = mpsc::channel();
    /// let thread = std::thread::spawn(move || {
    ///     begins.recv().unwrap();
    ///     let running = proxy.running();
    ///     answer.send(()).unwrap();
    ///     running
    /// });
    /// event_loop.call_soon(move |event_loop| {
    ///     begun.send(()).unwrap();
    ///     answered.recv().unwrap(); // It blocks the loop.
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// let running = thread.join().unwrap().unwrap();
    /// println!("{} for {:?}", running.what, running.since.elapsed());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn running(&self) -> Option<RunningHandle> {
        self.inbox.running()
    }

    /// Whether the loop is closed.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let proxy = event_loop.proxy();
    /// assert!(!proxy.is_closed());
    /// drop(event_loop);
    /// assert!(proxy.is_closed());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }
}

impl fmt::Debug for LoopProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<LoopProxy closed={}>", self.is_closed())
    }
}
