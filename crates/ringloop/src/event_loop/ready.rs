//! The ready queue. A callback, and the drop of one, may reach the loop again: both happen with the queue released.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::handle::Callback;
use super::inbox::{Inbox, Remote};
use super::registry::Source;
use super::task::TaskKey;

/// The queue of the handles of one loop that are ready to run.
///
/// It is not part of the loop itself, so that the wakers of this thread reach it without keeping the loop alive.
pub(crate) struct Scheduler {
    /// Differs from that of any other loop in the process.
    pub(super) loop_id: u64,
    ready: RefCell<VecDeque<Entry>>,
    /// What other threads have sent and is still to be queued here.
    inbox: Arc<Inbox>,
}

impl Scheduler {
    pub(super) fn new(loop_id: u64, inbox: Arc<Inbox>) -> Self {
        Self { loop_id, ready: RefCell::default(), inbox }
    }

    /// Runs `callback` in the next iteration, after what is queued already.
    pub(crate) fn call_soon(&self, callback: Rc<dyn Callback>) {
        self.push(Entry::Callback(callback));
    }

    /// Appends a handle, behind those that other threads have sent until now.
    #[inline(always)]
    pub(super) fn push(&self, entry: Entry) {
        if self.inbox.is_empty() {
            self.append(entry);
        } else {
            self.push_behind_all(entry);
        }
    }

    #[cold]
    fn push_behind_all(&self, entry: Entry) {
        self.receive_all();
        self.append(entry);
    }

    /// Appends what other threads have sent.
    #[inline]
    pub(super) fn receive(&self) {
        if !self.inbox.is_empty() {
            self.receive_all();
        }
    }

    #[cold]
    fn receive_all(&self) {
        // What comes while this runs is left for the next time: a busy sender must not keep the loop here.
        for _ in 0..self.inbox.len() {
            match self.inbox.pop() {
                Some(Remote::Call(callback)) => self.append(Entry::Remote(callback)),
                Some(Remote::Wake(waker)) => {
                    if let Some(task) = waker.received() {
                        self.append(Entry::Task(task));
                    }
                }
                None => break,
            }
        }
    }

    #[inline(always)]
    fn append(&self, entry: Entry) {
        let mut ready = self.ready.borrow_mut();
        if ready.len() == ready.capacity() {
            return append_and_grow(ready, entry);
        }
        ready.push_back(entry);
    }

    pub(super) fn pop(&self) -> Option<Entry> {
        self.ready.borrow_mut().pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Everything that was queued, for the caller to drop.
    pub(super) fn take(&self) -> VecDeque<Entry> {
        self.ready.take()
    }
}

#[cold]
fn append_and_grow(mut ready: RefMut<'_, VecDeque<Entry>>, entry: Entry) {
    ready.push_back(entry);
}

/// One place in the ready queue.
pub(super) enum Entry {
    Callback(Rc<dyn Callback>),
    /// A callback from another thread; nobody has a handle of it.
    Remote(Box<dyn Callback + Send>),
    /// The next step of a task, by its key: an entry for a task that has finished meanwhile does not keep it alive.
    Task(TaskKey),
    /// A source and the event that it queued.
    Source(Rc<dyn Source>, u8),
}

/// No loop has this number.
pub(super) const NO_LOOP: u64 = u64::MAX;
