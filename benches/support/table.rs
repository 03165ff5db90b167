//! The table of `compare`.

use std::fmt::Write;

/// One server in one cell.
#[derive(Clone, Debug)]
pub struct Row {
    /// The workload's sizes.
    pub cell: String,
    /// The server's name.
    pub server: String,
    /// Messages per second.
    pub rate: f64,
    /// The server's CPU time per message, in ns.
    pub cpu: f64,
    /// The server's system calls per message.
    pub calls: Option<f64>,
    /// Half of the answers came within so many µs.
    pub p50: f64,
    /// 99 % did.
    pub p99: f64,
    /// The server's resident memory in KiB.
    pub rss: u64,
    /// Its CPU time per message against that of what it is compared with.
    pub ratio: Option<Spread>,
    /// Which part of its core's time the server used.
    pub busy: f64,
}

/// A median, and the range that it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Spread {
    /// Of these numbers, if there are any.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, low, high })
    }
}

/// The names of the columns.
pub fn heading() -> String {
    let names = ["cell", "server", "msg/s", "cpu_ns/msg", "calls/msg", "p50", "p99", "rss"];
    line(names.map(str::to_owned), "ratio_epoll", "[lo..hi]", "busy")
}

impl Row {
    /// The row under the heading.
    pub fn to_line(&self) -> String {
        let columns = [
            self.cell.clone(),
            self.server.clone(),
            format!("{:.0}", self.rate),
            format!("{:.0}", self.cpu),
            self.calls.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.3}")),
            format!("{:.1}", self.p50),
            format!("{:.1}", self.p99),
            self.rss.to_string(),
        ];
        let busy = format!("{:.2}", self.busy);
        match self.ratio {
            None => line(columns, "-", "-", &busy),
            Some(Spread { median, low, high }) => {
                line(columns, &format!("{median:.2}"), &format!("[{low:.2}..{high:.2}]"), &busy)
            }
        }
    }
}

fn line(columns: [String; 8], ratio: &str, range: &str, busy: &str) -> String {
    let [cell, server, numbers @ ..] = columns;
    let mut line = format!("{cell:<12} {server:<17}");
    for (text, width) in numbers.iter().zip([9, 11, 10, 9, 9, 8]) {
        write!(line, " {text:>width$}").expect("a string takes everything");
    }
    write!(line, " {ratio:>12} {range:<13} {busy:>5}").expect("a string takes everything");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_names() {
        let row = Row {
            cell: "64x64x1".to_owned(),
            server: "ring".to_owned(),
            rate: 271_234.4,
            cpu: 3650.2,
            calls: Some(0.081),
            p50: 201.04,
            p99: 400.0,
            rss: 5400,
            ratio: Some(Spread { median: 0.831, low: 0.8, high: 0.86 }),
            busy: 0.99,
        };
        let bare = Row { ratio: None, calls: None, ..row.clone() };
        let (heading, line) = (heading(), row.to_line());
        assert_eq!(heading.len(), line.len());
        let words: Vec<&str> = heading.split_whitespace().collect();
        let names = "cell server msg/s cpu_ns/msg calls/msg p50 p99 rss ratio_epoll [lo..hi] busy";
        assert_eq!(words.join(" "), names);
        let words: Vec<&str> = line.split_whitespace().collect();
        let figures = "64x64x1 ring 271234 3650 0.081 201.0 400.0 5400 0.83 [0.80..0.86] 0.99";
        assert_eq!(words.join(" "), figures);
        assert_eq!(bare.to_line().split_whitespace().count(), words.len());
    }

    #[test]
    fn a_spread_has_the_median_in_it() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0 }));
    }
}
