//! Random numbers by a seed, which is printed: a failure can be run again with `RINGLOOP_SEED`.

use std::env;
use std::time::SystemTime;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = match env::var("RINGLOOP_SEED") {
            Ok(text) => text.parse().expect("RINGLOOP_SEED is a number"),
            Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64),
        };
        println!("seed: {seed}");
        Self::from_seed(seed)
    }

    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 32) % end
    }
}
