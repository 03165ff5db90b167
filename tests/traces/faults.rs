//! The scenarios of transports again, while all goes wrong below that asyncio's result survives: sends come short, ops are
//! interrupted, buffers are missing, cancels are told late, and completions of one source overtake those of another.
//!
//! Each scenario is replayed with many seeds: the write mode and the kind of its sockets go round with them.

use std::time::Duration;

use ringloop_driver::testing::Faults;
use ringloop_tests::idle::be_patient;
use ringloop_tests::isolated::Test;
use ringloop_tests::seeds::each_seed;

use crate::scenario::FAULTS;
use crate::transports;

/// One test for each id.
macro_rules! under_faults {
    ($($id:literal)*) => {
        pub(crate) const TESTS: &[Test] = &[$(
            Test {
                name: concat!($id, "gives_its_trace_whatever_goes_wrong_below"),
                body: || replay($id),
                deadline: DEADLINE,
            },
        )*];
    };
}

under_faults! {
    "t01_" "t03_" "t06_" "t09_" "t10_" "t11_" "t12_" "t13_" "t14_" "t15_" "t16_" "t17_" "t20_" "t23_" "t24_" "t25_" "t26_"
    "t27_" "t29_" "t32_" "t33_" "t34_" "t35_" "t37_" "t38_" "t39_" "t40_" "t41_"
}

// spec: RISK-16, RISK-21, RISK-24, ERR-10
fn replay(id: &str) {
    be_patient();
    let replays: Vec<_> =
        transports::TESTS.iter().filter(|test| test.name.starts_with(id)).collect();
    each_seed(SEEDS, |seed| {
        FAULTS.set(Some(survivable(id, seed)));
        (replays[seed as usize % replays.len()].body)();
    });
}

/// A fifth of everything, but for what would show in asyncio too, or what no kernel does.
fn survivable(id: &str, seed: u64) -> Faults {
    let faults = Faults::harmless(seed);
    match id {
        // What the peer has at once is told: after a short or interrupted `send()` that is less, in asyncio too.
        "t03_" | "t12_" | "t17_" => {
            Faults { short_sends: 0, interrupted: 0, reordered: 0, busy: 0, ..faults }
        }
        // The size of the first delivery is told.
        "t11_" | "t26_" => Faults { short_receives: 0, ..faults },
        // On AF_UNIX the receive must be armed before it is cancelled: what was read ahead is no reset (RISK-06).
        "t34_" => Faults { interrupted: 0, no_buffers: 0, busy: 0, ..faults },
        // One reset is told to two ops of one source, and the kernel tells both at once.
        "t40_" => Faults { reordered: 0, ..faults },
        _ => faults,
    }
}

const SEEDS: u64 = 1000;
const DEADLINE: Duration = Duration::from_secs(600);
