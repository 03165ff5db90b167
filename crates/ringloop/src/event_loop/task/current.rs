//! Which task is being stepped on this thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::core::TaskCore;
use super::{Awaited, TaskRef};

thread_local! {
    static CURRENT: RefCell<Option<TaskRef>> = const { RefCell::new(None) };
    /// How many drops are under way that stand for a cancellation.
    static CANCELLING: Cell<usize> = const { Cell::new(0) };
}

/// The task that is being stepped. While the thread ends, none is.
pub(super) fn task() -> Option<TaskRef> {
    look(TaskRef::clone)
}

/// Whether it is this one.
pub(super) fn is_task(task: &TaskRef) -> bool {
    is_stepped(task.core())
}

/// Whether it is the one with this core.
pub(super) fn is_stepped(core: &TaskCore) -> bool {
    look(|current| std::ptr::eq(current.core(), core)) == Some(true)
}

/// Notes that it waits for something, at this place, if `waker` is its own.
pub(crate) fn note_awaited<A: Awaited + 'static>(waker: &Waker, awaited: &Rc<A>, place: u64) {
    look(|task| {
        if task.core().is_woken_by(waker) {
            task.core().cancel_state().note(Rc::<A>::downgrade(awaited), place);
        }
    });
}

/// Marks `task` as the one that is stepped, until the guard goes.
#[inline]
pub(super) fn enter(task: TaskRef) -> TaskGuard {
    let old = CURRENT.try_with(|current| current.replace(Some(task)));
    drop(old);
    TaskGuard(())
}

pub(super) struct TaskGuard(());

impl Drop for TaskGuard {
    #[inline]
    fn drop(&mut self) {
        let old = CURRENT.try_with(RefCell::take);
        drop(old); // Outside the borrow: the last reference of a task may run user code.
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

fn look<R>(at: impl FnOnce(&TaskRef) -> R) -> Option<R> {
    CURRENT.try_with(|current| current.borrow().as_ref().map(at)).ok().flatten()
}
