//! What is measured: a workload and its sizes.

use std::fmt;
use std::str::FromStr;

/// What goes between the load and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What comes in goes out again.
    Echo,
    /// A line comes in, and a line goes out: the same one.
    Lines,
    /// What comes in goes out again, in writes of [`SMALL`] bytes.
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

/// The sizes of a workload; written `64x1024x8`, with a `b` at the end for bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Connections.
    pub connections: usize,
    /// Bytes per message.
    pub size: usize,
    /// Messages outstanding per connection.
    pub depth: usize,
    /// All connections send together, and again when all answers are there.
    pub burst: bool,
}

impl Cell {
    /// Refuses what no load could do.
    pub fn check(self) -> Result<Self, String> {
        let Self { connections, size, depth, .. } = self;
        if !(1..=MOST_CONNECTIONS).contains(&connections) {
            return Err(format!("connections: 1 to {MOST_CONNECTIONS}"));
        }
        if !(1..=MOST_BYTES).contains(&size) || !(1..=MOST_BYTES / size).contains(&depth) {
            return Err(format!("size and depth: 1 to {MOST_BYTES} bytes per connection"));
        }
        Ok(self)
    }
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

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, size, depth, burst } = self;
        let burst = if *burst { "b" } else { "" };
        f.pad(&format!("{connections}x{size}x{depth}{burst}"))
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, burst) = match text.strip_suffix('b') {
            Some(numbers) => (numbers, true),
            None => (text, false),
        };
        let numbers: Result<Vec<usize>, _> = numbers.split('x').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[connections, size, depth]) => Self { connections, size, depth, burst }.check(),
            _ => Err("not of the form CONNECTIONSxBYTESxDEPTH, e.g. 64x1024x8".to_owned()),
        }
    }
}

/// The bytes of each of the many writes of [`Mode::Small`].
pub const SMALL: usize = 32;

const MODES: [(&str, Mode); 8] = [
    ("echo", Mode::Echo),
    ("lines", Mode::Lines),
    ("small", Mode::Small),
    ("fan-out", Mode::FanOut),
    ("connect", Mode::Connect),
    ("send", Mode::Send),
    ("receive", Mode::Receive),
    ("idle", Mode::Idle),
];
const MOST_CONNECTIONS: usize = 20_000;
const MOST_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_and_written() {
        let cell = Cell { connections: 64, size: 1024, depth: 8, burst: false };
        assert_eq!("64x1024x8".parse(), Ok(cell));
        assert_eq!("64x1024x8b".parse(), Ok(Cell { burst: true, ..cell }));
        for (name, mode) in MODES {
            assert_eq!((name.parse(), mode.to_string()), (Ok(mode), name.to_owned()));
        }
    }

    #[test]
    fn what_no_load_could_do_is_refused() {
        for text in ["", "64", "64x64", "0x64x1", "64x0x1", "64x64x0", "1x64x1x1", "1x99999999x99"]
        {
            assert!(text.parse::<Cell>().is_err(), "{text}");
        }
        assert!("chat".parse::<Mode>().is_err());
    }
}
