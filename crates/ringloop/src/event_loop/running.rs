//! Which loop runs on this thread and which task it steps, and which loops belong to the thread.
//!
//! A waker looks here whether it is woken on its loop's thread, so the common case is one look at a thread-local.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::ready::Scheduler;
use super::task::{TaskKey, TaskRef};
use super::{EventLoop, LoopRef};
use crate::{Error, Result};

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
    /// The loops that this thread made, running or not.
    static LOOPS: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
    /// The loops that are being closed.
    static CLOSING: RefCell<Vec<LoopRef>> = const { RefCell::new(Vec::new()) };
}

struct Running {
    event_loop: LoopRef,
    scheduler: Rc<Scheduler>,
}

struct Known {
    scheduler: Weak<Scheduler>,
    event_loop: LoopRef,
}

/// The loop that runs on this thread.
pub(super) fn event_loop() -> Option<EventLoop> {
    look(|running| running.event_loop.upgrade()).flatten()
}

/// The task that is being stepped on this thread.
pub(super) fn stepped() -> Option<TaskRef> {
    let stepped = |running: &Running| {
        let key = running.scheduler.stepped.get()?;
        running.event_loop.upgrade()?.tasks().borrow().get(key)
    };
    look(stepped).flatten()
}

/// Whether the task with this key is being stepped on this thread, by the loop with this queue.
pub(super) fn is_stepped(scheduler: &Scheduler, task: TaskKey) -> bool {
    let is_stepped = |running: &Running| {
        running.scheduler.loop_id == scheduler.loop_id
            && running.scheduler.stepped.get() == Some(task)
    };
    look(is_stepped) == Some(true)
}

/// Looks at what runs on this thread. While the thread ends, nothing does.
fn look<R>(at: impl FnOnce(&Running) -> R) -> Option<R> {
    RUNNING.try_with(|running| running.borrow().as_ref().map(at)).ok().flatten()
}

/// Whether a loop runs here that is not the one with this id.
pub(super) fn is_another_loop(loop_id: u64) -> bool {
    look(|running| running.scheduler.loop_id != loop_id) == Some(true)
}

impl Scheduler {
    /// Whether a loop runs here, and it is not the one with this queue.
    pub(crate) fn is_of_another_loop(&self) -> bool {
        is_another_loop(self.loop_id)
    }
}

/// Marks `event_loop` as the one that runs, until the guard goes.
///
/// # Errors
///
/// If another one runs already, and while the thread ends.
pub(super) fn enter(event_loop: LoopRef, scheduler: Rc<Scheduler>) -> Result<LoopGuard> {
    let entered = RUNNING.try_with(|running| {
        let mut running = running.borrow_mut();
        if running.is_some() {
            return Err(Error::state("Cannot run the event loop while another loop is running"));
        }
        *running = Some(Running { event_loop, scheduler });
        Ok(LoopGuard(()))
    });
    entered.unwrap_or_else(|_| Err(Error::state("Cannot run the event loop while its thread ends")))
}

pub(super) struct LoopGuard(());

impl Drop for LoopGuard {
    fn drop(&mut self) {
        drop(RUNNING.try_with(RefCell::take));
    }
}

/// Makes the loop known to the wakers of this thread.
pub(super) fn add_loop(event_loop: &EventLoop) {
    let scheduler = Rc::downgrade(event_loop.scheduler());
    let known = Known { scheduler, event_loop: event_loop.downgrade() };
    // While the thread ends, its wakers go the way of those of other threads.
    let _ = LOOPS.try_with(|loops| {
        let mut loops = loops.borrow_mut();
        loops.retain(|known| known.scheduler.strong_count() > 0);
        loops.push(known);
    });
}

/// The loop whose exception handler gets what fails on this thread, where the value that failed belongs to no loop: the loop that
/// is being closed, else the loop that runs, else the first that the thread has made.
pub(super) fn reporting() -> Option<EventLoop> {
    let closing = || CLOSING.try_with(|loops| loops.borrow().last()?.upgrade()).ok().flatten();
    let made = || {
        let first = |loops: &RefCell<Vec<Known>>| {
            loops.borrow().iter().find_map(|known| known.event_loop.upgrade())
        };
        LOOPS.try_with(first).ok().flatten()
    };
    closing().or_else(event_loop).or_else(made)
}

/// Makes `event_loop`, which is being closed, the one that gets reports of what fails, until the guard is dropped.
pub(super) fn report_to(event_loop: LoopRef) -> ClosingGuard {
    let _ = CLOSING.try_with(|loops| loops.borrow_mut().push(event_loop));
    ClosingGuard(())
}

pub(super) struct ClosingGuard(());

impl Drop for ClosingGuard {
    fn drop(&mut self) {
        let _ = CLOSING.try_with(|loops| loops.borrow_mut().pop());
    }
}

/// Calls `push` with the queue of the loop with this id, if it is the one that runs here.
#[inline(always)]
pub(super) fn with_scheduler(loop_id: u64, push: impl FnOnce(&Scheduler)) -> bool {
    let running = RUNNING.try_with(|running| match &*running.borrow() {
        Some(running) if running.scheduler.loop_id == loop_id => {
            push(&running.scheduler);
            true
        }
        _ => false,
    });
    running == Ok(true)
}

/// The queue of the loop with this id, if the loop belongs to this thread; it need not be running.
pub(super) fn scheduler(loop_id: u64) -> Option<Rc<Scheduler>> {
    let found = LOOPS.try_with(|loops| {
        let loops = loops.borrow();
        let mut loops = loops.iter().filter_map(|known| known.scheduler.upgrade());
        loops.find(|known| known.loop_id == loop_id)
    });
    found.ok().flatten()
}
