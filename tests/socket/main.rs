//! Socket calls: what they give, what they lose never, and what they refuse.
//!
//! Each test runs in a process of its own: descriptors are counted at its end, and their numbers are used again.

use std::process::ExitCode;

use ringloop_tests::isolated;
pub(crate) use ringloop_tests::tests;

mod calls;
mod datagrams;
mod files;
mod given;
mod leaks;
mod misuse;
mod races;
mod support;
mod transfer;
mod wakers;

fn main() -> ExitCode {
    let tests = [
        calls::TESTS,
        datagrams::TESTS,
        files::TESTS,
        given::TESTS,
        leaks::TESTS,
        misuse::TESTS,
        races::TESTS,
        transfer::TESTS,
        wakers::TESTS,
    ]
    .concat();
    isolated::run(&tests)
}
