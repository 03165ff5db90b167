//! A program on a loop: `run()`, and several on one: `Runner`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use libc::SIGINT;

use crate::event_loop::door::let_go;
use crate::{Error, EventLoop, EventLoopBuilder, ExceptionContext, Result, TaskRef, current_task};

/// Runs `main` in a new loop: asyncio's `run()`.
///
/// When `main` is done, the tasks that are left are cancelled and waited for, the default executor is shut down (for
/// 300 s at most), and the loop is closed.
///
/// ```
/// let answer = ringloop::run(async { 6 * 7 })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Setup`] if there can be no loop; [`Error::State`] inside of a running loop; otherwise how `main` ended if
/// it did not return: [`Error::Panic`], [`Error::Cancelled`], [`Error::Exit`].
pub fn run<F: Future>(main: F) -> Result<F::Output> {
    EventLoop::builder().run(main)
}

impl EventLoopBuilder {
    /// Makes a loop and runs `main` in it: see [`run`].
    ///
    /// ```
    /// use ringloop::EventLoop;
    ///
    /// let main = async { EventLoop::current().is_some_and(|event_loop| event_loop.get_debug()) };
    /// assert!(EventLoop::builder().debug(true).run(main)?);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn run<F: Future>(self, main: F) -> Result<F::Output> {
        if EventLoop::current().is_some() {
            return Err(Error::state("asyncio.run() cannot be called from a running event loop"));
        }
        let event_loop = self.build()?;
        let result = event_loop.run_until_complete(main);
        let ended = event_loop.end();
        let value = result?;
        match ended {
            Ok(()) => Ok(value),
            Err(error) => {
                let_go("the result of a task", value);
                Err(error)
            }
        }
    }

    /// Makes a [`Runner`] with these options; its loop is made here.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] if there can be no loop.
    ///
    /// ```
    /// let runner = ringloop::EventLoop::builder().debug(true).runner()?;
    /// assert!(runner.event_loop().get_debug());
    /// runner.ignore_ctrl_c();
    /// runner.close()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn runner(self) -> Result<Runner> {
        Ok(Runner { event_loop: self.build()?, on_ctrl_c: Cell::new(true) })
    }
}

/// Several runs on one loop, and Ctrl-C: asyncio's `Runner`.
///
/// ```
/// let runner = ringloop::Runner::new()?;
/// let one = runner.run(async { 1 })?;
/// let two = runner.run(async { one + 1 })?;
/// assert_eq!(two, 2);
/// runner.close()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// Dropping it closes it; what goes wrong then is reported nowhere.
#[derive(Debug)]
pub struct Runner {
    event_loop: EventLoop,
    on_ctrl_c: Cell<bool>,
}

impl Runner {
    /// Makes a loop with everything as it comes.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] if there can be no loop.
    pub fn new() -> Result<Self> {
        EventLoop::builder().runner()
    }

    /// Runs `main` as a task; other tasks stay, and go on in the next run.
    ///
    /// Ctrl-C (SIGINT) asks `main` to end, and if it ends cancelled this gives [`Error::Interrupted`]. A second one ends the
    /// process, as it does without a loop. Nothing of this holds while another loop of the process has signals, where a
    /// handler of the loop's own is set, and after [`ignore_ctrl_c`](Self::ignore_ctrl_c).
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed runner and inside of a running loop; otherwise how `main` ended if it did not return.
    #[track_caller]
    pub fn run<F: Future>(&self, main: F) -> Result<F::Output> {
        if self.event_loop.is_closed() {
            return Err(Error::state("Runner is closed"));
        }
        if EventLoop::current().is_some() {
            return Err(Error::state("Runner.run() cannot be called from a running event loop"));
        }
        let ctrl_c = CtrlC::watch(&self.event_loop, self.on_ctrl_c.get());
        let result = self.event_loop.run_until_complete(async {
            ctrl_c.main.replace(current_task());
            main.await
        });
        match result {
            Err(Error::Cancelled) if ctrl_c.interrupted.get() => Err(Error::Interrupted),
            result => result,
        }
    }

    /// Leaves Ctrl-C alone from the next run on.
    ///
    /// ```
    /// let runner = ringloop::Runner::new()?;
    /// runner.ignore_ctrl_c(); // SIGINT ends the process, as it does without a loop.
    /// let task = runner.event_loop().spawn(async { 42 });
    /// assert_eq!(runner.run(task)??, 42);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn ignore_ctrl_c(&self) {
        self.on_ctrl_c.set(false);
    }

    /// The loop: to make tasks before a run, for example.
    #[must_use]
    pub fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }

    /// Cancels all tasks and waits for them, shuts the default executor down, and closes the loop. Does nothing on a closed
    /// runner.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a running loop.
    pub fn close(&self) -> Result<()> {
        if self.event_loop.is_closed() { Ok(()) } else { self.event_loop.end() }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The error is dropped: nobody is there to get it. A loop that is running cannot be closed.
        let _ = self.close();
    }
}

/// What a run does about Ctrl-C.
struct CtrlC<'a> {
    event_loop: &'a EventLoop,
    main: Rc<Cell<Option<TaskRef>>>,
    interrupted: Rc<Cell<bool>>,
    watches: bool,
}

impl<'a> CtrlC<'a> {
    fn watch(event_loop: &'a EventLoop, wanted: bool) -> Self {
        let (main, interrupted) =
            (Rc::<Cell<Option<TaskRef>>>::default(), Rc::<Cell<_>>::default());
        let (to_cancel, came) = (Rc::clone(&main), Rc::clone(&interrupted));
        let handler = move |event_loop: &EventLoop| {
            event_loop.remove_signal_handler(SIGINT);
            came.set(to_cancel.take().is_some_and(|main: TaskRef| main.cancel()));
        };
        let watches = wanted
            && !event_loop.has_signal_handler(SIGINT)
            && event_loop.add_signal_handler(SIGINT, handler).is_ok();
        Self { event_loop, main, interrupted, watches }
    }
}

impl Drop for CtrlC<'_> {
    fn drop(&mut self) {
        // After a first Ctrl-C our handler is gone already, and the handler there may be one that the program has set
        // since.
        if self.watches && !self.interrupted.get() {
            self.event_loop.remove_signal_handler(SIGINT);
        }
    }
}

impl EventLoop {
    pub(super) fn end(&self) -> Result<()> {
        let cleaned_up = self.run_until_complete(self.end_tasks_and_executor());
        self.close()?;
        cleaned_up?
    }

    /// What [`run`] does after its main task.
    async fn end_tasks_and_executor(&self) -> Result<()> {
        let this = current_task();
        let mut tasks = self.all_tasks();
        tasks.retain(|task| Some(task) != this.as_ref());
        for task in &tasks {
            task.cancel();
        }
        for task in &tasks {
            task.finished().await?;
        }
        for task in &tasks {
            if let Ok(Some(error)) = task.exception() {
                let message = "unhandled exception during asyncio.run() shutdown";
                self.call_exception_handler(
                    &ExceptionContext::new(message).error(&error).task(task),
                );
            }
        }
        drop(tasks);
        self.shutdown_default_executor(Some(EXECUTOR_LIMIT)).await
    }
}

/// How long [`run`] waits for the threads of the executor.
const EXECUTOR_LIMIT: Duration = Duration::from_secs(300);
