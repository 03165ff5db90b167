//! Handlers: what a server runs for each connection.
//!
//! # The life of a handler
//!
//! ```text
//! called inside connection_made() -> its future is a task -> done: nothing more
//!                                                         -> an error, a panic: reported, the connection is closed
//!                                                         -> cancelled: the connection is closed
//! ```

use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::link::Link;
use super::reader::StreamReader;
use super::writer::StreamWriter;
use crate::event_loop::door::catch;
use crate::transport::Transport;
use crate::{Error, EventLoop, ExceptionContext};

/// What a handler of connections may return: nothing, or a `Result`, whose error is reported and closes the connection.
///
/// ```
/// use ringloop::{Error, HandlerOutput};
///
/// assert!(().into_error().is_none());
/// assert!(Result::<(), Error>::Err(Error::Timeout).into_error().is_some());
/// ```
pub trait HandlerOutput {
    /// The error, if it is one.
    fn into_error(self) -> Option<Box<dyn StdError>>;
}

impl HandlerOutput for () {
    fn into_error(self) -> Option<Box<dyn StdError>> {
        None
    }
}

impl<T, E: Into<Box<dyn StdError>>> HandlerOutput for Result<T, E> {
    fn into_error(self) -> Option<Box<dyn StdError>> {
        self.err().map(Into::into)
    }
}

/// An `async fn(StreamReader, StreamWriter)` of the user's.
pub(super) trait Handler {
    fn handle(&self, reader: StreamReader, writer: StreamWriter);
}

impl<H, F> Handler for H
where
    H: Fn(StreamReader, StreamWriter) -> F,
    F: Future<Output: HandlerOutput> + 'static,
{
    fn handle(&self, reader: StreamReader, writer: StreamWriter) {
        let (transport, link) = (writer.transport().clone(), Rc::clone(writer.link()));
        let Some(event_loop) = EventLoop::current() else { return };
        let body = self(reader, writer);
        let connection = Handling::begin(transport, link);
        drop(event_loop.create_task(Handled { connection, body })); // It goes on by itself.
    }
}

pin_project! {
    /// The body of a handler's task. No `async fn`, which would hold the user's future twice: as what it is given, and as what it
    /// awaits.
    struct Handled<F> {
        // Dropped before the body, which has the writer: so a handler that is cancelled closes its connection.
        connection: Handling,
        #[pin]
        body: F,
    }
}

impl<F: Future<Output: HandlerOutput>> Future for Handled<F> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match catch(|| this.body.poll(cx).map(F::Output::into_error)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(error)) => this.connection.ended(error),
            Err(panic) => this.connection.ended(Some(panic.into())),
        }
        Poll::Ready(())
    }
}

/// The connection of a handler that runs, which is closed if that is dropped.
struct Handling {
    transport: Transport,
    link: Rc<Link>,
}

impl Handling {
    fn begin(transport: Transport, link: Rc<Link>) -> Self {
        link.is_handled.set(true);
        Self { transport, link }
    }

    /// The handler has ended, with this error if it has one.
    fn ended(&self, error: Option<Box<dyn StdError>>) {
        let Self { transport, link } = self;
        link.is_handled.set(false);
        match error {
            Some(error) if is_cancellation(&*error) => transport.close(),
            Some(error) => {
                if let Some(event_loop) = EventLoop::current() {
                    let message = "Unhandled exception in client_connected_cb";
                    let context = ExceptionContext::new(message).error(&*error);
                    event_loop.call_exception_handler(&context.transport(transport));
                }
                transport.close();
            }
            None if link.is_unclosed.get() => super::writer::warn_unclosed(transport),
            None => {}
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        if self.link.is_handled.replace(false) {
            self.transport.close();
        }
    }
}

/// What it awaited was cancelled, and it has passed that on: it ends as one that is cancelled itself.
fn is_cancellation(error: &(dyn StdError + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Error::Cancelled))
}
