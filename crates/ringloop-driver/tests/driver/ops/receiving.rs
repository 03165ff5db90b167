//! Receiving from sockets, reading from pipes.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ringloop_driver::{Account, Descriptor, DriverConfig, Features};
use socket2::{Domain, SockRef, Socket, Type};

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, errno, received, ring, tcp_pair, unix_pair, write_all};
use crate::sys::pipe;

pub(super) const TESTS: &[Test] = crate::tests![
    recv_gives_what_is_there_and_then_no_more,
    a_direct_receive_lends_what_there_is_and_takes_memory_of_its_own_when_all_is_lent,
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
];

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

fn a_direct_receive_lends_what_there_is_and_takes_memory_of_its_own_when_all_is_lent() {
    let mut driver = TestDriver::with(&DriverConfig { buffers: 2, ..DriverConfig::default() });
    let (ours, theirs) = tcp_pair();
    let nothing = driver.try_recv_lent(&ours, &Account::new(), 100).unwrap_err();
    assert_eq!((nothing.kind(), driver.counters().leased), (ErrorKind::WouldBlock, 0));
    write_all(&theirs, b"one two three four");
    let accounts = [Account::new(), Account::new(), Account::new()];
    let mut kept = Vec::new();
    for (account, expected, is_copy) in [
        (&accounts[0], b"one ", false),
        (&accounts[1], b"two ", false),
        (&accounts[2], b"thre", true),
    ] {
        let data = driver.try_recv_lent(&ours, account, 4).unwrap();
        assert_eq!((&*data, data.is_copy()), (&expected[..], is_copy));
        kept.push(data);
    }
    assert_eq!((driver.counters().leased, accounts[0].bytes() > 0), (2, true));
    drop(kept);
    assert_eq!((driver.counters().leased, accounts[0].bytes()), (0, 0));
    let rest = driver.try_recv_lent(&ours, &accounts[0], 100).unwrap();
    assert_eq!((&*rest, rest.is_copy()), (&b"e four"[..], false));
    drop((rest, theirs));
    assert!(driver.try_recv_lent(&ours, &accounts[0], 100).unwrap().is_empty());
    drop(ours);
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
    SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
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
pub(super) fn pairs_of_both_families() -> [(Descriptor, OwnedFd); 2] {
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
    // It ends where one more buffer would be too much.
    for (large_buffers, least) in [(false, 240 * 1024), (true, 192 * 1024)] {
        let mut driver =
            TestDriver::with(&DriverConfig { large_buffers, ..DriverConfig::default() });
        if driver.is_ring() && !driver.has(Features::MSHOT_LIMIT, (6, 17)) {
            return driver.finish();
        }
        let arms = receive_two_mebibytes(&mut driver);
        assert!(arms.iter().all(|&bytes| bytes <= 256 * 1024), "{arms:?}");
        assert!(arms[..arms.len() - 1].iter().all(|&bytes| bytes >= least), "{arms:?}");
        driver.finish();
    }
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
