//! Closing a loop.
//!
//! What the user gave may run code when it is dropped, and that code may reach the loop: so nothing is borrowed while
//! something is let go, and a panic in there does not keep the rest from being dropped.

use super::exception::ExceptionContext;
use super::ready::Entry;
use super::{EventLoop, Phase, catch};
use crate::{Error, Result};

impl EventLoop {
    /// Closes the loop: drops queued callbacks, timers and tasks, takes the signal handlers back, cuts off what is
    /// open, and releases the ring (spec LOOP-16). Does nothing on a closed loop.
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
        // What transports had accepted is sent. If the ring fails at that, there is nobody left to tell.
        let _ = self.flush();
        inner.phase.set(Phase::Closed);
        inner.inbox.close();
        drop(inner.signals.take());
        for task in self.all_tasks() {
            self.call_exception_handler(
                &ExceptionContext::new("Task was destroyed but it is pending!").task(&task),
            );
            task.destroy();
        }
        for entry in inner.scheduler.take() {
            self.let_go(|| match entry {
                Entry::Callback(callback) => callback.release(),
                entry => drop(entry),
            });
        }
        let timers = inner.timers.borrow_mut().take();
        for timer in timers {
            self.let_go(|| timer.release());
        }
        let sources = inner.registry.borrow_mut().take();
        for source in sources {
            self.let_go(|| source.on_loop_close());
        }
        self.let_go(|| drop(inner.staged.take()));
        self.let_go(|| inner.executors.close());
        let driver = inner.driver.take();
        drop(driver);
        self.let_go(|| inner.inbox.clear());
        let extensions = inner.extensions.take();
        self.let_go(|| drop(extensions));
        let handler = inner.exception_handler.take();
        self.let_go(|| drop(handler));
    }

    fn let_go(&self, drop_it: impl FnOnce()) {
        if let Err(error) = catch(drop_it) {
            let context = ExceptionContext::new("Exception in a drop while the event loop closes");
            self.call_exception_handler(&context.error(&error));
        }
    }
}
