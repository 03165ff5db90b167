//! Random scripts of both halves of a stream over a socket: `halves.py` makes them and has CPython's side.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    Error, Result, StreamReader, StreamWriter, Target, Task, WriteMode, catch_cancel,
    open_connection,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::python;
use ringloop_tests::sockets::{self, End, narrow_tcp_pair, pair, reset};
use ringloop_tests::trace::{self, Order, Trace};
use serde_json::Value;
use socket2::Socket;

use crate::readers::{read, shown_result};
use crate::recorded::{self, list, number, text};
use crate::scenario::{py, running};
use crate::scripts::pattern;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "scripts_of_streams_give_the_traces_of_cpython__immediate",
        body: || replay_all(WriteMode::Immediate),
        deadline: Duration::from_secs(600),
    },
    Test {
        name: "scripts_of_streams_give_the_traces_of_cpython__batched",
        body: || replay_all(WriteMode::Batched),
        deadline: Duration::from_secs(600),
    },
];

/// All that are recorded, or those of the file that a developer names.
// spec: STREAM-13, STREAM-47, STREAM-53, STREAM-55
fn replay_all(mode: WriteMode) {
    let scripts = recorded::scripts(FILE, include_str!("halves.json"));
    let failed = on_loop(async {
        let mut failed = Vec::new();
        for script in &scripts {
            failed.extend(replay(script, mode).await);
        }
        failed
    });
    recorded::check(failed, &scripts);
}

/// How the trace of a script differs.
async fn replay(script: &Value, mode: WriteMode) -> Option<String> {
    if mode == WriteMode::Batched && script["batched"] == Value::Bool(false) {
        return None;
    }
    let trace = Trace::new();
    play(script, mode, &trace).await;
    let expected = recorded::trace(script);
    let difference = trace::compare(Order::Total, &expected, &trace.lines()).err()?;
    let options = ["family", "limit"].map(|name| format!("{name}={}", script[name])).join(" ");
    Some(format!("{} {options} {}: {difference}", script["seed"], script["steps"]))
}

async fn play(script: &Value, mode: WriteMode, trace: &Trace) {
    let is_tcp = script["family"] == "tcp";
    let (a, peer) = if is_tcp { narrow_tcp_pair() } else { pair() };
    let reports = trace.clone();
    running().set_exception_handler(move |_, context| {
        let message = context.message.split(" <").next().unwrap_or_default().to_owned();
        let kind = context.error.map_or_else(|| "None".to_owned(), python::kind);
        reports.push(format!("exc: {message} {kind}"));
    });
    let target = Target::from(a).limit(number(&script["limit"])).write_mode(mode);
    let (reader, writer) = open_connection(target).await.unwrap();
    let player = Player {
        reader: Rc::new(reader),
        writer: Rc::new(writer),
        peer: RefCell::new(Some(peer)),
        trace: trace.clone(),
        tasks: RefCell::default(),
        for_the_end: RefCell::default(),
        last_read: Cell::new(None),
        written: Cell::new(0),
        got: RefCell::default(),
        end: RefCell::new(End::Again),
    };
    for step in list(&script["steps"]) {
        let step = list(step);
        match text(&step[0]) {
            "turn" => turn(number(&step[1])).await,
            "settle" => settle().await,
            name if name.starts_with('p') && player.peer.borrow().is_none() => {}
            "pall" => player.drain_all(is_tcp).await,
            name => player.take(name, &Value::from(step)),
        }
    }
    player.end().await;
}

struct Player {
    reader: Rc<StreamReader>,
    writer: Rc<StreamWriter>,
    peer: RefCell<Option<Socket>>,
    trace: Trace,
    tasks: RefCell<Vec<Task<()>>>,
    /// Of each task, whether it ends by itself when the connection does.
    for_the_end: RefCell<Vec<bool>>,
    /// The place among the tasks of the one that reads, or has read last.
    last_read: Cell<Option<usize>>,
    written: Cell<usize>,
    got: RefCell<Vec<u8>>,
    end: RefCell<End>,
}

impl Player {
    fn take(&self, name: &str, step: &Value) {
        let writer = &self.writer;
        let result = match name {
            "write" => writer.write(self.next(number(&step[1]))),
            "writelines" => {
                let sizes = list(&step[1]).iter().map(number).filter(|&size| size > 0);
                writer.writelines(sizes.map(|size| self.next(size)).collect::<Vec<_>>())
            }
            "eof" => writer.write_eof(),
            "limits" => {
                let limit = |value: &Value| value.as_u64().map(|value| value as usize);
                writer.transport().set_write_buffer_limits(limit(&step[1]), limit(&step[2]))
            }
            "close" => {
                writer.close();
                Ok(())
            }
            "abort" => {
                writer.transport().abort();
                Ok(())
            }
            _ => {
                self.take_other(name, step);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.log(format!("{}: {error}", python::kind(&error)));
        }
    }

    fn take_other(&self, name: &str, step: &Value) {
        match name {
            "state" => self.log_state(),
            "cancel" => {
                let tasks = self.tasks.borrow();
                let Some(last) = tasks.len().checked_sub(1) else { return };
                let task = &tasks[last.saturating_sub(number(&step[1]))];
                self.log(format!("cancel={}", py(task.cancel())));
            }
            "drain" | "closed" => self.spawn(name, step),
            name if name.starts_with('p') => self.take_peers(name, step),
            _ => {
                let tasks = self.tasks.borrow();
                let reads = self.last_read.get().is_some_and(|place| !tasks[place].done());
                if !reads {
                    self.last_read.set(Some(tasks.len()));
                    drop(tasks);
                    self.spawn(name, step);
                }
            }
        }
    }

    fn spawn(&self, name: &str, step: &Value) {
        let (reader, writer) = (Rc::clone(&self.reader), Rc::clone(&self.writer));
        self.for_the_end.borrow_mut().push(matches!(name, "closed" | "all"));
        let (trace, name, step) = (self.trace.clone(), name.to_owned(), step.clone());
        let lane = format!("t{}", self.tasks.borrow().len());
        let task = running().create_task(async move {
            let event = match &*name {
                "drain" => waited(writer.drain(), "drained").await,
                "closed" => waited(writer.wait_closed(), "closed").await,
                _ => match catch_cancel(read(&reader, &step)).await {
                    Ok(result) => shown_result(result),
                    Err(_) => "cancelled".to_owned(),
                },
            };
            trace.log(&lane, event);
        });
        self.tasks.borrow_mut().push(task);
    }

    fn take_peers(&self, name: &str, step: &Value) {
        let mut peer = self.peer.borrow_mut();
        let Some(socket) = &mut *peer else { return };
        let result = match name {
            "psend" => {
                let data = text(&step[1]).repeat(number(&step[2]));
                socket.send(data.as_bytes()).map(drop)
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

    /// The peer reads until nothing waits to be sent any more.
    async fn drain_all(&self, is_tcp: bool) {
        let writer = &self.writer;
        while writer.transport().get_write_buffer_size() > 0 && self.drain().ends_with("[EAGAIN]") {
            settle().await;
        }
        let end = self.drain();
        if !is_tcp {
            self.trace.log("peer", format!("drained {end}"));
        }
        settle().await;
    }

    /// What comes behind all that the peer has been sent.
    fn drain(&self) -> String {
        let peer = self.peer.borrow();
        let Some(socket) = &*peer else { return "closed".to_owned() };
        let mut last = self.end.borrow_mut();
        if *last == End::Again {
            let (data, end) = sockets::drain(socket);
            self.got.borrow_mut().extend(data);
            *last = end; // An error is told once.
        }
        match &*last {
            End::Again => "BlockingIOError[EAGAIN]".to_owned(),
            end => end.text().to_owned(),
        }
    }

    async fn end(&self) {
        settle().await;
        self.log_state();
        let is_active: Vec<_> = self.tasks.borrow().iter().map(|task| !task.done()).collect();
        let active = is_active.iter().enumerate().filter(|(_, active)| **active);
        let active: Vec<_> = active.map(|(place, _)| format!("'t{place}'")).collect();
        self.log(format!("active=[{}]", active.join(", ")));
        for (task, waits_for_the_end) in self.tasks.borrow().iter().zip(&*self.for_the_end.borrow())
        {
            if !waits_for_the_end {
                task.cancel();
            }
        }
        turn(4).await;
        self.writer.close();
        let writer = Rc::clone(&self.writer);
        let closed = running().create_task(async move { writer.wait_closed().await });
        while !closed.done() {
            self.drain();
            settle().await;
        }
        settle().await;
        let end = self.drain();
        if self.reader.exception().is_none() {
            self.log(format!("left={}", python::shown(&self.reader.read_to_end().await.unwrap())));
        }
        let got = self.got.borrow();
        let all = match &*end {
            "ConnectionResetError[ECONNRESET]" => "-",
            _ => py(got.len() == self.written.get()),
        };
        let equal = py(*got == pattern(0, got.len()));
        self.trace.log("peer", format!("got all={all} end={end} equal={equal}"));
    }

    fn log_state(&self) {
        let (reader, writer) = (&self.reader, &self.writer);
        self.log(format!(
            "at_eof={} closing={} reading={} buffered={} exception={}",
            py(reader.at_eof()),
            py(writer.is_closing()),
            py(writer.transport().is_reading()),
            py(writer.transport().get_write_buffer_size() > 0),
            py(reader.exception().is_some())
        ));
    }

    /// The bytes that are written next.
    fn next(&self, length: usize) -> Vec<u8> {
        pattern(self.written.replace(self.written.get() + length), length)
    }

    fn log(&self, event: impl AsRef<str>) {
        self.trace.log("main", event);
    }
}

async fn waited(wait: impl Future<Output = Result<()>>, done: &str) -> String {
    match catch_cancel(wait).await {
        Ok(Ok(())) => done.to_owned(),
        Ok(Err(error @ Error::Io(_))) => python::kind(&error),
        Ok(Err(error)) => format!("{}: {error}", python::kind(&error)),
        Err(_) => "cancelled".to_owned(),
    }
}

/// Names a file of scripts that stands in for the recorded ones.
const FILE: &str = "RINGLOOP_HALVES";
