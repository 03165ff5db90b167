//! The report as Markdown and as one page.

use std::fmt::Write;

use serde_json::Value;

use super::chart::escape;
use super::summary::{self, Figure, OTHERS, Verdict};
use super::{Measured, Report, Section, label, limit, per_connection, ratio, text};

/// Tables for a reader of plain text.
pub(super) fn markdown(report: &Report<'_>) -> String {
    let mut out = "# ringloop beside its rivals\n\n".to_owned();
    for line in head(report) {
        let _ = writeln!(out, "- {line}");
    }
    let _ = writeln!(out, "\n## ringloop against each\n\n{SUMMARY}\n");
    let _ = writeln!(out, "| |{} |\n| --- |{}", others(" | "), " --- |".repeat(OTHERS.len()));
    for row in summary::rows(report) {
        let _ = write!(out, "| {} |", row.title);
        for figure in &row.figures {
            let shown = figure.as_ref().map_or_else(|| "-".to_owned(), show);
            let _ = write!(out, " {shown} |");
        }
        out.push('\n');
    }
    for cell in &report.cells {
        let _ = writeln!(out, "\n## {}\n", cell.title());
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
    let _ = write!(out, "</ul>\n<h2>ringloop against each</h2><p>{}</p>", escape(SUMMARY));
    let _ = write!(out, "<table class=\"summary\"><tr><th></th><th>{}</th>", others("</th><th>"));
    for row in summary::rows(report) {
        let _ = write!(out, "</tr>\n<tr><td>{}</td>", escape(&row.title));
        for figure in &row.figures {
            match figure {
                None => out.push_str("<td>-</td>"),
                Some(figure) => {
                    let class = match figure.verdict {
                        Verdict::Ringloop => "less",
                        Verdict::Neither => "same",
                        Verdict::Other => "more",
                    };
                    let _ = write!(out, "<td class=\"{class}\">{}</td>", escape(&show(figure)));
                }
            }
        }
    }
    out.push_str("</tr></table>\n");
    let charts = report.charts();
    for (section, title) in SECTIONS {
        let charts: Vec<_> = charts.iter().filter(|chart| chart.section == section).collect();
        if charts.is_empty() {
            continue;
        }
        let _ = write!(out, "<h2>{title}</h2><div class=\"charts\">");
        for chart in charts {
            let title = escape(&chart.title);
            let _ = write!(out, "<figure title=\"{title}\">{}</figure>", chart.svg);
        }
        out.push_str("</div>\n");
    }
    out.push_str("<h2>All figures</h2>\n");
    for cell in &report.cells {
        let (names, rows) = table(cell);
        let title = escape(&cell.title());
        let _ = write!(out, "<details><summary>{title}</summary><table><tr>");
        for name in names {
            let _ = write!(out, "<th>{}</th>", escape(name));
        }
        for row in rows {
            out.push_str("</tr>\n<tr>");
            for column in row {
                let _ = write!(out, "<td>{}</td>", escape(&column));
            }
        }
        out.push_str("</tr></table></details>\n");
    }
    out + "</html>\n"
}

/// The names over the columns of the summary.
fn others(between: &str) -> String {
    OTHERS.map(label).join(between)
}

fn show(figure: &Figure) -> String {
    let range = figure.range.map(|(low, high)| format!(" [{low:.2}..{high:.2}]"));
    let other = figure.other.as_ref().map(|other| format!(" {other}"));
    let (range, other) = (range.unwrap_or_default(), other.unwrap_or_default());
    format!("{:.2}{range}{other}", figure.median)
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
                label(text(row, "server")),
                each,
                number(row, "sleeps_per_s", 1),
                number(row, "rss_kib", 0),
            ]
        };
        return (names, rows.iter().map(row).collect());
    }
    rows.sort_by(|one, other| {
        let median = |row| ratio(row).map_or(f64::INFINITY, |ratio| ratio.median);
        let place = |row| (text(row, "server") == "null", median(row));
        place(one).partial_cmp(&place(other)).expect("numbers")
    });
    let row = |row: &&Value| {
        let ratio = ratio(row).map_or_else(
            || "-".to_owned(),
            |ratio| format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.low, ratio.high),
        );
        let limit = limit(row).map(|limit| format!(" ({limit})")).unwrap_or_default();
        let mut columns = vec![label(text(row, "server")), ratio];
        for (name, decimals) in FIGURES {
            columns.push(number(row, name, decimals));
        }
        columns.push(number(row, "busy", 2) + &limit);
        columns.push(number(row, "load_busy", 2));
        columns
    };
    (&NAMES, rows.iter().map(row).collect())
}

const NAMES: [&str; 13] = [
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
    "load busy",
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
const SECTIONS: [(Section, &str); 4] = [
    (Section::Ratios, "CPU time per message, by workload"),
    (Section::Scale, "Over the number of connections"),
    (Section::Latency, "Latency"),
    (Section::Memory, "Memory and wake-ups"),
];
const SUMMARY: &str = "ringloop's CPU time per message divided by the other's in the same round: the median of the rounds, and \
     their range. Below 1 ringloop needs less. Coloured is what differs by more than ringloop does from itself. Where ringloop \
     has only streams for a workload, these are meant.";
const EXPLANATION: [&str; 4] = [
    "Ratio: the server's CPU time per message against that of raw epoll (of tokio, where there is no epoll) in the same round; \
     the median of all rounds, and their range; less is better.",
    "The null test: the first server once more, against itself. A lesser difference between two servers is none.",
    "Load-bound: the server was busy for less than 95 % of the time, and the load could do no more. Waits: it was not the load \
     either, but few messages under way, or others on the cores. Both times the ratio says less.",
    "Raw epoll is level-triggered epoll without a runtime, the bare ring io_uring without a runtime; all others are named after \
     their library. Servers with \"-defaults\" have the flags that their library comes with, those without the best it permits.",
];
const HEAD: &str = "<html lang=\"en\"><meta charset=\"utf-8\"><title>ringloop beside its rivals</title>
<meta name=\"viewport\" content=\"width=device-width\">
<style>
body { font: 15px/1.45 Helvetica, Arial, sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em; color: #222 }
h2 { margin: 1.6em 0 .5em }
.charts { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start }
figure { margin: 0; border: 1px solid #ddd; border-radius: 4px; padding: 6px }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { border: 1px solid #ddd; padding: 3px 9px; text-align: right }
th:first-child, td:first-child { text-align: left }
th { background: #f5f5f5 }
.less { background: #dcefdc }
.same { color: #777 }
.more { background: #f8dedb }
details { margin: .3em 0 }
summary { cursor: pointer }
details table { margin: .5em 0 1em }
</style>\n";
