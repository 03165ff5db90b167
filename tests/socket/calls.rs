//! What each call gives, and when.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringloop::{
    AddrInfo, AddrRequest, Address, EventLoop, ResolveFuture, Resolver, Socket, timeout,
};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{drain, noise, reset};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Type};

use crate::support::{
    accept, errno, listener, now, on_loop, pair, poll_once, receive, running, send, tcp_pair,
    udp_pair, unread,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_socket_that_is_ready_does_not_give_up_control,
    a_call_that_waits_ends_in_the_iteration_after_its_event,
    a_receive_takes_no_more_than_it_was_asked_for,
    the_end_of_a_stream_is_told_again_and_again,
    a_socket_receives_and_sends_at_the_same_time,
    a_reader_that_was_added_after_a_cancel_stays,
    an_accepted_socket_does_not_block_and_is_not_inherited,
    an_accept_error_is_raised_and_nothing_is_tried_again,
    a_loop_of_accepts_gives_up_control_when_nothing_is_pending,
    connections_are_accepted_from_a_listener_that_blocks,
    a_name_is_resolved_by_the_kind_of_the_socket,
    a_refused_connection_says_so_in_asyncios_words,
    a_unix_connection_stands_at_once_and_a_tcp_one_later,
    a_cancelled_connect_leaves_a_socket_that_can_be_closed,
    a_receive_into_a_slice_writes_what_it_says_and_no_more,
    a_receive_takes_what_a_smaller_one_has_left,
    a_broken_pipe_ends_a_send_that_waits,
    a_closed_socket_stays_open_for_the_call_that_waits,
    a_socket_serves_one_loop_after_another,
    bytes_that_came_for_a_closed_loop_are_there_on_the_next,
    a_socket_can_be_shut_down_while_it_receives,
];

// spec: SOCK-01, SOCK-33, SOCK-51, RISK-27
fn a_socket_that_is_ready_does_not_give_up_control() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"abcdef").unwrap();
        assert_eq!(now(ours.recv(2)).unwrap(), b"ab");
        let mut buffer = [0; 3];
        assert_eq!(now(ours.recv_into(&mut buffer)).unwrap(), 3);
        assert_eq!((&buffer, unread(&ours)), (b"cde", 1));
        now(ours.sendall(b"x")).unwrap();
        now(ours.sendall(vec![b'y'; 100])).unwrap();
        now(ours.sendall(b"")).unwrap();
        assert_eq!(drain(&theirs).0.len(), 101);

        let (listener, address) = listener();
        let _client = TcpStream::connect(address).unwrap();
        now(listener.accept()).unwrap();

        let (udp, sender) = udp_pair();
        sender.send(b"one").unwrap();
        assert_eq!(now(udp.recvfrom(10)).unwrap().0, b"one");
        assert_eq!(now(udp.sendto(b"two", sender.local_addr().unwrap())).unwrap(), 3);

        let path = std::env::temp_dir().join(format!("ringloop-{}.sock", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        let client = Socket::new(Domain::UNIX, Type::STREAM).unwrap();
        now(client.connect(&*path)).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(unix);
    });
}

// spec: SOCK-02, SOCK-05
fn a_call_that_waits_ends_in_the_iteration_after_its_event() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let k = receive(&ours, 10);
        turn(2).await;
        theirs.write_all(b"x").unwrap();
        // One for the event, which is handled behind this task, and one for the task that it wakes, which is behind it, too.
        turn(2).await;
        assert!(!k.done());
        turn(1).await;
        assert!(k.done());
        assert_eq!(k.await.unwrap().unwrap(), b"x");
    });
}

// spec: SOCK-40, RISK-01
fn a_receive_takes_no_more_than_it_was_asked_for() {
    on_loop(async {
        let (ours, mut theirs) = tcp_pair();
        for waits in [false, true] {
            let k = receive(&ours, 4);
            if waits {
                turn(2).await;
            }
            theirs.write_all(b"abcdef").unwrap();
            assert_eq!(k.await.unwrap().unwrap(), b"abcd");
            settle().await;
            assert_eq!(unread(&ours), 2, "the rest is in the kernel");
            assert_eq!(ours.recv(100).await.unwrap(), b"ef");
        }
    });
}

// spec: SOCK-40
fn the_end_of_a_stream_is_told_again_and_again() {
    on_loop(async {
        for (ours, mut theirs) in [pair(), tcp_pair()] {
            let k = receive(&ours, 10);
            turn(2).await;
            theirs.write_all(b"last").unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            assert_eq!(k.await.unwrap().unwrap(), b"last");
            for _ in 0..3 {
                assert!(ours.recv(10).await.unwrap().is_empty());
                assert_eq!(ours.recv_into(&mut [0; 10]).await.unwrap(), 0);
            }
            ours.sendall(b"still").await.unwrap();
            assert_eq!(drain(&theirs).0, b"still");
        }
    });
}

// spec: SOCK-13
fn a_socket_receives_and_sends_at_the_same_time() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let data = noise(4 << 20);
        let (sent, received) = (send(&ours, &*data), receive(&ours, 10));
        turn(3).await;
        assert!(!sent.done() && !received.done());
        theirs.write_all(b"meanwhile").unwrap();
        assert_eq!(received.await.unwrap().unwrap(), b"meanwhile");
        assert!(!sent.done());
        let mut got = Vec::new();
        while got.len() < data.len() {
            got.extend(drain(&theirs).0);
            turn(1).await;
        }
        sent.await.unwrap().unwrap();
        assert!(got == data);
    });
}

// spec: SOCK-05
fn a_reader_that_was_added_after_a_cancel_stays() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let k = receive(&ours, 10);
        turn(2).await;
        k.cancel();
        let readable = Rc::new(Cell::new(0));
        let count = Rc::clone(&readable);
        let fd = ours.fileno();
        running().add_reader(&fd, move |_| count.set(count.get() + 1)).unwrap();
        turn(3).await;
        theirs.write_all(b"x").unwrap();
        settle_for(|| readable.get() > 0).await;
        assert!(running().remove_reader(&fd).unwrap());
        assert_eq!(ours.recv(10).await.unwrap(), b"x");
    });
}

async fn settle_for(mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        turn(1).await;
    }
}

// spec: SOCK-20
fn an_accepted_socket_does_not_block_and_is_not_inherited() {
    on_loop(async {
        let (listener, address) = listener();
        let client = TcpStream::connect(address).unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, Address::Ip(client.local_addr().unwrap()));
        let flags = server.with_fd(|fd| rustix::io::fcntl_getfd(fd).unwrap()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert!(server.with_fd(|fd| SockRef::from(&fd).nonblocking().unwrap()).unwrap());
        assert_eq!(server.getpeername().unwrap(), peer);
    });
}

// spec: SOCK-24
fn an_accept_error_is_raised_and_nothing_is_tried_again() {
    on_loop(async {
        let (listener, address) = listener();
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let before = getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(clients.len() as u64), ..before };
        setrlimit(Resource::Nofile, none).unwrap();
        assert_eq!(errno(now(listener.accept())), libc::EMFILE);
        setrlimit(Resource::Nofile, before).unwrap();
        for _ in &clients {
            now(listener.accept()).unwrap();
        }
    });
}

// spec: SOCK-23
fn a_loop_of_accepts_gives_up_control_when_nothing_is_pending() {
    on_loop(async {
        let (listener, address) = listener();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in &clients {
            now(listener.accept()).unwrap();
        }
        assert!(poll_once(pin!(listener.accept())).is_pending());
    });
}

// spec: SOCK-10, RISK-41
fn connections_are_accepted_from_a_listener_that_blocks() {
    on_loop(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Rc::new(Socket::from(listener));
        let k = accept(&listener);
        turn(3).await; // It did not block.
        let _client = TcpStream::connect(address).unwrap();
        k.await.unwrap().unwrap();
    });
}

// spec: SOCK-30
fn a_name_is_resolved_by_the_kind_of_the_socket() {
    on_loop(async {
        let (_listener, address) = listener();
        let asked = Rc::new(RefCell::new(Vec::new()));
        running().set_resolver(Rc::new(Asked { log: Rc::clone(&asked), address }));
        let client = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
        client.connect(("somewhere", address.port())).await.unwrap();
        let udp = Socket::new(Domain::IPV4, Type::DGRAM).unwrap();
        udp.connect(("elsewhere", 1)).await.unwrap();
        let wanted = [("somewhere", libc::SOCK_STREAM), ("elsewhere", libc::SOCK_DGRAM)];
        let wanted = wanted.map(|(name, kind)| (name.to_owned(), libc::AF_INET, kind));
        assert_eq!(*asked.borrow(), wanted);
        running().set_resolver(Rc::new(Nobody));
    });
}

struct Asked {
    log: Rc<RefCell<Vec<(String, i32, i32)>>>,
    address: SocketAddr,
}

impl Resolver for Asked {
    fn getaddrinfo(&self, _: &EventLoop, request: AddrRequest) -> ResolveFuture {
        let host = request.host.unwrap_or_default();
        self.log.borrow_mut().push((host, request.family, request.socktype));
        let address = self.address;
        // The first is taken, also if it is of no use.
        Box::pin(async move { Ok(vec![AddrInfo::stream(address), AddrInfo::stream(([9; 4], 1))]) })
    }
}

struct Nobody;

impl Resolver for Nobody {
    fn getaddrinfo(&self, _: &EventLoop, _: AddrRequest) -> ResolveFuture {
        Box::pin(async { Ok(Vec::new()) })
    }
}

// spec: SOCK-32, SOCK-04
fn a_refused_connection_says_so_in_asyncios_words() {
    on_loop(async {
        let (bound, address) = {
            let socket = ringloop_tests::sockets::bound();
            let address = ringloop_tests::sockets::address_of(&socket);
            (socket, address)
        };
        let client = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
        let refused = client.connect(address).await;
        let text = refused.as_ref().unwrap_err().to_string();
        let wanted = format!("[Errno 111] Connect call failed ('127.0.0.1', {})", address.port());
        assert_eq!((text, errno(refused)), (wanted, libc::ECONNREFUSED));
        assert!(now(client.recv(10)).unwrap().is_empty(), "nothing comes, and it says so");
        assert_eq!(errno(now(client.sendall(b"x"))), libc::EPIPE);
        drop(bound);

        let nowhere = std::path::Path::new("/nowhere/at/all");
        let client = Socket::new(Domain::UNIX, Type::STREAM).unwrap();
        let refused = client.connect(nowhere).await;
        assert_eq!(refused.as_ref().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    });
}

// spec: SOCK-31, SOCK-33
fn a_unix_connection_stands_at_once_and_a_tcp_one_later() {
    on_loop(async {
        let (listener, address) = listener();
        let client = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
        {
            let mut connecting = pin!(client.connect(address));
            assert!(poll_once(connecting.as_mut()).is_pending());
            connecting.await.unwrap();
        }
        let (server, _) = listener.accept().await.unwrap();
        client.sendall(b"x").await.unwrap();
        assert_eq!(server.recv(1).await.unwrap(), b"x");
        assert_eq!(errno(client.connect(address).await), libc::EISCONN);
    });
}

// spec: SOCK-34
fn a_cancelled_connect_leaves_a_socket_that_can_be_closed() {
    on_loop(async {
        let (listener, address) = listener();
        for turns in 0..4 {
            let client = Rc::new(Socket::new(Domain::IPV4, Type::STREAM).unwrap());
            let task = Rc::clone(&client);
            let k = running().create_task(async move { task.connect(address).await });
            turn(turns).await;
            k.cancel();
            turn(2).await;
            client.close();
            assert_eq!(client.fileno(), -1);
        }
        settle().await;
        while let Poll::Ready(accepted) = poll_once(pin!(listener.accept())) {
            assert!(accepted.unwrap().0.recv(1).await.unwrap().is_empty(), "it was closed");
        }
    });
}

// spec: SOCK-41, RISK-28
fn a_receive_into_a_slice_writes_what_it_says_and_no_more() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let mut buffer = [0xee; 8];
        {
            let mut receiving = pin!(ours.recv_into(&mut buffer[..6]));
            assert!(poll_once(receiving.as_mut()).is_pending());
            theirs.write_all(b"abcd").unwrap();
            turn(2).await; // The bytes are here; nobody has been told.
        }
        assert_eq!(buffer, [0xee; 8], "it was dropped");
        let n = ours.recv_into(&mut buffer).await.unwrap();
        assert_eq!((n, &buffer[..]), (4, &b"abcd\xee\xee\xee\xee"[..]));
    });
}

// spec: SOCK-08, SOCK-41
fn a_receive_takes_what_a_smaller_one_has_left() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        {
            let mut receiving = pin!(ours.recv(100));
            assert!(poll_once(receiving.as_mut()).is_pending());
            theirs.write_all(b"abcdefgh").unwrap();
            turn(2).await;
        }
        assert_eq!(unread(&ours), 0, "all of it was received for the call that has gone");
        theirs.write_all(b"ijkl").unwrap();
        assert_eq!(now(ours.recv(3)).unwrap(), b"abc");
        let mut buffer = [0; 2];
        assert_eq!(now(ours.recv_into(&mut buffer)).unwrap(), 2);
        assert_eq!(&buffer, b"de");
        assert_eq!(now(ours.recv(100)).unwrap(), b"fghijkl", "and what has come since");
    });
}

// spec: SOCK-52, SOCK-04, RISK-42
fn a_broken_pipe_ends_a_send_that_waits() {
    on_loop(async {
        for (ours, theirs) in [pair(), tcp_pair()] {
            let k = send(&ours, noise(8 << 20));
            turn(3).await;
            assert!(!k.done());
            reset(theirs);
            let errno = errno(k.await.unwrap());
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno), "{errno}");
        }
    });
}

// spec: SOCK-14
fn a_closed_socket_stays_open_for_the_call_that_waits() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let number = ours.fileno();
        let k = receive(&ours, 10);
        turn(2).await;
        ours.close();
        assert_eq!(errno(ours.recv(10).await), libc::EBADF);
        let (other, _) = ringloop_tests::sockets::pair();
        assert_ne!(std::os::fd::AsRawFd::as_raw_fd(&other), number, "the number is not free");
        theirs.write_all(b"late").unwrap();
        assert_eq!(k.await.unwrap().unwrap(), b"late");
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "now it is closed");
    });
}

fn a_socket_serves_one_loop_after_another() {
    let (ours, theirs) = pair();
    for _ in 0..2 {
        ringloop::run(async {
            ours.sendall(b"x").await.unwrap();
            assert!(timeout(Duration::ZERO, ours.recv(1)).await.is_err());
        })
        .unwrap();
    }
    assert_eq!(drain(&theirs).0, b"xx");
}

// spec: SOCK-08, RISK-01
fn bytes_that_came_for_a_closed_loop_are_there_on_the_next() {
    let (ours, mut theirs) = pair();
    let event_loop = EventLoop::new().unwrap();
    let waiting = Rc::clone(&ours);
    event_loop
        .run_until_complete(async {
            let k = receive(&waiting, 10);
            turn(2).await;
            theirs.write_all(b"abc").unwrap();
            drop(k); // Detached: it waits until the loop closes.
        })
        .unwrap();
    event_loop.set_exception_handler(|_, _| ());
    event_loop.close().unwrap();
    let next = EventLoop::new().unwrap();
    let received = next.run_until_complete(async { ours.recv(10).await });
    assert_eq!(received.unwrap().unwrap(), b"abc");
}

fn a_socket_can_be_shut_down_while_it_receives() {
    on_loop(async {
        let (ours, _theirs) = pair();
        let k = receive(&ours, 10);
        turn(2).await;
        ours.shutdown(Shutdown::Both).unwrap();
        assert!(k.await.unwrap().unwrap().is_empty());
    });
}
