//! Waiting for time to pass, and for no longer than that.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::ready::{Callback, Entry};
use super::timers::{TimerPlace, deadline};
use super::{EventLoop, current};
use crate::{Error, Result};

/// Returns when `delay` has passed, never before. A delay of zero gives up control for exactly one iteration
/// (spec TASK-04).
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
pub fn sleep_until(when: Instant) -> Sleep {
    Sleep { state: State::Until(when) }
}

/// Gives up control for exactly one iteration: asyncio's `sleep(0)`.
///
/// ```
/// ringloop::run(async {
///     let task = ringloop::EventLoop::running()?.create_task(async {})?;
///     ringloop::yield_now().await;
///     assert!(task.done());
///     task.await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

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

/// The future of [`sleep`].
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
            State::For(delay) => deadline(Instant::now(), *delay),
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

/// A timer that wakes whoever looked at it last. Goes off as asyncio's do: its handle runs, and the task soon after.
struct Alarm {
    timer: Rc<AlarmTimer>,
}

impl Alarm {
    /// One that is late already goes off in the next iteration, ahead of what is queued from now on.
    fn set(event_loop: &EventLoop, when: Instant) -> Self {
        let late = when <= event_loop.time();
        let place =
            if late { TimerPlace::none() } else { event_loop.inner.timers.borrow().place() };
        let alarm = Rc::new(AlarmTimer {
            place,
            rang: Cell::new(false),
            cancelled: Cell::new(false),
            waker: Cell::new(None),
        });
        let timer: Rc<dyn Callback> = alarm.clone();
        if late {
            event_loop.scheduler().push(Entry::Callback(timer));
        } else {
            event_loop.inner.timers.borrow_mut().insert(when, timer);
        }
        Self { timer: alarm }
    }

    /// Whether it went off; if not, `waker` is woken when it does.
    fn rang(&self, waker: &Waker) -> bool {
        if !self.timer.rang.get() {
            let known = self.timer.waker.take().filter(|known| known.will_wake(waker));
            self.timer.waker.set(Some(known.unwrap_or_else(|| waker.clone())));
        }
        self.timer.rang.get()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.timer.cancel();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("rang", &self.timer.rang.get()).finish_non_exhaustive()
    }
}

struct AlarmTimer {
    place: TimerPlace,
    rang: Cell<bool>,
    cancelled: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Callback for AlarmTimer {
    fn run(&self, _: &EventLoop) {
        if !self.cancelled.get() {
            self.rang.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn cancel(&self) {
        if !self.cancelled.replace(true) {
            self.place.cancel();
        }
        drop(self.waker.take());
    }

    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }

    fn release(&self) {
        drop(self.waker.take());
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sleep()")
    }

    fn leave_timers(&self) {
        self.place.leave();
    }
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
