//! A program on a loop: `run()`.

use std::time::Duration;

use crate::event_loop::door::let_go;
use crate::{Error, EventLoop, EventLoopBuilder, ExceptionContext, Result, current_task};

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
        let cleaned_up = event_loop.run_until_complete(event_loop.end_tasks_and_executor());
        event_loop.close()?;
        match cleaned_up {
            Ok(Ok(())) => result,
            Ok(Err(error)) | Err(error) => {
                let first = result.map(|value| let_go("the result of a task", value));
                Err(first.err().unwrap_or(error))
            }
        }
    }
}

impl EventLoop {
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
