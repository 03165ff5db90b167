//! Jobs for other threads: `run_in_executor()`.
//!
//! # Life of a job
//!
//! ```text
//! queued -> started -> result sent to the loop -> future done
//!        -> cancelled: the closure is dropped, and never runs
//! ```
//!
//! The closure is in a [`Ticket`] that the pool's thread and the future share. The thread takes it out to run it, the future to
//! cancel the job; the first of them decides. The result comes back through the loop's inbox. If the loop is closed by then, the
//! result is dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::alarm::Alarm;
use super::door::{catch, let_go, let_go_all};
use super::pool::{Executor, ThreadPool};
use super::timers::deadline;
use super::{EventLoop, LoopFuture, LoopProxy};
use crate::{Error, Result};

impl EventLoop {
    /// Runs `job` on a thread of the default pool, which is made when the first job comes. The loop goes on meanwhile.
    ///
    /// ```
    /// ringloop::run(async {
    ///     let event_loop = ringloop::EventLoop::running()?;
    ///     let sum = event_loop.run_in_executor(|| (1..=1000).sum::<u32>()).await?;
    ///     assert_eq!(sum, 500_500);
    ///     Ok::<(), ringloop::Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// A job is a closure; a future is not one:
    ///
    /// ```compile_fail,E0277
    /// # let event_loop = ringloop::EventLoop::new().unwrap();
    /// event_loop.run_in_executor(async {});
    /// ```
    ///
    /// A job that cannot be run is dropped, and awaiting it gives [`Error::State`] on a closed loop and after
    /// [`shutdown_default_executor`](Self::shutdown_default_executor), [`Error::Io`] if no thread can be started.
    pub fn run_in_executor<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        let pool = self.check_closed().and_then(|()| self.inner.executors.default_pool());
        match pool {
            Ok(pool) => self.run_in(&pool, job),
            Err(error) => Job::refused(error, job),
        }
    }

    /// Runs `job` in `executor`.
    ///
    /// A job that cannot be run is dropped, and awaiting it gives [`Error::State`] on a closed loop, else the error of
    /// [`Executor::execute`].
    ///
    /// ```
    /// # ringloop::run(async {
    /// let pool = ringloop::ThreadPool::new(1);
    /// let job = ringloop::EventLoop::running()?.run_in(&pool, || 6 * 7);
    /// assert_eq!(job.await?, 42);
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn run_in<T: Send + 'static>(
        &self,
        executor: &dyn Executor,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        self.submit(executor, job).unwrap_or_else(|error| Job::refused(error, ()))
    }

    fn submit<T: Send + 'static>(
        &self,
        executor: &dyn Executor,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Job<T>> {
        let ticket = Arc::new(Ticket { job: Mutex::new(Some(job)) });
        self.check_closed()?;
        let future = self.create_future();
        let (id, completion) = self.start_job(&future);
        let to_run = Arc::clone(&ticket);
        let submitted = executor.execute(Box::new(move || {
            if let Some(job) = to_run.take() {
                completion.complete(catch(job));
            }
        }));
        if let Err(error) = submitted {
            self.inner.executors.remove(id);
            return Err(error);
        }
        let executors = self.downgrade();
        future.add_done_callback(move |future| {
            if future.cancelled() {
                if let Some(event_loop) = executors.upgrade() {
                    event_loop.inner.executors.remove(id);
                }
                ticket.cancel();
            }
        });
        Ok(Job { future })
    }

    /// Uses `pool` for jobs from now on. The pool that was used before finishes the jobs that it has.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on a closed loop.
    pub fn set_default_executor(&self, pool: ThreadPool) -> Result<()> {
        self.check_closed()?;
        let old = self.inner.executors.pool.replace(Some(pool));
        drop(old);
        Ok(())
    }

    /// Refuses jobs from now on, and waits until the threads of the default pool have ended, for `limit` at most. After that
    /// it warns and no longer waits. The loop goes on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::State`] outside of a running loop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait: the pool refuses jobs all the same, and its threads end when their jobs are done.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, EventLoop, ThreadPool};
    ///
    /// let event_loop = EventLoop::running()?;
    /// event_loop.set_default_executor(ThreadPool::new(1))?;
    /// event_loop.shutdown_default_executor(Some(Duration::from_secs(60))).await?;
    /// assert!(matches!(event_loop.run_in_executor(|| 1).await, Err(Error::State(_))));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn shutdown_default_executor(&self, limit: Option<Duration>) -> Result<()> {
        Self::running()?;
        self.inner.executors.refusing.set(true);
        let pool = self.inner.executors.pool.take();
        let Some(pool) = pool else { return Ok(()) };
        let ended = self.create_future::<()>();
        let (id, completion) = self.start_job(&ended);
        pool.shut_down(Some(Box::new(move || completion.complete(Ok(())))));
        let alarm = limit.map(|limit| (limit, Alarm::set(self, deadline(self.time(), limit))));
        let too_late = poll_fn(|cx| match ended.poll_done(cx) {
            Poll::Ready(waited) => Poll::Ready(waited.map(|()| None)),
            Poll::Pending => match &alarm {
                Some((limit, alarm)) if alarm.rang(cx.waker()) => Poll::Ready(Ok(Some(*limit))),
                _ => Poll::Pending,
            },
        });
        match too_late.await? {
            None => pool.join(),
            Some(limit) => {
                self.inner.executors.remove(id);
                let limit = limit.as_secs_f64();
                self.warn(&format!(
                    "The executor did not finishing joining its threads within {limit} seconds."
                ));
            }
        }
        Ok(())
    }

    fn start_job<T: Send + 'static>(&self, future: &LoopFuture<T>) -> (u64, JobCompletion<T>) {
        let id = self.inner.executors.insert(Box::new(future.clone()));
        (id, JobCompletion { id, proxy: self.proxy(), result: None })
    }

    fn complete_job<T: 'static>(&self, id: u64, result: Result<T>) {
        let future = self.inner.executors.remove(id).and_then(|future| future.downcast().ok());
        let Some(future) = future else { return }; // Cancelled: nobody wants the result.
        let future: LoopFuture<T> = *future;
        // It is pending: only this completes it, and a cancelled one has left the table or is about to.
        let _ = match result {
            Ok(value) => future.set_result_unless_cancelled(value),
            Err(Error::Cancelled) => {
                future.cancel();
                Ok(())
            }
            Err(error) if !future.done() => future.set_exception(error),
            Err(_) => Ok(()),
        };
    }
}

/// A job that runs on another thread: what [`EventLoop::run_in_executor`] gives.
///
/// Awaiting it gives what the job gave, or [`Error::Panic`]. Dropping it changes nothing: the job is run.
///
/// # Cancel safety
///
/// Dropped while it is awaited, the job goes on, and its result is dropped. If a scope, a timeout or a task that is cancelled
/// drops it, the job is cancelled.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{Error, run_in_executor};
///
/// let job = run_in_executor(|| 6 * 7);
/// assert!(!job.done());
/// job.cancel();
/// assert!(job.cancelled());
/// assert!(matches!(job.await, Err(Error::Cancelled)));
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug)]
pub struct Job<T: 'static> {
    future: LoopFuture<T>,
}

impl<T> Job<T> {
    /// A job that could not be started: it is dropped, and awaiting it gives `error` at once.
    pub(crate) fn refused(error: Error, job: impl Sized) -> Self {
        let_go("a job", job);
        Self { future: LoopFuture::failed(error) }
    }

    /// Cancels the job: if it has not begun, it never runs; if it has, it goes on, and its result is dropped. Gives `false`
    /// if it is done already.
    pub fn cancel(&self) -> bool {
        self.future.cancel()
    }

    /// Whether the job has given something, or was cancelled.
    #[must_use]
    pub fn done(&self) -> bool {
        self.future.done()
    }

    /// Whether the job was cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.future.cancelled()
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.future.poll_done(cx).map(|waited| waited.and_then(|()| self.future.take_result()))
    }
}

/// A job that may be cancelled until it starts.
struct Ticket<F> {
    job: Mutex<Option<F>>,
}

impl<F> Ticket<F> {
    fn take(&self) -> Option<F> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn cancel(&self) {
        let_go("a job", self.take());
    }
}

impl<F> Drop for Ticket<F> {
    /// Nobody has taken the job.
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Brings a result to the loop: that it was cancelled, if the executor dropped the job.
struct JobCompletion<T: Send + 'static> {
    id: u64,
    proxy: LoopProxy,
    result: Option<Result<T>>,
}

impl<T: Send + 'static> JobCompletion<T> {
    fn complete(mut self, result: Result<T>) {
        self.result = Some(result);
    }
}

impl<T: Send + 'static> Drop for JobCompletion<T> {
    fn drop(&mut self) {
        let id = self.id;
        let result = self.result.take().unwrap_or(Err(Error::Cancelled));
        let complete = move |event_loop: &EventLoop| event_loop.complete_job(id, result);
        let _ = self.proxy.call_soon_threadsafe(complete); // A closed loop drops the result (FUT-11).
    }
}

/// The executors' side of a loop.
pub(super) struct Executors {
    pool: RefCell<Option<ThreadPool>>,
    /// The default executor was shut down.
    refusing: Cell<bool>,
    /// The futures of the jobs that are not done, each a `LoopFuture`.
    jobs: RefCell<BTreeMap<u64, Box<dyn Any>>>,
    next_id: Cell<u64>,
}

impl Executors {
    pub(super) fn new(pool: Option<ThreadPool>) -> Self {
        Self {
            pool: RefCell::new(pool),
            refusing: Cell::new(false),
            jobs: RefCell::default(),
            next_id: Cell::new(0),
        }
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs.borrow().len()
    }

    /// The pool takes no more jobs; nobody waits for its threads (LOOP-16).
    pub(super) fn close(&self) {
        self.refusing.set(true);
        let pool = self.pool.take();
        if let Some(pool) = pool {
            pool.shut_down(None);
        }
        let jobs = self.jobs.take();
        let_go_all("a job", jobs.into_values());
    }

    fn default_pool(&self) -> Result<ThreadPool> {
        if self.refusing.get() {
            return Err(Error::state("Executor shutdown has been called"));
        }
        Ok(self.pool.borrow_mut().get_or_insert_with(ThreadPool::default).clone())
    }

    fn insert(&self, future: Box<dyn Any>) -> u64 {
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.jobs.borrow_mut().insert(id, future);
        id
    }

    fn remove(&self, id: u64) -> Option<Box<dyn Any>> {
        self.jobs.borrow_mut().remove(&id)
    }
}
