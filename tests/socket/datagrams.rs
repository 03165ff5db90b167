//! Datagrams: whole, with their senders, and none lost.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::rc::Rc;

use ringloop::{Address, Socket};
use ringloop_tests::idle::turn;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::noise;

use crate::support::{errno, now, on_loop, poll_once, running, udp_pair};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_datagram_is_cut_to_what_was_asked_for,
    a_cancelled_receive_of_few_bytes_cuts_nothing,
    an_empty_datagram_is_a_datagram,
    a_receive_that_somebody_else_was_faster_than_goes_on_waiting,
    a_datagram_waits_for_room_and_goes_whole,
    a_unix_datagram_of_any_length_comes_whole,
    an_error_of_the_peer_is_told_once,
];

// spec: SOCK-43, SOCK-44
fn a_datagram_is_cut_to_what_was_asked_for() {
    on_loop(async {
        let (ours, theirs) = udp_pair();
        let sender = Address::Ip(theirs.local_addr().unwrap());
        for waits in [false, true] {
            let receiver = Rc::clone(&ours);
            let k = running().create_task(async move { receiver.recvfrom(3).await });
            if waits {
                turn(2).await;
            }
            theirs.send(b"abcdef").unwrap();
            theirs.send(b"next").unwrap();
            let (data, from) = k.await.unwrap().unwrap();
            assert_eq!((&*data, &from), (&b"abc"[..], &sender));
            let mut buffer = [0; 10];
            let received = running().sock_recvfrom_into(&ours, &mut buffer, 0).await.unwrap();
            assert_eq!((received, &buffer[..4]), ((4, sender.clone()), &b"next"[..]));
        }
    });
}

// spec: SOCK-43, RISK-36
fn a_cancelled_receive_of_few_bytes_cuts_nothing() {
    on_loop(async {
        let (ours, theirs) = udp_pair();
        for turns in 0..4 {
            {
                let mut receiving = pin!(ours.recvfrom(2));
                assert!(poll_once(receiving.as_mut()).is_pending());
                theirs.send(b"a long one").unwrap();
                turn(turns).await;
            }
            assert_eq!(ours.recvfrom(100).await.unwrap().0, b"a long one");
        }
    });
}

// spec: SOCK-43, SOCK-55
fn an_empty_datagram_is_a_datagram() {
    on_loop(async {
        let (ours, theirs) = udp_pair();
        theirs.send(b"").unwrap();
        theirs.send(b"x").unwrap();
        assert!(ours.recvfrom(10).await.unwrap().0.is_empty());
        assert_eq!(ours.recv(10).await.unwrap(), b"x");
        assert_eq!(ours.sendto(b"", theirs.local_addr().unwrap()).await.unwrap(), 0);
        assert_eq!(theirs.recv(&mut [0; 4]).unwrap(), 0);
        // Who asks for nothing of a datagram takes it nevertheless, unless he does not even ask who sent it.
        theirs.send(b"one").unwrap();
        assert!(now(ours.recv(0)).unwrap().is_empty());
        assert!(now(ours.recvfrom(0)).unwrap().0.is_empty());
        assert!(poll_once(pin!(ours.recvfrom(10))).is_pending());
    });
}

// spec: SOCK-03
fn a_receive_that_somebody_else_was_faster_than_goes_on_waiting() {
    on_loop(async {
        let (ours, theirs) = udp_pair();
        let other: UdpSocket = ours.with_fd(|fd| fd.try_clone_to_owned().unwrap()).unwrap().into();
        let receiver = Rc::clone(&ours);
        let k = running().create_task(async move { receiver.recv(10).await });
        turn(2).await;
        theirs.send(b"one").unwrap();
        turn(1).await; // The event is there.
        assert_eq!(other.recv(&mut [0; 10]).unwrap(), 3);
        turn(3).await;
        assert!(!k.done());
        theirs.send(b"two").unwrap();
        assert_eq!(k.await.unwrap().unwrap(), b"two");
    });
}

// spec: SOCK-55
fn a_datagram_waits_for_room_and_goes_whole() {
    on_loop(async {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = Rc::new(Socket::from(ours));
        let mut sent = 0;
        let waiting = loop {
            let sender = Rc::clone(&ours);
            let mut sending = Box::pin(async move { sender.sendall(b"datagram").await });
            if poll_once(sending.as_mut()).is_pending() {
                break sending;
            }
            sent += 1;
        };
        let mut buffer = [0; 100];
        for _ in 0..sent {
            assert_eq!(theirs.recv(&mut buffer).unwrap(), 8);
        }
        assert_eq!(theirs.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        waiting.await.unwrap();
        assert_eq!(theirs.recv(&mut buffer).unwrap(), 8);
    });
}

// spec: SOCK-43
fn a_unix_datagram_of_any_length_comes_whole() {
    on_loop(async {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let ours = Socket::from(ours);
        let data = noise(150_000);
        theirs.send(&data).unwrap();
        assert!(ours.recv(1 << 20).await.unwrap() == *data);
        ours.sendall(&data).await.unwrap();
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(theirs.recv(&mut buffer).unwrap(), data.len());
    });
}

// spec: SOCK-04
fn an_error_of_the_peer_is_told_once() {
    on_loop(async {
        let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        ours.connect(address).unwrap();
        let ours = Rc::new(Socket::from(ours));
        let receiver = Rc::clone(&ours);
        let k = running().create_task(async move { receiver.recv(10).await });
        turn(2).await;
        ours.sendall(b"is anybody there?").await.unwrap();
        assert_eq!(errno(k.await.unwrap()), libc::ECONNREFUSED);
        assert!(poll_once(pin!(ours.recv(10))).is_pending());
    });
}
