//! One step of a task, and how its body ends.

use std::task::{Context, Poll};

use super::awaited::Asking;
use super::cancel::Delivery;
use super::core::{State, TaskCore};
use super::{TaskRef, current};
use crate::event_loop::door::catch;
use crate::{Error, Result};

/// How a body ended.
pub(super) enum BodyEnd<T> {
    Returned(T),
    Cancelled,
    /// It gave an error, panicked, or was refused.
    Failed(Error),
}

impl<T> BodyEnd<T> {
    pub(super) fn into_result(self) -> Result<T> {
        match self {
            Self::Returned(value) => Ok(value),
            Self::Cancelled => Err(Error::Cancelled),
            Self::Failed(error) => Err(error),
        }
    }

    pub(super) fn state(&self) -> State {
        match self {
            Self::Cancelled => State::Cancelled,
            Self::Returned(_) | Self::Failed(_) => State::Finished,
        }
    }
}

/// Takes a step of the body of `task`, which `poll` polls; gives how it ended, and then the body is to be dropped.
#[inline]
pub(super) fn step<T>(
    core: &TaskCore,
    task: TaskRef,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
) -> Option<BodyEnd<T>> {
    let state = core.cancel_state();
    let mut cx = Context::from_waker(core.std_waker());
    let _current = current::enter(task);
    loop {
        let asked = state.begin_step();
        if let Delivery::End = state.aim() {
            return Some(BodyEnd::Cancelled);
        }
        match catch(|| poll(&mut cx)) {
            // A request that came while it ran, and it has nothing more to wait for.
            Ok(Poll::Ready(value)) if state.is_due() || !asked.is_empty() => {
                return Some(end_body(BodyEnd::Cancelled, || drop(value)));
            }
            Ok(Poll::Ready(Ok(value))) => return Some(BodyEnd::Returned(value)),
            // Awaiting what was cancelled gave it that, and it has passed it on: asyncio's CancelledError.
            Ok(Poll::Ready(Err(Error::Cancelled))) => return Some(BodyEnd::Cancelled),
            Ok(Poll::Ready(Err(error))) => return Some(BodyEnd::Failed(error)),
            Ok(Poll::Pending) if state.take_raised() => {}
            Ok(Poll::Pending) => {
                if state.end_step(&asked) {
                    if let Some(task) = current::task() {
                        Asking::after_step(&task);
                    }
                }
                return None;
            }
            Err(error) => return Some(BodyEnd::Failed(error)),
        }
    }
}

/// Drops a body that has ended. A panic in there counts unless it ended by one already.
pub(super) fn end_body<T>(ended: BodyEnd<T>, drop_body: impl FnOnce()) -> BodyEnd<T> {
    let dropped = match ended {
        BodyEnd::Cancelled => catch(|| current::cancelling(drop_body)),
        _ => catch(drop_body),
    };
    match (ended, dropped) {
        (ended @ BodyEnd::Failed(_), _) | (ended, Ok(())) => ended,
        (_, Err(error)) => BodyEnd::Failed(error),
    }
}
