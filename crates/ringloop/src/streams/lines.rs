//! Lines, one after the other.

use std::fmt;
#[cfg(feature = "futures-io")]
use std::task::{Context, Poll};

use ringloop_driver::Received;

use super::reader::StreamReader;
use crate::Result;

/// The lines of a stream: what [`StreamReader::lines`] gives.
pub struct Lines<'a> {
    reader: &'a StreamReader,
}

impl<'a> Lines<'a> {
    pub(super) fn new(reader: &'a StreamReader) -> Self {
        Self { reader }
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

    /// As [`StreamReader::read_line`], for who polls.
    #[cfg(feature = "futures-io")]
    pub(super) fn poll_line(&self, cx: &Context<'_>) -> Poll<Result<Received>> {
        self.reader.poll_line(cx)
    }
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(self.reader).finish()
    }
}
