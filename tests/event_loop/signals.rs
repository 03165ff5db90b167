//! Signals. One loop of the process has them at a time, so these tests take turns.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringloop::{Error, EventLoop, Runner, catch_cancel, sleep};

use super::{Log, new_loop, turn, watched_loop};

const SIGINT: i32 = 2;
pub(super) const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const SIGURG: i32 = 23;

static TURN: Mutex<()> = Mutex::new(());

pub(super) fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal to this process; it has been delivered, or is about to be.
pub(super) fn raise(signum: i32) {
    let pid = std::process::id().to_string();
    let status = Command::new("kill").args([format!("-{signum}"), pid]).status().unwrap();
    assert!(status.success());
}

// spec: SIGNAL-01
#[test]
fn a_signal_wakes_a_sleeping_loop_and_its_callback_runs_there() {
    let _turn = take_turn();
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    event_loop
        .add_signal_handler(SIGUSR1, move |event_loop| {
            assert_eq!(EventLoop::current().as_ref(), Some(event_loop));
            told.add("signal");
            event_loop.stop();
        })
        .unwrap();
    let killer = thread::spawn(|| raise(SIGUSR1));
    event_loop.run_forever().unwrap();
    killer.join().unwrap();
    raise(SIGUSR1);
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["signal", "signal"]);
    assert_eq!(event_loop.stats().reports, 0);
}

// spec: SIGNAL-01
#[test]
fn a_second_signal_handler_replaces_the_first() {
    let _turn = take_turn();
    let (event_loop, log) = (new_loop(), Log::default());
    for text in ["first", "second"] {
        let told = log.clone();
        event_loop
            .add_signal_handler(SIGUSR1, move |event_loop| {
                told.add(text);
                event_loop.stop();
            })
            .unwrap();
    }
    raise(SIGUSR1);
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["second"]);
}

// spec: SIGNAL-01, LOOP-20
#[test]
fn a_signal_callback_may_panic_and_may_change_signals() {
    let _turn = take_turn();
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    let told = log.clone();
    event_loop
        .add_signal_handler(SIGUSR1, move |event_loop| {
            assert!(event_loop.remove_signal_handler(SIGUSR1));
            let told = told.clone();
            event_loop
                .add_signal_handler(SIGUSR2, move |event_loop| {
                    told.add("the other signal");
                    event_loop.stop();
                })
                .unwrap();
            event_loop.stop();
            panic!("oh");
        })
        .unwrap();
    raise(SIGUSR1);
    event_loop.run_forever().unwrap();
    assert_eq!(reports.take(), ["Exception in callback: oh"]);
    raise(SIGUSR2);
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["the other signal"]);
}

// spec: SIGNAL-02
#[test]
fn signals_that_cannot_be_handled_are_refused() {
    let event_loop = new_loop();
    for signum in [-1, 0, 32, 33, 65, i32::MAX] {
        let error = event_loop.add_signal_handler(signum, |_| ()).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
        assert_eq!(error.to_string(), format!("invalid signal number {signum}"));
    }
    for signum in [SIGKILL, SIGSTOP] {
        let error = event_loop.add_signal_handler(signum, |_| ()).unwrap_err();
        assert!(matches!(error, Error::State(_)));
        assert_eq!(error.to_string(), format!("sig {signum} cannot be caught"));
    }
}

// spec: SIGNAL-03
#[test]
fn removing_a_signal_handler_restores_what_was_there() {
    let _turn = take_turn();
    let (event_loop, log) = (new_loop(), Log::default());
    assert!(!event_loop.remove_signal_handler(SIGURG));
    assert!(!event_loop.remove_signal_handler(-1));
    let told = log.clone();
    event_loop.add_signal_handler(SIGURG, move |_| told.add("called")).unwrap();
    assert!(event_loop.remove_signal_handler(SIGURG));
    assert!(!event_loop.remove_signal_handler(SIGURG));
    raise(SIGURG); // Ignored by default.
    turn(&event_loop);
    assert!(log.take().is_empty());
}

// spec: SIGNAL-04, SIGNAL-06
#[test]
fn one_loop_has_signals_until_it_is_closed() {
    let _turn = take_turn();
    let (first, second) = (new_loop(), new_loop());
    first.add_signal_handler(SIGUSR1, |_| ()).unwrap();
    let error = second.add_signal_handler(SIGUSR2, |_| ()).unwrap_err();
    assert!(matches!(error, Error::State(_)), "{error}");
    first.close().unwrap();
    second.add_signal_handler(SIGUSR2, |_| ()).unwrap();
    assert!(second.remove_signal_handler(SIGUSR2));
    let third = new_loop();
    third.add_signal_handler(SIGUSR2, |_| ()).unwrap();
}

// spec: SIGNAL-05
#[test]
fn other_system_calls_are_not_interrupted_by_a_signal() {
    let _turn = take_turn();
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    event_loop
        .add_signal_handler(SIGUSR1, move |event_loop| {
            told.add("signal");
            event_loop.stop();
        })
        .unwrap();
    // Waiting for the child is a call that the signal finds blocked, in this thread or in one of the harness.
    raise(SIGUSR1);
    let status = Command::new("sleep").arg("0.02").status();
    assert!(status.unwrap().success());
    event_loop.call_later(Duration::from_secs(3600), |_| ()).unwrap();
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["signal"]);
}

// spec: RUN-05
#[test]
fn ctrl_c_asks_the_main_task_of_a_runner_to_end_once_and_then_is_what_it_was() {
    let _turn = take_turn();
    let (runner, log) = (Runner::new().unwrap(), Log::default());
    let main = |cleans_up: Log| async move {
        raise(SIGINT);
        assert!(catch_cancel(sleep(Duration::from_secs(3600))).await.is_err());
        cleans_up.add("cleans up");
        let event_loop = EventLoop::running().unwrap();
        assert!(!event_loop.remove_signal_handler(SIGINT), "a second one ends the process");
        "a value"
    };
    assert_eq!(
        runner.run(main(log.clone())).unwrap(),
        "a value",
        "what goes on nevertheless counts"
    );
    let interrupted = runner.run(async {
        raise(SIGINT);
        sleep(Duration::from_secs(3600)).await;
    });
    assert!(matches!(interrupted, Err(Error::Interrupted)));
    assert_eq!(log.take(), ["cleans up"]);
    assert!(!runner.event_loop().remove_signal_handler(SIGINT), "nothing is left after a run");
}

// spec: RUN-05
#[test]
fn a_runner_leaves_ctrl_c_to_a_handler_of_the_users() {
    let _turn = take_turn();
    let (runner, log) = (Runner::new().unwrap(), Log::default());
    let told = log.clone();
    let handler = move |_: &EventLoop| told.add("the user's");
    runner.event_loop().add_signal_handler(SIGINT, handler).unwrap();
    let main = async {
        raise(SIGINT);
        sleep(Duration::from_millis(1)).await;
    };
    runner.run(main).unwrap();
    assert_eq!(log.take(), ["the user's"]);
    assert!(runner.event_loop().remove_signal_handler(SIGINT));
}
