//! A drop, a cancellation or a panic at every await point of the public futures leaves nothing behind.
//!
//! Each future is polled some times, in a task, beside what makes it go on; then it ends in one of three ways. That is done
//! anew for each number of polls, until the future is done first.

use std::cell::Cell;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringloop::{
    AsyncFd, Barrier, BoundedSemaphore, Condition, Event, EventLoop, Exclusive, JoinSet, Listen,
    Lock, Queue, ReturnWhen, Semaphore, Server, TaskGroup, as_completed, catch_cancel,
    current_task, gather, open_connection, run_in_executor, shield, sleep, sleep_until, spawn,
    timeout, timeout_at, wait, wait_for, yield_now,
};
use ringloop_tests::clean::assert_clean;
use ringloop_tests::idle::settle;

use super::watch;

// spec: RISK-01, TASK-05, MAP-01, SYNC-01
#[test]
fn a_future_that_ends_at_any_await_point_leaves_nothing_behind() {
    for (name, make) in FUTURES {
        for how in [How::Dropped, How::Cancelled, How::Panics] {
            let mut polls = 1;
            while !ends_after(name, *make, how, polls) {
                polls += 1;
                assert!(polls < 100, "{name} is polled again and again");
            }
        }
    }
}

/// Runs the future for so many polls; `true` if it was done before.
fn ends_after(name: &str, make: Make, how: How, polls: u32) -> bool {
    let event_loop = EventLoop::new().unwrap();
    let reports = watch(&event_loop);
    let was_done = Rc::new(Cell::new(false));
    let of_task = Rc::clone(&was_done);
    let body = async move {
        // Made in the task and dropped with it: what helps it to go on ends by itself.
        let future = make();
        EndsAfter { future: Some(future), how, polls_left: polls }.await;
        of_task.set(true);
    };
    let task = event_loop.create_task(body).named(name);
    let run = async {
        let result = task.await;
        settle().await;
        sleep(Duration::from_millis(2)).await; // Timers that race are due now.
        settle().await;
        result
    };
    let result = event_loop.run_until_complete(run).unwrap();
    if let Err(ringloop::Error::Panic(text)) = &result {
        assert_eq!(text, PANIC, "{name}, {how:?} after {polls}");
    }
    let finished = was_done.get() && !matches!(how, How::Dropped) || DONE.replace(false);
    let jobs = event_loop.stats().jobs;
    if jobs > 0 {
        event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap().unwrap();
    }
    let stats = event_loop.stats();
    let timers = stats.timers - stats.cancelled_timers;
    let context = format!("{name}, {how:?} after {polls}: {stats:?} {:?}", reports.take());
    assert_eq!((stats.tasks, timers, stats.jobs, stats.ready), (0, 0, 0, 0), "{context}");
    assert_clean(&event_loop);
    event_loop.close().unwrap();
    finished
}

#[derive(Clone, Copy, Debug)]
enum How {
    Dropped,
    Cancelled,
    Panics,
}

struct EndsAfter {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    how: How,
    polls_left: u32,
}

impl Future for EndsAfter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        if future.as_mut().poll(cx).is_ready() {
            DONE.set(true);
            return Poll::Ready(());
        }
        self.polls_left -= 1;
        if self.polls_left > 0 {
            return Poll::Pending;
        }
        match self.how {
            How::Dropped => {
                self.future = None;
                return Poll::Ready(());
            }
            How::Cancelled => assert!(current_task().expect("in a task").cancel()),
            How::Panics => panic!("{PANIC}"),
        }
        self.polls_left = u32::MAX;
        Poll::Pending
    }
}

thread_local! {
    static DONE: Cell<bool> = const { Cell::new(false) };
}

type Make = fn() -> Pin<Box<dyn Future<Output = ()>>>;

const PANIC: &str = "at an await point";
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

fn running() -> EventLoop {
    EventLoop::running().unwrap()
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

const FUTURES: &[(&str, Make)] = &[
    ("yield_now", || Box::pin(yield_now())),
    ("sleep", || Box::pin(sleep(SHORT))),
    ("sleep_until", || Box::pin(sleep_until(Instant::now() + SHORT))),
    ("timeout", || Box::pin(async { drop(timeout(LONG, turns(3)).await) })),
    ("timeout that is late", || Box::pin(async { drop(timeout(SHORT, sleep(LONG)).await) })),
    ("timeout_at", || Box::pin(async { drop(timeout_at(Instant::now(), turns(3)).await) })),
    ("catch_cancel", || Box::pin(async { drop(catch_cancel(turns(3)).await) })),
    ("wait_for", || Box::pin(async { drop(wait_for(SHORT, ends_soon(spawn(sleep(LONG)))).await) })),
    ("Task", || Box::pin(async { drop(spawn(turns(3)).await) })),
    ("TaskRef::finished", || {
        Box::pin(async { spawn(turns(3)).task_ref().finished().await.unwrap() })
    }),
    ("LoopFuture", || {
        Box::pin(async {
            let future = running().create_future();
            let setter = future.clone();
            drop(spawn(async move {
                turns(2).await;
                drop(setter.set_result_unless_cancelled(1));
            }));
            drop(future.take().await);
        })
    }),
    ("gather", || Box::pin(async { drop(gather([turns(2), turns(4)]).await) })),
    ("Gather::settled", || Box::pin(async { drop(gather([turns(2), turns(4)]).settled().await) })),
    ("TaskGroup::run", || {
        Box::pin(async {
            let group = TaskGroup::run(async |group| {
                drop(group.create_task(turns(2)));
                drop(group.create_task(async { Err::<(), _>("fails") }));
                turns(4).await;
            });
            drop(group.await);
        })
    }),
    ("JoinSet", || {
        Box::pin(async {
            let mut set = JoinSet::new();
            set.spawn(turns(1));
            set.spawn(turns(3));
            drop(set.join_next().await);
            set.spawn(turns(2));
            set.shutdown().await;
            set.spawn(turns(2));
            drop(set.join_all().await);
        })
    }),
    ("wait", || {
        Box::pin(async {
            let tasks = [spawn(turns(2)), spawn(turns(4))];
            drop(wait(tasks, Some(LONG), ReturnWhen::AllCompleted).await);
        })
    }),
    ("as_completed", || {
        Box::pin(async {
            let tasks = [spawn(turns(2)), spawn(turns(4))];
            let mut ended = as_completed(tasks, Some(LONG)).unwrap();
            while ended.next().await.is_some() {}
        })
    }),
    ("shield", || Box::pin(async { drop(shield(spawn(turns(3))).await) })),
    ("Event::wait", || {
        Box::pin(async {
            let event = Rc::new(Event::new());
            later(&event, |event| event.set());
            event.wait().await;
        })
    }),
    ("Lock::acquire", || {
        Box::pin(async {
            let lock = Rc::new(Lock::new(()));
            let holds = Rc::clone(&lock);
            drop(spawn(async move {
                let _guard = holds.acquire().await;
                turns(3).await;
            }));
            turns(1).await;
            let _guard = lock.acquire().await;
            turns(1).await;
        })
    }),
    ("Semaphore::acquire", || {
        Box::pin(async {
            let semaphore = Rc::new(Semaphore::new(0));
            later(&semaphore, |semaphore| semaphore.release());
            let _permit = semaphore.acquire().await;
        })
    }),
    ("BoundedSemaphore::acquire", || {
        Box::pin(async {
            let semaphore = Rc::new(BoundedSemaphore::new(1));
            semaphore.acquire().await.forget();
            later(&semaphore, |semaphore| semaphore.release().unwrap());
            let _permit = semaphore.acquire().await;
        })
    }),
    ("Condition::wait", || {
        Box::pin(async {
            let shared = Rc::new((Lock::new(()), Condition::new()));
            let notifies = Rc::clone(&shared);
            drop(spawn(async move {
                turns(2).await;
                let _guard = notifies.0.acquire().await;
                notifies.1.notify_all();
                turns(2).await;
            }));
            let guard = shared.0.acquire().await;
            drop(shared.1.wait(guard).await);
        })
    }),
    ("Barrier::wait", || {
        Box::pin(async {
            let barrier = Rc::new(Barrier::new(2).unwrap());
            let other = Rc::clone(&barrier);
            drop(spawn(async move { drop(timeout(SHORT, other.wait()).await) }));
            drop(timeout(SHORT, barrier.wait()).await);
        })
    }),
    ("Queue", || {
        Box::pin(async {
            let queue = Rc::new(Queue::bounded(1));
            let other = Rc::clone(&queue);
            drop(spawn(async move {
                turns(2).await;
                while other.get().await.is_ok() {
                    drop(other.task_done());
                    turns(1).await;
                }
            }));
            let shut_down = ShutDown(Rc::clone(&queue));
            for item in 0..3 {
                let _ = queue.put(item).await;
            }
            queue.join().await;
            drop(shut_down);
            let _ = queue.get().await;
        })
    }),
    ("run_in_executor", || Box::pin(async { drop(run_in_executor(|| ()).await) })),
    ("getaddrinfo", || {
        Box::pin(async {
            let connected = open_connection(("127.0.0.1", 1));
            drop(connected.await);
        })
    }),
    ("create_server and serve_forever", || {
        Box::pin(async {
            let listen = Listen::on("127.0.0.1", 0);
            let server = running().create_server(|| Exclusive::new(()), listen).await.unwrap();
            let server = CloseOnDrop(server);
            drop(timeout(SHORT, server.0.serve_forever()).await);
            server.0.close();
            drop(server.0.wait_closed().await);
        })
    }),
    ("create_connection", || {
        Box::pin(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let connected = running().create_connection(|| Exclusive::new(()), address).await;
            let (transport, _) = connected.unwrap();
            turns(1).await;
            transport.close();
        })
    }),
    ("AsyncFd", || {
        Box::pin(async {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            let socket = AsyncFd::new(socket).unwrap();
            socket.writable().await.unwrap();
            let other = UdpSocket::bind("127.0.0.1:0").unwrap();
            running().call_soon(move |_| drop(other.send_to(b"datagram", address))).unwrap();
            socket.readable().await.unwrap();
            let _ = socket.get_ref().as_fd();
        })
    }),
];

/// Does something to what is shared, some iterations from now.
fn later<T: 'static>(shared: &Rc<T>, act: impl FnOnce(&T) + 'static) {
    let shared = Rc::clone(shared);
    drop(spawn(async move {
        turns(3).await;
        act(&shared);
    }));
}

/// A task that is cancelled in any case.
fn ends_soon(task: ringloop::Task<()>) -> ringloop::Task<()> {
    let name = task.task_ref();
    running().call_later(SHORT, move |_| assert!(name.cancel() || name.done())).unwrap();
    task
}

/// A server that nobody holds goes on.
struct CloseOnDrop(Server);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct ShutDown(Rc<Queue<i32>>);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shutdown(true);
    }
}
