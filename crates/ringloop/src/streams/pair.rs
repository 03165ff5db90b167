//! Both halves of a stream in one value.

use super::reader::StreamReader;
use super::writer::StreamWriter;

/// Both halves of a stream in one value, for code that reads and writes through one, such as a `Framed`.
///
/// It implements the traits of `futures-io` and of tokio, where the features `futures-io` and `tokio-io` are on.
///
/// ```
/// use ringloop::{StreamPair, open_connection};
///
/// async fn connect() -> ringloop::Result<StreamPair> {
///     let stream = StreamPair::from(open_connection(("127.0.0.1", 8888)).await?);
///     let (_reader, writer) = stream.split();
///     writer.write("hello")?;
///     Ok(stream)
/// }
/// ```
#[derive(Debug)]
pub struct StreamPair {
    pub(super) reader: StreamReader,
    pub(super) writer: StreamWriter,
}

impl StreamPair {
    /// Joins the halves.
    pub fn new(reader: StreamReader, writer: StreamWriter) -> Self {
        Self { reader, writer }
    }

    /// Both halves, to be used side by side in one task.
    pub fn split(&self) -> (&StreamReader, &StreamWriter) {
        (&self.reader, &self.writer)
    }

    /// The halves, each for itself again.
    ///
    /// ```
    /// use ringloop::{StreamPair, StreamReader, StreamWriter};
    ///
    /// fn join_and_part(reader: StreamReader, writer: StreamWriter) -> (StreamReader, StreamWriter) {
    ///     StreamPair::new(reader, writer).into_split()
    /// }
    /// ```
    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl From<(StreamReader, StreamWriter)> for StreamPair {
    fn from((reader, writer): (StreamReader, StreamWriter)) -> Self {
        Self { reader, writer }
    }
}
