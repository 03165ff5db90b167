//! The server on ringloop: a protocol per connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use peers_common::{BACKLOG, BUFFER, Check, SOURCE_BLOCKS, source};
use ringloop::{
    AfterEof, DriverChoice, DriverConfig, Error, EventLoop, Listen, LoopFuture, Protocol,
    ProtocolResult, Received, Result, Server, Socket, StreamReader, StreamWriter, Transport,
    WriteMode, start_server,
};

use super::{Face, Stats};
use crate::cell::{Mode, SMALL};
use crate::failure::Failure;

/// How ringloop is to work.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) write_mode: WriteMode,
    pub(super) driver: DriverChoice,
}

/// Does what the mode says, written with this face.
pub(super) fn serve(
    listener: socket2::Socket,
    setup: Setup,
    face: Face,
    mode: Mode,
    verify: bool,
) -> std::result::Result<Stats, Failure> {
    match (face, mode) {
        (Face::Streams, Mode::Lines) => streams(listener, setup, answer_lines),
        (Face::Streams, _) => streams(listener, setup, echo_stream),
        (Face::Sock, _) => sock(listener, setup),
        (_, Mode::Small) => protocol(listener, setup, || Small),
        (_, Mode::Receive) if verify => protocol(listener, setup, Verify::default),
        (_, Mode::Receive) => protocol(listener, setup, || Sink),
        (_, Mode::Send) => {
            let bytes = Bytes::from(source());
            protocol(listener, setup, move || Source::new(bytes.clone()))
        }
        (_, Mode::FanOut) => {
            let everyone = Everyone::default();
            protocol(listener, setup, move || FanOut(Rc::clone(&everyone)))
        }
        (Face::Protocol | Face::Exact | Face::Buffered | Face::Large, _) => {
            protocol(listener, setup, || Echo)
        }
    }
}

fn protocol<P: Protocol + 'static>(
    listener: socket2::Socket,
    setup: Setup,
    factory: impl Fn() -> P + 'static,
) -> std::result::Result<Stats, Failure> {
    run(listener, setup, async |event_loop, listen| event_loop.create_server(factory, listen).await)
}

/// Runs `handler` for each connection.
fn streams<F: Future<Output = Result<()>> + 'static>(
    listener: socket2::Socket,
    setup: Setup,
    handler: fn(StreamReader, StreamWriter) -> F,
) -> std::result::Result<Stats, Failure> {
    run(listener, setup, async |_, listen| start_server(handler, listen).await)
}

/// Sends everything back, by socket calls.
fn sock(listener: socket2::Socket, setup: Setup) -> std::result::Result<Stats, Failure> {
    finish_with(setup, async {
        let event_loop = EventLoop::running()?;
        let stop = stop_signal(&event_loop)?;
        let listener = Socket::from(listener);
        let accepting = event_loop.create_task(async move {
            while let Ok((client, _)) = listener.accept().await {
                drop(ringloop::spawn(echo_calls(client)));
                ringloop::yield_now().await;
            }
        });
        stop.await?;
        accepting.cancel();
        Ok(counted(&event_loop))
    })
}

async fn echo_calls(client: Socket) -> Result<()> {
    loop {
        let data = client.recv(BUFFER).await?;
        if data.is_empty() {
            return Ok(());
        }
        client.sendall(data).await?;
    }
}

/// Sends everything back.
async fn echo_stream(reader: StreamReader, writer: StreamWriter) -> Result<()> {
    loop {
        let data = reader.read(BUFFER).await?;
        if data.is_empty() {
            return finish(writer).await;
        }
        writer.write(data)?;
        writer.drain().await?;
    }
}

/// Answers each line with itself.
async fn answer_lines(reader: StreamReader, writer: StreamWriter) -> Result<()> {
    loop {
        let line = reader.read_line().await?;
        if line.is_empty() {
            return finish(writer).await;
        }
        writer.write(&*line)?;
        writer.drain().await?;
    }
}

async fn finish(writer: StreamWriter) -> Result<()> {
    writer.close();
    writer.wait_closed().await
}

fn run(
    listener: socket2::Socket,
    setup: Setup,
    start: impl AsyncFnOnce(&EventLoop, Listen) -> Result<Server>,
) -> std::result::Result<Stats, Failure> {
    finish_with(setup, attend(listener, setup.write_mode, start))
}

fn finish_with(
    setup: Setup,
    serve: impl Future<Output = Result<Stats>>,
) -> std::result::Result<Stats, Failure> {
    let driver = DriverConfig { driver: setup.driver, ..DriverConfig::default() };
    let builder = EventLoop::builder().driver(driver);
    builder.run(serve).and_then(|stats| stats).map_err(|error| match error {
        Error::Setup(error) => {
            Failure::Cannot { error: error.cause().to_owned(), remedy: error.remedy().to_owned() }
        }
        other => Failure::new("server ringloop", &io::Error::other(other)),
    })
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }

    // As the other servers here do: a client that does not read is not read from.
    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }
}

/// Answers in small writes.
struct Small;

impl Protocol for Small {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        for piece in data.chunks(SMALL) {
            transport.write(piece)?;
        }
        Ok(())
    }
}

/// Reads, and answers nothing.
struct Sink;

impl Protocol for Sink {
    fn data_received(&self, _: &Transport, _: Received) -> ProtocolResult {
        Ok(())
    }
}

/// Reads, compares, and answers the end of the stream by what came and how much of it was wrong.
#[derive(Default)]
struct Verify(RefCell<Check>);

impl Protocol for Verify {
    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        self.0.borrow_mut().see(&data);
        Ok(())
    }

    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        transport.write(&self.0.borrow().answer())?;
        Ok(AfterEof::Close)
    }
}

/// Sends whenever there is room.
struct Source {
    bytes: Bytes,
    /// Which block of it is the next.
    block: Cell<usize>,
    paused: Cell<bool>,
}

impl Source {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, block: Cell::new(0), paused: Cell::new(false) }
    }

    fn pour(&self, transport: &Transport) {
        while !self.paused.get() && !transport.is_closing() {
            let block = self.block.get();
            self.block.set((block + 1) % SOURCE_BLOCKS);
            let bytes = self.bytes.slice(block * BUFFER..(block + 1) * BUFFER);
            let _ = transport.write(bytes); // On a lost connection it does nothing.
        }
    }
}

impl Protocol for Source {
    fn connection_made(&self, transport: &Transport) {
        self.pour(transport);
    }

    fn pause_writing(&self, _: &Transport) {
        self.paused.set(true);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.paused.set(false);
        self.pour(transport);
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        self.paused.set(true);
    }
}

type Everyone = Rc<RefCell<Vec<Transport>>>;

/// Sends to everybody what anybody sends.
struct FanOut(Everyone);

impl Protocol for FanOut {
    fn connection_made(&self, transport: &Transport) {
        self.0.borrow_mut().push(transport.clone());
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        for other in self.0.borrow().iter() {
            other.write(data.clone())?;
        }
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        self.0.borrow_mut().retain(|other| !other.is_closing());
    }
}

async fn attend(
    listener: socket2::Socket,
    mode: WriteMode,
    start: impl AsyncFnOnce(&EventLoop, Listen) -> Result<Server>,
) -> Result<Stats> {
    let event_loop = EventLoop::running()?;
    // A client that resets its connection ends its handler by an error, which is no news here.
    event_loop.set_exception_handler(|_, _| {});
    let stop = stop_signal(&event_loop)?;
    let listen = Listen::from(listener).backlog(BACKLOG as u32).write_mode(mode);
    let server = start(&event_loop, listen).await?;
    stop.await?;
    server.close();
    server.abort_clients();
    server.wait_closed().await?;

    Ok(counted(&event_loop))
}

fn stop_signal(event_loop: &EventLoop) -> Result<LoopFuture<()>> {
    let stop = event_loop.create_future();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let stop = stop.clone();
        event_loop.add_signal_handler(signal, move |_| {
            let _ = stop.set_result(()); // The second signal changes nothing.
        })?;
    }
    Ok(stop)
}

fn counted(event_loop: &EventLoop) -> Stats {
    let counters = event_loop.counters();
    Stats {
        connections: counters.accepted,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        calls: Some(counters.rounds + counters.accepted * CALLS_PER_CONNECTION),
        rounds: counters.rounds,
        submitted: counters.submitted,
        completed: counters.completed,
        enobufs: counters.enobufs,
    }
}

/// Its close: what it calls besides `io_uring_enter`. Where somebody holds a handle at the end, the kernel is asked for both addresses.
const CALLS_PER_CONNECTION: u64 = 1;
