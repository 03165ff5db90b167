//! The ring itself: two queues shared with the kernel, and the calls that move them.
//!
//! | memory | written by | read by |
//! | --- | --- | --- |
//! | submission entries and their tail | this thread | the kernel, inside `io_uring_enter` |
//! | submission head, flags | the kernel | this thread |
//! | completion entries and their tail | the kernel | this thread, up to the tail |
//! | completion head | this thread | the kernel, which overwrites nothing behind it |
//!
//! The io-uring crate builds the requests; the queues are our own, as it can neither grow them nor say where they are.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::Entry as Request;

use crate::entry::Entry;
use crate::fork::{self, Inherited};
use crate::generation;
use crate::refusal::{MMAP, Refusal};
use crate::sys::Mapping;

/// A ring, bound to the thread that made it.
#[derive(Debug)]
pub(crate) struct Ring {
    // Before the descriptor and the memory that they name.
    inherited: Vec<Inherited>,
    fd: OwnedFd,
    queues: Queues,
    /// Of larger ones, which the kernel uses by now and which are not mapped yet. Until then nothing can be queued.
    unmapped: Option<Parameters>,
    generation: u64,
    setup_flags: u32,
    features: u32,
}

/// Both queues, and where they are.
struct Queues {
    submission_head: Word,
    submission_tail_shared: Word,
    submission_flags: Word,
    /// Ours; the kernel is shown it in `enter()`.
    submission_tail: u32,
    submission_mask: u32,
    submission_entries: NonNull<Request>,

    completion_head_shared: Word,
    completion_tail_shared: Word,
    completion_lost: Word,
    completion_head: u32,
    /// As last seen.
    completion_tail: u32,
    completion_mask: u32,
    completion_entries: NonNull<Entry>,

    /// Of everything else than the submission entries.
    words: Mapping,
    entries: Mapping,
}

/// How long `enter()` may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    None,
    After(Duration),
    /// On the monotonic clock; needs `IORING_ENTER_ABS_TIMER`.
    At(Duration),
}

/// A send of one piece to a socket.
pub(crate) struct SendRequest {
    pub(crate) fd: i32,
    pub(crate) start: *const u8,
    pub(crate) len: u32,
    /// `MSG_*`.
    pub(crate) flags: i32,
    pub(crate) user_data: u64,
}

/// `struct io_uring_sqe`, as far as a send needs it.
#[derive(Default)]
#[repr(C)]
struct RawRequest {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    len: u32,
    call_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

const _: () = assert!(size_of::<RawRequest>() == size_of::<Request>());
const _: () = assert!(align_of::<RawRequest>() <= align_of::<Request>());

/// A word of the queues' memory.
///
/// Made only in `Queues::map()`, from an offset inside the mapping, and dropped with it.
struct Word(NonNull<AtomicU32>);

impl Deref for Word {
    type Target = AtomicU32;

    #[inline]
    fn deref(&self) -> &AtomicU32 {
        // SAFETY: it points at an aligned word inside a mapping of the queues, which live as long as each other; it is shared with the kernel and accessed only as an atomic.
        unsafe { self.0.as_ref() }
    }
}

impl Ring {
    /// # Errors
    ///
    /// As `io_uring_setup(2)`, and as `mmap(2)`.
    pub(crate) fn new(submission: u32, completion: u32, flags: u32) -> Result<Self, Refusal> {
        let mut parameters = Parameters {
            flags: flags | SETUP_CQSIZE,
            completion_entries: completion.max(submission).max(1),
            ..Parameters::default()
        };
        // SAFETY: the parameters are a valid place of the layout that the call expects.
        let fd = unsafe {
            libc::syscall(libc::SYS_io_uring_setup, submission.max(1), &raw mut parameters)
        };
        if fd < 0 {
            return Err(Refusal::of("io_uring_setup")(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        if parameters.features & NEEDED != NEEDED {
            return Err(Refusal::of("io_uring_setup")(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let queues = Queues::map(fd.as_fd(), &parameters).map_err(Refusal::of(MMAP))?;
        Ok(Self {
            inherited: Vec::new(),
            queues,
            unmapped: None,
            fd,
            generation: generation::current(),
            setup_flags: parameters.flags,
            features: parameters.features,
        })
    }

    /// From now on a forked child has something harmless in the ring's place: `instead`, and zeros.
    pub(crate) fn guard_fork(&mut self, instead: BorrowedFd<'_>) {
        self.inherited = vec![
            Inherited::number(self.fd.as_raw_fd(), instead.as_raw_fd()),
            Inherited::memory(&self.queues.words),
            Inherited::memory(&self.queues.entries),
        ];
    }

    /// `IORING_FEAT_*`.
    pub(crate) fn features(&self) -> u32 {
        self.features
    }

    pub(crate) fn submission_entries(&self) -> u32 {
        self.queues.submission_mask + 1
    }

    pub(crate) fn completion_entries(&self) -> u32 {
        self.queues.completion_mask + 1
    }

    /// Whether this process has made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == generation::current()
    }

    /// Queues a request, if there is room.
    ///
    /// # Safety
    ///
    /// What the request names stays valid until its last completion.
    #[inline]
    pub(crate) unsafe fn push(&mut self, request: &Request) -> bool {
        if !self.has_room() {
            return false;
        }
        let place = (self.queues.submission_tail & self.queues.submission_mask) as usize;
        // SAFETY: the mask keeps the place inside the entries.
        let place = unsafe { self.queues.submission_entries.add(place) };
        // SAFETY: the kernel has taken what was there, as there is room, and does not look before the tail says so.
        unsafe { place.write(request.clone()) };
        self.queues.submission_tail = self.queues.submission_tail.wrapping_add(1);
        true
    }

    /// Whether another request can be queued.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.queued() <= self.queues.submission_mask && self.unmapped.is_none()
    }

    /// Queues a send of one piece to a socket: as [`push`](Self::push), but what is asked for is written where the kernel reads
    /// it, and nowhere before.
    ///
    /// # Safety
    ///
    /// There is [room](Self::has_room). The bytes stay where they are, and unchanged, until the last completion.
    #[inline(always)]
    pub(crate) unsafe fn push_send(&mut self, request: SendRequest) {
        let place = (self.queues.submission_tail & self.queues.submission_mask) as usize;
        // SAFETY: the mask keeps the place inside the entries.
        let place = unsafe { self.queues.submission_entries.add(place) };
        let SendRequest { fd, start, len, flags, user_data } = request;
        let request = RawRequest {
            opcode: opcode::Send::CODE,
            fd,
            address: start as u64,
            len,
            call_flags: flags as u32,
            user_data,
            ..RawRequest::default()
        };
        // SAFETY: the kernel has taken what was there, as there is room, and does not look before the tail says so. Both types
        // are the kernel's 64 bytes, all of them numbers.
        unsafe { place.cast::<RawRequest>().write(request) };
        self.queues.submission_tail = self.queues.submission_tail.wrapping_add(1);
    }

    /// Requests that the kernel has not taken yet.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.queues
            .submission_tail
            .wrapping_sub(self.queues.submission_head.load(Ordering::Acquire))
    }

    /// Whether completions wait in the kernel, as there was no room for them.
    pub(crate) fn is_overflown(&self) -> bool {
        self.queues.submission_flags.load(Ordering::Acquire) & FLAG_CQ_OVERFLOW != 0
    }

    /// Whether the kernel has deferred work, which the next `enter()` for completions does; or has to be asked.
    #[inline]
    pub(crate) fn has_task_work(&self) -> bool {
        let flags = self.queues.submission_flags.load(Ordering::Relaxed);
        flags & FLAG_TASKRUN != 0 || self.unmapped.is_some()
    }

    /// Completions that the kernel had no memory for: none, unless the ring is broken.
    pub(crate) fn lost(&self) -> u32 {
        self.queues.completion_lost.load(Ordering::Relaxed)
    }

    /// Takes the next completion.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Entry> {
        if !self.has_completions() {
            return None;
        }
        let place = (self.queues.completion_head & self.queues.completion_mask) as usize;
        // SAFETY: the mask keeps the place inside the entries.
        let place = unsafe { self.queues.completion_entries.add(place) };
        // SAFETY: the kernel has written it, as the tail says, and does not write to it again before the head is moved.
        let entry = unsafe { place.as_ref() };
        // By its fields, so that it stays in registers.
        let Entry { user_data, result, flags } = *entry;
        self.queues.completion_head = self.queues.completion_head.wrapping_add(1);
        self.queues.completion_head_shared.store(self.queues.completion_head, Ordering::Release);
        Some(Entry { user_data, result, flags })
    }

    #[inline]
    pub(crate) fn has_completions(&mut self) -> bool {
        if self.queues.completion_head == self.queues.completion_tail {
            self.queues.completion_tail =
                self.queues.completion_tail_shared.load(Ordering::Acquire);
            if self.queues.completion_head == self.queues.completion_tail {
                return false;
            }
            if !self.is_ours() {
                // What is seen is no tail of the kernel's.
                self.queues.completion_tail = self.queues.completion_head;
                return false;
            }
        }
        true
    }

    /// One `io_uring_enter`: gives the kernel what is queued, and waits for `want` completions. Gives how many requests the
    /// kernel took.
    pub(crate) fn enter(&mut self, want: u32, flags: u32, limit: Limit) -> io::Result<u32> {
        if !self.is_ours() {
            return Err(fork::refusal());
        }
        self.map_again()?;
        self.show_submissions();
        let (flags, time) = match limit {
            Limit::None => return self.enter_raw(want, flags, ptr::null(), 0),
            Limit::After(time) => (flags | ENTER_EXT_ARG, time),
            Limit::At(time) => (flags | ENTER_EXT_ARG | ENTER_ABS_TIMER, time),
        };
        let time = Timespec {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(time.subsec_nanos()),
        };
        let argument = EnterArgument { time: &raw const time, ..EnterArgument::default() };
        self.enter_raw(want, flags, (&raw const argument).cast(), size_of::<EnterArgument>())
    }

    /// `argument` is null, or an `EnterArgument` that outlives the call.
    fn enter_raw(
        &self,
        want: u32,
        flags: u32,
        argument: *const libc::c_void,
        len: usize,
    ) -> io::Result<u32> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: `push()` was promised that what the queued requests name is valid; the argument is as the flags say.
        let taken = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, self.queued(), want, flags, argument, len)
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as u32) }
    }

    /// One `io_uring_register`.
    ///
    /// # Safety
    ///
    /// `argument` is what `operation` expects, and so is the life of what it names.
    pub(crate) unsafe fn register<T>(
        &self,
        operation: u32,
        argument: *mut T,
        count: u32,
    ) -> io::Result<u32> {
        if !self.is_ours() {
            return Err(fork::refusal());
        }
        let fd = self.fd.as_raw_fd();
        // SAFETY: as the caller promises.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, fd, operation, argument, count) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
    }

    /// Bounds the threads that the kernel makes for what it cannot do without blocking.
    pub(crate) fn limit_workers(&self) {
        let mut most = WORKERS;
        // SAFETY: the call reads and writes two numbers. An error leaves the kernel's own bounds.
        let _ = unsafe { self.register(REGISTER_IOWQ_MAX_WORKERS, most.as_mut_ptr(), 2) };
    }

    /// Whether the kernel knows how to grow a ring: then it complains about the address, else about the call.
    pub(crate) fn can_grow(&self) -> bool {
        let nowhere = ptr::without_provenance_mut::<Parameters>(1);
        // SAFETY: the kernel refuses an address in the first page, which no process has; that is what is asked for.
        let asked = unsafe { self.register(REGISTER_RESIZE_RINGS, nowhere, 1) };
        asked.is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
    }

    /// Makes the completion queue larger; what is in both queues stays there. Where the kernel cannot, or there is no memory
    /// for it now, the ring is as before.
    pub(crate) fn grow(&mut self, completion: u32) {
        // The kernel maps a ring only where it likes to, so this is let go before, and another thread may be quicker.
        let Ok(room) = self.queues.reserve_larger(completion) else { return };
        if self.resize(completion).is_ok() {
            drop(room);
            // If it fails, each call tries again, and is refused until there is memory.
            let _ = self.map_again();
        }
    }

    /// The kernel's part of [`grow`](Self::grow).
    fn resize(&mut self, completion: u32) -> io::Result<()> {
        self.map_again()?;
        self.show_submissions();
        let mut parameters = Parameters {
            submission_entries: self.submission_entries(),
            completion_entries: completion,
            flags: SETUP_CQSIZE | SETUP_CLAMP,
            ..Parameters::default()
        };
        // SAFETY: the parameters are a valid place of the layout that the call expects.
        unsafe { self.register(REGISTER_RESIZE_RINGS, &raw mut parameters, 1)? };
        parameters.flags = self.setup_flags;
        self.unmapped = Some(parameters);
        Ok(())
    }

    /// Maps the queues that the kernel uses, if it uses others.
    #[inline]
    fn map_again(&mut self) -> io::Result<()> {
        if self.unmapped.is_some() { self.map_others() } else { Ok(()) }
    }

    #[cold]
    fn map_others(&mut self) -> io::Result<()> {
        let Some(parameters) = &self.unmapped else { return Ok(()) };
        let mut queues = Queues::map(self.fd.as_fd(), parameters)?;
        // The kernel has copied what was there, and numbers it as before. Some may have been taken since.
        queues.completion_head = self.queues.completion_head;
        queues.completion_tail = self.queues.completion_head;
        queues.completion_head_shared.store(queues.completion_head, Ordering::Release);
        self.queues = queues;
        self.unmapped = None;
        if !self.inherited.is_empty() {
            self.inherited.truncate(1);
            self.inherited.push(Inherited::memory(&self.queues.words));
            self.inherited.push(Inherited::memory(&self.queues.entries));
        }
        Ok(())
    }

    fn show_submissions(&self) {
        let tail = self.queues.submission_tail;
        self.queues.submission_tail_shared.store(tail, Ordering::Release);
    }
}

impl Queues {
    /// As much memory as the same queues need with a larger completion queue.
    fn reserve_larger(&self, completion: u32) -> io::Result<[Mapping; 2]> {
        let more = completion.saturating_sub(self.completion_mask + 1) as usize;
        let words = Mapping::new(self.words.len() + more * size_of::<Entry>())?;
        Ok([words, Mapping::new(self.entries.len())?])
    }

    /// Maps the queues as the parameters, which the kernel has filled in, describe them.
    fn map(fd: BorrowedFd<'_>, parameters: &Parameters) -> io::Result<Self> {
        let Parameters { submission_offsets, completion_offsets, .. } = parameters;
        let has_array = parameters.flags & SETUP_NO_SQARRAY == 0;
        let array_end = if has_array {
            submission_offsets.array as usize + parameters.submission_entries as usize * 4
        } else {
            0
        };
        let completions_end = completion_offsets.cqes as usize
            + parameters.completion_entries as usize * size_of::<Entry>();
        let words = Mapping::of_ring(fd, array_end.max(completions_end), OFFSET_RINGS)?;
        let len = parameters.submission_entries as usize * size_of::<Request>();
        let entries = Mapping::of_ring(fd, len, OFFSET_ENTRIES)?;
        let word = |offset: u32| {
            // SAFETY: the kernel gives offsets inside the memory that it shares.
            Word(unsafe { words.pointer().add(offset as usize) }.cast())
        };
        if has_array {
            for index in 0..parameters.submission_entries {
                word(submission_offsets.array + index * 4).store(index, Ordering::Relaxed);
            }
        }
        let submission_tail_shared = word(submission_offsets.tail);
        let completion_head_shared = word(completion_offsets.head);
        // SAFETY: as above; the entries begin at this offset.
        let completion_entries = unsafe { words.pointer().add(completion_offsets.cqes as usize) };
        Ok(Self {
            submission_head: word(submission_offsets.head),
            submission_tail: submission_tail_shared.load(Ordering::Relaxed),
            submission_tail_shared,
            submission_flags: word(submission_offsets.flags),
            submission_mask: parameters.submission_entries - 1,
            submission_entries: entries.pointer().cast(),
            completion_head: completion_head_shared.load(Ordering::Relaxed),
            completion_tail: completion_head_shared.load(Ordering::Relaxed),
            completion_head_shared,
            completion_tail_shared: word(completion_offsets.tail),
            completion_lost: word(completion_offsets.overflow),
            completion_mask: parameters.completion_entries - 1,
            completion_entries: completion_entries.cast(),
            words,
            entries,
        })
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queues({}, {})", self.submission_mask + 1, self.completion_mask + 1)
    }
}

/// `struct io_uring_params`.
#[derive(Debug, Default)]
#[repr(C)]
struct Parameters {
    submission_entries: u32,
    completion_entries: u32,
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    workers_fd: u32,
    reserved: [u32; 3],
    submission_offsets: SubmissionOffsets,
    completion_offsets: CompletionOffsets,
}

/// `struct io_sqring_offsets`.
#[derive(Debug, Default)]
#[repr(C)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_address: u64,
}

/// `struct io_cqring_offsets`.
#[derive(Debug, Default)]
#[repr(C)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    user_address: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EnterArgument {
    signals: u64,
    signals_len: u32,
    min_wait: u32,
    time: *const Timespec,
}

impl Default for EnterArgument {
    fn default() -> Self {
        Self { signals: 0, signals_len: 0, min_wait: 0, time: ptr::null() }
    }
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const _: () = {
    assert!(size_of::<Request>() == 64);
    assert!(size_of::<Entry>() == 16);
    assert!(size_of::<Parameters>() == 120);
    assert!(size_of::<EnterArgument>() == 24);
};

/// For files on disks, and for the rest.
const WORKERS: [u32; 2] = [4, 16];

const OFFSET_RINGS: i64 = 0;
const OFFSET_ENTRIES: i64 = 0x1000_0000;

const SETUP_CQSIZE: u32 = 1 << 3;
pub(crate) const SETUP_CLAMP: u32 = 1 << 4;
pub(crate) const SETUP_SUBMIT_ALL: u32 = 1 << 7;
pub(crate) const SETUP_TASKRUN_FLAG: u32 = 1 << 9;
pub(crate) const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
pub(crate) const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
pub(crate) const SETUP_NO_SQARRAY: u32 = 1 << 16;

/// One mapping for both queues, no completion dropped, arguments of the request copied at submission, `EXT_ARG`.
const NEEDED: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 8;
pub(crate) const FEATURE_NO_IOWAIT: u32 = 1 << 17;

const FLAG_CQ_OVERFLOW: u32 = 1 << 1;
const FLAG_TASKRUN: u32 = 1 << 2;

pub(crate) const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_ABS_TIMER: u32 = 1 << 5;
pub(crate) const ENTER_NO_IOWAIT: u32 = 1 << 7;

pub(crate) const UNREGISTER_FILES: u32 = 3;
pub(crate) const REGISTER_FILES_UPDATE: u32 = 6;
pub(crate) const REGISTER_FILES2: u32 = 13;
const REGISTER_IOWQ_MAX_WORKERS: u32 = 19;
pub(crate) const REGISTER_BUFFER_RING: u32 = 22;
pub(crate) const UNREGISTER_BUFFER_RING: u32 = 23;
const REGISTER_RESIZE_RINGS: u32 = 33;

#[cfg(test)]
mod tests {
    use io_uring::opcode;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "needs a ring")]
    fn a_ring_that_has_grown_and_is_not_mapped_yet_loses_nothing() {
        let flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN | SETUP_NO_SQARRAY;
        let Ok(mut ring) = Ring::new(4, 4, flags) else { return };
        let nop = |number| opcode::Nop::new().build().user_data(number);
        let push = |ring: &mut Ring, number| {
            // SAFETY: the request names no memory.
            unsafe { ring.push(&nop(number)) }
        };
        assert!((0..4).all(|number| push(&mut ring, number)));
        assert_eq!(ring.enter(4, ENTER_GETEVENTS, Limit::None).unwrap(), 4);
        assert_eq!(ring.next().unwrap().user_data, 0);
        assert!(push(&mut ring, 4), "it is in the queue while that grows");
        if ring.resize(8).is_err() {
            return; // The kernel is older (6.13).
        }
        assert!(!push(&mut ring, 9), "nothing gets into a queue that nobody reads any more");
        assert!(ring.has_task_work(), "so that it is entered");
        assert_eq!(ring.next().unwrap().user_data, 1);
        assert_eq!(ring.completion_entries(), 4);
        assert_eq!(ring.enter(3, ENTER_GETEVENTS, Limit::None).unwrap(), 1);
        assert_eq!(ring.completion_entries(), 8);
        assert!(push(&mut ring, 5));
        assert_eq!(ring.enter(4, ENTER_GETEVENTS, Limit::None).unwrap(), 1);
        let rest: Vec<_> =
            std::iter::from_fn(|| ring.next()).take(9).map(|entry| entry.user_data).collect();
        assert_eq!(rest, [2, 3, 4, 5]);
    }
}
