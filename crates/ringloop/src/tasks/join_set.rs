//! Tasks that are joined as they end: `JoinSet`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::event_loop::{Asked, Asking, Awaited, WakerSlot, WatchesEnd, current};
use crate::{Result, Task, TaskRef, spawn};

/// Tasks whose results are taken as they end, in that order.
///
/// Unlike a [`TaskGroup`](crate::TaskGroup) it cares for no error: each result is given to whoever asks for the next.
/// Dropping the set cancels what is left in it.
///
/// ```
/// use std::time::Duration;
/// use ringloop::JoinSet;
///
/// let ended = ringloop::run(async {
///     let mut set = JoinSet::new();
///     for millis in [2, 1] {
///         set.spawn(async move {
///             ringloop::sleep(Duration::from_millis(millis)).await;
///             millis
///         });
///     }
///     let mut ended = Vec::new();
///     while let Some(millis) = set.join_next().await {
///         ended.push(millis?);
///     }
///     Ok::<_, ringloop::Error>(ended)
/// })??;
/// assert_eq!(ended, [1, 2]);
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct JoinSet<T: 'static> {
    shared: Rc<Shared<T>>,
}

impl<T> JoinSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Rc::default() }
    }

    /// Runs `future` as a task of the running loop, in this set: see [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn(&mut self, future: impl Future<Output = T> + 'static) -> TaskRef {
        let task = spawn(future);
        let task_ref = task.task_ref();
        self.insert(task);
        task_ref
    }

    /// Puts a task into the set.
    pub fn insert(&mut self, task: Task<T>) {
        let task_ref = task.task_ref();
        let place = self.shared.tasks.borrow_mut().insert(task);
        task_ref.watch_end(self.shared.clone(), place);
    }

    /// How many tasks are in the set, those included that have ended and were not joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tasks.borrow().len()
    }

    /// Whether no task is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the next task that ends, and gives how it ended: as awaiting the [`Task`] does. `None` if the set is
    /// empty.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has taken nothing out of the set.
    pub async fn join_next(&mut self) -> Option<Result<T>> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// As [`join_next`](Self::join_next), for those who poll.
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        if let Some(result) = self.try_join_next() {
            return Poll::Ready(Some(result));
        }
        if self.is_empty() {
            return Poll::Ready(None);
        }
        self.shared.waker.set(cx.waker());
        current::note_awaited(cx.waker(), &self.shared, 0);
        Poll::Pending
    }

    /// How the next task ended, if one has.
    pub fn try_join_next(&mut self) -> Option<Result<T>> {
        let place = self.shared.ended.borrow_mut().pop_front()?;
        let task = self.shared.tasks.borrow_mut().remove(place);
        Some(task.result())
    }

    /// Waits for all tasks, and gives how they ended, in the order of their ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it cancels the tasks that are left, and drops the results of the others.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::JoinSet;
    ///
    /// let mut tasks = JoinSet::new();
    /// tasks.spawn(async { 1 });
    /// tasks.detach_all(); // It goes on by itself.
    /// tasks.spawn(async { 2 });
    /// assert!(matches!(tasks.join_all().await[..], [Ok(2)]));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn join_all(mut self) -> Vec<Result<T>> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            results.push(result);
        }
        results
    }

    /// Asks all tasks to end, and leaves them in the set.
    pub fn cancel_all(&self) {
        let tasks: Vec<_> =
            self.shared.tasks.borrow().iter().map(|(_, task)| task.task_ref()).collect();
        for task in tasks {
            task.cancel();
        }
    }

    /// Lets all tasks go on by themselves: the set is empty then.
    pub fn detach_all(&mut self) {
        let old = std::mem::take(&mut self.shared);
        drop(old.tasks.take()); // Their ends find nothing in there.
    }

    /// Asks all tasks to end, and returns when they have.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the rest stays in the set, and goes on ending.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::future::{pending, poll_fn};
    /// use ringloop::{JoinSet, spawn};
    ///
    /// let mut tasks = JoinSet::new();
    /// assert!(tasks.is_empty());
    /// tasks.insert(spawn(async { 1 }));
    /// let first = poll_fn(|cx| tasks.poll_join_next(cx)).await;
    /// assert!(matches!(first, Some(Ok(1))));
    ///
    /// tasks.spawn(pending());
    /// tasks.spawn(pending());
    /// assert_eq!(tasks.len(), 2);
    /// assert!(tasks.try_join_next().is_none(), "none has ended");
    /// tasks.cancel_all();
    /// tasks.shutdown().await; // Waits until they have ended.
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn shutdown(&mut self) {
        self.cancel_all();
        while self.join_next().await.is_some() {}
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.cancel_all();
        let tasks = self.shared.tasks.take();
        self.shared.ended.take();
        drop(tasks);
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<JoinSet of {}, {} ended>", self.len(), self.shared.ended.borrow().len())
    }
}

struct Shared<T: 'static> {
    tasks: RefCell<Slab<Task<T>>>,
    /// Those in the set that have ended, in that order.
    ended: RefCell<VecDeque<usize>>,
    waker: WakerSlot,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { tasks: RefCell::default(), ended: RefCell::default(), waker: WakerSlot::default() }
    }
}

impl<T> WatchesEnd for Shared<T> {
    fn ended(self: Rc<Self>, place: usize) {
        if !self.tasks.borrow().contains(place) {
            return; // The set let go of its tasks.
        }
        self.ended.borrow_mut().push_back(place);
        self.waker.wake();
    }
}

/// A request to end whoever joins ends the wait, at once, and leaves the tasks alone.
impl<T> Awaited for Shared<T> {
    fn ask(self: Rc<Self>, _: u64, waker: &Waker, _: &mut Asking<'_>) -> Asked {
        if !self.waker.holds(waker) || !self.ended.borrow().is_empty() {
            return Asked::Nothing;
        }
        self.waker.wake();
        Asked::Cancelled
    }
}
