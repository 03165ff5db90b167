//! Sockets that change hands: what had come for cancelled calls goes along.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;

use ringloop::{Socket, Unclaimed};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{self, reset};
use ringloop_tests::trace::Trace;

use crate::support::{
    listener, now, on_loop, open_descriptors, pair, poll_once, running, tcp_pair,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_socket_comes_back_as_what_it_was_with_nothing_left_over,
    bytes_of_a_cancelled_receive_come_back_as_a_value,
    an_error_of_a_cancelled_receive_comes_back_as_a_value,
    a_connection_of_a_cancelled_accept_comes_back_as_a_value,
    a_transport_is_given_what_a_cancelled_receive_has_received,
    a_transport_is_given_the_error_that_a_cancelled_receive_has_met,
    a_server_serves_the_connection_of_a_cancelled_accept_first,
    after_the_drop_of_a_listener_a_connect_is_refused_at_once,
    a_dropped_socket_is_closed_at_once_though_its_receive_was_armed,
    bytes_that_are_thrown_away_reset_the_connection,
    an_operation_in_flight_is_over_before_the_descriptor_changes_hands,
];

fn owned(socket: Rc<Socket>) -> Socket {
    Rc::try_unwrap(socket).expect("the only one")
}

/// Has a receive of `socket` armed, and drops it in the iteration in which `provoke` has an effect.
async fn cancel_late(socket: &Socket, provoke: impl FnOnce()) {
    let mut receiving = pin!(socket.recv(100));
    assert!(poll_once(receiving.as_mut()).is_pending());
    turn(1).await;
    provoke();
    turn(2).await;
}

async fn cancel_accept_late(socket: &Socket, provoke: impl FnOnce()) {
    let mut accepting = pin!(socket.accept());
    assert!(poll_once(accepting.as_mut()).is_pending());
    turn(1).await;
    provoke();
    turn(2).await;
}

// spec: SOCK-06
fn a_socket_comes_back_as_what_it_was_with_nothing_left_over() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        ours.sendall(b"x").await.unwrap();
        theirs.write_all(b"abcdef").unwrap();
        assert_eq!(ours.recv(2).await.unwrap(), b"ab");
        let (mut stream, unclaimed): (UnixStream, Unclaimed) = owned(ours).into_std().unwrap();
        assert!(unclaimed.is_empty());
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"cdef");
    });
}

// spec: SOCK-08, RISK-01
fn bytes_of_a_cancelled_receive_come_back_as_a_value() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        cancel_late(&ours, || theirs.write_all(b"abc").unwrap()).await;
        theirs.write_all(b"def").unwrap();
        let (mut stream, unclaimed): (UnixStream, _) = owned(ours).into_std().unwrap();
        let received: Vec<_> = unclaimed.received.into_iter().map(Result::unwrap).collect();
        assert_eq!(received, [&b"abc"[..]].map(ringloop::Received::from));
        let mut rest = [0; 3];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"def");
    });
}

// spec: SOCK-42, RISK-01
fn an_error_of_a_cancelled_receive_comes_back_as_a_value() {
    on_loop(async {
        let (ours, theirs) = tcp_pair();
        cancel_late(&ours, || reset(theirs)).await;
        let (_stream, unclaimed): (TcpStream, _) = owned(ours).into_std().unwrap();
        let errors: Vec<_> = unclaimed.received.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(
            errors.iter().map(std::io::Error::kind).collect::<Vec<_>>(),
            [ErrorKind::ConnectionReset]
        );
    });
}

// spec: SOCK-21, RISK-02
fn a_connection_of_a_cancelled_accept_comes_back_as_a_value() {
    on_loop(async {
        let (listener, address) = listener();
        let mut client = None;
        cancel_accept_late(&listener, || client = Some(TcpStream::connect(address).unwrap())).await;
        let (_listener, unclaimed): (TcpListener, _) = owned(listener).into_std().unwrap();
        let [accepted] = <[_; 1]>::try_from(unclaimed.accepted).unwrap();
        accepted.unwrap().sendall(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    });
}

// spec: SOCK-08, RISK-01, RISK-23
fn a_transport_is_given_what_a_cancelled_receive_has_received() {
    on_loop(async {
        for (ours, mut theirs) in [pair(), tcp_pair()] {
            cancel_late(&ours, || theirs.write_all(b"abc").unwrap()).await;
            theirs.write_all(b"def").unwrap();
            drop(theirs);
            let trace = Trace::new();
            let recorder = Recorder::new(&trace, ringloop::WriteMode::Batched);
            let (_transport, recorder) =
                running().create_connection(|| recorder, owned(ours)).await.unwrap();
            recorder.lost().await;
            let lines = trace.lines().join("\n");
            let wanted = "proto: connection_made\nproto: data_received(b'abc')\nproto: data_received(b'def')\n\
                          proto: eof_received\nproto: connection_lost(None)";
            assert_eq!(lines, wanted);
        }
    });
}

// spec: SOCK-42, RISK-01
fn a_transport_is_given_the_error_that_a_cancelled_receive_has_met() {
    on_loop(async {
        let (ours, theirs) = tcp_pair();
        cancel_late(&ours, || reset(theirs)).await;
        let trace = Trace::new();
        let recorder = Recorder::new(&trace, ringloop::WriteMode::Batched);
        let (_transport, recorder) =
            running().create_connection(|| recorder, owned(ours)).await.unwrap();
        recorder.lost().await;
        let last = trace.lines().pop().unwrap();
        assert_eq!(last, "proto: connection_lost(ConnectionResetError[ECONNRESET])");
    });
}

// spec: SOCK-21, RISK-02
fn a_server_serves_the_connection_of_a_cancelled_accept_first() {
    on_loop(async {
        let (listener, address) = listener();
        let mut client = None;
        cancel_accept_late(&listener, || client = Some(TcpStream::connect(address).unwrap())).await;
        let trace = Trace::new();
        let made = trace.clone();
        let factory = move || Recorder::new(&made, ringloop::WriteMode::Batched);
        let server = running().create_server(factory, owned(listener)).await.unwrap();
        drop(client);
        settle().await;
        assert_eq!(
            trace.lines(),
            ["proto: connection_made", "proto: eof_received", "proto: connection_lost(None)"]
        );
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: SERVER-23, RISK-31
fn after_the_drop_of_a_listener_a_connect_is_refused_at_once() {
    on_loop(async {
        for late in [false, true] {
            let (listener, address) = listener();
            let mut client = None;
            if late {
                let connect = || client = Some(TcpStream::connect(address).unwrap());
                cancel_accept_late(&listener, connect).await;
            } else {
                assert!(poll_once(pin!(listener.accept())).is_pending());
            }
            drop(listener);
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            if let Some(mut client) = client {
                // As those that are in the kernel's own queue.
                let lost = client.read(&mut [0]).unwrap_err();
                assert_eq!(lost.kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}

// spec: SOCK-14
fn a_dropped_socket_is_closed_at_once_though_its_receive_was_armed() {
    on_loop(async {
        let (ours, mut theirs) = tcp_pair();
        {
            let mut receiving = pin!(ours.recv(1));
            assert!(poll_once(receiving.as_mut()).is_pending());
            turn(2).await;
        }
        let before = open_descriptors();
        drop(ours);
        assert_eq!(open_descriptors(), before - 1);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    });
}

// spec: RISK-06
fn bytes_that_are_thrown_away_reset_the_connection() {
    on_loop(async {
        let (ours, mut theirs) = tcp_pair();
        cancel_late(&ours, || theirs.write_all(b"abc").unwrap()).await;
        drop(ours);
        assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

fn an_operation_in_flight_is_over_before_the_descriptor_changes_hands() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        {
            let mut receiving = pin!(ours.recv(1));
            assert!(poll_once(receiving.as_mut()).is_pending());
        }
        // Neither the cancel nor, perhaps, the receive itself has been submitted.
        let (mut stream, unclaimed): (UnixStream, _) = owned(ours).into_std().unwrap();
        assert!(unclaimed.is_empty());
        assert_eq!(running().counters().in_flight, 0);
        theirs.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let (ours, _theirs) = sockets::pair();
        let ours = Socket::from(ours);
        now(ours.sendall(b"x")).unwrap();
    });
}
