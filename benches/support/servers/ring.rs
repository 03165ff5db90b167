//! The server on a bare ring: what io_uring can do when no runtime stands in between.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use peers_common::{BUFFER, Check, SOURCE, source};
use socket2::{SockRef, Socket};

use super::{Face, Stats};
use crate::cell::Mode;
use crate::raw::{self, Chunk, Completion, Interest, Offer, Ring, Sleep};

/// Does what the mode says. A receive is armed until the stream ends, or for one piece of it, as a socket call's is.
///
/// The small writes of [`Mode::Small`] lie side by side, and go out as one.
pub(super) fn serve(listener: Socket, face: Face, mode: Mode, verify: bool) -> io::Result<Stats> {
    let receive = if face == Face::Sock { Ring::receive_once } else { Ring::receive };
    let stop = raw::termination()?;
    let source = if mode == Mode::Send { source() } else { Vec::new() };
    let mut ring = Ring::new(source.into(), Offer::Window)?;
    ring.poll(0, &stop, Interest::Read);
    ring.accept(&listener);
    let mut server = Server {
        ring,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        dirty: Vec::new(),
        starved: VecDeque::new(),
        stats: Stats::default(),
        closes: 0,
        receive,
        mode,
        verify,
        shared: None,
    };
    let mut completions = Vec::with_capacity(COMPLETIONS);
    loop {
        let sleep = if server.is_hungry() { Sleep::never() } else { Sleep::until_one() };
        server.ring.enter(sleep)?;
        server.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { connection, chunk, more } => {
                    server.received(connection, chunk, more);
                }
                Completion::Sent { connection, result } => server.sent(connection, result),
                Completion::ReceiveEnded { connection, result } => {
                    server.receive_ended(connection, result);
                }
                Completion::Accepted { socket, more } => server.accepted(socket, more),
                Completion::AcceptEnded(error) => return Err(error),
                Completion::Ready { .. } => return Ok(server.stats()),
            }
        }
        server.send();
        server.rearm();
    }
}

struct Server {
    ring: Ring,
    listener: Socket,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// Connections to send on in this iteration.
    dirty: Vec<u32>,
    /// Connections whose receive ended for want of buffers.
    starved: VecDeque<u32>,
    stats: Stats,
    closes: u64,
    receive: Receive,
    mode: Mode,
    verify: bool,
    /// What is on its way to everybody, and to how many still.
    shared: Option<(Chunk, usize)>,
}

/// How a receive is armed: [`Ring::receive`] or [`Ring::receive_once`].
type Receive = fn(&mut Ring, u32, &OwnedFd);

struct Connection {
    socket: OwnedFd,
    /// What is to be sent, or being sent.
    queue: VecDeque<Chunk>,
    sending: bool,
    receiving: bool,
    dirty: bool,
    starved: bool,
    /// Where in the source its stream is.
    place: usize,
    check: Option<Box<Check>>,
}

impl Server {
    fn accepted(&mut self, socket: OwnedFd, more: bool) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        (self.receive)(&mut self.ring, index, &socket);
        self.connections[index as usize] = Some(Connection {
            socket,
            queue: VecDeque::new(),
            sending: false,
            receiving: true,
            dirty: false,
            starved: false,
            place: 0,
            check: self.verify.then(Box::default),
        });
        self.stats.connections += 1;
        if self.mode == Mode::Send {
            self.pour(index);
        }
        if !more {
            self.ring.accept(&self.listener);
        }
    }

    fn received(&mut self, index: u32, chunk: Chunk, more: bool) {
        self.stats.bytes_in += chunk.len() as u64;
        match self.mode {
            Mode::Receive => {
                let connection = self.connections[index as usize].as_mut().expect("it receives");
                if let Some(check) = &mut connection.check {
                    check.see(self.ring.bytes(&chunk));
                }
                self.ring.give_back(chunk);
            }
            Mode::FanOut => self.spread(chunk),
            _ => self.queue(index, chunk),
        }
        let connection = self.connections[index as usize].as_mut().expect("it receives");
        if !more {
            (self.receive)(&mut self.ring, index, &connection.socket);
        }
    }

    fn queue(&mut self, index: u32, chunk: Chunk) {
        let connection = self.connections[index as usize].as_mut().expect("it receives");
        connection.queue.push_back(chunk);
        if !connection.sending && !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Sends the chunk to everybody. Another one does not come before all have this one.
    fn spread(&mut self, chunk: Chunk) {
        let mut receivers = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = connection.as_mut().filter(|connection| !connection.sending) {
                connection.sending = true;
                self.ring.send(index as u32, &connection.socket, std::iter::once(&chunk));
                receivers += 1;
            }
        }
        match self.shared.take() {
            None => self.shared = Some((chunk, receivers)),
            Some(before) => {
                self.shared = Some((before.0, before.1 + receivers));
                self.ring.give_back(chunk);
            }
        }
    }

    fn pour(&mut self, index: u32) {
        let connection = self.connections[index as usize].as_mut().expect("it sends");
        connection.sending = true;
        let (place, len) = (connection.place, BUFFER - connection.place % BUFFER);
        self.ring.send_source(index, &connection.socket, place, len);
    }

    fn receive_ended(&mut self, index: u32, result: io::Result<()>) {
        let connection = self.connections[index as usize].as_mut().expect("it receives");
        connection.receiving = false;
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.stats.enobufs += 1;
                connection.starved = true;
                self.starved.push_back(index);
            }
            Err(_) => self.discard(index),
            Ok(()) => {
                if let Some(check) = &connection.check {
                    let _ = SockRef::from(&connection.socket).send(&check.answer());
                }
            }
        }
        self.release(index);
    }

    fn sent(&mut self, index: u32, result: io::Result<u32>) {
        let connection = self.connections[index as usize].as_mut().expect("it sends");
        connection.sending = false;
        match result {
            Ok(count) if self.mode == Mode::Send && connection.receiving => {
                self.stats.bytes_out += u64::from(count);
                connection.place = (connection.place + count as usize) % SOURCE;
                self.pour(index);
            }
            Ok(count) => {
                self.stats.bytes_out += u64::from(count);
                let mut left = count as usize;
                while let Some(chunk) = connection.queue.front_mut().filter(|_| left > 0) {
                    if left < chunk.len() {
                        chunk.advance(left);
                        break;
                    }
                    left -= chunk.len();
                    self.ring.give_back(connection.queue.pop_front().expect("it is the front"));
                }
                if !connection.queue.is_empty() && !connection.dirty {
                    connection.dirty = true;
                    self.dirty.push(index);
                }
            }
            Err(_) => self.discard(index),
        }
        if let Some((_, left)) = &mut self.shared {
            *left -= 1;
            if *left == 0 {
                self.ring.give_back(self.shared.take().expect("it is there").0);
            }
        }
        self.release(index);
    }

    /// Submits one gathered send for each connection that has something new.
    fn send(&mut self) {
        for index in self.dirty.drain(..) {
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            connection.dirty = false;
            if !connection.queue.is_empty() && !connection.sending {
                connection.sending = true;
                self.ring.send(index, &connection.socket, connection.queue.iter());
            }
        }
    }

    /// Whether receives wait for their turn, and there are buffers.
    fn is_hungry(&self) -> bool {
        !self.starved.is_empty() && self.ring.offered() > 0
    }

    /// Receives again where buffers were wanting, at as many connections as there are buffers now.
    fn rearm(&mut self) {
        let turns = self.starved.len().min(self.ring.offered().into());
        for index in self.starved.drain(..turns) {
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            connection.starved = false;
            connection.receiving = true;
            (self.receive)(&mut self.ring, index, &connection.socket);
        }
    }

    /// Drops what cannot be sent any more.
    fn discard(&mut self, index: u32) {
        let connection = self.connections[index as usize].as_mut().expect("it has an operation");
        for chunk in connection.queue.drain(..) {
            self.ring.give_back(chunk);
        }
    }

    /// Closes the connection if it has ended and the kernel knows of it no more.
    fn release(&mut self, index: u32) {
        let connection = self.connections[index as usize].as_ref().expect("it has an operation");
        let busy = connection.receiving || connection.sending || connection.starved;
        if !busy && connection.queue.is_empty() {
            self.connections[index as usize] = None;
            self.free.push(index);
            self.closes += 1;
        }
    }

    fn stats(&self) -> Stats {
        let calls = self.ring.calls();
        Stats {
            calls: Some(calls.enters + self.closes),
            rounds: calls.enters,
            submitted: calls.sqes,
            completed: calls.cqes,
            ..self.stats
        }
    }
}

const COMPLETIONS: usize = 4096;
