//! When code runs: the loop, its ready queue and timers, tasks and futures, and the ways in from outside.
//!
//! # Life of a loop
//!
//! ```text
//! new -> { run -> iteration* -> stop }* -> close
//! ```
//!
//! [`EventLoop`] owns everything; what is inside holds a weak [`LoopRef`]. When the last `EventLoop` goes, the loop
//! closes: so no cycle goes through it.
//!
//! # Re-entrancy
//!
//! User code runs from four places: a handle, a task's step, a source's queued event, and the drop of something that
//! the user gave. In each nothing of the loop is borrowed, so any method may be called from there.

mod alarm;
mod builder;
mod clock;
mod close;
mod context;
mod debug;
pub(crate) mod door;
mod exception;
mod executor;
mod flush_list;
mod future;
mod handle;
mod inbox;
mod lazy_heap;
mod once;
mod pool;
mod proxy;
mod ready;
mod registry;
mod run;
mod running;
mod signals;
mod stats;
mod task;
mod timers;
mod waiters;
mod waker_slot;

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringloop_driver::{Counters, Driver, DriverInfo, Token};

pub use builder::EventLoopBuilder;
pub use clock::ManualClock;
pub use context::{ContextValues, ContextVar, copy_context};
pub use exception::{ExceptionContext, ExceptionHandler, Subject};
pub use executor::Job;
pub use future::{DoneCallback, LoopFuture};
pub use handle::Handle;
pub use inbox::RunningHandle;
pub use pool::{Executor, ThreadPool};
pub use proxy::LoopProxy;
pub use stats::LoopStats;
pub use task::{Cancelled, RemoteTask, Task, TaskRef, catch_cancel, current_task};
pub use timers::TimerHandle;

pub(crate) use alarm::Alarm;
pub(crate) use context::Snapshot;
pub(crate) use flush_list::FlushList;
pub(crate) use handle::Callback;
pub(crate) use ready::Scheduler;
pub(crate) use registry::{NO_TOKEN, Source};
pub(crate) use task::{Asked, Asking, Awaited, Deadline, EndWatch, WatchesEnd, current};
pub(crate) use timers::deadline;
pub(crate) use waiters::{Place, Waiters};
pub(crate) use waker_slot::WakerSlot;

use builder::AroundWait;
use clock::Clock;
use door::Kept;
use executor::Executors;
use inbox::Inbox;
use once::Once;
use ready::Entry;
use registry::Registry;
use signals::SignalHandlers;
use stats::Stats;
use task::TaskTable;
use timers::{Timer, Timers};

use crate::{Error, Result};

/// An event loop, bound to the thread that made it. A clone is the same loop; dropping the last one closes it.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// event_loop.call_soon(|event_loop| {
///     println!("hello");
///     event_loop.stop();
/// })?;
/// event_loop.run_forever()?;
/// event_loop.close()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// Other threads reach it through [`proxy`](Self::proxy):
///
/// ```compile_fail,E0277
/// let event_loop = ringloop::EventLoop::new().unwrap();
/// std::thread::spawn(move || event_loop.call_soon(|_| ()));
/// ```
pub struct EventLoop {
    inner: Rc<LoopInner>,
}

/// What tasks, transports and protocols keep of their loop: it does not keep the loop open.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// let weak = event_loop.downgrade();
/// assert!(weak.upgrade().is_some_and(|same| same == event_loop));
/// drop(event_loop); // The last one closes the loop.
/// assert!(weak.upgrade().is_none());
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct LoopRef {
    inner: Weak<LoopInner>,
}

struct LoopInner {
    phase: Cell<Phase>,
    /// `stop()` was called: this iteration is the last.
    stopping: Cell<bool>,
    exit: Cell<Option<i32>>,
    debug: Cell<bool>,
    slow_callback: Cell<Duration>,
    clock: Clock,
    around_wait: Option<Kept<AroundWait>>,
    scheduler: Rc<Scheduler>,
    to_flush: Rc<FlushList>,
    timers: RefCell<Timers>,
    tasks: RefCell<TaskTable>,
    registry: RefCell<Registry>,
    /// `None` once the loop is closed.
    driver: RefCell<Option<Driver>>,
    inbox: Arc<Inbox>,
    signals: RefCell<Option<SignalHandlers>>,
    executors: Executors,
    exception_handler: RefCell<Option<ExceptionHandler>>,
    extensions: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    stats: Stats,
}

impl Drop for LoopInner {
    /// What was given to the loop after its close.
    fn drop(&mut self) {
        door::let_go("an exception handler", self.exception_handler.take());
        door::let_go_all("what a layer keeps with the loop", self.extensions.take().into_values());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Closed,
}

/// Scheduling.
impl EventLoop {
    /// Makes a loop for this thread, with everything as it comes.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] if the kernel refuses the ring; it says why and what to do.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Makes a loop with options.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::builder().debug(true).build()?;
    /// assert!(event_loop.get_debug());
    /// event_loop.set_debug(false);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn builder() -> EventLoopBuilder {
        EventLoopBuilder::new()
    }

    /// The loop that is running on this thread; `None` if none runs.
    ///
    /// ```
    /// use ringloop::EventLoop;
    ///
    /// assert!(EventLoop::current().is_none());
    /// let event_loop = EventLoop::new()?;
    /// event_loop.call_soon(|event_loop| {
    ///     assert_eq!(EventLoop::current().as_ref(), Some(event_loop));
    ///     assert!(event_loop.is_running());
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        running::event_loop()
    }

    /// The loop that is running on this thread: asyncio's `get_running_loop()`.
    ///
    /// ```
    /// use ringloop::{Error, EventLoop};
    ///
    /// assert!(matches!(EventLoop::running(), Err(Error::State(_))));
    /// assert!(ringloop::run(async { EventLoop::running().is_ok() })?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::State`] if none runs.
    pub fn running() -> Result<Self> {
        Self::current().ok_or_else(|| Error::state("no running event loop"))
    }

    /// Runs `callback` once, in the next iteration, after everything that is queued already. It never runs inside this
    /// call. If it panics, the exception handler gets a report, and the loop goes on.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.call_soon(|event_loop| event_loop.stop())?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop.
    #[track_caller]
    pub fn call_soon(&self, callback: impl FnOnce(&Self) + 'static) -> Result<Handle> {
        let once = Once::new(callback, Location::caller());
        self.check_closed()?;
        let callback = Snapshot::around(Rc::new(once));
        self.inner.scheduler.push(Entry::Callback(Rc::clone(&callback)));
        Ok(Handle::new(callback))
    }

    /// Runs `callback` once, when `delay` has passed, and never before. With a delay of zero it runs in the next iteration,
    /// after the callbacks of I/O.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.call_later(Duration::from_millis(1), |event_loop| event_loop.stop())?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop.
    #[track_caller]
    pub fn call_later(
        &self,
        delay: Duration,
        callback: impl FnOnce(&Self) + 'static,
    ) -> Result<TimerHandle> {
        self.call_at(deadline(self.time(), delay), callback)
    }

    /// Runs `callback` once, at `when`, and never before; in the next iteration if that time has passed. Callbacks of the
    /// same time run in the order in which they were scheduled.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let when = event_loop.time() + Duration::from_millis(1);
    /// let timer = event_loop.call_at(when, |event_loop| event_loop.stop())?;
    /// assert_eq!(timer.when(), when);
    /// event_loop.run_forever()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[track_caller]
    pub fn call_at(
        &self,
        when: Instant,
        callback: impl FnOnce(&Self) + 'static,
    ) -> Result<TimerHandle> {
        let once = Once::new(callback, Location::caller());
        self.check_closed()?;
        let mut timers = self.inner.timers.borrow_mut();
        let timer = Snapshot::around(Rc::new(Timer::new(once, timers.place())));
        timers.insert(when, Rc::clone(&timer));
        Ok(TimerHandle::new(timer, when))
    }

    /// The time now, by the clock that all timers go by. It is monotonic.
    #[must_use]
    pub fn time(&self) -> Instant {
        self.inner.clock.now()
    }

    /// Makes a future that belongs to this loop and has no result yet: see [`LoopFuture`].
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let future = event_loop.create_future();
    /// future.set_result("answer")?;
    /// assert_eq!(event_loop.run_until_complete(future)??, "answer");
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn create_future<T: 'static>(&self) -> LoopFuture<T> {
        LoopFuture::new(self)
    }

    /// Runs `future` as a task. Its first step is taken in the next iteration, never inside this call.
    ///
    /// On a closed loop the future is dropped, and awaiting the task gives [`Error::State`].
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let task = event_loop.create_task(async { 6 * 7 }); // `spawn()` is the same.
    /// assert_eq!(event_loop.all_tasks(), [task.task_ref()]);
    /// assert_eq!(event_loop.run_until_complete(task)??, 42);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[track_caller]
    pub fn create_task<F: Future + 'static>(&self, future: F) -> Task<F::Output> {
        match self.check_closed() {
            Ok(()) => Task::spawn(self, future),
            Err(error) => Task::refused(error, future),
        }
    }

    /// [`create_task`](Self::create_task), under the name that it has elsewhere in Rust.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let task = event_loop.spawn(async { 6 * 7 });
    /// assert_eq!(event_loop.run_until_complete(task)??, 42);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Task<F::Output> {
        self.create_task(future)
    }

    /// The tasks that are not done.
    #[must_use]
    pub fn all_tasks(&self) -> Vec<TaskRef> {
        self.inner.tasks.borrow().all()
    }
}

/// Access.
impl EventLoop {
    /// The loop for those inside it: keep this in tasks, protocols and callbacks that the loop owns.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let weak = event_loop.downgrade();
    /// event_loop.call_soon(move |_| assert!(weak.upgrade().is_some()))?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn downgrade(&self) -> LoopRef {
        LoopRef { inner: Rc::downgrade(&self.inner) }
    }

    /// The loop for other threads.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let proxy = event_loop.proxy();
    /// assert!(!proxy.is_closed() && !event_loop.is_closed());
    /// event_loop.close()?;
    /// assert!(proxy.is_closed() && event_loop.is_closed());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn proxy(&self) -> LoopProxy {
        LoopProxy::new(Arc::clone(&self.inner.inbox))
    }

    /// Whether the loop is in [`run_forever`](Self::run_forever) or [`run_until_complete`](Self::run_until_complete).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.inner.phase.get() == Phase::Running
    }

    /// Whether the loop was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.phase.get() == Phase::Closed
    }

    /// Whether the loop is in debug mode: it reports slow callbacks and refuses blocking sockets.
    #[must_use]
    pub fn get_debug(&self) -> bool {
        self.inner.debug.get()
    }

    /// Turns debug mode on or off, also while the loop runs.
    pub fn set_debug(&self, debug: bool) {
        self.inner.debug.set(debug);
    }

    /// The duration from which on debug mode reports a callback or a task's step as slow.
    #[must_use]
    pub fn slow_callback_duration(&self) -> Duration {
        self.inner.slow_callback.get()
    }

    /// Sets the duration from which on debug mode reports a callback or a task's step as slow.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// assert_eq!(event_loop.slow_callback_duration(), Duration::from_millis(100));
    /// event_loop.set_slow_callback_duration(Duration::from_millis(20));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.inner.slow_callback.set(duration);
    }

    /// Which features of the ring are in use, and why others are not. `None` on a closed loop.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// println!("{}", event_loop.driver_info().expect("the loop is open"));
    /// assert_eq!(event_loop.counters().in_flight, 0);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn driver_info(&self) -> Option<DriverInfo> {
        self.inner.driver.borrow().as_ref().map(|driver| driver.info().clone())
    }

    /// What the driver has counted. Zeros on a closed loop.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.driver.borrow().as_ref().map(Driver::counters).unwrap_or_default()
    }

    /// Hands everything that was written to transports to the kernel now.
    ///
    /// The loop does so by itself in each iteration, and when it stops or closes. Before `process::exit` it is needed.
    ///
    /// # Errors
    ///
    /// What the kernel says to a submission; [`Error::State`] on a closed loop.
    ///
    /// ```
    /// use ringloop::{EventLoop, Transport};
    ///
    /// fn last_words(event_loop: &EventLoop, transport: &Transport) -> ringloop::Result<()> {
    ///     transport.write("bye\n")?;
    ///     event_loop.flush()?;
    ///     std::process::exit(0);
    /// }
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.flush_sources();
        match self.try_driver() {
            Some(mut driver) => Ok(driver.submit()?),
            None => Err(Error::loop_closed()),
        }
    }
}

/// For the layers above.
impl EventLoop {
    /// The driver, for a moment: never across user code.
    ///
    /// # Panics
    ///
    /// On a closed loop: see [`try_driver`](Self::try_driver).
    #[inline(always)]
    pub(crate) fn driver(&self) -> RefMut<'_, Driver> {
        RefMut::map(self.inner.driver.borrow_mut(), |driver| {
            driver.as_mut().expect("a source is told before the driver goes")
        })
    }

    /// The driver, unless the loop is closed.
    pub(crate) fn try_driver(&self) -> Option<RefMut<'_, Driver>> {
        RefMut::filter_map(self.inner.driver.borrow_mut(), Option::as_mut).ok()
    }

    pub(crate) fn check_closed(&self) -> Result<()> {
        if self.is_closed() { Err(Error::loop_closed()) } else { Ok(()) }
    }

    /// Keeps `source` alive and gives it the completions of ops with this token, until
    /// [`unregister`](Self::unregister). A closed loop takes nobody.
    pub(crate) fn register(&self, source: Rc<dyn Source>) -> Token {
        if self.is_closed() {
            return NO_TOKEN;
        }
        self.inner.registry.borrow_mut().insert(source)
    }

    /// Lets go of a source; it has no op in flight any more.
    pub(crate) fn unregister(&self, token: Token) {
        let source = self.inner.registry.borrow_mut().remove(token);
        drop(source); // Outside the borrow: with it may go a protocol.
    }

    /// The open transport that uses the descriptor (READY-11).
    pub(crate) fn source_using(&self, fd: RawFd) -> Option<Rc<dyn Source>> {
        self.inner.registry.borrow().by_fd(fd).cloned()
    }

    /// Appends the source's handle to the ready queue.
    #[inline(always)]
    pub(crate) fn queue_source(&self, source: Rc<dyn Source>, event: u8) {
        if !self.is_closed() {
            self.inner.scheduler.push(Entry::Source(source, event));
        }
    }

    /// Has `source` flushed before the wait, or earlier if callbacks take long.
    #[inline(always)]
    pub(crate) fn list_for_flush(&self, source: Rc<dyn Source>) {
        self.inner.to_flush.push(source);
    }

    pub(crate) fn flush_list(&self) -> &Rc<FlushList> {
        &self.inner.to_flush
    }

    /// What a layer above keeps with the loop.
    pub(crate) fn extension<T: 'static>(&self) -> Option<Rc<T>> {
        let found = self.inner.extensions.borrow().get(&TypeId::of::<T>()).cloned();
        found.and_then(|extension| extension.downcast().ok())
    }

    pub(crate) fn set_extension<T: 'static>(&self, extension: Rc<T>) {
        let old = self.inner.extensions.borrow_mut().insert(TypeId::of::<T>(), extension);
        drop(old);
    }
}

/// For this layer.
impl EventLoop {
    pub(crate) fn scheduler(&self) -> &Rc<Scheduler> {
        &self.inner.scheduler
    }

    fn tasks(&self) -> &RefCell<TaskTable> {
        &self.inner.tasks
    }

    fn inbox(&self) -> &Arc<Inbox> {
        &self.inner.inbox
    }

    fn next_task_number(&self) -> u64 {
        self.inner.stats.tasks.add()
    }
}

impl Clone for EventLoop {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if Rc::strong_count(&self.inner) == 1 && self.inner.phase.get() == Phase::Idle {
            self.close_now();
        }
    }
}

impl PartialEq for EventLoop {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for EventLoop {}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<EventLoop running={} closed={} debug={} {:?}>",
            self.is_running(),
            self.is_closed(),
            self.get_debug(),
            self.stats()
        )
    }
}

impl LoopRef {
    /// Whether it is a reference to `event_loop`.
    pub(crate) fn is_to(&self, event_loop: &EventLoop) -> bool {
        std::ptr::eq(self.inner.as_ptr(), Rc::as_ptr(&event_loop.inner))
    }

    /// Of no loop.
    fn gone() -> Self {
        Self { inner: Weak::new() }
    }

    /// The loop; `None` once it is gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<EventLoop> {
        self.inner.upgrade().map(|inner| EventLoop { inner })
    }
}

impl fmt::Debug for LoopRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(event_loop) => event_loop.fmt(f),
            None => f.write_str("<EventLoop gone>"),
        }
    }
}
