//! How long a wait waits.

use std::time::Instant;

/// How long [`Driver::wait`](crate::Driver::wait) waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Now,
    /// Until then; never less.
    Until(Instant),
    /// Until there is one, or a wake-up.
    Forever,
}
