//! The door between the library and what users give it: the one way to call that, and to drop it.
//!
//! A user's value runs the user's code when it is called and when it is dropped, and that code may panic. If the panic unwound
//! through the library, whatever is half done on its way would stay so: a connection that never ends, a loop that is half
//! closed. So every panic is caught here. The panic of a call becomes [`Error::Panic`], which the caller of [`catch`] reports or
//! returns. The panic of a drop, or of a waker, is reported at once, and the library goes on as if there had been none
//! ([`let_go`], [`call_all`]). The payload of a panic is a value of the user's, too: its drop may panic like any other.
//!
//! # Who holds what users give
//!
//! | what | who holds it, until when | when its call panics | when its drop panics |
//! | --- | --- | --- | --- |
//! | callbacks of `call_soon()` and timers | the queue or the heap, until it runs, is cancelled, or the loop closes | report | report |
//! | readers, writers, signal handlers | their slot, until they are removed or the loop closes; they stay when they panic | report | report |
//! | done callbacks | the future, until it is done; then the queue | report | report |
//! | bodies of tasks | the task, until it ends | the task ends with the panic | the same, unless it ended by one already |
//! | results | the future or the task, until somebody takes them or the last handle goes | | report |
//! | wakers | who is waited for, until he wakes them; a socket, which keeps the last of each side, until another call waits, the call is dropped or the socket is gone | report; the others are woken | report |
//! | jobs | their ticket, until a thread takes them or they are cancelled | the job's error | report |
//! | protocols | the transport, until `connection_lost()` or until they are replaced | report; those that can fail end the connection | report |
//! | their errors | the transport, until `connection_lost()` has seen them | | report |
//! | written bytes | the transport, until they are sent; in flight the driver | | report |
//! | bytes given to `unread()` | the transport, until they are delivered or it ends | | report |
//! | iterators of `writelines()` | the call | the error of the call; nothing is written | report |
//! | extra info | the transport, until `connection_lost()` | | report |
//! | protocol factories | the server, until it is gone; they stay when they panic | the connection is dropped | report |
//! | `Resolver`, `Connector`, their futures | the loop, until it closes; the attempt that awaits them | a panic of the awaiting task | report |
//! | what `around_wait()` was given | the loop | report, and the loop waits | report |
//! | the exception handler | the loop | the default handler tells both | report |
//!
//! Where no loop runs on the thread, a report goes to a loop that the thread has made, else to stderr. What a
//! call refuses (bytes, a callback on a closed loop, a value for a future that is done) is dropped by the library, with a report,
//! and the call gives its error. What a call gives back in its error is the caller's.
//! Two values of a user inside one of his own (two fields of a closure) are not the library's: if both panic, Rust aborts.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use ringloop_driver::{discard_panic, has_drop_panics, take_drop_panics};

use super::exception::{self, ExceptionContext};
use super::running;
use crate::{Error, Result};

/// Calls the user; a panic comes out as [`Error::Panic`].
#[inline(always)]
pub(crate) fn catch<R>(call: impl FnOnce() -> R) -> Result<R> {
    // No state of the library is half changed where user code is called.
    catch_unwind(AssertUnwindSafe(call)).map_err(panicked)
}

/// Drops a user's value; a panic is reported as one in the drop of `what`.
pub(crate) fn let_go<T>(what: &str, value: T) {
    if std::mem::needs_drop::<T>() {
        if let Err(error) = catch(|| drop(value)) {
            report(&format!("Exception in the drop of {what}"), &error);
        }
    }
}

/// Drops each of `values` as [`let_go`] does, whichever of them panic.
pub(crate) fn let_go_all<T>(what: &str, values: impl IntoIterator<Item = T>) {
    call_all(&format_args!("the drop of {what}"), values, drop);
}

/// Calls the user with each of `items`; a panic is reported as one in `what`, and the others are called.
pub(crate) fn call_all<T>(
    what: &dyn fmt::Display,
    items: impl IntoIterator<Item = T>,
    mut call: impl FnMut(T),
) {
    let mut items = items.into_iter();
    while let Err(error) = catch(|| items.by_ref().for_each(&mut call)) {
        report(&format!("Exception in {what}"), &error);
    }
}

/// Wakes a waker, which may be anybody's; a panic is reported.
#[inline]
pub(crate) fn wake(waker: &Waker) {
    if let Err(error) = catch(|| waker.wake_by_ref()) {
        report("Exception in a waker", &error);
    }
}

/// Reports the panics of what the driver has dropped: the owners of bytes that were written, or given back.
#[inline]
pub(crate) fn report_drops() {
    if has_drop_panics() {
        report_all_drops();
    }
}

#[cold]
fn report_all_drops() {
    for payload in take_drop_panics() {
        report("Exception in the drop of bytes", &Error::Panic(text_of(payload)));
    }
}

/// The `Debug` text of `value`. That of a user's type may panic.
pub(crate) fn text(value: &dyn fmt::Display) -> String {
    catch(|| value.to_string()).unwrap_or_else(|_| String::from("an error that cannot be shown"))
}

/// A user's value that goes through the door when it is dropped, wherever that is.
pub(crate) struct Kept<T> {
    what: &'static str,
    /// `None` in the drop only.
    value: Option<T>,
}

impl<T> Kept<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        Self { what, value: Some(value) }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        let_go(self.what, self.value.take());
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is there until it is dropped")
    }
}

/// Reports what failed in here to the loop of this thread.
fn report(message: &str, error: &Error) {
    exception::report(running::reporting().as_ref(), &ExceptionContext::new(message).error(error));
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    Error::Panic(text_of(payload))
}

/// The message of a panic. Its payload is dropped.
fn text_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => {
            let text = payload.downcast_ref().copied().unwrap_or("a panic").to_owned();
            discard_panic(payload);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::panic_any;
    use std::rc::Rc;

    use super::*;
    use crate::EventLoop;

    /// Panics when it is dropped, with another such as payload.
    struct Endless;

    impl Drop for Endless {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[test]
    fn a_payload_that_panics_without_end_is_survived() {
        let error = catch(|| panic_any(Endless)).unwrap_err();
        assert_eq!(error.to_string(), "a panic");
        let_go("a value", Endless);
        drop(Kept::new("a value", Endless));
    }

    #[test]
    fn each_of_many_values_is_dropped_and_each_panic_reported() {
        struct Counted(Rc<Cell<u32>>, bool);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
                assert!(!self.1, "boom");
            }
        }
        let event_loop = EventLoop::new().unwrap();
        let messages = Rc::new(Cell::new(0));
        let count = Rc::clone(&messages);
        event_loop.set_exception_handler(move |_, context| {
            assert_eq!(context.message, "Exception in the drop of a value");
            count.set(count.get() + 1);
        });
        let dropped = Rc::new(Cell::new(0));
        let values = (0..6).map(|number| Counted(Rc::clone(&dropped), number % 2 == 0));
        let_go_all("a value", values.collect::<Vec<_>>());
        assert_eq!((dropped.get(), messages.get()), (6, 3));
    }

    #[test]
    fn a_value_that_cannot_be_shown_has_a_text_nevertheless() {
        struct Shy;
        impl fmt::Display for Shy {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("not now");
            }
        }
        assert_eq!(text(&Shy), "an error that cannot be shown");
    }
}
