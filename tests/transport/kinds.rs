//! What holds for every stream transport, whatever is below: one body per rule, run over each kind.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;

use ringloop::extra_info::ExtraKey;
use ringloop::{
    Buffered, BufferedProtocol, IntoProtocol, Protocol, ProtocolResult, Received, Target,
    Transport, WriteMode,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::memory::Memory;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{noise, pair, tcp_pair};
use ringloop_tests::trace::Trace;

use super::{events, recorder, running};

/// What a connection is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tcp(WriteMode),
    Unix(WriteMode),
    Memory,
}

const KINDS: [Kind; 5] = [
    Kind::Tcp(WriteMode::Batched),
    Kind::Tcp(WriteMode::Immediate),
    Kind::Unix(WriteMode::Batched),
    Kind::Unix(WriteMode::Immediate),
    Kind::Memory,
];

impl Kind {
    /// Connects two protocols, and returns when both have heard of it.
    pub(crate) async fn connect<L: IntoProtocol, R: IntoProtocol>(
        self,
        left: L,
        right: R,
    ) -> (Transport, Transport) {
        let ((a, b), mode) = match self {
            Self::Tcp(mode) => (tcp_pair(), mode),
            Self::Unix(mode) => (pair(), mode),
            Self::Memory => {
                let [left, right] =
                    [left.into_protocol().unwrap().1, right.into_protocol().unwrap().1];
                let ends = Memory::connect(left, right);
                settle().await;
                return ends;
            }
        };
        let [a, b] = [a, b].map(|socket| Target::from(socket).write_mode(mode));
        let event_loop = running();
        let (left, _) = event_loop.create_connection(|| left, a).await.unwrap();
        let (right, _) = event_loop.create_connection(|| right, b).await.unwrap();
        settle().await;
        (left, right)
    }

    /// More than it takes before somebody reads.
    pub(crate) fn much(self) -> usize {
        match self {
            Self::Tcp(_) => 16 << 20,
            Self::Unix(_) | Self::Memory => 1 << 20,
        }
    }

    /// A recorder that leaves the write mode as it is.
    pub(crate) fn recorder(self) -> (Recorder, Trace) {
        let trace = Trace::new();
        let (Self::Tcp(mode) | Self::Unix(mode)) = self else { return recorder() };
        (Recorder::new(&trace, mode), trace)
    }
}

/// Runs `body` on a loop of its own for each kind.
pub(crate) fn on_each_kind(body: impl AsyncFn(Kind)) {
    for kind in KINDS {
        println!("over {kind:?}");
        on_loop(body(kind));
    }
}

// spec: TRANS-01, PROTO-06, PROTO-08, TRANS-14
#[test]
fn calls_come_in_the_order_of_the_contract() {
    on_each_kind(async |kind| {
        let (left, left_trace) = kind.recorder();
        let (right, right_trace) = kind.recorder();
        let left = left.on_made(|transport| transport.write("hello").unwrap());
        let (left, right) = kind.connect(left, right.echo()).await;
        left.write_eof().unwrap();
        settle().await;
        assert_eq!(
            events(&right_trace),
            ["connection_made", "data_received(b'hello')", "eof_received", "connection_lost(None)"]
        );
        assert_eq!(
            events(&left_trace),
            ["connection_made", "data_received(b'hello')", "eof_received", "connection_lost(None)"]
        );
        for transport in [left, right] {
            assert!(transport.is_closing() && transport.get_protocol().is_none());
        }
    });
}

/// Keeps what it gets.
#[derive(Default)]
struct Keeps(Rc<RefCell<Vec<u8>>>);

impl Protocol for Keeps {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        assert!(!data.is_empty());
        self.0.borrow_mut().extend_from_slice(&data);
        Ok(())
    }
}

// spec: FLOW-05, FLOW-06, FLOW-09, TRANS-24
#[test]
fn a_writer_is_paused_inside_its_write_and_resumed_when_the_peer_reads() {
    on_each_kind(async |kind| {
        let keeps = Keeps::default();
        let got = Rc::clone(&keeps.0);
        let (left, trace) = kind.recorder();
        let (left, right) = kind.connect(left, keeps).await;
        right.pause_reading();
        let data = noise(kind.much());
        left.write("first").unwrap();
        assert_eq!(events(&trace), ["connection_made"]);
        left.write(&*data).unwrap();
        assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        assert!(left.get_write_buffer_size() > left.get_write_buffer_limits().1);
        left.write("last").unwrap(); // Nothing is refused.
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        right.resume_reading();
        while got.borrow().len() < kind.much() + 9 {
            settle().await;
        }
        assert_eq!(events(&trace), ["connection_made", "pause_writing", "resume_writing"]);
        assert_eq!(left.get_write_buffer_size(), 0);
        assert!(*got.borrow() == [b"first", &*data, b"last"].concat());
        left.close();
        settle().await;
    });
}

// spec: FLOW-01, FLOW-02, FLOW-03, FLOW-04
#[test]
fn water_marks_follow_from_each_other_and_are_checked_at_once() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let (left, right) = kind.connect(left, Keeps::default()).await;
        assert_eq!(left.get_write_buffer_limits(), (16384, 65536));
        right.pause_reading();
        left.set_write_buffer_limits(Some(2 * kind.much()), None).unwrap();
        assert_eq!(left.get_write_buffer_limits(), (kind.much() / 2, 2 * kind.much()));
        left.write(vec![0; kind.much()]).unwrap();
        assert_eq!(events(&trace), ["connection_made"]);
        let error = left.set_write_buffer_limits(Some(1), Some(2)).unwrap_err();
        assert_eq!(error.to_string(), "high (1) must be >= low (2) must be >= 0");
        left.set_write_buffer_limits(Some(0), None).unwrap();
        assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        left.abort();
        settle().await;
        right.abort();
        settle().await;
    });
}

// spec: TRANS-14, TRANS-15, WRITE-30, WRITE-31
#[test]
fn an_end_that_is_kept_leaves_the_other_direction_open() {
    on_each_kind(async |kind| {
        let (left, left_trace) = kind.recorder();
        let (right, right_trace) = kind.recorder();
        let (left, right) = kind.connect(left, right.keep_open()).await;
        assert!(left.can_write_eof());
        left.write_eof().unwrap();
        left.write_eof().unwrap();
        settle().await;
        assert_eq!(events(&right_trace), ["connection_made", "eof_received"]);
        assert!(!right.is_closing() && right.is_reading());
        right.write("answer").unwrap();
        settle().await;
        assert_eq!(events(&left_trace), ["connection_made", "data_received(b'answer')"]);
        right.pause_reading();
        right.resume_reading();
        assert_eq!(events(&right_trace).len(), 2);
        settle().await;
        assert_eq!(events(&right_trace)[2..], ["eof_received"]);
        right.close();
        settle().await;
        assert_eq!(events(&right_trace)[3..], ["connection_lost(None)"]);
        assert_eq!(events(&left_trace)[2..], ["eof_received", "connection_lost(None)"]);
    });
}

// spec: WRITE-02, WRITE-30, WRITE-31
#[test]
fn nothing_is_written_after_the_end() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let (right, right_trace) = kind.recorder();
        let (left, right) = kind.connect(left, right.keep_open()).await;
        left.write("all").unwrap();
        left.write_eof().unwrap();
        let error = left.write("more").unwrap_err();
        assert_eq!(error.to_string(), "Cannot call write() after write_eof()");
        let error = left.writelines(["more"]).unwrap_err();
        assert_eq!(error.to_string(), "Cannot call writelines() after write_eof()");
        settle().await;
        assert_eq!(
            events(&right_trace),
            ["connection_made", "data_received(b'all')", "eof_received"]
        );
        right.writelines(["st", "", "ill read"]).unwrap();
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "data_received(b'still read')"]);
        left.close();
        right.close();
        settle().await;
    });
}

// spec: WRITE-20, WRITE-33, FLOW-10, TRANS-30
#[test]
fn a_close_sends_all_that_is_buffered_first() {
    on_each_kind(async |kind| {
        for ends_before in [false, true] {
            let keeps = Keeps::default();
            let got = Rc::clone(&keeps.0);
            let (left, trace) = kind.recorder();
            let (left, right) = kind.connect(left, keeps).await;
            right.pause_reading();
            let data = noise(kind.much());
            left.write(&*data).unwrap();
            if ends_before {
                left.write_eof().unwrap();
            }
            left.close();
            left.close();
            assert!(left.is_closing() && !left.is_reading());
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            right.resume_reading();
            while !right.is_closing() {
                settle().await;
            }
            settle().await;
            assert!(*got.borrow() == data);
            assert_eq!(events(&trace)[2..], ["resume_writing", "connection_lost(None)"]);
        }
    });
}

// spec: TRANS-32, TRANS-33, TRANS-34, FLOW-10
#[test]
fn an_abort_drops_what_is_buffered_and_ends_a_close_that_flushes() {
    on_each_kind(async |kind| {
        for closes_before in [false, true] {
            let keeps = Keeps::default();
            let got = Rc::clone(&keeps.0);
            let (left, trace) = kind.recorder();
            let (left, right) = kind.connect(left, keeps).await;
            right.pause_reading();
            left.write(vec![0; kind.much()]).unwrap();
            if closes_before {
                left.close();
            }
            left.abort();
            assert_eq!(left.get_write_buffer_size(), 0);
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            settle().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "pause_writing", "connection_lost(None)"]
            );
            right.resume_reading();
            while !right.is_closing() {
                settle().await;
            }
            settle().await;
            assert!(got.borrow().len() < kind.much());
            left.abort();
            left.close();
            settle().await;
            assert_eq!(events(&trace).len(), 3);
        }
    });
}

// spec: TRANS-31, TRANS-38
#[test]
fn nothing_is_heard_after_a_close() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let left = left.on_data(|transport, _| {
            transport.close();
            Ok(())
        });
        let (_left, right) = kind.connect(left, Keeps::default()).await;
        for _ in 0..3 {
            right.write("x").unwrap();
            settle().await;
        }
        right.abort();
        settle().await;
        assert_eq!(
            events(&trace),
            ["connection_made", "data_received(b'x')", "connection_lost(None)"]
        );
    });
}

// spec: TRANS-21, TRANS-22, TRANS-23, TRANS-25
#[test]
fn a_protocol_that_paused_reading_gets_no_call_until_it_resumes() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let left = left.on_made(Transport::pause_reading);
        let (left, right) = kind.connect(left, Keeps::default()).await;
        right.write("early").unwrap();
        right.close();
        settle().await;
        left.pause_reading();
        assert!(!left.is_reading() && !left.is_closing());
        assert_eq!(events(&trace), ["connection_made"]);
        left.resume_reading();
        left.resume_reading();
        assert_eq!(events(&trace), ["connection_made"]);
        assert!(left.is_reading());
        settle().await;
        assert_eq!(
            events(&trace),
            ["connection_made", "data_received(b'early')", "eof_received", "connection_lost(None)"]
        );
        left.pause_reading();
        left.resume_reading();
        assert!(!left.is_reading());
    });
}

// spec: TRANS-04, TRANS-37
#[test]
fn a_protocol_may_close_in_its_first_call() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let left = left.on_made(|transport| {
            transport.write("bye").unwrap();
            transport.close();
        });
        let (right, right_trace) = kind.recorder();
        kind.connect(left, right).await;
        assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
        assert_eq!(
            events(&right_trace),
            ["connection_made", "data_received(b'bye')", "eof_received", "connection_lost(None)"]
        );
    });
}

// spec: TRANS-41, RISK-30
#[test]
fn the_next_call_goes_to_the_new_protocol() {
    on_each_kind(async |kind| {
        let (second, second_trace) = kind.recorder();
        let second = Rc::new(second);
        let (first, first_trace) = kind.recorder();
        let first = first.on_data(move |transport, _| {
            transport.set_protocol(Rc::clone(&second));
            transport.write(vec![0; kind.much()])?; // Its pause is told to the new one.
            Ok(())
        });
        let (left, right) = kind.connect(first, Keeps::default()).await;
        right.pause_reading();
        right.write("one").unwrap();
        settle().await;
        right.write("two").unwrap();
        settle().await;
        left.abort();
        settle().await;
        assert_eq!(events(&first_trace), ["connection_made", "data_received(b'one')"]);
        assert_eq!(
            events(&second_trace),
            ["pause_writing", "data_received(b'two')", "connection_lost(None)"]
        );
        let shell = left.get_protocol();
        left.set_protocol(Rc::new(Keeps::default()));
        assert!(shell.is_none() && left.get_protocol().is_none());
        right.abort();
        settle().await;
    });
}

/// Has a small buffer of its own.
struct Small {
    buffer: RefCell<[u8; 1000]>,
    hints: RefCell<Vec<Option<usize>>>,
    got: RefCell<Vec<u8>>,
    ends: Cell<u32>,
}

impl BufferedProtocol for Small {
    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.hints.borrow_mut().push(hint);
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult {
        assert!((1..=1000).contains(&len));
        self.got.borrow_mut().extend_from_slice(&self.buffer.borrow()[..len]);
        if self.got.borrow().len() == 2000 {
            transport.pause_reading(); // The rest waits.
        }
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        assert!(error.is_none());
        self.ends.set(self.ends.get() + 1);
    }
}

// spec: PROTO-03, PROTO-10, MAP-09
#[test]
fn a_buffered_protocol_is_filled_piece_by_piece() {
    on_each_kind(async |kind| {
        let small = Rc::new(Small {
            buffer: RefCell::new([0; 1000]),
            hints: RefCell::default(),
            got: RefCell::default(),
            ends: Cell::new(0),
        });
        let (left, right) = kind.connect(Buffered::from(Rc::clone(&small)), Keeps::default()).await;
        let data = noise(10_000);
        right.write(&*data).unwrap();
        right.close();
        settle().await;
        assert_eq!(small.got.borrow().len(), 2000);
        left.resume_reading();
        settle().await;
        assert!(*small.got.borrow() == data);
        assert!(small.hints.borrow().iter().all(Option::is_none));
        assert_eq!(small.hints.borrow().len(), 11); // The last for the end.
        assert_eq!(small.ends.get(), 1);
    });
}

// spec: WRITE-10, PROTO-06
#[test]
fn writes_that_come_too_late_are_ignored_and_warned_of_in_the_end() {
    on_each_kind(async |kind| {
        let (left, right_trace) = (Keeps::default(), Trace::new());
        let right = Recorder::new(&right_trace, WriteMode::Batched);
        let (left, _right) = kind.connect(left, right).await;
        left.close();
        let warnings = || running().stats().warnings;
        let before = warnings();
        for _ in 0..10 {
            left.write("late").unwrap();
        }
        assert_eq!(warnings() - before, 6);
        settle().await;
        left.write("much too late").unwrap();
        settle().await;
        assert_eq!(
            events(&right_trace),
            ["connection_made", "eof_received", "connection_lost(None)"]
        );
    });
}

// spec: ERR-02, PROTO-12, PROTO-13, MAP-02
#[test]
fn a_protocol_that_fails_is_reported_or_loses_the_connection() {
    on_each_kind(async |kind| {
        let reports = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&reports);
        running().set_exception_handler(move |_, context| {
            log.borrow_mut().push(format!("{}: {}", context.message, context.error.unwrap()));
        });
        let (left, left_trace) = kind.recorder();
        let left = left
            .on_made(|_| panic!("made"))
            .on_pause(|_| panic!("pause"))
            .on_data(|_, _| panic!("data"))
            .on_lost(|_| panic!("lost"));
        let (right, right_trace) = kind.recorder();
        let (left, right) = kind.connect(left, right).await;
        right.pause_reading();
        left.write(vec![0; kind.much()]).unwrap();
        right.write("x").unwrap();
        settle().await;
        let texts = [
            "Exception in callback connection_made(): made",
            "protocol.pause_writing() failed: pause",
            "Fatal error: protocol.data_received() call failed.: data",
            "Exception in callback connection_lost(): lost",
        ];
        assert_eq!(reports.take(), texts);
        assert_eq!(events(&left_trace).last().unwrap(), "connection_lost(data)");
        right.abort();
        settle().await;
        assert_eq!(events(&right_trace), ["connection_made", "connection_lost(None)"]);
    });
}

// spec: ERR-03, PROTO-08, MAP-02
#[test]
fn an_error_of_the_system_ends_the_connection_without_a_report() {
    on_each_kind(async |kind| {
        running().set_exception_handler(|_, context| panic!("{}", context.message));
        let (right, trace) = kind.recorder();
        let right = right.on_eof(|_| Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
        let (left, right) = kind.connect(Keeps::default(), right).await;
        left.close();
        settle().await;
        assert!(right.is_closing());
        let heard = events(&trace);
        assert_eq!(heard[..2], ["connection_made", "eof_received"]);
        assert_eq!(heard[2..], ["connection_lost(connection reset)"]);
    });
}

// spec: TRANS-05
#[test]
fn what_users_note_is_found_under_its_key_until_the_end() {
    on_each_kind(async |kind| {
        const USER: ExtraKey<String> = ExtraKey::new("user");
        let (left, right) = kind.connect(Keeps::default(), Keeps::default()).await;
        left.set_extra_info(USER, "me".to_owned());
        assert_eq!(left.get_extra_info(USER).as_deref(), Some("me"));
        assert_eq!(right.get_extra_info(USER), None);
        assert_ne!(left.id(), right.id());
        left.close();
        settle().await;
        left.set_extra_info(USER, "nobody".to_owned());
        assert_eq!(left.get_extra_info(USER), None);
    });
}
