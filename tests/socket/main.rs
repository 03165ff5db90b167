//! Socket calls: what they give, what they lose never, and what they refuse.
//!
//! Each test runs in a process of its own: descriptors are counted at its end, and their numbers are used again.

use std::process::ExitCode;

use ringloop_tests::isolated;

mod calls;
mod datagrams;
mod files;
mod given;
mod leaks;
mod misuse;
mod races;
mod support;

/// The tests among these functions, by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$(ringloop_tests::isolated::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            body: $name,
            deadline: std::time::Duration::from_secs(120),
        }),*]
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let tests = [
        calls::TESTS,
        datagrams::TESTS,
        files::TESTS,
        given::TESTS,
        leaks::TESTS,
        misuse::TESTS,
        races::TESTS,
    ]
    .concat();
    isolated::run(&tests)
}
