//! Cancels that race with completions: ten thousand rounds each, every byte, datagram and connection accounted for. Each way
//! in which such a race can end must have come often.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::{Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use ringloop::{Error, SendFile, Socket, timeout};
use ringloop_driver::testing::Faults;
use ringloop_tests::files::temporary;
use ringloop_tests::idle::{be_patient, settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::seeds::{Random, fresh_seed};
use ringloop_tests::sockets::{drain, narrow_tcp_pair, noise};
use socket2::{Domain, Type};

use crate::support::{
    listener, on_loop, pair, poll_once, running, tcp_pair, udp_pair, with_faults,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_cancelled_receive_loses_no_byte,
    a_cancelled_receive_loses_no_byte_whatever_goes_wrong_below,
    a_cancelled_receive_into_a_slice_loses_no_byte,
    a_cancelled_receive_into_a_slice_loses_no_byte_whatever_goes_wrong_below,
    a_cancelled_accept_loses_no_connection,
    a_cancelled_accept_loses_no_connection_whatever_goes_wrong_below,
    a_cancelled_receive_of_a_datagram_loses_none,
    a_cancelled_receive_of_a_datagram_loses_none_whatever_goes_wrong_below,
    after_a_cancelled_send_nothing_more_is_sent,
    after_a_cancelled_send_nothing_more_is_sent_whatever_goes_wrong_below,
    after_a_cancelled_sendfile_nothing_more_is_sent,
    after_a_cancelled_sendfile_nothing_more_is_sent_whatever_goes_wrong_below,
    a_cancelled_connect_leaves_nothing_behind,
    a_cancelled_connect_leaves_nothing_behind_whatever_goes_wrong_below,
    a_stream_survives_timeouts_while_its_peer_writes_from_a_thread,
    a_listener_survives_timeouts_while_peers_connect_from_a_thread,
];

const ROUNDS: usize = 10_000;
const OFTEN: usize = 500;
const THE_END: &[u8] = b"the end";

/// Something that comes from a peer, and the call that gives it.
trait Race {
    type Output: Debug;

    /// The call, which waits.
    fn start<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Self::Output, Error>> + 'a>>;
    /// The peer sends one thing.
    fn provoke(&self, random: &mut Random);
    /// Checks that it is the next one.
    fn check(&self, output: Self::Output);
}

/// How often each outcome came.
#[derive(Debug, Default)]
struct Outcomes {
    /// The call gave it.
    given: usize,
    /// It was given up, and what came later waited in the kernel.
    cancelled_first: usize,
    /// It was given up when what it had waited for had come already.
    cancelled_late: usize,
}

impl Outcomes {
    #[track_caller]
    fn assert_often(&self) {
        println!("{self:?}");
        let least = self.given.min(self.cancelled_first).min(self.cancelled_late);
        assert!(least >= OFTEN, "{self:?}");
    }
}

async fn run(race: impl Race, seed: u64) {
    let mut random = Random::new(seed);
    let mut outcomes = Outcomes::default();
    for _ in 0..ROUNDS {
        let script = random.below(5);
        {
            let mut call = pin!(race.start());
            assert!(poll_once(call.as_mut()).is_pending(), "nothing is there");
            turn(random.below(2)).await; // Whether the op is in the kernel, or only queued.
            match script {
                0 => {
                    race.provoke(&mut random);
                    race.check(call.await.unwrap());
                    outcomes.given += 1;
                    continue;
                }
                // Idle.
                1 => {}
                // It has come, and perhaps been reaped, and perhaps been given to the call.
                2 => {
                    race.provoke(&mut random);
                    turn(random.below(3)).await;
                }
                // A timeout is due in the iteration in which it comes.
                3 => {
                    race.provoke(&mut random);
                    match timeout(Duration::ZERO, call.as_mut()).await {
                        Ok(output) => {
                            race.check(output.unwrap());
                            outcomes.given += 1;
                            continue;
                        }
                        Err(error) => assert!(matches!(error, Error::Timeout)),
                    }
                }
                // Cancelled, in the same enter as it comes.
                _ => race.provoke(&mut random),
            }
        }
        if script == 1 {
            turn(random.below(2)).await;
            race.provoke(&mut random);
            outcomes.cancelled_first += 1;
        } else {
            turn(random.below(2)).await;
            outcomes.cancelled_late += 1;
        }
        if random.once_in(2) {
            turn(1).await;
        }
        race.check(race.start().await.unwrap());
        assert!(poll_once(pin!(race.start())).is_pending(), "and it came once");
    }
    outcomes.assert_often();
}

fn harmless(seed: u64) -> Faults {
    be_patient();
    Faults::harmless(seed)
}

/// Messages of some bytes, numbered by their contents.
#[derive(Default)]
struct Messages {
    sent: RefCell<VecDeque<Vec<u8>>>,
}

impl Messages {
    fn make(&self, random: &mut Random) -> Vec<u8> {
        let first = random.number() as u8;
        let message: Vec<u8> =
            (0..1 + random.below(60)).map(|at| first.wrapping_add(at as u8)).collect();
        self.sent.borrow_mut().push_back(message.clone());
        message
    }

    fn check(&self, bytes: &[u8]) {
        assert_eq!(self.sent.borrow_mut().pop_front().as_deref(), Some(bytes));
    }
}

struct Stream {
    ours: Rc<Socket>,
    theirs: socket2::Socket,
    messages: Messages,
}

impl Stream {
    fn new((ours, theirs): (Rc<Socket>, socket2::Socket)) -> Self {
        Self { ours, theirs, messages: Messages::default() }
    }
}

impl Race for Stream {
    type Output = ringloop::Received;

    fn start<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Self::Output, Error>> + 'a>> {
        Box::pin(self.ours.recv(100))
    }

    fn provoke(&self, random: &mut Random) {
        (&self.theirs).write_all(&self.messages.make(random)).unwrap();
    }

    fn check(&self, output: Self::Output) {
        self.messages.check(&output);
    }
}

// spec: SOCK-08, RISK-01, RISK-35
fn a_cancelled_receive_loses_no_byte() {
    on_loop(async { run(Stream::new(pair()), fresh_seed()).await });
    on_loop(async { run(Stream::new(tcp_pair()), fresh_seed()).await });
}

// spec: SOCK-08, RISK-01
fn a_cancelled_receive_loses_no_byte_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), async { run(Stream::new(pair()), seed).await });
}

struct Into(Stream);

impl Race for Into {
    type Output = Vec<u8>;

    fn start<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, Error>> + 'a>> {
        Box::pin(async {
            let mut buffer = vec![0; 100];
            let count = self.0.ours.recv_into(&mut buffer).await?;
            buffer.truncate(count);
            Ok(buffer)
        })
    }

    fn provoke(&self, random: &mut Random) {
        self.0.provoke(random);
    }

    fn check(&self, output: Vec<u8>) {
        self.0.messages.check(&output);
    }
}

// spec: SOCK-08, SOCK-41, RISK-01, RISK-28
fn a_cancelled_receive_into_a_slice_loses_no_byte() {
    on_loop(async { run(Into(Stream::new(pair())), fresh_seed()).await });
    on_loop(async { run(Into(Stream::new(tcp_pair())), fresh_seed()).await });
}

// spec: SOCK-08, SOCK-41, RISK-01, RISK-28
fn a_cancelled_receive_into_a_slice_loses_no_byte_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), async { run(Into(Stream::new(tcp_pair())), seed).await });
}

struct Connections {
    listener: Rc<Socket>,
    address: SocketAddr,
    clients: RefCell<VecDeque<TcpStream>>,
}

impl Connections {
    fn new() -> Self {
        let (listener, address) = listener();
        Self { listener, address, clients: RefCell::default() }
    }
}

impl Race for Connections {
    type Output = (Socket, ringloop::Address);

    fn start<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Self::Output, Error>> + 'a>> {
        Box::pin(self.listener.accept())
    }

    fn provoke(&self, _: &mut Random) {
        let client = TcpStream::connect(self.address).unwrap();
        // Without a reset the port would be blocked for a minute.
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        self.clients.borrow_mut().push_back(client);
    }

    fn check(&self, (server, peer): Self::Output) {
        let client = self.clients.borrow_mut().pop_front().unwrap();
        assert_eq!(peer.as_ip(), client.local_addr().ok());
        assert_eq!(server.getpeername().unwrap().as_ip(), client.local_addr().ok());
    }
}

// spec: SOCK-21, SOCK-22, RISK-02
fn a_cancelled_accept_loses_no_connection() {
    on_loop(async { run(Connections::new(), fresh_seed()).await });
}

// spec: SOCK-21, RISK-02
fn a_cancelled_accept_loses_no_connection_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), async { run(Connections::new(), seed).await });
}

struct Datagrams {
    ours: Rc<Socket>,
    theirs: UdpSocket,
    messages: Messages,
}

impl Datagrams {
    fn new() -> Self {
        let (ours, theirs) = udp_pair();
        Self { ours, theirs, messages: Messages::default() }
    }
}

impl Race for Datagrams {
    type Output = (ringloop::Received, ringloop::Address);

    fn start<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Self::Output, Error>> + 'a>> {
        Box::pin(self.ours.recvfrom(100))
    }

    fn provoke(&self, random: &mut Random) {
        self.theirs.send(&self.messages.make(random)).unwrap();
    }

    fn check(&self, (data, from): Self::Output) {
        assert_eq!(from.as_ip(), self.theirs.local_addr().ok());
        self.messages.check(&data);
    }
}

// spec: SOCK-43, RISK-36
fn a_cancelled_receive_of_a_datagram_loses_none() {
    on_loop(async { run(Datagrams::new(), fresh_seed()).await });
}

// spec: SOCK-43, RISK-36
fn a_cancelled_receive_of_a_datagram_loses_none_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), async { run(Datagrams::new(), seed).await });
}

#[derive(Debug, Default)]
struct Sends {
    whole: usize,
    partly: usize,
    /// When it had waited, and there was room again.
    late: usize,
}

impl Sends {
    fn count(&mut self, is_done: bool, has_room: bool) {
        let ended = match (is_done, has_room) {
            (true, _) => &mut self.whole,
            (false, true) => &mut self.late,
            (false, false) => &mut self.partly,
        };
        *ended += 1;
    }

    #[track_caller]
    fn assert_often(&self) {
        println!("{self:?}");
        assert!(self.whole.min(self.partly).min(self.late) >= OFTEN, "{self:?}");
    }
}

/// Sends one thing more, and receives up to that. Who sent first and received then would wait for the timers of TCP.
async fn end(ours: &Socket, theirs: &socket2::Socket, got: &mut Vec<u8>) {
    let mut sending = pin!(ours.sendall(THE_END));
    let mut is_sent = false;
    while !is_sent || !got.ends_with(THE_END) {
        if !is_sent {
            if let Poll::Ready(sent) = poll_once(sending.as_mut()) {
                sent.unwrap_or_else(|error| panic!("{error}"));
                is_sent = true;
            }
        }
        got.extend(drain(theirs).0);
        turn(1).await;
    }
}

/// Sends what does not fit, is drained in between, and is given up at any moment.
async fn cancel_sends(seed: u64) {
    let mut random = Random::new(seed);
    let mut sends = Sends::default();
    let data = noise(256 * 1024);
    let (ours, theirs) = narrow_tcp_pair();
    let ours = Socket::from(ours);
    for round in 0..ROUNDS {
        let data = &data[round % 1000..][..150_000 + random.below(100_000)];
        let mut got = Vec::new();
        let (is_done, has_room);
        {
            let mut sending = pin!(ours.sendall(data));
            (is_done, has_room) = go_on(sending.as_mut(), &theirs, &mut got, &mut random).await;
        }
        sends.count(is_done, has_room);
        // What is on its way arrives without anybody's help; what was not sent never does.
        end(&ours, &theirs, &mut got).await;
        let sent = &got[..got.len() - THE_END.len()];
        assert!(data.starts_with(sent), "round {round}: a prefix");
        assert!(!is_done || sent.len() == data.len());
    }
    sends.assert_often();
}

// spec: SOCK-53, RISK-20
fn after_a_cancelled_send_nothing_more_is_sent() {
    on_loop(cancel_sends(fresh_seed()));
}

// spec: SOCK-53, RISK-20
fn after_a_cancelled_send_nothing_more_is_sent_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), cancel_sends(seed));
}

/// Polls a send a few times, while its peer reads now and then what it has sent. Gives whether it is done, and whether there was
/// room when it was polled last.
async fn go_on<F: Future>(
    mut sending: Pin<&mut F>,
    theirs: &socket2::Socket,
    got: &mut Vec<u8>,
    random: &mut Random,
) -> (bool, bool) {
    let mut has_room = false;
    for _ in 0..1 + random.below(6) {
        if poll_once(sending.as_mut()).is_ready() {
            return (true, has_room);
        }
        has_room = random.once_in(2);
        if has_room {
            got.extend(drain(theirs).0);
        }
        turn(random.below(3)).await;
    }
    (false, has_room)
}

/// Sends parts of a file that do not fit; the file's position is behind what was sent.
async fn cancel_sendfiles(seed: u64) {
    let mut random = Random::new(seed);
    let mut sends = Sends::default();
    let data = noise(300 * 1024);
    let mut file = temporary(&data);
    let (ours, theirs) = narrow_tcp_pair();
    let ours = Socket::from(ours);
    for round in 0..ROUNDS {
        let offset = random.below(100_000);
        let count = 1 + random.below(200_000);
        file.rewind().unwrap();
        let mut got = Vec::new();
        let (is_done, has_room);
        {
            let part = SendFile::new(&file).offset(offset as u64).count(count as u64);
            let mut sending = pin!(ours.sendfile(part));
            (is_done, has_room) = go_on(sending.as_mut(), &theirs, &mut got, &mut random).await;
        }
        sends.count(is_done, has_room);
        end(&ours, &theirs, &mut got).await;
        let sent = got.len() - THE_END.len();
        assert!(data[offset..].starts_with(&got[..sent]), "round {round}: in order");
        assert!(!is_done || sent == count);
        let position = if sent == 0 { 0 } else { offset + sent };
        assert_eq!(file.stream_position().unwrap(), position as u64);
    }
    sends.assert_often();
}

// spec: SENDFILE-03, SENDFILE-07, RISK-34
fn after_a_cancelled_sendfile_nothing_more_is_sent() {
    on_loop(cancel_sendfiles(fresh_seed()));
}

// spec: SENDFILE-03, SENDFILE-07, RISK-34
fn after_a_cancelled_sendfile_nothing_more_is_sent_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), cancel_sendfiles(seed));
}

async fn cancel_connects(seed: u64) {
    let mut random = Random::new(seed);
    let (listener, address) = listener();
    let (mut stood, mut given_up) = (0, 0);
    for _ in 0..ROUNDS {
        let client = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
        client
            .with_fd(|fd| socket2::SockRef::from(&fd).set_linger(Some(Duration::ZERO)))
            .unwrap()
            .unwrap();
        let is_done = {
            let mut connecting = pin!(client.connect(address));
            let mut is_done = false;
            for _ in 0..1 + random.below(4) {
                if let Poll::Ready(connected) = poll_once(connecting.as_mut()) {
                    connected.unwrap();
                    is_done = true;
                    break;
                }
                turn(1).await;
            }
            is_done
        };
        if is_done {
            assert_eq!(client.getpeername().unwrap().as_ip(), Some(address));
            stood += 1;
        } else {
            given_up += 1;
        }
        drop(client);
        while let Poll::Ready(accepted) = poll_once(pin!(listener.accept())) {
            drop(accepted.unwrap());
        }
    }
    println!("stood {stood}, given up {given_up}");
    assert!(stood.min(given_up) >= OFTEN, "{stood} {given_up}");
    settle().await;
}

// spec: SOCK-34, SOCK-31
fn a_cancelled_connect_leaves_nothing_behind() {
    on_loop(cancel_connects(fresh_seed()));
}

// spec: SOCK-34, SOCK-31
fn a_cancelled_connect_leaves_nothing_behind_whatever_goes_wrong_below() {
    let seed = fresh_seed();
    with_faults(Some(harmless(seed)), cancel_connects(seed));
}

// spec: SOCK-08, RISK-01, RISK-35
fn a_stream_survives_timeouts_while_its_peer_writes_from_a_thread() {
    let seed = fresh_seed();
    on_loop(async {
        let mut random = Random::new(seed);
        let (ours, theirs) = pair();
        theirs.set_nonblocking(false).unwrap();
        let data = noise(4 << 20);
        let sent = data.clone();
        let writer = thread::spawn(move || {
            let mut random = Random::new(seed ^ 1);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(700)));
                (&theirs).write_all(now).unwrap();
                rest = later;
                if random.once_in(8) {
                    thread::yield_now();
                }
            }
        });
        let (mut got, mut given_up) = (Vec::new(), 0);
        loop {
            let most = 1 + random.below(1000);
            let limit = Duration::from_micros(random.below(60) as u64);
            match timeout(limit, ours.recv(most)).await {
                Ok(received) => {
                    let received = received.unwrap();
                    if received.is_empty() {
                        break;
                    }
                    assert!(received.len() <= most);
                    got.extend_from_slice(&received);
                }
                Err(_) => given_up += 1,
            }
        }
        writer.join().unwrap();
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        println!("{given_up} were given up");
    });
}

// spec: SOCK-21, RISK-02
fn a_listener_survives_timeouts_while_peers_connect_from_a_thread() {
    let seed = fresh_seed();
    on_loop(async {
        const CLIENTS: usize = 3000;
        let mut random = Random::new(seed);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Socket::from(listener);
        let connecting = running().run_in_executor(move || {
            for number in 0..CLIENTS as u32 {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(&number.to_le_bytes()).unwrap();
            }
        });
        let mut given_up = 0;
        let mut numbers = Vec::new();
        while numbers.len() < CLIENTS {
            let limit = Duration::from_micros(random.below(100) as u64);
            match timeout(limit, listener.accept()).await {
                Ok(accepted) => {
                    let (server, _) = accepted.unwrap();
                    let bytes = server.recv(4).await.unwrap();
                    numbers.push(u32::from_le_bytes(bytes[..].try_into().unwrap()));
                }
                Err(_) => given_up += 1,
            }
        }
        connecting.await.unwrap();
        assert!(numbers.iter().copied().eq(0..CLIENTS as u32), "each once, in their order");
        println!("{given_up} were given up");
    });
}
