//! Waking the ring from another thread.
//!
//! One word says what the loop does:
//!
//! ```text
//! AWAKE --sleep()--> ASLEEP --wake()--> NOTIFIED (+ one write to the eventfd) --woken()--> AWAKE
//! AWAKE --wake()--> NOTIFIED: the next sleep() is refused, so the loop looks at its queues first
//! ```
//!
//! A thread that has something for the loop first puts it into a queue, then calls `wake()`. The loop looks at its queues,
//! then calls `sleep()`, and waits if that succeeds. A `wake()` that comes before makes `sleep()` fail, so the loop looks
//! again; one that comes after it writes to the eventfd, which ends the wait. So no wake-up is lost, and a system call is made
//! only while the loop sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sync::{AtomicU8, Ordering};
use crate::sys;

/// Wakes a driver that waits, from any thread. Clones wake the same one; waking one that is gone does nothing.
#[derive(Clone, Debug)]
pub struct DriverWaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl DriverWaker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { state: AtomicU8::new(AWAKE), eventfd: sys::eventfd()? })))
    }

    /// Makes the current wait return, or the next one not begin. A system call only if the loop sleeps.
    pub fn wake(&self) {
        // Always an exchange: it is what orders the caller's queue before the loop's look at it.
        if self.0.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            sys::eventfd_add(self.0.eventfd.as_fd());
        }
    }

    /// Says that the loop is about to wait. False: somebody woke it meanwhile, so it must not.
    pub(crate) fn sleep(&self) -> bool {
        let state = &self.0.state;
        state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Says that the loop is up. What was made visible before a `wake()` is seen after this.
    pub(crate) fn woken(&self) {
        self.0.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Readable for ever after the first write: each further write is a new edge, which is what the ring's poll sees.
    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }

    /// For the signal handler's static; the reference count goes along.
    pub(crate) fn into_raw(self) -> *mut () {
        Arc::into_raw(self.0).cast_mut().cast()
    }

    /// # Safety
    ///
    /// `raw` came from [`into_raw`](Self::into_raw), and its count has not been taken back yet.
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { Arc::from_raw(raw.cast::<Shared>()) })
    }
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;
