//! Running a loop, and ending it.
//!
//! # One iteration
//!
//! 1. Sources that have asked for it are flushed: what they hold goes to the driver.
//! 2. Submit and wait, in one enter: not at all if something is ready or the loop is to stop, else until the next
//!    timer.
//! 3. What other threads and signals have sent is queued. (What other threads have sent is also queued before anything
//!    else is, so that all calls stand in one queue in the order in which they were made.)
//! 4. Completions go to their sources, which queue handles. No user code.
//! 5. Due timers are queued.
//! 6. The handles that are in the queue now run, in order; what they queue waits for the next iteration.
//!
//! So what was ready goes first, then I/O, then timers (LOOP-03, LOOP-04).

use std::io;
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringloop_driver::{Completion, Wait};

use super::context::{Snapshot, is_used};
use super::door::{catch, let_go, report_drops};
use super::exception::ExceptionContext;
use super::handle::{Callback, Description};
use super::ready::Entry;
use super::registry::Reaping;
use super::task::{Main, MainBody, NoMain};
use super::{EventLoop, Handle, Phase, running};
use crate::{Error, Result};

impl EventLoop {
    /// Runs iterations until [`stop`](Self::stop) is called.
    ///
    /// If `stop()` was called before, it runs exactly one iteration, which does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop, on one that runs, and while another loop runs on this thread;
    /// [`Error::Exit`] after [`request_exit`](Self::request_exit); [`Error::Io`] if the ring fails.
    pub fn run_forever(&self) -> Result<()> {
        self.run_loop(&mut NoMain)
    }

    /// Runs until `future` is done, and gives its result.
    ///
    /// The future is the body of a task, and may borrow. If the loop is stopped first, the future is dropped; to keep it,
    /// make a task of it and pass `&mut task`.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let text = String::from("borrowed");
    /// let len = event_loop.run_until_complete(async { text.len() })?;
    /// assert_eq!(len, 8);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run_forever`](Self::run_forever); [`Error::State`] if the loop was stopped first; [`Error::Cancelled`] and
    /// [`Error::Panic`] if the task ended so.
    #[track_caller]
    pub fn run_until_complete<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check_can_run()?;
        let body = pin!(Some(future));
        let mut main = Main::new(self, body);
        let ran = self.run_loop(&mut main);
        let result = main.take_result();
        if let Err(error) = ran {
            let_go("the result of a task", result);
            return Err(error);
        }
        result.unwrap_or_else(|| Err(Error::state("Event loop stopped before Future completed.")))
    }

    /// Ends the run after this iteration. The other callbacks of the iteration still run; what they schedule is kept for the
    /// next run.
    pub fn stop(&self) {
        self.inner.stopping.set(true);
    }

    /// Ends the run when the callback or step that calls this returns: [`run_forever`](Self::run_forever) and
    /// [`run_until_complete`](Self::run_until_complete) give [`Error::Exit`]. What is queued stays queued.
    ///
    /// This is what `SystemExit` does in asyncio.
    ///
    /// ```
    /// use ringloop::{Error, EventLoop};
    ///
    /// let event_loop = EventLoop::new()?;
    /// event_loop.call_soon(|event_loop| event_loop.request_exit(3))?;
    /// assert!(matches!(event_loop.run_forever(), Err(Error::Exit(3))));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn request_exit(&self, code: i32) {
        self.inner.exit.set(Some(code));
    }

    fn check_can_run(&self) -> Result<()> {
        self.check_closed()?;
        if self.is_running() {
            return Err(Error::state("This event loop is already running"));
        }
        if Self::current().is_some() {
            return Err(Error::state("Cannot run the event loop while another loop is running"));
        }
        Ok(())
    }

    fn run_loop(&self, main: &mut dyn MainBody) -> Result<()> {
        self.check_can_run()?;
        let _current = running::enter(self.downgrade(), Rc::clone(self.scheduler()))?;
        let ran = {
            let _running = RunningGuard::new(self);
            // What is set outside of the loop is of no callback that was made elsewhere.
            let _context = Snapshot::default().enter();
            self.run_iterations(main)
        };
        let flushed = self.flush();
        match self.inner.exit.take() {
            Some(code) => Err(Error::Exit(code)),
            None => ran.map_err(Error::from).and(flushed),
        }
    }

    fn run_iterations(&self, main: &mut dyn MainBody) -> io::Result<()> {
        loop {
            self.run_once(main)?;
            if self.inner.stopping.get() || self.inner.exit.get().is_some() {
                return Ok(());
            }
        }
    }

    fn run_once(&self, main: &mut dyn MainBody) -> io::Result<()> {
        self.inner.stats.iterations.add();
        self.flush_sources();
        self.wait()?;
        self.scheduler().receive();
        self.queue_signals();
        self.dispatch_completions();
        self.queue_due_timers();
        let ran = self.run_ready(main);
        report_drops();
        ran
    }

    /// Lets the sources that have asked for it hand over what they hold.
    pub(super) fn flush_sources(&self) {
        self.flush_list().for_each(|source| source.flush(self));
    }

    /// The one place where the thread may sleep.
    fn wait(&self) -> io::Result<()> {
        let wait = || {
            let until = self.wait_until();
            self.driver().wait(until)
        };
        let Some(around) = &self.inner.around_wait else { return wait() };
        let mut waited = None;
        let mut wait_once = || {
            waited.get_or_insert_with(wait);
        };
        if let Err(error) = catch(|| around(&mut wait_once)) {
            self.report_callback("EventLoopBuilder.around_wait()", &error, &"<around_wait()>");
        }
        waited.unwrap_or_else(wait)
    }

    /// The poll timeout of LOOP-05.
    fn wait_until(&self) -> Wait {
        let inner = &*self.inner;
        if inner.stopping.get() || inner.scheduler.len() > 0 {
            return Wait::Now;
        }
        let earliest = inner.timers.borrow_mut().earliest();
        match earliest {
            Some(when) => {
                let now = self.time();
                match inner.clock.wait_until(when.min(now + LONGEST_WAIT)) {
                    _ if when <= now => Wait::Now,
                    Some(when) => Wait::Until(when),
                    None => Wait::Forever,
                }
            }
            None => Wait::Forever,
        }
    }

    /// Gives completions to their sources, which only stage them and queue handles.
    fn dispatch_completions(&self) {
        let mut left = MOST_COMPLETIONS.max(self.inner.registry.borrow().len());
        while let Some(completion) = self.reap(&mut left) {
            let source = self.inner.registry.borrow().get(completion.token).cloned();
            match source {
                Some(source) => source.complete(completion, self),
                None => _ = self.inner.stats.stale.add(),
            }
        }
    }

    /// Gives completions to sources that need no more than the loop for them. Ends with the first one that does.
    fn reap(&self, left: &mut usize) -> Option<Completion> {
        let registry = self.inner.registry.borrow();
        self.driver().reap(&mut Reaping { registry: &registry, event_loop: self }, left)
    }

    fn queue_due_timers(&self) {
        let mut timers = self.inner.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let now = self.time();
        while let Some(timer) = timers.pop_due(now) {
            self.scheduler().push(Entry::Callback(timer));
        }
    }

    /// Runs the handles that are queued now. What is written meanwhile does not wait for too many of them.
    fn run_ready(&self, main: &mut dyn MainBody) -> io::Result<()> {
        let mut since_flush = 0;
        let mut last_flush = None;
        let ended = self.scheduler().run_each(|entry| {
            self.run_entry(entry, main);
            if self.inner.exit.get().is_some() {
                return ControlFlow::Break(Ok(()));
            }
            since_flush += 1;
            if since_flush % CLOCK_EVERY == 0
                && !self.flush_list().is_empty()
                && (since_flush >= FLUSH_EVERY || has_passed(FLUSH_AFTER, &mut last_flush))
            {
                since_flush = 0;
                last_flush = None;
                self.flush_sources();
                return match self.driver().submit() {
                    Ok(()) => ControlFlow::Continue(()),
                    error => ControlFlow::Break(error),
                };
            }
            ControlFlow::Continue(())
        });
        ended.break_value().unwrap_or(Ok(()))
    }

    #[inline(always)]
    fn run_entry(&self, entry: Entry, main: &mut dyn MainBody) {
        if self.get_debug() {
            return self.run_watched(entry, main);
        }
        self.run_unwatched(entry, main);
    }

    #[cold]
    fn run_watched(&self, entry: Entry, main: &mut dyn MainBody) {
        let watched = self.watch(self.describe(&entry));
        self.run_unwatched(entry, main);
        watched.end();
    }

    #[inline(always)]
    fn run_unwatched(&self, entry: Entry, main: &mut dyn MainBody) {
        match entry {
            Entry::Callback(callback) => {
                if let Err(error) = catch(|| callback.run(self)) {
                    self.report_handle(callback, &error);
                }
            }
            Entry::Remote(callback) => {
                if let Err(error) = catch(|| callback.run(self)) {
                    self.report_handle(Rc::from(callback as Box<dyn Callback>), &error);
                }
            }
            Entry::Task(key) => {
                let task = self.tasks().borrow().get(key);
                // A step catches what its task does.
                if let Err(error) = catch(|| task.map(|task| task.step(main))) {
                    self.report_callback("Task.step()", &error, &"<Handle Task.step()>");
                }
            }
            Entry::Source(source, event) => {
                let _context = is_used().then(|| source.context().enter());
                if let Err(error) = catch(|| Rc::clone(&source).run(event, self)) {
                    let text = source.describe();
                    self.report_callback(&text, &error, &text);
                }
            }
        }
        Snapshot::clear();
    }

    fn describe(&self, entry: &Entry) -> String {
        match entry {
            Entry::Callback(callback) => format!("<Handle {}>", Description(&**callback)),
            Entry::Remote(callback) => format!("<Handle {}>", Description(&**callback)),
            Entry::Task(key) => match self.tasks().borrow().get(*key) {
                Some(task) => format!("{task:?}"),
                None => String::from("<Task done>"),
            },
            Entry::Source(source, _) => source.describe(),
        }
    }

    fn report_handle(&self, callback: Rc<dyn Callback>, error: &Error) {
        let handle = Handle::new(Rc::clone(&callback));
        self.report_callback(Description(&*callback), error, &handle);
    }

    fn report_callback(
        &self,
        what: impl std::fmt::Display,
        error: &Error,
        handle: &dyn std::fmt::Debug,
    ) {
        let context = ExceptionContext::new(format!("Exception in callback {what}"));
        self.call_exception_handler(&context.error(error).handle(handle));
    }
}

/// The loop runs while this lives.
struct RunningGuard<'a> {
    event_loop: &'a EventLoop,
}

impl<'a> RunningGuard<'a> {
    fn new(event_loop: &'a EventLoop) -> Self {
        event_loop.inner.phase.set(Phase::Running);
        Self { event_loop }
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.event_loop.inner.phase.set(Phase::Idle);
        self.event_loop.inner.stopping.set(false);
    }
}

/// Whether so much time has passed since the first call with this `since`.
fn has_passed(time: Duration, since: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    match since {
        Some(since) => now - *since >= time,
        None => {
            *since = Some(now);
            false
        }
    }
}

/// The longest time that one wait may take (TIMER-08).
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// As many as the driver's queue holds by default: sources bound what they take in by themselves.
const MOST_COMPLETIONS: usize = 4096;

/// Staged bytes go out after this many handles in one iteration, or after this much time.
const FLUSH_EVERY: u32 = 64;
const FLUSH_AFTER: Duration = Duration::from_micros(100);

/// The clock is looked at once in so many handles.
const CLOCK_EVERY: u32 = 8;
