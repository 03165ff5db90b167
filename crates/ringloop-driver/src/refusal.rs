//! How the kernel refuses a ring, or memory for one.

use std::io;

/// Which call failed, and how.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: io::Error,
    pub(crate) call: &'static str,
}

impl Refusal {
    pub(crate) fn of(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { error, call }
    }

    /// Of this process's own memory, which neither waits for closed rings nor is locked.
    pub(crate) fn is_of_own_memory(&self) -> bool {
        self.call == MMAP && self.error.raw_os_error() == Some(libc::ENOMEM)
    }
}

/// The call that asks for memory of this process.
pub(crate) const MMAP: &str = "mmap";
