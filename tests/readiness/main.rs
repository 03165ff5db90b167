//! Readiness of descriptors: `add_reader`, `add_writer` and `AsyncFd`.
//!
//! Each test runs in a process of its own: numbers of descriptors are used again as it says, and are counted at its end.

use std::process::ExitCode;

use ringloop_tests::isolated;
pub(crate) use ringloop_tests::tests;

mod async_fd;
mod costs;
mod kinds;
mod numbers;
mod peers;
mod removal;
mod support;
mod watching;

fn main() -> ExitCode {
    let tests = [
        async_fd::TESTS,
        costs::TESTS,
        kinds::TESTS,
        numbers::TESTS,
        peers::TESTS,
        removal::TESTS,
        watching::TESTS,
    ]
    .concat();
    isolated::run(&tests)
}
