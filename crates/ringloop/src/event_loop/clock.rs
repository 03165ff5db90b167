//! What time it is for a loop: `time()`, timers and `sleep` read it here.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A clock that stands still until it is put forward: for tests of what takes time, which then take none.
///
/// A clone is the same clock. The loop's [`time`](crate::EventLoop::time), its timers, [`sleep`](crate::sleep) and
/// [`timeout`](crate::timeout) go by it; the kernel, other threads and their deadlines do not.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{EventLoop, ManualClock, sleep, spawn, yield_now};
///
/// let clock = ManualClock::new();
/// EventLoop::builder().clock(clock.clone()).run(async {
///     let task = spawn(sleep(Duration::from_secs(3600)));
///     yield_now().await; // The task begins to sleep.
///     clock.advance(Duration::from_secs(3599));
///     yield_now().await;
///     assert!(!task.done());
///     clock.advance(Duration::from_secs(1));
///     task.await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct ManualClock {
    started: Instant,
    passed: Rc<Cell<Duration>>,
}

impl ManualClock {
    /// A clock that shows the time of its making.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), passed: Rc::default() }
    }

    /// Puts the clock forward. Timers that are due then run in the loop's next iteration, in the order of their
    /// deadlines.
    pub fn advance(&self, by: Duration) {
        let passed = self.passed.get().saturating_add(by).min(super::timers::FAR);
        self.passed.set(passed);
    }

    /// What the clock shows.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let clock = ringloop::ManualClock::new();
    /// let start = clock.now();
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(clock.now() - start, Duration::from_secs(1));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn now(&self) -> Instant {
        self.started + self.passed.get()
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ManualClock {:?} after its start>", self.passed.get())
    }
}

/// The clock of a loop.
pub(super) enum Clock {
    System,
    Manual(ManualClock),
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Until when the kernel may wait for a deadline that is to come: a clock that stands still does not bring it.
    pub(super) fn wait_until(&self, when: Instant) -> Option<Instant> {
        matches!(self, Self::System).then_some(when)
    }
}
