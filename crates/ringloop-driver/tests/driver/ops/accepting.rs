//! Accepting connections.

use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use ringloop_driver::Descriptor;
use socket2::{SockRef, Socket};

use super::listener;

use crate::isolated::Test;
use crate::support::{TOKEN, TestDriver, accepted, errno, unix_pair};
use crate::sys::descriptor_flags;

pub(super) const TESTS: &[Test] = crate::tests![
    accept_gives_one_connection_that_is_nonblocking_and_close_on_exec,
    accept_multishot_gives_each_connection_of_a_full_backlog_in_one_iteration,
    accept_on_what_does_not_listen_fails_with_einval,
    a_listener_that_is_shut_down_ends_its_multishot_accept_with_einval,
    the_peer_of_an_ip_connection_is_known_in_every_state,
    the_peer_of_a_unix_connection_is_known_and_what_has_none_has_none,
];

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

fn the_peer_of_an_ip_connection_is_known_in_every_state() {
    for host in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let Ok(listener) = TcpListener::bind((host, 0)) else { continue };
        let connect = || {
            let theirs = Socket::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let name = theirs.local_addr().unwrap();
            (theirs, name)
        };
        let accept = || Descriptor::from(Socket::from(listener.accept().unwrap().0));
        let reset = |theirs: Socket| {
            theirs.set_linger(Some(Duration::ZERO)).unwrap();
            drop(theirs);
        };
        let has_lost_its_name = |ours: &Descriptor| SockRef::from(ours).peer_addr().is_err();

        let (theirs, name) = connect();
        reset(theirs);
        let ours = accept();
        assert!(has_lost_its_name(&ours));
        assert_eq!(ours.peer_addr().unwrap(), name, "reset before it was accepted");

        let (theirs, name) = connect();
        let ours = accept();
        assert_eq!(ours.peer_addr().unwrap(), name);
        reset(theirs);
        assert!(has_lost_its_name(&ours));
        assert_eq!(ours.peer_addr().unwrap(), name, "reset");

        let (theirs, name) = connect();
        let ours = accept();
        theirs.shutdown(Shutdown::Write).unwrap();
        SockRef::from(&ours).shutdown(Shutdown::Write).unwrap();
        assert!(has_lost_its_name(&ours));
        assert_eq!(ours.peer_addr().unwrap(), name, "ended in both directions");
    }
}

fn the_peer_of_a_unix_connection_is_known_and_what_has_none_has_none() {
    let (ours, theirs) = unix_pair();
    assert!(ours.peer_addr().unwrap().is_unnamed());
    drop(theirs);
    assert!(ours.peer_addr().unwrap().is_unnamed());
    let (listening, listener) = listener();
    assert_eq!(listening.peer_addr().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    drop(listener);
}
