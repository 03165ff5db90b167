//! The server on epoll: level-triggered, one read and one write per event.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use peers_common::{BUFFER, Check, SOURCE, source};
use socket2::Socket;

use super::{Face, Stats};
use crate::cell::{Mode, SMALL};
use crate::raw::{self, Epoll, Interest};

/// Does what the mode says.
pub(super) fn serve(listener: Socket, face: Face, mode: Mode, verify: bool) -> io::Result<Stats> {
    let stop = raw::termination()?;
    let epoll = Epoll::new(EVENTS)?;
    epoll.add(&stop, STOP, Interest::Read)?;
    epoll.add(&listener, LISTENER, Interest::Read)?;
    let mut server = Server {
        epoll,
        listener,
        connections: Vec::new(),
        buffer: vec![0; face.buffer()].into(),
        source: if mode == Mode::Send { source() } else { Vec::new() },
        stats: Stats::default(),
        calls: 0,
        mode,
        verify,
    };
    loop {
        server.calls += 1;
        for index in 0..server.epoll.wait()? {
            match server.epoll.key(index) {
                STOP => return Ok(Stats { calls: Some(server.calls), ..server.stats }),
                LISTENER => server.accept()?,
                key => server.step(key as usize),
            }
        }
    }
}

struct Server {
    epoll: Epoll,
    listener: Socket,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
    source: Vec<u8>,
    stats: Stats,
    calls: u64,
    mode: Mode,
    verify: bool,
}

struct Connection {
    stream: Socket,
    /// What the socket had no room for. While there is some, nothing is read.
    unsent: Vec<u8>,
    /// Where in the source its stream is.
    place: usize,
    check: Option<Box<Check>>,
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            self.calls += 1;
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let stream = match self.listener.accept4(flags) {
                Ok((socket, _)) => socket,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => return Err(error),
                },
            };
            let index = stream.as_raw_fd() as usize;
            self.calls += 1;
            let interest = if self.mode == Mode::Send { Interest::Write } else { Interest::Read };
            self.epoll.add(&stream, index as u64, interest)?;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            let check = self.verify.then(Box::default);
            self.connections[index] =
                Some(Connection { stream, unsent: Vec::new(), place: 0, check });
            self.stats.connections += 1;
        }
    }

    fn step(&mut self, index: usize) {
        let Some(connection) = &self.connections[index] else { return };
        let result = match self.mode {
            Mode::Send => self.pour(index),
            _ if !connection.unsent.is_empty() => self.flush(index),
            _ => self.answer(index),
        };
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                self.calls += 1;
                self.connections[index] = None;
            }
        }
    }

    fn answer(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        self.calls += 1;
        let count = connection.stream.read(&mut self.buffer)?;
        if count == 0 {
            if let Some(check) = &connection.check {
                connection.stream.write_all(&check.answer())?;
            }
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.stats.bytes_in += count as u64;
        match self.mode {
            Mode::Receive => {
                if let Some(check) = &mut connection.check {
                    check.see(&self.buffer[..count]);
                }
                Ok(())
            }
            Mode::Small => {
                let mut starts = (0..count).step_by(SMALL);
                starts.try_for_each(|start| self.write(index, start, count.min(start + SMALL)))
            }
            Mode::FanOut => {
                for other in 0..self.connections.len() {
                    if self.write(other, 0, count).is_err() && other != index {
                        self.connections[other] = None;
                    }
                }
                Ok(())
            }
            _ => self.write(index, 0, count),
        }
    }

    /// Writes a part of the buffer; keeps what the socket has no room for.
    fn write(&mut self, index: usize, start: usize, end: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let bytes = &self.buffer[start..end];
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        self.calls += 1;
        let sent = match connection.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            other => other?,
        };
        self.stats.bytes_out += sent as u64;
        if sent < bytes.len() {
            connection.unsent.extend_from_slice(&bytes[sent..]);
            self.calls += 1;
            self.epoll.modify(&connection.stream, index as u64, Interest::Write)?;
        }
        Ok(())
    }

    /// Writes the rest of a block, if there is room for it.
    fn pour(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        self.calls += 1;
        let place = connection.place;
        let sent = connection.stream.write(&self.source[place..place - place % BUFFER + BUFFER])?;
        connection.place = (place + sent) % SOURCE;
        self.stats.bytes_out += sent as u64;
        Ok(())
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        self.calls += 1;
        let sent = connection.stream.write(&connection.unsent)?;
        self.stats.bytes_out += sent as u64;
        connection.unsent.drain(..sent);
        if connection.unsent.is_empty() {
            self.calls += 1;
            self.epoll.modify(&connection.stream, index as u64, Interest::Read)?;
        }
        Ok(())
    }
}

const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
