//! Random scripts of what happens to one reader: `streams.py` makes them and has CPython's side.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, Received, Result, StreamReader, Task, Transport, catch_cancel};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::turn;
use ringloop_tests::isolated::Test;
use ringloop_tests::python;
use ringloop_tests::sockets::pair;
use ringloop_tests::trace::{self, Order, Trace};
use serde_json::Value;

use crate::recorded;
use crate::scenario::{py, running};

pub(crate) const TESTS: &[Test] = &[Test {
    name: "scripts_of_readers_give_the_traces_of_cpython",
    body: replay_all,
    deadline: Duration::from_secs(600),
}];

/// All that are recorded, or those of the file that a developer names. What is fed is lent by turns: copied, or as a piece.
// spec: STREAM-15, STREAM-16, STREAM-29, STREAM-32
fn replay_all() {
    let scripts = recorded::scripts(FILE, include_str!("streams.json"));
    let failed = on_loop(async {
        let mut failed = Vec::new();
        for script in &scripts {
            for feeding in [Feeding::Slices, Feeding::Pieces, Feeding::Bytes] {
                failed.extend(replay(script, feeding).await);
            }
        }
        failed
    });
    recorded::check(failed, &scripts);
}

/// How the bytes of a step are given to the reader.
#[derive(Clone, Copy, Debug)]
enum Feeding {
    Slices,
    Pieces,
    /// Each for itself.
    Bytes,
}

/// How the trace of a script differs.
async fn replay(script: &Value, feeding: Feeding) -> Option<String> {
    let (a, _peer) = pair();
    let protocol = || ringloop::Exclusive::new(());
    let (transport, _) = running().create_connection(protocol, a).await.unwrap();
    let limit = script["limit"].as_u64().expect("a limit") as usize;
    let reader = Rc::new(StreamReader::new(limit).unwrap());
    reader.set_transport(&transport).unwrap();
    let player = Player { reader, transport, trace: Trace::new(), tasks: RefCell::default() };
    for step in script["steps"].as_array().expect("steps") {
        player.take(step, feeding).await;
    }
    player.end().await;
    let expected = recorded::trace(script);
    let difference = trace::compare(Order::Total, &expected, &player.trace.lines()).err()?;
    Some(format!("{} {feeding:?} limit={limit} {}: {difference}", script["seed"], script["steps"]))
}

struct Player {
    reader: Rc<StreamReader>,
    transport: Transport,
    trace: Trace,
    tasks: RefCell<Vec<Task<()>>>,
}

impl Player {
    async fn take(&self, step: &Value, feeding: Feeding) {
        let reader = &self.reader;
        match step[0].as_str().expect("a kind") {
            "feed" => {
                let text = step[1].as_str().expect("text");
                let data = text.repeat(step[2].as_u64().expect("times") as usize);
                if feed(reader, data.as_bytes(), feeding).is_err() {
                    self.log("AssertionError");
                }
            }
            "eof" => reader.feed_eof(),
            "error" => reader.set_exception(Error::other("broken")),
            "turn" => turn(step[1].as_u64().expect("a number") as usize).await,
            "cancel" => {
                if let Some(task) = self.tasks.borrow().last() {
                    self.log(format!("cancel={}", py(task.cancel())));
                }
            }
            "state" => self.log(format!(
                "at_eof={} reading={} exception={}",
                py(reader.at_eof()),
                py(self.transport.is_reading()),
                py(reader.exception().is_some())
            )),
            _ => {
                let (reader, trace, step) = (Rc::clone(reader), self.trace.clone(), step.clone());
                let name = format!("t{}", self.tasks.borrow().len());
                let task = running().create_task(async move {
                    let event = match catch_cancel(read(&reader, &step)).await {
                        Ok(result) => shown_result(result),
                        Err(_) => "cancelled".to_owned(),
                    };
                    trace.log(&name, event);
                });
                self.tasks.borrow_mut().push(task);
            }
        }
    }

    async fn end(&self) {
        turn(4).await;
        let active = self.tasks.borrow().iter().filter(|task| !task.done()).count();
        self.log(format!("at_eof={} active={active}", py(self.reader.at_eof())));
        for task in &*self.tasks.borrow() {
            task.cancel();
        }
        turn(4).await;
        if self.reader.exception().is_none() {
            self.reader.feed_eof();
            self.log(format!("left={}", python::shown(&self.reader.read_to_end().await.unwrap())));
        }
        self.transport.close();
    }

    fn log(&self, event: impl AsRef<str>) {
        self.trace.log("main", event);
    }
}

fn feed(reader: &StreamReader, data: &[u8], feeding: Feeding) -> Result<()> {
    match feeding {
        Feeding::Slices => reader.feed_data(data),
        Feeding::Pieces => reader.feed_data(Received::from(data)),
        Feeding::Bytes if data.is_empty() => reader.feed_data(data),
        Feeding::Bytes => {
            // CPython decides after each feed whether to pause, and what is over the border is so only with all of it.
            let (last, rest) = data.split_last().expect("it is not empty");
            for byte in rest.iter().take(100) {
                reader.feed_data(Received::from(&[*byte][..]))?;
            }
            reader.feed_data(Received::from(rest.get(100..).unwrap_or_default()))?;
            reader.feed_data(Received::from(&[*last][..]))
        }
    }
}

pub(crate) async fn read(reader: &StreamReader, step: &Value) -> Result<Received> {
    let size = || step[1].as_u64().expect("a number") as usize;
    match step[0].as_str().expect("a kind") {
        "read" => read_some(reader, size()).await,
        "exactly" => reader.read_exactly(size()).await,
        "until" => {
            let list = step[1].as_array().expect("a list");
            let list: Vec<_> = list.iter().map(|text| text.as_str().expect("text")).collect();
            match list[..] {
                [one] => reader.read_until(one).await,
                _ => reader.read_until_any(&list).await,
            }
        }
        "line" => reader.read_line().await,
        _ => reader.read_to_end().await,
    }
}

/// CPython joins all pieces that are there, ours only small ones.
async fn read_some(reader: &StreamReader, size: usize) -> Result<Received> {
    let mut data = reader.read(size).await?;
    while data.len() < size && !data.is_empty() && !is_empty(reader) {
        let more = reader.read(size - data.len()).await?;
        data = Received::from([&data[..], &more].concat());
    }
    Ok(data)
}

/// As its debug text tells.
fn is_empty(reader: &StreamReader) -> bool {
    !format!("{reader:?}").contains(" bytes")
}

pub(crate) fn shown_result(result: Result<Received>) -> String {
    match result {
        Ok(data) => python::shown(&data),
        Err(Error::LimitOverrun { message, consumed }) => {
            format!("LimitOverrunError consumed={consumed} {message}")
        }
        Err(error @ Error::IncompleteRead { .. }) => {
            let text = error.to_string();
            let Error::IncompleteRead { partial, expected } = error else { unreachable!() };
            let expected = expected.map_or_else(|| "None".to_owned(), |count| count.to_string());
            format!(
                "IncompleteReadError partial={} expected={expected} {text}",
                python::shown(&partial)
            )
        }
        Err(error @ Error::Other(_)) => error.to_string(),
        Err(error @ Error::Io(_)) => python::kind(&error),
        Err(error) => format!("{}: {error}", python::kind(&error)),
    }
}

/// Names the file of other scripts.
const FILE: &str = "RINGLOOP_STREAM_SCRIPTS";
