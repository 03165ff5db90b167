//! What arrives, when it is delivered, and what pausing does.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::thread;

use ringloop::{
    AfterEof, Buffered, BufferedProtocol, DriverKind, Features, Protocol, ProtocolResult, Received,
    Transport, yield_now,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::recorder::Event;
use ringloop_tests::sockets::{noise, pair, tcp_pair};

use super::{attach, events, recorder, running};

// spec: TRANS-11, ERR-10
#[test]
fn bytes_that_somebody_else_takes_first_are_no_event() {
    on_loop(async {
        for (a, mut b) in [pair(), tcp_pair()] {
            let mut thief = a.try_clone().unwrap();
            let (recorder, trace) = recorder();
            let (transport, protocol) = attach(a, recorder).await;
            turn(3).await;
            b.write_all(b"stolen").unwrap();
            assert_eq!(thief.read(&mut [0; 16]).unwrap(), 6);
            settle().await;
            b.write_all(b"left").unwrap();
            settle().await;
            transport.close();
            protocol.lost().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "data_received(b'left')", "connection_lost(None)"]
            );
        }
    });
}

// spec: TRANS-12, TRANS-31, RISK-07
#[test]
fn a_queued_read_event_does_nothing_after_an_abort() {
    on_loop(async {
        let (a, mut b) = pair();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        turn(3).await;
        b.write_all(b"late").unwrap();
        yield_now().await; // The event stands behind this step in the queue.
        transport.abort();
        protocol.lost().await;
        assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
    });
}

/// Counts what comes in each iteration.
#[derive(Default)]
struct PerIteration {
    bytes: RefCell<BTreeMap<u64, usize>>,
    largest_call: Cell<usize>,
    smallest_call: Cell<usize>,
    ended: Event,
}

impl Protocol for PerIteration {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        let iteration = running().stats().iterations;
        *self.bytes.borrow_mut().entry(iteration).or_default() += data.len();
        self.largest_call.set(self.largest_call.get().max(data.len()));
        self.smallest_call.set(self.smallest_call.get().min(data.len()));
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.ended.set();
        Ok(AfterEof::Close)
    }
}

// spec: TRANS-10, RISK-22, PROTO-09
#[test]
fn at_most_256_kib_are_delivered_in_one_iteration() {
    on_loop(async {
        let (a, b) = tcp_pair();
        let count =
            Rc::new(PerIteration { smallest_call: Cell::new(usize::MAX), ..Default::default() });
        let sender = thread::spawn(move || {
            let mut b = b;
            b.set_nonblocking(false).unwrap();
            b.write_all(&vec![1; 8 << 20]).unwrap();
        });
        let protocol = Rc::clone(&count);
        running().create_connection(|| protocol, a).await.unwrap();
        count.ended.wait().await;
        sender.join().unwrap();
        let bytes = count.bytes.borrow();
        assert_eq!(bytes.values().sum::<usize>(), 8 << 20);
        assert!(bytes.values().all(|&bytes| bytes <= 256 * 1024), "{bytes:?}");
        assert!(count.smallest_call.get() > 0);
    });
}

// spec: TRANS-10, TRANS-21, PROTO-09
#[test]
fn who_fills_buffers_gets_more_at_a_time_and_a_pause_holds_back_the_next_piece() {
    on_loop(async {
        let info = running().driver_info().unwrap();
        if info.driver == DriverKind::Uring && !info.features.contains(Features::MSHOT_LIMIT) {
            return println!("skipped: there are no large buffers");
        }
        let (a, mut b) = pair();
        let sizes = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&sizes);
        let (recorder, _) = recorder();
        let recorder = recorder.count_data().on_data(move |transport, data| {
            seen.borrow_mut().push(data.len());
            if data.len() > SMALL {
                transport.pause_reading();
            }
            Ok(())
        });
        let (transport, protocol) = attach(a, recorder).await;
        for _ in 0..15 {
            b.write_all(&[1; SMALL]).unwrap();
            settle().await;
        }
        assert_eq!(sizes.take(), [SMALL; 15]);
        b.write_all(&[2; 2 * LARGE]).unwrap();
        settle().await;
        assert_eq!(sizes.take(), [LARGE]);
        transport.resume_reading();
        settle().await;
        assert_eq!(sizes.take(), [LARGE]);
        transport.resume_reading();
        b.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(sizes.take(), [1]);
        transport.close();
        protocol.lost().await;
    });
}

// spec: TRANS-24, RISK-03, RISK-04
#[test]
fn a_paused_transport_reads_at_most_256_kib_ahead_and_loses_nothing() {
    on_loop(async {
        let (a, mut b) = tcp_pair();
        let data = noise(24 << 20);
        let expected = data.clone();
        let got = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&got);
        let (recorder, _) = recorder();
        let recorder = recorder.count_data().on_data(move |transport, data| {
            let first = seen.borrow().is_empty();
            seen.borrow_mut().extend_from_slice(&data);
            if first {
                transport.pause_reading();
            }
            Ok(())
        });
        let (transport, protocol) = attach(a, recorder).await;
        let sender = thread::spawn(move || {
            b.set_nonblocking(false).unwrap();
            b.write_all(&data).unwrap();
        });
        while got.borrow().is_empty() {
            yield_now().await;
        }
        settle().await;
        let read_ahead = running().counters().bytes_in;
        // A kernel that cannot limit a multishot receive fills up to 33 buffers before anybody can stop it.
        let features = running().driver_info().unwrap().features;
        let most = if features.contains(Features::MSHOT_LIMIT) { 16 } else { 33 };
        assert!(read_ahead <= most * 16 * 1024, "{read_ahead} bytes");
        turn(100).await;
        assert_eq!(running().counters().bytes_in, read_ahead);
        assert!(!sender.is_finished());
        assert_eq!(got.borrow().len(), protocol.total());
        transport.resume_reading();
        protocol.lost().await;
        sender.join().unwrap();
        assert!(*got.borrow() == expected);
    });
}

// spec: TRANS-25, RISK-26
#[test]
fn resuming_delivers_nothing_inside_the_call() {
    on_loop(async {
        let (a, mut b) = pair();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        transport.pause_reading();
        b.write_all(b"data").unwrap();
        settle().await;
        transport.resume_reading();
        assert_eq!(events(&trace), ["connection_made"]);
        transport.pause_reading();
        settle().await;
        assert_eq!(events(&trace), ["connection_made"]);
        transport.resume_reading();
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "data_received(b'data')"]);
        transport.close();
        protocol.lost().await;
    });
}

#[test]
fn a_pause_that_ends_in_the_same_iteration_asks_nothing_of_the_kernel() {
    on_loop(async {
        let (a, _b) = tcp_pair();
        let (recorder, _) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        settle().await;
        let before = running().counters().submitted;
        transport.pause_reading();
        transport.resume_reading();
        turn(3).await;
        assert_eq!(running().counters().submitted, before);
        transport.close();
        protocol.lost().await;
    });
}

// spec: TRANS-15, PROTO-06
#[test]
fn a_kept_end_is_told_again_only_after_a_pause() {
    on_loop(async {
        for (a, b) in [pair(), tcp_pair()] {
            let (recorder, trace) = recorder();
            let (transport, protocol) = attach(a, recorder.keep_open()).await;
            b.shutdown(Shutdown::Write).unwrap();
            settle().await;
            transport.resume_reading(); // It is not paused.
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "eof_received"]);
            for _ in 0..2 {
                transport.pause_reading();
                settle().await;
                transport.resume_reading();
                settle().await;
            }
            assert_eq!(events(&trace)[1..], ["eof_received"; 3]);
            assert!(transport.is_reading());
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: TRANS-16, TRANS-17
#[test]
fn data_and_end_each_have_an_iteration() {
    on_loop(async {
        for (a, mut b) in [pair(), tcp_pair()] {
            b.write_all(b"data").unwrap();
            b.shutdown(Shutdown::Write).unwrap();
            let iterations = Rc::new(RefCell::new(Vec::new()));
            let note =
                |log: &Rc<RefCell<Vec<u64>>>| log.borrow_mut().push(running().stats().iterations);
            let [data, eof, lost] = [0; 3].map(|_| Rc::clone(&iterations));
            let (recorder, _) = recorder();
            let recorder = recorder
                .on_data(move |_, _| {
                    note(&data);
                    Ok(())
                })
                .on_eof(move |_| {
                    note(&eof);
                    Ok(())
                })
                .on_lost(move |_| note(&lost));
            let (_transport, protocol) = attach(a, recorder).await;
            protocol.lost().await;
            let iterations = iterations.borrow();
            assert!(
                iterations[0] < iterations[1] && iterations[1] + 1 == iterations[2],
                "{iterations:?}"
            );
        }
    });
}

/// Keeps every lease.
#[derive(Default)]
struct Hoarder {
    kept: RefCell<Vec<Received>>,
    ended: Event,
}

impl Protocol for Hoarder {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.kept.borrow_mut().push(data);
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.ended.set();
        Ok(AfterEof::Close)
    }
}

#[test]
fn a_protocol_that_keeps_many_leases_gets_copies_and_others_go_on() {
    on_loop(async {
        let event_loop = running();
        let hoarder = Rc::new(Hoarder::default());
        let (a, mut b) = tcp_pair();
        let protocol = Rc::clone(&hoarder);
        event_loop.create_connection(|| protocol, a).await.unwrap();
        let data = noise(16 << 20);
        let expected = data.clone();
        let sender = thread::spawn(move || {
            b.set_nonblocking(false).unwrap();
            b.write_all(&data).unwrap();
        });
        let (echo, mut peer) = pair();
        let (recorder, trace) = recorder();
        let (transport, echoing) = attach(echo, recorder.echo()).await;
        while !hoarder.ended.is_set() {
            peer.write_all(b"x").unwrap();
            while peer.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                assert!(event_loop.counters().leased <= 32 + 1, "{:?}", event_loop.counters());
                yield_now().await;
            }
        }
        sender.join().unwrap();
        assert!(event_loop.counters().copied > 0);
        assert!(hoarder.kept.borrow().concat_bytes() == expected);
        hoarder.kept.borrow_mut().clear();
        transport.close();
        echoing.lost().await;
        assert!(events(&trace).len() > 2);
    });
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for Vec<Received> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|part| part.iter().copied()).collect()
    }
}

// spec: MAP-11
#[test]
fn received_bytes_outlive_connection_and_loop() {
    let hoarder = Rc::new(Hoarder::default());
    let kept = ringloop::run({
        let hoarder = Rc::clone(&hoarder);
        async move {
            let (a, mut b) = pair();
            let protocol = Rc::clone(&hoarder);
            running().create_connection(|| protocol, a).await.unwrap();
            b.write_all(b"kept").unwrap();
            b.shutdown(Shutdown::Write).unwrap();
            hoarder.ended.wait().await;
            settle().await;
            hoarder.kept.take()
        }
    })
    .unwrap();
    assert_eq!(kept.concat_bytes(), b"kept");
    let bytes = kept[0].clone().into_bytes();
    drop(kept);
    assert_eq!(thread::spawn(move || bytes.len()).join().unwrap(), 4);
}

/// Receives into four bytes.
struct Fill {
    buffer: RefCell<[u8; 4]>,
    log: Rc<RefCell<Vec<String>>>,
    /// Replaces itself by this after its first bytes.
    next: RefCell<Option<Rc<Recorded>>>,
}

impl BufferedProtocol for Fill {
    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.log.borrow_mut().push(format!("get {hint:?}"));
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult {
        let text = String::from_utf8_lossy(&self.buffer.borrow()[..len]).into_owned();
        self.log.borrow_mut().push(format!("filled {text}"));
        if let Some(next) = self.next.take() {
            transport.set_protocol(next);
        }
        Ok(())
    }
}

struct Recorded(Rc<RefCell<Vec<String>>>);

impl Protocol for Recorded {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.0.borrow_mut().push(format!("given {}", String::from_utf8_lossy(&data)));
        Ok(())
    }
}

// spec: PROTO-03, PROTO-10, RISK-29
#[test]
fn a_buffered_protocol_lends_its_buffer_piece_by_piece_and_before_the_end() {
    on_loop(async {
        let (a, mut b) = pair();
        b.write_all(b"abcdefghij").unwrap();
        b.shutdown(Shutdown::Write).unwrap();
        let log = Rc::new(RefCell::new(Vec::new()));
        let fill =
            Fill { buffer: RefCell::default(), log: Rc::clone(&log), next: RefCell::default() };
        running().create_connection(|| Buffered::new(fill), a).await.unwrap();
        settle().await;
        assert_eq!(
            *log.borrow(),
            [
                "get None",
                "filled abcd",
                "get None",
                "filled efgh",
                "get None",
                "filled ij",
                "get None"
            ]
        );
    });
}

// spec: TRANS-41, RISK-30
#[test]
fn what_is_left_of_a_buffer_goes_to_the_protocol_that_replaced_it() {
    on_loop(async {
        let (a, mut b) = pair();
        b.write_all(b"abcdefghij").unwrap();
        let log = Rc::new(RefCell::new(Vec::new()));
        let fill = Fill {
            buffer: RefCell::default(),
            log: Rc::clone(&log),
            next: RefCell::new(Some(Rc::new(Recorded(Rc::clone(&log))))),
        };
        let (transport, _) = running().create_connection(|| Buffered::new(fill), a).await.unwrap();
        settle().await;
        assert_eq!(*log.borrow(), ["get None", "filled abcd", "given efghij"]);
        transport.close();
    });
}

// spec: TRANS-04, TRANS-22
#[test]
fn paused_and_resumed_in_connection_made_it_reads() {
    on_loop(async {
        let (a, mut b) = pair();
        b.write_all(b"early").unwrap();
        let (recorder, trace) = recorder();
        let recorder = recorder.on_made(|transport| {
            transport.pause_reading();
            transport.resume_reading();
        });
        let (transport, protocol) = attach(a, recorder).await;
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "data_received(b'early')"]);
        transport.close();
        protocol.lost().await;
    });
}

/// Bytes of one buffer, and of a large one.
const SMALL: usize = 16 * 1024;
const LARGE: usize = 64 * 1024;
