//! Why a program ends, and what to do about it.

use std::fmt::Display;
use std::io;

/// Why a program cannot do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// It was not asked properly.
    Usage(String),
    /// The system does not let it.
    Cannot {
        /// The cause.
        error: String,
        /// What to do.
        remedy: String,
    },
}

impl Failure {
    /// With a remedy by the cause's number.
    pub fn new(what: impl Display, error: &io::Error) -> Self {
        let remedy = match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => "no interface has this address: take another --host",
            Some(libc::EADDRINUSE) => {
                "the address is in use: take another --port, or 0 for a free one"
            }
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files: ulimit -n",
            Some(libc::ENOSYS) => {
                "io_uring is missing: it needs a Linux kernel of 6.1 or later that has it enabled"
            }
            Some(libc::EPERM | libc::EACCES) => {
                "a seccomp filter or the sysctl kernel.io_uring_disabled forbids io_uring: allow it"
            }
            Some(libc::EINVAL) => "the kernel is too old for this ring, or there is no such core",
            Some(libc::ENOMEM) => "raise the limit of locked memory (memlock): ulimit -l",
            Some(libc::ECONNREFUSED) => "start the server first, and give its address",
            _ => "the cause says all that is known",
        };
        Self::Cannot { error: format!("{what}: {error}"), remedy: remedy.to_owned() }
    }
}
