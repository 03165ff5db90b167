//! Runs the same load against several servers, in interleaved rounds, and prints a table.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use pico_args::Arguments;
use ringloop_benches::args::{self, value};
use ringloop_benches::cell::{ALL, Cell, LINES, Mode, QUICK};
use ringloop_benches::failure::Failure;
use ringloop_benches::machine::Machine;
use ringloop_benches::process::{Process, Processors, Server, sibling};
use ringloop_benches::random::Random;
use ringloop_benches::servers::{Face, Kind, Peer};
use ringloop_benches::table::{Row, Spread, heading};
use serde_json::{Value, json};

fn main() -> ExitCode {
    args::run(USAGE, compare)
}

fn compare(arguments: Arguments) -> Result<ExitCode, Failure> {
    let plan = Plan::new(arguments)?;
    let mut random = Random::new(plan.seed);
    let mut results = Vec::new();
    let machine = Machine::look(plan.server_core)
        .map_err(|error| Failure::new(format!("core {}", plan.server_core), &error))?;
    println!("{}\n{machine}\n{}", plan.title(), heading());
    for &cell in &plan.cells {
        let outcomes = plan.run(cell, &mut random)?;
        for outcome in &outcomes {
            let row = outcome.row(cell, &outcomes);
            println!("{}", row.to_line());
            results.push(outcome.to_json(&row));
        }
    }
    println!("{}", plan.footnote());
    let wrong_bytes: u64 = results.iter().filter_map(|result| result["wrong_bytes"].as_u64()).sum();
    if let Some(path) = &plan.json {
        let report = json!({
            "title": plan.title(),
            "machine": machine.to_json(),
            "seed": plan.seed,
            "results": results,
        });
        fs::write(path, format!("{report:#}\n"))
            .map_err(|error| Failure::new(path.display(), &error))?;
    }
    if wrong_bytes > 0 {
        eprintln!("error: {wrong_bytes} bytes came back different");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be measured, and how.
struct Plan {
    mode: Mode,
    cells: Vec<Cell>,
    /// The last one is the first once more.
    names: Vec<Name>,
    rounds: usize,
    seconds: f64,
    seed: u64,
    server_core: usize,
    load_core: usize,
    json: Option<PathBuf>,
    server: PathBuf,
    load: PathBuf,
}

/// A server's name in the table, and what runs under it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    peer: Peer,
    null: bool,
}

/// What a server has done in a cell.
struct Outcome {
    name: Name,
    turns: Vec<Turn>,
    calls: Option<f64>,
    wrong_bytes: u64,
}

/// The report of a run of the load.
struct Turn(Value);

impl Plan {
    fn new(mut arguments: Arguments) -> Result<Self, Failure> {
        let quick = arguments.contains("--quick");
        let mode = value(&mut arguments, "--only")?.unwrap_or(Mode::Echo);
        let default: &[&str] = match mode {
            Mode::Lines => &LINES,
            Mode::Echo if quick => &QUICK,
            Mode::Echo => &ALL,
        };
        let default = || default.iter().flat_map(|text| text.parse()).collect();
        let cells = args::list(&mut arguments, "--cells")?.unwrap_or_else(default);
        let peers = args::list(&mut arguments, "--servers")?.unwrap_or_else(|| match mode {
            Mode::Echo => KINDS.map(Peer::from).to_vec(),
            Mode::Lines => vec![STREAMS, Kind::Tokio.into()],
        });
        let rounds = value(&mut arguments, "--rounds")?.unwrap_or(if quick { 3 } else { 5 });
        let seconds: f64 = value(&mut arguments, "--secs")?.unwrap_or(1.0);
        let seed = value(&mut arguments, "--seed")?.unwrap_or(1);
        let server_core = value(&mut arguments, "--server-core")?.unwrap_or(0);
        let load_core = value(&mut arguments, "--load-core")?.unwrap_or(1);
        let json = value(&mut arguments, "--json")?;
        args::finish(arguments)?;
        if !(1..=1000).contains(&rounds) || !(0.05..=600.0).contains(&seconds) {
            return Err(Failure::Usage("rounds: 1 to 1000, of 0.05 to 600 s".to_owned()));
        }
        let first: Peer = peers[0];
        let mut names: Vec<Name> =
            peers.into_iter().map(|peer| Name { peer, null: false }).collect();
        names.push(Name { peer: first, null: true });
        let (server, load) = (sibling("server")?, sibling("load")?);
        Ok(Self {
            mode,
            cells,
            names,
            rounds,
            seconds,
            seed,
            server_core,
            load_core,
            json,
            server,
            load,
        })
    }

    fn title(&self) -> String {
        format!(
            "# {}: server on core {}, load on core {}, {} rounds of {} s, seed {}",
            self.mode, self.server_core, self.load_core, self.rounds, self.seconds, self.seed
        )
    }

    fn footnote(&self) -> String {
        let first = self.names[0].peer;
        format!(
            "# ratio: CPU per message against epoll's in the same round, median [lowest..highest]\n\
             # null: {first} once more, its ratio against {first}: a lesser difference is none\n\
             # busy: below 0.95 the load was the limit, or others used the cores: the ratio says less"
        )
    }

    /// All servers of the cell live side by side, and take turns in a new order each round.
    fn run(&self, cell: Cell, random: &mut Random) -> Result<Vec<Outcome>, Failure> {
        let mut running = Vec::new();
        for &name in &self.names {
            let server = Server::start(&self.server, name.peer, self.mode, Some(self.server_core))?;
            let mut outcome = Outcome { name, turns: Vec::new(), calls: None, wrong_bytes: 0 };
            // Apart from the rounds: to compare costs the load time.
            let check = self.load(cell, &server, (0.0, CHECKED), true, self.seed)?;
            outcome.wrong_bytes = check.figure("wrong_bytes") as u64;
            running.push((server, outcome));
        }
        let mut order: Vec<usize> = (0..running.len()).collect();
        for round in 0..self.rounds {
            random.shuffle(&mut order);
            for &index in &order {
                let (server, outcome) = &mut running[index];
                eprint!("{cell} round {}/{} {}: ", round + 1, self.rounds, outcome.name);
                let turn = self.turn(cell, server, round)?;
                eprintln!("{turn}");
                outcome.turns.push(turn);
            }
        }
        let finish = |(server, mut outcome): (Server, Outcome)| {
            outcome.calls = match outcome.name.peer.kind {
                Kind::Tokio | Kind::RingloopEpoll => {
                    self.trace(cell, &server).unwrap_or_else(|error| {
                        eprintln!("{cell} {}: strace: {error}", outcome.name);
                        None
                    })
                }
                Kind::Ringloop | Kind::Immediate | Kind::Epoll | Kind::Ring => {
                    counted_calls(cell, server)?
                }
            };
            Ok(outcome)
        };
        let failed = |error| Failure::new(format!("server in {cell}"), &error);
        running.into_iter().map(finish).collect::<io::Result<_>>().map_err(failed)
    }

    /// A run of the load, again if the machine's host took too much time away from it.
    fn turn(&self, cell: Cell, server: &Server, round: usize) -> Result<Turn, Failure> {
        let failed = |error| Failure::new("load", &error);
        let mut tries = 0;
        loop {
            let before = Processors::now().map_err(failed)?;
            let length = (WARM_UP, self.seconds);
            let turn = self.load(cell, server, length, false, self.seed + round as u64)?;
            let stolen = Processors::now().map_err(failed)?.stolen_since(before);
            tries += 1;
            if stolen <= MOST_STOLEN || tries == TRIES {
                return Ok(turn);
            }
            eprint!("{:.0} % of the time stolen, again: ", stolen * 100.0);
        }
    }

    fn load(
        &self,
        cell: Cell,
        server: &Server,
        (warm_up, seconds): (f64, f64),
        verify: bool,
        seed: u64,
    ) -> Result<Turn, Failure> {
        let mut command = Command::new(&self.load);
        let mut option = |name: &str, value: &dyn fmt::Display| {
            command.args([name, &value.to_string()]);
        };
        option("--mode", &self.mode);
        option("--addr", &server.address());
        option("--watch", &server.id());
        option("--conns", &cell.connections);
        option("--size", &cell.size);
        option("--depth", &cell.depth);
        option("--warmup", &warm_up);
        option("--secs", &seconds);
        option("--seed", &seed);
        command.args(cell.burst.then_some("--burst")).args(verify.then_some("--verify"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let failed = |error| Failure::new(format!("load, {cell}"), &error);
        let mut process = Process::start(&mut command, Some(self.load_core)).map_err(failed)?;
        let mut report = String::new();
        let stdout = process.child().stdout.as_mut().expect("it is piped");
        stdout.read_to_string(&mut report).map_err(failed)?;
        let report: Value = serde_json::from_str(report.trim()).map_err(|_| Failure::Cannot {
            error: format!("the load failed, {cell}"),
            remedy: "see its own message".to_owned(),
        })?;
        if report["errors"] != 0 {
            eprint!("{} connections lost, ", report["errors"]);
        }
        Ok(Turn(report))
    }

    /// System calls per message under strace, if it is there.
    fn trace(&self, cell: Cell, server: &Server) -> io::Result<Option<f64>> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-p", &server.id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = match Process::start(&mut command, Some(self.load_core)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut lines = BufReader::new(strace.child().stderr.take().expect("it is piped"));
        let mut attached = String::new();
        lines.read_line(&mut attached)?;
        if !attached.contains("attached") {
            return Err(io::Error::other(attached.trim().to_owned()));
        }
        let turn = self.load(cell, server, (0.0, TRACED), false, self.seed);
        strace.stop(libc::SIGINT)?;
        let mut summary = String::new();
        lines.read_to_string(&mut summary)?;
        let Ok(turn) = turn else { return Ok(None) };
        Ok(Some(traced_calls(&summary) as f64 / turn.figure("messages_in_all")))
    }
}

impl Outcome {
    fn row(&self, cell: Cell, all: &[Self]) -> Row {
        let median = |name| self.spread(name).median;
        Row {
            cell: cell.to_string(),
            server: self.name.to_string(),
            rate: median("msgs_per_s"),
            cpu: median(CPU),
            calls: self.calls,
            p50: median("p50_us"),
            p99: median("p99_us"),
            rss: median("server_rss_kib") as u64,
            ratio: self.ratio(all),
            busy: median("server_busy"),
        }
    }

    /// Round by round against epoll; the null row against what it repeats.
    fn ratio(&self, all: &[Self]) -> Option<Spread> {
        let peer = if self.name.null { self.name.peer } else { base(all)? };
        let other = all.iter().find(|other| other.name == Name { peer, null: false })?;
        Spread::of(
            self.turns
                .iter()
                .zip(&other.turns)
                .map(|(turn, other)| turn.figure(CPU) / other.figure(CPU)),
        )
    }

    fn spread(&self, figure: &str) -> Spread {
        let figures = self.turns.iter().map(|turn| turn.figure(figure));
        Spread::of(figures).expect("there is a round at least")
    }

    fn to_json(&self, row: &Row) -> Value {
        let reports: Vec<&Value> = self.turns.iter().map(|turn| &turn.0).collect();
        let ratio = row.ratio.map(|Spread { median, low, high }| json!([median, low, high]));
        json!({
            "cell": row.cell,
            "server": row.server,
            "msgs_per_s": row.rate,
            "cpu_ns_per_msg": row.cpu,
            "calls_per_msg": row.calls,
            "p50_us": row.p50,
            "p99_us": row.p99,
            "rss_kib": row.rss,
            "busy": row.busy,
            "ratio_epoll": ratio,
            "wrong_bytes": self.wrong_bytes,
            "rounds": reports,
        })
    }
}

impl Turn {
    fn figure(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} msg/s, {:.0} ns/msg, {:.0} % busy; load {:.0} ns/msg, {:.0} % busy",
            self.figure("msgs_per_s"),
            self.figure(CPU),
            self.figure("server_busy") * 100.0,
            self.figure("cpu_ns_per_msg"),
            self.figure("busy") * 100.0,
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.null { f.pad("null") } else { self.peer.fmt(f) }
    }
}

/// What ratios are against: epoll, or what takes its place.
fn base(all: &[Outcome]) -> Option<Peer> {
    let peers = || all.iter().map(|outcome| outcome.name.peer);
    let of = |kind| peers().find(|peer| peer.kind == kind);
    of(Kind::Epoll).or_else(|| of(Kind::Tokio))
}

/// Ends the server; its own count, over all of its life, per message that it has echoed.
fn counted_calls(cell: Cell, server: Server) -> io::Result<Option<f64>> {
    let stats = server.stop()?;
    let messages = stats["bytes_out"].as_f64().map(|bytes| bytes / cell.size as f64);
    Ok(stats["calls"].as_f64().zip(messages).map(|(calls, messages)| calls / messages))
}

/// The calls in a summary of strace, apart from those that open and close connections.
fn traced_calls(summary: &str) -> u64 {
    let rows = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() >= 5 && !NOT_TRACED.contains(&row[row.len() - 1]));
    rows.filter_map(|row| row[3].parse::<u64>().ok()).sum()
}

const STREAMS: Peer = Peer { kind: Kind::Ringloop, face: Face::Streams };
const KINDS: [Kind; 5] =
    [Kind::Ringloop, Kind::RingloopEpoll, Kind::Epoll, Kind::Ring, Kind::Tokio];
const CPU: &str = "server_cpu_ns_per_msg";
/// In seconds: young connections cost more.
const WARM_UP: f64 = 0.4;
const TRACED: f64 = 0.5;
const CHECKED: f64 = 0.3;
const NOT_TRACED: [&str; 4] = ["total", "accept4", "epoll_ctl", "close"];
const MOST_STOLEN: f64 = 0.05;
const TRIES: usize = 3;

const USAGE: &str = "\
usage: compare [--quick] [--only W] [--servers a,b] [--cells 64x64x1,…] [--rounds N] [--secs S]
               [--seed N] [--server-core N] [--load-core N] [--json FILE]

Runs the same load against several servers: servers on one core, the load on another, rounds
interleaved in an order that the seed decides. A turn is repeated, twice at most, if the machine's
host took more than 5 % of its time away. Progress goes to stderr. Exit 3 if bytes came back
different (each byte is compared in a short run before the first round).

  --quick        cells 64x64x1 and 16x16384x8, 3 rounds
  --only         the workload: echo, or lines (of ringloop/streams and tokio; cells 64x64x1 and
                 64x64x16)
  --servers      of ringloop, ringloop-epoll, epoll, ring, tokio, and immediate and
                 ringloop/streams, which run only if they are named; the first one runs once more as `null`
  --cells        connections x bytes x messages outstanding per connection; `b` at the end: bursts
  --rounds       5 unless told
  --secs         length of a turn (1), after 0.4 s that are not measured
  --seed         of the order, and of what is sent (1)
  --server-core  0
  --load-core    1
  --json         everything, round by round, and the machine, into this file

Above the table stand the things of this machine that ratios depend on: its processor, what the
kernel does about the processor's weaknesses, the congestion control, and what one bare system call
(getppid) costs.

  cell           as above
  server         ringloop: this project; immediate: the same, sending inside each write();
                 ringloop-epoll: the same on its epoll driver; epoll:
                 level-triggered, no runtime; ring: io_uring, no runtime; tokio: its current_thread
                 runtime; null: the first server once more
  msg/s          messages answered per second
  cpu_ns/msg     CPU time of the server process per message, in ns (/proc/PID/task/*/schedstat)
  calls/msg      system calls of the server per message: ringloop, epoll and ring count their own,
                 over all rounds; those of tokio and ringloop-epoll are counted by strace afterwards (`-` if it is missing),
                 without those that open and close connections
  p50, p99       half, and 99 %, of the answers came within so many µs
  rss            resident memory of the server at the end of a round, in KiB
  ratio_epoll    cpu_ns/msg against that of epoll (tokio, if there is no epoll) in the same round; of null against the first
                 server: a lesser difference is none
  [lo..hi]       the range of that ratio; all other figures are medians
  busy           share of its core that the server used: below 0.95 the load was the limit, or
                 others used the cores, and the ratio says less";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_strace_is_added_up() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.010000           5      2000           sendto
 30.00    0.005000           2      2010        10 recvfrom
  5.00    0.001000           5       200           epoll_wait
  5.00    0.001000           5        64           accept4
------ ----------- ----------- --------- --------- ----------------
100.00    0.017000           3      4274        10 total
";
        assert_eq!(traced_calls(summary), 4210);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let outcome = |kind: Kind, null, figures: &[f64]| Outcome {
            name: Name { peer: kind.into(), null },
            turns: figures.iter().map(|figure| Turn(json!({ CPU: figure }))).collect(),
            calls: None,
            wrong_bytes: 0,
        };
        let all = [
            outcome(Kind::Ring, false, &[800.0, 1800.0, 900.0]),
            outcome(Kind::Epoll, false, &[1000.0, 2000.0, 1000.0]),
            outcome(Kind::Ring, true, &[880.0, 1800.0, 900.0]),
        ];
        let spread = |median, low, high| Some(Spread { median, low, high });
        assert_eq!(all[0].ratio(&all), spread(0.9, 0.8, 0.9));
        assert_eq!(all[2].ratio(&all), spread(1.0, 1.0, 1.1));
        assert_eq!(all[0].ratio(&all[..1]), None);
    }
}
