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
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

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
        link.is_handled.set(true);
        drop(event_loop.create_task(run(body, transport, link))); // It goes on by itself.
    }
}

async fn run<F: Future<Output: HandlerOutput>>(body: F, transport: Transport, link: Rc<Link>) {
    let mut body = pin!(body);
    // Dropped before the body, which has the writer: so a handler that is cancelled closes its connection.
    let mut guard = CloseOnDrop(Some((&transport, &link)));
    let ended = poll_fn(|cx| match catch(|| body.as_mut().poll(cx).map(F::Output::into_error)) {
        Ok(ended) => ended,
        Err(panic) => Poll::Ready(Some(panic.into())),
    })
    .await;
    guard.0 = None;
    link.is_handled.set(false);
    match ended {
        Some(error) if is_cancellation(&*error) => transport.close(),
        Some(error) => {
            if let Some(event_loop) = EventLoop::current() {
                let message = "Unhandled exception in client_connected_cb";
                let context = ExceptionContext::new(message).error(&*error);
                event_loop.call_exception_handler(&context.transport(&transport));
            }
            transport.close();
        }
        None if link.is_unclosed.get() => super::writer::warn_unclosed(&transport),
        None => {}
    }
}

/// What it awaited was cancelled, and it has passed that on: it ends as one that is cancelled itself.
fn is_cancellation(error: &(dyn StdError + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Error::Cancelled))
}

/// While the handler runs.
struct CloseOnDrop<'a>(Option<(&'a Transport, &'a Link)>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((transport, link)) = self.0 {
            link.is_handled.set(false);
            transport.close();
        }
    }
}
