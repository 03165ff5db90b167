//! Lending the sending half: somebody else sends on the descriptor, behind all that was written, and nobody writes meanwhile.
//!
//! ```text
//! begin_lending() -> the buffer empties -> drained: the descriptor is lent -> end_lending()
//!                                      '-> lost: the borrower hears of it, then and later
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use ringloop_driver::Descriptor;

use super::{Sending, Sends};
use crate::event_loop::Waiters;
use crate::{Error, OsError, Result};

#[derive(Default)]
pub(crate) struct Lending {
    /// The borrower.
    waiters: Waiters,
    place: Cell<Option<u64>>,
    /// What the connection was lost with while bytes were left.
    error: RefCell<Option<io::Error>>,
}

/// What a transport that sends has by that, for those who borrow its sending half.
pub(crate) trait Lends: Sends {
    fn begin_to_lend(self: &Rc<Self>) -> Result<()> {
        if self.base().is_closing() {
            return Err(Error::state("Transport is closing"));
        }
        if self.sending().is_lent() {
            return Err(Error::state("Empty waiter is already set"));
        }
        self.sending().set_lending(Some(Rc::default()));
        self.show_now();
        Ok(())
    }

    fn end_to_lend(&self) {
        let lending = self.sending().set_lending(None);
        self.sending().room.forget(); // The borrower has used some of it.
        drop(lending); // Outside of the borrow: wakers may be anybody's.
    }

    /// Why the connection is no more; else the borrower is woken when it is, or when the buffer is empty.
    fn look_lost(&self, cx: &Context<'_>) -> Poll<Error> {
        let Some(lending) = self.sending().lending() else { return Poll::Pending };
        if let Some(error) = lending.error.take() {
            return Poll::Ready(error.into());
        }
        if self.base().is_lost() {
            let text = "Connection is closed by peer";
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, text);
            return Poll::Ready(error.into());
        }
        lending.place.set(Some(lending.waiters.join(lending.place.take(), cx.waker())));
        Poll::Pending
    }

    fn look_drained(&self, cx: &Context<'_>) -> Poll<Result<Descriptor>> {
        if let Poll::Ready(error) = self.look_lost(cx) {
            return Poll::Ready(Err(error));
        }
        if self.sending().size() > 0 {
            return Poll::Pending;
        }
        let descriptor = self.attachment().descriptor().clone();
        Poll::Ready(descriptor.ok_or_else(|| Error::state("Transport is closing")))
    }
}

impl<T: Sends> Lends for T {}

impl Sending {
    /// The buffer is empty, or the connection lost.
    pub(in crate::transport) fn tell_borrower(&self, error: Option<&io::Error>) {
        let Some(lending) = self.lending() else { return };
        if let Some(error) = error {
            let copy = OsError::errno_of(error).map(io::Error::from_raw_os_error);
            lending.error.replace(Some(copy.unwrap_or_else(|| error.kind().into())));
        }
        lending.place.set(None);
        lending.waiters.wake_all();
    }

    pub(in crate::transport) fn check_lent(&self, what: &str) -> Result<()> {
        if !self.is_lent() {
            return Ok(());
        }
        Err(Error::state(format!("unable to {what}; sendfile is in progress")))
    }
}
