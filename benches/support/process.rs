//! Servers as processes, and what the system says about them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use peers_common::Address;
use serde_json::Value;

use crate::cell::Mode;
use crate::failure::Failure;
use crate::raw;
use crate::servers::{Kind, Peer};

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    stdout: BufReader<ChildStdout>,
    address: Address,
}

/// The processors' time since the system was started, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    total: u64,
    stolen: u64,
}

impl Process {
    /// Starts a process on a core.
    pub fn start(command: &mut Command, core: Option<usize>) -> io::Result<Self> {
        raw::bind(command, core).spawn().map(|child| Self { child })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks it to end with a signal, and ends it if it does not.
    pub fn stop(&mut self, signal: i32) -> io::Result<()> {
        raw::signal(self.id(), signal)?;
        if raw::wait_for_end(self.id(), ENDING)? {
            return Ok(());
        }
        self.child.kill()?;
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end when asked"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended.
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server on a free port and a core. With `verify` it compares what it receives.
    pub fn start(
        program: &Path,
        peer: Peer,
        mode: Mode,
        core: Option<usize>,
        verify: bool,
    ) -> Result<Self, Failure> {
        let Peer { kind, face } = peer;
        let mut command = match kind {
            Kind::Rival(rival) => rival.command(program)?,
            _ => Command::new(program),
        };
        command.args(["--stats", "--port", "0", "--mode", &mode.of_server().to_string()]);
        command.args(verify.then_some("--verify"));
        if !matches!(kind, Kind::Rival(_)) {
            command.args(["--kind", &kind.to_string(), "--face", &face.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let failed = |error| Failure::new(format!("server {peer}"), &error);
        let mut process = Process::start(&mut command, core).map_err(failed)?;
        let mut stdout = BufReader::new(process.child().stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(failed)?;
        let address = line.trim_end().strip_prefix("listening on ").map(str::parse);
        let Some(Ok(address)) = address else {
            return Err(Failure::Cannot {
                error: format!("server {peer} did not start"),
                remedy: format!("see its own message, or leave it out of --servers: {line}"),
            });
        };
        Ok(Self { process, stdout, address })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops it until it is resumed: it uses no time meanwhile.
    pub fn pause(&self) -> io::Result<()> {
        raw::signal(self.id(), libc::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> io::Result<()> {
        raw::signal(self.id(), libc::SIGCONT)
    }

    /// Ends it; what it has counted.
    pub fn stop(mut self) -> io::Result<Value> {
        self.process.stop(libc::SIGTERM)?;
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        if rest.trim().is_empty() {
            return Ok(Value::Null); // It counts nothing.
        }
        serde_json::from_str(rest.trim()).map_err(io::Error::from)
    }
}

/// A program that stands where this one does.
pub fn sibling(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::new("own executable", &error))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::Cannot {
        error: format!("{} is missing", path.display()),
        remedy: "build it: cargo build --release -p ringloop-benches --bins".to_owned(),
    })
}

/// The CPU time of a process, all threads.
pub fn cpu(process: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let line = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += number(line.split_whitespace().next())?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The resident memory of a process, in KiB.
pub fn rss(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    number(line.and_then(|line| line.split_whitespace().next()))
}

/// How long the first thread of a process was ready to run while others had its core. It is nothing
/// where the system does not count that.
pub fn queued(process: u32) -> io::Result<Duration> {
    match fs::read_to_string(format!("/proc/{process}/schedstat")) {
        Ok(times) => number(times.split_whitespace().nth(1)).map(Duration::from_nanos),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Duration::ZERO),
        Err(error) => Err(error),
    }
}

/// How many times a process went to sleep by itself, all threads.
pub fn sleeps(process: u32) -> io::Result<u64> {
    let mut sleeps = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps += number(line.map(str::trim))?;
    }
    Ok(sleeps)
}

impl Processors {
    /// As of now.
    pub fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
        let stolen = ticks.get(STEAL).copied().unwrap_or(0);
        // Guests' time, after that, is part of the users'.
        Ok(Self { total: ticks.iter().take(STEAL + 1).sum(), stolen })
    }

    /// Which part of the time since then the machine's host has taken away.
    pub fn stolen_since(self, then: Self) -> f64 {
        let total = self.total - then.total;
        if total == 0 { 0.0 } else { (self.stolen - then.stolen) as f64 / total as f64 }
    }
}

fn number(word: Option<&str>) -> io::Result<u64> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

const ENDING: Duration = Duration::from_secs(5);
const STEAL: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let own = std::process::id();
        assert!(cpu(own).unwrap() > Duration::ZERO);
        assert!(rss(own).unwrap() > 100);
        assert!(queued(own).is_ok());
        let now = Processors::now().unwrap();
        assert!(now.stolen_since(now) == 0.0);
    }

    #[test]
    fn a_process_ends_with_its_guard() {
        let mut command = Command::new("sleep");
        let process = Process::start(command.arg("60"), None).unwrap();
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
