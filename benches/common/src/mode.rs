//! The kinds of traffic between the load and a server.

use std::fmt;
use std::str::FromStr;

/// What goes between the load and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What comes in goes out again.
    Echo,
    /// The same over a Unix socket.
    Unix,
    /// A line comes in, and a line goes out: the same one.
    Lines,
    /// What comes in goes out again, in writes of [`SMALL`](crate::SMALL) bytes.
    Small,
    /// What one connection sends goes to all.
    FanOut,
    /// A connection is opened, one message echoed, and the connection closed.
    Connect,
    /// The server sends as much as the load receives.
    Send,
    /// The server receives as much as the load sends, and answers nothing.
    Receive,
    /// Connections that are open, and quiet.
    Idle,
}

impl Mode {
    /// What the server has to do: it does not see how the load goes about an echo.
    pub fn of_server(self) -> Self {
        match self {
            Self::Connect | Self::Idle => Self::Echo,
            other => other,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = MODES.iter().find(|(_, mode)| mode == self).expect("all have a name");
        f.write_str(name)
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = MODES.iter().find(|(name, _)| *name == text);
        known
            .map(|&(_, mode)| mode)
            .ok_or_else(|| format!("not one of: {}", MODES.map(|(name, _)| name).join(", ")))
    }
}

const MODES: [(&str, Mode); 9] = [
    ("echo", Mode::Echo),
    ("unix", Mode::Unix),
    ("lines", Mode::Lines),
    ("small", Mode::Small),
    ("fan-out", Mode::FanOut),
    ("connect", Mode::Connect),
    ("send", Mode::Send),
    ("receive", Mode::Receive),
    ("idle", Mode::Idle),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_written() {
        for (name, mode) in MODES {
            assert_eq!((name.parse(), mode.to_string()), (Ok(mode), name.to_owned()));
        }
        assert!("chat".parse::<Mode>().is_err());
    }
}
