//! Written bytes on their way to the kernel: at most one send is in flight, and everything else waits behind it in order.
//!
//! # States
//!
//! ```text
//! idle -- send() --> out, the kernel has it -- landed() --> out -- settle() --> idle
//! ```
//!
//! A queue is *out* from the time that it is to be sent until it was settled. Meanwhile user code may run, since dropping
//! a sent `Bytes` can do that, and may write: that waits behind the queue, and nothing else is sent, so the order holds.

use std::mem;

use ringloop_driver::{Chunk, OpKey, Received, SendQueue};

/// What is written and not sent. Never calls out.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Written, and not given to the kernel yet.
    unsent: SendQueue,
    out: Option<Out>,
}

/// The queue in front of what is unsent.
#[derive(Debug)]
struct Out {
    /// Bytes of it of which no completion has said that they are sent.
    len: usize,
    /// The send that has it, if one has.
    key: Option<OpKey>,
    /// It has more chunks than one send takes.
    has_many_chunks: bool,
}

impl WriteBuffer {
    #[inline(always)]
    pub(crate) fn push(&mut self, chunk: Chunk<'_>) {
        self.unsent.push(chunk);
    }

    /// As [`push`](Self::push), if it is a lease and there is nothing else, neither unsent nor out; else it comes back.
    #[inline(always)]
    pub(crate) fn push_first(&mut self, bytes: Received) -> Option<Received> {
        if self.out.is_some() {
            return Some(bytes);
        }
        self.unsent.push_first(bytes)
    }

    /// As [`push`](Self::push), if there is room for a copy of `bytes` behind what is unsent; else nothing is done.
    #[inline(always)]
    pub(crate) fn copy_behind(&mut self, bytes: &[u8]) -> bool {
        self.unsent.copy_behind(bytes)
    }

    /// Moves all of `queue` to the end.
    pub(crate) fn append(&mut self, mut queue: SendQueue) {
        self.unsent.append(&mut queue);
    }

    /// Whether nothing is in it, not even an empty piece that somebody owns.
    pub(crate) fn is_idle(&self) -> bool {
        self.unsent.is_nothing() && self.out.is_none()
    }

    /// Bytes of which no completion has said that the kernel has taken them.
    pub(crate) fn size(&self) -> usize {
        let (unsent, out) = self.sizes();
        unsent + out
    }

    /// Bytes that are unsent, and bytes that are out.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.unsent.len(), self.out.as_ref().map_or(0, |out| out.len))
    }

    /// Whether the send that is out may leave chunks over though there is room for them.
    pub(crate) fn has_many_chunks(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.has_many_chunks)
    }

    /// The send that the kernel has.
    pub(crate) fn key(&self) -> Option<OpKey> {
        self.out.as_ref()?.key
    }

    /// What is to be given to the kernel, unless something is out or there is nothing; then [`went_out`](Self::went_out).
    #[inline(always)]
    pub(crate) fn sendable(&mut self) -> Option<&mut SendQueue> {
        (self.out.is_none() && !self.unsent.is_empty()).then_some(&mut self.unsent)
    }

    /// What is unsent, unless something is out.
    #[inline(always)]
    pub(crate) fn unsent(&mut self) -> Option<&mut SendQueue> {
        if self.out.is_none() { Some(&mut self.unsent) } else { None }
    }

    /// What was unsent, `len` bytes, is out from here on: the send `key` has it, or the kernel has given it back at once.
    #[inline(always)]
    pub(crate) fn went_out(&mut self, len: usize, key: Option<OpKey>, has_many_chunks: bool) {
        self.out = Some(Out { len, key, has_many_chunks });
    }

    /// The kernel has given the queue back; it is still out.
    pub(crate) fn landed(&mut self) {
        if let Some(out) = &mut self.out {
            out.key = None;
        }
    }

    /// Nothing is out any more; `rest` was not sent and goes before all that was written meanwhile.
    #[inline(always)]
    pub(crate) fn settle(&mut self, mut rest: SendQueue) {
        self.out = None;
        if !rest.is_empty() {
            rest.append(&mut self.unsent);
            self.unsent = rest;
        }
    }

    /// Nothing is out any more, as all was sent. False, and nothing has changed, if something was written meanwhile.
    #[inline(always)]
    pub(crate) fn settle_all(&mut self) -> bool {
        let is_all = self.unsent.is_nothing();
        if is_all {
            self.out = None;
        }
        is_all
    }

    /// All that is unsent, to be dropped outside of borrows. What the kernel has stays out.
    pub(crate) fn take_unsent(&mut self) -> SendQueue {
        mem::take(&mut self.unsent)
    }
}
