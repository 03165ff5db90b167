//! Writers that stop when they are told to, readers that pause.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{EventLoop, Listen, Protocol, ProtocolResult, Received, Transport};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::{self, Test};
use ringloop_tests::sockets::{address_of, bound, noise, pair, tcp_pair, tcp_socket};
use socket2::{SockAddr, Socket};

use crate::allow_descriptors;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "stopped_at_pause_writing_a_server_holds_the_high_water_mark_and_one_chunk_per_client",
        body: stopped_at_pause_writing_a_server_holds_the_high_water_mark_and_one_chunk_per_client,
        deadline: DEADLINE,
    },
    Test {
        name: "a_paused_reader_stops_its_peer_and_gets_everything_later",
        body: a_paused_reader_stops_its_peer_and_gets_everything_later,
        deadline: DEADLINE,
    },
    Test {
        name: "a_paused_reader_stops_a_transport_too",
        body: a_paused_reader_stops_a_transport_too,
        deadline: DEADLINE,
    },
];

const CLIENTS: usize = 1000;
const CHUNK: usize = 16 * 1024;
const HIGH: usize = 64 * 1024;
const LOW: usize = 16 * 1024;
/// Bytes after which a reader pauses.
const FIRST: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(600);

/// Writes as long as it may.
#[derive(Default)]
struct Fountain {
    transport: RefCell<Option<Transport>>,
    is_stopped: Cell<bool>,
    stops: Cell<usize>,
    poured: Cell<usize>,
    /// What was buffered when it had to stop.
    sizes: RefCell<Vec<usize>>,
}

impl Fountain {
    fn pour(&self, transport: &Transport) {
        while !self.is_stopped.get() {
            self.poured.set(self.poured.get() + CHUNK);
            // As it is in one case, copied in the other.
            if self.poured.get() % (2 * CHUNK) == 0 {
                transport.write(vec![b'v'; CHUNK]).unwrap();
            } else {
                transport.write(&[b's'; CHUNK]).unwrap();
            }
        }
    }

    /// What it holds while it is stopped.
    fn held(&self) -> usize {
        assert!(self.is_stopped.get());
        assert!(self.sizes.borrow().iter().all(|&size| size > HIGH && size <= HIGH + CHUNK));
        let held = self.transport.borrow().as_ref().unwrap().get_write_buffer_size();
        assert!(held > LOW && held <= HIGH + CHUNK, "{held}");
        held
    }
}

impl Protocol for Fountain {
    fn connection_made(&self, transport: &Transport) {
        self.transport.replace(Some(transport.clone()));
        self.pour(transport);
    }

    fn pause_writing(&self, transport: &Transport) {
        self.sizes.borrow_mut().push(transport.get_write_buffer_size());
        self.is_stopped.set(true);
        self.stops.set(self.stops.get() + 1);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.is_stopped.set(false);
        self.pour(transport);
    }
}

// spec: FLOW-05, FLOW-08, WRITE-03
fn stopped_at_pause_writing_a_server_holds_the_high_water_mark_and_one_chunk_per_client() {
    allow_descriptors(2 * CLIENTS + 100);
    on_loop(async {
        let listener = bound();
        listener.set_send_buffer_size(CHUNK).unwrap();
        let address = SockAddr::from(address_of(&listener));
        let fountains = Rc::new(RefCell::new(Vec::new()));
        let made = Rc::clone(&fountains);
        let factory = move || {
            let fountain = Rc::new(Fountain::default());
            made.borrow_mut().push(Rc::clone(&fountain));
            fountain
        };
        let event_loop = EventLoop::running().unwrap();
        let listen = Listen::default().sock(listener).backlog(4096);
        let server = event_loop.create_server(factory, listen).await.unwrap();
        let before = resident_bytes();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = tcp_socket();
            client.set_recv_buffer_size(CHUNK).unwrap();
            client.connect(&address).unwrap();
            client.set_nonblocking(true).unwrap();
            clients.push(client);
        }
        settle().await;
        let held = || fountains.borrow().iter().map(|fountain| fountain.held()).sum::<usize>();
        assert_eq!(fountains.borrow().len(), CLIENTS);
        let (total, used) = (held(), resident_bytes() - before);
        isolated::note(format_args!(
            "{CLIENTS} clients that never read: {total} bytes are buffered, {used} of memory"
        ));
        // The transports and the allocator have their part.
        assert!(used < CLIENTS * (HIGH + 2 * CHUNK), "{used} bytes for {total}");

        // One reads: its fountain goes on. The kernel may find room for others too, by and by.
        let sent = event_loop.counters().bytes_out;
        let mut got = 0;
        while got < 1 << 20 {
            got += read_some(&clients[0]);
            turn(1).await;
        }
        settle().await;
        let goes_on: Vec<_> =
            fountains.borrow().iter().map(|fountain| fountain.stops.get()).collect();
        assert!(goes_on[0] > 1, "connections are accepted in order: {goes_on:?}");
        let sent = event_loop.counters().bytes_out - sent;
        assert!(sent as usize >= got - HIGH, "{sent}");
        held();

        server.close();
        server.abort_clients();
        server.wait_closed().await.unwrap();
        drop(clients);
        fountains.take();
    });
}

fn read_some(mut socket: &Socket) -> usize {
    match socket.read(&mut [0; 65536]) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// What this process has in memory.
fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Counts what it receives and compares it.
struct Sink {
    data: Rc<[u8]>,
    received: Cell<usize>,
    /// Pauses from the beginning, or with the first data.
    pauses_at_once: bool,
}

impl Protocol for Sink {
    fn connection_made(&self, transport: &Transport) {
        if self.pauses_at_once {
            transport.pause_reading();
        }
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        let start = self.received.get();
        assert!(*data == self.data[start..start + data.len()]);
        if start == 0 && !self.pauses_at_once {
            transport.pause_reading();
        }
        self.received.set(start + data.len());
        Ok(())
    }
}

// spec: TRANS-24, RISK-04, RISK-03
fn a_paused_reader_stops_its_peer_and_gets_everything_later() {
    let data: Rc<[u8]> = noise(32 << 20).into();
    for pauses_at_once in [true, false] {
        for (a, mut b) in [pair(), tcp_pair()] {
            let data = Rc::clone(&data);
            on_loop(async move {
                let room = b.send_buffer_size().unwrap() + a.recv_buffer_size().unwrap();
                let sink = Sink { data: Rc::clone(&data), received: Cell::new(0), pauses_at_once };
                let event_loop = EventLoop::running().unwrap();
                let (transport, sink) = event_loop.create_connection(|| sink, a).await.unwrap();
                b.write_all(&data[..FIRST]).unwrap();
                settle().await;
                let before = (sink.received.get(), event_loop.counters().leased);
                assert_eq!(before.0, if pauses_at_once { 0 } else { FIRST });
                let mut sent = FIRST;
                for _ in 0..2 {
                    sent += fill(&mut b, &data[sent..]).await;
                    // Nothing is heard, nothing is read ahead any more, and it stays so.
                    assert_eq!((sink.received.get(), event_loop.counters().leased), before);
                    // The kernel makes the buffers of TCP larger as it likes, and when it likes, but not without end.
                    assert!(sent < room + (16 << 20), "{sent} with room for {room}");
                    settle().await;
                }
                transport.resume_reading();
                while sink.received.get() < sent {
                    turn(1).await;
                }
                settle().await;
                assert_eq!(sink.received.get(), sent);
                transport.close();
            });
        }
    }
}

/// Sends until nothing more can be sent however long one waits.
async fn fill(socket: &mut Socket, data: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        let before = sent;
        while let Ok(count) = socket.write(&data[sent..]) {
            assert!(count > 0, "nobody stops the sender");
            sent += count;
        }
        if sent == before {
            return sent;
        }
        settle().await;
    }
}

// spec: TRANS-24, FLOW-05, FLOW-06, PROTO-07
fn a_paused_reader_stops_a_transport_too() {
    on_loop(async {
        for (a, b) in [pair(), tcp_pair()] {
            let event_loop = EventLoop::running().unwrap();
            let zeros: Rc<[u8]> = [b's'; CHUNK]
                .iter()
                .chain(&[b'v'; CHUNK])
                .copied()
                .cycle()
                .take(32 << 20)
                .collect();
            let sink = Sink { data: zeros, received: Cell::new(0), pauses_at_once: true };
            let (reader, sink) = event_loop.create_connection(|| sink, a).await.unwrap();
            let (writer, fountain) =
                event_loop.create_connection(Fountain::default, b).await.unwrap();
            settle().await;
            assert_eq!((fountain.stops.get(), fountain.is_stopped.get()), (1, true));
            fountain.held();
            let poured = fountain.poured.get();
            settle().await;
            assert_eq!((fountain.poured.get(), sink.received.get()), (poured, 0));
            reader.resume_reading();
            while fountain.stops.get() < 3 {
                turn(1).await;
            }
            assert!(fountain.poured.get() > poured);
            reader.pause_reading();
            let received = sink.received.get();
            settle().await;
            assert!(fountain.is_stopped.get() && sink.received.get() == received);
            reader.abort();
            writer.abort();
            settle().await;
            fountain.transport.take();
        }
    });
}
