//! Memory that the kernel fills: buffer groups, and the leases of their buffers.
//!
//! # The life of a buffer
//!
//! ```text
//! in reserve -> offered in the buffer ring -> filled by a receive -> leased (Received) -> last clone dropped -> free again
//! ```
//!
//! While it is offered or being filled, only the kernel touches it. A lease is made when its completion is decoded; from
//! then on nobody writes to it until the last clone is gone. Free again, it is offered at once, which is one store to the
//! ring's tail, or goes to the reserve: see [`group`].

mod account;
mod group;
mod received;
mod returns;

pub use account::Account;
pub(crate) use group::{FIRST_GROUP, GROUP_FOR_STREAMS, Group, GroupSize};
pub use received::Received;
