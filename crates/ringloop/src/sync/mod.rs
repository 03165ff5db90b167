//! What tasks of one loop meet at: events, locks, semaphores, conditions, barriers and queues.
//!
//! They go as asyncio's: whoever waits stands in a line ([`WaitLine`](wait_line::WaitLine)), is woken in its turn, and
//! goes on in the next iteration. A request to end a task that waits here takes its place away at once; what it had been
//! given already goes to the next in the line. Nothing here needs a running loop: the wakers do the rest.

mod barrier;
mod condition;
mod event;
mod lock;
mod queue;
mod semaphore;
mod wait_line;

pub use barrier::Barrier;
pub use condition::Condition;
pub use event::Event;
pub use lock::{Lock, LockGuard};
pub use queue::{
    GetNowaitError, LifoQueue, PriorityQueue, PutError, PutNowaitError, Queue, QueueShutDown,
};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
