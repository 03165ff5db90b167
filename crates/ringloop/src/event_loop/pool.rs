//! Where jobs run: what an executor is, and the pool of threads that is the default one.
//!
//! # Life of a pool
//!
//! A job goes to a thread that waits, else to a new one while there are fewer than the limit, else it waits for its
//! turn. A pool that is shut down takes no more jobs; its threads finish what is queued and end, and the last one calls the
//! function that was given to `shut_down()`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::door::{catch, let_go};
use crate::{Error, Result};

/// Runs jobs on other threads.
///
/// ```
/// use ringloop::{EventLoop, Executor, Result};
///
/// /// Starts a thread for each job.
/// struct Threads;
///
/// impl Executor for Threads {
///     fn execute(&self, job: Box<dyn FnOnce() + Send>) -> Result<()> {
///         std::thread::Builder::new().spawn(job)?;
///         Ok(())
///     }
/// }
///
/// let length = ringloop::run(async {
///     EventLoop::running()?.run_in(&Threads, || "measured".len()).await
/// })??;
/// assert_eq!(length, 8);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub trait Executor {
    /// Runs `job` on another thread, now or later. It must not run inside of this call. If it is dropped unrun, it counts as
    /// cancelled.
    ///
    /// # Errors
    ///
    /// If it takes no more jobs.
    fn execute(&self, job: Box<dyn FnOnce() + Send>) -> Result<()>;
}

/// A bounded pool of threads that grows as jobs come. A clone is the same pool; dropping the last one lets its threads
/// finish what is queued and end.
///
/// ```
/// let pool = ringloop::ThreadPool::new(2);
/// let event_loop = ringloop::EventLoop::builder().default_executor(pool).build()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<PoolOwner>,
}

impl ThreadPool {
    /// A pool of at most `limit` threads, and at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let shared = Arc::new(PoolShared {
            state: Mutex::default(),
            work: Condvar::new(),
            limit: limit.max(1),
        });
        Self { owner: Arc::new(PoolOwner { shared }) }
    }

    /// Takes no more jobs. When the last thread has finished what is queued, `ended` is called, on that thread.
    pub(super) fn shut_down(&self, ended: Option<BoxedJob>) {
        self.owner.shared.shut_down(ended);
    }

    /// Waits for threads that have nothing more to do.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut self.owner.shared.lock().handles);
        for thread in threads {
            let _ = thread.join(); // Jobs are caught: a thread does not panic.
        }
    }
}

impl Default for ThreadPool {
    /// As Python's: four more than there are cores, and at most 32.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores + 4).min(32))
    }
}

impl Executor for ThreadPool {
    fn execute(&self, job: BoxedJob) -> Result<()> {
        self.owner.shared.execute(job)
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.owner.shared.lock();
        f.debug_struct("ThreadPool")
            .field("limit", &self.owner.shared.limit)
            .field("threads", &state.threads)
            .field("queued", &state.jobs.len())
            .finish()
    }
}

type BoxedJob = Box<dyn FnOnce() + Send>;

/// The threads hold what is shared, but not this: so it goes with the last handle.
struct PoolOwner {
    shared: Arc<PoolShared>,
}

impl Drop for PoolOwner {
    fn drop(&mut self) {
        self.shared.shut_down(None);
    }
}

struct PoolShared {
    state: Mutex<PoolState>,
    work: Condvar,
    limit: usize,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<BoxedJob>,
    /// Threads that wait for a job.
    idle: usize,
    threads: usize,
    started: usize,
    refusing: bool,
    handles: Vec<JoinHandle<()>>,
    ended: Vec<BoxedJob>,
}

impl PoolShared {
    /// No user code runs under the lock.
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(self: &Arc<Self>, job: BoxedJob) -> Result<()> {
        let mut state = self.lock();
        if state.refusing {
            return Err(Error::state("cannot schedule new futures after shutdown"));
        }
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            self.work.notify_one();
        } else if state.threads < self.limit {
            if let Err(error) = self.start_thread(&mut state) {
                if state.threads == 0 {
                    let job = state.jobs.pop_back();
                    drop(state);
                    let_go("a job", job);
                    return Err(Error::Io(error));
                }
            }
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, state: &mut PoolState) -> io::Result<()> {
        let name = format!("ringloop-{}", state.started);
        let shared = Arc::clone(self);
        let handle = thread::Builder::new().name(name).spawn(move || shared.work())?;
        state.started += 1;
        state.threads += 1;
        state.handles.push(handle);
        Ok(())
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job that a user gave to `execute()` may panic; the loop's own jobs catch their panics themselves.
                let _ = catch(job);
                state = self.lock();
            } else if state.refusing {
                break;
            } else {
                state.idle += 1;
                state = self.wait_for_work(state);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
        let ended = if state.threads == 0 { std::mem::take(&mut state.ended) } else { Vec::new() };
        drop(state);
        for ended in ended {
            ended();
        }
    }

    fn wait_for_work<'a>(&self, state: MutexGuard<'a, PoolState>) -> MutexGuard<'a, PoolState> {
        self.work
            .wait_while(state, |state| state.jobs.is_empty() && !state.refusing)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&self, mut ended: Option<BoxedJob>) {
        let mut state = self.lock();
        state.refusing = true;
        if state.threads > 0 {
            state.ended.extend(ended.take());
        }
        drop(state);
        self.work.notify_all();
        if let Some(ended) = ended {
            ended(); // There never was a thread.
        }
    }
}
