//! What the servers of other runtimes share: their command line, and a listener like that of the product's benchmarks.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{self, ExitCode};

use pico_args::Arguments;
use socket2::{Domain, Protocol, Socket, Type};

/// What a server was asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where it is to listen.
    pub address: SocketAddr,
    /// Whether the runtime is taken as it comes, without the flags that suit this work.
    pub defaults: bool,
}

/// Takes the command line; what is wrong with it ends the program with code 2.
pub fn options() -> Options {
    parse(Arguments::from_env()).unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        process::exit(2)
    })
}

/// A non-blocking listener. Its connections inherit what is set on it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    // BBR, where it is the system's choice, paces by timers, and so costs what has nothing to do with a runtime.
    socket.set_tcp_congestion(b"reno")?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Says where the server listens, in the line that whoever started it waits for.
pub fn announce(address: SocketAddr) {
    println!("listening on {address}");
    io::stdout().flush().expect("stdout is open");
}

/// Reports why a server ended.
pub fn end<T, E: Display>(result: Result<T, E>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The size of a connection's buffer: that of all servers in the comparison.
pub const BUFFER: usize = 16 * 1024;

fn parse(mut arguments: Arguments) -> Result<Options, String> {
    let text = |error: pico_args::Error| error.to_string();
    let host: Option<IpAddr> = arguments.opt_value_from_str("--host").map_err(text)?;
    let port: Option<u16> = arguments.opt_value_from_str("--port").map_err(text)?;
    let mode: Option<String> = arguments.opt_value_from_str("--mode").map_err(text)?;
    let defaults = arguments.contains("--defaults");
    arguments.contains("--stats"); // Permitted; these servers count nothing.
    if let Some(word) = arguments.finish().first() {
        return Err(format!("unknown argument: {}", word.to_string_lossy()));
    }
    match mode.as_deref() {
        None | Some("echo") => {}
        Some(other) => return Err(format!("--mode {other}: this server knows echo only")),
    }
    let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Options { address: SocketAddr::new(host, port.unwrap_or(0)), defaults })
}

const BACKLOG: i32 = 4096;

const USAGE: &str = "\
usage: peer-… [--host ADDRESS] [--port N] [--mode echo] [--defaults] [--stats]

An echo server of one thread, with buffers of 16 KiB and TCP_NODELAY. Its first line says where it
listens; a signal ends it. --defaults leaves the runtime's flags as they come.";
