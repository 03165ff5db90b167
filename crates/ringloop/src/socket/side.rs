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
use std::num::NonZeroU32;
use std::task::Waker;

use ringloop_driver::Outcome;

use crate::event_loop::Waiters;
use crate::source::{self, OpSlot};

pub(super) struct Side {
    pub(super) op: OpSlot,
    /// What the op brings that is in flight.
    pub(super) brings: Cell<Wanted>,
    /// What the call wants that waits.
    pub(super) wanted: Cell<Wanted>,
    /// The call that came last. Those before it are not woken any more, as asyncio has one reader and one writer for a
    /// descriptor.
    pub(super) waiters: Waiters,
    /// The place of the call that came last.
    place: Cell<Option<u64>>,
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

struct Staged {
    /// Of him whose it is.
    place: Option<u64>,
    outcome: Outcome,
}

impl Side {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            op: OpSlot::default(),
            brings: Cell::new(wanted),
            wanted: Cell::new(wanted),
            waiters: Waiters::default(),
            place: Cell::new(None),
            // So that the first call that waits allocates nothing, whenever it comes.
            staged: RefCell::new(Vec::with_capacity(1)),
            is_queued: Cell::new(false),
            unasked: Cell::new(0),
        }
    }

    /// Puts aside what an op has brought, for him who waits or whoever calls next.
    pub(super) fn stage(&self, outcome: Outcome) {
        self.staged.borrow_mut().push(Staged { place: None, outcome });
    }

    /// The same while nobody waits: what is no result, but only says that one could be had, or that there is none, is
    /// forgotten.
    pub(super) fn keep(&self, outcome: Outcome) {
        if is_result(&outcome) && !is_passing(&outcome) {
            self.stage(outcome);
        }
    }

    /// Takes over from whoever waits, and gives a place.
    pub(super) fn take_over(&self, wanted: Wanted, waker: &Waker) -> u64 {
        self.waiters.dismiss();
        self.unasked.set(0);
        self.wanted.set(wanted);
        let place = self.waiters.join(None, waker);
        self.place.set(Some(place));
        place
    }

    /// A poll has told of something while nobody waits; gives how often.
    pub(super) fn count_unasked(&self) -> u32 {
        self.unasked.set(self.unasked.get() + 1);
        self.unasked.get()
    }

    /// What is staged for nobody, for whoever wants such.
    pub(super) fn take(&self, wanted: Wanted) -> Option<Outcome> {
        self.remove(wanted, |staged| staged.place.is_none() && wanted.is_met_by(&staged.outcome))
    }

    /// Whether something is staged for whoever wants such.
    pub(super) fn has_something_for(&self, wanted: Wanted) -> bool {
        let staged = self.staged.borrow();
        staged.iter().any(|staged| staged.place.is_none() && wanted.is_met_by(&staged.outcome))
    }

    /// What belongs to him who has `place`.
    pub(super) fn claim(&self, wanted: Wanted, place: u64) -> Option<Outcome> {
        self.remove(wanted, |staged| staged.place == Some(place))
    }

    /// Gives what is staged to him who waits, and wakes him.
    pub(super) fn hand_over(&self) {
        let wanted = self.wanted.get();
        let mut staged = self.staged.borrow_mut();
        let free = staged
            .iter_mut()
            .find(|staged| staged.place.is_none() && wanted.is_met_by(&staged.outcome));
        let (Some(free), false) = (free, self.waiters.is_empty()) else { return };
        free.place = self.place.get();
        drop(staged);
        self.waiters.wake_all(); // There is one at most.
    }

    /// He who has `place` goes. What was his is anybody's now; gives whether there was something.
    pub(super) fn give_up(&self, place: u64) -> bool {
        let mut staged = self.staged.borrow_mut();
        let his = staged.iter_mut().find(|staged| staged.place == Some(place));
        his.map(|staged| staged.place = None).is_some()
    }

    /// Whether nothing is staged.
    pub(super) fn is_empty(&self) -> bool {
        self.staged.borrow().is_empty()
    }

    /// Whether nobody waits, or is about to take what is his.
    pub(super) fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.staged.borrow().iter().all(|staged| staged.place.is_none())
    }

    /// All that is staged, for somebody else.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Outcome> + use<> {
        self.staged.take().into_iter().map(|staged| staged.outcome)
    }

    /// Forgets what was ready when somebody waited for that.
    pub(super) fn forget_readiness(&self) {
        self.staged.borrow_mut().retain(|staged| is_result(&staged.outcome));
    }

    /// Takes what there is, or as much as is wanted; the rest keeps its place, and is anybody's.
    fn remove(&self, wanted: Wanted, is_it: impl Fn(&Staged) -> bool) -> Option<Outcome> {
        let mut staged = self.staged.borrow_mut();
        let index = staged.iter().position(is_it)?;
        let found = &mut staged[index];
        if let (Wanted::Bytes(most), Outcome::Received(Ok(data))) = (wanted, &mut found.outcome) {
            let most = most.get() as usize;
            if data.len() > most {
                found.place = None;
                return Some(Outcome::Received(Ok(data.split_to(most))));
            }
        }
        Some(staged.remove(index).outcome)
    }
}

impl Wanted {
    fn is_met_by(self, outcome: &Outcome) -> bool {
        match self {
            Self::Connection => matches!(outcome, Outcome::Accepted(_)),
            Self::Bytes(_) => matches!(outcome, Outcome::Received(_)),
            Self::Readiness | Self::Room => matches!(outcome, Outcome::Polled(_)),
            Self::Connected => matches!(outcome, Outcome::Connected(_)),
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

/// Something that is lost if nobody takes it.
fn is_result(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted(_) | Outcome::Received(_))
}

/// Whether the op ended for a reason that nobody need hear of: it was cancelled, or may simply be repeated.
pub(super) fn is_passing(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Accepted(Err(error))
        | Outcome::Received(Err(error))
        | Outcome::Polled(Err(error)) => source::is_passing(error),
        _ => false,
    }
}
