//! Servers of other runtimes. They are built apart, by `benches/peers/build.sh`.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;

/// A runtime, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: &'static str,
    /// Whether its flags are left as they come.
    pub defaults: bool,
}

impl Rival {
    /// Its server, if it was built: beside the folder of `server`.
    pub fn command(self, server: &Path) -> Result<Command, Failure> {
        let folder = server.ancestors().nth(2).unwrap_or(server).join("peers");
        let program = if self.is_python() {
            folder.join("venv/bin/python")
        } else {
            folder.join(format!("release/peer-{}", self.name))
        };
        if !program.is_file() {
            return Err(Failure::Cannot {
                error: format!("{self} is left out: {} is missing", program.display()),
                remedy: "build it: benches/peers/build.sh".to_owned(),
            });
        }
        let mut command = Command::new(program);
        if self.is_python() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/python/server.py");
            command.arg(script).arg(self.name);
        }
        command.args(self.defaults.then_some("--defaults"));
        Ok(command)
    }

    /// Whether its server is written in Python.
    pub fn is_python(self) -> bool {
        matches!(self.name, "asyncio" | "uvloop")
    }

    /// What a reader of its figures has to know.
    pub fn remark(self) -> Option<&'static str> {
        let remark = "nuclei is measured in version 0.4.4, as 0.5 needs Rust 1.99, and in the echo over TCP alone: on Unix \
                      sockets it panics; its executor has threads of its own, all of them on the server's core, which never rest: it is \
                      stopped while others are measured, and left out where it did not answer";
        (self.name == "nuclei").then_some(remark)
    }

    /// Whether its threads work on while there is nothing to do.
    pub fn is_restless(self) -> bool {
        self.name == "nuclei"
    }

    /// Whether its server is written for echo alone.
    pub fn echoes_only(self) -> bool {
        self.name == "nuclei"
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.name, if self.defaults { "-defaults" } else { "" }))
    }
}

const fn best(name: &'static str) -> Rival {
    Rival { name, defaults: false }
}

const fn defaults(name: &'static str) -> Rival {
    Rival { name, defaults: true }
}

/// All of them.
pub const RIVALS: [Rival; 10] = [
    best("monoio"),
    best("compio"),
    best("glommio"),
    best("nuclei"),
    best("asyncio"),
    best("uvloop"),
    defaults("monoio"),
    defaults("compio"),
    defaults("glommio"),
    defaults("nuclei"),
];
