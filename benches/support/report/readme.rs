//! What the repository shows of a result file: a short table and a chart in the README, all the rest in a file that it leads to.

use std::fmt::Write;

use serde_json::Value;

use super::chart::{self, Bar, Heading};
use super::summary::best_other;
use super::{Report, limit, page, ratio, text};
use crate::table::Spread;

/// The README with the table of these results in place of the one that it has.
pub fn put_into_readme(readme: &str, results: &Value) -> Result<String, String> {
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n{}{END}{after}", table(results)))
}

/// All tables of these results, for who wants more than the README has.
pub fn readme_tables(results: &Value) -> String {
    page::markdown(&Report::new(results))
}

/// The chart beside that table.
pub fn readme_chart(results: &Value) -> String {
    let report = Report::new(results);
    let cell = report.cell("echo", "64x64x1").or_else(|| report.cells.first());
    let empty = Heading { title: "", subtitle: "" };
    cell.map_or_else(|| chart::bars(&empty, &[] as &[Bar], None, 2), |cell| cell.ratios().svg)
}

fn table(results: &Value) -> String {
    let report = Report::new(results);
    let machine = &results["machine"];
    let mut out = format!(
        "Measured on {}, Linux {}, one bare system call {:.0} ns; {}.\n\n",
        text(machine, "processor"),
        text(machine, "kernel"),
        machine["system_call_ns"].as_f64().unwrap_or(0.0),
        text(results, "title"),
    );
    out.push_str("| |");
    for (_, title) in COLUMNS {
        let _ = write!(out, " {title} |");
    }
    let _ = writeln!(out, " best other ring runtime |\n|{}", " --- |".repeat(COLUMNS.len() + 2));
    for cell in CELLS.iter().filter_map(|(workload, cell)| report.cell(workload, cell)) {
        let _ = write!(out, "| {} |", cell.title());
        for (server, _) in COLUMNS {
            let shown = cell
                .row(server)
                .map_or_else(|| "-".to_owned(), |row| figure(row, server == "ringloop"));
            let _ = write!(out, " {shown} |");
        }
        let best = best_other(cell).map_or_else(
            || "-".to_owned(),
            |row| format!("{} {}", figure(row, false), text(row, "server")),
        );
        let _ = writeln!(out, " {best} |");
    }
    out
}

fn figure(row: &Value, ours: bool) -> String {
    let Some(Spread { median, low, high }) = ratio(row) else { return "-".to_owned() };
    if text(row, "server") == "epoll" {
        return format!("{median:.2}");
    }
    let bold = if ours { "**" } else { "" };
    let limited = if limit(row).is_some() { " °" } else { "" };
    format!("{bold}{median:.2}{bold} [{low:.2}..{high:.2}]{limited}")
}

/// Where all tables stand in the repository.
pub const README_TABLES: &str = "benches/results/latest.md";
/// Where the chart stands.
pub const README_CHART: &str = "benches/results/echo.svg";

const BEGIN: &str = "<!-- rendered by `compare --render`: begin -->";
const END: &str = "<!-- rendered by `compare --render`: end -->";
/// One of each kind of workload, and what ringloop is worst at.
const CELLS: [(&str, &str); 11] = [
    ("echo", "64x64x1"),
    ("echo", "1000x64x1"),
    ("echo", "10000x64x1"),
    ("echo", "16x16384x8"),
    ("unix", "64x64x1"),
    ("ping-pong", "1x64x1"),
    ("small", "64x256x1"),
    ("fan-out", "1000x64x1"),
    ("connect", "64x64x1"),
    ("send", "16x16384x1"),
    ("receive", "16x16384x1"),
];
const COLUMNS: [(&str, &str); 7] = [
    ("ringloop", "ringloop"),
    ("ringloop/streams", "its streams"),
    ("ringloop-epoll", "its epoll driver"),
    ("epoll", "raw epoll"),
    ("ring", "bare ring"),
    ("tokio", "tokio"),
    ("null", "ringloop twice"),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// `compare --render benches/results/latest.json` makes it so.
    #[test]
    fn the_readme_shows_the_result_file_of_the_repository() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let results: Value = serde_json::from_str(&read("benches/results/latest.json")).unwrap();
        let readme = read("README.md");
        assert_eq!(put_into_readme(&readme, &results).unwrap(), readme);
        assert_eq!(readme_tables(&results), read(README_TABLES));
        assert_eq!(readme_chart(&results), read(README_CHART));
    }

    #[test]
    fn a_readme_without_its_marks_is_refused() {
        assert!(put_into_readme("# ringloop", &Value::Null).is_err());
    }
}
