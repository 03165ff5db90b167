//! What the replays are compared with: the traces, and the lines in which they may differ.
//!
//! All of it is compiled in, and checked when it is read.

use std::collections::BTreeMap;

use ringloop_tests::trace::Order;
use serde_json::Value;

/// A trace of CPython.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) order: Order,
    pub(crate) lines: Vec<String>,
}

impl Expected {
    /// Its line by its number, from 1.
    pub(crate) fn line(&self, number: usize) -> Option<&str> {
        self.lines.get(number.checked_sub(1)?).map(String::as_str)
    }
}

/// The scenarios that came with the founding document of `docs/behaviour.md`.
pub(crate) fn published() -> BTreeMap<String, Expected> {
    parse_traces(include_str!("traces.json"))
}

/// Recorded by us, for rows that no published scenario proves; each under `own ` and its id.
pub(crate) fn own() -> BTreeMap<String, Expected> {
    let traces = parse_traces(include_str!("own.json"));
    traces.into_iter().map(|(id, trace)| (format!("own {id}"), trace)).collect()
}

/// The trace of one scenario.
pub(crate) fn expected(id: &str) -> Expected {
    published().remove(id).or_else(|| own().remove(id)).unwrap_or_else(|| panic!("no trace {id}"))
}

fn parse_traces(text: &str) -> BTreeMap<String, Expected> {
    let traces: Value = serde_json::from_str(text).expect("traces are JSON");
    let traces = traces.as_object().expect("traces stand under their ids");
    traces.iter().map(|(id, trace)| (id.clone(), parse_trace(trace))).collect()
}

fn parse_trace(trace: &Value) -> Expected {
    let order = match trace["order"].as_str() {
        Some("total") => Order::Total,
        Some("lane") => Order::Lane,
        other => panic!("unknown order {other:?}"),
    };
    let lines = trace["trace"].as_array().expect("a trace is a list");
    let lines = lines.iter().map(|line| line.as_str().expect("of lines").to_owned());
    Expected { order, lines: lines.collect() }
}

/// A line of a scenario that is excused, or the whole of one that belongs to a later layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exempt {
    Line(String, usize),
    Scenario(String),
}

/// The entries of `exempt.md`.
pub(crate) fn exempt() -> Vec<Exempt> {
    parse_exempt(include_str!("exempt.md"))
}

fn parse_exempt(text: &str) -> Vec<Exempt> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells
        .filter(|cell| cell.starts_with(|c: char| c.is_ascii_uppercase()))
        .flat_map(entries)
        .collect()
}

/// `K11 lines 5, 7` or `V10 lines 4-6` or `R08 line 6` or `U01, U02`.
fn entries(cell: &str) -> Vec<Exempt> {
    let Some((id, lines)) = cell.split_once(" line") else {
        return cell.split(", ").map(|id| Exempt::Scenario(id.to_owned())).collect();
    };
    let ranges = lines.trim_start_matches('s').trim().split(", ").map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{cell}: {text}"));
        number(first)..=number(last)
    });
    ranges.flatten().map(|number| Exempt::Line(id.to_owned(), number)).collect()
}

/// A line that differs with batched writing.
#[derive(Clone, Debug)]
pub(crate) struct Deviation {
    pub(crate) scenario: String,
    /// From 1.
    pub(crate) number: usize,
    pub(crate) row: String,
    /// What stands there instead.
    pub(crate) line: String,
    pub(crate) reason: String,
}

/// The entries of `deviations.txt`.
pub(crate) fn deviations() -> Vec<Deviation> {
    let lines = include_str!("deviations.txt").lines();
    let entries = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    entries.map(parse_deviation).collect()
}

fn parse_deviation(entry: &str) -> Deviation {
    let fields: Vec<_> = entry.split(" | ").map(str::trim).collect();
    let [place, row, line, reason] = fields[..] else { panic!("four fields: {entry}") };
    let (scenario, number) = place.rsplit_once(' ').unwrap_or_else(|| panic!("a line: {entry}"));
    Deviation {
        scenario: scenario.to_owned(),
        number: number.parse().unwrap_or_else(|_| panic!("a number: {entry}")),
        row: row.to_owned(),
        line: line.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Each entry names a line that exists, and says why it stands there.
pub(crate) fn check() {
    let mut traces = published();
    traces.extend(own());
    let line_of = |id: &str, number| traces.get(id).and_then(|trace| trace.line(number));
    for entry in exempt() {
        match &entry {
            Exempt::Scenario(id) => assert!(traces.contains_key(id), "{entry:?}"),
            Exempt::Line(id, number) => assert!(line_of(id, *number).is_some(), "{entry:?}"),
        }
    }
    let deviations = deviations();
    assert!(deviations.len() <= MOST_DEVIATIONS, "{} deviations", deviations.len());
    for entry in &deviations {
        let line = line_of(&entry.scenario, entry.number);
        assert!(line.is_some_and(|line| line != entry.line), "{entry:?} of {line:?}");
        assert!(!entry.row.is_empty() && !entry.reason.is_empty(), "{entry:?}");
    }
}

const MOST_DEVIATIONS: usize = 8;
