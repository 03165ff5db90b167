//! Futures: a result to come, completed by hand.
//!
//! # Life of a future
//!
//! ```text
//! pending -> finished (a value or an error) | cancelled
//! ```
//!
//! When it is done, the tasks that wait for it are woken and its done callbacks are scheduled, in the order in which they came.
//! None of them runs inside `set_result()`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::door::let_go;
use super::exception::ExceptionContext;
use super::ready::NO_LOOP;
use super::task::{Asked, Asking, Awaited, current};
use super::waiters::{Waiter, Waiters};
use super::{EventLoop, LoopRef, Snapshot, running};
use crate::{Error, Result};

/// A result to come: what [`EventLoop::create_future`] gives.
///
/// A clone is the same future. Awaiting a future that is done goes on at once. Awaiting a pending one suspends the task,
/// which is resumed in the iteration after the completion. Each task that awaits it gets a clone of the value; [`take`]
/// moves the value out instead.
///
/// As in asyncio, cancelling a task that awaits the future cancels the future at once. Dropping a clone that is being
/// awaited changes nothing, unless a scope, a timeout or a cancelled task drops it: then the future is cancelled, too.
///
/// ```
/// ringloop::run(async {
///     let event_loop = ringloop::EventLoop::running()?;
///     let future = event_loop.create_future();
///     let setter = future.clone();
///     event_loop.call_soon(move |_| setter.set_result(42).unwrap())?;
///     assert_eq!(future.await?, 42);
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// [`take`]: Self::take
///
/// # Cancel safety
///
/// Dropping a clone that is awaited takes nothing out of the future. A scope, a timeout or a cancelled task that drops it cancels
/// the future, as said above.
///
/// Without a task:
///
/// ```
/// use ringloop::{Error, EventLoop};
///
/// let event_loop = EventLoop::new()?;
/// let failed = event_loop.create_future::<u32>();
/// failed.set_exception(Error::other("no answer"))?;
/// assert!(failed.done() && failed.result().is_err());
/// assert_eq!(failed.exception()?.unwrap().to_string(), "no answer");
///
/// let given_up = event_loop.create_future::<u32>();
/// assert!(given_up.cancel() && given_up.cancelled());
/// given_up.set_result_unless_cancelled(42)?; // Drops the value.
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct LoopFuture<T: 'static> {
    inner: Rc<FutureInner<T>>,
    /// The place of this handle among those who wait, while it is awaited.
    waiting: Cell<Option<u64>>,
}

impl<T> LoopFuture<T> {
    pub(super) fn new(event_loop: &EventLoop) -> Self {
        Self::of(event_loop.scheduler().loop_id, event_loop.downgrade())
    }

    /// One of no loop, which has an error already.
    pub(super) fn failed(error: Error) -> Self {
        let future = Self::of(NO_LOOP, LoopRef::gone());
        let _ = future.set_exception(error); // It is pending.
        future
    }

    fn of(loop_id: u64, event_loop: LoopRef) -> Self {
        let inner = FutureInner {
            loop_id,
            event_loop,
            status: Cell::new(Status::Pending),
            result: RefCell::new(None),
            waiters: Waiters::default(),
            unseen: Cell::new(false),
        };
        Self { inner: Rc::new(inner), waiting: Cell::new(None) }
    }

    /// Whether the future has a value or an error, or was cancelled.
    #[must_use]
    pub fn done(&self) -> bool {
        self.inner.status.get() != Status::Pending
    }

    /// Whether the future was cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.inner.status.get() == Status::Cancelled
    }

    /// Completes the future with a value.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if it is done.
    pub fn set_result(&self, value: T) -> Result<()> {
        self.set(Ok(value))
    }

    /// Completes the future with an error. If nobody ever looks at the error, the exception handler gets it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if it is done.
    pub fn set_exception(&self, error: impl Into<Error>) -> Result<()> {
        self.set(Err(error.into()))
    }

    /// Completes the future with a value; if it was cancelled, drops the value and does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if it has a value or an error.
    pub fn set_result_unless_cancelled(&self, value: T) -> Result<()> {
        if self.cancelled() { Ok(()) } else { self.set_result(value) }
    }

    fn set(&self, result: Result<T>) -> Result<()> {
        if self.done() {
            let_go("the result of a future", result);
            return Err(Error::invalid_state("invalid state"));
        }
        self.inner.unseen.set(result.is_err());
        self.inner.result.replace(Some(result));
        self.complete(Status::Finished);
        Ok(())
    }

    /// Cancels the future. Gives `false` if it was done already; then nothing happens.
    pub fn cancel(&self) -> bool {
        let pending = !self.done();
        if pending {
            self.complete(Status::Cancelled);
        }
        pending
    }

    /// The error, if the future ended with one. After this call it is not reported as an error that nobody looked at.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] while it is pending, [`Error::Cancelled`] if it was cancelled.
    pub fn exception(&self) -> Result<Option<Error>> {
        match self.inner.status.get() {
            Status::Pending => Err(Error::invalid_state("Exception is not set.")),
            Status::Cancelled => Err(Error::Cancelled),
            Status::Finished => {
                self.inner.unseen.set(false);
                Ok(match &*self.inner.result.borrow() {
                    Some(Err(error)) => Some(error.clone()),
                    _ => None,
                })
            }
        }
    }

    /// A clone of the value. After this call an error is not reported as one that nobody looked at.
    ///
    /// # Errors
    ///
    /// The error if that is how the future ended; [`Error::InvalidState`] while it is pending or when the value was
    /// taken, [`Error::Cancelled`] if it was cancelled.
    pub fn result(&self) -> Result<T>
    where
        T: Clone,
    {
        self.look(|result| match &*result.borrow() {
            Some(result) => result.clone(),
            None => Err(taken()),
        })
    }

    /// Waits, and moves the value out: for values that cannot be cloned. Later calls for the value give [`Error::InvalidState`].
    ///
    /// # Errors
    ///
    /// As [`result`](Self::result).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has taken nothing.
    ///
    /// ```
    /// # ringloop::run(async {
    /// let event_loop = ringloop::EventLoop::running()?;
    /// let future = event_loop.create_future();
    /// future.set_result(vec![1, 2])?;
    /// assert_eq!(future.take().await?, [1, 2]); // Not a clone.
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn take(self) -> Result<T> {
        std::future::poll_fn(|cx| self.poll_done(cx)).await?;
        self.take_result()
    }

    /// Moves the value out of a future that is done.
    pub(crate) fn take_result(&self) -> Result<T> {
        self.look(|result| {
            if let Ok(Some(Err(error))) = result.try_borrow().as_deref() {
                return Err(error.clone());
            }
            match result.try_borrow_mut() {
                Ok(mut result) => result.take().unwrap_or_else(|| Err(taken())),
                Err(_) => Err(Error::invalid_state("Result is being cloned.")),
            }
        })
    }

    /// A clone is user code, with the result borrowed: it may look as well, and taking is refused.
    fn look(&self, at: impl FnOnce(&RefCell<Option<Result<T>>>) -> Result<T>) -> Result<T> {
        match self.inner.status.get() {
            Status::Pending => Err(Error::invalid_state("Result is not set.")),
            Status::Cancelled => Err(Error::Cancelled),
            Status::Finished => {
                self.inner.unseen.set(false);
                at(&self.inner.result)
            }
        }
    }

    /// Ready once the future is done, in whatever way.
    ///
    /// # Errors
    ///
    /// [`Error::State`] in a task of another loop.
    pub(crate) fn poll_done(&self, cx: &Context<'_>) -> Poll<Result<()>> {
        if self.done() {
            self.waiting.set(None);
            return Poll::Ready(Ok(()));
        }
        if running::is_another_loop(self.inner.loop_id) {
            return Poll::Ready(Err(Error::different_loop()));
        }
        let place = self.inner.waiters.join(self.waiting.get(), cx.waker());
        self.waiting.set(Some(place));
        current::note_awaited(cx.waker(), &self.inner, place);
        Poll::Pending
    }

    /// Has `callback` run when the future is done: in the iteration after that, or in the next one if it is done already.
    /// It never runs inside this call. Callbacks run in the order in which they were added.
    ///
    /// The handle that this gives can be removed, and added again.
    pub fn add_done_callback(&self, callback: impl Fn(&Self) + 'static) -> DoneCallback<T> {
        let callback = DoneCallback(Rc::new(callback));
        self.add_again(&callback);
        callback
    }

    /// Schedules a callback once more, or that of another future.
    pub fn add_again(&self, callback: &DoneCallback<T>) {
        let callback = callback.clone();
        if self.done() {
            self.inner.schedule(callback, &Snapshot::current(), self);
        } else {
            self.inner.waiters.add(Waiter::Callback((callback, Snapshot::current())));
        }
    }

    /// Removes `callback`, however often it was added, and gives that number.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let future = event_loop.create_future::<u32>();
    /// let callback = future.add_done_callback(|future| println!("{:?}", future.result()));
    /// future.add_again(&callback);
    /// assert_eq!(future.remove_done_callback(&callback), 2);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn remove_done_callback(&self, callback: &DoneCallback<T>) -> usize {
        self.inner.waiters.remove_callbacks(|(known, _)| known == callback)
    }

    fn complete(&self, status: Status) {
        self.inner.status.set(status);
        self.inner
            .waiters
            .wake(|(callback, context)| self.inner.schedule(callback, &context, self));
    }
}

impl<T: Clone> Future for LoopFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.poll_done(cx).map(|waited| waited.and_then(|()| self.result()))
    }
}

impl<T> Clone for LoopFuture<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), waiting: Cell::new(None) }
    }
}

impl<T> Drop for LoopFuture<T> {
    fn drop(&mut self) {
        if let Some(place) = self.waiting.get() {
            self.inner.waiters.leave(place);
            if current::is_cancelling() {
                self.cancel();
            }
        }
    }
}

impl<T> fmt::Debug for LoopFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Something to call when a future is done: what [`LoopFuture::add_done_callback`] gives. A clone is the same callback.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// let future = event_loop.create_future();
/// let callback = future.add_done_callback(|future| println!("{:?}", future.result()));
/// future.add_again(&callback);
/// assert_eq!(future.remove_done_callback(&callback), 2);
/// future.set_result(42)?;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct DoneCallback<T: 'static>(Rc<DoneFn<T>>);

type DoneFn<T> = dyn Fn(&LoopFuture<T>);

impl<T> Clone for DoneCallback<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> PartialEq for DoneCallback<T> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> fmt::Debug for DoneCallback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneCallback").finish_non_exhaustive()
    }
}

struct FutureInner<T: 'static> {
    loop_id: u64,
    event_loop: LoopRef,
    status: Cell<Status>,
    /// Empty while it is pending, when it was cancelled, and when it was taken.
    result: RefCell<Option<Result<T>>>,
    /// Each callback with what was set where it was added.
    waiters: Waiters<(DoneCallback<T>, Snapshot)>,
    /// There is an error that nobody has looked at.
    unseen: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Finished,
    Cancelled,
}

impl<T> FutureInner<T> {
    /// A closed loop makes no calls.
    fn schedule(&self, callback: DoneCallback<T>, context: &Snapshot, future: &LoopFuture<T>) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            let future = future.clone();
            let _context = context.enter();
            let _ = event_loop.call_soon(move |_| (callback.0)(&future));
        }
    }
}

impl<T> Awaited for FutureInner<T> {
    fn ask(self: Rc<Self>, place: u64, waker: &Waker, _: &mut Asking<'_>) -> Asked {
        let awaited = self.waiters.is_at(place, waker);
        let future = LoopFuture { inner: self, waiting: Cell::new(None) };
        if awaited && future.cancel() { Asked::Cancelled } else { Asked::Nothing }
    }
}

impl<T> Drop for FutureInner<T> {
    fn drop(&mut self) {
        if self.unseen.get() {
            if let Some(Err(error)) = self.result.take() {
                let context = ExceptionContext::new("Future exception was never retrieved")
                    .error(&error)
                    .future(self);
                self.event_loop.report(&context);
                return let_go("the error of a future", error);
            }
        }
        let_go("the result of a future", self.result.take());
    }
}

impl<T> fmt::Debug for FutureInner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.status.get() {
            Status::Pending => "<Future pending>",
            Status::Finished => "<Future finished>",
            Status::Cancelled => "<Future cancelled>",
        })
    }
}

fn taken() -> Error {
    Error::invalid_state("Result was already taken.")
}
