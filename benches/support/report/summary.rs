//! ringloop against each of the others: what most readers look for first.

use serde_json::Value;

use super::{Measured, RING_RUNTIMES, Report, ratio, text};
use crate::table::Spread;

/// One row: a cell, or the mean of several.
pub(super) struct Row {
    pub(super) title: String,
    /// In the order of [`OTHERS`].
    pub(super) figures: Vec<Option<Figure>>,
}

/// ringloop's figure, divided by another server's.
pub(super) struct Figure {
    /// Who that is, where it is not the same in all rows.
    pub(super) other: Option<String>,
    pub(super) median: f64,
    /// Of the rounds; a mean of medians has none.
    pub(super) range: Option<(f64, f64)>,
    pub(super) verdict: Verdict,
}

/// Which of both needs less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ringloop,
    /// The difference is one that ringloop has to itself, too.
    Neither,
    Other,
}

/// All cells, but those that cost nothing per message, and the means of them.
pub(super) fn rows(report: &Report<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    let echoes: Vec<&Measured<'_>> = report.cells.iter().filter(|cell| is_common(cell)).collect();
    if echoes.len() > 1 {
        rows.push(mean(&echoes));
    }
    for cell in report.cells.iter().filter(|cell| cell.workload != "idle") {
        rows.push(row(cell.title(), cell, CPU));
        if cell.workload == "ping-pong" {
            rows.push(row(format!("{}: median latency", cell.title()), cell, "p50_us"));
            rows.push(row(format!("{}: latency of 99 %", cell.title()), cell, "p99_us"));
        }
    }
    rows
}

/// The runtime of others on io_uring that needs the least, with its flags or by default.
pub(super) fn best_other<'a>(cell: &Measured<'a>) -> Option<&'a Value> {
    let runtimes = cell.rows.iter().copied().filter(|row| {
        let family = text(row, "server").split('-').next().unwrap_or_default();
        RING_RUNTIMES.contains(&family)
    });
    let with_ratio = runtimes.filter_map(|row| Some((ratio(row)?.median, row)));
    with_ratio.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, row)| row)
}

fn row(title: String, cell: &Measured<'_>, figure: &str) -> Row {
    Row { title, figures: OTHERS.map(|other| against(cell, other, figure)).into() }
}

/// Round by round: both were measured within the same few seconds.
fn against(cell: &Measured<'_>, other: &str, figure: &str) -> Option<Figure> {
    let ours = *cell.rows.first()?;
    let theirs = if other == BEST { best_other(cell)? } else { cell.row(other)? };
    if std::ptr::eq(ours, theirs) {
        return None;
    }
    let Spread { median, low, high } = quotients(ours, theirs, figure)?;
    let null = cell.row("null").and_then(|null| quotients(null, ours, figure));
    let (least, most) = null.map_or((1.0, 1.0), |null| (null.low.min(1.0), null.high.max(1.0)));
    let verdict = match median {
        median if median < least => Verdict::Ringloop,
        median if median > most => Verdict::Other,
        _ => Verdict::Neither,
    };
    let other = (other == BEST).then(|| text(theirs, "server").to_owned());
    Some(Figure { other, median, range: Some((low, high)), verdict })
}

fn quotients(ours: &Value, theirs: &Value, figure: &str) -> Option<Spread> {
    let rounds = |row: &Value| -> Vec<f64> {
        let rounds = row["rounds"].as_array().into_iter().flatten();
        rounds.filter_map(|round| round[figure].as_f64()).collect()
    };
    let quotients = rounds(ours).into_iter().zip(rounds(theirs)).map(|(our, their)| our / their);
    Spread::of(quotients).filter(|spread| spread.high.is_finite())
}

/// The geometric mean: of ratios the one that does not depend on which side is the divisor.
fn mean(cells: &[&Measured<'_>]) -> Row {
    let figures = OTHERS.map(|other| {
        let all: Option<Vec<Figure>> = cells.iter().map(|cell| against(cell, other, CPU)).collect();
        let all = all?;
        let sum: f64 = all.iter().map(|figure| figure.median.ln()).sum();
        let agree = |verdict| all.iter().all(|figure| figure.verdict == verdict);
        let verdicts = [Verdict::Ringloop, Verdict::Other];
        let verdict = verdicts.into_iter().find(|verdict| agree(*verdict));
        Some(Figure {
            other: None,
            median: (sum / all.len() as f64).exp(),
            range: None,
            verdict: verdict.unwrap_or(Verdict::Neither),
        })
    });
    let title = format!("echo of 64 B and 1 KiB, 16 to 256 connections: mean of {}", cells.len());
    Row { title, figures: figures.into() }
}

/// Small messages over many connections.
fn is_common(cell: &Measured<'_>) -> bool {
    let sizes: Vec<&str> = cell.cell.split('x').collect();
    cell.workload == "echo"
        && (16..=256).contains(&cell.connections)
        && matches!(sizes[..], [_, "64" | "1024", "1"])
}

/// What ringloop is measured against.
pub(super) const OTHERS: [&str; 4] = ["ring", "epoll", "tokio", BEST];

const BEST: &str = "best other ring runtime";
const CPU: &str = "server_cpu_ns_per_msg";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_within_the_null_test_is_none() {
        let row = |workload: &str, cell: &str, server: &str, cpu: [u64; 2]| {
            let rounds = cpu.map(|cpu| json!({ CPU: cpu }));
            json!({ "workload": workload, "cell": cell, "connections": 64, "server": server,
                    "rounds": rounds, "ratio_epoll": [cpu[0], cpu[0], cpu[0]] })
        };
        let cell = |workload: &str, cell: &str| {
            [
                row(workload, cell, "ringloop", [100, 200]),
                row(workload, cell, "epoll", [200, 400]),
                row(workload, cell, "ring", [95, 190]),
                row(workload, cell, "monoio", [90, 100]),
                row(workload, cell, "compio-defaults", [50, 100]),
                row(workload, cell, "null", [110, 180]),
            ]
        };
        let rows = [cell("echo", "64x64x1"), cell("echo", "64x1024x1")].concat();
        let results = json!({ "results": rows });
        let rows = super::rows(&Report::new(&results));
        assert_eq!(rows.len(), 3, "the mean, and both");
        let [ring, epoll, tokio, best] = &rows[1].figures[..] else { panic!() };
        let told = |figure: &Option<Figure>| {
            figure.as_ref().map(|figure| ((figure.median * 100.0).round(), figure.verdict))
        };
        assert_eq!(told(ring), Some((105.0, Verdict::Neither)));
        assert_eq!(told(epoll), Some((50.0, Verdict::Ringloop)));
        assert_eq!(told(tokio), None);
        assert_eq!(told(best), Some((200.0, Verdict::Other)));
        assert_eq!(best.as_ref().unwrap().other.as_deref(), Some("compio-defaults"));
        assert_eq!(told(&rows[0].figures[1]), Some((50.0, Verdict::Ringloop)));
    }
}
