//! Servers at the limit of what their process may have.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{EventLoop, Protocol, ProtocolResult, Received, Server, Transport, sleep};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{End, drain, tcp_socket};
use socket2::Socket;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "closed_while_it_rests_a_server_never_listens_again",
        body: closed_while_it_rests_a_server_never_listens_again,
        deadline: DEADLINE,
    },
    Test {
        name: "a_server_out_of_descriptors_serves_everybody_in_the_end",
        body: a_server_out_of_descriptors_serves_everybody_in_the_end,
        deadline: DEADLINE,
    },
];

const DEADLINE: Duration = Duration::from_secs(600);

struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }
}

/// A server in a process that may have few descriptors, and how often it has reported.
async fn limited_server() -> (Server, Rc<Cell<usize>>) {
    let event_loop = EventLoop::running().unwrap();
    let reports = Rc::new(Cell::new(0));
    let count = Rc::clone(&reports);
    event_loop.set_exception_handler(move |_, context| {
        assert_eq!(context.message, "socket.accept() out of system resource");
        count.set(count.get() + 1);
    });
    let pid = std::process::id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--nofile=64:"]).status();
    assert!(limited.unwrap().success());
    let server = event_loop.create_server(|| Echo, ("127.0.0.1", 0)).await.unwrap();
    (server, reports)
}

/// Takes all descriptors that are left.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Begins to connect. That the server has not accepted does not show here.
fn client(server: &Server) -> Socket {
    let socket = tcp_socket();
    socket.connect(&server.local_addr().unwrap().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

// spec: SERVER-44, SERVER-42, SERVER-43
fn closed_while_it_rests_a_server_never_listens_again() {
    on_loop(async {
        let (server, reports) = limited_server().await;
        let waiting = tcp_socket();
        let held = exhaust();
        waiting.connect(&server.local_addr().unwrap().into()).unwrap();
        settle().await;
        assert_eq!(reports.get(), 1);
        server.close();
        drop(held);
        // The number of the listener is free again, and soon that of another one.
        let others: Vec<_> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        sleep(Duration::from_millis(1200)).await;
        for other in &others {
            let mut stream = std::net::TcpStream::connect(other.local_addr().unwrap()).unwrap();
            stream.write_all(b"x").unwrap();
            let (mut accepted, _) = other.accept().unwrap();
            accepted.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(reports.get(), 1);
        server.wait_closed().await.unwrap();
        drop(waiting);
    });
}

// spec: SERVER-42, RISK-31
fn a_server_out_of_descriptors_serves_everybody_in_the_end() {
    on_loop(async {
        let (server, reports) = limited_server().await;
        let mut clients: Vec<_> = (0..10).map(|_| client(&server)).collect();
        let mut held = exhaust();
        settle().await;
        let accepted = held.len();
        held.truncate(accepted / 2);
        for client in &mut clients {
            client.write_all(b"hi").unwrap();
        }
        while clients.iter().any(|client| !has_answer(client)) {
            sleep(Duration::from_millis(50)).await;
            held.pop();
        }
        assert!(reports.get() <= 3, "{}", reports.get());
        for client in &clients {
            assert_eq!(drain(client), (b"hi".to_vec(), End::Again));
        }
        drop(clients);
        server.close();
        server.wait_closed().await.unwrap();
    });
}

fn has_answer(client: &Socket) -> bool {
    client.peek(&mut [std::mem::MaybeUninit::uninit(); 2]).is_ok_and(|length| length == 2)
}
