//! How much of the shared buffers one connection holds.

use std::cell::Cell;
use std::rc::Rc;

/// Counts what one connection holds of the buffers, as leases and parked, so that a hoarder cannot starve the others.
///
/// Clones are the same account. Over its limit, what arrives is copied out of the buffers ([`Received::is_copy`]).
///
/// [`Received::is_copy`]: crate::Received::is_copy
#[derive(Clone, Debug, Default)]
pub struct Account(Rc<Held>);

#[derive(Debug)]
struct Held {
    bytes: Cell<usize>,
    limit: Cell<usize>,
    /// The last buffer of its last receive was filled.
    streams: Cell<bool>,
}

impl Account {
    /// An account that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of buffers held, counted by whole buffers.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Whether it holds all that it may: 256 KiB, or an eighth of a small group.
    pub fn is_over(&self) -> bool {
        self.0.bytes.get() >= self.0.limit.get()
    }

    /// Whether so much arrives at a time that the next receive is to have large buffers.
    #[inline]
    pub(crate) fn streams(&self) -> bool {
        self.0.streams.get()
    }

    pub(crate) fn set_streams(&self, streams: bool) {
        self.0.streams.set(streams);
    }

    /// Holds `bytes` more, of a group that gives `limit` to each.
    pub(super) fn add(&self, bytes: usize, limit: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes);
        self.0.limit.set(limit);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get().saturating_sub(bytes));
    }
}

impl Default for Held {
    fn default() -> Self {
        Self { bytes: Cell::new(0), limit: Cell::new(ACCOUNT_LIMIT), streams: Cell::new(false) }
    }
}

/// Bytes that a connection may hold of the buffers, before what arrives is copied out.
pub(super) const ACCOUNT_LIMIT: usize = 256 * 1024;
