//! The driver, fact by fact. Each test runs in a process of its own.

use std::process::ExitCode;

mod buffers;
mod epoll;
mod extremes;
mod faults;
mod fork;
mod groups;
#[allow(dead_code, unreachable_pub, reason = "the tests of the workspace share this file")]
#[path = "../../../../tests/support/isolated.rs"]
mod isolated;
mod large;
mod ops;
mod pressure;
mod queues;
mod races;
mod random;
mod resolve;
mod room;
mod setup;
mod slow_file;
mod support;
#[allow(dead_code, reason = "more tests are coming")]
mod sys;
mod teardown;
mod users;
mod wake;
mod watch;

fn main() -> ExitCode {
    let tests = [
        buffers::TESTS,
        epoll::TESTS,
        extremes::TESTS,
        faults::TESTS,
        fork::TESTS,
        groups::TESTS,
        large::TESTS,
        &ops::tests(),
        pressure::TESTS,
        queues::TESTS,
        races::TESTS,
        resolve::TESTS,
        room::TESTS,
        setup::TESTS,
        teardown::TESTS,
        users::TESTS,
        wake::TESTS,
        watch::TESTS,
    ]
    .concat();
    isolated::run(&tests)
}
