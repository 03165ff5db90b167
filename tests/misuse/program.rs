//! One program: its beginning, its middle and its end.

use std::fs;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use ringloop::{DriverConfig, EventLoop, ThreadPool, WriteMode, sleep, yield_now};
use ringloop_driver::testing::{Faults, close_kept_ring};
use ringloop_tests::idle::settle;
use ringloop_tests::isolated::{self, Test};
use ringloop_tests::seeds::{Random, each_seed};

use crate::acts::{act, set_exception_handler};
use crate::values::{guarded, planned_panics, unplanned_panics, watch_panics};
use crate::world::World;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "programs_that_misuse_everything_leave_nothing",
        body: || run_programs(SEEDS, |_| None),
        deadline: DEADLINE,
    },
    Test {
        name: "programs_that_misuse_everything_leave_nothing_whatever_goes_wrong_below",
        body: || run_programs(SEEDS, |seed| Some(Faults { errors: 10, ..Faults::harmless(seed) })),
        deadline: DEADLINE,
    },
];

fn run_programs(seeds: u64, faults: impl Fn(u64) -> Option<Faults>) {
    watch_panics();
    let (mut acts, mut connections) = (0, 0);
    each_seed(seeds, |seed| {
        close_kept_ring();
        let before = open_descriptors();
        let world = run_program(seed, faults(seed));
        acts += world.acts.get();
        connections += world.connections.borrow().len();
        close_kept_ring();
        // Those of the executor hold on to the loop's waker until they have ended.
        while count_of("/proc/self/task") > 1 {
            thread::yield_now();
        }
        assert_eq!(open_descriptors(), before, "descriptors");
        assert_eq!(unplanned_panics(), Vec::<String>::new());
    });
    let panics = planned_panics();
    isolated::note(format_args!("{acts} acts on {connections} connections, {panics} panics"));
}

fn run_program(seed: u64, faults: Option<Faults>) -> Rc<World> {
    ringloop_driver::take_drop_panics().into_iter().for_each(ringloop_driver::discard_panic);
    let mut random = Random::new(seed);
    let is_abrupt = random.once_in(5);
    let mode = [WriteMode::Batched, WriteMode::Immediate][random.below(2)];
    let config = DriverConfig { faults, ..DriverConfig::default() };
    let builder = EventLoop::builder().driver(config).write_mode(mode);
    let event_loop = builder.default_executor(ThreadPool::new(1)).build().unwrap();
    let world = World::new(random);
    world.set_event_loop(&event_loop);
    World::set_current(Some(Rc::clone(&world)));
    set_exception_handler(&world, &event_loop);
    world.budget.set([60, 200, 600][world.below(3)]);
    rage(&world, &event_loop);
    if !is_abrupt {
        calm_down(&world, &event_loop);
        check_connections(&world, 1);
        check_loop(&world, &event_loop);
    }
    end(&world, event_loop);
    check_connections(&world, 0);
    let left: Vec<_> = world.owners.borrow().values().map(ToString::to_string).collect();
    assert_eq!(left, Vec::<String>::new(), "what is left was made there");
    assert_eq!(world.wrong.take(), Vec::<String>::new());
    world
}

/// Acts in and out of runs, until the budget is spent or little comes of it.
fn rage(world: &Rc<World>, event_loop: &EventLoop) {
    for _ in 0..world.below(4) + 1 {
        for _ in 0..world.below(8) {
            guarded(|| act(world));
        }
        let (this, rounds) = (Rc::clone(world), 4 + world.below(40));
        // It may be stopped, or asked to exit.
        let _ = event_loop.run_until_complete(async move {
            for _ in 0..rounds {
                for _ in 0..this.below(6) {
                    guarded(|| act(&this));
                }
                match this.below(8) {
                    0 => sleep(Duration::from_micros(100)).await,
                    _ => yield_now().await,
                }
            }
        });
    }
}

/// Ends all that is open, in an orderly way. A task may survive a cancellation, and open something. A job is run by a thread, and
/// nobody knows how long a busy machine lets that wait.
fn calm_down(world: &Rc<World>, event_loop: &EventLoop) {
    world.budget.set(0);
    let _ = event_loop.run_until_complete(yield_now()); // Uses up what stops a run.
    for round in 0.. {
        end_all(world, event_loop);
        let stats = event_loop.stats();
        let is_calm = (stats.sources, stats.tasks) == (0, 0);
        if stats.jobs == 0 && (is_calm || round >= 1000) {
            break;
        }
        let _ = event_loop.run_until_complete(sleep(Duration::from_micros(200)));
    }
}

fn end_all(world: &World, event_loop: &EventLoop) {
    let listening = world.listening.take();
    for server in listening {
        server.close();
        server.abort_clients();
    }
    for pair in world.watched.all() {
        let _ = event_loop.remove_reader(&pair.0);
        let _ = event_loop.remove_writer(&pair.0);
    }
    event_loop.remove_signal_handler(libc::SIGWINCH);
    cancel_all(event_loop);
    world.timers.all().iter().for_each(ringloop::TimerHandle::cancel);
    let open: Vec<_> = world.open.borrow().values().cloned().collect();
    open.iter().for_each(ringloop::Transport::abort);
    drop(open);
    let _ = event_loop.run_until_complete(settle());
    world.clear();
    let _ = event_loop.run_until_complete(settle());
}

fn cancel_all(event_loop: &EventLoop) {
    for task in event_loop.all_tasks() {
        task.cancel();
    }
}

fn check_connections(world: &World, least_lost: u32) {
    for (id, connection) in &*world.connections.borrow() {
        let (made, lost) = (connection.made, connection.lost);
        let wrong = lost > 1 || made > 0 && lost < least_lost;
        assert!(!wrong, "connection {id}: made {made} times, lost {lost} times");
    }
}

fn check_loop(world: &World, event_loop: &EventLoop) {
    let (stats, counters) = (event_loop.stats(), event_loop.counters());
    assert_eq!((stats.sources, stats.tasks, stats.jobs), (0, 0, 0), "{event_loop:?}");
    assert_eq!(counters.in_flight, 0, "{counters:?}");
    assert!(counters.leased <= world.forgotten.get(), "{counters:?}");
    assert_eq!((stats.stale, counters.stale), (0, 0), "{counters:?}");
}

fn end(world: &Rc<World>, event_loop: EventLoop) {
    // A task may hold its loop: that is a cycle which only the close breaks.
    if world.once_in(2) || event_loop.stats().tasks > 0 {
        event_loop.close().unwrap();
    }
    let weak = event_loop.downgrade();
    drop(event_loop);
    world.budget.set(0);
    world.clear();
    World::set_current(None);
    let listening = world.listening.take();
    drop(listening);
    world.clear();
    assert!(weak.upgrade().is_none(), "the loop is left");
}

fn open_descriptors() -> usize {
    count_of("/proc/self/fd")
}

fn count_of(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

const SEEDS: u64 = 400;
const DEADLINE: Duration = Duration::from_secs(1200);
