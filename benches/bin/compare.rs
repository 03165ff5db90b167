//! Runs the same load against several servers, in interleaved rounds, and prints a table.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pico_args::Arguments;
use ringloop_benches::args::{self, value};
use ringloop_benches::cell::{Cell, Mode};
use ringloop_benches::failure::Failure;
use ringloop_benches::machine::Machine;
use ringloop_benches::process::{Process, Processors, Server, sibling};
use ringloop_benches::random::Random;
use ringloop_benches::report;
use ringloop_benches::servers::{Kind, Peer};
use ringloop_benches::table::{Row, Spread, heading};
use ringloop_benches::workload::Workload;
use serde_json::{Value, json};

fn main() -> ExitCode {
    args::run(USAGE, compare)
}

fn compare(mut arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Some(path) = value::<PathBuf>(&mut arguments, "--render")? {
        let folder = value(&mut arguments, "--report")?;
        args::finish(arguments)?;
        return render(&path, folder);
    }
    let plan = Plan::new(arguments)?;
    let mut random = Random::new(plan.seed);
    let mut results = Vec::new();
    let machine = Machine::look(plan.server_core)
        .map_err(|error| Failure::new(format!("core {}", plan.server_core), &error))?;
    println!("{}\n{machine}", plan.title());
    for note in &plan.notes {
        println!("# {note}");
    }
    println!("{}", heading());
    let mut workload = None;
    for (index, job) in plan.jobs.iter().enumerate() {
        if workload.replace(job.workload.name) != Some(job.workload.name) {
            println!("# {}", job.workload.title);
        }
        let outcomes = plan.run(index, &mut random)?;
        for outcome in &outcomes {
            let row = outcome.row(job.cell, &outcomes);
            println!("{}", row.to_line());
            results.push(outcome.to_json(job, &row));
        }
    }
    println!("{}", plan.footnote());
    let wrong_bytes: u64 = results.iter().filter_map(|result| result["wrong_bytes"].as_u64()).sum();
    let report = json!({
        "title": plan.title().trim_start_matches("# "),
        "machine": machine.to_json(),
        "seed": plan.seed,
        "took_s": plan.start.elapsed().as_secs(),
        "notes": plan.notes,
        "results": results,
    });
    if let Some(path) = &plan.json {
        write(path, &format!("{report:#}\n"))?;
    }
    if let Some(folder) = &plan.report {
        write_report(folder, &report)?;
    }
    if wrong_bytes > 0 {
        eprintln!("error: {wrong_bytes} bytes came back different");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

fn write_report(folder: &Path, results: &Value) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::new(folder.display(), &error))?;
    write(&folder.join("results.json"), &format!("{results:#}\n"))?;
    for (name, text) in report::files(results) {
        write(&folder.join(name), &text)?;
    }
    println!("# the report: {}", folder.join("report.html").display());
    Ok(())
}

/// Makes the report of a result file, or puts what the repository shows of it into its places.
fn render(path: &Path, folder: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let results = read(path)?;
    let results: Value = serde_json::from_str(&results).map_err(|error| Failure::Cannot {
        error: format!("{}: {error}", path.display()),
        remedy: "give a results.json that --report has written".to_owned(),
    })?;
    if let Some(folder) = folder {
        write_report(&folder, &results)?;
        return Ok(ExitCode::SUCCESS);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in the repository");
    let readme = root.join("README.md");
    let text = report::put_into_readme(&read(&readme)?, &results).map_err(|error| {
        let remedy = format!("{} needs the two lines that mark the table", readme.display());
        Failure::Cannot { error, remedy }
    })?;
    write(&readme, &text)?;
    write(&root.join(report::README_TABLES), &report::readme_tables(&results))?;
    write(&root.join(report::README_CHART), &report::readme_chart(&results))?;
    let (tables, chart) = (report::README_TABLES, report::README_CHART);
    println!("{}, {tables} and {chart} are rendered", readme.display());
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(path.display(), &error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(path.display(), &error))
}

/// What is to be measured, and how.
struct Plan {
    jobs: Vec<Job>,
    rounds: usize,
    seconds: f64,
    /// So many even if there is no time left.
    fewest_rounds: usize,
    /// When all is to be done, if that is given.
    budget: Option<Duration>,
    start: Instant,
    seed: u64,
    server_core: usize,
    load_core: usize,
    json: Option<PathBuf>,
    report: Option<PathBuf>,
    /// What is left out, and why.
    notes: Vec<String>,
    server: PathBuf,
    load: PathBuf,
}

/// A cell of a workload, and who is measured in it. The last one is the first once more.
struct Job {
    workload: Workload,
    cell: Cell,
    names: Vec<Name>,
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
        let only: Option<Workload> = value(&mut arguments, "--only")?;
        let cells: Option<Vec<Cell>> = args::list(&mut arguments, "--cells")?;
        let peers: Option<Vec<Peer>> = args::list(&mut arguments, "--servers")?;
        let rounds = value(&mut arguments, "--rounds")?;
        let seconds: Option<f64> = value(&mut arguments, "--secs")?;
        let seed = value(&mut arguments, "--seed")?.unwrap_or(1);
        let server_core = value(&mut arguments, "--server-core")?.unwrap_or(0);
        let load_core = value(&mut arguments, "--load-core")?.unwrap_or(1);
        let json = value(&mut arguments, "--json")?;
        let report = value(&mut arguments, "--report")?;
        let budget = value::<f64>(&mut arguments, "--budget")?;
        args::finish(arguments)?;
        let budget =
            budget.map(|minutes| minutes * 60.0).or_else(|| quick.then_some(QUICK_SECONDS));
        let rounds = rounds.unwrap_or_else(|| if budget.is_some() { MOST_ROUNDS } else { 5 });
        let seconds = seconds.unwrap_or(if quick { 0.2 } else { 0.4 });
        if !(1..=1000).contains(&rounds) || !(0.05..=600.0).contains(&seconds) {
            return Err(Failure::Usage("rounds: 1 to 1000, of 0.05 to 600 s".to_owned()));
        }
        if budget.is_some_and(|seconds| !(1.0..=86_400.0).contains(&seconds)) {
            return Err(Failure::Usage("--budget: up to 1440 minutes".to_owned()));
        }
        let (server, load) = (sibling("server")?, sibling("load")?);
        let mut jobs = Vec::new();
        let mut notes = BTreeSet::new();
        for workload in Workload::all() {
            if only.is_some_and(|only| only.name != workload.name) {
                continue;
            }
            let mut sizes = workload.cells(quick && only.is_none());
            if let (Some(cells), Some(_)) = (&cells, only.filter(|only| only.name == workload.name))
            {
                let everyone = sizes[0].1.clone();
                sizes = cells.iter().map(|&cell| (cell, everyone.clone())).collect();
            }
            for (cell, mut field) in sizes {
                if let Some(peers) = &peers {
                    field =
                        peers.iter().copied().filter(|peer| peer.knows(workload.mode)).collect();
                }
                field.retain(|peer| match peer.kind {
                    Kind::Rival(rival) => match rival.command(&server) {
                        Ok(_) => {
                            notes.extend(rival.remark().map(str::to_owned));
                            true
                        }
                        Err(Failure::Cannot { error, remedy }) => {
                            notes.insert(format!("{error}; {remedy}"));
                            false
                        }
                        Err(Failure::Usage(_)) => false,
                    },
                    _ => true,
                });
                let Some(&first) = field.first() else { continue };
                let mut names: Vec<Name> =
                    field.into_iter().map(|peer| Name { peer, null: false }).collect();
                names.push(Name { peer: first, null: true });
                jobs.push(Job { workload, cell, names });
            }
        }
        if jobs.is_empty() {
            return Err(Failure::Usage("no server of --servers knows this workload".to_owned()));
        }
        Ok(Self {
            jobs,
            rounds,
            seconds,
            fewest_rounds: if quick { 1 } else { FEWEST_ROUNDS },
            budget: budget.map(Duration::from_secs_f64),
            start: Instant::now(),
            seed,
            server_core,
            load_core,
            json,
            report,
            notes: notes.into_iter().collect(),
            server,
            load,
        })
    }

    fn title(&self) -> String {
        let rounds = match self.budget {
            Some(budget) => {
                format!("as many rounds as {:.1} min have room for", budget.as_secs_f64() / 60.0)
            }
            None => format!("{} rounds", self.rounds),
        };
        format!(
            "# server on core {}, load on core {}, {rounds}, turns of {} s, seed {}",
            self.server_core, self.load_core, self.seconds, self.seed
        )
    }

    fn footnote(&self) -> &'static str {
        "# ratio: CPU per message against epoll's in the same round, median [lowest..highest]\n\
         # null: the first server once more, its ratio against itself: a lesser difference is none\n\
         # busy: below 0.95 the load was the limit, or others used the cores: the ratio says less"
    }

    /// When this job has to be done: what is left of the time is shared by servers and connections.
    fn end(&self, index: usize) -> Option<Instant> {
        let left = self.budget?.saturating_sub(self.start.elapsed());
        let weight = |job: &Job| {
            let turn = self.seconds + WARM_UP + job.cell.connections as f64 * CONNECTING;
            job.names.len() as f64 * turn
        };
        let all: f64 = self.jobs[index..].iter().map(weight).sum();
        Some(Instant::now() + left.mul_f64(weight(&self.jobs[index]) / all))
    }

    /// All servers of the cell live side by side, and take turns in a new order each round.
    fn run(&self, index: usize, random: &mut Random) -> Result<Vec<Outcome>, Failure> {
        let job = &self.jobs[index];
        let end = self.end(index);
        let Job { workload, cell, .. } = job;
        let failed = |error| Failure::new(format!("server in {cell}"), &error);
        let mut running = Vec::new();
        for &name in &job.names {
            let start = |verify| {
                let core = Some(self.server_core);
                Server::start(&self.server, name.peer, workload.mode, core, verify)
            };
            let server = start(false)?;
            // Apart from the rounds: to compare costs the load time, and what only receives has to do it itself, so that
            // it is a server of its own.
            let check = |server| self.load(job, server, (0.0, CHECKED), true, self.seed);
            let checked = match workload.mode {
                Mode::Idle => None,
                Mode::Receive => Some(check(&start(true)?)?),
                _ => Some(check(&server)?),
            };
            let wrong_bytes = checked.map_or(0, |turn| turn.figure("wrong_bytes") as u64);
            if name.peer.is_restless() {
                server.pause().map_err(failed)?;
            }
            let outcome = Outcome { name, turns: Vec::new(), calls: None, wrong_bytes };
            running.push((server, outcome));
        }
        let mut order: Vec<usize> = (0..running.len()).collect();
        // Memory grows with the first connections, and stays: a second round would not see it.
        let rounds = if workload.mode == Mode::Idle { 1 } else { self.rounds };
        for round in 0..rounds {
            let started = Instant::now();
            random.shuffle(&mut order);
            for &index in &order {
                let (server, outcome) = &mut running[index];
                eprint!("{workload} {cell} round {}: {}: ", round + 1, outcome.name);
                if outcome.name.peer.is_restless() {
                    server.resume().map_err(failed)?;
                }
                let turn = self.turn(job, server, round)?;
                if outcome.name.peer.is_restless() {
                    server.pause().map_err(failed)?; // The others would be measured beside it.
                }
                eprintln!("{turn}");
                outcome.turns.push(turn);
            }
            let next = Instant::now() + started.elapsed();
            if end.is_some_and(|end| round + 1 >= self.fewest_rounds && next > end) {
                break;
            }
        }
        let answers = |turn: &Turn| workload.mode == Mode::Idle || turn.figure("messages") > 0.0;
        running.retain(|(_, outcome)| {
            let stays = outcome.turns.iter().all(answers);
            if !stays {
                eprintln!("{workload} {cell}: {} is left out: it did not answer", outcome.name);
            }
            stays
        });
        let finish = |(server, mut outcome): (Server, Outcome)| {
            outcome.calls = match outcome.name.peer.kind {
                _ if !matches!(workload.mode, Mode::Echo | Mode::Unix) => None,
                Kind::Ringloop | Kind::Immediate | Kind::Epoll | Kind::Ring => {
                    counted_calls(*cell, server)?
                }
                Kind::Tokio | Kind::RingloopEpoll if self.budget.is_none() => {
                    self.trace(job, &server).unwrap_or_else(|error| {
                        eprintln!("{cell} {}: strace: {error}", outcome.name);
                        None
                    })
                }
                _ => None,
            };
            Ok(outcome)
        };
        running.into_iter().map(finish).collect::<io::Result<_>>().map_err(failed)
    }

    /// A run of the load, again if the machine's host took too much time away from it.
    fn turn(&self, job: &Job, server: &Server, round: usize) -> Result<Turn, Failure> {
        let failed = |error| Failure::new("load", &error);
        let mut tries = 0;
        loop {
            let before = Processors::now().map_err(failed)?;
            let length = (WARM_UP, self.seconds);
            let turn = self.load(job, server, length, false, self.seed + round as u64)?;
            let stolen = Processors::now().map_err(failed)?.stolen_since(before);
            let queued = turn.figure("server_queued").max(turn.figure("queued"));
            tries += 1;
            if (stolen <= MOST_STOLEN && queued <= MOST_QUEUED) || tries == TRIES {
                return Ok(turn);
            }
            let (stolen, queued) = (stolen * 100.0, queued * 100.0);
            eprint!("{stolen:.0} % of the time stolen, {queued:.0} % taken by others, again: ");
        }
    }

    fn load(
        &self,
        &Job { workload, cell, .. }: &Job,
        server: &Server,
        (warm_up, seconds): (f64, f64),
        verify: bool,
        seed: u64,
    ) -> Result<Turn, Failure> {
        let mut command = Command::new(&self.load);
        let mut option = |name: &str, value: &dyn fmt::Display| {
            command.args([name, &value.to_string()]);
        };
        option("--mode", &workload.mode);
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
    fn trace(&self, job: &Job, server: &Server) -> io::Result<Option<f64>> {
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
        let turn = self.load(job, server, (0.0, TRACED), false, self.seed);
        strace.stop(libc::SIGINT)?;
        let mut summary = String::new();
        lines.read_to_string(&mut summary)?;
        let Ok(turn) = turn else { return Ok(None) };
        let messages = turn.figure("messages_in_all");
        Ok((messages > 0.0).then(|| traced_calls(&summary) as f64 / messages))
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
        .filter(|ratio| ratio.high.is_finite()) // Silence costs nothing per message.
    }

    fn spread(&self, figure: &str) -> Spread {
        let figures = self.turns.iter().map(|turn| turn.figure(figure));
        Spread::of(figures).expect("there is a round at least")
    }

    fn to_json(&self, job: &Job, row: &Row) -> Value {
        let reports: Vec<&Value> = self.turns.iter().map(|turn| &turn.0).collect();
        let ratio = row.ratio.map(|Spread { median, low, high }| json!([median, low, high]));
        let median = |name| self.spread(name).median;
        json!({
            "workload": job.workload.name,
            "connections": job.cell.connections,
            "cell": row.cell,
            "server": row.server,
            "msgs_per_s": row.rate,
            "cpu_ns_per_msg": row.cpu,
            "calls_per_msg": row.calls,
            "p50_us": row.p50,
            "p90_us": median("p90_us"),
            "p99_us": row.p99,
            "p999_us": median("p999_us"),
            "p9999_us": median("p9999_us"),
            "load_busy": median("busy"),
            "rss_alone_kib": self.turns[0].figure("server_rss_alone_kib"),
            "sleeps_per_s": median("server_sleeps_per_s"),
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

const CPU: &str = "server_cpu_ns_per_msg";
/// In seconds: young connections cost more.
const WARM_UP: f64 = 0.2;
/// Seconds that one connection takes to open and close, all in all.
const CONNECTING: f64 = 0.000_1;
const QUICK_SECONDS: f64 = 75.0;
const MOST_ROUNDS: usize = 15;
const FEWEST_ROUNDS: usize = 2;
const TRACED: f64 = 0.5;
const CHECKED: f64 = 0.1;
const NOT_TRACED: [&str; 4] = ["total", "accept4", "epoll_ctl", "close"];
const MOST_STOLEN: f64 = 0.05;
/// The kernel's own threads, which deliver packets, are among the others.
const MOST_QUEUED: f64 = 0.2;
const TRIES: usize = 3;

const USAGE: &str = "\
usage: compare [--quick] [--only WORKLOAD] [--servers a,b] [--cells 64x64x1,…] [--rounds N] [--secs S]
               [--budget MINUTES] [--report FOLDER] [--seed N] [--server-core N] [--load-core N]
               [--json FILE]
       compare --render FILE [--report FOLDER]

Runs the same load against several servers: servers on one core, the load on another, rounds
interleaved in an order that the seed decides. A turn is repeated, twice at most, if the machine's
host took more than 5 % of its time away, or other programs a fifth of one of the two cores'.
Progress goes to stderr. Exit 3 if bytes came back different (each byte of an echo is compared in a
short run before the first round). Ctrl-C ends the servers and the load, too.

  --quick        one size of each workload, without rivals, in less than 90 s
  --only         one workload: echo, unix, ping-pong, bursts, small (writes of 32 bytes), fan-out,
                 connect, send, receive, lines, scale, idle
  --servers      of ringloop, ringloop/streams, ringloop/sock, ringloop-epoll, immediate, epoll,
                 ring, ring/sock, ring/exact, tokio, and the rivals that benches/peers/build.sh has built: monoio, compio,
                 glommio, nuclei, asyncio, uvloop; monoio-defaults, compio-defaults,
                 glommio-defaults and nuclei-defaults leave their runtime's flags as they come. The first one runs once
                 more as `null`
  --cells        with --only: connections x bytes x messages outstanding per connection; `b` at the
                 end: bursts
  --rounds       5 unless told
  --secs         length of a turn (0.4), after 0.2 s that are not measured
  --budget       as many rounds as so many minutes have room for, two at least
  --report       results.json, report.md, report.html and the charts, into this folder
  --render       puts a table and a chart of such a results.json into the README, and all tables into
                 benches/results/latest.md; with --report makes its report again instead
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
                 without those that open and close connections; not with --budget
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
