//! The pair of programs over socket calls, with each other and with those of the founding document.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::program::{Server, example};
use crate::python::has_python;

/// Runs a client to its end with `input`.
fn talk(client: &mut Command, input: &str) -> Output {
    let mut child = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn the_socket_pair_prints_the_lines_of_the_document() {
    let server = Server::start(example("socket_server").args(["--port", "0"]));
    let port = server.address.port().to_string();
    let mut client = example("socket_client");
    let output = talk(client.args(["--port", &port]), "hello world\n\nquit\nnever sent\n");
    assert_eq!(lines(&output), ["got message", "got message from server:  got message"]);
    // One that ends without saying so ends its connection, too.
    let mut client = example("socket_client");
    assert_eq!(lines(&talk(client.args(["--port", &port]), "")), ["got message"]);
    server.signal("TERM");
    let (code, printed) = server.wait();
    assert_eq!(code, Some(0));
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("connected to client:  ('127.0.0.1', "), "{printed}");
    let got = lines.iter().filter_map(|line| line.split_once("): ")).map(|(_, text)| text);
    let ack = "ack from client connect success";
    assert_eq!(got.collect::<Vec<_>>(), [ack, "hello world", "quit", ack]);
}

#[test]
fn the_documents_own_client_talks_to_the_socket_server() {
    if !has_python() {
        return;
    }
    let server = Server::start(example("socket_server").args(["--port", "0"]));
    let port = server.address.port().to_string();
    let mut client = Command::new("python3");
    let output = talk(client.args(["-c", CLIENT, &port]), "hello world\nquit\n");
    assert_eq!(lines(&output), ["got message", "got message from server:  got message"]);
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn the_socket_client_talks_to_the_documents_own_server() {
    if !has_python() {
        return;
    }
    let mut python = Command::new("python3");
    let server = Server::start(python.args(["-u", "-c", SERVER]));
    let port = server.address.port().to_string();
    let mut client = example("socket_client");
    let output = talk(client.args(["--port", &port]), "hello world\nquit\n");
    assert_eq!(lines(&output), ["got message", "got message from server:  got message"]);
    server.signal("KILL");
    let (_, printed) = server.wait();
    assert!(printed.contains(": hello world\n"), "{printed}");
}

/// As it stands there, but for the port.
const CLIENT: &str = r#"
import socket
import asyncio
import sys

async def request():
    loop = asyncio.get_event_loop()
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    await loop.sock_connect(client, ("127.0.0.1", int(sys.argv[1])))
    await loop.sock_sendall(client, "ack from client connect success".encode())
    result = await loop.sock_recv(client, 1024)
    print(result.decode())
    while True:
        send_message = input()
        await loop.sock_sendall(client, send_message.encode())
        if send_message == "quit":
            break
        receive_message = await loop.sock_recv(client, 1024)
        print("got message from server: ", receive_message.decode())
    client.close()

asyncio.run(request())
"#;

/// As it stands there, but for the port and the first line.
const SERVER: &str = r#"
import socket
import asyncio

async def handle_client(client, addr):
    loop = asyncio.get_event_loop()
    result = None
    while result != "quit":
        result = await loop.sock_recv(client, 1024)
        result = result.decode()
        print("got from {0}: {1}".format(addr, result))
        response = "got message"
        await loop.sock_sendall(client, response.encode())
    client.close()

async def run_server():
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(5)
    server.setblocking(False)
    print("listening on %s:%d" % server.getsockname())

    loop = asyncio.get_event_loop()

    while True:
        client, addr = await loop.sock_accept(server)
        print("connected to client: ", addr)
        loop.create_task(handle_client(client, addr))

asyncio.run(run_server())
"#;
