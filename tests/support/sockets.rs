//! Sockets that scenarios use directly, with system calls that do not wait.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::python;

/// A connected pair of Unix stream sockets that do not block: one for the loop, one to be the peer.
pub fn pair() -> (Socket, Socket) {
    let (a, b) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// The same over 127.0.0.1.
pub fn tcp_pair() -> (Socket, Socket) {
    connected(tcp_socket(), &listener(1))
}

/// As [`tcp_pair`], with little room in the kernel, so that not all can be sent at once.
pub fn narrow_tcp_pair() -> (Socket, Socket) {
    let (a, listener) = (tcp_socket(), listener(1));
    for socket in [&a, &listener] {
        socket.set_send_buffer_size(NARROW).unwrap();
        socket.set_recv_buffer_size(NARROW).unwrap();
    }
    let (a, b) = connected(a, &listener);
    b.set_tcp_nodelay(true).unwrap(); // As ringloop does on its side.
    (a, b)
}

fn connected(a: Socket, listener: &Socket) -> (Socket, Socket) {
    a.connect(&listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// A blocking TCP socket.
pub fn tcp_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap()
}

/// A blocking socket that listens on a free port of 127.0.0.1.
pub fn listener(backlog: i32) -> Socket {
    let socket = bound();
    socket.listen(backlog).unwrap();
    socket
}

/// A blocking TCP socket that is bound to a free port of 127.0.0.1 and does not listen.
pub fn bound() -> Socket {
    let socket = tcp_socket();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket
}

/// The address of a socket's own side.
pub fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// A connection to `address` that does not block.
pub fn connect(address: SocketAddr) -> Socket {
    let socket = tcp_socket();
    socket.connect(&address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Closes a TCP connection by a reset.
pub fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// A pipe: its ends for reading and for writing.
pub fn pipe() -> (File, ChildStdin) {
    let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let writer = child.stdin.take().unwrap();
    child.wait().unwrap();
    // Opened by its number, the write end gives a read end of the same pipe.
    let reader = File::open(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    (reader, writer)
}

/// `length` bytes without a pattern, the same in each run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

/// What a [`drain`] stopped at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing more was there.
    Again,
    /// The peer had closed its sending side.
    Eof,
    /// An error, as its kind.
    Error(String),
}

impl End {
    /// As traces show it.
    pub fn text(&self) -> &str {
        match self {
            Self::Again => "EAGAIN",
            Self::Eof => "EOF",
            Self::Error(kind) => kind,
        }
    }
}

/// Receives until nothing more is there.
pub fn drain(mut socket: &Socket) -> (Vec<u8>, End) {
    let mut data = Vec::new();
    let end = match socket.read_to_end(&mut data) {
        Ok(_) => End::Eof,
        Err(error) if error.kind() == ErrorKind::WouldBlock => End::Again,
        Err(error) => End::Error(python::kind(&error)),
    };
    (data, end)
}

/// As a trace shows what [`drain`] gave: `(b'x', 'EOF')`.
pub fn drained(socket: &Socket) -> String {
    let (data, end) = drain(socket);
    format!("({}, '{}')", python::bytes(&data), end.text())
}

/// Bytes of a buffer, before the kernel doubles them.
const NARROW: usize = 64 * 1024;
