//! A group of buffers that the kernel picks from, and the ring in which they are offered.
//!
//! ```text
//! reserve -- refill() --> offered -- a receive --> lent -- its last lease ends --> reserve
//! ```
//!
//! The kernel takes buffers in the order in which they are offered. If all were offered, it would go through more memory than
//! the cache holds. While receives are large, only a few are offered (the window): as many as one call may fill, so that the
//! next call sends from the cache. The buffer that became free last is offered first.
//!
//! A connection that fills buffers of the first group gets those of another one, which are larger: one receive of 64 KiB costs up
//! to a quarter less than four of 16 KiB. Those who receive small messages share the small ones, and do not know of the others.

use std::cell::{Cell, RefCell};
use std::io;
use std::process;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::account::{ACCOUNT_LIMIT, Account};
use super::received::Received;
use super::returns::Returns;
use crate::config::DriverConfig;
use crate::entry::MOST_GROUPS;
use crate::fork::Inherited;
use crate::op::READ_AHEAD;
use crate::refusal::{MMAP, Refusal};
use crate::sys::Mapping;
use crate::uring::ring::{self, Ring};

/// Buffers of one size.
///
/// Whoever may still touch one of them has a share: the driver while it offers them, each op that is armed on the group until
/// its last completion, and each lease. So the memory goes when the last of them lets go, or never: with an op that the kernel
/// does not end, the group is leaked.
pub(crate) struct Group {
    size: GroupSize,
    /// Entries offered to the kernel; it reads them up to the tail, which overlays the first entry's last field.
    ring: Mapping,
    /// A forked child returns its copies of the leases to zeros.
    _inherited: Inherited,
    /// Ours alone: the kernel only reads the shared copy. Where no kernel picks buffers, the entries are a stack, and this is
    /// its height: the buffer that became free last is in the cache.
    tail: Cell<u16>,
    buffers: Box<[Buffer]>,
    memory: Arc<GroupMemory>,
    /// Where `memory` begins.
    first: NonNull<u8>,
    /// Free, and not offered.
    reserve: RefCell<Vec<u16>>,
    /// Offered to the kernel and not yet seen in a completion.
    offered: Cell<u32>,
    leased: Cell<u32>,
    /// Bytes that one account may hold: an eighth of the group, but one buffer at least.
    account_limit: usize,
    /// Bytes that a receive brings: a moving average.
    fill: Cell<u64>,
    /// While receives may use it: the kernel knows the ring, if it is one that picks buffers.
    in_use: Cell<bool>,
}

/// One buffer while it is lent.
#[derive(Default)]
struct Buffer {
    leases: Cell<usize>,
    account: Cell<Option<Account>>,
}

/// The bytes themselves, and the way back for leases that went to other threads.
pub(crate) struct GroupMemory {
    bytes: Arc<Mapping>,
    returned: Returns,
}

/// What a group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupSize {
    /// An op that is armed on a group would take buffers of another one that got its number meanwhile.
    pub(crate) id: u16,
    /// A power of two.
    pub(crate) buffers: u16,
    pub(crate) buffer_size: u32,
}

impl GroupSize {
    pub(crate) fn first(config: &DriverConfig) -> Self {
        let buffers = config.buffers.clamp(1, 1 << 15).next_power_of_two();
        Self { id: FIRST_GROUP, buffers, buffer_size: config.buffer_size.max(1) }
    }

    /// As much memory as the first group has, in large buffers. `None` where those of the first are as large, or where they
    /// would be so few that one connection after the other found none.
    pub(crate) fn for_streams(config: &DriverConfig) -> Option<Self> {
        let first = Self::first(config);
        let buffers = u64::from(first.buffers) * u64::from(first.buffer_size) / u64::from(LARGE);
        let is_of_use =
            config.large_buffers && first.buffer_size < LARGE && buffers >= FEWEST_LARGE;
        let buffers = 1 << buffers.checked_ilog2()?.min(15);
        is_of_use.then_some(Self { id: GROUP_FOR_STREAMS, buffers, buffer_size: LARGE })
    }

    /// Room for the largest datagram each, and for what the kernel writes before it.
    pub(crate) fn for_datagrams() -> Self {
        Self { id: GROUP_FOR_DATAGRAMS, buffers: BUFFERS_FOR_DATAGRAMS, buffer_size: 68 * 1024 }
    }
}

impl Group {
    /// A group that receives may use: those of `ring`, or those that are tried here. Its buffers are in `bytes`, if that is given and large enough.
    pub(crate) fn new(
        ring: Option<&Ring>,
        size: GroupSize,
        bytes: Option<Arc<Mapping>>,
    ) -> Result<Rc<Self>, Refusal> {
        let group = Self::unregistered(size, bytes).map_err(Refusal::of(MMAP))?;
        if let Some(ring) = ring {
            group.register(ring).map_err(Refusal::of("io_uring_register"))?;
        }
        group.in_use.set(true);
        Ok(group)
    }

    fn register(&self, ring: &Ring) -> io::Result<()> {
        let mut request = Registration {
            address: self.ring.address(),
            entries: u32::from(self.size.buffers),
            group: self.size.id,
            ..Registration::default()
        };
        // SAFETY: the request is a valid place; the memory that it names is page-aligned, as long as its entries, and lives
        // until after `unregister()` or the ring's end: `Driver` closes the ring before it lets go of the group.
        unsafe { ring.register(ring::REGISTER_BUFFER_RING, &raw mut request, 1) }.map(drop)
    }

    /// All of it but the kernel's part.
    pub(crate) fn unregistered(
        size: GroupSize,
        bytes: Option<Arc<Mapping>>,
    ) -> io::Result<Rc<Self>> {
        let GroupSize { buffers: count, buffer_size, .. } = size;
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let len = usize::from(count).checked_mul(buffer_size as usize);
        let len = len.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let bytes = match bytes {
            Some(bytes) if bytes.len() >= len => bytes,
            _ => Arc::new(Mapping::new(len)?),
        };
        let memory = GroupMemory { bytes, returned: Returns::new() };
        let group = Self {
            size,
            _inherited: Inherited::memory(&ring),
            ring,
            tail: Cell::new(0),
            buffers: (0..count).map(|_| Buffer::default()).collect(),
            first: memory.bytes.pointer(),
            memory: Arc::new(memory),
            reserve: RefCell::new((0..count).rev().collect()),
            offered: Cell::new(0),
            leased: Cell::new(0),
            account_limit: (len / 8).min(ACCOUNT_LIMIT).max(buffer_size as usize),
            // Only who fills buffers comes to the large ones; so not all of them are touched at first.
            fill: Cell::new(if size.id == GROUP_FOR_STREAMS { u64::from(buffer_size) } else { 0 }),
            in_use: Cell::new(false),
        };
        group.refill();
        Ok(Rc::new(group))
    }

    pub(crate) fn size(&self) -> GroupSize {
        self.size
    }

    /// Buffers that receives may still take, now or later.
    pub(crate) fn free(&self) -> u32 {
        self.offered.get() + self.reserve.borrow().len() as u32
    }

    /// Buffers that the kernel has: none only if none is free.
    pub(crate) fn offered(&self) -> u32 {
        self.offered.get()
    }

    /// Where no kernel picks buffers: the one that is to be filled next, and its place. It stays offered until it is
    /// [taken](Self::take_offered).
    #[inline]
    pub(crate) fn next_offered(&self) -> Option<(u16, NonNull<u8>)> {
        let last = self.tail.get().checked_sub(1).filter(|_| self.in_use.get())?;
        // SAFETY: the place is that of an entry which `offer()` has written.
        let index = unsafe { self.entry(last).as_ref() }.bid();
        Some((index, self.start(index)))
    }

    /// Where no kernel picks buffers: how many are still to be filled.
    #[inline]
    pub(crate) fn to_be_filled(&self) -> u16 {
        if self.in_use.get() { self.tail.get() } else { 0 }
    }

    /// The buffer that was to be filled next is filled: a completion will name it.
    #[inline]
    pub(crate) fn take_offered(&self) {
        self.tail.set(self.tail.get().wrapping_sub(1));
    }

    pub(crate) fn leased(&self) -> u32 {
        self.leased.get()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }

    #[inline]
    pub(crate) fn buffer_size(&self) -> usize {
        self.size.buffer_size as usize
    }

    /// Bytes after which a multishot receive is to end: one buffer less than what may be read ahead, since the kernel looks at
    /// them after each buffer.
    pub(crate) fn limit(&self) -> u32 {
        READ_AHEAD.saturating_sub(self.size.buffer_size).max(1)
    }

    /// Where buffer `index` begins, which is one of this group's.
    #[inline]
    fn start(&self, index: u16) -> NonNull<u8> {
        // SAFETY: every index in use is below the number of buffers that the mapping was made for.
        unsafe { self.first.add(usize::from(index) * self.buffer_size()) }
    }

    /// A lease of the first `len` bytes of buffer `index`, which a completion named. `None` for an index that cannot be.
    #[inline(always)]
    pub(crate) fn lend(
        self: &Rc<Self>,
        index: u16,
        len: usize,
        account: Account,
    ) -> Option<Received> {
        let buffer = self.buffer(index)?;
        self.offered.set(self.offered.get().saturating_sub(1));
        self.leased.set(self.leased.get() + 1);
        self.fill.set((self.fill.get() * 15 + len as u64) / 16);
        self.refill();
        buffer.leases.set(1);
        account.add(self.buffer_size(), self.account_limit);
        buffer.account.set(Some(account));
        let start = self.start(index);
        Some(Received::lease(Rc::clone(self), index, start, len.min(self.buffer_size())))
    }

    /// Buffer `index`, which a completion named, holds nothing. Nothing happens for an index that cannot be.
    pub(crate) fn take_back(&self, index: u16) {
        if self.buffer(index).is_none() {
            return;
        }
        self.offered.set(self.offered.get().saturating_sub(1));
        self.reserve.borrow_mut().push(index);
        self.refill();
    }

    pub(super) fn add_lease(&self, index: u16) {
        if let Some(buffer) = self.buffer(index) {
            // As `Rc`: a count that wraps would give the buffer back while somebody reads it.
            let Some(leases) = buffer.leases.get().checked_add(1) else { process::abort() };
            buffer.leases.set(leases);
        }
    }

    /// Whether whoever has a lease of buffer `index` is the only one.
    pub(super) fn has_one_lease(&self, index: u16) -> bool {
        self.buffer(index).is_some_and(|buffer| buffer.leases.get() == 1)
    }

    /// One lease of buffer `index` is gone. The last one makes the buffer free.
    pub(super) fn end_lease(&self, index: u16) {
        self.end_lease_here(index);
    }

    /// [`end_lease`](Self::end_lease), where it is called for each message.
    #[inline(always)]
    pub(super) fn end_lease_here(&self, index: u16) {
        let Some(buffer) = self.buffer(index) else { return };
        let left = buffer.leases.get() - 1;
        buffer.leases.set(left);
        if left == 0 {
            if let Some(account) = buffer.account.take() {
                account.subtract(self.buffer_size());
            }
            self.leased.set(self.leased.get() - 1);
            if self.in_use.get() {
                if self.has_window() {
                    self.offer(index);
                } else {
                    self.reserve.borrow_mut().push(index);
                }
            }
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn set_leases(&self, index: u16, count: usize) {
        if let Some(buffer) = self.buffer(index) {
            buffer.leases.set(count);
        }
    }

    fn buffer(&self, index: u16) -> Option<&Buffer> {
        self.buffers.get(usize::from(index))
    }

    /// Takes back what other threads have returned.
    pub(crate) fn collect_returned(&self) {
        self.memory.returned.collect(|index| self.end_lease(index));
    }

    pub(super) fn memory(&self) -> &Arc<GroupMemory> {
        &self.memory
    }

    /// Receives use it no more, and the kernel forgets it. Leases stay valid.
    pub(crate) fn unregister(&self, ring: Option<&Ring>) {
        let was_in_use = self.in_use.replace(false);
        if let (true, Some(ring)) = (was_in_use, ring) {
            let mut request = Registration { group: self.size.id, ..Registration::default() };
            // SAFETY: the request is a valid place, and names no memory. An error means that the kernel does not know the
            // group, which is what is wanted.
            let _ = unsafe { ring.register(ring::UNREGISTER_BUFFER_RING, &raw mut request, 1) };
        }
    }

    /// The kernel has forgotten the ring, as its own end came.
    pub(crate) fn forget(&self) {
        self.in_use.set(false);
    }

    /// Whether the kernel may have one more buffer at a time.
    fn has_window(&self) -> bool {
        let (offered, id) = (self.offered.get(), self.size.id);
        u64::from(offered + 1) * self.fill.get() <= WINDOW
            || offered < FEWEST_OFFERED && id != GROUP_FOR_STREAMS
            || id == GROUP_FOR_DATAGRAMS // A datagram that finds none takes memory of its own.
    }

    #[inline]
    fn refill(&self) {
        let has_reserve = !self.reserve.borrow().is_empty(); // While receives are small, all are offered.
        if has_reserve {
            self.offer_reserve();
        }
    }

    fn offer_reserve(&self) {
        while self.has_window() {
            let Some(index) = self.reserve.borrow_mut().pop() else { return };
            self.offer(index);
        }
    }

    #[inline]
    fn offer(&self, index: u16) {
        let tail = self.tail.get();
        let mut entry = self.entry(tail);
        // SAFETY: the mapping began as zeros, so the place holds a valid entry; the kernel does not read it before the tail
        // is moved, and nobody else has a reference.
        let entry = unsafe { entry.as_mut() };
        // Field by field: the last field of the first entry is the shared tail, which must not be overwritten.
        entry.set_addr(self.start(index).as_ptr() as u64);
        entry.set_len(self.size.buffer_size);
        entry.set_bid(index);
        self.tail.set(tail.wrapping_add(1));
        self.offered.set(self.offered.get() + 1);
        self.shared_tail().store(self.tail.get(), Ordering::Release);
    }

    fn entry(&self, place: u16) -> NonNull<BufRingEntry> {
        let base = self.ring.pointer().cast::<BufRingEntry>();
        // SAFETY: the mapping holds as many entries as the group has buffers, a power of two.
        unsafe { base.add(usize::from(place & (self.size.buffers - 1))) }
    }

    fn shared_tail(&self) -> &AtomicU16 {
        let base = self.ring.address() as *const BufRingEntry;
        // SAFETY: `base` points at the first entry of the mapping.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is an aligned u16 inside the mapping, which lives as long as `self`; it is shared with the
        // kernel and written only through this atomic.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What other threads still hold of it is nobody's debt any more.
        for buffer in &self.buffers {
            if let Some(account) = buffer.account.take() {
                account.subtract(self.buffer_size());
            }
        }
    }
}

impl GroupMemory {
    /// From any thread: a lease of buffer `index` is gone.
    pub(super) fn give_back(&self, index: u16) {
        self.returned.give_back(index);
    }
}

/// `struct io_uring_buf_reg`.
#[derive(Default)]
#[repr(C)]
struct Registration {
    address: u64,
    entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

const _: () = assert!(size_of::<Registration>() == 40);

/// Bytes that one call may fill: with what the sockets hold of it, less than a core's own cache. Measured: with 128 KiB 256
/// connections are slower, with 768 KiB 16 are.
const WINDOW: u64 = 384 * 1024;
const FEWEST_OFFERED: u32 = 8;

/// The lowest number of a group. Linux 6.1 forgets all of a group that goes, but for those with numbers below 64: the next group
/// of such a number would go on where the last one had stopped, and two receives would fill the same buffer.
pub(crate) const FIRST_GROUP: u16 = 64;
/// The number of the group for datagrams; those of the others are lower.
pub(crate) const GROUP_FOR_DATAGRAMS: u16 = MOST_GROUPS;
/// The number of the group of large buffers.
pub(crate) const GROUP_FOR_STREAMS: u16 = GROUP_FOR_DATAGRAMS - 1;
/// Bytes of a large buffer.
const LARGE: u32 = 64 * 1024;
/// With fewer of them there are none.
const FEWEST_LARGE: u64 = 16;
const BUFFERS_FOR_DATAGRAMS: u16 = 32;

#[cfg(test)]
mod tests {
    use std::thread;

    use bytes::Bytes;

    use super::*;

    /// Four buffers of eight bytes, which no kernel knows; each filled with its number and ten.
    fn group() -> Rc<Group> {
        let size = GroupSize { id: 3, buffers: 4, buffer_size: 8 };
        let group = Group::unregistered(size, None).unwrap();
        for index in 0..4 {
            let start = group.start(index).as_ptr();
            for place in 0..8 {
                // SAFETY: a buffer is eight bytes long.
                let place = unsafe { start.add(place) };
                // SAFETY: nobody else has it: it is not lent.
                unsafe { place.write(10 + index as u8) };
            }
        }
        group
    }

    #[test]
    fn a_lease_is_counted_until_its_last_part_is_gone() {
        let group = group();
        let account = Account::new();
        let lease = group.lend(3, 5, account.clone()).unwrap();
        assert_eq!(lease, [13; 5]);
        assert_eq!((group.leased(), group.free(), account.bytes()), (1, 3, 8));
        let part = lease.slice(1..3);
        let clone = part.clone();
        drop(lease);
        drop(part);
        assert_eq!((&*clone, group.leased()), (&[13; 2][..], 1));
        drop(clone);
        assert_eq!((group.leased(), account.bytes()), (0, 0));
    }

    #[test]
    fn a_lease_is_changed_in_place_only_while_nobody_else_holds_a_part_of_its_buffer() {
        let group = group();
        let mut lease = group.lend(3, 8, Account::new()).unwrap();
        lease.advance(2);
        lease.try_mut().unwrap()[0] = 1;
        assert_eq!(lease, [1, 13, 13, 13, 13, 13]);
        let mut first = lease.split_to(1);
        assert!(lease.try_mut().is_none() && first.try_mut().is_none());
        let bytes = first.into_bytes();
        assert!(lease.try_mut().is_none());
        thread::spawn(move || drop(bytes)).join().unwrap();
        assert!(lease.try_mut().is_none(), "it has not come back yet");
        group.collect_returned();
        lease.try_mut().unwrap().fill(2);
        assert_eq!(lease, [2; 5]);
        assert!(Received::from(vec![1]).try_mut().is_none());
        assert!(Received::default().try_mut().unwrap().is_empty());
        drop(lease);
        let again = group.lend(3, 8, Account::new()).unwrap();
        assert_eq!(again, [13, 13, 1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_buffer_that_cannot_be_is_neither_lent_nor_taken_back() {
        let group = group();
        for index in [4, 100, u16::MAX] {
            assert!(group.lend(index, 1, Account::new()).is_none());
            group.take_back(index);
        }
        assert_eq!((group.leased(), group.free()), (0, 4));
    }

    #[test]
    fn a_length_beyond_the_buffer_is_cut_to_it() {
        let lease = group().lend(2, 1000, Account::new()).unwrap();
        assert_eq!(lease, [12; 8]);
    }

    #[test]
    fn bytes_of_a_lease_come_back_from_another_thread_and_outlive_the_group() {
        let group = group();
        let bytes = group.lend(3, 8, Account::new()).unwrap().slice(2..).into_bytes();
        let other = group.lend(2, 8, Account::new()).unwrap().into_bytes();
        let part = thread::spawn(move || bytes.slice(1..3)).join().unwrap();
        assert_eq!((&*part, group.leased()), (&[13; 2][..], 2));
        thread::spawn(move || drop(part)).join().unwrap();
        group.collect_returned();
        assert_eq!(group.leased(), 1);
        drop(group);
        assert_eq!(other, Bytes::from_static(&[12; 8]));
    }

    #[test]
    fn what_another_thread_holds_of_a_group_that_went_is_in_no_account() {
        let account = Account::new();
        let group = group();
        let bytes = group.lend(3, 8, account.clone()).unwrap().into_bytes();
        assert_eq!(account.bytes(), 8);
        drop(group);
        assert_eq!((account.bytes(), &*bytes), (0, &[13; 8][..]));
    }

    #[test]
    fn a_lease_outlives_its_group() {
        let lease = group().lend(2, 8, Account::new()).unwrap();
        assert_eq!(lease.get(4..).unwrap(), [12; 4]);
    }

    #[test]
    fn entries_name_their_buffers_and_the_tail_is_not_overwritten() {
        let group = group();
        group.in_use.set(true);
        for round in 0..10_u16 {
            let index = round % 4;
            drop(group.lend(index, 1, Account::new()));
            let tail = group.shared_tail().load(Ordering::Acquire);
            assert_eq!(tail, 4 + round + 1);
            let entries = group.ring.pointer().cast::<BufRingEntry>();
            // SAFETY: the place is inside the ring.
            let entry = unsafe { entries.add(usize::from((tail - 1) % 4)) };
            // SAFETY: it holds an entry, which no kernel reads.
            let entry = unsafe { entry.as_ref() };
            assert_eq!((entry.bid(), entry.len()), (index, 8));
            assert_eq!(entry.addr(), group.start(index).as_ptr() as u64);
        }
        group.in_use.set(false);
    }

    #[test]
    fn where_no_kernel_picks_buffers_the_one_that_became_free_last_is_filled_next() {
        let group = group();
        group.in_use.set(true);
        let take = || {
            let (index, _) = group.next_offered()?;
            group.take_offered();
            Some((index, group.lend(index, 1, Account::new())?))
        };
        let mut taken: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!((taken.len(), group.to_be_filled(), group.free()), (4, 0, 0));
        let (earlier, later) = (taken.remove(2), taken.remove(0));
        let freed = [earlier.0, later.0];
        drop(earlier);
        drop(later);
        assert_eq!(group.to_be_filled(), 2);
        let again: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!([again[1].0, again[0].0], freed);
        drop((taken, again));
        assert_eq!((group.to_be_filled(), group.leased()), (4, 0));
        group.in_use.set(false);
    }

    /// The kernel's part: takes the buffers in the order in which they were offered.
    struct Kernel {
        group: Rc<Group>,
        head: u16,
    }

    impl Kernel {
        fn new(buffers: u16, buffer_size: u32) -> Self {
            let size = GroupSize { id: 3, buffers, buffer_size };
            let group = Group::unregistered(size, None).unwrap();
            group.in_use.set(true);
            Self { group, head: 0 }
        }

        fn has_some(&self) -> bool {
            self.group.shared_tail().load(Ordering::Acquire) != self.head
        }

        /// `None` if none is offered.
        fn take(&mut self) -> Option<u16> {
            if !self.has_some() {
                return None;
            }
            let place = usize::from(self.head & (self.group.size.buffers - 1));
            let entries = self.group.ring.pointer().cast::<BufRingEntry>();
            // SAFETY: the place is inside the ring.
            let entry = unsafe { entries.add(place) };
            self.head = self.head.wrapping_add(1);
            // SAFETY: it holds an entry, which nobody writes now.
            Some(unsafe { entry.as_ref() }.bid())
        }

        fn fill(&mut self, len: usize) -> Option<(u16, Received)> {
            let index = self.take()?;
            Some((index, self.group.lend(index, len, Account::new()).unwrap()))
        }

        /// Takes all that there are, one after the other, full.
        fn fill_all(&mut self) -> Vec<(u16, Received)> {
            std::iter::from_fn(|| self.fill(self.group.buffer_size())).collect()
        }
    }

    #[test]
    fn what_was_free_last_is_offered_first() {
        let mut kernel = Kernel::new(32, LARGE);
        let mut held = kernel.fill_all();
        // From then on a receive brings as much as a buffer holds.
        for _ in 0..10 {
            held.clear();
            held = kernel.fill_all();
        }
        assert_eq!((held.len(), kernel.group.free(), kernel.group.leased()), (32, 0, 32));
        let order: Vec<_> = (0..32).map(|place| held[place * 11 % 32].0).collect();
        for &free in &order {
            held.retain(|&(index, _)| index != free);
        }
        assert_eq!((kernel.group.free(), kernel.group.offered()), (32, FEWEST_OFFERED));
        let next: Vec<_> = kernel.fill_all().into_iter().map(|(index, _)| index).collect();
        let (first, rest) = order.split_at(FEWEST_OFFERED as usize);
        let expected: Vec<_> = first.iter().chain(rest.iter().rev()).copied().collect();
        assert_eq!(next, expected);
    }

    #[test]
    fn every_buffer_is_lent_offered_or_in_reserve_whatever_comes() {
        for (buffers, buffer_size) in [(1, LARGE), (4, 8), (8, LARGE), (64, LARGE), (256, 16384)] {
            let mut kernel = Kernel::new(buffers, buffer_size);
            let mut held = Vec::new();
            // Any numbers will do.
            let mut number = 1_u32;
            for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let choice = (number >> 16) as usize;
                match choice % 5 {
                    0 | 1 => {
                        let len = if number >> 31 == 0 { 1 } else { buffer_size as usize };
                        held.extend(kernel.fill(len));
                    }
                    2 if kernel.has_some() => {
                        let index = kernel.take().unwrap();
                        kernel.group.take_back(index);
                    }
                    _ if !held.is_empty() => drop(held.swap_remove(choice % held.len())),
                    _ => {}
                }
                let mut indices: Vec<_> = held.iter().map(|&(index, _)| index).collect();
                indices.sort_unstable();
                indices.dedup();
                let group = &kernel.group;
                assert_eq!(indices.len(), held.len(), "no two have one buffer");
                assert_eq!(group.leased() as usize, held.len());
                assert_eq!(group.free() + group.leased(), u32::from(buffers));
                assert!(kernel.has_some() || group.free() == 0, "what is free is offered");
                let tail = group.shared_tail().load(Ordering::Acquire);
                assert_eq!(u32::from(tail.wrapping_sub(kernel.head)), group.offered());
            }
        }
    }

    #[test]
    fn a_buffer_that_was_used_up_for_nothing_is_free_again() {
        let mut kernel = Kernel::new(4, 8);
        for _ in 0..100 {
            let index = kernel.take().unwrap();
            kernel.group.take_back(index);
            assert_eq!((kernel.group.free(), kernel.group.offered()), (4, 4));
        }
        assert_eq!(kernel.fill_all().len(), 4);
    }
}
