//! What users give to a connection panics when it is called, or dropped: the connection goes on, or ends as it should.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::Shutdown;
use std::rc::Rc;

use bytes::Bytes;
use ringloop::extra_info::ExtraKey;
use ringloop::{
    AddrInfo, AddrRequest, Address, AfterEof, ConnectFuture, Connector, Error, EventLoop,
    Exclusive, Handler, Protocol, ProtocolError, ProtocolResult, Received, ResolveFuture, Resolver,
    Target, Transport, Upgrade,
};
use ringloop_tests::bomb::{Bomb, Counted, Drops};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{End, address_of, drain, listener, noise, pair, tcp_pair};
use socket2::Socket;

use super::kinds::on_each_kind;
use super::{MODES, attach, events, recorder_with, running};

/// What the exception handler is told from now on.
fn reports() -> Rc<RefCell<Vec<String>>> {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reports);
    running().set_exception_handler(move |_, context| {
        log.borrow_mut().push(format!("{}: {}", context.message, context.error.unwrap()));
    });
    reports
}

struct Silent;

impl Protocol for Silent {}

// spec: WRITE-01, ERR-07, TRANS-30
#[test]
fn an_owner_of_sent_bytes_that_panics_stops_nothing() {
    for mode in MODES {
        for sockets in [pair(), tcp_pair()] {
            on_loop(async {
                let reports = reports();
                let (recorder, trace) = recorder_with(mode);
                let (transport, _) = attach(sockets.0, recorder).await;
                // Accounted from the handle, from the flush, inside a call that looks.
                for text in ["one ", "two ", "three "] {
                    transport.write(Bomb::bytes(text)).unwrap();
                    transport.write(Bomb::bytes("again ")).unwrap();
                    settle().await;
                }
                transport.write(Bomb::bytes("four ")).unwrap();
                assert_eq!(transport.get_write_buffer_size(), 0);
                transport
                    .writelines([Bomb::bytes("five "), Bomb::bytes(""), Bomb::bytes("six ")])
                    .unwrap();
                // Behind what fills the socket.
                transport.write(noise(4 << 20)).unwrap();
                transport.write(Bomb::bytes("seven")).unwrap();
                transport.close();
                let (data, end) = drain_all(&sockets.1).await;
                assert_eq!(end, End::Eof);
                let text = b"one again two again three again four five six ";
                assert_eq!(&data[..text.len()], text);
                assert_eq!(data.len(), text.len() + (4 << 20) + "seven".len());
                assert!(data.ends_with(b"seven"));
                settle().await;
                assert_eq!(events(&trace).last().unwrap(), "connection_lost(None)");
                assert_eq!(reports.borrow().len(), 6 + 1 + 3 + 1);
                assert!(
                    reports
                        .borrow()
                        .iter()
                        .all(|it| it.starts_with("Exception in the drop of bytes: "))
                );
            });
        }
    }
}

// spec: TRANS-32, WRITE-10
#[test]
fn bytes_that_are_never_sent_are_dropped_one_by_one() {
    for mode in MODES {
        on_loop(async {
            let reports = reports();
            let (recorder, trace) = recorder_with(mode);
            let (a, _b) = pair();
            let (transport, _) = attach(a, recorder).await;
            transport.write(noise(4 << 20)).unwrap();
            for _ in 0..3 {
                transport.write(Bomb::bytes("bomb")).unwrap();
            }
            transport.abort();
            transport.write(Bomb::bytes("late")).unwrap();
            settle().await;
            transport.write(Bomb::bytes("too late")).unwrap();
            assert_eq!(events(&trace).last().unwrap(), "connection_lost(None)");
            assert_eq!(reports.borrow().len(), 5);
        });
    }
}

// spec: WRITE-02, WRITE-21
#[test]
fn bytes_that_are_refused_are_dropped_with_a_report_and_the_call_gives_its_error() {
    for mode in MODES {
        on_loop(async {
            let reports = reports();
            let (a, b) = pair();
            let (transport, _) = attach(a, recorder_with(mode).0).await;
            transport.write_eof().unwrap();
            for refused in [
                transport.write(Bomb::bytes("one")),
                transport.writelines([Bomb::bytes("two")]),
                transport.writelines(std::iter::once(Bomb::bytes("three"))),
            ] {
                assert!(refused.unwrap_err().to_string().ends_with("after write_eof()"));
            }
            let texts: Vec<_> = reports.take();
            assert_eq!(
                texts,
                [
                    "Exception in the drop of bytes: one",
                    "Exception in the drop of chunks to write: two",
                    "Exception in the drop of chunks to write: three",
                ]
            );
            assert_eq!(drain(&b), (vec![], End::Eof));
            transport.close();
        });
    }
}

/// Replaces itself in whatever callback is named, and panics there and when it is dropped.
struct Replaced {
    within: &'static str,
    next: RefCell<Option<Replace>>,
    _bomb: Counted,
}

type Replace = Box<dyn Fn(&Transport)>;

impl Replaced {
    /// Puts `next` into its place.
    fn by(next: Rc<Recorder>, within: &'static str, drops: &Drops) -> Self {
        let replace: Replace = Box::new(move |transport| transport.set_protocol(Rc::clone(&next)));
        Self { within, next: RefCell::new(Some(replace)), _bomb: drops.bomb() }
    }

    fn called(&self, name: &str, transport: &Transport) {
        if name == self.within {
            if let Some(replace) = self.next.take() {
                replace(transport);
                panic!("in the callback");
            }
        }
    }
}

impl Protocol for Replaced {
    fn connection_made(&self, transport: &Transport) {
        self.called("made", transport);
    }
    fn data_received(&self, transport: &Transport, _: Received) -> ProtocolResult {
        self.called("data", transport);
        Ok(())
    }
    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.called("eof", transport);
        Ok(AfterEof::Close)
    }
    fn connection_lost(&self, transport: &Transport, _: Option<&io::Error>) {
        self.called("lost", transport);
    }
    fn pause_writing(&self, transport: &Transport) {
        self.called("pause", transport);
    }
    fn resume_writing(&self, transport: &Transport) {
        self.called("resume", transport);
    }
}

// spec: TRANS-41, ERR-02, PROTO-08
#[test]
fn a_protocol_that_replaces_itself_and_panics_twice_harms_nothing() {
    for within in ["data", "eof", "lost", "pause", "resume"] {
        on_each_kind(async |kind| {
            let reports = reports();
            let drops = Drops::default();
            let (next, trace) = kind.recorder();
            let first = Replaced::by(Rc::new(next), within, &drops);
            let (left, right) = kind.connect(first, Silent).await;
            right.write("x").unwrap();
            settle().await;
            if within == "pause" || within == "resume" {
                right.pause_reading();
                left.write(noise(kind.much())).unwrap();
                settle().await;
                right.resume_reading();
                settle().await;
            }
            right.close();
            settle().await;
            left.close();
            settle().await;
            assert_eq!(drops.count(), 1, "{within}");
            let heard = events(&trace);
            let ends = heard.iter().filter(|it| it.starts_with("connection_lost")).count();
            assert_eq!(ends, usize::from(within != "lost"), "{within}: {heard:?}");
            let reports = reports.borrow();
            assert_eq!(reports.len(), 2, "{within}: {reports:?}");
            assert!(reports.contains(&"Exception in the drop of a protocol: boom".to_owned()));
        });
    }
}

// spec: TRANS-41, ERR-02, TRANS-10
#[test]
fn a_protocol_that_replaces_itself_panics_when_it_is_dropped_also_where_several_pieces_have_come() {
    on_loop(async {
        let reports = reports();
        let drops = Drops::default();
        let (next, trace) = recorder_with(MODES[0]);
        let (socket, peer) = pair();
        let first = Replaced::by(Rc::new(next), "data", &drops);
        let target = Target::from(socket);
        let (transport, _) = running().create_connection(|| first, target).await.unwrap();
        // More than one buffer holds, all of it there before the loop looks.
        assert_eq!((&peer).write(&noise(40_000)).unwrap(), 40_000);
        settle().await;
        assert_eq!(drops.count(), 1);
        assert_eq!(
            *reports.borrow(),
            [
                "Fatal error: protocol.data_received() call failed.: in the callback",
                "Exception in the drop of a protocol: boom",
            ]
        );
        assert_eq!(events(&trace), ["connection_lost(in the callback)"]);
        drop(transport);
    });
}

// spec: TRANS-01, TRANS-41, SERVER-45
#[test]
fn a_protocol_that_replaces_itself_at_once_and_panics_twice_leaves_a_connection_that_reads() {
    on_loop(async {
        let reports = reports();
        let drops = Drops::default();
        let (next, trace) = recorder_with(MODES[0]);
        let next = Rc::new(next);
        let bombs = drops.clone();
        let factory = move || Replaced::by(Rc::clone(&next), "made", &bombs);
        let server = running().create_server(factory, ("127.0.0.1", 0)).await.unwrap();
        let mut peer = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
        peer.write_all(b"x").unwrap();
        drop(peer);
        settle().await;
        server.close();
        settle().await;
        assert_eq!((drops.count(), reports.borrow().len()), (1, 2));
        assert_eq!(
            events(&trace),
            ["data_received(b'x')", "eof_received", "connection_lost(None)"]
        );
    });
}

/// An error that panics whatever is done with it.
#[derive(Debug)]
struct Rude(#[expect(dead_code, reason = "for its drop")] Counted);

impl std::fmt::Display for Rude {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("in the display")
    }
}

impl std::error::Error for Rude {}

// spec: ERR-02, ERR-03
#[test]
fn an_error_that_panics_when_it_is_shown_and_dropped_ends_its_connection_as_any_other() {
    for is_io in [false, true] {
        on_each_kind(async |kind| {
            let drops = Drops::default();
            let (told, ends) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let count = Rc::clone(&told);
            running().set_exception_handler(move |_, _| count.set(count.get() + 1));
            let left = Fails { is_io, drops: drops.clone(), ends: Rc::clone(&ends) };
            let (_left, right) = kind.connect(left, Silent).await;
            right.write("x").unwrap();
            settle().await;
            assert_eq!((ends.get(), drops.count()), (1, 1));
            assert_eq!(told.get(), if is_io { 1 } else { 2 });
            right.close();
            settle().await;
        });
    }
}

/// Fails with a rude error.
struct Fails {
    is_io: bool,
    drops: Drops,
    ends: Rc<Cell<u32>>,
}

impl Protocol for Fails {
    fn data_received(&self, transport: &Transport, _: Received) -> ProtocolResult {
        transport.write("before")?;
        let rude = Rude(self.drops.bomb());
        Err(if self.is_io {
            ProtocolError::Io(io::Error::other(rude)) // The protocol gets it back.
        } else {
            ProtocolError::Other(Box::new(rude))
        })
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        assert!(error.is_some());
        self.ends.set(self.ends.get() + 1);
    }
}

// spec: TRANS-05, TRANS-35
#[test]
fn extra_info_that_panics_is_let_go_piece_by_piece() {
    struct Shared(Rc<Counted>);
    impl Clone for Shared {
        fn clone(&self) -> Self {
            panic!("in the clone of {} handles", Rc::strong_count(&self.0));
        }
    }
    const NAMES: [&str; 3] = ["a", "b", "c"];
    on_each_kind(async |kind| {
        let reports = reports();
        let drops = Drops::default();
        let (left, trace) = kind.recorder();
        let (left, right) = kind.connect(left, Silent).await;
        for name in NAMES {
            left.set_extra_info(ExtraKey::<Shared>::new(name), Shared(Rc::new(drops.bomb())));
        }
        left.set_extra_info(ExtraKey::<Shared>::new("a"), Shared(Rc::new(drops.bomb())));
        assert_eq!(drops.count(), 1);
        left.abort();
        settle().await;
        assert_eq!((drops.count(), reports.borrow().len()), (4, 4));
        left.set_extra_info(ExtraKey::<Shared>::new("a"), Shared(Rc::new(drops.bomb())));
        assert_eq!(drops.count(), 5);
        assert_eq!(events(&trace).last().unwrap(), "connection_lost(None)");
        right.close();
        settle().await;
    });
}

// spec: WRITE-21
#[test]
fn an_iterator_that_panics_writes_nothing() {
    on_each_kind(async |kind| {
        let (right, trace) = kind.recorder();
        let (left, _right) = kind.connect(Silent, right).await;
        left.write("before ").unwrap();
        let list = (0..4).map(|number| {
            assert!(number < 3, "the fourth");
            Bytes::from_static(b"within ")
        });
        let error = left.writelines(list).unwrap_err();
        assert!(matches!(error, Error::Panic(text) if text == "the fourth"));
        left.write("after").unwrap();
        left.close();
        settle().await;
        let heard = events(&trace).join("");
        assert!(heard.contains("before ") && heard.contains("after") && !heard.contains("within"));
    });
}

// spec: TRANS-32, TLS-53
#[test]
fn bytes_that_were_given_back_and_are_never_delivered_are_dropped_one_by_one() {
    for sockets in [pair(), tcp_pair()] {
        on_loop(async {
            let reports = reports();
            let (transport, _) = attach(sockets.0, recorder_with(MODES[0]).0).await;
            for text in ["second ", "first "] {
                let _ = transport.upgrade(Upgrade::to(Rc::new(Silent)).unread(Bomb::bytes(text)));
            }
            transport.close();
            settle().await;
            assert_eq!(reports.borrow().len(), 2);
        });
    }
}

/// Calls what this thread keeps for it when it is dropped.
struct Calls;

thread_local! {
    static CALLED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

impl Calls {
    fn bytes(call: impl FnOnce() + 'static) -> Bytes {
        CALLED.set(Some(Box::new(call)));
        Bytes::from_owner(Self)
    }
}

impl AsRef<[u8]> for Calls {
    fn as_ref(&self) -> &[u8] {
        b"owned"
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let Some(call) = CALLED.take() {
            call();
        }
    }
}

// spec: TRANS-21, TRANS-25, TRANS-15
#[test]
fn the_end_of_the_stream_waits_where_the_owner_of_sent_bytes_pauses_reading() {
    for mode in MODES {
        on_loop(async {
            let (a, b) = pair();
            let (recorder, trace) = recorder_with(mode);
            let (transport, _) = attach(a, recorder).await;
            b.shutdown(Shutdown::Write).unwrap();
            let this = transport.clone();
            transport.write(Calls::bytes(move || this.pause_reading())).unwrap();
            settle().await;
            assert_eq!(events(&trace), ["connection_made"]);
            transport.resume_reading();
            settle().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "eof_received", "connection_lost(None)"]
            );
        });
    }
}

/// Ends the connection that it is given, in one call, when another speaks.
struct Ends {
    panics: bool,
    /// What is to end, and its peer.
    ending: Rc<RefCell<Option<(Transport, Socket)>>>,
    seen: Rc<RefCell<Vec<&'static str>>>,
}

impl Handler for Ends {
    fn data_received(&mut self, _: &Transport, _: Received) -> ProtocolResult {
        let Some((transport, peer)) = self.ending.take() else { return Ok(()) };
        drain(&peer);
        self.seen.borrow_mut().push("writes");
        transport.writelines(["the", "end"])?;
        self.seen.borrow_mut().push("has written");
        assert!(!self.panics, "boom");
        Ok(())
    }
    fn connection_lost(&mut self, _: &Transport, error: Option<&io::Error>) {
        self.seen.borrow_mut().push(if error.is_none() { "lost" } else { "lost with an error" });
    }
}

// spec: WRITE-21, PROTO-06
#[test]
fn an_exclusive_handler_hears_of_the_end_that_its_own_writelines_brings() {
    for panics in [false, true] {
        for mode in MODES {
            on_loop(async {
                let reports = reports();
                let (ending, seen) = (Rc::default(), Rc::default());
                let handler = Ends { panics, ending: Rc::clone(&ending), seen: Rc::clone(&seen) };
                let shared = Rc::new(Exclusive::new(handler));
                let event_loop = running();
                let [(a, speaks), (b, peer)] = [pair(), pair()];
                let [a, b] = [a, b].map(|socket| Target::from(socket).write_mode(mode));
                let _first = event_loop.create_connection(|| Rc::clone(&shared), a).await.unwrap();
                let (second, _) = event_loop.create_connection(|| shared, b).await.unwrap();
                second.set_write_buffer_limits(Some(1 << 20), None).unwrap();
                second.write(noise(220_000)).unwrap();
                assert!(second.get_write_buffer_size() > 0);
                second.close();
                ending.replace(Some((second, peer)));
                (&speaks).write_all(b"x").unwrap();
                settle().await;
                assert_eq!(seen.borrow()[..3], ["writes", "has written", "lost"]);
                assert_eq!(reports.borrow().len(), usize::from(panics), "{reports:?}");
                drop(speaks);
                settle().await;
                assert_eq!(seen.borrow().len(), 4);
            });
        }
    }
}

// spec: TLS-50, TLS-53, TRANS-41
#[test]
fn an_upgrade_that_is_overtaken_calls_connection_made_once_first_and_on_its_own_protocol() {
    on_each_kind(async |kind| {
        let announce = |transport: &Transport| {
            let (recorder, trace) = kind.recorder();
            let _ = transport.upgrade(Upgrade::to(Rc::new(recorder)).connection_made());
            trace
        };
        // Another protocol takes its place.
        let (left, right) = kind.connect(Silent, Silent).await;
        let first = announce(&left);
        let (other, second) = kind.recorder();
        left.set_protocol(Rc::new(other));
        right.write("x").unwrap();
        settle().await;
        assert!(events(&first).is_empty() && left.is_reading());
        assert_eq!(events(&second), ["data_received(b'x')"]);
        left.abort();
        settle().await;
        assert_eq!(events(&second).last().unwrap(), "connection_lost(None)");
        // Two upgrades, one after the other.
        let (left, right) = kind.connect(Silent, Silent).await;
        right.write("x").unwrap();
        let (first, second) = (announce(&left), announce(&left));
        settle().await;
        assert!(events(&first).is_empty());
        assert_eq!(events(&second), ["connection_made", "data_received(b'x')"]);
        // One that is not announced takes back that reading goes on.
        let first = announce(&left);
        let (other, second) = kind.recorder();
        let _ = left.upgrade(Rc::new(other));
        right.write("y").unwrap();
        settle().await;
        assert!(events(&first).is_empty() && events(&second).is_empty() && !left.is_reading());
        left.resume_reading();
        settle().await;
        assert_eq!(events(&second), ["data_received(b'y')"]);
        // Reading does not go on before it.
        let first = announce(&left);
        right.write("z").unwrap();
        left.resume_reading();
        assert!(!left.is_reading());
        settle().await;
        assert_eq!(events(&first), ["connection_made", "data_received(b'z')"]);
        // The connection is lost before it.
        let first = announce(&left);
        left.abort();
        settle().await;
        assert_eq!(events(&first), ["connection_made", "connection_lost(None)"]);
        right.close();
        settle().await;
    });
}

// spec: TLS-50, TLS-53
#[test]
fn an_owner_that_is_dropped_within_an_upgrade_does_not_let_data_come_first() {
    for sockets in [pair(), tcp_pair()] {
        on_loop(async {
            let (transport, _) = attach(sockets.0, recorder_with(MODES[0]).0).await;
            (&sockets.1).write_all(b"x").unwrap();
            turn(1).await; // The event of these bytes is in the queue, behind this step.
            let this = transport.clone();
            transport.write(Calls::bytes(move || this.resume_reading())).unwrap();
            let (recorder, trace) = recorder_with(MODES[0]);
            assert!(transport.upgrade(Upgrade::to(Rc::new(recorder)).connection_made()).is_some());
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "data_received(b'x')"]);
            transport.abort();
        });
    }
}

// spec: FLOW-05, TLS-50
#[test]
fn a_pause_that_comes_before_an_upgrade_is_announced_has_it_announced_first() {
    on_each_kind(async |kind| {
        let (left, right) = kind.connect(Silent, Silent).await;
        right.pause_reading();
        let (recorder, trace) = kind.recorder();
        let _ = left.upgrade(Upgrade::to(Rc::new(recorder)).connection_made());
        left.write(noise(kind.much())).unwrap();
        assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        left.abort();
        right.abort();
        settle().await;
        assert_eq!(events(&trace), ["connection_made", "pause_writing", "connection_lost(None)"]);
    });
}

/// Both go through the door.
struct Guide(#[expect(dead_code, reason = "for its drop")] Counted, bool);

impl Resolver for Guide {
    fn getaddrinfo(&self, event_loop: &EventLoop, request: AddrRequest) -> ResolveFuture {
        event_loop.set_resolver(Rc::new(Self(new_bomb(), false))); // This one goes while it runs.
        assert!(!self.1, "resolver");
        let address = ([127, 0, 0, 1], request.port.parse().unwrap());
        let bomb = new_bomb();
        Box::pin(async move {
            let _bomb = bomb;
            Ok(vec![AddrInfo::stream(address)])
        })
    }
}

impl Connector for Guide {
    fn connect(&self, _: &Address, connect: ConnectFuture) -> ConnectFuture {
        running().set_connector(Rc::new(Self(new_bomb(), false)));
        assert!(!self.1, "connector");
        let bomb = new_bomb();
        Box::pin(async move {
            connect.await?;
            drop(bomb);
            Ok(())
        })
    }
}

thread_local! {
    static BOMBS: Drops = Drops::default();
}

fn new_bomb() -> Counted {
    BOMBS.with(Drops::bomb)
}

// spec: RESOLVE-10, CONN-15
#[test]
fn a_resolver_and_a_connector_may_panic_in_any_way() {
    on_loop(async {
        let _reports = reports();
        let event_loop = running();
        let listener = listener(8);
        let port = address_of(&listener).port();
        for panics in [true, false, false] {
            event_loop.set_resolver(Rc::new(Guide(new_bomb(), panics)));
            event_loop.set_connector(Rc::new(Guide(new_bomb(), panics)));
            for host in ["name.test", "127.0.0.1"] {
                let this = event_loop.clone();
                let task = event_loop.create_task(async move {
                    let (transport, _) = this.create_connection(|| Silent, (host, port)).await?;
                    transport.abort();
                    Ok::<(), Error>(())
                });
                let ended = task.await;
                assert!(matches!(ended, Err(Error::Panic(_))) || ended.unwrap().is_ok());
            }
        }
        settle().await;
    });
    assert!(BOMBS.with(Drops::count) > 10);
}

// spec: FLOW-01, FLOW-02, FLOW-03
#[test]
fn limits_and_sizes_may_be_as_large_as_they_like() {
    on_each_kind(async |kind| {
        let (left, trace) = kind.recorder();
        let (left, right) = kind.connect(left, Silent).await;
        let most = usize::MAX;
        for (high, low, limits) in [
            (Some(most), None, (most / 4, most)),
            (None, Some(most), (most, most)),
            (None, Some(most / 2), (most / 2, most)),
            (Some(most), Some(most), (most, most)),
            (Some(0), Some(0), (0, 0)),
            (Some(0), None, (0, 0)),
            (None, Some(0), (0, 0)),
        ] {
            left.set_write_buffer_limits(high, low).unwrap();
            assert_eq!(left.get_write_buffer_limits(), limits);
        }
        assert!(left.set_write_buffer_limits(Some(0), Some(most)).is_err());
        right.pause_reading();
        // 4 GiB and more of the same 64 MiB.
        let block = Bytes::from(vec![0; 64 << 20]);
        if !matches!(kind, super::kinds::Kind::Memory) {
            left.writelines(std::iter::repeat_n(block.clone(), 65)).unwrap();
            left.write(block).unwrap();
            assert!(left.get_write_buffer_size() > u32::MAX as usize);
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
        }
        left.abort();
        assert_eq!(left.get_write_buffer_size(), 0);
        right.abort();
        settle().await;
        assert_eq!(events(&trace).last().unwrap(), "connection_lost(None)");
    });
}

// spec: RESOLVE-02, CONN-02
#[test]
fn names_of_extreme_length_get_a_clear_error() {
    on_loop(async {
        let event_loop = running();
        let long = "x".repeat(1 << 20);
        for host in [long.as_str(), "", "a\0b", "\u{1f980}.test.invalid", "..", "%", "::1%lo%lo"] {
            for port in [0, 1, u16::MAX] {
                let error = event_loop
                    .create_connection(|| Silent, Target::new(host, port))
                    .await
                    .map(drop);
                assert!(!error.unwrap_err().to_string().is_empty(), "{}", host.len());
            }
        }
        settle().await;
    });
}
