//! Items on their way from task to task: `Queue`, `PriorityQueue` and `LifoQueue`.
//!
//! # Life of an item
//!
//! ```text
//! put: waits for room -> in the queue -> get: with who asked -> task_done
//! ```
//!
//! As in asyncio, whoever is woken for an item has not got it yet: another one may come first, and then it waits again.
//!
//! # Comparing items
//!
//! `Ord::cmp` of an item is code of the user, which may panic, and which may use the queue. So a priority queue first finds
//! the place of an item by comparing, and changes nothing meanwhile; only then it moves items. The items are borrowed, not
//! mutably, while they are compared: whoever wants to put or to take one in there is told that there is no room or no item.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::task::Poll;

use super::event::Event;
use super::wait_line::{Turn, WaitLine};
use crate::event_loop::door::let_go_all;
use crate::{Error, Result};

/// Items from tasks to tasks of one loop, first in, first out: asyncio's `Queue`.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::Queue;
///
/// ringloop::run(async {
///     let queue = Rc::new(Queue::bounded(1));
///     let source = Rc::clone(&queue);
///     let producer = ringloop::spawn(async move {
///         for item in 0..3 {
///             source.put(item).await.unwrap();
///         }
///         source.shutdown(false);
///     });
///     let mut got = Vec::new();
///     while let Ok(item) = queue.get().await {
///         got.push(item);
///     }
///     assert_eq!(got, [0, 1, 2]);
///     producer.await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Queue<T> {
    items: RefCell<Items<T>>,
    /// 0 means that there is no limit.
    limit: usize,
    getters: WaitLine,
    putters: WaitLine,
    /// Items that were put, and not told to be done.
    unfinished: Cell<usize>,
    finished: Event,
    shut_down: Cell<bool>,
    /// It was shut down at once: what is in there goes.
    discards: Cell<bool>,
}

impl<T> Queue<T> {
    /// A queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(0)
    }

    /// A queue for `limit` items; 0 means that there is no limit.
    #[must_use]
    pub fn bounded(limit: usize) -> Self {
        Self::of(Items::First(VecDeque::new()), limit)
    }

    fn of(items: Items<T>, limit: usize) -> Self {
        let finished = Event::new();
        finished.set();
        Self {
            items: RefCell::new(items),
            limit,
            getters: WaitLine::default(),
            putters: WaitLine::default(),
            unfinished: Cell::new(0),
            finished,
            shut_down: Cell::new(false),
            discards: Cell::new(false),
        }
    }

    /// Waits for room, and puts the item in.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the item, if the queue is shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has put nothing in, and drops the item; the room that had been promised to it goes to
    /// the next who waits.
    pub async fn put(&self, item: T) -> Result<(), PutError<T>> {
        let mut item = item;
        loop {
            item = match self.put_nowait(item) {
                Ok(()) => return Ok(()),
                Err(PutNowaitError::ShutDown(item)) => return Err(PutError(item)),
                Err(PutNowaitError::Full(item)) => item,
            };
            self.wait(Line::Putters).await;
        }
    }

    /// Puts the item in, if there is room.
    ///
    /// # Errors
    ///
    /// [`PutNowaitError`], with the item.
    pub fn put_nowait(&self, item: T) -> Result<(), PutNowaitError<T>> {
        if self.shut_down.get() {
            return Err(PutNowaitError::ShutDown(item));
        }
        if self.is_full() {
            return Err(PutNowaitError::Full(item));
        }
        let place = self.items.borrow().place_for(&item);
        if self.shut_down.get() {
            self.let_go_of_discarded();
            return Err(PutNowaitError::ShutDown(item)); // While it was compared.
        }
        let Ok(mut items) = self.items.try_borrow_mut() else {
            return Err(PutNowaitError::Full(item)); // They are being compared: see above.
        };
        items.insert(place, item);
        drop(items);
        self.unfinished.set(self.unfinished.get() + 1);
        self.finished.clear();
        self.getters.release_next();
        Ok(())
    }

    /// Waits for an item, and takes it.
    ///
    /// # Errors
    ///
    /// [`QueueShutDown`] if the queue is shut down and empty.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has taken nothing: an item that it had been woken for goes to the next who waits.
    pub async fn get(&self) -> Result<T, QueueShutDown> {
        loop {
            match self.get_nowait() {
                Ok(item) => return Ok(item),
                Err(GetNowaitError::ShutDown) => return Err(QueueShutDown),
                Err(GetNowaitError::Empty) => self.wait(Line::Getters).await,
            }
        }
    }

    /// Takes an item, if there is one.
    ///
    /// # Errors
    ///
    /// [`GetNowaitError`].
    ///
    /// ```
    /// let queue = ringloop::Queue::new();
    /// queue.put_nowait("letter").unwrap();
    /// assert_eq!(queue.get_nowait(), Ok("letter"));
    /// assert!(queue.get_nowait().is_err());
    /// ```
    pub fn get_nowait(&self) -> Result<T, GetNowaitError> {
        let place = self.items.borrow().place_of_hole();
        // They are being compared, or there is none.
        let item = self.items.try_borrow_mut().ok().and_then(|mut items| items.take_next(place));
        match item {
            Some(item) => {
                self.putters.release_next();
                self.let_go_of_discarded();
                Ok(item)
            }
            None if self.shut_down.get() && self.is_empty() => Err(GetNowaitError::ShutDown),
            None => Err(GetNowaitError::Empty),
        }
    }

    /// Tells that an item that was taken is done with: what [`join`](Self::join) waits for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it was told as often as there were items.
    pub fn task_done(&self) -> Result<()> {
        match self.unfinished.get().checked_sub(1) {
            None => Err(Error::invalid_argument("task_done() called too many times")),
            Some(left) => {
                self.finish(left);
                Ok(())
            }
        }
    }

    /// Waits until as many items are done with as were put.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has changed nothing.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::Queue;
    ///
    /// let queue = Queue::new();
    /// assert_eq!(queue.limit(), None);
    /// queue.put("work").await.unwrap();
    /// assert_eq!(queue.len(), 1);
    /// queue.get().await.unwrap();
    /// queue.task_done()?;
    /// queue.join().await; // Nothing is left to be done.
    /// assert!(queue.is_empty() && !queue.is_full());
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn join(&self) {
        if self.unfinished.get() > 0 {
            self.finished.wait().await;
        }
    }

    /// Takes no more items; what is in there can be taken, or goes with `immediate`. Those who wait in vain get an error.
    pub fn shutdown(&self, immediate: bool) {
        self.shut_down.set(true);
        self.discards.set(self.discards.get() || immediate);
        let discarded = self.take_discarded();
        self.getters.release_all();
        self.putters.release_all();
        let_go_all("an item of a queue", discarded); // Last, and outside of the borrow: they are the user's.
    }

    /// How many items are in there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether no item is in there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.limit > 0 && self.len() >= self.limit
    }

    /// How many items it takes; `None` if there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.limit).filter(|&limit| limit > 0)
    }

    /// Waits until it may be worth while to try again.
    async fn wait(&self, line: Line) {
        let (in_vain, waiters) = match line {
            Line::Getters => (self.is_empty(), &self.getters),
            Line::Putters => (self.is_full(), &self.putters),
        };
        if in_vain {
            return Wait { queue: self, turn: waiters.join(), line, over: false }.turn().await;
        }
        // This is polled by the comparison of two items, after which anything may be so.
        let mut polled = false;
        poll_fn(|cx| match std::mem::replace(&mut polled, true) {
            true => Poll::Ready(()),
            false => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }

    /// What `shutdown()` could not discard, since it was called by the comparison of two items.
    fn let_go_of_discarded(&self) {
        if self.discards.get() {
            let_go_all("an item of a queue", self.take_discarded());
        }
    }

    /// The items of a queue that is shut down at once, unless they are being compared: then whoever compares them does this.
    fn take_discarded(&self) -> Vec<T> {
        if !self.discards.get() {
            return Vec::new();
        }
        let items = self.items.try_borrow_mut().map(|mut items| items.take()).unwrap_or_default();
        if !items.is_empty() {
            self.finish(self.unfinished.get().saturating_sub(items.len()));
        }
        items
    }

    fn finish(&self, left: usize) {
        self.unfinished.set(left);
        if left == 0 {
            self.finished.set();
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (getters, putters) = (self.getters.len(), self.putters.len());
        write!(
            f,
            "<Queue limit={} len={} getters={getters} putters={putters}>",
            self.limit,
            self.len()
        )
    }
}

/// A [`Queue`] whose smallest item goes first; of equal ones, that which came first.
///
/// `Ord::cmp` of an item may use the queue, but cannot put an item or take one: while items are compared, `put_nowait()` says
/// that the queue is full, and `get_nowait()` that it is empty. If `cmp` panics, so does the call that compares, and the queue
/// is as it was before that call; an item that was to be put in is dropped.
///
/// ```
/// let queue = ringloop::PriorityQueue::new();
/// for item in [3, 1, 2] {
///     queue.put_nowait(item).unwrap();
/// }
/// assert_eq!(queue.get_nowait(), Ok(1));
/// ```
#[derive(Debug)]
pub struct PriorityQueue<T>(Queue<T>);

impl<T: Ord + 'static> PriorityQueue<T> {
    /// A queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(0)
    }

    /// A queue for `limit` items; 0 means that there is no limit.
    ///
    /// ```
    /// let queue = ringloop::PriorityQueue::bounded(1);
    /// queue.put_nowait(1).unwrap();
    /// assert!(queue.is_full());
    /// ```
    #[must_use]
    pub fn bounded(limit: usize) -> Self {
        Self(Queue::of(Items::Smallest(Box::new(Heap { items: Vec::new(), next: 0 })), limit))
    }
}

impl<T: Ord + 'static> Default for PriorityQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for PriorityQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

/// A [`Queue`] whose last item goes first.
///
/// ```
/// let queue = ringloop::LifoQueue::new();
/// for item in [3, 1, 2] {
///     queue.put_nowait(item).unwrap();
/// }
/// assert_eq!(queue.get_nowait(), Ok(2));
/// ```
#[derive(Debug)]
pub struct LifoQueue<T>(Queue<T>);

impl<T> LifoQueue<T> {
    /// A queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(0)
    }

    /// A queue for `limit` items; 0 means that there is no limit.
    ///
    /// ```
    /// let queue = ringloop::LifoQueue::bounded(1);
    /// queue.put_nowait(1).unwrap();
    /// assert!(queue.is_full());
    /// ```
    #[must_use]
    pub fn bounded(limit: usize) -> Self {
        Self(Queue::of(Items::Last(Vec::new()), limit))
    }
}

impl<T> Default for LifoQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for LifoQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

/// The queue is shut down and empty.
///
/// ```
/// use ringloop::{Queue, QueueShutDown};
///
/// let queue = Queue::<u32>::new();
/// queue.shutdown(false);
/// assert_eq!(ringloop::run(async { queue.get().await }).unwrap(), Err(QueueShutDown));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueShutDown;

impl fmt::Display for QueueShutDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is shut down")
    }
}

impl std::error::Error for QueueShutDown {}

impl From<QueueShutDown> for Error {
    fn from(error: QueueShutDown) -> Self {
        Self::other(error)
    }
}

/// Why [`Queue::get_nowait`] has no item.
///
/// ```
/// use ringloop::{GetNowaitError, Queue};
///
/// let queue = Queue::<u32>::new();
/// assert_eq!(queue.get_nowait(), Err(GetNowaitError::Empty));
/// queue.shutdown(false);
/// assert_eq!(queue.get_nowait(), Err(GetNowaitError::ShutDown));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetNowaitError {
    /// None is in there.
    Empty,
    /// None is in there, and none will come.
    ShutDown,
}

impl fmt::Display for GetNowaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::ShutDown => QueueShutDown.fmt(f),
        }
    }
}

impl std::error::Error for GetNowaitError {}

/// The queue is shut down: [`Queue::put`] gives the item back.
///
/// ```
/// use ringloop::{PutError, Queue};
///
/// let queue = Queue::new();
/// queue.shutdown(false);
/// let PutError(item) = ringloop::run(async { queue.put("letter").await }).unwrap().unwrap_err();
/// assert_eq!(item, "letter");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PutError<T>(pub T);

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PutError(..)")
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        QueueShutDown.fmt(f)
    }
}

impl<T> std::error::Error for PutError<T> {}

impl<T> From<PutError<T>> for Error {
    fn from(_: PutError<T>) -> Self {
        Self::other(QueueShutDown)
    }
}

/// Why [`Queue::put_nowait`] did not take the item, which it gives back.
///
/// ```
/// let queue = ringloop::Queue::bounded(1);
/// queue.put_nowait("first").unwrap();
/// let error = queue.put_nowait("second").unwrap_err();
/// assert_eq!(error.into_item(), "second");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutNowaitError<T> {
    /// There is no room.
    Full(T),
    /// There will be no room.
    ShutDown(T),
}

impl<T> PutNowaitError<T> {
    /// The item.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::ShutDown(item) => item,
        }
    }
}

impl<T> fmt::Debug for PutNowaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::ShutDown(_) => "ShutDown(..)",
        })
    }
}

impl<T> fmt::Display for PutNowaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the queue is full"),
            Self::ShutDown(_) => QueueShutDown.fmt(f),
        }
    }
}

impl<T> std::error::Error for PutNowaitError<T> {}

/// A wait for an item or for room.
struct Wait<'a, T> {
    queue: &'a Queue<T>,
    turn: Turn<'a>,
    line: Line,
    over: bool,
}

#[derive(Clone, Copy)]
enum Line {
    Getters,
    Putters,
}

impl<T> Wait<'_, T> {
    async fn turn(mut self) {
        (&mut self.turn).await;
        self.over = true;
    }
}

impl<T> Drop for Wait<'_, T> {
    /// A waiter that was woken for an item or for room, and goes away without it, wakes the next one in its place.
    fn drop(&mut self) {
        self.turn.leave();
        if self.over || !self.turn.is_woken() {
            return;
        }
        match self.line {
            Line::Getters if !self.queue.is_empty() => self.queue.getters.release_next(),
            Line::Putters if !self.queue.is_full() => self.queue.putters.release_next(),
            Line::Getters | Line::Putters => {}
        }
    }
}

/// The items, by which of them goes next.
enum Items<T> {
    First(VecDeque<T>),
    Last(Vec<T>),
    Smallest(Box<dyn Smallest<T>>),
}

impl<T> Items<T> {
    /// Where `item` belongs, for [`insert`](Self::insert).
    fn place_for(&self, item: &T) -> usize {
        match self {
            Self::First(_) | Self::Last(_) => 0, // At the end.
            Self::Smallest(items) => items.place_for(item),
        }
    }

    fn insert(&mut self, place: usize, item: T) {
        match self {
            Self::First(items) => items.push_back(item),
            Self::Last(items) => items.push(item),
            Self::Smallest(items) => items.insert(place, item),
        }
    }

    /// Where the last item goes when the next one is taken, for [`take_next`](Self::take_next).
    fn place_of_hole(&self) -> usize {
        match self {
            Self::First(_) | Self::Last(_) => 0, // No item moves.
            Self::Smallest(items) => items.place_of_hole(),
        }
    }

    fn take_next(&mut self, hole: usize) -> Option<T> {
        match self {
            Self::First(items) => items.pop_front(),
            Self::Last(items) => items.pop(),
            Self::Smallest(items) => items.take_next(hole),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::First(items) => items.len(),
            Self::Last(items) => items.len(),
            Self::Smallest(items) => items.len(),
        }
    }

    fn take(&mut self) -> Vec<T> {
        match self {
            Self::First(items) => std::mem::take(items).into(),
            Self::Last(items) => std::mem::take(items),
            Self::Smallest(items) => items.take(),
        }
    }
}

impl<T> Drop for Items<T> {
    fn drop(&mut self) {
        let_go_all("an item of a queue", self.take());
    }
}

/// Apart, so that only a queue of this kind needs `Ord`. What compares does not change anything, and what changes does not
/// compare.
trait Smallest<T> {
    fn place_for(&self, item: &T) -> usize;
    fn insert(&mut self, place: usize, item: T);
    fn place_of_hole(&self) -> usize;
    fn take_next(&mut self, hole: usize) -> Option<T>;
    fn len(&self) -> usize;
    fn take(&mut self) -> Vec<T>;
}

/// A binary heap: no item goes before the one at half its place. The way between a place and the top is known by the place
/// alone, so one number says which items move.
struct Heap<T> {
    /// Each with its number: of equal ones, that with the smaller number goes first.
    items: Vec<(T, u64)>,
    next: u64,
}

impl<T: Ord> Heap<T> {
    /// Whether `item` goes before the one at `place`.
    fn is_before(&self, item: &(T, u64), place: usize) -> bool {
        let (other, number) = &self.items[place];
        item.0.cmp(other).then(item.1.cmp(number)).is_lt()
    }
}

impl<T: Ord> Smallest<T> for Heap<T> {
    /// It is the newest, so it goes before those only that are larger.
    fn place_for(&self, item: &T) -> usize {
        let mut place = self.items.len();
        while place > 0 && item < &self.items[parent(place)].0 {
            place = parent(place);
        }
        place
    }

    fn insert(&mut self, place: usize, item: T) {
        let mut at = self.items.len();
        self.items.push((item, self.next));
        self.next += 1;
        while at > place {
            self.items.swap(at, parent(at));
            at = parent(at);
        }
    }

    /// First the way down, along the children that go first; then up again, since the last item mostly belongs far down.
    fn place_of_hole(&self) -> usize {
        let Some(last) = self.items.len().checked_sub(1) else { return 0 };
        let mut hole = 0;
        loop {
            let (left, right) = (2 * hole + 1, 2 * hole + 2);
            if left >= last {
                break;
            }
            let right_first = right < last && self.is_before(&self.items[right], left);
            hole = if right_first { right } else { left };
        }
        while hole > 0 && self.is_before(&self.items[last], hole) {
            hole = parent(hole);
        }
        hole
    }

    fn take_next(&mut self, hole: usize) -> Option<T> {
        let mut moved = self.items.pop()?;
        let mut at = hole;
        if !self.items.is_empty() {
            std::mem::swap(&mut moved, &mut self.items[at]);
            while at > 0 {
                at = parent(at);
                std::mem::swap(&mut moved, &mut self.items[at]);
            }
        }
        Some(moved.0)
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.items).into_iter().map(|(item, _)| item).collect()
    }
}

fn parent(place: usize) -> usize {
    (place - 1) / 2
}
