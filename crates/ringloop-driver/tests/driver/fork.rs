//! Forked children: they share nothing that moves, and hold nothing open.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ringloop_driver::testing::wake_needlessly;
use ringloop_driver::{Account, Driver, DriverConfig, Features, Interest, Signals, Wait};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, errno, open_descriptors, received, ring, ring_counters, unix_pair, write_all,
};
use crate::sys::{Paused, end_after, in_forked_child, replace_calls, signal_thread, this_thread};

pub(crate) const TESTS: &[Test] = crate::tests![
    the_driver_of_the_parent_refuses_to_work_in_a_forked_child_and_says_why,
    a_driver_that_is_dropped_in_a_forked_child_leaves_the_parents_alone,
    a_lease_that_is_dropped_in_a_forked_child_is_not_returned_to_the_parents_ring,
    direct_receives_in_a_forked_child_do_not_share_a_buffer,
    a_driver_whose_queue_has_grown_is_kept_from_children_too,
    a_forked_child_can_make_a_driver_of_its_own,
    a_descriptor_that_is_closed_in_a_forked_child_is_closed_there,
    an_op_that_is_retired_in_a_forked_child_holds_nothing_there_and_goes_on_in_the_parent,
    a_watch_that_ends_in_a_forked_child_does_not_end_the_parents,
    a_forked_child_does_not_have_the_ring_of_any_thread,
    a_program_that_is_executed_does_not_have_the_ring,
    the_parent_goes_on_after_a_fork,
    a_fork_while_other_threads_make_drivers_does_not_deadlock,
    a_child_that_was_forked_while_another_thread_handled_a_signal_does_not_wait_for_that,
];

// spec: RISK-40
fn the_driver_of_the_parent_refuses_to_work_in_a_forked_child_and_says_why() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let status = in_forked_child(|| {
        driver.recv(&ours, &Account::new(), TOKEN);
        for error in [driver.submit().unwrap_err(), driver.wait(Wait::Forever).unwrap_err()] {
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("fork"), "{error}");
        }
        assert!(driver.watch(&ours).is_err());
        assert!(driver.next_completion().is_none());
    });
    assert_eq!(status, 0);
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-40
fn a_driver_that_is_dropped_in_a_forked_child_leaves_the_parents_alone() {
    let mut driver = Some(TestDriver::new());
    let (ours, theirs) = unix_pair();
    let key = driver.as_mut().unwrap().recv_multishot(&ours, &Account::new(), TOKEN);
    driver.as_mut().unwrap().submit().unwrap();
    write_all(&theirs, b"1");
    let status = in_forked_child(|| {
        let mut driver = driver.take().unwrap();
        driver.cancel(key);
        for _ in 0..1000 {
            driver.recv(&ours, &Account::new(), TOKEN);
        }
        drop(driver.into_driver());
    });
    assert_eq!(status, 0);
    let mut driver = driver.unwrap();
    assert_eq!(received(driver.next_of(key)), b"1");
    write_all(&theirs, b"2");
    assert_eq!(received(driver.next_of(key)), b"2");
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn a_lease_that_is_dropped_in_a_forked_child_is_not_returned_to_the_parents_ring() {
    let mut driver = TestDriver::with(&DriverConfig { buffers: 2, ..DriverConfig::default() });
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    write_all(&theirs, b"kept");
    let mut lease = Some(received(driver.next_of(key)));
    let status = in_forked_child(|| {
        let lease = lease.take().unwrap();
        assert_eq!(lease, b"kept", "the child has its own copy");
        let part = lease.slice(1..);
        drop((lease, part));
    });
    assert_eq!(status, 0);
    for _ in 0..10 {
        write_all(&theirs, b"others");
        assert_eq!(received(driver.next_of(key)), b"others");
    }
    assert_eq!(lease.unwrap(), b"kept", "nobody has written to it");
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-40
fn direct_receives_in_a_forked_child_do_not_share_a_buffer() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"before");
    assert_eq!(*driver.try_recv_lent(&ours, &Account::new(), 6).unwrap(), *b"before");
    let status = in_forked_child(|| {
        let mut receive = |bytes| {
            write_all(&theirs, bytes);
            driver.try_recv_lent(&ours, &Account::new(), 6).unwrap()
        };
        let (one, other) = (receive(b"first"), receive(b"second"));
        assert_eq!((&*one, &*other), (&b"first"[..], &b"second"[..]));
    });
    assert_eq!(status, 0);
    drop((ours, theirs));
    driver.finish();
}

fn a_driver_whose_queue_has_grown_is_kept_from_children_too() {
    let config = DriverConfig { completion_entries: 4, ..ring() };
    let mut driver = TestDriver::with(&config);
    if !driver.has(Features::RESIZE_RINGS, (6, 13)) {
        return driver.finish();
    }
    let pairs: Vec<_> = (0..600).map(|_| unix_pair()).collect();
    for (ours, theirs) in &pairs {
        driver.recv(ours, &Account::new(), TOKEN);
        write_all(theirs, b"x");
    }
    driver.run_out();
    driver.wait(Wait::Now).unwrap();
    assert!(ring_counters(&driver).completion_entries > 256);
    let mut driver = Some(driver);
    let status = in_forked_child(|| {
        let mut driver = driver.take().unwrap();
        driver.submit().unwrap_err();
        drop(driver.into_driver());
    });
    assert_eq!(status, 0);
    let mut driver = driver.unwrap();
    let key = driver.recv(&pairs[0].0, &Account::new(), TOKEN);
    write_all(&pairs[0].1, b"y");
    assert_eq!(received(driver.next_of(key)), b"y");
    drop(pairs);
    driver.finish();
}

fn a_forked_child_can_make_a_driver_of_its_own() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let status = in_forked_child(|| {
        for _ in 0..2 {
            let mut own = Driver::new(&DriverConfig::default()).unwrap();
            let (ours, theirs) = unix_pair();
            write_all(&theirs, b"x");
            let key = own.recv(&ours, &Account::new(), TOKEN);
            assert_eq!(received(own.look(key).unwrap().unwrap()), b"x");
        }
    });
    assert_eq!(status, 0);
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    write_all(&theirs, b"y");
    assert_eq!(received(driver.next_of(key)), b"y");
    drop((ours, theirs));
    driver.finish();
}

fn a_descriptor_that_is_closed_in_a_forked_child_is_closed_there() {
    let driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (mut both, mut given) = (Some(driver), Some(ours));
    let status = in_forked_child(|| {
        let mut driver = both.take().unwrap();
        let before = open_descriptors();
        driver.close(given.take().unwrap());
        assert_eq!(open_descriptors(), before - 1);
    });
    assert_eq!(status, 0);
    write_all(&theirs, b"still open here");
    drop((given, theirs));
    both.unwrap().finish();
}

// spec: RISK-40
fn an_op_that_is_retired_in_a_forked_child_holds_nothing_there_and_goes_on_in_the_parent() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let poll = driver.poll_multishot(&ours, Interest { read: true, write: false }, TOKEN);
    let receive = driver.recv(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    let status = in_forked_child(|| {
        for (key, holders) in [(poll, 2), (receive, 1)] {
            let completions = driver.retire(key);
            let ends: Vec<_> = completions.iter().map(|end| (end.more, errno(end))).collect();
            assert_eq!(ends, [(false, Some(libc::ECANCELED))]);
            assert_eq!((driver.is_in_flight(key), ours.holders()), (false, holders));
        }
    });
    assert_eq!((status, ours.holders()), (0, 3));
    driver.retire(poll);
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(receive)), b"x");
    drop((ours, theirs));
    driver.finish();
}

fn a_watch_that_ends_in_a_forked_child_does_not_end_the_parents() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut file = Some(driver.watch(&ours).unwrap());
    let status = in_forked_child(|| drop(file.take()));
    assert_eq!(status, 0);
    let file = file.unwrap();
    assert!(file.is_current());
    let key = driver.poll_watched(&file, Interest { read: false, write: true }, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), None);
    driver.unwatch(file);
    drop((ours, theirs));
    driver.finish();
}

fn a_forked_child_does_not_have_the_ring_of_any_thread() {
    let driver = TestDriver::new();
    let (made, is_made) = channel();
    let (end, is_ended) = channel::<()>();
    let other = thread::spawn(move || {
        let driver = Driver::new(&DriverConfig::default()).unwrap();
        made.send(()).unwrap();
        is_ended.recv().unwrap();
        drop(driver);
    });
    is_made.recv().unwrap();
    assert_eq!(rings_open(), 2);
    assert_eq!(in_forked_child(|| assert_eq!(rings_open(), 0)), 0);
    end.send(()).unwrap();
    other.join().unwrap();
    driver.finish();
}

fn rings_open() -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|link| {
            link.to_string_lossy().contains("io_uring")
                || link.to_string_lossy().contains("eventpoll")
        })
        .count()
}

fn a_program_that_is_executed_does_not_have_the_ring() {
    let driver = TestDriver::new();
    let shown = Command::new("/bin/ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(!shown.contains("io_uring") && !shown.contains("eventfd"), "{shown}");
    driver.finish();
}

fn the_parent_goes_on_after_a_fork() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    for message in [b"1", b"2", b"3"] {
        let child = Paused::fork();
        write_all(&theirs, message);
        assert_eq!(received(driver.next_of(key)), message);
        drop(child);
    }
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn a_fork_while_other_threads_make_drivers_does_not_deadlock() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                ringloop_driver::testing::close_kept_ring();
                drop(Driver::new(&DriverConfig { buffers: 1, ..DriverConfig::default() }).unwrap());
            }
        });
        for _ in 0..50 {
            let status = in_forked_child(|| {
                drop(Driver::new(&DriverConfig { buffers: 1, ..DriverConfig::default() }).unwrap());
            });
            assert_eq!(status, 0);
        }
        stop.store(true, Ordering::Relaxed);
        maker.join().unwrap();
    });
}

// spec: RISK-40
fn a_child_that_was_forked_while_another_thread_handled_a_signal_does_not_wait_for_that() {
    static IS_INSIDE: AtomicBool = AtomicBool::new(false);
    static MAY_LEAVE: AtomicBool = AtomicBool::new(false);
    extern "C" fn stay(_: i32) {
        IS_INSIDE.store(true, Ordering::SeqCst);
        while !MAY_LEAVE.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
    let mut driver = TestDriver::new();
    let waker = driver.waker();
    let mut signals = Some(Signals::claim(driver.waker()).unwrap());
    signals.as_mut().unwrap().add(libc::SIGUSR1).unwrap();
    // It comes to the wake-up of a loop that sleeps, and stays there.
    let handler = thread::spawn(|| {
        replace_calls(&[libc::SYS_write], stay);
        while !IS_INSIDE.load(Ordering::SeqCst) {
            signal_thread(this_thread(), libc::SIGUSR1);
            thread::yield_now();
        }
    });
    let forking = thread::spawn(move || {
        while !IS_INSIDE.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let status = in_forked_child(|| {
            end_after(10);
            drop(signals.take());
        });
        MAY_LEAVE.store(true, Ordering::SeqCst);
        handler.join().unwrap();
        drop(signals);
        wake_needlessly(&waker); // In place of the one that was not written.
        status
    });
    while !forking.is_finished() {
        driver.wait(Wait::Until(Instant::now() + Duration::from_millis(10))).unwrap();
    }
    assert_eq!(forking.join().unwrap(), 0);
    driver.finish();
}
