//! Random scripts of steps on one connection: `scripts.py` makes them and has CPython's side.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{AfterEof, Protocol, ProtocolResult, Received, Transport, WriteMode, extra_info};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::python;
use ringloop_tests::recorder::Event;
use ringloop_tests::sockets::{narrow_tcp_pair, pair, reset};
use ringloop_tests::trace::{self, Order, Trace};
use serde_json::Value;
use socket2::Socket;

use crate::recorded::{self, list, number, text};
use crate::scenario::{py, running, with_text};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "scripts_give_the_traces_of_cpython__immediate",
        body: || replay_all(WriteMode::Immediate),
        deadline: Duration::from_secs(600),
    },
    Test {
        name: "scripts_give_the_traces_of_cpython__batched",
        body: || replay_all(WriteMode::Batched),
        deadline: Duration::from_secs(600),
    },
];

/// All that are recorded, or those of the file that a developer names.
// spec: PROTO-06, PROTO-07, TRANS-33, RISK-24
fn replay_all(mode: WriteMode) {
    let scripts = recorded::scripts(FILE, include_str!("scripts.json"));
    let failed = scripts.iter().filter_map(|script| replay(script, mode)).collect();
    recorded::check(failed, &scripts);
}

/// How the trace of a script differs.
fn replay(script: &Value, mode: WriteMode) -> Option<String> {
    if mode == WriteMode::Batched && script["batched"] == Value::Bool(false) {
        return None;
    }
    let trace = Trace::new();
    let player = Rc::new(Player::new(script, mode, &trace));
    ringloop::run(play(Rc::clone(&player), script.clone())).unwrap();
    let expected = recorded::trace(script);
    let (expected, lines) = match mode {
        WriteMode::Immediate => (expected, trace.lines()),
        WriteMode::Batched => (without_sizes(&expected), without_sizes(&trace.lines())),
    };
    let difference = trace::compare(Order::Total, &expected, &lines).err()?;
    let (steps, hooks) = (&script["steps"], &script["hooks"]);
    let options =
        ["family", "sndbuf", "keep_open", "early"].map(|name| format!("{name}={}", script[name]));
    let options = options.join(" ");
    Some(format!("{} {options} {steps} {hooks}: {difference}", script["seed"]))
}

/// One gathered send costs the kernel less room than the sends that it stands for: how much stays over differs.
fn without_sizes(lines: &[String]) -> Vec<String> {
    let without = |word: &str| match word.strip_prefix("size=") {
        Some(size) => format!("some={}", py(size != "0")),
        None => word.to_owned(),
    };
    let without = |line: &String| line.split(' ').map(without).collect::<Vec<_>>().join(" ");
    lines.iter().map(without).collect()
}

async fn play(player: Rc<Player>, script: Value) {
    let is_tcp = player.is_tcp;
    let (a, peer) = if is_tcp { narrow_tcp_pair() } else { pair() };
    if let Some(size) = script["sndbuf"].as_u64() {
        a.set_send_buffer_size(size as usize).unwrap();
    }
    player.peer.replace(Some(peer));
    let trace = player.trace.clone();
    running().set_exception_handler(move |_, context| {
        let message = context.message.split(" <").next().unwrap_or_default().to_owned();
        let kind = context.error.map_or_else(|| "None".to_owned(), python::kind);
        trace.push(format!("exc: {message} {kind}"));
    });
    if number(&script["early"]) > 0 {
        player.take_peers("psend", &[script["early"].clone()]);
    }
    let protocol = Rc::clone(&player);
    running().create_connection(|| Shared(protocol), a).await.unwrap();
    player.log("created");
    for step in list(&script["steps"]) {
        let step = list(step);
        match text(&step[0]) {
            "turn" => turn(number(&step[1])).await,
            "settle" => settle().await,
            _ => player.take(step),
        }
    }
    settle().await;
    player.take(&[Value::from("state")]);
    player.take(&[Value::from("close")]);
    while !player.lost.is_set() {
        player.drain();
        settle().await;
    }
    player.let_peer_wait();
    let end = player.drain().map_or_else(|| "closed".to_owned(), |(_, end)| end);
    let got = player.got.borrow();
    let equal = py(*got == pattern(0, got.len()));
    let (size, all) = (player.size(got.len()), py(got.len() == player.written.get()));
    player.trace.log("peer", format!("got size={size} all={all} end={end} equal={equal}"));
}

/// The protocol that plays a script, and its peer.
struct Player {
    trace: Trace,
    mode: WriteMode,
    is_tcp: bool,
    keep_open: bool,
    /// For each callback, the steps of its calls to come.
    hooks: RefCell<Value>,
    transport: RefCell<Option<Transport>>,
    peer: RefCell<Option<Socket>>,
    written: Cell<usize>,
    received: Cell<usize>,
    sent: Cell<usize>,
    got: RefCell<Vec<u8>>,
    lost: Event,
}

impl Player {
    fn new(script: &Value, mode: WriteMode, trace: &Trace) -> Self {
        Self {
            trace: trace.clone(),
            mode,
            is_tcp: text(&script["family"]) == "tcp",
            keep_open: script["keep_open"] == Value::Bool(true),
            hooks: RefCell::new(script["hooks"].clone()),
            transport: RefCell::default(),
            peer: RefCell::default(),
            written: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            got: RefCell::default(),
            lost: Event::default(),
        }
    }

    fn log(&self, event: impl AsRef<str>) {
        self.trace.log("proto", event);
    }

    fn hook(&self, name: &str) {
        let steps = match self.hooks.borrow_mut().get_mut(name).and_then(Value::as_array_mut) {
            Some(calls) if !calls.is_empty() => calls.remove(0),
            _ => return,
        };
        list(&steps).iter().for_each(|step| self.take(list(step)));
    }

    fn take(&self, step: &[Value]) {
        let (name, arguments) = (text(&step[0]), &step[1..]);
        if name.starts_with('p') && name != "pause" {
            return self.take_peers(name, arguments);
        }
        let transport = self.transport.borrow().clone().expect("it is connected");
        let simple: Option<fn(&Transport)> = match name {
            "pause" => Some(Transport::pause_reading),
            "resume" => Some(Transport::resume_reading),
            "close" => Some(Transport::close),
            "abort" => Some(Transport::abort),
            _ => None,
        };
        if let Some(step) = simple {
            return step(&transport);
        }
        let result = match name {
            "write" => {
                let data = self.next(number(&arguments[0]));
                transport.write(data)
            }
            "writelines" => {
                let sizes = list(&arguments[0]).iter().map(number);
                let chunks: Vec<_> = sizes.map(|size| self.next(size)).collect();
                transport.writelines(chunks)
            }
            "many" => {
                let chunks = (0..number(&arguments[0])).map(|_| self.next(number(&arguments[1])));
                transport.writelines(chunks.collect::<Vec<_>>())
            }
            "size" => {
                let size = self.size(transport.get_write_buffer_size());
                self.log(format!("size={size}"));
                Ok(())
            }
            // Of no importance to CPython.
            "mode" => {
                let other = match arguments[0] == Value::Bool(true) {
                    true => WriteMode::Immediate,
                    false => self.mode,
                };
                transport.set_write_mode(other);
                Ok(())
            }
            "sndbuf" => {
                let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
                let _ = socket.set_send_buffer_size(number(&arguments[0])); // It may be closed.
                Ok(())
            }
            "eof" => transport.write_eof(),
            "limits" => {
                let limit = |value: &Value| value.as_u64().map(|value| value as usize);
                transport.set_write_buffer_limits(limit(&arguments[0]), limit(&arguments[1]))
            }
            "state" => {
                self.log(format!(
                    "closing={} reading={} buffered={} limits={:?}",
                    py(transport.is_closing()),
                    py(transport.is_reading()),
                    py(transport.get_write_buffer_size() > 0),
                    transport.get_write_buffer_limits()
                ));
                Ok(())
            }
            other => panic!("unknown step {other}"),
        };
        if result.is_err() {
            self.log(with_text(result));
        }
    }

    /// How much TCP takes is nothing to rely on.
    fn size(&self, size: usize) -> usize {
        if self.is_tcp { size.min(1) } else { size }
    }

    /// The bytes that are written next. What a callback writes meanwhile comes behind them.
    fn next(&self, length: usize) -> Vec<u8> {
        pattern(self.written.replace(self.written.get() + length), length)
    }

    fn take_peers(&self, name: &str, arguments: &[Value]) {
        if name == "pdrain" {
            return self.drain_and_log();
        }
        let mut peer = self.peer.borrow_mut();
        let Some(socket) = &mut *peer else { return };
        let result = match name {
            "psend" => {
                let length = number(&arguments[0]);
                let result = socket.write_all(&pattern(self.sent.get(), length));
                if result.is_ok() {
                    self.sent.set(self.sent.get() + length);
                }
                result
            }
            "pread" => {
                let mut part = vec![0; number(&arguments[0])];
                if let Ok(length) = socket.read(&mut part) {
                    self.got.borrow_mut().extend_from_slice(&part[..length]);
                }
                Ok(())
            }
            "pshut" => socket.shutdown(Shutdown::Write),
            "preset" => {
                peer.take().into_iter().for_each(reset);
                Ok(())
            }
            "pclose" => {
                *peer = None;
                Ok(())
            }
            other => panic!("unknown step {other}"),
        };
        if let Err(error) = result {
            self.trace.log("peer", python::kind(&error));
        }
    }

    fn drain_and_log(&self) {
        if let Some((some, end)) = self.drain() {
            self.trace.log("peer", format!("drained some={} {end}", py(some)));
        }
    }

    /// From now on the peer waits for what is on its way. A busy machine delivers it later than in the call that sends it.
    fn let_peer_wait(&self) {
        if let Some(peer) = self.peer.borrow().as_ref() {
            peer.set_nonblocking(false).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
        }
    }

    /// Whether bytes came, and what came after them.
    fn drain(&self) -> Option<(bool, String)> {
        let mut peer = self.peer.borrow_mut();
        let mut got = self.got.borrow_mut();
        let before = got.len();
        let end = match peer.as_mut()?.read_to_end(&mut got) {
            Ok(_) => "EOF".to_owned(),
            Err(error) => python::kind(&error),
        };
        Some((got.len() > before, end))
    }
}

/// A factory returns it by value.
struct Shared(Rc<Player>);

impl Protocol for Shared {
    fn connection_made(&self, transport: &Transport) {
        transport.set_write_mode(self.0.mode);
        self.0.transport.replace(Some(transport.clone()));
        self.0.log("connection_made");
        self.0.hook("made");
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        let start = self.0.received.replace(self.0.received.get() + data.len());
        self.0.log(format!("data_received(<{} bytes>)", data.len()));
        if *data != *pattern(start, data.len()) {
            self.0.log("other bytes");
        }
        self.0.hook("data");
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.0.log("eof_received");
        self.0.hook("eof");
        Ok(if self.0.keep_open { AfterEof::KeepOpen } else { AfterEof::Close })
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.0.log(format!("connection_lost({})", python::kind_or_none(error)));
        self.0.lost.set();
        self.0.hook("lost");
    }

    fn pause_writing(&self, _: &Transport) {
        self.0.log("pause_writing");
        self.0.hook("pause");
    }

    fn resume_writing(&self, _: &Transport) {
        self.0.log("resume_writing");
        self.0.hook("resume");
    }
}

/// The bytes at a place of either stream.
pub(crate) fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|i| (i * 7 + (i >> 8) * 13) as u8).collect()
}

/// Names a file of scripts that stands in for the recorded ones.
const FILE: &str = "RINGLOOP_SCRIPTS";

/// How long the peer waits for the end of a stream that is on its way.
const PATIENCE: Duration = Duration::from_secs(10);
