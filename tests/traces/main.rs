//! The traces of CPython, replayed.
//!
//! Each test takes the steps of one scenario, and compares what it logs with what CPython 3.13 logged when it took the same
//! steps (`traces.json`); the rules are those of `docs/behaviour.md`, "Traces". With [`WriteMode::Immediate`](ringloop::WriteMode) the
//! traces are equal line for line; with batched writing they differ only in the lines of `deviations.txt`. Lines that types
//! exclude, or that belong to later parts of the library, are those of `exempt.md`; the summary at the end counts them.
//! The scenarios of `own.json` are ours: they prove rows that no published one proves, and were recorded in the same way.

mod calls;
mod connections;
mod faults;
mod halves;
mod loops;
mod meeting;
mod own;
mod readers;
mod readiness;
mod recorded;
mod scenario;
mod scripts;
mod servers;
mod sockets;
mod streams;
mod tables;
mod tasks;
mod transports;

use std::collections::BTreeSet;
use std::process::ExitCode;

use ringloop_tests::isolated::{self, Test};

use crate::scenario::{DEADLINE, EXCLUDED, id_of};
use crate::tables::Exempt;

fn main() -> ExitCode {
    isolated::run_with_summary(&tests(), summary)
}

fn tests() -> Vec<Test> {
    let tables = Test { name: "tables_are_consistent", body: check_tables, deadline: DEADLINE };
    [
        &[tables],
        &replays()[..],
        scripts::TESTS,
        calls::TESTS,
        readers::TESTS,
        halves::TESTS,
        tasks::TESTS,
        faults::TESTS,
    ]
    .concat()
}

fn replays() -> Vec<Test> {
    [
        loops::TESTS,
        readiness::TESTS,
        transports::TESTS,
        servers::TESTS,
        connections::TESTS,
        sockets::TESTS,
        streams::TESTS,
        own::TESTS,
    ]
    .concat()
}

/// What the tables say is possible, and each published scenario is replayed unless they or [`LATER`] say otherwise.
fn check_tables() {
    tables::check();
    let replayed: BTreeSet<_> = replays().iter().map(|test| id_of(test.name)).collect();
    let of_later_wave: BTreeSet<_> = tables::exempt()
        .into_iter()
        .filter_map(|entry| match entry {
            Exempt::Scenario(id) => Some(id),
            Exempt::Line(..) => None,
        })
        .collect();
    for id in tables::published().into_keys() {
        let reasons =
            [replayed.contains(&id), of_later_wave.contains(&id), LATER.contains(&id.as_str())];
        let count = reasons.into_iter().filter(|&reason| reason).count();
        assert_eq!(count, 1, "{id} is replayed, of a later layer, or to come: {reasons:?}");
    }
    for id in tables::own().into_keys() {
        assert!(replayed.contains(&id), "nothing replays {id}");
    }
}

/// In what replays the traces were allowed to differ.
fn summary(notes: &[String]) {
    let excluded: BTreeSet<_> =
        notes.iter().filter_map(|note| note.strip_prefix(EXCLUDED)).collect();
    let list = excluded.iter().map(|line| format!(" ({line})")).collect::<String>();
    println!("excused lines: {}{list}", excluded.len());
    let deviations = tables::deviations();
    println!("lines that differ with batched writing: {}", deviations.len());
    println!("scenarios to come with later parts: {}", LATER.join(" "));
}

/// Published scenarios that wait for parts of the library that are still to be written.
const LATER: &[&str] = &[];
