//! The end of a loop that has many connections.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    AfterEof, DriverConfig, DriverKind, EventLoop, Protocol, ProtocolResult, Received, Transport,
};
use ringloop_driver::testing::{Faults, close_kept_ring};
use ringloop_tests::idle::settle;
use ringloop_tests::isolated::Test;
use ringloop_tests::seeds::each_seed;
use ringloop_tests::sockets::{End, drain, pair, tcp_pair};
use socket2::Socket;

use crate::{allow_descriptors, allow_most_descriptors, open_descriptors};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "a_loop_dropped_with_a_thousand_connections_lets_go_of_all_and_calls_nobody",
        body: a_loop_dropped_with_a_thousand_connections_lets_go_of_all_and_calls_nobody,
        deadline: DEADLINE,
    },
    Test {
        name: "a_loop_that_closes_under_faults_leaves_nothing_behind",
        body: a_loop_that_closes_under_faults_leaves_nothing_behind,
        deadline: DEADLINE,
    },
    Test {
        name: "a_loop_with_as_many_connections_and_watchers_as_a_process_may_have_leaves_nothing_behind",
        body:
            a_loop_with_as_many_connections_and_watchers_as_a_process_may_have_leaves_nothing_behind,
        deadline: DEADLINE,
    },
    Test {
        name: "a_transport_that_is_kept_keeps_no_descriptor_of_its_loop_open",
        body: a_transport_that_is_kept_keeps_no_descriptor_of_its_loop_open,
        deadline: DEADLINE,
    },
];

const CONNECTIONS: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(600);

/// Counts its calls, keeps its transport and what it receives: cycles everywhere.
struct Citizen {
    calls: Rc<Cell<usize>>,
    /// Counts protocols that live.
    _alive: Rc<()>,
    transport: RefCell<Option<Transport>>,
    kept: RefCell<Vec<Received>>,
}

impl Citizen {
    fn new(calls: &Rc<Cell<usize>>, alive: &Rc<()>) -> Self {
        Self {
            calls: Rc::clone(calls),
            _alive: Rc::clone(alive),
            transport: RefCell::default(),
            kept: RefCell::default(),
        }
    }

    fn called(&self) {
        self.calls.set(self.calls.get() + 1);
    }
}

impl Protocol for Citizen {
    fn connection_made(&self, transport: &Transport) {
        self.called();
        self.transport.replace(Some(transport.clone()));
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.called();
        self.kept.borrow_mut().push(data);
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.called();
        Ok(AfterEof::Close)
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        self.called();
    }

    fn pause_writing(&self, _: &Transport) {
        self.called();
    }

    fn resume_writing(&self, _: &Transport) {
        self.called();
    }
}

// spec: RISK-33, TRANS-39, LOOP-16
fn a_loop_dropped_with_a_thousand_connections_lets_go_of_all_and_calls_nobody() {
    allow_descriptors(2 * CONNECTIONS + 100);
    for drops in [true, false] {
        for family in [pair, tcp_pair] {
            end(CONNECTIONS, family, drops, None);
        }
    }
}

// spec: RISK-08, RISK-38
fn a_loop_that_closes_under_faults_leaves_nothing_behind() {
    each_seed(100, |seed| {
        let family = [pair, tcp_pair][seed as usize % 2];
        end(35, family, seed % 4 < 2, Some(Faults::harmless(seed)));
    });
}

// spec: RISK-33, LOOP-16
fn a_loop_with_as_many_connections_and_watchers_as_a_process_may_have_leaves_nothing_behind() {
    let limit = allow_most_descriptors().min(20_000);
    close_kept_ring();
    let before = open_descriptors();
    let (calls, alive) = (Rc::new(Cell::new(0)), Rc::new(()));
    let event_loop = EventLoop::new().unwrap();
    let mut peers = Vec::new();
    // The two ends of each are descriptors, of which the peer's is watched, which takes a third with epoll; the loop has some
    // of its own.
    let on_ring = event_loop.driver_info().unwrap().driver == DriverKind::Uring;
    let connections = (limit - before - 10) / if on_ring { 2 } else { 3 };
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().unwrap();
            for _ in 0..connections {
                let (socket, peer) = pair();
                let citizen = Citizen::new(&calls, &alive);
                event_loop.create_connection(|| citizen, socket).await.unwrap();
                let held = Rc::clone(&alive);
                event_loop.add_reader(&peer, move |_| drop(Rc::clone(&held))).unwrap();
                peers.push(peer);
            }
            settle().await;
        })
        .unwrap();
    assert_eq!(event_loop.counters().in_flight, 2 * connections as u64);
    let calls_before = calls.get();
    event_loop.set_exception_handler(|_, _| ()); // It is told of each transport that was not closed.
    event_loop.close().unwrap();
    assert_eq!((Rc::strong_count(&alive), calls.get()), (1, calls_before));
    peers.iter().for_each(|peer| assert_eq!(drain(peer), (Vec::new(), End::Eof)));
    drop((peers, event_loop));
    close_kept_ring();
    assert_eq!(open_descriptors(), before, "descriptors");
}

fn a_transport_that_is_kept_keeps_no_descriptor_of_its_loop_open() {
    close_kept_ring();
    let before = open_descriptors();
    let (calls, alive) = (Rc::new(Cell::new(0)), Rc::new(()));
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let made = event_loop.run_until_complete(async {
        let running = EventLoop::running().unwrap();
        running.create_connection(|| Citizen::new(&calls, &alive), ours).await
    });
    let (transport, protocol) = made.unwrap().unwrap();
    drop((event_loop, theirs));
    close_kept_ring();
    assert_eq!(open_descriptors(), before, "descriptors");
    drop((transport, protocol));
}

fn end(connections: usize, family: fn() -> (Socket, Socket), drops: bool, faults: Option<Faults>) {
    close_kept_ring();
    let before = open_descriptors();
    let (calls, alive) = (Rc::new(Cell::new(0)), Rc::new(()));
    let config = DriverConfig { faults, ..DriverConfig::default() };
    let event_loop = EventLoop::builder().driver(config).build().unwrap();
    let mut peers = Vec::new();
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().unwrap();
            let mut transports = Vec::new();
            for index in 0..connections {
                let (socket, mut peer) = family();
                let citizen = Citizen::new(&calls, &alive);
                let (transport, _) =
                    event_loop.create_connection(|| citizen, socket).await.unwrap();
                peer.write_all(b"kept").unwrap();
                prepare(index % KINDS, &transport);
                transports.push(transport);
                peers.push(peer);
            }
            settle().await;
            for (index, (transport, peer)) in transports.iter().zip(&mut peers).enumerate() {
                last_moment(index % KINDS, transport, peer);
            }
        })
        .unwrap();
    assert_eq!(Rc::strong_count(&alive), connections + 1);
    let calls_before = calls.get();
    assert!(calls_before >= connections);
    if !drops {
        event_loop.close().unwrap();
    }
    drop(event_loop);
    assert_eq!(Rc::strong_count(&alive), 1, "protocols are left");
    assert_eq!(calls.get(), calls_before, "callbacks");
    close_kept_ring();
    assert_eq!(open_descriptors(), before + connections, "descriptors");
    for (index, peer) in peers.iter().enumerate() {
        peer.set_nonblocking(false).unwrap(); // A busy kernel delivers late what it has of a connection that is closed.
        let (got, end) = drain(peer);
        match index % KINDS {
            STAGED if faults.is_none() => assert_eq!(got, b"staged"),
            STAGED => assert!(b"staged".starts_with(&got)),
            BUFFERED | FLUSHING => assert!(!got.is_empty() && got.len() < LONG),
            _ => assert!(got.is_empty()),
        }
        let resets = End::Error("ConnectionResetError[ECONNRESET]".to_owned());
        let has_unread = matches!(index % KINDS, PAUSED | FLUSHING | UNREAD);
        assert!(end == End::Eof || has_unread && end == resets, "{}: {end:?}", index % KINDS);
    }
}

// The states in which the end finds connections.
const PAUSED: usize = 1;
const STAGED: usize = 2;
const BUFFERED: usize = 3;
const FLUSHING: usize = 4;
const HALF_CLOSED: usize = 5;
const UNREAD: usize = 6;
const KINDS: usize = 7;

fn prepare(kind: usize, transport: &Transport) {
    match kind {
        PAUSED => transport.pause_reading(),
        BUFFERED => transport.write(vec![0; LONG]).unwrap(),
        FLUSHING => {
            transport.write(vec![0; LONG]).unwrap();
            transport.close();
        }
        HALF_CLOSED => transport.write_eof().unwrap(),
        _ => {}
    }
}

fn last_moment(kind: usize, transport: &Transport, peer: &mut Socket) {
    match kind {
        STAGED => transport.write(b"staged").unwrap(),
        UNREAD => peer.write_all(b"nobody will know").unwrap(),
        _ => {}
    }
}

/// Bytes that no socket takes at once.
const LONG: usize = 8 << 20;
