//! `TaskGroup` and `JoinSet`.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    Error, EventLoop, JoinSet, ManualClock, TaskGroup, catch_cancel, current_task, sleep, spawn,
    timeout, yield_now,
};

use super::{Log, LogDrop, ended, new_loop, watched_loop};

const LONG: Duration = Duration::from_secs(3600);

/// What went wrong in a group.
fn errors(result: Result<(), Error>) -> Vec<String> {
    match result {
        Err(Error::Multiple(group)) => {
            assert_eq!(group.message(), "unhandled errors in a TaskGroup");
            group.errors().iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

// spec: TASK-16
#[test]
fn a_group_waits_for_its_children_and_gives_what_its_body_gave() {
    let log = Log::default();
    let value = ringloop::run(TaskGroup::run(async |group| {
        for text in ["one", "two"] {
            let log = log.clone();
            drop(group.create_task(async move {
                yield_now().await;
                log.add(text);
            }));
        }
        Ok::<_, Error>(42)
    }));
    assert_eq!(value.unwrap().unwrap(), 42);
    assert_eq!(log.take(), ["one", "two"]);
}

// spec: TASK-16, MAP-14
#[test]
fn the_first_child_that_fails_ends_the_others_and_the_body() {
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    let result = event_loop.run_until_complete(TaskGroup::run(async |group| {
        let _body = LogDrop(log.clone(), "body");
        let child = LogDrop(log.clone(), "child");
        drop(group.create_task(async move {
            let _child = child;
            sleep(LONG).await;
        }));
        let failed = group.create_task(async { Err::<(), _>(io::Error::from_raw_os_error(5)) });
        yield_now().await;
        yield_now().await;
        assert!(matches!(failed.exception(), Ok(Some(Error::Io(_)))), "the handle has it, too");
        sleep(LONG).await;
        Ok::<_, Error>(())
    }));
    assert_eq!(errors(result.unwrap()), [io::Error::from_raw_os_error(5).to_string()]);
    assert_eq!(log.take(), ["body", "child"]);
    assert!(reports.take().is_empty(), "the group has looked at the errors");
}

// spec: TASK-16
#[test]
fn errors_of_body_and_children_come_out_together_and_a_panic_is_one() {
    let result = ringloop::run(TaskGroup::run(async |group| {
        let cleans_up_in_vain = group.create_task(async {
            let _ = catch_cancel(pending::<()>()).await;
            Err::<(), _>("of the second child")
        });
        drop(group.create_task(async { assert!(current_task().is_none(), "of the first child") }));
        drop(cleans_up_in_vain);
        let cancelled = catch_cancel(pending::<()>()).await;
        assert!(cancelled.is_err() && current_task().unwrap().cancelling() == 1);
        Err::<(), _>("of the body")
    }));
    let errors = errors(result.unwrap());
    assert_eq!(errors, ["of the first child", "of the second child", "of the body"]);
}

// spec: TASK-16
#[test]
fn a_group_that_is_cancelled_from_outside_ends_its_children_first() {
    let event_loop = new_loop();
    let log = Log::default();
    let (of_child, of_parent) = (log.clone(), log.clone());
    let task = event_loop.create_task(async move {
        let ended = catch_cancel(TaskGroup::run(async |group| {
            let log = of_child.clone();
            drop(group.create_task(async move {
                let _ = catch_cancel(sleep(LONG)).await;
                yield_now().await;
                log.add("child has cleaned up");
            }));
            pending::<()>().await;
            Ok::<_, Error>(())
        }));
        assert!(ended.await.is_err());
        of_parent.add("group ended");
    });
    let name = task.task_ref();
    let cancel = async {
        yield_now().await;
        yield_now().await;
        name.cancel();
        task.await
    };
    event_loop.run_until_complete(cancel).unwrap().unwrap();
    assert_eq!(log.take(), ["child has cleaned up", "group ended"]);
    assert_eq!(event_loop.stats().tasks, 0);
}

// spec: TASK-16
#[test]
fn a_group_that_ends_or_has_ended_takes_no_child() {
    ringloop::run(async {
        let mut left = None;
        let result = TaskGroup::run(async |group| {
            left = Some(group.clone());
            drop(group.create_task(async { Err::<(), _>("fails") }));
            let _ = catch_cancel(pending::<()>()).await;
            let late = group.create_task(async {});
            let text = ended(late).unwrap_err().to_string();
            assert!(text.contains("is shutting down"), "{text}");
        });
        assert_eq!(errors(result.await), ["fails"]);
        let text = ended(left.unwrap().create_task(async {})).unwrap_err().to_string();
        assert!(text.contains("is finished"), "{text}");
    })
    .unwrap();
    let error = ended(TaskGroup::run(async |_| ())).unwrap_err();
    assert_eq!(error.to_string(), "no running event loop");
}

// spec: TASK-16
#[test]
fn a_child_may_make_children_until_the_group_has_ended() {
    let count = Rc::new(Cell::new(0));
    let counts = Rc::clone(&count);
    ringloop::run(TaskGroup::run(async move |group| {
        let again = group.clone();
        drop(group.create_task(async move {
            yield_now().await;
            drop(again.create_task(async move { counts.set(counts.get() + 1) }));
        }));
    }))
    .unwrap()
    .unwrap();
    assert_eq!(count.get(), 1);
}

// spec: TASK-16
#[test]
fn a_panic_of_the_body_goes_on_when_the_children_have_ended() {
    let (event_loop, _reports) = watched_loop();
    let log = Log::default();
    let child = LogDrop(log.clone(), "child");
    let task = event_loop.create_task(TaskGroup::run(async move |group| {
        drop(group.create_task(async move {
            let _child = child;
            sleep(LONG).await;
        }));
        yield_now().await;
        assert!(current_task().is_none(), "in the body");
    }));
    let error = event_loop.run_until_complete(task).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "in the body");
    assert_eq!(log.take(), ["child"]);
}

// spec: TASK-16
#[test]
fn errors_of_children_are_reported_where_the_group_cannot_give_them() {
    async fn fails(text: &'static str) -> Result<(), &'static str> {
        Err(text)
    }
    let (event_loop, reports) = watched_loop();
    let message = "exception of a TaskGroup that gave no result";

    let panicked = event_loop.run_until_complete(TaskGroup::run(async |group| {
        drop(group.create_task(fails("of a child")));
        let _ = catch_cancel(sleep(LONG)).await;
        assert!(current_task().is_none(), "of the body");
    }));
    assert!(matches!(panicked, Err(Error::Panic(text)) if text == "of the body"));
    assert_eq!(reports.take(), [format!("{message}: of a child")]);

    let clone = Rc::new(RefCell::new(None));
    let body = async |group: &TaskGroup| {
        clone.replace(Some(group.clone()));
        drop(group.create_task(fails("of a child")));
        let late = async {
            let _ = catch_cancel(sleep(LONG)).await; // Another child has failed.
            let _ = catch_cancel(sleep(LONG)).await; // The group is dropped.
            fails("of a late child").await
        };
        drop(group.create_task(late));
        let _ = catch_cancel(sleep(LONG)).await;
        sleep(LONG).await;
    };
    let dropped = async {
        let late = timeout(Duration::from_millis(1), TaskGroup::run(body)).await;
        assert!(matches!(late, Err(Error::Timeout)));
        yield_now().await;
        yield_now().await;
    };
    event_loop.run_until_complete(dropped).unwrap();
    let expected = [
        format!("{message}: of a child"),
        String::from("Task exception was never retrieved: of a late child"),
    ];
    assert_eq!(reports.take(), expected);
}

// spec: TASK-16
#[test]
fn a_group_that_is_dropped_cancels_its_children() {
    let event_loop = new_loop();
    let child = Rc::new(());
    let in_child = Rc::clone(&child);
    event_loop
        .run_until_complete(async move {
            let group = TaskGroup::run(async move |group| {
                drop(group.create_task(async move {
                    let _child = in_child;
                    sleep(LONG).await;
                }));
                pending::<()>().await;
            });
            assert!(timeout(Duration::from_millis(1), group).await.is_err());
            yield_now().await;
        })
        .unwrap();
    assert_eq!((Rc::strong_count(&child), event_loop.stats().tasks), (1, 0));
}

// spec: TASK-16, TASK-13
#[test]
fn a_group_that_a_timeout_drops_takes_its_request_back() {
    let clock = ManualClock::new();
    let event_loop = EventLoop::builder().clock(clock.clone()).build().unwrap();
    let gate = event_loop.create_future();
    let passed = gate.clone();
    let task = event_loop.create_task(async move {
        let group = TaskGroup::run(async |group| {
            drop(group.create_task(async move { passed.await.and(Err::<(), _>(Error::Timeout)) }));
            pending::<()>().await;
        });
        assert!(matches!(timeout(LONG, group).await, Err(Error::Timeout)));
        assert_eq!(current_task().unwrap().cancelling(), 0);
        yield_now().await;
        "went on"
    });
    // The child fails in the iteration in which the time is up, and before that.
    let both = async move {
        yield_now().await;
        yield_now().await;
        gate.set_result(()).unwrap();
        clock.advance(LONG);
        task.await
    };
    assert_eq!(event_loop.run_until_complete(both).unwrap().unwrap(), "went on");
}

// spec: TASK-16
#[test]
fn what_awaits_something_that_was_cancelled_ends_cancelled_and_does_not_fail_the_group() {
    ringloop::run(async {
        let other = spawn(pending::<()>());
        let (cancelled, name) = (other.clone(), other.task_ref());
        let value = TaskGroup::run(async |group| {
            let child = group.create_task(other);
            let sibling = group.create_task(async {
                sleep(Duration::from_millis(1)).await;
                Ok::<_, Error>("done")
            });
            yield_now().await;
            name.cancel();
            assert!(matches!(child.clone().await, Err(Error::Cancelled)));
            assert!(child.cancelled());
            sibling.await
        });
        assert_eq!(value.await.unwrap(), "done");

        let child = Rc::new(Cell::new(None));
        let of_body = TaskGroup::run(async |group| {
            child.set(Some(group.create_task(pending::<()>())));
            cancelled.await
        });
        assert!(matches!(of_body.await, Err(Error::Cancelled)));
        assert!(child.take().unwrap().cancelled());
        assert_eq!(current_task().unwrap().cancelling(), 0);
    })
    .unwrap();
}

// spec: TASK-16
#[test]
fn a_thousand_groups_in_each_other_end_when_the_outermost_is_cancelled() {
    fn nest(depth: usize, ends: Rc<Cell<usize>>) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let _end = EndCounter(Rc::clone(&ends));
            let group = TaskGroup::run(async |group| {
                if depth > 0 {
                    drop(group.create_task(nest(depth - 1, ends)));
                }
                pending::<()>().await;
            });
            let _ = group.await;
        })
    }
    struct EndCounter(Rc<Cell<usize>>);
    impl Drop for EndCounter {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let event_loop = new_loop();
    let ends = Rc::new(Cell::new(0));
    let of_tasks = Rc::clone(&ends);
    event_loop
        .run_until_complete(async move {
            let task = spawn(nest(1000, of_tasks));
            for _ in 0..1010 {
                yield_now().await;
            }
            assert_eq!(EventLoop::running().unwrap().stats().tasks, 1002);
            task.cancel();
            assert!(matches!(task.await, Err(Error::Cancelled)));
        })
        .unwrap();
    assert_eq!((ends.get(), event_loop.stats().tasks), (1001, 0));
}

// spec: TASK-16
#[test]
fn a_join_set_gives_results_in_the_order_of_their_ends() {
    ringloop::run(async {
        let mut set = JoinSet::new();
        assert!(set.join_next().await.is_none() && set.is_empty());
        for turns in [3, 1, 2] {
            set.spawn(async move {
                for _ in 0..turns {
                    yield_now().await;
                }
                assert!(turns < 3, "too long");
                turns
            });
        }
        assert_eq!(set.len(), 3);
        assert!(set.try_join_next().is_none());
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
        assert_eq!(set.join_next().await.unwrap().unwrap(), 2);
        assert_eq!(set.join_next().await.unwrap().unwrap_err().to_string(), "too long");
        assert!(set.join_next().await.is_none());
    })
    .unwrap();
}

// spec: TASK-05
#[test]
fn who_is_cancelled_while_it_joins_loses_no_result_and_leaves_the_tasks_alone() {
    ringloop::run(async {
        let event_loop = EventLoop::running().unwrap();
        let mut set = JoinSet::new();
        let result = event_loop.create_future::<u32>();
        set.spawn(result.clone().take());
        let set = Rc::new(RefCell::new(set));
        let joined = Rc::clone(&set);
        let joins = spawn(async move {
            let mut set = joined.take();
            let caught = catch_cancel(set.join_next()).await.is_err();
            joined.replace(set);
            caught
        });
        yield_now().await;
        yield_now().await;
        // The result comes in the iteration of the request, after it.
        joins.cancel();
        result.set_result(1).unwrap();
        assert!(joins.await.unwrap(), "the request is for who joins");
        let mut set = set.take();
        assert_eq!(set.len(), 1);
        assert!(matches!(set.join_next().await, Some(Ok(Ok(1)))));

        set.spawn(async {
            sleep(Duration::from_millis(2)).await;
            Ok(2)
        });
        let late = timeout(Duration::ZERO, set.join_next()).await;
        assert!(matches!(late, Err(Error::Timeout)));
        assert!(matches!(set.join_next().await, Some(Ok(Ok(2)))));
    })
    .unwrap();
}

// spec: TASK-05
#[test]
fn a_join_set_that_is_shut_down_or_dropped_ends_its_tasks() {
    let event_loop = new_loop();
    let log = Log::default();
    let tasks = log.clone();
    event_loop
        .run_until_complete(async move {
            let spawn_in = |set: &mut JoinSet<()>, text| {
                let held = LogDrop(tasks.clone(), text);
                set.spawn(async move {
                    let _held = held;
                    sleep(LONG).await;
                });
            };
            let (mut first, mut second, mut third) =
                (JoinSet::new(), JoinSet::new(), JoinSet::new());
            spawn_in(&mut first, "shut down");
            spawn_in(&mut second, "dropped");
            spawn_in(&mut third, "detached");
            yield_now().await;
            first.shutdown().await;
            assert_eq!(tasks.take(), ["shut down"]);
            drop(second);
            third.detach_all();
            assert!(third.is_empty());
            third.spawn(async {});
            drop(third.join_all().await);
            yield_now().await;
            assert_eq!(tasks.take(), ["dropped"]);
        })
        .unwrap();
    assert_eq!(event_loop.stats().tasks, 1);
    event_loop.close().unwrap();
    assert_eq!(log.take(), ["detached"]);
}
