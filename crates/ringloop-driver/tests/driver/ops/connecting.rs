//! Connecting.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use ringloop_driver::{Descriptor, Outcome};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, errno};

pub(super) const TESTS: &[Test] = crate::tests![
    connect_succeeds_and_an_absent_listener_refuses,
    connect_to_a_unix_path_that_is_not_there_fails_with_enoent,
    a_cancelled_connect_leaves_nothing_in_flight,
];

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
