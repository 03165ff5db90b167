//! A loop for one test, and what the test must not leave behind.

use ringloop::{DriverConfig, EventLoop};
use ringloop_driver::testing::Faults;

use crate::idle::settle;

/// Runs `main` on a loop of its own. When it is done and the loop has settled, nothing is open, in flight or lent any more.
///
/// With `RINGLOOP_FAULTS=SEED` in the environment all that may go wrong below without harm goes wrong now and then.
pub fn on_loop<F: Future>(main: F) -> F::Output {
    let seed = std::env::var("RINGLOOP_FAULTS").ok();
    let faults = seed.map(|seed| Faults::harmless(seed.parse().expect("a number")));
    on_loop_with(faults, main)
}

/// The same with faults of the caller's choice.
pub fn on_loop_with<F: Future>(faults: Option<Faults>, main: F) -> F::Output {
    let config = DriverConfig { faults, ..DriverConfig::default() };
    let event_loop = EventLoop::builder().driver(config).build().unwrap();
    let output = event_loop.run_until_complete(main).unwrap();
    event_loop.run_until_complete(settle()).unwrap();
    assert_clean(&event_loop);
    event_loop.close().unwrap();
    output
}

/// Nothing is open, in flight or lent.
pub fn assert_clean(event_loop: &EventLoop) {
    let (stats, counters) = (event_loop.stats(), event_loop.counters());
    assert_eq!((stats.sources, counters.in_flight, counters.leased), (0, 0, 0), "{event_loop:?}");
    assert_eq!((stats.stale, counters.stale), (0, 0), "{counters:?}");
}
