//! What a completion says.

use std::io;

use crate::key::OpKey;
use crate::{Datagram, Descriptor, Received, SendQueue};

/// Who an op was started for: a number that the layer above chooses, and by which it finds the owner of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// One result of an op.
#[derive(Debug)]
pub struct Completion {
    /// The token that the op was started with.
    pub token: Token,
    /// The op that this is a result of.
    pub key: OpKey,
    /// Whether the op is still in flight and more results will come. If not, the kernel uses nothing of it any more.
    pub more: bool,
    /// The result itself.
    pub outcome: Outcome,
}

/// Takes what almost every completion is, as it is decoded and where it stands: see [`Driver::reap`](crate::Driver::reap).
///
/// The driver is borrowed meanwhile, so what is done here must not need it. What is not taken comes as a [`Completion`]; a method that
/// is not written takes nothing.
pub trait Sink {
    /// Bytes arrived, and the receive goes on. Gives them back if they cannot be taken so.
    fn received(&mut self, token: Token, data: Received) -> Option<Received> {
        let _ = token;
        Some(data)
    }

    /// A multishot receive has ended with its stream. Whether that is taken.
    fn ended(&mut self, token: Token) -> bool {
        let _ = token;
        false
    }

    /// A connection was accepted, and the accept goes on. Gives it back if it cannot be taken so.
    fn accepted(&mut self, token: Token, connection: Descriptor) -> Option<Descriptor> {
        let _ = token;
        Some(connection)
    }

    /// A poll has found something, and goes on. Whether that is settled.
    fn polled(&mut self, token: Token, key: OpKey) -> bool {
        let _ = (token, key);
        false
    }

    /// A send has ended without an error, after `sent` bytes of `queue`. Whether that is settled: what is left in the queue is
    /// dropped then.
    fn sent(&mut self, token: Token, sent: usize, queue: &mut SendQueue) -> bool {
        let _ = (token, sent, queue);
        false
    }
}

/// Takes nothing.
pub(crate) struct NoSink;

impl Sink for NoSink {}

/// The result of an op, and what the op had been given and gives back.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A connection was accepted. Its descriptor is non-blocking, and closed on exec.
    Accepted(io::Result<Descriptor>),
    /// Bytes arrived; empty at the end of the stream.
    Received(io::Result<Received>),
    /// A datagram arrived, with the address of its sender.
    Datagram(io::Result<Datagram>),
    /// How many bytes of the queue the kernel took, and the queue itself, from which they are still to be removed.
    Sent(io::Result<usize>, SendQueue),
    /// The connection stands.
    Connected(io::Result<()>),
    /// The descriptor is ready.
    Polled(io::Result<Readiness>),
    /// That direction of the stream is shut down.
    ShutDown(io::Result<()>),
}

/// What became of a send that was to be done at once where that can be.
#[derive(Debug)]
pub enum SendStarted {
    /// It is an op, and a completion says what was sent.
    InFlight(OpKey),
    /// It is over: how many bytes of the queue the kernel took, which are still to be removed from it.
    Done(io::Result<usize>),
}

impl SendStarted {
    /// The op, if it is one.
    pub fn key(&self) -> Option<OpKey> {
        match self {
            Self::InFlight(key) => Some(*key),
            Self::Done(_) => None,
        }
    }
}

/// What a descriptor is to be watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// It can be read without blocking, or is at its end.
    pub read: bool,
    /// It can be written without blocking.
    pub write: bool,
}

/// What a watched descriptor is ready for. An error or a hang-up counts as both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Readable, at its end, or broken.
    pub read: bool,
    /// Writable, or broken.
    pub write: bool,
}

impl Interest {
    pub(crate) fn mask(self) -> u32 {
        (if self.read { INPUT } else { 0 }) | (if self.write { OUTPUT } else { 0 })
    }
}

impl Interest {
    /// Whether `mask` is ready for nothing that was asked for: `POLLRDHUP`, which comes unasked, is all that there is.
    pub(crate) fn is_missed_by(self, mask: u32) -> bool {
        mask & (self.mask() | BROKEN) == 0
    }
}

impl Readiness {
    /// As `select.epoll` maps its events for asyncio: all but the other direction. `POLLRDHUP` comes unasked, and would
    /// make the end of the peer's stream look like room for writing.
    pub(crate) fn from_mask(mask: u32) -> Self {
        let mask = mask & !PEER_CLOSED;
        Self { read: mask & !OUTPUT != 0, write: mask & !INPUT != 0 }
    }
}

const INPUT: u32 = libc::POLLIN as u32;
const OUTPUT: u32 = libc::POLLOUT as u32;
const BROKEN: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;
const PEER_CLOSED: u32 = libc::POLLRDHUP as u32;
