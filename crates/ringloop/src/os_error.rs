//! Errors of the system that say what was tried.

use std::fmt;
use std::io;

/// A refusal of the system with what was tried, as asyncio words it; inside an [`io::Error`] of the errno's kind.
///
/// ```
/// use ringloop::{Error, OsError, Target};
///
/// let error = ringloop::run(async {
///     let event_loop = ringloop::EventLoop::running()?;
///     let target = Target::new("127.0.0.1", 1); // Nobody listens there.
///     event_loop.create_connection(|| ringloop::Exclusive::new(()), target).await.map(drop)
/// })?
/// .unwrap_err();
/// let Error::Io(error) = error else { panic!("{error}") };
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(OsError::errno_of(&error), Some(111));
/// assert_eq!(error.to_string(), "[Errno 111] Connect call failed ('127.0.0.1', 1)");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OsError {
    errno: i32,
    text: String,
}

impl OsError {
    /// The errno of `error`, whether it carries words or not.
    pub fn errno_of(error: &io::Error) -> Option<i32> {
        error.raw_os_error().or_else(|| {
            let inner = error.get_ref()?.downcast_ref::<Self>()?;
            Some(inner.errno)
        })
    }

    /// Puts `text` in the place of the system's words. An error without an errno only gets the new words.
    pub(crate) fn reword(error: &io::Error, text: String) -> io::Error {
        match Self::errno_of(error) {
            Some(errno) => io::Error::new(error.kind(), Self { errno, text }),
            None => io::Error::new(error.kind(), text),
        }
    }

    /// What the system says about an errno, in lower case and without the number.
    pub(crate) fn reason(error: &io::Error) -> String {
        let text = error.to_string().to_lowercase();
        match text.split_once(" (os error") {
            Some((reason, _)) => reason.to_owned(),
            None => text,
        }
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[Errno {}] {}", self.errno, self.text)
    }
}

impl std::error::Error for OsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reworded_error_keeps_kind_and_errno() {
        let error = io::Error::from_raw_os_error(libc::EADDRINUSE);
        assert_eq!(OsError::reason(&error), "address already in use");
        let error = OsError::reword(&error, "cannot bind".to_owned());
        assert_eq!(error.to_string(), "[Errno 98] cannot bind");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(OsError::errno_of(&error), Some(libc::EADDRINUSE));
    }
}
