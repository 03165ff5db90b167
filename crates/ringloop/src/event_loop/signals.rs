//! Signals as ordinary callbacks.
//!
//! The driver's handler only notes the signal and wakes the loop; the callback runs from the ready queue, in the loop's
//! thread, where it may do anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::Rc;

use ringloop_driver::Signals;

use super::door::{Kept, let_go_all};
use super::handle::Callback;
use super::once::describe_callback;
use super::ready::Entry;
use super::{EventLoop, Snapshot};
use crate::{Error, Result};

/// The signals that the loop has taken over. Dropping it restores what the program did with them before.
pub(super) struct SignalHandlers {
    signals: Signals,
    callbacks: BTreeMap<i32, Rc<dyn Callback>>,
}

impl SignalHandlers {
    /// Restores what all the signals did before, then drops the callbacks.
    pub(super) fn release(self) {
        drop(self.signals);
        let_go_all("a signal handler", self.callbacks.into_values());
    }
}

impl EventLoop {
    /// Runs `callback` as an ordinary callback whenever the signal arrives; a loop that sleeps wakes up for it. Replaces
    /// an earlier callback. See `sigaction(2)`.
    ///
    /// Callbacks run in the order in which the signals arrived, once for each. The kernel merges a standard signal that
    /// is pending already with the one that comes; and of more than 1,024 signals that one iteration finds, those that
    /// came last are merged by their number.
    ///
    /// Only one loop of the process has signals at a time.
    ///
    /// ```no_run
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.add_signal_handler(2 /* SIGINT */, |event_loop| event_loop.stop())?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a number that is no signal; [`Error::State`] on a closed loop, for a signal that
    /// cannot be caught, and if another loop has signals.
    #[track_caller]
    pub fn add_signal_handler(
        &self,
        signum: i32,
        callback: impl Fn(&Self) + 'static,
    ) -> Result<()> {
        let callback = Kept::new("a signal handler", callback);
        check_signal(signum)?;
        self.check_closed()?;
        let callback =
            Snapshot::around(Rc::new(SignalCallback { callback, location: Location::caller() }));
        let old = {
            let mut handlers = self.inner.signals.borrow_mut();
            if handlers.is_none() {
                let signals = Signals::claim(self.driver().waker()).map_err(claim_error)?;
                *handlers = Some(SignalHandlers { signals, callbacks: BTreeMap::new() });
            }
            let Some(handlers) = &mut *handlers else { return Err(Error::loop_closed()) };
            if !handlers.callbacks.contains_key(&signum) {
                handlers.signals.add(signum).map_err(|error| add_error(signum, error))?;
            }
            handlers.callbacks.insert(signum, callback)
        };
        drop(old); // Outside the borrow, as it is the user's.
        Ok(())
    }

    /// Restores what the signal did before. Gives `false` if it had no callback.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.add_signal_handler(10 /* SIGUSR1 */, |_| println!("SIGUSR1"))?;
    /// assert!(event_loop.remove_signal_handler(10));
    /// assert!(!event_loop.remove_signal_handler(10));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn remove_signal_handler(&self, signum: i32) -> bool {
        let mut signals = self.inner.signals.borrow_mut();
        let Some(handlers) = &mut *signals else { return false };
        let Some(callback) = handlers.callbacks.remove(&signum) else { return false };
        let restored = handlers.signals.remove(signum);
        let unclaimed = if handlers.callbacks.is_empty() { signals.take() } else { None };
        drop(signals);
        drop(unclaimed);
        drop(callback);
        if let Err(error) = restored {
            self.warn(&format!("sig {signum} cannot be restored: {error}"));
        }
        true
    }

    /// Whether a callback was set for the signal.
    pub(crate) fn has_signal_handler(&self, signum: i32) -> bool {
        let handlers = self.inner.signals.borrow();
        handlers.as_ref().is_some_and(|handlers| handlers.callbacks.contains_key(&signum))
    }

    /// Queues the callbacks of the signals that have arrived.
    pub(super) fn queue_signals(&self) {
        let signals = self.inner.signals.borrow();
        let Some(handlers) = &*signals else { return };
        while let Some(signum) = handlers.signals.next_arrived() {
            if let Some(callback) = handlers.callbacks.get(&signum) {
                self.scheduler().push(Entry::Callback(Rc::clone(callback)));
            }
        }
    }
}

fn check_signal(signum: i32) -> Result<()> {
    let reserved = matches!(signum, 32 | 33); // The C library keeps them to itself.
    if !(1..=64).contains(&signum) || reserved {
        return Err(Error::invalid_argument(format!("invalid signal number {signum}")));
    }
    if matches!(signum, libc::SIGKILL | libc::SIGSTOP) {
        return Err(cannot_be_caught(signum));
    }
    Ok(())
}

fn claim_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            Error::state("another event loop handles the signals of this process")
        }
        _ => Error::Io(error),
    }
}

fn add_error(signum: i32, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => cannot_be_caught(signum),
        _ => Error::Io(error),
    }
}

fn cannot_be_caught(signum: i32) -> Error {
    Error::state(format!("sig {signum} cannot be caught"))
}

/// A callback that runs each time.
struct SignalCallback<F> {
    callback: Kept<F>,
    location: &'static Location<'static>,
}

impl<F: Fn(&EventLoop)> Callback for SignalCallback<F> {
    fn run(&self, event_loop: &EventLoop) {
        (*self.callback)(event_loop);
    }

    /// No handle of it is given out.
    fn cancel(&self) {}

    fn cancelled(&self) -> bool {
        false
    }

    fn release(&self) {}

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe_callback::<F>(self.location, f)
    }
}
