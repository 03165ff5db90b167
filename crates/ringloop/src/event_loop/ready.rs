//! The ready queue. A callback, and the drop of one, may reach the loop again: both happen with the queue released.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use super::handle::Callback;
use super::inbox::{Inbox, Remote};
use super::registry::Source;
use super::task::TaskKey;
use super::task::current::Stepped;

/// The queue of the handles of one loop that are ready to run.
///
/// It is not part of the loop itself, so that the wakers of this thread reach it without keeping the loop alive.
pub(crate) struct Scheduler {
    /// Differs from that of any other loop in the process.
    pub(super) loop_id: u64,
    ready: RefCell<Vec<Entry>>,
    /// Empty; its room is that of the next `ready`.
    spare: Cell<Vec<Entry>>,
    /// How many handles of this iteration are still to be run.
    left: Cell<usize>,
    pub(super) stepped: Stepped,
    /// What other threads have sent and is still to be queued here.
    inbox: Arc<Inbox>,
}

impl Scheduler {
    pub(super) fn new(loop_id: u64, inbox: Arc<Inbox>) -> Self {
        Self {
            loop_id,
            ready: RefCell::default(),
            spare: Cell::default(),
            left: Cell::new(0),
            stepped: Stepped::default(),
            inbox,
        }
    }

    /// Runs `callback` in the next iteration, after what is queued already.
    pub(crate) fn call_soon(&self, callback: Rc<dyn Callback>) {
        self.push(Entry::Callback(callback));
    }

    /// Appends a handle, behind those that other threads have sent until now.
    #[inline(always)]
    pub(super) fn push(&self, entry: Entry) {
        self.receive();
        self.append(entry);
    }

    /// Appends what other threads have sent.
    #[inline(always)]
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
        self.ready.borrow_mut().push(entry);
    }

    /// Calls `run` with each handle that is queued now, in order, until it breaks. Then those that are left stay queued, before what
    /// was queued meanwhile.
    #[inline(always)]
    pub(super) fn run_each<B>(
        &self,
        mut run: impl FnMut(Entry) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        // Two queues that take turns: who queues meanwhile waits for the next iteration, and room is used again.
        let mut entries = self.ready.replace(self.spare.take());
        self.left.set(entries.len());
        let mut queued = entries.drain(..);
        let mut ended = ControlFlow::Continue(());
        for entry in queued.by_ref() {
            self.left.set(self.left.get() - 1);
            ended = run(entry);
            if ended.is_break() {
                break;
            }
        }
        self.left.set(0);
        self.ready.borrow_mut().splice(..0, queued);
        self.spare.set(entries);
        ended
    }

    /// How many handles are to be run, in this iteration or the next.
    pub(super) fn len(&self) -> usize {
        self.ready.borrow().len() + self.left.get()
    }

    /// Everything that was queued, for the caller to drop.
    pub(super) fn take(&self) -> Vec<Entry> {
        self.ready.take()
    }
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
