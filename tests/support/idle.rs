//! Giving up control: for a number of iterations, or until nothing more happens.

use std::cell::Cell;
use std::thread;

use ringloop::{EventLoop, yield_now};
use socket2::Socket;

use crate::sockets::{self, End};

/// Gives up control `iterations` times; after [`be_patient`], more than once means until nothing more happens.
pub async fn turn(iterations: usize) {
    if iterations > 1 && PATIENT.get() {
        return settle().await;
    }
    for _ in 0..iterations {
        yield_now().await;
    }
}

/// From now on, in this thread, what is to happen within some iterations is waited for: completions may come late.
pub fn be_patient() {
    PATIENT.set(true);
}

/// Returns when the loop has nothing more to do: in some iterations in a row nothing but this was ready, and the kernel had
/// nothing to report. In their middle other threads get the processor, the kernel's own among them.
///
/// Timers that are not due and other threads count for nothing: wait for what they do.
pub async fn settle() {
    let event_loop = EventLoop::running().unwrap();
    let mut completions = event_loop.counters().completed;
    let mut quiet = 0;
    while quiet < QUIET {
        if quiet == QUIET / 2 {
            thread::yield_now();
        }
        yield_now().await;
        // Whatever else ran in this iteration was in the queue at the last step or is at this one.
        let others = event_loop.stats().ready;
        let last = std::mem::replace(&mut completions, event_loop.counters().completed);
        quiet = if others == 0 && completions == last { quiet + 1 } else { 0 };
    }
}

/// Receives on `socket` until the end, giving up control when nothing is there.
pub async fn drain_all(socket: &Socket) -> (Vec<u8>, End) {
    let mut data = Vec::new();
    loop {
        let (more, end) = sockets::drain(socket);
        data.extend(more);
        if end != End::Again {
            return (data, end);
        }
        thread::yield_now();
        yield_now().await;
    }
}

/// Receives on `socket` until `length` bytes are there, giving up control after each attempt.
pub async fn drain_exactly(socket: &Socket, length: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < length {
        data.extend(sockets::drain(socket).0);
        thread::yield_now();
        yield_now().await;
    }
    data
}

thread_local! {
    static PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// How many such iterations.
const QUIET: usize = 8;
