//! The same server on each peer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use peers_common::Address;
use pico_args::Arguments;
use ringloop_benches::args::{self, value};
use ringloop_benches::cell::Mode;
use ringloop_benches::failure::Failure;
use ringloop_benches::raw;
use ringloop_benches::servers::{self, Kind, Peer};

fn main() -> ExitCode {
    args::run(USAGE, serve)
}

fn serve(mut arguments: Arguments) -> Result<ExitCode, Failure> {
    let kind: Option<Kind> = value(&mut arguments, "--kind")?;
    let face = value(&mut arguments, "--face")?.unwrap_or_default();
    let mode = value(&mut arguments, "--mode")?.unwrap_or(Mode::Echo);
    let host = value(&mut arguments, "--host")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = value(&mut arguments, "--port")?.unwrap_or(0);
    let stats = arguments.contains("--stats");
    let verify = arguments.contains("--verify");
    args::finish(arguments)?;
    let kind = kind.ok_or_else(|| Failure::Usage("--kind is missing".to_owned()))?;

    let peer = Peer { kind, face };
    raw::raise_open_files().map_err(|error| Failure::new("open files", &error))?;
    let address = match mode {
        Mode::Unix => Address::unix(),
        _ => Address::Tcp(SocketAddr::new(host, port)),
    };
    let counted = servers::serve(peer, mode, &address, verify, peers_common::announce)?;
    if stats {
        println!("{}", counted.to_json(peer));
    }
    Ok(ExitCode::SUCCESS)
}

const USAGE: &str = "\
usage: server --kind ringloop|immediate|ringloop-epoll|epoll|ring|tokio
              [--face protocol|streams|sock|exact|buffered|large] [--mode MODE] [--host ADDRESS]
              [--port N] [--verify] [--stats]

The same server on each peer: one thread, buffers of 16 KiB (ringloop takes 64 KiB for a
connection that fills these), TCP_NODELAY. Its first line says where it listens. SIGINT or SIGTERM
end it.

  --kind    ringloop; immediate: ringloop, sending inside each write(); ringloop-epoll: on its
            epoll driver; epoll: level-triggered, no runtime; ring: io_uring, no runtime; tokio
  --face    what ringloop's server is written with: protocol: callbacks (unless told); streams: a
            task per connection, with a reader and a writer; sock: the same with socket calls, and
            of the bare ring one with a receive for each piece; exact: of the bare ring, with the
            system calls that exact socket calls oblige to, each made at once; buffered: tokio's
            server with a BufWriter, for lines and small; large: epoll and tokio with buffers of
            64 KiB, for echo and receive
  --mode    echo: what comes in goes out again (unless told); unix: the same on a Unix socket, whose
            name is made up; lines: line by line (ringloop's streams and tokio); small: in writes
            of 32 bytes; fan-out: to all connections; send: without end; receive: nothing goes out
  --host    127.0.0.1 unless told
  --port    0: a free one
  --verify  with --mode receive: compares each byte, and answers the end of the stream by how many
            came and how many were wrong
  --stats   a last line, as JSON, with what it has counted";
