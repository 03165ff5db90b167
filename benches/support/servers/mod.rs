//! The same server on each peer.
//!
//! Equal work: one thread, buffers of 16 KiB, and a listener that is made alike for all, those of
//! other runtimes included: see [`Address`]. ringloop takes larger buffers where a connection fills
//! these; so epoll and tokio are also measured with larger ones, see [`Face::Large`].

use std::fmt;
use std::str::FromStr;

use ::ringloop::{DriverChoice, WriteMode};
use peers_common::{Address, BUFFER};
use serde_json::{Value, json};

use crate::cell::Mode;
use crate::failure::Failure;

mod epoll;
mod exact;
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
    /// Socket calls, in a task per connection; of the bare ring: a receive for each piece, and sends in batches.
    Sock,
    /// Of the bare ring: the system calls that exact socket calls oblige to, each at its time.
    Exact,
    /// Of tokio: what is written goes through a `BufWriter`.
    Buffered,
    /// Of epoll and tokio: receives into 64 KiB, which ringloop does once a connection fills its 16 KiB.
    Large,
}

/// A server: what it runs on, and what it is written with. As text `ringloop` or `ringloop/streams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it runs on.
    pub kind: Kind,
    /// One of ringloop's faces; most of the others have one each.
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
    /// Times that it went to the kernel for completions: with a ring, calls of `io_uring_enter`.
    pub rounds: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions read.
    pub completed: u64,
    /// Receives that ended because no buffer was left.
    pub enobufs: u64,
}

/// Serves until SIGINT or SIGTERM; says where it listens as soon as it does.
///
/// With `verify`, one that receives compares each byte, which takes time: apart from any measurement.
pub fn serve(
    peer: Peer,
    mode: Mode,
    address: &Address,
    verify: bool,
    announce: impl FnOnce(&Address),
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
    if !peer.knows(mode) {
        return Err(Failure::Usage(format!("there is no server {peer} for {mode}")));
    }
    let listener = address.listen().map_err(failed)?;
    announce(&Address::of(&listener).map_err(failed)?);
    let mode = mode.of_server();
    match kind {
        Kind::Ringloop | Kind::Immediate | Kind::RingloopEpoll => {
            ringloop::serve(listener, setup, face, mode, verify)
        }
        Kind::Epoll => epoll::serve(listener, face, mode, verify).map_err(failed),
        Kind::Ring if face == Face::Exact => exact::serve(&listener).map_err(failed),
        Kind::Ring => ring::serve(listener, face, mode, verify).map_err(failed),
        Kind::Tokio => tokio::serve(listener, face, mode, verify).map_err(failed),
        Kind::Rival(_) => Err(Failure::Usage(format!("{peer} is a program of its own"))),
    }
}

impl Stats {
    /// As one JSON object, with the words of the examples' `--stats`, which are those of a ring.
    pub fn to_json(self, peer: Peer) -> Value {
        json!({
            "kind": peer.to_string(),
            "connections": self.connections,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "calls": self.calls,
            "enters": self.rounds,
            "sqes": self.submitted,
            "cqes": self.completed,
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

impl Face {
    /// Bytes of a buffer that a receive fills.
    fn buffer(self) -> usize {
        if self == Self::Large { 4 * BUFFER } else { BUFFER }
    }
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Streams => "streams",
            Self::Sock => "sock",
            Self::Exact => "exact",
            Self::Buffered => "buffered",
            Self::Large => "large",
        })
    }
}

impl FromStr for Face {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let faces =
            [Self::Protocol, Self::Streams, Self::Sock, Self::Exact, Self::Buffered, Self::Large];
        faces
            .into_iter()
            .find(|face| face.to_string() == text)
            .ok_or_else(|| "not one of: protocol, streams, sock, exact, buffered, large".to_owned())
    }
}

impl From<Kind> for Peer {
    fn from(kind: Kind) -> Self {
        Self { kind, face: Face::default() }
    }
}

impl Peer {
    /// Whether it has to be stopped while others are measured, since it takes their time.
    pub fn is_restless(self) -> bool {
        matches!(self.kind, Kind::Rival(rival) if rival.is_restless())
    }

    /// Whether there is a server of it for this.
    pub fn knows(self, mode: Mode) -> bool {
        let ours = matches!(self.kind, Kind::Ringloop | Kind::Immediate | Kind::RingloopEpoll);
        match (mode.of_server(), self.face) {
            (Mode::Echo, Face::Protocol) => true,
            (Mode::Echo | Mode::Unix, Face::Streams) => ours,
            (Mode::Echo | Mode::Unix, Face::Sock) => ours || self.kind == Kind::Ring,
            (Mode::Echo | Mode::Unix, Face::Exact) => self.kind == Kind::Ring,
            (Mode::Lines, Face::Streams) => ours,
            (Mode::Lines, Face::Protocol) => self.kind == Kind::Tokio,
            (Mode::Lines | Mode::Small, Face::Buffered) => self.kind == Kind::Tokio,
            (Mode::Echo | Mode::Receive, Face::Large) => {
                matches!(self.kind, Kind::Epoll | Kind::Tokio)
            }
            (_, Face::Protocol) => match self.kind {
                Kind::Rival(rival) => !rival.echoes_only(),
                _ => true,
            },
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
