//! Each op: success, error, cancel, retire, and the driver dropped under it.

mod accepting;
mod closing;
mod connecting;
mod datagrams;
mod ending;
mod polling;
mod receiving;
mod sending;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ringloop_driver::{Descriptor, Interest};
use socket2::SockAddr;

use crate::isolated::Test;

/// Of all files.
pub(crate) fn tests() -> Vec<Test> {
    [
        accepting::TESTS,
        closing::TESTS,
        connecting::TESTS,
        datagrams::TESTS,
        ending::TESTS,
        polling::TESTS,
        receiving::TESTS,
        sending::TESTS,
    ]
    .concat()
}

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

fn nonblocking_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

const READ: Interest = Interest { read: true, write: false };
const WRITE: Interest = Interest { read: false, write: true };
