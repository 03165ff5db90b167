//! Written bytes on their way to the kernel: at most one send in flight, the rest waits behind it in order.
//!
//! # States
//!
//! ```text
//! idle -- begin() --> out -- flying() --> out, the kernel has it -- settle() --> idle
//! ```
//!
//! While a queue is *out*, whoever has it may run user code (dropping a sent `Bytes` can): what is written meanwhile is
//! staged behind it and nothing else is sent, so the order holds.

use std::mem;

use ringloop_driver::{Chunk, OpKey, SendQueue};

/// What is written and not sent. Never calls out.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Not given to the kernel yet.
    staged: SendQueue,
    out: Option<Out>,
}

/// The queue in front of the staged one.
#[derive(Debug)]
struct Out {
    /// Bytes of it that are not known to be sent.
    len: usize,
    /// The send that has it, if one has.
    key: Option<OpKey>,
    /// Whether it was submitted since anybody looked. Else it is known to wait for room: asyncio's non-empty buffer.
    fresh: bool,
}

impl WriteBuffer {
    pub(crate) fn push(&mut self, chunk: Chunk<'_>) {
        self.staged.push(chunk);
    }

    /// Moves all of `queue` to the end.
    pub(crate) fn append(&mut self, mut queue: SendQueue) {
        self.staged.append(&mut queue);
    }

    /// Bytes that the kernel is not known to have taken.
    pub(crate) fn size(&self) -> usize {
        self.staged.len() + self.out.as_ref().map_or(0, |out| out.len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// Whether the kernel had no room when it was asked: what is written now only waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.out.as_ref().is_some_and(|out| !out.fresh)
    }

    /// The send that nobody has looked at yet.
    pub(crate) fn fresh(&self) -> Option<OpKey> {
        self.out.as_ref().filter(|out| out.fresh)?.key
    }

    /// The send that the kernel has.
    pub(crate) fn key(&self) -> Option<OpKey> {
        self.out.as_ref()?.key
    }

    /// What is to be sent now, if anything. It is out from here on.
    pub(crate) fn begin(&mut self) -> Option<SendQueue> {
        if self.out.is_some() || self.staged.is_empty() {
            return None;
        }
        let queue = mem::take(&mut self.staged);
        self.out = Some(Out { len: queue.len(), key: None, fresh: false });
        Some(queue)
    }

    pub(crate) fn flying(&mut self, key: OpKey, fresh: bool) {
        if let Some(out) = &mut self.out {
            out.key = Some(key);
            out.fresh = fresh;
        }
    }

    /// Somebody looked, and the send is still in flight.
    pub(crate) fn looked(&mut self) {
        if let Some(out) = &mut self.out {
            out.fresh = false;
        }
    }

    /// The kernel has given the queue back; it is still out. Gives whether the send was fresh.
    pub(crate) fn landed(&mut self) -> bool {
        let Some(out) = &mut self.out else { return false };
        out.key = None;
        mem::take(&mut out.fresh)
    }

    /// Nothing is out any more; `rest` was not sent and goes before all that was written meanwhile.
    pub(crate) fn settle(&mut self, mut rest: SendQueue) {
        rest.append(&mut self.staged);
        self.staged = rest;
        self.out = None;
    }

    /// All that is staged, to be dropped outside of borrows. What the kernel has stays out.
    pub(crate) fn take_staged(&mut self) -> SendQueue {
        mem::take(&mut self.staged)
    }
}
