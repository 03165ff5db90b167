//! CPython's asyncio as the other end.

use std::process::Command;

use crate::program::{Server, example};

#[test]
fn two_hundred_asyncio_clients_get_their_bytes_back() {
    if !Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        println!("skipped: there is no python3");
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
