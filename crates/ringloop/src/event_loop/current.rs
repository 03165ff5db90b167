//! What runs on this thread: which loop, and which of its tasks.
//!
//! Wakers ask here whether they are on their loop's thread, so the common case is one look at a thread-local.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;

use super::awaited::Awaited;
use super::ready::Scheduler;
use super::task_ref::TaskRef;
use super::{EventLoop, LoopRef};

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
    /// The loops that this thread made, running or not.
    static LOOPS: RefCell<Vec<Weak<Scheduler>>> = const { RefCell::new(Vec::new()) };
    /// How many drops are under way that stand for a cancellation.
    static CANCELLING: Cell<usize> = const { Cell::new(0) };
}

struct Running {
    event_loop: LoopRef,
    scheduler: Rc<Scheduler>,
    task: Option<TaskRef>,
}

/// The loop that runs on this thread.
pub(super) fn event_loop() -> Option<EventLoop> {
    RUNNING.with_borrow(|running| running.as_ref().and_then(|running| running.event_loop.upgrade()))
}

/// The task that is being stepped on this thread.
pub(crate) fn task() -> Option<TaskRef> {
    RUNNING.with_borrow(|running| running.as_ref().and_then(|running| running.task.clone()))
}

/// Whether a loop runs here that is not the one with this id.
pub(super) fn is_another_loop(loop_id: u64) -> bool {
    RUNNING.with_borrow(|running| {
        running.as_ref().is_some_and(|running| running.scheduler.loop_id != loop_id)
    })
}

/// Whether `task` is being stepped on this thread.
pub(super) fn is_task(task: &TaskRef) -> bool {
    RUNNING.with_borrow(|running| {
        running.as_ref().and_then(|running| running.task.as_ref()).is_some_and(|this| this == task)
    })
}

/// Notes that the task that is being stepped waits for something, at this place, if `waker` is the task's own.
pub(crate) fn note_awaited<A: Awaited + 'static>(waker: &Waker, awaited: &Rc<A>, place: u64) {
    RUNNING.with_borrow(|running| {
        let task = running.as_ref().and_then(|running| running.task.as_ref());
        if let Some(task) = task.filter(|task| task.core().is_woken_by(waker)) {
            task.core().cancel_state().note(Rc::<A>::downgrade(awaited), place);
        }
    });
}

/// Marks `event_loop` as the one that runs, until the guard goes. `None` if another one runs already.
pub(super) fn enter(event_loop: LoopRef, scheduler: Rc<Scheduler>) -> Option<LoopGuard> {
    RUNNING.with_borrow_mut(|running| {
        if running.is_some() {
            return None;
        }
        *running = Some(Running { event_loop, scheduler, task: None });
        Some(LoopGuard(()))
    })
}

/// Marks `task` as the one that is stepped, until the guard goes.
pub(super) fn enter_task(task: TaskRef) -> TaskGuard {
    set_task(Some(task));
    TaskGuard(())
}

fn set_task(task: Option<TaskRef>) {
    let old = RUNNING.with_borrow_mut(|running| {
        running.as_mut().and_then(|running| std::mem::replace(&mut running.task, task))
    });
    drop(old); // Outside the borrow: the last reference of a task may run user code.
}

pub(super) struct LoopGuard(());

impl Drop for LoopGuard {
    fn drop(&mut self) {
        drop(RUNNING.take());
    }
}

pub(super) struct TaskGuard(());

impl Drop for TaskGuard {
    fn drop(&mut self) {
        set_task(None);
    }
}

/// Makes the loop known to the wakers of this thread.
pub(super) fn add_loop(scheduler: &Rc<Scheduler>) {
    LOOPS.with_borrow_mut(|loops| {
        loops.retain(|known| known.strong_count() > 0);
        loops.push(Rc::downgrade(scheduler));
    });
}

/// Calls `push` with the queue of the loop with this id, if the loop belongs to this thread.
pub(super) fn with_scheduler(loop_id: u64, push: impl Fn(&Scheduler)) -> bool {
    let running = RUNNING.try_with(|running| match &*running.borrow() {
        Some(running) if running.scheduler.loop_id == loop_id => {
            push(&running.scheduler);
            true
        }
        _ => false,
    });
    running == Ok(true)
        || scheduler(loop_id).is_some_and(|scheduler| {
            push(&scheduler);
            true
        })
}

/// The queue of the loop with this id, if the loop belongs to this thread; it need not be running.
pub(super) fn scheduler(loop_id: u64) -> Option<Rc<Scheduler>> {
    let found = LOOPS.try_with(|loops| {
        loops.borrow().iter().filter_map(Weak::upgrade).find(|known| known.loop_id == loop_id)
    });
    found.ok().flatten()
}

/// Runs `drop_it`; futures that it drops while they are awaited count as cancelled (spec TASK-05).
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
