//! The report as Markdown and as one page.

use std::fmt::Write;

use serde_json::Value;

use super::chart::escape;
use super::{Measured, Report, limited, per_connection, ratio, sizes, text, title_of};

/// Tables for a reader of plain text.
pub(super) fn markdown(report: &Report<'_>) -> String {
    let mut out = "# compare\n\n".to_owned();
    for line in head(report) {
        let _ = writeln!(out, "- {line}");
    }
    for cell in &report.cells {
        let _ = writeln!(out, "\n## {}, {}\n", title_of(cell.workload), sizes(cell.cell));
        let (names, rows) = table(cell);
        let _ = writeln!(out, "| {} |\n|{}", names.join(" | "), " --- |".repeat(names.len()));
        for row in rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }
    out
}

/// One file that needs no other.
pub(super) fn html(report: &Report<'_>) -> String {
    let mut out = format!("<!doctype html>\n{HEAD}<h1>ringloop beside its rivals</h1>\n<ul>");
    for line in head(report) {
        let _ = write!(out, "<li>{}</li>", escape(&line));
    }
    out.push_str("</ul>\n<div class=\"charts\">");
    for chart in report.charts() {
        let _ = write!(out, "<figure title=\"{}\">{}</figure>", escape(&chart.title), chart.svg);
    }
    out.push_str("</div>\n");
    for cell in &report.cells {
        let title = format!("{}, {}", title_of(cell.workload), sizes(cell.cell));
        let (names, rows) = table(cell);
        let _ = write!(out, "<h2>{}</h2><table><tr>", escape(&title));
        for name in names {
            let _ = write!(out, "<th>{}</th>", escape(name));
        }
        for row in rows {
            out.push_str("</tr>\n<tr>");
            for column in row {
                let _ = write!(out, "<td>{}</td>", escape(&column));
            }
        }
        out.push_str("</tr></table>\n");
    }
    out + "</html>\n"
}

/// What the figures depend on, and how to read them.
fn head(report: &Report<'_>) -> Vec<String> {
    let machine = &report.results["machine"];
    let mut lines = vec![
        text(report.results, "title").to_owned(),
        format!(
            "{}, Linux {}, congestion control {}, one bare system call {:.0} ns",
            text(machine, "processor"),
            text(machine, "kernel"),
            text(machine, "congestion_control"),
            machine["system_call_ns"].as_f64().unwrap_or(0.0),
        ),
    ];
    let mitigations = machine["mitigations"].as_object().into_iter().flatten();
    let mitigations: Vec<String> = mitigations
        .map(|(name, status)| format!("{name}: {}", status.as_str().unwrap_or_default()))
        .collect();
    if !mitigations.is_empty() {
        lines.push(format!("mitigations: {}", mitigations.join("; ")));
    }
    lines.extend(EXPLANATION.map(str::to_owned));
    let notes = report.results["notes"].as_array().into_iter().flatten();
    lines.extend(notes.filter_map(Value::as_str).map(str::to_owned));
    lines
}

fn table(cell: &Measured<'_>) -> (&'static [&'static str], Vec<Vec<String>>) {
    let number = |row: &Value, name: &str, decimals: usize| {
        row[name].as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
    };
    let mut rows = cell.rows.clone();
    if cell.workload == "idle" {
        rows.sort_by(|one, other| {
            per_connection(one).partial_cmp(&per_connection(other)).expect("numbers")
        });
        let names = &["server", "bytes per connection", "wake-ups per s", "memory KiB"];
        let row = |row: &&Value| {
            let each =
                per_connection(row).map_or_else(|| "-".to_owned(), |each| format!("{each:.0}"));
            vec![
                text(row, "server").to_owned(),
                each,
                number(row, "sleeps_per_s", 1),
                number(row, "rss_kib", 0),
            ]
        };
        return (names, rows.iter().map(row).collect());
    }
    rows.sort_by(|one, other| {
        let median = |row| ratio(row).map_or(f64::INFINITY, |ratio| ratio.median);
        median(one).total_cmp(&median(other))
    });
    let row = |row: &&Value| {
        let ratio = ratio(row).map_or_else(
            || "-".to_owned(),
            |ratio| format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.low, ratio.high),
        );
        let limited = if limited(row) { " (load-bound)" } else { "" };
        let mut columns = vec![text(row, "server").to_owned(), ratio];
        for (name, decimals) in FIGURES {
            columns.push(number(row, name, decimals));
        }
        columns.push(number(row, "busy", 2) + limited);
        columns
    };
    (&NAMES, rows.iter().map(row).collect())
}

const NAMES: [&str; 12] = [
    "server",
    "ratio to epoll",
    "CPU ns/msg",
    "msg/s",
    "calls/msg",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
    "p99.99 µs",
    "memory KiB",
    "busy",
];
const FIGURES: [(&str, usize); 9] = [
    ("cpu_ns_per_msg", 0),
    ("msgs_per_s", 0),
    ("calls_per_msg", 3),
    ("p50_us", 1),
    ("p90_us", 1),
    ("p99_us", 1),
    ("p999_us", 1),
    ("p9999_us", 1),
    ("rss_kib", 0),
];
const EXPLANATION: [&str; 4] = [
    "ratio: the server's CPU time per message against that of raw epoll (of tokio, where there is no epoll) in the same round; \
     the median of all rounds, and their range; less is better",
    "null: the first server once more, against itself: a lesser difference between two servers is none",
    "load-bound: the server was busy for less than 95 % of the time, so the load or somebody else was the limit, and the ratio \
     says less",
    "epoll is level-triggered epoll without a runtime, ring is io_uring without a runtime; all others are named after their \
     library",
];
const HEAD: &str = "<html lang=\"en\"><meta charset=\"utf-8\"><title>compare</title>\n<style>
body { font: 15px/1.45 Helvetica, Arial, sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em; color: #222 }
.charts { display: flex; flex-wrap: wrap; gap: 12px }
figure { margin: 0; border: 1px solid #ddd; border-radius: 4px; padding: 6px }
table { border-collapse: collapse; font-size: 13px }
th, td { border: 1px solid #ddd; padding: 3px 9px; text-align: right }
th:first-child, td:first-child { text-align: left }
</style>\n";
