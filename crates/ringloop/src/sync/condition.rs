//! Waiting until what a lock guards has changed: `Condition`.

use std::fmt;

use super::lock::LockGuard;
use super::wait_line::{PassedOn, WaitLine};

/// Where tasks that have a [`Lock`](crate::Lock) wait until another one has changed something: asyncio's `Condition`.
///
/// Whoever changes what the lock guards has the lock meanwhile, and notifies; those who are woken take the lock again,
/// one after the other, and look. Several conditions may go with one lock.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Condition, Lock};
///
/// ringloop::run(async {
///     let shared = Rc::new((Lock::new(0), Condition::new()));
///     let other = Rc::clone(&shared);
///     let task = ringloop::spawn(async move {
///         let guard = other.0.acquire().await;
///         *other.1.wait_for(guard, |count| *count > 0).await
///     });
///     ringloop::yield_now().await;
///     *shared.0.acquire().await = 3;
///     shared.1.notify_all();
///     assert_eq!(task.await?, 3);
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Default)]
pub struct Condition {
    waiters: WaitLine,
}

impl Condition {
    /// A condition for which nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Releases the lock, waits until it is notified, and takes the lock again. It may return without a reason, so look
    /// again: [`wait_for`](Self::wait_for) does.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it does not take the lock again, other than asyncio's: there is no guard to give. A
    /// notification that it had got goes to the next.
    pub async fn wait<'a, T: ?Sized>(&self, guard: LockGuard<'a, T>) -> LockGuard<'a, T> {
        let lock = guard.lock();
        drop(guard);
        let mut wait = PassedOn::join(&self.waiters);
        (&mut wait.turn).await;
        wait.turn.leave();
        let guard = lock.acquire().await;
        wait.over = true;
        guard
    }

    /// Waits until `predicate` holds of what the lock guards.
    ///
    /// # Cancel safety
    ///
    /// As [`wait`](Self::wait).
    pub async fn wait_for<'a, T: ?Sized>(
        &self,
        mut guard: LockGuard<'a, T>,
        mut predicate: impl FnMut(&mut T) -> bool,
    ) -> LockGuard<'a, T> {
        while !predicate(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Wakes the first `most` who wait. They go on when they have the lock.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::rc::Rc;
    /// use ringloop::{Condition, Lock, spawn, yield_now};
    ///
    /// let shared = Rc::new((Lock::new(()), Condition::new()));
    /// let other = Rc::clone(&shared);
    /// let task = spawn(async move {
    ///     let guard = other.0.acquire().await;
    ///     let _guard = other.1.wait(guard).await;
    /// });
    /// yield_now().await;
    /// shared.1.notify(1);
    /// task.await?;
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn notify(&self, most: usize) {
        self.waiters.wake(most);
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Condition [waiters:{}]>", self.waiters.len())
    }
}
