//! What tasks wait for and can be cancelled in their place, and how a request finds its way there.
//!
//! # Way of a request
//!
//! asyncio knows the one future that a task waits for, and `cancel()` goes to that first. Here a body may wait for
//! several at once: each that is polled with the task's own waker leaves a [`Note`]. A request goes to those in the scope
//! that will get it: a future is cancelled then and there, and its waiters are queued in their order, the task among
//! them; a task is asked in turn, and its end decides. Only if nothing takes the request is the task woken for it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::current;
use super::task_ref::TaskRef;

/// Something that a task waits for.
pub(crate) trait Awaited {
    /// Asks it to end, if it is pending and `waker` still waits at `place`.
    fn ask(self: Rc<Self>, place: u64, waker: &Waker, asking: &mut Asking<'_>) -> Asked;

    /// Whether a request only asks it to end: then the drop of its handle asks, and a deadline does not.
    fn ends_by_itself(&self) -> bool {
        false
    }

    /// Whether it ended cancelled; `None` while whoever waits for it is not to go on. For what said [`Asked::Later`].
    fn ended(&self) -> Option<bool> {
        Some(true)
    }
}

/// What something awaited does about a request. The last counts most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    /// Nothing: it is not pending, or not awaited any more.
    Nothing,
    /// It was asked to end; when it has, it wakes who waits.
    Later,
    /// It is cancelled, and has woken who waits.
    Cancelled,
}

/// That a step ended waiting for something.
pub(super) struct Note {
    /// Weak, so that the note keeps no value alive and its drop runs no user code.
    awaited: Weak<dyn Awaited>,
    /// Where the waker stands in there: nowhere, if the handle was dropped since.
    place: u64,
    /// The innermost scope around it.
    scope: u64,
    /// The innermost deadline around it.
    deadline: u64,
    /// It was asked, and has not ended.
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
    /// One of them was asked.
    any_asked: Cell<bool>,
}

impl Notes {
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

    /// Before a step: forgets all. Gives what was asked and has not ended, and whether something ended cancelled.
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

    /// After a step: what was asked before it must still be waited for; `false` if something is not.
    ///
    /// What is not was dropped in favour of something else, and nobody can tell any more how it will end.
    pub(super) fn keep_asked(&self, asked: &[Note]) -> bool {
        let notes = self.notes.borrow();
        let kept = asked.iter().all(|old| {
            let same = notes.iter().find(|note| note.is_for(&old.awaited, old.place, old.scope));
            same.inspect(|note| note.asked.set(true)).is_some()
        });
        self.any_asked.set(kept && !asked.is_empty());
        kept
    }

    /// A request is taken back: whatever those who were asked do is their own affair.
    pub(super) fn forget_asked(&self) {
        self.any_asked.set(false);
    }

    /// A deadline has passed: cancels what is awaited inside of it. Tasks are asked when their handles are dropped, at the
    /// next step: once is enough.
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

    /// Asks all that is awaited in `scope`, in the order of the polls.
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

/// A request on its way: to a task, to the tasks that this waits for, and so on.
///
/// A list and no recursion, since such a chain may be long. It may be a ring, too.
pub(crate) struct Asking<'a> {
    first: &'a TaskRef,
    /// Those that are still to be asked; the next is the last.
    next: Vec<TaskRef>,
    asked: Vec<TaskRef>,
}

impl<'a> Asking<'a> {
    /// Asks `task` to end.
    pub(super) fn request(task: &'a TaskRef) {
        if task.core().cancel_state().is_asked.replace(true) {
            // By a foreign waker that a request on its way has woken. The next step looks at it.
            task.core().cancel_state().request();
            task.core().wake();
            return;
        }
        let mut asking = Self { first: task, next: Vec::new(), asked: Vec::new() };
        asking.ask(task);
        asking.ask_next();
    }

    /// A deadline of `task` has passed.
    pub(super) fn expire(task: &'a TaskRef, deadline: u64) {
        let core = task.core();
        if core.cancel_state().is_asked.replace(true) {
            return; // A request is on its way, and does the same.
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

    /// Has `task` asked, too; `false` if it is already.
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

/// Of more futures that a task awaits at once, the first are cancelled one step later, by their drop.
const MOST_NOTES: usize = 64;
