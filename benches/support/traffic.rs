//! The loads that are no echo over open connections: fan-out, connections that come and go, one-way streams, silence.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use peers_common::{Address, BUFFER, Check, SOURCE};
use socket2::Socket;

use crate::cell::{Cell, Mode};
use crate::histogram::Histogram;
use crate::load::{Load, Totals, arm, connect_all, differences};
use crate::raw::{Completion, Interest, Offer, Ring, Sleep};

/// A load of any kind.
pub trait Traffic {
    /// Goes on for so long.
    fn run_for(&mut self, duration: Duration) -> io::Result<()>;

    /// What has been counted so far.
    fn totals(&self) -> Totals;

    /// How long the answers took.
    fn latencies(&mut self) -> &mut Histogram;

    /// The last call of a load that compares bytes: hears what the server has compared.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The load of this mode.
pub fn start(
    address: &Address,
    mode: Mode,
    cell: Cell,
    verify: bool,
    seed: u64,
) -> io::Result<Box<dyn Traffic>> {
    Ok(match mode {
        Mode::Echo | Mode::Unix | Mode::Lines | Mode::Small => {
            Box::new(Load::connect(address, mode, cell, verify, seed)?)
        }
        Mode::FanOut => {
            Box::new(FanOut { common: Common::connect(address, cell, verify)?, told: 0 })
        }
        Mode::Send => Box::new(Reader(Common::connect(address, cell, verify)?)),
        Mode::Receive => Box::new(Writer(Common::connect(address, cell, verify)?)),
        Mode::Connect => Box::new(Visitors {
            common: Common::new(cell, verify)?,
            visits: Visits { address: address.clone(), all: Vec::new(), opened: 0 },
        }),
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
        let mut ring = Ring::new(Box::new([]), Offer::All { connections: 1 })?;
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
    verify: bool,
    /// Where in the source, which repeats, each connection's stream is. What has no place is not compared.
    places: Vec<u64>,
}

impl Common {
    fn new(cell: Cell, verify: bool) -> io::Result<Self> {
        // It goes on beyond its end for as long as a send or a received piece may be.
        let mut source = peers_common::source();
        let whole = SOURCE + cell.size.max(BUFFER);
        source.extend((SOURCE..whole).map(|place| source[place % SOURCE]).collect::<Vec<_>>());
        Ok(Self {
            cell,
            ring: Ring::new(source.into(), Offer::All { connections: cell.connections })?,
            sockets: Vec::with_capacity(cell.connections),
            completions: Vec::with_capacity(COMPLETIONS),
            latencies: Histogram::new(),
            totals: Totals::default(),
            bytes: 0,
            armed: false,
            verify,
            places: Vec::new(),
        })
    }

    fn connect(address: &Address, cell: Cell, verify: bool) -> io::Result<Self> {
        let mut common = Self::new(cell, verify)?;
        common.sockets = connect_all(&mut common.ring, address, cell.connections)?;
        Ok(common)
    }

    /// Sleeps until `wanted` completions are there, or some, and has each of them looked at.
    fn step(
        &mut self,
        wanted: usize,
        mut complete: impl FnMut(&mut Self, Completion) -> io::Result<()>,
    ) -> io::Result<()> {
        self.ring.enter(Sleep {
            completions: wanted,
            patience: Some(PATIENCE),
            limit: Some(LIMIT),
        })?;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let result = completions.drain(..).try_for_each(|completion| complete(self, completion));
        self.completions = completions;
        result
    }

    /// The same for so long. A message is as many bytes as the cell says.
    fn stream_for(
        &mut self,
        duration: Duration,
        wanted: usize,
        mut complete: impl FnMut(&mut Self, Completion) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.step(wanted, &mut complete)?;
            self.totals.messages = self.bytes / self.cell.size as u64;
        }
        Ok(())
    }

    fn receive(&mut self, index: u32) {
        arm(&mut self.ring, index, &self.sockets[index as usize], self.verify);
    }

    /// Sends a message from this place of the source on.
    fn send(&mut self, index: u32, place: u64) {
        let start = (place % SOURCE as u64) as usize;
        self.ring.send_source(index, &self.sockets[index as usize], start, self.cell.size);
    }

    /// Compares all that comes from here on: of each connection from this place of the source.
    fn compare_from(&mut self, place: u64) {
        if self.verify {
            self.places = vec![place; self.cell.connections];
        }
    }

    /// Counts what came in, and keeps the receive armed.
    fn received(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Received { connection, chunk, more } => {
                self.bytes += chunk.len() as u64;
                if let Some(place) = self.places.get_mut(connection as usize) {
                    let start = (*place % SOURCE as u64) as usize;
                    self.totals.wrong_bytes += differences(&self.ring, &chunk, start);
                    *place += chunk.len() as u64;
                }
                self.ring.give_back(chunk);
                if !more {
                    self.receive(connection);
                }
                Ok(())
            }
            Completion::ReceiveEnded { connection, result: Err(error) }
                if error.raw_os_error() == Some(libc::ENOBUFS) =>
            {
                self.receive(connection);
                Ok(())
            }
            Completion::Sent { result: Ok(_), .. } | Completion::Ready { .. } => Ok(()),
            _ => {
                self.totals.errors += 1;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    fn totals(&self) -> Totals {
        Totals { enters: self.ring.calls().enters, ..self.totals }
    }

    /// A server that has accepted only some of the connections tells only those: sends until one message has reached all.
    fn be_known(&mut self) -> io::Result<()> {
        let end = Instant::now() + SILENCE;
        loop {
            let wanted = self.bytes + (self.cell.connections * self.cell.size) as u64;
            self.send(0, 0);
            let mut last = Instant::now();
            while last.elapsed() < QUIET {
                let so_far = self.bytes;
                self.step(1, Self::received)?;
                if self.bytes == wanted {
                    return Ok(());
                }
                if self.bytes > so_far {
                    last = Instant::now();
                }
            }
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
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
struct FanOut {
    common: Common,
    /// Bytes that each connection has been sent, since all are known.
    told: u64,
}

impl Traffic for FanOut {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self { common, told } = self;
        if common.arm_all() {
            common.be_known()?;
            common.compare_from(*told);
        }
        let end = Instant::now() + duration;
        let (everyone, size) = (common.cell.connections, common.cell.size);
        while Instant::now() < end {
            let start = Instant::now();
            let wanted = common.bytes + (everyone * size) as u64;
            common.send(0, *told);
            *told += size as u64;
            while common.bytes < wanted {
                let left = (wanted - common.bytes) as usize / size;
                common.step(left.clamp(1, MOST_ANSWERS), Common::received)?;
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
        self.common.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.common.latencies
    }
}

/// Receives whatever comes. A message is as many bytes as the cell says.
struct Reader(Common);

impl Traffic for Reader {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self(common) = self;
        if common.arm_all() {
            common.compare_from(0);
        }
        common.stream_for(duration, common.cell.connections.div_ceil(4), Common::received)
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

impl Writer {
    /// Sends the rest of the source.
    fn pour(common: &mut Common, index: u32) {
        let start = (common.places[index as usize] % SOURCE as u64) as usize;
        let socket = &common.sockets[index as usize];
        common.ring.send_source(index, socket, start, SOURCE - start);
    }
}

impl Traffic for Writer {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self(common) = self;
        if !std::mem::replace(&mut common.armed, true) {
            common.places = vec![0; common.cell.connections];
            (0..common.cell.connections as u32).for_each(|index| Self::pour(common, index));
        }
        common.stream_for(duration, 1, |common, completion| {
            if let Completion::Sent { connection, result: Ok(count) } = completion {
                common.bytes += u64::from(count);
                common.places[connection as usize] += u64::from(count);
                Self::pour(common, connection);
                return Ok(());
            }
            common.received(completion)
        })
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn latencies(&mut self) -> &mut Histogram {
        &mut self.0.latencies
    }

    /// Ends each stream; the server then says what has come of it.
    fn finish(&mut self) -> io::Result<()> {
        let Self(common) = self;
        let end = Instant::now() + SILENCE;
        let mut answers = vec![Vec::new(); common.cell.connections];
        let mut left = if common.armed { answers.len() } else { 0 };
        while left > 0 {
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            common.step(1, |common, completion| {
                match completion {
                    Completion::Sent { connection, result } => {
                        common.places[connection as usize] += u64::from(result?);
                        let socket = &common.sockets[connection as usize];
                        socket.shutdown(Shutdown::Write)?;
                        common.ring.receive(connection, socket);
                    }
                    Completion::Received { connection, chunk, .. } => {
                        answers[connection as usize].extend_from_slice(common.ring.bytes(&chunk));
                        common.ring.give_back(chunk);
                    }
                    Completion::ReceiveEnded { .. } => left -= 1,
                    _ => {}
                }
                Ok(())
            })?;
        }
        for (answer, sent) in answers.into_iter().zip(&common.places) {
            let Ok(answer) = answer.try_into() else {
                let problem =
                    "the server does not say what it has received: start it with --verify";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            };
            let (received, wrong) = Check::read(answer);
            common.totals.wrong_bytes += wrong + sent.abs_diff(received);
        }
        Ok(())
    }
}

/// As many visitors as the cell has connections: each connects, sends a message, reads it back, and closes.
struct Visitors {
    common: Common,
    visits: Visits,
}

/// Who is under way, by connection.
struct Visits {
    address: Address,
    all: Vec<Visit>,
    opened: u64,
}

struct Visit {
    /// Where in the source its message is.
    place: u64,
    received: u64,
    start: Instant,
}

impl Visits {
    fn open(&mut self) -> io::Result<Socket> {
        let socket = self.address.socket()?;
        if matches!(&self.address, Address::Tcp(address) if address.ip() == LOCALHOST) {
            // Ports of closed connections linger: they are taken from many addresses in turn.
            let host = Ipv4Addr::new(127, 0, 1, (self.opened % HOSTS + 1) as u8);
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((host, 0)).into())?;
        }
        self.opened += 1;
        match socket.connect(&self.address.to_sock_addr()?) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Begins a visit in the place of the one that has ended.
    fn begin(&mut self, common: &mut Common, index: usize) -> io::Result<()> {
        let place = self.opened * common.cell.size as u64;
        let visit = Visit { place, received: 0, start: Instant::now() };
        let socket = self.open()?;
        if index == self.all.len() {
            self.all.push(visit);
            common.sockets.push(socket);
        } else {
            self.all[index] = visit;
            common.sockets[index] = socket;
        }
        common.ring.poll(index as u32, &common.sockets[index], Interest::Write);
        Ok(())
    }

    fn complete(&mut self, common: &mut Common, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Ready { connection, .. } => {
                if let Some(error) = common.sockets[connection as usize].take_error()? {
                    return Err(error);
                }
                common.send(connection, self.all[connection as usize].place);
                common.receive(connection);
            }
            Completion::Received { connection, chunk, more } => {
                let visit = &mut self.all[connection as usize];
                if common.verify {
                    let start = ((visit.place + visit.received) % SOURCE as u64) as usize;
                    common.totals.wrong_bytes += differences(&common.ring, &chunk, start);
                }
                visit.received += chunk.len() as u64;
                common.ring.give_back(chunk);
                let socket = &common.sockets[connection as usize];
                if visit.received >= common.cell.size as u64 {
                    // The server sees the end of the stream, and closes; then the receive ends.
                    socket.shutdown(Shutdown::Write)?;
                }
                if !more {
                    common.receive(connection);
                }
            }
            Completion::ReceiveEnded { connection, result } => {
                let visit = &self.all[connection as usize];
                if result.is_ok() && visit.received == common.cell.size as u64 {
                    common.latencies.record(visit.start.elapsed().as_nanos() as u64);
                    common.totals.messages += 1;
                } else {
                    common.totals.errors += 1;
                }
                self.begin(common, connection as usize)?;
            }
            Completion::Sent { result, .. } => drop(result?),
            Completion::Accepted { .. } | Completion::AcceptEnded(_) => {}
        }
        Ok(())
    }
}

impl Traffic for Visitors {
    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let Self { common, visits } = self;
        while visits.all.len() < common.cell.connections {
            visits.begin(common, visits.all.len())?;
        }
        let end = Instant::now() + duration;
        let wanted = visits.all.len().div_ceil(4);
        while Instant::now() < end {
            common.step(wanted, |common, completion| visits.complete(common, completion))?;
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

const COMPLETIONS: usize = 4096;
const MOST_ANSWERS: usize = 32;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HOSTS: u64 = 250;
const PATIENCE: Duration = Duration::from_micros(50);
/// After that nothing more is to come.
const QUIET: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    #[test]
    fn honest_servers_pass() {
        for mode in [Mode::FanOut, Mode::Connect, Mode::Send, Mode::Receive] {
            assert_eq!(wrong_bytes(mode, |_| {}), 0, "{mode}");
        }
    }

    #[test]
    fn flipped_bytes_are_counted_in_each_mode() {
        for mode in [Mode::FanOut, Mode::Connect, Mode::Send, Mode::Receive] {
            let flip = |bytes: &mut [u8]| bytes[bytes.len() / 2] ^= 1;
            assert!(wrong_bytes(mode, flip) > 0, "{mode}");
        }
    }

    #[test]
    fn a_server_that_does_not_compare_what_it_receives_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            io::copy(&mut stream, &mut io::sink()).unwrap();
        });
        let cell = "1x1000x1".parse().unwrap();
        let mut load = start(&address, Mode::Receive, cell, true, 1).unwrap();
        load.run_for(Duration::from_millis(1)).unwrap();
        assert_eq!(load.finish().unwrap_err().kind(), io::ErrorKind::InvalidData);
        server.join().unwrap();
    }

    /// Runs the load, until it has some messages, against a server that may change each piece that it sends or receives.
    fn wrong_bytes(mode: Mode, change: impl FnMut(&mut [u8]) + Clone + Send + 'static) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let change = change.clone();
                thread::spawn(move || serve(mode, stream.unwrap(), change));
            }
        });
        // With one connection a fan-out is an echo, for which a thread does.
        let cell: Cell =
            if mode == Mode::FanOut { "1x1000x1" } else { "2x1000x1" }.parse().unwrap();
        let mut load = start(&address, mode, cell, true, 1).unwrap();
        while load.totals().messages < 100 {
            load.run_for(Duration::from_millis(1)).unwrap();
        }
        load.finish().unwrap();
        assert_eq!(load.totals().errors, 0, "{mode}");
        load.totals().wrong_bytes
    }

    fn serve(mode: Mode, mut stream: TcpStream, mut change: impl FnMut(&mut [u8])) {
        if mode == Mode::Send {
            loop {
                let mut bytes = peers_common::source();
                change(&mut bytes);
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
        let mut check = Check::new();
        let mut buffer = [0; 1000];
        let mut first = mode == Mode::FanOut; // What makes a connection known is not compared.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if !std::mem::take(&mut first) {
                change(&mut buffer[..count]);
            }
            if mode == Mode::Receive {
                check.see(&buffer[..count]);
            } else if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        if mode == Mode::Receive {
            let _ = stream.write_all(&check.answer()); // The load may be gone.
        }
    }
}
