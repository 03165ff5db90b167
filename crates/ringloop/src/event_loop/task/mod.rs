//! Tasks: Rust futures that the loop runs.
//!
//! # Life of a task
//!
//! ```text
//! create_task -> first step queued -> { step -> pending -> woken -> queued }* -> step -> done
//! ```
//!
//! The loop's table owns the task while it is not done; handles own the rest of it, which is how it ended. While its body is
//! polled, nothing but the body is borrowed, so it may do anything to its own task. It is dropped when it is done,
//! when a cancellation ends it, or when the loop closes.

mod awaited;
mod cancel;
mod core;
pub(crate) mod current;
mod key;
mod main_task;
mod remote;
mod step;
mod table;
mod task_ref;
mod waker;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use self::core::{OwnedCore, TaskCore};
use self::step::{BodyEnd, end_body, step};
use super::EventLoop;
use super::door::let_go;
use super::exception::ExceptionContext;
use crate::{Error, Result};

pub(crate) use self::awaited::{Asked, Asking, Awaited};
pub(crate) use self::cancel::Deadline;
pub use self::cancel::{Cancelled, catch_cancel};
pub(crate) use self::core::WatchesEnd;
pub(super) use self::key::TaskKey;
pub(super) use self::main_task::{Main, MainBody, NoMain};
pub use self::remote::RemoteTask;
pub(super) use self::table::TaskTable;
pub(crate) use self::task_ref::EndWatch;
pub use self::task_ref::{TaskRef, current_task};
pub(super) use self::waker::TaskWaker;

/// A running future: what [`EventLoop::create_task`] gives.
///
/// Awaiting it gives what the future gave, or [`Error::Cancelled`], or [`Error::Panic`] with what the panic said, or
/// [`Error::State`] if the loop was closed already, in the task itself, and in a task of another loop. Dropping it
/// detaches: the task goes on. The result is there once, for the first who takes it.
///
/// As in asyncio, whoever is cancelled while it awaits a task has that cancelled, and goes on when it has ended: see
/// [`cancel`](Self::cancel). A [`timeout`](crate::timeout) or a scope that drops the handle while it is awaited cancels
/// the task, too, and does not wait. To wait for a task without that, await [`TaskRef::finished`].
///
/// ```
/// ringloop::run(async {
///     let task = ringloop::spawn(async { 1 + 1 });
///     assert!(!task.done(), "the first step is taken soon, not at once");
///     assert_eq!(task.await?, 2);
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Cancel safety
///
/// Dropping it detaches the task, as said above: it goes on, and nothing is lost but its result. A timeout or a scope cancels it.
///
/// To wait for the end and take the result later:
///
/// ```
/// # ringloop::run(async {
/// let task = ringloop::spawn(async { "text".to_owned() });
/// let end = task.task_ref();
/// end.finished().await?;
/// assert!(task.exception()?.is_none());
/// assert_eq!(task.result()?, "text");
///
/// let endless = ringloop::spawn(std::future::pending::<()>());
/// endless.cancel();
/// endless.task_ref().finished().await?;
/// assert!(endless.cancelled());
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use = "a dropped task goes on by itself; say so with `drop(task)`"]
pub struct Task<T: 'static> {
    inner: Rc<TaskInner<T>>,
    /// The place of this handle among those who wait, while it is awaited.
    waiting: Cell<Option<u64>>,
}

impl<T> Task<T> {
    /// Starts `body` on `event_loop`; the first step is taken soon.
    #[track_caller]
    pub(super) fn spawn(event_loop: &EventLoop, body: impl Future<Output = T> + 'static) -> Self {
        Self::start(event_loop, Body::Returns(Box::pin(body)))
    }

    /// As [`spawn`](Self::spawn), for a body whose error is how the task ends.
    #[track_caller]
    pub(crate) fn spawn_fallible(
        event_loop: &EventLoop,
        body: impl Future<Output = Result<T>> + 'static,
    ) -> Self {
        match event_loop.check_closed() {
            Ok(()) => Self::start(event_loop, Body::MayFail(Box::pin(body))),
            Err(error) => Self::refused(error, body),
        }
    }

    #[track_caller]
    fn start(event_loop: &EventLoop, body: Body<T>) -> Self {
        let location = Location::caller();
        let inner = event_loop.tasks().borrow_mut().insert(event_loop, location, |core| {
            let inner =
                Rc::new(TaskInner { core, body: RefCell::new(Some(body)), ended: Cell::new(None) });
            (Rc::clone(&inner) as Rc<dyn AnyTask>, inner)
        });
        inner.core.wake();
        Self { inner, waiting: Cell::new(None) }
    }

    /// A task that never was: its body is dropped, and it ends with `error` at once.
    #[track_caller]
    pub(crate) fn refused(error: Error, body: impl Sized) -> Self {
        let_go("the body of a task", body);
        let inner = Rc::new(TaskInner {
            core: TaskCore::refused(),
            body: RefCell::new(None),
            ended: Cell::new(Some(BodyEnd::Failed(error))),
        });
        Self { inner, waiting: Cell::new(None) }
    }

    /// Asks the task to end. Gives `false` if it is done already; then nothing happens.
    ///
    /// The task is not done when this returns: at its next step the innermost
    /// [`catch_cancel`] scope drops its future and yields `Err(Cancelled)`; without such a scope
    /// the body is dropped and the task ends cancelled. A task that has not begun never does.
    ///
    /// What the task waits for in there is asked first:
    ///
    /// - A [`LoopFuture`](crate::LoopFuture) is cancelled when this returns, and all who wait for it are queued.
    /// - A [`Task`] or a [`Gather`](crate::Gather) is asked in turn, and how that ends decides. If it ends cancelled,
    ///   the request is delivered then; if a task goes on and returns, so does this one, with the result.
    ///
    /// This holds for what is polled with the task's own waker. Below a combinator that has wakers of its own, the
    /// request is delivered at the next step, and what is awaited there is cancelled when it is dropped. A task that
    /// cancels itself, or one that is queued already, is not queued anew; the end of the step does the rest.
    pub fn cancel(&self) -> bool {
        self.task_ref().cancel()
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn done(&self) -> bool {
        self.inner.core.done()
    }

    /// Whether the task ended cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.inner.core.cancelled()
    }

    /// The same task under a name, for reports: see [`TaskRef::set_name`].
    ///
    /// ```
    /// let name = ringloop::run(async {
    ///     let task = ringloop::spawn(async { ringloop::current_task().unwrap().name() });
    ///     task.named("reader").await
    /// })??;
    /// assert_eq!(name, "reader");
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn named(self, name: impl Into<Box<str>>) -> Self {
        self.inner.core.set_name(name.into());
        self
    }

    /// The error with which the task ended, if it did: see [`TaskRef::exception`].
    ///
    /// # Errors
    ///
    /// As [`TaskRef::exception`].
    pub fn exception(&self) -> Result<Option<Error>> {
        self.task_ref().exception()
    }

    /// Takes what the task gave.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] or [`Error::Panic`] if it ended so, [`Error::State`] if it could not begin;
    /// [`Error::InvalidState`] if it is not done, or if the result was taken before.
    pub fn result(&self) -> Result<T> {
        match self.inner.ended.take() {
            Some(ended) => ended.into_result(),
            None if self.cancelled() => Err(Error::Cancelled),
            None if self.done() => Err(Error::invalid_state("Result was already taken.")),
            None => Err(Error::invalid_state("Result is not set.")),
        }
    }

    pub(super) fn key(&self) -> TaskKey {
        self.inner.core.key()
    }

    /// The task without its result: to cancel it, or to wait for its end, from elsewhere.
    #[must_use]
    pub fn task_ref(&self) -> TaskRef {
        let task: Rc<dyn AnyTask> = self.inner.clone();
        task.into()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.done() {
            self.waiting.set(None);
            return Poll::Ready(self.result());
        }
        if let Err(error) = self.inner.core.check_awaited() {
            return Poll::Ready(Err(error));
        }
        let place = self.inner.core.waiters().join(self.waiting.get(), cx.waker());
        self.waiting.set(Some(place));
        current::note_awaited(cx.waker(), &self.inner, place);
        Poll::Pending
    }
}

/// A clone is the same task. Of several who await it, the first gets the result, and the others are told that it was
/// taken.
impl<T> Clone for Task<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), waiting: Cell::new(None) }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(place) = self.waiting.get() {
            self.inner.core.waiters().leave(place);
            if current::is_cancelling() {
                self.cancel();
            }
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task_ref().fmt(f)
    }
}

/// A task of whatever result.
trait AnyTask {
    fn core(&self) -> &TaskCore;
    /// Has left the ready queue: takes one step. The body of the main task stands on the stack of the run: `main`.
    fn step(self: Rc<Self>, main: &mut dyn MainBody);
    /// The loop closes: drops the body.
    fn destroy(self: Rc<Self>);
    /// The error with which the task ended, if nobody has taken that.
    fn error(&self) -> Option<Error>;
}

struct TaskInner<T: 'static> {
    core: OwnedCore,
    /// Borrowed while it is polled; empty when it is done.
    body: RefCell<Option<Body<T>>>,
    /// Until somebody takes it.
    ended: Cell<Option<BodyEnd<T>>>,
}

impl<T: 'static> TaskInner<T> {
    /// Drops the body, which has ended or is to end so.
    #[inline(never)]
    fn end(&self, ended: BodyEnd<T>) {
        let body = self.body.take();
        let ended = end_body(ended, || drop(body));
        let state = ended.state();
        self.ended.set(Some(ended));
        self.core.finish(state);
    }
}

impl<T: 'static> AnyTask for TaskInner<T> {
    fn core(&self) -> &TaskCore {
        &self.core
    }

    fn step(self: Rc<Self>, _: &mut dyn MainBody) {
        let core: &TaskCore = &self.core;
        core.waker().dequeued();
        let _context = core.context.enter();
        let ended = {
            let mut body = self.body.borrow_mut();
            let Some(body) = &mut *body else { return };
            step(core, |cx| body.poll(cx))
        };
        if let Some(ended) = ended {
            self.end(ended);
        }
    }

    fn destroy(self: Rc<Self>) {
        let _context = self.core.context.enter();
        self.end(BodyEnd::Cancelled);
    }

    fn error(&self) -> Option<Error> {
        let ended = self.ended.take();
        let error = match &ended {
            Some(BodyEnd::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        self.ended.set(ended);
        error
    }
}

impl<T: 'static> Awaited for TaskInner<T> {
    fn ask(self: Rc<Self>, place: u64, waker: &Waker, asking: &mut Asking<'_>) -> Asked {
        let awaited = self.core.waiters().is_at(place, waker);
        let task: Rc<dyn AnyTask> = self;
        if awaited && asking.add(task.into()) { Asked::Later } else { Asked::Nothing }
    }

    fn ends_by_itself(&self) -> bool {
        true
    }

    fn ended(&self) -> Option<bool> {
        self.core.done().then(|| self.core.cancelled())
    }
}

impl<T: 'static> Drop for TaskInner<T> {
    fn drop(&mut self) {
        match self.ended.take() {
            Some(BodyEnd::Failed(error)) if !self.core.seen.get() => {
                let context = ExceptionContext::new("Task exception was never retrieved");
                self.core.event_loop().report(&context.error(&error).task(&*self.core));
                let_go("the error of a task", error);
            }
            ended => {
                if matches!(&ended, Some(BodyEnd::Returned(value)) if may_be_error(value)) {
                    let event_loop = self.core.event_loop().upgrade();
                    if let Some(event_loop) = event_loop.filter(EventLoop::get_debug) {
                        event_loop.warn_unretrieved(&format!("{:?}", *self.core));
                    }
                }
                let_go("the result of a task", ended);
            }
        }
        let_go("the body of a task", self.body.take());
    }
}

/// What a task runs.
enum Body<T> {
    Returns(Pin<Box<dyn Future<Output = T>>>),
    MayFail(Pin<Box<dyn Future<Output = Result<T>>>>),
}

impl<T> Body<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match self {
            Self::Returns(body) => body.as_mut().poll(cx).map(Ok),
            Self::MayFail(body) => body.as_mut().poll(cx),
        }
    }
}

/// Whether somebody should have looked at it: a `Result` that is no `Ok`, as far as that can be known.
fn may_be_error<T: 'static>(value: &T) -> bool {
    let value: &dyn Any = value;
    if let Some(result) = value.downcast_ref::<Result<()>>() {
        return result.is_err();
    }
    if let Some(result) = value.downcast_ref::<std::io::Result<()>>() {
        return result.is_err();
    }
    std::any::type_name::<T>().starts_with("core::result::Result<")
}
