//! The way in from other threads.
//!
//! # Life of a message
//!
//! A thread puts it into the inbox and then wakes the loop, which costs a system call only if the loop sleeps. The loop
//! clears the wake-up first and empties the inbox after that, in each iteration: so a message that comes at any moment
//! is either seen now or ends the next wait (LOOP-09).

use std::fmt;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::SegQueue;
use ringloop_driver::DriverWaker;

use super::debug::RunningHandle;
use super::door::{self, catch, let_go};
use super::ready::{Callback, Entry, Once};
use super::task_core::TaskKey;
use super::waker::TaskWaker;
use super::{EventLoop, current};
use crate::{Error, Result};

/// Reaches an [`EventLoop`] from any thread. A clone reaches the same loop; it does not keep the loop open.
///
/// ```
/// let event_loop = ringloop::EventLoop::new()?;
/// let proxy = event_loop.proxy();
/// let thread = std::thread::spawn(move || proxy.call_soon_threadsafe(|event_loop| event_loop.stop()));
/// event_loop.run_forever()?;
/// thread.join().unwrap()?;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct LoopProxy {
    inbox: Arc<Inbox>,
}

impl LoopProxy {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Runs `callback` on the loop's thread, after the callbacks that are ready there and before those that the loop's
    /// thread schedules afterwards; wakes the loop if it sleeps. What one thread sends arrives in its order.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the loop is closed; then the callback is dropped. If the loop is closed before it comes to
    /// the callback, that is dropped too.
    #[track_caller]
    pub fn call_soon_threadsafe(
        &self,
        callback: impl FnOnce(&EventLoop) + Send + 'static,
    ) -> Result<()> {
        if self.inbox.closed.load(Ordering::Acquire) {
            return Err(Error::loop_closed());
        }
        let callback = Once::new(callback, Location::caller());
        match current::scheduler(self.inbox.loop_id) {
            Some(scheduler) => scheduler.push(Entry::Callback(std::rc::Rc::new(callback))),
            None => self.inbox.send(Remote::Call(Box::new(callback))),
        }
        Ok(())
    }

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

    /// Stops the loop: see [`EventLoop::stop`].
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the loop is closed.
    pub fn stop(&self) -> Result<()> {
        self.call_soon_threadsafe(EventLoop::stop)
    }

    /// What the loop is running, and since when: what a loop that does not answer is blocked by. `None` between callbacks,
    /// and outside of debug mode.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let event_loop = ringloop::EventLoop::builder().debug(true).build()?;
    /// let (proxy, (begun, begins)) = (event_loop.proxy(), mpsc::channel());
    /// let (answer, answered) = mpsc::channel();
    /// let thread = std::thread::spawn(move || {
    ///     begins.recv().unwrap();
    ///     let running = proxy.running();
    ///     answer.send(()).unwrap();
    ///     running
    /// });
    /// event_loop.call_soon(move |event_loop| {
    ///     begun.send(()).unwrap();
    ///     answered.recv().unwrap(); // It blocks the loop.
    ///     event_loop.stop();
    /// })?;
    /// event_loop.run_forever()?;
    /// let running = thread.join().unwrap().unwrap();
    /// println!("{} for {:?}", running.what, running.since.elapsed());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn running(&self) -> Option<RunningHandle> {
        self.inbox.lock_running().clone()
    }

    /// Whether the loop is closed.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let proxy = event_loop.proxy();
    /// assert!(!proxy.is_closed());
    /// drop(event_loop);
    /// assert!(proxy.is_closed());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox.closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for LoopProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<LoopProxy closed={}>", self.is_closed())
    }
}

/// What other threads have sent to one loop.
pub(super) struct Inbox {
    loop_id: u64,
    queue: SegQueue<Remote>,
    closed: AtomicBool,
    waker: DriverWaker,
    /// In debug mode, what the loop runs.
    running: Mutex<Option<RunningHandle>>,
}

pub(super) enum Remote {
    Call(Box<dyn Callback + Send>),
    Wake(Arc<TaskWaker>),
}

impl Inbox {
    pub(super) fn new(loop_id: u64, waker: DriverWaker) -> Self {
        Self {
            loop_id,
            queue: SegQueue::new(),
            closed: AtomicBool::new(false),
            waker,
            running: Mutex::default(),
        }
    }

    /// A message that races with the close is dropped here or there, unread.
    pub(super) fn send(&self, message: Remote) {
        self.queue.push(message);
        self.waker.wake();
        if self.closed.load(Ordering::Acquire) {
            self.clear();
        }
    }

    pub(super) fn pop(&self) -> Option<Remote> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Gives what ran before.
    pub(super) fn set_running(&self, handle: Option<RunningHandle>) -> Option<RunningHandle> {
        std::mem::replace(&mut *self.lock_running(), handle)
    }

    fn lock_running(&self) -> MutexGuard<'_, Option<RunningHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn clear(&self) {
        while let Some(message) = self.queue.pop() {
            drop(message); // A callback goes through the door by itself.
        }
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
        let on_loop = current::scheduler(self.proxy.inbox.loop_id).is_some();
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
        if std::mem::replace(&mut state.completed, true) {
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
