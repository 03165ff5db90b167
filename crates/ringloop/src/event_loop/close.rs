//! Closing a loop.
//!
//! What the user gave may run code when it is dropped, and that code may reach the loop: so nothing is borrowed while
//! something is let go, and all of it goes through the [`door`], one by one, so that a panic in there does not
//! keep the rest from being dropped.

use super::door::{let_go_all, report_drops};
use super::exception::ExceptionContext;
use super::ready::Entry;
use super::{EventLoop, Phase, door, running};
use crate::{Error, Result};

impl EventLoop {
    /// Closes the loop: drops queued callbacks, timers and tasks, takes the signal handlers back, cuts off what is
    /// open, and releases the ring. None of the callbacks runs. What was written to transports is sent before, as far as
    /// the kernel takes it. Does nothing on a closed loop.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a running loop.
    pub fn close(&self) -> Result<()> {
        match self.inner.phase.get() {
            Phase::Running => Err(Error::state("Cannot close a running event loop")),
            Phase::Closed => Ok(()),
            Phase::Idle => {
                self.close_now();
                Ok(())
            }
        }
    }

    pub(super) fn close_now(&self) {
        let inner = &*self.inner;
        let _reports = running::report_to(self.downgrade());
        // What transports had accepted is sent. If the ring fails at that, no callback is left that could get the error.
        let _ = self.flush();
        inner.phase.set(Phase::Closed);
        inner.to_flush.close();
        inner.inbox.close();
        if let Some(signals) = inner.signals.take() {
            signals.release();
        }
        for task in self.all_tasks() {
            self.call_exception_handler(
                &ExceptionContext::new("Task was destroyed but it is pending!").task(&task),
            );
            task.destroy();
        }
        door::call_all(&"the close of the event loop", inner.scheduler.take(), release);
        let timers = inner.timers.borrow_mut().take();
        door::call_all(&"the close of the event loop", timers, |timer| timer.release());
        let sources = inner.registry.borrow_mut().take();
        if self.get_debug() {
            for source in sources.iter().filter(|source| source.is_told_unclosed()) {
                self.warn_unclosed(&source.describe());
            }
        }
        door::call_all(&"the close of the event loop", sources, |source| source.on_loop_close());
        let_go_all("a source", inner.to_flush.take());
        inner.executors.close();
        let driver = inner.driver.take();
        drop(driver);
        report_drops();
        inner.inbox.clear();
        let extensions = inner.extensions.take();
        let_go_all("what a layer keeps with the loop", extensions.into_values());
        self.reset_exception_handler();
    }
}

fn release(entry: Entry) {
    if let Entry::Callback(callback) = entry {
        callback.release();
    }
}
