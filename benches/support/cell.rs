//! What is measured: a workload and its sizes.

use std::fmt;
use std::str::FromStr;

pub use peers_common::{Mode, SMALL};

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
