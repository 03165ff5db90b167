//! Cancelling a task: the request, the scopes that catch it, and who gets it.
//!
//! # Life of a request
//!
//! `Task::cancel()` notes the request and passes it on to what the task waits for (`awaited.rs`), which wakes the task; if the
//! task waits for nothing of the loop, the request wakes the task. At the task's next step the request is aimed at the innermost
//! open [`catch_cancel`] scope, which drops its future and yields `Err(Cancelled)`. Without a scope the body is dropped and the
//! task ends cancelled. If the scope is dropped before it is polled, the request is aimed anew at the next step.
//!
//! A request that comes in the middle of a step is passed on when the step ends. A request that was passed on to another task
//! comes back if that task ends cancelled; it has no more effect if that task returns.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Weak;
use std::task::{Context, Poll, Waker};

use super::awaited::{Asked, Asking, Awaited, Note, Notes};
use super::{TaskKey, TaskRef, current};
use crate::Error;
use crate::event_loop::door::{self, let_go};

/// Runs `future`; if the task is cancelled meanwhile, drops it and gives `Err(Cancelled)` instead of ending the task.
///
/// This is asyncio's `except CancelledError:`. The request goes to the innermost scope, at the task's next step; a
/// future of the loop that is awaited inside is cancelled at once, and a task that is awaited inside is cancelled and
/// waited for first (see [`Task::cancel`](crate::Task::cancel)). What the task does then is its own affair: if it goes
/// on and returns, its result counts. [`Cancelled::propagate`] is `raise`. Works over any future. Outside of a task of
/// this library it only runs `future`.
///
/// ```
/// use std::time::Duration;
///
/// ringloop::run(async {
///     let task = ringloop::spawn(async {
///         match ringloop::catch_cancel(ringloop::sleep(Duration::from_secs(3600))).await {
///             Ok(()) => "slept",
///             Err(_cancelled) => "cleaned up",
///         }
///     });
///     ringloop::yield_now().await;
///     task.cancel();
///     assert_eq!(task.await?, "cleaned up");
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Cancel safety
///
/// Dropping the future drops `future`, and closes the scope.
pub async fn catch_cancel<F: Future>(future: F) -> Result<F::Output, Cancelled> {
    let mut body = pin!(Some(future));
    let mut scope = None;
    poll_fn(move |cx| {
        let cancelled = Scope::poll(&mut scope, cx);
        if cancelled {
            current::cancelling(|| body.set(None));
        }
        match body.as_mut().as_pin_mut() {
            Some(future) => Scope::inside(scope.as_ref(), || future.poll(cx)).map(Ok),
            None => Poll::Ready(Err(Cancelled(()))),
        }
    })
    .await
}

/// A request to cancel the task: what [`catch_cancel`] gives when it has caught one.
///
/// ```
/// use ringloop::{Cancelled, Error};
///
/// let error = Error::from(ringloop::run(async {
///     let task = ringloop::spawn(async {
///         ringloop::catch_cancel(std::future::pending::<()>()).await
///     });
///     ringloop::yield_now().await;
///     task.cancel();
///     task.await
/// })??
/// .unwrap_err());
/// assert!(matches!(error, Error::Cancelled));
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Cancelled(());

impl Cancelled {
    /// Makes the request anew, as `raise` does: the next outer scope gets it, or the task ends cancelled, still in this step. It
    /// never returns.
    ///
    /// Outside of a task it never returns either, and has no other effect.
    ///
    /// # Cancel safety
    ///
    /// The request is made when the future is first polled. Dropped before that, it makes none.
    ///
    /// ```
    /// use ringloop::{Error, catch_cancel, spawn, yield_now};
    ///
    /// let ended = ringloop::run(async {
    ///     let task = spawn(async {
    ///         if let Err(cancelled) = catch_cancel(std::future::pending::<()>()).await {
    ///             println!("cleaning up");
    ///             cancelled.propagate().await;
    ///         }
    ///     });
    ///     yield_now().await;
    ///     task.cancel();
    ///     task.await
    /// })?;
    /// assert!(matches!(ended, Err(Error::Cancelled)));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn propagate(self) -> std::convert::Infallible {
        if let Some(task) = current::task() {
            task.core().cancel_state().raise();
        }
        pending().await
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Error::Cancelled.fmt(f)
    }
}

impl std::error::Error for Cancelled {}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// The state of a task that has to do with its cancellation.
#[derive(Default)]
pub(super) struct CancelState {
    /// Calls of `cancel()` less those of `uncancel()`.
    requests: Cell<u32>,
    /// A request is to be delivered.
    due: Cell<bool>,
    /// It comes from a scope that caught it.
    raised: Cell<bool>,
    /// The scope that it was aimed at.
    target: Cell<Option<u64>>,
    /// The open scopes, the innermost last.
    scopes: RefCell<Vec<OpenScope>>,
    last_scope: Cell<u64>,
    /// The scope whose future is being polled, or [`NO_SCOPE`].
    polled: Cell<u64>,
    /// The open deadlines, and the one around each.
    deadlines: RefCell<Vec<(u64, u64)>>,
    /// The deadline whose future is being polled, or [`NO_SCOPE`].
    polled_deadline: Cell<u64>,
    /// What the task waits for.
    notes: Notes,
    /// It is among those that a request is on its way to.
    pub(super) is_asked: Cell<bool>,
}

struct OpenScope {
    id: u64,
    /// Of what stands between the task and the scope and polls by its own rules, such as `FuturesUnordered`.
    waker: Option<Waker>,
}

/// What a step of a task does about a request.
pub(super) enum Delivery {
    /// Nothing: there is none, or a scope gets it.
    Step,
    /// Drops the body.
    End,
}

impl CancelState {
    /// The task is gone. Its scopes and deadlines are too: each of them kept it alive.
    pub(super) fn end(&mut self) {
        self.requests.set(0);
        self.due.set(false);
        self.raised.set(false);
        self.is_asked.set(false);
        self.notes.end();
    }

    pub(super) fn request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.due.set(true);
    }

    /// Asks again, for this step.
    fn raise(&self) {
        self.due.set(true);
        self.raised.set(true);
    }

    /// Whether the step must go on: a scope has passed the request to the next one.
    pub(super) fn take_raised(&self) -> bool {
        self.due.get() && self.raised.replace(false)
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.get()
    }

    pub(super) fn withdraw(&self) -> u32 {
        let left = self.requests.get().saturating_sub(1);
        self.requests.set(left);
        if left == 0 {
            self.due.set(false);
            self.raised.set(false);
            self.target.set(None);
            self.notes.forget_asked();
        }
        left
    }

    /// Notes that the step waits for something.
    pub(super) fn note(&self, awaited: Weak<dyn Awaited>, place: u64) {
        self.notes.add(awaited, place, self.polled.get(), self.polled_deadline.get());
    }

    /// Asks what is awaited inside of a deadline that has passed.
    pub(super) fn expire(&self, deadline: u64, waker: &Waker, asking: &mut Asking<'_>) {
        let deadlines = self.deadlines.borrow().clone();
        let around = |id: u64| deadlines.iter().find(|known| known.0 == id).map(|known| known.1);
        let is_inside =
            |id| std::iter::successors(Some(id), |&id| around(id)).any(|id| id == deadline);
        self.notes.expire(is_inside, waker, asking);
    }

    /// Gives a request to what the task waits for; `false` if the task must be woken for it.
    pub(super) fn pass_on(&self, waker: &Waker, asking: &mut Asking<'_>) -> bool {
        let scope = self.scopes.borrow().last().map_or(NO_SCOPE, |scope| scope.id);
        self.due.set(false); // If it is set meanwhile, then by another request.
        match self.notes.ask(scope, waker, asking) {
            Asked::Later => !self.due.get(),
            asked => {
                self.due.set(true);
                asked == Asked::Cancelled
            }
        }
    }

    /// Called before a step. Gives those to which a request was passed on in the task's place, and that have not ended.
    #[inline]
    pub(super) fn begin_step(&self) -> Option<Box<[Note]>> {
        if self.notes.is_empty() && !self.due.get() {
            return None; // As nearly always.
        }
        self.take_asked()
    }

    #[inline(never)]
    fn take_asked(&self) -> Option<Box<[Note]>> {
        let (asked, cancelled) = self.notes.take_asked();
        if cancelled {
            self.due.set(true);
        }
        (!self.due.get() && !asked.is_empty()).then(|| asked.into())
    }

    /// After a step that has not ended the body: whether there is a request to pass on.
    #[inline]
    pub(super) fn end_step(&self, asked: Option<&[Note]>) -> bool {
        if let Some(asked) = asked {
            if self.requests.get() > 0 && !self.notes.keep_asked(asked) {
                self.due.set(true);
            }
        }
        self.due.get() && self.target.get().is_none()
    }

    /// Before a step: aims a request at the innermost scope.
    #[inline]
    pub(super) fn aim(&self) -> Delivery {
        if self.due.get() { self.aim_at_scope() } else { Delivery::Step }
    }

    fn aim_at_scope(&self) -> Delivery {
        let waker = match self.scopes.borrow_mut().last_mut() {
            Some(scope) => {
                self.target.set(Some(scope.id));
                scope.waker.take()
            }
            None => return Delivery::End,
        };
        door::call_all(&"a waker", waker, Waker::wake);
        Delivery::Step
    }

    /// Whether a request came during the body's last step, or lost its scope there.
    pub(super) fn is_due(&self) -> bool {
        self.due.get()
    }

    fn open(&self) -> u64 {
        let id = self.last_scope.get() + 1;
        self.last_scope.set(id);
        self.scopes.borrow_mut().push(OpenScope { id, waker: None });
        id
    }

    fn close(&self, id: u64) {
        if self.target.get() == Some(id) {
            self.target.set(None);
        }
        let mut scopes = self.scopes.borrow_mut();
        let closed = scopes.iter().rposition(|scope| scope.id == id).map(|at| scopes.remove(at));
        drop(scopes);
        let_go("a waker", closed);
    }

    /// Whether the scope gets the request, which is then delivered.
    fn deliver(&self, id: u64) -> bool {
        let hit = self.due.get() && self.target.get() == Some(id);
        if hit {
            self.due.set(false);
            self.raised.set(false);
            self.target.set(None);
        }
        hit
    }

    /// Foreign wakers are cloned and dropped outside of the borrow: that may run user code.
    fn set_waker(&self, id: u64, waker: Option<&Waker>) {
        let same = match (&self.scope(id).waker, waker) {
            (Some(old), Some(new)) => old.will_wake(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            let new = waker.cloned();
            let old = std::mem::replace(&mut self.scope(id).waker, new);
            let_go("a waker", old);
        }
    }

    fn scope(&self, id: u64) -> RefMut<'_, OpenScope> {
        RefMut::map(self.scopes.borrow_mut(), |scopes| {
            scopes
                .iter_mut()
                .rev()
                .find(|scope| scope.id == id)
                .expect("a scope that is polled is open")
        })
    }
}

/// One `catch_cancel()` that has been polled and not ended.
struct Scope {
    task: TaskRef,
    id: u64,
}

impl Scope {
    /// Opens the scope in the task that polls it; `true` if a request is for it, which closes it.
    fn poll(scope: &mut Option<Self>, cx: &Context<'_>) -> bool {
        let Some(task) = current::task() else { return false };
        if scope.as_ref().is_none_or(|scope| scope.task != task) {
            let id = task.core().cancel_state().open();
            drop(scope.replace(Self { task: task.clone(), id }));
        }
        let Some(Self { id, .. }) = scope else { return false };
        let state = task.core().cancel_state();
        if state.deliver(*id) {
            drop(scope.take());
            return true;
        }
        state.set_waker(*id, (!task.core().is_woken_by(cx.waker())).then(|| cx.waker()));
        false
    }
}

impl Scope {
    /// Polls the scope's future: what that waits for is noted as inside.
    fn inside<R>(scope: Option<&Self>, poll: impl FnOnce() -> R) -> R {
        let _outside = scope.map(|scope| {
            let polled = &scope.task.core().cancel_state().polled;
            Outside(polled, polled.replace(scope.id))
        });
        poll()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.task.core().cancel_state().close(self.id);
    }
}

/// A time by which what a task awaits inside of it is to be done: the part of `timeout()` that the task knows.
pub(crate) struct Deadline {
    task: TaskRef,
    id: u64,
}

impl Deadline {
    /// Opens one in the task that is being stepped; `None` outside of tasks.
    pub(crate) fn open() -> Option<Self> {
        let task = current::task()?;
        let state = task.core().cancel_state();
        let id = state.last_scope.get() + 1;
        state.last_scope.set(id);
        state.deadlines.borrow_mut().push((id, state.polled_deadline.get()));
        Some(Self { task, id })
    }

    /// Polls what has to be done by then. In another task it only polls.
    pub(crate) fn inside<R>(&self, poll: impl FnOnce() -> R) -> R {
        let polled = &self.task.core().cancel_state().polled_deadline;
        let _outside =
            current::is_task(&self.task).then(|| Outside(polled, polled.replace(self.id)));
        poll()
    }

    /// The task and the number of the deadline there.
    pub(in crate::event_loop) fn key(&self) -> (TaskKey, u64) {
        (self.task.core().key(), self.id)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.task.core().cancel_state().deadlines.borrow_mut().retain(|known| known.0 != self.id);
    }
}

/// Sets back what is being polled.
struct Outside<'a>(&'a Cell<u64>, u64);

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// No scope has this number.
const NO_SCOPE: u64 = 0;
