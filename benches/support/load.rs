//! The load: sends messages over many connections and times the answers.
//!
//! It runs on a ring with batched sends and sleeps until several answers are there, because a slow
//! generator keeps the server's batches small and hides every difference between servers. It has
//! the kernel throw away what it receives, unless it compares it, and allocates nothing while it
//! measures.

use std::io;
use std::time::{Duration, Instant};

use peers_common::Address;
use socket2::Socket;

use crate::cell::{Cell, Mode};
use crate::histogram::Histogram;
use crate::random::Random;
use crate::raw::{Chunk, Completion, Interest, Offer, Ring, Sleep};

/// Open connections to an echo server, with messages on their way.
pub struct Load {
    cell: Cell,
    /// After so many bytes the pattern repeats.
    period: usize,
    verify: bool,
    ring: Ring,
    connections: Vec<Connection>,
    alive: u64,
    /// When each outstanding message was sent, in ns since `epoch`: `depth` per connection.
    sent_at: Box<[u64]>,
    epoch: Instant,
    /// Connections to send on in this iteration.
    dirty: Vec<u32>,
    completions: Vec<Completion>,
    /// Messages on their way.
    outstanding: u64,
    latencies: Histogram,
    totals: Totals,
}

/// What has been counted since the connections were opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Messages answered.
    pub messages: u64,
    /// Connections that ended early.
    pub errors: u64,
    /// Bytes that came back different.
    pub wrong_bytes: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
}

struct Connection {
    socket: Socket,
    /// Where in the pattern its stream begins.
    shift: usize,
    started: u64,
    answered: u64,
    /// Bytes that the kernel has taken.
    sent: u64,
    /// Bytes that came back.
    received: u64,
    sending: bool,
    dirty: bool,
    alive: bool,
}

impl Load {
    /// Opens the connections.
    pub fn connect(
        address: &Address,
        mode: Mode,
        cell: Cell,
        verify: bool,
        seed: u64,
    ) -> io::Result<Self> {
        let mut random = Random::new(seed);
        // A shift of bytes is one of whole lines.
        let (period, unit) = match mode {
            Mode::Lines => (PERIOD.next_multiple_of(cell.size), cell.size),
            _ => (PERIOD, 1),
        };
        let mut ring = Ring::new(
            pattern(&mut random, period, mode, cell.size),
            Offer::All { connections: cell.connections },
        )?;
        let sockets = connect_all(&mut ring, address, cell.connections)?;
        let mut connections = Vec::with_capacity(cell.connections);
        for (index, socket) in sockets.into_iter().enumerate() {
            arm(&mut ring, index as u32, &socket, verify);
            connections.push(Connection {
                socket,
                shift: random.next_u64() as usize % (period / unit) * unit,
                started: 0,
                answered: 0,
                sent: 0,
                received: 0,
                sending: false,
                dirty: false,
                alive: true,
            });
        }
        Ok(Self {
            cell,
            period,
            verify,
            ring,
            connections,
            alive: cell.connections as u64,
            sent_at: vec![0; cell.connections * cell.depth].into(),
            epoch: Instant::now(),
            dirty: Vec::with_capacity(cell.connections),
            completions: Vec::with_capacity(COMPLETIONS),
            outstanding: 0,
            latencies: Histogram::new(),
            totals: Totals::default(),
        })
    }

    /// Sends and receives for so long.
    pub fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        self.run_until(|_, now| now >= end)
    }

    /// Sends and receives until so many more messages are answered, and some more perhaps.
    pub fn run_messages(&mut self, count: u64) -> io::Result<()> {
        let end = self.totals.messages + count;
        self.run_until(|totals, _| totals.messages >= end)
    }

    /// What has been counted so far.
    pub fn totals(&self) -> Totals {
        Totals { enters: self.ring.calls().enters, ..self.totals }
    }

    /// How long the answers took.
    pub fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    /// The same, so that it may be cleared.
    pub fn latencies_mut(&mut self) -> &mut Histogram {
        &mut self.latencies
    }

    fn run_until(&mut self, done: impl Fn(&Totals, Instant) -> bool) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        let mut last_answer = Instant::now();
        loop {
            if self.outstanding == 0 {
                self.start_all();
            }
            let sends = self.send();
            self.ring.enter(self.sleep(sends))?;
            self.ring.reap(&mut completions);
            let now = Instant::now();
            if !completions.is_empty() {
                last_answer = now;
            }
            let since_epoch = (now - self.epoch).as_nanos() as u64;
            for completion in completions.drain(..) {
                self.complete(completion, since_epoch);
            }
            if self.alive == 0 {
                let problem = "the server has closed every connection";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, problem));
            }
            if now - last_answer > SILENCE {
                let problem = format!("no answer for {} s", SILENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            if done(&self.totals, now) {
                self.completions = completions;
                return Ok(());
            }
        }
    }

    fn start_all(&mut self) {
        let now = self.epoch.elapsed().as_nanos() as u64;
        for index in 0..self.connections.len() {
            if self.connections[index].alive {
                self.start(index, now);
                self.mark(index);
            }
        }
    }

    /// Starts as many messages as may be on their way.
    fn start(&mut self, index: usize, now: u64) {
        let depth = self.cell.depth as u64;
        let connection = &mut self.connections[index];
        while connection.started - connection.answered < depth {
            self.sent_at[index * self.cell.depth + (connection.started % depth) as usize] = now;
            connection.started += 1;
            self.outstanding += 1;
        }
    }

    fn mark(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    /// Queues one send for each connection that has something to send; how many.
    fn send(&mut self) -> usize {
        let now = self.epoch.elapsed().as_nanos() as u64;
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut sends = 0;
        for index in dirty.drain(..) {
            let place = index as usize;
            if !self.cell.burst && self.connections[place].alive {
                self.start(place, now);
            }
            let connection = &mut self.connections[place];
            connection.dirty = false;
            let left = connection.started * self.cell.size as u64 - connection.sent;
            if left > 0 && !connection.sending && connection.alive {
                connection.sending = true;
                let (start, len) =
                    (connection.place(connection.sent, self.period), left.min(MOST_SENT as u64));
                self.ring.send_source(index, &connection.socket, start, len as usize);
                sends += 1;
            }
        }
        self.dirty = dirty;
        sends
    }

    /// For several answers if several are to come. A send completes at once, as a rule.
    fn sleep(&self, sends: usize) -> Sleep {
        let waiting = self.outstanding.min(self.alive) as usize;
        let answers = (waiting / ANSWERS_PART).clamp(1, MOST_ANSWERS);
        Sleep { completions: sends + answers, patience: Some(PATIENCE), limit: Some(LIMIT) }
    }

    fn complete(&mut self, completion: Completion, now: u64) {
        match completion {
            Completion::Received { connection, chunk, more } => {
                self.received(connection as usize, &chunk, now);
                self.ring.give_back(chunk);
                if !more {
                    self.receive(connection);
                }
            }
            Completion::Sent { connection, result: Ok(count) } => {
                let place = connection as usize;
                let connection = &mut self.connections[place];
                connection.sending = false;
                connection.sent += u64::from(count);
                if connection.sent < connection.started * self.cell.size as u64 {
                    self.mark(place);
                }
            }
            Completion::ReceiveEnded { connection, result: Err(error) }
                if error.raw_os_error() == Some(libc::ENOBUFS) =>
            {
                self.receive(connection);
            }
            Completion::Sent { connection, .. } | Completion::ReceiveEnded { connection, .. } => {
                self.lose(connection as usize);
            }
            Completion::Ready { .. } | Completion::Accepted { .. } | Completion::AcceptEnded(_) => {
            }
        }
    }

    fn received(&mut self, index: usize, chunk: &Chunk, now: u64) {
        let connection = &mut self.connections[index];
        if self.verify {
            let start = connection.place(connection.received, self.period);
            self.totals.wrong_bytes += differences(&self.ring, chunk, start);
        }
        connection.received += chunk.len() as u64;
        let (size, depth) = (self.cell.size as u64, self.cell.depth as u64);
        while connection.received >= (connection.answered + 1) * size {
            if connection.answered == connection.started {
                self.totals.wrong_bytes += chunk.len() as u64; // Nobody has sent these.
                return self.lose(index);
            }
            let slot = index * self.cell.depth + (connection.answered % depth) as usize;
            self.latencies.record(now - self.sent_at[slot]);
            connection.answered += 1;
            self.outstanding -= 1;
            self.totals.messages += 1;
        }
        if !self.cell.burst && connection.started - connection.answered < depth {
            self.mark(index);
        }
    }

    fn receive(&mut self, index: u32) {
        let socket = &self.connections[index as usize].socket;
        arm(&mut self.ring, index, socket, self.verify);
    }

    fn lose(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if std::mem::take(&mut connection.alive) {
            self.totals.errors += 1;
            self.alive -= 1;
            self.outstanding -= connection.started - connection.answered;
            connection.started = connection.answered;
        }
    }
}

impl Connection {
    /// Where in the pattern a position of the stream is.
    fn place(&self, position: u64, period: usize) -> usize {
        (self.shift + (position % period as u64) as usize) % period
    }
}

/// Nobody looks at the bytes unless they are compared.
pub(crate) fn arm(ring: &mut Ring, index: u32, socket: &Socket, verify: bool) {
    if verify {
        ring.receive(index, socket);
    } else {
        ring.receive_nothing(index, socket);
    }
}

pub(crate) fn connect_all(
    ring: &mut Ring,
    address: &Address,
    count: usize,
) -> io::Result<Vec<Socket>> {
    let target = address.to_sock_addr()?;
    let mut sockets: Vec<Socket> = Vec::with_capacity(count);
    let mut completions = Vec::new();
    while sockets.len() < count {
        let first = sockets.len();
        let mut pending = 0;
        for index in first..count.min(first + CONNECTS) {
            let socket = address.socket()?;
            // Closing resets the connection: ports do not linger, and thousands are used up.
            socket.set_linger(Some(Duration::ZERO))?;
            match socket.connect(&target) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                Err(_) => {
                    ring.poll(index as u32, &socket, Interest::Write);
                    pending += 1;
                }
                Ok(()) => {}
            }
            sockets.push(socket);
        }
        let deadline = Instant::now() + SILENCE;
        while pending > 0 {
            ring.enter(Sleep { completions: pending, patience: Some(LIMIT), limit: Some(LIMIT) })?;
            ring.reap(&mut completions);
            pending -= completions.len();
            completions.clear();
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        for socket in &sockets[first..] {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
        }
    }
    Ok(sockets)
}

/// Random bytes that repeat, and go on beyond the period for as long as a send may be. Lines are of text.
fn pattern(random: &mut Random, period: usize, mode: Mode, size: usize) -> Box<[u8]> {
    let byte = |place: usize| match mode {
        Mode::Lines if (place + 1) % size == 0 => b'\n',
        Mode::Lines => b'a' + (random.next_u64() % 26) as u8,
        _ => random.next_u64() as u8,
    };
    let mut bytes: Vec<u8> = (0..period).map(byte).collect();
    bytes.extend_from_within(..);
    while bytes.len() < period + MOST_SENT {
        bytes.extend_from_within(..period);
    }
    bytes.into()
}

/// How many bytes of the chunk are not those of the ring's source from `start` on.
pub(crate) fn differences(ring: &Ring, chunk: &Chunk, start: usize) -> u64 {
    let (bytes, expected) = (ring.bytes(chunk), &ring.source()[start..start + chunk.len()]);
    if bytes == expected {
        return 0;
    }
    bytes.iter().zip(expected).filter(|(byte, expected)| byte != expected).count() as u64
}

/// A prime: no shift of a whole message or buffer maps the pattern onto itself.
const PERIOD: usize = 65_521;
const MOST_SENT: usize = 256 * 1024;
/// Connections opened at a time: fewer than a server's backlog.
const CONNECTS: usize = 512;
const COMPLETIONS: usize = 4096;
/// Sleep until this part of the answers is there …
const ANSWERS_PART: usize = 4;
/// … or this many are, …
const MOST_ANSWERS: usize = 32;
/// … but no longer than this if there is one.
const PATIENCE: Duration = Duration::from_micros(50);
const LIMIT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_honest_server_passes() {
        for cell in ["3x100x1", "2x20000x5", "4x64x2b"] {
            let totals = run(cell, |_| {}).unwrap();
            assert!(totals.messages >= 200, "{cell}");
            assert_eq!((totals.wrong_bytes, totals.errors), (0, 0), "{cell}");
        }
    }

    #[test]
    fn a_flipped_byte_is_counted() {
        let mut left = 1;
        let flip = move |bytes: &mut [u8]| {
            if left > 0 {
                bytes[bytes.len() / 2] ^= 1;
                left -= 1;
            }
        };
        assert_eq!(run("1x100x2", flip).unwrap().wrong_bytes, 1);
    }

    #[test]
    fn a_server_that_closes_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || drop(listener.accept().unwrap()));
        let mut load =
            Load::connect(&address, Mode::Echo, "1x64x1".parse().unwrap(), true, 1).unwrap();
        server.join().unwrap();
        let error = load.run_messages(10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(load.totals().errors, 1);
    }

    #[test]
    fn a_place_without_server_is_an_error() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = Address::Tcp(address);
        assert!(Load::connect(&address, Mode::Echo, "1x64x1".parse().unwrap(), true, 1).is_err());
    }

    /// Drives an echo server that may change what it sends, a thread per connection.
    fn run(
        cell: &str,
        change: impl FnMut(&mut [u8]) + Clone + Send + 'static,
    ) -> io::Result<Totals> {
        let cell: Cell = cell.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for _ in 0..cell.connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut change = change.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        change(&mut buffer[..count]);
                        if stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let mut load = Load::connect(&address, Mode::Echo, cell, true, 1)?;
        load.run_messages(200)?;
        server.join().unwrap();
        Ok(load.totals())
    }
}
