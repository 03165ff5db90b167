//! Waiting, but not for longer than that: `timeout()`.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::wait::{ReturnWhen, wait};
use crate::event_loop::{Alarm, Deadline, current, deadline};
use crate::{Error, EventLoop, Result, Task, TimerHandle};

/// Runs `future`; if `delay` has passed first, drops it and gives [`Error::Timeout`].
///
/// The delay begins with the first poll. One of zero lets the future run up to its first wait. When it has passed, the
/// futures of the loop, locks and queues that are awaited inside are cancelled at once; the rest is dropped at the task's
/// next step, and a task that is awaited inside is asked to end then.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{Error, sleep, timeout};
///
/// ringloop::run(async {
///     let slow = timeout(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await;
///     assert!(matches!(slow, Err(Error::Timeout)));
///     timeout(Duration::from_secs(3600), sleep(Duration::from_millis(1))).await
/// })??;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Timeout`]; [`Error::State`] outside of a running loop.
///
/// # Cancel safety
///
/// Dropping the future drops `future`, and takes the timer back.
pub async fn timeout<F: Future>(delay: Duration, future: F) -> Result<F::Output> {
    let mut body = pin!(Some(future));
    let now = EventLoop::running()?.time();
    limit(deadline(now, delay), body.as_mut()).await
}

/// Runs `future`, but gives [`Error::Timeout`] and drops it at `when`: see [`timeout`].
///
/// # Errors
///
/// As [`timeout`].
///
/// # Cancel safety
///
/// As [`timeout`].
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{Error, EventLoop, timeout_at};
///
/// let now = EventLoop::running()?.time();
/// let late = timeout_at(now, std::future::pending::<()>()).await;
/// assert!(matches!(late, Err(Error::Timeout)));
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub async fn timeout_at<F: Future>(when: Instant, future: F) -> Result<F::Output> {
    let mut body = pin!(Some(future));
    limit(when, body.as_mut()).await
}

/// Waits for `task`; when `delay` has passed first, cancels it, waits until it has ended, and gives [`Error::Timeout`].
///
/// Unlike [`timeout`], which drops what is late, this lets the task clean up. If the task goes on nevertheless and
/// returns, its value counts. With a delay of zero a task that has not begun never does.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{Error, sleep, spawn, wait_for};
///
/// ringloop::run(async {
///     let slow = spawn(sleep(Duration::from_secs(3600)));
///     assert!(matches!(wait_for(Duration::from_millis(1), slow).await, Err(Error::Timeout)));
/// })?;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Timeout`]; how the task ended if it did not return; [`Error::State`] outside of a running loop.
///
/// # Cancel safety
///
/// When the waiting task is cancelled, `task` is, and this waits for it. Dropped otherwise, it detaches `task`.
pub async fn wait_for<T: 'static>(delay: Duration, task: Task<T>) -> Result<T> {
    if delay.is_zero() {
        return cancel_and_wait(task).await;
    }
    let event_loop = EventLoop::running()?;
    let late = Rc::new(Cell::new(false));
    let (timed, was_late) = (task.task_ref(), Rc::clone(&late));
    let timer = event_loop.call_later(delay, move |_| was_late.set(timed.cancel()))?;
    let _timer = CancelOnDrop(timer);
    drop(event_loop); // Held over the wait it would keep the loop open.
    match task.await {
        Err(Error::Cancelled) if late.get() => Err(Error::Timeout),
        result => result,
    }
}

async fn cancel_and_wait<T: 'static>(task: Task<T>) -> Result<T> {
    if !task.cancel() {
        return task.result();
    }
    wait([&task], None, ReturnWhen::AllCompleted).await?;
    match task.result() {
        Err(Error::Cancelled) => Err(Error::Timeout),
        result => result,
    }
}

async fn limit<F: Future>(when: Instant, mut body: Pin<&mut Option<F>>) -> Result<F::Output> {
    let event_loop = EventLoop::running()?;
    let alarm = Alarm::set(&event_loop, when);
    drop(event_loop); // Held over the wait it would keep the loop open.
    let deadline = Deadline::open();
    if let Some(deadline) = &deadline {
        alarm.expires(deadline);
    }
    poll_fn(move |cx| {
        if alarm.rang(cx.waker()) {
            current::cancelling(|| body.set(None));
        }
        match (body.as_mut().as_pin_mut(), &deadline) {
            (Some(future), Some(deadline)) => deadline.inside(|| future.poll(cx)).map(Ok),
            (Some(future), None) => future.poll(cx).map(Ok),
            (None, _) => Poll::Ready(Err(Error::Timeout)),
        }
    })
    .await
}

/// A timer that nobody needs when who set it is gone.
struct CancelOnDrop(TimerHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
