//! Tasks in the order of their ends: `as_completed()`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::end_queue::EndQueue;
use super::wait::Waitable;
use crate::event_loop::{EndWatch, WakerSlot};
use crate::{Error, EventLoop, Result, TaskRef, TimerHandle};

/// Gives `tasks` one by one, as they end; those that have ended come first.
///
/// When `limit` has passed, each that is left gives [`Error::Timeout`] instead; no task is cancelled.
///
/// ```
/// use std::time::Duration;
/// use ringloop::{as_completed, sleep, spawn};
///
/// let order = ringloop::run(async {
///     let tasks = [2_u64, 1].map(|millis| {
///         spawn(async move {
///             sleep(Duration::from_millis(millis)).await;
///             millis
///         })
///     });
///     let (mut ended, mut order) = (as_completed(tasks, None)?, Vec::new());
///     while let Some(task) = ended.next().await {
///         order.push(task?.result()?);
///     }
///     Ok::<_, ringloop::Error>(order)
/// })??;
/// assert_eq!(order, [1, 2]);
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::State`] outside of a running loop.
pub fn as_completed<W: Waitable>(
    tasks: impl IntoIterator<Item = W>,
    limit: Option<Duration>,
) -> Result<AsCompleted<W>> {
    let event_loop = EventLoop::running()?;
    let tasks: Vec<Option<W>> = tasks.into_iter().map(Some).collect();
    let refs: Vec<_> = tasks.iter().flatten().map(Waitable::as_task_ref).collect();
    let state = Rc::new(State {
        todo: RefCell::new((0..refs.len()).map(|_| None).collect()),
        left: Cell::new(refs.len()),
        done: RefCell::default(),
        waker: WakerSlot::default(),
        timer: Cell::new(None),
    });
    let ends = EndQueue::new(&event_loop, Rc::downgrade(&state), "as_completed", State::ended);
    for (place, task) in refs.into_iter().enumerate() {
        let watch = task.watch_end(ends.clone(), place);
        state.todo.borrow_mut()[place] = Some((task, watch));
    }
    if let Some(limit) = limit.filter(|_| state.left.get() > 0) {
        let of_timer = Rc::downgrade(&state);
        let timer = event_loop.call_later(limit, move |_| {
            if let Some(state) = of_timer.upgrade() {
                state.timed_out();
            }
        })?;
        state.timer.set(Some(timer));
    }
    Ok(AsCompleted { left: tasks.len(), tasks, state })
}

/// Tasks in the order of their ends: what [`as_completed`] gives.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{as_completed, spawn};
///
/// let mut ended = as_completed([spawn(async { 1 }), spawn(async { 2 })], None)?;
/// let first = ended.next().await.unwrap()?;
/// println!("{} was first", first.result()?);
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct AsCompleted<W> {
    tasks: Vec<Option<W>>,
    /// Those that were not given.
    left: usize,
    state: Rc<State>,
}

impl<W> AsCompleted<W> {
    /// The next that has ended; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] for each that has not ended in time.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has taken none.
    pub async fn next(&mut self) -> Option<Result<W>> {
        if self.left == 0 {
            return None;
        }
        let place = poll_fn(|cx| {
            let next = self.state.done.borrow_mut().pop_front();
            if let Some(next) = next {
                return Poll::Ready(next);
            }
            self.state.waker.set(cx.waker());
            Poll::Pending
        });
        let place = place.await;
        self.left -= 1;
        Some(place.and_then(|place| self.tasks[place].take()).ok_or(Error::Timeout))
    }
}

impl<W> fmt::Debug for AsCompleted<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<AsCompleted of {}, {} left>", self.tasks.len(), self.left)
    }
}

struct State {
    /// By their place, those that have not ended.
    todo: RefCell<Vec<Option<(TaskRef, EndWatch)>>>,
    left: Cell<usize>,
    /// The places of those that have ended; `None` for one that is late.
    done: RefCell<VecDeque<Option<usize>>>,
    waker: WakerSlot,
    timer: Cell<Option<TimerHandle>>,
}

impl State {
    fn ended(self: &Rc<Self>, place: usize) {
        let known = self.todo.borrow_mut()[place].take();
        if known.is_none() {
            return; // The deadline was first.
        }
        self.left.set(self.left.get() - 1);
        self.give(Some(place));
        if self.left.get() == 0 {
            self.cancel_timer();
        }
    }

    fn timed_out(&self) {
        let late: Vec<_> = self.todo.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for (task, watch) in late {
            task.unwatch_end(watch);
            self.give(None);
        }
        self.left.set(0);
    }

    fn give(&self, place: Option<usize>) {
        self.done.borrow_mut().push_back(place);
        self.waker.wake();
    }

    fn cancel_timer(&self) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.cancel_timer();
        for (task, watch) in self.todo.get_mut().drain(..).flatten() {
            task.unwatch_end(watch);
        }
    }
}
