//! Which task is being stepped on this thread.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Waker;

use super::core::TaskCore;
use super::{Awaited, TaskKey, TaskRef};
use crate::event_loop::running;

/// The task that a loop is stepping: it stands in the loop's table meanwhile.
#[derive(Default)]
pub(in crate::event_loop) struct Stepped(Cell<Option<TaskKey>>);

impl Stepped {
    /// Marks the task with this key as the one, until the guard goes.
    #[inline]
    pub(super) fn enter(&self, task: TaskKey) -> TaskGuard<'_> {
        self.0.set(Some(task));
        TaskGuard(self)
    }

    pub(in crate::event_loop) fn get(&self) -> Option<TaskKey> {
        self.0.get()
    }
}

pub(super) struct TaskGuard<'a>(&'a Stepped);

impl Drop for TaskGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.set(None);
    }
}

thread_local! {
    /// How many drops are under way that stand for a cancellation.
    static CANCELLING: Cell<usize> = const { Cell::new(0) };
}

/// The task that is being stepped on this thread. While the thread ends, none is.
pub(super) fn task() -> Option<TaskRef> {
    running::stepped()
}

/// Whether it is this one.
pub(super) fn is_task(task: &TaskRef) -> bool {
    is_stepped(task.core())
}

/// Whether it is the one with this core.
pub(super) fn is_stepped(core: &TaskCore) -> bool {
    core.scheduler().is_some_and(|scheduler| running::is_stepped(scheduler, core.key()))
}

/// Notes that it waits for something, at this place, if `waker` is its own.
pub(crate) fn note_awaited<A: Awaited + 'static>(waker: &Waker, awaited: &Rc<A>, place: u64) {
    if let Some(task) = task() {
        if task.core().is_woken_by(waker) {
            task.core().cancel_state().note(Rc::<A>::downgrade(awaited), place);
        }
    }
}

/// Runs `drop_it`; futures that it drops while they are awaited count as cancelled (TASK-05).
pub(crate) fn cancelling<R>(drop_it: impl FnOnce() -> R) -> R {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            CANCELLING.set(CANCELLING.get() - 1);
        }
    }
    CANCELLING.set(CANCELLING.get() + 1);
    let _guard = Guard;
    drop_it()
}

pub(crate) fn is_cancelling() -> bool {
    CANCELLING.try_with(|depth| depth.get() > 0).unwrap_or(false)
}
