//! Sends messages to a server and says how it answered.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use peers_common::Address;
use pico_args::Arguments;
use ringloop_benches::args::{self, value};
use ringloop_benches::cell::{Cell, Mode};
use ringloop_benches::failure::Failure;
use ringloop_benches::histogram::Histogram;
use ringloop_benches::load::Totals;
use ringloop_benches::traffic::{self, Traffic};
use ringloop_benches::{process, raw};
use serde_json::{Value, json};

fn main() -> ExitCode {
    args::run(USAGE, run)
}

fn run(mut arguments: Arguments) -> Result<ExitCode, Failure> {
    let address: Option<Address> = value(&mut arguments, "--addr")?;
    let mode = value(&mut arguments, "--mode")?.unwrap_or(Mode::Echo);
    let cell = Cell {
        connections: value(&mut arguments, "--conns")?.unwrap_or(64),
        size: value(&mut arguments, "--size")?.unwrap_or(64),
        depth: value(&mut arguments, "--depth")?.unwrap_or(1),
        burst: arguments.contains("--burst"),
    };
    let window = seconds(&mut arguments, "--secs")?.unwrap_or(Duration::from_secs(1));
    let warm_up = seconds(&mut arguments, "--warmup")?.unwrap_or(Duration::from_millis(300));
    let verify = arguments.contains("--verify");
    let seed = value(&mut arguments, "--seed")?.unwrap_or(1);
    let watched: Option<u32> = value(&mut arguments, "--watch")?;
    args::finish(arguments)?;
    let address = address.ok_or_else(|| Failure::Usage("--addr is missing".to_owned()))?;
    let cell = cell.check().map_err(Failure::Usage)?;

    let failed = |error| Failure::new(format!("load on {address}"), &error);
    raw::raise_open_files().map_err(failed)?;
    let alone = watched.map(process::rss).transpose().map_err(failed)?;
    let mut load = traffic::start(&address, mode, cell, verify, seed).map_err(failed)?;
    load.run_for(warm_up).map_err(failed)?;
    load.latencies().clear();
    let before = Snapshot::take(&*load, watched).map_err(failed)?;
    load.run_for(window).map_err(failed)?;
    let mut after = Snapshot::take(&*load, watched).map_err(failed)?;
    if verify {
        load.finish().map_err(failed)?;
        after.totals.wrong_bytes = load.totals().wrong_bytes;
    }
    let mut report = report(mode, cell, load.latencies(), &before, &after);
    if let Some(alone) = alone {
        report["server_rss_alone_kib"] = alone.into();
    }
    println!("{report}");

    let Totals { errors, wrong_bytes, .. } = after.totals;
    Ok(match (wrong_bytes, errors) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(3),
    })
}

/// The state at one end of the window.
struct Snapshot {
    time: Instant,
    cpu: Duration,
    queued: Duration,
    totals: Totals,
    server: Option<Watched>,
}

/// What the system says of the server.
struct Watched {
    cpu: Duration,
    queued: Duration,
    rss: u64,
    sleeps: u64,
}

impl Snapshot {
    fn take(load: &dyn Traffic, watched: Option<u32>) -> std::io::Result<Self> {
        let server = match watched {
            None => None,
            Some(id) => Some(Watched {
                cpu: process::cpu(id)?,
                queued: process::queued(id)?,
                rss: process::rss(id)?,
                sleeps: process::sleeps(id)?,
            }),
        };
        let totals = load.totals();
        let queued = process::queued(std::process::id())?;
        Ok(Self { time: Instant::now(), cpu: raw::thread_cpu(), queued, totals, server })
    }
}

fn report(
    mode: Mode,
    cell: Cell,
    latencies: &Histogram,
    before: &Snapshot,
    after: &Snapshot,
) -> Value {
    let messages = after.totals.messages - before.totals.messages;
    let per_message = |count: f64| if messages == 0 { 0.0 } else { count / messages as f64 };
    let window = after.time - before.time;
    let microseconds = |part| latencies.quantile(part).as_nanos() as f64 / 1000.0;
    let enters = after.totals.enters - before.totals.enters;
    let cpu = after.cpu - before.cpu;
    let part = |time: Duration| time.as_secs_f64() / window.as_secs_f64();
    let mut report = json!({
        "mode": mode.to_string(),
        "conns": cell.connections,
        "size": cell.size,
        "depth": cell.depth,
        "burst": cell.burst,
        "seconds": window.as_secs_f64(),
        "messages": messages,
        "msgs_per_s": messages as f64 / window.as_secs_f64(),
        "p50_us": microseconds(0.5),
        "p90_us": microseconds(0.9),
        "p99_us": microseconds(0.99),
        "p999_us": microseconds(0.999),
        "p9999_us": microseconds(0.9999),
        "errors": after.totals.errors,
        "wrong_bytes": after.totals.wrong_bytes,
        "cpu_ns_per_msg": per_message(cpu.as_nanos() as f64),
        "busy": part(cpu),
        "queued": part(after.queued - before.queued),
        "calls_per_msg": per_message(enters as f64),
        "messages_in_all": after.totals.messages,
    });
    if let (Some(before), Some(after)) = (&before.server, &after.server) {
        let cpu = after.cpu - before.cpu;
        let seconds = window.as_secs_f64();
        report["server_cpu_ns_per_msg"] = per_message(cpu.as_nanos() as f64).into();
        report["server_busy"] = part(cpu).into();
        report["server_queued"] = part(after.queued - before.queued).into();
        report["server_rss_kib"] = after.rss.into();
        report["server_sleeps_per_s"] = ((after.sleeps - before.sleeps) as f64 / seconds).into();
    }
    report
}

fn seconds(arguments: &mut Arguments, name: &'static str) -> Result<Option<Duration>, Failure> {
    let Some(seconds) = value::<f64>(arguments, name)? else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= MOST_SECONDS => Ok(Some(duration)),
        _ => Err(Failure::Usage(format!("{name} {seconds}: 0 to {} s", MOST_SECONDS.as_secs()))),
    }
}

const MOST_SECONDS: Duration = Duration::from_secs(3600);

const USAGE: &str = "\
usage: load --addr A [--mode MODE] [--conns N] [--size B] [--depth D] [--secs S] [--warmup S]
            [--verify] [--burst] [--seed S] [--watch PID]

Sends messages to a server and prints one line of JSON: messages, msgs_per_s, p50_us, p99_us,
errors, its own CPU per message, and so on. Exit 3 if bytes came back different, 1 if connections
were lost.

  --addr     where the server listens: a port, as 127.0.0.1:80, or the name of a Unix socket, as @name
  --mode     what goes through (echo): echo; unix; lines; small (the answer comes in small writes);
             fan-out (one sends, all receive); connect (a connection for each message); send and
             receive (what the server does, without end); idle (connections that are quiet)
  --conns    connections (64)
  --size     bytes per message (64)
  --depth    messages outstanding per connection (1)
  --secs     how long it measures (1)
  --warmup   how long it runs before that (0.3)
  --verify   compares each byte; of receive the server does, if it was started with --verify, too
  --burst    all connections send together, and again when all answers are there
  --seed     of the pattern that is sent (1)
  --watch    also measures the CPU time and the memory of this process: server_cpu_ns_per_msg,
             server_busy (CPU time per time), server_queued (which part of the time others had its
             core while it was ready to run), server_rss_kib,
             server_rss_alone_kib (before the first connection), server_sleeps_per_s";
