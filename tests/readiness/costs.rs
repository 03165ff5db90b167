//! What watching costs, and that there may be many.

use ringloop::{DriverConfig, DriverKind, EventLoop};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::pair;

use crate::support::{Count, send, turn, while_asleep, with_config, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    idle_watchers_cost_nothing_while_the_loop_sleeps,
    idle_watchers_cost_nothing_while_the_loop_is_busy,
    a_watcher_that_is_always_ready_costs_one_enter_per_iteration,
    a_reader_and_a_writer_of_one_descriptor_cost_one_op,
    two_hundred_that_become_ready_are_all_seen_in_one_iteration,
    queues_of_a_few_entries_lose_none_of_two_hundred,
];

/// As epoll's own limit of events per call would allow.
const MANY: usize = 200;

// spec: READY-01, RISK-10
fn idle_watchers_cost_nothing_while_the_loop_sleeps() {
    with_loop(|event_loop| {
        let pairs: Vec<_> = (0..9).map(|_| pair()).collect();
        for (ours, _) in &pairs {
            event_loop.add_reader(ours, |_| unreachable!()).unwrap();
        }
        assert_eq!(while_asleep(event_loop), (0, 0));
        for (ours, _) in &pairs {
            event_loop.remove_reader(ours).unwrap();
        }
    });
}

// spec: READY-01, RISK-10
fn idle_watchers_cost_nothing_while_the_loop_is_busy() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        event_loop.add_reader(&ours, |_| unreachable!()).unwrap();
        turn(event_loop);
        let before = event_loop.counters();
        for _ in 0..9 {
            turn(event_loop);
        }
        let after = event_loop.counters();
        assert_eq!((after.submitted, after.completed), (before.submitted, before.completed));
        // Epoll has to be asked; a ring says it in memory.
        let on_ring = event_loop.driver_info().unwrap().driver == DriverKind::Uring;
        assert_eq!(after.rounds - before.rounds, if on_ring { 0 } else { 9 });
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-16, RISK-10
fn a_watcher_that_is_always_ready_costs_one_enter_per_iteration() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        let (count, last) = (Count::default(), 100);
        let writer = move |event_loop: &EventLoop| {
            count.add();
            if count.get() == last {
                event_loop.stop();
            }
        };
        event_loop.add_writer(&ours, writer).unwrap();
        let (iterations, before) = (event_loop.stats().iterations, event_loop.counters());
        event_loop.run_forever().unwrap();
        let after = event_loop.counters();
        assert_eq!(event_loop.stats().iterations - iterations, last);
        assert_eq!(after.rounds - before.rounds, last);
        assert_eq!(after.completed - before.completed, last);
        event_loop.remove_writer(&ours).unwrap();
    });
}

// spec: READY-04, RISK-10
fn a_reader_and_a_writer_of_one_descriptor_cost_one_op() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        send(&theirs, b"x");
        event_loop.add_reader(&ours, |_| ()).unwrap();
        event_loop.add_writer(&ours, |_| ()).unwrap();
        let before = event_loop.counters().submitted;
        for _ in 0..9 {
            turn(event_loop);
        }
        assert_eq!(event_loop.counters().submitted - before, 9);
        event_loop.remove_reader(&ours).unwrap();
        event_loop.remove_writer(&ours).unwrap();
    });
}

/// Watches so many that wait, makes all of them ready, and lets `check` look at how often each was called.
fn with_many(config: DriverConfig, check: impl FnOnce(&EventLoop, &[Count])) {
    with_config(config, 0, |event_loop| {
        let pairs: Vec<_> = (0..MANY).map(|_| pair()).collect();
        let counts: Vec<_> = pairs.iter().map(|_| Count::default()).collect();
        for ((ours, _), count) in pairs.iter().zip(&counts) {
            event_loop.add_reader(ours, count.callback()).unwrap();
        }
        turn(event_loop);
        assert!(counts.iter().all(|count| count.get() == 0));
        for (_, theirs) in &pairs {
            send(theirs, b"x");
        }
        check(event_loop, &counts);
        for (ours, _) in &pairs {
            assert!(event_loop.remove_reader(ours).unwrap());
        }
    });
}

// spec: LOOP-22, RISK-38, READY-02
fn two_hundred_that_become_ready_are_all_seen_in_one_iteration() {
    with_many(DriverConfig::default(), |event_loop, counts| {
        for call in 1..=3 {
            turn(event_loop);
            assert!(counts.iter().all(|count| count.get() == call), "in iteration {call}");
        }
    });
}

// spec: RISK-38
fn queues_of_a_few_entries_lose_none_of_two_hundred() {
    let small =
        DriverConfig { submission_entries: 8, completion_entries: 16, ..DriverConfig::default() };
    with_many(small, |event_loop, counts| {
        while counts.iter().any(|count| count.get() == 0) {
            turn(event_loop);
        }
    });
}
