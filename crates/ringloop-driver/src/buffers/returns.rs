//! The way back for buffers whose last lease ended on another thread.

use crate::sync::{AtomicBool, Ordering, Queue};

/// Numbers of buffers, from any thread to the loop's.
///
/// The flag says that there may be some; the loop looks at it in every iteration, since it is cheaper to ask than the queue.
/// Another thread first pushes a number and then raises the flag; the loop first takes the flag down and then empties the
/// queue. So no number is left behind.
pub(crate) struct Returns {
    queue: Queue<u16>,
    told: AtomicBool,
}

impl Returns {
    pub(crate) fn new() -> Self {
        Self { queue: Queue::new(), told: AtomicBool::new(false) }
    }

    /// From any thread.
    pub(crate) fn give_back(&self, index: u16) {
        self.queue.push(index);
        self.told.store(true, Ordering::Release);
    }

    /// On the loop's thread: `take` gets all that were given back before.
    #[inline]
    pub(crate) fn collect(&self, mut take: impl FnMut(u16)) {
        if self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Acquire) {
            while let Some(index) = self.queue.pop() {
                take(index);
            }
        }
    }
}
