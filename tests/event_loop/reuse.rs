//! What a task leaves to those after it, which may get its place, its waker and its memory: nothing that shows.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;

use ringloop::{EventLoop, current_task, spawn, timeout, yield_now};

use super::new_loop;

/// Runs a task that is done in its first step, and lets go of it.
async fn short_task(body: impl FnOnce() + 'static) {
    spawn(async move { body() }).await.unwrap();
}

/// Counts its steps and never ends.
fn count_steps(event_loop: &EventLoop) -> Rc<Cell<u32>> {
    let steps = Rc::new(Cell::new(0));
    let of_task = Rc::clone(&steps);
    drop(event_loop.spawn(poll_fn(move |_| {
        of_task.set(of_task.get() + 1);
        Poll::<()>::Pending
    })));
    steps
}

async fn own_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

// spec: TASK-01
#[test]
fn a_waker_that_was_kept_wakes_no_task_that_came_later() {
    let event_loop = new_loop();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::clone(&kept);
    event_loop
        .run_until_complete(async move {
            for _ in 0..3 {
                let all = Rc::clone(&all);
                let task = spawn(async move {
                    let waker = own_waker().await;
                    all.borrow_mut().push(waker);
                });
                task.await.unwrap();
            }
            let event_loop = EventLoop::running().unwrap();
            let steps: Vec<_> = (0..6).map(|_| count_steps(&event_loop)).collect();
            yield_now().await;
            for waker in kept.borrow().iter() {
                waker.wake_by_ref();
            }
            let wakers = kept.take();
            thread::spawn(move || wakers.into_iter().for_each(Waker::wake)).join().unwrap();
            yield_now().await;
            yield_now().await;
            assert!(steps.iter().all(|steps| steps.get() == 1), "{steps:?}");
        })
        .unwrap();
}

// spec: TASK-01
#[test]
fn a_task_begins_also_where_the_last_one_has_woken_itself_and_ended() {
    ringloop::run(async {
        for _ in 0..3 {
            spawn(async { own_waker().await.wake() }).await.unwrap();
            spawn(async { yield_now().await }).await.unwrap();
        }
    })
    .unwrap();
}

// spec: TASK-18
#[test]
fn a_new_task_has_nothing_of_one_that_was_named_cancelled_and_timed() {
    ringloop::run(async {
        for round in 0..3 {
            let old = spawn(async {
                let _ = timeout(std::time::Duration::from_secs(3600), pending::<()>()).await;
            })
            .named("old");
            let end = old.task_ref();
            yield_now().await;
            assert!(end.cancel() && end.cancel() && end.cancelling() == 2);
            end.finished().await.unwrap();
            drop((old, end));
            short_task(move || {
                let task = current_task().unwrap();
                assert_eq!((task.cancelling(), task.done(), task.cancelled()), (0, false, false));
                assert_eq!(task.name(), format!("Task-{}", 3 + 2 * round));
            })
            .await;
        }
    })
    .unwrap();
}

// spec: TASK-18
#[test]
fn a_reference_to_a_task_that_has_ended_stays_one_to_that_task() {
    ringloop::run(async {
        let old = spawn(async {}).named("old").task_ref();
        old.finished().await.unwrap();
        let new = spawn(pending::<()>()).task_ref();
        short_task(|| ()).await;
        assert!(old != new && old.done() && !old.cancel());
        assert_eq!((old.name(), new.done()), ("old".to_owned(), false));
    })
    .unwrap();
}
