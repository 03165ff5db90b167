//! The driver, fact by fact. Each test runs in a process of its own.

use std::process::ExitCode;

#[allow(dead_code, unreachable_pub, reason = "the tests of the workspace share this file")]
#[path = "../../../../tests/support/isolated.rs"]
mod isolated;
mod support;
mod watch;

/// The tests among these functions, by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$(crate::isolated::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            body: $name,
            deadline: std::time::Duration::from_secs(60),
        }),*]
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let tests = [watch::TESTS].concat();
    isolated::run(&tests)
}
