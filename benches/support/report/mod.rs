//! The report of `compare`: what a result file looks like as tables, charts and a page.
//!
//! All of it is made from the result file alone, so that an old one can be rendered again.

mod chart;
mod page;
mod readme;
mod summary;

use std::collections::BTreeMap;

use serde_json::Value;

use self::chart::{Bar, Heading, Line};
pub use self::readme::{README_CHART, README_TABLES, put_into_readme, readme_chart, readme_tables};
use crate::table::Spread;
use crate::workload::Workload;

/// The files of a report by their names, besides the results themselves.
pub fn files(results: &Value) -> Vec<(String, String)> {
    let report = Report::new(results);
    let mut files = vec![
        ("report.md".to_owned(), page::markdown(&report)),
        ("report.html".to_owned(), page::html(&report)),
    ];
    let charts = report.charts();
    files.extend(charts.into_iter().map(|chart| (format!("{}.svg", chart.name), chart.svg)));
    files
}

/// The results, by workload and cell.
struct Report<'a> {
    results: &'a Value,
    cells: Vec<Measured<'a>>,
}

/// What was measured in one cell, in the order of the measurement.
struct Measured<'a> {
    workload: &'a str,
    cell: &'a str,
    connections: u64,
    rows: Vec<&'a Value>,
}

struct Chart {
    /// Of its file.
    name: String,
    section: Section,
    title: String,
    svg: String,
}

/// A part of the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Ratios,
    Scale,
    Latency,
    Memory,
}

impl<'a> Report<'a> {
    fn new(results: &'a Value) -> Self {
        let mut cells: Vec<Measured<'a>> = Vec::new();
        for row in results["results"].as_array().into_iter().flatten() {
            let (workload, cell) = (text(row, "workload"), text(row, "cell"));
            match cells.iter_mut().find(|known| (known.workload, known.cell) == (workload, cell)) {
                Some(known) => known.rows.push(row),
                None => cells.push(Measured {
                    workload,
                    cell,
                    connections: row["connections"].as_u64().unwrap_or(0),
                    rows: vec![row],
                }),
            }
        }
        Self { results, cells }
    }

    fn cell(&self, workload: &str, cell: &str) -> Option<&Measured<'a>> {
        self.cells.iter().find(|known| (known.workload, known.cell) == (workload, cell))
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        for cell in &self.cells {
            if cell.workload != "idle" && cell.workload != "scale" {
                charts.push(cell.ratios());
            }
        }
        let curves = [
            ("scale-cpu", "CPU time per message", "ns", "cpu_ns_per_msg"),
            ("scale-p99", "Latency that 99 % of the answers kept", "µs", "p99_us"),
            ("scale-memory", "Resident memory of the server", "KiB", "rss_kib"),
        ];
        for (name, title, unit, figure) in curves {
            charts.extend(self.curve(name, title, unit, figure));
        }
        let latencies = [("ping-pong", "1x64x1", "latency"), ("echo", "64x64x1", "latency-64")];
        charts.extend(latencies.iter().filter_map(|(workload, cell, name)| {
            self.cell(workload, cell).and_then(|cell| cell.latencies(name))
        }));
        charts.extend(self.memory());
        charts
    }

    /// Of the echo of 64 bytes, one message under way, whatever workload it stands in.
    fn curve(&self, name: &str, title: &str, unit: &str, figure: &str) -> Option<Chart> {
        let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for cell in &self.cells {
            let echo = matches!(cell.workload, "echo" | "ping-pong" | "scale");
            if echo && cell.cell == format!("{}x64x1", cell.connections) {
                for row in &cell.rows {
                    let point = (cell.connections as f64, row[figure].as_f64()?);
                    lines.entry(text(row, "server")).or_default().push(point);
                }
            }
        }
        lines.retain(|server, points| SCALED.contains(server) && points.len() > 2);
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|(name, mut points)| {
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                Line { name: name.to_owned(), points }
            })
            .collect();
        let subtitle = "echo of 64 B, one message under way on each connection; lower is better";
        let heading = Heading { title, subtitle };
        let svg = chart::lines(&heading, unit, "connections", &lines, chart::Axis::Logarithmic)?;
        let section = Section::Scale;
        Some(Chart { name: name.to_owned(), section, title: title.to_owned(), svg })
    }

    fn memory(&self) -> Option<Chart> {
        let idle = self.cells.iter().filter(|cell| cell.workload == "idle");
        let cell = idle.max_by_key(|cell| cell.connections)?;
        let mut bars: Vec<Bar> = cell
            .rows
            .iter()
            .filter(|row| text(row, "server") != "null")
            .filter_map(|row| {
                let value = per_connection(row)?;
                let wakes = row["sleeps_per_s"].as_f64();
                let note = wakes.map(|wakes| format!("bytes; {wakes:.1} wake-ups per s"));
                Some(Bar { name: text(row, "server").to_owned(), value, range: None, note })
            })
            .collect();
        bars.sort_by(|one, other| one.value.total_cmp(&other.value));
        let title = "Memory of an idle connection".to_owned();
        let subtitle = format!(
            "{} are open: what the server has grown by for each, in bytes; shorter is better",
            cell.connections
        );
        let heading = Heading { title: &title, subtitle: &subtitle };
        let svg = chart::bars(&heading, &bars, None, 0);
        Some(Chart { name: "memory".to_owned(), section: Section::Memory, title, svg })
    }
}

impl Measured<'_> {
    fn row(&self, server: &str) -> Option<&Value> {
        self.rows.iter().copied().find(|row| text(row, "server") == server)
    }

    /// In words.
    fn title(&self) -> String {
        format!("{}, {}", title_of(self.workload), sizes(self.cell))
    }

    fn latencies(&self, name: &str) -> Option<Chart> {
        let drawn = |row: &&&Value| {
            let server = text(row, "server");
            server != "null" && !server.contains('/') && !server.ends_with("-defaults")
        };
        let line = |row: &&Value| Line {
            name: text(row, "server").to_owned(),
            points: (0..QUANTILES.len())
                .filter_map(|index| Some((index as f64, row[QUANTILES[index].1].as_f64()?)))
                .collect(),
        };
        let lines: Vec<Line> = self.rows.iter().filter(drawn).map(line).collect();
        let title = format!("Latency: {}", self.title());
        let subtitle = "so many of the answers came within; lower is better";
        let heading = Heading { title: &title, subtitle };
        let axis = chart::Axis::Named(QUANTILES.map(|(name, _)| name).to_vec());
        let svg = chart::lines(&heading, "µs", "part of the answers", &lines, axis)?;
        Some(Chart { name: name.to_owned(), section: Section::Latency, title, svg })
    }

    /// The CPU time of all servers against epoll's, the least first.
    fn ratios(&self) -> Chart {
        let mut bars: Vec<Bar> = self
            .rows
            .iter()
            .filter_map(|row| {
                let Spread { median, low, high } = ratio(row)?;
                let note = limit(row).map(str::to_owned);
                let name = text(row, "server").to_owned();
                Some(Bar { name, value: median, range: Some((low, high)), note })
            })
            .collect();
        // The null test is no ratio to the same base.
        let place = |bar: &Bar| (bar.name == "null", bar.value);
        bars.sort_by(|one, other| place(one).partial_cmp(&place(other)).expect("numbers"));
        let title = self.title();
        let base = if self.row("epoll").is_some() { "raw epoll" } else { "tokio" };
        let subtitle = format!(
            "CPU time per message against {base}'s: median and range of the rounds; shorter is better"
        );
        let heading = Heading { title: &title, subtitle: &subtitle };
        let svg = chart::bars(&heading, &bars, Some(1.0), 2);
        let name = format!("ratio-{}-{}", self.workload, self.cell);
        Chart { name, section: Section::Ratios, title, svg }
    }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn ratio(row: &Value) -> Option<Spread> {
    let numbers = row["ratio_epoll"].as_array()?;
    let number = |index: usize| numbers.get(index)?.as_f64();
    Some(Spread { median: number(0)?, low: number(1)?, high: number(2)? })
}

/// A server by the name that a reader knows it by.
fn label(server: &str) -> String {
    let (kind, face) = server.split_at(server.find('/').unwrap_or(server.len()));
    let kind = match kind {
        "ring" => "bare ring",
        "epoll" => "raw epoll",
        "null" => "null test",
        other => other,
    };
    format!("{kind}{face}")
}

/// What kept a server waiting, if something did.
fn limit(row: &Value) -> Option<&'static str> {
    let share = |name: &str| row[name].as_f64();
    if share("busy")? >= ENOUGH {
        return None;
    }
    let load = share("load_busy").unwrap_or(1.0);
    Some(if load >= MOST_OF_LOAD { "load-bound" } else { "waits" })
}

/// Bytes of resident memory that each connection has brought.
fn per_connection(row: &Value) -> Option<f64> {
    let grown = row["rss_kib"].as_f64()? - row["rss_alone_kib"].as_f64()?;
    Some(grown.max(0.0) * 1024.0 / row["connections"].as_f64()?)
}

fn title_of(workload: &str) -> &str {
    Workload::all().find(|known| known.name == workload).map_or(workload, |known| known.title)
}

/// `64x1024x8b` in words.
fn sizes(cell: &str) -> String {
    let mut parts = cell.trim_end_matches('b').split('x');
    let mut next = || parts.next().and_then(|part| part.parse::<usize>().ok()).unwrap_or(0);
    let (connections, bytes, depth) = (next(), next(), next());
    let bytes = match bytes {
        bytes if bytes >= 1024 && bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} B"),
    };
    let depth = if depth > 1 { format!(", {depth} deep") } else { String::new() };
    format!("{connections} x {bytes}{depth}")
}

/// The servers that curves are drawn of.
const SCALED: [&str; 5] = ["ringloop", "ringloop/streams", "epoll", "ring", "tokio"];
const QUANTILES: [(&str, &str); 5] = [
    ("50 %", "p50_us"),
    ("90 %", "p90_us"),
    ("99 %", "p99_us"),
    ("99.9 %", "p999_us"),
    ("99.99 %", "p9999_us"),
];
/// Of its core's time, for a server; below that the ratio says less.
const ENOUGH: f64 = 0.95;
/// Of its core's time, for the load; above that it can do no more.
const MOST_OF_LOAD: f64 = 0.9;
/// The runtimes of others that work on io_uring, which are measured with flags and by default.
const RING_RUNTIMES: [&str; 4] = ["monoio", "compio", "glommio", "nuclei"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Value {
        let row = |workload: &str, cell: &str, connections: u64, server: &str, ratio: f64| {
            json!({
                "workload": workload, "cell": cell, "connections": connections, "server": server,
                "msgs_per_s": 1000.0, "cpu_ns_per_msg": ratio * 4000.0, "p50_us": 10.0,
                "p90_us": 12.0, "p99_us": 20.0, "p999_us": 30.0, "p9999_us": 40.0,
                "rss_kib": 3000, "rss_alone_kib": 2000, "busy": 0.99, "sleeps_per_s": 0.0,
                "ratio_epoll": [ratio, ratio - 0.1, ratio + 0.1],
            })
        };
        let mut rows = Vec::new();
        for (workload, connections) in
            [("ping-pong", 1), ("echo", 64), ("echo", 1000), ("idle", 10)]
        {
            for (server, ratio) in
                [("ringloop", 0.9), ("epoll", 1.0), ("ring", 0.8), ("null", 1.01)]
            {
                rows.push(row(
                    workload,
                    &format!("{connections}x64x1"),
                    connections,
                    server,
                    ratio,
                ));
            }
        }
        json!({ "title": "a & b", "machine": { "processor": "<P>" }, "results": rows })
    }

    #[test]
    fn a_report_has_a_page_tables_and_charts() {
        let results = results();
        let files = files(&results);
        let names: Vec<&str> = files.iter().map(|(name, _)| &**name).collect();
        let expected = "report.md report.html ratio-ping-pong-1x64x1.svg ratio-echo-64x64x1.svg \
                        ratio-echo-1000x64x1.svg scale-cpu.svg scale-p99.svg scale-memory.svg \
                        latency.svg latency-64.svg memory.svg";
        assert_eq!(names.join(" "), expected);
        let page = &files[1].1;
        assert!(page.contains("&lt;P&gt;") && page.contains("a &amp; b"), "{page}");
        for (name, text) in &files {
            assert!(!text.contains("NaN"), "{name}");
        }
    }

    #[test]
    fn bars_stand_in_the_order_of_their_length() {
        let results = results();
        let svg = &Report::new(&results).cells[1].ratios().svg;
        let place = |name: &str| svg.find(&format!(">{name}</text>")).expect("it has a bar");
        assert!(place("bare ring") < place("ringloop") && place("ringloop") < place("raw epoll"));
    }

    #[test]
    fn sizes_are_told_in_words() {
        assert_eq!(sizes("64x64x1"), "64 x 64 B");
        assert_eq!(sizes("16x16384x8b"), "16 x 16 KiB, 8 deep");
    }
}
