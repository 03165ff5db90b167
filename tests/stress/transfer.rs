//! Streams of bytes in both directions, while all goes wrong below.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringloop::{
    AfterEof, Buffered, BufferedProtocol, EventLoop, Protocol, ProtocolResult, Received, Target,
    Transport, WriteMode,
};
use ringloop_driver::testing::Faults;
use ringloop_tests::clean::on_loop_with;
use ringloop_tests::idle::turn;
use ringloop_tests::isolated::Test;
use ringloop_tests::recorder::Event;
use ringloop_tests::seeds::{Random, each_seed};
use ringloop_tests::sockets::{narrow_tcp_pair, noise, pair};
use socket2::Socket;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "every_byte_arrives_in_order_whatever_goes_wrong_below",
        body: every_byte_arrives_in_order_whatever_goes_wrong_below,
        deadline: Duration::from_secs(240),
    },
    Test {
        name: "what_arrives_before_an_error_is_the_beginning_of_what_was_sent",
        body: what_arrives_before_an_error_is_the_beginning_of_what_was_sent,
        deadline: Duration::from_secs(240),
    },
];

const SEEDS: u64 = 1000;

// spec: RISK-16, RISK-21, WRITE-13, FLOW-06
fn every_byte_arrives_in_order_whatever_goes_wrong_below() {
    let data: Rc<[u8]> = noise(LONGEST + start(1)).into();
    each_seed(SEEDS, |seed| {
        for end in transfer(seed, Faults::harmless(seed), &data) {
            assert_eq!(end.received, end.expected, "bytes");
            assert!(end.error.is_none(), "{:?}", end.error);
        }
    });
}

// spec: RISK-24, ERR-04, TRANS-33
fn what_arrives_before_an_error_is_the_beginning_of_what_was_sent() {
    let data: Rc<[u8]> = noise(LONGEST + start(1)).into();
    let mut failed = 0;
    let mut runs = 0;
    each_seed(SEEDS, |seed| {
        let faults = Faults { errors: 20, ..Faults::harmless(seed) };
        let ends = transfer(seed, faults, &data);
        runs += 1;
        failed += usize::from(ends.iter().any(|end| end.error.is_some()));
        if ends.iter().all(|end| end.error.is_none()) {
            assert!(ends.iter().all(|end| end.received == end.expected), "bytes");
        }
    });
    assert!(runs < 100 || failed > runs / 10 && failed < runs, "{failed} of {runs} had an error");
}

/// How one side of a transfer ended.
struct End {
    received: usize,
    expected: usize,
    error: Option<io::Error>,
}

/// Both sides send, receive, pause and go on as the seed wants. What arrives is compared at once.
fn transfer(seed: u64, faults: Faults, data: &Rc<[u8]>) -> Vec<End> {
    let data = Rc::clone(data);
    on_loop_with(Some(faults), async move {
        let mut random = Random::new(seed);
        let (a, b) = if random.once_in(2) { pair() } else { narrow_tcp_pair() };
        let lengths = [random.below(LONGEST), random.below(LONGEST)];
        let mut sides = Vec::new();
        for (socket, sends, receives) in [(a, 0, 1), (b, 1, 0)] {
            let side = Rc::new(Side {
                data: Rc::clone(&data),
                to_send: start(sends)..start(sends) + lengths[sends],
                to_receive: start(receives)..start(receives) + lengths[receives],
                sent: Cell::new(start(sends)),
                received: Cell::new(start(receives)),
                calls: Cell::new(0),
                is_wrong: Cell::new(false),
                may_write: Cell::new(true),
                has_eof: Cell::new(false),
                buffer: RefCell::new(vec![0; 1 + random.below(20_000)]),
                error: RefCell::default(),
                lost: Event::default(),
            });
            let mode = random.pick(&[WriteMode::Batched, WriteMode::Immediate]);
            let transport = side.attach(socket, mode, random.once_in(3)).await;
            sides.push((side, transport));
        }
        while sides.iter().any(|(side, _)| !side.lost.is_set()) {
            for (side, transport) in &sides {
                side.work(transport, &mut random);
            }
            turn(random.below(2)).await;
        }
        sides.iter().map(|(side, _)| side.end()).collect()
    })
}

/// Where in the data each side begins.
fn start(side: usize) -> usize {
    side * 1000
}

/// One end of a connection, and the protocol of either kind for it.
struct Side {
    data: Rc<[u8]>,
    to_send: Range<usize>,
    to_receive: Range<usize>,
    /// Places in the data.
    sent: Cell<usize>,
    received: Cell<usize>,
    calls: Cell<usize>,
    is_wrong: Cell<bool>,
    may_write: Cell<bool>,
    has_eof: Cell<bool>,
    buffer: RefCell<Vec<u8>>,
    error: RefCell<Option<io::Error>>,
    lost: Event,
}

impl Side {
    async fn attach(self: &Rc<Self>, socket: Socket, mode: WriteMode, buffered: bool) -> Transport {
        let event_loop = EventLoop::running().unwrap();
        let target = Target::from(socket).write_mode(mode);
        let side = Rc::clone(self);
        if buffered {
            event_loop.create_connection(|| Buffered::from(side), target).await.unwrap().0
        } else {
            event_loop.create_connection(|| side, target).await.unwrap().0
        }
    }

    fn work(&self, transport: &Transport, random: &mut Random) {
        match random.below(4) {
            0 => transport.pause_reading(),
            1 => transport.resume_reading(),
            _ => {}
        }
        if transport.is_closing() {
            return;
        }
        if self.sent.get() < self.to_send.end {
            if self.may_write.get() {
                self.send(transport, random);
            }
        } else {
            transport.write_eof().unwrap();
            if self.has_eof.get() {
                transport.close();
            }
        }
    }

    fn send(&self, transport: &Transport, random: &mut Random) {
        let sent = self.sent.get();
        let most = random.pick(&[100, 3000, 30_000, 200_000]);
        let end = (sent + 1 + random.below(most)).min(self.to_send.end);
        let part = &self.data[sent..end];
        self.sent.set(end);
        match random.below(4) {
            0 => transport.write(part),
            1 => transport.write(part.to_vec()),
            2 => transport.write(Bytes::from_owner(part.to_vec())),
            _ => transport.writelines(part.chunks(1 + random.below(part.len()))),
        }
        .unwrap();
    }

    fn receive(&self, transport: &Transport, data: &[u8]) {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() % 5 == 0 {
            transport.pause_reading(); // Perhaps in the middle of what has arrived.
        }
        let start = self.received.get();
        let end = start + data.len();
        let is_right = end <= self.to_receive.end && self.data[start..end] == *data;
        self.is_wrong.set(self.is_wrong.get() || !is_right || self.lost.is_set());
        self.received.set(end);
    }

    fn lose(&self, error: Option<&io::Error>) {
        self.is_wrong.set(self.is_wrong.get() || self.lost.is_set());
        self.error.replace(error.map(|error| error.kind().into()));
        self.lost.set();
    }

    fn end(&self) -> End {
        assert!(!self.is_wrong.get(), "other bytes, or a callback that should not be");
        End {
            received: self.received.get() - self.to_receive.start,
            expected: self.to_receive.len(),
            error: self.error.take(),
        }
    }
}

impl Protocol for Side {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        self.receive(transport, &data);
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.has_eof.set(true);
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.lose(error);
    }

    fn pause_writing(&self, _: &Transport) {
        self.is_wrong.set(self.is_wrong.get() || !self.may_write.replace(false));
    }

    fn resume_writing(&self, _: &Transport) {
        self.is_wrong.set(self.is_wrong.get() || self.may_write.replace(true));
    }
}

impl BufferedProtocol for Side {
    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, transport: &Transport, length: usize) -> ProtocolResult {
        self.receive(transport, &self.buffer.borrow()[..length]);
        Ok(())
    }

    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        Protocol::eof_received(self, transport)
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.lose(error);
    }

    fn pause_writing(&self, transport: &Transport) {
        Protocol::pause_writing(self, transport);
    }

    fn resume_writing(&self, transport: &Transport) {
        Protocol::resume_writing(self, transport);
    }
}

const LONGEST: usize = 1_000_000;
