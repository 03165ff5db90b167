//! `Runner`: several runs on one loop. Ctrl-C is tested in programs of their own.

use std::time::Duration;

use ringloop::{Error, EventLoop, Runner, current_task, sleep, spawn, yield_now};

use super::Log;

// spec: RUN-04
#[test]
fn several_runs_share_one_loop_and_its_tasks() {
    let runner = Runner::new().unwrap();
    runner.ignore_ctrl_c();
    let task = runner.event_loop().create_task(sleep(Duration::from_millis(5)));
    runner.run(async {}).unwrap();
    assert!(!task.done());
    let same = runner.run(async { EventLoop::running().unwrap() == *runner.event_loop() }).unwrap();
    assert!(same);
    runner.run(task).unwrap().unwrap();
    runner.close().unwrap();
    runner.close().unwrap();
    let error = runner.run(async {}).unwrap_err();
    assert_eq!(error.to_string(), "Runner is closed");
}

// spec: RUN-03, RUN-04
#[test]
fn a_runner_does_not_run_inside_of_a_running_loop() {
    let runner = Runner::new().unwrap();
    let error = runner.run(async { runner.run(async {}).unwrap_err() }).unwrap();
    let text = "Runner.run() cannot be called from a running event loop";
    assert_eq!(error.to_string(), text);
    let error = runner.run(async { runner.close().unwrap_err() }).unwrap();
    assert!(matches!(error, Error::State(_)));
}

// spec: RUN-01, RUN-02
#[test]
fn closing_a_runner_ends_the_tasks_that_are_left() {
    let log = Log::default();
    let runner = EventLoop::builder().runner().unwrap();
    let reports = super::watch(runner.event_loop());
    let of_task = log.clone();
    runner
        .run(async {
            drop(spawn(async move {
                let _ = ringloop::catch_cancel(sleep(Duration::from_secs(3600))).await;
                of_task.add("cleans up");
                assert!(current_task().is_none(), "and fails");
            }));
            yield_now().await;
        })
        .unwrap();
    drop(runner);
    assert_eq!(log.take(), ["cleans up"]);
    assert_eq!(reports.take(), ["unhandled exception during asyncio.run() shutdown: and fails"]);
}
