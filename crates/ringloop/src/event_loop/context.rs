//! Values that go with what runs: asyncio's context variables.
//!
//! # Life of a value
//!
//! ```text
//! set -> seen by what runs there -> copied to each task and callback that is made there -> dropped with the last of these
//! ```
//!
//! The values of a context are a list that is never changed while somebody else has it, so a copy is a count. A program that sets
//! no variable pays for one look at [`IS_USED`] where a callback or a task is made or run, and a task has a word for its context.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::EventLoop;
use super::door::Kept;
use super::handle::Callback;

/// A variable that each task and each callback has for itself: asyncio's `ContextVar`.
///
/// A task begins with the values that were set where it was made, and so does a callback: one of
/// [`call_soon`](EventLoop::call_soon), a timer, a done callback, a reader or writer, a signal handler, a protocol's (where its
/// transport was made, or the server began to listen). What a task sets is seen by itself from then on, and by what it makes later;
/// nobody else sees it. What a callback sets lasts until it returns. What comes from other threads begins without values.
///
/// ```
/// use ringloop::{ContextVar, spawn, yield_now};
///
/// static REQUEST: ContextVar<u32> = ContextVar::new("REQUEST");
///
/// async fn log(text: &str) {
///     println!("{:?}: {text}", REQUEST.get()); // Nobody passes the number on.
/// }
///
/// ringloop::run(async {
///     let tasks = [1, 2].map(|request| {
///         spawn(async move {
///             REQUEST.set(request);
///             yield_now().await;
///             let part = spawn(async { REQUEST.get() });
///             log("waiting for a part").await;
///             part.await
///         })
///     });
///     for (task, request) in tasks.into_iter().zip([1, 2]) {
///         assert_eq!(task.await??, Some(request));
///     }
///     assert_eq!(REQUEST.get(), None);
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// It is a `static`, whose values belong to the thread that sets them and may be of any type. With a `const`, each use would be a
/// variable of its own, so that is refused:
///
/// ```compile_fail
/// const REQUEST: ringloop::ContextVar<u32> = ringloop::ContextVar::new("REQUEST");
/// REQUEST.set(1);
/// ```
pub struct ContextVar<T: 'static> {
    name: &'static str,
    /// 0 until it is used.
    number: AtomicU64,
    values: PhantomData<fn() -> T>,
}

impl<T> ContextVar<T> {
    /// A variable that is set nowhere. The name is for people.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, number: AtomicU64::new(0), values: PhantomData }
    }

    /// The name that it was given.
    ///
    /// ```
    /// static USER: ringloop::ContextVar<String> = ringloop::ContextVar::new("USER");
    /// assert_eq!(USER.name(), "USER");
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A clone of the value; `None` where it is not set.
    #[must_use]
    pub fn get(&'static self) -> Option<T>
    where
        T: Clone,
    {
        self.with(|value| value.cloned())
    }

    /// Calls `look` with the value, and gives what that gives. In there the variable may be used, too.
    ///
    /// ```
    /// static USER: ringloop::ContextVar<String> = ringloop::ContextVar::new("USER");
    /// assert!(USER.with(|user| user.is_none()));
    /// USER.set("guido".into());
    /// assert_eq!(USER.with(|user| user.map(String::len)), Some(5));
    /// ```
    pub fn with<R>(&'static self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let found = Snapshot::current().0.and_then(|values| values.get(self.number()));
        look(found.as_deref().and_then(|value| value.downcast_ref::<Kept<T>>()).map(|kept| &**kept))
    }

    /// Sets the value, for what runs here and for what it makes from now on.
    pub fn set(&'static self, value: T) {
        IS_USED.store(true, Ordering::Relaxed);
        self.change(Some(Rc::new(Kept::new("the value of a context variable", value))));
    }

    /// Makes the variable one that is not set.
    ///
    /// ```
    /// static USER: ringloop::ContextVar<u32> = ringloop::ContextVar::new("USER");
    /// USER.set(1);
    /// USER.unset();
    /// assert_eq!(USER.get(), None);
    /// ```
    pub fn unset(&'static self) {
        self.change(None);
    }

    fn change(&'static self, value: Option<Rc<dyn Any>>) {
        let number = self.number();
        let mut values = Snapshot::swap(Snapshot::default()).0.unwrap_or_default();
        let old = Rc::make_mut(&mut values).change(number, value);
        Snapshot::swap(Snapshot(Some(values).filter(|values| !values.0.is_empty())));
        drop(old); // Last: it may be the user's, and use the variable.
    }

    fn number(&self) -> u64 {
        match self.number.load(Ordering::Relaxed) {
            0 => {
                let new = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
                let set =
                    self.number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                set.map_or_else(|known| known, |_| new)
            }
            known => known,
        }
    }
}

impl<T> fmt::Debug for ContextVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ContextVar name='{}'>", self.name)
    }
}

/// The values of all variables as they are now: asyncio's `copy_context()`.
///
/// ```
/// use ringloop::{ContextVar, copy_context};
///
/// static USER: ContextVar<u32> = ContextVar::new("USER");
///
/// USER.set(1);
/// let context = copy_context();
/// USER.set(2);
/// // What a callback that others call needs; and a task that is made in there begins with these values.
/// assert_eq!(context.run(|| USER.get()), Some(1));
/// assert_eq!(USER.get(), Some(2));
/// ```
#[must_use]
pub fn copy_context() -> ContextValues {
    ContextValues(Snapshot::current())
}

/// The values of context variables at some place: what [`copy_context`] gives.
///
/// ```
/// static USER: ringloop::ContextVar<u32> = ringloop::ContextVar::new("USER");
/// let nothing = ringloop::copy_context();
/// assert_eq!(format!("{nothing:?}"), "<ContextValues of 0 variables>");
/// nothing.run(|| USER.set(1));
/// assert_eq!(USER.get(), None);
/// ```
#[derive(Clone)]
pub struct ContextValues(Snapshot);

impl ContextValues {
    /// Calls `call` with these values in place of those that are set. What it sets is gone when it returns.
    pub fn run<R>(&self, call: impl FnOnce() -> R) -> R {
        let _inside = self.0.enter();
        call()
    }
}

impl fmt::Debug for ContextValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.0.as_ref().map_or(0, |values| values.0.len());
        write!(f, "<ContextValues of {count} variables>")
    }
}

/// What is set at one place: a copy of it sees no later change.
#[derive(Clone, Default)]
pub(crate) struct Snapshot(Option<Rc<Values>>);

impl Snapshot {
    /// What is set here and now.
    #[inline]
    pub(crate) fn current() -> Self {
        if !is_used() {
            return Self(None);
        }
        let current = Self::swap(Self(None));
        Self::swap(current.clone());
        current
    }

    /// Makes this what is set, until the guard goes; what was set in between is gone then.
    #[inline]
    pub(crate) fn enter(&self) -> Inside {
        let outer = if is_used() { Self::swap(self.clone()) } else { Self(None) };
        Inside(outer)
    }

    /// Nothing is set any more: a callback has returned.
    #[inline]
    pub(super) fn clear() {
        if is_used() {
            drop(Self::swap(Self(None)));
        }
    }

    /// Has `callback` run with what is set here and now.
    #[inline]
    pub(super) fn around(callback: Rc<dyn Callback>) -> Rc<dyn Callback> {
        match Self::current() {
            Self(None) => callback,
            context => Rc::new(Around { context, callback }),
        }
    }

    /// While the thread ends, nothing is set, and nothing can be.
    fn swap(new: Self) -> Self {
        CURRENT.try_with(|current| current.replace(new)).unwrap_or_default()
    }
}

/// Puts back what was set before.
pub(crate) struct Inside(Snapshot);

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        if is_used() {
            drop(Snapshot::swap(std::mem::take(&mut self.0)));
        }
    }
}

/// What is set in a task, while that is not stepped.
#[derive(Default)]
pub(super) struct TaskContext(Cell<Snapshot>);

impl TaskContext {
    /// A new task begins.
    #[inline]
    pub(super) fn begin(&self) {
        self.0.set(Snapshot::current());
    }

    /// Makes this what is set, until the guard goes; what is set in between stays.
    #[inline]
    pub(super) fn enter(&self) -> InTask<'_> {
        let outer = if is_used() { Snapshot::swap(self.0.take()) } else { Snapshot(None) };
        InTask { task: self, outer }
    }

    /// The task is gone.
    #[inline]
    pub(super) fn end(&self) {
        drop(self.0.take());
    }
}

pub(super) struct InTask<'a> {
    task: &'a TaskContext,
    outer: Snapshot,
}

impl InTask<'_> {
    #[cold]
    fn leave(&mut self) {
        self.task.0.set(Snapshot::swap(std::mem::take(&mut self.outer)));
    }
}

impl Drop for InTask<'_> {
    #[inline]
    fn drop(&mut self) {
        if is_used() {
            self.leave();
        }
    }
}

/// Whether a variable was ever set in this process.
#[inline]
pub(super) fn is_used() -> bool {
    IS_USED.load(Ordering::Relaxed)
}

/// A callback with what was set where it was made.
struct Around {
    context: Snapshot,
    callback: Rc<dyn Callback>,
}

impl Callback for Around {
    fn run(&self, event_loop: &EventLoop) {
        let _inside = self.context.enter();
        self.callback.run(event_loop);
    }

    fn cancel(&self) {
        self.callback.cancel();
    }

    fn cancelled(&self) -> bool {
        self.callback.cancelled()
    }

    fn release(&self) {
        self.callback.release();
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.callback.describe(f)
    }

    fn leave_timers(&self) {
        self.callback.leave_timers();
    }
}

/// Each variable that is set, by its number; a [`Kept`] each.
#[derive(Clone, Default)]
struct Values(Vec<(u64, Rc<dyn Any>)>);

impl Values {
    fn get(&self, number: u64) -> Option<Rc<dyn Any>> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, value)| Rc::clone(value))
    }

    /// Gives the old value.
    fn change(&mut self, number: u64, value: Option<Rc<dyn Any>>) -> Option<Rc<dyn Any>> {
        let at = self.0.iter().position(|(known, _)| *known == number);
        match (at, value) {
            (Some(at), Some(value)) => Some(std::mem::replace(&mut self.0[at].1, value)),
            (Some(at), None) => Some(self.0.swap_remove(at).1),
            (None, value) => {
                self.0.extend(value.map(|value| (number, value)));
                None
            }
        }
    }
}

thread_local! {
    static CURRENT: Cell<Snapshot> = const { Cell::new(Snapshot(None)) };
}

static IS_USED: AtomicBool = AtomicBool::new(false);
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);
