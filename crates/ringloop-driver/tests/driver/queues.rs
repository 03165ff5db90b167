//! Full queues, refused calls, deferred work, deadlines: nothing is lost, and nothing comes too early.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringloop_driver::testing::{Faults, wake_needlessly};
use ringloop_driver::{
    Account, Descriptor, DriverConfig, Features, Interest, OpKey, Outcome, Token, Wait,
};

use crate::isolated::Test;
use crate::support::{
    PATIENCE, TOKEN, TestDriver, accepted, errno, is_linux_6_1, queue_of, read_exact, received,
    ring, ring_counters, sent, unix_pair, write_all,
};
use crate::sys::{
    address_space, handle_without_restart, in_forked_child, pipe, refuse_calls, set_soft_limit,
    signal_thread, this_thread,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_full_submission_queue_keeps_the_order_of_requests,
    a_full_submission_queue_loses_no_cancel,
    a_cancel_behind_a_full_submission_queue_comes_after_its_op,
    an_overflow_of_the_completion_queue_loses_nothing_and_keeps_the_order,
    a_multishot_receive_that_an_overflow_ended_goes_on_under_its_key,
    the_last_entry_of_a_receive_that_an_overflow_ended_carries_bytes,
    a_multishot_accept_that_an_overflow_ended_goes_on_and_loses_no_connection,
    a_poll_and_a_wake_up_survive_an_overflow,
    the_completion_queue_grows_after_its_first_overflow,
    a_queue_that_grows_keeps_what_is_in_it,
    the_completion_queue_does_not_grow_where_the_kernel_cannot,
    a_queue_for_which_there_is_no_memory_stays_as_it_is_and_grows_later,
    two_hundred_ready_polls_are_seen_in_one_iteration_of_two_rounds,
    receives_are_not_swept_and_come_in_some_iterations_without_a_wait_between,
    one_enter_runs_twenty_pieces_of_deferred_work,
    what_a_wait_sends_is_received_by_the_same_wait,
    nothing_is_received_between_two_waits,
    sends_are_complete_when_submit_returns,
    a_receive_that_had_to_wait_is_not_complete_before_deferred_work_is_done,
    a_deadline_is_never_early,
    a_deadline_that_is_past_does_not_wait,
    a_deadline_in_the_far_future_is_none_too_far,
    a_signal_interrupts_a_wait_and_is_no_error,
    a_call_that_is_refused_for_now_is_no_error_and_counted,
    a_call_that_is_refused_for_good_is_an_error_and_the_drop_does_not_hang,
    what_a_refused_call_would_have_submitted_is_submitted_later,
    nothing_to_do_makes_no_call,
    an_iteration_with_work_makes_one_call,
    a_send_and_a_receive_of_one_iteration_share_their_call,
    of_two_receives_on_one_socket_the_one_armed_last_gets_the_bytes,
    an_armed_receive_goes_on_after_a_plain_system_call_took_its_bytes,
];

/// A ring with a completion queue of four entries, that never grows.
fn tiny() -> DriverConfig {
    DriverConfig {
        submission_entries: 4,
        completion_entries: 4,
        mask: DriverConfig::default().mask | Features::RESIZE_RINGS,
        ..ring()
    }
}

struct Connection {
    key: OpKey,
    ours: Descriptor,
    theirs: std::os::unix::net::UnixStream,
}

fn armed_connections(driver: &mut TestDriver, count: u64) -> Vec<Connection> {
    let all = (0..count)
        .map(|index| {
            let (ours, theirs) = unix_pair();
            let key = driver.recv_multishot(&ours, &Account::new(), Token(index));
            Connection { key, ours, theirs }
        })
        .collect();
    assert!(driver.ready_now().is_empty());
    all
}

fn end_connections(driver: &mut TestDriver, connections: Vec<Connection>) {
    for Connection { key, ours, theirs } in connections {
        driver.retire(key);
        drop((ours, theirs));
    }
}

// spec: RISK-38
fn a_full_submission_queue_keeps_the_order_of_requests() {
    if is_linux_6_1(WRITES_HAVE_NO_ORDER) {
        return;
    }
    let mut driver = TestDriver::with(&DriverConfig { submission_entries: 2, ..tiny() });
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    let keys: Vec<_> = (0..100)
        .map(|byte| driver.write(&write, queue_of(vec![byte]), false, Token(byte.into())))
        .collect();
    assert!(ring_counters(&driver).backlogs > 0);
    for key in keys {
        assert_eq!(sent(driver.next_of(key)).0, 1);
    }
    assert_eq!(read_exact(&read, 100), (0..100).collect::<Vec<u8>>());
    drop((read, write));
    driver.finish();
}

// spec: RISK-38
fn a_full_submission_queue_loses_no_cancel() {
    let mut driver = TestDriver::with(&DriverConfig { submission_entries: 2, ..tiny() });
    let connections = armed_connections(&mut driver, 100);
    connections.iter().for_each(|connection| driver.cancel(connection.key));
    let ended = driver.run_out();
    assert_eq!(ended.len(), 100);
    assert!(ended.iter().all(|completion| errno(completion) == Some(libc::ECANCELED)));
    drop(connections);
    driver.finish();
}

fn a_cancel_behind_a_full_submission_queue_comes_after_its_op() {
    let mut driver = TestDriver::with(&DriverConfig { submission_entries: 2, ..tiny() });
    let (ours, theirs) = unix_pair();
    let keys: Vec<_> = (0..50)
        .map(|_| {
            let key = driver.poll(&ours, Interest { read: true, write: false }, TOKEN);
            driver.cancel(key);
            key
        })
        .collect();
    let ended = driver.run_out();
    let mut ends: Vec<_> = ended.iter().map(|completion| completion.key).collect();
    if is_linux_6_1(IN_REVERSE) {
        ends.sort_by_key(|end| keys.iter().position(|key| key == end));
    }
    assert_eq!(ends, keys);
    assert!(ended.iter().all(|completion| errno(completion) == Some(libc::ECANCELED)));
    drop((ours, theirs));
    driver.finish();
}

// spec: RISK-38
fn an_overflow_of_the_completion_queue_loses_nothing_and_keeps_the_order() {
    if is_linux_6_1(WRITES_HAVE_NO_ORDER) {
        return;
    }
    let mut driver = TestDriver::with(&DriverConfig { submission_entries: 64, ..tiny() });
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    // More than the queue of 64 takes, before anybody looks at it.
    for byte in 0..=199 {
        driver.write(&write, queue_of(vec![byte]), false, Token(byte.into()));
    }
    driver.submit().unwrap();
    driver.wait(Wait::Now).unwrap();
    assert!(ring_counters(&driver).overflows > 0);
    let tokens: Vec<u64> = driver.run_out().iter().map(|completion| completion.token.0).collect();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
    assert_eq!(read_exact(&read, 200), (0..=199).collect::<Vec<u8>>());
    drop((read, write));
    driver.finish();
}

// spec: RISK-38
fn a_multishot_receive_that_an_overflow_ended_goes_on_under_its_key() {
    let mut driver = TestDriver::with(&tiny());
    let connections = armed_connections(&mut driver, 20);
    for round in 0..5_u8 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, &[round]));
        for _ in 0..20 {
            let completion = driver.next();
            assert!(completion.more, "an overflow is the driver's own business");
            assert_eq!(connections[completion.token.0 as usize].key, completion.key);
            assert_eq!(received(completion), [round]);
        }
    }
    assert!(ring_counters(&driver).overflows > 0);
    end_connections(&mut driver, connections);
    driver.finish();
}

fn the_last_entry_of_a_receive_that_an_overflow_ended_carries_bytes() {
    let mut driver = TestDriver::with(&tiny());
    let connections = armed_connections(&mut driver, 20);
    connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
    let before = driver.counters().submitted;
    for _ in 0..20 {
        assert_eq!(received(driver.next()), b"x");
    }
    driver.wait(Wait::Now).unwrap();
    let armed_again = driver.counters().submitted - before;
    assert!(
        armed_again > 0,
        "else no receive was ended by an overflow, and this test shows nothing"
    );
    end_connections(&mut driver, connections);
    driver.finish();
}

// spec: RISK-38
fn a_multishot_accept_that_an_overflow_ended_goes_on_and_loses_no_connection() {
    let mut driver = TestDriver::with(&tiny());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let ours = Descriptor::from(OwnedFd::from(listener.try_clone().unwrap()));
    let key = driver.accept_multishot(&ours, TOKEN);
    assert!(driver.ready_now().is_empty());
    let mut count = 0;
    for _ in 0..5 {
        let peers: Vec<_> =
            (0..30).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        for peer in &peers {
            let completion = driver.next_of(key);
            assert!(completion.more);
            let connection = accepted(completion);
            let name = socket2::SockRef::from(&connection).peer_addr().unwrap().as_socket();
            assert_eq!(name, Some(peer.local_addr().unwrap()));
            count += 1;
        }
    }
    assert_eq!((count, driver.counters().accepted), (150, 150));
    assert!(ring_counters(&driver).overflows > 0);
    driver.retire(key);
    drop((ours, listener));
    driver.finish();
}

// spec: RISK-37
fn a_poll_and_a_wake_up_survive_an_overflow() {
    let mut driver = TestDriver::with(&tiny());
    let connections = armed_connections(&mut driver, 20);
    let (ours, theirs) = unix_pair();
    let poll = driver.poll(&ours, Interest { read: true, write: false }, Token(99));
    driver.submit().unwrap();
    for _ in 0..3 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
        // The last of all, so that its entry finds the queue full, which ends the poll of the eventfd.
        wake_needlessly(&driver.waker());
        for _ in 0..20 {
            driver.next();
        }
        driver.wait(Wait::Now).unwrap();
        assert!(driver.next_completion().is_none());
        let waker = driver.waker();
        let other = thread::spawn(move || waker.wake());
        driver.wait(Wait::Forever).unwrap();
        assert!(driver.next_completion().is_none());
        other.join().unwrap();
        driver.wait(Wait::Now).unwrap();
        driver.next_completion();
    }
    write_all(&theirs, b"x");
    driver.next_of(poll);
    end_connections(&mut driver, connections);
    drop((ours, theirs));
    driver.finish();
}

fn the_completion_queue_grows_after_its_first_overflow() {
    let config = DriverConfig { mask: DriverConfig::default().mask, ..tiny() };
    let mut driver = TestDriver::with(&config);
    if !driver.has(Features::RESIZE_RINGS, (6, 13)) {
        return driver.finish();
    }
    let connections = armed_connections(&mut driver, 20);
    assert_eq!(ring_counters(&driver).completion_entries, 4);
    for _ in 0..8 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
        for _ in 0..20 {
            assert_eq!(received(driver.next()), b"x");
        }
    }
    let counters = ring_counters(&driver);
    assert_eq!(counters.completion_entries, 32, "the first that holds what comes in one iteration");
    let overflows = counters.overflows;
    connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
    for _ in 0..20 {
        driver.next();
    }
    assert_eq!(ring_counters(&driver).overflows, overflows);
    end_connections(&mut driver, connections);
    driver.finish();
}

fn a_queue_that_grows_keeps_what_is_in_it() {
    let config = DriverConfig { mask: DriverConfig::default().mask, ..tiny() };
    let mut driver = TestDriver::with(&config);
    let connections = armed_connections(&mut driver, 20);
    for round in 0..6_u8 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, &[round]));
        let mut seen = [false; 20];
        for place in 0..20 {
            // Grows in the middle, with completions taken and not taken.
            if place % 3 == 0 {
                driver.wait(Wait::Now).unwrap();
            }
            let completion = driver.next();
            let seen = &mut seen[completion.token.0 as usize];
            assert!(!std::mem::replace(seen, true), "twice");
            assert_eq!(received(completion), [round]);
        }
    }
    end_connections(&mut driver, connections);
    driver.finish();
}

fn the_completion_queue_does_not_grow_where_the_kernel_cannot() {
    let mut driver = TestDriver::with(&DriverConfig { mask: Features::ALL, ..tiny() });
    let connections = armed_connections(&mut driver, 20);
    for _ in 0..3 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
        for _ in 0..20 {
            assert_eq!(received(driver.next()), b"x");
        }
    }
    assert_eq!(ring_counters(&driver).completion_entries, 4);
    assert!(ring_counters(&driver).overflows > 0);
    end_connections(&mut driver, connections);
    driver.finish();
}

fn a_queue_for_which_there_is_no_memory_stays_as_it_is_and_grows_later() {
    let config = DriverConfig { mask: DriverConfig::default().mask, ..tiny() };
    let mut driver = TestDriver::with(&config);
    if !driver.has(Features::RESIZE_RINGS, (6, 13)) {
        return driver.finish();
    }
    let connections = armed_connections(&mut driver, 20);
    let exchange = |driver: &mut TestDriver| {
        connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
        for _ in 0..20 {
            assert_eq!(received(driver.next()), b"x");
        }
    };
    // So that the allocator has memory for the test itself.
    drop((0..1000).map(|_| Box::new([0_u8; 64])).collect::<Vec<_>>());
    set_soft_limit(libc::RLIMIT_AS, address_space());
    for _ in 0..8 {
        exchange(&mut driver);
    }
    assert_eq!(ring_counters(&driver).completion_entries, 4);
    assert!(ring_counters(&driver).overflows > 1);
    set_soft_limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
    for _ in 0..8 {
        exchange(&mut driver);
    }
    assert_eq!(ring_counters(&driver).completion_entries, 32);
    end_connections(&mut driver, connections);
    driver.finish();
}

// spec: LOOP-22
fn two_hundred_ready_polls_are_seen_in_one_iteration_of_two_rounds() {
    let mut driver = TestDriver::of_ring();
    let pairs: Vec<_> = (0..200).map(|_| unix_pair()).collect();
    for (ours, _) in &pairs {
        driver.poll(ours, Interest { read: true, write: false }, TOKEN);
    }
    assert!(driver.ready_now().is_empty());
    pairs.iter().for_each(|(_, theirs)| write_all(theirs, b"x"));
    let before = driver.counters().rounds;
    driver.wait(Wait::Forever).unwrap();
    let rounds = driver.counters().rounds - before;
    // Kernels before 6.13 run all of it at once.
    assert!(rounds == 2 || rounds == 1, "{rounds}: the wait, and the sweep");
    let completions = std::iter::from_fn(|| driver.next_completion()).count();
    assert_eq!(completions, 200);
    drop(pairs);
    driver.finish();
}

fn receives_are_not_swept_and_come_in_some_iterations_without_a_wait_between() {
    let mut driver = TestDriver::of_ring();
    let connections = armed_connections(&mut driver, 200);
    connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
    let before = driver.counters().rounds;
    let mut seen = 0;
    while seen < 200 {
        driver.wait(Wait::Forever).unwrap();
        seen += std::iter::from_fn(|| driver.next_completion()).count();
    }
    // Kernels before 6.13 run all of it at once.
    let rounds = driver.counters().rounds - before;
    assert!(rounds == 10 || rounds == 1, "{rounds}: one a call, of twenty each");
    end_connections(&mut driver, connections);
    driver.finish();
}

fn one_enter_runs_twenty_pieces_of_deferred_work() {
    let mut driver = TestDriver::of_ring();
    let connections = armed_connections(&mut driver, 64);
    connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
    driver.wait(Wait::Now).unwrap();
    let count = std::iter::from_fn(|| driver.next_completion()).count();
    // Kernels before 6.13 run all of it at once.
    assert!(count == 20 || count == 64, "{count}");
    assert_eq!(count + driver.all_ready().len(), 64);
    end_connections(&mut driver, connections);
    driver.finish();
}

// spec: LOOP-03
fn what_a_wait_sends_is_received_by_the_same_wait() {
    let mut driver = TestDriver::new();
    let (one, two) = unix_pair();
    let two = Descriptor::from(OwnedFd::from(two));
    let receive = driver.recv_multishot(&two, &Account::new(), Token(2));
    assert!(driver.ready_now().is_empty());
    driver.send(&one, queue_of(b"x".as_slice()), false, Token(1));
    driver.wait(Wait::Now).unwrap();
    let tokens: Vec<u64> =
        std::iter::from_fn(|| driver.next_completion()).map(|one| one.token.0).collect();
    assert_eq!(tokens, [1, 2]);
    driver.retire(receive);
    drop((one, two));
    driver.finish();
}

fn nothing_is_received_between_two_waits() {
    let mut driver = TestDriver::new();
    let connections = armed_connections(&mut driver, 64);
    connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
    for connection in &connections {
        driver.submit().unwrap();
        let send = driver.send(&connection.ours, queue_of(b"y".as_slice()), true, TOKEN);
        let sent = driver.look(send).unwrap().unwrap();
        assert!(matches!(sent.outcome, Outcome::Sent(Ok(1), _)));
        assert!(driver.next_completion().is_none());
    }
    assert_eq!(driver.all_ready().len(), 64);
    end_connections(&mut driver, connections);
    driver.finish();
}

fn sends_are_complete_when_submit_returns() {
    let mut driver = TestDriver::new();
    let pairs: Vec<_> = (0..4).map(|_| unix_pair()).collect();
    let before = driver.counters().rounds;
    for (ours, _) in &pairs {
        driver.send(ours, queue_of(b"x".as_slice()), false, TOKEN);
    }
    driver.submit().unwrap();
    let completions: Vec<_> = std::iter::from_fn(|| driver.next_completion()).collect();
    assert_eq!((completions.len(), driver.counters().rounds - before), (4, 1));
    drop((completions, pairs));
    driver.finish();
}

fn a_receive_that_had_to_wait_is_not_complete_before_deferred_work_is_done() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    driver.submit().unwrap();
    write_all(&theirs, b"x");
    assert!(driver.peek(key).is_none());
    assert_eq!(received(driver.look(key).unwrap().unwrap()), b"x");
    drop((ours, theirs));
    driver.finish();
}

// spec: LOOP-05
fn a_deadline_is_never_early() {
    for mask in [Features::NONE, Features::ABS_TIMER] {
        let mut driver = TestDriver::with(&DriverConfig { mask, ..DriverConfig::default() });
        for nanoseconds in [1, 999, 1001, 50_000, 1_000_001, 3_000_000] {
            let until = Instant::now() + Duration::from_nanos(nanoseconds);
            driver.wait(Wait::Until(until)).unwrap();
            assert!(Instant::now() >= until, "{nanoseconds} ns with {mask:?} masked");
        }
        driver.finish();
    }
}

fn a_deadline_that_is_past_does_not_wait() {
    for mask in [Features::NONE, Features::ABS_TIMER] {
        let mut driver = TestDriver::with(&DriverConfig { mask, ..DriverConfig::default() });
        let now = Instant::now();
        for past in [now, now.checked_sub(Duration::from_secs(3)).unwrap_or(now)] {
            driver.wait(Wait::Until(past)).unwrap();
        }
        driver.finish();
    }
}

// spec: LOOP-05
fn a_deadline_in_the_far_future_is_none_too_far() {
    for mask in [Features::NONE, Features::ABS_TIMER] {
        let mut driver = TestDriver::with(&DriverConfig { mask, ..DriverConfig::default() });
        let (ours, theirs) = unix_pair();
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        driver.submit().unwrap();
        let far = Instant::now() + Duration::from_secs(1 << 33);
        let writer = thread::spawn(move || {
            write_all(&theirs, b"x");
            theirs
        });
        while driver.is_in_flight(key) {
            driver.wait(Wait::Until(far)).unwrap();
            if let Some(completion) = driver.next_completion() {
                assert_eq!(received(completion), b"x");
            }
        }
        drop((ours, writer.join().unwrap()));
        driver.finish();
    }
}

fn a_signal_interrupts_a_wait_and_is_no_error() {
    let mut driver = TestDriver::new();
    handle_without_restart(libc::SIGUSR1);
    let waiter = this_thread();
    let returned = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // One may come before the wait has begun.
            while !returned.load(Ordering::SeqCst) {
                signal_thread(waiter, libc::SIGUSR1);
                thread::yield_now();
            }
        });
        driver.wait(Wait::Forever).unwrap();
        assert!(driver.next_completion().is_none());
        returned.store(true, Ordering::SeqCst);
    });
    driver.finish();
}

fn a_call_that_is_refused_for_now_is_no_error_and_counted() {
    for refused in [libc::EBUSY, libc::EAGAIN, libc::ENOMEM, libc::EINTR, libc::ETIME] {
        let status = in_forked_child(|| {
            let mut driver = TestDriver::of_ring();
            let (ours, theirs) = unix_pair();
            let key = driver.recv(&ours, &Account::new(), TOKEN);
            refuse_calls(&[libc::SYS_io_uring_enter], refused);
            driver.submit().unwrap();
            driver.wait(Wait::Forever).unwrap();
            assert!(driver.is_in_flight(key), "it stays queued");
            let passing = [libc::EBUSY, libc::EAGAIN, libc::ENOMEM].contains(&refused);
            assert_eq!(driver.counters().refusals, if passing { 2 } else { 0 });
            // Its drop would try for two seconds.
            Box::leak(Box::new((driver, ours, theirs)));
        });
        assert_eq!(status, 0, "errno {refused}");
    }
}

fn a_call_that_is_refused_for_good_is_an_error_and_the_drop_does_not_hang() {
    // What the kernel still knows is leaked, which the child's end tidies up.
    let status = in_forked_child(|| {
        let mut driver = TestDriver::of_ring();
        let (ours, theirs) = unix_pair();
        driver.recv(&ours, &Account::new(), TOKEN);
        driver.submit().unwrap();
        refuse_calls(&[libc::SYS_io_uring_enter], libc::EBADR);
        assert_eq!(driver.wait(Wait::Forever).unwrap_err().raw_os_error(), Some(libc::EBADR));
        drop(driver.into_driver());
        assert_eq!(ours.holders(), 2, "what the kernel has not let go of is not freed");
        drop((ours, theirs));
    });
    assert_eq!(status, 0);
}

fn what_a_refused_call_would_have_submitted_is_submitted_later() {
    if is_linux_6_1(WRITES_HAVE_NO_ORDER) {
        return;
    }
    let faults = Faults { seed: 1, busy: 900, ..Faults::default() };
    let config = DriverConfig { faults: Some(faults), submission_entries: 4, ..tiny() };
    let mut driver = TestDriver::with(&config);
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    for byte in 0..100 {
        driver.write(&write, queue_of(vec![byte]), false, TOKEN);
    }
    let ended = driver.run_out();
    assert_eq!(ended.len(), 100);
    assert!(ended.iter().all(|completion| matches!(completion.outcome, Outcome::Sent(Ok(1), _))));
    assert_eq!(read_exact(&read, 100), (0..100).collect::<Vec<u8>>());
    assert!(driver.fault_counts().busy > 0);
    assert_eq!(driver.counters().refusals, driver.fault_counts().busy);
    drop((read, write, ended));
    driver.finish();
}

// spec: LOOP-06
fn nothing_to_do_makes_no_call() {
    let mut driver = TestDriver::new();
    let before = driver.counters().rounds;
    driver.submit().unwrap();
    driver.wait(Wait::Now).unwrap();
    assert_eq!(driver.counters().rounds, before);
    driver.finish();
}

fn an_iteration_with_work_makes_one_call() {
    let mut driver = TestDriver::new();
    let connections = armed_connections(&mut driver, 10);
    let before = driver.counters().rounds;
    for _ in 0..5 {
        connections.iter().for_each(|connection| write_all(&connection.theirs, b"x"));
        driver.wait(Wait::Forever).unwrap();
        let mut echoed = 0;
        while let Some(completion) = driver.next_completion() {
            match completion.outcome {
                Outcome::Received(Ok(bytes)) => {
                    let ours = connections[completion.token.0 as usize].ours.clone();
                    driver.send(&ours, queue_of(bytes), false, completion.token);
                }
                Outcome::Sent(result, _) => echoed += usize::from(result.unwrap() > 0),
                other => panic!("{other:?}"),
            }
        }
        // What was sent is complete with the next wait, which is the next iteration's call.
        assert!(echoed == 0 || echoed == 10);
    }
    assert_eq!(driver.counters().rounds - before, 5);
    driver.wait(Wait::Now).unwrap();
    while driver.next_completion().is_some() {}
    end_connections(&mut driver, connections);
    driver.finish();
}

fn a_send_and_a_receive_of_one_iteration_share_their_call() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let before = driver.counters();
    let recv = driver.recv(&ours, &Account::new(), TOKEN);
    driver.send(&ours, queue_of(b"x".as_slice()), false, TOKEN);
    write_all(&theirs, b"y");
    driver.wait(Wait::Forever).unwrap();
    let after = driver.counters();
    assert_eq!((after.rounds - before.rounds, after.submitted - before.submitted), (1, 2));
    assert!(driver.peek(recv).is_some());
    driver.run_out();
    drop((ours, theirs));
    driver.finish();
}

fn of_two_receives_on_one_socket_the_one_armed_last_gets_the_bytes() {
    if is_linux_6_1(IN_REVERSE) {
        return;
    }
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let first = driver.recv(&ours, &Account::new(), Token(1));
    let last = driver.recv(&ours, &Account::new(), Token(2));
    assert!(driver.ready_now().is_empty());
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(last)), b"x");
    driver.retire(first);
    drop((ours, theirs));
    driver.finish();
}

fn an_armed_receive_goes_on_after_a_plain_system_call_took_its_bytes() {
    let mut driver = TestDriver::new();
    let connections = armed_connections(&mut driver, 1);
    write_all(&connections[0].theirs, b"stolen");
    let mut stolen = [std::mem::MaybeUninit::uninit(); 6];
    socket2::SockRef::from(&connections[0].ours).recv(&mut stolen).unwrap();
    assert!(driver.ready_now().is_empty());
    write_all(&connections[0].theirs, b"next");
    let end = Instant::now() + PATIENCE;
    driver.wait(Wait::Until(end)).unwrap();
    assert_eq!(received(driver.next()), b"next");
    end_connections(&mut driver, connections);
    driver.finish();
}

/// Both are of Linux 6.1.
const IN_REVERSE: &str = "the kernel does deferred work in reverse";
const WRITES_HAVE_NO_ORDER: &str =
    "a thread of the kernel's writes to a pipe for a ring, so writes have no order";
