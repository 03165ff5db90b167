//! CPython's asyncio as the other end.

use std::process::Command;

use crate::program::{Server, example, run};

#[test]
fn two_hundred_asyncio_clients_get_their_bytes_back() {
    if !has_python() {
        return;
    }
    for mode in ["batched", "immediate"] {
        let server = Server::start(example("echo").args(["--port", "0", "--write-mode", mode]));
        let port = server.address.port().to_string();
        let clients =
            Command::new("python3").args(["-c", CLIENTS, &port]).output().expect("it is there");
        assert!(clients.status.success(), "{}", String::from_utf8_lossy(&clients.stderr));
        assert_eq!(String::from_utf8_lossy(&clients.stdout).trim(), "200 clients");
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
    }
}

/// The client of asyncio's documents, with a port and a message of the test's.
#[test]
fn the_documents_own_client_talks_to_the_stream_server() {
    if !has_python() {
        return;
    }
    let server = Server::start(example("stream_server").args(["--port", "0"]));
    let port = server.address.port().to_string();
    let client = Command::new("python3").args(["-c", CLIENT, &port]).output().expect("it is there");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let printed = String::from_utf8(client.stdout).expect("text");
    let lines = ["Send: 'Hello World!'", "Received: 'Hello World!'", "Close the connection"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), lines);
    server.signal("TERM");
    let (_, printed) = server.wait();
    assert!(printed.contains("\nReceived 'Hello World!' from ('127.0.0.1', "), "{printed}");
}

/// The server of asyncio's documents, on a free port.
#[test]
fn the_stream_client_talks_to_the_documents_own_server() {
    if !has_python() {
        return;
    }
    let mut python = Command::new("python3");
    let server = Server::start(python.args(["-u", "-c", SERVER]));
    let port = server.address.port().to_string();
    let client = run("stream_client", &["--port", &port]);
    assert!(client.status.success(), "{client:?}");
    let printed = String::from_utf8(client.stdout).expect("text");
    let lines = ["Send: 'Hello World!'", "Received: 'Hello World!'", "Close the connection"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), lines);
    server.signal("KILL");
    let (_, printed) = server.wait();
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("Received 'Hello World!' from ('127.0.0.1', "), "{printed}");
    assert_eq!(lines[1..], ["Send: 'Hello World!'", "Close the connection"]);
}

pub(crate) fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").output();
    let found = version.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: there is no python3");
    }
    found
}

const CLIENT: &str = r#"
import asyncio, sys

async def tcp_echo_client(message):
    reader, writer = await asyncio.open_connection(
        '127.0.0.1', int(sys.argv[1]))

    print(f'Send: {message!r}')
    writer.write(message.encode())
    await writer.drain()

    data = await reader.read(100)
    print(f'Received: {data.decode()!r}')

    print('Close the connection')
    writer.close()
    await writer.wait_closed()

asyncio.run(tcp_echo_client('Hello World!'))
"#;

const SERVER: &str = r#"
import asyncio

async def handle_echo(reader, writer):
    data = await reader.read(100)
    message = data.decode()
    addr = writer.get_extra_info('peername')

    print(f"Received {message!r} from {addr!r}")

    print(f"Send: {message!r}")
    writer.write(data)
    await writer.drain()

    print("Close the connection")
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(
        handle_echo, '127.0.0.1', 0)

    address, port = server.sockets[0].getsockname()
    print(f'listening on {address}:{port}')

    async with server:
        await server.serve_forever()

asyncio.run(main())
"#;

const CLIENTS: &str = r#"
import asyncio, random, sys

async def client(number):
    chance = random.Random(number)
    reader, writer = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))
    for _ in range(4):
        payload = chance.randbytes(chance.choice([1, 64, 4096, 65536, chance.randint(1, 262144)]))
        async def send():
            writer.write(payload)
            await writer.drain()
        sending = asyncio.create_task(send())
        assert await reader.readexactly(len(payload)) == payload
        await sending
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()

async def main():
    await asyncio.wait_for(asyncio.gather(*map(client, range(200))), 60)
    print('200 clients')

asyncio.run(main())
"#;
