//! Memory that the kernel fills: buffer groups, and the leases of their buffers.
//!
//! # The life of a buffer
//!
//! ```text
//! free in the buffer ring -> filled by a receive -> leased (Received) -> last clone dropped -> free again
//! ```
//!
//! While it is free or being filled, only the kernel touches it. A lease is made when its completion is decoded; from
//! then on nobody writes to it until the last clone is gone. Returning it is one store to the ring's tail.

mod account;
mod group;
mod received;
mod returns;

pub use account::Account;
pub(crate) use group::{Group, GroupSize};
pub use received::Received;
