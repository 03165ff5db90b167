//! The command line of a server that is written with another runtime.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process;

use pico_args::Arguments;

use crate::{Address, Mode};

/// What a server was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is to listen.
    pub address: Address,
    /// What it is to do.
    pub mode: Mode,
    /// Whether the runtime is taken as it comes, without the flags that suit this work.
    pub defaults: bool,
    /// Whether a receiving server compares what it receives.
    pub verify: bool,
}

/// Takes the command line of a server that knows these modes; what is wrong with it ends the program with code 2.
pub fn options(known: &[Mode]) -> Options {
    parse(Arguments::from_env(), known).unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        process::exit(2)
    })
}

fn parse(mut arguments: Arguments, known: &[Mode]) -> Result<Options, String> {
    let text = |error: pico_args::Error| error.to_string();
    let host: Option<IpAddr> = arguments.opt_value_from_str("--host").map_err(text)?;
    let port: Option<u16> = arguments.opt_value_from_str("--port").map_err(text)?;
    let mode: Option<Mode> = arguments.opt_value_from_str("--mode").map_err(text)?;
    let defaults = arguments.contains("--defaults");
    let verify = arguments.contains("--verify");
    arguments.contains("--stats"); // Permitted; these servers count nothing.
    if let Some(word) = arguments.finish().first() {
        return Err(format!("unknown argument: {}", word.to_string_lossy()));
    }
    let mode = mode.unwrap_or(Mode::Echo);
    if !known.contains(&mode) {
        return Err(format!("--mode {mode}: this server does not know it"));
    }
    let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let address = match mode {
        Mode::Unix => Address::unix(),
        _ => Address::Tcp(SocketAddr::new(host, port.unwrap_or(0))),
    };
    Ok(Options { address, mode, defaults, verify })
}

const USAGE: &str = "\
usage: peer-… [--host ADDRESS] [--port N] [--mode MODE] [--defaults] [--verify] [--stats]

A server of one thread, with buffers of 16 KiB and TCP_NODELAY. Its first line says where it
listens; a signal ends it.

  --mode      echo: what comes in goes out again (unless told); unix: the same on a Unix socket;
              small: in writes of 32 bytes; fan-out: to all connections; send: without end;
              receive: nothing goes out
  --defaults  leaves the runtime's flags as they come
  --verify    with --mode receive: compares each byte, and answers the end of the stream by how
              many came and how many were wrong";
