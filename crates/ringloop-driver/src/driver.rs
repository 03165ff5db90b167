//! The driver: gives ops to the kernel, waits, and decodes what comes back.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};
use socket2::SockAddr;

use crate::buffers::Group;
use crate::completion::{Completion, Interest, Outcome, Readiness, Token};
use crate::config::{Counters, DriverConfig, DriverInfo, Features};
use crate::op::{EndOfArm, Kind, Op, OpKey, Ops, Subject, Target};
use crate::setup::{self, SetupError};
use crate::sys;
use crate::wake::DriverWaker;
use crate::watch::{FileTable, Place, WatchedFile};
use crate::{Account, Descriptor, Received, SendQueue};

/// A ring with the ops in flight on it, bound to the thread that made it.
pub struct Driver {
    ring: IoUring,
    ops: Ops,
    /// Requests that did not fit into the submission queue, in order.
    backlog: VecDeque<Entry>,
    /// Decoded by `look()` or `retire()`, which looked for others; in order, before what is still in the ring.
    decoded: VecDeque<Completion>,
    groups: Vec<Rc<Group>>,
    /// Receives that found no free buffer, in the order in which they did.
    starved: VecDeque<OpKey>,
    /// Made when the first foreign file is watched.
    files: Option<Rc<FileTable>>,
    waker: DriverWaker,
    wake_armed: bool,
    counters: Counters,
    info: DriverInfo,
    config: DriverConfig,
    /// Only the thread that made a ring may use it, so a driver must not go to another.
    _thread_bound: PhantomData<*const ()>,
}

/// How long [`Driver::wait`] waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Now,
    /// Until then; never less.
    Until(Instant),
    /// Until there is one, or a wake-up.
    Forever,
}

impl Driver {
    /// Makes a ring with its buffers, for this thread.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and the remedy. Where the memory of closed rings is not back yet, tries for up to a
    /// second, and then with smaller queues.
    pub fn new(config: &DriverConfig) -> Result<Self, SetupError> {
        let waker = DriverWaker::new().map_err(|error| SetupError::new(error, "eventfd"))?;
        let (ring, features) = setup::make_ring(config)?;
        let buffers = config.buffers.clamp(1, 1 << 15).next_power_of_two();
        let group =
            Group::new(&ring.submitter(), 0, buffers, config.buffer_size.max(1), waker.clone())
                .map_err(|error| SetupError::new(error, "io_uring_register"))?;
        let info = DriverInfo {
            features,
            missing: DriverInfo::why_missing(features, config),
            submission_entries: ring.params().sq_entries(),
            completion_entries: ring.params().cq_entries(),
            buffers,
            buffer_size: config.buffer_size,
        };
        let mut driver = Self {
            ring,
            ops: Ops::default(),
            backlog: VecDeque::new(),
            decoded: VecDeque::new(),
            groups: vec![group],
            starved: VecDeque::new(),
            files: None,
            waker,
            wake_armed: false,
            counters: Counters::default(),
            info,
            config: config.clone(),
            _thread_bound: PhantomData,
        };
        driver.arm_wake();
        // A filter may allow the set-up and forbid the rest: better to know now than in the middle of a service.
        driver.submit().map_err(|error| SetupError::new(error, "io_uring_enter"))?;
        Ok(driver)
    }

    /// What the ring was made with.
    pub fn info(&self) -> &DriverInfo {
        &self.info
    }

    /// What was done so far, and what is held now.
    pub fn counters(&self) -> Counters {
        Counters {
            in_flight: self.ops.len() as u64,
            leased: self.groups.iter().map(|group| u64::from(group.leased())).sum(),
            groups: self.groups.len() as u64,
            ..self.counters
        }
    }

    /// Wakes this driver from other threads.
    pub fn waker(&self) -> DriverWaker {
        self.waker.clone()
    }

    /// Accepts connections until it is cancelled or fails, one completion each.
    pub fn accept_multishot(&mut self, listener: &Descriptor, token: Token) -> OpKey {
        self.start_on(listener, token, Kind::Accept { multishot: true })
    }

    /// Accepts one connection.
    pub fn accept(&mut self, listener: &Descriptor, token: Token) -> OpKey {
        self.start_on(listener, token, Kind::Accept { multishot: false })
    }

    /// Receives until the end of the stream, an error or a cancel. What it gives is lent, and counted in `account`.
    ///
    /// One receive at a time on a socket: of two, the one that was armed last gets the bytes.
    pub fn recv_multishot(
        &mut self,
        socket: &Descriptor,
        account: &Account,
        token: Token,
    ) -> OpKey {
        self.start_on(
            socket,
            token,
            Kind::Recv { account: account.clone(), multishot: true, own: None },
        )
    }

    /// Receives once: at most one buffer of bytes. Where `account` holds too many buffers, or all are lent, it takes none
    /// of them but memory of its own.
    pub fn recv(&mut self, socket: &Descriptor, account: &Account, token: Token) -> OpKey {
        let own = (account.is_over() || self.free_buffers() == 0).then(|| self.own_buffer());
        self.start_on(socket, token, Kind::Recv { account: account.clone(), multishot: false, own })
    }

    /// Sends what is in `queue`, as one gathered send of up to 1024 chunks; the result may be short. With `dont_wait` it
    /// ends at once where there is no room, with [`io::ErrorKind::WouldBlock`].
    ///
    /// One send at a time on a stream: of two, the later one may overtake.
    pub fn send(
        &mut self,
        socket: &Descriptor,
        queue: SendQueue,
        dont_wait: bool,
        token: Token,
    ) -> OpKey {
        self.start_on(socket, token, Kind::Send { queue, dont_wait })
    }

    /// Connects. A cancelled or failed one leaves a socket that is of no more use.
    pub fn connect(&mut self, socket: &Descriptor, address: &SockAddr, token: Token) -> OpKey {
        self.start_on(socket, token, Kind::Connect { address: Box::new(address.clone()) })
    }

    /// Waits once until `fd` is ready. What is ready already completes at once, so arming it again after each completion
    /// is level-triggered.
    pub fn poll(&mut self, fd: &Descriptor, interest: Interest, token: Token) -> OpKey {
        self.start_on(fd, token, Kind::Poll { interest })
    }

    /// Takes a file of someone else's to be polled: the one that `fd` names now, whatever happens to that number later. It
    /// stays open until it is [unwatched](Self::unwatch). One watch per number at a time.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`: `EPERM` for what is always ready (regular files, `/dev/null`), `EBADF` for a number that is not
    /// open.
    pub fn watch(&mut self, fd: &impl AsRawFd) -> io::Result<WatchedFile> {
        let table = match &self.files {
            Some(table) => Rc::clone(table),
            None => Rc::clone(self.files.insert(FileTable::new(self.register_slots())?)),
        };
        self.clear_abandoned(&table);
        table.watch(fd.as_raw_fd(), |slot, number| self.set_slot(slot, number))
    }

    /// Waits once until `file` is ready, as [`poll`](Self::poll). One op at a time for each.
    pub fn poll_watched(&mut self, file: &WatchedFile, interest: Interest, token: Token) -> OpKey {
        let target = match file.place() {
            Place::Slot(slot) => Target::Slot(*slot),
            Place::Duplicate(fd) => Target::Descriptor(fd.clone()),
        };
        let key = self.start(target, token, Kind::Poll { interest });
        file.op().set(Some(key));
        key
    }

    /// Lets go of `file`: if it was closed meanwhile, its peer sees that now. An op that is still in flight on it is
    /// [retired](Self::retire), and what it gave is dropped.
    pub fn unwatch(&mut self, file: WatchedFile) {
        if let Some(key) = file.op().get() {
            if self.ops.contains(key) {
                drop(self.retire(key));
            }
        }
        drop(file);
        if let Some(table) = self.files.clone() {
            self.clear_abandoned(&table);
        }
    }

    /// Closes `fd` with the next submission, if nobody else holds it; else when the last one lets go.
    pub fn close(&mut self, fd: Descriptor) {
        if let Ok(fd) = fd.into_owned() {
            let request = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
            self.push(request.user_data(Subject::Aside.encode()).flags(Flags::SKIP_SUCCESS));
        }
    }

    /// Asks for the end of an op. Its last completion still comes: [`libc::ECANCELED`], or the bytes or the connection if
    /// they were first.
    pub fn cancel(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if mem::replace(&mut op.cancelled, true) {
            return;
        }
        if op.starved {
            // The kernel does not know it.
            self.starved.retain(|&starved| starved != key);
            self.end_locally(key);
            return;
        }
        let request = opcode::AsyncCancel::new(Subject::Op(key).encode()).build();
        self.push(request.user_data(Subject::Aside.encode()).flags(Flags::SKIP_SUCCESS));
    }

    /// Whether completions of this op are still to come.
    pub fn is_in_flight(&self, key: OpKey) -> bool {
        self.ops.contains(key)
    }

    /// Submits what is queued, without waiting, and takes out the first completion of `key`, if there is one already: an
    /// op that is ready completes inside this call. All others keep their places for [`next_completion`].
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// [`next_completion`]: Self::next_completion
    pub fn look(&mut self, key: OpKey) -> io::Result<Option<Completion>> {
        self.submit()?;
        self.decode_all();
        Ok(self.take_decoded(key))
    }

    /// As [`look`](Self::look), but without any call: takes the first completion of `key` if the kernel has put it there
    /// already.
    pub fn peek(&mut self, key: OpKey) -> Option<Completion> {
        self.decode_all();
        self.take_decoded(key)
    }

    /// Ends an op here and now: cancels it and waits for its last completion. Gives all completions of it, in order; those
    /// of others keep their places.
    ///
    /// The wait is short, as a cancel of a socket op is. Should the kernel not end it within two seconds, the op stays in
    /// flight, and what it owns with it.
    pub fn retire(&mut self, key: OpKey) -> Vec<Completion> {
        self.cancel(key);
        let end = Instant::now() + PATIENCE;
        self.decode_all();
        while self.ops.contains(key) && Instant::now() < end {
            if self.enter_until_submitted(1, Some(Duration::from_millis(10))).is_err() {
                break;
            }
            self.decode_all();
        }
        std::iter::from_fn(|| self.take_decoded(key)).collect()
    }

    /// Gives everything that is queued to the kernel, without waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter_until_submitted(0, None)
    }

    /// Gives everything that is queued to the kernel and waits for a completion, in one call. Returns at once if there is
    /// one already, or a wake-up.
    ///
    /// # Errors
    ///
    /// Only what ends the ring: a lost completion (`EBADR`), or another thread's use of it. A signal, a timeout and a
    /// passing lack of memory are no errors: the call returns, and what was not submitted stays queued.
    pub fn wait(&mut self, until: Wait) -> io::Result<()> {
        self.feed_starved();
        let timeout = match until {
            Wait::Now => return self.wait_no_longer(),
            // What is rounded must be rounded up: a timer must not run early.
            Wait::Until(when) => Some(when.saturating_duration_since(Instant::now())),
            Wait::Forever => None,
        };
        if timeout == Some(Duration::ZERO) || self.has_completions() || !self.waker.sleep() {
            self.waker.woken();
            return self.wait_no_longer();
        }
        let result = self.enter_until_submitted(1, timeout);
        self.waker.woken();
        result.and_then(|()| self.sweep())
    }

    /// The next completion, if there is one.
    pub fn next_completion(&mut self) -> Option<Completion> {
        if let Some(completion) = self.decoded.pop_front() {
            return Some(completion);
        }
        loop {
            let entry = self.next_entry()?;
            if let Some(completion) = self.decode(&entry) {
                return Some(completion);
            }
        }
    }

    /// Whether [`next_completion`](Self::next_completion) has something to decode.
    pub fn has_completions(&mut self) -> bool {
        !self.decoded.is_empty() || !self.ring.completion().is_empty()
    }

    fn start_on(&mut self, fd: &Descriptor, token: Token, kind: Kind) -> OpKey {
        self.start(Target::Descriptor(fd.clone()), token, kind)
    }

    fn start(&mut self, target: Target, token: Token, kind: Kind) -> OpKey {
        let key = self.ops.insert(target, token, kind);
        self.arm(key);
        key
    }

    /// Gives the op to the kernel, the first time or again.
    fn arm(&mut self, key: OpKey) {
        let group = self.group_to_arm();
        if let Some(op) = self.ops.get_mut(key) {
            op.starved = false;
            let request = op.request(key, group);
            self.push(request);
        }
    }

    /// Queues a request behind all that were queued before. Nothing is dropped: what does not fit waits.
    fn push(&mut self, request: Entry) {
        if self.backlog.is_empty() {
            if self.try_push(&request) {
                return;
            }
            self.counters.backlogs += 1;
            // An error will be met again by the next wait, which can report it.
            let _ = self.enter_once(0, None);
            if self.try_push(&request) {
                return;
            }
        }
        self.backlog.push_back(request);
    }

    fn try_push(&mut self, request: &Entry) -> bool {
        // SAFETY: the addresses in a request are of memory that its op owns until the last completion; a cancel, a close
        // and the wake-up name no memory.
        unsafe { self.ring.submission().push(request) }.is_ok()
    }

    fn wait_no_longer(&mut self) -> io::Result<()> {
        self.submit()?;
        self.sweep()
    }

    /// The kernel runs about 20 pieces of deferred work in one call. What is left over is run by one more, which does not
    /// wait, so that every ready descriptor is seen in this iteration.
    fn sweep(&mut self) -> io::Result<()> {
        if self.ring.submission().taskrun() {
            let most = (self.info.completion_entries / 2).min(SWEEP);
            self.enter_once(most, Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Enters until nothing is queued any more, or the kernel takes no more for now.
    fn enter_until_submitted(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            self.refill();
            let last = self.backlog.is_empty();
            let taken = self.enter_once(if last { want } else { 0 }, timeout)?;
            if last || taken == 0 {
                return Ok(());
            }
        }
    }

    fn refill(&mut self) {
        while let Some(request) = self.backlog.pop_front() {
            if !self.try_push(&request) {
                self.backlog.push_front(request);
                return;
            }
        }
    }

    /// One `io_uring_enter`, or none if it could do nothing. Gives how many requests the kernel took.
    fn enter_once(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<usize> {
        let submission = self.ring.submission();
        let queued = submission.len() as u32;
        let overflown = submission.cq_overflow();
        let has_work = submission.taskrun();
        drop(submission);
        self.counters.overflows += u64::from(overflown);
        if queued == 0 && want == 0 && !overflown && !has_work {
            return Ok(0);
        }
        let mut flags = EnterFlags::empty();
        if want > 0 || overflown || has_work {
            flags |= EnterFlags::GETEVENTS;
        }
        self.counters.enters += 1;
        let entered = match timeout {
            Some(timeout) if want > 0 => {
                let timespec = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timespec);
                let flags = self.wait_flags(flags | EnterFlags::EXT_ARG);
                // SAFETY: the arguments outlive the call, and the queued requests name memory of their ops only.
                unsafe { self.ring.submitter().enter(queued, want, flags.bits(), Some(&arguments)) }
            }
            _ => {
                let flags = if want > 0 { self.wait_flags(flags) } else { flags };
                // SAFETY: no argument is passed, and the queued requests name memory of their ops only.
                unsafe {
                    self.ring.submitter().enter::<libc::sigset_t>(queued, want, flags.bits(), None)
                }
            }
        };
        match entered {
            Ok(taken) => {
                self.counters.sqes += taken as u64;
                Ok(taken)
            }
            Err(error) => self.refused(error),
        }
    }

    fn wait_flags(&self, flags: EnterFlags) -> EnterFlags {
        if self.info.features.contains(Features::NO_IOWAIT) {
            flags | EnterFlags::NO_IOWAIT
        } else {
            flags
        }
    }

    /// Most errors of `io_uring_enter` mean "not now".
    fn refused(&mut self, error: io::Error) -> io::Result<usize> {
        match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR) => Ok(0),
            // Completions must be taken first, or memory is short: what is queued stays queued for the next time.
            Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {
                self.counters.refusals += 1;
                Ok(0)
            }
            _ => Err(error),
        }
    }

    fn next_entry(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn decode_all(&mut self) {
        while let Some(entry) = self.next_entry() {
            if let Some(completion) = self.decode(&entry) {
                self.decoded.push_back(completion);
            }
        }
    }

    fn take_decoded(&mut self, key: OpKey) -> Option<Completion> {
        let place = self.decoded.iter().position(|completion| completion.key == key)?;
        self.decoded.remove(place)
    }

    /// What an entry of the completion queue means to the layer above; `None` if nothing.
    fn decode(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        self.counters.cqes += 1;
        let more = cqueue::more(entry.flags());
        match Subject::decode(entry.user_data()) {
            Subject::Op(key) => self.decode_op(key, entry, more),
            Subject::Wake => {
                self.counters.wakes += 1;
                if !more {
                    self.wake_armed = false;
                    self.arm_wake();
                }
                None
            }
            Subject::Aside => None,
        }
    }

    fn decode_op(&mut self, key: OpKey, entry: &cqueue::Entry, more: bool) -> Option<Completion> {
        let Some(op) = self.ops.get_mut(key) else {
            self.counters.stale += 1;
            return None;
        };
        let result = outcome_of(entry.result());
        if !more && !op.cancelled {
            match op.end_of_arm(&result) {
                EndOfArm::Over => {}
                EndOfArm::Starved => {
                    self.counters.enobufs += 1;
                    op.starved = true;
                    self.starved.push_back(key);
                    return None;
                }
                EndOfArm::Again if result.is_err() => {
                    self.arm(key);
                    return None;
                }
                EndOfArm::Again => {
                    let completion = self.complete(key, result, entry.flags(), true);
                    self.arm(key);
                    return completion;
                }
            }
        }
        self.complete(key, result, entry.flags(), more)
    }

    /// Turns a result into a completion; without `more` the op leaves the slab.
    fn complete(
        &mut self,
        key: OpKey,
        result: io::Result<u32>,
        flags: u32,
        more: bool,
    ) -> Option<Completion> {
        if more {
            // Only multishots have more to come: receives have an account, accepts have none.
            let op = self.ops.get_mut(key)?;
            let (token, account, own) = (op.token, op.account(), op.take_own());
            let outcome = match account {
                Some(account) => Outcome::Received(self.received(result, flags, own, &account)),
                None => Outcome::Accepted(self.accepted(result)),
            };
            return Some(Completion { token, key, more, outcome });
        }
        let Op { token, kind, .. } = self.ops.remove(key)?;
        let outcome = match kind {
            Kind::Accept { .. } => Outcome::Accepted(self.accepted(result)),
            Kind::Recv { account, own, .. } => {
                Outcome::Received(self.received(result, flags, own, &account))
            }
            Kind::Send { queue, .. } => {
                let sent = result.map(|count| count as usize);
                self.counters.bytes_out += *sent.as_ref().unwrap_or(&0) as u64;
                Outcome::Sent(sent, queue)
            }
            Kind::Connect { .. } => Outcome::Connected(result.map(drop)),
            Kind::Poll { .. } => Outcome::Polled(result.map(Readiness::from_mask)),
        };
        Some(Completion { token, key, more, outcome })
    }

    fn accepted(&mut self, result: io::Result<u32>) -> io::Result<Descriptor> {
        let fd = result? as i32;
        self.counters.accepted += 1;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    fn received(
        &mut self,
        result: io::Result<u32>,
        flags: u32,
        own: Option<Vec<u8>>,
        account: &Account,
    ) -> io::Result<Received> {
        let len = result? as usize;
        self.counters.bytes_in += len as u64;
        if len == 0 {
            return Ok(Received::default());
        }
        if let Some(mut buffer) = own {
            self.counters.copied += 1;
            buffer.truncate(len);
            return Ok(buffer.into());
        }
        let over = account.is_over();
        let lease = cqueue::buffer_select(flags).and_then(|index| {
            let group = self.groups.iter().find(|group| group.holds(index))?;
            group.lend(index, len, account)
        });
        match lease {
            Some(lease) if over => {
                self.counters.copied += 1;
                Ok(Received::from(&*lease))
            }
            Some(lease) => Ok(lease),
            // The kernel names the buffer of every receive that has one; without it the bytes are out of reach.
            None => Err(io::Error::other("a receive without its buffer")),
        }
    }

    /// The op was not in the kernel, so this is its last completion.
    fn end_locally(&mut self, key: OpKey) {
        let cancelled = Err(io::Error::from_raw_os_error(libc::ECANCELED));
        if let Some(completion) = self.complete(key, cancelled, 0, false) {
            self.decoded.push_back(completion);
        }
    }

    /// Registers a file table with the ring, and gives its size: none where the kernel has no memory for it.
    fn register_slots(&self) -> u32 {
        let most = sys::soft_limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX);
        let slots = most.clamp(1, MOST_SLOTS) as u32;
        self.ring.submitter().register_files_sparse(slots).map_or(0, |()| slots)
    }

    fn set_slot(&self, slot: u32, number: RawFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[number]).map(drop)
    }

    fn clear_abandoned(&self, table: &FileTable) {
        for slot in table.take_abandoned() {
            // It fails for a slot that the ring does not have, so that there is nothing to be let go of.
            let _ = self.set_slot(slot, -1);
        }
    }

    fn arm_wake(&mut self) {
        if !mem::replace(&mut self.wake_armed, true) {
            let fd = types::Fd(self.waker.eventfd().as_raw_fd());
            let mask = Interest { read: true, write: false }.mask();
            let request = opcode::PollAdd::new(fd, mask).multi(true).build();
            self.push(request.user_data(Subject::Wake.encode()));
        }
    }

    /// Takes back what other threads returned; arms receives that starved, in the order in which they did, as far as there
    /// are buffers.
    fn feed_starved(&mut self) {
        for group in &self.groups {
            group.collect_returned();
        }
        if self.groups.len() > 1 {
            self.drop_idle_group();
        }
        if self.starved.is_empty() {
            return;
        }
        if self.free_buffers() == 0 && !self.has_completions() {
            self.add_group();
        }
        let free = self.free_buffers() as usize;
        let fed = self.starved.len().min(free);
        for _ in 0..fed {
            self.arm_starved(None);
        }
        // All buffers of all groups are lent, and who has them may never give them back.
        if !self.has_completions() {
            while !self.starved.is_empty() {
                let own = self.own_buffer();
                self.arm_starved(Some(own));
            }
        }
        let wanted = !self.starved.is_empty();
        self.groups.iter().for_each(|group| group.set_wanted(wanted));
    }

    fn arm_starved(&mut self, memory: Option<Vec<u8>>) {
        let Some(key) = self.starved.pop_front() else { return };
        if let Some(Op { kind: Kind::Recv { own, .. }, .. }) = self.ops.get_mut(key) {
            *own = memory;
        }
        self.arm(key);
    }

    fn free_buffers(&self) -> u32 {
        self.groups.iter().map(|group| group.free()).sum()
    }

    fn own_buffer(&self) -> Vec<u8> {
        vec![0; self.info.buffer_size as usize]
    }

    /// The first group with a free buffer, so that the others become idle.
    fn group_to_arm(&self) -> u16 {
        self.groups.iter().find(|group| group.free() > 0).map_or(0, |group| group.id())
    }

    /// Under pressure. Without memory for it the starved go on with memory of their own.
    fn add_group(&mut self) {
        let id = self.groups.len() as u16;
        let fits =
            (usize::from(id) + 1) * usize::from(self.info.buffers) <= usize::from(u16::MAX) + 1;
        if id < self.config.groups && fits {
            let made = Group::new(
                &self.ring.submitter(),
                id,
                self.info.buffers,
                self.info.buffer_size,
                self.waker.clone(),
            );
            self.groups.extend(made);
        }
    }

    /// The last group goes when the pressure is gone: none of its buffers is lent, and most of the first are free. A
    /// receive that is still armed on it starves once, and is armed on another.
    fn drop_idle_group(&mut self) {
        if let [first, .., last] = &*self.groups {
            let calm = last.leased() == 0 && first.leased() as usize * 4 < first.len();
            if calm && !self.has_completions() {
                if let Some(group) = self.groups.pop() {
                    group.unregister(&self.ring.submitter());
                }
            }
        }
    }
}

impl Drop for Driver {
    /// Cancels what is in flight, and waits until the kernel has let go of it. What it does not let go of is leaked: memory
    /// that a request still names must never be freed.
    fn drop(&mut self) {
        for key in self.ops.keys() {
            self.cancel(key);
        }
        let end = Instant::now() + PATIENCE;
        while !self.ops.is_empty() && Instant::now() < end {
            if self.enter_until_submitted(1, Some(Duration::from_millis(10))).is_err() {
                break;
            }
            // Bytes and connections that came too late are dropped here, which closes and returns them.
            while self.next_completion().is_some() {}
        }
        self.decoded.clear();
        if self.ops.is_empty() {
            let submitter = self.ring.submitter();
            self.groups.iter().for_each(|group| group.unregister(&submitter));
        } else {
            Box::leak(Box::new((mem::take(&mut self.ops), mem::take(&mut self.groups))));
        }
    }
}

/// A result of the kernel: a count or a descriptor, or an errno below zero.
fn outcome_of(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// How long the kernel may take to end an op that was cancelled.
const PATIENCE: Duration = Duration::from_secs(2);

/// Files that are polled by their slots; beyond, and beyond the limit of open files, by numbers of our own.
const MOST_SLOTS: u64 = 1 << 15;

/// Pieces of deferred work that one more call may run.
const SWEEP: u32 = 256;
