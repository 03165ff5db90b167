//! What `compare` measures: a row each.

use std::fmt;
use std::str::FromStr;

use peers_common::BUFFER;

use crate::cell::{Cell, Mode};
use crate::servers::{Face, Kind, Peer, RIVALS, Rival};

/// A workload, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// As in `--only`.
    pub name: &'static str,
    /// What a reader of the report is told of it.
    pub title: &'static str,
    /// What the server and the load do.
    pub mode: Mode,
    /// The sizes, and which servers are measured with each.
    sizes: &'static [(&'static str, Field)],
}

/// Which servers take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// All faces of ringloop, its driver on epoll, and who sets the limits.
    Home,
    /// These, and the runtimes on io_uring with their best flags.
    Rings,
    /// These, asyncio and uvloop.
    Rivals,
    /// All: ringloop's faces on both drivers, the limits of socket calls, and the rivals' defaults.
    Everyone,
    /// What knows lines.
    Lines,
    /// What scales are drawn of.
    Scale,
    /// These, and the runtimes on io_uring that stand it.
    LargeScale,
}

impl Workload {
    /// All of them, in the order of the report.
    pub fn all() -> impl Iterator<Item = Self> {
        WORKLOADS.into_iter()
    }

    /// Its sizes, each with the servers that are measured; in a quick run only the first.
    pub fn cells(self, quick: bool) -> Vec<(Cell, Vec<Peer>)> {
        let most = if quick { 1 } else { self.sizes.len() };
        let sizes = self.sizes.iter().take(most);
        sizes
            .map(|&(size, field)| (size.parse().expect("the table has sizes"), field.peers(quick)))
            .map(|(cell, peers)| (cell, self.who_knows(cell, peers)))
            .collect()
    }

    fn who_knows(self, cell: Cell, mut peers: Vec<Peer>) -> Vec<Peer> {
        let fills = cell.size >= BUFFER;
        peers.retain(|peer| peer.knows(self.mode) && (fills || peer.face != Face::Large));
        peers
    }
}

impl Field {
    fn peers(self, quick: bool) -> Vec<Peer> {
        let home = [Kind::Ringloop, Kind::RingloopEpoll, Kind::Epoll, Kind::Ring, Kind::Tokio];
        let mut peers: Vec<Peer> = home.map(Peer::from).to_vec();
        let face = |face| Peer { kind: Kind::Ringloop, face };
        let buffered = Peer { kind: Kind::Tokio, face: Face::Buffered };
        if quick && self != Self::Lines {
            return peers;
        }
        match self {
            Self::Scale | Self::LargeScale => {
                peers.retain(|peer| peer.kind != Kind::RingloopEpoll);
            }
            Self::Lines => peers = vec![face(Face::Streams), Kind::Tokio.into(), buffered],
            Self::Home | Self::Rings | Self::Rivals | Self::Everyone => {
                peers.splice(1..1, [face(Face::Streams), face(Face::Sock)]);
                peers.push(buffered);
                peers.extend(
                    [Kind::Epoll, Kind::Tokio].map(|kind| Peer { kind, face: Face::Large }),
                );
            }
        }
        if self == Self::Everyone {
            let on_epoll = |face| Peer { kind: Kind::RingloopEpoll, face };
            peers.extend([on_epoll(Face::Streams), on_epoll(Face::Sock)]);
            let bare = |face| Peer { kind: Kind::Ring, face };
            peers.extend([bare(Face::Sock), bare(Face::Exact)]);
        }
        let takes_part = |rival: &Rival| match self {
            Self::Home | Self::Lines | Self::Scale => false,
            Self::LargeScale => !rival.defaults && matches!(rival.name, "monoio" | "compio"),
            Self::Rings => !rival.defaults && !rival.is_python() && !rival.echoes_only(),
            Self::Rivals => !rival.defaults && !rival.echoes_only(),
            Self::Everyone => true,
        };
        let rivals = RIVALS.into_iter().filter(takes_part);
        peers.extend(rivals.map(|rival| Peer::from(Kind::Rival(rival))));
        peers
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        WORKLOADS.into_iter().find(|workload| workload.name == text).ok_or_else(|| {
            format!("not one of: {}", WORKLOADS.map(|workload| workload.name).join(", "))
        })
    }
}

const WORKLOADS: [Workload; 12] = [
    Workload {
        name: "echo",
        title: "echo",
        mode: Mode::Echo,
        sizes: &[
            ("64x64x1", Field::Everyone),
            ("16x16384x8", Field::Rivals),
            ("16x64x1", Field::Rings),
            ("256x64x1", Field::Rivals),
            ("1000x64x1", Field::Rivals),
            ("10000x64x1", Field::LargeScale),
            ("16x1024x1", Field::Rings),
            ("64x1024x1", Field::Rings),
            ("256x1024x1", Field::Rings),
            ("64x16384x1", Field::Home),
            ("64x64x8", Field::Home),
            ("64x64x64", Field::Home),
            ("64x1024x8", Field::Rings),
        ],
    },
    Workload {
        name: "unix",
        title: "echo over Unix sockets",
        mode: Mode::Unix,
        sizes: &[("64x64x1", Field::Rivals)],
    },
    Workload {
        name: "ping-pong",
        title: "ping-pong: one message under way",
        mode: Mode::Echo,
        sizes: &[("1x64x1", Field::Rivals)],
    },
    Workload {
        name: "bursts",
        title: "bursts: all connections send together",
        mode: Mode::Echo,
        sizes: &[("64x64x1b", Field::Home), ("256x64x1b", Field::Home)],
    },
    Workload {
        name: "small",
        title: "small writes: eight of 32 bytes answer each message",
        mode: Mode::Small,
        sizes: &[("64x256x1", Field::Rivals)],
    },
    Workload {
        name: "fan-out",
        title: "fan-out: one message goes to all connections",
        mode: Mode::FanOut,
        sizes: &[("1000x64x1", Field::Rivals)],
    },
    Workload {
        name: "connect",
        title: "connect, exchange one message, close",
        mode: Mode::Connect,
        sizes: &[("64x64x1", Field::Rivals)],
    },
    Workload {
        name: "send",
        title: "bulk send, per 16 KiB",
        mode: Mode::Send,
        sizes: &[("16x16384x1", Field::Rivals)],
    },
    Workload {
        name: "receive",
        title: "bulk receive, per 16 KiB",
        mode: Mode::Receive,
        sizes: &[("16x16384x1", Field::Rivals)],
    },
    Workload {
        name: "lines",
        title: "lines",
        mode: Mode::Lines,
        sizes: &[("64x64x1", Field::Lines), ("64x64x16", Field::Lines)],
    },
    Workload {
        name: "scale",
        title: "scale: echo over connections",
        mode: Mode::Echo,
        sizes: &[("4x64x1", Field::Scale), ("3000x64x1", Field::Scale)],
    },
    Workload {
        name: "idle",
        title: "idle: memory and wake-ups of open connections",
        mode: Mode::Idle,
        sizes: &[("1000x64x1", Field::Home), ("10000x64x1", Field::Rivals)],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workload_is_found_by_its_name_and_has_servers() {
        for workload in Workload::all() {
            assert_eq!(workload.name.parse::<Workload>().unwrap().title, workload.title);
            for (cell, peers) in [true, false].into_iter().flat_map(|quick| workload.cells(quick)) {
                assert!(peers.len() >= 2, "{workload} {cell}");
                assert!(peers.iter().any(|peer| peer.kind == Kind::Ringloop), "{workload} {cell}");
            }
        }
        assert!("chat".parse::<Workload>().is_err());
    }
}
