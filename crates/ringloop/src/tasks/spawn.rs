//! Tasks and jobs of the loop that runs on this thread, without naming it.

use crate::{EventLoop, Job, Task};

/// Runs `future` as a task of the loop that runs on this thread: see [`EventLoop::create_task`].
///
/// Where no loop runs, the future is dropped, and awaiting the task gives [`Error::State`](crate::Error::State).
///
/// ```
/// let sum = ringloop::run(async {
///     let task = ringloop::spawn(async { 1 + 1 });
///     task.await
/// })??;
/// assert_eq!(sum, 2);
/// # Ok::<(), ringloop::Error>(())
/// ```
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> Task<F::Output> {
    match EventLoop::running() {
        Ok(event_loop) => event_loop.create_task(future),
        Err(error) => Task::refused(error, future),
    }
}

/// Runs `job` on a thread of the default pool of the loop that runs on this thread: see
/// [`EventLoop::run_in_executor`].
///
/// Where no loop runs, the job is dropped, and awaiting it gives [`Error::State`](crate::Error::State).
///
/// ```
/// let len = ringloop::run(async {
///     ringloop::run_in_executor(|| std::fs::read("/etc/passwd").map_or(0, |text| text.len())).await
/// })??;
/// assert!(len > 0);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub fn run_in_executor<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    match EventLoop::running() {
        Ok(event_loop) => event_loop.run_in_executor(job),
        Err(error) => Job::refused(error, job),
    }
}
