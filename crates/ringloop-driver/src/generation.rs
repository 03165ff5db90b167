//! Which process this is: what was made before a fork is of an older generation than what the child makes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of this process: how many forks are between it and the first.
pub(crate) fn current() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// In the child of a fork. Safe in a signal handler.
pub(crate) fn begin_next() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

static GENERATION: AtomicU64 = AtomicU64::new(0);
