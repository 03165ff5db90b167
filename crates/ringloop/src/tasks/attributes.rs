//! What `#[ringloop::main]` and `#[ringloop::test]` call: a program, and a test that leaves nothing behind.

use std::fmt::Write as _;
use std::process;
use std::thread;

use crate::{Error, EventLoop, Runner};

/// The body of `#[ringloop::main]`.
#[doc(hidden)]
pub fn __main<F: Future>(main: F) -> F::Output {
    let result = Runner::new().and_then(|runner| {
        let result = runner.run(main);
        runner.close().and(result)
    });
    result.unwrap_or_else(|error| {
        let code = match &error {
            Error::Panic(_) => 101, // The panic has said why.
            Error::Exit(code) => *code,
            Error::Interrupted => 130,
            error => {
                eprintln!("error: {error}");
                1
            }
        };
        process::exit(code)
    })
}

/// The body of `#[ringloop::test]`.
///
/// # Panics
///
/// If there can be no loop, if the body panics, and if it leaves something behind: this is how a test fails.
#[doc(hidden)]
#[track_caller]
pub fn __test<F: Future>(body: F) -> F::Output {
    let event_loop = EventLoop::new().unwrap_or_else(|error| panic!("no loop: {error}"));
    let result = event_loop.run_until_complete(body);
    let left = result.is_ok().then(|| leftovers(&event_loop)).flatten();
    let _ = event_loop.end(); // What is left is told below.
    match (result, left) {
        (Ok(value), None) => value,
        (Ok(_), Some(left)) => panic!("the test left behind:{left}"),
        (Err(error), _) => panic!("{error}"),
    }
}

/// What a test has left on its loop; `None` if nothing. What is closing has some iterations to end.
fn leftovers(event_loop: &EventLoop) -> Option<String> {
    for iteration in 0..MOST_ITERATIONS {
        if is_clean(event_loop) {
            return None;
        }
        if iteration > MOST_ITERATIONS / 2 {
            thread::yield_now(); // To the kernel's threads.
        }
        event_loop.stop();
        if event_loop.run_forever().is_err() {
            break;
        }
    }
    let mut text = String::new();
    for task in event_loop.all_tasks() {
        let _ = write!(text, "\n  {task:?}: await it, cancel it, or use a TaskGroup");
    }
    for source in event_loop.sources() {
        let _ = write!(text, "\n  {source}: close it");
    }
    let stats = event_loop.stats();
    if stats.jobs > 0 {
        let _ = write!(text, "\n  {} jobs of executors: await them", stats.jobs);
    }
    let leased = event_loop.counters().leased;
    if leased > 0 {
        let _ = write!(text, "\n  {leased} received buffers: drop what holds them, or copy");
    }
    Some(text)
}

fn is_clean(event_loop: &EventLoop) -> bool {
    let stats = event_loop.stats();
    let held = stats.tasks + stats.sources + stats.jobs;
    held == 0 && event_loop.counters().leased == 0
}

const MOST_ITERATIONS: usize = 100;
