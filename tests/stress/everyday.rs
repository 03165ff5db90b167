//! Very many tasks, timeouts and items: exact results, and memory that does not grow with them.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    EventLoop, JoinSet, Lock, Queue, Semaphore, TaskGroup, sleep, spawn, timeout, yield_now,
};
use ringloop_tests::clean::assert_clean;
use ringloop_tests::isolated::Test;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "a_million_tasks_begin_and_end_and_their_memory_is_used_again",
        body: a_million_tasks_begin_and_end_and_their_memory_is_used_again,
        deadline: DEADLINE,
    },
    Test {
        name: "a_hundred_thousand_timeouts_race_what_they_time",
        body: a_hundred_thousand_timeouts_race_what_they_time,
        deadline: DEADLINE,
    },
    Test {
        name: "a_hundred_thousand_items_find_their_way_while_tasks_are_cancelled",
        body: a_hundred_thousand_items_find_their_way_while_tasks_are_cancelled,
        deadline: DEADLINE,
    },
];

const DEADLINE: Duration = Duration::from_secs(600);

/// Runs `main`; nothing is left on the loop.
fn on_loop(main: impl Future<Output = ()>) {
    let event_loop = EventLoop::new().unwrap();
    event_loop.run_until_complete(main).unwrap();
    let stats = event_loop.stats();
    assert_eq!((stats.tasks, stats.timers - stats.cancelled_timers, stats.reports), (0, 0, 0));
    assert_clean(&event_loop);
}

/// What this process has in memory, in KiB.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

// spec: TASK-01, TASK-16
fn a_million_tasks_begin_and_end_and_their_memory_is_used_again() {
    on_loop(async {
        let sum = Rc::new(Cell::new(0_u64));
        let mut first = None;
        for round in 0..100 {
            let mut set = JoinSet::new();
            for number in 0..5_000_u64 {
                let sum = Rc::clone(&sum);
                set.spawn(async move {
                    yield_now().await;
                    sum.set(sum.get() + number);
                });
            }
            assert!(set.join_all().await.iter().all(Result::is_ok));
            let group = TaskGroup::run(async |group| {
                for number in 0..5_000_u64 {
                    let sum = Rc::clone(&sum);
                    drop(group.create_task(async move { sum.set(sum.get() + number) }));
                }
            });
            group.await.unwrap();
            if round == 10 {
                first = Some(resident());
            }
        }
        assert_eq!(sum.get(), 100 * 2 * (0..5_000).sum::<u64>());
        let (first, last) = (first.unwrap(), resident());
        assert!(last < first + 8 * 1024, "{first} KiB after 110,000 tasks, {last} after a million");
    });
}

// spec: TASK-13, TIMER-06
fn a_hundred_thousand_timeouts_race_what_they_time() {
    on_loop(async {
        let (in_time, late) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for round in 0..100_u64 {
            let group = TaskGroup::run(async |group| {
                for number in 0..1_000_u64 {
                    let (in_time, late) = (Rc::clone(&in_time), Rc::clone(&late));
                    let operation = sleep(Duration::from_micros((round + number) % 40 * 25));
                    drop(group.create_task(async move {
                        let counter = match timeout(Duration::from_micros(500), operation).await {
                            Ok(()) => in_time,
                            Err(_) => late,
                        };
                        counter.set(counter.get() + 1);
                    }));
                }
            });
            group.await.unwrap();
            let stats = EventLoop::running().unwrap().stats();
            assert_eq!((stats.tasks, stats.timers - stats.cancelled_timers), (1, 0));
            assert!(stats.timers <= 2_100, "cancelled timers are purged: {}", stats.timers);
        }
        assert_eq!(in_time.get() + late.get(), 100_000);
        assert!(in_time.get() > 0 && late.get() > 0);
    });
}

// spec: SYNC-01, SYNC-02
fn a_hundred_thousand_items_find_their_way_while_tasks_are_cancelled() {
    on_loop(async {
        const ITEMS: u64 = 100_000;
        let queue = Rc::new(Queue::bounded(16));
        let (lock, semaphore) = (Rc::new(Lock::new(())), Rc::new(Semaphore::new(3)));
        let sum = Rc::new(Cell::new(0));
        let fills = Rc::clone(&queue);
        let producer = spawn(async move {
            for item in 0..ITEMS {
                fills.put(item).await.unwrap();
            }
        });
        let mut consumers = JoinSet::new();
        let mut cancelled = 0;
        while !producer.done() || !queue.is_empty() {
            while consumers.len() < 8 {
                let (queue, lock) = (Rc::clone(&queue), Rc::clone(&lock));
                let (semaphore, sum) = (Rc::clone(&semaphore), Rc::clone(&sum));
                consumers.spawn(async move {
                    while let Ok(item) = queue.get().await {
                        sum.set(sum.get() + item); // No await in between, where the task could end.
                        let _permit = semaphore.acquire().await;
                        let _guard = lock.acquire().await;
                        yield_now().await;
                    }
                });
            }
            for _ in 0..20 {
                yield_now().await;
            }
            consumers.cancel_all();
            while consumers.try_join_next().is_some() {
                cancelled += 1;
            }
        }
        producer.await.unwrap();
        consumers.shutdown().await;
        assert!(cancelled > 1000);
        assert_eq!(sum.get(), (0..ITEMS).sum::<u64>());
        let _all = [(); 3].map(|()| semaphore.try_acquire().unwrap());
        assert!(lock.try_acquire().is_some());
    });
}
