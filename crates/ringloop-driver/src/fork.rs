//! What a forked child must not share.
//!
//! A child that holds a ring keeps it alive, with its ops and their sockets, after its parent has closed it; a child that
//! writes to the queues corrupts the parent's. So in the child of a `fork(2)`:
//!
//! 1. the generation changes: a driver of an older one refuses to enter;
//! 2. the number of each ring, and of all else that acts for it, is taken by something harmless;
//! 3. the handlers of signals that ran in other threads are forgotten, so that nobody waits for their ends;
//! 4. the memory of the queues, which the child does not inherit, is replaced by zeros, so that a driver that is dropped,
//!    or leases that are returned, in the child touch nothing of the parent's.
//!
//! The C library calls the handlers. A child made around it (`clone(2)`) has the ring, but not its memory.

use std::cell::UnsafeCell;
use std::hint;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::generation;
use crate::signal;
use crate::sys::{self, Mapping};

/// What is taken away in the child of a fork, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inherited(What);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It will refer to what `instead` refers to.
    Number { number: RawFd, instead: RawFd },
    /// Not inherited; it will be zeros.
    Memory { address: usize, len: usize },
}

impl Inherited {
    pub(crate) fn number(number: RawFd, instead: RawFd) -> Self {
        Self::register(What::Number { number, instead })
    }

    pub(crate) fn memory(mapping: &Mapping) -> Self {
        mapping.keep_from_children();
        Self::register(What::Memory { address: mapping.address() as usize, len: mapping.len() })
    }

    fn register(what: What) -> Self {
        // No `Once`: a child that is forked by another thread meanwhile would wait for it for ever.
        if !INSTALLED.swap(true, Ordering::AcqRel) {
            sys::at_fork(prepare, in_parent, in_child);
        }
        REGISTRY.with(|all| all.push(what));
        Self(what)
    }
}

impl Drop for Inherited {
    fn drop(&mut self) {
        REGISTRY.with(|all| {
            if let Some(place) = all.iter().position(|what| *what == self.0) {
                all.swap_remove(place);
            }
        });
    }
}

/// Before the fork, so that no other thread leaves the registry half changed to the child.
extern "C" fn prepare() {
    REGISTRY.lock();
}

extern "C" fn in_parent() {
    REGISTRY.unlock();
}

extern "C" fn in_child() {
    generation::begin_next();
    signal::in_child();
    // SAFETY: `prepare()` took the lock, in the thread that this process goes on with.
    let all = unsafe { &mut *REGISTRY.all.get() };
    for what in all.iter() {
        match *what {
            What::Number { number, instead } => sys::replace_number(number, instead),
            What::Memory { address, len } => sys::map_zeros_at(address, len),
        }
    }
    all.clear();
    REGISTRY.unlock();
}

/// The error of a ring that was made before the fork.
pub(crate) fn refusal() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this loop was made before a fork, and belongs to the parent process: make a new one in the child",
    )
}

/// A list under a lock that can be held across a fork.
struct Registry {
    locked: AtomicBool,
    all: UnsafeCell<Vec<What>>,
}

// SAFETY: the list is touched only under the lock.
unsafe impl Sync for Registry {}

impl Registry {
    fn with<R>(&self, use_all: impl FnOnce(&mut Vec<What>) -> R) -> R {
        self.lock();
        // SAFETY: the lock is held, and `use_all` keeps no reference: none of its callers does.
        let result = use_all(unsafe { &mut *self.all.get() });
        self.unlock();
        result
    }

    fn lock(&self) {
        while self.locked.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
    }

    fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }
}

static INSTALLED: AtomicBool = AtomicBool::new(false);
static REGISTRY: Registry =
    Registry { locked: AtomicBool::new(false), all: UnsafeCell::new(Vec::new()) };
