//! Wake-ups from other threads and from signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ringloop_driver::{Driver, DriverConfig, DriverWaker, Signals, Wait};

use crate::isolated::Test;
use crate::support::TestDriver;
use crate::sys::{disposition, ignore, in_forked_child, raise, raise_here};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_wake_up_ends_a_wait,
    a_wake_up_before_the_wait_lets_it_not_begin,
    wake_ups_of_a_loop_that_is_awake_make_no_system_call,
    no_wake_up_of_many_threads_is_lost,
    waking_a_driver_that_is_gone_does_nothing,
    a_waker_can_go_to_any_thread_and_a_driver_to_none,
    a_signal_is_pending_and_ends_a_wait,
    signals_that_come_while_the_loop_is_awake_are_each_told_in_their_order,
    signals_that_the_loop_is_too_slow_for_are_merged_and_none_is_lost,
    one_loop_has_the_signals_at_a_time,
    a_removed_signal_does_again_what_it_did_before,
    dropped_signals_do_again_what_they_did_before,
    what_is_no_signal_or_cannot_be_caught_is_refused,
    signals_of_many_threads_are_all_seen,
    the_handler_keeps_errno,
];

fn a_wake_up_ends_a_wait() {
    let mut driver = TestDriver::new();
    for _ in 0..100 {
        let waker = driver.waker();
        let other = thread::spawn(move || waker.wake());
        driver.wait(Wait::Forever).unwrap();
        other.join().unwrap();
        assert!(driver.next_completion().is_none());
    }
    driver.finish();
}

// spec: LOOP-09 RISK-37
fn a_wake_up_before_the_wait_lets_it_not_begin() {
    let mut driver = TestDriver::new();
    for _ in 0..3 {
        driver.waker().wake();
        driver.wait(Wait::Forever).unwrap();
    }
    driver.finish();
}

fn wake_ups_of_a_loop_that_is_awake_make_no_system_call() {
    let mut driver = TestDriver::new();
    (0..1000).for_each(|_| driver.waker().wake());
    driver.wait(Wait::Now).unwrap();
    assert!(driver.next_completion().is_none());
    let counters = driver.counters();
    assert_eq!((counters.wakes, counters.completed), (0, 0), "the eventfd was not written");
    driver.finish();
}

// spec: LOOP-08 LOOP-09 RISK-37
fn no_wake_up_of_many_threads_is_lost() {
    const EACH: u64 = 20_000;
    let mut driver = TestDriver::new();
    let told = Arc::new(AtomicU64::new(0));
    let others: Vec<_> = (0..3)
        .map(|_| {
            let (told, waker) = (Arc::clone(&told), driver.waker());
            thread::spawn(move || {
                for _ in 0..EACH {
                    told.fetch_add(1, Ordering::SeqCst);
                    waker.wake();
                }
            })
        })
        .collect();
    // Sleeps whenever it has seen all: a lost wake-up would be its last.
    let mut seen = 0;
    while seen < 3 * EACH {
        driver.wait(Wait::Forever).unwrap();
        assert!(driver.next_completion().is_none());
        seen = told.load(Ordering::SeqCst);
    }
    others.into_iter().for_each(|other| other.join().unwrap());
    driver.finish();
}

fn waking_a_driver_that_is_gone_does_nothing() {
    let driver = TestDriver::new();
    let waker = driver.waker();
    drop(driver.into_driver());
    waker.wake();
    thread::spawn(move || {
        let clone = waker.clone();
        waker.wake();
        clone.wake();
    })
    .join()
    .unwrap();
}

fn a_waker_can_go_to_any_thread_and_a_driver_to_none() {
    fn assert_goes_anywhere<T: Send + Sync + Clone + 'static>() {}
    assert_goes_anywhere::<DriverWaker>();
    // Ambiguous, and so no program, for a type that is `Send`.
    trait NotSend<A> {
        fn holds() {}
    }
    impl<T: ?Sized> NotSend<()> for T {}
    struct Ambiguous;
    impl<T: ?Sized + Send> NotSend<Ambiguous> for T {}
    <Driver as NotSend<_>>::holds();
    <ringloop_driver::Received as NotSend<_>>::holds();
    <ringloop_driver::Descriptor as NotSend<_>>::holds();
}

fn a_signal_is_pending_and_ends_a_wait() {
    let mut driver = TestDriver::new();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    signals.add(libc::SIGUSR1).unwrap();
    let other = thread::spawn(|| raise(libc::SIGUSR1));
    let arrived = loop {
        match signals.next_arrived() {
            Some(signal) => break signal,
            None => driver.wait(Wait::Forever).unwrap(),
        }
    };
    assert_eq!(arrived, libc::SIGUSR1);
    other.join().unwrap();
    assert_eq!(signals.next_arrived(), None);
    drop(signals);
    driver.finish();
}

fn signals_that_come_while_the_loop_is_awake_are_each_told_in_their_order() {
    let mut driver = TestDriver::new();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    let sent = [libc::SIGUSR2, libc::SIGUSR1, libc::SIGUSR1, libc::SIGUSR2];
    signals.add(libc::SIGUSR1).unwrap();
    signals.add(libc::SIGUSR2).unwrap();
    sent.into_iter().for_each(raise_here);
    driver.wait(Wait::Forever).unwrap();
    assert_eq!(arrived(&signals), sent);
    drop(signals);
    driver.finish();
}

fn signals_that_the_loop_is_too_slow_for_are_merged_and_none_is_lost() {
    let mut driver = TestDriver::new();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    let (first, second) = (libc::SIGUSR1, libc::SIGRTMAX());
    signals.add(first).unwrap();
    signals.add(second).unwrap();
    for _ in 0..3 {
        (0..2000).for_each(|_| raise_here(first));
        (0..2000).for_each(|_| raise_here(second));
        driver.wait(Wait::Forever).unwrap();
        let all = arrived(&signals);
        assert!((1024..2000).contains(&all.len()), "{}", all.len());
        assert!(all.contains(&first) && all.contains(&second));
        raise_here(second);
        assert_eq!(arrived(&signals), [second], "the journal has room again");
    }
    drop(signals);
    driver.finish();
}

fn arrived(signals: &Signals) -> Vec<i32> {
    std::iter::from_fn(|| signals.next_arrived()).collect()
}

fn one_loop_has_the_signals_at_a_time() {
    let driver = TestDriver::new();
    let signals = Signals::claim(driver.waker()).unwrap();
    let refused = Signals::claim(driver.waker()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    drop(signals);
    drop(Signals::claim(driver.waker()).unwrap());
    driver.finish();
}

fn a_removed_signal_does_again_what_it_did_before() {
    let driver = TestDriver::new();
    ignore(libc::SIGUSR1);
    let mut signals = Signals::claim(driver.waker()).unwrap();
    signals.add(libc::SIGUSR1).unwrap();
    signals.add(libc::SIGUSR1).unwrap();
    raise(libc::SIGUSR1);
    assert!(signals.remove(libc::SIGUSR1).unwrap());
    assert_eq!(disposition(libc::SIGUSR1), libc::SIG_IGN);
    assert!(!signals.remove(libc::SIGUSR1).unwrap());
    raise(libc::SIGUSR1);
    assert_eq!(signals.next_arrived(), None, "what had arrived went with it");
    drop(signals);
    driver.finish();
}

fn dropped_signals_do_again_what_they_did_before() {
    let driver = TestDriver::new();
    ignore(libc::SIGUSR1);
    let mut signals = Signals::claim(driver.waker()).unwrap();
    signals.add(libc::SIGUSR1).unwrap();
    signals.add(libc::SIGUSR2).unwrap();
    drop(signals);
    assert_eq!(disposition(libc::SIGUSR1), libc::SIG_IGN);
    assert_eq!(disposition(libc::SIGUSR2), libc::SIG_DFL);
    let killed = in_forked_child(|| raise(libc::SIGUSR2));
    assert_eq!(killed, -libc::SIGUSR2);
    driver.finish();
}

fn what_is_no_signal_or_cannot_be_caught_is_refused() {
    let driver = TestDriver::new();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    for number in [-1, 0, 65, 1000, libc::SIGKILL, libc::SIGSTOP] {
        let refused = signals.add(number).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{number}");
        assert!(!signals.remove(number).unwrap());
    }
    drop(signals);
    driver.finish();
}

fn signals_of_many_threads_are_all_seen() {
    let mut driver = TestDriver::new();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    let numbers = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH, libc::SIGURG];
    numbers.iter().for_each(|&number| signals.add(number).unwrap());
    for _ in 0..200 {
        let others = numbers.map(|number| thread::spawn(move || raise(number)));
        let mut seen = Vec::new();
        while seen.len() < 4 {
            driver.wait(Wait::Forever).unwrap();
            seen.extend(arrived(&signals));
        }
        assert!(numbers.iter().all(|number| seen.contains(number)), "{seen:?}");
        others.into_iter().for_each(|other| other.join().unwrap());
    }
    drop(signals);
    driver.finish();
}

fn the_handler_keeps_errno() {
    let driver = Driver::new(&DriverConfig::default()).unwrap();
    let mut signals = Signals::claim(driver.waker()).unwrap();
    signals.add(libc::SIGUSR1).unwrap();
    std::fs::File::open("/nowhere/at/all").unwrap_err();
    raise(libc::SIGUSR1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOENT));
}
