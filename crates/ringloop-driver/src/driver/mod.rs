//! The driver: gives ops to the kernel, waits, and decodes what comes back.
//!
//! This file has the methods that the layer above calls. How requests get to the kernel is in `submit`, how completions come
//! back in `reap`, what happens when a driver ends in `close`.

mod close;
mod direct;
#[cfg_attr(feature = "testing", path = "faulty.rs")]
mod hooks;
mod pressure;
mod reap;
mod submit;

#[cfg(feature = "testing")]
pub(crate) use close::close_kept;

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry as Request, Flags};
use io_uring::{opcode, types};
use socket2::SockAddr;

use self::hooks::Hooks;
use self::pressure::Feeding;
use crate::backend::Backend;
use crate::buffers::{Group, GroupSize};
use crate::completion::{Completion, Interest, NoSink, Token};
use crate::config::{
    Counters, DriverChoice, DriverConfig, DriverInfo, DriverKind, Features, RingCounters,
};
use crate::datagram::Message;
use crate::key::{OpKey, Tag};
use crate::op::{Call, Kind, OpFile, Ops, State};
use crate::send_queue::Shown;
use crate::setup::{Made, SetupError};
use crate::uring::quiet::QuietPolls;
use crate::uring::ring::{Limit, Ring};
use crate::wake::DriverWaker;
use crate::watch::{FileTable, Place, WatchedFile};
use crate::{Account, Descriptor, SendQueue, Wait, fork, setup};

/// A ring with the ops in flight on it, bound to the thread that made it.
pub struct Driver {
    /// Taken out only in `drop()`.
    backend: ManuallyDrop<Backend>,
    /// Left alone, and so leaked, if anything goes wrong in `drop()`: the kernel may know what they own.
    pub(crate) ops: ManuallyDrop<Ops>,
    /// Requests that did not fit into the submission queue, in order.
    backlog: VecDeque<Request>,
    /// Decoded by `look()` or `retire()`, which looked for others; in order, before what is still in the ring.
    pub(crate) decoded: VecDeque<Completion>,
    groups: Vec<Rc<Group>>,
    /// Groups that receives use no more, as the lack of buffers is over; leases and ops that are still armed on them keep them.
    retired: Vec<Weak<Group>>,
    /// Made for the first multishot receive of datagrams.
    datagrams: Option<Rc<Group>>,
    /// Of large buffers, for connections that fill small ones. Made for the first.
    large: Option<Rc<Group>>,
    /// What it is made of; `None` if there is to be none.
    large_size: Option<GroupSize>,
    /// Waits since a connection has last filled a buffer.
    calm_waits: u32,
    /// For direct receives where a ring has the other buffers, which it fills when it likes. Made for the first.
    direct: Option<Rc<Group>>,
    /// Receives that found no free buffer, in the order in which they did.
    starved: VecDeque<OpKey>,
    feeding: Feeding,
    /// Of the ring.
    quiet: QuietPolls,
    /// How many polls and connects are in flight. Only they need the second call that runs what is left of the kernel's
    /// deferred work.
    prompt: usize,
    /// Made when the first foreign file is watched.
    files: Option<Rc<FileTable>>,
    waker: DriverWaker,
    wake_armed: bool,
    /// The driver is ending: ops that end are not armed again.
    closing: bool,
    /// The completion queue was too small, and may grow.
    overflown: bool,
    /// One moment, on the clock of the standard library and on the kernel's: deadlines are converted by it.
    epoch: (Instant, Duration),
    counters: Counters,
    info: DriverInfo,
    config: DriverConfig,
    /// Bytes after which a multishot receive ends; none if zero.
    limit: u32,
    hooks: Hooks,
    /// Only the thread that made a ring may use it, so a driver must not go to another.
    _thread_bound: PhantomData<*const ()>,
}

impl Driver {
    /// Makes a ring with its buffers, for this thread; or takes that of a driver of the same configuration that this
    /// thread has dropped. Where there can be no ring, it makes an epoll instance, unless the configuration forbids it:
    /// [`DriverInfo::refused`] says why.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and the remedy; also for buffers that are larger than what the kernel fills at once, which is
    /// nearly 2 GiB. Where the memory of closed rings is not back yet, tries for up to a
    /// second, and then with smaller queues.
    pub fn new(config: &DriverConfig) -> Result<Self, SetupError> {
        setup::check(config)?;
        match config.driver.resolved()? {
            DriverChoice::Epoll => Self::with(config, DriverKind::Epoll),
            DriverChoice::Uring => Self::with(config, DriverKind::Uring),
            _ => Self::with(config, DriverKind::Uring).or_else(|refused| {
                // Where neither can be had, the one that was wanted is to be explained.
                let Ok(mut driver) = Self::with(config, DriverKind::Epoll) else {
                    return Err(refused);
                };
                driver.info.refused = Some(Arc::new(refused));
                Ok(driver)
            }),
        }
    }

    fn with(config: &DriverConfig, kind: DriverKind) -> Result<Self, SetupError> {
        let kept = (kind == DriverKind::Uring).then(|| close::take_kept(config)).flatten();
        let (made, ops, waker) = match kept {
            Some(kept) => kept,
            None => {
                let waker =
                    DriverWaker::new().map_err(|error| SetupError::new(error, "eventfd"))?;
                (setup::make(config, kind, &waker)?, Ops::default(), waker)
            }
        };
        let Made { mut backend, group, features } = made;
        backend.guard_fork(waker.eventfd());
        let info = DriverInfo {
            driver: kind,
            refused: None,
            features,
            missing: DriverInfo::why_missing(kind, features, config),
            submission_entries: backend.ring().map_or(0, Ring::submission_entries),
            completion_entries: backend.completion_entries(),
            buffers: group.size().buffers,
            buffer_size: group.size().buffer_size,
        };
        let may_limit = kind == DriverKind::Epoll || features.contains(Features::MSHOT_LIMIT);
        // Where the kernel knows no limit, it would fill far too many large buffers before the driver can end that.
        let large_size = GroupSize::for_streams(config).filter(|_| may_limit);
        let limit = if may_limit { group.limit() } else { 0 };
        let mut driver = Self {
            backend: ManuallyDrop::new(backend),
            ops: ManuallyDrop::new(ops),
            backlog: VecDeque::new(),
            decoded: VecDeque::new(),
            groups: vec![group],
            retired: Vec::new(),
            datagrams: None,
            large: None,
            large_size,
            calm_waits: 0,
            direct: None,
            starved: VecDeque::new(),
            feeding: Feeding::default(),
            quiet: QuietPolls::default(),
            prompt: 0,
            files: None,
            waker,
            wake_armed: false,
            closing: false,
            overflown: false,
            epoch: submit::both_clocks(),
            counters: Counters {
                ring: (kind == DriverKind::Uring).then(RingCounters::default),
                ..Counters::default()
            },
            info,
            limit,
            config: config.clone(),
            hooks: Hooks::new(config),
            _thread_bound: PhantomData,
        };
        driver.arm_wake();
        // A filter may forbid `io_uring_enter` alone. This first call shows it now, and not when the server is at work.
        if let Err(error) = driver.submit() {
            // The kernel has not got the request of the wake-up.
            driver.wake_armed = false;
            return Err(SetupError::new(error, "io_uring_enter"));
        }
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
            leased: self.leased(),
            groups: self.groups.len() as u64 + u64::from(self.large.is_some()),
            ring: self.counters.ring.map(|counters| RingCounters {
                completion_entries: u64::from(self.backend.completion_entries()),
                ..counters
            }),
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
    /// After 256 KiB it ends by itself, with bytes and nothing more to come, where the kernel can (6.17): so that it reads
    /// no further ahead while nobody has looked. Start another one then.
    ///
    /// One receive at a time on a socket: of two, the one that was armed last gets the bytes.
    pub fn recv_multishot(
        &mut self,
        socket: &Descriptor,
        account: &Account,
        token: Token,
    ) -> OpKey {
        self.receive(socket, account, true, Call::Socket, token)
    }

    /// Receives once: at most one buffer of bytes. Where `account` holds too many buffers, or all are lent, it takes none
    /// of them but memory of its own.
    pub fn recv(&mut self, socket: &Descriptor, account: &Account, token: Token) -> OpKey {
        self.receive(socket, account, false, Call::Socket, token)
    }

    /// As [`recv_multishot`](Self::recv_multishot), from what is no socket: a pipe, a terminal. Its results are the same.
    pub fn read_multishot(&mut self, file: &Descriptor, account: &Account, token: Token) -> OpKey {
        self.receive(file, account, true, Call::File, token)
    }

    /// As [`recv`](Self::recv), from what is no socket: a pipe, a terminal. Its result is the same.
    pub fn read(&mut self, file: &Descriptor, account: &Account, token: Token) -> OpKey {
        self.receive(file, account, false, Call::File, token)
    }

    /// Receives datagrams with their senders until an error or a cancel; each is whole, up to the largest that there is.
    pub fn recv_from_multishot(
        &mut self,
        socket: &Descriptor,
        account: &Account,
        token: Token,
    ) -> OpKey {
        let own = (!self.has_datagram_group()).then_some(LONGEST_DATAGRAM);
        let message = Message::new(own);
        let account = account.clone();
        self.start_on(socket, token, Kind::RecvFrom { account, multishot: true, message })
    }

    /// Receives one datagram with its sender; what is beyond `len` bytes is lost, as `recvfrom(2)` loses it. More than 16 MiB
    /// are never waited for.
    pub fn recv_from(&mut self, socket: &Descriptor, len: usize, token: Token) -> OpKey {
        let message = Message::new(Some(len.min(LONGEST_RECEIVE)));
        let account = Account::new();
        self.start_on(socket, token, Kind::RecvFrom { account, multishot: false, message })
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
        self.start_send(socket, queue, dont_wait, Call::Socket, token)
    }

    /// As [`send`](Self::send), to what is no socket: a pipe, a terminal. Its result is the same.
    pub fn write(
        &mut self,
        file: &Descriptor,
        queue: SendQueue,
        dont_wait: bool,
        token: Token,
    ) -> OpKey {
        self.start_send(file, queue, dont_wait, Call::File, token)
    }

    /// Sends what is in `queue` as one datagram, which may be empty: to `address`, or to whom the socket is connected.
    pub fn send_to(
        &mut self,
        socket: &Descriptor,
        queue: SendQueue,
        address: Option<&SockAddr>,
        dont_wait: bool,
        token: Token,
    ) -> OpKey {
        let address = address.map(|address| Box::new(address.clone()));
        self.start_on(socket, token, Kind::SendTo { queue, dont_wait, address })
    }

    /// Connects. A cancelled or failed one leaves a socket that is of no more use.
    pub fn connect(&mut self, socket: &Descriptor, address: &SockAddr, token: Token) -> OpKey {
        self.start_on(socket, token, Kind::Connect { address: Box::new(address.clone()) })
    }

    /// Ends a stream in one direction or both. A send that is in flight may be cut off: wait for it first.
    ///
    /// The kernel gives this to a thread of its own; `shutdown(2)` is cheaper, and does not wait either.
    pub fn shutdown(&mut self, socket: &Descriptor, how: Shutdown, token: Token) -> OpKey {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        self.start_on(socket, token, Kind::Shutdown { how })
    }

    /// Waits once until `fd` is ready. What is ready already completes at once, so arming it again after each completion
    /// is level-triggered.
    pub fn poll(&mut self, fd: &Descriptor, interest: Interest, token: Token) -> OpKey {
        self.start_on(fd, token, Kind::Poll { interest, multishot: false })
    }

    /// Waits until `fd` is ready, again and again: each time that something comes, and at once if it is ready already. What the
    /// caller leaves there is not told again. Over epoll it is as [`poll`](Self::poll), and ends with its first completion.
    pub fn poll_multishot(&mut self, fd: &Descriptor, interest: Interest, token: Token) -> OpKey {
        self.start_on(fd, token, Kind::Poll { interest, multishot: true })
    }

    /// Takes a file of someone else's to be polled: the one that `fd` names now, whatever happens to that number later. It
    /// stays open until it is [unwatched](Self::unwatch). One watch per number at a time.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`: `EPERM` for what is always ready (regular files, `/dev/null`), `EBADF` for a number that is not
    /// open.
    pub fn watch(&mut self, fd: &impl AsRawFd) -> io::Result<WatchedFile> {
        if !self.backend.is_ours() {
            return Err(fork::refusal());
        }
        let table = match &self.files {
            Some(table) => Rc::clone(table),
            None => Rc::clone(self.files.insert(FileTable::new(self.backend.ring(), &self.waker)?)),
        };
        table.watch(self.backend.ring(), fd.as_raw_fd())
    }

    /// Waits once until `file` is ready, as [`poll`](Self::poll). One op at a time for each.
    pub fn poll_watched(&mut self, file: &WatchedFile, interest: Interest, token: Token) -> OpKey {
        let op_file = match file.place() {
            Place::Slot(slot) => OpFile::Slot(*slot),
            // A file of a driver that is gone is nowhere.
            Place::Duplicate(fd) => fd.upgrade().map_or(OpFile::Slot(NOWHERE), OpFile::Descriptor),
        };
        let key = self.start(op_file, token, Kind::Poll { interest, multishot: false });
        file.op().set(Some(key));
        key
    }

    /// Lets go of `file`: if it was closed meanwhile, its peer sees that now. An op that is still in flight on it is
    /// [retired](Self::retire), and what it gave is dropped.
    pub fn unwatch(&mut self, file: WatchedFile) {
        if let Some(key) = file.op().get() {
            if !self.is_let_go(key) {
                drop(self.retire(key));
            }
        }
        drop(file);
        if let Some(table) = &self.files {
            table.clear_abandoned(self.backend.ring());
        }
    }

    /// Closes `fd` with the next submission, if nobody else holds it; else when the last one lets go.
    pub fn close(&mut self, fd: Descriptor) {
        if !self.backend.is_ours() {
            return; // A forked child closes its own copy here, and submits nothing.
        }
        if let Ok(fd) = fd.into_owned() {
            if let Backend::Epoll(epoll) = &mut *self.backend {
                return epoll.close(fd);
            }
            let request = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
            self.push(&request.user_data(Tag::Aside.encode()).flags(Flags::SKIP_SUCCESS));
        }
    }

    /// Asks for the end of an op. Its last completion still comes: [`libc::ECANCELED`], or the bytes or the connection if
    /// they were first.
    pub fn cancel(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if mem::replace(&mut op.cancelled, true) {
            return;
        }
        match op.state {
            State::Armed | State::Fed | State::Polling => {}
            State::Starved => {
                self.starved.retain(|&starved| starved != key);
                return self.end_locally(key);
            }
            State::Quiet => {
                // The op ends here; the poll that was kept apart for it ends when the kernel says so.
                self.push_cancel(Tag::Quiet(key));
                return self.end_locally(key);
            }
        }
        self.push_cancel(Tag::Op(key));
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
        self.submit_all()?;
        if let Some(completion) = self.peek(key) {
            return Ok(Some(completion));
        }
        self.enter_and_look()?; // A pipe's ops, for one, are complete only with deferred work.
        Ok(self.peek(key))
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
        if !self.backend.is_ours() {
            // The kernel has nothing of a forked child's memory, and tells it of no end.
            self.end_locally(key);
        }
        let end = Instant::now() + PATIENCE;
        self.decode_all();
        while !self.is_let_go(key) && Instant::now() < end {
            if self.enter_for_one(STEP).is_err() {
                break;
            }
            self.decode_all();
        }
        std::iter::from_fn(|| self.take_decoded(key)).collect()
    }

    /// Gives everything that is queued to the kernel, without waiting. What has been armed before is left to the next
    /// [`wait`](Self::wait), as far as that can be: nothing is received meanwhile.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn submit(&mut self) -> io::Result<()> {
        self.submit_all()
    }

    /// Gives everything that is queued to the kernel and waits for a completion, in one call. Returns at once if there is
    /// one already, or a wake-up, or while receives take turns for want of buffers.
    ///
    /// # Errors
    ///
    /// Only what ends the ring: a lost completion (`EBADR`), another thread's use of it, or its use in a forked child. A
    /// signal, a timeout and a passing lack of memory are no errors: the call returns, and what was not submitted stays
    /// queued.
    pub fn wait(&mut self, until: Wait) -> io::Result<()> {
        if self.overflown {
            self.grow();
        }
        self.feed_starved();
        let is_busy = until == Wait::Now || self.feeding.goes_on();
        if is_busy || (self.backend.ring().is_some() && self.has_completions()) {
            self.enter_and_look()?;
        } else {
            let asleep = self.waker.sleep();
            let result = if asleep { self.enter_for_one(until) } else { self.enter_and_look() };
            self.waker.woken();
            result?;
        }
        self.sweep()
    }

    /// The next completion, if there is one.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        let mut no_end = usize::MAX;
        self.reap(&mut NoSink, &mut no_end)
    }

    /// Whether [`next_completion`](Self::next_completion) has something to decode.
    pub fn has_completions(&mut self) -> bool {
        !self.decoded.is_empty() || self.has_entries()
    }

    /// Whether the kernel knows nothing of `key` any more.
    fn is_let_go(&self, key: OpKey) -> bool {
        !self.ops.contains(key) && !self.quiet.has(key)
    }

    fn receive(
        &mut self,
        fd: &Descriptor,
        account: &Account,
        multishot: bool,
        call: Call,
        token: Token,
    ) -> OpKey {
        let own = if multishot { None } else { self.memory_for_one(account) };
        let (account, left) = (account.clone(), 0);
        self.start_on(fd, token, Kind::Recv { account, multishot, own, call, left })
    }

    /// Memory for a single receive that is to take no buffer of a group.
    fn memory_for_one(&self, account: &Account) -> Option<Vec<u8>> {
        (account.is_over() || self.free_buffers() == 0).then(|| self.own_buffer())
    }

    fn start_send(
        &mut self,
        fd: &Descriptor,
        queue: SendQueue,
        dont_wait: bool,
        call: Call,
        token: Token,
    ) -> OpKey {
        self.start_on(fd, token, Kind::Send { queue, dont_wait, call, shown: Shown::ALL })
    }

    #[inline]
    fn start_on(&mut self, fd: &Descriptor, token: Token, kind: Kind) -> OpKey {
        self.start(OpFile::Descriptor(fd.clone()), token, kind)
    }

    fn start(&mut self, file: OpFile, token: Token, kind: Kind) -> OpKey {
        self.prompt += usize::from(kind.is_prompt());
        let key = self.ops.insert(file, token, kind);
        self.arm(key);
        key
    }

    fn leased(&self) -> u64 {
        let retired = self.retired.iter().filter_map(Weak::upgrade);
        self.all_groups().cloned().chain(retired).map(|group| u64::from(group.leased())).sum()
    }

    fn all_groups(&self) -> impl Iterator<Item = &Rc<Group>> {
        self.groups.iter().chain(&self.datagrams).chain(&self.direct).chain(&self.large)
    }
}

/// How long the kernel may take to end an op that was cancelled.
const PATIENCE: Duration = Duration::from_secs(2);
/// One step of that.
const STEP: Limit = Limit::After(Duration::from_millis(10));

/// No slot of any file table.
const NOWHERE: u32 = u32::MAX;

/// Longer than any datagram: a local one is bounded by the buffers of its socket.
const LONGEST_RECEIVE: usize = 1 << 24;

/// The largest that IP has.
const LONGEST_DATAGRAM: usize = 1 << 16;
