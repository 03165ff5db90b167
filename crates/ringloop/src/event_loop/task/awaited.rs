//! Cancelling what a task waits for, before the task itself.
//!
//! # The way of a request to cancel
//!
//! In asyncio a task waits for one future, and `cancel()` cancels that future first. Here the body of a task may wait for
//! several at once: each future of the loop that is polled with the task's own waker leaves a [`Note`]. A request to cancel the
//! task goes to those that are awaited inside of the scope that will catch it. A future is cancelled at once, and its waiters
//! are queued in their order, the task among them. A task gets the request in turn, and how it ends decides. If there is
//! nothing to cancel, the request wakes the task itself.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::{TaskRef, current};

/// Something that a task waits for.
pub(crate) trait Awaited {
    /// Passes a request to cancel on to it, if it is pending and `waker` still waits at `place`.
    fn ask(self: Rc<Self>, place: u64, waker: &Waker, asking: &mut Asking<'_>) -> Asked;

    /// Whether it decides by itself how it ends after a request, as a task does. A deadline that passes then makes no request:
    /// the drop of the handle does.
    fn ends_by_itself(&self) -> bool {
        false
    }

    /// Whether it ended cancelled; `None` while it has not ended. Called only if `ask()` returned [`Asked::Later`].
    fn ended(&self) -> Option<bool> {
        Some(true)
    }
}

/// What a request to cancel did. Of several results the one that stands last here counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    /// Nothing: it is not pending, or not awaited any more.
    Nothing,
    /// The request was passed on; its end will wake those who wait for it.
    Later,
    /// It is cancelled, and has woken those who wait for it.
    Cancelled,
}

/// Something that a task waits for since its last step.
pub(super) struct Note {
    /// Weak, so that the note keeps no value alive and its drop runs no user code.
    awaited: Weak<dyn Awaited>,
    /// The place of the task's waker among its waiters. The place is empty if the handle was dropped since.
    place: u64,
    /// The innermost scope around it.
    scope: u64,
    /// The innermost deadline around it.
    deadline: u64,
    /// A request was passed on to it, and it has not ended.
    asked: Cell<bool>,
}

impl Note {
    fn is_for(&self, awaited: &Weak<dyn Awaited>, place: u64, scope: u64) -> bool {
        self.place == place && self.scope == scope && self.awaited.ptr_eq(awaited)
    }

    fn new(awaited: Weak<dyn Awaited>, place: u64, scope: u64, deadline: u64) -> Self {
        Self { awaited, place, scope, deadline, asked: Cell::new(false) }
    }
}

/// What the task waits for since its last step.
#[derive(Default)]
pub(super) struct Notes {
    notes: RefCell<Vec<Note>>,
    /// A request was passed on to one of them.
    any_asked: Cell<bool>,
}

impl Notes {
    /// The task is gone.
    pub(super) fn end(&mut self) {
        self.notes.get_mut().clear();
        self.any_asked.set(false);
    }

    pub(super) fn add(&self, awaited: Weak<dyn Awaited>, place: u64, scope: u64, deadline: u64) {
        let mut notes = self.notes.borrow_mut();
        if notes.iter().any(|note| note.is_for(&awaited, place, scope)) {
            return;
        }
        if notes.len() == MOST_NOTES {
            notes.remove(0);
        }
        notes.push(Note::new(awaited, place, scope, deadline));
    }

    /// Whether there are none, and no request was passed on.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any_asked.get() && self.notes.borrow().is_empty()
    }

    /// Called before a step: removes all notes. Gives those to which a request was passed on and that have not ended, and whether
    /// one has ended cancelled.
    pub(super) fn take_asked(&self) -> (Vec<Note>, bool) {
        if !self.any_asked.replace(false) {
            self.notes.borrow_mut().clear();
            return (Vec::new(), false);
        }
        let mut asked = self.notes.take();
        let mut cancelled = false;
        asked.retain(|note| {
            let ended = note.asked.get().then(|| note.awaited.upgrade()?.ended());
            cancelled |= ended == Some(Some(true));
            ended == Some(None)
        });
        (asked, cancelled)
    }

    /// Called after a step: whether the task still waits for all of `asked`.
    ///
    /// If the body has dropped one of them to wait for something else, the task will not see how that one ends.
    pub(super) fn keep_asked(&self, asked: &[Note]) -> bool {
        let notes = self.notes.borrow();
        let kept = asked.iter().all(|old| {
            let same = notes.iter().find(|note| note.is_for(&old.awaited, old.place, old.scope));
            same.inspect(|note| note.asked.set(true)).is_some()
        });
        self.any_asked.set(kept && !asked.is_empty());
        kept
    }

    /// The request was taken back: how the futures and tasks end that it was passed on to has no effect on this task any more.
    pub(super) fn forget_asked(&self) {
        self.any_asked.set(false);
    }

    /// A deadline has passed: cancels the futures that are awaited inside of it. Tasks get the request at the next step, when
    /// their handles are dropped; they must not get it twice.
    pub(super) fn expire(
        &self,
        is_inside: impl Fn(u64) -> bool,
        waker: &Waker,
        asking: &mut Asking<'_>,
    ) {
        let notes = self.notes.take();
        for note in notes.iter().filter(|note| is_inside(note.deadline)) {
            let awaited = note.awaited.upgrade();
            if let Some(awaited) = awaited.filter(|awaited| !awaited.ends_by_itself()) {
                awaited.ask(note.place, waker, asking);
            }
        }
        self.notes.replace(notes);
    }

    /// Passes a request on to all that is awaited in `scope`, in the order of the polls.
    pub(super) fn ask(&self, scope: u64, waker: &Waker, asking: &mut Asking<'_>) -> Asked {
        // Outside of the borrow: a future wakes all who wait for it, and a foreign waker is user code.
        let notes = self.notes.take();
        let mut most = Asked::Nothing;
        for note in notes.iter().filter(|note| note.scope == scope) {
            let Some(awaited) = note.awaited.upgrade() else { continue };
            let asked = awaited.ask(note.place, waker, asking);
            note.asked.set(asked == Asked::Later);
            most = most.max(asked);
        }
        self.any_asked.set(most == Asked::Later);
        self.notes.replace(notes);
        most
    }
}

/// A request to cancel that is being passed on: to a task, to the tasks for which that one waits, and so on.
///
/// It is a list and no recursion, since such a chain may be long. Tasks that wait for each other make it a ring.
pub(crate) struct Asking<'a> {
    first: &'a TaskRef,
    /// The tasks that are still to get the request; the last of the list is the next.
    next: Vec<TaskRef>,
    asked: Vec<TaskRef>,
}

impl<'a> Asking<'a> {
    /// Makes a request to cancel `task`.
    pub(super) fn request(task: &'a TaskRef) {
        if task.core().cancel_state().is_asked.replace(true) {
            // This call comes from a foreign waker that a request has woken just now. The next step handles it.
            task.core().cancel_state().request();
            task.core().wake();
            return;
        }
        let mut asking = Self { first: task, next: Vec::new(), asked: Vec::new() };
        asking.ask(task);
        asking.ask_next();
    }

    /// A deadline of `task` has passed.
    pub(in crate::event_loop) fn expire(task: &'a TaskRef, deadline: u64) {
        let core = task.core();
        if core.cancel_state().is_asked.replace(true) {
            return; // A request is being passed on, and cancels the same.
        }
        let mut asking = Self { first: task, next: Vec::new(), asked: Vec::new() };
        core.cancel_state().expire(deadline, core.std_waker(), &mut asking);
    }

    /// The step of `task` ended, and there is a request.
    pub(super) fn after_step(task: &'a TaskRef) {
        task.core().cancel_state().is_asked.set(true);
        let mut asking = Self { first: task, next: Vec::new(), asked: Vec::new() };
        asking.pass_on(task);
        asking.ask_next();
    }

    /// Passes the request on to `task`, too; `false` if the task has got it already.
    pub(crate) fn add(&mut self, task: TaskRef) -> bool {
        let new = !task.core().cancel_state().is_asked.replace(true);
        if new {
            self.next.push(task);
        }
        new
    }

    fn ask_next(&mut self) {
        while let Some(task) = self.next.pop() {
            self.ask(&task);
            self.asked.push(task);
        }
    }

    fn ask(&mut self, task: &TaskRef) {
        task.core().cancel_state().request();
        // The end of the step that it is in passes the request on.
        if !current::is_task(task) {
            self.pass_on(task);
        }
    }

    fn pass_on(&mut self, task: &TaskRef) {
        let core = task.core();
        let from = self.next.len();
        if !core.cancel_state().pass_on(core.std_waker(), self) {
            core.wake();
        }
        self.next[from..].reverse();
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        for task in std::iter::once(self.first).chain(&self.next).chain(&self.asked) {
            task.core().cancel_state().is_asked.set(false);
        }
    }
}

/// A task keeps so many notes. Of more futures that it awaits at once, the first are cancelled one step later, by their drop.
const MOST_NOTES: usize = 64;
