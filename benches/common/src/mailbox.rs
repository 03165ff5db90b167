//! Messages for a task of the same thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A queue that one task takes from. It is as small as it can be: a runtime's own channel would be measured with it.
pub struct Mailbox<T> {
    messages: RefCell<VecDeque<T>>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<T> Mailbox<T> {
    /// Adds a message.
    pub fn put(&self, message: T) {
        self.messages.borrow_mut().push_back(message);
        self.wake();
    }

    /// The next message, or none after [`close`](Self::close).
    pub async fn take(&self) -> Option<T> {
        poll_fn(|context| {
            if let Some(message) = self.messages.borrow_mut().pop_front() {
                return Poll::Ready(Some(message));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// No more messages come.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { messages: RefCell::default(), waker: RefCell::default(), closed: Cell::new(false) }
    }
}
