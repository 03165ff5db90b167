//! The server on a bare ring that makes the calls which exact socket calls oblige to, and no other.
//!
//! A call of asyncio's `sock_*` family is made at once: a send has sent when it returns, and a receive that finds something does not
//! give up control. Whether there is something, no ring tells without a call. So a connection waits by a poll, and each message
//! costs three calls: the receive that the poll has told of, the send, and the receive that finds nothing more. The polls of all
//! connections share one call. This is the limit of who keeps that promise; the bare ring of one-shot receives, which sends in
//! batches, is the limit of who does not.

use std::io::{self, ErrorKind, Read, Write};

use peers_common::BUFFER;
use socket2::Socket;

use super::Stats;
use crate::raw::{self, Completion, Interest, Offer, Ring, Sleep};

/// Sends everything back.
pub(super) fn serve(listener: &Socket) -> io::Result<Stats> {
    let stop = raw::termination()?;
    let mut ring = Ring::new(Box::default(), Offer::Window)?;
    ring.poll(STOP, &stop, Interest::Read);
    ring.accept(listener);
    let mut server = Server {
        ring,
        connections: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; BUFFER].into(),
        stats: Stats::default(),
        calls: 0,
    };
    let mut completions = Vec::with_capacity(COMPLETIONS);
    loop {
        server.ring.enter(Sleep::until_one())?;
        server.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { socket, more } => {
                    server.accepted(socket.into())?;
                    if !more {
                        server.ring.accept(listener);
                    }
                }
                Completion::AcceptEnded(error) => return Err(error),
                Completion::Ready { connection: STOP, .. } => return Ok(server.stats()),
                Completion::Ready { connection, .. } if connection & ROOM != 0 => {
                    server.has_room(connection & !ROOM);
                }
                Completion::Ready { connection, more } => server.ready(connection, more),
                other => unreachable!("{other:?} was not asked for"),
            }
        }
    }
}

struct Server {
    ring: Ring,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    buffer: Box<[u8]>,
    stats: Stats,
    /// Of sockets.
    calls: u64,
}

struct Connection {
    socket: Socket,
    /// What found no room. Until it is sent, nothing is received.
    unsent: Vec<u8>,
    waits_for_room: bool,
    /// Its poll is in flight.
    is_polled: bool,
    has_ended: bool,
}

impl Server {
    fn accepted(&mut self, socket: Socket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        self.ring.poll_many(index, &socket);
        self.connections[index as usize] = Some(Connection {
            socket,
            unsent: Vec::new(),
            waits_for_room: false,
            is_polled: true,
            has_ended: false,
        });
        self.stats.connections += 1;
        self.calls += CALLS_PER_CONNECTION;
        Ok(())
    }

    fn ready(&mut self, index: u32, more: bool) {
        let connection = self.connections[index as usize].as_mut().expect("it has a poll");
        connection.is_polled = more;
        self.answer(index);
    }

    fn has_room(&mut self, index: u32) {
        let connection = self.connections[index as usize].as_mut().expect("it has a poll");
        connection.waits_for_room = false;
        let bytes = std::mem::take(&mut connection.unsent);
        self.send(index, &bytes);
        self.answer(index);
    }

    /// Receives and sends until there is nothing more to receive, or no room.
    fn answer(&mut self, index: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let connection = self.connections[index as usize].as_mut().expect("it is there");
            if connection.has_ended || connection.waits_for_room {
                break;
            }
            self.calls += 1;
            match connection.socket.read(&mut buffer) {
                Ok(0) => connection.has_ended = true,
                Ok(count) => {
                    self.stats.bytes_in += count as u64;
                    self.send(index, &buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => connection.has_ended = true,
            }
        }
        self.buffer = buffer;
        self.go_on(index);
    }

    fn send(&mut self, index: u32, mut bytes: &[u8]) {
        let connection = self.connections[index as usize].as_mut().expect("it is there");
        while !bytes.is_empty() {
            self.calls += 1;
            match connection.socket.write(bytes) {
                Ok(count) => {
                    self.stats.bytes_out += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.unsent = bytes.to_vec();
                    connection.waits_for_room = true;
                    self.ring.poll(index | ROOM, &connection.socket, Interest::Write);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.has_ended = true;
                    return;
                }
            }
        }
    }

    /// Polls again what the kernel polls no more, and closes what has ended and is not polled any more.
    fn go_on(&mut self, index: u32) {
        let connection = self.connections[index as usize].as_mut().expect("it is there");
        match (connection.has_ended, connection.is_polled) {
            (false, true) => {}
            (false, false) => {
                connection.is_polled = true;
                self.ring.poll_many(index, &connection.socket);
            }
            (true, true) => self.ring.cancel_poll(index),
            (true, false) if connection.waits_for_room => {}
            (true, false) => {
                self.connections[index as usize] = None;
                self.free.push(index);
            }
        }
    }

    fn stats(&self) -> Stats {
        let calls = self.ring.calls();
        Stats {
            calls: Some(calls.enters + self.calls),
            rounds: calls.enters,
            submitted: calls.sqes,
            completed: calls.cqes,
            ..self.stats
        }
    }
}

/// Stands for the signals.
const STOP: u32 = u32::MAX;

/// Marks the poll for room.
const ROOM: u32 = 1 << 31;

/// Two that keep it from blocking, and its close.
const CALLS_PER_CONNECTION: u64 = 3;

const COMPLETIONS: usize = 4096;
