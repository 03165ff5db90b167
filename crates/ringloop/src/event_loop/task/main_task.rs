//! The task of `run_until_complete()`: its body may borrow, so it stands on the stack of the run.

use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;

use super::core::{OwnedCore, TaskCore};
use super::step::{BodyEnd, end_body, step};
use super::{AnyTask, TaskRef};
use crate::event_loop::{EventLoop, Handle};
use crate::{Error, Result};

/// The body on the stack.
pub(in crate::event_loop) trait MainBody {
    fn step(&mut self);
}

/// The future that `run_until_complete()` was given. Its task stands in the table like any other.
pub(in crate::event_loop) struct Main<'a, F: Future> {
    event_loop: &'a EventLoop,
    task: TaskRef,
    body: Pin<&'a mut Option<F>>,
    ended: Option<BodyEnd<F::Output>>,
    stop: Option<Handle>,
}

impl<'a, F: Future> Main<'a, F> {
    #[track_caller]
    pub(in crate::event_loop) fn new(
        event_loop: &'a EventLoop,
        body: Pin<&'a mut Option<F>>,
    ) -> Self {
        let location = Location::caller();
        let task = event_loop.tasks().borrow_mut().insert(event_loop, location, |core| {
            let task: Rc<dyn AnyTask> = Rc::new(MainTask { core });
            (Rc::clone(&task), TaskRef::from(task))
        });
        task.core().wake();
        Self { event_loop, task, body, ended: None, stop: None }
    }

    /// `None` if the loop was stopped first; then the body is dropped.
    pub(in crate::event_loop) fn take_result(&mut self) -> Option<Result<F::Output>> {
        if let Some(stop) = self.stop.take() {
            stop.cancel(); // Somebody else stopped the loop in the same iteration: not the next run, too.
        }
        if self.ended.is_none() {
            let _context = self.task.core().context.enter();
            let ended = end_body(BodyEnd::Cancelled, || self.body.set(None));
            self.task.core().finish(ended.state());
            self.ended = Some(ended).filter(|ended| matches!(ended, BodyEnd::Failed(_)));
        }
        self.ended.take().map(BodyEnd::into_result)
    }
}

impl<F: Future> MainBody for Main<'_, F> {
    fn step(&mut self) {
        let Some(mut body) = self.body.as_mut().as_pin_mut() else { return };
        let _context = self.task.core().context.enter();
        if let Some(ended) = step(self.task.core(), |cx| body.as_mut().poll(cx).map(Ok)) {
            let ended = end_body(ended, || self.body.set(None));
            self.task.core().finish(ended.state());
            self.ended = Some(ended);
            self.stop = self.event_loop.call_soon(EventLoop::stop).ok();
        }
    }
}

struct MainTask {
    core: OwnedCore,
}

impl AnyTask for MainTask {
    fn core(&self) -> &TaskCore {
        &self.core
    }

    fn step(self: Rc<Self>, main: &mut dyn MainBody) {
        self.core.waker().dequeued();
        main.step();
    }

    fn destroy(self: Rc<Self>) {}

    fn error(&self) -> Option<Error> {
        None
    }
}

/// `run_forever()` has no future.
pub(in crate::event_loop) struct NoMain;

impl MainBody for NoMain {
    fn step(&mut self) {}
}
