//! Signals, as wake-ups of the ring.
//!
//! The handler sets a bit and wakes the one loop that owns the signals of this process; all else happens on the loop's
//! thread. Each signal's previous disposition is kept, and restored when it is removed or the owner is dropped.

use std::collections::BTreeMap;
use std::hint;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::wake::DriverWaker;

/// The right to handle signals, which one loop of the process has at a time.
#[derive(Debug)]
pub struct Signals {
    previous: BTreeMap<i32, Previous>,
}

struct Previous(libc::sigaction);

impl Signals {
    /// Takes the right for the driver that `waker` wakes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ResourceBusy`] while another loop has it.
    pub fn claim(waker: DriverWaker) -> io::Result<Self> {
        if CLAIMED.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        PENDING.store(0, Ordering::SeqCst);
        WAKER.store(waker.into_raw(), Ordering::SeqCst);
        Ok(Self { previous: BTreeMap::new() })
    }

    /// Handles `signal` from now on, with `SA_RESTART`. Without effect if it does so already.
    ///
    /// # Errors
    ///
    /// As `sigaction(2)`: `EINVAL` for a number that is no signal, or that cannot be caught.
    pub fn add(&mut self, signal: i32) -> io::Result<()> {
        if !(1..MOST).contains(&signal) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if self.previous.contains_key(&signal) {
            return Ok(());
        }
        // SAFETY: a `sigaction` of zeros is valid: default action, no flags, empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        let previous = exchange(signal, &action)?;
        self.previous.insert(signal, Previous(previous));
        Ok(())
    }

    /// Restores what `signal` did before. False if it was not handled.
    ///
    /// # Errors
    ///
    /// As `sigaction(2)`.
    pub fn remove(&mut self, signal: i32) -> io::Result<bool> {
        let Some(previous) = self.previous.remove(&signal) else { return Ok(false) };
        exchange(signal, &previous.0)?;
        PENDING.fetch_and(!bit(signal), Ordering::SeqCst);
        Ok(true)
    }

    /// Signals that came since the last call: bit *n* is signal *n*.
    pub fn take_pending(&self) -> u64 {
        if PENDING.load(Ordering::SeqCst) == 0 { 0 } else { PENDING.swap(0, Ordering::SeqCst) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (&signal, previous) in &self.previous {
            // It was valid when it was replaced, and cannot be invalid now.
            let _ = exchange(signal, &previous.0);
        }
        let waker = WAKER.swap(ptr::null_mut(), Ordering::SeqCst);
        // A handler may be between its look at `WAKER` and its end, on another thread.
        while RUNNING.load(Ordering::SeqCst) != 0 {
            hint::spin_loop();
        }
        // SAFETY: `claim()` stored it, and only this `Signals` takes it back; no handler uses it any more.
        drop(unsafe { DriverWaker::from_raw(waker) });
        CLAIMED.store(false, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Previous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Previous({:#x})", self.0.sa_sigaction)
    }
}

/// Runs in signal context: nothing but atomics, and a `write(2)` if the loop sleeps.
extern "C" fn handle(signal: i32) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    PENDING.fetch_or(bit(signal), Ordering::SeqCst);
    let waker = WAKER.load(Ordering::SeqCst);
    if !waker.is_null() {
        // SAFETY: `Signals::drop()` takes the pointer away, and then waits for `RUNNING`, before it lets go of its count.
        let waker = ManuallyDrop::new(unsafe { DriverWaker::from_raw(waker) });
        // `write` may change it under the code that was interrupted.
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        waker.wake();
        // SAFETY: every thread has an `errno`.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: the place is this thread's own.
        unsafe { *place = errno };
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

fn exchange(signal: i32, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    // SAFETY: a `sigaction` of zeros is valid, and is overwritten.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both places are valid; the handler, where there is one, is safe in signal context.
    if unsafe { libc::sigaction(signal, action, &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(previous)
}

fn bit(signal: i32) -> u64 {
    1 << (signal & 63)
}

static CLAIMED: AtomicBool = AtomicBool::new(false);
static PENDING: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static WAKER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Signals are numbered from 1 to 64; 64 shares its bit with 0, which is none.
const MOST: i32 = 65;
