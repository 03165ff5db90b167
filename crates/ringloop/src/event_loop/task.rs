//! Tasks: Rust futures that the loop runs.
//!
//! # Life of a task
//!
//! ```text
//! create_task -> first step queued -> { step -> pending -> woken -> queued }* -> step -> done
//! ```
//!
//! The loop's table owns the task while it is not done; handles own the rest of it, which is the outcome. Its body is
//! outside of every cell while it is polled, so it may do anything to its own task. It is dropped when it is done,
//! when a cancellation ends it, or when the loop closes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::cancel::{CancelState, Delivery};
use super::exception::ExceptionContext;
use super::ready::Scheduler;
use super::waker::TaskWaker;
use super::{EventLoop, LoopRef, catch, current};
use crate::{Error, Result};

/// A running future: what [`EventLoop::create_task`] gives.
///
/// Awaiting it gives what the future gave, or [`Error::Cancelled`], or [`Error::Panic`] with what the panic said.
/// Dropping it detaches: the task goes on. The result is there once, for the first who takes it.
///
/// ```
/// ringloop::run(async {
///     let task = ringloop::EventLoop::running()?.create_task(async { 1 + 1 })?;
///     assert!(!task.done(), "the first step is taken soon, not at once");
///     assert_eq!(task.await?, 2);
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use = "a dropped task goes on by itself; say so with `drop(task)`"]
pub struct Task<T> {
    inner: Rc<TaskInner<T>>,
}

impl<T: 'static> Task<T> {
    /// Starts `body` on `event_loop`; the first step is taken soon.
    pub(super) fn spawn(event_loop: &EventLoop, body: impl Future<Output = T> + 'static) -> Self {
        let body: Pin<Box<dyn Future<Output = T>>> = Box::pin(body);
        let inner = event_loop.tasks().borrow_mut().insert(|key| {
            let inner = Rc::new(TaskInner {
                core: TaskCore::new(key, event_loop),
                body: Cell::new(Some(body)),
                outcome: Cell::new(None),
            });
            (Rc::clone(&inner) as Rc<dyn AnyTask>, inner)
        });
        inner.core.wake();
        Self { inner }
    }

    /// Asks the task to end (spec TASK-05). `false` if it is done already, and then nothing happens.
    ///
    /// The task is not done when this returns: at its next step the innermost
    /// [`catch_cancel`](crate::catch_cancel) scope drops its future and yields `Err(Cancelled)`; without such a scope
    /// the body is dropped and the task ends cancelled. A task that has not begun never does.
    pub fn cancel(&self) -> bool {
        self.inner.core.cancel()
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn done(&self) -> bool {
        self.inner.core.done()
    }

    /// Whether the task ended cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.inner.core.state.get() == State::Cancelled
    }

    /// Takes what the task gave.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] or [`Error::Panic`] if it ended so; [`Error::InvalidState`] if it is not done, or if the
    /// result was taken before.
    pub fn result(&self) -> Result<T> {
        match self.inner.outcome.take() {
            Some(outcome) => outcome.into_result(),
            None if self.cancelled() => Err(Error::Cancelled),
            None if self.done() => Err(Error::invalid_state("Result was already taken.")),
            None => Err(Error::invalid_state("Result is not set.")),
        }
    }

    pub(super) fn key(&self) -> TaskKey {
        self.inner.core.key
    }

    /// The task without its result: to cancel it, or to wait for its end, from elsewhere.
    #[must_use]
    pub fn task_ref(&self) -> TaskRef {
        TaskRef::new(Rc::clone(&self.inner))
    }
}

impl<T: 'static> Future for Task<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.done() {
            return Poll::Ready(self.result());
        }
        if current::is_task(&self.task_ref()) {
            return Poll::Ready(Err(Error::state("Task cannot await on itself")));
        }
        self.inner.core.add_waiter(cx.waker());
        Poll::Pending
    }
}

impl<T: 'static> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task_ref().fmt(f)
    }
}

/// A task of whatever result. A clone is the same task.
#[derive(Clone)]
pub struct TaskRef {
    task: Rc<dyn AnyTask>,
}

impl TaskRef {
    /// Asks the task to end: see [`Task::cancel`].
    pub fn cancel(&self) -> bool {
        self.core().cancel()
    }

    /// How many requests to end it have come, less those taken back.
    #[must_use]
    pub fn cancelling(&self) -> u32 {
        self.core().cancel_state().requests()
    }

    /// Takes one request to end it back and gives how many are left. With the last one, a request that is not
    /// delivered yet is forgotten.
    pub fn uncancel(&self) -> u32 {
        self.core().cancel_state().withdraw()
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn done(&self) -> bool {
        self.core().done()
    }

    /// Whether the task ended cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.core().state.get() == State::Cancelled
    }

    /// Returns when the task has ended, in whatever way.
    ///
    /// # Errors
    ///
    /// [`Error::State`] in the task itself.
    pub async fn finished(&self) -> Result<()> {
        std::future::poll_fn(|cx| {
            if self.done() {
                return Poll::Ready(Ok(()));
            }
            if current::is_task(self) {
                return Poll::Ready(Err(Error::state("Task cannot await on itself")));
            }
            self.core().add_waiter(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// What reports call the task: `Task-1` and so on, if it was not given a name.
    #[must_use]
    pub fn name(&self) -> String {
        let core = self.core();
        match &*core.name.borrow() {
            Some(name) => String::from(&**name),
            None => format!("Task-{}", core.number),
        }
    }

    /// Gives the task a name.
    pub fn set_name(&self, name: impl Into<Box<str>>) {
        self.core().name.replace(Some(name.into()));
    }

    pub(super) fn new(task: Rc<impl AnyTask + 'static>) -> Self {
        Self { task }
    }

    pub(super) fn core(&self) -> &TaskCore {
        self.task.core()
    }

    /// What the task panicked with, if nobody has taken that.
    pub(super) fn take_error(&self) -> Option<Error> {
        self.task.take_error()
    }

    pub(super) fn destroy(&self) {
        Rc::clone(&self.task).destroy();
    }
}

impl PartialEq for TaskRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.core(), other.core())
    }
}

impl Eq for TaskRef {}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.core().state.get() {
            State::Pending => "pending",
            State::Finished => "finished",
            State::Cancelled => "cancelled",
        };
        write!(f, "<Task {state} name='{}'>", self.name())
    }
}

/// The task that is being stepped on this thread; `None` outside of tasks (spec TASK-18).
///
/// ```
/// ringloop::run(async {
///     assert_eq!(ringloop::current_task().unwrap().name(), "Task-1");
/// })?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use]
pub fn current_task() -> Option<TaskRef> {
    current::task()
}

/// Which task, in the table of its loop; a stale one finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskKey {
    index: u32,
    generation: u32,
}

/// The tasks of one loop that are not done.
#[derive(Default)]
pub(super) struct TaskTable {
    tasks: Slab<(u32, Rc<dyn AnyTask>)>,
    next_generation: u32,
}

impl TaskTable {
    pub(super) fn insert<R>(&mut self, make: impl FnOnce(TaskKey) -> (Rc<dyn AnyTask>, R)) -> R {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let entry = self.tasks.vacant_entry();
        let index = u32::try_from(entry.key()).expect("memory ends before four billion tasks");
        let (task, rest) = make(TaskKey { index, generation });
        entry.insert((generation, task));
        rest
    }

    pub(super) fn get(&self, key: TaskKey) -> Option<TaskRef> {
        match self.tasks.get(key.index as usize) {
            Some((generation, task)) if *generation == key.generation => {
                Some(TaskRef { task: Rc::clone(task) })
            }
            _ => None,
        }
    }

    fn remove(&mut self, key: TaskKey) -> Option<Rc<dyn AnyTask>> {
        self.get(key)?;
        Some(self.tasks.remove(key.index as usize).1)
    }

    pub(super) fn all(&self) -> Vec<TaskRef> {
        self.tasks.iter().map(|(_, (_, task))| TaskRef { task: Rc::clone(task) }).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// A task of whatever result.
pub(super) trait AnyTask {
    fn core(&self) -> &TaskCore;
    /// Takes one step. The body of the main task stands on the stack of the run: `main`.
    fn step(self: Rc<Self>, main: &mut dyn MainBody);
    /// The loop closes: drops the body.
    fn destroy(self: Rc<Self>);
    /// What the task panicked with, if nobody has taken that.
    fn take_error(&self) -> Option<Error>;
}

/// The future that `run_until_complete()` was given.
pub(super) trait MainBody {
    fn step(&mut self);
}

impl TaskRef {
    pub(super) fn step(self, main: &mut dyn MainBody) {
        self.core().waker.dequeued();
        self.task.step(main);
    }
}

struct TaskInner<T> {
    core: TaskCore,
    /// Empty while it is polled, and when it is done.
    body: Cell<Option<Pin<Box<dyn Future<Output = T>>>>>,
    /// Until somebody takes it.
    outcome: Cell<Option<Outcome<T>>>,
}

impl<T: 'static> TaskInner<T> {
    fn finish(self: &Rc<Self>, outcome: Outcome<T>) {
        let state = outcome.state();
        self.outcome.set(Some(outcome));
        self.core.finish(state);
    }
}

impl<T: 'static> AnyTask for TaskInner<T> {
    fn core(&self) -> &TaskCore {
        &self.core
    }

    fn step(self: Rc<Self>, _: &mut dyn MainBody) {
        let Some(mut body) = self.body.take() else { return };
        let this = TaskRef::new(Rc::clone(&self));
        match step(&this, body.as_mut()) {
            None => self.body.set(Some(body)),
            Some(outcome) => self.finish(end_body(outcome, || drop(body))),
        }
    }

    fn destroy(self: Rc<Self>) {
        let body = self.body.take();
        self.finish(end_body(Outcome::Cancelled, || drop(body)));
    }

    fn take_error(&self) -> Option<Error> {
        match self.outcome.take() {
            Some(Outcome::Panicked(error)) => Some(error),
            other => {
                self.outcome.set(other);
                None
            }
        }
    }
}

impl<T> Drop for TaskInner<T> {
    fn drop(&mut self) {
        if let Some(Outcome::Panicked(error)) = self.outcome.take() {
            let task = NamedTask(&self.core);
            let context = ExceptionContext::new("Task exception was never retrieved")
                .error(&error)
                .task(&task);
            self.core.event_loop.report(&context);
        }
    }
}

/// How a body ended.
pub(super) enum Outcome<T> {
    Returned(T),
    Cancelled,
    Panicked(Error),
}

impl<T> Outcome<T> {
    pub(super) fn into_result(self) -> Result<T> {
        match self {
            Self::Returned(value) => Ok(value),
            Self::Cancelled => Err(Error::Cancelled),
            Self::Panicked(error) => Err(error),
        }
    }

    pub(super) fn state(&self) -> State {
        match self {
            Self::Cancelled => State::Cancelled,
            Self::Returned(_) | Self::Panicked(_) => State::Finished,
        }
    }
}

/// Takes a step of `body`; gives how it ended, and then the body is to be dropped.
pub(super) fn step<T>(
    task: &TaskRef,
    body: Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Option<Outcome<T>> {
    let core = task.core();
    let state = core.cancel_state();
    if let Delivery::End = state.aim() {
        return Some(Outcome::Cancelled);
    }
    let guard = current::enter_task(task.clone());
    let polled = catch(|| body.poll(&mut Context::from_waker(&core.std_waker)));
    drop(guard);
    match polled {
        // A request that came while it ran, and it has nothing more to wait for.
        Ok(Poll::Ready(value)) if state.is_due() => {
            Some(end_body(Outcome::Cancelled, || drop(value)))
        }
        Ok(Poll::Ready(value)) => Some(Outcome::Returned(value)),
        Ok(Poll::Pending) => {
            if state.must_aim() {
                core.wake();
            }
            None
        }
        Err(error) => Some(Outcome::Panicked(error)),
    }
}

/// Drops a body that has ended. A panic in there counts unless it ended by one already.
pub(super) fn end_body<T>(outcome: Outcome<T>, drop_body: impl FnOnce()) -> Outcome<T> {
    let dropped = match outcome {
        Outcome::Cancelled => catch(|| current::cancelling(drop_body)),
        _ => catch(drop_body),
    };
    match (outcome, dropped) {
        (outcome @ Outcome::Panicked(_), _) | (outcome, Ok(())) => outcome,
        (_, Err(error)) => Outcome::Panicked(error),
    }
}

/// What all tasks have.
pub(super) struct TaskCore {
    key: TaskKey,
    number: u64,
    name: RefCell<Option<Box<str>>>,
    scheduler: Rc<Scheduler>,
    event_loop: LoopRef,
    waker: Arc<TaskWaker>,
    /// The same, as futures want it: made once.
    std_waker: Waker,
    cancel: CancelState,
    state: Cell<State>,
    waiters: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Finished,
    Cancelled,
}

impl TaskCore {
    pub(super) fn new(key: TaskKey, event_loop: &EventLoop) -> Self {
        let scheduler = event_loop.scheduler();
        let inbox = Arc::clone(event_loop.inbox());
        let waker = Arc::new(TaskWaker::new(scheduler.loop_id, key, inbox));
        Self {
            key,
            number: event_loop.next_task_number(),
            name: RefCell::default(),
            scheduler: Rc::clone(scheduler),
            event_loop: event_loop.downgrade(),
            std_waker: Waker::from(Arc::clone(&waker)),
            waker,
            cancel: CancelState::default(),
            state: Cell::new(State::Pending),
            waiters: RefCell::default(),
        }
    }

    pub(super) fn wake(&self) {
        self.waker.queue(&self.scheduler);
    }

    pub(super) fn cancel_state(&self) -> &CancelState {
        &self.cancel
    }

    /// Whether `waker` is the task's own and not that of something in between.
    pub(super) fn is_woken_by(&self, waker: &Waker) -> bool {
        self.std_waker.will_wake(waker)
    }

    pub(super) fn repeat_cancel(&self) {
        self.cancel.repeat();
    }

    fn cancel(&self) -> bool {
        let pending = !self.done();
        if pending {
            self.cancel.request();
            self.wake();
        }
        pending
    }

    fn done(&self) -> bool {
        self.state.get() != State::Pending
    }

    fn add_waiter(&self, waker: &Waker) {
        let known = self.waiters.borrow().iter().any(|waiter| waiter.will_wake(waker));
        if !known {
            let waker = waker.clone(); // Outside the borrow: a foreign waker runs foreign code.
            self.waiters.borrow_mut().push(waker);
        }
    }

    /// Leaves the loop's table and wakes who waits.
    pub(super) fn finish(&self, state: State) {
        self.state.set(state);
        if let Some(event_loop) = self.event_loop.upgrade() {
            let task = event_loop.tasks().borrow_mut().remove(self.key);
            drop(task);
        }
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }
}

/// For the report of a task that is being dropped.
struct NamedTask<'a>(&'a TaskCore);

impl fmt::Debug for NamedTask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.name.borrow() {
            Some(name) => write!(f, "<Task finished name='{name}'>"),
            None => write!(f, "<Task finished name='Task-{}'>", self.0.number),
        }
    }
}
