//! Waiting for a task without its end hanging on that: `shield()`.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::end_queue::EndQueue;
use crate::{LoopFuture, Result, Task, TaskRef};

/// Waits for `task`, which goes on when whoever waits is cancelled, times out or is dropped.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{shield, sleep, spawn, timeout};
///
/// ringloop::run(async {
///     let task = spawn(sleep(Duration::from_millis(2)));
///     let name = task.task_ref();
///     assert!(timeout(Duration::ZERO, shield(task)).await.is_err());
///     assert_eq!(name.cancelling(), 0);
///     name.finished().await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Cancel safety
///
/// Dropped while it waits, it detaches the task; its value is lost then, as with any task that nobody awaits.
pub fn shield<T>(task: Task<T>) -> Shield<T> {
    let task_ref = task.task_ref();
    let event_loop = (!task.done()).then(|| task_ref.event_loop()).flatten();
    let waits = event_loop.map(|event_loop| {
        let ended = Rc::new(Ended { task: task_ref.clone(), future: event_loop.create_future() });
        let ends = EndQueue::new(&event_loop, Rc::downgrade(&ended), "shield", Ended::look_at);
        task_ref.watch_end(ends, 0);
        ended
    });
    Shield { task, waits }
}

/// A task whose end does not hang on who waits for it: what [`shield`] gives.
///
/// # Cancel safety
///
/// Dropping it, or cancelling the task that awaits it, leaves the shielded task alone.
///
/// ```
/// # ringloop::run(async {
/// use std::time::Duration;
/// use ringloop::{Error, shield, sleep, spawn, timeout};
///
/// let important = spawn(sleep(Duration::from_millis(2)));
/// let end = important.task_ref();
/// let hurried = timeout(Duration::from_millis(1), shield(important)).await;
/// assert!(matches!(hurried, Err(Error::Timeout)));
/// end.finished().await?;
/// assert!(!end.cancelled());
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use = "futures do nothing unless they are awaited"]
pub struct Shield<T: 'static> {
    task: Task<T>,
    /// `None` if the task had ended already.
    waits: Option<Rc<Ended>>,
}

/// Stands between who waits and the task: a request to end stops at the future.
struct Ended {
    task: TaskRef,
    future: LoopFuture<()>,
}

impl Ended {
    fn look_at(self: &Rc<Self>, _: usize) {
        if self.task.cancelled() {
            self.future.cancel();
        } else {
            let _ = self.future.set_result_unless_cancelled(());
        }
    }
}

impl<T> Future for Shield<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let Some(waits) = &self.waits else { return Pin::new(&mut self.task).poll(cx) };
        match waits.future.poll_done(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if waits.future.cancelled() => {
                Poll::Ready(Err(crate::Error::Cancelled))
            }
            Poll::Ready(Ok(())) => Poll::Ready(self.task.result()),
        }
    }
}

impl<T> fmt::Debug for Shield<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Shield of {:?}>", self.task)
    }
}
