//! Clients that never read, beside one that does.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    EventLoop, Listen, Result, StreamReader, StreamWriter, Transport, open_connection, start_server,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{bound, connect, reset};

use crate::allow_descriptors;

pub(crate) const TESTS: &[Test] = &[Test {
    name: "a_thousand_clients_that_never_read_cost_bounded_memory_and_hold_up_nobody",
    body: a_thousand_clients_that_never_read_cost_bounded_memory_and_hold_up_nobody,
    deadline: DEADLINE,
}];

// spec: STREAM-11, STREAM-53, STREAM-60
fn a_thousand_clients_that_never_read_cost_bounded_memory_and_hold_up_nobody() {
    allow_descriptors(2 * CLIENTS + 200);
    let transports = Rc::<RefCell<Vec<Transport>>>::default();
    let all = Rc::clone(&transports);
    on_loop(async move {
        let handler = move |reader: StreamReader, writer: StreamWriter| {
            all.borrow_mut().push(writer.transport().clone());
            amplify(reader, writer)
        };
        let socket = bound();
        socket.set_send_buffer_size(NARROW).unwrap(); // A connection inherits it.
        socket.set_recv_buffer_size(NARROW).unwrap();
        let listen = Listen::from(socket).limit(LIMIT).backlog(4096);
        let server = start_server(handler, listen).await.unwrap();
        let address = server.local_addr().unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
        settle().await;
        let before = resident();
        let mut moved = true;
        while moved {
            moved = false;
            for client in &clients {
                moved |= (&*client).write(&[b'\n'; 2000]).is_ok();
            }
            turn(3).await;
        }
        settle().await;
        for transport in &*transports.borrow() {
            let size = transport.get_write_buffer_size();
            assert!(size <= HIGH + ANSWER, "{size} bytes wait to be sent to one client");
        }
        // Both buffers, in memory that grows by doubling, and as much again for all else.
        let most = 2 * CLIENTS * (HIGH + ANSWER + 2 * LIMIT + 16 * 1024);
        let grown = resident().saturating_sub(before);
        assert!(grown < most, "{grown} bytes for {CLIENTS} clients");

        let (reader, writer) = open_connection(address).await.unwrap();
        for _ in 0..50 {
            writer.write(b"\n").unwrap();
            assert_eq!(reader.read_exactly(ANSWER).await.unwrap()[..], [b'x'; ANSWER]);
        }
        writer.close();
        writer.wait_closed().await.unwrap();

        EventLoop::current().unwrap().set_exception_handler(|_, _| {}); // A thousand resets.
        clients.into_iter().for_each(reset);
        transports.take();
        server.close();
        server.wait_closed().await.unwrap();
    });
}

/// Answers each line with a thousand times as much.
async fn amplify(reader: StreamReader, writer: StreamWriter) -> Result<()> {
    while !reader.read_line().await?.is_empty() {
        writer.write(&[b'x'; ANSWER])?;
        writer.drain().await?;
    }
    writer.close();
    writer.wait_closed().await
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const CLIENTS: usize = 1000;
const LIMIT: usize = 8 * 1024;
const ANSWER: usize = 1000;
/// Of the kernel's own buffers, before it doubles them.
const NARROW: usize = 16 * 1024;
const HIGH: usize = 64 * 1024;
const DEADLINE: Duration = Duration::from_secs(600);
