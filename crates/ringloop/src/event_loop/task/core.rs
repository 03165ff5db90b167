//! What all tasks have, whatever their result.
//!
//! # Life of a core
//!
//! ```text
//! made -> { the core of a task -> free }* -> dropped with the loop
//! ```
//!
//! A program makes tasks again and again, and their cores are alike: the core of a task that is gone, with its waker and the room of
//! its lists, is that of the next one. A core whose waker somebody has kept is dropped instead, as that waker would wake a stranger.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::cancel::CancelState;
use super::current::{self, TaskGuard};
use super::key::{NO_KEY, TaskKey};
use super::waker::TaskWaker;
use crate::event_loop::context::TaskContext;
use crate::event_loop::ready::{NO_LOOP, Scheduler};
use crate::event_loop::{EventLoop, LoopRef, Waiters};
use crate::{Error, Result};

/// The part of a task that does not depend on the type of its result.
pub(super) struct TaskCore {
    key: TaskKey,
    number: u64,
    /// Where it was made.
    location: &'static Location<'static>,
    name: RefCell<Option<Box<str>>>,
    /// `None` for a task that no loop has run.
    scheduler: Option<Rc<Scheduler>>,
    event_loop: LoopRef,
    waker: Arc<TaskWaker>,
    /// The same, as futures want it. That of nobody while the core belongs to no task.
    std_waker: Waker,
    cancel: CancelState,
    state: Cell<State>,
    waiters: Waiters<OnEnd>,
    pub(super) context: TaskContext,
    /// Somebody has looked at how it ended.
    pub(super) seen: Cell<bool>,
}

/// Is told, inside of the end of a task, that the task at this place has ended; no user code may run there.
pub(crate) trait WatchesEnd {
    /// The task at `place` has ended.
    fn ended(self: Rc<Self>, place: usize);
}

pub(crate) type OnEnd = (Rc<dyn WatchesEnd>, usize);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Finished,
    Cancelled,
}

impl TaskCore {
    pub(super) fn new(event_loop: &EventLoop, location: &'static Location<'static>) -> Self {
        let scheduler = Rc::clone(event_loop.scheduler());
        let waker = TaskWaker::new(scheduler.loop_id, Some(Arc::clone(event_loop.inbox())));
        Self::with(waker, Some(scheduler), event_loop.downgrade(), location)
    }

    /// Of a task that no loop has run.
    #[track_caller]
    pub(super) fn refused() -> OwnedCore {
        let waker = TaskWaker::new(NO_LOOP, None);
        let core = Self::with(waker, None, LoopRef::gone(), Location::caller());
        core.state.set(State::Finished);
        OwnedCore::new(Box::new(core))
    }

    fn with(
        waker: TaskWaker,
        scheduler: Option<Rc<Scheduler>>,
        event_loop: LoopRef,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            key: NO_KEY,
            number: 0,
            location,
            name: RefCell::default(),
            scheduler,
            event_loop,
            waker: Arc::new(waker),
            std_waker: Waker::noop().clone(),
            cancel: CancelState::default(),
            state: Cell::new(State::Pending),
            waiters: Waiters::default(),
            context: TaskContext::default(),
            seen: Cell::new(false),
        }
    }

    /// Becomes that of a new task.
    pub(super) fn begin(
        &mut self,
        key: TaskKey,
        number: u64,
        location: &'static Location<'static>,
    ) {
        (self.key, self.number, self.location) = (key, number, location);
        self.waker.begin(key);
        self.std_waker = Waker::from(Arc::clone(&self.waker));
        self.state.set(State::Pending);
        self.context.begin();
    }

    /// The task is gone: nothing of it is left in here. Gives whether nobody has kept a waker of it.
    fn end(&mut self) -> bool {
        *self.name.get_mut() = None;
        self.cancel.end();
        self.waiters.dismiss();
        self.context.end();
        self.seen.set(false);
        self.std_waker = Waker::noop().clone();
        Arc::get_mut(&mut self.waker).is_some()
    }

    pub(super) fn wake(&self) {
        if let Some(scheduler) = &self.scheduler {
            self.waker.queue(scheduler);
        }
    }

    /// Marks the task as the one that is stepped, until the guard goes.
    #[inline]
    pub(super) fn enter(&self) -> Option<TaskGuard<'_>> {
        self.scheduler.as_ref().map(|scheduler| scheduler.stepped.enter(self.key))
    }

    /// Whether the task that is being stepped may wait for the end of this one.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if it is this one, or runs on another loop, which nothing would wake for that.
    pub(super) fn check_awaited(&self) -> Result<()> {
        if current::is_stepped(self) {
            return Err(Error::state("Task cannot await on itself"));
        }
        match &self.scheduler {
            Some(scheduler) if scheduler.is_of_another_loop() => Err(Error::different_loop()),
            _ => Ok(()),
        }
    }

    pub(super) fn cancel_state(&self) -> &CancelState {
        &self.cancel
    }

    /// Whether `waker` is the task's own and not that of something in between.
    pub(super) fn is_woken_by(&self, waker: &Waker) -> bool {
        self.std_waker.will_wake(waker)
    }

    pub(super) fn key(&self) -> TaskKey {
        self.key
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn scheduler(&self) -> Option<&Rc<Scheduler>> {
        self.scheduler.as_ref()
    }

    pub(super) fn event_loop(&self) -> &LoopRef {
        &self.event_loop
    }

    pub(super) fn waker(&self) -> &TaskWaker {
        &self.waker
    }

    /// The same, as futures want it.
    pub(super) fn std_waker(&self) -> &Waker {
        &self.std_waker
    }

    pub(super) fn name(&self) -> String {
        match &*self.name.borrow() {
            Some(name) => String::from(&**name),
            None => format!("Task-{}", self.number),
        }
    }

    pub(super) fn set_name(&self, name: Box<str>) {
        self.name.replace(Some(name));
    }

    pub(super) fn done(&self) -> bool {
        self.state.get() != State::Pending
    }

    pub(super) fn cancelled(&self) -> bool {
        self.state.get() == State::Cancelled
    }

    /// Who waits for the end.
    pub(super) fn waiters(&self) -> &Waiters<OnEnd> {
        &self.waiters
    }

    /// Leaves the loop's table and wakes who waits.
    pub(super) fn finish(&self, state: State) {
        self.state.set(state);
        if let Some(event_loop) = self.event_loop.upgrade() {
            let task = event_loop.tasks().borrow_mut().remove(self.key);
            drop(task);
        }
        self.waiters.wake(|(watcher, place)| watcher.ended(place));
    }
}

impl fmt::Debug for TaskCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state.get() {
            State::Pending => "pending",
            State::Finished => "finished",
            State::Cancelled => "cancelled",
        };
        let (file, line) = (self.location.file(), self.location.line());
        write!(f, "<Task {state} name='{}' created at {file}:{line}>", self.name())
    }
}

/// The core of one task, while that lives.
pub(super) struct OwnedCore(
    /// `None` in the drop only.
    Option<Box<TaskCore>>,
);

impl OwnedCore {
    pub(super) fn new(core: Box<TaskCore>) -> Self {
        Self(Some(core))
    }
}

impl Deref for OwnedCore {
    type Target = TaskCore;

    #[inline]
    fn deref(&self) -> &TaskCore {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for OwnedCore {
    fn drop(&mut self) {
        let Some(mut core) = self.0.take() else { return };
        let Some(event_loop) = core.event_loop.upgrade() else { return };
        if core.end() {
            if let Ok(mut tasks) = event_loop.tasks().try_borrow_mut() {
                tasks.keep(core);
            }
        }
    }
}
