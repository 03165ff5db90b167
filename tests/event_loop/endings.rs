//! A drop, a cancellation or a panic at every await point of the public futures leaves nothing behind.
//!
//! Each future is polled some times, in a task, beside what makes it go on; then it ends in one of three ways. That is done
//! anew for each number of polls, until the future is done first.
//!
//! Which futures there are is read in the sources of the library, so that none is forgotten.

use std::cell::Cell;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use ringloop::{
    AsyncFd, Barrier, BoundedSemaphore, Condition, Event, EventLoop, JoinSet, Lock, Queue,
    ReturnWhen, Semaphore, TaskGroup, as_completed, catch_cancel, current_task, gather,
    run_in_executor, shield, sleep, sleep_until, spawn, timeout, timeout_at, wait, wait_for,
    yield_now,
};
use ringloop_tests::clean::assert_clean;
use ringloop_tests::idle::settle;

use super::watch;

mod sockets;

// spec: RISK-01, TASK-05, MAP-01, SYNC-01
#[test]
fn a_future_that_ends_at_any_await_point_leaves_nothing_behind() {
    for (names, make) in all() {
        let name = names[0];
        for how in [How::Dropped, How::Cancelled, How::Panics] {
            let mut polls = 1;
            while !ends_after(name, make, how, polls) {
                polls += 1;
                assert!(polls < 200, "{name} is polled again and again");
            }
        }
    }
}

// spec: RISK-01
#[test]
fn every_public_future_is_ended_at_its_await_points_or_excused() {
    let mut public = Vec::new();
    public_futures(&root(), &mut public);
    assert!(public.len() > 70, "the sources are not understood any more: {public:?}");
    let ended: Vec<_> = all().flat_map(|(names, _)| names).collect();
    let excused: Vec<_> = EXCUSED.iter().map(|(name, _)| name).collect();
    let is_known = |name: &String| ended.iter().chain(&excused).any(|known| name == *known);
    let missing: Vec<_> = public.iter().filter(|name| !is_known(name)).collect();
    assert!(missing.is_empty(), "no test ends these futures: {missing:?}");
    let gone: Vec<_> = ended
        .iter()
        .chain(&excused)
        .filter(|known| !public.iter().any(|name| name == **known))
        .collect();
    assert!(gone.is_empty(), "the library has no such futures: {gone:?}");
}

/// What the sources below `folder` show to users: `Type::function` and `function` for those that are `async` or give some future,
/// and the types that are futures themselves.
fn public_futures(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            public_futures(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            of_file(&fs::read_to_string(path).unwrap(), found);
        }
    }
}

fn of_file(text: &str, found: &mut Vec<String>) {
    let mut of = None;
    for line in text.lines() {
        if let Some(block) = line.strip_prefix("impl") {
            // `impl<T> Future for Type<T> {`, `impl<T> Type<T> {`
            let subject = block.rsplit(" for ").next().unwrap_or(block);
            let subject = without_generics(subject);
            let is_public = ["<", " ", "("]
                .iter()
                .any(|next| text.contains(&format!("pub struct {subject}{next}")));
            if is_public && block.contains("Future for ") {
                found.push(subject.clone());
            }
            of = Some(subject);
        } else if line == "}" {
            of = None;
        } else if let Some(function) = future_function(line.trim_start()) {
            let name = function.split(['(', '<']).next().unwrap_or_default();
            found.push(of.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::"));
        }
    }
}

/// What follows `fn ` where a function that gives a future is declared.
fn future_function(line: &str) -> Option<&str> {
    let plain = line.strip_prefix("pub fn ").filter(|_| line.contains("-> impl Future<"));
    line.strip_prefix("pub async fn ").or(plain)
}

/// The name of the type in `<T: Bound<X>> Type<T> {`.
fn without_generics(block: &str) -> String {
    let mut depth = 0;
    let outside = block.chars().filter(|character| {
        depth += i32::from(*character == '<') - i32::from(*character == '>');
        depth == 0 && *character != '>'
    });
    let outside: String = outside.collect();
    outside.split_whitespace().next().unwrap_or_default().trim_start_matches('&').to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("crates/ringloop/src")
}

/// Futures that are not ended here, and why.
const EXCUSED: &[(&str, &str)] = &[];

fn all() -> impl Iterator<Item = Entry> {
    FUTURES.iter().chain(sockets::FUTURES).copied()
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
    let jobs_end = async {
        while running().stats().jobs > 0 {
            thread::yield_now(); // To the executor's.
            yield_now().await;
        }
    };
    event_loop.run_until_complete(jobs_end).unwrap();
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

/// Public futures, and one that awaits them all.
type Entry = (&'static [&'static str], Make);

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

const FUTURES: &[Entry] = &[
    (&["YieldNow"], || Box::pin(yield_now())),
    (&["Sleep"], || Box::pin(sleep(SHORT))),
    (&["Sleep"], || Box::pin(sleep_until(Instant::now() + SHORT))),
    (&["timeout"], || Box::pin(async { drop(timeout(LONG, turns(3)).await) })),
    (&["timeout"], || Box::pin(async { drop(timeout(SHORT, sleep(LONG)).await) })),
    (&["timeout_at"], || Box::pin(async { drop(timeout_at(Instant::now(), turns(3)).await) })),
    (&["catch_cancel", "Cancelled::propagate"], || {
        Box::pin(async {
            if let Err(cancelled) = catch_cancel(turns(3)).await {
                match cancelled.propagate().await {}
            }
        })
    }),
    (&["wait_for"], || {
        Box::pin(async { drop(wait_for(SHORT, ends_soon(spawn(sleep(LONG)))).await) })
    }),
    (&["Task"], || Box::pin(async { drop(spawn(turns(3)).await) })),
    (&["TaskRef::finished"], || {
        Box::pin(async { spawn(turns(3)).task_ref().finished().await.unwrap() })
    }),
    (&["LoopFuture", "LoopFuture::take"], || {
        Box::pin(async {
            let future = running().create_future();
            let setter = future.clone();
            drop(spawn(async move {
                turns(2).await;
                drop(setter.set_result_unless_cancelled(1));
            }));
            drop(future.clone().await);
            drop(future.take().await);
        })
    }),
    (&["Gather"], || Box::pin(async { drop(gather([turns(2), turns(4)]).await) })),
    (&["Gather::settled"], || {
        Box::pin(async { drop(gather([turns(2), turns(4)]).settled().await) })
    }),
    (&["Gather::try_values"], || {
        let fails = async || {
            turns(3).await;
            Err::<(), _>(ringloop::Error::Timeout)
        };
        Box::pin(async move { drop(gather([fails(), fails()]).try_values().await) })
    }),
    (&["RemoteTask"], || Box::pin(async { drop(running().proxy().spawn(|| turns(3)).await) })),
    (&["EventLoop::shutdown_default_executor"], || {
        Box::pin(async {
            drop(run_in_executor(|| ()));
            running().shutdown_default_executor(Some(LONG)).await.unwrap();
        })
    }),
    (&["TaskGroup::run"], || {
        Box::pin(async {
            let group = TaskGroup::run(async |group| {
                drop(group.create_task(turns(2)));
                drop(group.create_task(async { Err::<(), _>("fails") }));
                turns(4).await;
            });
            drop(group.await);
        })
    }),
    (&["JoinSet::join_next", "JoinSet::shutdown", "JoinSet::join_all"], || {
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
    (&["wait"], || {
        Box::pin(async {
            let tasks = [spawn(turns(2)), spawn(turns(4))];
            drop(wait(tasks, Some(LONG), ReturnWhen::AllCompleted).await);
        })
    }),
    (&["AsCompleted::next"], || {
        Box::pin(async {
            let tasks = [spawn(turns(2)), spawn(turns(4))];
            let mut ended = as_completed(tasks, Some(LONG)).unwrap();
            while ended.next().await.is_some() {}
        })
    }),
    (&["Shield"], || Box::pin(async { drop(shield(spawn(turns(3))).await) })),
    (&["Event::wait"], || {
        Box::pin(async {
            let event = Rc::new(Event::new());
            later(&event, |event| event.set());
            event.wait().await;
        })
    }),
    (&["Lock::acquire"], || {
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
    (&["Semaphore::acquire"], || {
        Box::pin(async {
            let semaphore = Rc::new(Semaphore::new(0));
            later(&semaphore, |semaphore| semaphore.release());
            let _permit = semaphore.acquire().await;
        })
    }),
    (&["BoundedSemaphore::acquire"], || {
        Box::pin(async {
            let semaphore = Rc::new(BoundedSemaphore::new(1));
            semaphore.acquire().await.forget();
            later(&semaphore, |semaphore| semaphore.release().unwrap());
            let _permit = semaphore.acquire().await;
        })
    }),
    (&["Condition::wait", "Condition::wait_for"], || {
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
            let guard = shared.1.wait(guard).await;
            let mut looks = 0;
            let seen = |(): &mut ()| {
                looks += 1;
                looks > 1
            };
            drop(timeout(SHORT, shared.1.wait_for(guard, seen)).await);
        })
    }),
    (&["Barrier::wait"], || {
        Box::pin(async {
            let barrier = Rc::new(Barrier::new(2).unwrap());
            let other = Rc::clone(&barrier);
            drop(spawn(async move { drop(timeout(SHORT, other.wait()).await) }));
            drop(timeout(SHORT, barrier.wait()).await);
        })
    }),
    (&["Queue::put", "Queue::get", "Queue::join"], || {
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
    (&["Job"], || Box::pin(async { drop(run_in_executor(|| ()).await) })),
    (
        &["AsyncFd::readable", "AsyncFd::writable", "AsyncFd::read_with", "AsyncFd::write_with"],
        || {
            Box::pin(async {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                let address = socket.local_addr().unwrap();
                let socket = AsyncFd::new(socket).unwrap();
                socket.writable().await.unwrap();
                let other = UdpSocket::bind("127.0.0.1:0").unwrap();
                running().call_soon(move |_| drop(other.send_to(b"datagram", address))).unwrap();
                socket.readable().await.unwrap();
                let sent = socket.write_with(|socket| socket.send_to(b"another", address));
                assert_eq!(sent.await.unwrap(), 7);
                let received = socket.read_with(|socket| socket.recv(&mut [0; 8]));
                assert_eq!(received.await.unwrap(), 8);
            })
        },
    ),
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

struct ShutDown(Rc<Queue<i32>>);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shutdown(true);
    }
}
