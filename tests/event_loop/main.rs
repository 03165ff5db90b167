//! The loop by itself: callbacks, timers, futures, tasks, threads, signals.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringloop::EventLoop;

mod attacks;
mod attributes;
mod callbacks;
mod clock;
mod contexts;
mod debug;
mod endings;
mod exceptions;
mod executor;
mod foreign;
mod futures;
mod gathering;
mod groups;
mod lifecycle;
mod meeting;
mod proxy;
mod reuse;
mod runner;
mod running;
mod signals;
mod sleeping;
mod tasks;
mod timers;
mod users_values;
mod waiting;
mod waits;

/// What happened, in order. A clone is the same log.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    /// What happened since the last call.
    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Adds its text when it is dropped.
struct LogDrop(Log, &'static str);

impl Drop for LogDrop {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

fn new_loop() -> EventLoop {
    EventLoop::new().unwrap()
}

/// A loop, and what its exception handler is told.
fn watched_loop() -> (EventLoop, Log) {
    let event_loop = new_loop();
    let reports = watch(&event_loop);
    (event_loop, reports)
}

/// What the exception handler of `event_loop` is told from now on: `message: error`.
fn watch(event_loop: &EventLoop) -> Log {
    let reports = Log::default();
    let log = reports.clone();
    event_loop.set_exception_handler(move |_, context| {
        let message = &context.message;
        let message = if message.starts_with("Exception in callback") {
            "Exception in callback"
        } else {
            message
        };
        log.add(match context.error {
            Some(error) => format!("{message}: {error}"),
            None => message.to_owned(),
        });
    });
    reports
}

/// What a future gives that is done already.
fn ended<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Runs one iteration.
fn turn(event_loop: &EventLoop) {
    event_loop.stop();
    event_loop.run_forever().unwrap();
}

/// Logs `text` in the next iteration.
fn log_soon(event_loop: &EventLoop, log: &Log, text: &'static str) -> ringloop::Handle {
    let log = log.clone();
    event_loop.call_soon(move |_| log.add(text)).unwrap()
}
