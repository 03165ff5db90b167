//! `call_later()` and `call_at()`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringloop::EventLoop;

use super::{Log, LogDrop, log_soon, new_loop, turn};

const SOON: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_secs(3600);

fn ago(duration: Duration) -> Instant {
    Instant::now().checked_sub(duration).unwrap()
}

fn log_at(event_loop: &EventLoop, log: &Log, when: Instant, text: &'static str) {
    let log = log.clone();
    event_loop.call_at(when, move |_| log.add(text)).unwrap();
}

// spec: TIMER-01, LOOP-18
#[test]
fn a_timer_never_runs_before_its_deadline() {
    let event_loop = new_loop();
    for micros in [1, 10, 100, 999, 1001, 2500] {
        let delay = Duration::from_micros(micros);
        let start = event_loop.time();
        let seen = Rc::new(Cell::new(None));
        let ran = Rc::clone(&seen);
        let timer = event_loop
            .call_later(delay, move |event_loop| {
                ran.set(Some(event_loop.time()));
                event_loop.stop();
            })
            .unwrap();
        event_loop.run_forever().unwrap();
        assert!(timer.when() >= start + delay);
        assert!(seen.get().unwrap() >= timer.when());
    }
}

// spec: TIMER-02
#[test]
fn due_timers_run_in_deadline_order_and_equal_ones_in_registration_order() {
    let (event_loop, log) = (new_loop(), Log::default());
    let base = ago(Duration::from_secs(1));
    let at = |millis| base + Duration::from_millis(millis);
    log_at(&event_loop, &log, at(3), "3");
    log_at(&event_loop, &log, at(1), "1");
    log_at(&event_loop, &log, at(2), "2 first");
    log_at(&event_loop, &log, at(2), "2 second");
    log_at(&event_loop, &log, at(0), "0");
    log_at(&event_loop, &log, at(2), "2 third");
    turn(&event_loop);
    assert_eq!(log.take(), ["0", "1", "2 first", "2 second", "2 third", "3"]);
}

// spec: TIMER-03, LOOP-04
#[test]
fn a_timer_without_delay_runs_in_the_next_iteration_after_what_was_ready() {
    let (event_loop, log) = (new_loop(), Log::default());
    let inner = log.clone();
    event_loop.call_later(Duration::ZERO, move |_| inner.add("timer")).unwrap();
    log_at(&event_loop, &log, ago(SOON), "late timer");
    log_soon(&event_loop, &log, "soon");
    turn(&event_loop);
    assert_eq!(log.take(), ["soon", "late timer", "timer"]);
}

// spec: TIMER-04
#[test]
fn a_timer_set_by_a_callback_waits_for_the_next_iteration_though_it_is_due() {
    let (event_loop, log) = (new_loop(), Log::default());
    let inner = log.clone();
    event_loop.call_soon(move |event_loop| log_at(event_loop, &inner, ago(SOON), "timer")).unwrap();
    turn(&event_loop);
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(log.take(), ["timer"]);
}

// spec: TIMER-05
#[test]
fn when_stays_known_after_the_timer_ran_or_was_cancelled() {
    let event_loop = new_loop();
    let (past, future) = (ago(SOON), Instant::now() + LONG);
    let ran = event_loop.call_at(past, |_| ()).unwrap();
    let cancelled = event_loop.call_at(future, |_| ()).unwrap();
    turn(&event_loop);
    cancelled.cancel();
    assert_eq!((ran.when(), cancelled.when()), (past, future));
}

// spec: TIMER-06, HANDLE-01
#[test]
fn a_cancelled_timer_frees_its_callback_and_wakes_nobody() {
    let (event_loop, log) = (new_loop(), Log::default());
    for millis in 1..=20 {
        let held = LogDrop(log.clone(), "freed");
        let delay = Duration::from_millis(millis);
        let timer = event_loop.call_later(delay, move |_| drop(held)).unwrap();
        timer.cancel();
        assert_eq!(log.take(), ["freed"]);
        assert!(timer.cancelled());
    }
    event_loop.call_later(Duration::from_millis(25), EventLoop::stop).unwrap();
    event_loop.run_forever().unwrap();
    let stats = event_loop.stats();
    assert_eq!(stats.timers, 0);
    assert!(stats.iterations < 10, "{} iterations: one, and one for each signal", stats.iterations);
}

// spec: TIMER-06
#[test]
fn set_and_cancel_for_ever_stays_bounded() {
    let event_loop = new_loop();
    let live = event_loop.call_later(LONG, |_| ()).unwrap();
    let mut most = 0;
    for _ in 0..1_000_000 {
        event_loop.call_later(LONG, |_| ()).unwrap().cancel();
        most = most.max(event_loop.stats().timers);
    }
    assert!(most <= 103, "{most} timers were stored");
    assert!(!live.cancelled());
    assert!(event_loop.stats().timers - event_loop.stats().cancelled_timers == 1);
}

// spec: TIMER-06, TIMER-02
#[test]
fn a_purge_keeps_every_live_timer_in_its_order() {
    let (event_loop, log) = (new_loop(), Log::default());
    let base = ago(Duration::from_secs(1));
    let mut cancelled = Vec::new();
    for text in ["0", "1", "2", "3", "4", "5"] {
        log_at(&event_loop, &log, base, text);
        for micros in 0..49 {
            let when = base + Duration::from_micros(micros);
            cancelled.push(event_loop.call_at(when, |_| unreachable!()).unwrap());
        }
    }
    for timer in &cancelled {
        timer.cancel();
    }
    assert_eq!(event_loop.stats().cancelled_timers, cancelled.len());
    event_loop.call_later(LONG, |_| ()).unwrap();
    assert_eq!((event_loop.stats().timers, event_loop.stats().cancelled_timers), (7, 0));
    turn(&event_loop);
    assert_eq!(log.take(), ["0", "1", "2", "3", "4", "5"]);
}

// spec: TIMER-06
#[test]
fn a_million_live_timers_are_kept_and_fired_in_order() {
    let event_loop = new_loop();
    let base = ago(Duration::from_secs(10));
    let last = Rc::new(Cell::new(0));
    let count = Rc::new(Cell::new(0));
    for index in 0..1_000_000_u64 {
        // A stride that is prime to the count: no order that a heap would like.
        let place = index * 7_919 % 1_000_000;
        let (last, count) = (Rc::clone(&last), Rc::clone(&count));
        event_loop
            .call_at(base + Duration::from_nanos(place), move |_| {
                assert!(last.replace(place) <= place);
                count.set(count.get() + 1);
            })
            .unwrap();
    }
    turn(&event_loop);
    assert_eq!((count.get(), event_loop.stats().reports), (1_000_000, 0));
}

// spec: TIMER-08, LOOP-05, TIMER-07
#[test]
fn a_timer_beyond_every_poll_neither_fires_nor_fails() {
    let event_loop = new_loop();
    let far = event_loop.call_later(Duration::MAX, |_| unreachable!()).unwrap();
    event_loop.call_later(Duration::from_secs(48 * 3600), |_| unreachable!()).unwrap();
    event_loop.call_later(SOON, EventLoop::stop).unwrap();
    event_loop.run_forever().unwrap();
    assert!(far.when() > Instant::now() + LONG);
    assert_eq!(event_loop.stats().timers, 2);
}

// spec: LOOP-05, LOOP-06
#[test]
fn waiting_for_a_timer_is_one_sleep() {
    let event_loop = new_loop();
    event_loop.call_later(Duration::from_millis(30), EventLoop::stop).unwrap();
    let before = event_loop.counters().rounds;
    event_loop.run_forever().unwrap();
    let rounds = event_loop.counters().rounds - before;
    // One, and some more if signals of another test come in between.
    assert!(event_loop.stats().iterations < 10);
    assert!(rounds < 20, "{rounds} rounds");
}

// spec: LOOP-05
#[test]
fn ready_callbacks_are_not_kept_waiting_by_a_timer() {
    let (event_loop, log) = (new_loop(), Log::default());
    event_loop.call_later(LONG, |_| ()).unwrap();
    let inner = log.clone();
    event_loop
        .call_soon(move |event_loop| {
            inner.add("first");
            event_loop.call_soon(EventLoop::stop).unwrap();
        })
        .unwrap();
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["first"]);
}

// spec: LOOP-03, LOOP-08, RISK-25
#[test]
fn what_threads_sent_stands_in_the_queue_of_what_was_ready_and_goes_before_timers() {
    let event_loop = new_loop();
    let (sender, receiver) = mpsc::channel();
    let (timer, sent) = (sender.clone(), sender.clone());
    let (first, ready) = (sender.clone(), sender);
    event_loop.call_soon(move |_| first.send("first").unwrap()).unwrap();
    event_loop.call_at(ago(SOON), move |_| timer.send("timer").unwrap()).unwrap();
    let proxy = event_loop.proxy();
    let send = move || proxy.call_soon_threadsafe(move |_| sent.send("sent").unwrap());
    thread::spawn(send).join().unwrap().unwrap();
    event_loop.call_soon(move |_| ready.send("ready").unwrap()).unwrap();
    turn(&event_loop);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["first", "sent", "ready", "timer"]);
}
