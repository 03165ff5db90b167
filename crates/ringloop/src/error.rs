//! What a call of the library fails with.
//!
//! Errors of the system stay [`io::Error`]s with their errno; misuse is [`Error::State`] or
//! [`Error::InvalidArgument`] with asyncio's text, never a panic.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ringloop_driver::SetupError;

use crate::event_loop::door;

/// The result of most calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Misuse is an error too, never a panic, in every build.
///
/// ```
/// use ringloop::{Error, EventLoop};
///
/// let event_loop = EventLoop::new()?;
/// event_loop.close()?;
/// let error = event_loop.call_soon(|_| ()).unwrap_err();
/// assert!(matches!(error, Error::State(_)));
/// assert_eq!(error.to_string(), "Event loop is closed");
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The object cannot do this in the state that it is in: asyncio's `RuntimeError`, with its text.
    State(Cow<'static, str>),
    /// An argument that is never accepted: asyncio's `ValueError` and `TypeError`, with their text.
    InvalidArgument(Cow<'static, str>),
    /// This system, or this version of the library, cannot do it.
    Unsupported(Cow<'static, str>),
    /// A future was asked for a result that it does not have yet, or was completed a second time.
    InvalidState(Cow<'static, str>),
    /// What was awaited has been cancelled.
    Cancelled,
    /// A deadline passed first.
    Timeout,
    /// A task or a job panicked; this is the text of the panic.
    Panic(String),
    /// Ctrl-C ended the run of a [`Runner`](crate::Runner).
    Interrupted,
    /// [`EventLoop::request_exit`](crate::EventLoop::request_exit) ended the run.
    Exit(i32),
    /// The ring could not be made; it says why and what to do about it.
    Setup(Arc<SetupError>),
    /// The system refused.
    Io(io::Error),
    /// Several things failed: asyncio's `ExceptionGroup`.
    Multiple(Arc<ErrorGroup>),
    /// A separator was not found within the limit of a stream, or behind it: asyncio's `LimitOverrunError`.
    LimitOverrun {
        /// Which of the two.
        message: &'static str,
        /// How many bytes may be read before the next search: those before the separator, or in which there is none.
        consumed: usize,
    },
    /// A stream ended before all that was wanted had come: asyncio's `IncompleteReadError`.
    IncompleteRead {
        /// What had come.
        partial: Bytes,
        /// How many bytes were wanted; `None` if it was a separator.
        expected: Option<usize>,
    },
    /// An error of the user's own, on its way through a [`LoopFuture`](crate::LoopFuture).
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error of the user's own.
    ///
    /// ```
    /// let error = ringloop::Error::other("the disk is full");
    /// assert_eq!(error.to_string(), "the disk is full");
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(Arc::from(error.into()))
    }

    /// An error of this library or of the system that is in a box is found again.
    pub(crate) fn from_boxed(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(error) => return *error,
            Err(error) => error,
        };
        match error.downcast::<io::Error>() {
            Ok(error) => (*error).into(),
            Err(error) => Self::Other(Arc::from(error)),
        }
    }

    pub(crate) fn state(text: impl Into<Cow<'static, str>>) -> Self {
        Self::State(text.into())
    }

    pub(crate) fn invalid_argument(text: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidArgument(text.into())
    }

    pub(crate) fn invalid_state(text: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidState(text.into())
    }

    pub(crate) fn loop_closed() -> Self {
        Self::state("Event loop is closed")
    }

    /// Nothing would wake who waits on one loop for what happens on another.
    pub(crate) fn different_loop() -> Self {
        Self::state("Task got Future attached to a different loop")
    }

    /// A copy of an error that somebody else has, too.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => Self::clone(error),
            None => Self::Io(clone_io(error)),
        }
    }

    /// The number (errno) of the system's refusal, if this is one.
    ///
    /// ```
    /// let refused = std::io::Error::from_raw_os_error(111);
    /// assert_eq!(ringloop::Error::from(refused).raw_os_error(), Some(111));
    /// assert_eq!(ringloop::Error::Timeout.raw_os_error(), None);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(text)
            | Self::InvalidArgument(text)
            | Self::Unsupported(text)
            | Self::InvalidState(text) => f.write_str(text),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Timeout => f.write_str("timed out"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Panic(text) => f.write_str(text),
            Self::Exit(code) => write!(f, "exit with code {code} was requested"),
            Self::Setup(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Multiple(group) => group.fmt(f),
            Self::LimitOverrun { message, .. } => f.write_str(message),
            Self::IncompleteRead { partial, expected } => {
                write!(f, "{} bytes read on a total of ", partial.len())?;
                match expected {
                    Some(expected) => write!(f, "{expected} expected bytes"),
                    None => f.write_str("undefined expected bytes"),
                }
            }
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Setup(error) => Some(&**error),
            Self::Io(error) => error.source(),
            Self::Multiple(group) => group.source(),
            Self::Other(error) => error.source(),
            _ => None,
        }
    }
}

/// Several errors under one message: what [`Error::Multiple`] holds.
///
/// ```
/// use ringloop::{Error, ErrorGroup};
///
/// let group = ErrorGroup::new("no address answers", [Error::Timeout, Error::other("refused")]);
/// assert_eq!(group.to_string(), "no address answers (2 sub-exceptions): timed out, refused");
/// ```
#[derive(Debug)]
pub struct ErrorGroup {
    message: Cow<'static, str>,
    errors: Vec<Error>,
}

impl ErrorGroup {
    /// A group of `errors`.
    pub fn new(
        message: impl Into<Cow<'static, str>>,
        errors: impl IntoIterator<Item = impl Into<Error>>,
    ) -> Self {
        Self { message: message.into(), errors: errors.into_iter().map(Into::into).collect() }
    }

    /// What the errors have in common.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The errors, in the order in which they came.
    ///
    /// ```
    /// use ringloop::{Error, ErrorGroup};
    ///
    /// let group = ErrorGroup::new("no address answers", [Error::Timeout]);
    /// assert_eq!(group.message(), "no address answers");
    /// assert!(matches!(group.errors(), [Error::Timeout]));
    /// ```
    #[must_use]
    pub fn errors(&self) -> &[Error] {
        &self.errors
    }
}

impl fmt::Display for ErrorGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.errors.len() == 1 { "" } else { "s" };
        write!(f, "{} ({} sub-exception{s})", self.message, self.errors.len())?;
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { ": " } else { ", " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorGroup {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.errors.first()?)
    }
}

impl From<ErrorGroup> for Error {
    fn from(group: ErrorGroup) -> Self {
        Self::Multiple(Arc::new(group))
    }
}

/// A future may be awaited in several places, and each gets its error.
///
/// An [`io::Error`] that carries more than an errno is copied as its kind and its text.
impl Clone for Error {
    fn clone(&self) -> Self {
        match self {
            Self::State(text) => Self::State(text.clone()),
            Self::InvalidArgument(text) => Self::InvalidArgument(text.clone()),
            Self::Unsupported(text) => Self::Unsupported(text.clone()),
            Self::InvalidState(text) => Self::InvalidState(text.clone()),
            Self::Cancelled => Self::Cancelled,
            Self::Timeout => Self::Timeout,
            Self::Interrupted => Self::Interrupted,
            Self::Panic(text) => Self::Panic(text.clone()),
            Self::Exit(code) => Self::Exit(*code),
            Self::Setup(error) => Self::Setup(Arc::clone(error)),
            Self::Io(error) => Self::Io(clone_io(error)),
            Self::Multiple(group) => Self::Multiple(Arc::clone(group)),
            Self::LimitOverrun { message, consumed } => {
                Self::LimitOverrun { message, consumed: *consumed }
            }
            Self::IncompleteRead { partial, expected } => {
                Self::IncompleteRead { partial: partial.clone(), expected: *expected }
            }
            Self::Other(error) => Self::Other(Arc::clone(error)),
        }
    }
}

/// What it carries beyond an errno is a user's, and so is how that shows itself.
pub(crate) fn clone_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), door::text(error)),
    }
}

/// An [`Error`] that went through an [`io::Error`] is found again.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(error) => error,
            Err(error) => Self::Io(error),
        }
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        Self::Setup(Arc::new(error))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::InvalidArgument(_) => io::ErrorKind::InvalidInput,
            Error::Unsupported(_) => io::ErrorKind::Unsupported,
            Error::Timeout => io::ErrorKind::TimedOut,
            Error::IncompleteRead { .. } => io::ErrorKind::UnexpectedEof,
            Error::LimitOverrun { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
