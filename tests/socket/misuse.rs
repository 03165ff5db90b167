//! What is wrong is refused, nothing is lost by it, and nothing hangs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;

use ringloop::{Address, DriverKind, Error, EventLoop, Exclusive, SendFile, Socket};
use ringloop_tests::files::temporary;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{self, drain, noise, reset};
use socket2::{Domain, Type};

use crate::support::{
    accept, errno, listener, now, on_loop, pair, poll_once, receive, refusal, running, send,
    tcp_pair, udp_pair, unread,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    after_close_every_call_says_so,
    a_blocking_socket_does_not_block_the_loop,
    debug_mode_refuses_a_blocking_socket,
    a_listener_receives_nothing_and_loses_nothing,
    accept_on_a_connected_socket_is_an_error,
    of_two_calls_on_one_side_the_last_one_takes_over,
    a_receive_takes_over_from_an_accept_and_back,
    who_waits_gets_what_another_call_has_left,
    a_receive_that_takes_over_from_a_smaller_one_gets_all_that_is_there,
    what_a_dropped_call_leaves_goes_to_all_who_wait_one_after_the_other,
    an_error_behind_what_a_dropped_call_has_left_is_the_next_calls,
    a_connect_that_is_refused_leaves_a_send_alone,
    a_socket_may_be_closed_while_its_descriptor_is_lent,
    a_call_that_another_loop_waits_for_ends_with_the_loop_of_the_socket,
    nothing_is_received_at_once_and_takes_nothing,
    an_address_of_another_family_is_refused,
    stream_calls_on_a_datagram_socket_send_and_receive_datagrams,
    what_is_no_socket_says_so,
    a_socket_belongs_to_one_loop_at_a_time,
    a_poll_ends_after_nine_arrivals_that_nobody_waits_for,
    a_call_that_was_to_be_woken_by_a_loop_that_was_closed_leaves_the_socket_to_others,
    a_call_without_a_loop_says_so,
    what_is_sent_is_checked_before_anything_is_sent,
    more_than_the_buffer_holds_is_refused,
];

fn after_close_every_call_says_so() {
    on_loop(async {
        let (ours, _theirs) = pair();
        ours.close();
        ours.close();
        let file = temporary(b"data");
        assert_eq!(errno(ours.recv(1).await), libc::EBADF);
        assert_eq!(errno(ours.recv_into(&mut [0]).await), libc::EBADF);
        assert_eq!(errno(ours.recvfrom(1).await), libc::EBADF);
        assert_eq!(errno(ours.sendall(b"x").await), libc::EBADF);
        assert_eq!(errno(ours.sendto(b"x", Path::new("/x")).await), libc::EBADF);
        assert_eq!(errno(ours.accept().await), libc::EBADF);
        assert_eq!(errno(ours.connect(Path::new("/x")).await), libc::EBADF);
        assert_eq!(errno(ours.sendfile(&file).await), libc::EBADF);
        assert_eq!(ours.getsockname().unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!((ours.fileno(), &*format!("{ours:?}")), (-1, "<Socket closed>"));
        let ours = Rc::try_unwrap(ours).expect("the only one");
        let made = running().create_connection(|| Exclusive::new(()), ours).await;
        assert_eq!(errno(made), libc::EBADF);
        let (ours, _theirs) = pair();
        ours.close();
        let given = Rc::try_unwrap(ours).expect("the only one").into_std::<socket2::Socket>();
        assert_eq!(given.unwrap_err().raw_os_error(), Some(libc::EBADF));
    });
}

// spec: SOCK-10, RISK-41, MAP-12
fn a_blocking_socket_does_not_block_the_loop() {
    on_loop(async {
        let (ours, theirs) = sockets::tcp_pair();
        ours.set_nonblocking(false).unwrap();
        let ours = Rc::new(Socket::from(ours));
        let k = receive(&ours, 10);
        turn(2).await;
        (&theirs).write_all(b"x").unwrap();
        assert_eq!(k.await.unwrap().unwrap(), b"x");
        let data = noise(8 << 20);
        let k = send(&ours, &*data);
        turn(2).await;
        assert!(!k.done());
        let mut got = Vec::new();
        while got.len() < data.len() {
            got.extend(drain(&theirs).0);
            turn(1).await;
        }
        k.await.unwrap().unwrap();
        assert!(got == data);

        let (listener, address) = listener();
        let client = sockets::tcp_socket();
        let client = Socket::from(client);
        client.connect(address).await.unwrap();
        listener.accept().await.unwrap();
    });
}

// spec: SOCK-10, DEBUG-04
fn debug_mode_refuses_a_blocking_socket() {
    on_loop(async {
        running().set_debug(true);
        let (ours, _theirs) = sockets::tcp_pair();
        ours.set_nonblocking(false).unwrap();
        let ours = Socket::from(ours);
        let text = "the socket must be non-blocking";
        assert_eq!(refusal(ours.recv(1).await), text);
        assert_eq!(refusal(ours.sendall(b"x").await), text);
        assert_eq!(refusal(ours.accept().await), text);
        assert_eq!(refusal(ours.connect(SocketAddr::from(([127, 0, 0, 1], 1))).await), text);
        assert_eq!(refusal(ours.recvfrom(1).await), text);
        // One that the loop knows already is asked again in each call.
        let (ours, _theirs) = tcp_pair();
        ours.sendall(b"x").await.unwrap();
        ours.with_fd(|fd| rustix::io::ioctl_fionbio(fd, false).unwrap()).unwrap();
        assert_eq!(refusal(ours.sendall(b"x").await), text);
        assert_eq!(refusal(ours.recv(1).await), text);
        running().set_debug(false);
    });
}

fn a_listener_receives_nothing_and_loses_nothing() {
    on_loop(async {
        let (listener, address) = listener();
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(errno(now(listener.recv(10))), libc::ENOTCONN);
        assert_eq!(errno(now(listener.recv_into(&mut [0; 10]))), libc::ENOTCONN);
        now(listener.accept()).unwrap();
    });
}

fn accept_on_a_connected_socket_is_an_error() {
    on_loop(async {
        let (ours, mut theirs) = tcp_pair();
        assert_eq!(errno(now(ours.accept())), libc::EINVAL);
        theirs.write_all(b"x").unwrap();
        assert_eq!(ours.recv(1).await.unwrap(), b"x");
    });
}

// spec: SOCK-12
fn of_two_calls_on_one_side_the_last_one_takes_over() {
    on_loop(async {
        let (ours, theirs) = pair();
        let k1 = send(&ours, noise(8 << 20));
        turn(2).await;
        let k2 = send(&ours, &b"second"[..]);
        turn(2).await;
        let (got, _) = drain(&theirs);
        assert!(!got.is_empty());
        turn(3).await;
        assert!(!k1.done() && k2.done());
        let (rest, _) = drain(&theirs);
        assert_eq!(rest, b"second");
        k1.cancel();
        turn(2).await;
        assert!(k1.cancelled());

        let (listener, address) = listener();
        let (a1, a2) = (accept(&listener), accept(&listener));
        turn(2).await;
        let _client = std::net::TcpStream::connect(address).unwrap();
        turn(4).await;
        assert!(!a1.done() && a2.done());
        a1.cancel();
        turn(2).await;
    });
}

// spec: SOCK-12
fn a_receive_takes_over_from_an_accept_and_back() {
    on_loop(async {
        let (listener, address) = listener();
        let waiting = accept(&listener);
        turn(2).await;
        // It tries, fails, and leaves the other one alone.
        assert_eq!(errno(now(listener.recv(1))), libc::ENOTCONN);
        let _client = std::net::TcpStream::connect(address).unwrap();
        waiting.await.unwrap().unwrap();
    });
}

// spec: SOCK-12
fn who_waits_gets_what_another_call_has_left() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let waiting = receive(&ours, 100);
        turn(2).await;
        theirs.write_all(&[1; 100]).unwrap();
        // It finds the whole message, and takes a part of it.
        assert_eq!(now(ours.recv(10)).unwrap(), [1; 10]);
        turn(3).await;
        assert_eq!(waiting.result().unwrap().unwrap(), [1; 90]);

        let (first, second) = (receive(&ours, 100), receive(&ours, 10));
        turn(2).await;
        theirs.write_all(&[2; 100]).unwrap();
        let third = receive(&ours, 90);
        turn(6).await;
        assert!(!first.cancelled() && !first.done(), "others have taken over");
        assert_eq!(second.result().unwrap().unwrap(), [2; 10]);
        assert_eq!(third.result().unwrap().unwrap(), [2; 90]);
        first.cancel();
        turn(2).await;
    });
}

// spec: SOCK-12, SOCK-40
fn a_receive_that_takes_over_from_a_smaller_one_gets_all_that_is_there() {
    on_loop(async {
        for (ours, mut theirs) in [pair(), tcp_pair()] {
            let (first, second) = (receive(&ours, 4), receive(&ours, 100));
            turn(2).await;
            theirs.write_all(&[1; 50]).unwrap();
            assert_eq!(second.await.unwrap().unwrap(), [1; 50]);
            assert!(!first.done(), "it is not completed any more");

            let third = receive(&ours, 4);
            turn(2).await;
            theirs.write_all(&[2; 50]).unwrap();
            assert_eq!(now(ours.recv(45)).unwrap(), [2; 45]);
            assert_eq!(third.await.unwrap().unwrap(), [2; 4]);
            assert_eq!(now(ours.recv(45)).unwrap(), [2; 1]);

            let (fourth, fifth) = (receive(&ours, 4), receive(&ours, 100));
            turn(2).await;
            theirs.write_all(&[3; 4]).unwrap();
            reset(theirs);
            assert_eq!(fifth.await.unwrap().unwrap(), [3; 4]);
            first.cancel();
            fourth.cancel();
            turn(2).await;
        }
    });
}

// spec: SOCK-08, SOCK-12
fn what_a_dropped_call_leaves_goes_to_all_who_wait_one_after_the_other() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let mut dropped = Box::pin(ours.recv(10));
        assert!(poll_once(dropped.as_mut()).is_pending());
        theirs.write_all(b"0123456789").unwrap();
        settle().await;
        let (mut first, mut second) = (pin!(ours.recv(4)), pin!(ours.recv(100)));
        assert!(poll_once(first.as_mut()).is_pending());
        drop(dropped);
        settle().await;
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(now(first).unwrap(), b"0123");
        settle().await;
        assert_eq!(now(second).unwrap(), b"456789");
    });
}

// spec: SOCK-08, SOCK-42
fn an_error_behind_what_a_dropped_call_has_left_is_the_next_calls() {
    on_loop(async {
        let (ours, mut theirs) = tcp_pair();
        let mut dropped = Box::pin(ours.recv(10));
        assert!(poll_once(dropped.as_mut()).is_pending());
        theirs.write_all(b"abc").unwrap();
        settle().await;
        drop(dropped);
        assert_eq!(unread(&ours), 0);
        reset(theirs);
        assert_eq!(now(ours.recv(10)).unwrap(), b"abc");
        assert_eq!(errno(now(ours.recv(10))), libc::ECONNRESET);
        assert_eq!(now(ours.recv(10)).unwrap(), b"");
    });
}

// spec: SOCK-12
fn a_connect_that_is_refused_leaves_a_send_alone() {
    on_loop(async {
        let (ours, theirs) = pair();
        let sending = send(&ours, noise(1 << 20));
        turn(2).await;
        assert_eq!(errno(now(ours.connect(Path::new("/not/there")))), libc::ENOENT);
        let mut received = 0;
        while received < 1 << 20 {
            received += drain(&theirs).0.len();
            turn(1).await;
        }
        sending.await.unwrap().unwrap();
    });
}

fn a_socket_may_be_closed_while_its_descriptor_is_lent() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        ours.with_fd(|fd| {
            ours.close();
            assert!(fd.try_clone_to_owned().is_ok(), "it is open as long as it is lent");
        })
        .unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    });
}

fn a_call_that_another_loop_waits_for_ends_with_the_loop_of_the_socket() {
    on_loop(async {
        let (ours, _theirs) = pair();
        let home = EventLoop::new().unwrap();
        let to_wait = home.clone();
        let waiting = running().create_task(async move { to_wait.sock_recv(&ours, 1).await });
        turn(2).await;
        assert!(!waiting.done());
        home.close().unwrap();
        let ended = waiting.await.unwrap().unwrap_err();
        assert_eq!(ended.to_string(), "Event loop is closed");
    });
}

// spec: SOCK-40
fn nothing_is_received_at_once_and_takes_nothing() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        assert!(now(ours.recv(0)).unwrap().is_empty());
        assert_eq!(now(ours.recv_into(&mut [])).unwrap(), 0);
        theirs.write_all(b"x").unwrap();
        assert!(now(ours.recv(0)).unwrap().is_empty());
        assert_eq!(now(ours.recv(1)).unwrap(), b"x");
    });
}

fn an_address_of_another_family_is_refused() {
    on_loop(async {
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80));
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let inet = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
        let unix = Socket::new(Domain::UNIX, Type::STREAM).unwrap();
        let text = refusal(inet.connect(v6).await);
        assert_eq!(
            text,
            "[::1]:80 is no address for a socket of AF_INET: use one of its family, or a socket of that of the address"
        );
        refusal(inet.connect(Path::new("/run/x")).await);
        refusal(unix.connect(v4).await);
        refusal(unix.connect(("localhost", 80)).await);
        refusal(unix.connect(Address::Unnamed).await);
        let (udp, theirs) = udp_pair();
        refusal(udp.sendto(b"x", v6).await);
        // It is as it was.
        udp.sendto(b"x", theirs.local_addr().unwrap()).await.unwrap();
        let (_listener, address) = listener();
        inet.connect(address).await.unwrap();
    });
}

fn stream_calls_on_a_datagram_socket_send_and_receive_datagrams() {
    on_loop(async {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        let udp = Socket::from(udp);
        assert_eq!(errno(udp.sendall(b"to whom?").await), libc::EDESTADDRREQ);
        assert_eq!(errno(now(udp.accept())), libc::EOPNOTSUPP);
        udp.connect(address).await.unwrap();
        udp.sendall(b"to itself").await.unwrap();
        assert_eq!(errno(udp.sendall(noise(100_000)).await), libc::EMSGSIZE);
        assert_eq!(udp.recv(100).await.unwrap(), b"to itself");
        let file = temporary(b"data");
        let text = refusal(udp.sendfile(&file).await);
        assert_eq!(text, "only SOCK_STREAM type sockets are supported");
        let made = running().create_connection(|| Exclusive::new(()), udp).await;
        assert!(refusal(made).starts_with("A Stream Socket was expected, got <Socket fd="));
    });
}

fn what_is_no_socket_says_so() {
    on_loop(async {
        let (reader, _writer) = sockets::pipe();
        let pipe = Socket::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!(errno(pipe.recv(1).await), libc::ENOTSOCK);
        assert_eq!(errno(pipe.sendall(b"x").await), libc::ENOTSOCK);
        assert_eq!(errno(pipe.accept().await), libc::ENOTSOCK);
    });
}

fn a_socket_belongs_to_one_loop_at_a_time() {
    let (ours, mut theirs) = pair();
    let first = EventLoop::new().unwrap();
    first.run_until_complete(async { ours.sendall(b"x").await.unwrap() }).unwrap();
    let second = EventLoop::new().unwrap();
    second
        .run_until_complete(async {
            let refused = ours.recv(1).await.unwrap_err();
            assert!(matches!(refused, Error::State(_)), "{refused}");
        })
        .unwrap();
    first.close().unwrap();
    theirs.write_all(b"y").unwrap();
    let received = second.run_until_complete(async { ours.recv(1).await.unwrap() }).unwrap();
    assert_eq!(received, b"y");
}

// spec: SOCK-06
fn a_poll_ends_after_nine_arrivals_that_nobody_waits_for() {
    on_loop(async {
        let is_ring = running().driver_info().unwrap().driver == DriverKind::Uring;
        let (ours, mut theirs) = pair();
        for _ in 0..2 {
            let waiting = receive(&ours, 1);
            turn(2).await;
            theirs.write_all(b"x").unwrap();
            assert_eq!(waiting.await.unwrap().unwrap(), b"x");
            for arrival in 1..=12 {
                // Over epoll it ends earlier: there each poll is told of once.
                if is_ring || arrival > 9 {
                    assert_eq!(running().counters().in_flight, u64::from(arrival <= 9));
                }
                theirs.write_all(&[arrival]).unwrap();
                settle().await;
            }
            assert_eq!(&*now(ours.recv(100)).unwrap(), Vec::from_iter(1..=12));
        }
    });
}

fn a_call_that_was_to_be_woken_by_a_loop_that_was_closed_leaves_the_socket_to_others() {
    let (ours, mut theirs) = pair();
    let peer = theirs.try_clone().unwrap();
    let first = EventLoop::new().unwrap();
    let waiting = first.create_task({
        let ours = Rc::clone(&ours);
        async move { ours.recv(1).await }
    });
    first.run_until_complete(turn(3)).unwrap();
    first
        .call_soon(move |event_loop| {
            (&peer).write_all(b"x").unwrap();
            // Before the handle that is queued for what has come.
            event_loop.call_soon(|event_loop| event_loop.request_exit(1)).unwrap();
        })
        .unwrap();
    assert!(matches!(first.run_forever(), Err(Error::Exit(1))));
    assert!(!waiting.done());
    first.close().unwrap();
    let second = EventLoop::new().unwrap();
    second
        .run_until_complete(async {
            assert_eq!(now(ours.recv(1)).unwrap(), b"x");
            let waiting = receive(&ours, 1);
            turn(2).await;
            theirs.write_all(b"y").unwrap();
            turn(4).await;
            assert_eq!(waiting.result().unwrap().unwrap(), b"y");
        })
        .unwrap();
}

fn a_call_without_a_loop_says_so() {
    let (ours, _theirs) = pair();
    let refused = now(ours.recv(1)).unwrap_err();
    assert_eq!(refused.to_string(), "no running event loop");
    let event_loop = EventLoop::new().unwrap();
    event_loop.close().unwrap();
    let refused = now(event_loop.sock_recv(&ours, 1)).unwrap_err();
    assert_eq!(refused.to_string(), "Event loop is closed");
}

// spec: SENDFILE-02
fn what_is_sent_is_checked_before_anything_is_sent() {
    on_loop(async {
        let (ours, theirs) = pair();
        let file = temporary(b"data");
        let text = refusal(ours.sendfile(SendFile::new(&file).count(0)).await);
        assert_eq!(text, "count must be a positive integer (got 0)");
        assert!(drain(&theirs).0.is_empty());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listener = Socket::from(listener);
        assert!(listener.sendfile(SendFile::new(&file).fallback(false)).await.is_err());
    });
}

// spec: SOCK-44
fn more_than_the_buffer_holds_is_refused() {
    on_loop(async {
        let (udp, theirs) = udp_pair();
        theirs.send(b"abc").unwrap();
        let mut buffer = [0; 4];
        let refused = running().sock_recvfrom_into(&udp, &mut buffer, 5).await;
        assert_eq!(refusal(refused), "nbytes is greater than the length of the buffer (4)");
        assert_eq!(udp.recvfrom_into(&mut buffer).await.unwrap().0, 3);
        assert!(poll_once(pin!(udp.recv(1))).is_pending());
    });
}
