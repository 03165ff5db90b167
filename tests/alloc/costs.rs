//! What one message costs on the hot paths, exactly: rounds with the kernel, ops submitted and
//! completed, allocations, buffers copied.
//!
//! The client sits on the loop's own thread and uses blocking calls between two iterations, so each message takes the same
//! steps whatever else the machine does. The figures are facts of a ring with all optional features: elsewhere the tests say
//! so and end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::task::{Poll, Waker};

use ringloop::{
    DriverKind, EventLoop, Listen, Protocol, ProtocolResult, Received, Socket, StreamReader,
    StreamWriter, Transport, start_server,
};

use crate::{ALLOCATIONS, COUNTED, WARM_UP};

/// What each message costs, and what comes on top in [`COUNTED`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Costs {
    pub(crate) rounds: u64,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) allocations: u64,
    /// Receives that were copied out of their buffers.
    pub(crate) copied: u64,
    /// Multishot receives that the kernel ended for their turn's limit of bytes: each is one op submitted more, ...
    pub(crate) rearmed: u64,
    /// ... and as many rounds more, where nothing else was to be submitted then.
    pub(crate) rearmed_alone: u64,
}

/// One message through a protocol is one send, and two completions: of its receive and of its send.
pub(crate) fn an_echo_by_protocol_costs_one_send_and_no_copy() {
    let costs = measure(1, 64, async |event_loop, seen| {
        serve(event_loop, move || Answer { how: How::Echo, seen: Rc::clone(&seen) }).await
    });
    expect(costs, Costs { rearmed: 2, ..ONE_SEND });
}

pub(crate) fn an_echo_by_streams_costs_what_one_by_protocol_does() {
    let costs = measure(1, 64, async |_, seen| {
        let handler = move |reader, writer| echo_streams(reader, writer, Rc::clone(&seen));
        let server = start_server(handler, Listen::on("127.0.0.1", 0)).await.expect("a free port");
        let address = server.local_addr().expect("it is bound");
        (address, Box::new(server) as Box<dyn std::any::Any>)
    });
    expect(costs, Costs { rearmed: 2, rearmed_alone: 2, ..ONE_SEND });
}

/// Receives and sends are direct calls. The poll that waits for the next message stays armed.
pub(crate) fn an_echo_by_socket_calls_submits_nothing() {
    let costs = measure(1, 64, async |event_loop, seen| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = event_loop.create_task(async move {
            let (socket, _) = Socket::from(listener).accept().await.expect("the client connects");
            loop {
                let data = socket.recv(1024).await.expect("the client writes");
                seen.tell();
                if data.is_empty() {
                    return;
                }
                socket.sendall(data).await.expect("the client reads");
            }
        });
        (address, Box::new(task) as Box<dyn std::any::Any>)
    });
    expect(costs, Costs { rounds: 1, submitted: 0, completed: 1, ..ONE_SEND });
}

/// Eight writes of one callback are one send.
pub(crate) fn eight_small_writes_cost_one_send() {
    let costs = measure(1, 256, async |event_loop, seen| {
        serve(event_loop, move || Answer { how: How::Small, seen: Rc::clone(&seen) }).await
    });
    expect(costs, Costs { rearmed: 10, ..ONE_SEND });
}

/// One enter submits all sends of a fan-out.
pub(crate) fn a_fan_out_costs_one_send_for_each_receiver_and_no_enter_more() {
    let everyone = Everyone::default();
    let costs = measure(RECEIVERS, 64, async |event_loop, seen| {
        let answer = move || Answer { how: How::All(Rc::clone(&everyone)), seen: Rc::clone(&seen) };
        serve(event_loop, answer).await
    });
    let receivers = RECEIVERS as u64;
    expect(costs, Costs { submitted: receivers, completed: receivers + 1, rearmed: 2, ..ONE_SEND });
}

/// A connection with one message is a receive and a send, and four completions: of the accept, the message, the send and the end of
/// the stream. Allocated are its descriptor, its account, its transport and its protocol.
pub(crate) fn a_connection_costs_one_receive_one_send_and_four_allocations() {
    let costs = on_a_ring_with_all_features(async |event_loop| {
        let seen = Rc::new(Seen::default());
        let told = Rc::clone(&seen);
        let factory = move || Visited(Rc::clone(&told));
        let (address, kept) = serve(event_loop, factory).await;
        let mut before = [0; 5];
        for count in 0..2 * CONNECTIONS {
            if count == CONNECTIONS {
                before = snapshot(event_loop);
            }
            let mut client = TcpStream::connect(address).expect("the server listens");
            seen.wait().await;
            client.write_all(b"message").expect("the server reads");
            seen.wait().await;
            client.read_exact(&mut [0; 7]).expect("the server answers");
            client.shutdown(Shutdown::Write).expect("it is connected");
            seen.wait().await;
            let end = client.read(&mut [0]).expect("the server closes in order");
            assert_eq!(end, 0);
        }
        let costs = since(before, event_loop);
        drop(kept);
        costs
    });
    let expected = Costs { rounds: 5, submitted: 2, completed: 4, allocations: 4, ..ONE_SEND };
    expect_in(CONNECTIONS, costs, expected);
}

/// Tells of each step of its connection, and echoes.
struct Visited(Rc<Seen>);

impl Protocol for Visited {
    fn connection_made(&self, _: &Transport) {
        self.0.tell();
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        self.0.tell();
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        self.0.tell();
    }
}

fn expect(costs: Option<[u64; 5]>, expected: Costs) {
    expect_in(COUNTED, costs, expected);
}

fn expect_in(count: u64, costs: Option<[u64; 5]>, expected: Costs) {
    let Some(costs) = costs else {
        println!("skipped: the figures are those of io_uring with all its features");
        return;
    };
    let Costs { rounds, submitted, completed, allocations, copied, rearmed, rearmed_alone } =
        expected;
    let mut expected = [rounds, submitted, completed, allocations, copied].map(|each| each * count);
    expected[0] += rearmed_alone;
    expected[1] += rearmed;
    assert_eq!(
        costs, expected,
        "rounds, submitted, completed, allocations, copies in {count} messages"
    );
}

/// The costs of [`COUNTED`] messages, of so many bytes, which the first of the clients sends and all are answered.
fn measure(
    clients: usize,
    size: usize,
    start: impl AsyncFnOnce(&EventLoop, Rc<Seen>) -> (SocketAddr, Box<dyn std::any::Any>),
) -> Option<[u64; 5]> {
    on_a_ring_with_all_features(async |event_loop| {
        let seen = Rc::new(Seen::default());
        let (address, kept) = start(event_loop, Rc::clone(&seen)).await;
        let connect = |_| TcpStream::connect(address).expect("the server listens");
        let mut streams: Vec<TcpStream> = (0..clients).map(connect).collect();
        for stream in &streams {
            stream.set_nodelay(true).expect("a TCP socket");
        }
        while event_loop.counters().accepted < clients as u64 {
            ringloop::yield_now().await;
        }
        let message = vec![7; size];
        let mut answer = message.clone();
        let mut before = [0; 5];
        for count in 0..WARM_UP + COUNTED {
            if count == WARM_UP {
                before = snapshot(event_loop);
            }
            streams[0].write_all(&message).expect("the server reads");
            seen.wait().await;
            for stream in &mut streams {
                stream.read_exact(&mut answer).expect("the server answers");
            }
            assert_eq!(answer, message);
        }
        let costs = since(before, event_loop);
        drop(kept);
        costs
    })
}

/// `None` where the figures do not hold.
fn on_a_ring_with_all_features(
    measure: impl AsyncFnOnce(&EventLoop) -> [u64; 5],
) -> Option<[u64; 5]> {
    ringloop::run(async {
        let event_loop = EventLoop::current().expect("runs in a loop");
        let info = event_loop.driver_info().expect("it has a driver");
        if info.driver != DriverKind::Uring || !info.missing.is_empty() {
            return None;
        }
        Some(measure(&event_loop).await)
    })
    .expect("the loop ran")
}

fn since(before: [u64; 5], event_loop: &EventLoop) -> [u64; 5] {
    let after = snapshot(event_loop);
    std::array::from_fn(|index| after[index] - before[index])
}

fn snapshot(event_loop: &EventLoop) -> [u64; 5] {
    let counters = event_loop.counters();
    [counters.rounds, counters.submitted, counters.completed, ALLOCATIONS.get(), counters.copied]
}

async fn serve<P: Protocol + 'static>(
    event_loop: &EventLoop,
    factory: impl Fn() -> P + 'static,
) -> (SocketAddr, Box<dyn std::any::Any>) {
    let listen = Listen::on("127.0.0.1", 0);
    let server = event_loop.create_server(factory, listen).await.expect("a free port");
    (server.local_addr().expect("it is bound"), Box::new(server))
}

async fn echo_streams(
    reader: StreamReader,
    writer: StreamWriter,
    seen: Rc<Seen>,
) -> ringloop::Result<()> {
    loop {
        let data = reader.read(1024).await?;
        seen.tell();
        if data.is_empty() {
            writer.close();
            return writer.wait_closed().await;
        }
        writer.write(data)?;
        writer.drain().await?;
    }
}

/// That a message has come in. No future of the library, which would be counted, too.
#[derive(Default)]
struct Seen {
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Seen {
    fn tell(&self) {
        self.told.set(true);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.told.take() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

struct Answer {
    how: How,
    seen: Rc<Seen>,
}

enum How {
    Echo,
    Small,
    All(Everyone),
}

type Everyone = Rc<RefCell<Vec<Transport>>>;

impl Protocol for Answer {
    fn connection_made(&self, transport: &Transport) {
        if let How::All(everyone) = &self.how {
            everyone.borrow_mut().push(transport.clone());
        }
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        match &self.how {
            How::Echo => transport.write(data)?,
            How::Small => data.chunks(32).try_for_each(|piece| transport.write(piece))?,
            How::All(everyone) => {
                everyone.borrow().iter().try_for_each(|other| other.write(data.clone()))?;
            }
        }
        self.seen.tell();
        Ok(())
    }
}

/// A message that comes in by a receive which stays armed, and whose answer goes out by one send.
const ONE_SEND: Costs = Costs {
    rounds: 2,
    submitted: 1,
    completed: 2,
    allocations: 0,
    copied: 0,
    rearmed: 0,
    rearmed_alone: 0,
};
/// Few enough for the ports of this machine, each of which rests for a minute when its connection has ended.
const CONNECTIONS: u64 = 500;
/// Fewer than the kernel completes at once.
const RECEIVERS: usize = 16;
