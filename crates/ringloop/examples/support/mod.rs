//! The manners that all examples share: arguments, the first line, signals, exit codes.

#![allow(dead_code, reason = "no example needs all of it")]

use std::fmt::Display;
use std::io::{self, Write};
use std::process::{ExitCode, exit};
use std::str::FromStr;
use std::time::Duration;

use ringloop::{Counters, Error, EventLoop, OsError, Result, Server, timeout};

/// What stands on the command line: names with a value, and names alone.
pub(crate) struct Arguments {
    usage: &'static str,
    values: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Arguments {
    /// Reads the command line. Ends the program if it is asked for help, or for what it does not know.
    pub(crate) fn parse(usage: &'static str, names: &[&str], flags: &[&str]) -> Self {
        let mut parsed = Self { usage, values: Vec::new(), flags: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" {
                println!("{usage}");
                exit(0);
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            if names.contains(&&*name) {
                match value.or_else(|| arguments.next()) {
                    Some(value) => parsed.values.push((name, value)),
                    None => parsed.refuse(format!("{name} needs a value")),
                }
            } else if flags.contains(&&*name) && value.is_none() {
                parsed.flags.push(name);
            } else {
                parsed.refuse(format!("unknown argument {name}"));
            }
        }
        parsed
    }

    /// The value of `name`, or what it is if nothing was said.
    pub(crate) fn value<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> T {
        match self.values.iter().rfind(|(known, _)| known == name) {
            None => default,
            Some((_, text)) => text.parse().unwrap_or_else(|error| {
                self.refuse(format!("{name} {text}: {error}"));
            }),
        }
    }

    /// Whether `name` was given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|known| known == name)
    }

    /// Bad usage: one line, and the usage.
    pub(crate) fn refuse(&self, text: impl Display) -> ! {
        eprintln!("error: {text}\n{}", self.usage);
        exit(2);
    }
}

/// Serves until SIGINT or SIGTERM. Then accepts nothing more, closes the clients, and aborts those that are left after 5 s.
pub(crate) async fn serve_until_signal(server: &Server) -> Result<()> {
    let event_loop = EventLoop::running()?;
    let stop = event_loop.create_future();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let stop = stop.clone();
        event_loop.add_signal_handler(signal, move |_| {
            stop.set_result(()).ok(); // The second signal changes nothing.
        })?;
    }
    if let Some(address) = server.local_addr() {
        say(format_args!("listening on {address}"));
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

/// One line on stdout, at once.
pub(crate) fn say(text: impl Display) {
    let mut stdout = io::stdout().lock();
    // Whoever listened has gone: no reason to stop serving.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// What the loop has counted, as one JSON object.
pub(crate) fn stats(connections: u64, counters: &Counters) -> String {
    let Counters { bytes_in, bytes_out, enters, sqes, cqes, overflows, .. } = counters;
    let Counters { enobufs, stale, in_flight, leased, copied, .. } = counters;
    format!(
        "{{\"connections\":{connections},\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out},\
         \"enters\":{enters},\"sqes\":{sqes},\"cqes\":{cqes},\"overflows\":{overflows},\
         \"enobufs\":{enobufs},\"stale\":{stale},\"in_flight\":{in_flight},\"leased\":{leased},\
         \"copied\":{copied}}}"
    )
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
