//! Signals, as wake-ups of the ring.
//!
//! The handler notes the signal's number in a journal and wakes the one loop that owns the signals of this process; all
//! else happens on the loop's thread. Each signal's previous disposition is kept, and restored when it is removed or the
//! owner is dropped.
//!
//! Every delivery has its own place in the journal, in the order of arrival. What the kernel merges before it delivers (a
//! standard signal that is pending already) arrives once. If the loop falls [`PLACES`] signals behind, further ones are
//! merged by their number until it has caught up.

use std::collections::BTreeMap;
use std::hint;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::generation;
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
        JOURNAL.clear();
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
        Ok(true)
    }

    /// Takes the number of the signal that arrived first and was not taken yet. Signals that are not handled any more are
    /// passed over.
    pub fn next_arrived(&self) -> Option<i32> {
        loop {
            let signal = JOURNAL.take()?;
            if self.previous.contains_key(&signal) {
                return Some(signal);
            }
        }
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

/// In the child of a fork, whose one thread is in no handler but one that has forked: those of the other threads are not
/// there, and will not count themselves out.
pub(crate) fn in_child() {
    RUNNING.store(0, Ordering::SeqCst);
}

/// Runs in signal context: nothing but atomics, and a `write(2)` if the loop sleeps.
extern "C" fn handle(signal: i32) {
    let generation = generation::current();
    RUNNING.fetch_add(1, Ordering::SeqCst);
    JOURNAL.note(signal);
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
    // In a child that was forked meanwhile, by another handler on this thread, it is counted out already.
    if generation == generation::current() {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
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

/// The signals that have arrived, in order. Handlers of any thread write it; the owner of the signals reads it.
struct Journal {
    /// 0: nothing, or not yet. Place `n` belongs to the arrivals `n`, `n + PLACES` and so on.
    places: [AtomicU8; PLACES],
    /// How many places handlers have taken so far.
    written: AtomicUsize,
    /// How many of them the owner has read.
    read: AtomicUsize,
    /// The signals that found no place: one bit for each number.
    merged: AtomicU64,
}

impl Journal {
    /// In signal context: it takes a place first, so that a handler that interrupts it takes the next.
    fn note(&self, signal: i32) {
        let claim = |written: usize| {
            let unread = written.wrapping_sub(self.read.load(Ordering::SeqCst));
            (unread < PLACES).then(|| written.wrapping_add(1))
        };
        match self.written.fetch_update(Ordering::SeqCst, Ordering::SeqCst, claim) {
            Ok(place) => {
                let number = u8::try_from(signal).unwrap_or(0); // Signals are numbered up to 64.
                self.places[place % PLACES].store(number, Ordering::SeqCst);
            }
            Err(_) => {
                self.merged.fetch_or(bit(signal), Ordering::SeqCst);
            }
        }
    }

    /// On the owner's thread. A place that was taken but is not written yet ends it: the handler wakes the loop when it is.
    fn take(&self) -> Option<i32> {
        let read = self.read.load(Ordering::SeqCst);
        if read != self.written.load(Ordering::SeqCst) {
            let number = self.places[read % PLACES].swap(0, Ordering::SeqCst);
            if number == 0 {
                return None;
            }
            self.read.store(read.wrapping_add(1), Ordering::SeqCst);
            return Some(i32::from(number));
        }
        let merged = self.merged.load(Ordering::SeqCst);
        if merged == 0 {
            return None;
        }
        let number = merged.trailing_zeros();
        self.merged.fetch_and(!(1 << number), Ordering::SeqCst);
        Some(if number == 0 { 64 } else { i32::try_from(number).unwrap_or(0) })
    }

    /// For a new owner, while no signal is handled.
    fn clear(&self) {
        self.places.iter().for_each(|place| place.store(0, Ordering::SeqCst));
        self.merged.store(0, Ordering::SeqCst);
        self.read.store(self.written.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal & 63)
}

static CLAIMED: AtomicBool = AtomicBool::new(false);
static JOURNAL: Journal = Journal {
    places: [const { AtomicU8::new(0) }; PLACES],
    written: AtomicUsize::new(0),
    read: AtomicUsize::new(0),
    merged: AtomicU64::new(0),
};
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static WAKER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Signals are numbered from 1 to 64; 64 shares its bit with 0, which is none.
const MOST: i32 = 65;

/// How many signals can wait for the loop, each for itself. A power of two, so that the counts may wrap.
const PLACES: usize = 1024;
