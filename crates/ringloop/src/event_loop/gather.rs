//! Waiting for several futures at once: `gather()`.
//!
//! Each future becomes a task. When one ends it says so by its place in a list, in the order in which they end, so that
//! the first error is the first that happened and no look goes through all of them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::{EventLoop, Task, current};
use crate::{Error, Result};

/// Runs `futures` as tasks, and gives their results in their order (spec TASK-10).
///
/// The tasks are made at once. Awaiting the [`Gather`] gives all values, or the error of the first task that panics or
/// is cancelled; the others go on. [`settled`](Gather::settled) gives errors as values, and for futures that give a
/// `Result` of their own [`try_values`](Gather::try_values) gives the first of these errors. If a cancelled task or
/// scope drops the `Gather`, or by [`cancel`](Gather::cancel), all its tasks are cancelled.
///
/// ```
/// use std::time::Duration;
///
/// let values = ringloop::run(async {
///     let later = |millis| async move {
///         ringloop::sleep(Duration::from_millis(millis)).await;
///         millis
///     };
///     ringloop::gather([later(2), later(1)])?.await
/// })??;
/// assert_eq!(values, [2, 1]);
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::State`] outside of a running loop.
pub fn gather<F: Future + 'static>(
    futures: impl IntoIterator<Item = F>,
) -> Result<Gather<F::Output>> {
    let event_loop = EventLoop::running()?;
    let ended = Rc::new(Ended::default());
    let tasks = futures
        .into_iter()
        .enumerate()
        .map(|(place, future)| {
            let tells = TellsEnd { place, ended: Rc::clone(&ended) };
            event_loop.create_task(async move {
                let _tells = tells;
                future.await
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let results = tasks.iter().map(|_| None).collect();
    Ok(Gather { left: tasks.len(), tasks, results, ended, resumed: false })
}

/// Tasks that are awaited together: what [`gather`] gives.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Gather<T: 'static> {
    tasks: Vec<Task<T>>,
    results: Vec<Option<Result<T>>>,
    left: usize,
    ended: Rc<Ended>,
    resumed: bool,
}

impl<T> Gather<T> {
    /// Asks all tasks to end; `false` if they all have.
    pub fn cancel(&self) -> bool {
        self.tasks.iter().fold(false, |any, task| task.cancel() | any)
    }

    /// Waits for all tasks, and gives errors as values.
    pub async fn settled(mut self) -> Vec<Result<T>> {
        let wait = |cx: &mut Context<'_>| self.poll_until(cx, |_| false);
        std::future::poll_fn(wait).await;
        self.take_results()
    }

    /// Waits until all tasks are done, or one of them `ends_it`.
    fn poll_until(
        &mut self,
        cx: &Context<'_>,
        ends_it: impl Fn(&Result<T>) -> bool,
    ) -> Poll<Option<usize>> {
        let old = self.ended.waker.replace(Some(cx.waker().clone()));
        drop(old);
        for place in self.ended.places.take() {
            let result = self.tasks[place].result();
            self.left -= 1;
            let ends_it = ends_it(&result);
            self.results[place] = Some(result);
            if ends_it {
                return Poll::Ready(Some(place));
            }
        }
        if self.left > 0 {
            return Poll::Pending;
        }
        // As asyncio: the tasks' ends complete the gather, and who awaits that is resumed one iteration later.
        if !std::mem::replace(&mut self.resumed, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(None)
    }

    fn take_results(&mut self) -> Vec<Result<T>> {
        self.results.drain(..).flatten().collect()
    }

    fn take_result(&mut self, place: usize) -> Option<Result<T>> {
        self.results.get_mut(place)?.take()
    }
}

impl<T, E: From<Error>> Gather<Result<T, E>> {
    /// Waits for all values, or for the first error: of a future, or of a task that panics or is cancelled. The others
    /// go on.
    ///
    /// # Errors
    ///
    /// The first error.
    pub async fn try_values(mut self) -> Result<Vec<T>, E> {
        let failed = |result: &Result<Result<T, E>>| !matches!(result, Ok(Ok(_)));
        let wait = |cx: &mut Context<'_>| self.poll_until(cx, failed);
        match std::future::poll_fn(wait).await.and_then(|place| self.take_result(place)) {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error.into()),
            _ => self.take_results().into_iter().map(|result| result?).collect(),
        }
    }
}

impl<T> Future for Gather<T> {
    type Output = Result<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Vec<T>>> {
        let place = ready!(self.poll_until(cx, Result::is_err));
        Poll::Ready(match place.and_then(|place| self.take_result(place)) {
            Some(Err(error)) => Err(error),
            _ => self.take_results().into_iter().collect(),
        })
    }
}

impl<T> Unpin for Gather<T> {}

impl<T> Drop for Gather<T> {
    fn drop(&mut self) {
        if current::is_cancelling() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Gather of {}, {} left>", self.tasks.len(), self.left)
    }
}

/// Who has ended since the last look, and who looks.
#[derive(Default)]
struct Ended {
    places: RefCell<Vec<usize>>,
    waker: Cell<Option<Waker>>,
}

/// Goes with the body of a task, in whatever way that ends.
struct TellsEnd {
    place: usize,
    ended: Rc<Ended>,
}

impl Drop for TellsEnd {
    fn drop(&mut self) {
        self.ended.places.borrow_mut().push(self.place);
        if let Some(waker) = self.ended.waker.take() {
            waker.wake();
        }
    }
}
