//! Each op: success, error, cancel, retire, and the driver dropped under it.

use std::any::Any;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use ringloop_driver::{
    Account, Descriptor, Driver, DriverConfig, Features, Interest, OpKey, Outcome, Readiness,
    SendQueue, Token, Wait,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, accepted, assert_at_end, datagram, errno, fill, polled, queue_of,
    read_exact, received, ring, sent, tcp_pair, unix_pair, write_all,
};
use crate::sys::{descriptor_flags, let_sigpipe_kill, pipe, set_nonblocking};

pub(crate) const TESTS: &[Test] = crate::tests![
    accept_gives_one_connection_that_is_nonblocking_and_close_on_exec,
    accept_multishot_gives_each_connection_of_a_full_backlog_in_one_iteration,
    accept_on_what_does_not_listen_fails_with_einval,
    a_listener_that_is_shut_down_ends_its_multishot_accept_with_einval,
    recv_gives_what_is_there_and_then_no_more,
    recv_multishot_gives_bytes_until_the_end_of_the_stream,
    bytes_and_end_that_arrive_together_come_one_after_the_other,
    bytes_and_reset_that_arrive_together_come_one_after_the_other,
    bytes_and_end_that_are_there_before_the_receive_come_one_after_the_other,
    bytes_and_end_that_come_before_deferred_work_is_done_come_one_after_the_other,
    a_multishot_receive_reads_no_further_ahead_than_256_kib,
    where_the_kernel_has_no_limit_the_driver_ends_a_multishot_receive,
    recv_on_an_unconnected_socket_fails_with_enotconn,
    recv_on_what_is_no_socket_fails_with_enotsock,
    read_multishot_gives_what_a_pipe_carries_until_its_writer_is_gone,
    read_gives_what_a_pipe_carries_once,
    read_of_a_write_end_fails_with_ebadf,
    recv_from_gives_one_datagram_and_its_sender,
    recv_from_of_any_length_is_no_reason_to_panic,
    recv_from_loses_what_is_beyond_its_length_and_says_so,
    recv_from_multishot_gives_whole_datagrams_empty_ones_too_with_their_senders,
    recv_from_multishot_reports_an_unreachable_peer,
    a_datagram_of_the_largest_size_is_whole,
    an_unnamed_sender_has_no_address,
    send_gives_a_gathered_queue_to_the_peer_in_order,
    send_of_more_than_there_is_room_for_is_short_and_goes_on_when_there_is,
    send_that_must_not_wait_says_would_block_when_there_is_no_room,
    send_that_may_wait_goes_on_when_there_is_room_although_the_socket_is_nonblocking,
    send_of_two_thousand_chunks_takes_as_many_as_one_call_can,
    send_to_a_peer_that_is_gone_fails_with_epipe_and_raises_no_signal,
    write_gives_a_gathered_queue_to_a_pipe,
    write_that_must_not_wait_says_would_block_when_a_pipe_is_full,
    write_to_a_pipe_without_reader_fails_with_epipe,
    send_to_sends_one_datagram_to_an_address_and_an_empty_one_too,
    send_to_without_address_sends_to_the_connected_peer,
    connect_succeeds_and_an_absent_listener_refuses,
    connect_to_a_unix_path_that_is_not_there_fails_with_enoent,
    poll_is_level_triggered_when_it_is_armed_again,
    poll_of_both_directions_reports_what_is_ready,
    an_error_makes_both_directions_ready,
    a_poll_for_room_on_a_half_closed_connection_waits_for_room_and_does_not_spin,
    a_watched_poll_for_room_on_a_half_closed_connection_waits_for_room,
    a_quiet_poll_can_be_cancelled_retired_and_dropped,
    shutdown_ends_the_stream_in_one_direction,
    shutdown_of_an_unconnected_socket_fails_with_enotconn,
    close_ends_the_stream_with_the_next_submission,
    close_of_a_shared_descriptor_waits_for_its_last_holder,
    a_cancelled_op_that_has_nothing_to_do_ends_with_ecanceled_and_is_over,
    a_cancel_that_is_submitted_together_with_its_op_ends_it,
    an_op_that_is_cancelled_twice_ends_once,
    a_retired_op_is_over_when_retire_returns,
    retire_gives_the_bytes_that_came_before_the_cancel_and_leaves_those_of_others_in_place,
    a_dropped_driver_lets_go_of_the_descriptors_of_its_ops,
    the_key_of_an_op_that_is_over_is_harmless,
    look_finds_an_op_that_is_ready_complete_inside_the_call,
    look_arms_an_op_that_is_not_ready_and_keeps_completions_of_others_in_place,
    peek_makes_no_call,
    a_cancelled_connect_leaves_nothing_in_flight,
    a_descriptor_stays_open_until_the_last_op_on_it_is_over,
];

const READ: Interest = Interest { read: true, write: false };
const WRITE: Interest = Interest { read: false, write: true };

fn listener() -> (Descriptor, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    (OwnedFd::from(listener.try_clone().unwrap()).into(), listener)
}

fn udp_pair() -> (Descriptor, UdpSocket, SockAddr) {
    let ours = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let theirs = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    let address = SockAddr::from(theirs.local_addr().unwrap());
    (OwnedFd::from(ours).into(), theirs, address)
}

fn accept_gives_one_connection_that_is_nonblocking_and_close_on_exec() {
    let mut driver = TestDriver::new();
    let (ours, listener) = listener();
    let key = driver.accept(&ours, TOKEN);
    let peers: Vec<_> =
        (0..2).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let completion = driver.next_of(key);
    assert!(!completion.more);
    let connection = accepted(completion);
    assert!(SockRef::from(&connection).nonblocking().unwrap());
    assert_eq!(descriptor_flags(&connection) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    assert!(driver.ready_now().is_empty(), "the second one stays in the backlog");
    drop((connection, peers, ours, listener));
    driver.finish();
}

// spec: RISK-32
fn accept_multishot_gives_each_connection_of_a_full_backlog_in_one_iteration() {
    let mut driver = TestDriver::new();
    let (ours, listener) = listener();
    let peers: Vec<_> =
        (0..100).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let key = driver.accept_multishot(&ours, TOKEN);
    let completions = driver.ready_now();
    assert_eq!(completions.len(), 100);
    for (completion, peer) in completions.into_iter().zip(&peers) {
        assert!(completion.more);
        let name = SockRef::from(&accepted(completion)).peer_addr().unwrap().as_socket();
        assert_eq!(name, Some(peer.local_addr().unwrap()), "in the order of the connects");
    }
    driver.retire(key);
    drop((peers, ours, listener));
    driver.finish();
}

fn accept_on_what_does_not_listen_fails_with_einval() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let key = driver.accept(&ours, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EINVAL));
    let key = driver.accept_multishot(&ours, TOKEN);
    let completion = driver.next_of(key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::EINVAL), false));
    drop((ours, theirs));
    driver.finish();
}

fn a_listener_that_is_shut_down_ends_its_multishot_accept_with_einval() {
    let mut driver = TestDriver::new();
    let (ours, listener) = listener();
    let key = driver.accept_multishot(&ours, TOKEN);
    driver.submit().unwrap();
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
    let completion = driver.next_of(key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::EINVAL), false));
    drop((ours, listener));
    driver.finish();
}

fn recv_gives_what_is_there_and_then_no_more() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let account = Account::new();
    write_all(&theirs, b"hello");
    let key = driver.recv(&ours, &account, TOKEN);
    let completion = driver.next_of(key);
    assert!(!completion.more);
    assert_eq!(received(completion), b"hello");
    write_all(&theirs, b"later");
    assert!(driver.ready_now().is_empty());
    assert_eq!(account.bytes(), 0);
    drop((ours, theirs));
    driver.finish();
}

fn recv_multishot_gives_bytes_until_the_end_of_the_stream() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = tcp_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    for message in [b"one".as_slice(), b"two", b"three"] {
        write_all(&theirs, message);
        let completion = driver.next_of(key);
        assert!(completion.more);
        assert_eq!(received(completion), *message);
    }
    drop(theirs);
    let completion = driver.next_of(key);
    assert!(!completion.more);
    assert!(received(completion).is_empty());
    drop(ours);
    driver.finish();
}

// spec: RISK-21
fn bytes_and_end_that_arrive_together_come_one_after_the_other() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = tcp_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    write_all(&theirs, b"last words");
    drop(theirs);
    let first = driver.next_of(key);
    assert!(first.more);
    assert_eq!(received(first), b"last words");
    let second = driver.next_of(key);
    assert!(!second.more);
    assert!(received(second).is_empty());
    drop(ours);
    driver.finish();
}

// spec: RISK-21
fn bytes_and_reset_that_arrive_together_come_one_after_the_other() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = tcp_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    write_all(&theirs, b"last words");
    SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(theirs);
    let first = driver.next_of(key);
    assert!(first.more);
    assert_eq!(received(first), b"last words");
    let second = driver.next_of(key);
    assert_eq!((errno(&second), second.more), (Some(libc::ECONNRESET), false));
    drop(ours);
    driver.finish();
}

/// A connection of each family, with a peer that can write and end its stream.
fn pairs_of_both_families() -> [(Descriptor, OwnedFd); 2] {
    let (unix, its_peer) = unix_pair();
    let (tcp, its_other) = tcp_pair();
    [(unix, its_peer.into()), (tcp, its_other.into())]
}

// spec: RISK-21
fn bytes_and_end_that_are_there_before_the_receive_come_one_after_the_other() {
    for (ours, theirs) in pairs_of_both_families() {
        let mut driver = TestDriver::new();
        write_all(File::from(theirs), b"last words");
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        assert_eq!(received(driver.next_of(key)), b"last words");
        let end = driver.next_of(key);
        assert!(!end.more);
        assert!(received(end).is_empty());
        drop(driver.into_driver());
        assert_eq!(ours.holders(), 1);
    }
}

// spec: RISK-21
fn bytes_and_end_that_come_before_deferred_work_is_done_come_one_after_the_other() {
    for (ours, theirs) in pairs_of_both_families() {
        let mut driver = TestDriver::new();
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        assert!(driver.ready_now().is_empty());
        write_all(File::from(theirs), b"last words");
        assert_eq!(received(driver.next_of(key)), b"last words");
        let end = driver.next_of(key);
        assert!(!end.more);
        assert!(received(end).is_empty());
        drop(driver.into_driver());
        assert_eq!(ours.holders(), 1);
    }
}

/// Receives two mebibytes from a peer that does not wait, and gives how many each arm brought.
fn receive_two_mebibytes(driver: &mut TestDriver) -> Vec<usize> {
    let (ours, theirs) = tcp_pair();
    let writer = std::thread::spawn(move || {
        write_all(&theirs, &vec![7; 2 << 20]);
        theirs
    });
    let account = Account::new();
    let mut arms = vec![0];
    let mut key = driver.recv_multishot(&ours, &account, TOKEN);
    while arms.iter().sum::<usize>() < 2 << 20 {
        let completion = driver.next_of(key);
        let more = completion.more;
        if errno(&completion) != Some(libc::ECANCELED) {
            *arms.last_mut().unwrap() += received(completion).len();
        }
        if !more {
            arms.push(0);
            key = driver.recv_multishot(&ours, &account, TOKEN);
        }
    }
    driver.retire(key);
    drop(writer.join().unwrap());
    arms
}

// spec: TRANS-24 RISK-04
fn a_multishot_receive_reads_no_further_ahead_than_256_kib() {
    let mut driver = TestDriver::new();
    if driver.is_ring() && !driver.has(Features::MSHOT_LIMIT, (6, 17)) {
        return driver.finish();
    }
    let arms = receive_two_mebibytes(&mut driver);
    assert!(arms.iter().all(|&bytes| bytes <= 256 * 1024), "{arms:?}");
    assert!(arms[..arms.len() - 1].iter().all(|&bytes| bytes >= 240 * 1024), "{arms:?}");
    driver.finish();
}

// spec: TRANS-24, RISK-04
fn where_the_kernel_has_no_limit_the_driver_ends_a_multishot_receive() {
    let mask = Features::MSHOT_LIMIT;
    let config = DriverConfig { mask, ..ring() };
    let mut driver = TestDriver::with(&config);
    let arms = receive_two_mebibytes(&mut driver);
    // Beyond the limit there is only what one call of the kernel brings: each buffer of the group once.
    let most = 256 * 1024 + usize::from(config.buffers) * config.buffer_size as usize;
    assert!(arms.iter().all(|&bytes| bytes <= most), "{arms:?}");
    assert!(arms[..arms.len() - 1].iter().all(|&bytes| bytes >= 256 * 1024), "{arms:?}");
    driver.finish();
}

fn recv_on_an_unconnected_socket_fails_with_enotconn() {
    let mut driver = TestDriver::new();
    let ours = Descriptor::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    for key in [
        driver.recv(&ours, &Account::new(), TOKEN),
        driver.recv_multishot(&ours, &Account::new(), TOKEN),
    ] {
        let completion = driver.next_of(key);
        assert_eq!((errno(&completion), completion.more), (Some(libc::ENOTCONN), false));
    }
    drop(ours);
    driver.finish();
}

fn recv_on_what_is_no_socket_fails_with_enotsock() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let read = Descriptor::from(OwnedFd::from(read));
    let key = driver.recv(&read, &Account::new(), TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::ENOTSOCK));
    drop((read, write));
    driver.finish();
}

fn read_multishot_gives_what_a_pipe_carries_until_its_writer_is_gone() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let read = Descriptor::from(OwnedFd::from(read));
    let key = driver.read_multishot(&read, &Account::new(), TOKEN);
    for message in [b"one".as_slice(), b"two", b"three"] {
        write_all(&write, message);
        let completion = driver.next_of(key);
        assert!(completion.more);
        assert_eq!(received(completion), *message);
    }
    drop(write);
    let completion = driver.next_of(key);
    assert!(!completion.more);
    assert!(received(completion).is_empty());
    drop(read);
    driver.finish();
}

fn read_gives_what_a_pipe_carries_once() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let read = Descriptor::from(OwnedFd::from(read));
    let key = driver.read(&read, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    write_all(&write, b"hello");
    let completion = driver.next_of(key);
    assert!(!completion.more);
    assert_eq!(received(completion), b"hello");
    drop((read, write));
    driver.finish();
}

fn read_of_a_write_end_fails_with_ebadf() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    let key = driver.read_multishot(&write, &Account::new(), TOKEN);
    let completion = driver.next_of(key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::EBADF), false));
    drop((read, write));
    driver.finish();
}

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

fn send_gives_a_gathered_queue_to_the_peer_in_order() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut queue = queue_of(b"copied ".as_slice());
    queue.push(vec![b'v'; 300].into());
    queue.push(bytes::Bytes::from_static(b" shared ").into());
    queue.push(b"and copied again".into());
    let expected = [b"copied ".as_slice(), &[b'v'; 300], b" shared and copied again"].concat();
    let key = driver.send(&ours, queue, false, TOKEN);
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, queue.is_empty()), (expected.len(), true));
    assert_eq!(read_exact(&theirs, count), expected);
    drop((ours, theirs));
    driver.finish();
}

// spec: WRITE-05 RISK-16
fn send_of_more_than_there_is_room_for_is_short_and_goes_on_when_there_is() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|place| (place % 251) as u8).collect();
    let mut queue = queue_of(bytes.clone());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        (&theirs).read_to_end(&mut all).unwrap();
        all
    });
    let mut shorts = 0;
    while !queue.is_empty() {
        let key = driver.send(&ours, queue, false, TOKEN);
        (_, queue) = sent(driver.next_of(key));
        shorts += usize::from(!queue.is_empty());
    }
    assert!(shorts > 0);
    drop(ours);
    assert!(reader.join().unwrap() == bytes);
    driver.finish();
}

fn send_that_must_not_wait_says_would_block_when_there_is_no_room() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = nonblocking_pair();
    fill(&ours);
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.send(&ours, queue_of(b"x".as_slice()), true, TOKEN);
    let completion = driver.look(key).unwrap().expect("it does not wait");
    assert_eq!(errno(&completion), Some(libc::EAGAIN));
    let Outcome::Sent(_, queue) = completion.outcome else { panic!() };
    assert_eq!(queue.len(), 1, "nothing of it was taken");
    drop((ours, theirs));
    driver.finish();
}

fn send_that_may_wait_goes_on_when_there_is_room_although_the_socket_is_nonblocking() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = nonblocking_pair();
    let filled = fill(&ours);
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.send(&ours, queue_of(b"x".as_slice()), false, TOKEN);
    assert!(driver.ready_now().is_empty());
    read_exact(&theirs, filled);
    assert_eq!(sent(driver.next_of(key)).0, 1);
    drop((ours, theirs));
    driver.finish();
}

fn send_of_two_thousand_chunks_takes_as_many_as_one_call_can() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut queue = SendQueue::new();
    (0..2000).for_each(|_| queue.push(bytes::Bytes::from_static(b"x").into()));
    let key = driver.send(&ours, queue, false, TOKEN);
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, queue.len()), (1024, 2000 - 1024));
    read_exact(&theirs, count);
    drop((ours, theirs));
    driver.finish();
}

fn send_to_a_peer_that_is_gone_fails_with_epipe_and_raises_no_signal() {
    let mut driver = TestDriver::new();
    let_sigpipe_kill();
    let (ours, theirs) = unix_pair();
    drop(theirs);
    let key = driver.send(&ours, queue_of(b"x".as_slice()), false, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EPIPE));
    drop(ours);
    driver.finish();
}

fn write_gives_a_gathered_queue_to_a_pipe() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    let mut queue = queue_of(vec![b'v'; 300]);
    queue.push(bytes::Bytes::from_static(b" shared").into());
    let key = driver.write(&write, queue, false, TOKEN);
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, queue.is_empty()), (307, true));
    assert!(read_exact(&read, count).ends_with(b"v shared"));
    let key = driver.write(&write, queue_of(b"alone".as_slice()), false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 5);
    assert_eq!(read_exact(&read, 5), b"alone");
    drop((read, write));
    driver.finish();
}

fn write_that_must_not_wait_says_would_block_when_a_pipe_is_full() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    let mut queue = queue_of(vec![0; 1 << 20]);
    let mut count = 0;
    loop {
        let key = driver.write(&write, queue, true, TOKEN);
        let completion = driver.look(key).unwrap().expect("it does not wait");
        match completion.outcome {
            Outcome::Sent(Ok(taken), rest) => {
                queue = rest;
                queue.advance(taken);
                count += taken;
            }
            Outcome::Sent(Err(error), _) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    read_exact(&read, count);
    drop((read, write));
    driver.finish();
}

fn write_to_a_pipe_without_reader_fails_with_epipe() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    drop(read);
    let key = driver.write(&write, queue_of(b"x".as_slice()), false, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EPIPE));
    drop(write);
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

fn connect_succeeds_and_an_absent_listener_refuses() {
    let mut driver = TestDriver::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = SockAddr::from(listener.local_addr().unwrap());
    let ours = Descriptor::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let key = driver.connect(&ours, &address, TOKEN);
    let completion = driver.next_of(key);
    assert!(matches!(completion.outcome, Outcome::Connected(Ok(()))), "{completion:?}");
    drop(listener);
    let other = Descriptor::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let key = driver.connect(&other, &address, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::ECONNREFUSED));
    drop((ours, other));
    driver.finish();
}

fn connect_to_a_unix_path_that_is_not_there_fails_with_enoent() {
    let mut driver = TestDriver::new();
    let ours = Descriptor::from(Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
    let key = driver.connect(&ours, &SockAddr::unix("/nowhere/at/all").unwrap(), TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::ENOENT));
    drop(ours);
    driver.finish();
}

// spec: RISK-10 RISK-12
fn poll_is_level_triggered_when_it_is_armed_again() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    for _ in 0..3 {
        let key = driver.poll(&ours, READ, TOKEN);
        assert_eq!(polled(driver.next_of(key)), Readiness { read: true, write: false });
    }
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"x", "a poll consumes nothing");
    drop((ours, theirs));
    driver.finish();
}

fn poll_of_both_directions_reports_what_is_ready() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let both = Interest { read: true, write: true };
    let key = driver.poll(&ours, both, TOKEN);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: false, write: true });
    write_all(&theirs, b"x");
    let key = driver.poll(&ours, both, TOKEN);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: true, write: true });
    let key = driver.poll(&ours, WRITE, TOKEN);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: false, write: true });
    drop((ours, theirs));
    driver.finish();
}

// spec: READY-08 RISK-42
fn an_error_makes_both_directions_ready() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = tcp_pair();
    SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(theirs);
    let key = driver.poll(&ours, READ, TOKEN);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: true, write: true });
    drop(ours);
    driver.finish();
}

/// A connection without room, whose peer has ended its stream.
fn half_closed() -> (Descriptor, UnixStream, usize) {
    let (ours, theirs) = nonblocking_pair();
    let filled = fill(&ours);
    theirs.shutdown(Shutdown::Write).unwrap();
    (OwnedFd::from(ours).into(), theirs, filled)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

// spec: READY-08 RISK-42
fn a_poll_for_room_on_a_half_closed_connection_waits_for_room_and_does_not_spin() {
    let mut driver = TestDriver::new();
    let (ours, theirs, filled) = half_closed();
    let key = driver.poll(&ours, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    // Armed in another way, and answered once.
    driver.wait(Wait::Now).unwrap();
    driver.next_completion();
    driver.wait(Wait::Now).unwrap();
    let before = driver.counters();
    for _ in 0..100 {
        driver.wait(Wait::Now).unwrap();
    }
    assert_eq!(driver.counters().cqes, before.cqes, "not an entry");
    if driver.is_ring() {
        assert_eq!(driver.counters(), before, "and not a call");
    }
    assert!(driver.is_in_flight(key));
    assert_eq!(threads(), 1);
    read_exact(&theirs, filled);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: false, write: true });
    assert!(!driver.is_in_flight(key));
    driver.wait(Wait::Now).unwrap();
    let key = driver.poll(&ours, READ, TOKEN);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: true, write: false });
    assert!(driver.all_ready().is_empty());
    assert_eq!(ours.holders(), 1, "nothing has it any more");
    drop((ours, theirs));
    driver.finish();
}

fn a_watched_poll_for_room_on_a_half_closed_connection_waits_for_room() {
    let mut driver = TestDriver::new();
    let (ours, theirs, filled) = half_closed();
    let file = driver.watch(&ours).unwrap();
    let key = driver.poll_watched(&file, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    read_exact(&theirs, filled);
    assert_eq!(polled(driver.next_of(key)), Readiness { read: false, write: true });
    driver.poll_watched(&file, WRITE, TOKEN);
    driver.next();
    fill(UnixStream::from(ours.as_fd().try_clone_to_owned().unwrap()));
    driver.poll_watched(&file, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    driver.unwatch(file);
    drop((ours, theirs));
    driver.finish();
}

fn a_quiet_poll_can_be_cancelled_retired_and_dropped() {
    let mut driver = TestDriver::new();
    let (ours, theirs, filled) = half_closed();
    let key = driver.poll(&ours, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    driver.cancel(key);
    let completion = driver.next_of(key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::ECANCELED), false));
    let key = driver.poll(&ours, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    let completions = driver.retire(key);
    assert_eq!(completions.len(), 1);
    assert_eq!(errno(&completions[0]), Some(libc::ECANCELED));
    assert_eq!(ours.holders(), 1, "the kernel has let go of it");
    driver.poll(&ours, WRITE, TOKEN);
    assert!(driver.all_ready().is_empty());
    drop(ours);
    drop(driver.into_driver());
    assert_eq!(read_exact(&theirs, filled).len(), filled);
    assert_at_end(&theirs);
}

fn shutdown_ends_the_stream_in_one_direction() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let key = driver.shutdown(&ours, Shutdown::Write, TOKEN);
    let completion = driver.next_of(key);
    assert!(matches!(completion.outcome, Outcome::ShutDown(Ok(()))), "{completion:?}");
    assert_at_end(&theirs);
    write_all(&theirs, b"still open this way");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"still open this way");
    drop((ours, theirs));
    driver.finish();
}

fn shutdown_of_an_unconnected_socket_fails_with_enotconn() {
    let mut driver = TestDriver::new();
    let ours = Descriptor::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let key = driver.shutdown(&ours, Shutdown::Both, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::ENOTCONN));
    drop(ours);
    driver.finish();
}

fn close_ends_the_stream_with_the_next_submission() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    driver.close(ours);
    driver.submit().unwrap();
    assert_at_end(&theirs);
    drop(theirs);
    driver.finish();
}

// spec: RISK-08
fn close_of_a_shared_descriptor_waits_for_its_last_holder() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    driver.close(ours);
    write_all(&theirs, b"for the op in flight");
    assert_eq!(received(driver.next_of(key)), b"for the op in flight");
    assert_at_end(&theirs);
    drop(theirs);
    driver.finish();
}

/// Starts an op that has nothing to do.
type Start = Box<dyn Fn(&mut Driver) -> OpKey>;

/// Every op that can wait, on a descriptor that gives it nothing to do; with what must stay open meanwhile.
fn idle_ops() -> Vec<(&'static str, Start, Box<dyn Any>)> {
    let mut all: Vec<(&'static str, Start, Box<dyn Any>)> = Vec::new();
    let (fd, listener) = listener();
    let ours = fd.clone();
    all.push(("accept", Box::new(move |driver| driver.accept(&ours, TOKEN)), Box::new(())));
    all.push((
        "accept_multishot",
        Box::new(move |driver| driver.accept_multishot(&fd, TOKEN)),
        Box::new(listener),
    ));
    let (fd, theirs) = unix_pair();
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.recv(&ours, &Account::new(), TOKEN));
    all.push(("recv", start, Box::new(())));
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.recv_multishot(&ours, &Account::new(), TOKEN));
    all.push(("recv_multishot", start, Box::new(())));
    all.push(("poll", Box::new(move |driver| driver.poll(&fd, READ, TOKEN)), Box::new(theirs)));
    let (read, write) = pipe();
    let fd = Descriptor::from(OwnedFd::from(read));
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.read(&ours, &Account::new(), TOKEN));
    all.push(("read", start, Box::new(())));
    let start: Start = Box::new(move |driver| driver.read_multishot(&fd, &Account::new(), TOKEN));
    all.push(("read_multishot", start, Box::new(write)));
    let (fd, theirs, _) = udp_pair();
    let ours = fd.clone();
    all.push(("recv_from", Box::new(move |d| d.recv_from(&ours, 10, TOKEN)), Box::new(())));
    let start: Start =
        Box::new(move |driver| driver.recv_from_multishot(&fd, &Account::new(), TOKEN));
    all.push(("recv_from_multishot", start, Box::new(theirs)));
    let (full, theirs) = nonblocking_pair();
    fill(&full);
    let fd = Descriptor::from(OwnedFd::from(full));
    let start: Start =
        Box::new(move |driver| driver.send(&fd, queue_of(b"x".as_slice()), false, TOKEN));
    all.push(("send", start, Box::new(theirs)));
    let (read, write) = pipe();
    fill_pipe(&write);
    let fd = Descriptor::from(OwnedFd::from(write));
    let start: Start =
        Box::new(move |driver| driver.write(&fd, queue_of(b"x".as_slice()), false, TOKEN));
    all.push(("write", start, Box::new(read)));
    let (full, theirs) = UnixDatagram::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send(&[0; 1000]).is_ok() {}
    let fd = Descriptor::from(OwnedFd::from(full));
    let start: Start =
        Box::new(move |driver| driver.send_to(&fd, queue_of(b"x".as_slice()), None, false, TOKEN));
    all.push(("send_to", start, Box::new(theirs)));
    all
}

fn a_cancelled_op_that_has_nothing_to_do_ends_with_ecanceled_and_is_over() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.submit().unwrap();
        assert!(driver.ready_now().is_empty(), "{name} had something to do");
        driver.cancel(key);
        assert!(driver.is_in_flight(key), "{name}: its last completion is still to come");
        let completion = driver.next_of(key);
        assert_eq!((errno(&completion), completion.more), (Some(libc::ECANCELED), false), "{name}");
        assert!(!driver.is_in_flight(key), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn a_cancel_that_is_submitted_together_with_its_op_ends_it() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.cancel(key);
        assert_eq!(errno(&driver.next_of(key)), Some(libc::ECANCELED), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn an_op_that_is_cancelled_twice_ends_once() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.cancel(key);
        driver.submit().unwrap();
        driver.cancel(key);
        driver.next_of(key);
        driver.cancel(key);
        assert!(driver.ready_now().is_empty(), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn a_retired_op_is_over_when_retire_returns() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.submit().unwrap();
        let completions = driver.retire(key);
        assert_eq!(completions.len(), 1, "{name}");
        assert_eq!(errno(&completions[0]), Some(libc::ECANCELED), "{name}");
        assert!(!driver.is_in_flight(key), "{name}");
        assert!(driver.retire(key).is_empty(), "{name}: once more is harmless");
        drop((start, kept));
    }
    driver.finish();
}

// spec: RISK-01
fn retire_gives_the_bytes_that_came_before_the_cancel_and_leaves_those_of_others_in_place() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (other, its_peer) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let other_key = driver.recv_multishot(&other, &Account::new(), Token(8));
    driver.submit().unwrap();
    for message in [b"1", b"2"] {
        write_all(&its_peer, message);
        write_all(&theirs, message);
        // Moves the bytes into completions, which nobody takes yet.
        driver.wait(Wait::Now).unwrap();
    }
    let mut completions = driver.retire(key).into_iter();
    let bytes: Vec<u8> = completions.by_ref().take(2).flat_map(|c| received(c).to_vec()).collect();
    assert_eq!(bytes, b"12");
    assert_eq!(errno(&completions.next().unwrap()), Some(libc::ECANCELED));
    for message in [b"1", b"2"] {
        let completion = driver.next_of(other_key);
        assert_eq!(completion.token, Token(8));
        assert_eq!(received(completion), message);
    }
    driver.retire(other_key);
    drop((ours, theirs, other, its_peer));
    driver.finish();
}

fn a_dropped_driver_lets_go_of_the_descriptors_of_its_ops() {
    for which in 0..idle_ops().len() {
        let mut driver = TestDriver::new();
        let (_, start, kept) = idle_ops().swap_remove(which);
        start(&mut driver);
        driver.submit().unwrap();
        drop((start, kept));
        driver.finish_with_ops_in_flight();
    }
    let mut driver = TestDriver::new();
    let all = idle_ops();
    all.iter().for_each(|(_, start, _)| {
        start(&mut driver);
    });
    drop(all);
    driver.finish_with_ops_in_flight();
}

fn the_key_of_an_op_that_is_over_is_harmless() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let old = driver.recv(&ours, &Account::new(), TOKEN);
    driver.retire(old);
    let new = driver.recv(&ours, &Account::new(), TOKEN);
    driver.cancel(old);
    assert!(driver.retire(old).is_empty());
    assert!(driver.look(old).unwrap().is_none());
    assert!(!driver.is_in_flight(old));
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(new)), b"x", "it has the place of the old one");
    drop((ours, theirs));
    driver.finish();
}

// spec: SOCK-01 RISK-27
fn look_finds_an_op_that_is_ready_complete_inside_the_call() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    let before = driver.counters().enters;
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.look(key).unwrap().unwrap()), b"x");
    let key = driver.send(&ours, queue_of(b"y".as_slice()), true, TOKEN);
    assert_eq!(sent(driver.look(key).unwrap().unwrap()).0, 1);
    let (listening, listener) = listener();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let key = driver.accept(&listening, TOKEN);
    drop(accepted(driver.look(key).unwrap().unwrap()));
    assert_eq!(driver.counters().enters - before, 3);
    drop((ours, theirs, listening, listener, peer));
    driver.finish();
}

fn look_arms_an_op_that_is_not_ready_and_keeps_completions_of_others_in_place() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (other, its_peer) = unix_pair();
    write_all(&its_peer, b"1");
    let first = driver.recv(&other, &Account::new(), TOKEN);
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert!(driver.look(key).unwrap().is_none());
    assert!(driver.has_completions());
    write_all(&theirs, b"2");
    assert_eq!(received(driver.next_of(first)), b"1");
    assert_eq!(received(driver.next_of(key)), b"2");
    drop((ours, theirs, other, its_peer));
    driver.finish();
}

fn peek_makes_no_call() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    let before = driver.counters().enters;
    assert!(driver.peek(key).is_none(), "it is not submitted yet");
    driver.submit().unwrap();
    assert_eq!(received(driver.peek(key).unwrap()), b"x");
    assert_eq!(driver.counters().enters - before, 1);
    drop((ours, theirs));
    driver.finish();
}

fn a_cancelled_connect_leaves_nothing_in_flight() {
    let mut driver = TestDriver::new();
    // The backlog of this one is full, so that a further connect waits.
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let path = format!("/tmp/ringloop-connect-{}", std::process::id());
    let _ = std::fs::remove_file(&path);
    let address = SockAddr::unix(&path).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let first = UnixStream::connect(&path).unwrap();
    let ours = Descriptor::from(Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
    let key = driver.connect(&ours, &address, TOKEN);
    driver.submit().unwrap();
    let completions = driver.retire(key);
    assert!(completions.len() <= 1);
    drop(UnixListener::from(OwnedFd::from(listener)));
    driver.run_out();
    std::fs::remove_file(&path).unwrap();
    drop((ours, first));
    driver.finish();
}

// spec: RISK-08 RISK-09
fn a_descriptor_stays_open_until_the_last_op_on_it_is_over() {
    let mut driver = TestDriver::new();
    let (ours, mut theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert_eq!(ours.holders(), 2);
    let number = ours.as_fd().as_raw_fd();
    let weak = ours.downgrade();
    drop(ours);
    driver.submit().unwrap();
    let (other, _) = unix_pair();
    assert_ne!(other.as_raw_fd(), number, "the number is still in use");
    theirs.write_all(b"x").unwrap();
    assert_eq!(received(driver.next_of(key)), b"x");
    driver.retire(key);
    assert!(weak.upgrade().is_none());
    assert_at_end(&theirs);
    drop((other, theirs));
    driver.finish();
}

fn nonblocking_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn fill_pipe(write: &File) {
    set_nonblocking(write);
    fill(write);
}
