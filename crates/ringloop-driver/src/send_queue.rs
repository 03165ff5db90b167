//! Bytes that are to be sent: the chunks of one gathered send.
//!
//! # The life of a queue
//!
//! ```text
//! staged in a transport -> owned by the op slab while the kernel knows it -> back, with what was sent -> recycled
//! ```
//!
//! The kernel sees addresses of the chunks, and of the vector and header that list them. All of them are heap or buffer
//! memory that the queue owns and that does not move with it; while a send is in flight the slab owns the queue, so
//! nobody can push to it, advance it or drop it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr;

use bytes::Bytes;
use socket2::SockAddr;

use crate::send_buffer::{self, SendBuffer};
use crate::{Chunk, Received, drop_foreign};

/// Chunks in the order of their writes, and how much of the first one is sent.
///
/// An empty one owns no memory; what it needs comes from a pool of its thread, so that a warm connection allocates
/// nothing and an idle one holds nothing.
#[derive(Default)]
pub struct SendQueue(Held);

/// The lease comes first: then one comparison tells it from the others, whose numbers have their place behind those of its owner.
#[derive(Default)]
enum Held {
    /// One lease, as of who echoes or passes on what he receives. It needs nothing of the pool.
    Lease(Received),
    #[default]
    Nothing,
    Pieces(Box<Pieces>),
}

#[derive(Default)]
struct Pieces {
    list: VecDeque<Piece>,
    /// Of the first piece.
    sent: usize,
    /// Not yet sent, of all pieces.
    len: usize,
    /// Pieces whose drop may run code of the program's own.
    foreign: usize,
    vector: Vec<libc::iovec>,
    /// What did not get a place of its own in the vector.
    joined: Vec<u8>,
    header: Header,
}

/// The header of a gathered send. The kernel reads it while the send is in flight.
struct Header(libc::msghdr);

enum Piece {
    /// Copied, with room for the next small write; or filled by a layer.
    Buffer(SendBuffer),
    Vec(Vec<u8>),
    Bytes(Bytes),
    Received(Received),
}

/// What the kernel is to be asked for.
pub(crate) enum Gathered {
    One { start: *const u8, len: usize },
    Many { header: *const libc::msghdr, vector: *const libc::iovec, len: u32 },
}

/// How many bytes of a queue the kernel is shown: all, unless a test has it see less.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    #[cfg(feature = "testing")]
    most: usize,
}

impl SendQueue {
    /// How many chunks one gathered send takes: `sysconf(_SC_IOV_MAX)` of Linux.
    pub const MOST_CHUNKS: usize = 1024;

    /// A queue with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that are not sent yet.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Lease(bytes) => bytes.len(),
            _ => self.len_of_pieces(),
        }
    }

    /// Apart, so that the usual case is told by one comparison.
    #[inline(never)]
    fn len_of_pieces(&self) -> usize {
        match &self.0 {
            Held::Pieces(pieces) => pieces.len,
            _ => 0,
        }
    }

    /// Whether all is sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Held::Nothing) || self.len() == 0
    }

    /// Whether nothing is in it, and it owns no memory.
    #[inline(always)]
    pub fn is_nothing(&self) -> bool {
        matches!(self.0, Held::Nothing)
    }

    /// Chunks that are not sent yet, at least in part. One send takes up to [`MOST_CHUNKS`](Self::MOST_CHUNKS) of them.
    #[inline]
    pub fn chunks(&self) -> usize {
        match &self.0 {
            Held::Nothing => 0,
            Held::Lease(_) => 1,
            Held::Pieces(pieces) => pieces.list.len(),
        }
    }

    /// Whether dropping what is in it may run code of the program's own: a [`Bytes`] with an owner of its own. Such a
    /// queue must not be dropped where that code must not run. A panic of it does not get out
    /// ([`take_drop_panics`](crate::take_drop_panics)).
    #[inline]
    pub fn has_foreign(&self) -> bool {
        matches!(&self.0, Held::Pieces(pieces) if pieces.foreign > 0)
    }

    /// Whether it is one lease, of `len` bytes: what is usual, and told without a look at anything else. Such a queue has
    /// nothing foreign.
    #[inline(always)]
    pub fn is_lease_of(&self, len: usize) -> bool {
        matches!(&self.0, Held::Lease(bytes) if bytes.len() == len)
    }

    /// Appends `chunk`; an empty one is dropped, since one that stayed queued would keep a closing transport open.
    ///
    /// # Panics
    ///
    /// As a [`Vec`] does, if the bytes of all chunks together are more than a `usize` can count. Nothing has changed then.
    pub fn push(&mut self, chunk: Chunk<'_>) {
        let rest = match chunk {
            Chunk::Received(bytes) => self.push_first(bytes).map(Chunk::Received),
            chunk => Some(chunk),
        };
        if let Some(chunk) = rest {
            self.push_piece(chunk);
        }
    }

    /// As [`push`](Self::push), for the first chunk, if that is a lease. It comes back if it is not, or is empty, or not the first.
    #[inline(always)]
    pub fn push_first(&mut self, bytes: Received) -> Option<Received> {
        if !matches!(self.0, Held::Nothing) || !bytes.is_lease() || bytes.is_empty() {
            return Some(bytes);
        }
        // What was there is nothing, so the drop of what might have been there is not gone through.
        let _nothing = ManuallyDrop::new(mem::replace(&mut self.0, Held::Lease(bytes)));
        None
    }

    /// As [`push`](Self::push) of a slice, if the last chunk is a buffer of copies that has room for it. Gives whether it was
    /// so; else nothing is done.
    #[inline]
    pub fn copy_behind(&mut self, bytes: &[u8]) -> bool {
        let Held::Pieces(pieces) = &mut self.0 else { return false };
        let Some(len) = pieces.len.checked_add(bytes.len()) else { return false };
        let is_copied = pieces.copy_into_last(bytes);
        if is_copied {
            pieces.len = len;
        }
        is_copied
    }

    fn push_piece(&mut self, chunk: Chunk<'_>) {
        if chunk.is_empty() {
            return drop_foreign(chunk);
        }
        self.pieces().push(chunk);
    }

    /// Moves all of `other` to the end of this queue.
    ///
    /// # Panics
    ///
    /// As [`push`](Self::push).
    pub fn append(&mut self, other: &mut Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            mem::swap(self, other);
            return;
        }
        let len = sum(self.len(), other.len());
        let pieces = self.pieces();
        match mem::take(&mut other.0) {
            Held::Nothing => {}
            Held::Lease(bytes) => pieces.push(Chunk::Received(bytes)),
            Held::Pieces(mut rest) => {
                rest.trim_first();
                rest.len = 0;
                pieces.len = len;
                pieces.foreign += mem::take(&mut rest.foreign);
                pieces.list.append(&mut rest.list);
                Pool::give_queue(rest);
            }
        }
    }

    /// The kernel took `count` bytes: whole chunks leave, the partly sent one keeps its rest.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        match &mut self.0 {
            Held::Lease(bytes) if count < bytes.len() => bytes.advance(count),
            Held::Pieces(pieces) if count < pieces.len => pieces.advance(count),
            Held::Lease(_) => self.0 = Held::Nothing,
            _ => self.clear(),
        }
    }

    /// Drops all that is in it.
    #[inline(always)]
    pub fn clear(&mut self) {
        match &mut self.0 {
            Held::Lease(bytes) => {
                bytes.let_go();
                let _empty = ManuallyDrop::new(mem::take(&mut self.0));
            }
            _ => self.clear_pieces(),
        }
    }

    /// Apart, as above.
    #[inline(never)]
    fn clear_pieces(&mut self) {
        if let Held::Pieces(mut pieces) = mem::take(&mut self.0) {
            pieces.drop_all();
            Pool::give_queue(pieces);
        }
    }

    /// All that is not sent, if it is one piece. Where the bytes are does not change when the queue is moved.
    #[inline]
    pub(crate) fn only_piece(&self) -> Option<&[u8]> {
        match &self.0 {
            Held::Lease(bytes) => Some(bytes),
            _ => self.only_of_pieces(),
        }
    }

    /// Apart, as above.
    #[inline(never)]
    fn only_of_pieces(&self) -> Option<&[u8]> {
        match &self.0 {
            Held::Pieces(pieces) if pieces.list.len() == 1 => {
                pieces.list.front().map(|only| &only[pieces.sent..])
            }
            _ => None,
        }
    }

    /// What one send can take: one piece, or up to [`MOST_CHUNKS`](Self::MOST_CHUNKS) of them. Valid until the queue is
    /// changed or dropped.
    #[inline]
    pub(crate) fn gather(&mut self) -> Gathered {
        if let Some(bytes) = self.only_piece() {
            return Gathered::One { start: bytes.as_ptr(), len: bytes.len().min(MOST_AT_ONCE) };
        }
        let Held::Pieces(pieces) = &mut self.0 else {
            return Gathered::One { start: ptr::null(), len: 0 };
        };
        pieces.fill_vector();
        pieces.shorten_to(MOST_AT_ONCE);
        pieces.many()
    }

    /// As [`gather`](Self::gather), for one datagram to `address`, which must stay where it is as long. There are empty
    /// datagrams.
    pub(crate) fn gather_datagram(&mut self, address: Option<&SockAddr>) -> *const libc::msghdr {
        let pieces = self.pieces();
        pieces.fill_vector();
        pieces.list_rest_as_one();
        if let Some(address) = address {
            pieces.header.0.msg_name = address.as_ptr().cast_mut().cast();
            pieces.header.0.msg_namelen = address.len();
        }
        &raw const pieces.header.0
    }

    /// Of the pool from here on.
    fn pieces(&mut self) -> &mut Pieces {
        if !matches!(self.0, Held::Pieces(_)) {
            let mut pieces = Pool::take_queue();
            if let Held::Lease(bytes) = mem::take(&mut self.0) {
                pieces.push(Chunk::Received(bytes));
            }
            self.0 = Held::Pieces(pieces);
        }
        match &mut self.0 {
            Held::Pieces(pieces) => pieces,
            _ => unreachable!("it was made one"),
        }
    }
}

impl Shown {
    pub(crate) const ALL: Self = Self {
        #[cfg(feature = "testing")]
        most: usize::MAX,
    };

    #[cfg(feature = "testing")]
    pub(crate) fn up_to(most: usize) -> Self {
        Self { most }
    }

    /// What one send can take of that: see [`SendQueue::gather`].
    #[inline(always)]
    pub(crate) fn gather(self, queue: &mut SendQueue) -> Gathered {
        let gathered = queue.gather();
        #[cfg(feature = "testing")]
        let gathered = match (gathered, &mut queue.0) {
            (Gathered::One { start, len }, _) => Gathered::One { start, len: len.min(self.most) },
            (Gathered::Many { .. }, Held::Pieces(pieces)) => {
                pieces.shorten_to(self.most);
                pieces.many()
            }
            (many, _) => many,
        };
        gathered
    }
}

impl Pieces {
    fn push(&mut self, chunk: Chunk<'_>) {
        self.len = sum(self.len, chunk.len());
        match chunk {
            Chunk::Borrowed(bytes) => self.copy(bytes),
            // A small one is cheaper copied: one entry less in the gathered send, and nothing to free at the far end.
            Chunk::Vec(bytes) if bytes.len() <= SMALL => self.copy(&bytes),
            Chunk::Vec(bytes) => self.list.push_back(Piece::Vec(bytes)),
            Chunk::Buffer(bytes) if bytes.len() <= SMALL => self.copy(&bytes),
            Chunk::Buffer(bytes) => self.list.push_back(Piece::Buffer(bytes)),
            Chunk::Bytes(bytes) => {
                self.foreign += 1;
                self.list.push_back(Piece::Bytes(bytes));
            }
            Chunk::Received(bytes) => {
                self.foreign += usize::from(!bytes.is_lease());
                self.list.push_back(Piece::Received(bytes));
            }
        }
    }

    fn many(&self) -> Gathered {
        Gathered::Many {
            header: &raw const self.header.0,
            vector: self.vector.as_ptr(),
            len: self.vector.len() as u32,
        }
    }

    fn fill_vector(&mut self) {
        self.vector.clear();
        let mut skip = self.sent;
        for piece in self.list.iter().take(SendQueue::MOST_CHUNKS) {
            let rest = &piece[mem::take(&mut skip)..];
            let iov_base = rest.as_ptr().cast_mut().cast();
            self.vector.push(libc::iovec { iov_base, iov_len: rest.len() });
        }
        self.header.0.msg_iov = self.vector.as_mut_ptr();
        self.header.0.msg_iovlen = self.vector.len();
        self.header.0.msg_name = ptr::null_mut();
        self.header.0.msg_namelen = 0;
    }

    /// Of what is listed, the first `most` bytes. The kernel refuses a call for more than it takes at once.
    fn shorten_to(&mut self, most: usize) {
        let mut left = most;
        for (count, part) in self.vector.iter_mut().enumerate() {
            if part.iov_len >= left {
                part.iov_len = left;
                self.vector.truncate(count + 1);
                break;
            }
            left -= part.iov_len;
        }
        self.header.0.msg_iovlen = self.vector.len();
    }

    /// A datagram goes out whole: what is not listed yet is copied, and takes the last place of the list.
    fn list_rest_as_one(&mut self) {
        self.joined = Vec::new();
        if self.list.len() > SendQueue::MOST_CHUNKS {
            self.vector.truncate(SendQueue::MOST_CHUNKS - 1);
            let rest = self.list.iter().skip(SendQueue::MOST_CHUNKS - 1);
            rest.for_each(|piece| self.joined.extend_from_slice(piece));
            let iov_base = self.joined.as_mut_ptr().cast();
            self.vector.push(libc::iovec { iov_base, iov_len: self.joined.len() });
        }
    }

    /// Into the last piece if that is a buffer with room, else into a new one.
    fn copy(&mut self, bytes: &[u8]) {
        if self.copy_into_last(bytes) {
            return;
        }
        if bytes.len() > send_buffer::ROOM {
            self.list.push_back(Piece::Vec(bytes.to_vec()));
        } else {
            let mut buffer = SendBuffer::new();
            buffer.extend_from_slice(bytes);
            self.list.push_back(Piece::Buffer(buffer));
        }
    }

    #[inline]
    fn copy_into_last(&mut self, bytes: &[u8]) -> bool {
        match self.list.back_mut() {
            Some(Piece::Buffer(last)) if last.room() >= bytes.len() => {
                last.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = self.list.front() {
            let rest = first.len() - self.sent;
            if count < rest {
                self.sent += count;
                return;
            }
            count -= rest;
            self.sent = 0;
            if let Some(piece) = self.list.pop_front() {
                self.foreign -= usize::from(piece.is_foreign());
                piece.recycle();
            }
        }
    }

    /// Makes the first piece begin with what is not sent, so that it can stand elsewhere than in front.
    fn trim_first(&mut self) {
        let sent = mem::take(&mut self.sent);
        match self.list.front_mut() {
            Some(Piece::Received(bytes)) => bytes.advance(sent),
            Some(Piece::Bytes(bytes)) => *bytes = bytes.slice(sent..),
            Some(Piece::Buffer(bytes)) => drop(bytes.drain(..sent)),
            Some(Piece::Vec(bytes)) => drop(bytes.drain(..sent)),
            None => {}
        }
    }

    fn drop_all(&mut self) {
        self.len = 0;
        self.sent = 0;
        self.foreign = 0;
        if self.joined.capacity() > 0 {
            self.joined = Vec::new();
        }
        while let Some(piece) = self.list.pop_front() {
            piece.recycle();
        }
    }
}

impl Piece {
    fn is_foreign(&self) -> bool {
        match self {
            Self::Buffer(_) | Self::Vec(_) => false,
            Self::Bytes(_) => true,
            Self::Received(bytes) => !bytes.is_lease(),
        }
    }

    #[inline]
    fn recycle(self) {
        if self.is_foreign() {
            drop_foreign(self);
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Buffer(bytes) => bytes,
            Self::Vec(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
            Self::Received(bytes) => bytes,
        }
    }
}

/// A length that wraps would be a queue that never empties.
fn sum(len: usize, more: usize) -> usize {
    match len.checked_add(more) {
        Some(sum) => sum,
        None => panic!("capacity overflow"),
    }
}

impl Drop for SendQueue {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.0, Held::Pieces(_)) {
            self.clear();
        }
    }
}

impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendQueue({} bytes in {} chunks)", self.len(), self.chunks())
    }
}

impl Default for Header {
    fn default() -> Self {
        // SAFETY: a `msghdr` of zeros is valid: null pointers and lengths of zero.
        Self(unsafe { mem::zeroed() })
    }
}

/// Queues that are not in use. One pool a thread: a loop belongs to its thread.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "a queue is moved in and out by its pointer")]
struct Pool {
    queues: Vec<Box<Pieces>>,
}

impl Pool {
    fn take_queue() -> Box<Pieces> {
        Self::with(|pool| pool.queues.pop()).flatten().unwrap_or_default()
    }

    #[inline]
    fn give_queue(pieces: Box<Pieces>) {
        if pieces.list.capacity() <= POOLED_PIECES {
            Self::with(|pool| {
                if pool.queues.len() < POOLED_QUEUES {
                    pool.queues.push(pieces);
                }
            });
        }
    }

    /// `None` while the thread ends: then there is nothing to pool for.
    fn with<R>(use_pool: impl FnOnce(&mut Self) -> R) -> Option<R> {
        POOL.try_with(|pool| use_pool(&mut pool.borrow_mut())).ok()
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Bytes that the kernel takes in one call, whatever the size of its pages (`MAX_RW_COUNT`).
pub(crate) const MOST_AT_ONCE: usize = 0x7fff_0000;
/// An owned vector of up to so many bytes is copied.
const SMALL: usize = 256;
/// What a thread keeps.
const POOLED_QUEUES: usize = 1024;
/// A queue that has grown beyond is not kept.
const POOLED_PIECES: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

    use super::*;
    use crate::{discard_panic, take_drop_panics};

    thread_local! {
        static DROPPED: Cell<u32> = const { Cell::new(0) };
    }

    /// Its drop panics with its number.
    struct Owner(u32);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &[b'x'; 3][..self.0.min(3) as usize]
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
            panic_any(self.0);
        }
    }

    fn queue_of(numbers: impl Iterator<Item = u32>) -> SendQueue {
        let mut queue = SendQueue::new();
        numbers.for_each(|number| queue.push(Bytes::from_owner(Owner(number)).into()));
        queue
    }

    fn panics() -> Vec<u32> {
        let payloads = take_drop_panics().into_iter();
        payloads.map(|payload| *payload.downcast::<u32>().unwrap()).collect()
    }

    #[test]
    fn owners_in_one_queue_that_all_panic_when_they_are_dropped_are_all_dropped() {
        drop(queue_of(3..6));
        assert_eq!((DROPPED.get(), panics()), (3, vec![3, 4, 5]));
        let mut queue = queue_of(3..6);
        queue.push(Received::from(Bytes::from_owner(Owner(6))).into());
        queue.clear();
        assert_eq!((DROPPED.get(), panics()), (7, vec![3, 4, 5, 6]));
        assert!(queue.is_empty() && !queue.has_foreign());
    }

    #[test]
    fn an_owner_that_panics_as_its_bytes_were_sent_leaves_a_queue_that_goes_on() {
        let mut queue = queue_of(3..6);
        queue.advance(4);
        assert_eq!((queue.len(), queue.chunks(), panics()), (5, 2, vec![3]));
        queue.push(b"and more".as_slice().into());
        queue.advance(2);
        assert_eq!((queue.len(), queue.chunks(), panics()), (11, 2, vec![4]));
        assert!(queue.has_foreign());
        queue.advance(3);
        assert_eq!((queue.len(), queue.chunks(), panics()), (8, 1, vec![5]));
        assert!(!queue.has_foreign());
    }

    #[test]
    fn lengths_that_cannot_be_counted_are_refused_before_anything_has_changed() {
        let mut queue = SendQueue::new();
        queue.push(b"bytes".as_slice().into());
        queue.pieces().len = usize::MAX - 3;
        let mut other = SendQueue::new();
        other.push(b"more".as_slice().into());
        let refused = |run: &mut dyn FnMut()| {
            discard_panic(catch_unwind(AssertUnwindSafe(run)).unwrap_err());
        };
        refused(&mut || queue.push(b"more".as_slice().into()));
        refused(&mut || queue.append(&mut other));
        assert_eq!((queue.len(), queue.chunks()), (usize::MAX - 3, 1));
        assert_eq!((other.len(), other.chunks()), (4, 1));
        queue.push(b"yes".as_slice().into());
        assert_eq!(queue.len(), usize::MAX);
    }

    #[test]
    fn an_empty_chunk_whose_owner_panics_is_dropped_and_nothing_is_queued() {
        let queue = queue_of(std::iter::once(0));
        assert_eq!((queue.len(), queue.chunks(), panics()), (0, 0, vec![0]));
    }

    #[test]
    fn a_queue_whose_owners_panic_is_dropped_while_another_panic_unwinds() {
        let unwound = catch_unwind(|| {
            let _queue = queue_of(3..5);
            panic_any("the first panic");
        });
        discard_panic(unwound.unwrap_err());
        assert_eq!(panics(), [3, 4]);
    }
}
