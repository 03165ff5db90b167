//! Many connections, each of which is opened, used and ended at moments that a seed chooses.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    AfterEof, EventLoop, Listen, Protocol, ProtocolResult, Received, Server, Target, Task,
    Transport, WriteMode,
};
use ringloop_driver::testing::{Faults, close_kept_ring};
use ringloop_tests::clean::on_loop_with;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::{self, Test};
use ringloop_tests::seeds::{Random, each_seed, fresh_seed};
use ringloop_tests::sockets::{address_of, bound, pair, reset, tcp_socket};
use socket2::Socket;

use crate::open_descriptors;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "a_storm_of_connections_leaves_nothing",
        body: a_storm_of_connections_leaves_nothing,
        deadline: Duration::from_secs(240),
    },
    Test {
        name: "storms_leave_nothing_whatever_goes_wrong_below",
        body: storms_leave_nothing_whatever_goes_wrong_below,
        deadline: Duration::from_secs(240),
    },
];

const CONNECTIONS: usize = 100_000;
const SEEDS: u64 = 1000;
const CONNECTIONS_PER_SEED: usize = 40;
const MOST_PEERS: usize = 120;
const MOST_TRANSPORTS: usize = 250;

// spec: RISK-24, RISK-08, TRANS-33, PROTO-06
fn a_storm_of_connections_leaves_nothing() {
    let seed = fresh_seed();
    let ends = storm(seed, CONNECTIONS, None);
    isolated::note(format_args!("storm with seed {seed}: {ends:?}"));
}

// spec: RISK-24, RISK-21, RISK-38, TRANS-33
fn storms_leave_nothing_whatever_goes_wrong_below() {
    each_seed(SEEDS, |seed| {
        let faults = Faults { errors: 20, ..Faults::harmless(seed) };
        storm(seed, CONNECTIONS_PER_SEED, Some(faults));
    });
}

/// Gives how often peers ended their connections in which way.
fn storm(seed: u64, connections: usize, faults: Option<Faults>) -> [usize; 4] {
    close_kept_ring();
    let before = open_descriptors();
    let tally = Rc::new(Tally::default());
    let witness = Rc::clone(&tally);
    let ends = on_loop_with(faults, async move { rage(seed, connections, &tally).await });
    close_kept_ring();
    assert_eq!(open_descriptors(), before, "descriptors");
    assert_eq!(Rc::strong_count(&witness), 1, "protocols are left");
    assert_eq!(witness.wrong.take(), Vec::<String>::new());
    assert_eq!(witness.made.get(), witness.lost.get());
    assert!(witness.made.get() >= connections / 2, "most connections are made");
    ends
}

async fn rage(seed: u64, connections: usize, tally: &Rc<Tally>) -> [usize; 4] {
    let event_loop = EventLoop::running().unwrap();
    event_loop.set_exception_handler(|_, _| ()); // Of errors that protocols return.
    let mut weather = Weather {
        random: Random::new(seed),
        server: None,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tally: Rc::clone(tally),
        peers: Vec::new(),
        tasks: Vec::new(),
        opened: 0,
        to_the_server: 0,
        ends: [0; 4],
    };
    weather.serve(&event_loop).await;
    while weather.opened < connections || !weather.peers.is_empty() {
        let burst = weather.random.below(8).min(connections - weather.opened);
        for _ in 0..burst {
            weather.open(&event_loop);
        }
        weather.work();
        weather.thin_out();
        turn(weather.random.below(3)).await;
    }
    weather.calm_down(&event_loop).await;
    weather.ends
}

/// What goes on outside of the callbacks.
struct Weather {
    random: Random,
    server: Option<Server>,
    address: SocketAddr,
    tally: Rc<Tally>,
    peers: Vec<Socket>,
    /// Makers of connections.
    tasks: Vec<Task<()>>,
    opened: usize,
    to_the_server: usize,
    ends: [usize; 4],
}

impl Weather {
    async fn serve(&mut self, event_loop: &EventLoop) {
        let listener = bound();
        narrow(&listener);
        self.address = address_of(&listener);
        let (tally, random) = (Rc::clone(&self.tally), RefCell::new(self.fork()));
        let factory = move || {
            let mut random = random.borrow_mut();
            if random.once_in(50) {
                return Err("not this one");
            }
            Ok(Guest::new(&tally, Random::new(random.number())))
        };
        let listen = Listen::default().sock(listener).backlog(4096);
        self.server = Some(event_loop.create_server(factory, listen).await.unwrap());
    }

    fn fork(&mut self) -> Random {
        Random::new(self.random.number())
    }

    fn open(&mut self, event_loop: &EventLoop) {
        self.opened += 1;
        match self.random.below(20) {
            0 => {
                let (a, b) = pair();
                self.peers.push(b);
                self.make(event_loop, a);
            }
            1 => {
                let socket = self.connect();
                self.make(event_loop, socket);
            }
            2 => {
                let address = self.address;
                self.to_the_server += 1;
                self.make(event_loop, address);
            }
            _ => {
                let socket = self.connect();
                self.peers.push(socket);
            }
        }
        if self.random.once_in(6) {
            self.end(self.peers.len().wrapping_sub(1)); // Before it is accepted.
        }
    }

    /// Each from an address of its own, so that ports last.
    fn connect(&mut self) -> Socket {
        self.to_the_server += 1;
        let [_, a, b, c] = (self.to_the_server as u32).to_be_bytes();
        let source = Ipv4Addr::new(127, a + 1, b, c.clamp(1, 254));
        let socket = tcp_socket();
        narrow(&socket);
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A connection of which this side is a transport too.
    fn make(&mut self, event_loop: &EventLoop, target: impl Into<Target>) {
        let random = self.fork();
        let guest = Guest::new(&self.tally, random);
        let (event_loop, target) = (event_loop.clone(), target.into());
        let making = event_loop.clone().create_task(async move {
            // Under faults it may fail.
            drop(event_loop.create_connection(|| guest, target).await);
        });
        self.tasks.push(making);
    }

    fn work(&mut self) {
        for _ in 0..self.random.below(12) {
            if !self.peers.is_empty() {
                let index = self.random.below(self.peers.len());
                self.step(index);
            }
        }
        if self.random.once_in(2) {
            let transport = self.tally.any(&mut self.random);
            if let Some(transport) = transport {
                act(&transport, &mut self.random);
            }
        }
        if !self.tasks.is_empty() && self.random.once_in(4) {
            let index = self.random.below(self.tasks.len());
            let task = self.tasks.swap_remove(index);
            if self.random.once_in(2) {
                task.cancel();
            }
        }
        if self.random.once_in(16) {
            self.tally.bag.take();
        }
    }

    /// Some end earlier, so that descriptors last.
    fn thin_out(&mut self) {
        while self.peers.len() > MOST_PEERS {
            let index = self.random.below(self.peers.len());
            self.end(index);
        }
        if self.tally.open.borrow().len() > MOST_TRANSPORTS {
            for _ in 0..8 {
                match self.tally.any(&mut self.random) {
                    Some(transport) if self.random.once_in(2) => transport.abort(),
                    Some(transport) => transport.close(),
                    None => {}
                }
            }
        }
    }

    /// Of a peer. An error shows that the connection is over, which the peer need not notice.
    fn step(&mut self, index: usize) {
        let mut socket = &self.peers[index];
        match self.random.below(8) {
            0 | 1 => drop(socket.read(&mut [0; 4096])),
            2 | 3 => drop(socket.write(&DATA[..self.random.below(DATA.len())])),
            4 => drop(socket.write(b"x")),
            5 => drop(socket.shutdown(Shutdown::Write)),
            6 => self.end(index),
            _ => {}
        }
    }

    fn end(&mut self, index: usize) {
        if index >= self.peers.len() {
            return;
        }
        let socket = self.peers.swap_remove(index);
        let way = self.random.below(4);
        self.ends[way] += 1;
        match way {
            0 => drop(socket),
            1 if socket.domain().unwrap() == socket2::Domain::IPV4 => reset(socket),
            2 => {
                while matches!((&socket).read(&mut [0; 4096]), Ok(1..)) {}
                drop(socket);
            }
            _ => {
                let _ = (&socket).write(b"last words");
                drop(socket);
            }
        }
    }

    /// All peers have gone. The transports that nobody tells, as they are paused or closing, end too.
    async fn calm_down(&mut self, event_loop: &EventLoop) {
        self.tasks.clear();
        settle().await;
        let server = self.server.take().unwrap();
        if self.random.once_in(2) {
            server.close();
        }
        for patience in (0..100).rev() {
            let mut open = self.tally.open();
            if open.is_empty() {
                break;
            }
            for transport in open.drain(..) {
                match self.random.below(4) {
                    _ if patience == 0 => transport.abort(),
                    0 => transport.abort(),
                    1 => transport.close(),
                    2 => transport.resume_reading(),
                    _ => {}
                }
            }
            turn(self.random.below(3)).await;
        }
        settle().await;
        server.close();
        server.wait_closed().await.unwrap();
        self.tally.bag.take();
        assert!(self.tally.open().is_empty());
        // Those that were reset before are accepted too; a connect of ours may have been cancelled before.
        let accepted = event_loop.counters().accepted as usize;
        assert!(accepted <= self.to_the_server, "{accepted} of {}", self.to_the_server);
        assert!(accepted >= self.to_the_server * 9 / 10, "{accepted} of {}", self.to_the_server);
    }
}

/// What all callbacks did.
#[derive(Default)]
struct Tally {
    guests: Cell<usize>,
    made: Cell<usize>,
    lost: Cell<usize>,
    wrong: RefCell<Vec<String>>,
    open: RefCell<BTreeMap<u64, Transport>>,
    /// Received bytes that somebody keeps beyond the connection.
    bag: RefCell<Vec<Received>>,
}

impl Tally {
    fn open(&self) -> Vec<Transport> {
        self.open.borrow().values().cloned().collect()
    }

    fn any(&self, random: &mut Random) -> Option<Transport> {
        let open = self.open.borrow();
        let (first, last) = (*open.first_key_value()?.0, *open.last_key_value()?.0);
        let from = first + random.below((last - first) as usize + 1) as u64;
        open.range(from..).next().map(|(_, transport)| transport.clone())
    }

    fn wrong(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }
}

/// A protocol that does this and that.
struct Guest {
    number: usize,
    tally: Rc<Tally>,
    random: RefCell<Random>,
    state: Cell<State>,
    is_paused: Cell<bool>,
    kept: RefCell<Vec<Received>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Made,
    /// Inside of `connection_lost()`.
    Losing,
    Lost,
}

impl Guest {
    fn new(tally: &Rc<Tally>, random: Random) -> Self {
        let number = tally.guests.get();
        tally.guests.set(number + 1);
        Self {
            number,
            tally: Rc::clone(tally),
            random: RefCell::new(random),
            state: Cell::new(State::New),
            is_paused: Cell::new(false),
            kept: RefCell::default(),
        }
    }

    fn called(&self, name: &str, expected: State) {
        let state = self.state.get();
        if state != expected {
            self.tally.wrong(format!("{name} of guest {}: {state:?}", self.number));
        }
    }

    /// Of the peer: nothing while it is paused or closing.
    fn heard(&self, name: &str, transport: &Transport) {
        self.called(name, State::Made);
        if !transport.is_reading() {
            self.tally.wrong(format!("{name} of guest {}, which does not read", self.number));
        }
    }

    fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end)
    }

    fn act(&self, transport: &Transport) {
        let mut random = Random::new(self.random.borrow_mut().number());
        act(transport, &mut random);
    }
}

impl Protocol for Guest {
    fn connection_made(&self, transport: &Transport) {
        self.called("connection_made", State::New);
        self.state.set(State::Made);
        self.tally.made.set(self.tally.made.get() + 1);
        self.tally.open.borrow_mut().insert(transport.id(), transport.clone());
        transport.set_write_mode([WriteMode::Batched, WriteMode::Immediate][self.below(2)]);
        self.act(transport);
        self.act(transport);
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        self.heard("data_received", transport);
        match self.below(12) {
            0 | 1 => self.kept.borrow_mut().push(data),
            2 => self.tally.bag.borrow_mut().push(data),
            3..=6 => transport.write(data)?,
            7 if self.below(4) == 0 => return Err(io::Error::from_raw_os_error(libc::EIO).into()),
            8 if self.below(4) == 0 => return Err("this and that".into()),
            _ => {}
        }
        self.act(transport);
        Ok(())
    }

    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.heard("eof_received", transport);
        self.act(transport);
        Ok([AfterEof::Close, AfterEof::KeepOpen][self.below(2)])
    }

    fn connection_lost(&self, transport: &Transport, _: Option<&io::Error>) {
        self.called("connection_lost", State::Made);
        self.state.set(State::Losing);
        self.tally.lost.set(self.tally.lost.get() + 1);
        self.tally.open.borrow_mut().remove(&transport.id());
        self.act(transport);
        self.state.set(State::Lost);
    }

    fn pause_writing(&self, transport: &Transport) {
        if self.state.get() != State::Losing {
            self.called("pause_writing", State::Made); // Else it is the answer to a write in there (WRITE-16).
        }
        if self.is_paused.replace(true) {
            self.tally.wrong(format!("guest {} is paused twice", self.number));
        }
        self.act(transport);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.called("resume_writing", State::Made);
        if !self.is_paused.replace(false) {
            self.tally.wrong(format!("guest {} is resumed twice", self.number));
        }
        self.act(transport);
    }
}

impl Drop for Guest {
    /// Whoever has heard of a beginning hears of an end.
    fn drop(&mut self) {
        if self.state.get() == State::Made {
            self.tally.wrong(format!("guest {} is dropped without connection_lost", self.number));
        }
    }
}

/// Calls a method of a transport, or none.
fn act(transport: &Transport, random: &mut Random) {
    let chosen = random.below(32);
    // Only a `write_eof()` before makes a write fail.
    let write = |length| drop(transport.write(&DATA[..length]));
    match chosen {
        0 => transport.close(),
        1 => transport.abort(),
        2 | 3 => transport.pause_reading(),
        4 | 5 => transport.resume_reading(),
        6..=8 => write(random.below(300)),
        9 => write(random.below(DATA.len())),
        10 => drop(transport.write(DATA[..random.below(DATA.len())].to_vec())),
        11 => drop(transport.writelines([&DATA[..random.below(900)], b"", b"end"])),
        12 => {
            write(random.below(DATA.len()));
            transport.close();
        }
        13 => drop(transport.write_eof()),
        14 => drop(transport.set_write_buffer_limits(Some(random.below(9000)), None)),
        15 => drop(transport.get_write_buffer_size()),
        _ => {}
    }
}

fn narrow(socket: &Socket) {
    socket.set_send_buffer_size(4096).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
}

static DATA: [u8; 60_000] = [7; 60_000];
