//! What whoever has ops in the driver needs around them: below transports, sockets and watched descriptors alike.
//!
//! A [`StagedSource`] is what arrives at a descriptor and the op that brings it.

mod staged;
mod staged_source;

pub(crate) use staged::Arrived;
pub(crate) use staged_source::{BUDGET, Recv, StagedSource, Wants};
