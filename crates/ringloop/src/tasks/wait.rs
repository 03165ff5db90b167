//! Waiting until some of several tasks are done: `wait()`.
//!
//! As in asyncio, the end of a task queues a callback, which counts it; the last one that is waited for completes a
//! future, and that wakes who waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::end_queue::EndQueue;
use crate::event_loop::EndWatch;
use crate::{Error, EventLoop, LoopFuture, Result, Task, TaskRef, TimerHandle};

/// Waits until some or all of `tasks` are done, and gives those that are and those that are not.
///
/// It neither cancels a task nor takes its result: what went in, tasks or references to them, comes out again.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{ReturnWhen, sleep, spawn, wait};
///
/// ringloop::run(async {
///     let tasks = [1, 3_600_000].map(|millis| spawn(sleep(Duration::from_millis(millis))));
///     let waited = wait(&tasks, None, ReturnWhen::FirstCompleted).await?;
///     assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::InvalidArgument`] without tasks, [`Error::State`] outside of a running loop. A deadline that passes is none.
///
/// # Cancel safety
///
/// Cancelled or dropped while it waits, it leaves the tasks alone; tasks that were given by value are detached.
pub async fn wait<W: Waitable>(
    tasks: impl IntoIterator<Item = W>,
    limit: Option<Duration>,
    return_when: ReturnWhen,
) -> Result<Waited<W>> {
    let tasks: Vec<W> = tasks.into_iter().collect();
    if tasks.is_empty() {
        return Err(Error::invalid_argument("Set of Tasks/Futures is empty."));
    }
    let waiting = Waiting::start(&tasks, limit, return_when)?;
    waiting.state.released.clone().await?;
    drop(waiting);
    let (done, pending) = tasks.into_iter().partition(|task| task.as_task_ref().done());
    Ok(Waited { done, pending })
}

/// When [`wait`] returns.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{ReturnWhen, spawn, wait};
///
/// let tasks = [spawn(async { 1 }), spawn(async { 2 })];
/// let waited = wait(&tasks, None, ReturnWhen::AllCompleted).await?;
/// assert_eq!(waited.done.len(), 2);
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnWhen {
    /// When one task is done.
    FirstCompleted,
    /// When one task has failed, or all are done. To fail is to panic, or to end with an error as a child of a
    /// [`TaskGroup`](crate::TaskGroup) does; a task that returns an `Err` has returned.
    FirstException,
    /// When all tasks are done.
    AllCompleted,
}

/// What [`wait`] gives, each in the order of the call.
///
/// ```
/// # ringloop::run(async {
/// use std::time::Duration;
/// use ringloop::{ReturnWhen, spawn, wait};
///
/// let tasks = [spawn(std::future::pending::<()>())];
/// let waited = wait(tasks, Some(Duration::from_millis(1)), ReturnWhen::AllCompleted).await?;
/// assert!(waited.done.is_empty());
/// for task in waited.pending {
///     task.cancel();
/// }
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug)]
pub struct Waited<W> {
    /// The tasks that are done.
    pub done: Vec<W>,
    /// The tasks that are not.
    pub pending: Vec<W>,
}

/// What can be waited for by [`wait`] and [`as_completed`](crate::as_completed): tasks, and references to them.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{Waitable, spawn};
///
/// async fn end_of(task: impl Waitable) -> ringloop::Result<()> {
///     task.as_task_ref().finished().await
/// }
/// end_of(&spawn(async {})).await?;
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub trait Waitable {
    /// The task.
    fn as_task_ref(&self) -> TaskRef;
}

impl<T> Waitable for Task<T> {
    fn as_task_ref(&self) -> TaskRef {
        self.task_ref()
    }
}

impl Waitable for TaskRef {
    fn as_task_ref(&self) -> TaskRef {
        self.clone()
    }
}

impl<W: Waitable> Waitable for &W {
    fn as_task_ref(&self) -> TaskRef {
        (*self).as_task_ref()
    }
}

impl<W: Waitable> Waitable for &mut W {
    fn as_task_ref(&self) -> TaskRef {
        (**self).as_task_ref()
    }
}

/// The wait takes its watches and its timer back when it goes.
struct Waiting {
    state: Rc<State>,
    watches: Vec<EndWatch>,
    timer: Option<TimerHandle>,
}

struct State {
    return_when: ReturnWhen,
    left: Cell<usize>,
    tasks: Vec<TaskRef>,
    released: LoopFuture<()>,
}

impl Waiting {
    fn start<W: Waitable>(
        tasks: &[W],
        limit: Option<Duration>,
        return_when: ReturnWhen,
    ) -> Result<Self> {
        let event_loop = EventLoop::running()?;
        let state = Rc::new(State {
            return_when,
            left: Cell::new(tasks.len()),
            tasks: tasks.iter().map(Waitable::as_task_ref).collect(),
            released: event_loop.create_future(),
        });
        let released = state.released.clone();
        let release = move |_: &EventLoop| {
            let _ = released.set_result_unless_cancelled(()); // It may be released already.
        };
        let timer = limit.map(|limit| event_loop.call_later(limit, release)).transpose()?;
        let ends = EndQueue::new(&event_loop, Rc::downgrade(&state), "wait", State::look_at);
        let tasks = state.tasks.iter().enumerate();
        let watches = tasks.map(|(place, task)| task.watch_end(ends.clone(), place)).collect();
        Ok(Self { state, watches, timer })
    }
}

impl State {
    fn look_at(self: &Rc<Self>, place: usize) {
        let left = self.left.get() - 1;
        self.left.set(left);
        let enough = left == 0
            || match self.return_when {
                ReturnWhen::FirstCompleted => true,
                // Counts as looking at the error, as in asyncio.
                ReturnWhen::FirstException => matches!(self.tasks[place].exception(), Ok(Some(_))),
                ReturnWhen::AllCompleted => false,
            };
        if enough && !self.released.done() {
            let _ = self.released.set_result(()); // It is pending.
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.cancel();
        }
        for (task, watch) in self.state.tasks.iter().zip(self.watches.drain(..)) {
            task.unwatch_end(watch);
        }
    }
}
