//! Waiting, but not for longer than that: `timeout()`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::event_loop::{Alarm, current, deadline};
use crate::{Error, EventLoop, Result};

/// Runs `future`, but gives [`Error::Timeout`] and drops it when `delay` has passed first (spec TASK-13).
///
/// The delay begins with the first poll. One of zero lets the future run up to its first wait.
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
pub async fn timeout<F: Future>(delay: Duration, future: F) -> Result<F::Output> {
    let mut body = pin!(Some(future));
    limit(deadline(Instant::now(), delay), body.as_mut()).await
}

/// Runs `future`, but gives [`Error::Timeout`] and drops it at `when`: see [`timeout`].
///
/// # Errors
///
/// As [`timeout`].
pub async fn timeout_at<F: Future>(when: Instant, future: F) -> Result<F::Output> {
    let mut body = pin!(Some(future));
    limit(when, body.as_mut()).await
}

async fn limit<F: Future>(when: Instant, mut body: Pin<&mut Option<F>>) -> Result<F::Output> {
    let event_loop = EventLoop::running()?;
    let alarm = Alarm::set(&event_loop, when);
    drop(event_loop); // Held over the wait it would keep the loop open.
    poll_fn(move |cx| {
        if alarm.rang(cx.waker()) {
            current::cancelling(|| body.set(None));
        }
        match body.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx).map(Ok),
            None => Poll::Ready(Err(Error::Timeout)),
        }
    })
    .await
}
