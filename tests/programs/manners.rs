//! First line, exit codes, signals, errors with their remedy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::Value;

use crate::program::{Server, example, run};

fn exchange(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the server reads");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    assert_eq!(answer, message);
}

#[test]
fn the_echo_serves_until_sigterm_and_exits_with_0() {
    for mode in ["batched", "immediate"] {
        let server =
            Server::start(example("echo").args(["--port", "0", "--write-mode", mode, "--stats"]));
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        exchange(&mut stream, b"hello");
        exchange(&mut stream, &[7; 300_000]);
        stream.shutdown(Shutdown::Write).expect("the connection stands");
        assert_eq!(stream.read(&mut [0; 1]).expect("a clean end"), 0);
        server.signal("TERM");
        let (code, rest) = server.wait();
        assert_eq!(code, Some(0));
        let stats: Value = serde_json::from_str(&rest).expect("one JSON object");
        for name in STATS {
            assert!(stats[name].is_u64(), "no {name} in {stats}");
        }
        let counted = ["connections", "bytes_in", "leased"].map(|name| stats[name].as_u64());
        assert_eq!(counted, [Some(1), Some(300_005), Some(0)]);
    }
}

#[test]
fn sigint_closes_a_client_that_is_still_connected() {
    let server = Server::start(example("echo").args(["--port", "0"]));
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    exchange(&mut stream, b"x");
    server.signal("INT");
    assert_eq!(stream.read(&mut [0; 1]).expect("a clean end"), 0);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn bad_usage_exits_with_2_and_shows_the_usage() {
    let wrong: [&[&str]; 4] =
        [&["--port"], &["--port", "many"], &["--write-mode", "lazy"], &["--no-such-option"]];
    for arguments in wrong {
        let output = run("echo", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.lines().count() >= 2 && text.to_lowercase().contains("usage"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_address_in_use_exits_with_1_and_names_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    for name in ["echo", "echo_protocol_server"] {
        let output = run(name, &["--port", &port]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains("error: ") && text.contains("remedy: "), "{text}");
        assert!(text.contains("address already in use"), "{text}");
    }
}

#[test]
fn too_few_open_files_exit_with_1_and_name_the_remedy() {
    let command = format!("ulimit -n 4; exec {}", crate::program::path_of("echo").display());
    let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("a shell");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("error: ") && text.contains("remedy: "), "{text}");
    assert!(text.contains("open files"), "{text}");
}

#[test]
fn the_echo_serves_on_either_driver_and_refuses_one_that_there_is_not() {
    for driver in ["uring", "epoll", "auto"] {
        let mut command = example("echo");
        let server = Server::start(command.args(["--port", "0", "--driver", driver]));
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        exchange(&mut stream, &[7; 300_000]);
        drop(stream);
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
    }
    let output = run("echo", &["--driver", "kqueue"]);
    assert_eq!(output.status.code(), Some(2));
    let output = example("echo").env("RINGLOOP_DRIVER", "kqueue").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("error: RINGLOOP_DRIVER") && text.contains("remedy: set"), "{text}");
}

#[test]
fn the_protocol_pair_prints_the_lines_of_the_document() {
    let server = Server::start(example("echo_protocol_server").args(["--port", "0"]));
    let port = server.address.port().to_string();
    let client = run("echo_protocol_client", &["--port", &port, "--message", "Hello, ring!"]);
    assert!(client.status.success(), "{client:?}");
    let printed = String::from_utf8(client.stdout).expect("text");
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "Data sent: Hello, ring!",
            "Data received: Hello, ring!",
            "The server closed the connection"
        ]
    );
    server.signal("TERM");
    let (code, printed) = server.wait();
    assert_eq!(code, Some(0));
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("Connection from ('127.0.0.1', "), "{printed}");
    assert_eq!(
        lines[1..4],
        ["Data received: Hello, ring!", "Send: Hello, ring!", "Close the client socket"]
    );
}

#[test]
fn the_stream_pair_prints_the_lines_of_the_document() {
    let server = Server::start(example("stream_server").args(["--port", "0"]));
    let port = server.address.port().to_string();
    for (message, shown) in [("Hello World!", "'Hello World!'"), ("it's \n", "\"it's \\n\"")] {
        let client = run("stream_client", &["--port", &port, "--message", message]);
        assert!(client.status.success(), "{client:?}");
        let printed = String::from_utf8(client.stdout).expect("text");
        let expected =
            [&format!("Send: {shown}"), &format!("Received: {shown}"), "Close the connection"];
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    }
    server.signal("TERM");
    let (code, printed) = server.wait();
    assert_eq!(code, Some(0));
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], format!("Serving on ('127.0.0.1', {port})"));
    assert!(lines[1].starts_with("Received 'Hello World!' from ('127.0.0.1', "), "{printed}");
    assert_eq!(lines[2..4], ["Send: 'Hello World!'", "Close the connection"]);
}

const STATS: [&str; 12] = [
    "connections",
    "bytes_in",
    "bytes_out",
    "enters",
    "sqes",
    "cqes",
    "overflows",
    "enobufs",
    "stale",
    "in_flight",
    "leased",
    "copied",
];
