//! What threads share, in every order in which they may run: the wake word, and the way back of buffers.
//!
//! The sources are the driver's own; the atomics, the queue and the eventfd under them are the checker's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use loom::model;
use loom::model::Builder;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

#[allow(dead_code, unreachable_pub, reason = "the driver uses more of it")]
#[path = "../src/wake.rs"]
mod wake;

#[allow(dead_code, reason = "the driver uses more of it")]
#[path = "../src/buffers/returns.rs"]
mod returns;

/// In the place of `src/sync.rs`.
mod sync {
    use super::{Mutex, VecDeque};

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    /// As correct as the real one, of which no more is asked.
    pub(crate) struct Queue<T>(Mutex<VecDeque<T>>);

    impl<T> Queue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, value: T) {
            self.0.lock().unwrap().push_back(value);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }
    }
}

/// In the place of `src/sys.rs`.
mod sys {
    use super::{AsRawFd, BELL, BorrowedFd, OwnedFd, io};

    pub(crate) fn eventfd() -> io::Result<OwnedFd> {
        Ok(std::fs::File::open("/dev/null")?.into())
    }

    pub(crate) fn eventfd_add(fd: BorrowedFd<'_>) {
        assert!(fd.as_raw_fd() >= 0);
        BELL.ring();
    }
}

loom::lazy_static! {
    static ref BELL: Bell = Bell { rings: Mutex::new(0), rung: Condvar::new() };
}

/// The eventfd with the ring's poll on it: a write ends the wait that is going on, or the next one.
struct Bell {
    rings: Mutex<usize>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.rung.notify_all();
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.rung.wait(rings).unwrap();
        }
        *rings = 0;
    }
}

/// As `Driver::wait(Wait::Forever)`.
fn wait(waker: &wake::DriverWaker) {
    if waker.sleep() {
        BELL.wait();
    }
    waker.woken();
}

// spec: LOOP-09 RISK-37
#[test]
fn a_loop_that_sleeps_when_its_queue_is_empty_sees_all_that_is_queued_before_a_wake_up() {
    // With three threads every order would take a while; with up to three switches away from a thread that could go on, no
    // known mistake hides.
    let mut bounded = Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let waker = wake::DriverWaker::new().unwrap();
        let queue = Arc::new(sync::Queue::new());
        let others: Vec<_> = (0..2)
            .map(|number| {
                let (waker, queue) = (waker.clone(), Arc::clone(&queue));
                thread::spawn(move || {
                    queue.push(number);
                    waker.wake();
                })
            })
            .collect();
        let mut seen = 0;
        while seen < 2 {
            // A lost wake-up would leave the loop here for ever, which the checker finds.
            wait(&waker);
            while queue.pop().is_some() {
                seen += 1;
            }
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

// spec: LOOP-08
#[test]
fn a_thread_that_wakes_twice_is_seen_twice() {
    model(|| {
        let waker = wake::DriverWaker::new().unwrap();
        let queue = Arc::new(sync::Queue::new());
        let other = {
            let (waker, queue) = (waker.clone(), Arc::clone(&queue));
            thread::spawn(move || {
                for number in 0..2 {
                    queue.push(number);
                    waker.wake();
                }
            })
        };
        let mut seen = Vec::new();
        while seen.len() < 2 {
            wait(&waker);
            seen.extend(std::iter::from_fn(|| queue.pop()));
        }
        assert_eq!(seen, [0, 1]);
        other.join().unwrap();
    });
}

#[test]
fn every_buffer_that_was_given_back_is_collected() {
    model(|| {
        let returns = Arc::new(returns::Returns::new());
        let others: Vec<_> = (0..2)
            .map(|index| {
                let returns = Arc::clone(&returns);
                thread::spawn(move || returns.give_back(index))
            })
            .collect();
        let mut collected = Vec::new();
        returns.collect(|index| collected.push(index));
        others.into_iter().for_each(|other| other.join().unwrap());
        returns.collect(|index| collected.push(index));
        collected.sort_unstable();
        assert_eq!(collected, [0, 1]);
    });
}
