//! Reaching the loop from other threads.

use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use ringloop::{Error, EventLoop, LoopProxy, RemoteTask, sleep};

use super::{Log, log_soon, new_loop, turn};

const LONG: Duration = Duration::from_secs(3600);

const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<LoopProxy>();
    is_send_and_sync::<RemoteTask<i32>>();
    is_send_and_sync::<Waker>();
    is_send_and_sync::<Error>();
};

// spec: LOOP-08, LOOP-27
#[test]
fn a_call_from_another_thread_runs_on_the_loops_thread_in_the_senders_order() {
    let event_loop = new_loop();
    let (proxy, me) = (event_loop.proxy(), thread::current().id());
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        for number in 0..100 {
            let sender = sender.clone();
            proxy
                .call_soon_threadsafe(move |_| {
                    sender.send((number, thread::current().id())).unwrap()
                })
                .unwrap();
        }
        proxy.stop().unwrap();
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
    let received: Vec<_> = receiver.try_iter().collect();
    assert_eq!(received, (0..100).map(|number| (number, me)).collect::<Vec<_>>());
}

// spec: LOOP-08
#[test]
fn a_call_from_the_loops_own_thread_keeps_its_place_among_the_others() {
    let (event_loop, log) = (new_loop(), Log::default());
    let (sender, receiver) = mpsc::channel();
    let proxy = event_loop.proxy();
    event_loop
        .call_soon(move |event_loop| {
            let (threadsafe, soon) = (sender.clone(), sender);
            proxy.call_soon_threadsafe(move |_| threadsafe.send("threadsafe").unwrap()).unwrap();
            event_loop.call_soon(move |_| soon.send("soon").unwrap()).unwrap();
        })
        .unwrap();
    log_soon(&event_loop, &log, "first");
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["threadsafe", "soon"]);
}

// spec: LOOP-09, RISK-37
#[test]
fn no_wake_up_is_lost() {
    let event_loop = new_loop();
    let (ping, pings) = mpsc::channel();
    let proxy = event_loop.proxy();
    let rounds = 20_000;
    // Each round waits for the last one: a single lost wake-up would be the end of it.
    let thread = thread::spawn(move || {
        for round in 0..rounds {
            let ping = ping.clone();
            proxy.call_soon_threadsafe(move |_| ping.send(round).unwrap()).unwrap();
            assert_eq!(pings.recv().unwrap(), round);
        }
        proxy.stop().unwrap();
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
}

// spec: LOOP-09, RISK-37
#[test]
fn no_wake_up_of_a_task_is_lost() {
    let event_loop = new_loop();
    let rounds = 20_000;
    let (to_thread, wakers) = mpsc::channel::<Waker>();
    let thread = thread::spawn(move || {
        for waker in wakers {
            waker.wake();
        }
    });
    event_loop
        .run_until_complete(async {
            for _ in 0..rounds {
                let mut sent = false;
                std::future::poll_fn(|cx| {
                    if std::mem::replace(&mut sent, true) {
                        return Poll::Ready(());
                    }
                    to_thread.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                })
                .await;
            }
        })
        .unwrap();
    drop(to_thread);
    thread.join().unwrap();
}

// spec: LOOP-08, LOOP-09
#[test]
fn many_threads_lose_nothing() {
    let event_loop = new_loop();
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, sender) = (event_loop.proxy(), sender.clone());
            thread::spawn(move || {
                for number in 0..5_000 {
                    let sender = sender.clone();
                    proxy.call_soon_threadsafe(move |_| sender.send(number).unwrap()).unwrap();
                }
            })
        })
        .collect();
    let proxy = event_loop.proxy();
    let joiner = thread::spawn(move || {
        for thread in threads {
            thread.join().unwrap();
        }
        proxy.stop().unwrap();
    });
    event_loop.run_forever().unwrap();
    joiner.join().unwrap();
    assert_eq!(receiver.try_iter().count(), 20_000);
}

// spec: LOOP-09, LOOP-17
#[test]
fn a_loop_may_close_while_others_send() {
    for _ in 0..50 {
        let event_loop = new_loop();
        let proxy = event_loop.proxy();
        let (started, starts) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut sent = 0_u32;
            while proxy.call_soon_threadsafe(|_| ()).is_ok() {
                sent += 1;
                if sent == 1 {
                    started.send(()).unwrap();
                }
            }
        });
        starts.recv().unwrap();
        turn(&event_loop);
        drop(event_loop);
        thread.join().unwrap();
    }
}

// spec: LOOP-17, HANDLE-01
#[test]
fn what_was_sent_to_a_loop_that_closes_is_dropped() {
    struct Tell(mpsc::Sender<&'static str>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send("dropped").unwrap();
        }
    }
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let (sender, receiver) = mpsc::channel();
    let held = Tell(sender);
    let send = move || {
        proxy.call_soon_threadsafe(move |_| {
            let _held = held;
            unreachable!();
        })
    };
    thread::spawn(send).join().unwrap().unwrap();
    event_loop.close().unwrap();
    assert_eq!(receiver.try_recv().unwrap(), "dropped");
}

// spec: TASK-17
#[test]
fn another_thread_starts_a_task_and_waits_for_it() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let me = thread::current().id();
    let thread = thread::spawn(move || {
        let on_loop = proxy.spawn(|| async {
            let not_send = std::rc::Rc::new(thread::current().id());
            sleep(Duration::from_millis(1)).await;
            *not_send
        });
        let id = on_loop.wait().unwrap();
        let panicked = proxy.spawn(|| async { panic!("oh") }).wait();
        let no_future = proxy.spawn(make_nothing).wait();
        proxy.stop().unwrap();
        let panicked: Result<(), Error> = panicked;
        (id, panicked.unwrap_err().to_string(), no_future.unwrap_err().to_string())
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap(), (me, "oh".into(), "no future".into()));
}

fn make_nothing() -> std::future::Ready<()> {
    panic!("no future")
}

// spec: TASK-17
#[test]
fn another_thread_cancels_its_task() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let thread = thread::spawn(move || {
        let (begun, begins) = mpsc::channel();
        let task = proxy.spawn(move || async move {
            begun.send(()).unwrap();
            sleep(LONG).await;
        });
        begins.recv().unwrap();
        assert!(!task.done());
        task.cancel();
        let result = task.wait();
        proxy.stop().unwrap();
        result
    });
    event_loop.run_forever().unwrap();
    assert!(matches!(thread.join().unwrap(), Err(Error::Cancelled)));
}

// spec: TASK-17
#[test]
fn a_remote_task_of_a_loop_that_closes_is_cancelled() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let thread = thread::spawn(move || proxy.spawn(|| sleep(LONG)));
    let task = thread.join().unwrap();
    event_loop.close().unwrap();
    assert!(matches!(task.wait(), Err(Error::Cancelled)));
}

// spec: TASK-17
#[test]
fn a_remote_task_can_be_awaited_by_another_loop() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let thread = thread::spawn(move || {
        let answer = ringloop::run(async { proxy.spawn(|| async { 42 }).await });
        proxy.stop().unwrap();
        answer
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap().unwrap().unwrap(), 42);
}

// spec: TASK-17
#[test]
fn waiting_for_a_remote_task_whose_result_was_taken_says_so() {
    let event_loop = new_loop();
    let proxy = event_loop.proxy();
    let thread = thread::spawn(move || {
        let mut task = proxy.spawn(|| async { 42 });
        let (first, again) =
            ringloop::run(async { ((&mut task).await, (&mut task).await) }).unwrap();
        proxy.stop().unwrap();
        (first, again, task.wait())
    });
    event_loop.run_forever().unwrap();
    let (first, again, waited) = thread.join().unwrap();
    assert_eq!(first.unwrap(), 42);
    assert!(matches!(again, Err(Error::InvalidState(_))));
    assert!(matches!(waited, Err(Error::InvalidState(_))));
}

// spec: TASK-17
#[test]
fn the_loops_own_thread_cannot_block_on_its_task() {
    let event_loop = new_loop();
    let error = event_loop
        .run_until_complete(async {
            let proxy = EventLoop::running().unwrap().proxy();
            proxy.spawn(|| async {}).wait().unwrap_err()
        })
        .unwrap();
    assert!(matches!(error, Error::State(_)));
}
