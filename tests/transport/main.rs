//! Connections over real sockets: transports, servers, clients.

use std::rc::Rc;

use ringloop::{EventLoop, Target, Transport, WriteMode};
use ringloop_tests::recorder::Recorder;
use ringloop_tests::trace::Trace;
use socket2::Socket;

mod closing;
mod connections;
mod exclusive;
mod faults;
mod handle;
mod kinds;
mod layers;
mod lifetimes;
mod packets;
mod peers;
mod reading;
mod servers;
mod upgrades;
mod users_values;
mod writing;

/// Both write modes, for what must not differ.
const MODES: [WriteMode; 2] = [WriteMode::Batched, WriteMode::Immediate];

fn running() -> EventLoop {
    EventLoop::running().unwrap()
}

/// Connects `recorder` to a socket.
async fn attach(socket: Socket, recorder: Recorder) -> (Transport, Rc<Recorder>) {
    running().create_connection(|| recorder, Target::from(socket)).await.unwrap()
}

/// A recorder with batched writing, and its trace.
fn recorder() -> (Recorder, Trace) {
    recorder_with(WriteMode::Batched)
}

fn recorder_with(mode: WriteMode) -> (Recorder, Trace) {
    let trace = Trace::new();
    (Recorder::new(&trace, mode), trace)
}

/// The lines of a trace without their lane, which is the same in all.
fn events(trace: &Trace) -> Vec<String> {
    let lines = trace.lines();
    lines.iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}
