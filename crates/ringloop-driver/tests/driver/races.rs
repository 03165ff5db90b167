//! Cancels that race with completions: ten thousand rounds each, every byte, datagram, connection and descriptor accounted
//! for. Each way in which such a race can end must have come often.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use ringloop_driver::{
    Account, Completion, Descriptor, DriverConfig, Interest, OpKey, Outcome, SendQueue, Token, Wait,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::isolated::Test;
use crate::random::Random;
use crate::support::{TOKEN, TestDriver, unix_pair, write_all};
use crate::sys::pipe;

pub(crate) const TESTS: &[Test] = crate::tests![
    a_cancelled_receive_loses_no_byte,
    a_cancelled_multishot_receive_loses_no_byte,
    a_cancelled_read_loses_no_byte,
    a_cancelled_multishot_read_loses_no_byte,
    a_cancelled_receive_of_a_datagram_loses_none,
    a_cancelled_multishot_receive_of_datagrams_loses_none,
    a_cancelled_accept_loses_no_connection,
    a_cancelled_multishot_accept_loses_no_connection,
    a_cancelled_poll_ends_once,
    a_cancelled_send_says_exactly_what_the_kernel_took,
    a_cancelled_connect_either_stands_or_does_not,
    a_stream_survives_cancels_at_any_moment_while_its_peer_writes,
    a_listener_survives_cancels_at_any_moment_while_peers_connect,
];

const ROUNDS: usize = 10_000;
const OFTEN: usize = 500;

/// Something that comes from a peer, and an op that gives it.
trait Race {
    /// Starts the op.
    fn start(&mut self, driver: &mut TestDriver) -> OpKey;
    /// The peer sends one thing.
    fn provoke(&mut self, random: &mut Random);
    /// Takes what a completion carries, and checks it; false if it carries nothing.
    fn take(&mut self, completion: Completion) -> bool;
}

/// How often each outcome came.
#[derive(Debug, Default)]
struct Outcomes {
    /// The completion was there before the cancel was asked for.
    completed_first: usize,
    /// The op ended with nothing, and what came stayed where it was.
    cancelled_first: usize,
    /// The cancel and what it came too late for were met in one reap.
    in_one_reap: usize,
}

impl Outcomes {
    #[track_caller]
    fn assert_often(&self) {
        println!("{self:?}");
        let least = self.completed_first.min(self.cancelled_first).min(self.in_one_reap);
        assert!(least >= OFTEN, "{self:?}");
    }
}

fn run(mut driver: TestDriver, mut race: impl Race) {
    let mut random = Random::new();
    let mut outcomes = Outcomes::default();
    for _ in 0..ROUNDS {
        let mut taken = 0;
        let script = random.below(5);
        if script == 2 {
            race.provoke(&mut random);
        }
        let key = race.start(&mut driver);
        match script {
            // Complete, and reaped.
            0 => {
                race.provoke(&mut random);
                while taken == 0 {
                    taken += usize::from(race.take(driver.next_of(key)));
                }
            }
            // Idle.
            1 => driver.submit().unwrap(),
            // Started, complete and cancelled in one call.
            2 => {}
            // Complete, and not reaped.
            3 => {
                race.provoke(&mut random);
                driver.wait(Wait::Forever).unwrap();
            }
            // Deferred work is pending.
            _ => {
                driver.submit().unwrap();
                race.provoke(&mut random);
            }
        }
        let completed_first = taken > 0;
        driver.cancel(key);
        if script == 1 {
            if random.below(2) == 0 {
                driver.submit().unwrap();
            }
            race.provoke(&mut random);
        }
        // Entries of cancels may be left, which are nobody's completions.
        while driver.is_in_flight(key) {
            taken += usize::from(race.take(driver.next_of(key)));
        }
        assert!(driver.next_completion().is_none(), "it is over");
        match (taken, completed_first) {
            (0, _) => outcomes.cancelled_first += 1,
            (_, true) => outcomes.completed_first += 1,
            (_, false) => outcomes.in_one_reap += 1,
        }
        // What the cancelled op left is where the next one finds it.
        if taken == 0 {
            let key = race.start(&mut driver);
            while taken == 0 {
                taken += usize::from(race.take(driver.next_of(key)));
            }
            let rest = driver.retire(key);
            taken += rest
                .into_iter()
                .filter_map(|completion| race.take(completion).then_some(()))
                .count();
        }
        assert_eq!(taken, 1, "script {script}");
    }
    outcomes.assert_often();
    drop(race);
    driver.finish();
}

fn small_buffers() -> TestDriver {
    TestDriver::with(&DriverConfig { buffers: 8, buffer_size: 64, ..DriverConfig::default() })
}

/// Messages of a few bytes, numbered by their contents.
#[derive(Default)]
struct Messages {
    sent: VecDeque<Vec<u8>>,
    next: u8,
}

impl Messages {
    fn make(&mut self, random: &mut Random) -> Vec<u8> {
        let message = (0..=random.below(50))
            .map(|_| {
                self.next = self.next.wrapping_add(1);
                self.next
            })
            .collect::<Vec<u8>>();
        self.sent.push_back(message.clone());
        message
    }

    fn check(&mut self, bytes: &[u8]) {
        assert_eq!(self.sent.pop_front().as_deref(), Some(bytes));
    }
}

struct Stream<Peer> {
    ours: Descriptor,
    theirs: Peer,
    start: fn(&mut TestDriver, &Descriptor) -> OpKey,
    messages: Messages,
}

impl<Peer: Write> Race for Stream<Peer> {
    fn start(&mut self, driver: &mut TestDriver) -> OpKey {
        (self.start)(driver, &self.ours)
    }

    fn provoke(&mut self, random: &mut Random) {
        let message = self.messages.make(random);
        self.theirs.write_all(&message).unwrap();
    }

    fn take(&mut self, completion: Completion) -> bool {
        match completion.outcome {
            Outcome::Received(Ok(bytes)) => self.messages.check(&bytes),
            Outcome::Received(Err(error)) => return assert_cancelled(&error),
            other => panic!("{other:?}"),
        }
        true
    }
}

#[track_caller]
fn assert_cancelled(error: &std::io::Error) -> bool {
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}");
    false
}

fn run_stream(start: fn(&mut TestDriver, &Descriptor) -> OpKey) {
    let driver = small_buffers();
    let (ours, theirs) = unix_pair();
    run(driver, Stream { ours, theirs, start, messages: Messages::default() });
}

fn run_pipe(start: fn(&mut TestDriver, &Descriptor) -> OpKey) {
    let driver = small_buffers();
    let (read, theirs) = pipe();
    let ours = OwnedFd::from(read).into();
    run(driver, Stream { ours, theirs, start, messages: Messages::default() });
}

// spec: RISK-01 SOCK-08
fn a_cancelled_receive_loses_no_byte() {
    run_stream(|driver, ours| driver.recv(ours, &Account::new(), TOKEN));
}

// spec: RISK-01
fn a_cancelled_multishot_receive_loses_no_byte() {
    run_stream(|driver, ours| driver.recv_multishot(ours, &Account::new(), TOKEN));
}

fn a_cancelled_read_loses_no_byte() {
    run_pipe(|driver, ours| driver.read(ours, &Account::new(), TOKEN));
}

fn a_cancelled_multishot_read_loses_no_byte() {
    run_pipe(|driver, ours| driver.read_multishot(ours, &Account::new(), TOKEN));
}

struct Datagrams {
    ours: Descriptor,
    theirs: UnixDatagram,
    multishot: bool,
    messages: Messages,
}

impl Race for Datagrams {
    fn start(&mut self, driver: &mut TestDriver) -> OpKey {
        if self.multishot {
            driver.recv_from_multishot(&self.ours, &Account::new(), TOKEN)
        } else {
            driver.recv_from(&self.ours, 100, TOKEN)
        }
    }

    fn provoke(&mut self, random: &mut Random) {
        let message = self.messages.make(random);
        self.theirs.send(&message).unwrap();
    }

    fn take(&mut self, completion: Completion) -> bool {
        match completion.outcome {
            Outcome::Datagram(Ok(datagram)) => self.messages.check(&datagram.data()),
            Outcome::Datagram(Err(error)) => return assert_cancelled(&error),
            other => panic!("{other:?}"),
        }
        true
    }
}

fn run_datagrams(multishot: bool) {
    let driver = TestDriver::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = OwnedFd::from(ours).into();
    run(driver, Datagrams { ours, theirs, multishot, messages: Messages::default() });
}

// spec: RISK-36
fn a_cancelled_receive_of_a_datagram_loses_none() {
    run_datagrams(false);
}

// spec: RISK-36
fn a_cancelled_multishot_receive_of_datagrams_loses_none() {
    run_datagrams(true);
}

struct Listener {
    ours: Descriptor,
    address: SockAddr,
    multishot: bool,
    waiting: VecDeque<Socket>,
}

impl Listener {
    fn new(multishot: bool) -> Self {
        let ours = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        ours.bind(&SockAddr::unix(format!("\0ringloop-{}", std::process::id())).unwrap()).unwrap();
        ours.listen(64).unwrap();
        let address = ours.local_addr().unwrap();
        Self { ours: ours.into(), address, multishot, waiting: VecDeque::new() }
    }
}

impl Race for Listener {
    fn start(&mut self, driver: &mut TestDriver) -> OpKey {
        if self.multishot {
            driver.accept_multishot(&self.ours, TOKEN)
        } else {
            driver.accept(&self.ours, TOKEN)
        }
    }

    fn provoke(&mut self, _: &mut Random) {
        let peer = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        peer.connect(&self.address).unwrap();
        self.waiting.push_back(peer);
    }

    fn take(&mut self, completion: Completion) -> bool {
        let connection = match completion.outcome {
            Outcome::Accepted(Ok(connection)) => connection,
            Outcome::Accepted(Err(error)) => return assert_cancelled(&error),
            other => panic!("{other:?}"),
        };
        // It is the connection of the peer that has waited longest.
        let peer = self.waiting.pop_front().expect("as many connections as connects");
        drop(connection);
        let mut peer = peer;
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        true
    }
}

// spec: RISK-02 SOCK-21
fn a_cancelled_accept_loses_no_connection() {
    run(TestDriver::new(), Listener::new(false));
}

// spec: RISK-02 RISK-31
fn a_cancelled_multishot_accept_loses_no_connection() {
    run(TestDriver::new(), Listener::new(true));
}

struct Polled {
    ours: Descriptor,
    theirs: UnixStream,
}

impl Race for Polled {
    fn start(&mut self, driver: &mut TestDriver) -> OpKey {
        driver.poll(&self.ours, Interest { read: true, write: false }, TOKEN)
    }

    fn provoke(&mut self, _: &mut Random) {
        write_all(&self.theirs, b"x");
    }

    fn take(&mut self, completion: Completion) -> bool {
        match completion.outcome {
            Outcome::Polled(Ok(readiness)) => assert!(readiness.read),
            Outcome::Polled(Err(error)) => return assert_cancelled(&error),
            other => panic!("{other:?}"),
        }
        let mut byte = [std::mem::MaybeUninit::uninit()];
        assert_eq!(SockRef::from(&self.ours).recv(&mut byte).unwrap(), 1);
        true
    }
}

// spec: RISK-11
fn a_cancelled_poll_ends_once() {
    let driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    run(driver, Polled { ours, theirs });
}

/// The peer of a sender: reads, and checks that no byte is missing, doubled or moved.
struct Reader {
    theirs: UnixStream,
    buffer: Vec<u8>,
    place: usize,
}

impl Reader {
    fn read(&mut self, most: usize) -> usize {
        let mut count = 0;
        while count < most {
            let len = self.buffer.len().min(most - count);
            match self.theirs.read(&mut self.buffer[..len]) {
                Ok(0) => break,
                Ok(read) => {
                    for &byte in &self.buffer[..read] {
                        assert_eq!(byte, byte_at(self.place), "at {}", self.place);
                        self.place += 1;
                    }
                    count += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        count
    }
}

fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

fn queue_from(place: usize, len: usize) -> SendQueue {
    let bytes: Vec<u8> = (place..place + len).map(byte_at).collect();
    let mut queue = SendQueue::new();
    // In several chunks, so that a short send can end between two, or within one.
    for chunk in bytes.chunks((len / 3).max(300)) {
        queue.push(chunk.to_vec().into());
    }
    queue
}

// spec: RISK-20 SOCK-53
fn a_cancelled_send_says_exactly_what_the_kernel_took() {
    let mut random = Random::new();
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    SockRef::from(&ours).set_send_buffer_size(8 * 1024).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut reader = Reader { theirs, buffer: vec![0; 64 * 1024], place: 0 };
    let mut taken = 0;
    let mut outcomes = Outcomes::default();
    let mut partly = 0;
    for _ in 0..ROUNDS {
        let len = 1 + random.below(20_000) as usize;
        let script = random.below(5);
        if script == 2 {
            reader.read(usize::MAX);
        }
        let key = driver.send(&ours, queue_from(taken, len), false, TOKEN);
        let mut completion = None;
        match script {
            0 => {
                reader.read(usize::MAX);
                driver.wait(Wait::Now).unwrap();
                completion = driver.next_completion();
            }
            1 => driver.submit().unwrap(),
            2 => {}
            3 => {
                driver.submit().unwrap();
                reader.read(random.below(30_000) as usize);
                driver.wait(Wait::Now).unwrap();
            }
            _ => {
                driver.submit().unwrap();
                reader.read(random.below(30_000) as usize);
            }
        }
        let completed_first = completion.is_some();
        driver.cancel(key);
        if script == 1 {
            driver.submit().unwrap();
            reader.read(usize::MAX);
        }
        let completion = completion.unwrap_or_else(|| driver.next_of(key));
        assert!(!completion.more);
        match completion.outcome {
            Outcome::Sent(Ok(count), mut queue) => {
                taken += count;
                queue.advance(count);
                partly += usize::from(!queue.is_empty());
                if completed_first {
                    outcomes.completed_first += 1;
                } else {
                    outcomes.in_one_reap += 1;
                }
            }
            Outcome::Sent(Err(error), queue) => {
                assert_cancelled(&error);
                assert_eq!(queue.len(), len, "nothing of it was taken");
                outcomes.cancelled_first += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    reader.read(usize::MAX);
    assert_eq!(reader.place, taken, "what was acknowledged is what arrived");
    println!("{partly} sends were short");
    outcomes.assert_often();
    drop((ours, reader));
    driver.finish();
}

fn a_cancelled_connect_either_stands_or_does_not() {
    let mut random = Random::new();
    let mut driver = TestDriver::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    // Nobody accepts here, so that connects wait once its backlog is full.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    full.listen(0).unwrap();
    let full_address = full.local_addr().unwrap();
    let fillers: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&full_address);
            socket
        })
        .collect();
    let address = SockAddr::from(listener.local_addr().unwrap());
    let mut outcomes = Outcomes::default();
    for _ in 0..ROUNDS {
        let ours = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Closed with a reset, so that no port is kept.
        ours.set_linger(Some(Duration::ZERO)).unwrap();
        let ours = Descriptor::from(ours);
        let script = random.below(3);
        let key = driver.connect(&ours, if script == 1 { &full_address } else { &address }, TOKEN);
        let mut completion = None;
        match script {
            0 => completion = Some(driver.next_of(key)),
            1 => driver.submit().unwrap(),
            _ => {}
        }
        let completed_first = completion.is_some();
        driver.cancel(key);
        let completion = completion.unwrap_or_else(|| driver.next_of(key));
        match completion.outcome {
            Outcome::Connected(Ok(())) => {
                let name = SockRef::from(&ours).local_addr().unwrap().as_socket();
                // A cancelled one may have stood already (on Linux 6.1): then it was reset since.
                let peer = loop {
                    if let Ok(peer) = listener.accept().unwrap().0.peer_addr() {
                        break peer;
                    }
                };
                assert_eq!(Some(peer), name);
                if completed_first {
                    outcomes.completed_first += 1;
                } else {
                    outcomes.in_one_reap += 1;
                }
            }
            Outcome::Connected(Err(error)) => {
                assert_cancelled(&error);
                outcomes.cancelled_first += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    outcomes.assert_often();
    listener.set_nonblocking(true).unwrap();
    drop((listener, full, fillers));
    driver.finish();
}

// spec: RISK-01
fn a_stream_survives_cancels_at_any_moment_while_its_peer_writes() {
    let mut random = Random::new();
    let mut driver = small_buffers();
    let (ours, mut theirs) = unix_pair();
    let total = 8_000_000;
    let mut chunks = Random::from_seed(random.next());
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..total).map(byte_at).collect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let len = (1 + chunks.below(300) as usize).min(rest.len());
            theirs.write_all(&rest[..len]).unwrap();
            rest = &rest[len..];
        }
        theirs
    });
    let account = Account::new();
    let mut place = 0;
    let mut cancels = 0;
    while place < total {
        let key = match random.below(3) {
            0 => driver.recv(&ours, &account, TOKEN),
            1 => driver.read(&ours, &account, TOKEN),
            _ => driver.recv_multishot(&ours, &account, TOKEN),
        };
        for _ in 0..random.below(4) {
            driver.submit().unwrap();
            thread::yield_now();
        }
        let mut completions = driver.retire(key);
        cancels += 1;
        for completion in completions.drain(..) {
            match completion.outcome {
                Outcome::Received(Ok(bytes)) => {
                    for &byte in &*bytes {
                        assert_eq!(byte, byte_at(place), "at {place}");
                        place += 1;
                    }
                }
                Outcome::Received(Err(error)) => drop(assert_cancelled(&error)),
                other => panic!("{other:?}"),
            }
        }
    }
    println!("{cancels} cancels");
    assert_eq!(place, total);
    drop((ours, writer.join().unwrap()));
    driver.finish();
}

// spec: RISK-02
fn a_listener_survives_cancels_at_any_moment_while_peers_connect() {
    let mut random = Random::new();
    let mut driver = TestDriver::new();
    let path = format!("/tmp/ringloop-race-{}", std::process::id());
    let listener = UnixListener::bind(&path).unwrap();
    let ours = Descriptor::from(OwnedFd::from(listener));
    let total = 5_000;
    let connecting = path.clone();
    let peers = thread::spawn(move || {
        for number in 0..total {
            let mut peer = UnixStream::connect(&connecting).unwrap();
            peer.write_all(&u32::to_ne_bytes(number)).unwrap();
        }
    });
    let mut accepted = 0;
    while accepted < total {
        let key = match random.below(2) {
            0 => driver.accept(&ours, Token(1)),
            _ => driver.accept_multishot(&ours, Token(2)),
        };
        for _ in 0..random.below(4) {
            driver.submit().unwrap();
            thread::yield_now();
        }
        for completion in driver.retire(key) {
            match completion.outcome {
                Outcome::Accepted(Ok(connection)) => {
                    let mut connection = UnixStream::from(connection.into_owned().unwrap());
                    let mut number = [0; 4];
                    connection.set_nonblocking(false).unwrap();
                    connection.read_exact(&mut number).unwrap();
                    assert_eq!(u32::from_ne_bytes(number), accepted, "in order, none missing");
                    accepted += 1;
                }
                Outcome::Accepted(Err(error)) => drop(assert_cancelled(&error)),
                other => panic!("{other:?}"),
            }
        }
    }
    peers.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    drop(ours);
    driver.finish();
}
