//! Received bytes that protocols keep, send on, and give away.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringloop::{
    Chunk, DriverConfig, EventLoop, LoopProxy, Protocol, ProtocolResult, Received, Transport,
};
use ringloop_driver::testing::Memory;
use ringloop_tests::clean::{assert_clean, on_loop};
use ringloop_tests::idle::{drain_exactly, settle, turn};
use ringloop_tests::isolated::{self, Test};
use ringloop_tests::recorder::Event;
use ringloop_tests::sockets::{drain, noise, pair};
use socket2::Socket;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "kept_data_go_out_elsewhere_in_one_send_without_a_copy",
        body: kept_data_go_out_elsewhere_in_one_send_without_a_copy,
        deadline: DEADLINE,
    },
    Test {
        name: "one_that_keeps_all_it_receives_starves_nobody",
        body: one_that_keeps_all_it_receives_starves_nobody,
        deadline: DEADLINE,
    },
    Test {
        name: "many_that_keep_all_they_receive_starve_nobody",
        body: many_that_keep_all_they_receive_starve_nobody,
        deadline: DEADLINE,
    },
    Test {
        name: "leases_outlive_their_transport_and_the_loop",
        body: leases_outlive_their_transport_and_the_loop,
        deadline: DEADLINE,
    },
    Test {
        name: "bytes_go_to_another_thread_and_back_to_a_loop_that_does_nothing_else",
        body: bytes_go_to_another_thread_and_back_to_a_loop_that_does_nothing_else,
        deadline: DEADLINE,
    },
];

const DEADLINE: Duration = Duration::from_secs(600);

/// Keeps everything.
#[derive(Default)]
struct Keeper {
    kept: RefCell<Vec<Received>>,
}

impl Keeper {
    fn bytes(&self) -> Vec<u8> {
        self.kept.borrow().iter().flat_map(|data| data.iter().copied()).collect()
    }
}

impl Protocol for Keeper {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.kept.borrow_mut().push(data);
        Ok(())
    }
}

/// Has nothing to say.
struct Silent;

impl Protocol for Silent {}

struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }
}

async fn attach<P: Protocol + 'static>(socket: Socket, protocol: P) -> (Transport, Rc<P>) {
    let event_loop = EventLoop::running().unwrap();
    event_loop.create_connection(|| protocol, socket).await.unwrap()
}

/// What goes out is what stands in the buffer that the kernel filled: it is overwritten there after `write()` has returned,
/// and the peer gets what it was overwritten with.
// spec: RISK-14, WRITE-21
fn kept_data_go_out_elsewhere_in_one_send_without_a_copy() {
    let ways: [fn(Received) -> Chunk<'static>; 3] =
        [Chunk::from, |data| data.into_bytes().into(), |data| data.slice(..).into()];
    for way in ways {
        let memory = Memory::new(256 * 16 * 1024).unwrap();
        let config = DriverConfig { memory: Some(memory.clone()), ..DriverConfig::default() };
        let event_loop = EventLoop::builder().driver(config).build().unwrap();
        event_loop.run_until_complete(forward(way, memory)).unwrap();
        assert_clean(&event_loop);
    }
}

async fn forward(way: fn(Received) -> Chunk<'static>, memory: Memory) {
    let event_loop = EventLoop::running().unwrap();
    let ((a, mut source), (b, target)) = (pair(), pair());
    let (incoming, keeper) = attach(a, Keeper::default()).await;
    let (outgoing, _) = attach(b, Silent).await;
    settle().await;

    let before = event_loop.counters();
    let sizes = [9000, 12_000, 5000, 16_000, 7000];
    for size in sizes {
        source.write_all(&noise(size)).unwrap();
        settle().await;
    }
    let received = event_loop.counters();
    let kept = keeper.kept.take();
    assert_eq!(kept.iter().map(|data| data.len()).collect::<Vec<_>>(), sizes);
    assert_eq!(received.completed - before.completed, 5, "one receive for each");
    assert_eq!(
        (received.submitted - before.submitted, received.leased, received.copied),
        (0, 5, 0)
    );

    for data in kept {
        outgoing.write(way(data)).unwrap();
    }
    memory.fill(b'!');
    settle().await;
    let sent = event_loop.counters();
    let total: usize = sizes.iter().sum();
    assert_eq!(
        (sent.submitted - received.submitted, sent.completed - received.completed),
        (1, 1),
        "one send for all"
    );
    assert_eq!(sent.bytes_out - received.bytes_out, total as u64);
    assert_eq!((sent.leased, sent.copied), (0, 0));
    let got = drain(&target).0;
    assert!(got.len() == total && got.iter().all(|&byte| byte == b'!'), "it was copied");
    incoming.close();
    outgoing.close();
    settle().await;
}

fn one_that_keeps_all_it_receives_starves_nobody() {
    hoard(1);
}

// spec: RISK-38, RISK-04
fn many_that_keep_all_they_receive_starve_nobody() {
    hoard(80); // More than two groups of buffers can hold, each within what one connection may have.
}

fn hoard(hoarders: usize) {
    let data = noise(HOARD);
    let (counters, lent) = on_loop(async move {
        let event_loop = EventLoop::running().unwrap();
        let mut hoards = Vec::new();
        for _ in 0..hoarders {
            let (a, peer) = pair();
            let (transport, keeper) = attach(a, Keeper::default()).await;
            hoards.push((transport, keeper, peer, 0));
        }
        let mut others = Vec::new();
        for _ in 0..20 {
            let (a, peer) = pair();
            let (transport, _) = attach(a, Echo).await;
            others.push((transport, peer));
        }
        let mut rounds = 0;
        while rounds < 50 || hoards.iter().any(|hoard| hoard.3 < HOARD) {
            for (_, _, peer, sent) in &mut hoards {
                while let Ok(count @ 1..) = peer.write(&data[*sent..]) {
                    *sent += count;
                }
            }
            let message = &data[rounds..rounds + 1000];
            for (_, peer) in &mut others {
                peer.write_all(message).unwrap();
            }
            for (_, peer) in &others {
                assert!(drain_exactly(peer, message.len()).await == message);
            }
            rounds += 1;
        }
        settle().await;
        let counters = event_loop.counters();
        for (transport, keeper, _, _) in &hoards {
            assert!(keeper.bytes() == data, "what is kept stays what it was");
            transport.close();
        }
        others.iter().for_each(|(transport, _)| transport.close());
        settle().await;
        let lent = event_loop.counters().leased;
        drop(hoards);
        (counters, lent)
    });
    assert!(counters.copied > 0 && lent > 0, "{counters:?}");
    isolated::note(format_args!(
        "{hoarders} hoarders: {lent} buffers kept, {} receives copied, {} starved",
        counters.copied, counters.enobufs
    ));
}

// spec: TRANS-35
fn leases_outlive_their_transport_and_the_loop() {
    let expected = noise(3 * 10_000);
    let mut kept = Vec::new();
    for data in expected.chunks(10_000) {
        let event_loop = EventLoop::new().unwrap();
        let data = data.to_owned();
        let keeper = event_loop.run_until_complete(async move {
            let (a, mut peer) = pair();
            let (transport, keeper) = attach(a, Keeper::default()).await;
            peer.write_all(&data).unwrap();
            settle().await;
            transport.close();
            settle().await;
            assert!(transport.get_protocol().is_none());
            keeper
        });
        kept.append(&mut keeper.unwrap().kept.borrow_mut());
        event_loop.close().unwrap();
    }
    // Others come, on the ring that this thread has kept, and all of their buffers are used.
    on_loop(async {
        let (a, mut peer) = pair();
        let (transport, _) = attach(a, Silent).await;
        for _ in 0..600 {
            peer.write_all(&[b'?'; 16_000]).unwrap();
            turn(2).await;
        }
        transport.close();
    });
    let kept: Vec<_> = kept.into_iter().map(Received::into_bytes).collect();
    let check = move || assert!(kept.concat() == expected);
    thread::spawn(check).join().unwrap();
}

/// Gives all it receives to another thread.
struct Giver {
    away: Sender<Bytes>,
    out: Transport,
}

impl Protocol for Giver {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.away.send(data.into_bytes()).unwrap();
        Ok(())
    }

    fn connection_made(&self, _: &Transport) {
        OUT.set(Some(self.out.clone()));
    }
}

/// Where what comes back goes. Ends with its peer.
struct Out(Rc<Event>);

impl Protocol for Out {
    fn connection_lost(&self, _: &Transport, error: Option<&std::io::Error>) {
        assert!(error.is_none());
        OUT.take();
        self.0.set();
    }
}

thread_local! {
    static OUT: RefCell<Option<Transport>> = const { RefCell::new(None) };
}

/// The loop has nothing to do of its own: all that happens comes from other threads. How often it sleeps meanwhile depends on
/// the machine, so that is noted only.
// spec: RISK-37, RISK-38
fn bytes_go_to_another_thread_and_back_to_a_loop_that_does_nothing_else() {
    for buffers in [4, 256] {
        let config =
            DriverConfig { buffers, buffer_size: 4096, groups: 1, ..DriverConfig::default() };
        let event_loop = EventLoop::builder().driver(config).build().unwrap();
        let data: Bytes = noise(4 << 20).into();
        let (a, source) = pair();
        let (b, target) = pair();
        let (away, elsewhere) = channel();
        let (proxy, expected) = (event_loop.proxy(), data.clone());
        let writer = thread::spawn(move || write_all(source, &data));
        let middle = thread::spawn(move || give_back(&elsewhere, &proxy, 3 * usize::from(buffers)));
        let reader = thread::spawn(move || read_all(target));
        event_loop
            .run_until_complete(async move {
                let is_over = Rc::new(Event::default());
                let (out, _) = attach(b, Out(Rc::clone(&is_over))).await;
                attach(a, Giver { away, out }).await;
                is_over.wait().await;
                settle().await;
            })
            .unwrap();
        writer.join().unwrap();
        middle.join().unwrap();
        assert!(reader.join().unwrap() == expected);
        let counters = event_loop.counters();
        isolated::note(format_args!(
            "{buffers} buffers, to another thread and back: {} wakes, {} starved, {} copied",
            counters.wakes, counters.enobufs, counters.copied
        ));
        assert_clean(&event_loop);
    }
}

/// Sends parts back when it has many of them, and its own copies of others.
fn give_back(elsewhere: &Receiver<Bytes>, proxy: &LoopProxy, many: usize) {
    let mut parts: Vec<Bytes> = Vec::new();
    let send = |parts: &mut Vec<Bytes>| {
        for (index, part) in parts.drain(..).enumerate() {
            let part = if index % 3 == 0 { Bytes::copy_from_slice(&part) } else { part };
            let back = move |_: &EventLoop| {
                OUT.with_borrow(|out| out.as_ref().unwrap().write(part)).unwrap();
            };
            proxy.call_soon_threadsafe(back).unwrap();
        }
    };
    loop {
        // The loop sleeps, or will soon: nothing comes any more for now.
        match elsewhere.recv_timeout(Duration::from_millis(1)) {
            Ok(part) => parts.push(part),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => send(&mut parts),
            Err(_) => break,
        }
        if parts.len() >= many {
            send(&mut parts);
        }
    }
    send(&mut parts);
    let end = |_: &EventLoop| OUT.with_borrow(|out| out.as_ref().unwrap().write_eof()).unwrap();
    proxy.call_soon_threadsafe(end).unwrap();
}

fn blocking(socket: Socket) -> UnixStream {
    socket.set_nonblocking(false).unwrap();
    OwnedFd::from(socket).into()
}

fn write_all(socket: Socket, data: &[u8]) {
    let mut stream = blocking(socket);
    for part in data.chunks(30_000) {
        stream.write_all(part).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn read_all(socket: Socket) -> Vec<u8> {
    let mut stream = blocking(socket);
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    data
}

const HOARD: usize = 600 * 1024;
