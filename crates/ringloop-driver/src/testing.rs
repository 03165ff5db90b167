//! For tests only, and without promises: what may go wrong goes wrong, by a seed.
//!
//! The layer stands between the ring and the driver, behind the driver's face, so that all that is above runs on it
//! unchanged. It only does what a kernel may do:
//!
//! | knob | what happens | why nothing is lost |
//! | --- | --- | --- |
//! | [`short_sends`](Faults::short_sends) | the kernel is given less than there is | it says how much it took |
//! | [`short_receives`](Faults::short_receives) | the bytes of one completion come in two | both are slices of one lease |
//! | [`interrupted`](Faults::interrupted) | an op ends with `EINTR` before the kernel knows it; a wait returns early | nothing was consumed |
//! | [`no_buffers`](Faults::no_buffers) | a receive ends with `ENOBUFS` before the kernel knows it | as above |
//! | [`errors`](Faults::errors) | an op fails with an errno of its kind before the kernel knows it | as above |
//! | [`late_cancels`](Faults::late_cancels) | the `ECANCELED` of a cancelled op is held back for some waits | it is only late |
//! | [`reordered`](Faults::reordered) | a completion is held back; those of other ops overtake it, those of its own do not | as above |
//! | [`withheld`](Faults::withheld) | the `ECANCELED` of a cancelled op never comes | the op stays in flight, and all that it may touch stays |
//! | [`busy`](Faults::busy) | a call is refused with `EAGAIN` or `EBUSY` | what was queued stays queued |

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Backend;
use crate::entry::Entry;
use crate::key::{OpKey, Tag};
use crate::op::{Kind, Op, State};
use crate::send_queue::Shown;
use crate::sys::Mapping;

/// How often what goes wrong, in thousandths; and the seed by which it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Of the layer's random numbers. Zero is as good as any.
    pub seed: u64,
    /// Sends of which the kernel sees a part only.
    pub short_sends: u16,
    /// Results of multishot receives that come in two parts.
    pub short_receives: u16,
    /// Ops and waits that a signal seems to have interrupted.
    pub interrupted: u16,
    /// Receives that seem to find no free buffer.
    pub no_buffers: u16,
    /// Ops that fail: receives and sends with `ECONNRESET`, accepts with `ECONNABORTED`, connects with `ETIMEDOUT`.
    pub errors: u16,
    /// Cancelled ops whose end is told late.
    pub late_cancels: u16,
    /// Completions that others overtake.
    pub reordered: u16,
    /// Cancelled ops that never seem to end, as one may that waits for a file system that does not answer.
    pub withheld: u16,
    /// Calls that the kernel seems to refuse for now: `EAGAIN`, `EBUSY`.
    pub busy: u16,
}

impl Faults {
    /// A fifth of everything, but no errors and nothing that never ends: a program that is right does not notice.
    pub fn harmless(seed: u64) -> Self {
        Self {
            seed,
            short_sends: 200,
            short_receives: 200,
            interrupted: 200,
            no_buffers: 200,
            errors: 0,
            late_cancels: 200,
            reordered: 200,
            withheld: 0,
            busy: 200,
        }
    }
}

/// How often each fault has happened: a test of faults shows that there were some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// See [`Faults::short_sends`].
    pub short_sends: u64,
    /// See [`Faults::short_receives`].
    pub short_receives: u64,
    /// See [`Faults::interrupted`]: ops.
    pub interrupted: u64,
    /// See [`Faults::interrupted`]: waits.
    pub interrupted_waits: u64,
    /// See [`Faults::no_buffers`].
    pub no_buffers: u64,
    /// See [`Faults::errors`].
    pub errors: u64,
    /// See [`Faults::late_cancels`].
    pub late_cancels: u64,
    /// See [`Faults::reordered`].
    pub reordered: u64,
    /// See [`Faults::withheld`].
    pub withheld: u64,
    /// See [`Faults::busy`].
    pub busy: u64,
}

/// Memory for the buffers of a driver, which a test can look at after the driver is gone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Mapping>);

impl Memory {
    /// # Errors
    ///
    /// As `mmap(2)`.
    pub fn new(len: usize) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Mapping::new(len)?)))
    }

    /// Writes `byte` everywhere.
    pub fn fill(&self, byte: u8) {
        for place in 0..self.0.len() {
            // SAFETY: the place is inside the mapping.
            let place = unsafe { self.0.pointer().add(place) };
            // SAFETY: the memory is the mapping's. That the kernel may write to it too is what the test looks for.
            unsafe { place.write_volatile(byte) };
        }
    }

    /// How many places do not hold `byte`.
    pub fn count_other_than(&self, byte: u8) -> usize {
        let differs = |place: usize| {
            // SAFETY: the place is inside the mapping.
            let place = unsafe { self.0.pointer().add(place) };
            // SAFETY: as in `fill()`.
            unsafe { place.read_volatile() != byte }
        };
        (0..self.0.len()).filter(|&place| differs(place)).count()
    }

    pub(crate) fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.0)
    }
}

/// Closes the ring that this thread keeps for its next driver, so that the next one is made anew.
pub fn close_kept_ring() {
    crate::driver::close_kept();
}

/// Makes the buffer of `lease` count so many leases, as that many clones that were forgotten do.
pub fn set_lease_count(lease: &crate::Received, count: usize) {
    lease.set_lease_count(count);
}

/// Writes to the eventfd as a wake-up does, though the loop may not sleep.
pub fn wake_needlessly(waker: &crate::DriverWaker) {
    crate::sys::eventfd_add(waker.eventfd());
}

/// Between the ring and the driver.
#[derive(Debug)]
pub(crate) struct FaultLayer {
    faults: Faults,
    counts: FaultCounts,
    random: Random,
    ready: VecDeque<Entry>,
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Enters until it is let go.
    left: u32,
}

impl FaultLayer {
    pub(crate) fn new(faults: Faults) -> Box<Self> {
        Box::new(Self {
            faults,
            counts: FaultCounts::default(),
            random: Random(faults.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            ready: VecDeque::new(),
            held: VecDeque::new(),
        })
    }

    pub(crate) fn counts(&self) -> FaultCounts {
        self.counts
    }

    pub(crate) fn has_any(&self) -> bool {
        !self.ready.is_empty() || !self.held.is_empty()
    }

    /// Before an enter: lets go of what was held long enough. True if the enter must not wait.
    pub(crate) fn interrupts(&mut self, waits: bool) -> bool {
        let had_any = self.has_any();
        for held in &mut self.held {
            held.left = held.left.saturating_sub(1);
        }
        // Those of one op stay in order: a later one was given no less time.
        let (free, held) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.left == 0);
        let free: VecDeque<Held> = free;
        self.held = held;
        self.ready.extend(free.into_iter().map(|held| held.entry));
        if waits && !had_any && self.random.hits(self.faults.interrupted) {
            self.counts.interrupted_waits += 1;
            return true;
        }
        had_any
    }

    /// What an enter is refused with, if it is to be.
    pub(crate) fn refuses(&mut self) -> Option<i32> {
        if !self.random.hits(self.faults.busy) {
            return None;
        }
        self.counts.busy += 1;
        Some(if self.random.hits(500) { libc::EAGAIN } else { libc::EBUSY })
    }

    pub(crate) fn next(&mut self, backend: &mut Backend) -> Option<Entry> {
        while let Some(entry) = backend.next() {
            self.admit(entry);
        }
        self.ready.pop_front()
    }

    fn admit(&mut self, entry: Entry) {
        if entry.result == -libc::ECANCELED && self.random.hits(self.faults.withheld) {
            self.counts.withheld += 1;
            return;
        }
        let before = self.held.iter().filter(|held| held.entry.user_data == entry.user_data);
        let left = if let Some(least) = before.map(|held| held.left).max() {
            least
        } else if entry.result == -libc::ECANCELED && self.random.hits(self.faults.late_cancels) {
            self.counts.late_cancels += 1;
            1 + self.random.below(8)
        } else if self.random.hits(self.faults.reordered) {
            self.counts.reordered += 1;
            1 + self.random.below(4)
        } else {
            self.ready.push_back(entry);
            return;
        };
        self.held.push_back(Held { entry, left });
    }

    /// What a direct call is to fail with before the kernel hears of it, if it is to.
    pub(crate) fn refuses_call(&mut self) -> Option<i32> {
        if self.random.hits(self.faults.errors) {
            self.counts.errors += 1;
            return Some(libc::ECONNRESET);
        }
        if self.random.hits(self.faults.interrupted) {
            self.counts.interrupted += 1;
            return Some(libc::EINTR);
        }
        None
    }

    /// How many of `len` bytes a send shows the kernel.
    pub(crate) fn shorten_send(&mut self, len: usize) -> usize {
        if len < 2 || !self.random.hits(self.faults.short_sends) {
            return len;
        }
        self.counts.short_sends += 1;
        let most = u32::try_from(len).unwrap_or(u32::MAX) - 1;
        1 + self.random.below(most) as usize
    }

    /// What an op is to end with before the kernel knows it, if it is to.
    fn end_early(&mut self, op: &Op) -> Option<i32> {
        if op.cancelled {
            return None;
        }
        let faults = self.faults;
        let errno = match &op.kind {
            Kind::Accept { .. } => libc::ECONNABORTED,
            Kind::Recv { .. } | Kind::Send { .. } => libc::ECONNRESET,
            Kind::Connect { .. } => libc::ETIMEDOUT,
            _ => 0,
        };
        if errno != 0 && self.random.hits(faults.errors) {
            self.counts.errors += 1;
            return Some(errno);
        }
        if errno != libc::ETIMEDOUT && errno != 0 && self.random.hits(faults.interrupted) {
            self.counts.interrupted += 1;
            return Some(libc::EINTR);
        }
        if matches!(&op.kind, Kind::Recv { own: None, .. }) && self.random.hits(faults.no_buffers) {
            self.counts.no_buffers += 1;
            return Some(libc::ENOBUFS);
        }
        None
    }

    /// Ends an op instead of arming it, or takes a part of what it would send. True if it must not be armed.
    pub(crate) fn spoil(&mut self, key: OpKey, op: &mut Op) -> bool {
        if let Some(errno) = self.end_early(op) {
            op.state = State::Armed;
            op.group = None;
            let user_data = Tag::Op(key).encode();
            self.ready.push_back(Entry { user_data, result: -errno, flags: 0 });
            return true;
        }
        if let Kind::Send { queue, shown, .. } = &mut op.kind {
            let len = self.shorten_send(queue.len());
            *shown = if len < queue.len() { Shown::up_to(len) } else { Shown::ALL };
        }
        false
    }

    /// Where the bytes of one completion are cut in two, if they are.
    pub(crate) fn split(&mut self, len: usize) -> Option<usize> {
        if len < 2 || !self.random.hits(self.faults.short_receives) {
            return None;
        }
        self.counts.short_receives += 1;
        Some(1 + self.random.below(len as u32 - 1) as usize)
    }
}

/// Xorshift: small, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    fn hits(&mut self, thousandths: u16) -> bool {
        self.below(1000) < u32::from(thousandths)
    }
}
