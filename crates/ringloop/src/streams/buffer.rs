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
use std::mem;

use ringloop_driver::Received;

#[derive(Default)]
pub(super) struct Buffer {
    copied: Vec<u8>,
    /// How many of the copied ones are gone.
    start: usize,
    /// The first piece: as a rule the only one, which is taken before the next one comes. It is not empty.
    first: Option<Received>,
    /// The pieces behind it.
    rest: VecDeque<Piece>,
    /// All that is there.
    len: usize,
    /// The place of the first byte in the stream.
    place: u64,
    /// Before this place of the stream is no newline.
    no_newline_before: u64,
}

struct Piece {
    bytes: Received,
    /// The place in the stream behind its last byte.
    end: u64,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Appends a piece, which is not empty.
    #[inline]
    pub(super) fn push(&mut self, piece: Received) {
        self.len += piece.len();
        if self.first.is_some() {
            self.push_behind(piece);
        } else {
            self.first = Some(piece);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, piece: Received) {
        self.rest.push_back(Piece { bytes: piece, end: self.end() });
    }

    /// Bytes that are not worth a piece of their own.
    pub(super) fn push_copy(&mut self, bytes: &[u8]) -> bool {
        let fits = !self.has_pieces();
        if fits {
            self.len += bytes.len();
            self.copy(bytes);
        }
        fits
    }

    /// The bytes from `index` on that lie in the first piece, if that begins the buffer.
    #[inline]
    pub(super) fn first_from(&self, index: usize) -> Option<&[u8]> {
        self.first.as_deref().filter(|_| self.copied.is_empty())?.get(index..)
    }

    /// The bytes, piece by piece, from the one in which the byte at `index` lies; and the index of the first of them. The pieces
    /// before it are not walked over, since a search comes here whenever one more has arrived.
    pub(super) fn slices_from(&self, index: usize) -> (usize, impl Iterator<Item = &[u8]> + Clone) {
        let copied = &self.copied[self.start..];
        let (first_at, rest_at) = (copied.len(), copied.len() + self.first_len());
        let (begin, from) = if index < first_at {
            (0, 0)
        } else if index < rest_at {
            (first_at, 0)
        } else {
            let place = self.place + index as u64;
            let from = self.rest.partition_point(|piece| piece.end <= place);
            let before = from.checked_sub(1).map(|last| self.rest[last].end);
            (before.map_or(rest_at, |end| (end - self.place) as usize), from)
        };
        let copied = Some(copied).filter(|copied| begin == 0 && !copied.is_empty());
        let first = self.first.as_deref().filter(|_| begin <= first_at);
        let rest = self.rest.range(from..).map(|piece| &*piece.bytes);
        (begin, copied.into_iter().chain(first).chain(rest))
    }

    /// Whether the next pieces are so small that the buffers which they lie in cost more than a copy.
    pub(super) fn is_wasteful(&self) -> bool {
        let copied = self.copied.len() - self.start;
        self.has_pieces() && self.len - copied < SMALL * (1 + self.rest.len())
    }

    #[inline]
    pub(super) fn has_pieces(&self) -> bool {
        self.first.is_some()
    }

    #[inline]
    fn first_len(&self) -> usize {
        self.first.as_ref().map_or(0, |first| first.len())
    }

    /// Copies the next piece, and gives it.
    pub(super) fn absorb(&mut self) -> Option<Received> {
        let piece = self.pop_first()?;
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

    /// Takes all if that is one piece of up to `most` bytes.
    #[inline]
    pub(super) fn pop_only(&mut self, most: usize) -> Option<Received> {
        let len = self.first.as_ref()?.len();
        if len != self.len || len > most {
            return None;
        }
        self.gone(len);
        self.first.take()
    }

    /// Takes the first `most` bytes, or as many as lie in one piece.
    pub(super) fn pop(&mut self, most: usize) -> Received {
        let copied = &self.copied[self.start..];
        if (SMALL..=most).contains(&copied.len()) {
            self.make_piece_of_copied();
        } else if !copied.is_empty() {
            let popped = Received::from(&copied[..most.min(copied.len())]);
            self.gone_of_copied(popped.len());
            return popped;
        }
        let popped = match &mut self.first {
            Some(first) if most < first.len() => first.split_to(most),
            _ => self.pop_first().unwrap_or_default(),
        };
        self.gone(popped.len());
        popped
    }

    fn pop_first(&mut self) -> Option<Received> {
        let next = self.rest.pop_front().map(|piece| piece.bytes);
        mem::replace(&mut self.first, next)
    }

    /// The same, but gives them to `put`. Gives how many there were, and what is to be dropped.
    pub(super) fn pop_with(
        &mut self,
        most: usize,
        put: &mut impl FnMut(&[u8]),
    ) -> (usize, Received) {
        if let Some(first) = self.slices_from(0).1.next() {
            put(&first[..most.min(first.len())]);
        }
        self.skip(most)
    }

    /// The first piece, which stays here. What was copied becomes a piece, so that who takes it in small parts does not have the
    /// rest copied for each of them.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(super) fn first(&mut self) -> Received {
        if self.start < self.copied.len() {
            self.make_piece_of_copied();
        }
        self.first.clone().unwrap_or_default()
    }

    fn make_piece_of_copied(&mut self) {
        let mut bytes = Received::from(mem::take(&mut self.copied));
        bytes.advance(mem::take(&mut self.start));
        let end = self.place + bytes.len() as u64;
        if let Some(second) = self.first.replace(bytes) {
            self.rest.push_front(Piece { end: end + second.len() as u64, bytes: second });
        }
    }

    /// Drops the first `most` bytes, or as many as lie in one piece. Gives how many there were, and what is to be dropped.
    pub(super) fn skip(&mut self, most: usize) -> (usize, Received) {
        if self.start < self.copied.len() {
            let count = most.min(self.copied.len() - self.start);
            self.gone_of_copied(count);
            return (count, Received::default());
        }
        let count = most.min(self.first_len());
        self.gone(count);
        match &mut self.first {
            Some(first) if count < first.len() => {
                first.advance(count);
                (count, Received::default())
            }
            _ => (count, self.pop_first().unwrap_or_default()),
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
        self.no_newline_before = self.end();
    }

    /// The place in the stream behind the last byte.
    fn end(&self) -> u64 {
        self.place + self.len as u64
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
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    #[test]
    fn who_takes_the_first_piece_in_parts_has_it_copied_once() {
        let mut buffer = Buffer::default();
        buffer.push_copy(&[7; 1000]);
        let begin = buffer.first().as_ptr();
        for taken in 0..1000 {
            let first = buffer.first();
            assert_eq!((first.as_ptr(), first.len()), (begin.wrapping_add(taken), 1000 - taken));
            buffer.skip(1);
        }
        assert_eq!(buffer.len(), 0);
        assert!(buffer.first().is_empty());
    }
}
