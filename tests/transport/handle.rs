//! The handle itself: any stream transport fits below it.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;

use ringloop::extra_info::{ExtraKey, PEERNAME, SOCKET, SOCKNAME};
use ringloop::{
    Address, AfterEof, Buffered, BufferedProtocol, Chunk, Error, EventLoop, Exclusive, LoopRef,
    Protocol, ProtocolRef, ProtocolResult, Received, Result, StreamTransport, Transport, WriteMode,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::{pair, tcp_pair};

use super::{attach, events, recorder, running};

/// A transport to nowhere, with nothing but what it must have.
struct Memory {
    event_loop: LoopRef,
    protocol: RefCell<Option<ProtocolRef>>,
    written: RefCell<Vec<u8>>,
    is_closing: Cell<bool>,
    is_paused: Cell<bool>,
}

impl Memory {
    fn transport(protocol: impl Into<ProtocolRef>) -> (Transport, Rc<Self>) {
        let memory = Rc::new(Self {
            event_loop: running().downgrade(),
            protocol: RefCell::new(Some(protocol.into())),
            written: RefCell::default(),
            is_closing: Cell::new(false),
            is_paused: Cell::new(false),
        });
        (Transport::from_stream(Rc::clone(&memory) as Rc<dyn StreamTransport>), memory)
    }
}

impl StreamTransport for Memory {
    fn id(&self) -> u64 {
        0
    }
    fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade()
    }
    fn protocol(&self) -> Option<ProtocolRef> {
        self.protocol.borrow().clone()
    }
    fn replace_protocol(&self, new: ProtocolRef) -> Option<ProtocolRef> {
        self.protocol.replace(Some(new))
    }
    fn is_unborrowed(&self) -> bool {
        self.protocol.try_borrow_mut().is_ok() && self.written.try_borrow_mut().is_ok()
    }
    fn is_closing(&self) -> bool {
        self.is_closing.get()
    }
    fn close(self: Rc<Self>) {
        self.is_closing.set(true);
    }
    fn abort(self: Rc<Self>) {
        self.is_closing.set(true);
    }
    fn force_close(self: Rc<Self>, _: Option<io::Error>) {
        self.is_closing.set(true);
    }
    fn is_reading(&self) -> bool {
        !self.is_closing.get() && !self.is_paused.get()
    }
    fn pause_reading(self: Rc<Self>) {
        self.is_paused.set(true);
    }
    fn resume_reading(self: Rc<Self>) {
        self.is_paused.set(false);
    }
    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        self.written.borrow_mut().extend_from_slice(&data);
        Ok(())
    }
    fn write_buffer_size(self: Rc<Self>) -> usize {
        0
    }
    fn write_buffer_limits(&self) -> (usize, usize) {
        (0, 0)
    }
    fn set_write_buffer_limits(self: Rc<Self>, _: Option<usize>, _: Option<usize>) -> Result<()> {
        Ok(())
    }
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Memory>")
    }
}

// spec: TRANS-44
#[test]
fn a_transport_without_more_joins_lists_and_has_no_half_closed_state() {
    on_loop(async {
        let (transport, memory) = Memory::transport(Rc::new(Exclusive::new(())));
        transport.writelines(["ab", "", "c"]).unwrap();
        transport.write("d").unwrap();
        assert_eq!(*memory.written.borrow(), b"abcd");
        assert!(!transport.can_write_eof());
        assert!(matches!(transport.write_eof(), Err(Error::Unsupported(_))));
        transport.set_write_mode(WriteMode::Batched);
        assert_eq!(transport.write_mode(), WriteMode::Immediate);
        transport.set_extra_info(ExtraKey::new("name"), 1);
        assert_eq!(transport.get_extra_info(ExtraKey::<i32>::new("name")), None);
        assert_eq!(format!("{transport:?}"), "<Memory>");
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
        let (transport, _memory) = Memory::transport(Rc::new(Silent));
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
fn the_debug_text_tells_the_state() {
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
        let address = |address: socket2::SockAddr| Address::from(&address);
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
        if self.buffer.borrow()[0] == b'!' {
            transport.close();
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
        let (transport, _memory) = Memory::transport(ProtocolRef::from(buffered));
        transport.feed(b"abcdefghij".as_slice());
        let pieces = [(10, 4), (6, 4), (2, 2)]
            .map(|(left, len)| [format!("get Some({left})"), format!("updated {len}")]);
        assert_eq!(four.log.take(), pieces.concat());
        transport.feed(b"!no more than this".as_slice());
        assert_eq!(four.log.take(), ["get Some(18)", "updated 4"]);
        assert!(transport.is_closing());
        let none = Rc::new(Silent);
        let (transport, _memory) = Memory::transport(ProtocolRef::Buffered(none));
        running().set_exception_handler(|_, context| {
            assert_eq!(context.message, "Fatal error: protocol.get_buffer() call failed.");
        });
        transport.feed(b"x".as_slice());
        assert!(transport.is_closing());
    });
}

// spec: RISK-30, TRANS-41
#[test]
fn an_upgrade_pauses_and_hands_over_what_has_arrived() {
    on_loop(async {
        let (a, mut b) = pair();
        let (first, first_trace) = recorder();
        let (second, second_trace) = recorder();
        let second = Rc::new(second);
        let next = Rc::clone(&second);
        let old = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&old);
        let first = first.on_data(move |transport, _| {
            kept.replace(transport.upgrade(Rc::clone(&next)));
            Ok(())
        });
        let (transport, _) = attach(a, first).await;
        b.write_all(b"upgrade").unwrap();
        settle().await;
        b.write_all(b"new bytes").unwrap();
        settle().await;
        assert!(old.borrow().is_some() && !transport.is_reading());
        transport.resume_reading();
        settle().await;
        transport.close();
        second.lost().await;
        assert_eq!(events(&first_trace), ["connection_made", "data_received(b'upgrade')"]);
        assert_eq!(events(&second_trace), ["data_received(b'new bytes')", "connection_lost(None)"]);
        assert!(transport.upgrade(Rc::new(Silent)).is_none());
    });
}
