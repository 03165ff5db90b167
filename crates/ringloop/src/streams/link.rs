//! Whether a connection has room for more, and whether it has ended: what `drain()` and `wait_closed()` wait for.
//!
//! ```text
//! flowing -- pause() --> paused -- resume() --> flowing
//!    '---------------------'------ lost() --> ended
//! ```

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use crate::event_loop::{Place, Waiters};
use crate::{Error, Result};

#[derive(Default)]
pub(super) struct Link {
    is_paused: Cell<bool>,
    /// How often writing was resumed. A `drain()` that was woken by a resume returns, even if writing was paused again since.
    resumes: Cell<u64>,
    /// Boxed, as most connections never have more buffered than there is room for.
    drains: OnceCell<Box<Waiters>>,
    has_ended: Cell<bool>,
    ended: RefCell<Option<Result<()>>>,
    closes: Waiters,
    /// A server's handler runs as a task.
    pub(super) is_handled: Cell<bool>,
    /// Its writer was dropped and had not been closed.
    pub(super) is_unclosed: Cell<bool>,
}

impl Link {
    pub(super) fn pause(&self) {
        self.is_paused.set(true);
    }

    pub(super) fn resume(&self) {
        self.is_paused.set(false);
        self.resumes.set(self.resumes.get() + 1);
        self.wake_drains();
    }

    pub(super) fn lost(&self, ended: Result<()>) {
        self.ended.replace(Some(ended));
        self.has_ended.set(true);
        self.closes.wake_all();
        self.wake_drains();
    }

    fn drains(&self) -> &Waiters {
        self.drains.get_or_init(Box::default)
    }

    fn wake_drains(&self) {
        if let Some(drains) = self.drains.get() {
            drains.wake_all();
        }
    }

    /// Whether a drain would return at once.
    pub(super) fn is_flowing(&self) -> bool {
        !self.is_paused.get() && !self.has_ended.get()
    }

    /// Waits while writing is paused. If the connection ends meanwhile it gives the error, if it has one; if it has ended before,
    /// a reset by name.
    pub(super) fn wait_for_room(&self) -> WaitForRoom<'_> {
        WaitForRoom { link: self, resumes: self.resumes.get(), place: Place::new(self.drains()) }
    }

    /// Waits for the end, and gives the error that there was.
    pub(super) async fn wait_closed(&self) -> Result<()> {
        let mut place = Place::new(&self.closes);
        poll_fn(|cx| {
            if place.is_waiting(cx, || !self.has_ended.get()) {
                return Poll::Pending;
            }
            Poll::Ready(self.ended())
        })
        .await
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// The error that ended the connection, if it was one.
    pub(super) fn ended(&self) -> Result<()> {
        self.ended.borrow().clone().unwrap_or(Ok(()))
    }
}

/// For a writer that is polled, and keeps its places itself.
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
impl Link {
    /// Ready while writing is not paused, and once the connection has ended.
    pub(super) fn poll_flowing(&self, place: &Cell<Option<u64>>, cx: &Context<'_>) -> Poll<()> {
        if self.has_ended.get() || !self.is_paused.get() {
            return Poll::Ready(());
        }
        self.drains().wait(place, cx.waker());
        Poll::Pending
    }

    /// Ready with how the connection has ended.
    pub(super) fn poll_closed(
        &self,
        place: &Cell<Option<u64>>,
        cx: &Context<'_>,
    ) -> Poll<Result<()>> {
        if self.has_ended.get() {
            return Poll::Ready(self.ended());
        }
        self.closes.wait(place, cx.waker());
        Poll::Pending
    }

    /// Nobody waits at these places any more.
    pub(super) fn leave(&self, drain: &Cell<Option<u64>>, close: &Cell<Option<u64>>) {
        drain.take().map(|place| self.drains().leave(place));
        close.take().map(|place| self.closes.leave(place));
    }
}

/// The wait of one `drain()`.
pub(super) struct WaitForRoom<'a> {
    link: &'a Link,
    resumes: u64,
    place: Place<'a>,
}

impl WaitForRoom<'_> {
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<()>> {
        let Self { link, resumes, place } = self;
        if !place.is_taken() && link.has_ended.get() {
            return Poll::Ready(Err(connection_lost()));
        }
        let was_resumed = || link.resumes.get() != *resumes;
        let is_paused = || link.is_paused.get() && !link.has_ended.get() && !was_resumed();
        if place.is_waiting(cx, is_paused) {
            return Poll::Pending;
        }
        Poll::Ready(if link.has_ended.get() && !was_resumed() { link.ended() } else { Ok(()) })
    }
}

pub(super) fn connection_lost() -> Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "Connection lost").into()
}
