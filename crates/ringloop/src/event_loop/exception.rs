//! The exception handler: where errors are reported that no caller and no awaiting task gets.
//!
//! Every panic in a callback, every error that nobody looked at and every fatal error of a transport goes through
//! [`EventLoop::call_exception_handler`]. Without a handler of the user's it is one record on stderr.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::rc::Rc;

use super::door::{Kept, catch, let_go};
use super::{EventLoop, LoopRef};

/// A function that gets a report of everything that failed and that nobody awaits.
pub type ExceptionHandler = Rc<dyn Fn(&EventLoop, &ExceptionContext<'_>)>;

/// What failed, and where: asyncio's context dictionary.
///
/// ```
/// use ringloop::{Error, ExceptionContext};
///
/// let error = Error::other("no route");
/// let context = ExceptionContext::new("the report was not sent")
///     .error(&error)
///     .handle(&"a handle")
///     .task(&"a task")
///     .future(&"a future")
///     .transport(&"a transport")
///     .protocol(&"a protocol")
///     .socket(&7);
/// assert_eq!(context.error.unwrap().to_string(), "no route");
/// assert_eq!(context.socket.unwrap().as_any().downcast_ref(), Some(&7));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ExceptionContext<'a> {
    /// What happened.
    pub message: Cow<'a, str>,
    /// The error.
    pub error: Option<&'a (dyn StdError + 'static)>,
    /// The handle whose callback failed.
    pub handle: Option<&'a dyn Debug>,
    /// The task that failed.
    pub task: Option<&'a dyn Debug>,
    /// The future whose error nobody looked at.
    pub future: Option<&'a dyn Debug>,
    /// The transport that ends.
    pub transport: Option<&'a dyn Subject>,
    /// The protocol whose callback failed.
    pub protocol: Option<&'a dyn Subject>,
    /// The socket that failed.
    pub socket: Option<&'a dyn Subject>,
}

impl<'a> ExceptionContext<'a> {
    /// A context with nothing but a message.
    ///
    /// ```
    /// use ringloop::{EventLoop, ExceptionContext};
    ///
    /// let event_loop = EventLoop::new()?;
    /// event_loop.set_exception_handler(|_, context| assert_eq!(context.message, "no answer"));
    /// event_loop.call_exception_handler(&ExceptionContext::new("no answer"));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn new(message: impl Into<Cow<'a, str>>) -> Self {
        Self {
            message: message.into(),
            error: None,
            handle: None,
            task: None,
            future: None,
            transport: None,
            protocol: None,
            socket: None,
        }
    }

    /// Adds the error.
    #[must_use]
    pub fn error(mut self, error: &'a (dyn StdError + 'static)) -> Self {
        self.error = Some(error);
        self
    }

    /// Adds the handle.
    #[must_use]
    pub fn handle(mut self, handle: &'a dyn Debug) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Adds the task.
    #[must_use]
    pub fn task(mut self, task: &'a dyn Debug) -> Self {
        self.task = Some(task);
        self
    }

    /// Adds the future.
    #[must_use]
    pub fn future(mut self, future: &'a dyn Debug) -> Self {
        self.future = Some(future);
        self
    }

    /// Adds the transport.
    #[must_use]
    pub fn transport(mut self, transport: &'a dyn Subject) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Adds the protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: &'a dyn Subject) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Adds the socket.
    #[must_use]
    pub fn socket(mut self, socket: &'a dyn Subject) -> Self {
        self.socket = Some(socket);
        self
    }
}

/// The message, and a line for everything else that is known.
impl fmt::Display for ExceptionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let debugs = [("future", self.future), ("handle", self.handle), ("task", self.task)];
        for (key, value) in debugs {
            if let Some(value) = value {
                write!(f, "\n{key}: {value:?}")?;
            }
        }
        let subjects =
            [("protocol", self.protocol), ("socket", self.socket), ("transport", self.transport)];
        for (key, value) in subjects {
            if let Some(value) = value {
                write!(f, "\n{key}: {value:?}")?;
            }
        }
        match self.error {
            Some(error) => write!(f, "\nerror: {error}"),
            None => Ok(()),
        }
    }
}

impl Debug for ExceptionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExceptionContext")
            .field("message", &self.message)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// What a report is about: shown as text, or looked at as what it is.
///
/// ```
/// use ringloop::ExceptionContext;
///
/// let context = ExceptionContext::new("it ends").socket(&7);
/// let socket = context.socket.unwrap();
/// assert_eq!(format!("{socket:?}"), "7");
/// assert_eq!(socket.as_any().downcast_ref::<i32>(), Some(&7));
/// ```
pub trait Subject: Debug {
    /// For `downcast_ref`.
    fn as_any(&self) -> &dyn Any;
}

impl<T: Debug + 'static> Subject for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl EventLoop {
    /// Sends everything that fails and nobody awaits to `handler` instead of stderr.
    ///
    /// If the handler itself panics, the default handler reports that, and the loop goes on.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    ///
    /// let event_loop = ringloop::EventLoop::new()?;
    /// let seen = Rc::new(RefCell::new(Vec::new()));
    /// let log = Rc::clone(&seen);
    /// event_loop.set_exception_handler(move |_, context| {
    ///     log.borrow_mut().push(context.error.unwrap().to_string());
    /// });
    /// event_loop.call_soon(|_| panic!("oh"))?;
    /// event_loop.stop();
    /// event_loop.run_forever()?;
    /// assert_eq!(*seen.borrow(), ["oh"]);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn set_exception_handler(&self, handler: impl Fn(&Self, &ExceptionContext<'_>) + 'static) {
        self.replace_exception_handler(Some(Rc::new(handler)));
    }

    /// Goes back to the default handler.
    ///
    /// ```
    /// let event_loop = ringloop::EventLoop::new()?;
    /// event_loop.set_exception_handler(|event_loop, context| {
    ///     eprintln!("something failed:");
    ///     event_loop.default_exception_handler(context);
    /// });
    /// assert!(event_loop.exception_handler().is_some());
    /// event_loop.reset_exception_handler();
    /// assert!(event_loop.exception_handler().is_none());
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn reset_exception_handler(&self) {
        self.replace_exception_handler(None);
    }

    pub(super) fn replace_exception_handler(&self, handler: Option<ExceptionHandler>) {
        let old = self.inner.exception_handler.replace(handler);
        let_go("an exception handler", old); // Outside the borrow.
    }

    /// The handler that was set; `None` means the default one.
    #[must_use]
    pub fn exception_handler(&self) -> Option<ExceptionHandler> {
        self.inner.exception_handler.borrow().clone()
    }

    /// Reports an error that nobody awaits.
    ///
    /// This call neither fails nor panics: if the handler panics, the default handler reports that, with the message
    /// "Unhandled error in exception handler".
    ///
    /// ```
    /// use ringloop::{EventLoop, ExceptionContext};
    ///
    /// let event_loop = EventLoop::new()?;
    /// event_loop.call_exception_handler(&ExceptionContext::new("the cache is stale"));
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn call_exception_handler(&self, context: &ExceptionContext<'_>) {
        self.inner.stats.reports.add();
        let Some(handler) = self.exception_handler() else {
            return self.default_exception_handler(context);
        };
        let handler = Kept::new("an exception handler", handler); // It may have been replaced by itself.
        if let Err(error) = catch(|| handler(self, context)) {
            self.default_exception_handler(
                &ExceptionContext::new("Unhandled error in exception handler").error(&error),
            );
            self.default_exception_handler(context);
        }
    }

    /// Writes one record to stderr: the message, what else is known, and the error.
    pub fn default_exception_handler(&self, context: &ExceptionContext<'_>) {
        write_record(context);
    }

    /// Counts a warning, and writes it to stderr or to `tracing`: something that the user should mend (MAP-18).
    pub(crate) fn warn(&self, text: &str) {
        self.inner.stats.warnings.add();
        if cfg!(feature = "tracing") {
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "ringloop", "{text}");
        } else {
            write_line(text);
        }
    }
}

impl LoopRef {
    /// To the loop's handler, or to stderr when the loop is gone. For use in a drop.
    pub(crate) fn report(&self, context: &ExceptionContext<'_>) {
        report(self.upgrade().as_ref(), context);
    }
}

/// To the loop's handler, or to stderr where there is no loop.
pub(super) fn report(event_loop: Option<&EventLoop>, context: &ExceptionContext<'_>) {
    match event_loop {
        Some(event_loop) => event_loop.call_exception_handler(context),
        None => write_record(context),
    }
}

/// Writes a report. If the `Debug` of a user's value panics, the message alone is written.
fn write_record(context: &ExceptionContext<'_>) {
    let mut text = String::new();
    if !matches!(catch(|| write!(text, "{context}")), Ok(Ok(()))) {
        text = format!("{} (its context cannot be shown)", context.message);
    }
    if cfg!(feature = "tracing") {
        #[cfg(feature = "tracing")]
        tracing::error!(target: "ringloop::exception", what = %context.message, "{text}");
    } else {
        write_line(&text);
    }
}

/// Writes the text in one piece. If stderr is closed, the report is lost.
pub(super) fn write_line(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
