//! One step of a task, and how its body ends.

use std::task::{Context, Poll};

use super::awaited::Asking;
use super::cancel::Delivery;
use super::core::{State, TaskCore};
use super::current;
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

/// Takes a step of the body of a task, which `poll` polls; gives how it ended, and then the body is to be dropped.
#[inline]
pub(super) fn step<T>(
    core: &TaskCore,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
) -> Option<BodyEnd<T>> {
    let state = core.cancel_state();
    let mut cx = Context::from_waker(core.std_waker());
    let _current = core.enter();
    loop {
        let asked = state.begin_step();
        if let Delivery::End = state.aim() {
            return Some(BodyEnd::Cancelled);
        }
        let mut ready = None;
        let polled = catch(|| {
            if let Poll::Ready(result) = poll(&mut cx) {
                ready = Some(result);
            }
        });
        if let Err(error) = polled {
            return Some(BodyEnd::Failed(error));
        }
        let Some(result) = ready else {
            if state.take_raised() {
                continue;
            }
            if state.end_step(asked.as_deref()) {
                if let Some(task) = current::task() {
                    Asking::after_step(&task);
                }
            }
            return None;
        };
        return Some(match result {
            // A request that came while it ran, and it has nothing more to wait for.
            result if state.is_due() || asked.is_some() => {
                end_body(BodyEnd::Cancelled, || drop(result))
            }
            Ok(value) => BodyEnd::Returned(value),
            // Awaiting what was cancelled gave it that, and it has passed it on: asyncio's CancelledError.
            Err(Error::Cancelled) => BodyEnd::Cancelled,
            Err(error) => BodyEnd::Failed(error),
        });
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
