//! What is built on tasks: running a program, waiting for several at once, for time to pass, and for no longer than that.
//!
//! The loop below knows one task and one future at a time. Nothing here is polled by other rules than a user's own
//! future: it is woken by a waker, a timer or a callback in the ready queue, in the order in which asyncio's is.

mod as_completed;
#[cfg(feature = "macros")]
mod attributes;
mod end_queue;
mod gather;
mod group;
mod join_set;
mod runner;
mod shield;
mod sleep;
mod spawn;
mod timeout;
mod wait;

pub use as_completed::{AsCompleted, as_completed};
#[cfg(feature = "macros")]
pub use attributes::{__main, __test};
pub use gather::{Gather, gather};
pub use group::{MayFail, TaskGroup};
pub use join_set::JoinSet;
pub use runner::{Runner, run};
pub use shield::{Shield, shield};
pub use sleep::{Sleep, YieldNow, sleep, sleep_until, yield_now};
pub use spawn::{run_in_executor, spawn};
pub use timeout::{timeout, timeout_at, wait_for};
pub use wait::{ReturnWhen, Waitable, Waited, wait};
