//! What a loop has done and what it holds: for tests that look for leaks, and for people.

use std::cell::Cell;

use super::EventLoop;

/// What a loop holds now, and what it has done so far: what [`EventLoop::stats`] gives.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// event_loop.stop();
/// event_loop.run_forever()?;
/// assert_eq!(event_loop.stats().iterations, 1);
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStats {
    /// Iterations so far.
    pub iterations: u64,
    /// Calls of the exception handler so far.
    pub reports: u64,
    /// Warnings so far.
    pub warnings: u64,
    /// Those of them, in debug mode, about a callback, a step or a name resolution that was slow.
    pub slow: u64,
    /// Those of them about a transport that was open when the loop was closed, or a stream that was dropped open; in debug mode
    /// also about a server or a watch that was open when the loop was closed.
    pub unclosed: u64,
    /// Those of them, in debug mode, about a task that gave a `Result` which nobody took.
    pub unretrieved: u64,
    /// Notes so far, in debug mode, of what connections did: that they were made, pause, resume, end. Only the feature
    /// `tracing` shows their words.
    pub notes: u64,
    /// Completions so far whose source had left.
    pub stale: u64,
    /// Handles in the ready queue.
    pub ready: usize,
    /// Timers in the heap, the cancelled ones that are still there included.
    pub timers: usize,
    /// Cancelled timers in the heap.
    pub cancelled_timers: usize,
    /// Tasks that are not done.
    pub tasks: usize,
    /// Transports, listeners, sockets and watchers that the loop keeps alive.
    pub sources: usize,
    /// Those of them that watch a descriptor of someone else's.
    pub watchers: usize,
    /// Jobs of executors that are not done.
    pub jobs: usize,
    /// Ops that were submitted to the kernel and have not ended.
    pub in_flight: u64,
}

impl EventLoop {
    /// What the loop holds now, and what it has done so far.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.call_soon(|_| ())?;
    /// assert_eq!(event_loop.stats().ready, 1);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> LoopStats {
        let inner = &*self.inner;
        let timers = inner.timers.borrow();
        LoopStats {
            iterations: inner.stats.iterations.get(),
            reports: inner.stats.reports.get(),
            warnings: inner.stats.warnings.get(),
            slow: inner.stats.slow.get(),
            unclosed: inner.stats.unclosed.get(),
            unretrieved: inner.stats.unretrieved.get(),
            notes: inner.stats.notes.get(),
            stale: inner.stats.stale.get(),
            ready: inner.scheduler.len(),
            timers: timers.len(),
            cancelled_timers: timers.cancelled(),
            tasks: inner.tasks.borrow().len(),
            sources: inner.registry.borrow().len(),
            watchers: inner.registry.borrow().watchers(),
            jobs: inner.executors.jobs(),
            in_flight: self.counters().in_flight,
        }
    }

    /// Which iteration this is.
    pub(crate) fn iteration(&self) -> u64 {
        self.inner.stats.iterations.get()
    }
}

/// The counters of one loop.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) iterations: Count,
    pub(super) reports: Count,
    pub(super) warnings: Count,
    pub(super) slow: Count,
    pub(super) unclosed: Count,
    pub(super) unretrieved: Count,
    pub(super) notes: Count,
    pub(super) stale: Count,
    pub(super) tasks: Count,
}

#[derive(Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    /// Counts one more, and gives how many that are.
    pub(super) fn add(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    fn get(&self) -> u64 {
        self.0.get()
    }
}
