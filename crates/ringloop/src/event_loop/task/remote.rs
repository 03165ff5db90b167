//! Tasks that other threads start.

use std::fmt;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::TaskKey;
use crate::event_loop::door::{self, catch, let_go};
use crate::event_loop::{EventLoop, LoopProxy};
use crate::{Error, Result};

impl LoopProxy {
    /// Runs the future that `make` gives as a task of the loop: asyncio's `run_coroutine_threadsafe()`. The future is made
    /// on the loop's thread, so it need not be `Send`.
    ///
    /// On a closed loop nothing is made, and waiting for the task gives [`Error::State`].
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let proxy = event_loop.proxy();
    /// let thread = std::thread::spawn(move || {
    ///     let answer = proxy.spawn(|| async { 6 * 7 }).wait();
    ///     proxy.stop()?;
    ///     answer
    /// });
    /// event_loop.run_forever()?;
    /// assert_eq!(thread.join().unwrap()?, 42);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    #[track_caller]
    pub fn spawn<F, M>(&self, make: M) -> RemoteTask<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let shared = Arc::new(RemoteShared::new());
        let completion = RemoteCompletion { shared: Arc::clone(&shared) };
        let start = move |event_loop: &EventLoop| completion.start(event_loop, make);
        if let Err(error) = self.call_soon_threadsafe(start) {
            shared.lock().result = Some(Err(error)); // Instead of the cancellation by the drop of `start`.
        }
        RemoteTask { shared, proxy: self.clone() }
    }
}

/// A task that another thread started: what [`LoopProxy::spawn`] gives.
///
/// It can be awaited in any executor, or waited for with [`wait`](Self::wait). Dropping it detaches.
///
/// # Cancel safety
///
/// Dropping it while it is awaited detaches the task, which goes on; its result is dropped.
///
/// ```
/// use ringloop::{Error, EventLoop};
///
/// let event_loop = EventLoop::new()?;
/// let proxy = event_loop.proxy();
/// let thread = std::thread::spawn(move || {
///     let task = proxy.spawn(std::future::pending::<()>);
///     assert!(!task.done());
///     task.cancel();
///     let ended = task.wait();
///     proxy.stop().map(|()| ended)
/// });
/// event_loop.run_forever()?;
/// assert!(matches!(thread.join().unwrap()?, Err(Error::Cancelled)));
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct RemoteTask<T> {
    shared: Arc<RemoteShared<T>>,
    proxy: LoopProxy,
}

impl<T> RemoteTask<T> {
    /// Blocks this thread until the task has ended.
    ///
    /// # Errors
    ///
    /// As awaiting the task: [`Error::Panic`]; [`Error::Cancelled`], also if the loop was closed meanwhile;
    /// [`Error::InvalidState`] if the result was taken already; [`Error::State`] on the loop's own thread, where the task cannot
    /// end meanwhile.
    pub fn wait(self) -> Result<T> {
        let on_loop = self.proxy.is_here();
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = state.take_result() {
                return result;
            }
            if on_loop {
                return Err(Error::state("The loop's own thread cannot wait for its task"));
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks the task to end: see [`Task::cancel`](crate::Task::cancel). If it has not begun, it never does.
    pub fn cancel(&self)
    where
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // A closed loop has ended the task already.
        let _ = self.proxy.call_soon_threadsafe(move |event_loop| {
            let key = shared.lock().task;
            let task = key.and_then(|key| event_loop.tasks().borrow().get(key));
            if let Some(task) = task {
                task.cancel();
            }
        });
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn done(&self) -> bool {
        self.shared.lock().completed
    }
}

impl<T> Future for RemoteTask<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let waker = cx.waker().clone(); // Foreign code: not under the lock.
        let mut state = self.shared.lock();
        if let Some(result) = state.take_result() {
            return Poll::Ready(result);
        }
        let old = state.waker.replace(waker);
        drop(state);
        let_go("a waker", old);
        Poll::Pending
    }
}

impl<T> fmt::Debug for RemoteTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<RemoteTask done={}>", self.done())
    }
}

struct RemoteShared<T> {
    state: Mutex<RemoteState<T>>,
    done: Condvar,
}

struct RemoteState<T> {
    completed: bool,
    /// Until it is taken.
    result: Option<Result<T>>,
    waker: Option<Waker>,
    task: Option<TaskKey>,
}

impl<T> RemoteState<T> {
    /// `None` while there is none.
    fn take_result(&mut self) -> Option<Result<T>> {
        let taken =
            || self.completed.then(|| Err(Error::invalid_state("Result was already taken.")));
        self.result.take().or_else(taken)
    }
}

impl<T> RemoteShared<T> {
    fn new() -> Self {
        let state = RemoteState { completed: false, result: None, waker: None, task: None };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }

    /// Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, RemoteState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for RemoteShared<T> {
    /// On whichever thread is the last.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let_go("the result of a task", state.result.take());
        let_go("a waker", state.waker.take());
    }
}

/// Tells the other side how the task ended: by its drop at the latest, and then it was cancelled.
struct RemoteCompletion<T> {
    shared: Arc<RemoteShared<T>>,
}

impl<T: 'static> RemoteCompletion<T> {
    fn start<F: Future<Output = T> + 'static>(
        self,
        event_loop: &EventLoop,
        make: impl FnOnce() -> F,
    ) {
        let shared = Arc::clone(&self.shared);
        let future = match catch(make) {
            Ok(future) => future,
            Err(error) => return self.complete(Err(error)),
        };
        let body = async move {
            let mut future = pin!(future);
            let result = std::future::poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
                Ok(poll) => poll.map(Ok),
                Err(error) => Poll::Ready(Err(error)),
            });
            let result = result.await;
            self.complete(result);
        };
        let task = event_loop.create_task(body);
        shared.lock().task = Some(task.key());
    }
}

impl<T> RemoteCompletion<T> {
    /// The first result counts.
    fn complete(&self, result: Result<T>) {
        let mut state = self.shared.lock();
        if mem::replace(&mut state.completed, true) {
            return;
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.shared.done.notify_all();
        door::call_all(&"a waker", waker, Waker::wake);
    }
}

impl<T> Drop for RemoteCompletion<T> {
    fn drop(&mut self) {
        self.complete(Err(Error::Cancelled));
    }
}
