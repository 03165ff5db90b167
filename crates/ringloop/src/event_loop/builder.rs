//! How a loop is made.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringloop_driver::{Driver, DriverConfig, DriverInfo};

use super::clock::{Clock, ManualClock};
use super::door::Kept;
use super::executor::Executors;
use super::inbox::Inbox;
use super::ready::Scheduler;
use super::{EventLoop, LoopInner, Phase, ThreadPool, running};
use crate::Result;

/// Makes an [`EventLoop`] with options.
///
/// ```
/// let event_loop = ringloop::EventLoop::builder().debug(true).build()?;
/// assert!(event_loop.get_debug());
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// With other options:
///
/// ```
/// use std::time::Duration;
/// use ringloop::{EventLoop, ManualClock, ThreadPool};
///
/// let clock = ManualClock::new();
/// let event_loop = EventLoop::builder()
///     .slow_callback_duration(Duration::from_millis(20))
///     .clock(clock.clone())
///     .default_executor(ThreadPool::new(2))
///     .build()?;
/// assert_eq!(event_loop.time(), clock.now());
/// # Ok::<(), ringloop::Error>(())
/// ```
#[must_use]
pub struct EventLoopBuilder {
    driver: DriverConfig,
    debug: bool,
    slow_callback: Duration,
    clock: Clock,
    around_wait: Option<AroundWait>,
    default_executor: Option<ThreadPool>,
    extensions: HashMap<TypeId, Rc<dyn Any>>,
}

impl EventLoopBuilder {
    pub(super) fn new() -> Self {
        Self {
            driver: DriverConfig::default(),
            debug: std::env::var_os(DEBUG).is_some_and(|value| !value.is_empty()),
            slow_callback: SLOW_CALLBACK,
            clock: Clock::System,
            around_wait: None,
            default_executor: None,
            extensions: HashMap::new(),
        }
    }

    /// Which driver does the work, and how it is set up. If nothing is said, it is io_uring where that can be had, and else
    /// epoll; then one line on stderr says why, once a process, and [`driver_info`](EventLoop::driver_info) says it, too.
    ///
    /// ```
    /// use ringloop::{DriverChoice, DriverConfig, EventLoop};
    ///
    /// let config = DriverConfig { driver: DriverChoice::Epoll, ..DriverConfig::default() };
    /// let event_loop = EventLoop::builder().driver(config).build()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn driver(mut self, config: DriverConfig) -> Self {
        self.driver = config;
        self
    }

    /// Turns debug mode on or off. Without this call it is on if the environment variable `RINGLOOP_DEBUG` is not empty.
    pub fn debug(mut self, debug: bool) -> Self {
        self.debug = debug;
        self
    }

    /// Sets the duration from which on debug mode reports a callback or a task's step as slow (0.1 s by default).
    pub fn slow_callback_duration(mut self, duration: Duration) -> Self {
        self.slow_callback = duration;
        self
    }

    /// The clock that the loop goes by, instead of the system's: for tests.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Clock::Manual(clock);
        self
    }

    /// Has each wait of the loop made by `around`, which calls what it is given: that submits, and waits. A program that holds
    /// a lock while callbacks run, such as the interpreter's of another language, gives it up around that call.
    ///
    /// `around` is called once an iteration, also if the loop does not have to wait. What it is given waits once, however
    /// often it is called; if `around` does not call it or panics, the loop waits afterwards. A panic is reported.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::sync::{Mutex, MutexGuard};
    /// use ringloop::EventLoop;
    ///
    /// static LOCK: Mutex<()> = Mutex::new(());
    ///
    /// let lock = || LOCK.lock().unwrap();
    /// let held: RefCell<Option<MutexGuard<'_, ()>>> = RefCell::new(Some(lock()));
    /// let event_loop = EventLoop::builder()
    ///     .around_wait(move |wait| {
    ///         drop(held.take());
    ///         wait(); // Other threads may have the lock meanwhile.
    ///         held.replace(Some(lock()));
    ///     })
    ///     .build()?;
    /// event_loop.call_soon(|event_loop| {
    ///     assert!(LOCK.try_lock().is_err());
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn around_wait(mut self, around: impl Fn(&mut dyn FnMut()) + 'static) -> Self {
        self.around_wait = Some(Box::new(around));
        self
    }

    /// Sets the pool on whose threads jobs run. Without this call a pool is made when the first job comes.
    pub fn default_executor(mut self, pool: ThreadPool) -> Self {
        self.default_executor = Some(pool);
        self
    }

    /// What a layer above keeps with the loop.
    pub(crate) fn extension<T: 'static>(mut self, extension: Rc<T>) -> Self {
        self.extensions.insert(TypeId::of::<T>(), extension);
        self
    }

    /// Makes the loop, for the thread that calls this.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`](crate::Error::Setup) if there is neither a ring nor an epoll instance, or not the one that was asked for.
    pub fn build(self) -> Result<EventLoop> {
        let driver = Driver::new(&self.driver)?;
        tell_what_was_refused(driver.info());
        let loop_id = NEXT_LOOP.fetch_add(1, Ordering::Relaxed);
        let inbox = Arc::new(Inbox::new(loop_id, driver.waker()));
        let scheduler = Rc::new(Scheduler::new(loop_id, Arc::clone(&inbox)));
        let inner = LoopInner {
            phase: Cell::new(Phase::Idle),
            stopping: Cell::new(false),
            exit: Cell::new(None),
            debug: Cell::new(self.debug),
            slow_callback: Cell::new(self.slow_callback),
            clock: self.clock,
            around_wait: self.around_wait.map(|around| Kept::new("around_wait()", around)),
            scheduler,
            to_flush: Rc::default(),
            timers: RefCell::default(),
            tasks: RefCell::default(),
            registry: RefCell::default(),
            inbox,
            driver: RefCell::new(Some(driver)),
            signals: RefCell::default(),
            executors: Executors::new(self.default_executor),
            exception_handler: RefCell::default(),
            extensions: RefCell::new(self.extensions),
            stats: Default::default(),
        };
        let event_loop = EventLoop { inner: Rc::new(inner) };
        running::add_loop(&event_loop);
        Ok(event_loop)
    }
}

impl std::fmt::Debug for EventLoopBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoopBuilder")
            .field("debug", &self.debug)
            .field("slow_callback", &self.slow_callback)
            .finish_non_exhaustive()
    }
}

/// What makes a wait by calling what it is given.
pub(super) type AroundWait = Box<dyn Fn(&mut dyn FnMut())>;

/// Once a process: who deploys it should know, and need not read it for each loop.
fn tell_what_was_refused(info: &DriverInfo) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let Some(refused) = &info.refused else { return };
    if !TOLD.swap(true, Ordering::Relaxed) {
        // Nobody may listen, which is no reason to fail.
        let _ = writeln!(io::stderr(), "ringloop: on epoll, as there is no io_uring: {refused}");
    }
}

static NEXT_LOOP: AtomicU64 = AtomicU64::new(1);

/// Not empty: debug mode.
const DEBUG: &str = "RINGLOOP_DEBUG";

const SLOW_CALLBACK: Duration = Duration::from_millis(100);
