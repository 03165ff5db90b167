//! What a reader holds: what has arrived and nobody has taken.
//!
//! # The life of a byte in here
//!
//! ```text
//! push() -> in a piece: the lease that it came in -- pop() -----------> a part of that lease: no copy
//!               '-- absorb() --> copied; the lease is given back ------> a copy
//! ```
//!
//! What is copied stands before all pieces. Whatever is given out of here is dropped by the caller, with no borrow held:
//! pieces that a user has fed may run code of his own when they go.

use std::collections::VecDeque;
use std::iter;
use std::mem;

use ringloop_driver::Received;

#[derive(Default)]
pub(super) struct Buffer {
    copied: Vec<u8>,
    /// How many of the copied ones are gone.
    start: usize,
    pieces: VecDeque<Received>,
    /// All that is there.
    len: usize,
    /// The place of the first byte in the stream.
    place: u64,
    /// Before this place of the stream is no newline.
    no_newline_before: u64,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    pub(super) fn push(&mut self, piece: Received) {
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// Bytes that are not worth a piece of their own.
    pub(super) fn push_copy(&mut self, bytes: &[u8]) -> bool {
        let fits = self.pieces.is_empty();
        if fits {
            self.len += bytes.len();
            self.copy(bytes);
        }
        fits
    }

    /// All bytes, piece by piece.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let copied = &self.copied[self.start..];
        iter::once(copied)
            .filter(|copied| !copied.is_empty())
            .chain(self.pieces.iter().map(|piece| &**piece))
    }

    /// Whether the next pieces are so small that the buffers which they lie in cost more than a copy.
    pub(super) fn is_wasteful(&self) -> bool {
        let copied = self.copied.len() - self.start;
        !self.pieces.is_empty() && self.len - copied < SMALL * self.pieces.len()
    }

    pub(super) fn has_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Copies the next piece, and gives it.
    pub(super) fn absorb(&mut self) -> Option<Received> {
        let piece = self.pieces.pop_front()?;
        self.copy(&piece);
        Some(piece)
    }

    /// Those that are gone make room when they are the most: so each byte is moved once or twice, however many there are.
    fn copy(&mut self, bytes: &[u8]) {
        if self.start > self.copied.len() / 2 {
            self.copied.drain(..mem::take(&mut self.start));
        }
        self.copied.extend_from_slice(bytes);
    }

    /// Takes the first `most` bytes, or as many as lie in one piece.
    pub(super) fn pop(&mut self, most: usize) -> Received {
        if self.start < self.copied.len() {
            let copied = &self.copied[self.start..];
            let popped = Received::from(&copied[..most.min(copied.len())]);
            self.gone_of_copied(popped.len());
            return popped;
        }
        let Some(first) = self.pieces.front_mut() else { return Received::default() };
        let popped = if most < first.len() {
            first.split_to(most)
        } else {
            self.pieces.pop_front().unwrap_or_default()
        };
        self.gone(popped.len());
        popped
    }

    /// The same, but gives them to `put`. Gives how many there were, and what is to be dropped.
    pub(super) fn pop_with(
        &mut self,
        most: usize,
        put: &mut impl FnMut(&[u8]),
    ) -> (usize, Received) {
        if let Some(first) = self.slices().next() {
            put(&first[..most.min(first.len())]);
        }
        self.skip(most)
    }

    /// The first piece, which stays here.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(super) fn first(&self) -> Received {
        match &self.copied[self.start..] {
            [] => self.pieces.front().cloned().unwrap_or_default(),
            copied => copied.into(),
        }
    }

    /// Drops the first `most` bytes, or as many as lie in one piece. Gives how many there were, and what is to be dropped.
    pub(super) fn skip(&mut self, most: usize) -> (usize, Received) {
        if self.start < self.copied.len() {
            let count = most.min(self.copied.len() - self.start);
            self.gone_of_copied(count);
            return (count, Received::default());
        }
        let count = most.min(self.pieces.front().map_or(0, |first| first.len()));
        self.gone(count);
        (count, self.advance_first(count))
    }

    fn advance_first(&mut self, count: usize) -> Received {
        match self.pieces.front_mut() {
            Some(first) if count < first.len() => {
                first.advance(count);
                Received::default()
            }
            _ => self.pieces.pop_front().unwrap_or_default(),
        }
    }

    fn gone_of_copied(&mut self, count: usize) {
        self.gone(count);
        self.start += count;
        if self.start == self.copied.len() {
            self.start = 0;
            self.copied.clear();
            self.copied.shrink_to(SMALL); // An idle reader holds little.
        }
    }

    fn gone(&mut self, count: usize) {
        self.len -= count;
        self.place += count as u64;
    }

    /// How many of the first bytes were searched already and hold no newline.
    pub(super) fn without_newline(&self) -> usize {
        usize::try_from(self.no_newline_before.saturating_sub(self.place)).unwrap_or(self.len)
    }

    /// Notes that none of the bytes is one.
    pub(super) fn has_no_newline(&mut self) {
        self.no_newline_before = self.place + self.len as u64;
    }
}

/// Bytes. A piece that is smaller is copied where the reader would hold it for long, so that its buffer is not missed.
pub(super) const SMALL: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_makes_room_though_the_buffer_is_never_empty() {
        let mut buffer = Buffer::default();
        buffer.push_copy(&[0; 100]);
        for round in 0..10_000_u32 {
            assert!(buffer.push_copy(&round.to_ne_bytes()));
            let taken = buffer.pop(4);
            if let Some(early) = round.checked_sub(25) {
                assert_eq!(taken, early.to_ne_bytes());
            }
        }
        assert_eq!(buffer.len(), 100);
        assert!(buffer.copied.capacity() < 1000, "{}", buffer.copied.capacity());
    }
}
