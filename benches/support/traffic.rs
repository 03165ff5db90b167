//! The loads that are no echo over open connections: fan-out, connections that come and go, one-way streams, silence.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::cell::{Cell, Mode};
use crate::histogram::Histogram;
use crate::load::{Load, Totals, connect_all};
use crate::raw::{Completion, Interest, Offer, Ring, Sleep};
use crate::servers::CONGESTION_CONTROL;

/// A load of any kind.
pub trait Traffic {
    /// Goes on for so long.
    fn run_for(&mut self, duration: Duration) -> io::Result<()>;

    /// What has been counted so far.
    fn totals(&self) -> Totals;

    /// How long the answers took.
    fn latencies(&mut self) -> &mut Histogram;
}

/// The load of this mode.
pub fn start(
    address: SocketAddr,
    mode: Mode,
    cell: Cell,
    verify: bool,
    seed: u64,
) -> io::Result<Box<dyn Traffic>> {
    Ok(match mode {
        Mode::Echo | Mode::Lines | Mode::Small => {
            Box::new(Load::connect(address, mode, cell, verify, seed)?)
        }
        Mode::FanOut => Box::new(FanOut(Common::connect(address, cell)?)),
        Mode::Send => Box::new(Reader(Common::connect(address, cell)?)),
        Mode::Receive => Box::new(Writer(Common::connect(address, cell)?)),
        Mode::Connect => Box::new(Visitors::new(address, cell)?),
        Mode::Idle => {
            let mut load = Load::connect(address, Mode::Echo, cell, verify, seed)?;
            load.run_messages(cell.connections as u64)?; // The server has accepted all.
            Box::new(Silence(load))
        }
    })
}

impl Traffic for Load {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        self.run_for(duration)
    }

    fn totals(&self) -> Totals {
        self.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        self.latencies_mut()
    }
}

/// Open connections that nothing goes through.
struct Silence(Load);

impl Traffic for Silence {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let mut ring = Ring::new(Box::new([]), Offer::All)?;
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            ring.enter(Sleep { completions: 1, patience: None, limit: Some(left) })?;
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        self.0.latencies_mut()
    }
}

/// What the loads below have in common.
struct Common {
    cell: Cell,
    ring: Ring,
    sockets: Vec<Socket>,
    completions: Vec<Completion>,
    latencies: Histogram,
    totals: Totals,
    /// Bytes that have gone through, in all.
    bytes: u64,
    /// Whether each connection has an operation under way.
    armed: bool,
}

impl Common {
    fn new(cell: Cell, ring: Ring, sockets: Vec<Socket>) -> Self {
        Self {
            cell,
            ring,
            sockets,
            completions: Vec::with_capacity(COMPLETIONS),
            latencies: Histogram::new(),
            totals: Totals::default(),
            bytes: 0,
            armed: false,
        }
    }

    fn connect(address: SocketAddr, cell: Cell) -> io::Result<Self> {
        let mut ring = Ring::new(pattern(cell), Offer::All)?;
        let sockets = connect_all(&mut ring, address, cell.connections)?;
        Ok(Self::new(cell, ring, sockets))
    }

    /// Sleeps until `wanted` completions are there, or some; takes them.
    fn wait(&mut self, wanted: usize) -> io::Result<Vec<Completion>> {
        self.ring.enter(Sleep {
            completions: wanted,
            patience: Some(PATIENCE),
            limit: Some(LIMIT),
        })?;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        Ok(completions)
    }

    fn receive(&mut self, index: u32) {
        self.ring.receive_nothing(index, &self.sockets[index as usize]);
    }

    /// Counts what came in, and keeps the receive armed; false if the connection has ended.
    fn received(&mut self, completion: Completion) -> bool {
        match completion {
            Completion::Received { connection, chunk, more } => {
                self.bytes += chunk.len() as u64;
                self.ring.give_back(chunk);
                if !more {
                    self.receive(connection);
                }
                true
            }
            Completion::ReceiveEnded { connection, result: Err(error) }
                if error.raw_os_error() == Some(libc::ENOBUFS) =>
            {
                self.receive(connection);
                true
            }
            Completion::Sent { result: Ok(_), .. } | Completion::Ready { .. } => true,
            _ => {
                self.totals.errors += 1;
                false
            }
        }
    }

    fn totals(&self) -> Totals {
        Totals { enters: self.ring.calls().enters, ..self.totals }
    }

    /// A server that has accepted only some of the connections tells only those: sends until all were told.
    fn be_known(&mut self) -> io::Result<()> {
        let end = Instant::now() + SILENCE;
        let mut told = 0;
        while told < self.cell.connections {
            let before = self.bytes;
            self.ring.send_source(0, &self.sockets[0], 0, self.cell.size);
            let mut last = Instant::now();
            while last.elapsed() < QUIET {
                let so_far = self.bytes;
                self.ring.enter(Sleep { completions: 1, patience: None, limit: Some(QUIET) })?;
                let mut completions = std::mem::take(&mut self.completions);
                self.ring.reap(&mut completions);
                for completion in completions.drain(..) {
                    if !self.received(completion) {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                self.completions = completions;
                if self.bytes > so_far {
                    last = Instant::now();
                }
            }
            told = (self.bytes - before) as usize / self.cell.size;
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Begins to receive, the first time; whether this was it.
    fn arm_all(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.armed, true);
        if first {
            for index in 0..self.sockets.len() as u32 {
                self.receive(index);
            }
        }
        first
    }
}

/// The first connection sends a message, and again as soon as all connections have it. A message counts once for each.
struct FanOut(Common);

impl Traffic for FanOut {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self(common) = self;
        if common.arm_all() {
            common.be_known()?;
        }
        let end = Instant::now() + duration;
        let (everyone, size) = (common.cell.connections, common.cell.size);
        while Instant::now() < end {
            let start = Instant::now();
            let wanted = common.bytes + (everyone * size) as u64;
            common.ring.send_source(0, &common.sockets[0], 0, size);
            while common.bytes < wanted {
                let left = (wanted - common.bytes) as usize / size;
                let mut completions = common.wait(left.clamp(1, MOST_ANSWERS))?;
                for completion in completions.drain(..) {
                    if !common.received(completion) {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                common.completions = completions;
                if start.elapsed() > SILENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            common.totals.wrong_bytes += common.bytes - wanted; // Nobody has sent these.
            common.totals.messages += everyone as u64;
            common.latencies.record(start.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.0.latencies
    }
}

/// Receives whatever comes. A message is as many bytes as the cell says.
struct Reader(Common);

impl Traffic for Reader {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self(common) = self;
        common.arm_all();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let mut completions = common.wait(common.cell.connections.div_ceil(4))?;
            for completion in completions.drain(..) {
                if !common.received(completion) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            common.completions = completions;
            common.totals.messages = common.bytes / common.cell.size as u64;
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.0.latencies
    }
}

/// Sends without end. A message is as many bytes as the cell says.
struct Writer(Common);

impl Traffic for Writer {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self(common) = self;
        let length = common.ring.source().len();
        if !std::mem::replace(&mut common.armed, true) {
            for (index, socket) in common.sockets.iter().enumerate() {
                common.ring.send_source(index as u32, socket, 0, length);
            }
        }
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let mut completions = common.wait(1)?;
            for completion in completions.drain(..) {
                match completion {
                    Completion::Sent { connection, result: Ok(count) } => {
                        common.bytes += u64::from(count);
                        let socket = &common.sockets[connection as usize];
                        common.ring.send_source(connection, socket, 0, length);
                    }
                    Completion::Ready { .. } => {}
                    _ => return Err(io::ErrorKind::ConnectionAborted.into()),
                }
            }
            common.completions = completions;
            common.totals.messages = common.bytes / common.cell.size as u64;
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.0.latencies
    }
}

/// As many visitors as the cell has connections: each connects, sends a message, reads it back, and closes.
struct Visitors {
    common: Common,
    address: SocketAddr,
    visits: Vec<Visit>,
    opened: u64,
}

struct Visit {
    received: u64,
    start: Instant,
}

impl Visitors {
    fn new(address: SocketAddr, cell: Cell) -> io::Result<Self> {
        let ring = Ring::new(pattern(cell), Offer::All)?;
        let common = Common::new(cell, ring, Vec::with_capacity(cell.connections));
        Ok(Self { common, address, visits: Vec::new(), opened: 0 })
    }

    fn open(&mut self) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_congestion(CONGESTION_CONTROL)?;
        if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            // Ports of closed connections linger: they are taken from many addresses in turn.
            let host = Ipv4Addr::new(127, 0, 1, (self.opened % HOSTS + 1) as u8);
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((host, 0)).into())?;
        }
        self.opened += 1;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Begins a visit in the place of the one that has ended.
    fn begin(&mut self, index: usize) -> io::Result<()> {
        let visit = Visit { received: 0, start: Instant::now() };
        let socket = self.open()?;
        if index == self.visits.len() {
            self.visits.push(visit);
            self.common.sockets.push(socket);
        } else {
            self.visits[index] = visit;
            self.common.sockets[index] = socket;
        }
        self.common.ring.poll(index as u32, &self.common.sockets[index], Interest::Write);
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Ready { connection } => {
                let socket = &self.common.sockets[connection as usize];
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                self.common.ring.send_source(connection, socket, 0, self.common.cell.size);
                self.common.ring.receive_nothing(connection, socket);
            }
            Completion::Received { connection, chunk, more } => {
                let visit = &mut self.visits[connection as usize];
                visit.received += chunk.len() as u64;
                self.common.ring.give_back(chunk);
                let socket = &self.common.sockets[connection as usize];
                if visit.received >= self.common.cell.size as u64 {
                    // The server sees the end of the stream, and closes; then the receive ends.
                    socket.shutdown(std::net::Shutdown::Write)?;
                }
                if !more {
                    self.common.ring.receive_nothing(connection, socket);
                }
            }
            Completion::ReceiveEnded { connection, result } => {
                let visit = &self.visits[connection as usize];
                if result.is_ok() && visit.received == self.common.cell.size as u64 {
                    self.common.latencies.record(visit.start.elapsed().as_nanos() as u64);
                    self.common.totals.messages += 1;
                } else {
                    self.common.totals.errors += 1;
                }
                self.begin(connection as usize)?;
            }
            Completion::Sent { result, .. } => drop(result?),
            Completion::Accepted { .. } | Completion::AcceptEnded(_) => {}
        }
        Ok(())
    }
}

impl Traffic for Visitors {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        while self.visits.len() < self.common.cell.connections {
            self.begin(self.visits.len())?;
        }
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let mut completions = self.common.wait(self.visits.len().div_ceil(4))?;
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            self.common.completions = completions;
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        self.common.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.common.latencies
    }
}

/// Something to send: a message, or a good deal.
fn pattern(cell: Cell) -> Box<[u8]> {
    (0..cell.size.max(64 * 1024)).map(|place| (place % 251) as u8).collect()
}

const COMPLETIONS: usize = 4096;
const MOST_ANSWERS: usize = 32;
const HOSTS: u64 = 250;
const PATIENCE: Duration = Duration::from_micros(50);
/// After that nothing more is to come.
const QUIET: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_secs(5);
