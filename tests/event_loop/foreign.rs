//! Futures of others run unchanged.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future};
use ringloop::{EventLoop, Lock, Queue, TaskGroup, catch_cancel, sleep, spawn, yield_now};
use ringloop_tests::foreign_waker::{Event, at_next, foreign_waker, has_acted, wakes};

// spec: TASK-03, MAP-01
#[ringloop::test]
async fn combinators_of_futures_util_poll_what_is_ours() {
    let many = (0..100_u64).map(|number| async move {
        sleep(Duration::from_millis(number % 3)).await;
        number
    });
    let unordered: FuturesUnordered<_> = many.clone().collect();
    assert_eq!(unordered.fold(0, async |sum, number| sum + number).await, 4950);
    assert_eq!(future::join_all(many).await.iter().sum::<u64>(), 4950);
    let (first, _) = future::select(Box::pin(yield_now()), Box::pin(sleep(Duration::from_secs(9))))
        .await
        .factor_first();
    let () = first;
    let mut slow = Box::pin(sleep(Duration::from_secs(3600)).fuse());
    let mut fast = Box::pin(sleep(Duration::from_millis(1)).fuse());
    futures_util::select! {
        () = slow => panic!("not within an hour"),
        () = fast => {}
    }
}

// spec: SYNC-01, SYNC-02
#[ringloop::test]
async fn a_select_over_queues_and_locks_loses_no_item_and_no_place_in_a_line() {
    let (queue, lock) = (Rc::new(Queue::new()), Rc::new(Lock::new(())));
    let (fills, holds) = (Rc::clone(&queue), Rc::clone(&lock));
    let producer = spawn(async move {
        for item in 0..1000 {
            let _guard = holds.acquire().await;
            fills.put_nowait(item).unwrap();
            yield_now().await;
        }
        fills.shutdown(false);
    });
    let mut next = 0;
    loop {
        tokio::select! {
            got = queue.get() => match got {
                Ok(item) => { assert_eq!(item, next); next += 1; }
                Err(_) => break,
            },
            guard = lock.acquire() => drop(guard),
        }
        yield_now().await;
    }
    assert_eq!(next, 1000);
    producer.await.unwrap();
}

// spec: LOOP-08, TASK-03
#[ringloop::test]
async fn channels_of_others_work_between_tasks_and_from_threads() {
    let (sender, receiver) = async_channel::bounded(4);
    let threads = (0..4).map(|thread| {
        let sender = sender.clone();
        thread::spawn(move || {
            (0..250).for_each(|item| sender.send_blocking(thread * 250 + item).unwrap())
        })
    });
    let threads: Vec<_> = threads.collect();
    drop(sender);
    let mut got = Vec::new();
    while let Ok(item) = receiver.recv().await {
        got.push(item);
    }
    got.sort_unstable();
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let (answer, answered) = tokio::sync::oneshot::channel();
    let sends = spawn(async move {
        for item in 0..100 {
            sender.send(item).await.unwrap();
        }
        answer.send("all sent").unwrap();
    });
    for item in 0..100 {
        assert_eq!(receiver.recv().await, Some(item));
    }
    assert_eq!(answered.await, Ok("all sent"));
    sends.await.unwrap();
}

// spec: LOOP-08
#[ringloop::test]
async fn locks_and_notifications_of_tokio_and_of_event_listener_wake_tasks() {
    let mutex = Arc::new(tokio::sync::Mutex::new(0));
    let notify = Arc::new(tokio::sync::Notify::new());
    let event = Arc::new(event_listener::Event::new());
    let (waits, notified) = (Arc::clone(&event), Arc::clone(&notify));
    let tasks = TaskGroup::run(async |group| {
        for _ in 0..50 {
            let mutex = Arc::clone(&mutex);
            drop(group.create_task(async move {
                let mut guard = mutex.lock().await;
                yield_now().await;
                *guard += 1;
            }));
        }
        drop(group.create_task(async move { waits.listen().await }));
        drop(group.create_task(async move { notified.notified().await }));
        yield_now().await;
        yield_now().await;
        let thread = thread::spawn(move || {
            event.notify(usize::MAX);
            notify.notify_one();
        });
        thread.join().unwrap();
    });
    tasks.await.unwrap();
    assert_eq!(*mutex.lock().await, 50);
}

// spec: LOOP-08, LOOP-09
#[ringloop::test]
async fn a_thread_may_wake_a_task_at_any_time() {
    for _ in 0..100 {
        let mut thread = None;
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls > 2 {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            let old = thread.replace(thread::spawn(move || waker.wake()));
            drop(old);
            Poll::Pending
        })
        .await;
        thread.unwrap().join().unwrap();
    }
}

// spec: MAP-01, TASK-05
#[ringloop::test]
async fn a_cancel_reaches_what_a_combinator_holds() {
    let held = Rc::new(());
    let in_task = Rc::clone(&held);
    let task = spawn(async move {
        let mut many = FuturesUnordered::new();
        for _ in 0..10 {
            let held = Rc::clone(&in_task);
            many.push(async move {
                let cancelled = catch_cancel(sleep(Duration::from_secs(3600))).await;
                drop(held);
                cancelled.is_err()
            });
        }
        many.next().await
    });
    yield_now().await;
    task.cancel();
    assert_eq!(task.await.unwrap(), Some(true));
    assert_eq!(Rc::strong_count(&held), 1);
}

// spec: FUT-01, ERR-02
#[ringloop::test]
async fn a_foreign_waker_that_came_too_late_may_use_the_future_when_it_is_dropped() {
    let future = EventLoop::running().unwrap().create_future();
    let (mut first, mut second) = (future.clone(), future.clone());
    for (waiting, number) in [(&mut first, 1), (&mut second, 2)] {
        assert!(waiting.poll_unpin(&mut Context::from_waker(&foreign_waker(number))).is_pending());
    }
    at_next(Event::Clone, move || {
        future.set_result(1).unwrap();
        at_next(Event::Drop, || drop(second));
    });
    let waker = foreign_waker(3);
    let _ = first.poll_unpin(&mut Context::from_waker(&waker));
    assert!(has_acted());
    assert_eq!(first.await.unwrap(), 1);
    wakes();
}

/// Polls a future with a foreign waker whose clone does what the future waits for.
fn sees_what_its_wakers_clone_does<F: Future>(name: &str, future: F, act: impl FnOnce() + 'static) {
    let waker = foreign_waker(1);
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    at_next(Event::Clone, act);
    let is_ready = future.as_mut().poll(&mut cx).is_ready();
    assert!(has_acted(), "{name} has not kept the waker");
    let is_woken = is_ready || wakes() > 0;
    assert!(is_woken, "{name} sleeps over what came while its waker was cloned");
    assert!(is_ready || future.poll(&mut cx).is_ready(), "{name} is woken, and waits on");
    wakes();
}

// spec: FUT-01, SYNC-01, SYNC-02
#[ringloop::test]
async fn nothing_sleeps_over_what_happens_while_a_foreign_waker_is_cloned() {
    let future = EventLoop::running().unwrap().create_future();
    let result = future.clone();
    sees_what_its_wakers_clone_does("a future", future, move || result.set_result(1).unwrap());
    let event = Rc::new(ringloop::Event::new());
    let set = Rc::clone(&event);
    sees_what_its_wakers_clone_does("an event", event.wait(), move || set.set());
    let queue = Rc::new(Queue::new());
    let filled = Rc::clone(&queue);
    sees_what_its_wakers_clone_does("a queue", queue.get(), move || filled.put_nowait(1).unwrap());
}
