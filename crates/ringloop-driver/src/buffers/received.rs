//! Received bytes: a lease of the buffer that the kernel filled.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::{Bound, Deref, RangeBounds};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::group::{Group, GroupMemory};
use crate::drop_foreign;

/// Received bytes, lent from the buffer that the kernel filled. The buffer is free again when the last clone is gone.
///
/// Read them as a slice, [`slice`](Self::slice) them, keep them, write them onwards: none of this copies. They belong to
/// the loop's thread; [`into_bytes`](Self::into_bytes) makes them [`Bytes`], which go anywhere. They may outlive the loop.
///
/// ```
/// use ringloop_driver::Received;
///
/// let line = Received::from(b"GET / HTTP/1.1".as_slice());
/// let method = line.slice(..3);
/// assert_eq!(&*method, b"GET");
/// assert_eq!(line.get(20..), None);
/// ```
///
/// Cut into pieces:
///
/// ```
/// use ringloop_driver::Received;
///
/// let mut data = Received::from(b"GET / HTTP/1.1\r\n".as_slice());
/// assert_eq!(data.split_to(4), b"GET ");
/// data.advance(2);
/// data.truncate(8);
/// assert!(data.is_copy(), "no kernel has filled it");
/// assert_eq!(data.into_bytes(), "HTTP/1.1");
/// ```
pub struct Received {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// Who keeps the bytes at `start` where they are, and unchanged.
enum Owner {
    /// Nobody: there are none.
    Empty,
    /// The number of a buffer, which has 16 bits; so wide, bytes are moved in fewer steps.
    Lease(Rc<Group>, u32),
    Heap(Rc<Bytes>),
}

impl Received {
    /// The caller has counted the lease in the group, whose buffer begins at `start`.
    #[inline]
    pub(super) fn lease(group: Rc<Group>, index: u16, start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, owner: Owner::Lease(group, u32::from(index)) }
    }

    /// A part of the same bytes.
    ///
    /// # Panics
    ///
    /// As indexing does, if `range` is not within `self`. [`get`](Self::get) gives `None` instead.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let (start, end) = (start_of(&range), end_of(&range, self.len));
        match self.get((Bound::Included(start), Bound::Excluded(end))) {
            Some(part) => part,
            None => panic!("range {start}..{end} out of range for {} received bytes", self.len),
        }
    }

    /// A part of the same bytes, or `None` if `range` is not within `self`.
    pub fn get(&self, range: impl RangeBounds<usize>) -> Option<Self> {
        let (start, end) = (start_of(&range), end_of(&range, self.len));
        if start > end || end > self.len {
            return None;
        }
        let mut part = self.clone();
        // SAFETY: `start <= self.len`, so the place is within the owned bytes or one past them.
        part.start = unsafe { part.start.add(start) };
        part.len = end - start;
        Some(part)
    }

    /// Takes the first `at` bytes off, and gives them. All of them if there are not so many.
    pub fn split_to(&mut self, at: usize) -> Self {
        let at = at.min(self.len);
        let mut first = self.clone();
        first.len = at;
        self.advance(at);
        first
    }

    /// Drops the first `count` bytes. All of them if there are not so many.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len);
        // SAFETY: `count <= self.len`, so the place is within the owned bytes or one past them.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }

    /// Keeps the first `len` bytes only. All of them if there are not so many.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes, to be changed where they are: by a layer that decrypts, say. `None` if they are no lease, or if anybody else
    /// holds a part of the same buffer, even another part of it; they are to be copied then.
    ///
    /// ```
    /// use ringloop_driver::Received;
    ///
    /// fn decrypt(mut data: Received) -> Received {
    ///     let flip = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte ^= 0x20);
    ///     if let Some(bytes) = data.try_mut() {
    ///         flip(bytes);
    ///         return data;
    ///     }
    ///     let mut copy = data.to_vec();
    ///     flip(&mut copy);
    ///     copy.into()
    /// }
    ///
    /// assert_eq!(decrypt(b"Hello".as_slice().into()), b"hELLO");
    /// ```
    pub fn try_mut(&mut self) -> Option<&mut [u8]> {
        match &self.owner {
            Owner::Empty => Some(&mut []),
            Owner::Lease(group, index) if group.has_one_lease(*index as u16) => {
                // SAFETY: `len` bytes from `start` on are initialised and within the buffer, as for a read. This is its only
                // lease, borrowed for as long as the slice, so nobody else reads or writes: neither here, nor on another
                // thread, as `Bytes` keep their lease; and the kernel gets the buffer after the last lease only.
                Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
            }
            Owner::Lease(..) | Owner::Heap(_) => None,
        }
    }

    /// The same bytes, for any thread. Does not copy: the buffer comes back when the last [`Bytes`] of it is dropped.
    pub fn into_bytes(self) -> Bytes {
        let (start, len) = (self.start, self.len);
        match self.into_owner() {
            Owner::Empty => Bytes::new(),
            Owner::Lease(group, index) => {
                let memory = Arc::clone(group.memory());
                let index = index as u16;
                Bytes::from_owner(ForeignLease { memory, index, start, len })
            }
            Owner::Heap(bytes) => {
                let offset = start.as_ptr().addr() - bytes.as_ptr().addr();
                bytes.slice(offset..offset + len)
            }
        }
    }

    /// Whether these bytes are a copy, as the connection held too many buffers, or were made by the program.
    pub fn is_copy(&self) -> bool {
        matches!(self.owner, Owner::Heap(_))
    }

    /// Whether it is a lease, or empty: then dropping it runs no code of the program's own, as that of a `Bytes` with a foreign
    /// owner may.
    pub(crate) fn is_lease(&self) -> bool {
        matches!(self.owner, Owner::Empty | Owner::Lease(..))
    }

    /// As if there were so many leases of the buffer.
    #[cfg(feature = "testing")]
    pub(crate) fn set_lease_count(&self, count: usize) {
        if let Owner::Lease(group, index) = &self.owner {
            group.set_leases(*index as u16, count);
        }
    }

    /// What a drop does, for what is known to be a lease. It has no owner then, so its bytes are not to be read any more.
    #[inline(always)]
    pub(crate) fn let_go(&mut self) {
        self.len = 0;
        if let Owner::Lease(group, index) = mem::replace(&mut self.owner, Owner::Empty) {
            group.end_lease_here(index as u16);
        }
    }

    /// Without ending the lease.
    #[inline(always)]
    fn into_owner(self) -> Owner {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped; nothing else in it has a drop.
        unsafe { std::ptr::read(&raw const this.owner) }
    }
}

impl Deref for Received {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `owner` keeps `len` initialised bytes at `start` alive and unchanged: a leased buffer is given to the
        // kernel again only after the last lease, and the kernel had written at least `len` bytes of it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Received {
    fn clone(&self) -> Self {
        let owner = match &self.owner {
            Owner::Empty => Owner::Empty,
            Owner::Lease(group, index) => {
                group.add_lease(*index as u16);
                Owner::Lease(Rc::clone(group), *index)
            }
            Owner::Heap(bytes) => Owner::Heap(Rc::clone(bytes)),
        };
        Self { start: self.start, len: self.len, owner }
    }
}

impl Drop for Received {
    #[inline]
    fn drop(&mut self) {
        match &self.owner {
            Owner::Empty => {}
            Owner::Lease(group, index) => group.end_lease(*index as u16),
            // The program's own bytes, maybe: a panic of their owner goes no further.
            Owner::Heap(_) => drop_foreign(mem::replace(&mut self.owner, Owner::Empty)),
        }
    }
}

impl Default for Received {
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0, owner: Owner::Empty }
    }
}

impl From<Bytes> for Received {
    fn from(bytes: Bytes) -> Self {
        let bytes = Rc::new(bytes);
        Self { start: NonNull::from(&**bytes).cast(), len: bytes.len(), owner: Owner::Heap(bytes) }
    }
}

impl From<Vec<u8>> for Received {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for Received {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl From<Received> for Bytes {
    fn from(received: Received) -> Self {
        received.into_bytes()
    }
}

impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Received {}

impl PartialEq<[u8]> for Received {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Received {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Received {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received(\"{}\")", self.escape_ascii())
    }
}

/// A lease that left the loop's thread.
struct ForeignLease {
    memory: Arc<GroupMemory>,
    index: u16,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: `start` points into `memory`, which any thread may hold; while this lease lives nobody writes to the buffer.
unsafe impl Send for ForeignLease {}

impl AsRef<[u8]> for ForeignLease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as for `Received`: the lease is counted in the group until `give_back()` reaches the loop's thread.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for ForeignLease {
    fn drop(&mut self) {
        self.memory.give_back(self.index);
    }
}

fn start_of(range: &impl RangeBounds<usize>) -> usize {
    match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    }
}

fn end_of(range: &impl RangeBounds<usize>, len: usize) -> usize {
    match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    }
}
