//! Both halves as the traits of other crates want them: by polling.
//!
//! A caller that polls may stop polling without notice, so a later read takes the place of one that polled and waits. What is
//! written is taken as long as there is room; flushing and closing return whether it could be sent.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use ringloop_driver::Received;

use super::link::{Link, connection_lost};
use super::reader::{Shared, StreamReader};
use super::writer::StreamWriter;
use crate::Result;
use crate::transport::Transport;

impl StreamReader {
    /// Ready with bytes, or with none at the end of the stream. They stay there until they are consumed.
    pub(super) fn poll_first(&mut self, cx: &Context<'_>) -> Poll<Result<&[u8]>> {
        let shared = self.shared();
        let first = ready!(shared.poll_polled(cx, Shared::first))?;
        Poll::Ready(Ok(self.hold(first)))
    }

    pub(super) fn consume_first(&mut self, count: usize) {
        self.hold(Received::default());
        self.shared().consume(count);
    }

    /// Gives up to `most` bytes to `put`, piece by piece.
    pub(super) fn poll_pieces(
        &self,
        cx: &Context<'_>,
        most: usize,
        mut put: impl FnMut(&[u8]),
    ) -> Poll<Result<()>> {
        if most == 0 {
            return Poll::Ready(Ok(()));
        }
        let shared = self.shared();
        shared.poll_polled(cx, |shared| shared.take_pieces(most, &mut put))
    }
}

impl StreamWriter {
    /// Ready once some of `data` is taken.
    pub(super) fn poll_write_some(&self, cx: &Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_room(cx))?;
        let count = data.len().min(MOST_TAKEN);
        self.write(&data[..count])?;
        Poll::Ready(Ok(count))
    }

    /// Ready while there is room.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<()>> {
        ready!(self.link().poll_flowing(&self.places().write, cx));
        self.check_error()?;
        if self.link().has_ended() || self.is_closing() {
            return Poll::Ready(Err(connection_lost()));
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once the kernel has taken everything, or with the error that ended the connection before.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<Result<()>> {
        self.check_error()?;
        let is_flushed = ready!(self.transport().poll_flush(&self.places().flush, cx));
        self.check_error()?;
        self.link().ended()?;
        // Else it was aborted here, or the loop was closed.
        Poll::Ready(if is_flushed { Ok(()) } else { Err(connection_lost()) })
    }

    /// Ready once the kernel has taken everything and the sending side is closed.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flushed(cx))?;
        if !self.is_closing() && self.can_write_eof() {
            self.places().is_ended.set(true);
            return Poll::Ready(self.write_eof());
        }
        self.close();
        self.link().poll_closed(&self.places().close, cx)
    }
}

/// Where a writer that is polled waits.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) write: Cell<Option<u64>>,
    pub(super) flush: Cell<Option<u64>>,
    pub(super) close: Cell<Option<u64>>,
    /// Its sending side was closed.
    pub(super) is_ended: Cell<bool>,
}

impl Places {
    /// The writer goes, and nobody is to be woken.
    pub(super) fn leave(&self, transport: &Transport, link: &Link) {
        link.leave(&self.write, &self.close);
        if let Some(place) = self.flush.take() {
            transport.base().flushes().leave(place);
        }
    }
}

/// How many bytes one call of a poll takes at most. More would be memory that flow control does not count.
const MOST_TAKEN: usize = 64 * 1024;
