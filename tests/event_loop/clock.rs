//! A clock that is put forward by hand.

use std::time::{Duration, Instant};

use ringloop::{Error, EventLoop, ManualClock, sleep, sleep_until, spawn, timeout, yield_now};

use super::{Log, turn};

const HOUR: Duration = Duration::from_secs(3600);

fn loop_with_clock() -> (EventLoop, ManualClock) {
    let clock = ManualClock::new();
    (EventLoop::builder().clock(clock.clone()).build().unwrap(), clock)
}

// spec: LOOP-18, TIMER-01, TIMER-02
#[test]
fn timers_run_when_the_clock_was_put_forward_in_the_order_of_their_deadlines() {
    let (event_loop, clock) = loop_with_clock();
    let log = Log::default();
    for hours in [2, 1, 3] {
        let log = log.clone();
        event_loop.call_later(hours * HOUR, move |_| log.add(hours.to_string())).unwrap();
    }
    turn(&event_loop);
    assert!(log.take().is_empty());
    let start = event_loop.time();
    clock.advance(2 * HOUR);
    assert_eq!(event_loop.time() - start, 2 * HOUR);
    turn(&event_loop);
    assert_eq!(log.take(), ["1", "2"]);
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    turn(&event_loop);
    assert_eq!(log.take(), ["3"]);
}

// spec: TASK-04, TASK-13
#[test]
fn sleeps_and_timeouts_of_hours_take_no_time() {
    let before = Instant::now();
    let (event_loop, clock) = loop_with_clock();
    event_loop
        .run_until_complete(async {
            let slept = spawn(async { timeout(2 * HOUR, sleep(HOUR)).await });
            let late = spawn(async { timeout(HOUR, sleep(2 * HOUR)).await });
            let until = spawn(sleep_until(clock.now() + HOUR));
            yield_now().await;
            clock.advance(HOUR);
            slept.await.unwrap().unwrap();
            assert!(matches!(late.await.unwrap(), Err(Error::Timeout)));
            until.await.unwrap();
        })
        .unwrap();
    assert!(before.elapsed() < HOUR);
}

// spec: LOOP-06
#[test]
fn a_loop_whose_clock_stands_still_sleeps_until_somebody_calls() {
    let (event_loop, clock) = loop_with_clock();
    event_loop.call_later(HOUR, EventLoop::stop).unwrap();
    let proxy = event_loop.proxy();
    let thread = std::thread::spawn(move || {
        proxy.call_soon_threadsafe(|event_loop| drop(event_loop.call_soon(|_| ()))).unwrap();
        proxy
    });
    event_loop.call_soon(move |_| clock.advance(HOUR)).unwrap();
    event_loop.run_forever().unwrap();
    drop(thread.join().unwrap());
    assert!(event_loop.stats().iterations < 10, "it does not spin");
}
