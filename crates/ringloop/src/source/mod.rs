//! Ops of the driver and what they bring, as transports, sockets and watched descriptors use them.
//!
//! * An [`Attachment`] is a descriptor and its owner's place in the loop.
//! * An [`OpSlot`] is the place of one op: what is in flight, and how it ends.
//! * A [`StagedSource`] is what arrives at a descriptor, and the op that brings it.

mod attachment;
mod op_slot;
mod staged;
mod staged_source;

pub(crate) use attachment::{Attachment, reset_on_close};
pub(crate) use op_slot::OpSlot;
pub(crate) use staged::Arrived;
pub(crate) use staged_source::{BUDGET, ReceiveOp, Recv, StagedSource, Wants, is_passing};

/// Whether it is about reading or about writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}
