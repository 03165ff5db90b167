//! Protocols of every kind that act in each callback, and note what they hear in which order.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use ringloop::{
    AfterEof, Buffered, BufferedProtocol, Exclusive, Handler, Protocol, ProtocolRef,
    ProtocolResult, Received, Transport,
};

use crate::acts::act;
use crate::values::{Owner, Rude, SendBomb, panic_once_in};
use crate::world::World;

/// How a protocol came to its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// With the connection, or by an upgrade that is announced: it hears of the connection first.
    Announced,
    /// In the place of another: it never does.
    Silent,
}

/// A protocol of any kind.
pub(crate) fn any_guest(world: &Rc<World>, arrival: Arrival) -> ProtocolRef {
    match world.below(4) {
        0 => Buffered::new(Guest::new(world, arrival)).into(),
        1 => Rc::new(Exclusive::new(Guest::new(world, arrival))).into(),
        _ => Rc::new(Guest::new(world, arrival)).into(),
    }
}

pub(crate) struct Guest {
    world: Rc<World>,
    arrival: Arrival,
    is_made: Cell<bool>,
    is_lost: Cell<bool>,
    buffer: RefCell<Vec<u8>>,
    _owner: Owner,
}

impl Guest {
    pub(crate) fn new(world: &Rc<World>, arrival: Arrival) -> Self {
        Self {
            world: Rc::clone(world),
            arrival,
            is_made: Cell::new(false),
            is_lost: Cell::new(false),
            buffer: RefCell::new(vec![0; 1 + world.below(5000)]),
            _owner: world.owner(),
        }
    }

    fn made(&self, transport: &Transport) {
        let wrong = |what| self.world.wrong(format!("connection_made {what}, {}", transport.id()));
        if self.arrival == Arrival::Silent {
            wrong("of one that is not announced");
        }
        if self.is_made.replace(true) {
            wrong("twice");
        }
        let lost = self.world.with_connection(transport.id(), |connection| {
            connection.made += 1;
            connection.lost
        });
        if lost > 0 {
            wrong("after connection_lost");
        }
        self.world.open.borrow_mut().insert(transport.id(), transport.clone());
        self.world.transports.put(transport.clone());
        self.user_code();
    }

    /// Anything but the first call and the last.
    fn hears(&self, what: &str, transport: &Transport) {
        if self.arrival == Arrival::Announced && !self.is_made.get() {
            self.world.wrong(format!("{what} before connection_made, {}", transport.id()));
        }
        let is_over = self.world.with_connection(transport.id(), |connection| {
            connection.lost > 0 && !connection.is_losing
        });
        // An exclusive handler hears of a pause in its last call when that has returned.
        if is_over && what != "pause" {
            self.world.wrong(format!("{what} after connection_lost, {}", transport.id()));
        }
    }

    fn takes(&self, transport: &Transport, data: Received) -> ProtocolResult {
        let world = &self.world;
        match world.below(10) {
            0 => world.leases.put(data),
            1 if world.forgets => {
                world.forgotten.set(world.forgotten.get() + 1);
                let _for_ever = ManuallyDrop::new(data);
            }
            2..=4 => transport.write(data)?,
            5 => {
                transport.write(data.clone())?;
                world.leases.put(data);
            }
            _ => {}
        }
        self.fallible()
    }

    fn fallible(&self) -> ProtocolResult {
        self.user_code();
        match self.world.below(60) {
            0 => Err(io::Error::other(Rude(SendBomb)).into()),
            1 => Err(Rude(SendBomb).into()),
            2 => Err(io::Error::from_raw_os_error(libc::EIO).into()),
            _ => Ok(()),
        }
    }

    fn ends(&self) -> ProtocolResult<AfterEof> {
        self.fallible()?;
        Ok([AfterEof::Close, AfterEof::KeepOpen][self.world.below(2)])
    }

    fn lost(&self, transport: &Transport) {
        if self.arrival == Arrival::Announced && !self.is_made.get() {
            self.world.wrong(format!("connection_lost before connection_made, {}", transport.id()));
        }
        if self.is_lost.replace(true) {
            self.world.wrong(format!("connection_lost twice, {}", transport.id()));
        }
        let _losing = Losing::new(&self.world, transport);
        let open = self.world.open.borrow_mut().remove(&transport.id());
        drop(open);
        self.user_code();
    }

    fn user_code(&self) {
        if self.world.once_in(2) {
            act(&self.world);
        }
        panic_once_in(30);
    }
}

/// While `connection_lost()` runs.
struct Losing<'a>(&'a World, u64);

impl<'a> Losing<'a> {
    fn new(world: &'a World, transport: &Transport) -> Self {
        world.with_connection(transport.id(), |connection| {
            connection.lost += 1;
            connection.is_losing = true;
        });
        Self(world, transport.id())
    }
}

impl Drop for Losing<'_> {
    fn drop(&mut self) {
        self.0.with_connection(self.1, |connection| connection.is_losing = false);
    }
}

impl Protocol for Guest {
    fn connection_made(&self, transport: &Transport) {
        self.made(transport);
    }
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        self.hears("data", transport);
        if !transport.is_reading() {
            self.world.wrong(format!("data while paused, {}", transport.id()));
        }
        self.takes(transport, data)
    }
    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.hears("eof", transport);
        self.ends()
    }
    fn connection_lost(&self, transport: &Transport, _: Option<&io::Error>) {
        self.lost(transport);
    }
    fn pause_writing(&self, transport: &Transport) {
        self.hears("pause", transport);
        self.user_code();
    }
    fn resume_writing(&self, transport: &Transport) {
        self.hears("resume", transport);
        self.user_code();
    }
}

impl BufferedProtocol for Guest {
    fn connection_made(&self, transport: &Transport) {
        self.made(transport);
    }
    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.fallible()?;
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }
    fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult {
        self.hears("data", transport);
        let data = Received::from(&self.buffer.borrow()[..len]);
        self.takes(transport, data)
    }
    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.hears("eof", transport);
        self.ends()
    }
    fn connection_lost(&self, transport: &Transport, _: Option<&io::Error>) {
        self.lost(transport);
    }
    fn pause_writing(&self, transport: &Transport) {
        self.hears("pause", transport);
        self.user_code();
    }
    fn resume_writing(&self, transport: &Transport) {
        self.hears("resume", transport);
        self.user_code();
    }
}

impl Handler for Guest {
    fn connection_made(&mut self, transport: &Transport) {
        self.made(transport);
    }
    fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
        self.hears("data", transport);
        self.takes(transport, data)
    }
    fn eof_received(&mut self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.hears("eof", transport);
        self.ends()
    }
    fn connection_lost(&mut self, transport: &Transport, _: Option<&io::Error>) {
        self.lost(transport);
    }
    fn writing_paused(&mut self, transport: &Transport, _: bool) {
        self.hears("pause", transport);
        self.user_code();
    }
}
