//! The only unsafe code of the benchmarks: a small ring, epoll, and what std lacks of the system.
//!
//! [`Ring`] is what a server or a load generator needs and nothing else, so that it shows the limit:
//! multishot accept, multishot receive into one group of provided buffers, gathered sends, one
//! system call per iteration. It stays sound whatever safe code does with it, because all memory
//! that the kernel is told about belongs to the ring: buffers and source are freed only after the
//! last completion, and a buffer can be read only while the kernel does not hold it.

use std::alloc::{self, Layout};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// An io_uring that owns the memory it works on.
pub struct Ring {
    uring: IoUring,
    /// `None` only while the ring is dropped.
    memory: Option<Memory>,
    in_flight: usize,
    calls: Calls,
}

/// A received piece of a stream, in a buffer that the kernel has lent to its holder.
///
/// It goes back by [`Ring::give_back`]; one that is forgotten leaves the group smaller.
#[derive(Debug)]
pub struct Chunk {
    buffer: u16,
    start: u32,
    end: u32,
}

/// What the kernel reports, and of which connection.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Completion {
    /// A connection came in; `more` says whether others may.
    Accepted { socket: OwnedFd, more: bool },
    /// No more connections come in.
    AcceptEnded(io::Error),
    /// Bytes came in; `more` says whether the receive is still armed.
    Received { connection: u32, chunk: Chunk, more: bool },
    /// The receive ended without bytes: at the end of the stream, or by an error.
    ReceiveEnded { connection: u32, result: io::Result<()> },
    /// A send ended.
    Sent { connection: u32, result: io::Result<u32> },
    /// A watched descriptor is readable or writable; `more` says whether it is still watched.
    Ready { connection: u32, more: bool },
}

/// What the ring has asked of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Operations submitted.
    pub sqes: u64,
    /// Completions read.
    pub cqes: u64,
}

/// How long [`Ring::enter`] sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// Completions to sleep for.
    pub completions: usize,
    /// How long to insist on that number; then one is enough.
    pub patience: Option<Duration>,
    /// How long to sleep at most.
    pub limit: Option<Duration>,
}

/// How many buffers receives find at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// All that are free, and there is one for each of so many connections: for who does not look
    /// at them. A receive that finds none has to be asked for again, and with 10,000 connections
    /// and 256 buffers nearly all were.
    All {
        /// How many receives are armed at a time.
        connections: usize,
    },
    /// As many as one call may fill and the next may send from the cache.
    Window,
}

/// How a descriptor is to become ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
}

impl Ring {
    /// A ring with `source` as the bytes that [`Ring::send_source`] sends. Large receives find all
    /// buffers of the group, or only as many as the cache holds.
    pub fn new(source: Box<[u8]>, offer: Offer) -> io::Result<Self> {
        let buffers = match offer {
            Offer::Window => BUFFERS,
            Offer::All { connections } => {
                connections.next_power_of_two().clamp(usize::from(BUFFERS), MOST_BUFFERS) as u16
            }
        };
        let uring = build(CQ_ENTRIES.max(2 * u32::from(buffers)))?;
        let memory = Memory::new(source, offer, buffers);
        // SAFETY: the entries are page-aligned, as many as said, and live until the ring is closed.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                memory.pool.entries.as_ptr() as u64,
                buffers,
                GROUP,
                0,
            )
        }?;
        Ok(Self { uring, memory: Some(memory), in_flight: 0, calls: Calls::default() })
    }

    /// What has been asked so far.
    pub fn calls(&self) -> Calls {
        self.calls
    }

    /// Accepts connections until it fails.
    pub fn accept(&mut self, listener: &impl AsRawFd) {
        let flags = libc::SOCK_CLOEXEC;
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build();
        self.push(entry, Kind::Accept, 0);
    }

    /// Receives into the group's buffers until the stream ends or no buffer is left.
    pub fn receive(&mut self, connection: u32, socket: &impl AsRawFd) {
        self.receive_with(connection, socket, 0);
    }

    /// As [`Ring::receive`], but the bytes are thrown away instead of copied into the buffers.
    pub fn receive_nothing(&mut self, connection: u32, socket: &impl AsRawFd) {
        self.receive_with(connection, socket, libc::MSG_TRUNC);
    }

    /// As [`Ring::receive`], but once: up to one buffer of bytes.
    pub fn receive_once(&mut self, connection: u32, socket: &impl AsRawFd) {
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), ptr::null_mut(), 0);
        let entry = entry.buf_group(GROUP).build().flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, Kind::Receive, connection);
    }

    fn receive_with(&mut self, connection: u32, socket: &impl AsRawFd, flags: i32) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).flags(flags).build();
        self.push(entry, Kind::Receive, connection);
    }

    /// Sends the chunks in one go. They are to be kept until it is done.
    pub fn send<'a>(
        &mut self,
        connection: u32,
        socket: &impl AsRawFd,
        chunks: impl ExactSizeIterator<Item = &'a Chunk>,
    ) {
        if self.memory().headers_used == HEADERS
            || self.memory().vectors_used + chunks.len() > VECTORS
        {
            self.submit();
        }
        let descriptor = Fd(socket.as_raw_fd());
        let memory = self.memory_mut();
        let entry = match memory.gather(chunks) {
            Gathered::One(bytes) => opcode::Send::new(descriptor, bytes.as_ptr(), length(bytes))
                .flags(libc::MSG_NOSIGNAL)
                .build(),
            Gathered::Many(header) => {
                opcode::SendMsg::new(descriptor, header).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        self.push(entry, Kind::Send, connection);
    }

    /// Sends a part of the source.
    ///
    /// # Panics
    ///
    /// If the source is shorter than that.
    pub fn send_source(
        &mut self,
        connection: u32,
        socket: &impl AsRawFd,
        start: usize,
        len: usize,
    ) {
        let bytes = &self.source()[start..start + len];
        let entry =
            opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), length(bytes)).build();
        self.push(entry, Kind::Send, connection);
    }

    /// Waits until the descriptor is ready, once.
    pub fn poll(&mut self, connection: u32, descriptor: &impl AsRawFd, interest: Interest) {
        let events = match interest {
            Interest::Read => libc::POLLIN,
            Interest::Write => libc::POLLOUT,
        };
        let entry = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), events as u32).build();
        self.push(entry, Kind::Poll, connection);
    }

    /// Tells each time that something comes to be read, until [`Ring::cancel_poll`].
    pub fn poll_many(&mut self, connection: u32, descriptor: &impl AsRawFd) {
        let entry = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), libc::POLLIN as u32);
        self.push(entry.multi(true).build(), Kind::Poll, connection);
    }

    /// Ends the connection's poll; a last [`Completion::Ready`] comes.
    pub fn cancel_poll(&mut self, connection: u32) {
        let entry = opcode::AsyncCancel::new(tag(Kind::Poll, connection)).build();
        self.push(entry, Kind::Cancel, connection);
    }

    /// Submits what is queued and sleeps, in one system call.
    pub fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        self.calls.enters += 1;
        let submitter = self.uring.submitter();
        let result = if sleep.patience.is_none() && sleep.limit.is_none() {
            submitter.submit_and_wait(sleep.completions)
        } else {
            let limit = sleep.limit.map(Timespec::from);
            let mut args = SubmitArgs::new();
            if let Some(limit) = &limit {
                args = args.timespec(limit);
            }
            if let Some(patience) = sleep.patience.filter(|_| sleep.completions > 1) {
                args = args.min_wait_usec(patience.as_micros() as u32);
            }
            submitter.submit_with_args(sleep.completions, &args)
        };
        self.reuse_vectors();
        match result {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends the completions that are there.
    pub fn reap(&mut self, completions: &mut Vec<Completion>) {
        let pool = &mut self.memory.as_mut().expect("taken only by drop").pool;
        for cqe in self.uring.completion() {
            self.calls.cqes += 1;
            if !cqueue::more(cqe.flags()) {
                self.in_flight -= 1;
            }
            completions.extend(decode(&cqe, pool));
        }
    }

    /// The chunk's bytes.
    ///
    /// # Panics
    ///
    /// If the chunk is another ring's and the kernel holds that buffer here.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.memory().pool.bytes(chunk)
    }

    /// Gives the chunk's buffer back to the kernel.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.memory_mut().pool.give_back(chunk.buffer);
    }

    /// How many buffers receives may fill.
    pub fn offered(&self) -> u16 {
        self.memory().pool.offered
    }

    /// The bytes that [`Ring::send_source`] sends.
    pub fn source(&self) -> &[u8] {
        &self.memory().source
    }

    fn push(&mut self, entry: squeue::Entry, kind: Kind, connection: u32) {
        let entry = entry.user_data(tag(kind, connection));
        if self.uring.submission().is_full() {
            self.submit();
        }
        // SAFETY: what the entry points to is owned by the ring until its last completion
        // (buffers, source) or until it is submitted (headers and vectors).
        unsafe { self.uring.submission().push(&entry) }.expect("the queue was submitted");
        self.in_flight += 1;
        self.calls.sqes += 1;
    }

    /// Makes room in the submission queue.
    fn submit(&mut self) {
        while !self.uring.submission().is_empty() {
            self.calls.enters += 1;
            match self.uring.submit() {
                Err(error) if !is_passing(&error) => panic!("io_uring_enter: {error}"),
                _ => {}
            }
        }
        self.reuse_vectors();
    }

    /// The kernel has copied headers and vectors when it has taken the entries.
    fn reuse_vectors(&mut self) {
        if self.uring.submission().is_empty() {
            let memory = self.memory_mut();
            memory.headers_used = 0;
            memory.vectors_used = 0;
        }
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("taken only by drop")
    }

    fn memory_mut(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("taken only by drop")
    }

    /// Cancels everything; true if the kernel holds no memory of ours any more.
    fn drain(&mut self) -> bool {
        if self.in_flight > 0 {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(entry, Kind::Cancel, 0);
        }
        let sleep =
            Sleep { completions: 1, patience: None, limit: Some(Duration::from_millis(100)) };
        let mut left = Vec::new();
        for _ in 0..DRAIN_ENTERS {
            if self.in_flight == 0 {
                return true;
            }
            if self.enter(sleep).is_err() {
                return false;
            }
            self.reap(&mut left);
            left.clear();
        }
        self.in_flight == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let drained = self.drain();
        let memory = self.memory.take();
        if drained && self.uring.submitter().unregister_buf_ring(GROUP).is_ok() {
            drop(memory);
        } else {
            // Better lost than freed under the kernel's hands.
            Box::leak(Box::new(memory));
        }
    }
}

impl Chunk {
    /// How many bytes are left in it.
    #[expect(clippy::len_without_is_empty, reason = "an empty one is given back at once")]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len());
        self.start += count as u32;
    }
}

impl Sleep {
    /// Until something has completed.
    pub fn until_one() -> Self {
        Self { completions: 1, patience: None, limit: None }
    }

    /// Not at all.
    pub fn never() -> Self {
        Self { completions: 0, patience: None, limit: None }
    }
}

/// A level-triggered epoll instance.
pub struct Epoll {
    descriptor: OwnedFd,
    events: Box<[libc::epoll_event]>,
}

impl Epoll {
    /// An instance that reports up to `most` events per wait.
    pub fn new(most: usize) -> io::Result<Self> {
        // SAFETY: no pointers are involved.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: it was just made, so nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; most].into();
        Ok(Self { descriptor, events })
    }

    /// Watches a descriptor, under a key.
    pub fn add(&self, descriptor: &impl AsRawFd, key: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, key, interest)
    }

    /// Watches a descriptor for something else.
    pub fn modify(
        &self,
        descriptor: &impl AsRawFd,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, key, interest)
    }

    /// Waits for events; their keys are then had by [`Epoll::key`].
    pub fn wait(&mut self) -> io::Result<usize> {
        let most = self.events.len() as i32;
        // SAFETY: there is room for as many events as said.
        let count = unsafe {
            libc::epoll_wait(self.descriptor.as_raw_fd(), self.events.as_mut_ptr(), most, -1)
        };
        match check(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other.map(|count| count as usize),
        }
    }

    /// The key of the event with this index.
    pub fn key(&self, index: usize) -> u64 {
        self.events[index].u64
    }

    fn control(
        &self,
        operation: i32,
        descriptor: &impl AsRawFd,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: key };
        let (epoll, descriptor) = (self.descriptor.as_raw_fd(), descriptor.as_raw_fd());
        // SAFETY: the event lives until the call returns.
        check(unsafe { libc::epoll_ctl(epoll, operation, descriptor, &raw mut event) }).map(drop)
    }
}

/// A descriptor that becomes readable when SIGINT or SIGTERM comes, which then do nothing else.
///
/// To be called before other threads are started: they inherit what is blocked.
pub fn termination() -> io::Result<OwnedFd> {
    let signals = signals();
    // SAFETY: the set is initialised; the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is initialised.
    let descriptor = check(unsafe { libc::signalfd(-1, &raw const signals, flags) })?;
    // SAFETY: it was just made, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Binds what will be started to a core, and its life to that of this thread.
pub fn bind(command: &mut Command, core: Option<usize>) -> &mut Command {
    let starter = std::process::id();
    let prepare = move || {
        // SAFETY: no pointers are involved.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // SAFETY: it cannot fail.
        if unsafe { libc::getppid() } as u32 != starter {
            return Err(io::ErrorKind::NotConnected.into()); // It has gone in the meantime.
        }
        core.map_or(Ok(()), pin)
    };
    // SAFETY: the closure makes system calls only: it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) }
}

/// Binds this thread, and those it will start, to a core.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a set of cores is plain data, for which zero is the empty set.
    let mut cores: libc::cpu_set_t = unsafe { mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the core is within the set.
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: the set is initialised and as long as said.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) }).map(drop)
}

/// Sends a signal to a process.
pub fn signal(process: u32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers are involved.
    check(unsafe { libc::kill(process as i32, signal) }).map(drop)
}

/// Waits until a process has ended; false if it has not by then.
pub fn wait_for_end(process: u32, limit: Duration) -> io::Result<bool> {
    // SAFETY: no pointers are involved.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let descriptor = check(descriptor as i32)?;
    // SAFETY: it was just made, so nobody else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, as said.
    let count = unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) };
    check(count).map(|count| count == 1)
}

/// The CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the result. The call cannot fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What one system call costs that does next to nothing: the least of many batches.
pub fn system_call() -> Duration {
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..CALLS_PER_BATCH {
            // SAFETY: no pointers are involved, and it cannot fail. (The C library has no copy of this number.)
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        start.elapsed() / CALLS_PER_BATCH
    };
    (0..BATCHES).map(batch).min().unwrap_or_default()
}

/// Permits as many open files as the system allows, and says how many.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the result.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the limit is initialised.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// What the ring works on.
struct Memory {
    pool: Pool,
    source: Box<[u8]>,
    headers: Box<[libc::msghdr]>,
    headers_used: usize,
    vectors: Box<[libc::iovec]>,
    vectors_used: usize,
}

enum Gathered<'a> {
    One(&'a [u8]),
    Many(*const libc::msghdr),
}

impl Memory {
    fn new(source: Box<[u8]>, offer: Offer, buffers: u16) -> Self {
        // SAFETY: a header is plain data, for which zero means nothing.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            pool: Pool::new(offer, buffers),
            source,
            headers: vec![header; HEADERS].into(),
            headers_used: 0,
            vectors: vec![vector; VECTORS].into(),
            vectors_used: 0,
        }
    }

    fn gather<'a>(&mut self, mut chunks: impl ExactSizeIterator<Item = &'a Chunk>) -> Gathered<'_> {
        if chunks.len() == 1 {
            return Gathered::One(self.pool.bytes(chunks.next().expect("its length is 1")));
        }
        let first = self.vectors_used;
        for chunk in chunks {
            let bytes = self.pool.bytes(chunk);
            self.vectors[self.vectors_used] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.vectors_used += 1;
        }
        let vectors = &mut self.vectors[first..self.vectors_used];
        let header = &mut self.headers[self.headers_used];
        self.headers_used += 1;
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len();
        Gathered::Many(header)
    }
}

/// The group of buffers that the kernel receives into.
struct Pool {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    /// The buffers that are not the kernel's.
    lent: Box<[bool]>,
    /// How many may be offered.
    offer: Offer,
    /// Not lent, and not offered: what was used last is offered first, and not more than the cache
    /// holds.
    reserve: Vec<u16>,
    /// What the kernel may fill.
    offered: u16,
    /// Bytes that a receive brings: a moving average.
    fill: u32,
    tail: u16,
}

impl Pool {
    fn new(offer: Offer, buffers: u16) -> Self {
        let entries = allocate(entries_layout(buffers)).cast();
        let bytes = allocate(bytes_layout(buffers));
        let lent = vec![true; usize::from(buffers)].into();
        let mut pool = Self {
            entries,
            bytes,
            lent,
            offer,
            reserve: Vec::with_capacity(usize::from(buffers)),
            offered: 0,
            fill: 0,
            tail: 0,
        };
        for buffer in 0..buffers {
            pool.give_back(buffer);
        }
        pool
    }

    fn take(&mut self, buffer: u16, len: u32) -> Chunk {
        self.lent[usize::from(buffer)] = true;
        self.offered -= 1;
        self.fill = (self.fill * 15 + len) / 16;
        self.refill();
        Chunk { buffer, start: 0, end: len }
    }

    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        assert!(self.lent[usize::from(chunk.buffer)], "the kernel holds this buffer");
        let offset = usize::from(chunk.buffer) * BUFFER_SIZE as usize + chunk.start as usize;
        // SAFETY: the buffer is one of the group's, and a chunk ends within its buffer.
        let start = unsafe { self.bytes.add(offset) };
        // SAFETY: the memory was zeroed first and nobody writes to it: the kernel does not hold it,
        // and to give it back takes the pool mutably.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), chunk.len()) }
    }

    fn give_back(&mut self, buffer: u16) {
        assert!(mem::take(&mut self.lent[usize::from(buffer)]), "the kernel holds this buffer");
        self.reserve.push(buffer);
        self.refill();
    }

    fn refill(&mut self) {
        let window = match self.offer {
            Offer::All { .. } => u32::from(self.count()),
            Offer::Window => (WINDOW / self.fill.max(1)).max(FEWEST_OFFERED),
        };
        while u32::from(self.offered) < window {
            let Some(buffer) = self.reserve.pop() else { return };
            self.offer(buffer);
        }
    }

    /// How many buffers there are: a power of two.
    fn count(&self) -> u16 {
        self.lent.len() as u16
    }

    fn offer(&mut self, buffer: u16) {
        self.offered += 1;
        let slot = usize::from(self.tail & (self.count() - 1));
        // SAFETY: the index is below the number of entries.
        let entry = unsafe { self.entries.add(slot) };
        // SAFETY: the buffer is one of the group's.
        let bytes = unsafe { self.bytes.add(usize::from(buffer) * BUFFER_SIZE as usize) };
        // SAFETY: the kernel reads only entries before the tail; this one is not among them.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(bytes.as_ptr() as u64);
        entry.set_len(BUFFER_SIZE);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring of entries is as the function wants it.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is aligned, lives as long as the entries, and is only accessed atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release); // The kernel must see the entry first.
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { alloc::dealloc(self.entries.as_ptr().cast(), entries_layout(self.count())) };
        // SAFETY: allocated with this layout.
        unsafe { alloc::dealloc(self.bytes.as_ptr(), bytes_layout(self.count())) };
    }
}

/// What a completion is of: the low bits of its user data.
#[derive(Clone, Copy)]
enum Kind {
    Accept,
    Receive,
    Send,
    Poll,
    Cancel,
}

fn tag(kind: Kind, connection: u32) -> u64 {
    kind as u64 | u64::from(connection) << KIND_BITS
}

fn decode(cqe: &cqueue::Entry, pool: &mut Pool) -> Option<Completion> {
    const ACCEPT: u64 = Kind::Accept as u64;
    const RECEIVE: u64 = Kind::Receive as u64;
    const SEND: u64 = Kind::Send as u64;
    const POLL: u64 = Kind::Poll as u64;
    let connection = (cqe.user_data() >> KIND_BITS) as u32;
    let more = cqueue::more(cqe.flags());
    let result = u32::try_from(cqe.result())
        .map_err(|_| io::Error::from_raw_os_error(cqe.result().wrapping_neg()));
    match (cqe.user_data() & ((1 << KIND_BITS) - 1), result) {
        (ACCEPT, Ok(descriptor)) => {
            // SAFETY: the kernel has just made it, and reports it once.
            let socket = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
            Some(Completion::Accepted { socket, more })
        }
        (ACCEPT, Err(error)) => Some(Completion::AcceptEnded(error)),
        (RECEIVE, Ok(0)) => Some(Completion::ReceiveEnded { connection, result: Ok(()) }),
        (RECEIVE, Ok(len)) => {
            let buffer = cqueue::buffer_select(cqe.flags()).expect("received into a buffer");
            Some(Completion::Received { connection, chunk: pool.take(buffer, len), more })
        }
        (RECEIVE, Err(error)) => Some(Completion::ReceiveEnded { connection, result: Err(error) }),
        (SEND, result) => Some(Completion::Sent { connection, result }),
        (POLL, _) => Some(Completion::Ready { connection, more }),
        _ => None,
    }
}

fn build(cq_entries: u32) -> io::Result<IoUring> {
    let with = |sq_array: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_cqsize(cq_entries)
            .setup_clamp();
        if !sq_array {
            builder.setup_no_sqarray();
        }
        builder.build(SQ_ENTRIES)
    };
    match with(false) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => with(true), // Before Linux 6.6.
        other => other,
    }
}

/// Nothing is wrong: the sleep was cut short, or the kernel wants its completions read first.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EINTR, libc::ETIME, libc::EBUSY, libc::EAGAIN];
    error.raw_os_error().is_some_and(|error| passing.contains(&error))
}

fn signals() -> libc::sigset_t {
    // SAFETY: a set of signals is plain data; it is emptied properly below.
    let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: there is room for the result.
    unsafe { libc::sigemptyset(&raw mut signals) };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    signals
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a send is shorter than 4 GiB")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

fn entries_layout(buffers: u16) -> Layout {
    let size = usize::from(buffers) * size_of::<BufRingEntry>();
    Layout::from_size_align(size, PAGE).expect("a page-aligned array")
}

fn bytes_layout(buffers: u16) -> Layout {
    let size = usize::from(buffers) * BUFFER_SIZE as usize;
    Layout::from_size_align(size, PAGE).expect("a page-aligned array")
}

/// The size of each receive buffer.
pub const BUFFER_SIZE: u32 = 16 * 1024;

/// How many of them a server has: the pool has to fit the cache.
pub const BUFFERS: u16 = 256;
/// How many a load may have, 256 MiB, most of which is never touched.
const MOST_BUFFERS: usize = 16 * 1024;

/// Bytes that one call may fill.
const WINDOW: u32 = 384 * 1024;
const FEWEST_OFFERED: u32 = 8;

const GROUP: u16 = 0;
const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 4096;
/// Each entry of the submission queue may need a header.
const HEADERS: usize = SQ_ENTRIES as usize;
/// Each buffer may stand in one send at a time.
const VECTORS: usize = BUFFERS as usize;
const KIND_BITS: u32 = 3;
const PAGE: usize = 4096;
/// At most 2 s.
const DRAIN_ENTERS: usize = 20;
const CALLS_PER_BATCH: u32 = 10_000;
const BATCHES: usize = 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_ring_accepts_receives_and_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(Box::new([]), Offer::All { connections: 1 }).unwrap();
        ring.accept(&listener);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"hello").unwrap();
        let Completion::Accepted { socket, more: true } = next(&mut ring) else { panic!() };
        ring.receive(7, &socket);
        let received = next(&mut ring);
        let Completion::Received { connection: 7, chunk, more: true } = received else { panic!() };
        assert_eq!(ring.bytes(&chunk), b"hello");
        ring.send(7, &socket, [&chunk, &chunk].into_iter());
        assert!(matches!(next(&mut ring), Completion::Sent { connection: 7, result: Ok(10) }));
        ring.give_back(chunk);
        let mut echo = [0; 10];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hellohello");
    }

    #[test]
    #[should_panic(expected = "the kernel holds this buffer")]
    fn a_buffer_that_the_kernel_holds_cannot_be_read() {
        let ring = Ring::new(Box::new([]), Offer::All { connections: 1 }).unwrap();
        let _ = ring.bytes(&Chunk { buffer: 0, start: 0, end: 1 });
    }

    #[test]
    fn a_ring_drains_when_it_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(Box::new([]), Offer::All { connections: 1 }).unwrap();
        ring.accept(&listener);
        ring.enter(Sleep { completions: 0, ..Sleep::until_one() }).unwrap();
        assert!(ring.drain());
    }

    fn next(ring: &mut Ring) -> Completion {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.enter(Sleep::until_one()).unwrap();
            ring.reap(&mut completions);
        }
        assert_eq!(completions.len(), 1);
        completions.remove(0)
    }
}
