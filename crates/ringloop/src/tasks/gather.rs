//! Waiting for several futures at once: `gather()`.
//!
//! # Life of a gather
//!
//! Each future becomes a task. The end of one queues a callback, as asyncio's does, which looks at the result; so the
//! first error is the first that happened. The last end, or the first that counts, is the end of the gather, and wakes
//! who awaits it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use crate::event_loop::door::let_go_all;
use crate::event_loop::{
    Asked, Asking, Awaited, Callback, Scheduler, WakerSlot, WatchesEnd, current,
};
use crate::{Error, EventLoop, Result, Task, spawn};

/// Runs `futures` as tasks, side by side, and gives their results in the order of the call.
///
/// The tasks are made at once. Awaiting the [`Gather`] gives all values, or the error of the first task that panics or
/// is cancelled; the others go on. [`settled`](Gather::settled) gives errors as values, and for futures that give a
/// `Result` of their own [`try_values`](Gather::try_values) gives the first of these errors.
///
/// A task that is cancelled while it awaits the `Gather` has all the tasks cancelled at once, and ends when they have.
/// By [`cancel`](Gather::cancel), or when a scope or `timeout()` drops the `Gather`, they are cancelled too. Dropped
/// otherwise, it lets them go on.
///
/// A task of another loop cannot await it: that gives [`Error::State`].
///
/// ```
/// use std::time::Duration;
///
/// let values = ringloop::run(async {
///     let later = |millis| async move {
///         ringloop::sleep(Duration::from_millis(millis)).await;
///         millis
///     };
///     ringloop::gather([later(2), later(1)]).await
/// })??;
/// assert_eq!(values, [2, 1]);
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// Where no loop runs, the futures are dropped, and each gives [`Error::State`].
pub fn gather<F: Future + 'static>(futures: impl IntoIterator<Item = F>) -> Gather<F::Output> {
    let children = Rc::new(Children {
        tasks: OnceCell::new(),
        scheduler: EventLoop::current().map(|event_loop| Rc::clone(event_loop.scheduler())),
        ended: RefCell::default(),
        looked_at: RefCell::default(),
        results: RefCell::default(),
        ends_it: Cell::new(None),
        end: Cell::new(None),
        waker: WakerSlot::default(),
        asked: Cell::new(false),
        too_late: Cell::new(false),
    });
    let tasks: Vec<_> = futures.into_iter().map(spawn).collect();
    children.results.borrow_mut().resize_with(tasks.len(), || None);
    let ends = Rc::new(Ends { children: Rc::downgrade(&children) });
    for (place, task) in children.tasks.get_or_init(|| tasks).iter().enumerate() {
        task.task_ref().watch_end(ends.clone(), place);
    }
    Gather { children }
}

/// Tasks that are awaited together: what [`gather`] gives.
///
/// # Cancel safety
///
/// Dropping it while it is awaited lets the tasks go on, unless a scope or a timeout drops it: then they are cancelled.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{Error, gather, yield_now};
///
/// let results = gather((0..2).map(|i| async move { 10 / (1 - i) })).settled().await;
/// assert!(matches!(results[..], [Ok(10), Err(Error::Panic(_))]));
///
/// let first = gather([async { Err::<u32, _>(Error::Timeout) }]).try_values().await;
/// assert!(matches!(first, Err(Error::Timeout)));
///
/// let endless = gather([std::future::pending::<()>()]);
/// assert!(endless.cancel());
/// assert!(matches!(endless.await, Err(Error::Cancelled)));
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use = "futures do nothing unless they are awaited"]
pub struct Gather<T: 'static> {
    children: Rc<Children<T>>,
}

impl<T> Gather<T> {
    /// Asks all tasks to end; `false` if they all have. Who awaits them goes on when they have ended.
    pub fn cancel(&self) -> bool {
        let any = self.children.tasks().iter().fold(false, |any, task| task.cancel() | any);
        if any {
            self.children.asked.set(true);
        }
        any
    }

    /// Waits for all tasks, and gives errors as values. On another loop, what is not done yet gives [`Error::State`].
    pub async fn settled(self) -> Vec<Result<T>> {
        // An error of the wait is that of each result that is missing.
        let _ = poll_fn(|cx| self.poll_end(cx, |_| false)).await;
        self.children.end.set(Some(End::All)); // Nobody looks at what ends from now on.
        let error = || Err(Error::different_loop());
        self.children
            .results
            .take()
            .into_iter()
            .map(|result| result.unwrap_or_else(error))
            .collect()
    }

    /// Waits until all tasks are done, or one of them `ends_it`.
    fn poll_end(&self, cx: &Context<'_>, ends_it: EndsIt<T>) -> Poll<Result<End>> {
        let children = &self.children;
        if let Some(end) = children.end_by(ends_it) {
            return Poll::Ready(Ok(end));
        }
        if children.scheduler.as_ref().is_some_and(|scheduler| scheduler.is_of_another_loop()) {
            return Poll::Ready(Err(Error::different_loop()));
        }
        children.waker.set(cx.waker());
        current::note_awaited(cx.waker(), children, 0);
        Poll::Pending
    }
}

impl<T, E: From<Error>> Gather<Result<T, E>> {
    /// Waits for all values, or for the first error: of a future, or of a task that panics or is cancelled. The others
    /// go on.
    ///
    /// # Errors
    ///
    /// The first error.
    pub async fn try_values(self) -> Result<Vec<T>, E> {
        let end = poll_fn(|cx| self.poll_end(cx, |result| !matches!(result, Ok(Ok(_))))).await?;
        self.children.take_values(end)?.into_iter().collect()
    }
}

impl<T> Future for Gather<T> {
    type Output = Result<Vec<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Vec<T>>> {
        self.poll_end(cx, Result::is_err).map(|end| self.children.take_values(end?))
    }
}

impl<T> Drop for Gather<T> {
    fn drop(&mut self) {
        let awaited = self.children.waker.clear();
        if awaited && current::is_cancelling() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.children.tasks().len();
        write!(f, "<Gather of {all}, {} left>", all - self.children.looked_at.borrow().len())
    }
}

type EndsIt<T> = fn(&Result<T>) -> bool;

/// Why a gather is done.
#[derive(Clone, Copy)]
enum End {
    All,
    /// By the task at this place.
    One(usize),
}

struct Children<T: 'static> {
    tasks: OnceCell<Vec<Task<T>>>,
    /// `None` where no loop runs.
    scheduler: Option<Rc<Scheduler>>,
    /// The places of those that have ended. There is a callback in the queue for each.
    ended: RefCell<VecDeque<usize>>,
    /// The places of those whose callback has run, in that order.
    looked_at: RefCell<Vec<usize>>,
    results: RefCell<Vec<Option<Result<T>>>>,
    /// Known from the first poll on.
    ends_it: Cell<Option<EndsIt<T>>>,
    end: Cell<Option<End>>,
    waker: WakerSlot,
    /// A request to end was given to the tasks.
    asked: Cell<bool>,
    /// One came when all had ended, and nobody had looked yet.
    too_late: Cell<bool>,
}

impl<T> Children<T> {
    fn tasks(&self) -> &[Task<T>] {
        self.tasks.get().map_or(&[], |tasks| tasks)
    }

    fn look_at(&self, place: usize) {
        self.looked_at.borrow_mut().push(place);
        if self.end.get().is_some() {
            return;
        }
        let result = self.tasks()[place].result();
        self.results.borrow_mut()[place] = Some(result);
        if self.ends_it.get().is_some() {
            self.end
                .set(self.is_end(place).then_some(End::One(place)).or_else(|| self.all_ended()));
        }
        if self.end.get().is_some() {
            self.waker.wake();
        }
    }

    fn end_by(&self, ends_it: EndsIt<T>) -> Option<End> {
        if self.ends_it.get().is_none() {
            self.ends_it.set(Some(ends_it));
            let first = self.looked_at.borrow().iter().copied().find(|&place| self.is_end(place));
            self.end.set(first.map(End::One).or_else(|| self.all_ended()));
        }
        self.end.get()
    }

    fn is_end(&self, place: usize) -> bool {
        let results = self.results.borrow();
        self.ends_it
            .get()
            .zip(results[place].as_ref())
            .is_some_and(|(ends_it, result)| ends_it(result))
    }

    fn all_ended(&self) -> Option<End> {
        (self.looked_at.borrow().len() == self.tasks().len()).then_some(End::All)
    }

    /// All values; or what ended it, alone.
    fn take_values(&self, end: End) -> Result<Vec<T>> {
        let mut results = self.results.take();
        match end {
            End::All if self.asked.get() => {
                let_go_all("the result of a task", results);
                Err(Error::Cancelled)
            }
            End::All => results.into_iter().flatten().collect(),
            End::One(place) => {
                let one = results.get_mut(place).and_then(Option::take);
                let_go_all("the result of a task", results);
                one.into_iter().collect()
            }
        }
    }
}

impl<T> Drop for Children<T> {
    fn drop(&mut self) {
        let_go_all("the result of a task", self.results.take());
    }
}

impl<T> Callback for Children<T> {
    /// Looks at the next that has ended.
    fn run(&self, _: &EventLoop) {
        let place = self.ended.borrow_mut().pop_front();
        if let Some(place) = place {
            self.look_at(place);
        }
    }

    fn cancel(&self) {}

    fn cancelled(&self) -> bool {
        false
    }

    fn release(&self) {}

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gather()")
    }
}

impl<T> Awaited for Children<T> {
    fn ask(self: Rc<Self>, _: u64, waker: &Waker, asking: &mut Asking<'_>) -> Asked {
        if !self.waker.holds(waker) || self.end.get().is_some() {
            return Asked::Nothing;
        }
        let pending: Vec<_> = self.tasks().iter().filter(|task| !task.done()).collect();
        if pending.is_empty() {
            self.too_late.set(true);
            return Asked::Later;
        }
        let any = pending.iter().fold(false, |any, task| asking.add(task.task_ref()) | any);
        self.asked.set(self.asked.get() | any);
        if any { Asked::Later } else { Asked::Nothing }
    }

    fn ends_by_itself(&self) -> bool {
        true
    }

    fn ended(&self) -> Option<bool> {
        self.end.get().map(|end| {
            self.too_late.get()
                || match end {
                    End::All => self.asked.get(),
                    End::One(place) => self.tasks()[place].cancelled(),
                }
        })
    }
}

/// Sees the tasks end, for as long as somebody has the [`Gather`].
struct Ends<T: 'static> {
    children: Weak<Children<T>>,
}

impl<T> WatchesEnd for Ends<T> {
    fn ended(self: Rc<Self>, place: usize) {
        let Some(children) = self.children.upgrade() else { return };
        match children.scheduler.clone() {
            Some(scheduler) => {
                children.ended.borrow_mut().push_back(place);
                scheduler.call_soon(children);
            }
            None => children.look_at(place), // The loop is gone, so it would never run a callback.
        }
    }
}
