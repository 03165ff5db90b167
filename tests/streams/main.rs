//! Streams: readers and writers, by hand and over real sockets.

use std::rc::Rc;

use ringloop::{
    EventLoop, StreamReader, StreamWriter, Target, Task, Transport, WriteMode, open_connection,
};
use ringloop_tests::recorder::Recorder;
use ringloop_tests::trace::Trace;
use socket2::Socket;

mod attacks;
mod backpressure;
mod cancelled;
mod connections;
mod feeding;
mod handlers;
mod leases;
mod model;
mod reading;
mod traits;
mod unix;
mod wakers;
mod writing;

/// Both write modes, for what must not differ.
const MODES: [WriteMode; 2] = [WriteMode::Batched, WriteMode::Immediate];

fn running() -> EventLoop {
    EventLoop::running().unwrap()
}

/// A reader that the test feeds.
fn reader(limit: usize) -> Rc<StreamReader> {
    Rc::new(StreamReader::new(limit).unwrap())
}

/// Runs `body` as a task.
fn spawn<F: Future + 'static>(body: F) -> Task<F::Output> {
    running().create_task(body)
}

/// Both halves of a stream over `socket`.
async fn streams(socket: Socket) -> (Rc<StreamReader>, Rc<StreamWriter>) {
    streams_with(Target::from(socket)).await
}

async fn streams_with(target: Target) -> (Rc<StreamReader>, Rc<StreamWriter>) {
    let (reader, writer) = open_connection(target).await.unwrap();
    (Rc::new(reader), Rc::new(writer))
}

/// A transport that a reader may pause, and whose protocol only listens.
async fn transport(socket: Socket) -> (Transport, Rc<Recorder>) {
    let recorder = Recorder::new(&Trace::new(), WriteMode::Batched);
    running().create_connection(|| recorder, socket).await.unwrap()
}
