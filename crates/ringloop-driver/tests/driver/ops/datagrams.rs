//! Receiving and sending datagrams.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use ringloop_driver::{Account, Descriptor, SendQueue};
use socket2::SockRef;

use super::udp_pair;

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, datagram, errno, queue_of, sent};

pub(super) const TESTS: &[Test] = crate::tests![
    recv_from_gives_one_datagram_and_its_sender,
    recv_from_of_any_length_is_no_reason_to_panic,
    recv_from_loses_what_is_beyond_its_length_and_says_so,
    recv_from_multishot_gives_whole_datagrams_empty_ones_too_with_their_senders,
    recv_from_multishot_reports_an_unreachable_peer,
    a_datagram_of_the_largest_size_is_whole,
    an_unnamed_sender_has_no_address,
    send_to_sends_one_datagram_to_an_address_and_an_empty_one_too,
    send_to_without_address_sends_to_the_connected_peer,
];

fn recv_from_gives_one_datagram_and_its_sender() {
    let mut driver = TestDriver::new();
    let (ours, theirs, address) = udp_pair();
    let key = driver.recv_from(&ours, 100, TOKEN);
    assert!(driver.ready_now().is_empty());
    theirs.send(b"hello").unwrap();
    let found = datagram(driver.next_of(key));
    assert_eq!(found.data(), b"hello");
    assert_eq!((found.address(), found.is_truncated()), (Some(address), false));
    drop((ours, theirs, found));
    driver.finish();
}

fn recv_from_of_any_length_is_no_reason_to_panic() {
    let mut driver = TestDriver::new();
    let (ours, theirs, _) = udp_pair();
    for len in [0, usize::MAX] {
        theirs.send(b"hello").unwrap();
        let key = driver.recv_from(&ours, len, TOKEN);
        let found = datagram(driver.next_of(key));
        assert_eq!(
            (found.data().len(), found.is_truncated()),
            if len == 0 { (0, true) } else { (5, false) }
        );
    }
    drop((ours, theirs));
    driver.finish();
}

fn recv_from_loses_what_is_beyond_its_length_and_says_so() {
    let mut driver = TestDriver::new();
    let (ours, theirs, _) = udp_pair();
    theirs.send(b"hello").unwrap();
    theirs.send(b"next").unwrap();
    let key = driver.recv_from(&ours, 2, TOKEN);
    let found = datagram(driver.next_of(key));
    assert_eq!((&*found.data(), found.is_truncated()), (&b"he"[..], true));
    let key = driver.recv_from(&ours, 2000, TOKEN);
    assert_eq!(datagram(driver.next_of(key)).data(), b"next");
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-36 DGRAM-10
fn recv_from_multishot_gives_whole_datagrams_empty_ones_too_with_their_senders() {
    let mut driver = TestDriver::new();
    let (ours, theirs, address) = udp_pair();
    let key = driver.recv_from_multishot(&ours, &Account::new(), TOKEN);
    for message in [b"one".as_slice(), b"", b"three"] {
        theirs.send(message).unwrap();
    }
    for message in [b"one".as_slice(), b"", b"three"] {
        let completion = driver.next_of(key);
        assert!(completion.more);
        let found = datagram(completion);
        assert_eq!((found.address(), found.is_truncated()), (Some(address.clone()), false));
        assert_eq!(found.into_data(), *message);
    }
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

// spec: DGRAM-11
fn recv_from_multishot_reports_an_unreachable_peer() {
    let mut driver = TestDriver::new();
    let (ours, theirs, address) = udp_pair();
    SockRef::from(&ours).connect(&address).unwrap();
    drop(theirs);
    let key = driver.recv_from_multishot(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    SockRef::from(&ours).send(b"into the void").unwrap();
    let completion = driver.next_of(key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::ECONNREFUSED), false));
    drop(ours);
    driver.finish();
}

fn a_datagram_of_the_largest_size_is_whole() {
    let mut driver = TestDriver::new();
    let (ours, theirs, _) = udp_pair();
    let largest: Vec<u8> = (0..65_507_u32).map(|place| (place % 251) as u8).collect();
    let key = driver.recv_from_multishot(&ours, &Account::new(), TOKEN);
    assert_eq!(theirs.send(&largest).unwrap(), largest.len());
    let found = datagram(driver.next_of(key));
    assert!(!found.is_truncated());
    assert!(*found.data() == *largest);
    drop(found);
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn an_unnamed_sender_has_no_address() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.recv_from_multishot(&ours, &Account::new(), TOKEN);
    theirs.send(b"from nobody").unwrap();
    let found = datagram(driver.next_of(key));
    assert!(found.address().is_none_or(|address| address.as_pathname().is_none()));
    assert_eq!(found.into_data(), b"from nobody");
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn send_to_sends_one_datagram_to_an_address_and_an_empty_one_too() {
    let mut driver = TestDriver::new();
    let (ours, theirs, address) = udp_pair();
    let mut queue = queue_of(vec![b'v'; 300]);
    queue.push(bytes::Bytes::from_static(b" together").into());
    let key = driver.send_to(&ours, queue, Some(&address), false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 309);
    let key = driver.send_to(&ours, SendQueue::new(), Some(&address), false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 0);
    let mut buffer = [0; 1000];
    assert_eq!(theirs.recv(&mut buffer).unwrap(), 309);
    assert_eq!(theirs.recv(&mut buffer).unwrap(), 0);
    drop((ours, theirs));
    driver.finish();
}

fn send_to_without_address_sends_to_the_connected_peer() {
    let mut driver = TestDriver::new();
    let (ours, theirs, address) = udp_pair();
    let key = driver.send_to(&ours, queue_of(b"x".as_slice()), None, false, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EDESTADDRREQ));
    SockRef::from(&ours).connect(&address).unwrap();
    let key = driver.send_to(&ours, queue_of(b"x".as_slice()), None, false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 1);
    assert_eq!(theirs.recv(&mut [0; 10]).unwrap(), 1);
    drop((ours, theirs));
    driver.finish();
}
