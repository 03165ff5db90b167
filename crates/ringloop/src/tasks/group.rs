//! Tasks that belong together, and end together: `TaskGroup`.
//!
//! # Life of a group
//!
//! ```text
//! run -> body, children -> body is done -> all children are done -> run returns
//!            '-> one fails, or the parent is cancelled: body and children are cancelled, and waited for
//! ```
//!
//! It goes as asyncio's: the end of a child queues a callback, which looks at it; the body is cancelled by a request to
//! its own task, which the group takes back at the end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use slab::Slab;

use super::end_queue::EndQueue;
use crate::event_loop::door::let_go;
use crate::{
    Cancelled, Error, ErrorGroup, EventLoop, ExceptionContext, LoopFuture, LoopRef, Result, Task,
    TaskRef, catch_cancel, current_task,
};

/// Tasks that belong together: asyncio's `TaskGroup`. A clone is the same group.
///
/// [`run`](Self::run) calls a body, which starts children with [`create_task`](Self::create_task), and returns when the
/// body and all children have ended. The first that fails, by an `Err` or by a panic, has all others cancelled, the body
/// among them; the errors come out together. So no task of the group outlives it.
///
/// ```
/// use ringloop::{Error, TaskGroup};
///
/// let sum = ringloop::run(TaskGroup::run(async |group| {
///     let one = group.create_task(async { Ok::<_, Error>(1) });
///     let two = group.create_task(async { Ok::<_, Error>(2) });
///     Ok::<_, Error>(one.await? + two.await?)
/// }))??;
/// assert_eq!(sum, 3);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct TaskGroup {
    inner: Rc<Inner>,
}

impl TaskGroup {
    /// Runs `body` with a new group, and returns when it and all children have ended.
    ///
    /// The body's value counts if nothing failed. The body is cancelled as [`Task::cancel`](crate::Task::cancel) says:
    /// it may catch that, and then goes on. If it panics, the children are cancelled and waited for, and then the panic
    /// goes on; errors of children go to the exception handler, since nobody gets them.
    ///
    /// # Errors
    ///
    /// [`Error::Multiple`] with the message "unhandled errors in a TaskGroup" and the errors of children and body, in the
    /// order in which they came; [`Error::Cancelled`] if the body gave that and nothing else failed; [`Error::State`] outside
    /// of a task of a running loop.
    ///
    /// # Cancel safety
    ///
    /// When the task is cancelled, the body and the children are, and this waits for them. Dropped before it is done, by
    /// a [`timeout`](crate::timeout) for example, it cancels the children and cannot wait. Errors of children go to the
    /// exception handler then.
    pub async fn run<R: MayFail>(body: impl AsyncFnOnce(&Self) -> R) -> Result<R::Value> {
        let group = Self::new()?;
        let _abort = AbortOnDrop(&group);
        let ended = {
            let mut body = pin!(body(&group));
            // A panic has to wait for the children, too.
            let body =
                poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(cx))) {
                    Ok(poll) => poll.map(Ok),
                    Err(panic) => Poll::Ready(Err(panic)),
                });
            catch_cancel(body).await
        };
        let inner = &*group.inner;
        inner.exiting.set(true);
        let (mut cancelled, mut panic, mut value) = (None, None, None);
        let mut error = None;
        match ended {
            Ok(Ok(result)) => match result.into_result() {
                Ok(returned) => value = Some(returned),
                Err(failed) => error = Some(failed),
            },
            Ok(Err(payload)) => panic = Some(payload),
            Err(by) => cancelled = Some(by),
        }
        if value.is_none() && !inner.aborting.get() {
            inner.abort();
        }
        group.wait_for_children(&mut cancelled).await;
        if inner.take_request_back() == Some(0) {
            cancelled = None;
        }
        if let Some(panic) = panic {
            inner.report_errors();
            resume_unwind(panic);
        }
        let mut errors = inner.errors.take();
        if let Some(cancelled) = cancelled.filter(|_| errors.is_empty()) {
            match cancelled.propagate().await {}
        }
        errors.extend(error.filter(|error| !matches!(error, Error::Cancelled)));
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            None if errors.is_empty() => Err(Error::Cancelled), // So said the body.
            _ => {
                if inner.parent.cancelling() > 0 {
                    // Somebody else wants the parent to end: that stays so, and counts once.
                    inner.parent.uncancel();
                    inner.parent.cancel();
                }
                Err(ErrorGroup::new("unhandled errors in a TaskGroup", errors).into())
            }
        }
    }

    /// Runs `future` as a task of this group. It gives `()`, or a `Result` whose error fails the group. A child that gives
    /// [`Error::Cancelled`], as awaiting something that was cancelled does, ends cancelled, and the group goes on.
    ///
    /// Awaiting the task gives the value or the error. In a group that has ended, or whose tasks are being cancelled, the
    /// future is dropped, and awaiting the task gives [`Error::State`].
    #[track_caller]
    pub fn create_task<R: MayFail + 'static>(
        &self,
        future: impl Future<Output = R> + 'static,
    ) -> Task<R::Value> {
        let inner = &*self.inner;
        if inner.exiting.get() && inner.tasks.borrow().is_empty() {
            let error = Error::state(format!("TaskGroup {self:?} is finished"));
            return Task::refused(error, future);
        }
        if inner.aborting.get() {
            let error = Error::state(format!("TaskGroup {self:?} is shutting down"));
            return Task::refused(error, future);
        }
        // On a closed loop nobody would look at the end of the task.
        let event_loop = inner.event_loop.upgrade().filter(|event_loop| !event_loop.is_closed());
        let Some(event_loop) = event_loop else {
            return Task::refused(Error::loop_closed(), future);
        };
        let body = async move { future.await.into_result() };
        let task = Task::spawn_fallible(&event_loop, body);
        let place = inner.tasks.borrow_mut().insert(task.task_ref());
        task.task_ref().watch_end(inner.ends.clone(), place);
        task
    }

    fn new() -> Result<Self> {
        let event_loop = EventLoop::running()?;
        let parent = current_task()
            .ok_or_else(|| Error::state("TaskGroup cannot determine the parent task"))?;
        let inner = Rc::new_cyclic(|inner| Inner {
            event_loop: event_loop.downgrade(),
            parent,
            ends: EndQueue::new(&event_loop, inner.clone(), "TaskGroup", Inner::look_at),
            tasks: RefCell::default(),
            errors: RefCell::default(),
            exiting: Cell::new(false),
            aborting: Cell::new(false),
            over: Cell::new(false),
            parent_cancel_requested: Cell::new(false),
            all_ended: RefCell::default(),
        });
        Ok(Self { inner })
    }

    async fn wait_for_children(&self, cancelled: &mut Option<Cancelled>) {
        let inner = &*self.inner;
        while !inner.tasks.borrow().is_empty() {
            let Some(event_loop) = inner.event_loop.upgrade() else { return };
            let all_ended = event_loop.create_future();
            drop(event_loop); // Held over the wait it would keep the loop open.
            inner.all_ended.replace(Some(all_ended.clone()));
            if let Err(by) = catch_cancel(all_ended).await {
                if !inner.aborting.get() {
                    *cancelled = Some(by);
                    inner.abort();
                }
            }
            inner.all_ended.take();
        }
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<TaskGroup")?;
        let (tasks, errors) = (self.inner.tasks.borrow().len(), self.inner.errors.borrow().len());
        if tasks > 0 {
            write!(f, " tasks={tasks}")?;
        }
        if errors > 0 {
            write!(f, " errors={errors}")?;
        }
        f.write_str(if self.inner.aborting.get() { " cancelling>" } else { " entered>" })
    }
}

/// What the body and the children of a [`TaskGroup`] give: `()`, or a `Result` whose error fails the group.
///
/// ```
/// use ringloop::{Error, MayFail};
///
/// assert!(matches!(Ok::<_, Error>(1).into_result(), Ok(1)));
/// assert!(matches!(Err::<u32, _>(Error::Timeout).into_result(), Err(Error::Timeout)));
/// ```
pub trait MayFail {
    /// What it gives if it does not fail.
    type Value;

    /// The value, or the error as one of this library's.
    ///
    /// # Errors
    ///
    /// What made it fail.
    fn into_result(self) -> Result<Self::Value>;
}

impl MayFail for () {
    type Value = ();

    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> MayFail for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T> {
        self.map_err(|error| Error::from_boxed(error.into()))
    }
}

struct Inner {
    event_loop: LoopRef,
    parent: TaskRef,
    ends: Rc<EndQueue<Self>>,
    /// The children whose end nobody has looked at.
    tasks: RefCell<Slab<TaskRef>>,
    errors: RefCell<Vec<Error>>,
    /// The body is done.
    exiting: Cell<bool>,
    /// The children were cancelled; there are no new ones.
    aborting: Cell<bool>,
    /// Nobody waits for the group any more; clones of it may be there.
    over: Cell<bool>,
    /// The parent was asked to end, so that the body does.
    parent_cancel_requested: Cell<bool>,
    /// What the exit waits for.
    all_ended: RefCell<Option<LoopFuture<()>>>,
}

impl Inner {
    fn abort(&self) {
        self.aborting.set(true);
        let mut tasks: Vec<_> = self.tasks.borrow().iter().map(|(_, task)| task.clone()).collect();
        tasks.sort_by_key(TaskRef::number);
        for task in tasks {
            task.cancel();
        }
    }

    /// Takes back what the parent was asked by the group; gives how many requests of others are left.
    fn take_request_back(&self) -> Option<u32> {
        self.parent_cancel_requested.replace(false).then(|| self.parent.uncancel())
    }

    /// Tells the exception handler of the errors that the group cannot give to anybody.
    fn report_errors(&self) {
        for error in self.errors.take() {
            let context = ExceptionContext::new("exception of a TaskGroup that gave no result");
            self.event_loop.report(&context.error(&error).task(&self.parent));
            let_go("the error of a task", error);
        }
    }

    fn look_at(self: &Rc<Self>, place: usize) {
        let task = self.tasks.borrow_mut().remove(place);
        if self.over.get() {
            return; // The task reports its own error.
        }
        let all_ended = self.all_ended.borrow().clone();
        if let Some(all_ended) = all_ended.filter(|_| self.tasks.borrow().is_empty()) {
            let _ = all_ended.set_result_unless_cancelled(());
        }
        let Ok(Some(error)) = task.exception() else { return };
        self.errors.borrow_mut().push(error);
        if !self.aborting.get() && !self.parent_cancel_requested.get() {
            self.abort();
            self.parent_cancel_requested.set(true);
            self.parent.cancel();
        }
    }
}

/// The group is dropped before its children have ended.
struct AbortOnDrop<'a>(&'a TaskGroup);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        let inner = &*self.0.inner;
        inner.exiting.set(true);
        inner.abort();
        // The request to end was meant for the body, which is gone, so it is taken back from the parent task.
        inner.take_request_back();
        inner.over.set(true);
        inner.report_errors();
    }
}
