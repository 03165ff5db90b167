//! `gather()`.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, LoopFuture, catch_cancel, current_task, gather, sleep, yield_now};

use super::{Log, LogDrop, ended, log_soon, new_loop, turn, watched_loop};

async fn after<T>(iterations: usize, value: T) -> T {
    for _ in 0..iterations {
        yield_now().await;
    }
    value
}

// spec: TASK-10
#[test]
fn gather_gives_the_results_in_the_order_of_the_futures() {
    let event_loop = new_loop();
    let (values, none) = event_loop
        .run_until_complete(async {
            let values = gather([after(3, "a"), after(1, "b"), after(0, "c"), after(2, "d")]);
            let none = gather(Vec::<std::future::Ready<i32>>::new());
            (values.await.unwrap(), none.await.unwrap())
        })
        .unwrap();
    assert_eq!(values, ["a", "b", "c", "d"]);
    assert!(none.is_empty());
}

// spec: TASK-10
#[test]
fn the_first_error_comes_at_once_and_the_others_go_on() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let error = event_loop.run_until_complete(async {
        let fail = |iterations, error: &'static str| {
            let told = told.clone();
            async move {
                if after(iterations, error).await == "none" {
                    told.add("went on");
                    return Ok(());
                }
                Err(Error::other(error))
            }
        };
        let gathered = gather([fail(5, "none"), fail(3, "second"), fail(2, "first")]);
        let error = gathered.try_values().await.unwrap_err();
        assert!(told.take().is_empty());
        sleep(Duration::from_millis(1)).await;
        error
    });
    assert_eq!(error.unwrap().to_string(), "first");
    assert_eq!(log.take(), ["went on"]);
}

// spec: TASK-10
#[test]
fn of_two_errors_in_one_iteration_the_first_that_happened_counts() {
    let event_loop = new_loop();
    let error = event_loop.run_until_complete(async {
        let (early, late) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
        let gathered = gather([late.clone(), early.clone()]);
        yield_now().await;
        early.set_exception(Error::other("early")).unwrap();
        late.set_exception(Error::other("late")).unwrap();
        gathered.try_values().await.unwrap_err()
    });
    assert_eq!(error.unwrap().to_string(), "early");
}

// spec: TASK-10, MAP-03
#[test]
fn a_panic_or_a_cancel_of_one_is_the_error() {
    let (event_loop, reports) = watched_loop();
    event_loop
        .run_until_complete(async {
            let panics = gather([async { panic!("oh") }]);
            let error: Result<Vec<()>, Error> = panics.await;
            assert!(matches!(error, Err(Error::Panic(text)) if text == "oh"));
            let cancelled = gather([pending::<()>()]);
            let others = event_loop.all_tasks();
            assert!(others.last().unwrap().cancel());
            assert!(matches!(cancelled.await, Err(Error::Cancelled)));
        })
        .unwrap();
    assert!(reports.take().is_empty());
}

// spec: TASK-10
#[test]
fn settled_gives_errors_as_values() {
    let event_loop = new_loop();
    let settled = event_loop
        .run_until_complete(async {
            let gathered = gather((0..3).map(|number| async move {
                yield_now().await;
                assert_ne!(number, 1, "one");
                number
            }));
            gathered.settled().await
        })
        .unwrap();
    assert!(matches!(&settled[..], [Ok(0), Err(Error::Panic(_)), Ok(2)]), "{settled:?}");
}

// spec: TASK-10
#[test]
fn cancelling_the_gather_cancels_all_children() {
    let (event_loop, log) = (new_loop(), Log::default());
    for how in ["task", "call"] {
        let guards = ["a", "b"].map(|text| LogDrop(log.clone(), text));
        let children = guards.map(|guard| async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let task = event_loop.create_task(async move {
            let gathered = gather(children);
            if how == "call" {
                yield_now().await;
                assert!(gathered.cancel());
            }
            gathered.await
        });
        turn(&event_loop);
        turn(&event_loop);
        if how == "task" {
            task.cancel();
        }
        turn(&event_loop);
        turn(&event_loop);
        assert_eq!(log.take(), ["a", "b"], "{how}");
        turn(&event_loop);
        turn(&event_loop);
        assert!(task.done());
    }
    assert_eq!(event_loop.stats().tasks, 0);
}

// spec: TASK-10, TASK-05
#[test]
fn who_is_cancelled_while_it_gathers_cancels_all_children_at_once_and_waits_for_their_end() {
    let (event_loop, log) = (new_loop(), Log::default());
    let futures = [(); 2].map(|()| event_loop.create_future::<()>());
    let (waits, told) = (futures.clone(), log.clone());
    let task = event_loop.create_task(async move {
        let children = waits.into_iter().enumerate().map(|(turns, future)| {
            let told = told.clone();
            async move {
                assert!(catch_cancel(future).await.is_err());
                after(2 * turns, ()).await;
                told.add(format!("child {turns} goes on"));
            }
        });
        let _ = catch_cancel(gather(children)).await.unwrap_err();
        told.add("cancelled all the same");
    });
    turn(&event_loop);
    turn(&event_loop);
    task.cancel();
    assert!(futures.iter().all(LoopFuture::cancelled));
    event_loop.run_until_complete(task).unwrap().unwrap();
    assert_eq!(log.take(), ["child 0 goes on", "child 1 goes on", "cancelled all the same"]);
}

// spec: TASK-10
#[test]
fn a_gather_that_is_dropped_otherwise_or_has_ended_lets_its_tasks_go_on() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let child = |turns| {
        let told = told.clone();
        async move {
            let result = after(turns, if turns == 0 { Err(Error::other("first")) } else { Ok(()) });
            result.await?;
            told.add("went on");
            Ok::<(), Error>(())
        }
    };
    event_loop
        .run_until_complete(async {
            drop(gather([child(2)]));
            let scope = catch_cancel(async {
                let failed = gather([child(0), child(9)]);
                let error = failed.try_values().await.unwrap_err();
                current_task().unwrap().cancel();
                yield_now().await;
                error
            });
            assert!(scope.await.is_err());
            after(9, ()).await;
        })
        .unwrap();
    assert_eq!(log.take(), ["went on", "went on"]);
}

// spec: TASK-10
#[test]
fn a_gather_that_ended_before_it_is_awaited_does_not_give_up_control() {
    let (event_loop, log) = (new_loop(), Log::default());
    event_loop
        .run_until_complete(async {
            let gathered = gather([after(0, 1), after(1, 2)]);
            after(3, ()).await;
            log_soon(&event_loop, &log, "another callback");
            assert_eq!(gathered.await.unwrap(), [1, 2]);
            assert!(gather(Vec::<std::future::Ready<()>>::new()).await.unwrap().is_empty());
            assert!(log.take().is_empty());
        })
        .unwrap();
}

// spec: TASK-10
#[test]
fn without_a_running_loop_each_of_a_gather_fails_when_it_is_awaited() {
    let (held, futures) = (Rc::new(()), [pending::<()>(), pending()]);
    let futures = futures.map(|future| {
        let held = Rc::clone(&held);
        async move { (held, future.await).1 }
    });
    let gathered = gather(futures);
    assert_eq!(Rc::strong_count(&held), 1, "the futures are dropped");
    assert_eq!(ended(gathered).unwrap_err().to_string(), "no running event loop");
    let settled = ended(gather([pending::<()>(), pending()]).settled());
    assert!(settled.iter().all(|result| matches!(result, Err(Error::State(_)))));
    assert_eq!(settled.len(), 2);
    assert!(ended(gather(Vec::<std::future::Pending<()>>::new())).unwrap().is_empty());
}

// spec: TASK-10
#[test]
fn ten_thousand_are_gathered() {
    let event_loop = new_loop();
    let values = event_loop.run_until_complete(async {
        gather((0..10_000).map(|number| after(number % 100, number))).await
    });
    assert_eq!(values.unwrap().unwrap(), (0..10_000).collect::<Vec<_>>());
}
