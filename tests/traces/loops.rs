//! The loop: order of callbacks and timers, running and stopping, other threads, signals.

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ringloop::{EventLoop, catch_cancel, sleep, timeout, yield_now};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::sockets::pair;

use crate::scenario::{Scenario, excluded, py, py_list, replays, running, with_text};

// spec: LOOP-01, LOOP-02, RISK-25
fn l01_call_soon_is_fifo(s: &Scenario) {
    let event_loop = s.new_loop();
    let log = s.clone();
    event_loop
        .call_soon(move |event_loop| {
            log.log("A");
            event_loop.call_soon(move |_| log.log("D")).unwrap();
        })
        .unwrap();
    log_soon(s, &event_loop, "B");
    log_soon(s, &event_loop, "C");
    event_loop.call_later(Duration::from_millis(20), EventLoop::stop).unwrap();
    event_loop.run_forever().unwrap();
    event_loop.close().unwrap();
}

// spec: LOOP-07, HANDLE-01
fn l02_a_handle_cancelled_in_its_own_iteration_does_not_run(s: &Scenario) {
    let event_loop = s.new_loop();
    let handle = Rc::new(RefCell::new(None::<ringloop::Handle>));
    let (log, b) = (s.clone(), Rc::clone(&handle));
    event_loop
        .call_soon(move |_| {
            log.log("A");
            b.borrow().as_ref().unwrap().cancel();
        })
        .unwrap();
    handle.replace(Some(log_soon(s, &event_loop, "B")));
    log_soon(s, &event_loop, "C");
    let log = s.clone();
    event_loop
        .call_soon(move |_| {
            let cancelled = handle.borrow().as_ref().unwrap().cancelled();
            log.log(format!("b.cancelled={}", py(cancelled)));
        })
        .unwrap();
    event_loop.call_later(Duration::from_millis(20), EventLoop::stop).unwrap();
    event_loop.run_forever().unwrap();
    event_loop.close().unwrap();
}

// spec: LOOP-03, LOOP-04, TIMER-04, RISK-25
fn l03_ready_callbacks_go_before_io_and_io_before_timers(s: &Scenario) {
    let event_loop = s.new_loop();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let (log, fd) = (s.clone(), a.as_raw_fd());
    event_loop
        .add_reader(&fd, move |event_loop| {
            log.log("io");
            event_loop.remove_reader(&fd).unwrap();
        })
        .unwrap();
    let log = s.clone();
    let due = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    event_loop.call_at(due, move |_| log.log("timer")).unwrap();
    log_soon(s, &event_loop, "soon");
    event_loop.stop();
    event_loop.run_forever().unwrap();
    s.log("run_forever returned");
    event_loop.close().unwrap();
}

// spec: TIMER-02, RISK-25
fn l04_due_timers_run_in_the_order_of_their_deadlines(s: &Scenario) {
    let event_loop = s.new_loop();
    let start = event_loop.time();
    let at = |micros, text: &'static str| {
        let (log, when) = (s.clone(), start + Duration::from_micros(micros));
        event_loop.call_at(when, move |_| log.log(text)).unwrap()
    };
    at(3000, "t3");
    at(1000, "t1");
    let cancelled = at(1500, "cancelled");
    at(2000, "t2");
    cancelled.cancel();
    wait_until(start + Duration::from_millis(4));
    event_loop.stop();
    event_loop.run_forever().unwrap();
    event_loop.close().unwrap();
}

// spec: LOOP-10
fn l05_stop_lets_the_iteration_end_and_keeps_what_was_queued(s: &Scenario) {
    let event_loop = s.new_loop();
    let log = s.clone();
    event_loop
        .call_soon(move |event_loop| {
            log.log("A stop");
            event_loop.stop();
        })
        .unwrap();
    let log = s.clone();
    event_loop
        .call_soon(move |event_loop| {
            log.log("B");
            event_loop.call_soon(move |_| log.log("C")).unwrap();
        })
        .unwrap();
    event_loop.run_forever().unwrap();
    s.log("first run ended");
    event_loop.stop();
    event_loop.run_forever().unwrap();
    s.log("second run ended");
    event_loop.close().unwrap();
}

// spec: LOOP-11
fn l06_stop_before_run_forever_runs_one_iteration(s: &Scenario) {
    let event_loop = s.new_loop();
    let log = s.clone();
    event_loop
        .call_soon(move |event_loop| {
            log.log("A");
            event_loop.call_soon(move |_| log.log("B")).unwrap();
        })
        .unwrap();
    event_loop.stop();
    event_loop.run_forever().unwrap();
    s.log("ended");
    event_loop.close().unwrap();
}

// spec: LOOP-13, LOOP-14, LOOP-15, LOOP-17
fn l07_misuse_of_running_and_closing_is_refused(s: &Scenario) {
    let event_loop = s.new_loop();
    let future = event_loop.create_future::<()>();
    event_loop.call_soon(EventLoop::stop).unwrap();
    s.log(with_text(event_loop.run_until_complete(future.clone())));
    let log = s.clone();
    let nested = async move { log.log(with_text(running().run_until_complete(future))) };
    event_loop.run_until_complete(nested).unwrap();
    let log = s.clone();
    let closing = async move { log.log(with_text(running().close())) };
    event_loop.run_until_complete(closing).unwrap();
    event_loop.close().unwrap();
    event_loop.close().unwrap();
    s.log(format!("is_closed={}", py(event_loop.is_closed())));
    s.log(with_text(event_loop.call_soon(|_| ())));
}

// spec: LOOP-08, LOOP-09, LOOP-27, RISK-37
fn l09_a_call_from_another_thread_wakes_a_sleeping_loop(s: &Scenario) {
    let event_loop = s.new_loop();
    let (proxy, me) = (event_loop.proxy(), thread::current().id());
    let (sender, receiver) = mpsc::channel();
    let other = thread::spawn(move || {
        wait_until(Instant::now() + Duration::from_millis(30));
        proxy
            .call_soon_threadsafe(move |event_loop| {
                sender.send(thread::current().id()).unwrap();
                event_loop.stop();
            })
            .unwrap();
    });
    let start = Instant::now();
    event_loop.run_forever().unwrap();
    let same = receiver.recv().unwrap() == me;
    s.log(format!("called in loop thread={}", py(same)));
    s.log(format!("woke in time={}", py(start.elapsed() < Duration::from_secs(10))));
    other.join().unwrap();
    event_loop.close().unwrap();
}

// spec: TASK-13, MAP-01
async fn l12_timeout_converts_its_own_cancellation_only(s: Scenario) {
    let inner = async {
        let _guard = LogOnDrop(&s, "inner CancelledError");
        sleep(LONG).await;
    };
    if timeout(Duration::from_millis(10), inner).await.is_err() {
        s.log("TimeoutError");
    }
    let outer = async { timeout(LONG, sleep(LONG)).await.unwrap() };
    let task = running().create_task(outer);
    turn(1).await;
    task.cancel();
    turn(3).await;
    s.log(format!("outer cancelled={}", py(task.cancelled())));
    let body = async {
        s.log("body ran");
        yield_now().await;
        yield_now().await;
    };
    if timeout(Duration::ZERO, body).await.is_err() {
        s.log("TimeoutError at once");
    }
}

// spec: EXEC-01, EXEC-03, EXEC-04, EXEC-05
async fn l14_jobs_run_in_other_threads_to_their_end(s: Scenario) {
    let event_loop = running();
    let me = thread::current().id();
    let other = event_loop.run_in_executor(|| thread::current().id()).await.unwrap();
    s.log(format!("other thread={}", py(other != me)));
    let failed = event_loop.run_in_executor(|| "x".parse::<i32>()).await.unwrap();
    s.log(if failed.is_err() { "ValueError" } else { "no error" });
    let (started, begun) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let (done, ended) = mpsc::channel();
    let job = event_loop.run_in_executor(move || {
        started.send(()).unwrap();
        waits.recv().unwrap();
        done.send(()).unwrap();
    });
    begun.recv().unwrap();
    job.cancel();
    if catch_cancel(job).await.is_ok_and(|result| matches!(result, Err(ringloop::Error::Cancelled)))
    {
        s.log("CancelledError");
    }
    go_on.send(()).unwrap();
    s.log(format!("thread ran to its end={}", py(ended.recv().is_ok())));
    event_loop.shutdown_default_executor(None).await.unwrap();
    s.log(with_text(event_loop.run_in_executor(|| ()).await));
}

// spec: SIGNAL-01, SIGNAL-02, SIGNAL-03
async fn x07_a_signal_is_a_callback_of_the_loop(s: Scenario) {
    let event_loop = running();
    let log = s.clone();
    event_loop.add_signal_handler(libc::SIGUSR1, move |_| log.log("handler")).unwrap();
    let me = std::process::id().to_string();
    assert!(Command::new("kill").args(["-USR1", &me]).status().unwrap().success());
    s.log("after kill, not yet called");
    settle().await;
    let remove = || py(event_loop.remove_signal_handler(libc::SIGUSR1));
    s.log(format!("remove={} again={}", remove(), remove()));
    for signal in [libc::SIGKILL, 9999] {
        s.log(with_text(event_loop.add_signal_handler(signal, |_| ())));
    }
}

// spec: DEBUG-02, DEBUG-03
async fn d01_debug_mode_warns_of_slow_callbacks(s: Scenario) {
    let event_loop = running();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_millis(200));
    event_loop.call_soon(|_| wait_until(Instant::now() + Duration::from_millis(200))).unwrap();
    turn(2).await;
    let warnings = (0..event_loop.stats().warnings).map(|_| "'WARNING'");
    s.log(format!("warnings={}", py_list(warnings)));
    excluded!("D01", 2);
}

replays! {
    plain: [
        l01_call_soon_is_fifo,
        l02_a_handle_cancelled_in_its_own_iteration_does_not_run,
        l03_ready_callbacks_go_before_io_and_io_before_timers,
        l04_due_timers_run_in_the_order_of_their_deadlines,
        l05_stop_lets_the_iteration_end_and_keeps_what_was_queued,
        l06_stop_before_run_forever_runs_one_iteration,
        l07_misuse_of_running_and_closing_is_refused,
        l09_a_call_from_another_thread_wakes_a_sleeping_loop,
    ],
    tasks: [
        l12_timeout_converts_its_own_cancellation_only,
        l14_jobs_run_in_other_threads_to_their_end,
        x07_a_signal_is_a_callback_of_the_loop,
        d01_debug_mode_warns_of_slow_callbacks,
    ],
    transports: [],
    over_tcp: [],
}

fn log_soon(s: &Scenario, event_loop: &EventLoop, text: &'static str) -> ringloop::Handle {
    let s = s.clone();
    event_loop.call_soon(move |_| s.log(text)).unwrap()
}

/// Blocks the thread, as a callback that computes does.
pub(crate) fn wait_until(when: Instant) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let left = when.saturating_duration_since(Instant::now());
    assert_eq!(receiver.recv_timeout(left), Err(RecvTimeoutError::Timeout));
}

/// Where Python's body sees a `CancelledError`, ours is dropped.
struct LogOnDrop<'a>(&'a Scenario, &'static str);

impl Drop for LogOnDrop<'_> {
    fn drop(&mut self) {
        self.0.log(self.1);
    }
}

const LONG: Duration = Duration::from_secs(10);
