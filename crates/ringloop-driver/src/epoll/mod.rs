//! Completions made of readiness: the backend for kernels and sandboxes that refuse io_uring.
//!
//! ```text
//! arm, cancel, close -> queue -- flush --> tried at once -------------------------> entries
//!                                   |        | it would have to wait                  ^
//!                                   |        v                                        |
//!                                   '---> waits on its descriptor -- epoll_wait --> tried
//! ```
//!
//! * What is queued is done with the next flush, in order. Sends, and receives that are asked for once, are tried at once:
//!   most of them need no look at their readiness. Multishot ops and polls first wait: whether they are ready shows in the
//!   same call that waits.
//! * An op that is ready is tried with calls that do not wait. So nothing happens to its memory but inside such a call, and
//!   a cancel takes effect at once: bytes and connections that nobody took stay with the kernel.
//! * Epoll is level-triggered here: what one iteration leaves is reported again by the next, behind all others.
//! * An iteration takes as many events as there are buffers for receives, one at a time for each descriptor that has few
//!   bytes, and 256 KiB at most of one that has many.

pub(crate) mod calls;
mod poller;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use self::calls::Nonblocking;
pub(crate) use self::poller::Registration;
use self::poller::{BROKEN, INPUT, OUTPUT, Poller, WAKE, Waiter, number_of};
use crate::buffers::Group;
use crate::entry::Entry;
use crate::key::{OpKey, Tag};
use crate::op::{Call, Kind, Op, OpFile, Ops, State};
use crate::wait::Wait;
use crate::{DriverWaker, datagram, fork};

/// An epoll instance with the ops that wait on it, bound to the thread that made it.
pub(crate) struct Epoll {
    poller: Rc<Poller>,
    /// What was asked for since the last flush.
    queue: VecDeque<Request>,
    entries: VecDeque<Entry>,
    events: Box<[libc::epoll_event]>,
    /// Connects to `AF_UNIX` listeners whose backlog is full: no event tells when there is room.
    retries: Vec<OpKey>,
    round: u32,
    /// Whether the last wait has asked the kernel what is ready.
    has_looked: bool,
    /// Numbers that were ready for nobody in this round.
    in_vain: Vec<RawFd>,
}

enum Request {
    Arm(OpKey),
    Cancel(OpKey),
    Close(OwnedFd),
}

/// What the driver lends for the time of a call.
pub(crate) struct Work<'a> {
    pub(crate) ops: &'a mut Ops,
    /// Of which a receive takes its buffer when there is something to receive: the first that offers one.
    pub(crate) groups: &'a [Rc<Group>],
    pub(crate) datagrams: Option<&'a Group>,
    /// Bytes after which a multishot receive ends.
    pub(crate) limit: u32,
    /// Whether somebody polls or connects: then all that is ready is to be seen in one iteration.
    pub(crate) prompt: bool,
}

impl Work<'_> {
    /// Buffers that receives may fill.
    fn room(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.to_be_filled())).sum()
    }

    /// Whether so few buffers are left that it is better to wait for those that entries hold.
    pub(crate) fn is_short(&self) -> bool {
        self.room() < FEWEST_EVENTS
    }
}

/// What a try has come to.
enum Tried {
    /// Its last entry is there.
    Over,
    /// It waits for these events.
    Waits(u32),
    /// It waits for something that no event tells of.
    Later,
}

impl Epoll {
    /// # Errors
    ///
    /// As `epoll_create1(2)` and `epoll_ctl(2)`.
    pub(crate) fn new(waker: &DriverWaker) -> io::Result<Self> {
        let nothing = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self {
            poller: Poller::new(waker)?,
            queue: VecDeque::new(),
            entries: VecDeque::new(),
            events: vec![nothing; MOST_EVENTS].into(),
            retries: Vec::new(),
            round: 0,
            has_looked: true,
            in_vain: Vec::new(),
        })
    }

    /// Whether this process has made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.poller.is_ours()
    }

    /// Queues an op.
    #[inline]
    pub(crate) fn arm(&mut self, key: OpKey) {
        self.queue.push_back(Request::Arm(key));
    }

    /// Queues the end of an op. Its last entry comes with the next flush, if it is not there already.
    pub(crate) fn cancel(&mut self, key: OpKey) {
        self.queue.push_back(Request::Cancel(key));
    }

    /// Queues the close of a descriptor.
    pub(crate) fn close(&mut self, fd: OwnedFd) {
        self.queue.push_back(Request::Close(fd));
    }

    /// Whether something is queued.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    #[inline]
    pub(crate) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// Does what is queued, in order, as far as that goes without waiting. Gives how much it was.
    ///
    /// # Errors
    ///
    /// In a forked child.
    pub(crate) fn flush(&mut self, work: &mut Work<'_>) -> io::Result<u32> {
        if !self.is_ours() {
            return Err(fork::refusal());
        }
        let mut count = 0;
        while let Some(request) = self.queue.pop_front() {
            count += 1;
            match request {
                Request::Arm(key) => self.start(key, work),
                Request::Cancel(key) => self.end(key, work),
                Request::Close(fd) => drop(fd),
            }
        }
        Ok(count)
    }

    /// How to look at what is ready, now that a wait is over before it has begun, since entries are there. They are taken
    /// first: they may hold the buffers that the next receives need, and a look that finds nothing costs a call. Every other
    /// wait looks, so that entries which are there each time keep nobody waiting.
    pub(crate) fn look_after_entries(&mut self) -> Option<Wait> {
        self.has_looked = !self.has_looked;
        self.has_looked.then_some(Wait::Now)
    }

    /// Waits for an entry if there is none, and makes entries of all that is ready. Gives how often it has asked for that.
    ///
    /// # Errors
    ///
    /// `EINTR`, and in a forked child.
    pub(crate) fn wait(&mut self, until: Wait, work: &mut Work<'_>) -> io::Result<u32> {
        if !self.is_ours() {
            return Err(fork::refusal());
        }
        self.has_looked = true;
        let mut looks: u32 = 0;
        loop {
            looks = looks.saturating_add(1);
            self.retry(work);
            let limit = if self.has_entries() { Some(Duration::ZERO) } else { self.limit(until) };
            self.take_events(limit, work)?;
            // A wait that was ended by what concerns nobody is none; it was quietened, so it does not come again.
            let is_over = self.has_entries()
                || limit.is_some_and(|limit| limit.is_zero())
                || matches!(until, Wait::Until(end) if Instant::now() >= end);
            if is_over {
                return Ok(looks);
            }
        }
    }

    fn limit(&self, until: Wait) -> Option<Duration> {
        let limit = match until {
            Wait::Now => Some(Duration::ZERO),
            Wait::Until(end) => Some(end.saturating_duration_since(Instant::now())),
            Wait::Forever => None,
        };
        if self.retries.is_empty() {
            limit
        } else {
            Some(limit.map_or(RETRY, |limit| limit.min(RETRY)))
        }
    }

    /// One `epoll_wait`; where polls or connects are in flight, one more, which does not wait, for the rest.
    fn take_events(&mut self, limit: Option<Duration>, work: &mut Work<'_>) -> io::Result<()> {
        self.round = self.round.wrapping_add(1);
        let most = work.room().clamp(FEWEST_EVENTS, MOST_EVENTS);
        let count = calls::wait(self.poller.epoll(), &mut self.events[..most], limit)?;
        self.serve_all(count, work);
        if work.prompt && count == most {
            let rest = calls::wait(self.poller.epoll(), &mut self.events, Some(Duration::ZERO));
            self.serve_all(rest.unwrap_or(0), work);
        }
        self.quieten();
        Ok(())
    }

    fn serve_all(&mut self, count: usize, work: &mut Work<'_>) {
        for place in 0..count {
            let libc::epoll_event { events, u64: word } = self.events[place];
            if word == WAKE {
                self.entries.push_back(Entry::of(Tag::Wake, 0, true));
            } else {
                let (number, generation) = number_of(word);
                self.serve(number, generation, events, work);
            }
        }
    }

    /// Tries the ops that wait on `number` for what it is ready for, the one that was armed last first.
    fn serve(&mut self, number: RawFd, generation: u32, events: u32, work: &mut Work<'_>) {
        let Self { poller, entries, round, in_vain, retries, .. } = self;
        poller.with_slot(number, |slot| {
            if slot.generation != generation || std::mem::replace(&mut slot.round, *round) == *round
            {
                return;
            }
            let mut is_wanted = false;
            let mut wanted = 0;
            for place in (0..slot.waiters.len()).rev() {
                let waiter = &mut slot.waiters[place];
                let ready = events & (waiter.events | BROKEN);
                if ready == 0 {
                    wanted |= waiter.events;
                    continue;
                }
                is_wanted = true;
                let tried = match work.ops.get_mut(waiter.key) {
                    Some(op) => {
                        let mut attempt = Attempt {
                            entries,
                            groups: work.groups,
                            datagrams: work.datagrams,
                            limit: work.limit,
                            taken: &mut waiter.taken,
                            may_wait: false,
                        };
                        attempt.of(waiter.key, op, ready)
                    }
                    None => Tried::Over,
                };
                match tried {
                    Tried::Waits(events) => {
                        waiter.events = events;
                        wanted |= events;
                    }
                    Tried::Over => drop(slot.waiters.remove(place)),
                    Tried::Later => retries.push(slot.waiters.remove(place).key),
                }
            }
            if wanted & !slot.registered != 0 {
                // Without it the op waits for what it is registered for already, and is tried again then.
                let _ = poller.register(number, slot, slot.registered | wanted);
            }
            if is_wanted {
                slot.in_vain = 0;
            } else {
                // Room is there nearly always; bytes that nobody takes now may be taken in the next iteration.
                let weight = if events & (OUTPUT | BROKEN) == 0 { 1 } else { PATIENCE };
                slot.in_vain = slot.in_vain.saturating_add(weight);
                in_vain.push(number);
            }
        });
    }

    /// What is ready for nobody again and again, or has ended a wait alone, is asked for no more.
    fn quieten(&mut self) {
        let alone = !self.has_entries();
        while let Some(number) = self.in_vain.pop() {
            let is_enough = self.poller.with_slot(number, |slot| alone || slot.in_vain >= PATIENCE);
            if is_enough == Some(true) {
                self.poller.quieten(number);
            }
        }
    }

    /// Tries an op that was armed, or lets it wait.
    fn start(&mut self, key: OpKey, work: &mut Work<'_>) {
        let Some(op) = work.ops.get_mut(key) else { return };
        if let OpFile::Slot(_) = op.file {
            let error = io::Error::from_raw_os_error(libc::EBADF);
            return self.entries.push_back(Entry::last(key, Err(error)));
        }
        let waits = match first_step(op) {
            Step::Wait(events) => Tried::Waits(events),
            Step::Try => self.attempt(key, work, false),
        };
        self.settle(key, waits, work);
    }

    fn settle(&mut self, key: OpKey, tried: Tried, work: &mut Work<'_>) {
        match tried {
            Tried::Over => {}
            Tried::Later => self.retries.push(key),
            Tried::Waits(events) => self.let_wait(key, events, work),
        }
    }

    fn let_wait(&mut self, key: OpKey, events: u32, work: &mut Work<'_>) {
        let Some(op) = work.ops.get_mut(key) else { return };
        let OpFile::Descriptor(fd) = &op.file else { return };
        let Err(error) = self.poller.wait_on(fd, Waiter { key, events, taken: 0 }) else { return };
        if error.raw_os_error() != Some(libc::EPERM) {
            return self.entries.push_back(Entry::last(key, Err(error)));
        }
        // A regular file, or the like: it is always ready, so this does not end in a wait for it.
        match &op.kind {
            Kind::Poll { .. } => {
                let ready = i32::try_from(events).unwrap_or(0);
                self.entries.push_back(Entry::of(Tag::Op(key), ready, false));
            }
            _ => {
                if let Tried::Waits(_) | Tried::Later = self.attempt(key, work, true) {
                    self.entries.push_back(Entry::last(key, Err(error)));
                }
            }
        }
    }

    fn attempt(&mut self, key: OpKey, work: &mut Work<'_>, may_wait: bool) -> Tried {
        let Some(op) = work.ops.get_mut(key) else { return Tried::Over };
        let mut attempt = Attempt {
            entries: &mut self.entries,
            groups: work.groups,
            datagrams: work.datagrams,
            limit: work.limit,
            taken: &mut 0,
            may_wait,
        };
        attempt.of(key, op, 0)
    }

    /// Ends an op, unless its last entry is there already.
    fn end(&mut self, key: OpKey, work: &mut Work<'_>) {
        let Some(op) = work.ops.get_mut(key) else { return };
        let OpFile::Descriptor(fd) = &op.file else { return };
        let waited = self.poller.stop_waiting(fd.as_raw_fd(), key) || self.stop_retrying(key);
        if waited {
            self.entries.push_back(Entry::of(Tag::Op(key), -libc::ECANCELED, false));
        }
    }

    fn stop_retrying(&mut self, key: OpKey) -> bool {
        let place = self.retries.iter().position(|&other| other == key);
        place.map(|place| self.retries.swap_remove(place)).is_some()
    }

    fn retry(&mut self, work: &mut Work<'_>) {
        for key in std::mem::take(&mut self.retries) {
            let tried = self.attempt(key, work, false);
            self.settle(key, tried, work);
        }
    }
}

/// How an op begins.
enum Step {
    Try,
    Wait(u32),
}

/// What is often ready at once is tried; of the rest, the wait that follows says at no cost whether it is.
fn first_step(op: &Op) -> Step {
    match &op.kind {
        Kind::Poll { interest, .. } => Step::Wait(interest.mask()),
        Kind::Recv { .. } if op.state == State::Polling => Step::Wait(INPUT),
        // One that found no buffer has something to receive.
        Kind::Recv { own: None, multishot: true, call: Call::Socket, .. }
            if op.state != State::Fed =>
        {
            Step::Wait(INPUT)
        }
        Kind::RecvFrom { multishot: true, message, .. } if !message.has_own() => Step::Wait(INPUT),
        _ => Step::Try,
    }
}

/// One try of one op.
struct Attempt<'a> {
    entries: &'a mut VecDeque<Entry>,
    groups: &'a [Rc<Group>],
    datagrams: Option<&'a Group>,
    limit: u32,
    /// Bytes that a multishot receive has had already.
    taken: &'a mut u32,
    /// It is of a file for which nothing has to wait.
    may_wait: bool,
}

impl Attempt<'_> {
    /// Does what `op` asks for, as far as that goes; `ready` are the events that were reported, if there were some.
    #[inline(always)]
    fn of(&mut self, key: OpKey, op: &mut Op, ready: u32) -> Tried {
        // What almost every event is for.
        if let (
            OpFile::Descriptor(descriptor),
            Kind::Recv { own: None, multishot: true, call: Call::Socket, left, .. },
        ) = (&op.file, &mut op.kind)
        {
            if op.state != State::Polling {
                let large = op.group.as_deref();
                if *self.taken == 0 {
                    *left = large.map_or(self.limit, Group::limit);
                }
                return self.receive(key, descriptor.as_fd(), true, Call::Socket, large);
            }
        }
        self.of_any(key, op, ready)
    }

    #[inline(never)]
    fn of_any(&mut self, key: OpKey, op: &mut Op, ready: u32) -> Tried {
        let OpFile::Descriptor(descriptor) = &op.file else { return Tried::Over };
        let fd = descriptor.as_fd();
        if op.state == State::Polling {
            return self.last(key, Ok(INPUT as usize));
        }
        match &mut op.kind {
            Kind::Recv { own: Some(own), call, .. } => {
                let place = own.as_mut_ptr();
                let Some(place) = NonNull::new(place) else { return Tried::Over };
                // SAFETY: the op owns the memory, which is so long.
                let received =
                    unsafe { calls::receive(fd, place, own.len(), *call, self.may_wait) };
                self.last_unless_it_waits(key, received, INPUT)
            }
            Kind::Recv { multishot, call, left, .. } => {
                if *multishot && *self.taken == 0 {
                    *left = self.limit;
                }
                self.receive(key, fd, *multishot, *call, None)
            }
            Kind::RecvFrom { message, multishot, .. } => {
                if let Some(received) = message.receive_own(fd) {
                    return self.last_unless_it_waits(key, received, INPUT);
                }
                self.receive_datagrams(key, fd, *multishot)
            }
            Kind::Accept { multishot } => self.accept(key, fd, *multishot),
            Kind::Send { queue, dont_wait, call, shown } => {
                let gathered = shown.gather(queue);
                // SAFETY: the queue keeps what was gathered until it is changed or dropped.
                let sent = unsafe { calls::send(fd, &gathered, *call, self.may_wait) };
                self.sent(key, sent, *dont_wait)
            }
            Kind::SendTo { queue, dont_wait, address } => {
                let header = queue.gather_datagram(address.as_deref());
                // SAFETY: as above; the op owns the address.
                let sent = unsafe { calls::send_message(fd, header) };
                self.sent(key, sent, *dont_wait)
            }
            Kind::Connect { address } => match connect(fd, address, ready != 0) {
                Ok(()) => self.last(key, Ok(0)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Tried::Waits(OUTPUT),
                    Some(libc::EAGAIN) => Tried::Later,
                    _ => self.last(key, Err(error)),
                },
            },
            Kind::Poll { .. } => self.last(key, Ok(ready as usize)),
            Kind::Shutdown { how } => {
                let result = calls::shut_down(fd, *how);
                self.last(key, result.map(|()| 0))
            }
        }
    }

    /// Into buffers of a group, the large ones or any: one, or as many as there are bytes for.
    #[inline(always)]
    fn receive(
        &mut self,
        key: OpKey,
        fd: BorrowedFd<'_>,
        multishot: bool,
        call: Call,
        large: Option<&Group>,
    ) -> Tried {
        let before = *self.taken;
        let limit = large.map_or(self.limit, Group::limit);
        loop {
            let offered = match large {
                Some(group) => group.next_offered().map(|(index, place)| (group, index, place)),
                None => next_offered(self.groups),
            };
            let Some((group, index, place)) = offered else {
                if *self.taken != before {
                    return Tried::Waits(INPUT); // It has had its turn.
                }
                self.entries.push_back(Entry::of(Tag::Op(key), -libc::ENOBUFS, false));
                return Tried::Over;
            };
            let len = group.buffer_size();
            // SAFETY: the buffer is so long; it is offered, so nobody has it.
            let received = unsafe { calls::receive(fd, place, len, call, self.may_wait) };
            let count = match received {
                Ok(count) if count > 0 => count,
                end => return self.last_unless_it_waits(key, end, INPUT),
            };
            group.take_offered();
            *self.taken = self.taken.saturating_add(count as u32);
            let more = multishot && *self.taken < limit;
            self.entries.push_back(Entry::in_buffer(key, count, group.size().id, index, more));
            if !more {
                return Tried::Over;
            }
            if count < len {
                return Tried::Waits(INPUT); // There was no more, or what is left is reported again.
            }
        }
    }

    fn receive_datagrams(&mut self, key: OpKey, fd: BorrowedFd<'_>, multishot: bool) -> Tried {
        for _ in 0..MOST_DATAGRAMS {
            let offered = self.datagrams.and_then(|group| Some((group, group.next_offered()?)));
            let Some((group, (index, place))) = offered else {
                self.entries.push_back(Entry::of(Tag::Op(key), -libc::ENOBUFS, false));
                return Tried::Over;
            };
            // SAFETY: the buffer is so long; it is offered, so nobody has it.
            let received = unsafe { datagram::receive_into(fd, place, group.buffer_size()) };
            let count = match received {
                Ok(count) => count,
                Err(error) => return self.last_unless_it_waits(key, Err(error), INPUT),
            };
            group.take_offered();
            let id = group.size().id;
            self.entries.push_back(Entry::in_buffer(key, count, id, index, multishot));
            if !multishot {
                return Tried::Over;
            }
        }
        Tried::Waits(INPUT)
    }

    fn accept(&mut self, key: OpKey, fd: BorrowedFd<'_>, multishot: bool) -> Tried {
        let _nonblocking = Nonblocking::new(fd);
        for _ in 0..MOST_ACCEPTED {
            match calls::accept(fd) {
                Ok(accepted) => {
                    let result = std::os::fd::IntoRawFd::into_raw_fd(accepted);
                    self.entries.push_back(Entry::of(Tag::Op(key), result, multishot));
                    if !multishot {
                        return Tried::Over;
                    }
                }
                Err(error) => return self.last_unless_it_waits(key, Err(error), INPUT),
            }
        }
        Tried::Waits(INPUT)
    }

    fn sent(&mut self, key: OpKey, sent: io::Result<usize>, dont_wait: bool) -> Tried {
        if dont_wait { self.last(key, sent) } else { self.last_unless_it_waits(key, sent, OUTPUT) }
    }

    fn last_unless_it_waits(
        &mut self,
        key: OpKey,
        result: io::Result<usize>,
        events: u32,
    ) -> Tried {
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Tried::Waits(events),
            other => self.last(key, other),
        }
    }

    fn last(&mut self, key: OpKey, result: io::Result<usize>) -> Tried {
        self.entries.push_back(Entry::last(key, result));
        Tried::Over
    }
}

/// Begins to connect, unless what had begun `is_ready`. A connection inside the machine stands, or is refused, when the call
/// returns that says it has begun. The socket's error tells of a failure, for a second connect would make a new socket of one
/// that was refused, from which the end of the stream is received; without an error, the second one says that it stands.
fn connect(fd: BorrowedFd<'_>, address: &SockAddr, is_ready: bool) -> io::Result<()> {
    if !is_ready {
        match calls::connect(fd, address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                if !calls::is_ready(fd, libc::POLLOUT) {
                    return Err(error);
                }
            }
            connected => return connected,
        }
    }
    if let Some(error) = SockRef::from(&fd).take_error()? {
        return Err(error);
    }
    calls::connect(fd, address).or_else(|error| match error.raw_os_error() {
        Some(libc::EISCONN) => Ok(()),
        _ => Err(error),
    })
}

/// The buffer that the next receive is to fill, of the first group that offers one: so the others become idle.
#[inline]
fn next_offered(groups: &[Rc<Group>]) -> Option<(&Group, u16, NonNull<u8>)> {
    groups.iter().find_map(|group| {
        let (index, place) = group.next_offered()?;
        Some((&**group, index, place))
    })
}

/// Events of one call.
const MOST_EVENTS: usize = 1024;
/// The same, while nearly no buffer is offered.
const FEWEST_EVENTS: usize = 16;

/// Connections of one listener in one iteration.
const MOST_ACCEPTED: u32 = 128;
/// Datagrams of one socket in one iteration.
const MOST_DATAGRAMS: u32 = 32;

/// How often a descriptor may be ready for nobody.
const PATIENCE: u8 = 3;

/// How long a connect waits for a place in a backlog before it is tried again.
const RETRY: Duration = Duration::from_millis(5);
