//! One at a time: `Lock`.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::wait_line::{Turn, WaitLine};

/// A value that one task of a loop has at a time, also while it awaits something: asyncio's `Lock`, with what it
/// guards. Whoever came first gets it first.
///
/// ```
/// use ringloop::Lock;
///
/// let lock = Lock::new(41);
/// ringloop::run(async {
///     let mut guard = lock.acquire().await;
///     ringloop::yield_now().await;
///     *guard += 1;
/// })?;
/// assert_eq!(lock.into_inner(), 42);
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Default)]
pub struct Lock<T: ?Sized = ()> {
    locked: Cell<bool>,
    waiters: WaitLine,
    value: RefCell<T>,
}

impl<T> Lock<T> {
    /// A lock that nobody has. `Lock::new(())` guards nothing but the code between.
    pub fn new(value: T) -> Self {
        Self { locked: Cell::new(false), waiters: WaitLine::default(), value: RefCell::new(value) }
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for its turn, and has the lock until the guard is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it loses its place in the line; if the lock had been given to it, the next gets it.
    pub async fn acquire(&self) -> LockGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_acquire() {
                return guard;
            }
            let mut wait = Wait { lock: self, turn: self.waiters.join() };
            if (&mut wait.turn).await {
                wait.turn.leave();
                self.locked.set(true);
                return self.guard();
            }
        }
    }

    /// The lock, if nobody has it and nobody waits for it.
    ///
    /// ```
    /// let mut lock = ringloop::Lock::new(1);
    /// let guard = lock.try_acquire().unwrap();
    /// assert!(lock.locked() && lock.try_acquire().is_none());
    /// drop(guard);
    /// *lock.get_mut() += 1;
    /// assert_eq!(*lock.try_acquire().unwrap(), 2);
    /// ```
    pub fn try_acquire(&self) -> Option<LockGuard<'_, T>> {
        if self.locked() || self.waiters.has_anybody() {
            return None;
        }
        self.locked.set(true);
        Some(self.guard())
    }

    /// Whether somebody has it.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.locked.get()
    }

    /// The value, which nobody else can have.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn guard(&self) -> LockGuard<'_, T> {
        LockGuard { lock: self, value: Some(self.value.borrow_mut()) }
    }

    fn release(&self) {
        self.locked.set(false);
        self.waiters.wake_first();
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.locked() { "locked" } else { "unlocked" };
        write!(f, "<Lock [{state}, waiters:{}]>", self.waiters.len())
    }
}

/// The lock is had while this lives: what [`Lock::acquire`] gives.
///
/// ```
/// use ringloop::{Lock, LockGuard};
///
/// let lock = Lock::new(vec![1]);
/// let last = |mut list: LockGuard<'_, Vec<u32>>| list.pop();
/// assert_eq!(last(lock.try_acquire().unwrap()), Some(1));
/// assert!(!lock.locked());
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use = "a lock whose guard is dropped is free again"]
pub struct LockGuard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    /// Empty only while it is dropped.
    value: Option<RefMut<'a, T>>,
}

impl<'a, T: ?Sized> LockGuard<'a, T> {
    pub(super) fn lock(&self) -> &'a Lock<T> {
        self.lock
    }
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value goes in the drop")
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("the value goes in the drop")
    }
}

impl<T: ?Sized> Drop for LockGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take()); // Whoever is woken may take it at once.
        self.lock.release();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A wait for the lock.
struct Wait<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    turn: Turn<'a>,
}

impl<T: ?Sized> Drop for Wait<'_, T> {
    /// This waiter goes away without the lock. If the lock is free, either it was given to this waiter, or this waiter's
    /// place in the line kept the others from it; so the next one is woken.
    fn drop(&mut self) {
        self.turn.leave();
        if !self.lock.locked() {
            self.lock.waiters.wake_first();
        }
    }
}
