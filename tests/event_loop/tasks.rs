//! Tasks and their cancellation.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use ringloop::{
    Cancelled, Error, EventLoop, Task, TaskRef, catch_cancel, current_task, sleep, timeout,
    yield_now,
};

use super::{Log, LogDrop, ended, log_soon, new_loop, turn, watched_loop};

const LONG: Duration = Duration::from_secs(3600);

#[track_caller]
fn spawn<T: 'static>(event_loop: &EventLoop, body: impl Future<Output = T> + 'static) -> Task<T> {
    event_loop.create_task(body)
}

// spec: TASK-01, LOOP-24
#[test]
fn the_first_step_is_taken_soon_and_in_its_turn() {
    let (event_loop, log) = (new_loop(), Log::default());
    log_soon(&event_loop, &log, "before");
    let told = log.clone();
    let task = spawn(&event_loop, async move { told.add("body") });
    log_soon(&event_loop, &log, "after");
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(log.take(), ["before", "body", "after"]);
    assert!(task.done());
}

// spec: TASK-02
#[test]
fn between_two_waits_a_task_is_not_interrupted() {
    let (event_loop, log) = (new_loop(), Log::default());
    for name in ["a", "b"] {
        let log = log.clone();
        drop(spawn(&event_loop, async move {
            log.add(format!("{name}1"));
            async {}.await;
            std::future::ready(()).await;
            log.add(format!("{name}2"));
            yield_now().await;
            log.add(format!("{name}3"));
        }));
    }
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(log.take(), ["a1", "a2", "b1", "b2", "a3", "b3"]);
}

// spec: TASK-03
#[test]
fn who_awaits_a_task_is_resumed_one_iteration_after_its_end() {
    let (event_loop, log) = (new_loop(), Log::default());
    let child = spawn(&event_loop, async { 42 });
    let told = log.clone();
    drop(spawn(&event_loop, async move { told.add(child.await.unwrap().to_string()) }));
    turn(&event_loop);
    assert_eq!(log.take(), ["42"], "it was done when it was awaited");
    let child = spawn(&event_loop, async {
        yield_now().await;
        42
    });
    let told = log.clone();
    drop(spawn(&event_loop, async move { told.add(child.await.unwrap().to_string()) }));
    turn(&event_loop);
    turn(&event_loop);
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(log.take(), ["42"]);
}

// spec: TASK-05, TASK-08
#[test]
fn cancel_drops_the_body_at_the_next_step_and_not_before() {
    let (event_loop, log) = (new_loop(), Log::default());
    let guard = LogDrop(log.clone(), "dropped");
    let task = spawn(&event_loop, async move {
        let _guard = guard;
        pending::<()>().await;
    });
    turn(&event_loop);
    assert!(task.cancel());
    assert!(!task.done() && log.take().is_empty());
    turn(&event_loop);
    assert!(task.done() && task.cancelled());
    assert_eq!(log.take(), ["dropped"]);
    assert!(!task.cancel(), "it is done");
    assert!(matches!(event_loop.run_until_complete(task).unwrap(), Err(Error::Cancelled)));
}

// spec: TASK-06
#[test]
fn a_task_cancelled_before_its_first_step_never_runs() {
    let (event_loop, log) = (new_loop(), Log::default());
    let (guard, told) = (LogDrop(log.clone(), "dropped"), log.clone());
    let task = spawn(&event_loop, async move {
        let _guard = guard;
        told.add("ran");
        let _ = catch_cancel(async { told.add("ran in a scope") }).await;
    });
    assert!(task.cancel());
    turn(&event_loop);
    assert_eq!(log.take(), ["dropped"]);
    assert!(task.cancelled());
}

// spec: TASK-07, MAP-01
#[test]
fn a_scope_catches_the_request_and_the_result_counts() {
    let (event_loop, log) = (new_loop(), Log::default());
    let guard = LogDrop(log.clone(), "dropped");
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        let caught = catch_cancel(async move {
            let _guard = guard;
            sleep(LONG).await;
        })
        .await;
        told.add(format!("{caught:?}"));
        yield_now().await;
        "went on"
    });
    turn(&event_loop);
    task.cancel();
    assert!(log.take().is_empty());
    turn(&event_loop);
    assert_eq!(log.take(), ["dropped", "Err(Cancelled(()))"]);
    assert_eq!(task.task_ref().cancelling(), 1);
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap(), "went on");
}

// spec: TASK-07, MAP-01
#[test]
fn the_innermost_open_scope_gets_the_request() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        let inner = catch_cancel(async {
            assert!(catch_cancel(async {}).await.is_ok(), "this one has ended");
            assert!(catch_cancel(pending::<()>()).await.is_err());
            told.add("inner");
            pending::<()>().await;
        });
        assert!(inner.await.is_err());
        told.add("outer");
        pending::<()>().await;
    });
    turn(&event_loop);
    for expected in [["inner"], ["outer"]] {
        task.cancel();
        turn(&event_loop);
        assert_eq!(log.take(), expected);
    }
    task.cancel();
    turn(&event_loop);
    assert!(task.cancelled());
}

// spec: TASK-07, MAP-01
#[test]
fn a_caught_request_can_be_passed_on() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        let outer = catch_cancel(async {
            match catch_cancel(pending::<()>()).await {
                Ok(()) => (),
                Err(cancelled) => {
                    told.add("clean up");
                    cancelled.propagate().await;
                }
            }
        });
        match outer.await {
            Ok(()) => unreachable!(),
            Err(cancelled) => {
                told.add("clean up outside");
                cancelled.propagate().await
            }
        }
    });
    turn(&event_loop);
    task.cancel();
    turn(&event_loop); // One step, as with asyncio's `raise`.
    assert_eq!(log.take(), ["clean up", "clean up outside"]);
    assert!(task.cancelled());
    assert_eq!(task.task_ref().cancelling(), 1, "it is the same request");
}

// spec: TASK-07
#[test]
fn cancelling_counts_requests_and_uncancel_takes_them_back() {
    let event_loop = new_loop();
    let task = spawn(&event_loop, async {
        yield_now().await;
        "not cancelled"
    });
    let handle = task.task_ref();
    assert_eq!((handle.cancelling(), handle.uncancel()), (0, 0));
    turn(&event_loop);
    task.cancel();
    handle.cancel();
    assert_eq!(handle.cancelling(), 2);
    assert_eq!((handle.uncancel(), handle.uncancel()), (1, 0));
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap(), "not cancelled");
}

// spec: TASK-05, TASK-07
#[test]
fn a_request_that_was_passed_on_and_taken_back_does_not_hurry_the_next_one() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        let cancelled = catch_cancel(pending::<()>()).await.unwrap_err();
        let mut passing_on = Box::pin(cancelled.propagate());
        assert!(poll_fn(|cx| Poll::Ready(passing_on.as_mut().poll(cx).is_pending())).await);
        drop(passing_on);
        let this = current_task().unwrap();
        assert_eq!(this.uncancel(), 0);
        yield_now().await;
        this.cancel();
        assert!(catch_cancel(pending::<()>()).await.is_err());
        told.add("cancelled");
    });
    turn(&event_loop);
    task.cancel();
    turn(&event_loop);
    turn(&event_loop);
    assert!(log.take().is_empty(), "it waits first");
    turn(&event_loop);
    assert_eq!(log.take(), ["cancelled"]);
    turn(&event_loop);
    assert!(task.done());
}

// spec: TASK-05
#[test]
fn a_task_that_cancels_itself_goes_on_until_it_waits() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        assert!(current_task().unwrap().cancel());
        told.add("goes on");
        assert_eq!(catch_cancel(async { "no wait" }).await.unwrap(), "no wait");
        yield_now().await;
        unreachable!();
    });
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(log.take(), ["goes on"]);
    assert!(task.cancelled());
}

// spec: TASK-05
#[test]
fn a_task_that_cancels_itself_is_queued_when_its_step_ends() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    for waits in ["yields", "waits", "sleeps"] {
        let (log, future) = (Log::default(), future.clone());
        let (told, watched) = (log.clone(), future.clone());
        let task = spawn(&event_loop, async move {
            current_task().unwrap().cancel();
            let event_loop = EventLoop::running().unwrap();
            log_soon(&event_loop, &told, "soon");
            let caught = match waits {
                "yields" => catch_cancel(yield_now()).await,
                "waits" => catch_cancel(async { drop(future.await) }).await,
                _ => catch_cancel(sleep(LONG)).await,
            };
            assert!(caught.is_err());
            told.add("caught");
        });
        turn(&event_loop);
        assert!(log.take().is_empty());
        assert_eq!(watched.cancelled(), waits != "yields", "at the end of the step");
        turn(&event_loop);
        assert_eq!(log.take(), ["soon", "caught"], "{waits}");
        assert!(task.done());
    }
}

// spec: TASK-05, TASK-08
#[test]
fn who_is_cancelled_while_it_awaits_a_task_cancels_that_and_waits_for_its_end() {
    let (event_loop, log) = (new_loop(), Log::default());
    let future = event_loop.create_future::<()>();
    let (waits, told) = (future.clone(), log.clone());
    let inner = spawn(&event_loop, async move {
        let caught = catch_cancel(waits).await;
        yield_now().await;
        told.add("cleaned up");
        match caught {
            Ok(_) => unreachable!(),
            Err(cancelled) => cancelled.propagate().await,
        }
    });
    let handle = inner.task_ref();
    let guard = LogDrop(log.clone(), "ended");
    let outer = spawn(&event_loop, async move {
        let _guard = guard;
        let _ = inner.await;
        unreachable!();
    });
    turn(&event_loop);
    outer.cancel();
    assert!(future.cancelled() && handle.cancelling() == 1, "the request went all the way");
    turn(&event_loop);
    turn(&event_loop);
    assert!(handle.cancelled() && !outer.done());
    turn(&event_loop);
    assert!(outer.cancelled());
    assert_eq!(log.take(), ["cleaned up", "ended"]);
}

// spec: TASK-05, TASK-07
#[test]
fn who_awaits_a_task_that_goes_on_when_it_is_cancelled_goes_on_too() {
    let event_loop = new_loop();
    let inner = spawn(&event_loop, async {
        assert!(catch_cancel(sleep(LONG)).await.is_err());
        "went on"
    });
    let outer = spawn(&event_loop, inner);
    turn(&event_loop);
    outer.cancel();
    let handle = outer.task_ref();
    assert_eq!(event_loop.run_until_complete(outer).unwrap().unwrap().unwrap(), "went on");
    assert_eq!(handle.cancelling(), 1);
}

// spec: TASK-05, TASK-07
#[test]
fn who_stops_awaiting_the_task_that_it_had_cancelled_gets_the_request_itself() {
    let event_loop = new_loop();
    let inner = spawn(&event_loop, async {
        let _ = catch_cancel(pending::<()>()).await;
        sleep(LONG).await;
    });
    let handle = inner.task_ref();
    let other = event_loop.create_future::<()>();
    let (mut inner, waits) = (Some(inner), other.clone());
    let outer = spawn(&event_loop, async move {
        poll_fn(|cx| {
            if waits.done() {
                inner = None;
                return Poll::Ready(());
            }
            let inner = std::pin::Pin::new(inner.as_mut().unwrap());
            assert!(
                inner.poll(cx).is_pending() && std::pin::pin!(waits.clone()).poll(cx).is_pending()
            );
            waits.add_done_callback({
                let waker = cx.waker().clone();
                move |_| waker.wake_by_ref()
            });
            Poll::Pending
        })
        .await;
        pending::<()>().await;
    });
    turn(&event_loop);
    outer.cancel();
    turn(&event_loop);
    assert!(!outer.done() && !handle.done());
    other.set_result(()).unwrap();
    for _ in 0..3 {
        turn(&event_loop);
    }
    assert!(outer.cancelled() && !handle.done(), "it was given up before, not by a cancel");
    handle.cancel();
}

// spec: TASK-05, TASK-13
#[test]
fn a_scope_or_a_timeout_that_drops_an_awaited_task_cancels_it_and_any_other_drop_detaches() {
    let event_loop = new_loop();
    let tasks: Vec<_> = (0..5).map(|_| spawn(&event_loop, pending::<()>())).collect();
    let handles: Vec<_> = tasks.iter().map(Task::task_ref).collect();
    let mut tasks = tasks.into_iter();
    let mut next = || tasks.next().unwrap();
    event_loop
        .run_until_complete(async {
            let soon = Duration::from_millis(1);
            assert!(timeout(soon, next()).await.is_err());
            let mut by_reference = next();
            assert!(timeout(soon, &mut by_reference).await.is_err());
            let mut given_up = next();
            poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut given_up).poll(cx)))
                .await
                .is_pending();
            drop((by_reference, given_up));
            let held = next();
            assert!(timeout(soon, async move { (held, pending::<()>().await) }).await.is_err());
            let watched = handles[4].clone();
            drop(next());
            assert!(timeout(soon, async move { watched.finished().await }).await.is_err());
            yield_now().await;
        })
        .unwrap();
    let cancelled: Vec<_> = handles.iter().map(TaskRef::cancelled).collect();
    assert_eq!(cancelled, [true, false, false, false, false]);
    for handle in handles {
        handle.cancel();
    }
    turn(&event_loop);
}

// spec: TASK-05
#[test]
fn tasks_that_await_each_other_in_a_ring_can_be_cancelled() {
    let event_loop = new_loop();
    let slot = Rc::new(Cell::new(None::<Task<()>>));
    let taken = Rc::clone(&slot);
    let first = spawn(&event_loop, async move {
        yield_now().await;
        let _ = taken.take().unwrap().await;
    });
    let handle = first.task_ref();
    slot.set(Some(spawn(&event_loop, async move {
        let _ = first.await;
    })));
    turn(&event_loop);
    turn(&event_loop);
    assert!(handle.cancel());
    for _ in 0..3 {
        turn(&event_loop);
    }
    assert!(handle.done());
    assert_eq!(event_loop.stats().tasks, 0);
}

// spec: TASK-05
#[test]
fn a_long_chain_of_tasks_that_await_each_other_is_cancelled_from_its_end() {
    const LENGTH: usize = 100_000;
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let waits = future.clone();
    let mut last = spawn(&event_loop, async move { drop(waits.await) });
    for _ in 0..LENGTH {
        let inner = last;
        last = spawn(&event_loop, async move { drop(inner.await) });
    }
    turn(&event_loop);
    assert!(last.cancel() && future.cancelled());
    for _ in 0..LENGTH {
        turn(&event_loop);
    }
    assert!(!last.done());
    turn(&event_loop);
    assert!(last.cancelled());
}

// spec: TASK-05
#[test]
fn a_task_that_is_cancelled_in_its_last_step_ends_cancelled() {
    let event_loop = new_loop();
    let task = spawn(&event_loop, async {
        current_task().unwrap().cancel();
        "a result that nobody gets"
    });
    turn(&event_loop);
    assert!(task.cancelled());
    assert!(matches!(task.result(), Err(Error::Cancelled)));
}

// spec: TASK-09
#[test]
fn a_cancel_in_the_iteration_of_the_completion_wins_and_a_scope_may_still_look() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<i32>();
    let waits = future.clone();
    let task = spawn(&event_loop, async move {
        let kept = waits.clone();
        assert!(catch_cancel(waits).await.is_err());
        kept.result()
    });
    turn(&event_loop);
    future.set_result(42).unwrap();
    task.cancel();
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap().unwrap(), 42);
}

/// Polls its future when its own waker was woken, and only then: as `FuturesUnordered` does.
struct Picky {
    future: std::pin::Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>,
    woken: Arc<Flag>,
}

struct Flag {
    woken: std::sync::atomic::AtomicBool,
    parent: std::sync::Mutex<Option<Waker>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(parent) = self.parent.lock().unwrap().take() {
            parent.wake();
        }
    }
}

impl Future for Picky {
    type Output = Result<(), Cancelled>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Self::Output> {
        *self.woken.parent.lock().unwrap() = Some(cx.waker().clone());
        if !self.woken.woken.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
    }
}

// spec: TASK-07, MAP-01
#[test]
fn a_scope_below_a_combinator_with_its_own_wakers_is_reached() {
    let event_loop = new_loop();
    let task = spawn(&event_loop, async {
        let flag = Flag { woken: true.into(), parent: std::sync::Mutex::new(None) };
        let picky =
            Picky { future: Box::pin(catch_cancel(pending::<()>())), woken: Arc::new(flag) };
        picky.await
    });
    turn(&event_loop);
    task.cancel();
    assert!(event_loop.run_until_complete(task).unwrap().unwrap().is_err());
}

// spec: TASK-07, MAP-01
#[test]
fn a_scope_that_goes_before_it_is_polled_leaves_the_request_to_the_next() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        let outer = catch_cancel(async {
            let mut scope = Some(Box::pin(catch_cancel(pending::<()>())));
            poll_fn(|cx| match &mut scope {
                Some(open) if current_task().unwrap().cancelling() == 0 => {
                    assert!(open.as_mut().poll(cx).is_pending());
                    Poll::Pending::<()>
                }
                _ => {
                    scope = None;
                    Poll::Pending
                }
            })
            .await;
        });
        assert!(outer.await.is_err());
        told.add("outer");
    });
    turn(&event_loop);
    task.cancel();
    event_loop.run_until_complete(task).unwrap().unwrap();
    assert_eq!(log.take(), ["outer"]);
}

// spec: TASK-18
#[test]
fn current_and_all_tasks_are_known_while_they_are_not_done() {
    let event_loop = new_loop();
    assert!(current_task().is_none());
    let (first, second) = (spawn(&event_loop, pending::<()>()), spawn(&event_loop, async {}));
    second.task_ref().set_name("mine");
    assert_eq!(second.task_ref().name(), "mine");
    assert_eq!(event_loop.all_tasks(), [first.task_ref(), second.task_ref()]);
    let this = event_loop.run_until_complete(async { current_task().unwrap() }).unwrap();
    assert!(this.done() && current_task().is_none());
    assert_eq!(event_loop.all_tasks(), [first.task_ref()]);
    let shown = format!("{first:?} {second:?}");
    let places: Vec<_> = shown.split(" created at ").collect();
    let [first_place, second_place, line] = places[..] else { panic!("{shown}") };
    assert_eq!(first_place, "<Task pending name='Task-1'");
    assert!(second_place.ends_with("> <Task finished name='mine'") && line.contains("tasks.rs:"));
    first.cancel();
    turn(&event_loop);
    assert_eq!(event_loop.stats().tasks, 0);
}

// spec: TASK-20
#[test]
fn a_task_cannot_await_itself() {
    let event_loop = new_loop();
    let slot = Rc::new(Cell::new(None::<Task<Result<(), Error>>>));
    let this = Rc::clone(&slot);
    let task = spawn(&event_loop, async move { this.take().unwrap().await? });
    let handle = task.task_ref();
    slot.set(Some(task));
    turn(&event_loop);
    assert!(handle.done());
    let this: TaskRef = event_loop.run_until_complete(async { current_task().unwrap() }).unwrap();
    assert!(this.done());
    let error = event_loop
        .run_until_complete(async { current_task().unwrap().finished().await.unwrap_err() })
        .unwrap();
    assert_eq!(error.to_string(), "Task cannot await on itself");
}

// spec: MAP-01
#[test]
fn dropping_the_handle_detaches() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    drop(spawn(&event_loop, async move {
        yield_now().await;
        told.add("went on");
    }));
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(log.take(), ["went on"]);
}

// spec: FUT-09, MAP-03
#[test]
fn a_panic_in_a_task_is_its_error_and_is_reported_if_nobody_takes_it() {
    let (event_loop, reports) = watched_loop();
    let taken = spawn(&event_loop, async { panic!("taken") });
    let left = spawn(&event_loop, async { panic!("left") });
    drop(spawn(&event_loop, async { panic!("detached") }));
    turn(&event_loop);
    assert_eq!(reports.take(), ["Task exception was never retrieved: detached"]);
    let error: Result<(), Error> = event_loop.run_until_complete(taken).unwrap();
    assert!(matches!(error, Err(Error::Panic(text)) if text == "taken"));
    assert!(reports.take().is_empty());
    let left: Task<()> = left;
    drop(left);
    assert_eq!(reports.take(), ["Task exception was never retrieved: left"]);
}

// spec: MAP-02
#[test]
fn panics_in_drops_of_a_task_do_not_harm_the_loop() {
    struct PanicOnDrop(&'static str);
    impl Drop for PanicOnDrop {
        fn drop(&mut self) {
            panic!("{}", self.0);
        }
    }
    let (event_loop, reports) = watched_loop();
    let cancelled = spawn(&event_loop, async {
        let _guard = PanicOnDrop("body");
        pending::<()>().await;
    });
    drop(spawn(&event_loop, async { PanicOnDrop("result") }));
    turn(&event_loop);
    assert_eq!(reports.take(), ["Exception in the drop of the result of a task: result"]);
    cancelled.cancel();
    let error = event_loop.run_until_complete(cancelled).unwrap().unwrap_err();
    assert!(matches!(error, Error::Panic(text) if text == "body"));
}

// spec: TASK-03
#[test]
fn a_task_woken_many_times_takes_one_step() {
    let event_loop = new_loop();
    let steps = Rc::new(Cell::new(0));
    let wakers = Rc::new(Cell::new(None::<Waker>));
    let (count, slot) = (Rc::clone(&steps), Rc::clone(&wakers));
    drop(spawn(
        &event_loop,
        poll_fn(move |cx| {
            count.set(count.get() + 1);
            slot.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        }),
    ));
    turn(&event_loop);
    let waker = wakers.take().unwrap();
    for _ in 0..3 {
        waker.wake_by_ref();
        Waker::wake(waker.clone());
    }
    turn(&event_loop);
    assert_eq!(steps.get(), 2);
    turn(&event_loop);
    assert_eq!(steps.get(), 2);
}

// spec: TASK-03, HANDLE-04
#[test]
fn a_waker_may_outlive_its_task_and_its_loop() {
    let event_loop = new_loop();
    let slot = Rc::new(Cell::new(None::<Waker>));
    let keep = Rc::clone(&slot);
    let body = poll_fn(move |cx| {
        keep.set(Some(cx.waker().clone()));
        Poll::Ready(())
    });
    event_loop.run_until_complete(body).unwrap();
    let waker = slot.take().unwrap();
    waker.wake_by_ref();
    let task = spawn(&event_loop, async { "not disturbed by a stale wake-up" });
    turn(&event_loop);
    assert!(task.done());
    drop(event_loop);
    waker.wake_by_ref();
    std::thread::spawn(move || waker.wake()).join().unwrap();
}

// spec: TASK-08
#[test]
fn finished_waits_for_the_clean_up() {
    let (event_loop, log) = (new_loop(), Log::default());
    let told = log.clone();
    let task = spawn(&event_loop, async move {
        assert!(catch_cancel(sleep(LONG)).await.is_err());
        yield_now().await;
        told.add("cleaned up");
    });
    turn(&event_loop);
    let handle = task.task_ref();
    event_loop
        .run_until_complete(async {
            handle.cancel();
            handle.finished().await.unwrap();
            log.add("finished");
        })
        .unwrap();
    assert_eq!(log.take(), ["cleaned up", "finished"]);
    task.result().unwrap();
    assert_eq!(task.result().unwrap_err().to_string(), "Result was already taken.");
}

// spec: LOOP-19, TASK-01
#[test]
fn where_no_loop_runs_a_spawned_task_fails_when_it_is_awaited() {
    let held = Rc::new(());
    let in_body = Rc::clone(&held);
    let task = ringloop::spawn(async move { in_body });
    assert_eq!(Rc::strong_count(&held), 1, "the body is dropped");
    assert!(task.done() && !task.cancelled() && !task.cancel());
    task.task_ref().set_name("nobody's");
    assert_eq!(task.task_ref().name(), "nobody's");
    ended(task.task_ref().finished()).unwrap();
    assert_eq!(ended(task).unwrap_err().to_string(), "no running event loop");
    let job = ringloop::run_in_executor(|| ());
    assert!(job.done() && !job.cancelled() && !job.cancel());
    assert_eq!(ended(job).unwrap_err().to_string(), "no running event loop");
}

// spec: TASK-01, EXEC-01
#[test]
fn the_loop_that_runs_takes_tasks_and_jobs_without_being_named() {
    let sum = ringloop::run(async {
        let task = ringloop::spawn(async { ringloop::run_in_executor(|| 1).await });
        task.await.unwrap().unwrap() + 1
    });
    assert_eq!(sum.unwrap(), 2);
}
