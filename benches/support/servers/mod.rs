//! The same server on each peer.
//!
//! Equal work: one thread, buffers of 16 KiB, TCP_NODELAY, a backlog of 4096, and the same
//! congestion control, whatever the system's: BBR paces by timers, which costs each server what
//! has nothing to do with it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use ::ringloop::{DriverChoice, WriteMode};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cell::Mode;
use crate::failure::Failure;

mod epoll;
mod ring;
mod ringloop;
mod rival;
mod tokio;

pub use self::rival::{RIVALS, Rival};

/// What a server runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project.
    Ringloop,
    /// The same, which sends inside each `write()`.
    Immediate,
    /// The same, on its epoll driver.
    RingloopEpoll,
    /// epoll(7), level-triggered, without any runtime.
    Epoll,
    /// io_uring(7) without any runtime: the limit.
    Ring,
    /// tokio's `current_thread` runtime.
    Tokio,
    /// Another runtime, whose server is a program of its own.
    Rival(Rival),
}

/// What a server's code is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Face {
    /// Callbacks.
    #[default]
    Protocol,
    /// Readers and writers, in a task per connection.
    Streams,
    /// Socket calls, in a task per connection; of the bare ring: a receive for each piece.
    Sock,
}

/// A server: what it runs on, and what it is written with. As text `ringloop` or `ringloop/streams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it runs on.
    pub kind: Kind,
    /// One of ringloop's faces; the others have one each.
    pub face: Face,
}

/// What a server has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// System calls, if it counts them.
    pub calls: Option<u64>,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Operations submitted.
    pub sqes: u64,
    /// Completions read.
    pub cqes: u64,
    /// Receives that ended because no buffer was left.
    pub enobufs: u64,
}

/// Serves until SIGINT or SIGTERM; says where it listens as soon as it does.
pub fn serve(
    peer: Peer,
    mode: Mode,
    address: SocketAddr,
    announce: impl FnOnce(SocketAddr),
) -> Result<Stats, Failure> {
    let failed = |error| Failure::new(format!("server {peer}"), &error);
    let Peer { kind, face } = peer;
    let setup = ringloop::Setup {
        write_mode: match kind {
            Kind::Immediate => WriteMode::Immediate,
            _ => WriteMode::Batched,
        },
        driver: match kind {
            Kind::RingloopEpoll => DriverChoice::Epoll,
            _ => DriverChoice::Uring,
        },
    };
    let listener = listen(address).map_err(failed)?;
    announce(listener.local_addr().map_err(failed)?);
    if !peer.knows(mode) {
        return Err(Failure::Usage(format!("there is no server {peer} for {mode}")));
    }
    match kind {
        Kind::Ringloop | Kind::Immediate | Kind::RingloopEpoll => {
            ringloop::serve(listener, setup, face, mode.of_server())
        }
        Kind::Epoll => epoll::serve(listener, mode.of_server()).map_err(failed),
        Kind::Ring => ring::serve(listener, face, mode.of_server()).map_err(failed),
        Kind::Tokio => tokio::serve(listener, mode.of_server()).map_err(failed),
        Kind::Rival(_) => Err(Failure::Usage(format!("{peer} is a program of its own"))),
    }
}

impl Stats {
    /// As one JSON object.
    pub fn to_json(self, peer: Peer) -> Value {
        json!({
            "kind": peer.to_string(),
            "connections": self.connections,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "calls": self.calls,
            "enters": self.enters,
            "sqes": self.sqes,
            "cqes": self.cqes,
            "enobufs": self.enobufs,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ringloop => "ringloop",
            Self::Immediate => "immediate",
            Self::RingloopEpoll => "ringloop-epoll",
            Self::Epoll => "epoll",
            Self::Ring => "ring",
            Self::Tokio => "tokio",
            Self::Rival(rival) => return rival.fmt(f),
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [
            Self::Ringloop,
            Self::Immediate,
            Self::RingloopEpoll,
            Self::Epoll,
            Self::Ring,
            Self::Tokio,
        ];
        let all = || kinds.into_iter().chain(RIVALS.map(Self::Rival));
        all().find(|kind| kind.to_string() == text).ok_or_else(|| {
            let names: Vec<_> = all().map(|kind| kind.to_string()).collect();
            format!("not one of: {}", names.join(", "))
        })
    }
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Streams => "streams",
            Self::Sock => "sock",
        })
    }
}

impl FromStr for Face {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let faces = [Self::Protocol, Self::Streams, Self::Sock];
        faces
            .into_iter()
            .find(|face| face.to_string() == text)
            .ok_or_else(|| "not one of: protocol, streams, sock".to_owned())
    }
}

impl From<Kind> for Peer {
    fn from(kind: Kind) -> Self {
        Self { kind, face: Face::default() }
    }
}

impl Peer {
    /// Whether there is a server of it for this.
    pub fn knows(self, mode: Mode) -> bool {
        let ours = matches!(self.kind, Kind::Ringloop | Kind::Immediate | Kind::RingloopEpoll);
        match (mode.of_server(), self.face) {
            (Mode::Echo, Face::Protocol) => true,
            (Mode::Echo, Face::Streams) => ours,
            (Mode::Echo, Face::Sock) => ours || self.kind == Kind::Ring,
            (Mode::Lines, Face::Streams) => ours,
            (Mode::Lines, Face::Protocol) => self.kind == Kind::Tokio,
            (_, Face::Protocol) => !matches!(self.kind, Kind::Rival(_)),
            _ => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.face {
            Face::Protocol => self.kind.fmt(f),
            face => f.pad(&format!("{}/{face}", self.kind)),
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, face) = match text.split_once('/') {
            Some((kind, face)) => (kind, face.parse()?),
            None => (text, Face::default()),
        };
        Ok(Self { kind: kind.parse()?, face })
    }
}

/// A non-blocking listener. Its connections inherit what is set on it.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(CONGESTION_CONTROL)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Each kernel has it, and each user may ask for it.
pub const CONGESTION_CONTROL: &[u8] = b"reno";

const BACKLOG: i32 = 4096;
const BUFFER: usize = crate::raw::BUFFER_SIZE as usize;
