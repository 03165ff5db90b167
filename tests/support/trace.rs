//! Traces of events, and when two of them are equal.
//!
//! A line is `lane: event`. Rules of comparison, on both sides alike:
//!
//! 1. **Merge.** Consecutive `data_received` lines of a lane become one, since borders of chunks have no meaning.
//! 2. **Cut.** A size above 16 KiB in such a line then counts as 16 KiB: how much a protocol sees before it closes or
//!    pauses is the size of a buffer.
//! 3. **Order.** Total: the whole lists are equal. Lane: the lines of each lane are, and lanes interleave freely.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use crate::python;

/// What a scenario writes its events to. Clones write to the same trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    lines: Rc<RefCell<Vec<String>>>,
}

impl Trace {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event to a lane.
    pub fn log(&self, lane: &str, event: impl AsRef<str>) {
        self.push(format!("{lane}: {}", event.as_ref()));
    }

    /// Adds a whole line.
    pub fn push(&self, line: String) {
        self.lines.borrow_mut().push(line);
    }

    /// Keeps the lines that `keep` holds for.
    pub fn retain(&self, keep: impl FnMut(&String) -> bool) {
        self.lines.borrow_mut().retain(keep);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }
}

/// How much of the order of two traces must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All of it.
    Total,
    /// That of the lines of each lane.
    Lane,
}

/// Compares two traces.
///
/// # Errors
///
/// Both, side by side, if they differ.
pub fn compare(order: Order, expected: &[String], actual: &[String]) -> Result<(), String> {
    let (expected, actual) = (normal(expected), normal(actual));
    let equal = match order {
        Order::Total => expected == actual,
        Order::Lane => by_lane(&expected) == by_lane(&actual),
    };
    if equal { Ok(()) } else { Err(side_by_side(order, &expected, &actual)) }
}

/// Merged, then cut.
fn normal(lines: &[String]) -> Vec<String> {
    let mut merged: Vec<(&str, Event)> = Vec::new();
    let mut last_of_lane: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let (lane, event) = (lane_of(line), Event::parse(line));
        let last = last_of_lane.get(lane).map(|&index| &mut merged[index].1);
        if let (Event::Data(more), Some(Event::Data(data))) = (&event, last) {
            data.join(more);
            continue;
        }
        last_of_lane.insert(lane, merged.len());
        merged.push((lane, event));
    }
    merged.into_iter().map(|(lane, event)| event.line(lane)).collect()
}

enum Event {
    Data(Data),
    Other(String),
}

/// What one `data_received` line tells about the bytes.
enum Data {
    Literal(Vec<u8>),
    Size(usize),
}

impl Event {
    fn parse(line: &str) -> Self {
        match line.split_once(": ").and_then(|(_, event)| Data::parse(event)) {
            Some(data) => Self::Data(data),
            None => Self::Other(line.to_owned()),
        }
    }

    fn line(self, lane: &str) -> String {
        match self {
            Self::Other(line) => line,
            Self::Data(Data::Literal(bytes)) => {
                format!("{lane}: data_received({})", python::bytes(&bytes))
            }
            Self::Data(Data::Size(size)) => {
                format!("{lane}: data_received(<{} bytes>)", size.min(LARGEST_SIZE))
            }
        }
    }
}

impl Data {
    fn parse(event: &str) -> Option<Self> {
        let shown = event.strip_prefix("data_received(")?.strip_suffix(')')?;
        if let Some(size) = shown.strip_prefix('<').and_then(|rest| rest.strip_suffix(" bytes>")) {
            return size.parse().ok().map(Self::Size);
        }
        python::parse_bytes(shown).map(Self::Literal)
    }

    fn join(&mut self, more: &Self) {
        let size = self.size() + more.size();
        match (&mut *self, more) {
            (Self::Literal(bytes), Self::Literal(more)) if size <= python::LONGEST_LITERAL => {
                bytes.extend(more);
            }
            _ => *self = Self::Size(size),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Literal(bytes) => bytes.len(),
            Self::Size(size) => *size,
        }
    }
}

fn lane_of(line: &str) -> &str {
    line.split_once(": ").map_or("", |(lane, _)| lane)
}

fn by_lane(lines: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in lines {
        lanes.entry(lane_of(line)).or_default().push(line.as_str());
    }
    lanes
}

/// Where lanes interleave freely, one lane after the other, so that only real differences are marked.
fn side_by_side(order: Order, expected: &[String], actual: &[String]) -> String {
    let mut text = String::from("the traces differ\n");
    let (expected, actual) = match order {
        Order::Total => (expected.to_vec(), actual.to_vec()),
        Order::Lane => (sorted_by_lane(expected), sorted_by_lane(actual)),
    };
    let width = expected.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(8);
    let _ = writeln!(text, "    {:width$}    actual", "expected");
    for index in 0..expected.len().max(actual.len()) {
        let left = expected.get(index).map_or("", String::as_str);
        let right = actual.get(index).map_or("", String::as_str);
        let mark = if left == right { ' ' } else { '!' };
        let _ = writeln!(text, "  {mark} {left:width$}    {right}");
    }
    text
}

fn sorted_by_lane(lines: &[String]) -> Vec<String> {
    by_lane(lines).into_values().flatten().map(str::to_owned).collect()
}

/// One buffer of ringloop's: a larger size in a `data_received` line counts as this.
const LARGEST_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|&line| line.to_owned()).collect()
    }

    #[track_caller]
    fn assert_equal(order: Order, expected: &[&str], actual: &[&str]) {
        if let Err(text) = compare(order, &lines(expected), &lines(actual)) {
            panic!("{text}");
        }
    }

    #[track_caller]
    fn assert_differ(order: Order, expected: &[&str], actual: &[&str]) {
        assert!(compare(order, &lines(expected), &lines(actual)).is_err());
    }

    #[test]
    fn chunks_of_one_lane_are_merged_at_the_place_of_the_first() {
        assert_equal(
            Order::Total,
            &["a: data_received(b'abcd')", "b: x"],
            &["a: data_received(b'ab')", "b: x", "a: data_received(b'cd')"],
        );
        assert_equal(
            Order::Total,
            &["a: data_received(<40 bytes>)"],
            &["a: data_received(b'0123456789012345678901')", "a: data_received(<18 bytes>)"],
        );
        assert_equal(
            Order::Total,
            &["a: data_received(<26 bytes>)"],
            &["a: data_received(b'0123456789012')", "a: data_received(b'0123456789012')"],
        );
    }

    #[test]
    fn a_line_of_the_lane_between_two_chunks_keeps_them_apart() {
        assert_differ(
            Order::Total,
            &["a: data_received(b'abcd')", "a: x"],
            &["a: data_received(b'ab')", "a: x", "a: data_received(b'cd')"],
        );
    }

    #[test]
    fn only_data_received_is_merged() {
        assert_differ(
            Order::Total,
            &["a: datagram_received(b'ab')"],
            &["a: datagram_received(b'a')", "a: datagram_received(b'b')"],
        );
    }

    #[test]
    fn sizes_above_one_buffer_are_cut_after_merging() {
        assert_equal(
            Order::Total,
            &["a: data_received(<100000 bytes>)"],
            &["a: data_received(<16384 bytes>)"],
        );
        assert_equal(
            Order::Total,
            &["a: data_received(<20000 bytes>)"],
            &["a: data_received(<10000 bytes>)", "a: data_received(<10000 bytes>)"],
        );
        assert_differ(
            Order::Total,
            &["a: data_received(<16384 bytes>)"],
            &["a: data_received(<16383 bytes>)"],
        );
        assert_differ(Order::Total, &["a: read <20000 bytes>"], &["a: read <30000 bytes>"]);
    }

    #[test]
    fn lanes_interleave_freely_only_where_the_order_is_that_of_lanes() {
        let (one, two) = (["a: 1", "b: 1", "a: 2"], ["b: 1", "a: 1", "a: 2"]);
        assert_equal(Order::Lane, &one, &two);
        assert_differ(Order::Total, &one, &two);
        assert_differ(Order::Lane, &one, &["b: 1", "a: 2", "a: 1"]);
        assert_differ(Order::Lane, &one, &["a: 1", "a: 2"]);
    }

    #[test]
    fn the_first_lines_that_differ_are_marked() {
        let text = compare(Order::Total, &lines(&["a: 1", "a: 2"]), &lines(&["a: 1"])).unwrap_err();
        assert!(text.contains("  ! a: 2"), "{text}");
        assert!(text.contains("    a: 1        a: 1"), "{text}");
    }
}
