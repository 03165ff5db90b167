//! A point that tasks pass together: `Barrier`.
//!
//! # Life of a barrier
//!
//! ```text
//! filling -> draining, when the last of the parties has come -> filling, when all have left
//!         -> resetting, until those who waited have left -> filling
//! abort: broken, until it is reset
//! ```

use std::cell::Cell;
use std::fmt;

use super::wait_line::{PassedOn, WaitLine};
use crate::{Error, Result};

/// Where a number of tasks wait for each other, and go on together: asyncio's `Barrier`. It can be used again and again.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Barrier, gather};
///
/// let places = ringloop::run(async {
///     let barrier = Rc::new(Barrier::new(3)?);
///     let parties = (0..3).map(|_| {
///         let barrier = Rc::clone(&barrier);
///         async move { barrier.wait().await }
///     });
///     gather(parties).try_values().await
/// })??;
/// assert_eq!(places, [0, 1, 2]);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Barrier {
    parties: usize,
    state: Cell<State>,
    /// Tasks that wait or are leaving.
    count: Cell<usize>,
    waiters: WaitLine,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Filling,
    Draining,
    Resetting,
    Broken,
}

impl Barrier {
    /// A barrier for so many tasks.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if `parties` is 0.
    pub fn new(parties: usize) -> Result<Self> {
        if parties == 0 {
            return Err(Error::invalid_argument("parties must be > 0"));
        }
        Ok(Self {
            parties,
            state: Cell::new(State::Filling),
            count: Cell::new(0),
            waiters: WaitLine::default(),
        })
    }

    /// Waits until all parties have come, and gives which of them this one was, from 0. Whoever comes while others leave
    /// waits for the next round first.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the barrier is broken, or is broken or reset meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it does not count: another party has to come in its place.
    pub async fn wait(&self) -> Result<usize> {
        self.wait_while(|state| matches!(state, State::Draining | State::Resetting)).await;
        if self.broken() {
            return Err(Error::state("Barrier aborted"));
        }
        let index = self.count.replace(self.count.get() + 1);
        let _leaves = Leaves(self);
        if index + 1 == self.parties {
            self.state.set(State::Draining);
            self.waiters.wake(usize::MAX);
            return Ok(index);
        }
        self.wait_while(|state| state == State::Filling).await;
        match self.state.get() {
            State::Broken | State::Resetting => Err(Error::state("Abort or reset of barrier")),
            _ => Ok(index),
        }
    }

    /// Makes the barrier as new: those who wait get an error. A broken one can be used again.
    pub fn reset(&self) {
        let state = if self.count.get() > 0 { State::Resetting } else { State::Filling };
        self.state.set(state);
        self.waiters.wake(usize::MAX);
    }

    /// Breaks the barrier: those who wait, and those who come, get an error, until it is [reset](Self::reset).
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::Barrier;
    ///
    /// let barrier = Barrier::new(2)?;
    /// assert_eq!((barrier.parties(), barrier.n_waiting()), (2, 0));
    /// barrier.abort();
    /// assert!(barrier.broken() && barrier.wait().await.is_err());
    /// barrier.reset();
    /// assert!(!barrier.broken());
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn abort(&self) {
        self.state.set(State::Broken);
        self.waiters.wake(usize::MAX);
    }

    /// How many tasks have to come.
    #[must_use]
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many tasks have come and wait.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        if self.state.get() == State::Filling { self.count.get() } else { 0 }
    }

    /// Whether the barrier is broken.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.state.get() == State::Broken
    }

    async fn wait_while(&self, is_to_wait: impl Fn(State) -> bool) {
        while is_to_wait(self.state.get()) {
            let mut wait = PassedOn::join(&self.waiters);
            (&mut wait.turn).await;
            wait.over = true;
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state.get() {
            State::Filling => "filling",
            State::Draining => "draining",
            State::Resetting => "resetting",
            State::Broken => return f.write_str("<Barrier [broken]>"),
        };
        write!(f, "<Barrier [{state}, waiters:{}/{}]>", self.n_waiting(), self.parties)
    }
}

/// Counts one task as inside the barrier until it is dropped.
struct Leaves<'a>(&'a Barrier);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let Self(barrier) = *self;
        barrier.count.set(barrier.count.get() - 1);
        if barrier.count.get() == 0 {
            if matches!(barrier.state.get(), State::Resetting | State::Draining) {
                barrier.state.set(State::Filling);
            }
            barrier.waiters.wake(usize::MAX);
        }
    }
}
