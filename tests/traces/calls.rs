//! Random scripts of socket calls in tasks: `calls.py` makes them and has CPython's side.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Address, Error, Result, Socket, Task, catch_cancel, timeout, yield_now};
use ringloop_tests::clean::on_loop;
use ringloop_tests::isolated::Test;
use ringloop_tests::python;
use ringloop_tests::trace::{self, Order};
use serde_json::Value;
use socket2::{Domain, SockRef, Type};

use crate::recorded::{self, list, number, text};
use crate::scenario::{py, running};
use crate::scripts::pattern;

pub(crate) const TESTS: &[Test] = &[Test {
    name: "scripts_of_socket_calls_give_the_traces_of_cpython",
    body: replay_all,
    deadline: Duration::from_secs(600),
}];

/// All that are recorded, or those of the file that a developer names.
// spec: SOCK-01, SOCK-08, SOCK-21, SOCK-50
fn replay_all() {
    let scripts = recorded::scripts(FILE, include_str!("calls.json"));
    recorded::check(scripts.iter().filter_map(replay).collect(), &scripts);
}

/// How the trace of a script differs.
fn replay(script: &Value) -> Option<String> {
    let player = Rc::new(Player::new(script));
    on_loop(play(&player, list(&script["steps"])));
    let expected = recorded::trace(script);
    let difference = trace::compare(Order::Total, &expected, &player.lines.borrow()).err()?;
    Some(format!("{} {} {}: {difference}", script["seed"], script["family"], script["steps"]))
}

async fn play(player: &Rc<Player>, steps: &[Value]) {
    for step in steps {
        player.take(list(step)).await;
    }
    player.turn(4).await;
    let waiting: Vec<_> = player.active().map(|index| format!("t{index}")).collect();
    player.log("main", format!("waiting={}", waiting.join(",")));
    for call in &*player.calls.borrow() {
        call.task.cancel();
    }
    player.turn(4).await;
    let names: Vec<_> = player.sockets.borrow().keys().cloned().collect();
    for name in names {
        player.pull(&name).await;
    }
    player.sockets.take();
    player.mark();
}

/// The sockets of a script, and what their calls have given.
struct Player {
    family: String,
    lines: RefCell<Vec<String>>,
    /// Those of this iteration.
    block: RefCell<Vec<String>>,
    sockets: RefCell<BTreeMap<String, Rc<Socket>>>,
    address: Option<Address>,
    calls: RefCell<Vec<Call>>,
    accepted: Cell<usize>,
    /// How many bytes were sent by each socket, and how many it has got.
    sent: RefCell<BTreeMap<String, usize>>,
    got: RefCell<BTreeMap<String, usize>>,
    /// Those that send nothing any more: what was sent last is cut somewhere.
    mute: RefCell<BTreeSet<String>>,
    /// Those that have connected, or tried to.
    tried: RefCell<BTreeSet<String>>,
    /// No two receive on one socket.
    has_one_reader: bool,
    /// Something was sent that the kernel does not take at once.
    is_large: Cell<bool>,
}

struct Call {
    kind: String,
    name: String,
    task: Task<()>,
}

impl Player {
    fn new(script: &Value) -> Self {
        let family = text(&script["family"]);
        let mut sockets = BTreeMap::new();
        let mut address = None;
        if family == "tcp" {
            let listener = tcp_socket();
            let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            listener.bind(any).unwrap();
            listener.listen(20).unwrap();
            address = Some(listener.getsockname().unwrap());
            sockets.insert("l".to_owned(), listener);
            sockets.extend((0..3).map(|i| (format!("c{i}"), tcp_socket())));
        } else {
            let kind = if family == "unix" { Type::STREAM } else { Type::DGRAM };
            let (a, b) = socket2::Socket::pair(Domain::UNIX, kind.nonblocking(), None).unwrap();
            sockets.insert("a".to_owned(), a.into());
            sockets.insert("b".to_owned(), b.into());
        }
        Self {
            family: family.to_owned(),
            lines: RefCell::default(),
            block: RefCell::default(),
            sockets: RefCell::new(
                sockets.into_iter().map(|(name, socket)| (name, Rc::new(socket))).collect(),
            ),
            address,
            calls: RefCell::default(),
            accepted: Cell::default(),
            sent: RefCell::default(),
            got: RefCell::default(),
            mute: RefCell::default(),
            tried: RefCell::default(),
            has_one_reader: script["one_reader"] == Value::Bool(true),
            is_large: Cell::default(),
        }
    }

    fn log(&self, who: impl AsRef<str>, event: impl AsRef<str>) {
        self.block.borrow_mut().push(format!("{}: {}", who.as_ref(), event.as_ref()));
    }

    /// Ends an iteration.
    fn mark(&self) {
        let mut block = self.block.take();
        block.sort();
        self.lines.borrow_mut().extend(block);
        self.lines.borrow_mut().push("--".to_owned());
    }

    async fn turn(&self, count: usize) {
        for _ in 0..count {
            yield_now().await;
            self.mark();
        }
    }

    /// Timers of less time are due before this one, and what waits for them goes on before this does.
    async fn settle(&self) {
        yield_now().await; // A call that was started just now sets its timer first, however late the loop is.
        ringloop::sleep(Duration::from_millis(3)).await;
        for _ in 0..4 {
            yield_now().await;
        }
        self.mark();
    }

    /// The numbers of the calls that are not done.
    fn active(&self) -> impl Iterator<Item = usize> {
        let calls = self.calls.borrow();
        let active = calls.iter().enumerate().filter(|(_, call)| !call.task.done());
        active.map(|(index, _)| index).collect::<Vec<_>>().into_iter()
    }

    fn is_busy(&self, name: &str, kinds: &[&str]) -> bool {
        let calls = self.calls.borrow();
        calls.iter().any(|call| {
            let is_one = kinds.is_empty() || kinds.contains(&call.kind.as_str());
            !call.task.done() && call.name == name && is_one
        })
    }

    async fn take(self: &Rc<Self>, step: &[Value]) {
        let kind = text(&step[0]);
        let (name, numbers) = match kind {
            "turn" => return self.turn(number(&step[1])).await,
            "settle" => return self.settle().await,
            "cancel" => {
                let calls = self.calls.borrow();
                if let Some(index) = calls.len().checked_sub(number(&step[1])) {
                    self.log("main", format!("cancel={}", py(calls[index].task.cancel())));
                }
                return;
            }
            "accept" | "patience" | "stop" => ("l", &step[1..]),
            _ => (text(&step[1]), &step[2..]),
        };
        let Some(socket) = self.sockets.borrow().get(name).cloned() else { return };
        let is_refused = match kind {
            "send" => self.mute.borrow().contains(name) || self.is_busy(name, &["send", "connect"]),
            "recv" | "into" | "timed" => {
                self.is_busy(name, &["connect"])
                    || socket.fileno() < 0 && number(&numbers[0]) == 0
                    || self.has_one_reader && self.is_busy(name, &["recv", "into", "timed"])
            }
            "connect" => !self.tried.borrow_mut().insert(name.to_owned()),
            "stop" => ["l", "c0", "c1", "c2"].iter().any(|name| match *name {
                "l" => self.is_busy(name, &[]),
                _ => self.is_busy(name, &["connect"]),
            }),
            "close" | "pull" | "shut" => self.is_busy(name, &[]),
            _ => false,
        };
        if is_refused {
            return;
        }
        match kind {
            "close" | "stop" => socket.close(),
            "shut" => {
                if let Err(error) = socket.shutdown(Shutdown::Write) {
                    self.log("main", python::kind(&error));
                }
            }
            "pull" => self.pull(name).await,
            _ => self.start(kind, name, socket, numbers.iter().map(number).collect()),
        }
    }

    fn start(self: &Rc<Self>, kind: &str, name: &str, socket: Rc<Socket>, numbers: Vec<usize>) {
        let is_large = kind == "send" && numbers[0] == LARGE;
        self.is_large.set(self.is_large.get() || is_large);
        let (player, kind, name) = (Rc::clone(self), kind.to_owned(), name.to_owned());
        let who = format!("t{}", self.calls.borrow().len());
        let call = Call {
            kind: kind.clone(),
            name: name.clone(),
            task: running().create_task(async move {
                let result = catch_cancel(player.call(&kind, &name, &socket, &numbers)).await;
                let is_lost = kind == "send" && (is_large || matches!(result, Ok(Err(_))));
                let event = match result {
                    Ok(Ok(event)) => event,
                    failed => {
                        if is_lost {
                            player.mute.borrow_mut().insert(name.clone());
                        }
                        if let (true, Ok(Err(_))) = (kind == "connect", &failed) {
                            player.sockets.borrow_mut().remove(&name);
                        }
                        match failed {
                            Ok(Err(Error::Timeout)) => "TimeoutError".to_owned(),
                            Ok(Err(error)) => python::kind(&error),
                            _ => "cancelled".to_owned(),
                        }
                    }
                };
                player.log(who, event);
            }),
        };
        self.calls.borrow_mut().push(call);
    }

    async fn call(
        &self,
        kind: &str,
        name: &str,
        socket: &Rc<Socket>,
        numbers: &[usize],
    ) -> Result<String> {
        let time = |index: usize| Duration::from_millis(numbers[index] as u64);
        match kind {
            "recv" => Ok(self.data(name, &socket.recv(numbers[0]).await?)),
            "timed" => Ok(self.data(name, &timeout(time(1), socket.recv(numbers[0])).await??)),
            "into" => {
                let mut buffer = vec![0; numbers[0]];
                let count = socket.recv_into(&mut buffer).await?;
                Ok(self.data(name, &buffer[..count]))
            }
            "send" => {
                let start = *self.sent.borrow().get(name).unwrap_or(&0);
                self.sent.borrow_mut().insert(name.to_owned(), start + numbers[0]);
                socket.sendall(&pattern(start, numbers[0])[..]).await?;
                Ok("sent".to_owned())
            }
            "accept" => Ok(self.welcome(socket.accept().await?)),
            "patience" => Ok(self.welcome(timeout(time(0), socket.accept()).await??)),
            _ => {
                socket.connect(self.address.clone().expect("a listener")).await?;
                Ok("connected".to_owned())
            }
        }
    }

    fn welcome(&self, (socket, address): (Socket, Address)) -> String {
        let name = format!("s{}", self.accepted.replace(self.accepted.get() + 1));
        let same = socket.getpeername().is_ok_and(|peer| peer == address);
        let nonblocking = socket.with_fd(|fd| SockRef::from(&fd).nonblocking()).unwrap().unwrap();
        let event = format!("{name} same={} blocking={}", py(same), py(!nonblocking));
        self.sockets.borrow_mut().insert(name, Rc::new(socket));
        event
    }

    /// As it is shown: how a large send comes is up to the kernel.
    fn data(&self, name: &str, data: &[u8]) -> String {
        let start = *self.got.borrow().get(name).unwrap_or(&0);
        self.got.borrow_mut().insert(name.to_owned(), start + data.len());
        if !self.is_large.get() {
            return python::shown(data);
        }
        let equal = *data == *pattern(start, data.len());
        format!("some={} equal={}", py(!data.is_empty()), py(equal))
    }

    /// Receives what there is, and what comes when that is gone.
    async fn pull(&self, name: &str) {
        if name == "l" {
            return;
        }
        let socket = Rc::clone(&self.sockets.borrow()[name]);
        let (mut calm, mut end, mut got) = (0, "None".to_owned(), Vec::new());
        while calm < 2 {
            match timeout(Duration::ZERO, socket.recv(65536)).await.and_then(|received| received) {
                Ok(data) if data.is_empty() => {
                    end = "EOF".to_owned();
                    break;
                }
                Ok(data) => {
                    got.push(data.to_vec());
                    calm = 0;
                }
                Err(Error::Timeout) => {
                    calm += 1;
                    self.settle().await;
                }
                Err(error) => {
                    end = python::kind(&error);
                    break;
                }
            }
        }
        let lengths: Vec<_> = got.iter().map(|data| data.len()).collect();
        let lengths =
            if self.family == "datagram" { format!("{lengths:?}") } else { String::new() };
        let data = self.data(name, &got.concat());
        self.log("main", format!("{name} pulled {lengths} {data} {end}"));
        self.settle().await;
    }
}

/// What is sent does not wait until what was sent before is acknowledged: that may take longer than a script.
fn tcp_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM).unwrap();
    socket.with_fd(|fd| SockRef::from(&fd).set_tcp_nodelay(true)).unwrap().unwrap();
    socket
}

/// The size of a send that waits.
const LARGE: usize = 400_000;

/// Names a file of scripts that stands in for the recorded ones.
const FILE: &str = "RINGLOOP_CALL_SCRIPTS";
