//! The bytes of one-way streams, which both ends know: [`source()`], again and again.

use crate::BUFFER;

/// [`SOURCE`] bytes. Its blocks differ from each other: one that is lost or sent twice is seen, as is a byte.
pub fn source() -> Vec<u8> {
    (0..SOURCE).map(|place| (place % 251 + place / BUFFER * 61) as u8).collect()
}

/// Compares a stream with what it is to be. Only servers that were asked to verify do so, apart from any measurement.
pub struct Check {
    source: Vec<u8>,
    received: u64,
    wrong: u64,
}

impl Check {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self { source: source(), received: 0, wrong: 0 }
    }

    /// Compares what comes next.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let place = (self.received % SOURCE as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(SOURCE - place));
            let wrong = now.iter().zip(&self.source[place..]).filter(|(byte, other)| byte != other);
            self.wrong += wrong.count() as u64;
            self.received += now.len() as u64;
            bytes = later;
        }
    }

    /// What the server answers when the stream has ended: how many bytes came, and how many of them were wrong.
    pub fn answer(&self) -> [u8; 16] {
        let mut answer = [0; 16];
        answer[..8].copy_from_slice(&self.received.to_le_bytes());
        answer[8..].copy_from_slice(&self.wrong.to_le_bytes());
        answer
    }

    /// Reads such an answer: how many bytes came, and how many of them were wrong.
    pub fn read(answer: [u8; 16]) -> (u64, u64) {
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        (number(&answer[..8]), number(&answer[8..]))
    }
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

/// The length of the source.
pub const SOURCE: usize = SOURCE_BLOCKS * BUFFER;

/// How many blocks of [`BUFFER`] it has, which a server sends one by one.
pub const SOURCE_BLOCKS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_tells_lost_and_changed_bytes() {
        let twice = [source(), source()].concat();
        let check = |bytes: &[u8]| {
            let mut check = Check::new();
            bytes.chunks(1000).for_each(|bytes| check.see(bytes));
            Check::read(check.answer())
        };
        assert_eq!(check(&twice), (twice.len() as u64, 0));
        let mut changed = twice.clone();
        changed[70_000] ^= 1;
        assert_eq!(check(&changed).1, 1);
        let lost = [&twice[..BUFFER], &twice[2 * BUFFER..]].concat();
        assert!(check(&lost).1 > lost.len() as u64 / 2);
    }
}
