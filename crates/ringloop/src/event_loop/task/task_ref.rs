//! Tasks of whatever result: to cancel them and to wait for their end.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::awaited::Asking;
use super::core::{TaskCore, WatchesEnd};
use super::{AnyTask, MainBody, current};
use crate::event_loop::waiters::{Place, Waiter};
use crate::{Error, EventLoop, Result};

/// A task of whatever result. A clone is the same task.
///
/// ```
/// # ringloop::run(async {
/// let task = ringloop::spawn(std::future::pending::<()>()).task_ref();
/// task.set_name("endless");
/// assert_eq!(task.name(), "endless");
/// task.cancel();
/// assert_eq!(task.cancelling(), 1);
/// assert_eq!(task.uncancel(), 0); // It goes on.
/// task.cancel();
/// task.finished().await?;
/// assert!(task.done() && task.cancelled());
/// assert!(task.exception().is_err(), "it was cancelled");
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct TaskRef {
    task: Rc<dyn AnyTask>,
}

impl TaskRef {
    /// Asks the task to end: see [`Task::cancel`](crate::Task::cancel).
    pub fn cancel(&self) -> bool {
        let pending = !self.done();
        if pending {
            Asking::request(self);
        }
        pending
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
        self.core().cancelled()
    }

    /// Returns when the task has ended, in whatever way.
    ///
    /// It only looks on: unlike whoever awaits the [`Task`](crate::Task), it leaves the task alone when it is cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::State`] in the task itself, and in a task of another loop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, and changes nothing for the task.
    pub async fn finished(&self) -> Result<()> {
        let core = self.core();
        let mut place = Place::new(core.waiters());
        poll_fn(|cx| {
            let must_wait = || !core.done();
            if must_wait() {
                core.check_awaited()?;
            }
            if place.is_waiting(cx, must_wait) { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    /// What reports call the task: `Task-1` and so on, if it was not given a name.
    #[must_use]
    pub fn name(&self) -> String {
        self.core().name()
    }

    /// Gives the task a name.
    pub fn set_name(&self, name: impl Into<Box<str>>) {
        self.core().set_name(name.into());
    }

    pub(super) fn core(&self) -> &TaskCore {
        self.task.core()
    }

    /// The error with which the task ended, if it did and nobody has taken it: that it panicked, or what the child of a
    /// [`TaskGroup`](crate::TaskGroup) gave. Counts as looking at it, so that it is not reported when the task is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] while the task is not done, [`Error::Cancelled`] if it was cancelled.
    pub fn exception(&self) -> Result<Option<Error>> {
        if !self.done() {
            return Err(Error::invalid_state("Exception is not set."));
        }
        if self.cancelled() {
            return Err(Error::Cancelled);
        }
        self.core().seen.set(true);
        Ok(self.task.error())
    }

    /// Calls `watcher.ended(place)` when the task ends; at once if it has ended. The result is given to
    /// [`unwatch_end`](Self::unwatch_end) to take this back.
    pub(crate) fn watch_end(&self, watcher: Rc<dyn WatchesEnd>, place: usize) -> EndWatch {
        if self.done() {
            watcher.ended(place);
            return EndWatch(None);
        }
        EndWatch(Some(self.core().waiters().add(Waiter::Callback((watcher, place)))))
    }

    pub(crate) fn unwatch_end(&self, watch: EndWatch) {
        if let Some(place) = watch.0 {
            self.core().waiters().leave(place);
        }
    }

    /// The loop that runs it, while that lives.
    pub(crate) fn event_loop(&self) -> Option<EventLoop> {
        self.core().event_loop().upgrade()
    }

    /// Which of the loop's tasks it is, in the order in which they were made.
    pub(crate) fn number(&self) -> u64 {
        self.core().number()
    }

    /// Takes the next step.
    pub(in crate::event_loop) fn step(self, main: &mut dyn MainBody) {
        self.task.step(main);
    }

    pub(in crate::event_loop) fn destroy(&self) {
        Rc::clone(&self.task).destroy();
    }
}

/// That somebody watches the end of a task: what [`TaskRef::watch_end`] gives.
pub(crate) struct EndWatch(Option<u64>);

impl From<Rc<dyn AnyTask>> for TaskRef {
    fn from(task: Rc<dyn AnyTask>) -> Self {
        Self { task }
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
        self.core().fmt(f)
    }
}

/// The task that is running on this thread now; `None` outside of tasks.
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
