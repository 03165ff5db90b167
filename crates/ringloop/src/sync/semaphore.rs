//! So many at a time: `Semaphore` and `BoundedSemaphore`.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;

use super::wait_line::{Turn, WaitLine};
use crate::{Error, Result};

/// A number of permits, of which each task takes one at a time: asyncio's `Semaphore`. Whoever came first gets one first.
///
/// ```
/// use ringloop::Semaphore;
///
/// let downloads = Semaphore::new(2);
/// ringloop::run(async {
///     let (_one, _two) = (downloads.acquire().await, downloads.acquire().await);
///     assert!(downloads.locked());
/// })?;
/// assert!(!downloads.locked());
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Semaphore {
    value: Cell<usize>,
    /// Permits that come back over this number are an error.
    bound: usize,
    waiters: WaitLine,
}

impl Semaphore {
    /// A semaphore with `permits` to take.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { value: Cell::new(permits), bound: usize::MAX, waiters: WaitLine::default() }
    }

    /// Waits for its turn, and has a permit until that is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it loses its place in the line; a permit that had been given to it goes to the next.
    pub async fn acquire(&self) -> Permit<'_> {
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            let mut wait = Wait { semaphore: self, turn: self.waiters.join(), got_it: false };
            if (&mut wait.turn).await {
                wait.got_it = true;
                return Permit { semaphore: self };
            }
        }
    }

    /// A permit, if there is one for which nobody waits.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        if self.locked() {
            return None;
        }
        self.value.set(self.value.get() - 1);
        Some(Permit { semaphore: self })
    }

    /// Whether whoever wants a permit now has to wait.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.value.get() == 0 || self.waiters.has_anybody()
    }

    /// Adds a permit that nobody had, or that was [forgotten](Permit::forget).
    ///
    /// ```
    /// let semaphore = ringloop::Semaphore::new(1);
    /// semaphore.try_acquire().unwrap().forget();
    /// assert!(semaphore.try_acquire().is_none());
    /// semaphore.release();
    /// assert!(semaphore.try_acquire().is_some());
    /// ```
    pub fn release(&self) {
        self.add_one();
        self.wake_next();
    }

    fn add_one(&self) {
        self.value.set(self.value.get().saturating_add(1).min(self.bound));
    }

    fn wake_next(&self) -> bool {
        // Before the wake-up: a foreign waker may want one at once.
        let value = self.value.get();
        self.value.set(value.saturating_sub(1));
        let woken = value > 0 && self.waiters.wake_next();
        if !woken {
            self.value.set(self.value.get() + usize::from(value > 0));
        }
        woken
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, waiters) = (self.value.get(), self.waiters.len());
        write!(f, "<Semaphore [value:{value}, waiters:{waiters}]>")
    }
}

/// A [`Semaphore`] that never has more permits than it began with: asyncio's `BoundedSemaphore`.
///
/// ```
/// use ringloop::BoundedSemaphore;
///
/// let semaphore = BoundedSemaphore::new(1);
/// let error = semaphore.release().unwrap_err();
/// assert_eq!(error.to_string(), "BoundedSemaphore released too many times");
/// ```
#[derive(Debug)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
}

impl BoundedSemaphore {
    /// A semaphore with `permits` to take.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { semaphore: Semaphore { bound: permits, ..Semaphore::new(permits) } }
    }

    /// As [`Semaphore::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`Semaphore::acquire`].
    pub async fn acquire(&self) -> Permit<'_> {
        self.semaphore.acquire().await
    }

    /// As [`Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.semaphore.try_acquire()
    }

    /// As [`Semaphore::locked`].
    #[must_use]
    pub fn locked(&self) -> bool {
        self.semaphore.locked()
    }

    /// Gives a permit back that was [forgotten](Permit::forget).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if all are there already.
    ///
    /// ```
    /// # ringloop::run(async {
    /// let semaphore = ringloop::BoundedSemaphore::new(1);
    /// semaphore.acquire().await.forget();
    /// assert!(semaphore.locked() && semaphore.try_acquire().is_none());
    /// semaphore.release()?;
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn release(&self) -> Result<()> {
        if self.semaphore.value.get() >= self.semaphore.bound {
            return Err(Error::invalid_argument("BoundedSemaphore released too many times"));
        }
        self.semaphore.release();
        Ok(())
    }
}

/// A permit is had while this lives: what [`Semaphore::acquire`] gives.
///
/// ```
/// let semaphore = ringloop::Semaphore::new(1);
/// let permit = semaphore.try_acquire().unwrap();
/// assert!(semaphore.locked());
/// drop(permit);
/// assert!(!semaphore.locked());
/// ```
#[must_use = "a permit that is dropped is free again"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
}

impl Permit<'_> {
    /// Does not give the permit back.
    ///
    /// ```
    /// let semaphore = ringloop::Semaphore::new(1);
    /// semaphore.try_acquire().unwrap().forget();
    /// assert!(semaphore.locked());
    /// ```
    pub fn forget(self) {
        let _kept = ManuallyDrop::new(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.release();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Permit of {:?}>", self.semaphore)
    }
}

/// A wait for a permit.
struct Wait<'a> {
    semaphore: &'a Semaphore,
    turn: Turn<'a>,
    /// The waiter has taken the permit that it was woken for.
    got_it: bool,
}

impl Drop for Wait<'_> {
    /// A permit that was given to this waiter goes back. Tasks that came after it had to wait behind it, so they are woken
    /// for the permits that are free.
    fn drop(&mut self) {
        self.turn.leave();
        let semaphore = self.semaphore;
        if self.turn.is_woken() && !self.got_it {
            semaphore.add_one();
        }
        while semaphore.value.get() > 0 && semaphore.wake_next() {}
    }
}
