//! Shutting streams down, closing descriptors.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};

use ringloop_driver::{Account, Descriptor, Outcome};
use socket2::{Domain, Socket, Type};

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, assert_at_end, errno, received, unix_pair, write_all};

pub(super) const TESTS: &[Test] = crate::tests![
    shutdown_ends_the_stream_in_one_direction,
    shutdown_of_an_unconnected_socket_fails_with_enotconn,
    close_ends_the_stream_with_the_next_submission,
    close_of_a_shared_descriptor_waits_for_its_last_holder,
    a_descriptor_stays_open_until_the_last_op_on_it_is_over,
];

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
