//! Random programs of safe calls, from inside of everything that the library calls or drops, which panics now and then.
//!
//! Whatever a program does, it ends with nothing open, in flight, lent or leaked, and each of its connections has heard of
//! its end once, last. The seed decides everything but what the kernel and other threads do.

mod acts;
mod bodies;
mod guests;
mod program;
mod sockets;
mod values;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    ringloop_tests::isolated::run_with_summary(program::TESTS, |notes| {
        notes.iter().for_each(|note| println!("{note}"));
    })
}
