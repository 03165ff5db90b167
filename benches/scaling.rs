//! What one of many costs, when there are more of them: the ends of loops, connections, watchers, tasks, waiters.
//!
//! Only the end is timed. A cost that is linear shows the same time for each size; one that is quadratic shows twenty
//! times as much for twenty times as many: `remove_done_callback()` is one, as it looks at all of them, like asyncio's.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringloop::{
    DriverConfig, EventLoop, Protocol, ProtocolResult, Received, ThreadPool, Transport, sleep,
    yield_now,
};
use ringloop_benches::args;
use ringloop_benches::failure::Failure;
use ringloop_benches::raw;
use socket2::Socket;

fn main() -> ExitCode {
    args::run(USAGE, |mut arguments| {
        let rounds: usize = args::value(&mut arguments, "--rounds")?.unwrap_or(5);
        let only: Option<String> = args::value(&mut arguments, "--only")?;
        arguments.contains("--bench"); // Cargo adds it.
        args::finish(arguments)?;
        let limit = raw::raise_open_files().map_err(|error| Failure::new("open files", &error))?;
        let sizes = SIZES.map(|size| size.min(limit as usize - SPARE));
        println!(
            "{:<40}{:>14}{:>14}{:>14}{:>9}",
            "ns for each of", sizes[0], sizes[1], sizes[2], "growth"
        );
        for (name, run) in WORKLOADS {
            if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let each = sizes.map(|size| {
                let mut times: Vec<_> = (0..rounds).map(|_| run(size)).collect();
                times.sort();
                times[rounds / 2].as_nanos() as f64 / size as f64
            });
            println!(
                "{name:<40}{:>14.0}{:>14.0}{:>14.0}{:>9.2}",
                each[0],
                each[1],
                each[2],
                each[2] / each[0]
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Silent;

impl Protocol for Silent {
    fn data_received(&self, _: &Transport, _: Received) -> ProtocolResult {
        Ok(())
    }
}

fn new_loop() -> EventLoop {
    EventLoop::new().expect("a loop")
}

fn clock(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    (ours.into(), theirs)
}

/// Half of them are connections, the other half watchers of their peers.
fn connected(event_loop: &EventLoop, size: usize) -> (Vec<Transport>, Vec<UnixStream>) {
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            let (mut transports, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..size / 2 {
                let (ours, theirs) = pair();
                let made = event_loop.create_connection(|| Silent, ours).await;
                transports.push(made.expect("a connection").0);
                event_loop.add_reader(&theirs, |_| ()).expect("a watcher");
                peers.push(theirs);
            }
            yield_now().await;
            (transports, peers)
        })
        .expect("it runs")
}

fn close_with_connections(size: usize) -> Duration {
    let event_loop = new_loop();
    let (transports, peers) = connected(&event_loop, size);
    let time = clock(|| event_loop.close().expect("idle"));
    drop((transports, peers));
    time
}

fn abort_connections(size: usize) -> Duration {
    let event_loop = new_loop();
    let (transports, peers) = connected(&event_loop, size);
    peers.iter().for_each(|peer| drop(event_loop.remove_reader(peer)));
    let time = clock(|| {
        transports.iter().for_each(Transport::abort);
        event_loop
            .run_until_complete(async {
                while EventLoop::running().expect("a loop").stats().sources > 0 {
                    yield_now().await;
                }
            })
            .expect("it runs");
    });
    drop((transports, peers));
    time
}

fn remove_readers(size: usize) -> Duration {
    let event_loop = new_loop();
    let (transports, peers) = connected(&event_loop, size);
    let time = clock(|| peers.iter().for_each(|peer| drop(event_loop.remove_reader(peer))));
    drop((transports, peers));
    time
}

fn remove_ready_readers(size: usize) -> Duration {
    let event_loop = new_loop();
    let (transports, peers) = connected(&event_loop, size);
    transports.iter().for_each(|transport| drop(transport.write(b"x")));
    let time = clock(|| peers.iter().for_each(|peer| drop(event_loop.remove_reader(peer))));
    drop((transports, peers));
    time
}

/// All want the one buffer, and most wait for their turn.
fn abort_starved_connections(size: usize) -> Duration {
    let config = DriverConfig { buffers: 1, groups: 1, ..DriverConfig::default() };
    let event_loop = EventLoop::builder().driver(config).build().expect("a loop");
    let (transports, peers) = event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            let (mut transports, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..size / 2 {
                let (ours, theirs) = pair();
                let made = event_loop.create_connection(|| Silent, ours).await;
                transports.push(made.expect("a connection").0);
                peers.push(theirs);
            }
            peers.iter().for_each(|mut peer| drop(peer.write(b"x")));
            yield_now().await;
            yield_now().await;
            (transports, peers)
        })
        .expect("it runs");
    let time = clock(|| {
        transports.iter().for_each(Transport::abort);
        event_loop
            .run_until_complete(async {
                while EventLoop::running().expect("a loop").stats().sources > 0 {
                    yield_now().await;
                }
            })
            .expect("it runs");
    });
    drop((transports, peers));
    time
}

fn close_clients(size: usize) -> Duration {
    let event_loop = new_loop();
    let (server, clients) = event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            let listen = ringloop::Listen::on("127.0.0.1", 0).backlog(4096);
            let server = event_loop.create_server(|| Silent, listen).await.expect("a server");
            let address = server.local_addr().expect("an address");
            let mut clients = Vec::new();
            for index in 0..size / 2 {
                clients.push(std::net::TcpStream::connect(address).expect("a client"));
                if index % 100 == 0 {
                    yield_now().await;
                }
            }
            while event_loop.stats().sources < 1 + clients.len() {
                yield_now().await;
            }
            (server, clients)
        })
        .expect("it runs");
    let time = clock(|| {
        event_loop
            .run_until_complete(async {
                server.close();
                server.close_clients();
                server.wait_closed().await
            })
            .expect("it runs")
            .expect("it ends");
    });
    drop(clients);
    time
}

fn close_servers(size: usize) -> Duration {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            let mut servers = Vec::new();
            for _ in 0..size / 2 {
                let made = event_loop.create_server(|| Silent, ("127.0.0.1", 0)).await;
                servers.push(made.expect("a server"));
            }
            clock(|| servers.iter().for_each(ringloop::Server::close))
        })
        .expect("it runs")
}

fn close_with_tasks(size: usize) -> Duration {
    let event_loop = new_loop();
    event_loop.set_exception_handler(|_, _| ());
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            (0..size).for_each(|_| drop(event_loop.create_task(sleep(FAR))));
            yield_now().await;
        })
        .expect("it runs");
    clock(|| event_loop.close().expect("idle"))
}

fn run_with_tasks(size: usize) -> Duration {
    let start = Rc::new(Cell::new(Instant::now()));
    let begun = Rc::clone(&start);
    ringloop::run(async move {
        let event_loop = EventLoop::running().expect("a loop");
        (0..size).for_each(|_| drop(event_loop.create_task(sleep(FAR))));
        yield_now().await;
        begun.set(Instant::now());
    })
    .expect("it runs");
    start.get().elapsed()
}

fn close_with_callbacks_and_timers(size: usize) -> Duration {
    let event_loop = new_loop();
    for _ in 0..size / 2 {
        event_loop.call_soon(|_| ()).expect("open");
        event_loop.call_later(FAR, |_| ()).expect("open");
    }
    clock(|| event_loop.close().expect("idle"))
}

fn close_with_jobs(size: usize) -> Duration {
    let pool = ThreadPool::new(1);
    let event_loop = EventLoop::builder().default_executor(pool).build().expect("a loop");
    let (end, is_ended) = channel::<()>();
    drop(event_loop.run_in_executor(move || is_ended.recv()));
    (0..size).for_each(|_| drop(event_loop.run_in_executor(|| ())));
    let time = clock(|| event_loop.close().expect("idle"));
    drop(end);
    time
}

fn cancel_jobs(size: usize) -> Duration {
    let pool = ThreadPool::new(1);
    let event_loop = EventLoop::builder().default_executor(pool).build().expect("a loop");
    let (end, is_ended) = channel::<()>();
    drop(event_loop.run_in_executor(move || is_ended.recv()));
    let jobs: Vec<_> = (0..size).map(|_| event_loop.run_in_executor(|| ())).collect();
    let time = clock(|| {
        assert!(jobs.iter().all(ringloop::Job::cancel));
        event_loop.stop();
        event_loop.run_forever().expect("it runs");
    });
    drop(end);
    time
}

fn remove_done_callbacks(size: usize) -> Duration {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let callbacks: Vec<_> = (0..size).map(|_| future.add_done_callback(|_| ())).collect();
    clock(|| assert!(callbacks.iter().all(|callback| future.remove_done_callback(callback) == 1)))
}

/// Each waits with all the others for one future, and gives up.
fn give_up_waiting(size: usize) -> Duration {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().expect("a loop");
            let future = event_loop.create_future::<()>();
            let mut waiting: Vec<_> = (0..size).map(|_| Box::pin(future.clone())).collect();
            std::future::poll_fn(|cx| {
                for waiting in &mut waiting {
                    let _ = waiting.as_mut().poll(cx);
                }
                std::task::Poll::Ready(())
            })
            .await;
            clock(|| drop(waiting))
        })
        .expect("it runs")
}

type Run = fn(usize) -> Duration;

const WORKLOADS: [(&str, Run); 14] = [
    ("close: connections and watchers", close_with_connections),
    ("close: tasks", close_with_tasks),
    ("close: callbacks and timers", close_with_callbacks_and_timers),
    ("close: jobs", close_with_jobs),
    ("end of run(): tasks", run_with_tasks),
    ("abort: connections", abort_connections),
    ("abort: connections that take turns", abort_starved_connections),
    ("remove_reader: idle", remove_readers),
    ("remove_reader: ready", remove_ready_readers),
    ("server: close_clients", close_clients),
    ("server: close of each", close_servers),
    ("cancel: jobs", cancel_jobs),
    ("remove_done_callback: one future", remove_done_callbacks),
    ("drop: waiters of one future", give_up_waiting),
];

const SIZES: [usize; 3] = [1_000, 5_000, 20_000];
/// Descriptors that are used otherwise.
const SPARE: usize = 50;
const FAR: Duration = Duration::from_secs(3600);

const USAGE: &str = "\
usage: cargo bench -p ringloop-benches --bench scaling [-- [--rounds N] [--only TEXT]]

  --rounds  how often each is measured, of which the median counts: 5 unless told
  --only    the workloads with this text in their name";
