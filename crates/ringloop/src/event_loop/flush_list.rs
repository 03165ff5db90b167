//! Who is to be flushed before the loop waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::registry::Source;

/// The sources of one loop that have asked to be flushed.
///
/// It is not part of the loop itself, so that transports reach it without seeing whether the loop lives. Nothing else hangs on it:
/// who keeps a transport of a closed loop keeps no descriptor of that loop open.
#[derive(Default)]
pub(crate) struct FlushList {
    listed: RefCell<Vec<Rc<dyn Source>>>,
    /// Empty; its room is that of the next `listed`.
    flushed: Cell<Vec<Rc<dyn Source>>>,
    /// The loop is closed, and flushes nobody.
    is_closed: Cell<bool>,
}

impl FlushList {
    /// Has `source` flushed before the wait, or earlier if callbacks take long.
    #[inline(always)]
    pub(crate) fn push(&self, source: Rc<dyn Source>) {
        if !self.is_closed.get() {
            self.listed.borrow_mut().push(source);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.borrow().is_empty()
    }

    /// Calls with each of those that have asked until now.
    #[inline(always)]
    pub(super) fn for_each(&self, mut flush: impl FnMut(Rc<dyn Source>)) {
        if self.is_empty() {
            return;
        }
        // Two lists that take turns: who asks meanwhile waits for the next flush, and room is used again.
        let mut sources = self.listed.replace(self.flushed.take());
        sources.drain(..).for_each(&mut flush);
        self.flushed.set(sources);
    }

    /// Nobody is listed any more.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
    }

    /// Who was listed, for the caller to drop.
    pub(super) fn take(&self) -> Vec<Rc<dyn Source>> {
        self.listed.take()
    }
}
