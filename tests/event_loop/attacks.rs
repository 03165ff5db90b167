//! Groups, sets, locks and queues in the hands of those who drop, forget and wake where nobody expects it.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::mem::ManuallyDrop;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use ringloop::{
    Barrier, BoundedSemaphore, Condition, Error, Event, EventLoop, JoinSet, Lock, Queue, Semaphore,
    TaskGroup, catch_cancel, gather, spawn, wait, yield_now,
};

use super::{Log, LogDrop, new_loop, turn, watched_loop};

thread_local! {
    static ON_WAKE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// A waker that runs what stands in [`ON_WAKE`], once.
struct Meddling;

impl Wake for Meddling {
    fn wake(self: Arc<Self>) {
        let on_wake = ON_WAKE.take();
        if let Some(mut on_wake) = on_wake {
            on_wake();
        }
    }
}

fn on_wake(call: impl FnMut() + 'static) -> Waker {
    ON_WAKE.replace(Some(Box::new(call)));
    Waker::from(Arc::new(Meddling))
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

fn poll<T>(future: &mut Boxed<T>, waker: &Waker) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

/// What `future` gives when it is first polled, in the task that awaits this.
async fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(value),
        Poll::Pending => panic!("it waits"),
    })
    .await
}

// spec: FUT-10
#[test]
fn a_task_of_another_loop_cannot_be_awaited() {
    let (event_loop, other) = (new_loop(), new_loop());
    let task = other.spawn(async { 1 });
    let end = task.task_ref();
    let (awaited, finished) = event_loop
        .run_until_complete(async { (at_once(task.clone()).await, at_once(end.finished()).await) })
        .unwrap();
    for error in [awaited.map(drop).unwrap_err(), finished.unwrap_err()] {
        assert!(matches!(error, Error::State(_)));
        assert_eq!(error.to_string(), "Task got Future attached to a different loop");
    }
    turn(&other);
    // One that is done has nobody to wait for.
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap(), 1);
}

// spec: TASK-10, FUT-10
#[test]
fn a_gather_of_another_loop_cannot_be_awaited() {
    let (event_loop, other) = (new_loop(), new_loop());
    let gathers = || {
        let futures = || [std::future::ready(Ok::<_, Error>(1)), std::future::ready(Ok(2))];
        other.run_until_complete(async move { [(); 3].map(|()| gather(futures())) }).unwrap()
    };
    let [values, settled, first] = gathers();
    let (values, settled, first) = event_loop
        .run_until_complete(async {
            let settled = at_once(settled.settled()).await;
            (at_once(values).await, settled, at_once(first.try_values()).await)
        })
        .unwrap();
    assert_eq!(settled.len(), 2);
    let errors = settled.into_iter().map(Result::unwrap_err);
    for error in errors.chain([values.unwrap_err(), first.unwrap_err()]) {
        assert!(matches!(error, Error::State(_)));
        assert_eq!(error.to_string(), "Task got Future attached to a different loop");
    }
    turn(&other);
    // One that is done has nobody to wait for.
    let [values, ..] = gathers();
    turn(&other);
    let values = event_loop.run_until_complete(values).unwrap().unwrap();
    assert_eq!(values.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
}

// spec: TASK-05
#[test]
fn a_join_set_may_go_inside_of_its_own_task() {
    let (event_loop, log) = (new_loop(), Log::default());
    let ended = log.clone();
    event_loop
        .run_until_complete(async move {
            let set = Rc::new(RefCell::new(Some(JoinSet::new())));
            for number in 0..3 {
                let (inside, ended) = (Rc::clone(&set), ended.clone());
                set.borrow_mut().as_mut().unwrap().spawn(async move {
                    let _end = LogDrop(ended.clone(), "body");
                    yield_now().await;
                    if number == 1 {
                        drop(inside.take());
                        ended.add("dropped");
                    }
                    pending::<()>().await;
                });
            }
            for _ in 0..4 {
                yield_now().await;
            }
            assert_eq!(EventLoop::running().unwrap().stats().tasks, 1);
        })
        .unwrap();
    assert_eq!(log.take(), ["dropped", "body", "body", "body"]);
}

// spec: SYNC-01
#[test]
fn a_semaphore_counts_to_its_ends_and_no_further() {
    let all = Semaphore::new(usize::MAX);
    all.release();
    let permit = all.try_acquire().unwrap();
    all.release();
    drop(permit);
    assert_eq!(format!("{all:?}"), format!("<Semaphore [value:{}, waiters:0]>", usize::MAX));

    let bounded = Rc::new(BoundedSemaphore::new(1));
    let permit = bounded.try_acquire().unwrap();
    let of_wait = Rc::clone(&bounded);
    let mut waits: Boxed<()> = Box::pin(async move { of_wait.acquire().await.forget() });
    assert!(poll(&mut waits, Waker::noop()).is_pending());
    drop(permit); // It is given to who waits, so one that is not there can be given back, ...
    bounded.release().unwrap();
    drop(waits); // ... but two do not fit.
    assert!(bounded.release().is_err());
    let _one = bounded.try_acquire().unwrap();
    assert!(bounded.try_acquire().is_none());
}

// spec: SYNC-01
#[test]
fn a_barrier_that_is_broken_and_reset_by_those_whom_it_wakes_can_be_used_again() {
    let barrier = Rc::new(Barrier::new(3).unwrap());
    let party = || -> Boxed<Result<usize, Error>> {
        let barrier = Rc::clone(&barrier);
        Box::pin(async move { barrier.wait().await })
    };
    let (mut first, mut second, mut last) = (party(), party(), party());
    let meddled = Rc::clone(&barrier);
    let waker = on_wake(move || {
        meddled.abort();
        meddled.reset();
        meddled.abort();
    });
    assert!(poll(&mut first, &waker).is_pending() && poll(&mut second, &waker).is_pending());
    assert!(matches!(poll(&mut last, Waker::noop()), Poll::Ready(Ok(2))));
    for waits in [&mut first, &mut second] {
        assert!(matches!(poll(waits, Waker::noop()), Poll::Ready(Err(Error::State(_)))));
    }
    assert!(barrier.broken());
    barrier.reset();
    let mut round: Vec<_> = (0..3).map(|_| party()).collect();
    assert!(poll(&mut round[0], Waker::noop()).is_pending());
    assert!(poll(&mut round[1], Waker::noop()).is_pending());
    let ended = [2, 0, 1].map(|at| match poll(&mut round[at], Waker::noop()) {
        Poll::Ready(place) => place.unwrap(),
        Poll::Pending => panic!("all have come"),
    });
    assert_eq!(ended, [2, 0, 1]);
}

// spec: SYNC-01
#[test]
fn a_lock_that_a_waker_takes_and_drops_the_next_in_line_for_is_not_lost() {
    let lock = Rc::new(Lock::new(0));
    let waits = || -> Boxed<()> {
        let lock = Rc::clone(&lock);
        Box::pin(async move { *lock.acquire().await += 1 })
    };
    let guard = lock.try_acquire().unwrap();
    let (mut first, second, mut third) = (waits(), waits(), waits());
    let second = Rc::new(Cell::new(Some(second)));
    let (meddled, dropped) = (Rc::clone(&lock), Rc::clone(&second));
    let waker = on_wake(move || {
        assert!(meddled.try_acquire().is_none(), "it is promised to the first in line");
        drop(dropped.take());
    });
    assert!(poll(&mut first, &waker).is_pending());
    let mut polled = second.take().unwrap();
    assert!(poll(&mut polled, Waker::noop()).is_pending());
    second.set(Some(polled));
    assert!(poll(&mut third, Waker::noop()).is_pending());
    drop(guard);
    drop(first); // Woken, and gone without the lock.
    assert!(poll(&mut third, Waker::noop()).is_ready());
    assert_eq!(*lock.try_acquire().unwrap(), 1);
}

// spec: SYNC-02
#[test]
fn a_waker_that_takes_the_item_leaves_who_was_woken_waiting() {
    let queue = Rc::new(Queue::bounded(1));
    let (gets, meddled) = (Rc::clone(&queue), Rc::clone(&queue));
    let mut getter: Boxed<Result<u32, _>> = Box::pin(async move { gets.get().await });
    let waker = on_wake(move || {
        assert_eq!(meddled.get_nowait(), Ok(1));
        meddled.put_nowait(2).unwrap();
        assert_eq!(meddled.get_nowait(), Ok(2));
    });
    assert!(poll(&mut getter, &waker).is_pending());
    queue.put_nowait(1).unwrap();
    assert!(poll(&mut getter, Waker::noop()).is_pending(), "the item is gone");
    queue.put_nowait(3).unwrap();
    assert_eq!(poll(&mut getter, Waker::noop()), Poll::Ready(Ok(3)));
}

// spec: TASK-19
#[test]
fn what_is_forgotten_while_it_waits_does_not_keep_the_loop_from_its_end() {
    let (event_loop, _reports) = watched_loop();
    let shared = Rc::new((
        Lock::new(()),
        Semaphore::new(0),
        Queue::<u32>::new(),
        Event::new(),
        Barrier::new(2).unwrap(),
        Condition::new(),
    ));
    let of_main = Rc::clone(&shared);
    event_loop
        .run_until_complete(async move {
            let all = of_main;
            let forgotten: [Boxed<()>; 8] = {
                let own = || Rc::clone(&all);
                let (a, b, c, d, e, f) = (own(), own(), own(), own(), own(), own());
                [
                    Box::pin(async move { drop(a.0.acquire().await) }),
                    Box::pin(async move { drop(b.1.acquire().await) }),
                    Box::pin(async move {
                        let _ = c.2.get().await;
                    }),
                    Box::pin(async move { d.3.wait().await }),
                    Box::pin(async move { drop(e.4.wait().await) }),
                    Box::pin(async move {
                        let guard = f.0.acquire().await;
                        drop(f.5.wait(guard).await);
                    }),
                    Box::pin(async {
                        let group = TaskGroup::run(async |group| {
                            drop(group.create_task(pending::<()>()));
                            pending::<()>().await;
                        });
                        drop(catch_cancel(group).await);
                    }),
                    Box::pin(async {
                        let mut set = JoinSet::new();
                        set.spawn(pending::<()>());
                        set.join_next().await;
                    }),
                ]
            };
            let _guard = ManuallyDrop::new(all.0.try_acquire().unwrap());
            let _set = ManuallyDrop::new(spawn(pending::<()>()));
            let mut forgotten = ManuallyDrop::new(forgotten);
            poll_fn(|cx| {
                for future in forgotten.iter_mut() {
                    assert!(future.as_mut().poll(cx).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            assert!(all.0.locked());
            yield_now().await;
        })
        .unwrap();
    assert_eq!(event_loop.stats().tasks, 3);
    event_loop.close().unwrap();
    assert_eq!(event_loop.stats().tasks, 0);
}

// spec: TASK-16
#[test]
fn a_group_whose_loop_is_closed_takes_no_child() {
    let event_loop = new_loop();
    let kept = Rc::new(Cell::new(None));
    let group_of = Rc::clone(&kept);
    let mut group: Boxed<()> = Box::pin(async move {
        let group = TaskGroup::run(async |group| {
            group_of.set(Some(group.clone()));
            pending::<()>().await;
        });
        drop(group.await);
    });
    let polled = poll_fn(|cx| Poll::Ready(group.as_mut().poll(cx)));
    assert!(event_loop.run_until_complete(polled).unwrap().is_pending());
    event_loop.close().unwrap();
    let group_of = kept.take().unwrap();
    let child = group_of.create_task(async {});
    assert!(matches!(child.result(), Err(Error::State(_))));
    assert_eq!(format!("{group_of:?}"), "<TaskGroup entered>");
    drop(group);
    drop(event_loop);
}

// spec: LOOP-16, TASK-16
#[test]
fn a_group_that_waits_for_its_children_does_not_keep_its_loop_open() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let mut group: Boxed<()> = Box::pin(async {
        drop(TaskGroup::run(async |group| drop(group.create_task(pending::<()>()))).await);
    });
    let polled = poll_fn(|cx| Poll::Ready(group.as_mut().poll(cx)));
    assert!(event_loop.run_until_complete(polled).unwrap().is_pending());
    drop(event_loop);
    assert!(proxy.is_closed());
}

// spec: TASK-11
#[test]
fn a_task_that_stands_twice_among_those_that_are_waited_for_ends_the_wait_once() {
    let (event_loop, reports) = watched_loop();
    event_loop
        .run_until_complete(async {
            let task = spawn(async { 1 });
            let twice = [task.task_ref(), task.task_ref()];
            let waited = wait(twice, None, ringloop::ReturnWhen::AllCompleted).await.unwrap();
            assert_eq!((waited.done.len(), waited.pending.len()), (2, 0));
            let again = wait(waited.done, None, ringloop::ReturnWhen::FirstException).await;
            assert_eq!(again.unwrap().done.len(), 2);
            assert_eq!(task.result().unwrap(), 1);
        })
        .unwrap();
    assert!(reports.take().is_empty());
}
