//! An example, built and running.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A server that has said where it listens. Killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `command` and reads its first line.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the example starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it writes text");
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.strip_suffix('\n'));
        let address = address.unwrap_or_else(|| panic!("not the first line of a server: {line:?}"));
        let address = address.parse().expect("an address and a port");
        Self { child, stdout, address }
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.signal_process(signal, self.child.id());
    }

    pub(crate) fn signal_process(&self, signal: &str, process: u32) {
        let sent = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
        assert!(sent.expect("kill(1) is everywhere").success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; gives the exit code and what it wrote after the first line.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("it writes text");
        (self.child.wait().expect("it is our child").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example by its name, to be given arguments.
pub(crate) fn example(name: &str) -> Command {
    Command::new(path_of(name))
}

/// Runs an example to its end.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    example(name).args(arguments).output().expect("the example starts")
}

/// `cargo test` builds the examples of the library; a run of this package alone does not.
pub(crate) fn path_of(name: &str) -> PathBuf {
    let tests = env::current_exe().expect("a test knows its file");
    let path =
        tests.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("examples").join(name);
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "ringloop", "--example", name]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo ran this test").success());
    path
}
