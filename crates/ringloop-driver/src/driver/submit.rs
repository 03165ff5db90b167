//! How requests get to the kernel: they are queued, and submitted with the calls that wait.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry as Request, Flags};
use io_uring::{opcode, types};

use super::{Driver, Wait};
use crate::backend::Backend;
use crate::buffers::Group;
use crate::completion::Interest;
use crate::config::{Features, RingCounters};
use crate::epoll::Work;
use crate::key::{OpKey, Tag};
use crate::op::{Buffers, OpFile, State};
use crate::setup::MOST_COMPLETIONS;
use crate::sys;
use crate::uring::ring::{ENTER_GETEVENTS, ENTER_NO_IOWAIT, Limit, Ring};

impl Driver {
    /// Gives the op to the kernel, for the first time or again. If buffers are short, it gets a place in the queue of those
    /// that wait for one.
    pub(super) fn arm(&mut self, key: OpKey) {
        if self.must_queue(key) {
            return self.starve(key);
        }
        self.arm_on(key, None);
    }

    /// Gives the op to the kernel at once, past the queue of those that wait for buffers: it takes them from the group with
    /// this number, or from the first that has one.
    pub(super) fn arm_on(&mut self, key: OpKey, place: Option<usize>) {
        if self.hooks.spoil(key, &mut self.ops) {
            return;
        }
        if let Some(op) = self.ops.get_mut(key) {
            op.state = State::Armed;
            let large = self.large.as_ref().filter(|large| op.streams() && large.offered() > 0);
            match &mut *self.backend {
                Backend::Uring(_) => {
                    // The arm before this one is over.
                    op.group = match op.buffers() {
                        Buffers::Group => {
                            let place = place.unwrap_or_else(|| group_to_arm(&self.groups));
                            large.or_else(|| self.groups.get(place)).cloned()
                        }
                        Buffers::Datagrams => self.datagrams.clone(),
                        Buffers::Own => None,
                    };
                    let limit = large.map_or(self.limit, |large| large.limit());
                    let request = op.request(key, limit);
                    self.push(&request);
                }
                Backend::Epoll(epoll) => {
                    op.group = large.cloned();
                    epoll.arm(key);
                }
            }
        }
    }

    /// Waits, for a receive without a buffer, until it has something to receive.
    pub(super) fn arm_poll(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let OpFile::Descriptor(fd) = &op.file else { return };
        let fd = types::Fd(fd.as_raw_fd());
        op.state = State::Polling;
        if let Backend::Epoll(epoll) = &mut *self.backend {
            return epoll.arm(key);
        }
        let mask = Interest { read: true, write: false }.mask();
        let request = opcode::PollAdd::new(fd, mask).build();
        self.push(&request.user_data(Tag::Op(key).encode()));
    }

    pub(super) fn arm_wake(&mut self) {
        // An epoll instance is told of the eventfd once.
        let is_armed = self.wake_armed || self.backend.ring().is_none();
        if self.closing || is_armed {
            return;
        }
        self.wake_armed = true;
        let fd = types::Fd(self.waker.eventfd().as_raw_fd());
        let mask = Interest { read: true, write: false }.mask();
        let request = opcode::PollAdd::new(fd, mask).multi(true).build();
        self.push(&request.user_data(Tag::Wake.encode()));
    }

    /// Asks the kernel to end one request of ours. Its last entry is still to come.
    pub(super) fn push_cancel(&mut self, subject: Tag) {
        if let (Backend::Epoll(epoll), Tag::Op(key)) = (&mut *self.backend, subject) {
            return epoll.cancel(key);
        }
        let request = opcode::AsyncCancel::new(subject.encode()).build();
        self.push(&request.user_data(Tag::Aside.encode()).flags(Flags::SKIP_SUCCESS));
    }

    /// Queues a request behind all that were queued before. Nothing is dropped: what does not fit waits.
    pub(super) fn push(&mut self, request: &Request) {
        if self.backlog.is_empty() {
            if self.try_push(request) {
                return;
            }
            self.count_in_ring(|counters| counters.backlogs += 1);
            // An error will be met again by the next wait, which can report it.
            let _ = self.hand_over();
            if self.try_push(request) {
                return;
            }
        }
        self.backlog.push_back(request.clone());
    }

    #[inline]
    fn try_push(&mut self, request: &Request) -> bool {
        match &mut *self.backend {
            // SAFETY: the addresses in a request are of memory that its op owns until the last completion; a cancel, a close
            // and the wake-up name no memory.
            Backend::Uring(ring) => unsafe { ring.push(request) },
            Backend::Epoll(_) => true, // Nothing of it is asked by requests.
        }
    }

    /// Enters until nothing is queued any more, or the kernel takes no more for now; and no deferred work is done: nothing
    /// is received between two waits, by which those who are served in between would get ahead of the others.
    pub(super) fn submit_all(&mut self) -> io::Result<()> {
        if let Backend::Epoll(_) = &*self.backend {
            return self.call_epoll(None);
        }
        loop {
            self.refill();
            let is_last = self.backlog.is_empty();
            if self.hand_over()? == 0 || is_last {
                return Ok(());
            }
        }
    }

    /// Submits what is queued, and does all deferred work without waiting, that of these submissions too: a receive whose
    /// bytes were sent by this call is complete when it returns.
    pub(super) fn enter_and_look(&mut self) -> io::Result<()> {
        if let Backend::Epoll(_) = &*self.backend {
            return self.call_epoll(Some(Wait::Now));
        }
        self.enter_all(0, Limit::None, ENTER_GETEVENTS)
    }

    /// As [`enter_and_look`](Self::enter_and_look), and waits for a completion.
    pub(super) fn enter_for_one(&mut self, limit: impl Into<Patience>) -> io::Result<()> {
        self.enter_for(1, limit)
    }

    /// As [`enter_for_one`](Self::enter_for_one), for more of them.
    pub(super) fn enter_for(&mut self, want: u32, limit: impl Into<Patience>) -> io::Result<()> {
        let patience = limit.into();
        if let Backend::Epoll(_) = &*self.backend {
            return self.call_epoll(Some(patience.until()));
        }
        let limit = match patience {
            Patience::Limit(limit) => limit,
            Patience::Until(when) => self.wait_limit(when),
        };
        self.enter_all(want, limit, ENTER_GETEVENTS)
    }

    /// The kernel runs about 20 pieces of deferred work in one call, and none in a call that only gives it ops, though a
    /// connect to this machine is done as soon as that has run. Where polls or connects are in flight, one more call, which
    /// does not wait, runs what is left over, so that every ready descriptor is seen in this iteration. Streams do not need
    /// that, and are faster without it: measured.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        if self.prompt > 0 && self.backend.ring().is_some_and(Ring::has_task_work) {
            let most = (self.backend.completion_entries() / 2).min(SWEEP);
            self.enter_once(most, Limit::After(Duration::ZERO), ENTER_GETEVENTS)?;
        }
        Ok(())
    }

    /// Makes the completion queue larger, once after each overflow.
    #[cold]
    pub(super) fn grow(&mut self) {
        self.overflown = false;
        let Backend::Uring(ring) = &mut *self.backend else { return };
        let entries = ring.completion_entries();
        if self.info.features.contains(Features::RESIZE_RINGS) && entries < MOST_COMPLETIONS {
            ring.grow(entries * 2);
        }
    }

    fn enter_all(&mut self, want: u32, limit: Limit, flags: u32) -> io::Result<()> {
        loop {
            self.refill();
            if self.backlog.is_empty() {
                self.enter_once(want, limit, flags)?;
                return Ok(());
            }
            if self.hand_over()? == 0 {
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

    /// Gives the kernel what is in the submission queue, and lets it do no deferred work: receives that are ready would
    /// take the buffers of starved receives whose turn it is.
    fn hand_over(&mut self) -> io::Result<u32> {
        self.enter_with(0, Limit::None, 0, false)
    }

    /// One `io_uring_enter`, or none if it could do nothing. Gives how many requests the kernel took.
    fn enter_once(&mut self, want: u32, limit: Limit, flags: u32) -> io::Result<u32> {
        let has_task_work = self.backend.ring().is_some_and(Ring::has_task_work);
        self.enter_with(want, limit, flags, has_task_work)
    }

    fn enter_with(
        &mut self,
        want: u32,
        limit: Limit,
        mut flags: u32,
        does_task_work: bool,
    ) -> io::Result<u32> {
        let want = if self.hooks.interrupt(want > 0) { 0 } else { want };
        let Backend::Uring(ring) = &*self.backend else { return Ok(0) };
        let (overflown, queued) = (ring.is_overflown(), ring.queued());
        if overflown {
            self.count_in_ring(|counters| counters.overflows += 1);
            self.overflown = true;
        }
        let has_work = overflown || does_task_work;
        if want == 0 && !has_work && queued == 0 {
            return Ok(0);
        }
        if has_work {
            flags |= ENTER_GETEVENTS;
        }
        if want > 0 && self.info.features.contains(Features::NO_IOWAIT) {
            flags |= ENTER_NO_IOWAIT;
        }
        if let Err(error) = self.hooks.refuse() {
            return self.refused(error);
        }
        self.counters.rounds += 1;
        let Backend::Uring(ring) = &mut *self.backend else { return Ok(0) };
        match ring.enter(want, flags, if want > 0 { limit } else { Limit::None }) {
            Ok(taken) => {
                self.counters.submitted += u64::from(taken);
                Ok(taken)
            }
            Err(error) => self.refused(error),
        }
    }

    /// Does what is queued, and takes what is ready: now or later, or not at all.
    fn call_epoll(&mut self, until: Option<Wait>) -> io::Result<()> {
        let interrupted = self.hooks.interrupt(until.is_some_and(|until| until != Wait::Now));
        let until = until.map(|until| if interrupted { Wait::Now } else { until });
        if let Err(error) = self.hooks.refuse() {
            return self.refused(error).map(drop);
        }
        let has_decoded = !self.decoded.is_empty();
        let Backend::Epoll(epoll) = &mut *self.backend else { return Ok(()) };
        let mut work = Work {
            ops: &mut self.ops,
            groups: &self.groups,
            datagrams: self.datagrams.as_deref(),
            limit: self.limit,
            prompt: self.prompt > 0,
        };
        let flushed = epoll.flush(&mut work)?;
        self.counters.submitted += u64::from(flushed);
        let until = match until {
            // Without an op there is nothing to look at.
            Some(Wait::Now) if work.ops.is_empty() => None,
            Some(when)
                if (when != Wait::Now || work.is_short())
                    && (has_decoded || epoll.has_entries()) =>
            {
                epoll.look_after_entries()
            }
            until => until,
        };
        let Some(until) = until else {
            self.counters.rounds += u64::from(flushed > 0);
            return Ok(());
        };
        match epoll.wait(until, &mut work) {
            Ok(looks) => {
                self.counters.rounds += u64::from(looks);
                Ok(())
            }
            Err(error) => {
                self.counters.rounds += 1;
                self.refused(error).map(drop)
            }
        }
    }

    #[cold]
    fn count_in_ring(&mut self, count: impl FnOnce(&mut RingCounters)) {
        self.counters.ring.as_mut().map(count);
    }

    /// Most errors of `io_uring_enter` mean "not now".
    fn refused(&mut self, error: io::Error) -> io::Result<u32> {
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

    fn wait_limit(&self, until: Wait) -> Limit {
        let when = match until {
            Wait::Now => return Limit::After(Duration::ZERO),
            Wait::Forever => return Limit::None,
            Wait::Until(when) => when,
        };
        if self.info.features.contains(Features::ABS_TIMER) {
            let (instant, since_boot) = self.epoch;
            return Limit::At(since_boot.saturating_add(when.saturating_duration_since(instant)));
        }
        Limit::After(when.saturating_duration_since(Instant::now()))
    }
}

/// The place of the first group with a free buffer, so that the others become idle.
fn group_to_arm(groups: &[Rc<Group>]) -> usize {
    groups.iter().position(|group| group.free() > 0).unwrap_or(0)
}

/// How long to wait, by whoever says it.
pub(super) enum Patience {
    Limit(Limit),
    Until(Wait),
}

impl Patience {
    fn until(self) -> Wait {
        match self {
            Self::Until(until) => until,
            Self::Limit(Limit::After(time)) => Wait::Until(Instant::now() + time),
            Self::Limit(Limit::None | Limit::At(_)) => Wait::Forever,
        }
    }
}

impl From<Limit> for Patience {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

impl From<Wait> for Patience {
    fn from(until: Wait) -> Self {
        Self::Until(until)
    }
}

/// One moment on std's clock, and on the kernel's. The second is read later, so that a deadline that is told by it is
/// never early.
pub(super) fn both_clocks() -> (Instant, Duration) {
    (Instant::now(), sys::monotonic_clock())
}

/// Pieces of deferred work that one more call may run.
const SWEEP: u32 = 256;
