//! Foreign descriptors: watched by file, not by number.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use ringloop_driver::{DriverConfig, Interest, Readiness, Token};

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, assert_at_end, errno, polled, read_exact, write_all};
use crate::sys::{eventfd, set_soft_limit};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_watched_file_that_is_still_ready_completes_again_each_time_it_is_polled,
    a_watched_file_that_is_not_ready_completes_when_it_becomes_so,
    a_regular_file_and_dev_null_are_refused_with_eperm_as_by_epoll,
    a_number_that_is_not_open_is_refused_with_ebadf,
    a_refused_watch_leaves_nothing_behind,
    a_poll_by_slot_sees_the_old_file_after_its_number_was_used_again,
    a_number_that_was_closed_or_used_again_is_not_current,
    another_eventfd_under_the_same_number_is_told_from_the_first,
    unwatching_a_closed_file_shows_its_peer_the_end,
    unwatch_retires_the_poll_in_flight,
    a_watch_that_is_dropped_is_let_go_of_with_the_next_one,
    a_number_can_be_watched_again_after_its_watch_has_ended,
    two_hundred_watched_files_that_become_ready_are_seen_in_one_iteration,
    more_files_than_the_table_has_slots_are_watched_by_numbers_of_our_own,
    the_end_of_the_peers_stream_is_readable_and_not_writable_by_it,
];

const READ: Interest = Interest { read: true, write: false };

// spec: READY-01 READY-02 RISK-10
fn a_watched_file_that_is_still_ready_completes_again_each_time_it_is_polled() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = driver.watch(&ours).unwrap();
    write_all(&theirs, b"x");
    for _ in 0..3 {
        let key = driver.poll_watched(&file, READ, TOKEN);
        let ready = polled(driver.next_of(key));
        assert_eq!(ready, Readiness { read: true, write: false });
    }
    read_exact(&ours, 1);
    driver.poll_watched(&file, READ, TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.unwatch(file);
    drop((ours, theirs));
    driver.finish();
}

fn a_watched_file_that_is_not_ready_completes_when_it_becomes_so() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = driver.watch(&ours).unwrap();
    let key = driver.poll_watched(&file, READ, TOKEN);
    assert!(driver.ready_now().is_empty());
    write_all(&theirs, b"x");
    assert!(polled(driver.next_of(key)).read);
    driver.unwatch(file);
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-39 READY-12
fn a_regular_file_and_dev_null_are_refused_with_eperm_as_by_epoll() {
    let mut driver = TestDriver::new();
    for path in ["/dev/null", "/proc/self/exe", "/proc/self/status", "/"] {
        let refused = driver.watch(&File::open(path).unwrap()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{path}");
    }
    driver.finish();
}

fn a_number_that_is_not_open_is_refused_with_ebadf() {
    let mut driver = TestDriver::new();
    for number in [-1, 999] {
        let refused = driver.watch(&number).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF), "{number}");
    }
    driver.finish();
}

fn a_refused_watch_leaves_nothing_behind() {
    let mut driver = TestDriver::new();
    let file = File::open("/dev/null").unwrap();
    let number = file.as_raw_fd();
    driver.watch(&number).unwrap_err();
    drop(file);
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(ours.as_raw_fd(), number, "the number is used again");
    let watched = driver.watch(&number).unwrap();
    assert!(watched.is_current());
    driver.unwatch(watched);
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-08 READY-09
fn a_poll_by_slot_sees_the_old_file_after_its_number_was_used_again() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let number = ours.as_raw_fd();
    let file = driver.watch(&ours).unwrap();
    drop(ours);
    let (new_owner, its_peer) = UnixStream::pair().unwrap();
    assert_eq!(new_owner.as_raw_fd(), number);
    write_all(&its_peer, b"for the new owner");
    let key = driver.poll_watched(&file, READ, TOKEN);
    assert!(driver.ready_now().is_empty(), "the new owner's bytes are not the old file's");
    write_all(&theirs, b"for the old file");
    assert!(polled(driver.next_of(key)).read);
    driver.unwatch(file);
    drop((new_owner, its_peer, theirs));
    driver.finish();
}

fn a_number_that_was_closed_or_used_again_is_not_current() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let number = ours.as_raw_fd();
    let file = driver.watch(&ours).unwrap();
    assert!(file.is_current());
    drop(ours);
    assert!(!file.is_current());
    let (new_owner, its_peer) = UnixStream::pair().unwrap();
    assert_eq!(new_owner.as_raw_fd(), number);
    assert!(!file.is_current());
    let newer = driver.watch(&new_owner).unwrap();
    driver.unwatch(file);
    assert!(newer.is_current(), "the end of the older watch does not touch the newer one");
    driver.unwatch(newer);
    drop((new_owner, its_peer, theirs));
    driver.finish();
}

fn another_eventfd_under_the_same_number_is_told_from_the_first() {
    let mut driver = TestDriver::new();
    let first = eventfd();
    let number = first.as_raw_fd();
    let file = driver.watch(&first).unwrap();
    drop(first);
    let second = eventfd();
    assert_eq!(second.as_raw_fd(), number);
    assert!(!file.is_current(), "they have one inode, but are two files");
    driver.unwatch(file);
    drop(second);
    driver.finish();
}

fn unwatching_a_closed_file_shows_its_peer_the_end() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = driver.watch(&ours).unwrap();
    driver.poll_watched(&file, READ, TOKEN);
    drop(ours);
    driver.ready_now();
    theirs.set_nonblocking(true).unwrap();
    std::io::Read::read(&mut &theirs, &mut [0]).unwrap_err();
    driver.unwatch(file);
    theirs.set_nonblocking(false).unwrap();
    assert_at_end(&theirs);
    drop(theirs);
    driver.finish();
}

// spec: READY-06 RISK-11
fn unwatch_retires_the_poll_in_flight() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = driver.watch(&ours).unwrap();
    let key = driver.poll_watched(&file, READ, TOKEN);
    driver.submit().unwrap();
    driver.unwatch(file);
    assert!(!driver.is_in_flight(key));
    write_all(&theirs, b"x");
    assert!(driver.ready_now().is_empty());
    drop((ours, theirs));
    driver.finish();
}

fn a_watch_that_is_dropped_is_let_go_of_with_the_next_one() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(driver.watch(&ours).unwrap());
    drop(ours);
    let (other, its_peer) = UnixStream::pair().unwrap();
    let file = driver.watch(&other).unwrap();
    assert_at_end(&theirs);
    driver.unwatch(file);
    drop((other, its_peer, theirs));
    driver.finish();
}

fn a_number_can_be_watched_again_after_its_watch_has_ended() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    for _ in 0..3 {
        let file = driver.watch(&ours).unwrap();
        let key = driver.poll_watched(&file, Interest { read: true, write: true }, TOKEN);
        assert_eq!(polled(driver.next_of(key)), Readiness { read: false, write: true });
        driver.unwatch(file);
    }
    drop((ours, theirs));
    driver.finish();
}

// spec: LOOP-22 RISK-38
fn two_hundred_watched_files_that_become_ready_are_seen_in_one_iteration() {
    let mut driver = TestDriver::new();
    let mut watched = Vec::new();
    for index in 0..200 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = driver.watch(&ours).unwrap();
        driver.poll_watched(&file, READ, Token(index));
        watched.push((file, ours, theirs));
    }
    assert!(driver.ready_now().is_empty());
    watched.iter().for_each(|(_, _, theirs)| write_all(theirs, b"x"));
    assert_eq!(driver.ready_now().len(), 200);
    for (index, (file, ..)) in watched.iter().enumerate() {
        driver.poll_watched(file, READ, Token(index as u64));
    }
    assert_eq!(driver.ready_now().len(), 200, "again, as they are still ready");
    for (file, ours, theirs) in watched {
        driver.unwatch(file);
        drop((ours, theirs));
    }
    driver.finish();
}

fn more_files_than_the_table_has_slots_are_watched_by_numbers_of_our_own() {
    let mut driver = TestDriver::with(&DriverConfig { buffers: 8, ..DriverConfig::default() });
    set_soft_limit(libc::RLIMIT_NOFILE, 64);
    let (first, _first_peer) = UnixStream::pair().unwrap();
    let held: Vec<_> = std::iter::once(driver.watch(&first).unwrap()).collect();
    set_soft_limit(libc::RLIMIT_NOFILE, 1024);
    let mut watched = Vec::new();
    for index in 0..100 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = driver.watch(&ours).unwrap();
        driver.poll_watched(&file, READ, Token(index));
        watched.push((file, ours, theirs));
    }
    watched.iter().for_each(|(_, _, theirs)| write_all(theirs, b"x"));
    assert_eq!(driver.ready_now().len(), 100);
    for (file, ours, theirs) in watched {
        assert!(file.is_current());
        driver.unwatch(file);
        drop((ours, theirs));
    }
    held.into_iter().for_each(|file| driver.unwatch(file));
    drop((first, _first_peer));
    driver.finish();
}

// spec: READY-08
fn the_end_of_the_peers_stream_is_readable_and_not_writable_by_it() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = driver.watch(&ours).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let key = driver.poll_watched(&file, READ, TOKEN);
    let completion = driver.next_of(key);
    assert_eq!(errno(&completion), None);
    assert_eq!(polled(completion), Readiness { read: true, write: false });
    driver.unwatch(file);
    drop((ours, theirs));
    driver.finish();
}
