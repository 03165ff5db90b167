//! Waiting for time to pass: `sleep()`.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::EventLoop;
use crate::event_loop::{Alarm, deadline};

/// Returns when `delay` has passed, never before. A delay of zero gives up control for exactly one iteration.
///
/// Dropping the future takes its timer back. Outside of a running loop a thread keeps the time.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// ringloop::run(ringloop::sleep(Duration::from_millis(2)))?;
/// assert!(start.elapsed() >= Duration::from_millis(2));
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn sleep(delay: Duration) -> Sleep {
    Sleep { state: if delay.is_zero() { State::Yield(yield_now()) } else { State::For(delay) } }
}

/// Returns at `when`, never before.
///
/// ```
/// # ringloop::run(async {
/// use std::time::Duration;
///
/// let when = ringloop::EventLoop::running()?.time() + Duration::from_millis(1);
/// ringloop::sleep_until(when).await;
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn sleep_until(when: Instant) -> Sleep {
    Sleep { state: State::Until(when) }
}

/// Gives up control for exactly one iteration: asyncio's `sleep(0)`.
///
/// ```
/// ringloop::run(async {
///     let task = ringloop::spawn(async {});
///     ringloop::yield_now().await;
///     assert!(task.done());
///     task.await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`sleep`].
///
/// # Cancel safety
///
/// Dropping it takes its timer back.
///
/// ```
/// # ringloop::run(async {
/// let nap: ringloop::Sleep = ringloop::sleep(std::time::Duration::from_millis(1));
/// nap.await;
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    state: State,
}

#[derive(Debug)]
enum State {
    Yield(YieldNow),
    For(Duration),
    Until(Instant),
    Waiting(Alarm),
    /// Outside of a loop: a thread wakes this waker.
    Elsewhere(Instant, Waker),
    Done,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let when = match &mut self.state {
            State::Yield(yield_now) => return Pin::new(yield_now).poll(cx),
            State::For(delay) => deadline(now(), *delay),
            State::Until(when) => *when,
            State::Waiting(alarm) if !alarm.rang(cx.waker()) => return Poll::Pending,
            State::Elsewhere(when, waker) if Instant::now() < *when => {
                if waker.will_wake(cx.waker()) {
                    return Poll::Pending;
                }
                *when
            }
            State::Waiting(_) | State::Elsewhere(..) | State::Done => {
                self.state = State::Done;
                return Poll::Ready(());
            }
        };
        self.state = match EventLoop::current() {
            Some(event_loop) => {
                let alarm = Alarm::set(&event_loop, when);
                alarm.rang(cx.waker());
                State::Waiting(alarm)
            }
            None => {
                wake_elsewhere(when, cx.waker().clone());
                State::Elsewhere(when, cx.waker().clone())
            }
        };
        Poll::Pending
    }
}

/// The future of [`yield_now`].
///
/// # Cancel safety
///
/// Dropping it changes nothing.
///
/// ```
/// # ringloop::run(async {
/// let task = ringloop::spawn(async {});
/// ringloop::yield_now().await; // The task takes its first step.
/// assert!(task.done());
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// By the clock of the loop that runs here.
fn now() -> Instant {
    EventLoop::current().map_or_else(Instant::now, |event_loop| event_loop.time())
}

/// Wakes at `when` without a loop. If there can be no thread, the sleeper is woken at once and looks at the clock.
fn wake_elsewhere(when: Instant, waker: Waker) {
    let spare = waker.clone();
    let keep_time = move || {
        while let Some(left) = when.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
            if left.is_zero() {
                break;
            }
        }
        waker.wake();
    };
    if thread::Builder::new().name("ringloop-sleep".into()).spawn(keep_time).is_err() {
        spare.wake();
    }
}

const _: () = {
    const fn is_unpin<T: Unpin>() {}
    is_unpin::<Sleep>();
    is_unpin::<YieldNow>();
};
