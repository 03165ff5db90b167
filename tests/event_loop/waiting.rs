//! `wait`, `wait_for`, `shield` and `as_completed`.

use std::future::pending;
use std::time::Duration;

use ringloop::{
    Error, EventLoop, ReturnWhen, Task, TaskRef, as_completed, catch_cancel, shield, sleep, spawn,
    timeout, wait, wait_for, yield_now,
};

use super::{Log, LogDrop, ended, log_soon, new_loop, turn, watched_loop};

const LONG: Duration = Duration::from_secs(3600);

/// A task that gives `turns` after so many iterations.
fn after(turns: usize) -> Task<usize> {
    spawn(async move {
        for _ in 0..turns {
            yield_now().await;
        }
        turns
    })
}

// spec: TASK-11
#[test]
fn wait_returns_when_it_is_told_to_and_leaves_the_tasks_alone() {
    ringloop::run(async {
        for (until, done) in [
            (ReturnWhen::FirstCompleted, 1),
            (ReturnWhen::FirstException, 2),
            (ReturnWhen::AllCompleted, 3),
        ] {
            let failing = spawn(async {
                for _ in 0..9 {
                    yield_now().await;
                }
                panic!("fails")
            });
            let tasks = [after(1), failing, after(20)];
            let waited = wait(&tasks, None, until).await.unwrap();
            assert_eq!((waited.done.len(), waited.pending.len()), (done, 3 - done), "{until:?}");
            assert!(tasks[1].exception().is_err() || tasks[1].exception().unwrap().is_some());
            for task in waited.pending {
                task.cancel();
            }
            for task in tasks {
                let _ = task.await;
            }
        }
    })
    .unwrap();
}

// spec: TASK-11
#[test]
fn a_wait_that_is_over_time_is_no_error_and_one_for_nothing_is() {
    ringloop::run(async {
        let task = spawn(pending::<()>());
        let waited = wait([&task, &task], Some(Duration::ZERO), ReturnWhen::AllCompleted).await;
        let waited = waited.unwrap();
        assert_eq!((waited.done.len(), waited.pending.len()), (0, 2));
        assert_eq!(task.task_ref().cancelling(), 0);
        let none: [Task<()>; 0] = [];
        let error = wait(none, None, ReturnWhen::AllCompleted).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
        assert_eq!(error.to_string(), "Set of Tasks/Futures is empty.");
        task.cancel();
    })
    .unwrap();
    assert!(matches!(
        ended(wait([spawn(async {})], None, ReturnWhen::AllCompleted)),
        Err(Error::State(_))
    ));
}

// spec: TASK-11
#[test]
fn ten_thousand_waits_for_one_task_that_are_given_up_leave_nothing_with_it() {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            let task = spawn(pending::<()>());
            for _ in 0..10_000 {
                let wait = wait([&task], Some(LONG), ReturnWhen::AllCompleted);
                assert!(timeout(Duration::ZERO, wait).await.is_err());
            }
            let stats = EventLoop::running().unwrap().stats();
            assert_eq!(stats.timers - stats.cancelled_timers, 0);
            task.cancel();
        })
        .unwrap();
}

// spec: TASK-12
#[test]
fn wait_for_gives_the_result_or_cancels_what_is_late_and_waits_for_its_end() {
    ringloop::run(async {
        let log = Log::default();
        assert_eq!(wait_for(LONG, after(2)).await.unwrap(), 2);
        let of_task = log.clone();
        let slow = spawn(async move {
            assert!(catch_cancel(sleep(LONG)).await.unwrap_err().to_string().contains("cancel"));
            yield_now().await;
            of_task.add("cleaned up");
            ringloop::current_task().unwrap().cancel();
            yield_now().await;
        });
        let error = wait_for(Duration::from_millis(1), slow).await.unwrap_err();
        assert!(matches!(error, Error::Timeout));
        assert_eq!(log.take(), ["cleaned up"]);
        let stubborn = spawn(async {
            let _ = catch_cancel(sleep(LONG)).await;
            "a value"
        });
        assert_eq!(wait_for(Duration::from_millis(1), stubborn).await.unwrap(), "a value");
        let never_begins = LogDrop(log.clone(), "dropped unpolled");
        let body = async move {
            never_begins.0.add("begun");
            sleep(LONG).await;
        };
        assert!(matches!(wait_for(Duration::ZERO, spawn(body)).await, Err(Error::Timeout)));
        assert_eq!(log.take(), ["dropped unpolled"]);
        let done = after(0);
        yield_now().await;
        assert_eq!(wait_for(Duration::ZERO, done).await.unwrap(), 0);
    })
    .unwrap();
}

// spec: TASK-12
#[test]
fn cancelling_who_waits_for_a_task_cancels_the_task() {
    ringloop::run(async {
        let inner = spawn(sleep(LONG));
        let name = inner.task_ref();
        let outer = spawn(wait_for(LONG, inner));
        yield_now().await;
        outer.cancel();
        assert!(matches!(outer.await, Err(Error::Cancelled)));
        assert!(name.cancelled());
    })
    .unwrap();
}

// spec: TASK-14
#[test]
fn a_shield_keeps_requests_from_its_task() {
    ringloop::run(async {
        let inner = after(4);
        let name = inner.task_ref();
        let outer = spawn(shield(inner));
        yield_now().await;
        outer.cancel();
        assert!(matches!(outer.await, Err(Error::Cancelled)));
        assert_eq!((name.done(), name.cancelling()), (false, 0));
        name.finished().await.unwrap();
        assert!(!name.cancelled());
        assert_eq!(shield(after(2)).await.unwrap(), 2);
        let cancelled = spawn(pending::<()>());
        cancelled.cancel();
        assert!(matches!(shield(cancelled).await, Err(Error::Cancelled)));
        let done = after(0);
        yield_now().await;
        assert_eq!(shield(done).await.unwrap(), 0);
    })
    .unwrap();
}

// spec: TASK-14
#[test]
fn a_shield_that_was_made_before_the_loop_runs_is_one_as_well() {
    let event_loop = new_loop();
    let inner = event_loop.create_task(async {
        yield_now().await;
        yield_now().await;
    });
    let name = inner.task_ref();
    let outer = event_loop.create_task(shield(inner));
    event_loop
        .run_until_complete(async {
            yield_now().await;
            outer.cancel();
            assert!(matches!(outer.await, Err(Error::Cancelled)));
            assert_eq!(name.cancelling(), 0);
            name.finished().await.unwrap();
            assert!(!name.cancelled());
        })
        .unwrap();
}

// spec: TASK-11
#[test]
fn the_error_that_ends_a_wait_counts_as_seen() {
    let (event_loop, reports) = watched_loop();
    event_loop
        .run_until_complete(async {
            let (fails, waits) = (spawn(async { panic!("boom") }), spawn(pending::<()>()));
            let tasks: [TaskRef; 2] = [fails.task_ref(), waits.task_ref()];
            drop(fails);
            let waited = wait(&tasks, None, ReturnWhen::FirstException).await.unwrap();
            assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
            waits.cancel();
        })
        .unwrap();
    turn(&event_loop);
    assert!(reports.take().is_empty());
}

// spec: TASK-15
#[test]
fn as_completed_gives_tasks_in_the_order_of_their_ends_and_then_those_that_are_late() {
    ringloop::run(async {
        let mut ended = as_completed([after(5), after(1), after(3)], None).unwrap();
        let mut order = Vec::new();
        while let Some(task) = ended.next().await {
            order.push(task.unwrap().result().unwrap());
        }
        assert_eq!(order, [1, 3, 5]);
        let late = spawn(sleep(LONG));
        let mut ended = as_completed([&late, &late], Some(Duration::from_millis(1))).unwrap();
        for _ in 0..2 {
            assert!(matches!(ended.next().await, Some(Err(Error::Timeout))));
        }
        assert!(ended.next().await.is_none());
        assert!(!late.done());
        late.cancel();
    })
    .unwrap();
}

// spec: TASK-18
#[test]
fn a_clone_of_a_task_is_the_same_task_whose_result_is_there_once() {
    let event_loop = new_loop();
    let log = Log::default();
    let task = event_loop.create_task(async { 42 }).named("the task");
    let again = task.clone();
    log_soon(&event_loop, &log, "soon");
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap(), 42);
    assert_eq!(again.task_ref().name(), "the task");
    let error = event_loop.run_until_complete(again).unwrap().unwrap_err();
    assert!(matches!(error, Error::InvalidState(_)));
}
