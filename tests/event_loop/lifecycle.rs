//! Closing, and what a closed loop refuses.

use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, EventLoop, LoopRef, sleep};

use super::{Log, LogDrop, ended, log_soon, new_loop, turn, watched_loop};

const LONG: Duration = Duration::from_secs(3600);

// spec: LOOP-15
#[test]
fn a_running_loop_cannot_be_closed_and_a_closed_one_can() {
    let event_loop = new_loop();
    let error = event_loop
        .run_until_complete(async { EventLoop::running().unwrap().close().unwrap_err() })
        .unwrap();
    assert_eq!(error.to_string(), "Cannot close a running event loop");
    assert!(!event_loop.is_closed());
    event_loop.close().unwrap();
    event_loop.close().unwrap();
    assert!(event_loop.is_closed());
}

// spec: LOOP-16
#[test]
fn close_drops_callbacks_timers_and_tasks_unrun() {
    let (event_loop, log) = (new_loop(), Log::default());
    let guard = |text| LogDrop(log.clone(), text);
    let (soon, later, body) = (guard("soon"), guard("later"), guard("body"));
    let handle = event_loop
        .call_soon(move |_| {
            let _soon = soon;
            unreachable!();
        })
        .unwrap();
    let timer = event_loop
        .call_later(LONG, move |_| {
            let _later = later;
            unreachable!();
        })
        .unwrap();
    let task = event_loop.create_task(async move {
        let _body = body;
        sleep(LONG).await;
    });
    event_loop.close().unwrap();
    let mut dropped = log.take();
    dropped.sort();
    assert_eq!(dropped, ["body", "later", "soon"], "while their handles are still held");
    assert!(!handle.cancelled() && !timer.cancelled());
    assert!(task.done() && task.cancelled());
    let stats = event_loop.stats();
    assert_eq!((stats.ready, stats.timers, stats.tasks, stats.in_flight), (0, 0, 0, 0));
    assert!(event_loop.driver_info().is_none(), "the ring is released");
}

#[test]
fn what_the_driver_was_made_with_may_be_kept_while_the_loop_runs_and_closes() {
    let event_loop = new_loop();
    let info = event_loop.driver_info().unwrap();
    let _forgotten = std::mem::ManuallyDrop::new(event_loop.driver_info());
    event_loop.flush().unwrap();
    turn(&event_loop);
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
    event_loop.close().unwrap();
    assert!(info.buffers > 0);
}

// spec: LOOP-17
#[test]
fn a_closed_loop_refuses_everything_that_schedules() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    event_loop.close().unwrap();
    let closed = |error: Error| {
        assert!(matches!(error, Error::State(_)));
        assert_eq!(error.to_string(), "Event loop is closed");
    };
    closed(event_loop.call_soon(|_| ()).unwrap_err());
    closed(event_loop.call_later(LONG, |_| ()).unwrap_err());
    closed(event_loop.call_at(event_loop.time(), |_| ()).unwrap_err());
    closed(ended(event_loop.create_task(async {})).unwrap_err());
    closed(ended(event_loop.run_in_executor(|| ())).unwrap_err());
    closed(event_loop.add_signal_handler(10, |_| ()).unwrap_err());
    closed(event_loop.run_forever().unwrap_err());
    closed(event_loop.run_until_complete(async {}).unwrap_err());
    closed(event_loop.flush().unwrap_err());
    closed(proxy.call_soon_threadsafe(|_| ()).unwrap_err());
    closed(ended(proxy.spawn(|| async {})).unwrap_err());
    assert!(!event_loop.remove_signal_handler(10));
}

// spec: LOOP-16, MAP-03, TASK-19
#[test]
fn close_tells_of_pending_tasks() {
    let (event_loop, reports) = watched_loop();
    drop(event_loop.create_task(async { sleep(LONG).await }));
    turn(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(reports.take(), ["Task was destroyed but it is pending!"]);
}

// spec: LOOP-16, MAP-04
#[test]
fn dropping_the_last_handle_closes_the_loop() {
    let (event_loop, log) = (new_loop(), Log::default());
    let guard = LogDrop(log.clone(), "freed");
    event_loop.call_soon(move |_| drop(guard)).unwrap();
    let (weak, proxy) = (event_loop.downgrade(), event_loop.proxy());
    let other = event_loop.clone();
    drop(event_loop);
    assert!(log.take().is_empty() && !other.is_closed());
    drop(other);
    assert_eq!(log.take(), ["freed"]);
    assert!(weak.upgrade().is_none());
    assert!(proxy.is_closed());
}

// spec: LOOP-16
#[test]
fn drops_during_close_may_use_the_loop_and_may_panic() {
    struct UseLoop(LoopRef, Log);
    impl Drop for UseLoop {
        fn drop(&mut self) {
            let event_loop = self.0.upgrade().unwrap();
            let refused = event_loop.call_soon(|_| ()).is_err();
            event_loop.close().unwrap();
            event_loop.stop();
            self.1.add(format!("closed={} refused={refused}", event_loop.is_closed()));
            panic!("in a drop");
        }
    }
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    let guard = || UseLoop(event_loop.downgrade(), log.clone());
    let (first, second) = (guard(), guard());
    event_loop.call_soon(move |_| drop(first)).unwrap();
    event_loop.call_later(LONG, move |_| drop(second)).unwrap();
    log_soon(&event_loop, &log, "not run");
    event_loop.close().unwrap();
    assert_eq!(log.take(), ["closed=true refused=true"; 2]);
    let told = "Exception in the drop of a callback: in a drop";
    assert_eq!(reports.take(), [told; 2]);
}

// spec: LOOP-16
#[test]
fn nothing_is_left_of_a_loop_whose_tasks_and_futures_know_each_other() {
    let event_loop = new_loop();
    let witness = Rc::new(());
    for _ in 0..10 {
        let future = event_loop.create_future::<Rc<()>>();
        let (held, waiting, weak) = (Rc::clone(&witness), future.clone(), event_loop.downgrade());
        future.add_done_callback(move |_| drop(Rc::clone(&held)));
        let held = Rc::clone(&witness);
        let task = event_loop.create_task(async move {
            let _held = (held, weak, ringloop::current_task());
            waiting.await
        });
        drop(task);
    }
    turn(&event_loop);
    event_loop.reset_exception_handler();
    event_loop.set_exception_handler(|_, _| ());
    drop(event_loop);
    assert_eq!(Rc::strong_count(&witness), 1);
}

// spec: LOOP-26
#[test]
fn a_new_loop_has_nothing_of_the_users() {
    let event_loop = new_loop();
    let stats = event_loop.stats();
    assert_eq!((stats.sources, stats.ready, stats.timers, stats.tasks), (0, 0, 0, 0));
    turn(&event_loop);
    assert_eq!(event_loop.stats().sources, 0);
}
