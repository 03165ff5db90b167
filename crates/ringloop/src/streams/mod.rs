//! Streams: reading and writing in straight-line code, on top of transports and protocols.
//!
//! # The life of a stream
//!
//! ```text
//! open_connection, start_server -> reader and writer -> read .. write .. drain -> close -> wait_closed
//! ```
//!
//! A [`StreamProtocol`] feeds the reader with what the transport delivers, and notes for the writer when there is room and when
//! the connection has ended ([`Link`](link::Link)). All work on the bytes is done in the task that reads and writes.

mod buffer;
#[cfg(feature = "futures-io")]
mod futures_io;
mod handler;
mod lines;
mod link;
mod pair;
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
mod polling;
mod protocol;
mod reader;
mod search;
#[cfg(feature = "tokio-io")]
mod tokio_io;
mod writer;

use std::rc::Rc;

pub use self::handler::HandlerOutput;
pub use self::lines::Lines;
pub use self::pair::StreamPair;
use self::protocol::StreamProtocol;
use self::reader::DEFAULT_LIMIT;
pub use self::reader::StreamReader;
pub use self::writer::StreamWriter;
#[cfg(doc)]
use crate::Error;
use crate::endpoint::{Listen, Server, Target, UnixListen, UnixTarget};
use crate::{EventLoop, Result};

/// Connects, and gives both halves of the stream: asyncio's `open_connection()`.
///
/// `target` is an address, a socket that is connected already, or a [`Target`] with options, as for
/// [`create_connection`](EventLoop::create_connection).
///
/// ```
/// # use ringloop::{StreamReader, StreamWriter};
/// # async fn echo(reader: StreamReader, writer: StreamWriter) -> ringloop::Result<()> {
/// #     writer.write(reader.read_line().await?)?;
/// #     writer.close();
/// #     writer.wait_closed().await
/// # }
/// ringloop::run(async {
/// #   let server = ringloop::start_server(echo, ("127.0.0.1", 0)).await?;
/// #   let address = server.local_addr().unwrap();
///     let (reader, writer) = ringloop::open_connection(address).await?;
///     writer.write("hello\n")?;
///     assert_eq!(reader.read_line().await?, b"hello\n");
///     writer.close();
///     writer.wait_closed().await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::State`] outside of a running loop; else as [`create_connection`](EventLoop::create_connection).
///
/// # Cancel safety
///
/// Dropped at any point, what it opened is closed.
pub async fn open_connection(target: impl Into<Target>) -> Result<(StreamReader, StreamWriter)> {
    let event_loop = EventLoop::running()?;
    let mut target = target.into();
    let (reader, protocol) = connecting(target.limit.take())?;
    let (transport, protocol) = event_loop.create_connection(|| protocol, target).await?;
    let writer = StreamWriter::new(transport, Rc::clone(protocol.link()), &reader);
    Ok((reader, writer))
}

/// Connects to a Unix socket, and gives both halves of the stream: as [`open_connection`], for a path or a [`UnixTarget`].
///
/// # Errors
///
/// [`Error::State`] outside of a running loop; else as [`create_unix_connection`](EventLoop::create_unix_connection).
///
/// # Cancel safety
///
/// Dropped at any point, what it opened is closed.
///
/// ```
/// use ringloop::{Received, Result, open_unix_connection};
///
/// async fn ask(question: &str) -> Result<Received> {
///     let (reader, writer) = open_unix_connection("/run/example.sock").await?;
///     writer.write(question)?;
///     writer.write_eof()?;
///     let answer = reader.read_to_end().await?;
///     writer.close();
///     writer.wait_closed().await?;
///     Ok(answer)
/// }
/// ```
pub async fn open_unix_connection(
    target: impl Into<UnixTarget>,
) -> Result<(StreamReader, StreamWriter)> {
    let event_loop = EventLoop::running()?;
    let mut target = target.into();
    let (reader, protocol) = connecting(target.limit.take())?;
    let (transport, protocol) = event_loop.create_unix_connection(|| protocol, target).await?;
    let writer = StreamWriter::new(transport, Rc::clone(protocol.link()), &reader);
    Ok((reader, writer))
}

/// Listens, and runs `handler` as a task for each connection: asyncio's `start_server()`.
///
/// `handler` is an `async fn` that takes a [`StreamReader`] and a [`StreamWriter`], and returns nothing or a `Result`. If it
/// fails or panics, that goes to the loop's exception handler, and the connection is closed. `listen` is an address, a socket
/// that is bound already, or a [`Listen`] with options, as for [`create_server`](EventLoop::create_server).
///
/// ```
/// use ringloop::{Result, StreamReader, StreamWriter};
///
/// async fn echo(reader: StreamReader, writer: StreamWriter) -> Result<()> {
///     loop {
///         let data = reader.read(16 * 1024).await?;
///         if data.is_empty() {
///             break;
///         }
///         writer.write(data)?;
///         writer.drain().await?;
///     }
///     writer.close();
///     writer.wait_closed().await
/// }
///
/// ringloop::run(async {
///     let server = ringloop::start_server(echo, ("127.0.0.1", 0)).await?;
///     println!("listening on {}", server.local_addr().unwrap());
/// #   server.close();
///     server.wait_closed().await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::State`] outside of a running loop; else as [`create_server`](EventLoop::create_server).
///
/// # Cancel safety
///
/// Dropped before it is done, everything that it opened is closed.
pub async fn start_server<H, F>(handler: H, listen: impl Into<Listen>) -> Result<Server>
where
    H: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output: HandlerOutput> + 'static,
{
    let event_loop = EventLoop::running()?;
    let mut listen = listen.into();
    let factory = accepting(handler, listen.limit.take())?;
    event_loop.create_server(factory, listen).await
}

/// Listens on a Unix socket, and runs `handler` as a task for each connection: as [`start_server`], for a path or a
/// [`UnixListen`].
///
/// ```
/// # use ringloop::{Result, StreamReader, StreamWriter};
/// # async fn echo(reader: StreamReader, writer: StreamWriter) -> Result<()> {
/// #     writer.write(reader.read_line().await?)?;
/// #     writer.close();
/// #     writer.wait_closed().await
/// # }
/// # let path = std::env::temp_dir().join(format!("ringloop-stream-{}", std::process::id()));
/// ringloop::run(async {
///     let server = ringloop::start_unix_server(echo, &*path).await?;
///     let (reader, writer) = ringloop::open_unix_connection(&*path).await?;
///     writer.write("hello\n")?;
///     assert_eq!(reader.read_line().await?, b"hello\n");
///     writer.close();
///     server.close();
///     server.wait_closed().await
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::State`] outside of a running loop; else as [`create_unix_server`](EventLoop::create_unix_server).
///
/// # Cancel safety
///
/// Dropped before it is done, everything that it opened is closed.
pub async fn start_unix_server<H, F>(handler: H, listen: impl Into<UnixListen>) -> Result<Server>
where
    H: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output: HandlerOutput> + 'static,
{
    let event_loop = EventLoop::running()?;
    let mut listen = listen.into();
    let factory = accepting(handler, listen.limit.take())?;
    event_loop.create_unix_server(factory, listen).await
}

/// A reader, and the protocol that feeds it.
fn connecting(limit: Option<usize>) -> Result<(StreamReader, StreamProtocol)> {
    let reader = StreamReader::new(limit.unwrap_or(DEFAULT_LIMIT))?;
    let protocol = StreamProtocol::connecting(&reader);
    Ok((reader, protocol))
}

/// Makes a protocol for each connection of a server.
fn accepting<H, F>(
    handler: H,
    limit: Option<usize>,
) -> Result<impl Fn() -> Result<StreamProtocol> + 'static>
where
    H: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output: HandlerOutput> + 'static,
{
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    StreamReader::new(limit)?;
    let handler: Rc<dyn handler::Handler> = Rc::new(handler);
    Ok(move || StreamProtocol::accepting(limit, Rc::clone(&handler)))
}
