//! The manners that all examples share: arguments, the first line, signals, exit codes.

#![allow(dead_code, reason = "no example needs all of it")]

use std::fmt::Display;
use std::io::{self, Write};
use std::process::{ExitCode, exit};
use std::str::FromStr;
use std::time::Duration;

use pico_args::Arguments;
use ringloop::{
    Address, Counters, DriverChoice, DriverConfig, Error, EventLoop, EventLoopBuilder, LoopFuture,
    OsError, Result, Server, timeout,
};
use serde_json::{Value, json};

/// The command line, and what a program says about how it is used.
pub(crate) struct CommandLine {
    usage: &'static str,
    arguments: Arguments,
}

impl CommandLine {
    /// Reads it. Ends the program if it asks for help.
    pub(crate) fn new(usage: &'static str) -> Self {
        let mut arguments = Arguments::from_env();
        if arguments.contains(["-h", "--help"]) {
            println!("{usage}");
            exit(0);
        }
        Self { usage, arguments }
    }

    /// A loop on the driver that was named.
    pub(crate) fn builder(&mut self) -> EventLoopBuilder {
        let driver = self.value("--driver", DriverChoice::Environment);
        EventLoop::builder().driver(DriverConfig { driver, ..DriverConfig::default() })
    }

    /// The value of the option `name`, or `default` if it was not given.
    pub(crate) fn value<T: FromStr<Err: Display>>(&mut self, name: &'static str, default: T) -> T {
        match self.arguments.opt_value_from_str(name) {
            Ok(value) => value.unwrap_or(default),
            Err(error) => self.refuse(format_args!("{name}: {error}")),
        }
    }

    /// Whether the flag `name` was given.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        self.arguments.contains(name)
    }

    /// Ends the program if something is left that nobody has asked for.
    pub(crate) fn finish(self) {
        let usage = self.usage;
        if let Some(word) = self.arguments.finish().first() {
            refuse(usage, format_args!("unknown argument {}", word.to_string_lossy()));
        }
    }

    /// Bad usage: one line, and the usage.
    pub(crate) fn refuse(&self, text: impl Display) -> ! {
        refuse(self.usage, text);
    }
}

fn refuse(usage: &str, text: impl Display) -> ! {
    eprintln!("error: {text}\n{usage}");
    exit(2);
}

/// Serves until SIGINT or SIGTERM. Then accepts nothing more, closes the clients, and aborts those that are left after 5 s.
pub(crate) async fn serve_until_signal(server: &Server) -> Result<()> {
    serve_and_say(server, || ()).await
}

/// The same for a server that says more than where it listens.
pub(crate) async fn serve_and_say(server: &Server, more: impl FnOnce()) -> Result<()> {
    let stop = stop_signal()?;
    if let Some(address) = server.local_addr() {
        say(format_args!("listening on {address}"));
        more();
    }
    stop.await?;
    server.close();
    server.close_clients();
    if timeout(PATIENCE, server.wait_closed()).await.is_err() {
        server.abort_clients();
        server.wait_closed().await?;
    }
    Ok(())
}

/// Done with the first SIGINT or SIGTERM.
pub(crate) fn stop_signal() -> Result<LoopFuture<()>> {
    let event_loop = EventLoop::running()?;
    let stop = event_loop.create_future();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let stop = stop.clone();
        event_loop.add_signal_handler(signal, move |_| {
            stop.set_result(()).ok(); // The second signal changes nothing.
        })?;
    }
    Ok(stop)
}

/// One line on stdout, at once.
pub(crate) fn say(text: impl Display) {
    let mut stdout = io::stdout().lock();
    // Whoever listened has gone: no reason to stop serving.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// An address as Python writes it.
pub(crate) fn address(address: Option<Address>) -> String {
    match address.and_then(|address| address.as_ip()) {
        Some(address) => format!("('{}', {})", address.ip(), address.port()),
        None => "None".to_owned(),
    }
}

/// Text as Python quotes it.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for char in text.chars() {
        match char {
            '"' => quoted.push('"'),
            '\'' if quote == '"' => quoted.push('\''),
            char if char.is_ascii() => quoted.extend(char.escape_default()),
            char => quoted.push(char),
        }
    }
    quoted.push(quote);
    quoted
}

/// What the loop has counted, as one JSON object. Its words are those of a ring, also over epoll: scripts read them.
pub(crate) fn stats(connections: u64, counters: &Counters) -> Value {
    json!({
        "connections": connections,
        "bytes_in": counters.bytes_in,
        "bytes_out": counters.bytes_out,
        "enters": counters.rounds,
        "sqes": counters.submitted,
        "cqes": counters.completed,
        "overflows": counters.ring.map_or(0, |ring| ring.overflows),
        "enobufs": counters.enobufs,
        "stale": counters.stale,
        "in_flight": counters.in_flight,
        "leased": counters.leased,
        "copied": counters.copied,
    })
}

/// The exit code; a program that cannot start says why, and what to do about it.
pub(crate) fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let (cause, remedy) = match &error {
        Error::Setup(error) => (error.cause().to_owned(), error.remedy().to_owned()),
        Error::Io(io) => (error.to_string(), remedy_for(OsError::errno_of(io)).to_owned()),
        _ => (error.to_string(), "see the documentation of ringloop".to_owned()),
    };
    eprintln!("error: {cause}\nremedy: {remedy}");
    ExitCode::FAILURE
}

fn remedy_for(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EADDRINUSE) => {
            "choose another --port (0 takes a free one), or stop the program that has it"
        }
        Some(libc::EACCES) => "choose a --port from 1024 on, or run with CAP_NET_BIND_SERVICE",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::ECONNREFUSED) => "start the server first, or name its --host and --port",
        _ => "check --host and --port",
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
