//! Lines, one after the other.

use std::fmt;
#[cfg(feature = "futures-io")]
use std::task::{Context, Poll, ready};

use ringloop_driver::Received;

use super::reader::StreamReader;
#[cfg(feature = "futures-io")]
use crate::Error;
use crate::Result;

/// The lines of a stream: what [`StreamReader::lines`] gives.
///
/// ```
/// # ringloop::run(async {
/// let reader = ringloop::StreamReader::new(100)?;
/// reader.feed_data(b"one\ntwo")?;
/// reader.feed_eof();
/// let mut lines = reader.lines();
/// assert_eq!(lines.next_line().await?.unwrap(), b"one\n");
/// assert_eq!(lines.next_line().await?.unwrap(), b"two");
/// assert!(lines.next_line().await?.is_none());
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct Lines<'a> {
    reader: &'a StreamReader,
    /// As a `Stream`: nothing comes any more.
    #[cfg(feature = "futures-io")]
    is_over: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(reader: &'a StreamReader) -> Self {
        Self {
            reader,
            #[cfg(feature = "futures-io")]
            is_over: false,
        }
    }

    /// The next line with its newline, which the last may lack; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`StreamReader::read_line`]; after a line that was too long the next ones may be read.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has taken nothing.
    pub async fn next_line(&mut self) -> Result<Option<Received>> {
        let line = self.reader.read_line().await?;
        Ok(Some(line).filter(|line| !line.is_empty()))
    }

    /// As [`next_line`](Self::next_line), for who polls until nothing comes any more: an error that each further call would give
    /// again comes once.
    #[cfg(feature = "futures-io")]
    pub(super) fn poll_next_line(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Received>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let line = ready!(self.reader.poll_line(cx));
        // A line that was too long is over, and the next one may be read.
        self.is_over = match &line {
            Ok(line) => line.is_empty(),
            Err(error) => !matches!(error, Error::InvalidArgument(_)),
        };
        Poll::Ready(line.map(|line| Some(line).filter(|line| !line.is_empty())).transpose())
    }
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(self.reader).finish()
    }
}
