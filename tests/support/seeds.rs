//! Seeds of random tests, and numbers from them.
//!
//! With `RINGLOOP_SEED=N` in the environment a random test runs with that seed only; with `RINGLOOP_SEEDS=N` those that run
//! with many run with so many.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::io::{Write, stdout};
use std::thread;

/// Calls `body` with `count` seeds. When it fails or hangs, the seed is the last number that was printed.
pub fn each_seed(count: u64, mut body: impl FnMut(u64)) {
    let seeds = match (number(ONE), number(MANY)) {
        (Some(seed), _) => seed..seed + 1,
        (None, many) => 0..many.unwrap_or(count),
    };
    for seed in seeds {
        let _failing = Tell(seed);
        print!("{seed} ");
        let _ = stdout().flush(); // Nobody may be listening any more.
        body(seed);
    }
    println!();
}

/// A seed that is another one each time, for a test that is long enough with one.
pub fn fresh_seed() -> u64 {
    let seed = number(ONE).unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    println!("{ONE}={seed}");
    seed
}

/// Says with which seed it was when a test fails.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("\nfailed with {ONE}={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Numbers that look random and follow from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Splitmix: each seed is a good one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of 0 to `end - 1`.
    pub fn below(&mut self, end: usize) -> usize {
        (((self.number() >> 32) * end as u64) >> 32) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const ONE: &str = "RINGLOOP_SEED";
const MANY: &str = "RINGLOOP_SEEDS";
