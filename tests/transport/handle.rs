//! The handle itself: any stream transport fits below it.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io;
use std::rc::Rc;

use ringloop::extra_info::{ExtraKey, PEERNAME, SOCKET, SOCKNAME};
use ringloop::{
    Address, AfterEof, AnyTransport, Buffered, BufferedProtocol, Chunk, Error, EventLoop,
    Exclusive, Protocol, ProtocolRef, ProtocolResult, Received, Result, StreamTransport, Target,
    Transport, TransportBase, WriteMode, yield_now,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::{connect, pair, reset, tcp_pair};
use socket2::SockAddr;

use super::{attach, recorder, running};

/// A transport to nowhere, with nothing but what it must have.
struct Nowhere {
    base: TransportBase,
    written: RefCell<Vec<u8>>,
}

impl Nowhere {
    fn transport(protocol: impl Into<ProtocolRef>) -> (Transport, Rc<Self>) {
        let base = TransportBase::new(&running(), protocol.into(), None);
        let nowhere = Rc::new(Self { base, written: RefCell::default() });
        (Transport::from(Rc::clone(&nowhere) as Rc<dyn StreamTransport>), nowhere)
    }
}

impl StreamTransport for Nowhere {
    fn base(&self) -> &TransportBase {
        &self.base
    }
    fn close(self: Rc<Self>) {
        self.base.begin_close();
    }
    fn force_close(self: Rc<Self>, error: Option<io::Error>) {
        self.base.lose(error);
    }
    fn pause_reading(self: Rc<Self>) {
        self.base.try_pause_reading();
    }
    fn resume_reading(self: Rc<Self>) {
        self.base.try_resume_reading();
    }
    fn unread(self: Rc<Self>, _: Received) {}
    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        self.written.borrow_mut().extend_from_slice(&data);
        Ok(())
    }
    fn write_buffer_size(self: Rc<Self>) -> usize {
        0
    }
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Nowhere>")
    }
}

// spec: TRANS-44
#[test]
fn a_transport_without_more_joins_lists_and_has_no_half_closed_state() {
    on_loop(async {
        let (transport, nowhere) = Nowhere::transport(Rc::new(Exclusive::new(())));
        transport.writelines(["ab", "", "c"]).unwrap();
        transport.write("d").unwrap();
        assert_eq!(*nowhere.written.borrow(), b"abcd");
        assert!(!transport.can_write_eof());
        assert!(matches!(transport.write_eof(), Err(Error::Unsupported(_))));
        transport.set_write_mode(WriteMode::Batched);
        assert_eq!(transport.write_mode(), WriteMode::Immediate);
        transport.set_extra_info(ExtraKey::new("name"), 1);
        assert_eq!(transport.get_extra_info(ExtraKey::<i32>::new("name")), Some(1));
        assert_eq!(transport.get_extra_info(ExtraKey::<i32>::new("sockname")), None);
        assert_eq!(format!("{transport:?}"), "<Nowhere>");
    });
}

struct Silent;

impl Protocol for Silent {}

impl BufferedProtocol for Silent {
    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        Err("never asked".into())
    }
    fn buffer_updated(&self, _: &Transport, _: usize) -> ProtocolResult {
        Ok(())
    }
}

// spec: PROTO-01, PROTO-02, PROTO-03
#[test]
fn protocols_that_say_nothing_do_nothing_and_close_at_the_end() {
    on_loop(async {
        let (transport, _nowhere) = Nowhere::transport(Rc::new(Silent));
        let plain: &dyn Protocol = &Silent;
        let buffered: &dyn BufferedProtocol = &Silent;
        plain.connection_made(&transport);
        plain.data_received(&transport, Received::default()).unwrap();
        plain.pause_writing(&transport);
        plain.resume_writing(&transport);
        assert_eq!(plain.eof_received(&transport).unwrap(), AfterEof::Close);
        plain.connection_lost(&transport, None);
        buffered.connection_made(&transport);
        buffered.pause_writing(&transport);
        buffered.resume_writing(&transport);
        assert_eq!(buffered.eof_received(&transport).unwrap(), AfterEof::Close);
        buffered.connection_lost(&transport, None);
        assert!(!transport.is_closing());
    });
}

// spec: TRANS-43
#[test]
fn the_debug_text_of_a_transport_shows_its_state() {
    on_loop(async {
        let (a, _b) = pair();
        let (recorder, _) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        let number = transport.get_extra_info(SOCKET).unwrap().fileno();
        let shown = || format!("{transport:?}");
        assert_eq!(
            shown(),
            format!("<Transport fd={number} read=polling write=<idle, bufsize=0>>")
        );
        transport.pause_reading();
        assert_eq!(shown(), format!("<Transport fd={number} read=idle write=<idle, bufsize=0>>"));
        transport.write(vec![0; 1 << 20]).unwrap();
        let size = transport.get_write_buffer_size();
        let polling = format!("fd={number} read=idle write=<polling, bufsize={size}>>");
        assert_eq!(shown(), format!("<Transport {polling}"));
        transport.close();
        assert_eq!(shown(), format!("<Transport closing {polling}"));
        transport.abort();
        protocol.lost().await;
        assert_eq!(shown(), "<Transport closed>");
    });
}

// spec: TRANS-05, TRANS-40
#[test]
fn extra_info_is_typed_extensible_and_outlives_the_connection() {
    on_loop(async {
        const USER: ExtraKey<String> = ExtraKey::new("user");
        let (a, b) = tcp_pair();
        let address = |address: SockAddr| Address::from(&address);
        let names = [a.local_addr().unwrap(), a.peer_addr().unwrap()].map(address);
        let (recorder, _) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        transport.set_extra_info(USER, "me".to_owned());
        assert_eq!(transport.get_extra_info(USER).as_deref(), Some("me"));
        assert_eq!(transport.get_extra_info(ExtraKey::<u8>::new("user")), None);
        assert_eq!(transport.get_extra_info(ExtraKey::<String>::new("nope")), None);
        let socket = transport.get_extra_info(SOCKET).unwrap();
        assert_eq!(socket.getpeername().unwrap(), names[1]);
        assert!(socket.set_blocking(true).is_err() && socket.set_blocking(false).is_ok());
        assert!(socket.set_timeout(None).is_err());
        assert_eq!(socket.timeout(), Some(std::time::Duration::ZERO));
        transport.close();
        protocol.lost().await;
        assert_eq!(transport.get_extra_info(SOCKNAME), Some(names[0].clone()));
        assert_eq!(transport.get_extra_info(PEERNAME), Some(names[1].clone()));
        assert_eq!(socket.fileno(), -1);
        assert_eq!(socket.getsockname().unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(format!("{socket:?}"), "<TransportSocket closed>");
        drop(b);
    });
}

// spec: TRANS-05
#[test]
fn a_peer_that_nobody_has_asked_for_is_known_after_its_reset_and_after_the_close_of_the_loop() {
    on_loop(async {
        let (a, b) = tcp_pair();
        let peer = Address::from(&a.peer_addr().unwrap());
        let (transport, protocol) = attach(a, recorder().0).await;
        transport.pause_reading();
        reset(b);
        settle().await;
        assert_eq!(transport.get_extra_info(PEERNAME), Some(peer));
        transport.abort();
        protocol.lost().await;
    });
    let event_loop = EventLoop::new().unwrap();
    let (a, b) = tcp_pair();
    let names = [a.local_addr().unwrap(), a.peer_addr().unwrap()].map(|name| Address::from(&name));
    let (transport, _) = event_loop.run_until_complete(attach(a, recorder().0)).unwrap();
    event_loop.close().unwrap();
    let asked = [SOCKNAME, PEERNAME].map(|key| transport.get_extra_info(key).unwrap());
    assert_eq!(asked, names);
    drop(b);
}

// spec: TRANS-05
#[test]
fn a_unix_peer_has_the_name_that_it_had_when_the_transport_was_made() {
    on_loop(async {
        let (a, b) = pair();
        let (transport, protocol) = attach(a, recorder().0).await;
        let name = format!("\0ringloop peer of {}", std::process::id());
        b.bind(&SockAddr::unix(name).unwrap()).unwrap();
        assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::Unnamed));
        transport.close();
        protocol.lost().await;
    });
}

/// Takes four bytes at a time.
#[derive(Default)]
struct Four {
    buffer: RefCell<[u8; 4]>,
    log: RefCell<Vec<String>>,
}

impl BufferedProtocol for Four {
    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.log.borrow_mut().push(format!("get {hint:?}"));
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }
    fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult {
        self.log.borrow_mut().push(format!("updated {len}"));
        match self.buffer.borrow()[0] {
            b'!' => transport.close(),
            b'?' => transport.abort(),
            _ => {}
        }
        Ok(())
    }
}

// spec: PROTO-17, MAP-09
#[test]
fn bytes_fed_to_a_buffered_protocol_are_taken_piece_by_piece() {
    on_loop(async {
        let four = Rc::new(Four::default());
        let buffered = Buffered::from(Rc::clone(&four));
        let (transport, _nowhere) = Nowhere::transport(ProtocolRef::from(buffered));
        transport.base().feed(&transport, b"abcdefghij".as_slice());
        let pieces = [(10, 4), (6, 4), (2, 2)]
            .map(|(left, len)| [format!("get Some({left})"), format!("updated {len}")]);
        assert_eq!(four.log.take(), pieces.concat());
        transport.base().feed(&transport, b"!closes".as_slice());
        let pieces = [(7, 4), (3, 3)]
            .map(|(left, len)| [format!("get Some({left})"), format!("updated {len}")]);
        assert_eq!(four.log.take(), pieces.concat());
        assert!(transport.is_closing());
        transport.base().feed(&transport, b"?aborts, so no more than this".as_slice());
        assert_eq!(four.log.take(), ["get Some(29)", "updated 4"]);
        let none = Rc::new(Silent);
        let (transport, _nowhere) = Nowhere::transport(ProtocolRef::Buffered(none));
        running().set_exception_handler(|_, context| {
            assert_eq!(context.message, "Fatal error: protocol.get_buffer() call failed.");
        });
        transport.base().feed(&transport, b"x".as_slice());
        assert!(transport.is_closing());
    });
}

// spec: WRITE-03
#[test]
fn the_loop_says_how_connections_write_for_which_nothing_else_is_said() {
    let event_loop = EventLoop::builder().write_mode(WriteMode::Immediate).build().unwrap();
    let other = event_loop.clone();
    let main = async move {
        let (a, b) = tcp_pair();
        let (transport, _) = other.create_connection(|| Silent, a).await.unwrap();
        assert_eq!(transport.write_mode(), WriteMode::Immediate);
        transport.abort();
        let (transport, _) = other.connect_accepted_socket(|| Silent, b).await.unwrap();
        assert_eq!(transport.write_mode(), WriteMode::Immediate);
        transport.abort();
        let target = Target::from(pair().0).write_mode(WriteMode::Batched);
        let (transport, _) = other.create_connection(|| Silent, target).await.unwrap();
        assert_eq!(transport.write_mode(), WriteMode::Batched);
        transport.abort();
        let made = Rc::new(Cell::new(None));
        let note = Rc::clone(&made);
        let factory = move || Noting(Rc::clone(&note));
        let server = other.create_server(factory, ("127.0.0.1", 0)).await.unwrap();
        let client = connect(server.local_addr().unwrap());
        while made.get().is_none() {
            yield_now().await;
        }
        assert_eq!(made.get(), Some(WriteMode::Immediate));
        drop(client);
        server.close();
        settle().await;
    };
    event_loop.run_until_complete(main).unwrap();
}

/// Notes the write mode that it finds.
struct Noting(Rc<Cell<Option<WriteMode>>>);

impl Protocol for Noting {
    fn connection_made(&self, transport: &Transport) {
        self.0.set(Some(transport.write_mode()));
    }
}
