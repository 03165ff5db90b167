//! asyncio on io_uring: the event loop, transports and protocols of Python's standard library in Rust, for Linux.
//!
//! A server that sends each line back, and a client of it:
//!
//! ```
//! use ringloop::{Result, StreamReader, StreamWriter, open_connection, start_server};
//!
//! async fn echo(reader: StreamReader, writer: StreamWriter) -> Result<()> {
//!     loop {
//!         let line = reader.read_line().await?;
//!         if line.is_empty() {
//!             break; // The client has closed its side.
//!         }
//!         writer.write(line)?;
//!         writer.drain().await?; // Waits while the client does not read.
//!     }
//!     writer.close();
//!     writer.wait_closed().await
//! }
//!
//! async fn talk() -> Result<()> {
//!     let server = start_server(echo, ("127.0.0.1", 0)).await?;
//!     let (reader, writer) = open_connection(server.local_addr().unwrap()).await?;
//!     writer.write("hello\n")?;
//!     assert_eq!(reader.read_line().await?, b"hello\n");
//!     writer.close();
//!     writer.wait_closed().await?;
//!     server.close();
//!     server.wait_closed().await
//! }
//!
//! ringloop::run(talk())??;
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! Streams like these are the highest of three layers. Below are transports and protocols, whose callbacks the loop makes
//! as bytes come and go ([`EventLoop::create_server`], [`Protocol`]), and the loop itself ([`EventLoop::call_soon`],
//! [`EventLoop::add_reader`]).
//!
//! # Features
//!
//! `futures-io` and `tokio-io` give streams the reading and writing traits of those crates, so that their codecs and copies
//! work on them ([`StreamPair`]). Neither needs a runtime. `macros` gives `#[ringloop::main]` and `#[ringloop::test]`. With
//! `tracing` reports and warnings are records of that crate, instead of lines on stderr.
//!
//! # Threads
//!
//! One loop runs on one thread. Rust futures are its coroutines:
//!
//! ```
//! use std::time::Duration;
//!
//! let answer = ringloop::run(async {
//!     let task = ringloop::spawn(async {
//!         ringloop::sleep(Duration::from_millis(1)).await;
//!         6 * 7
//!     });
//!     task.await
//! })??;
//! assert_eq!(answer, 42);
//! # Ok::<(), ringloop::Error>(())
//! ```
#![forbid(unsafe_code)]

mod address;
mod endpoint;
mod error;
mod event_loop;
mod os_error;
mod readiness;
mod socket;
mod source;
mod streams;
mod sync;
mod tasks;
mod transport;

pub use address::Address;
pub use endpoint::{ConnectFuture, Connector, Listen, Server, Target, UnixListen, UnixTarget};
pub use error::{Error, ErrorGroup, Result};
pub use event_loop::{
    Cancelled, ContextValues, ContextVar, DoneCallback, EventLoop, EventLoopBuilder,
    ExceptionContext, ExceptionHandler, Executor, Handle, Job, LoopFuture, LoopProxy, LoopRef,
    LoopStats, ManualClock, RemoteTask, RunningHandle, Subject, Task, TaskRef, ThreadPool,
    TimerHandle, catch_cancel, copy_context, current_task,
};
pub use os_error::OsError;
pub use readiness::AsyncFd;
#[doc(no_inline)]
pub use ringloop_driver::{Chunk, Received, SendBuffer};
#[doc(no_inline)]
pub use ringloop_driver::{
    Counters, DriverChoice, DriverConfig, DriverInfo, DriverKind, Features, RingCounters,
    SetupError,
};
/// Runs `async fn main()` on a loop, with a [`Runner`]: Ctrl-C asks it to end.
///
/// What it returns, `main` returns. If there can be no loop, the process says why and exits with 1; after a panic it exits
/// with 101, after Ctrl-C with 130.
///
/// ```
/// #[ringloop::main]
/// async fn main() -> Result<(), ringloop::Error> {
///     ringloop::sleep(std::time::Duration::from_millis(1)).await;
///     Ok(())
/// }
/// ```
#[cfg(feature = "macros")]
pub use ringloop_macros::main;
/// Runs an `async fn` as a test, on a loop of its own.
///
/// A test that leaves something behind on the loop fails, and says what: a task, a transport or a server, a job, a received
/// buffer that is still lent.
///
/// ```
/// #[ringloop::test]
/// async fn it_sleeps() {
///     ringloop::sleep(std::time::Duration::from_millis(1)).await;
/// }
/// ```
#[cfg(feature = "macros")]
pub use ringloop_macros::test;
pub use socket::{
    AddrInfo, AddrRequest, Destination, ResolveFuture, Resolver, SendFile, Socket, Unclaimed,
};
pub use streams::{
    HandlerOutput, Lines, StreamPair, StreamReader, StreamWriter, open_connection,
    open_unix_connection, start_server, start_unix_server,
};
pub use sync::{
    Barrier, BoundedSemaphore, Condition, Event, GetNowaitError, LifoQueue, Lock, LockGuard,
    Permit, PriorityQueue, PutError, PutNowaitError, Queue, QueueShutDown, Semaphore,
};
#[cfg(feature = "macros")]
#[doc(hidden)]
pub use tasks::{__main, __test};
pub use tasks::{
    AsCompleted, Gather, JoinSet, MayFail, ReturnWhen, Runner, Shield, Sleep, TaskGroup, Waitable,
    Waited, YieldNow, as_completed, gather, run, run_in_executor, shield, sleep, sleep_until,
    spawn, timeout, timeout_at, wait, wait_for, yield_now,
};
pub use transport::{
    AfterEof, Buffered, BufferedProtocol, Exclusive, Handler, IntoProtocol, Protocol,
    ProtocolError, ProtocolRef, ProtocolResult, Transport, TransportSocket, Upgrade, WriteMode,
    extra_info,
};
#[cfg(feature = "testing")]
pub use transport::{AnyProtocol, AnyTransport, StreamTransport, TransportBase};
