//! Waiting for readiness.

use std::fs::File;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use ringloop_driver::{Account, Descriptor, Interest, Readiness, Wait};
use socket2::SockRef;

use super::receiving::pairs_of_both_families;
use super::{READ, WRITE, nonblocking_pair};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, assert_at_end, errno, fill, polled, read_exact, received, tcp_pair,
    unix_pair, write_all,
};
use crate::sys::set_socket_option;

pub(super) const TESTS: &[Test] = crate::tests![
    poll_is_level_triggered_when_it_is_armed_again,
    a_multishot_poll_tells_of_each_arrival_and_takes_nothing,
    a_poll_for_bytes_waits_for_as_many_as_the_socket_is_told_to_and_a_receive_for_none,
    poll_of_both_directions_reports_what_is_ready,
    an_error_makes_both_directions_ready,
    a_poll_for_room_on_a_half_closed_connection_waits_for_room_and_does_not_spin,
    a_watched_poll_for_room_on_a_half_closed_connection_waits_for_room,
    a_quiet_poll_can_be_cancelled_retired_and_dropped,
];

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

fn a_multishot_poll_tells_of_each_arrival_and_takes_nothing() {
    let mut driver = TestDriver::new();
    for (ours, theirs) in pairs_of_both_families() {
        let theirs = File::from(theirs);
        write_all(&theirs, b"0");
        let mut key = driver.poll_multishot(&ours, READ, TOKEN);
        for byte in [b"0", b"1", b"2"] {
            let completion = driver.next_of(key);
            let goes_on = completion.more;
            assert_eq!(polled(completion), Readiness { read: true, write: false });
            assert_eq!(*driver.try_recv_lent(&ours, &Account::new(), 2).unwrap(), *byte);
            if !goes_on {
                key = driver.poll_multishot(&ours, READ, TOKEN); // Over epoll.
            }
            if byte != b"2" {
                write_all(&theirs, &[byte[0] + 1]);
            }
        }
        driver.retire(key);
        assert_eq!(ours.holders(), 1);
    }
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

/// As with epoll below asyncio: a low-water mark is for who waits, and not for who asks.
fn a_poll_for_bytes_waits_for_as_many_as_the_socket_is_told_to_and_a_receive_for_none() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = tcp_pair();
    theirs.set_nodelay(true).unwrap();
    set_socket_option(&ours, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 4);
    write_all(&theirs, b"ab");
    let key = driver.poll_multishot(&ours, READ, TOKEN);
    assert!(driver.all_ready().is_empty());
    write_all(&theirs, b"cd");
    assert_eq!(polled(driver.next_of(key)), Readiness { read: true, write: false });
    assert_eq!(driver.try_recv_lent(&ours, &Account::new(), 10).unwrap(), b"abcd");
    write_all(&theirs, b"e");
    let received = loop {
        match driver.try_recv_lent(&ours, &Account::new(), 10) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            received => break received.unwrap(),
        }
    };
    assert_eq!(received, b"e");
    driver.retire(key);
    drop((ours, theirs, received));
    driver.finish();
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
    assert_eq!(driver.counters().completed, before.completed, "not an entry");
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
