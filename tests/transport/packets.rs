//! What transports of all kinds share holds for a kind that is no stream, too.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ringloop::AnyTransport;
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::packets::{PacketProtocol, PacketTransport};

use super::running;

type Act = Box<dyn Fn(&PacketTransport)>;

/// Writes down what is called, and does something in one of the calls.
#[derive(Default)]
struct Log {
    lines: Rc<RefCell<Vec<String>>>,
    act: Option<(&'static str, Act)>,
}

impl Log {
    fn acting(call: &'static str, act: impl Fn(&PacketTransport) + 'static) -> Self {
        Self { act: Some((call, Box::new(act))), ..Self::default() }
    }

    fn add(&self, transport: &PacketTransport, call: &str, what: &str) {
        self.lines.borrow_mut().push(format!("{call}{what}"));
        if let Some((_, act)) = self.act.as_ref().filter(|(known, _)| *known == call) {
            act(transport);
        }
    }
}

impl PacketProtocol for Log {
    fn connection_made(&self, transport: &PacketTransport) {
        self.add(transport, "made", "");
    }
    fn packet_received(&self, transport: &PacketTransport, packet: Vec<u8>) {
        self.add(transport, "packet", &format!(" {}", packet.escape_ascii()));
    }
    fn error_received(&self, transport: &PacketTransport, error: io::Error) {
        self.add(transport, "error", &format!(" {:?}", error.kind()));
    }
    fn pause_writing(&self, transport: &PacketTransport) {
        self.add(transport, "pause", "");
    }
    fn resume_writing(&self, transport: &PacketTransport) {
        self.add(transport, "resume", "");
    }
    fn connection_lost(&self, transport: &PacketTransport, error: Option<&io::Error>) {
        self.add(transport, "lost", &format!(" {:?}", error.map(io::Error::kind)));
    }
}

/// Connects two, and returns when both have heard of it.
async fn connect(left: Log, right: Log) -> (PacketTransport, PacketTransport) {
    let (left, right) = PacketTransport::connect(Rc::new(left), Rc::new(right));
    settle().await;
    (left, right)
}

// spec: PROTO-01, PROTO-08
#[test]
fn a_kind_that_is_no_stream_has_the_life_of_all_kinds() {
    on_loop(async {
        let (left, right) =
            (Log::default(), Log::acting("packet", |transport| transport.send(b"re")));
        let (sent, got) = (Rc::clone(&left.lines), Rc::clone(&right.lines));
        let (left, right) = connect(left, right).await;
        left.send(b"one");
        left.send(b"");
        left.close();
        left.send(b"three"); // What is written while it closes goes out, too, as with streams.
        settle().await;
        let packets = ["made", "packet one", "packet ", "packet three", "error ConnectionRefused"];
        assert_eq!(got.take(), packets); // The last answer came after the end.
        assert_eq!(sent.take(), ["made", "lost None"]);
        assert!(left.base().protocol().is_none() && left.base().is_over());
        right.force_close(Some(io::ErrorKind::TimedOut.into()));
        right.abort();
        right.close();
        settle().await;
        assert_eq!(got.take(), ["lost Some(TimedOut)"]);
    });
}

// spec: FLOW-05, FLOW-06, PROTO-07
#[test]
fn its_protocol_is_paused_and_resumed_by_the_same_water_marks() {
    on_loop(async {
        let left = Log::default();
        let lines = Rc::clone(&left.lines);
        let (left, right) = connect(left, Log::default()).await;
        for _ in 0..4 {
            left.send(&[0; 16 * 1024]);
        }
        assert_eq!(lines.take(), ["made"]);
        left.send(b"x");
        left.send(b"y");
        assert_eq!(lines.take(), ["pause"]);
        settle().await;
        assert_eq!(lines.take(), ["resume"]);
        left.abort();
        right.abort();
        settle().await;
    });
}

// spec: PROTO-13, PROTO-14, PROTO-15
#[test]
fn its_panics_are_reported_through_the_same_door_and_name_it() {
    on_loop(async {
        for (call, message) in [
            ("made", "Exception in callback connection_made()"),
            ("packet", "protocol.packet_received() failed"),
            ("pause", "protocol.pause_writing() failed"),
            ("resume", "protocol.resume_writing() failed"),
            ("lost", "Exception in callback connection_lost()"),
        ] {
            let reports = Rc::new(RefCell::new(Vec::new()));
            let seen = Rc::clone(&reports);
            running().set_exception_handler(move |_, context| {
                let subjects = (context.transport.unwrap(), context.protocol.unwrap());
                seen.borrow_mut().push(format!("{} {subjects:?}", context.message));
            });
            let (left, right) =
                connect(Log::acting(call, |_| panic!("boom")), Log::default()).await;
            right.send(b"one");
            left.send(&[0; 70_000]);
            settle().await;
            assert!(!left.is_closing());
            left.close();
            right.close();
            settle().await;
            assert_eq!(reports.take(), [format!("{message} (<Packets>, <PacketProtocol>)")]);
        }
    });
}

// spec: PROTO-16
#[test]
fn its_protocol_may_end_it_and_write_from_any_call() {
    on_loop(async {
        for call in ["made", "packet", "pause", "resume", "lost"] {
            let runs = Rc::new(Cell::new(0));
            let count = Rc::clone(&runs);
            let left = Log::acting(call, move |transport| {
                count.set(count.get() + 1);
                transport.send(b"more");
                transport.close();
                transport.abort();
            });
            let lines = Rc::clone(&left.lines);
            let (left, right) = connect(left, Log::default()).await;
            right.send(b"one");
            left.send(&[0; 70_000]);
            settle().await;
            left.close();
            right.close();
            settle().await;
            let lines = lines.take();
            assert_eq!(runs.get(), 1, "{call}: {lines:?}");
            assert_eq!(lines.iter().filter(|line| line.starts_with("lost")).count(), 1);
            assert_eq!(lines.last().unwrap(), "lost None");
        }
    });
}
