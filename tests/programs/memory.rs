//! What a server keeps for clients that do not read.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::program::{Server, example};

// spec: FLOW-05, FLOW-06, TRANS-24
#[test]
fn clients_that_never_read_cost_the_echo_400_kib_each_at_most() {
    for mode in ["batched", "immediate"] {
        let server = Server::start(example("echo").args(["--port", "0", "--write-mode", mode]));
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(server.address)).collect();
        // What the server needs for any connections at all is there after this.
        for client in &mut clients {
            client.write_all(&[7; 64]).expect("the server reads");
            client.read_exact(&mut [0; 64]).expect("the server answers");
        }
        let before = resident_bytes(server.id());
        loop {
            let goes_on = send_what_there_is_room_for(&mut clients);
            let grown = resident_bytes(server.id()).saturating_sub(before) / CLIENTS;
            assert!(grown <= MOST, "{mode}: {} KiB for each client", grown / 1024);
            if !goes_on {
                break;
            }
        }
        drop(clients);
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
    }
}

/// Its buffers are small, so that what is sent is soon the server's.
fn client(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size that the kernel takes");
    socket.set_send_buffer_size(16 * 1024).expect("a size that the kernel takes");
    socket.connect(&server.into()).expect("it listens");
    socket.into()
}

/// `false` if there is none for any of them, and has not been for a while: the server reads from nobody.
fn send_what_there_is_room_for(clients: &mut [TcpStream]) -> bool {
    for client in clients.iter_mut() {
        client.set_nonblocking(true).expect("a socket");
        loop {
            match client.write(&[7; 16 * 1024]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server is gone: {error}"),
            }
        }
    }
    let polled = clients.iter().map(|client| PollFd::new(client, PollFlags::OUT));
    let a_while = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    poll(&mut polled.collect::<Vec<_>>(), Some(&a_while)).expect("poll") > 0
}

fn resident_bytes(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

const CLIENTS: usize = 100;
/// Per client: 256 KiB that were received and are lent to the write buffer, the 64 KiB of the high-water mark, and some.
const MOST: usize = 400 * 1024;
