//! A transport upon a transport: what TLS will need of the rails, with a toy in its place.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;

use ringloop::extra_info::{ExtraKey, PEERNAME, SOCKET};
use ringloop::{
    Buffered, BufferedProtocol, Exclusive, Handler, Protocol, ProtocolRef, ProtocolResult,
    Received, Transport, WriteMode,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::rot13::{Rot13, rot13};
use ringloop_tests::trace::Trace;

use super::kinds::{Kind, on_each_kind};
use super::{events, recorder};

struct Silent;

impl Protocol for Silent {}

/// Asks for the layer, and goes on above it.
#[derive(Default)]
struct Asks {
    above: RefCell<Option<Transport>>,
    log: RefCell<Vec<String>>,
}

impl Protocol for Asks {
    fn connection_made(&self, _: &Transport) {
        self.log.borrow_mut().push("made".to_owned());
    }

    /// A line in the clear says that what follows is in the cipher: the rest of this may be a part of it.
    fn data_received(&self, transport: &Transport, mut data: Received) -> ProtocolResult {
        self.log.borrow_mut().push(String::from_utf8(data.to_vec()).unwrap());
        if let Some(rest) = data.strip_prefix(b"START\n").map(<[u8]>::len) {
            data.advance(data.len() - rest);
            self.above.replace(Rot13::start(transport, data));
        } else if data.starts_with(b"answer") {
            let above = self.above.borrow().clone().unwrap();
            assert_eq!(transport.id(), above.id());
            transport.write("an answer\n")?;
        }
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.log.borrow_mut().push(format!("lost {error:?}"));
        self.above.take();
    }
}

// spec: TLS-50, TLS-53, RISK-30
#[test]
fn a_layer_that_starts_mid_stream_gets_every_byte_behind_the_clear_ones() {
    on_each_kind(async |kind| {
        let asks = Rc::new(Asks::default());
        let (right, trace) = kind.recorder();
        let (left, right) = kind.connect(Rc::clone(&asks), right).await;
        right.write(format!("START\n{}", rot13("in the same read\nin "))).unwrap();
        settle().await;
        right.write(rot13("two\nanswer\n")).unwrap();
        settle().await;
        let heard = asks.log.take();
        assert_eq!(heard[0], "made");
        assert!(heard[1].starts_with("START\n"));
        assert_eq!(heard[2..].concat(), "in the same read\nin two\nanswer\n");
        assert_eq!(events(&trace).len(), 1);
        right.write(rot13("answer")).unwrap();
        right.write_eof().unwrap();
        settle().await;
        assert_eq!(asks.log.take(), ["answer", "lost None"]); // The line that had not ended.
        assert!(left.is_closing() && asks.above.borrow().is_none());
        let shown = format!("data_received(b'{}", rot13("an answer"));
        assert!(events(&trace)[1].starts_with(&shown), "{:?}", events(&trace));
    });
}

// spec: TLS-20, TLS-32, TLS-33
#[test]
fn what_a_layer_has_left_is_delivered_inside_close() {
    on_each_kind(async |kind| {
        let trace = Trace::new();
        let log = trace.clone();
        let depth = Cell::new(0);
        let recorder = Recorder::new(&trace, WriteMode::Batched).on_data(move |transport, _| {
            depth.set(depth.get() + 1);
            log.log("proto", format!("in {}", depth.get()));
            transport.write("still sent\n")?;
            transport.close();
            assert!(transport.is_closing());
            log.log("proto", format!("out {}", depth.get()));
            depth.set(depth.get() - 1);
            Ok(())
        });
        let (right, right_trace) = kind.recorder();
        let (left, right) = kind.connect(Silent, right).await;
        let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(recorder))).unwrap();
        right.write(rot13("line\nrest")).unwrap();
        settle().await;
        assert_eq!(
            events(&trace),
            [
                "connection_made",
                "data_received(b'line\\n')",
                "in 1",
                "data_received(b'rest')",
                "in 2",
                "out 2",
                "out 1",
                "connection_lost(None)"
            ]
        );
        assert!(above.is_closing() && left.is_closing());
        let heard = events(&right_trace);
        let sent = format!("data_received(b'{}", rot13("still sent"));
        assert!(heard[1].starts_with(&sent), "{heard:?}");
        assert_eq!(heard[heard.len() - 2..], ["eof_received", "connection_lost(None)"]);
    });
}

/// Closes when it hears something.
#[derive(Default)]
struct Closes(Rc<RefCell<Vec<String>>>);

impl Handler for Closes {
    fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.close();
        self.0.borrow_mut().push(String::from_utf8(data.to_vec())?);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<&io::Error>) {
        self.0.borrow_mut().push(format!("lost {error:?}"));
    }
}

// spec: TLS-33
#[test]
fn an_exclusive_handler_hears_the_rest_right_after_the_call_that_closed() {
    on_each_kind(async |kind| {
        let closes = Closes::default();
        let log = Rc::clone(&closes.0);
        let (left, right) = kind.connect(Silent, Silent).await;
        let protocol = ProtocolRef::Stream(Rc::new(Exclusive::new(closes)));
        Rot13::wrap(&left, protocol).unwrap();
        right.write(rot13("line\nrest")).unwrap();
        settle().await;
        assert_eq!(*log.borrow(), ["line\n", "rest", "lost None"]);
    });
}

// spec: FLOW-05, FLOW-06, TLS-32
#[test]
fn flow_control_goes_through_a_layer_and_a_close_flushes_it() {
    on_each_kind(async |kind| {
        let (app, trace) = kind.recorder();
        let (right, _) = kind.recorder();
        let right = Rc::new(right.count_data());
        let (left, peer) = kind.connect(Silent, Rc::clone(&right)).await;
        peer.pause_reading();
        let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(app))).unwrap();
        settle().await;
        above.write(vec![b'a'; kind.much()]).unwrap(); // Pauses what is below.
        assert_eq!(above.get_write_buffer_size(), 0);
        above.write(vec![b'a'; 65536]).unwrap();
        assert_eq!(events(&trace), ["connection_made"]);
        above.write("\n").unwrap();
        assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        above.close();
        settle().await;
        assert!(above.is_closing() && !left.is_closing());
        peer.resume_reading();
        while !peer.is_closing() {
            settle().await;
        }
        settle().await;
        assert_eq!(right.total(), kind.much() + 65537);
        assert_eq!(events(&trace)[2..], ["resume_writing", "connection_lost(None)"]);
    });
}

// spec: TRANS-21, TLS-37
#[test]
fn a_layer_that_is_paused_keeps_what_it_has_deciphered() {
    on_each_kind(async |kind| {
        let (app, trace) = kind.recorder();
        let app = app.on_data(|transport, _| {
            transport.pause_reading();
            Ok(())
        });
        let (left, right) = kind.connect(Silent, Silent).await;
        let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(app))).unwrap();
        right.write(rot13("one\n")).unwrap();
        settle().await;
        right.write(rot13("two\n")).unwrap();
        right.close();
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "data_received(b'one\\n')"]);
        assert!(!above.is_reading());
        above.resume_reading();
        settle().await;
        assert_eq!(events(&trace)[2..], ["data_received(b'two\\n')"]);
        above.resume_reading();
        settle().await;
        assert_eq!(events(&trace)[3..], ["eof_received", "connection_lost(None)"]);
    });
}

/// Fills what a layer feeds it into three bytes.
#[derive(Default)]
struct Three {
    buffer: RefCell<[u8; 3]>,
    log: RefCell<Vec<String>>,
}

impl BufferedProtocol for Three {
    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.log.borrow_mut().push(format!("{hint:?}"));
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, _: &Transport, len: usize) -> ProtocolResult {
        let text = String::from_utf8(self.buffer.borrow()[..len].to_vec())?;
        self.log.borrow_mut().push(text);
        Ok(())
    }
}

// spec: PROTO-17, TLS-20, TLS-41
#[test]
fn a_layer_feeds_the_protocol_that_is_current_above_it() {
    on_each_kind(async |kind| {
        let three = Rc::new(Three::default());
        let (left, right) = kind.connect(Silent, Silent).await;
        let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(Silent))).unwrap();
        above.set_protocol(Buffered::from(Rc::clone(&three)));
        assert!(matches!(above.get_protocol(), Some(ProtocolRef::Buffered(_))));
        assert!(matches!(left.get_protocol(), Some(ProtocolRef::Stream(_))));
        right.write(rot13("abcd\n")).unwrap();
        settle().await;
        assert_eq!(*three.log.borrow(), ["Some(5)", "abc", "Some(2)", "d\n"]);
        above.abort();
        settle().await;
    });
}

// spec: TLS-52
#[test]
fn a_layer_upon_a_layer_is_a_transport_too() {
    on_each_kind(async |kind| {
        let (app, trace) = kind.recorder();
        let (right, right_trace) = kind.recorder();
        let (left, right) = kind.connect(Silent, right).await;
        let middle = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(Silent))).unwrap();
        settle().await;
        let above = Rot13::wrap(&middle, ProtocolRef::Stream(Rc::new(app))).unwrap();
        settle().await;
        right.write("twice is plain\n").unwrap();
        above.write("so is this\n").unwrap();
        settle().await;
        above.close();
        settle().await;
        assert_eq!(
            events(&trace),
            ["connection_made", "data_received(b'twice is plain\\n')", "connection_lost(None)"]
        );
        assert_eq!(
            events(&right_trace),
            [
                "connection_made",
                "data_received(b'so is this\\n')",
                "eof_received",
                "connection_lost(None)"
            ]
        );
    });
}

// spec: TLS-36, TLS-39, TLS-40
#[test]
fn the_end_of_what_is_below_is_the_end_of_a_layer_once_and_later() {
    on_each_kind(async |kind| {
        for aborts_above in [true, false] {
            let (app, trace) = kind.recorder();
            let (left, right) = kind.connect(Silent, Silent).await;
            let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(app))).unwrap();
            settle().await;
            if aborts_above {
                above.abort();
                above.abort();
            } else {
                left.abort();
            }
            assert!(above.is_closing() && left.is_closing());
            assert_eq!(events(&trace), ["connection_made"]);
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
            assert!(above.get_protocol().is_none() && left.get_protocol().is_none());
            right.abort();
            settle().await;
        }
    });
}

// spec: TRANS-05
#[test]
fn a_layer_knows_what_is_known_below_it_and_has_notes_of_its_own() {
    on_loop(async {
        const CIPHER: ExtraKey<String> = ExtraKey::new("cipher");
        let (app, _) = recorder();
        let (left, _right) = Kind::Tcp(WriteMode::Batched).connect(Silent, Silent).await;
        let above = Rot13::wrap(&left, ProtocolRef::Stream(Rc::new(app))).unwrap();
        above.set_extra_info(CIPHER, "rot13".to_owned());
        assert_eq!(above.get_extra_info(CIPHER).as_deref(), Some("rot13"));
        assert_eq!(left.get_extra_info(CIPHER), None);
        assert!(above.get_extra_info(PEERNAME).is_some());
        assert_eq!(above.get_extra_info(PEERNAME), left.get_extra_info(PEERNAME));
        let sockets = [&above, &left].map(|end| end.get_extra_info(SOCKET).unwrap().fileno());
        assert_eq!(sockets[0], sockets[1]);
        assert!(format!("{above:?}").starts_with("<Rot13 over <Transport fd="));
        above.close();
        settle().await;
    });
}
