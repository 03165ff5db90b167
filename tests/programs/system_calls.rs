//! What a server asks of the kernel, seen from outside.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::program::{Server, path_of};

#[test]
fn a_message_costs_no_system_call_but_the_ring() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace");
        return;
    }
    for connections in [64, 1000] {
        let summary = std::env::temp_dir()
            .join(format!("ringloop-strace-{}-{connections}", std::process::id()));
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-c", "-o"])
            .arg(&summary)
            .arg(path_of("echo"))
            .args(["--port", "0", "--driver", "uring"]);
        let server = Server::start(&mut traced);
        let mut streams: Vec<_> = (0..connections)
            .map(|_| TcpStream::connect(server.address).expect("it listens"))
            .collect();
        for _ in 0..ROUNDS {
            for stream in &mut streams {
                stream.write_all(&[7; 64]).expect("the server reads");
            }
            for stream in &mut streams {
                stream.read_exact(&mut [0; 64]).expect("the server answers");
            }
        }
        drop(streams);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.id()))
            .expect("strace runs");
        let traced =
            children.split_whitespace().next().expect("it has a child").parse().expect("a number");
        server.signal_process("TERM", traced);
        assert_eq!(server.wait().0, Some(0));
        let text = fs::read_to_string(&summary).expect("strace wrote it");
        let _ = fs::remove_file(&summary);
        let messages = ROUNDS * connections;
        assert!(calls_of(&text, "io_uring_enter") > 0, "{text}");
        for call in FORBIDDEN {
            // Start and end have their own: a few of each are no cost of a message.
            assert!(
                calls_of(&text, call) < 50 + messages / 100,
                "{call} with {messages} messages\n{text}"
            );
        }
        assert!(calls_of(&text, "close") <= connections + 50, "{connections} connections\n{text}");
    }
}

/// The column `calls` of the row that ends with `name`.
fn calls_of(summary: &str, name: &str) -> usize {
    let row = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|columns| columns.last() == Some(&name));
    row.map_or(0, |columns| columns[3].parse().expect("a count"))
}

const ROUNDS: usize = 20;

const FORBIDDEN: [&str; 16] = [
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "read",
    "readv",
    "write",
    "writev",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "poll",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
];
