//! Connecting: addresses, names, errors, and giving up.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    AddrInfo, AddrRequest, Address, ConnectFuture, Connector, Error, EventLoop, Exclusive,
    IntoProtocol, OsError, Protocol, ProtocolError, ResolveFuture, Resolver, Result, Target,
    Transport, WriteMode, extra_info, yield_now,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::sockets::{End, address_of, bound, drain, listener, pair, tcp_pair};
use socket2::{Domain, Socket, Type};

use super::running;

fn silent() -> impl IntoProtocol<Protocol = Exclusive<()>> {
    Exclusive::new(())
}

async fn connect(target: impl Into<Target>) -> Result<Transport> {
    running().create_connection(silent, target).await.map(|(transport, _)| transport)
}

async fn text_of(target: impl Into<Target>) -> String {
    connect(target).await.unwrap_err().to_string()
}

/// An address where nobody listens, for as long as the socket lives.
fn refusing() -> (Socket, SocketAddr) {
    let socket = bound();
    let address = address_of(&socket);
    (socket, address)
}

/// Answers every request alike, and keeps it.
#[derive(Default)]
struct Names {
    answer: Vec<AddrInfo>,
    asked: RefCell<Vec<AddrRequest>>,
}

impl Names {
    fn set(addresses: impl IntoIterator<Item = SocketAddr>) -> Rc<Self> {
        let answer = addresses.into_iter().map(AddrInfo::stream).collect();
        let names = Rc::new(Self { answer, asked: RefCell::default() });
        running().set_resolver(Rc::clone(&names) as Rc<dyn Resolver>);
        names
    }
}

impl Resolver for Names {
    fn getaddrinfo(&self, _: &EventLoop, request: AddrRequest) -> ResolveFuture {
        self.asked.borrow_mut().push(request);
        let answer = self.answer.clone();
        Box::pin(async { Ok(answer) })
    }
}

// spec: CONN-02, MAP-10
#[test]
fn options_that_contradict_each_other_are_refused() {
    on_loop(async {
        assert_eq!(
            text_of(Target::new("h", 1).sock(pair().0)).await,
            "host/port and sock can not be specified at the same time"
        );
        assert_eq!(
            text_of(Target::default()).await,
            "host and port was not specified and no sock specified"
        );
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert!(text_of(datagrams).await.starts_with("A Stream Socket was expected, got "));
        for tls in [
            Target::new("h", 1).ssl(true),
            Target::new("h", 1).server_hostname("x"),
            Target::new("h", 1).ssl_handshake_timeout(Duration::ZERO),
            Target::new("h", 1).ssl_shutdown_timeout(Duration::ZERO),
        ] {
            assert!(matches!(connect(tls).await, Err(Error::Unsupported(_))));
        }
    });
}

// spec: CONN-01, CONN-17, RESOLVE-01
#[test]
fn an_address_is_connected_to_without_asking_the_resolver() {
    on_loop(async {
        let names = Names::set([]);
        for ip in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let Ok(listener) = TcpListener::bind((ip, 0)) else { continue };
            let address = listener.local_addr().unwrap();
            let target = Target::from(address).write_mode(WriteMode::Immediate);
            let transport = connect(target).await.unwrap();
            let (_peer, peer_address) = listener.accept().unwrap();
            let peername = transport.get_extra_info(extra_info::PEERNAME).unwrap();
            let sockname = transport.get_extra_info(extra_info::SOCKNAME).unwrap();
            assert_eq!((peername, sockname), (address.into(), Address::from(peer_address)));
            assert_eq!(transport.write_mode(), WriteMode::Immediate);
            let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
            assert!(socket.nodelay().unwrap());
            transport.close();
        }
        assert!(names.asked.borrow().is_empty());
    });
}

// spec: RESOLVE-02, RESOLVE-04
#[test]
fn names_are_resolved_off_the_loop() {
    on_loop(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for target in [
            Target::new("localhost", port).family(Domain::IPV4),
            Target::new("localhost", 1).service(port.to_string()).family(Domain::IPV4),
        ] {
            let transport = connect(target).await.unwrap();
            let peername = transport.get_extra_info(extra_info::PEERNAME).unwrap();
            assert_eq!(peername.as_ip().unwrap().port(), port);
            transport.close();
        }
    });
}

// spec: RESOLVE-04, RESOLVE-06, RESOLVE-10
#[test]
fn what_is_no_address_goes_to_the_resolver_as_it_is() {
    on_loop(async {
        let names = Names::set([]);
        for target in [
            Target::new("name", 7).protocol(6).flags(libc::AI_ADDRCONFIG),
            Target::new("127.0.0.1", 1).service("http"),
            Target::new("127.0.0.1", 1).family(Domain::IPV6),
            Target::new("::1%lo", 2),
            Target::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 3))).family(Domain::IPV6),
            Target::from(SocketAddr::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 4, 0, 5))),
        ] {
            assert_eq!(text_of(target).await, "getaddrinfo() returned empty list");
        }
        let asked = names.asked.take();
        let shown: Vec<_> = asked
            .iter()
            .map(|request| (request.host.as_deref().unwrap(), &*request.port))
            .collect();
        let words = [("name", "7"), ("127.0.0.1", "http"), ("127.0.0.1", "1"), ("::1%lo", "2")];
        assert_eq!(shown[..4], words);
        assert_eq!(shown[4..], [("127.0.0.1", "3"), ("::1%5", "4")]);
        assert_eq!((asked[0].protocol, asked[0].flags), (6, libc::AI_ADDRCONFIG));
        assert_eq!((asked[1].family, asked[2].family), (libc::AF_UNSPEC, libc::AF_INET6));
        assert_eq!(asked[0].socktype, libc::SOCK_STREAM);
    });
}

/// Fails, after a while.
struct Unknown;

impl Resolver for Unknown {
    fn getaddrinfo(&self, _: &EventLoop, _: AddrRequest) -> ResolveFuture {
        Box::pin(async {
            ringloop::sleep(Duration::from_millis(20)).await;
            Err(std::io::Error::new(ErrorKind::NotFound, "Name or service not known").into())
        })
    }
}

// spec: RESOLVE-07, RESOLVE-08, DEBUG-08
#[test]
fn a_resolver_that_fails_is_heard_and_a_slow_one_is_told_in_debug_mode() {
    on_loop(async {
        let event_loop = running();
        event_loop.set_resolver(Rc::new(Unknown));
        assert_eq!(text_of(("nowhere", 1)).await, "Name or service not known");
        assert_eq!(event_loop.stats().warnings, 0);
        event_loop.set_debug(true);
        event_loop.set_slow_callback_duration(Duration::from_millis(10));
        assert_eq!(text_of(("nowhere", 1)).await, "Name or service not known");
        assert!(event_loop.stats().warnings >= 1);
    });
}

// spec: RESOLVE-09
#[test]
fn a_loop_may_close_while_a_name_is_resolved() {
    let event_loop = EventLoop::new().unwrap();
    event_loop
        .run_until_complete(async {
            let connecting = async { connect(("localhost", 1)).await.map(drop) };
            drop(running().create_task(connecting));
            yield_now().await;
        })
        .unwrap();
    event_loop.close().unwrap();
}

// spec: CONN-05, CONN-08, CONN-14
#[test]
fn when_all_addresses_fail_their_errors_are_one() {
    on_loop(async {
        let (_held, first) = refusing();
        let (_held_too, second) = refusing();
        let refused = |address: SocketAddr| {
            format!("[Errno 111] Connect call failed ('127.0.0.1', {})", address.port())
        };
        let made = Cell::new(0);
        let event_loop = running();
        Names::set([first, second]);
        let factory = || {
            made.set(made.get() + 1);
            Exclusive::new(())
        };
        let error = event_loop.create_connection(factory, ("both", 1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Multiple exceptions: {}, {}", refused(first), refused(second))
        );
        let error = connect(Target::new("both", 1).all_errors(true)).await.unwrap_err();
        let text = format!("{}, {}", refused(first), refused(second));
        let failed = "create_connection failed (2 sub-exceptions)";
        assert_eq!(error.to_string(), format!("{failed}: {text}"));
        let Error::Multiple(group) = error else { panic!("{error}") };
        assert_eq!(group.message(), "create_connection failed");
        for error in group.errors() {
            let Error::Io(error) = error else { panic!("{error}") };
            assert_eq!(OsError::errno_of(error), Some(libc::ECONNREFUSED));
        }
        Names::set([first, first]);
        assert_eq!(text_of(("same", 1)).await, refused(first));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Names::set([first, listener.local_addr().unwrap()]);
        connect(("second", 1)).await.unwrap().close();
        assert_eq!(made.get(), 0);
    });
}

// spec: CONN-06, CONN-07
#[test]
fn local_addresses_of_the_family_are_tried_in_turn() {
    on_loop(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Target::from(address).local_addr("127.0.0.3", 0);
        let transport = connect(target).await.unwrap();
        let sockname = transport.get_extra_info(extra_info::SOCKNAME).unwrap();
        assert_eq!(sockname.as_ip().unwrap().ip().to_string(), "127.0.0.3");
        transport.close();
        let taken = Target::from(address).local_addr("127.0.0.1", address.port());
        assert_eq!(
            text_of(taken).await,
            format!(
                "[Errno 98] error while attempting to bind on address ('127.0.0.1', {}): \
                 address already in use",
                address.port()
            )
        );
        let other = Target::from(address).local_addr("::1", 0);
        assert_eq!(text_of(other).await, "no matching local address with family=2 found");
    });
}

// spec: CONN-13
#[test]
fn a_given_socket_of_any_family_is_taken_and_does_not_block() {
    on_loop(async {
        let (unix, _unix_peer) = UnixStream::pair().unwrap();
        let (tcp, _tcp_peer) = tcp_pair();
        let (other, _other_peer) = pair();
        for target in [Target::from(unix), Target::from(tcp), Target::from(OwnedFd::from(other))] {
            let transport = connect(target).await.unwrap();
            let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
            let nonblocking = socket.with_fd(|fd| socket2::SockRef::from(&fd).nonblocking());
            assert!(nonblocking.unwrap().unwrap());
            transport.close();
        }
    });
}

// spec: TRANS-08, MAP-08
#[test]
fn a_descriptor_of_an_open_transport_gets_no_second_one() {
    on_loop(async {
        let (a, b) = pair();
        let number = a.as_raw_fd();
        let transport = connect(a).await.unwrap();
        // The same number can only come again by a close behind our back, which is unsafe; so ask the loop's own books.
        let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
        assert_eq!(socket.fileno(), number);
        let error = running().add_writer(&socket, |_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("File descriptor {number} is used by transport {transport:?}")
        );
        transport.close();
        drop(b);
    });
}

// spec: CONN-15, CONN-16
#[test]
fn given_up_at_any_point_nothing_is_left_open() {
    on_loop(async {
        let event_loop = running();
        let silent_listener = listener(0); // Connects to it, once its queue is full, neither succeed nor fail.
        let address = address_of(&silent_listener);
        let fill: Vec<_> = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        for steps in 0..6 {
            for host in ["127.0.0.1", "localhost"] {
                let local = address_of(&bound());
                let target = Target::new(host, address.port())
                    .family(Domain::IPV4)
                    .local_addr("127.0.0.1", local.port());
                let task = event_loop.create_task(async { connect(target).await.map(drop) });
                turn(steps).await;
                task.cancel();
                assert!(task.await.is_err());
                TcpListener::bind(local).unwrap(); // Closed: its address is free.
            }
        }
        event_loop.shutdown_default_executor(None).await.unwrap();
        for steps in 0..6 {
            let (a, b) = pair();
            let task = event_loop
                .create_task(async { connect(a).await.map(|transport| transport.close()) });
            turn(steps).await;
            task.cancel();
            let _ = task.await;
            settle().await;
            assert_eq!(drain(&b), (Vec::new(), End::Eof), "{steps} steps");
        }
        drop(fill);
    });
}

/// Notes attempts; the first one never comes to anything.
struct Stalls {
    attempts: RefCell<Vec<String>>,
}

impl Connector for Stalls {
    fn connect(&self, address: &Address, connect: ConnectFuture) -> ConnectFuture {
        self.attempts.borrow_mut().push(address.to_string());
        if self.attempts.borrow().len() == 1 { Box::pin(std::future::pending()) } else { connect }
    }
}

// spec: CONN-09, CONN-11, MAP-20
#[test]
fn an_address_that_stalls_is_overtaken() {
    on_loop(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
        let stalled = SocketAddr::from(([127, 0, 0, 9], address.port()));
        // Interleaved, the second family comes second.
        Names::set([stalled, v6, address]);
        let stalls = Rc::new(Stalls { attempts: RefCell::default() });
        running().set_connector(Rc::clone(&stalls) as Rc<dyn Connector>);
        let target = Target::new("name", 1).happy_eyeballs_delay(Duration::from_millis(5));
        let transport = connect(target).await.unwrap();
        let peername = transport.get_extra_info(extra_info::PEERNAME).unwrap();
        assert_eq!(peername.as_ip(), Some(address));
        let expected = [stalled, v6, address].map(|address| address.to_string());
        assert_eq!(*stalls.attempts.borrow(), expected);
        transport.close();
    });
}

// spec: CONN-14
#[test]
fn a_factory_that_fails_closes_the_connection() {
    on_loop(async {
        let (a, b) = pair();
        let factory = || Err::<Exclusive<()>, _>(ProtocolError::from("not now"));
        let error = running().create_connection(factory, a).await.unwrap_err();
        assert_eq!(error.to_string(), "not now");
        assert_eq!(drain(&b), (Vec::new(), End::Eof));
    });
}

/// Panics when it is connected.
struct Fails;

impl Protocol for Fails {
    fn connection_made(&self, _: &Transport) {
        panic!("not me");
    }
}

// spec: PROTO-13
#[test]
fn a_connection_made_that_panics_is_reported_and_the_creator_goes_on() {
    on_loop(async {
        let reports = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&reports);
        running().set_exception_handler(move |_, context| {
            assert!(context.transport.is_some() && context.protocol.is_some());
            log.borrow_mut().push(format!("{}: {}", context.message, context.error.unwrap()));
        });
        let (a, mut b) = pair();
        let (transport, _) = running().create_connection(|| Fails, a).await.unwrap();
        assert_eq!(*reports.borrow(), ["Exception in callback connection_made(): not me"]);
        b.write_all(b"x").unwrap();
        settle().await;
        assert!(!transport.is_closing());
        transport.close();
    });
}
