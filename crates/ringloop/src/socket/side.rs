//! One direction of a socket: who waits, the op that he waits for, and what it has brought.
//!
//! # The life of a result
//!
//! ```text
//! op in flight -- completes, in the reap --> staged -- from the handle --> his who waits -- polled --> given
//!                                              |                            '-- dropped --> staged
//!                                              '--> whoever calls next
//! ```
//!
//! What is staged belongs to nobody until the handle runs, as what asyncio's callback would read is still in the kernel
//! then; after that it is his who waited, though he may wait no more when he is polled next. Whatever happens, it stays here
//! until somebody takes it.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroU32;
use std::task::Waker;

use ringloop_driver::{Descriptor, Outcome, Received};

use crate::event_loop::door::{self, let_go};
use crate::source::{self, OpSlot};

pub(super) struct Side {
    pub(super) op: OpSlot,
    /// What the op brings that is in flight.
    pub(super) brings: Cell<Wanted>,
    /// What the call wants that waits.
    pub(super) wanted: Cell<Wanted>,
    /// The place of the call that waits, or [`NOBODY`]. It is the one that came last: those before it are not woken any more, as
    /// asyncio has one reader and one writer for a descriptor.
    waiting: Cell<u64>,
    /// Its waker, kept for the next call: as a rule that is the same task's.
    waker: Cell<Option<Waker>>,
    last_place: Cell<u64>,
    staged: RefCell<Vec<Staged>>,
    pub(super) is_queued: Cell<bool>,
    /// How often a poll has told of something since a call waited last.
    unasked: Cell<u32>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Connection,
    /// Of a stream: up to so many.
    Bytes(NonZeroU32),
    /// Something to receive.
    Readiness,
    /// Room to send.
    Room,
    Connected,
}

/// What an op or a direct call has brought. Half as long as an outcome of the driver's, and moved several times for each message.
pub(super) enum Brought {
    Connection(io::Result<Descriptor>),
    Bytes(io::Result<Received>),
    /// A direct call is worth another try; if something is wrong with the socket, that says so.
    Ready,
    Connected(io::Result<()>),
}

struct Staged {
    /// Of him whose it is, or [`NOBODY`].
    place: u64,
    brought: Brought,
}

impl Side {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            op: OpSlot::default(),
            brings: Cell::new(wanted),
            wanted: Cell::new(wanted),
            waiting: Cell::new(NOBODY),
            waker: Cell::new(None),
            last_place: Cell::new(NOBODY),
            // So that the first call that waits allocates nothing, whenever it comes.
            staged: RefCell::new(Vec::with_capacity(1)),
            is_queued: Cell::new(false),
            unasked: Cell::new(0),
        }
    }

    /// Puts aside what an op has brought, for him who waits or whoever calls next.
    pub(super) fn stage(&self, brought: Brought) {
        self.staged.borrow_mut().push(Staged { place: NOBODY, brought });
    }

    /// The same while nobody waits: what is no result, but only says that one could be had, or that there is none, is
    /// forgotten.
    pub(super) fn keep(&self, brought: Brought) {
        if brought.is_result() {
            self.stage(brought);
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.get() != NOBODY
    }

    /// Whether who has `place` still waits: he was not woken, and nobody has taken over.
    pub(super) fn waits_at(&self, place: u64) -> bool {
        self.waiting.get() == place
    }

    /// Whether the waker that is kept is this one.
    #[inline]
    pub(super) fn has_waker(&self, waker: &Waker) -> bool {
        let known = self.waker.take();
        let is_known = known.as_ref().is_some_and(|known| known.will_wake(waker));
        self.waker.set(known);
        is_known
    }

    /// Keeps `waker` in the place of the one that was there, which runs the user's code when it is dropped: the caller does that.
    pub(super) fn keep_waker(&self, waker: Waker) -> Option<Waker> {
        self.waker.replace(Some(waker))
    }

    /// Takes over from whoever waits, and gives a place. The waker that is kept is the caller's.
    #[inline]
    pub(super) fn take_over(&self, wanted: Wanted) -> u64 {
        let place = self.last_place.get() + 1;
        self.last_place.set(place);
        self.waiting.set(place);
        self.unasked.set(0);
        self.wanted.set(wanted);
        place
    }

    /// He who has `place` waits no more. Gives whether he did.
    pub(super) fn leave(&self, place: u64) -> bool {
        let waits = self.waits_at(place);
        if waits {
            self.waiting.set(NOBODY);
            let_go("a waker", self.waker.take());
        }
        waits
    }

    /// Wakes who waits.
    #[inline]
    pub(super) fn wake(&self) {
        if self.waiting.replace(NOBODY) == NOBODY {
            return;
        }
        if let Some(waker) = self.waker.take() {
            door::wake(&waker);
            if let Some(newer) = self.waker.replace(Some(waker)) {
                let_go("a waker", self.waker.replace(Some(newer))); // A call has begun to wait meanwhile.
            }
        }
    }

    /// A poll has told of something while nobody waits; gives how often.
    pub(super) fn count_unasked(&self) -> u32 {
        self.unasked.set(self.unasked.get() + 1);
        self.unasked.get()
    }

    /// What is staged for nobody, for whoever wants such.
    pub(super) fn take(&self, wanted: Wanted) -> Option<Brought> {
        self.remove(wanted, |staged| staged.place == NOBODY && wanted.is_met_by(&staged.brought))
    }

    /// Whether something is staged for whoever wants such.
    pub(super) fn has_something_for(&self, wanted: Wanted) -> bool {
        let staged = self.staged.borrow();
        staged.iter().any(|staged| staged.place == NOBODY && wanted.is_met_by(&staged.brought))
    }

    /// What belongs to him who has `place`.
    #[inline]
    pub(super) fn claim(&self, wanted: Wanted, place: u64) -> Option<Brought> {
        self.remove(wanted, |staged| staged.place == place)
    }

    /// Gives what is staged to him who waits, and wakes him. Whether there was something for him.
    pub(super) fn hand_over(&self) -> bool {
        let (wanted, place) = (self.wanted.get(), self.waiting.get());
        let mut staged = self.staged.borrow_mut();
        let free = staged
            .iter_mut()
            .find(|staged| staged.place == NOBODY && wanted.is_met_by(&staged.brought));
        let (Some(free), true) = (free, place != NOBODY) else { return false };
        free.place = place;
        drop(staged);
        self.wake();
        true
    }

    /// Gives `received` to him who waits, and wakes him.
    pub(super) fn give(&self, received: io::Result<Received>) {
        let (place, brought) = (self.waiting.get(), Brought::Bytes(received));
        self.staged.borrow_mut().push(Staged { place, brought });
        self.wake();
    }

    /// He who has `place` goes. What was his is anybody's now; gives whether there was something.
    pub(super) fn give_up(&self, place: u64) -> bool {
        let mut staged = self.staged.borrow_mut();
        let his = staged.iter_mut().find(|staged| staged.place == place);
        his.map(|staged| staged.place = NOBODY).is_some()
    }

    /// Whether the poll is in flight that serves all receives of a stream.
    pub(super) fn has_poll_for_bytes(&self) -> bool {
        let stays = self.brings.get().stays_in_the_kernel();
        stays && self.op.is_in_flight() && !self.op.is_cancelled()
    }

    /// Whether nothing is staged.
    pub(super) fn is_empty(&self) -> bool {
        self.staged.borrow().is_empty()
    }

    /// Whether nobody waits, or is about to take what is his.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_waited_for() && self.staged.borrow().iter().all(|staged| staged.place == NOBODY)
    }

    /// All that is staged, for somebody else.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Brought> + use<> {
        self.staged.take().into_iter().map(|staged| staged.brought)
    }

    /// Forgets what was ready when somebody waited for that.
    pub(super) fn forget_readiness(&self) {
        self.staged.borrow_mut().retain(|staged| staged.brought.is_result());
    }

    /// Takes what there is, or as much as is wanted; the rest keeps its place, and is anybody's.
    #[inline(always)]
    fn remove(&self, wanted: Wanted, is_it: impl Fn(&Staged) -> bool) -> Option<Brought> {
        let mut staged = self.staged.borrow_mut();
        let index = staged.iter().position(is_it)?;
        let found = &mut staged[index];
        if let (Wanted::Bytes(most), Brought::Bytes(Ok(data))) = (wanted, &mut found.brought) {
            let most = most.get() as usize;
            if data.len() > most {
                found.place = NOBODY;
                return Some(Brought::Bytes(Ok(data.split_to(most))));
            }
        }
        let is_last = index + 1 == staged.len();
        let found = if is_last { staged.pop() } else { Some(staged.remove(index)) };
        found.map(|staged| staged.brought)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let_go("a waker", self.waker.take());
    }
}

impl Wanted {
    fn is_met_by(self, brought: &Brought) -> bool {
        match self {
            Self::Connection => matches!(brought, Brought::Connection(_)),
            Self::Bytes(_) => matches!(brought, Brought::Bytes(_)),
            Self::Readiness | Self::Room => matches!(brought, Brought::Ready),
            Self::Connected => matches!(brought, Brought::Connected(_)),
        }
    }

    /// Whether an op for this one takes nothing, but only tells that something is there.
    pub(super) fn stays_in_the_kernel(self) -> bool {
        matches!(self, Self::Bytes(_))
    }

    /// Whether an op for this one serves the other, too.
    pub(super) fn is_like(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Bytes(_), Self::Bytes(_)))
    }
}

impl Brought {
    /// `None` if the op ended for a reason that nobody need hear of: it was cancelled, or may simply be repeated.
    pub(super) fn by_an_op(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Accepted(Err(error))
            | Outcome::Received(Err(error))
            | Outcome::Polled(Err(error))
                if source::is_passing(&error) =>
            {
                None
            }
            Outcome::Accepted(accepted) => Some(Self::Connection(accepted)),
            Outcome::Received(received) => Some(Self::Bytes(received)),
            Outcome::Polled(_) => Some(Self::Ready),
            Outcome::Connected(connected) => Some(Self::Connected(connected)),
            _ => None,
        }
    }

    /// Something that is lost if nobody takes it.
    fn is_result(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Bytes(_))
    }
}

/// No call has this place.
pub(super) const NOBODY: u64 = 0;
