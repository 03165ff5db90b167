//! The sources: objects that the loop keeps alive, and to which it hands completions.
//!
//! # Life of a source
//!
//! ```text
//! register -> { complete -> queue_source -> run | list_for_flush -> flush }* -> unregister
//! ```
//!
//! A transport, a listener, a watcher or a socket registers itself, and starts ops in the driver with the token that it got.
//! When the loop decodes completions, it gives each to its source, which stages what it brought; if user code is to run,
//! the source queues a handle, and the code runs from there. What a source stages for sending goes to the driver with the
//! system call that ends the iteration. The loop owns a source while it is registered. When the loop closes, it calls
//! [`Source::on_loop_close`] and drops the source.
//!
//! The trait [`Source`] is the only way in which the loop calls what lies above it.

use std::os::fd::RawFd;
use std::rc::Rc;

use ringloop_driver::{Completion, Descriptor, OpKey, Received, SendQueue, Sink, Token};
use slab::Slab;

use super::{EventLoop, Snapshot};

/// Something above the loop that has ops in the driver.
pub(crate) trait Source {
    /// In the reap: stages what came, and queues a handle if something is to be run. No user code. May start ops.
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop);

    /// As [`complete`](Self::complete), for bytes of a receive that goes on. The driver is borrowed, so a source that needs it
    /// gives them back, and gets them by [`complete`](Self::complete).
    fn take_received(self: Rc<Self>, data: Received, event_loop: &EventLoop) -> Option<Received> {
        let _ = event_loop;
        Some(data)
    }

    /// As [`take_received`](Self::take_received), for a poll that has found something and goes on. Whether the source has nothing
    /// else to do.
    fn take_polled(self: Rc<Self>, op: OpKey, event_loop: &EventLoop) -> bool {
        let _ = (op, event_loop);
        false
    }

    /// As [`take_received`](Self::take_received), for the end of the stream: the receive is over. Whether that is noted.
    fn take_end(self: Rc<Self>, event_loop: &EventLoop) -> bool {
        let _ = event_loop;
        false
    }

    /// As [`take_received`](Self::take_received), for a connection of an accept that goes on.
    fn take_accepted(
        self: Rc<Self>,
        connection: Descriptor,
        event_loop: &EventLoop,
    ) -> Option<Descriptor> {
        let _ = event_loop;
        Some(connection)
    }

    /// As [`take_received`](Self::take_received), for a send that ended without an error after `sent` bytes. Whether the
    /// source has nothing else to do; what is in the queue is dropped then.
    fn take_sent(&self, sent: usize, queue: &mut SendQueue) -> bool {
        let _ = (sent, queue);
        false
    }

    /// The queued handle. User code runs from here, with nothing borrowed.
    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop);

    /// Hands to the driver what the source holds for it: before the wait, and now and then between callbacks. No user code.
    fn flush(self: Rc<Self>, event_loop: &EventLoop) {
        let _ = event_loop;
    }

    /// The loop closes: the source drops its protocol, and calls no user code.
    fn on_loop_close(self: Rc<Self>);

    /// The descriptor that no watcher may have meanwhile: that of an open transport.
    fn as_raw_fd(&self) -> Option<RawFd> {
        None
    }

    /// Whether it watches a descriptor of someone else's.
    fn is_watcher(&self) -> bool {
        false
    }

    /// Whether the loop tells of it, in debug mode, when it closes. One that tells of itself does so in every mode.
    fn is_told_unclosed(&self) -> bool {
        true
    }

    /// What is set where the queued handle runs.
    fn context(&self) -> Snapshot {
        Snapshot::default()
    }

    /// The name of the source in reports and errors.
    fn describe(&self) -> String;
}

/// The registered sources of one loop.
#[derive(Default)]
pub(super) struct Registry {
    sources: Slab<(u32, Rc<dyn Source>)>,
    next_generation: u32,
    /// By descriptor: the source that registered with it last. The source may be closing by now, so
    /// [`Source::as_raw_fd`] says whether it still uses the descriptor.
    by_fd: Vec<Option<Token>>,
}

impl Registry {
    pub(super) fn insert(&mut self, source: Rc<dyn Source>) -> Token {
        let fd = source.as_raw_fd().and_then(|fd| usize::try_from(fd).ok());
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.sources.insert((generation, source));
        let token = token(generation, index);
        if let Some(fd) = fd {
            if self.by_fd.len() <= fd {
                self.by_fd.resize(fd + 1, None);
            }
            self.by_fd[fd] = Some(token);
        }
        token
    }

    /// `None` for a token whose source has left.
    #[inline]
    pub(super) fn get(&self, token: Token) -> Option<&Rc<dyn Source>> {
        let (generation, index) = parts(token);
        match self.sources.get(index) {
            Some((current, source)) if *current == generation => Some(source),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Rc<dyn Source>> {
        self.get(token)?;
        let (_, index) = parts(token);
        Some(self.sources.remove(index).1)
    }

    /// The open transport that uses the descriptor.
    pub(super) fn by_fd(&self, fd: RawFd) -> Option<&Rc<dyn Source>> {
        let token = (*self.by_fd.get(usize::try_from(fd).ok()?)?)?;
        self.get(token).filter(|source| source.as_raw_fd() == Some(fd))
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn watchers(&self) -> usize {
        self.sources.iter().filter(|(_, (_, source))| source.is_watcher()).count()
    }

    #[cfg(feature = "macros")]
    pub(super) fn all(&self) -> Vec<Rc<dyn Source>> {
        self.sources.iter().map(|(_, (_, source))| Rc::clone(source)).collect()
    }

    /// All sources, for the caller to close and drop.
    pub(super) fn take(&mut self) -> Vec<Rc<dyn Source>> {
        self.by_fd = Vec::new();
        std::mem::take(&mut self.sources).into_iter().map(|(_, (_, source))| source).collect()
    }
}

/// Gives completions to their sources while they are decoded.
pub(super) struct Reaping<'a> {
    pub(super) registry: &'a Registry,
    pub(super) event_loop: &'a EventLoop,
}

impl Sink for Reaping<'_> {
    #[inline]
    fn received(&mut self, token: Token, data: Received) -> Option<Received> {
        match self.registry.get(token) {
            Some(source) => Rc::clone(source).take_received(data, self.event_loop),
            None => Some(data),
        }
    }

    #[inline]
    fn ended(&mut self, token: Token) -> bool {
        let source = self.registry.get(token);
        source.is_some_and(|source| Rc::clone(source).take_end(self.event_loop))
    }

    #[inline]
    fn accepted(&mut self, token: Token, connection: Descriptor) -> Option<Descriptor> {
        match self.registry.get(token) {
            Some(source) => Rc::clone(source).take_accepted(connection, self.event_loop),
            None => Some(connection),
        }
    }

    #[inline]
    fn polled(&mut self, token: Token, op: OpKey) -> bool {
        match self.registry.get(token) {
            Some(source) => Rc::clone(source).take_polled(op, self.event_loop),
            None => false,
        }
    }

    #[inline]
    fn sent(&mut self, token: Token, sent: usize, queue: &mut SendQueue) -> bool {
        self.registry.get(token).is_some_and(|source| source.take_sent(sent, queue))
    }
}

/// That of a source which no loop keeps: it is not registered, or the loop was closed.
pub(crate) const NO_TOKEN: Token = Token(u64::MAX);

fn token(generation: u32, index: usize) -> Token {
    let index = u32::try_from(index).expect("as many sources as descriptors at most");
    Token(u64::from(generation) << 32 | u64::from(index))
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of the token")]
fn parts(Token(token): Token) -> (u32, usize) {
    ((token >> 32) as u32, token as u32 as usize)
}
