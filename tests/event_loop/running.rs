//! Running and stopping.

use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, EventLoop, sleep, yield_now};

use super::{Log, LogDrop, log_soon, new_loop, turn, watched_loop};

// spec: LOOP-10
#[test]
fn stop_lets_the_iteration_end_and_keeps_what_is_queued_for_the_next_run() {
    let (event_loop, log) = (new_loop(), Log::default());
    event_loop.call_soon(EventLoop::stop).unwrap();
    let inner = log.clone();
    event_loop
        .call_soon(move |event_loop| {
            inner.add("b");
            log_soon(event_loop, &inner, "c");
        })
        .unwrap();
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["b"]);
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["c"]);
}

// spec: LOOP-11
#[test]
fn stop_before_the_run_means_one_iteration_that_does_not_wait() {
    let (event_loop, log) = (new_loop(), Log::default());
    event_loop.call_later(Duration::from_secs(3600), |_| ()).unwrap();
    let inner = log.clone();
    event_loop
        .call_soon(move |event_loop| {
            inner.add("a");
            log_soon(event_loop, &inner, "b");
        })
        .unwrap();
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(log.take(), ["a"]);
    assert_eq!(event_loop.stats().iterations, 1);
}

// spec: LOOP-12
#[test]
fn run_until_complete_gives_what_the_future_gives() {
    let event_loop = new_loop();
    assert_eq!(event_loop.run_until_complete(async { 42 }).unwrap(), 42);
    let future = event_loop.create_future();
    let setter = future.clone();
    event_loop.call_soon(move |_| setter.set_result("set").unwrap()).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap().unwrap(), "set");
    let borrowed = String::from("borrowed");
    let text = event_loop.run_until_complete(async {
        yield_now().await;
        borrowed.as_str()
    });
    assert_eq!(text.unwrap(), "borrowed");
}

// spec: LOOP-12
#[test]
fn run_until_complete_gives_the_panic_as_an_error_and_reports_nothing() {
    let (event_loop, reports) = watched_loop();
    let result = event_loop.run_until_complete(async { panic!("oh") });
    let result: Result<(), Error> = result.map(|never: std::convert::Infallible| match never {});
    assert!(matches!(result, Err(Error::Panic(text)) if text == "oh"));
    assert!(reports.take().is_empty());
    assert!(!event_loop.is_running());
}

// spec: LOOP-12, LOOP-10
#[test]
fn what_the_last_step_queues_runs_before_run_until_complete_returns() {
    let (event_loop, log) = (new_loop(), Log::default());
    let inner = log.clone();
    let body = async move {
        log_soon(&EventLoop::running().unwrap(), &inner, "queued by the last step");
    };
    event_loop.run_until_complete(body).unwrap();
    assert_eq!(log.take(), ["queued by the last step"]);
}

// spec: LOOP-13
#[test]
fn a_loop_that_stops_first_is_an_error_and_drops_the_body() {
    let (event_loop, log) = (new_loop(), Log::default());
    event_loop.call_soon(EventLoop::stop).unwrap();
    let guard = LogDrop(log.clone(), "dropped");
    let error = event_loop
        .run_until_complete(async {
            let _guard = guard;
            sleep(Duration::from_secs(3600)).await;
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "Event loop stopped before Future completed.");
    assert!(matches!(error, Error::State(_)));
    assert_eq!(log.take(), ["dropped"]);
    assert_eq!(event_loop.stats().tasks, 0);
    turn(&event_loop);
}

// spec: LOOP-13
#[test]
fn a_task_passed_by_reference_survives_the_stop() {
    let event_loop = new_loop();
    let mut task = event_loop.create_task(async {
        yield_now().await;
        yield_now().await;
        "done"
    });
    event_loop.call_soon(EventLoop::stop).unwrap();
    event_loop.run_until_complete(&mut task).unwrap_err();
    assert_eq!(event_loop.run_until_complete(&mut task).unwrap().unwrap(), "done");
}

// spec: LOOP-10, LOOP-12
#[test]
fn the_stop_of_a_run_that_was_stopped_otherwise_does_not_reach_the_next_run() {
    let event_loop = new_loop();
    let body = async { EventLoop::running().unwrap().stop() };
    event_loop.run_until_complete(body).unwrap();
    event_loop
        .run_until_complete(async {
            for _ in 0..3 {
                yield_now().await;
            }
        })
        .unwrap();
}

// spec: LOOP-14
#[test]
fn a_running_loop_cannot_be_started_again() {
    let event_loop = new_loop();
    let errors = event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().unwrap();
            let forever = event_loop.run_forever().unwrap_err();
            let until = event_loop.run_until_complete(async {}).unwrap_err();
            [forever.to_string(), until.to_string()]
        })
        .unwrap();
    assert_eq!(errors, ["This event loop is already running"; 2]);
}

// spec: LOOP-14, LOOP-19
#[test]
fn a_second_loop_cannot_run_inside_the_first() {
    let (outer, inner) = (new_loop(), new_loop());
    let error = outer
        .run_until_complete(async {
            assert_eq!(EventLoop::running().unwrap(), outer);
            inner.run_forever().unwrap_err()
        })
        .unwrap();
    let text = "Cannot run the event loop while another loop is running";
    assert_eq!(error.to_string(), text);
    inner.run_until_complete(async {}).unwrap();
}

// spec: LOOP-19
#[test]
fn the_running_loop_is_known_on_its_thread_while_it_runs() {
    let event_loop = new_loop();
    assert!(EventLoop::current().is_none());
    assert_eq!(EventLoop::running().unwrap_err().to_string(), "no running event loop");
    event_loop
        .call_soon(|event_loop| {
            assert_eq!(EventLoop::current().as_ref(), Some(event_loop));
            assert!(event_loop.is_running());
            std::thread::spawn(|| assert!(EventLoop::current().is_none())).join().unwrap();
        })
        .unwrap();
    turn(&event_loop);
    assert_eq!(event_loop.stats().reports, 0);
    assert!(EventLoop::current().is_none());
    assert!(!event_loop.is_running());
}

// spec: LOOP-19
#[test]
fn each_thread_may_run_its_own_loop() {
    let threads: Vec<_> = (0..3)
        .map(|number| {
            std::thread::spawn(move || {
                new_loop().run_until_complete(async move {
                    yield_now().await;
                    number
                })
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().unwrap(), number);
    }
}

// spec: LOOP-21, MAP-05
#[test]
fn a_requested_exit_ends_the_run_at_once_and_keeps_the_rest_queued() {
    let (event_loop, log) = (new_loop(), Log::default());
    log_soon(&event_loop, &log, "a");
    event_loop.call_soon(|event_loop| event_loop.request_exit(3)).unwrap();
    log_soon(&event_loop, &log, "b");
    let error = event_loop.run_forever().unwrap_err();
    assert!(matches!(error, Error::Exit(3)));
    assert_eq!(log.take(), ["a"]);
    turn(&event_loop);
    assert_eq!(log.take(), ["b"]);
}

// spec: LOOP-21, MAP-05
#[test]
fn an_exit_requested_by_a_task_comes_out_of_run_until_complete() {
    let event_loop = new_loop();
    let result = event_loop.run_until_complete(async {
        let event_loop = EventLoop::running().unwrap();
        let task = event_loop.create_task(async { EventLoop::running().unwrap().request_exit(7) });
        task.await.unwrap();
    });
    assert!(matches!(result, Err(Error::Exit(7))));
}

// spec: LOOP-18, DEBUG-01
#[test]
fn debug_mode_may_change_while_the_loop_runs() {
    let event_loop = EventLoop::builder().debug(false).build().unwrap();
    assert!(!event_loop.get_debug());
    event_loop.call_soon(|event_loop| event_loop.set_debug(true)).unwrap();
    turn(&event_loop);
    assert!(event_loop.get_debug());
}

// spec: DEBUG-02
#[test]
fn debug_mode_tells_of_slow_callbacks_and_steps() {
    let event_loop =
        EventLoop::builder().debug(true).slow_callback_duration(Duration::ZERO).build().unwrap();
    event_loop.call_soon(|_| ()).unwrap();
    turn(&event_loop);
    assert_eq!(event_loop.stats().warnings, 1);
    drop(event_loop.create_task(async {}));
    turn(&event_loop);
    assert_eq!(event_loop.stats().warnings, 2);
    event_loop.set_slow_callback_duration(Duration::from_secs(3600));
    event_loop.call_soon(|_| ()).unwrap();
    turn(&event_loop);
    assert_eq!(event_loop.stats().warnings, 2);
}

// spec: RUN-01
#[test]
fn run_gives_the_result_and_leaves_no_loop_behind() {
    let result = ringloop::run(async {
        yield_now().await;
        EventLoop::running().unwrap().downgrade()
    });
    assert!(result.unwrap().upgrade().is_none());
    assert!(matches!(ringloop::run(async { panic!("oh") }), Err::<(), _>(Error::Panic(_))));
}

// spec: RUN-01
#[test]
fn run_cancels_the_tasks_that_are_left_and_waits_for_them() {
    let log = Log::default();
    let inner = log.clone();
    ringloop::run(async {
        let task = async move {
            let slept = ringloop::catch_cancel(sleep(Duration::from_secs(3600))).await;
            assert!(slept.is_err());
            yield_now().await;
            inner.add("cleaned up");
        };
        drop(EventLoop::running().unwrap().create_task(task));
        yield_now().await;
    })
    .unwrap();
    assert_eq!(log.take(), ["cleaned up"]);
}

// spec: RUN-01
#[test]
fn run_waits_for_the_threads_of_the_executor() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (begun, begins) = std::sync::mpsc::channel();
    ringloop::run(async {
        let event_loop = EventLoop::running().unwrap();
        let job = event_loop.run_in_executor(move || {
            begun.send(()).unwrap();
            sender.send("ended").unwrap();
        });
        drop(job);
        begins.recv().unwrap();
    })
    .unwrap();
    assert_eq!(receiver.try_recv().unwrap(), "ended");
}

// spec: RUN-02
#[test]
fn run_reports_the_errors_of_tasks_that_it_cancelled() {
    let reports = Rc::new(std::cell::RefCell::new(None));
    let slot = Rc::clone(&reports);
    ringloop::run(async {
        let event_loop = EventLoop::running().unwrap();
        slot.replace(Some(super::watch(&event_loop)));
        let task = event_loop.create_task(async {
            let _ = ringloop::catch_cancel(sleep(Duration::from_secs(3600))).await;
            panic!("while cleaning up");
        });
        drop(task);
        yield_now().await;
    })
    .unwrap();
    let told = reports.take().unwrap().take();
    assert_eq!(told, ["unhandled exception during asyncio.run() shutdown: while cleaning up"]);
}

// spec: RUN-03
#[test]
fn run_inside_of_a_running_loop_is_refused() {
    let error = ringloop::run(async { ringloop::run(async {}).unwrap_err() }).unwrap();
    let text = "asyncio.run() cannot be called from a running event loop";
    assert_eq!(error.to_string(), text);
}
