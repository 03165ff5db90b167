//! Buffers for bytes that are to be sent, pooled by the thread.
//!
//! # The life of a buffer
//!
//! ```text
//! pool -> filled, by a layer or with copies of small writes -> in a send queue -> sent, or dropped -> pool
//! ```

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

/// A buffer that is filled and then written without a copy: for layers that encrypt or encode what they send.
///
/// It is a `Vec<u8>` with room for 16 KiB at first, which it may outgrow. When it was sent, or is dropped, its memory is kept for
/// the next one of this thread, up to 128 of them. A clone is a copy.
///
/// ```
/// use ringloop_driver::{Chunk, SendBuffer};
///
/// let mut buffer = SendBuffer::new();
/// buffer.extend(b"Uryyb".iter().map(|byte| byte ^ 0x20));
/// assert_eq!(Chunk::from(buffer).len(), 5);
/// ```
pub struct SendBuffer(Vec<u8>);

impl SendBuffer {
    /// An empty one.
    pub fn new() -> Self {
        let pooled = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        Self(pooled.unwrap_or_else(|| Vec::with_capacity(ROOM)))
    }

    /// How many bytes it takes before it grows.
    pub(crate) fn room(&self) -> usize {
        self.0.capacity() - self.0.len()
    }
}

impl Deref for SendBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for SendBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Clone for SendBuffer {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.extend_from_slice(self);
        copy
    }
}

impl Default for SendBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SendBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendBuffer(\"{}\")", self.escape_ascii())
    }
}

impl Drop for SendBuffer {
    #[inline]
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.0);
        if (ROOM..=MOST_ROOM).contains(&buffer.capacity()) {
            buffer.clear();
            // While the thread ends there is nothing to pool for.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < MOST_POOLED {
                    pool.push(buffer);
                }
            });
        }
    }
}

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that a new one holds.
pub(crate) const ROOM: usize = 16 * 1024;
/// One that has grown beyond is not kept. A TLS record is longer than 16 KiB by its header and its tag.
const MOST_ROOM: usize = 2 * ROOM;
/// What a thread keeps: 2 MiB, or 4 if all have grown.
const MOST_POOLED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_unless_it_has_grown_too_much_or_was_taken_away() {
        let mut buffer = SendBuffer::new();
        buffer.extend_from_slice(&[1; ROOM + 1]);
        let (start, room) = (buffer.as_ptr(), buffer.capacity());
        drop(buffer);
        let mut again = SendBuffer::new();
        assert!(again.is_empty() && again.capacity() == room && again.as_ptr() == start);
        again.reserve(MOST_ROOM + 1);
        drop(again);
        let mut taken = SendBuffer::new();
        assert_eq!(taken.capacity(), ROOM);
        drop(mem::take(&mut *taken));
        drop(taken);
        assert_eq!(SendBuffer::new().room(), ROOM);
        let buffers: Vec<_> = (0..2 * MOST_POOLED).map(|_| SendBuffer::new()).collect();
        drop(buffers);
        assert_eq!(POOL.with(|pool| pool.borrow().len()), MOST_POOLED);
    }

    #[test]
    fn one_that_is_dropped_while_the_thread_ends_is_freed() {
        thread_local! {
            static LAST: RefCell<Option<SendBuffer>> = const { RefCell::new(None) };
        }
        let thread = std::thread::spawn(|| {
            LAST.with(|_| {}); // Its drop comes after that of the pool, which is used first.
            drop(SendBuffer::new());
            LAST.set(Some(SendBuffer::new()));
        });
        thread.join().unwrap();
    }
}
