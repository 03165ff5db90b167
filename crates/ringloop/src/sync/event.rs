//! Something that happens once, or is so from then on: `Event`.

use std::cell::Cell;
use std::fmt;

use super::wait_line::WaitLine;

/// A flag that tasks of one loop wait for: asyncio's `Event`.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::Event;
///
/// ringloop::run(async {
///     let ready = Rc::new(Event::new());
///     let waits = Rc::clone(&ready);
///     let task = ringloop::spawn(async move { waits.wait().await });
///     ready.set();
///     task.await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Default)]
pub struct Event {
    is_set: Cell<bool>,
    waiters: WaitLine,
}

impl Event {
    /// An event that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Sets it: all who wait go on, also if it is cleared before they do.
    pub fn set(&self) {
        if !self.is_set.replace(true) {
            self.waiters.wake(usize::MAX);
        }
    }

    /// From now on, those who come wait again.
    ///
    /// ```
    /// let event = ringloop::Event::new();
    /// event.set();
    /// assert!(event.is_set());
    /// event.clear();
    /// assert!(!event.is_set());
    /// ```
    pub fn clear(&self) {
        self.is_set.set(false);
    }

    /// Returns at once if it is set, else soon after it is.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has changed nothing.
    pub async fn wait(&self) {
        while !self.is_set() {
            if (&mut self.waiters.join()).await {
                return;
            }
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_set() { "set" } else { "unset" };
        write!(f, "<Event [{state}, waiters:{}]>", self.waiters.len())
    }
}
