//! `sleep()`, `yield_now()` and `timeout()`.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use ringloop::{
    Error, EventLoop, catch_cancel, sleep, sleep_until, timeout, timeout_at, yield_now,
};

use super::{Log, LogDrop, log_soon, new_loop, turn};

const SOON: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(3600);

// spec: TASK-04
#[test]
fn sleep_zero_and_yield_now_give_up_control_for_one_iteration() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    event_loop
        .run_until_complete(async {
            for text in ["1", "2"] {
                log_soon(&event_loop, &log, text);
                yield_now().await;
                told.add("yielded");
                log_soon(&event_loop, &log, text);
                sleep(Duration::ZERO).await;
                told.add("slept");
            }
        })
        .unwrap();
    let expected = ["1", "yielded", "1", "slept", "2", "yielded", "2", "slept"];
    assert_eq!(log.take(), expected);
}

// spec: TASK-04, TIMER-01
#[test]
fn sleep_returns_at_its_deadline_or_after() {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            for micros in [1, 500, 1001] {
                let delay = Duration::from_micros(micros);
                let start = Instant::now();
                sleep(delay).await;
                assert!(start.elapsed() >= delay);
                let when = Instant::now() + delay;
                sleep_until(when).await;
                assert!(Instant::now() >= when);
                sleep_until(start).await;
            }
        })
        .unwrap();
}

// spec: TASK-04
#[test]
fn a_dropped_sleep_takes_its_timer_back() {
    let event_loop = new_loop();
    let task = event_loop.create_task(sleep(LONG));
    turn(&event_loop);
    assert_eq!((event_loop.stats().timers, event_loop.stats().cancelled_timers), (1, 0));
    task.cancel();
    turn(&event_loop);
    assert_eq!(event_loop.stats().cancelled_timers, 1);
    turn(&event_loop);
    assert!(task.cancelled());
}

// spec: TASK-04, TASK-05
#[test]
fn a_cancelled_sleeper_is_queued_at_once_and_in_its_turn() {
    let (event_loop, log) = (new_loop(), Log::default());
    let sleepers = [sleep(LONG), sleep(Duration::ZERO)].map(|sleep| {
        let told = log.clone();
        let task = event_loop.create_task(async move {
            let _ = catch_cancel(sleep).await;
            told.add("woken");
        });
        turn(&event_loop);
        task
    });
    log_soon(&event_loop, &log, "before");
    for sleeper in &sleepers {
        sleeper.cancel();
    }
    log_soon(&event_loop, &log, "after");
    turn(&event_loop);
    assert_eq!(log.take(), ["woken", "before", "woken", "after"], "who yields was queued already");
}

// spec: TASK-04, TASK-03
#[test]
fn who_sleeps_is_resumed_one_iteration_after_the_timer() {
    let (event_loop, log) = (new_loop(), Log::default());
    let when = Instant::now() + SOON;
    let told = log.clone();
    let task = event_loop.create_task(async move {
        sleep_until(when).await;
        told.add("slept");
    });
    turn(&event_loop);
    let told = log.clone();
    let timer = event_loop.call_at(when, move |event_loop| {
        told.add("timer");
        log_soon(event_loop, &told, "queued by the timer");
    });
    while Instant::now() < when {
        std::hint::spin_loop();
    }
    turn(&event_loop);
    assert_eq!(log.take(), ["timer"]);
    turn(&event_loop);
    assert_eq!(log.take(), ["slept", "queued by the timer"]);
    assert!(task.done() && !timer.unwrap().cancelled());
}

// spec: TASK-13
#[test]
fn a_timeout_gives_the_result_or_drops_the_future() {
    let (event_loop, log) = (new_loop(), Log::default());
    let guard = LogDrop(log.clone(), "dropped");
    event_loop
        .run_until_complete(async {
            assert_eq!(timeout(LONG, async { 42 }).await.unwrap(), 42);
            let late = timeout(SOON, async move {
                let _guard = guard;
                sleep(LONG).await;
            });
            assert!(matches!(late.await, Err(Error::Timeout)));
            assert_eq!(log.take(), ["dropped"], "before the error is there");
            timeout_at(Instant::now() + LONG, sleep(SOON)).await.unwrap();
        })
        .unwrap();
    turn(&event_loop);
    let stats = event_loop.stats();
    assert_eq!(stats.timers, stats.cancelled_timers);
}

// spec: TASK-13
#[test]
fn a_deadline_in_the_past_lets_the_body_run_to_its_first_wait() {
    let event_loop = new_loop();
    let log = Log::default();
    event_loop
        .run_until_complete(async {
            for when in [Instant::now(), Instant::now().checked_sub(SOON).unwrap()] {
                let body = async {
                    log.add("ran");
                    yield_now().await;
                    log.add("too far");
                };
                assert!(matches!(timeout_at(when, body).await, Err(Error::Timeout)));
                assert_eq!(log.take(), ["ran"]);
                assert_eq!(timeout_at(when, async { "no wait" }).await.unwrap(), "no wait");
            }
        })
        .unwrap();
}

// spec: TASK-13
#[test]
fn nested_timeouts_tell_whose_deadline_passed() {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            let inner_first = timeout(LONG, timeout(SOON, pending::<()>())).await;
            assert!(matches!(inner_first, Ok(Err(Error::Timeout))));
            let outer_first = timeout(SOON, timeout(LONG, pending::<()>())).await;
            assert!(matches!(outer_first, Err(Error::Timeout)));
        })
        .unwrap();
}

// spec: TASK-13, TASK-05
#[test]
fn a_cancellation_is_not_converted_into_a_timeout() {
    let event_loop = new_loop();
    let task = event_loop.create_task(timeout(LONG, sleep(LONG)));
    let caught = event_loop
        .create_task(async { timeout(LONG, catch_cancel(sleep(LONG))).await.unwrap().is_err() });
    turn(&event_loop);
    task.cancel();
    caught.cancel();
    turn(&event_loop);
    assert!(task.cancelled());
    assert!(caught.result().unwrap());
}

// spec: TASK-13
#[test]
fn a_timeout_outside_of_a_loop_is_an_error() {
    let mut timed = pin!(timeout(SOON, async {}));
    let waker = std::task::Waker::noop();
    let poll = timed.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(matches!(poll, Poll::Ready(Err(Error::State(_)))));
}

// spec: TASK-04
#[test]
fn sleep_works_outside_of_a_loop() {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut sleeping = pin!(sleep(SOON));
    let start = Instant::now();
    while sleeping.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending() {
        std::thread::park();
    }
    assert!(start.elapsed() >= SOON);
}

// spec: TASK-04, TASK-13
#[test]
fn a_sleep_may_be_polled_by_another_task_in_the_end() {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            let mut sleeping = Box::pin(sleep(SOON));
            poll_fn(|cx| Poll::Ready(sleeping.as_mut().poll(cx).is_pending())).await;
            let task = EventLoop::running().unwrap().create_task(sleeping);
            timeout(LONG, task).await.unwrap().unwrap();
        })
        .unwrap();
}

// spec: TASK-13, FUT-03
#[test]
fn a_value_that_comes_after_the_deadline_in_the_same_iteration_is_refused_and_not_lost() {
    let clock = ringloop::ManualClock::new();
    let event_loop = EventLoop::builder().clock(clock.clone()).build().unwrap();
    let future = event_loop.create_future();
    let (direct, in_between, setter) = (future.clone(), future.clone(), future);
    let nested =
        async move { catch_cancel(async { timeout(LONG, in_between).await.unwrap() }).await };
    let first = event_loop.create_task(timeout(Duration::from_secs(1), direct));
    let second = event_loop.create_task(timeout(Duration::from_secs(1), nested));
    turn(&event_loop);
    let refused = std::rc::Rc::new(std::cell::Cell::new(false));
    let tells = std::rc::Rc::clone(&refused);
    let second_timer = move |_: &EventLoop| tells.set(setter.set_result(42).is_err());
    event_loop.call_later(Duration::from_secs(1), second_timer).unwrap();
    clock.advance(Duration::from_secs(1));
    let both = async { (first.await, second.await) };
    let (first, second) = event_loop.run_until_complete(both).unwrap();
    assert!(matches!(first, Ok(Err(Error::Timeout))) && matches!(second, Ok(Err(Error::Timeout))));
    assert!(refused.get(), "the future is cancelled at the deadline, and not at the next step");
}

// spec: TASK-13, TASK-05
#[test]
fn a_task_that_is_awaited_over_a_deadline_is_asked_once_to_end() {
    let log = Log::default();
    let of_task = log.clone();
    ringloop::run(async move {
        let inner = ringloop::spawn(async move {
            let _ = catch_cancel(sleep(LONG)).await;
            yield_now().await;
            of_task.add(format!("{} request", ringloop::current_task().unwrap().cancelling()));
        });
        let name = inner.task_ref();
        assert!(timeout(Duration::from_millis(1), inner).await.is_err());
        name.finished().await.unwrap();
    })
    .unwrap();
    assert_eq!(log.take(), ["1 request"]);
}
