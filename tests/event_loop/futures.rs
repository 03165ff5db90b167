//! `LoopFuture`.

use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, EventLoop, LoopFuture, catch_cancel, sleep, yield_now};

use super::{Log, log_soon, new_loop, turn, watched_loop};

fn invalid_state<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::InvalidState(text)) => text.into_owned(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("no error"),
    }
}

// spec: FUT-01, LOOP-24
#[test]
fn a_new_future_is_pending() {
    let future = new_loop().create_future::<i32>();
    assert!(!future.done() && !future.cancelled());
    assert_eq!(invalid_state(future.result()), "Result is not set.");
    assert_eq!(invalid_state(future.exception()), "Exception is not set.");
    assert_eq!(format!("{future:?}"), "<Future pending>");
}

// spec: FUT-01
#[test]
fn a_finished_future_has_a_value_or_an_error() {
    let event_loop = new_loop();
    let value = event_loop.create_future();
    value.set_result(42).unwrap();
    assert!(value.done() && !value.cancelled());
    assert_eq!((value.result().unwrap(), value.result().unwrap()), (42, 42));
    assert!(value.exception().unwrap().is_none());
    let error = event_loop.create_future::<i32>();
    error.set_exception(Error::other("oh")).unwrap();
    assert!(error.done() && !error.cancelled());
    assert_eq!(error.result().unwrap_err().to_string(), "oh");
    assert_eq!(error.exception().unwrap().unwrap().to_string(), "oh");
}

// spec: FUT-02
#[test]
fn a_done_future_cannot_be_completed_again() {
    let event_loop = new_loop();
    let (finished, cancelled) = (event_loop.create_future(), event_loop.create_future());
    finished.set_result(1).unwrap();
    cancelled.cancel();
    for future in [&finished, &cancelled] {
        assert_eq!(invalid_state(future.set_result(2)), "invalid state");
        assert_eq!(invalid_state(future.set_exception(Error::Timeout)), "invalid state");
    }
    assert_eq!(finished.result().unwrap(), 1);
    assert!(matches!(cancelled.result(), Err(Error::Cancelled)));
}

// spec: FUT-03, FUT-01
#[test]
fn cancel_works_once_and_only_while_pending() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<i32>();
    assert!(future.cancel());
    assert!(future.cancelled() && future.done());
    assert!(!future.cancel());
    assert!(matches!(future.result(), Err(Error::Cancelled)));
    assert!(matches!(future.exception(), Err(Error::Cancelled)));
    let finished = event_loop.create_future();
    finished.set_result(1).unwrap();
    assert!(!finished.cancel() && !finished.cancelled());
}

// spec: FUT-04, FUT-05, RISK-26
#[test]
fn done_callbacks_run_soon_in_order_of_registration() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future::<i32>();
    let add = |text: &'static str| {
        let log = log.clone();
        future.add_done_callback(move |future| {
            log.add(format!("{text} {}", future.result().unwrap()));
        });
    };
    add("first");
    add("second");
    log_soon(&event_loop, &log, "queued before");
    future.set_result(42).unwrap();
    log_soon(&event_loop, &log, "queued after");
    add("late");
    assert!(log.take().is_empty(), "nothing inside set_result");
    turn(&event_loop);
    assert_eq!(log.take(), ["queued before", "first 42", "second 42", "queued after", "late 42"]);
}

// spec: FUT-04, FUT-03
#[test]
fn done_callbacks_run_on_errors_and_cancels_too() {
    let (event_loop, log) = (new_loop(), Log::default());
    for how in ["error", "cancel"] {
        let future = event_loop.create_future::<()>();
        let told = log.clone();
        future.add_done_callback(move |future| {
            told.add(format!("{how} {}", future.cancelled()));
            let _ = future.exception();
        });
        match how {
            "error" => future.set_exception(Error::Timeout).unwrap(),
            _ => assert!(future.cancel()),
        }
    }
    turn(&event_loop);
    assert_eq!(log.take(), ["error false", "cancel true"]);
}

// spec: FUT-06
#[test]
fn remove_done_callback_takes_back_all_equal_registrations() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future::<()>();
    let (a, b) = (log.clone(), log.clone());
    let a = future.add_done_callback(move |_| a.add("a"));
    let b = future.add_done_callback(move |_| b.add("b"));
    future.add_again(&a);
    assert_eq!(future.remove_done_callback(&a), 2);
    assert_eq!(future.remove_done_callback(&a), 0);
    future.set_result(()).unwrap();
    assert_eq!(future.remove_done_callback(&b), 0, "scheduled already");
    turn(&event_loop);
    assert_eq!(log.take(), ["b"]);
}

// spec: FUT-04, LOOP-20
#[test]
fn a_done_callback_that_panics_does_not_keep_the_others_from_running() {
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    let future = event_loop.create_future::<()>();
    future.add_done_callback(|_| panic!("oh"));
    let told = log.clone();
    future.add_done_callback(move |_| told.add("second"));
    future.set_result(()).unwrap();
    turn(&event_loop);
    assert_eq!(
        (reports.take(), log.take()),
        (vec!["Exception in callback: oh".into()], vec!["second".into()])
    );
}

// spec: FUT-07, TASK-02
#[test]
fn awaiting_a_done_future_does_not_give_up_control() {
    let (event_loop, log) = (new_loop(), Log::default());
    let done = event_loop.create_future();
    done.set_result(1).unwrap();
    log_soon(&event_loop, &log, "another callback");
    let told = log.clone();
    event_loop
        .run_until_complete(async {
            log_soon(&event_loop, &told, "queued by the task");
            for _ in 0..3 {
                done.clone().await.unwrap();
            }
            told.add("awaited three times");
        })
        .unwrap();
    assert_eq!(log.take(), ["another callback", "awaited three times", "queued by the task"]);
}

// spec: FUT-07, TASK-03
#[test]
fn who_awaits_is_resumed_soon_after_the_completion_among_other_callbacks() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future::<()>();
    let wait = |text: &'static str| {
        let (log, future) = (log.clone(), future.clone());
        drop(event_loop.create_task(async move {
            future.await.unwrap();
            log.add(text);
        }));
    };
    wait("first task");
    turn(&event_loop);
    let told = log.clone();
    future.add_done_callback(move |_| told.add("done callback"));
    wait("second task");
    turn(&event_loop);
    log_soon(&event_loop, &log, "queued before");
    future.set_result(()).unwrap();
    log_soon(&event_loop, &log, "queued after");
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(
        log.take(),
        ["queued before", "first task", "done callback", "second task", "queued after"]
    );
}

// spec: FUT-07
#[test]
fn a_value_that_cannot_be_cloned_is_moved_out() {
    struct Unique(i32);
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let setter = future.clone();
    event_loop.call_soon(move |_| setter.set_result(Unique(42)).unwrap()).unwrap();
    let waits = future.clone();
    let value = event_loop.run_until_complete(waits.take()).unwrap();
    assert_eq!(value.unwrap().0, 42);
    assert_eq!(
        invalid_state(event_loop.run_until_complete(future.take()).unwrap()),
        "Result was already taken."
    );
}

// spec: FUT-08
#[test]
fn set_result_unless_cancelled_leaves_a_cancelled_future_alone() {
    let event_loop = new_loop();
    let (pending, cancelled) = (event_loop.create_future(), event_loop.create_future());
    cancelled.cancel();
    cancelled.set_result_unless_cancelled(1).unwrap();
    assert!(cancelled.cancelled());
    pending.set_result_unless_cancelled(1).unwrap();
    assert_eq!(pending.result().unwrap(), 1);
    invalid_state(pending.set_result_unless_cancelled(2));
}

// spec: FUT-09, MAP-03
#[test]
fn an_error_that_nobody_looks_at_is_reported() {
    let (event_loop, reports) = watched_loop();
    let unseen = event_loop.create_future::<()>();
    unseen.set_exception(Error::other("oh")).unwrap();
    assert!(reports.take().is_empty());
    drop(unseen);
    assert_eq!(reports.take(), ["Future exception was never retrieved: oh"]);
}

// spec: FUT-09, MAP-03
#[test]
fn looking_at_the_error_or_cancelling_suppresses_the_report() {
    let (event_loop, reports) = watched_loop();
    let failed = || {
        let future = event_loop.create_future::<()>();
        future.set_exception(Error::other("oh")).unwrap();
        future
    };
    failed().result().unwrap_err();
    failed().exception().unwrap().unwrap();
    event_loop.run_until_complete(failed()).unwrap().unwrap_err();
    event_loop.run_until_complete(failed().take()).unwrap().unwrap_err();
    event_loop.create_future::<()>().cancel();
    drop(event_loop.create_future::<()>());
    assert!(reports.take().is_empty());
}

// spec: FUT-09
#[test]
fn an_error_is_told_though_the_loop_is_gone() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    future.set_exception(Error::other("to stderr, as the loop is gone")).unwrap();
    drop(event_loop);
    drop(future);
}

// spec: FUT-10
#[test]
fn a_future_of_another_loop_cannot_be_awaited() {
    let (event_loop, other) = (new_loop(), new_loop());
    let future = other.create_future::<()>();
    let error = event_loop.run_until_complete(future).unwrap().unwrap_err();
    assert!(matches!(error, Error::State(_)));
    assert_eq!(error.to_string(), "Task got Future attached to a different loop");
}

// spec: FUT-04
#[test]
fn a_future_may_be_completed_after_its_loop_is_closed() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future();
    let told = log.clone();
    future.add_done_callback(move |_| told.add("called"));
    event_loop.close().unwrap();
    future.set_result(42).unwrap();
    assert_eq!(future.result().unwrap(), 42);
    assert!(log.take().is_empty());
}

// spec: TASK-05
#[test]
fn a_cancelled_task_cancels_the_future_that_it_awaits() {
    let event_loop = new_loop();
    let (awaited, dropped) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    let (waits, never) = (awaited.clone(), dropped.clone());
    let task = event_loop.create_task(async move {
        let _never = never;
        waits.await
    });
    turn(&event_loop);
    task.cancel();
    assert!(awaited.cancelled(), "inside of cancel()");
    turn(&event_loop);
    assert!(task.cancelled());
    assert!(!dropped.done(), "it was held and not awaited");
}

// spec: TASK-05, TASK-13
#[test]
fn scopes_and_timeouts_cancel_the_future_that_was_awaited_inside() {
    let event_loop = new_loop();
    let (caught, late) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    let (in_scope, in_time) = (caught.clone(), late.clone());
    let task = event_loop.create_task(async move {
        assert!(catch_cancel(in_scope).await.is_err());
        assert!(ringloop::timeout(Duration::from_millis(1), in_time).await.is_err());
    });
    turn(&event_loop);
    task.cancel();
    assert!(caught.cancelled());
    event_loop.run_until_complete(task).unwrap().unwrap();
    assert!(late.cancelled());
}

// spec: TASK-05, FUT-04
#[test]
fn who_watches_the_future_of_a_cancelled_task_is_queued_in_the_order_of_registration() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future::<()>();
    let wait = |text: &'static str| {
        let (log, future) = (log.clone(), future.clone());
        let task = event_loop.create_task(async move {
            let waited = catch_cancel(future).await.map(|waited| waited.is_err());
            log.add(format!("{text} {waited:?}"));
        });
        turn(&event_loop);
        task
    };
    let watch = |text: &'static str| {
        let told = log.clone();
        future.add_done_callback(move |_| told.add(text));
    };
    let _first = wait("first");
    watch("callback");
    let cancelled = wait("cancelled");
    watch("last callback");
    log_soon(&event_loop, &log, "queued before");
    cancelled.cancel();
    log_soon(&event_loop, &log, "queued after");
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(
        log.take(),
        [
            "queued before",
            "first Ok(true)",
            "callback",
            "cancelled Err(Cancelled(()))",
            "last callback",
            "queued after"
        ]
    );
}

// spec: TASK-05, TASK-07
#[test]
fn a_request_reaches_only_what_is_awaited_in_the_scope_that_gets_it() {
    let event_loop = new_loop();
    let (inside, beside) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    let (mut scope, mut other) = (Box::pin(catch_cancel(inside.clone())), beside.clone());
    let task = event_loop.create_task(std::future::poll_fn(move |cx| {
        let caught = scope.as_mut().poll(cx);
        assert!(std::pin::Pin::new(&mut other).poll(cx).is_pending());
        caught
    }));
    turn(&event_loop);
    task.cancel();
    assert!(inside.cancelled() && !beside.done());
    assert!(event_loop.run_until_complete(task).unwrap().unwrap().is_err());
    assert!(!beside.done());
}

// spec: TASK-05
#[test]
fn a_future_that_was_given_up_or_that_another_task_awaits_by_now_is_not_cancelled() {
    let event_loop = new_loop();
    let (dropped, moved) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    let (gives_up, gives_away) = (dropped.clone(), moved.clone());
    let task = event_loop.create_task(async move {
        let (mut gives_up, mut gives_away) = (Box::pin(gives_up), Box::pin(gives_away));
        std::future::poll_fn(|cx| {
            assert!(gives_up.as_mut().poll(cx).is_pending());
            assert!(gives_away.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(gives_up);
        drop(EventLoop::running().unwrap().create_task(gives_away));
        std::future::pending::<()>().await;
    });
    turn(&event_loop);
    turn(&event_loop);
    task.cancel();
    turn(&event_loop);
    assert!(task.cancelled() && !dropped.done() && !moved.done());
}

// spec: TASK-05
#[test]
fn below_a_waker_of_its_own_the_future_is_cancelled_when_it_is_dropped() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let mut waits = future.clone();
    let task = event_loop.create_task(std::future::poll_fn(move |_| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(&mut waits).poll(&mut cx)
    }));
    turn(&event_loop);
    task.cancel();
    assert!(!future.done());
    turn(&event_loop);
    assert!(task.cancelled() && future.cancelled());
}

// spec: TASK-05
#[test]
fn of_very_many_futures_awaited_at_once_all_are_cancelled_in_the_end() {
    let event_loop = new_loop();
    let futures: Vec<_> = (0..200).map(|_| event_loop.create_future::<()>()).collect();
    let mut waits = futures.clone();
    let task = event_loop.create_task(std::future::poll_fn(move |cx| {
        for wait in &mut waits {
            assert!(std::pin::Pin::new(wait).poll(cx).is_pending());
        }
        std::task::Poll::<()>::Pending
    }));
    turn(&event_loop);
    task.cancel();
    turn(&event_loop);
    assert!(task.cancelled() && futures.iter().all(LoopFuture::cancelled));
}

// spec: FUT-07
#[test]
fn an_awaited_handle_that_is_dropped_otherwise_leaves_the_future_alone() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let waits = future.clone();
    event_loop
        .run_until_complete(async move {
            let mut waits = Box::pin(waits);
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx)));
            assert!(poll.await.is_pending());
            drop(waits);
            yield_now().await;
        })
        .unwrap();
    assert!(!future.done());
}

// spec: FUT-01
#[test]
fn a_value_whose_clone_looks_at_the_future_finds_no_borrow() {
    struct Nosy(Rc<std::cell::RefCell<Option<LoopFuture<Self>>>>);
    impl Clone for Nosy {
        fn clone(&self) -> Self {
            let future = self.0.borrow().clone().unwrap();
            assert!(future.done() && !future.cancel());
            assert!(future.exception().unwrap().is_none());
            Self(Rc::clone(&self.0))
        }
    }
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let place = Rc::new(std::cell::RefCell::new(Some(future.clone())));
    assert!(future.set_result(Nosy(Rc::clone(&place))).is_ok());
    assert!(future.result().is_ok());
    assert!(future.result().is_ok(), "the value is still there");
    place.take();
}

// spec: FUT-07, TASK-03
#[test]
fn foreign_combinators_poll_loop_futures() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<i32>();
    let setter = future.clone();
    event_loop
        .call_later(Duration::from_millis(1), move |_| setter.set_result(1).unwrap())
        .unwrap();
    let result = event_loop.run_until_complete(async {
        let (mut slow, mut fast) = (Box::pin(sleep(Duration::from_secs(3600))), future);
        std::future::poll_fn(|cx| {
            assert!(slow.as_mut().poll(cx).is_pending());
            std::pin::Pin::new(&mut fast).poll(cx)
        })
        .await
    });
    assert_eq!(result.unwrap().unwrap(), 1);
    assert!(EventLoop::current().is_none());
}
