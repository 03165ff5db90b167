//! A loop for one test, and what callbacks tell.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{DriverConfig, EventLoop};
use ringloop_tests::clean::assert_clean;
use socket2::Socket;

/// Runs `body` on a loop of its own. Afterwards nothing was reported, and nothing is watched, in flight or open any more.
pub(crate) fn with_loop(body: impl FnOnce(&EventLoop)) {
    with_reports(0, body);
}

/// As [`with_loop`]; so many failed callbacks were reported.
pub(crate) fn with_reports(reports: u64, body: impl FnOnce(&EventLoop)) {
    with_config(DriverConfig::default(), reports, body);
}

/// As [`with_reports`], with a driver of the caller's choice.
pub(crate) fn with_config(config: DriverConfig, reports: u64, body: impl FnOnce(&EventLoop)) {
    let before = open_descriptors();
    let event_loop = EventLoop::builder().driver(config).build().unwrap();
    body(&event_loop);
    assert_eq!(event_loop.stats().reports, reports);
    assert_clean(&event_loop);
    event_loop.close().unwrap();
    drop(event_loop);
    ringloop_driver::testing::close_kept_ring();
    assert_eq!(open_descriptors(), before);
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs one iteration, which does not wait.
pub(crate) fn turn(event_loop: &EventLoop) {
    event_loop.stop();
    event_loop.run_forever().unwrap();
}

/// What happened, in order. A clone is the same log.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    /// What happened since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        self.0.take()
    }

    /// A callback that adds `event`.
    pub(crate) fn adds(&self, event: &'static str) -> impl FnMut(&EventLoop) + 'static {
        let log = self.clone();
        move |_| log.add(event)
    }
}

/// How often something was called. A clone counts the same.
#[derive(Clone, Default)]
pub(crate) struct Count(Rc<Cell<u64>>);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn add(&self) {
        self.0.set(self.get() + 1);
    }

    /// A callback that counts.
    pub(crate) fn callback(&self) -> impl FnMut(&EventLoop) + 'static {
        let count = self.clone();
        move |_| count.add()
    }

    /// A callback that counts and ends the run.
    pub(crate) fn stopping(&self) -> impl FnMut(&EventLoop) + 'static {
        let count = self.clone();
        move |event_loop| {
            count.add();
            event_loop.stop();
        }
    }
}

/// Does something when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// A callback that does nothing but hold something.
pub(crate) fn holding<T: 'static>(held: T) -> impl FnMut(&EventLoop) + 'static {
    move |_| {
        let _held = &held;
    }
}

/// What the loop does until a timer ends it: iterations and rounds, without those of the timer itself.
pub(crate) fn while_asleep(event_loop: &EventLoop) -> (u64, u64) {
    turn(event_loop); // What was staged is armed.
    event_loop.call_later(Duration::from_millis(50), EventLoop::stop).unwrap();
    let (iterations, rounds) = (event_loop.stats().iterations, event_loop.counters().rounds);
    event_loop.run_forever().unwrap();
    let iterations = event_loop.stats().iterations - iterations - 1;
    (iterations, event_loop.counters().rounds - rounds - 1)
}

pub(crate) fn send(mut socket: &Socket, data: &[u8]) {
    socket.write_all(data).unwrap();
}

/// One receive of at most `most` bytes.
pub(crate) fn receive(mut socket: &Socket, most: usize) -> Vec<u8> {
    let mut data = vec![0; most];
    let length = socket.read(&mut data).unwrap();
    data.truncate(length);
    data
}

/// Whether a receive finds neither data nor the end.
pub(crate) fn would_block(mut socket: &Socket) -> bool {
    matches!(socket.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Writes until there is no more room.
pub(crate) fn fill(fd: impl AsFd) {
    let block = [0; 1 << 14];
    for size in [block.len(), 1] {
        while rustix::io::write(&fd, &block[..size]).is_ok() {}
    }
}
