//! Servers: what they bind, accept, refuse, and when they are over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringloop::{
    AddrInfo, AddrRequest, Address, Error, EventLoop, Exclusive, IntoProtocol, Listen, Protocol,
    ProtocolResult, Received, ResolveFuture, Resolver, Result, Server, Transport, extra_info,
    timeout, yield_now,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_exactly, settle, turn};
use ringloop_tests::sockets::{End, address_of, bound, connect, drain};
use socket2::{Domain, SockRef, Socket, Type};

use super::running;

struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }
}

fn silent() -> impl IntoProtocol {
    Exclusive::new(())
}

const HERE: (&str, u16) = ("127.0.0.1", 0);

async fn echo_server() -> (Server, SocketAddr) {
    let server = running().create_server(|| Echo, HERE).await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

/// Resolves every name to the same addresses.
struct Names(Vec<AddrInfo>);

impl Resolver for Names {
    fn getaddrinfo(&self, _: &EventLoop, _: AddrRequest) -> ResolveFuture {
        let infos = self.0.clone();
        Box::pin(async { Ok(infos) })
    }
}

fn text<T>(result: Result<T>) -> String {
    result.map(drop).unwrap_err().to_string()
}

// spec: SERVER-02, SERVER-03, MAP-10
#[test]
fn options_that_contradict_each_other_are_refused() {
    on_loop(async {
        let event_loop = running();
        let refused = async |listen| text(event_loop.create_server(silent, listen).await);
        assert_eq!(
            refused(Listen::on("127.0.0.1", 0).sock(bound())).await,
            "host/port and sock can not be specified at the same time"
        );
        assert_eq!(refused(Listen::default()).await, "Neither host/port nor sock were specified");
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert!(refused(datagrams.into()).await.starts_with("A Stream Socket was expected, got "));
        for tls in [
            Listen::on("", 0).ssl(true),
            Listen::on("", 0).ssl_handshake_timeout(Duration::ZERO),
            Listen::on("", 0).ssl_shutdown_timeout(Duration::ZERO),
        ] {
            let error = event_loop.create_server(silent, tls).await.unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)));
        }
    });
}

// spec: SERVER-04, SERVER-06, SERVER-09
#[test]
fn without_a_host_it_listens_on_all_interfaces_of_both_families() {
    on_loop(async {
        let event_loop = running();
        for listen in [Listen::on("", 0), Listen::default().port(0)] {
            let server = event_loop.create_server(silent, listen).await.unwrap();
            let addresses: Vec<_> = server
                .sockets()
                .iter()
                .map(|socket| socket.getsockname().unwrap().as_ip().unwrap())
                .collect();
            assert!(addresses.iter().all(|address| address.ip().is_unspecified()));
            let ports: BTreeSet<_> = addresses.iter().map(SocketAddr::port).collect();
            assert_eq!(ports.len(), addresses.len());
            server.close();
        }
        // One port for both families, if this machine has IPv6.
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            println!("skipped: there is no IPv6");
            return;
        }
        let (server, port) = loop {
            let port = address_of(&bound()).port();
            // Another test may take it meanwhile.
            if let Ok(server) = event_loop.create_server(silent, Listen::on("", port)).await {
                break (server, port);
            }
        };
        assert_eq!(server.sockets().len(), 2);
        for host in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
            TcpStream::connect((host, port)).unwrap();
        }
        server.close();
        server.abort_clients();
    });
}

// spec: SERVER-05, SERVER-07, SERVER-11
#[test]
fn names_without_a_usable_address_are_told() {
    on_loop(async {
        let event_loop = running();
        event_loop.set_resolver(Rc::new(Names(Vec::new())));
        let server = event_loop.create_server(silent, ("nowhere", 80)).await;
        assert_eq!(text(server), "getaddrinfo(nowhere) returned empty list");
        // An address that is not this machine's, and a family that the system does not know.
        let mut unknown = AddrInfo::stream(([127, 0, 0, 1], 0));
        unknown.family = Domain::from(44);
        let foreign = AddrInfo::stream(([192, 0, 2, 1], 80));
        event_loop.set_resolver(Rc::new(Names(vec![foreign, unknown])));
        event_loop.set_debug(true);
        let server = event_loop.create_server(silent, ("elsewhere", 80)).await;
        assert_eq!(
            text(server),
            "could not bind on any address out of [('192.0.2.1', 80), ('127.0.0.1', 0)]"
        );
        assert_eq!(event_loop.stats().warnings, 2);
    });
}

// spec: SERVER-10
#[test]
fn a_bind_that_fails_closes_what_was_bound_already() {
    on_loop(async {
        let event_loop = running();
        let blocker = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = blocker.local_addr().unwrap();
        let free = address_of(&bound());
        let infos = [free, taken].map(AddrInfo::stream).to_vec();
        event_loop.set_resolver(Rc::new(Names(infos)));
        let error = event_loop.create_server(silent, ("both", 1)).await.unwrap_err();
        let Error::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let port = taken.port();
        assert_eq!(
            error.to_string(),
            format!(
                "[Errno 98] error while attempting to bind on address ('127.0.0.1', {port}): \
                 address already in use"
            )
        );
        TcpListener::bind(free).unwrap();
    });
}

// spec: SERVER-08, SERVER-12, SERVER-48, SERVER-50
#[test]
fn options_show_on_the_sockets() {
    on_loop(async {
        let event_loop = running();
        let listen = Listen::on("127.0.0.1", 0).reuse_port(true).keep_alive(true).backlog(7);
        let seen = Rc::new(RefCell::new(None));
        let made = Rc::clone(&seen);
        let factory = move || Made(Rc::clone(&made));
        let server = event_loop.create_server(factory, listen).await.unwrap();
        let address = server.local_addr().unwrap();
        let again = Listen::from(address).reuse_port(true);
        let second = event_loop.create_server(silent, again).await.unwrap();
        second.close();
        let options = |fd: std::os::fd::BorrowedFd<'_>| {
            let socket = SockRef::from(&fd);
            assert!(socket.nonblocking().unwrap() && socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert!(is_close_on_exec(fd.as_raw_fd()));
        };
        let listening = &server.sockets()[0];
        listening.with_fd(options).unwrap();
        listening.with_fd(|fd| assert!(SockRef::from(&fd).reuse_address().unwrap())).unwrap();
        let _client = connect(address);
        settle().await;
        let transport: Transport = seen.take().unwrap();
        transport.get_extra_info(extra_info::SOCKET).unwrap().with_fd(options).unwrap();
        transport.close();
        server.close();
    });
}

fn is_close_on_exec(fd: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
}

/// Gives its transport away.
struct Made(Rc<RefCell<Option<Transport>>>);

impl Protocol for Made {
    fn connection_made(&self, transport: &Transport) {
        self.0.replace(Some(transport.clone()));
    }
}

// spec: SERVER-14
#[test]
fn a_given_socket_is_taken_over_and_closed() {
    on_loop(async {
        let sock = bound();
        let address = sock.local_addr().unwrap().as_socket().unwrap();
        let server = running().create_server(|| Echo, sock).await.unwrap();
        let mut client = connect(address);
        client.write_all(b"hi").unwrap();
        settle().await;
        assert_eq!(drain(&client), (b"hi".to_vec(), End::Again));
        server.close();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(client);
        server.wait_closed().await.unwrap();
    });
}

// spec: SERVER-34b, TRANS-07
#[test]
fn a_server_goes_on_without_a_handle_until_its_loop_closes() {
    let event_loop = EventLoop::new().unwrap();
    let address = event_loop
        .run_until_complete(async {
            let (server, address) = echo_server().await;
            drop(server);
            let mut client = connect(address);
            client.write_all(b"still").unwrap();
            settle().await;
            assert_eq!(drain(&client).0, b"still");
            address
        })
        .unwrap();
    event_loop.close().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

// spec: SERVER-30, MAP-19
#[test]
fn a_scope_closes_the_server_and_waits_for_its_connections() {
    on_loop(async {
        let (server, address) = echo_server().await;
        let client = Rc::new(RefCell::new(Some(connect(address))));
        let leaving = Rc::clone(&client);
        let within = server
            .scope(async |server| {
                settle().await;
                running()
                    .call_later(Duration::from_millis(1), move |_| drop(leaving.take()))
                    .unwrap();
                server.is_serving()
            })
            .await
            .unwrap();
        assert!(within && !server.is_serving() && client.borrow().is_none());
    });
}

// spec: SERVER-30, SERVER-26
#[test]
fn a_cancelled_scope_closes_the_server() {
    on_loop(async {
        let (server, address) = echo_server().await;
        let scoped = server.clone();
        let task = running().create_task(async move {
            scoped.scope(async |_| std::future::pending::<()>().await).await
        });
        yield_now().await;
        task.cancel();
        turn(5).await;
        assert!(task.cancelled() && !server.is_serving());
        assert!(TcpStream::connect(address).is_err());
    });
}

// spec: SERVER-33, SERVER-32
#[test]
fn a_connection_that_goes_with_its_loop_counts_as_gone() {
    let event_loop = EventLoop::new().unwrap();
    let (server, client) = event_loop
        .run_until_complete(async {
            let (server, address) = echo_server().await;
            let client = connect(address);
            settle().await;
            (server, client)
        })
        .unwrap();
    event_loop.close().unwrap();
    server.close_clients();
    server.close();
    assert!(server.sockets().is_empty());
    assert_eq!(drain(&client).0, b"");
}

// spec: SERVER-52
#[test]
fn a_connection_accepted_elsewhere_gets_a_transport() {
    on_loop(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let made = running().connect_accepted_socket(|| Echo, accepted).await;
        let (transport, _protocol) = made.unwrap();
        client.write_all(b"hi").unwrap();
        settle().await;
        client.read_exact(&mut [0; 2]).unwrap();
        client.shutdown(Shutdown::Both).unwrap();
        settle().await;
        assert!(transport.is_closing());
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let refused = running().connect_accepted_socket(|| Echo, datagrams).await;
        assert!(text(refused).starts_with("A Stream Socket was expected, got "));
    });
}

// spec: SERVER-31, MAP-07
#[test]
fn clients_are_closed_after_their_bytes_and_aborted_without() {
    on_loop(async {
        for abort in [false, true] {
            let transports = Rc::new(Cell::new(0));
            let count = Rc::clone(&transports);
            let factory = move || {
                count.set(count.get() + 1);
                Greedy
            };
            let server = running().create_server(factory, HERE).await.unwrap();
            let clients: Vec<_> = (0..3).map(|_| connect(server.local_addr().unwrap())).collect();
            settle().await;
            assert_eq!(transports.get(), 3);
            server.close();
            if abort {
                server.abort_clients()
            } else {
                server.close_clients()
            }
            let waiting = running().create_task({
                let server = server.clone();
                async move { server.wait_closed().await }
            });
            for client in &clients {
                let (got, end) = ringloop_tests::idle::drain_all(client).await;
                assert_eq!(got.len() == GREEDY, !abort, "{}", got.len());
                assert_eq!(end, End::Eof);
            }
            timeout(Duration::from_secs(100), waiting).await.unwrap().unwrap().unwrap();
        }
    });
}

struct Greedy;

const GREEDY: usize = 8 << 20;

impl Protocol for Greedy {
    fn connection_made(&self, transport: &Transport) {
        transport.write(vec![7; GREEDY]).unwrap();
    }
}

// spec: SERVER-23, SERVER-24, RISK-31
#[test]
fn closing_resets_connections_that_nobody_has_taken() {
    on_loop(async {
        let (server, address) = echo_server().await;
        let clients: Vec<_> = (0..5).map(|_| connect(address)).collect();
        // Some are accepted by the kernel's side already, but no handle has run.
        running().flush().unwrap();
        server.close();
        server.close();
        for client in &clients {
            let (_, end) = ringloop_tests::idle::drain_all(client).await;
            assert_eq!(end, End::Error("ConnectionResetError[ECONNRESET]".to_owned()));
        }
        server.wait_closed().await.unwrap();
    });
}

// spec: SERVER-40, SERVER-47, SERVER-49
#[test]
fn factories_run_in_the_order_of_the_accepts_one_iteration_before_connection_made() {
    on_loop(async {
        let log = Log::default();
        let made = Rc::clone(&log);
        let count = Cell::new(0);
        let factory = move || {
            let number = count.replace(count.get() + 1);
            made.borrow_mut().push((number, "factory", running().stats().iterations));
            Noted { number, log: Rc::clone(&made) }
        };
        let server = running().create_server(factory, HERE).await.unwrap();
        let clients: Vec<_> = (0..20).map(|_| connect(server.local_addr().unwrap())).collect();
        settle().await;
        let log = log.take();
        for number in 0..20 {
            let of = |event| {
                log.iter().find(|entry| entry.0 == number && entry.1 == event).map(|entry| entry.2)
            };
            assert_eq!(of("factory").unwrap() + 1, of("made").unwrap());
        }
        let numbers: Vec<_> =
            log.iter().filter(|entry| entry.1 == "factory").map(|entry| entry.0).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        drop(clients);
        server.close();
        server.wait_closed().await.unwrap();
    });
}

/// Notes in which iteration it was connected.
struct Noted {
    number: u32,
    log: Log,
}

/// Number of the connection, what happened, and the iteration.
type Log = Rc<RefCell<Vec<(u32, &'static str, u64)>>>;

impl Protocol for Noted {
    fn connection_made(&self, _: &Transport) {
        self.log.borrow_mut().push((self.number, "made", running().stats().iterations));
    }
}

#[test]
fn given_up_before_it_is_made_a_server_does_not_stay() {
    on_loop(async {
        let port = address_of(&bound()).port();
        for host in ["127.0.0.1", "localhost"] {
            for steps in 0..4 {
                let listen = Listen::on(host, port).family(Domain::IPV4);
                let making = async { running().create_server(silent, listen).await };
                let task = running().create_task(making);
                turn(steps).await;
                task.cancel();
                match task.await {
                    Err(_) | Ok(Err(_)) => {}
                    Ok(Ok(server)) => server.close(), // It was quicker.
                }
                assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
            }
        }
        running().shutdown_default_executor(None).await.unwrap();
    });
}

// spec: ERR-07, SERVER-42, SERVER-43
#[test]
fn a_listener_that_was_shut_down_is_reported_once_and_serves_again_when_it_listens_again() {
    on_loop(async {
        let (server, _) = echo_server().await;
        let reports = Rc::new(Cell::new(0));
        let count = Rc::clone(&reports);
        running().set_exception_handler(move |_, context| {
            assert!(context.message.starts_with("Exception in callback"));
            assert!(context.socket.is_some());
            count.set(count.get() + 1);
        });
        let socket = &server.sockets()[0];
        socket.shutdown(Shutdown::Both).unwrap();
        settle().await;
        assert_eq!(
            reports.get(),
            1,
            "asyncio reports it again and again, at the full speed of a core"
        );
        let duplicate = socket.dup().unwrap();
        SockRef::from(&duplicate).listen(10).unwrap();
        assert!(server.is_serving());
        let mut client = connect(server.local_addr().unwrap());
        client.write_all(b"x").unwrap();
        assert_eq!(drain_exactly(&client, 1).await, b"x");
        assert_eq!(reports.get(), 1);
        drop((client, duplicate));
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: SERVER-44
#[test]
fn closed_after_its_listener_was_shut_down_a_server_is_over() {
    on_loop(async {
        let (server, _) = echo_server().await;
        let server = Rc::new(server);
        let closed = Rc::clone(&server);
        running().set_exception_handler(move |_, _| closed.close());
        server.sockets()[0].shutdown(Shutdown::Both).unwrap();
        server.wait_closed().await.unwrap();
        assert!(!server.is_serving());
        running().reset_exception_handler();
    });
}

// spec: SERVER-41, SERVER-51
#[test]
fn clients_that_vanish_before_they_are_accepted_disturb_nobody() {
    on_loop(async {
        let (server, address) = echo_server().await;
        for round in 0..20 {
            let client = connect(address);
            if round % 2 == 0 {
                ringloop_tests::sockets::reset(client);
            } else {
                drop(client);
            }
        }
        let mut last = connect(address);
        last.write_all(b"here").unwrap();
        settle().await;
        assert_eq!(drain(&last).0, b"here");
        drop(last);
        server.close();
        server.wait_closed().await.unwrap();
    });
}

/// Notes who its client is.
struct Named(Rc<RefCell<Vec<Option<Address>>>>);

impl Protocol for Named {
    fn connection_made(&self, transport: &Transport) {
        self.0.borrow_mut().push(transport.get_extra_info(extra_info::PEERNAME));
    }
}

// spec: SERVER-45, TRANS-05
#[test]
fn a_client_that_resets_its_connection_before_it_is_accepted_has_a_name_as_any_other() {
    on_loop(async {
        let names = Rc::new(RefCell::new(Vec::new()));
        for host in ["127.0.0.1", "::1"] {
            let log = Rc::clone(&names);
            let factory = move || Named(Rc::clone(&log));
            let Ok(server) = running().create_server(factory, (host, 0)).await else { continue };
            let address = server.local_addr().unwrap();
            let clients = [(); 2].map(|()| Socket::from(TcpStream::connect(address).unwrap()));
            let expected = clients.each_ref().map(|client| Some(address_of(client).into()));
            let [first, last] = clients;
            ringloop_tests::sockets::reset(first);
            settle().await;
            assert_eq!(names.take(), expected, "{host}");
            drop(last);
            server.close();
            server.wait_closed().await.unwrap();
        }
    });
}

// spec: LOOP-16, SERVER-25
#[test]
fn a_server_that_serves_for_ever_does_not_keep_its_loop_open() {
    let event_loop = EventLoop::new().unwrap();
    let proxy = event_loop.proxy();
    let serves = Rc::new(Cell::new(false));
    let begun = Rc::clone(&serves);
    let mut serving = Box::pin(async move {
        let (server, _) = echo_server().await;
        begun.set(true);
        drop(server.serve_forever().await);
    });
    let polled = poll_fn(|cx| {
        assert!(serving.as_mut().poll(cx).is_pending());
        if serves.get() { Poll::Ready(()) } else { Poll::Pending }
    });
    event_loop.run_until_complete(polled).unwrap();
    drop(event_loop);
    assert!(proxy.is_closed());
}
