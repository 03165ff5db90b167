//! Debug mode: what takes too long, and what was left behind.
//!
//! What it finds is counted in [`LoopStats`](super::LoopStats) and reported: as records of `tracing` if that feature is on, under
//! the targets in this file, else as lines on stderr.

use std::time::{Duration, Instant};

use super::EventLoop;
use super::exception::write_line;
use super::inbox::RunningHandle;

/// For debug mode, and for tests of users.
impl EventLoop {
    /// What is registered with the loop, in words: transports, servers, watches.
    #[cfg(feature = "macros")]
    pub(crate) fn sources(&self) -> Vec<String> {
        let sources = self.inner.registry.borrow().all();
        sources.iter().map(|source| source.describe()).collect()
    }

    /// Lets other threads see that `what` runs, until the guard ends.
    pub(super) fn watch(&self, what: String) -> Watched<'_> {
        let since = Instant::now();
        self.inbox().set_running(Some(RunningHandle { what, since }));
        Watched { event_loop: self }
    }

    /// Notes, in debug mode, what a connection does: a record that only `tracing` shows.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.get_debug() {
            self.inner.stats.notes.add();
            if cfg!(feature = "tracing") {
                #[cfg(feature = "tracing")]
                tracing::debug!(target: "ringloop::io", "{}", text());
            } else {
                drop(text);
            }
        }
    }

    /// Reports something that took longer than it may.
    pub(crate) fn warn_if_slow(&self, took: Duration, what: &str, text: impl FnOnce() -> String) {
        if took < self.slow_callback_duration() {
            return;
        }
        self.inner.stats.slow.add();
        self.inner.stats.warnings.add();
        let text = text();
        if cfg!(feature = "tracing") {
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "ringloop::slow", what, seconds = took.as_secs_f64(), "{text}");
        } else {
            write_line(&text);
        }
        let _ = what;
    }

    /// Reports that `what` was left open.
    pub(crate) fn warn_unclosed(&self, what: &str) {
        self.inner.stats.unclosed.add();
        self.inner.stats.warnings.add();
        if cfg!(feature = "tracing") {
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "ringloop::unclosed", what, "unclosed {what}");
        } else {
            write_line(&format!("unclosed {what}"));
        }
    }

    /// Reports that nobody took the result of `what`.
    pub(super) fn warn_unretrieved(&self, what: &str) {
        self.inner.stats.unretrieved.add();
        self.inner.stats.warnings.add();
        if cfg!(feature = "tracing") {
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "ringloop::unretrieved", what, "result was never retrieved: {what}");
        } else {
            write_line(&format!("Task result was never retrieved: {what}"));
        }
    }
}

/// Something runs that other threads can see.
pub(super) struct Watched<'a> {
    event_loop: &'a EventLoop,
}

impl Watched<'_> {
    /// What was watched has ended: reports it if it was slow.
    pub(super) fn end(self) {
        let Some(RunningHandle { what, since }) = self.event_loop.inbox().set_running(None) else {
            return;
        };
        let took = since.elapsed();
        let text = || format!("Executing {what} took {:.3} seconds", took.as_secs_f64());
        self.event_loop.warn_if_slow(took, &what, text);
    }
}
