//! What does the work behind the driver's face: a ring, or an epoll instance.
//!
//! The choice falls when a driver is made. What only one of them has stands with it; the driver asks for it by a match,
//! which costs a message next to nothing.

use std::os::fd::BorrowedFd;

use crate::entry::Entry;
use crate::epoll::Epoll;
use crate::uring::ring::Ring;

pub(crate) enum Backend {
    Uring(Ring),
    Epoll(Epoll),
}

impl Backend {
    /// The ring, where it is one.
    pub(crate) fn ring(&self) -> Option<&Ring> {
        match self {
            Self::Uring(ring) => Some(ring),
            Self::Epoll(_) => None,
        }
    }

    /// Whether this process has made it.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::Uring(ring) => ring.is_ours(),
            Self::Epoll(epoll) => epoll.is_ours(),
        }
    }

    /// From now on a forked child has something harmless in its place.
    pub(crate) fn guard_fork(&mut self, instead: BorrowedFd<'_>) {
        match self {
            Self::Uring(ring) => ring.guard_fork(instead),
            Self::Epoll(_) => {} // It is guarded since it was made.
        }
    }

    /// Takes the next entry.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Entry> {
        match self {
            Self::Uring(ring) => ring.next(),
            Self::Epoll(epoll) => epoll.next(),
        }
    }

    #[inline]
    pub(crate) fn has_entries(&mut self) -> bool {
        match self {
            Self::Uring(ring) => ring.has_completions(),
            Self::Epoll(epoll) => epoll.has_entries(),
        }
    }

    /// Whether something was asked of it that it has not begun.
    pub(crate) fn has_queued(&self) -> bool {
        match self {
            Self::Uring(ring) => ring.queued() > 0,
            Self::Epoll(epoll) => epoll.has_queued(),
        }
    }

    /// Whether entries wait in the kernel, as there was no room for them.
    pub(crate) fn is_overflown(&self) -> bool {
        self.ring().is_some_and(Ring::is_overflown)
    }

    /// Entries that the ring's completion queue has room for; none where there is no such queue.
    pub(crate) fn completion_entries(&self) -> u32 {
        self.ring().map_or(0, Ring::completion_entries)
    }
}
