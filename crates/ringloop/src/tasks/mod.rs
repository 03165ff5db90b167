//! What is built on tasks: running a program, waiting for several at once, for time to pass, and for no longer than that.
//!
//! The loop below knows one task and one future at a time. Nothing here is polled by other rules than a user's own
//! future: it is woken by a waker, a timer or a callback in the ready queue, in the order in which asyncio's is.

mod gather;
mod runner;
mod sleep;
mod spawn;
mod timeout;

pub use gather::{Gather, gather};
pub use runner::run;
pub use sleep::{Sleep, YieldNow, sleep, sleep_until, yield_now};
pub use spawn::{run_in_executor, spawn};
pub use timeout::{timeout, timeout_at};
