//! Parts of ringloop, each by itself: the ready queue, leases of buffers, receiving by socket calls, the search for lines.
//!
//! `cargo bench -p ringloop-benches --bench parts`. Timers, tasks and wake-ups from other threads stand in `event_loop.rs`,
//! beside tokio's.

use std::cell::Cell;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use ringloop::{EventLoop, Received, Socket, StreamReader};

criterion_main!(bench);

fn bench() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    ready_queue(&mut criterion);
    lease(&mut criterion);
    receive(&mut criterion);
    line_search(&mut criterion);
    criterion.final_summary();
}

/// Callbacks that are scheduled and run: one after the other, each by the one before it, or many at once.
fn ready_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ready_queue");
    for at_once in [1, 64, 10_000] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::new("call_soon", at_once), |bencher| {
            let event_loop = EventLoop::new().expect("a loop");
            bencher.iter(|| {
                let ran = Rc::new(Cell::new(0));
                for _ in 0..at_once {
                    let ran = Rc::clone(&ran);
                    event_loop.call_soon(move |_| ran.set(ran.get() + 1)).expect("it is open");
                }
                event_loop.call_soon(EventLoop::stop).expect("it is open");
                event_loop.run_forever().expect("it runs");
                assert_eq!(ran.get(), at_once);
            });
        });
    }
    group.bench_function("cancelled", |bencher| {
        let event_loop = EventLoop::new().expect("a loop");
        bencher.iter(|| {
            for _ in 0..10_000 {
                event_loop.call_soon(|_| unreachable!()).expect("it is open").cancel();
            }
            event_loop.call_soon(EventLoop::stop).expect("it is open");
            event_loop.run_forever().expect("it runs");
        });
    });
    group.finish();
}

/// What a program does with bytes that it has received, beside the same with `Bytes`.
fn lease(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lease");
    let bytes = Bytes::from(vec![7; 1024]);
    with_lease(|lease| {
        group.bench_function("clone", |bencher| bencher.iter(|| black_box(lease.clone())));
        group.bench_function("slice", |bencher| bencher.iter(|| black_box(lease.slice(10..20))));
        group.bench_function("split_to", |bencher| {
            bencher.iter(|| {
                let mut rest = lease.clone();
                black_box(rest.split_to(10));
                rest
            });
        });
    });
    group.bench_function("clone_of_bytes", |bencher| bencher.iter(|| black_box(bytes.clone())));
    group.bench_function("slice_of_bytes", |bencher| {
        bencher.iter(|| black_box(bytes.slice(10..20)));
    });
    // The whole life, with the write of a peer: the kernel fills a buffer, the program drops the lease, and it goes back.
    group.bench_function("received_and_dropped", |bencher| {
        bencher.iter_custom(|times| {
            run(async {
                let (socket, mut peer) = pair();
                let start = Instant::now();
                for _ in 0..times {
                    peer.write_all(&bytes).expect("there is room");
                    black_box(socket.recv(1024).await.expect("it is open"));
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// Bytes as a lease, and into a slice: of what has come already, and of what is waited for. With the write of the peer.
fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    for size in [64, 1024, 4096, 16 * 1024, BLOCK] {
        for (when, is_there) in [("there", true), ("waits", false)] {
            for how in ["recv", "recv_into"] {
                group.bench_function(BenchmarkId::new(format!("{when}/{how}"), size), |bencher| {
                    bencher
                        .iter_custom(|times| run(receive_all(times, size, is_there, how == "recv")))
                });
            }
        }
    }
    group.finish();
}

/// As many messages of `size` bytes; each is written before, or while, it is received.
async fn receive_all(times: u64, size: usize, is_there: bool, is_lent: bool) -> Duration {
    let (socket, mut peer) = pair();
    let (message, mut buffer) = (vec![7; size], vec![0; size]);
    let start = Instant::now();
    for _ in 0..times {
        if is_there {
            peer.write_all(&message).expect("there is room");
        }
        let receiving = async {
            let mut count = 0;
            while count < size {
                count += if is_lent {
                    black_box(socket.recv(size).await.expect("it is open")).len()
                } else {
                    socket.recv_into(&mut buffer).await.expect("it is open")
                };
            }
            black_box(&buffer);
        };
        let writing = async {
            if !is_there {
                peer.write_all(&message).expect("there is room");
            }
        };
        let ((), ()) = tokio::join!(receiving, writing);
    }
    start.elapsed()
}

/// Lines in a reader that is fed by hand: many short ones, and a long one that comes in pieces.
fn line_search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line_search");
    for length in [16, 80, 1000] {
        let text: Bytes =
            (0..BLOCK).map(|place| if (place + 1) % length == 0 { b'\n' } else { b'x' }).collect();
        group.throughput(Throughput::Bytes(BLOCK as u64));
        group.bench_function(BenchmarkId::new("read_line", length), |bencher| {
            bencher.iter_custom(|times| run(read_lines(&text, text.len(), length, times)));
        });
    }
    let text: Bytes = (1..=BLOCK).map(|place| if place == BLOCK { b'\n' } else { b'x' }).collect();
    group.bench_function("long_line_in_pieces", |bencher| {
        bencher.iter_custom(|times| run(read_lines(&text, 1000, BLOCK, times)));
    });
    group.bench_function("read_until_of_four_bytes", |bencher| {
        let text: Bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(BLOCK / 27).into();
        bencher.iter_custom(|times| {
            run(async {
                let reader = StreamReader::new(2 * BLOCK).expect("a loop runs");
                let start = Instant::now();
                for _ in 0..times {
                    reader.feed_data(text.clone()).expect("it is open");
                    for _ in 0..BLOCK / 27 {
                        black_box(reader.read_until("\r\n\r\n").await.expect("it is whole"));
                    }
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// Feeds the text in pieces, and reads all its whole lines.
async fn read_lines(text: &Bytes, piece: usize, length: usize, times: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        let reader = StreamReader::new(2 * BLOCK).expect("a loop runs");
        let mut fed = 0;
        let feeding = async {
            while fed < text.len() {
                let end = text.len().min(fed + piece);
                reader.feed_data(text.slice(fed..end)).expect("it is open");
                fed = end;
                if fed < text.len() {
                    ringloop::yield_now().await;
                }
            }
        };
        let reading = async {
            for _ in 0..text.len() / length {
                black_box(reader.read_line().await.expect("it is whole"));
            }
        };
        let ((), ()) = tokio::join!(feeding, reading);
    }
    start.elapsed()
}

fn with_lease(work: impl FnOnce(&Received)) {
    run(async {
        let (socket, mut peer) = pair();
        peer.write_all(&[7; 1024]).expect("there is room");
        work(&socket.recv(1024).await.expect("it is open"));
    });
}

fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    (ours.into(), theirs)
}

fn run<T>(main: impl Future<Output = T>) -> T {
    EventLoop::new().expect("a loop").run_until_complete(main).expect("nobody stops the loop")
}

const BLOCK: usize = 64 * 1024;
