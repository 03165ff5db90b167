//! What replays are written with.
//!
//! A replay takes the steps of its scenario at the same suspension points, and logs what happens. The module that holds it
//! names it in [`replays!`], which makes a test of it, or one per write mode if it has transports. The first letters of its
//! name are the id under which the trace of CPython stands.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, EventLoop, Transport, WriteMode};
use ringloop_driver::testing::Faults;
use ringloop_tests::clean::on_loop_with;
use ringloop_tests::isolated;
use ringloop_tests::python;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets;
use ringloop_tests::trace::{self, Trace};
use socket2::Socket;

use crate::tables::{self, Deviation, Exempt};

/// One run of a scenario. Clones are the same run.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// What it has logged.
    pub(crate) trace: Trace,
    pub(crate) how: How,
}

/// What a scenario is replayed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// That of all transports.
    pub(crate) mode: WriteMode,
    /// That of pairs, where it does not matter.
    pub(crate) family: Family,
}

/// What [`Scenario::pair`] is a pair of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Unix,
    Tcp,
}

impl Scenario {
    fn new(how: How) -> Self {
        Self { trace: Trace::new(), how }
    }

    /// A connected pair of sockets that do not block.
    pub(crate) fn pair(&self) -> (Socket, Socket) {
        match self.how.family {
            Family::Unix => sockets::pair(),
            Family::Tcp => sockets::narrow_tcp_pair(),
        }
    }

    /// Logs an event in the lane `main`.
    pub(crate) fn log(&self, event: impl AsRef<str>) {
        self.trace.log("main", event);
    }

    /// Logs an event in the lane `proto`, as scenarios with one transport do.
    pub(crate) fn log_proto(&self, event: impl AsRef<str>) {
        self.trace.log("proto", event);
    }

    /// A protocol that logs its callbacks in the lane `proto`.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(&self.trace, self.how.mode)
    }

    /// Connects `recorder` to a socket.
    pub(crate) async fn attach(
        &self,
        socket: Socket,
        recorder: Recorder,
    ) -> (Transport, Rc<Recorder>) {
        running().create_connection(|| recorder, socket).await.unwrap()
    }

    /// Logs what comes to the exception handler of the running loop.
    pub(crate) fn log_reports(&self) {
        self.log_reports_of(&running());
    }

    /// Logs what comes to the exception handler of `event_loop`.
    pub(crate) fn log_reports_of(&self, event_loop: &EventLoop) {
        let trace = self.trace.clone();
        event_loop.set_exception_handler(move |_, context| {
            let in_callback = context.message.starts_with("Exception in callback");
            let message =
                if in_callback { "Exception in callback <cb>" } else { &*context.message };
            let kind = context.error.map_or_else(|| "None".to_owned(), python::kind);
            trace.log("exc", format!("handler(\"{message}\", {kind})"));
        });
    }

    /// A loop whose reports are logged.
    pub(crate) fn new_loop(&self) -> EventLoop {
        let event_loop = EventLoop::new().unwrap();
        self.log_reports_of(&event_loop);
        event_loop
    }
}

/// The loop that the scenario runs on.
pub(crate) fn running() -> EventLoop {
    EventLoop::running().unwrap()
}

/// `RuntimeError: text`, of what failed.
pub(crate) fn with_text<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => format!("{}: {error}", python::kind(&error)),
    }
}

/// The kind of what failed: `ConnectionRefusedError[ECONNREFUSED]`.
pub(crate) fn kind_of<T, E: std::error::Error + 'static>(result: Result<T, E>) -> String {
    result.map_or_else(|error| python::kind(&error), |_| "no error".to_owned())
}

/// `True` or `False`, for a trace.
pub(crate) fn py(value: bool) -> &'static str {
    python::boolean(value)
}

/// `[True, False]`, for a trace.
pub(crate) fn py_list(values: impl IntoIterator<Item = impl Display>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

/// Makes tests of the replays of a module: `plain` ones make their loops themselves, `tasks` run as the main task of a loop,
/// and `transports` do that once per write mode. Those that stand `over_tcp` too, with the same trace, ask the scenario for
/// their pairs.
macro_rules! replays {
    (@plain $name:ident) => {
        ringloop_tests::isolated::Test {
            name: stringify!($name),
            body: || crate::scenario::replay_plain(stringify!($name), $name),
            deadline: crate::scenario::DEADLINE,
        }
    };
    (@task $name:ident, $suffix:literal, $mode:ident, $family:ident) => {
        ringloop_tests::isolated::Test {
            name: concat!(stringify!($name), $suffix),
            body: || {
                let how = crate::scenario::How {
                    mode: ringloop::WriteMode::$mode,
                    family: crate::scenario::Family::$family,
                };
                crate::scenario::replay_task(stringify!($name), how, |s| Box::pin($name(s)))
            },
            deadline: crate::scenario::DEADLINE,
        }
    };
    (
        plain: [$($plain:ident),* $(,)?],
        tasks: [$($task:ident),* $(,)?],
        transports: [$($transport:ident),* $(,)?],
        over_tcp: [$($tcp:ident),* $(,)?] $(,)?
    ) => {
        pub(crate) const TESTS: &[ringloop_tests::isolated::Test] = &[
            $(crate::scenario::replays!(@plain $plain),)*
            $(crate::scenario::replays!(@task $task, "", Immediate, Unix),)*
            $(
                crate::scenario::replays!(@task $transport, "__immediate", Immediate, Unix),
                crate::scenario::replays!(@task $transport, "__batched", Batched, Unix),
            )*
            $(
                crate::scenario::replays!(@task $tcp, "__immediate_tcp", Immediate, Tcp),
                crate::scenario::replays!(@task $tcp, "__batched_tcp", Batched, Tcp),
            )*
        ];
    };
}
pub(crate) use replays;

/// Emits a line of a scenario that `exempt.md` excuses: the number counts the lines of its trace, from 1.
macro_rules! excluded {
    ($id:literal, $number:literal) => {
        crate::scenario::exclude($id, $number)
    };
}
pub(crate) use excluded;

/// See [`excluded!`].
pub(crate) fn exclude(id: &str, number: usize) {
    let entry = Exempt::Line(id.to_owned(), number);
    assert!(tables::exempt().contains(&entry), "exempt.md has no entry for {id} line {number}");
    let line = tables::expected(id).line(number).expect("the tables are checked").to_owned();
    CURRENT.with_borrow(|scenario| {
        let (current, trace) = scenario.as_ref().expect("a scenario runs");
        assert_eq!(current, id, "a line of another scenario");
        trace.push(line);
    });
    isolated::note(format_args!("{EXCLUDED}{id} line {number}"));
}

/// Replays a scenario that makes its loops itself.
pub(crate) fn replay_plain(name: &str, body: fn(&Scenario)) {
    let scenario = begin(name, How { mode: WriteMode::Immediate, family: Family::Unix });
    body(&scenario);
    check(name, &scenario);
}

/// Replays a scenario as the main task of a loop.
pub(crate) fn replay_task(name: &str, how: How, body: fn(Scenario) -> Body) {
    let scenario = begin(name, how);
    let main = async {
        scenario.log_reports(); // Those that nobody expects too.
        body(scenario.clone()).await;
    };
    match FAULTS.get() {
        None => ringloop::run(main).unwrap(),
        faults => on_loop_with(faults, main),
    }
    check(name, &scenario);
}

/// The main task.
pub(crate) type Body = Pin<Box<dyn Future<Output = ()>>>;

fn begin(name: &str, how: How) -> Scenario {
    let scenario = Scenario::new(how);
    CURRENT.set(Some((id_of(name), scenario.trace.clone())));
    scenario
}

/// `T12` of `t12_write_on_an_idle_socket…`; `own T19` of `own_t19_a_send_that_fails…`.
pub(crate) fn id_of(name: &str) -> String {
    let (own, name) = name.strip_prefix("own_").map_or(("", name), |name| ("own ", name));
    let (id, _) = name.split_once('_').expect("a name goes on after the id");
    format!("{own}{}", id.to_uppercase())
}

fn check(name: &str, scenario: &Scenario) {
    let id = id_of(name);
    let mut expected = tables::expected(&id);
    let deviations = deviations_of(&id, scenario.how.mode);
    for entry in &deviations {
        expected.lines[entry.number - 1].clone_from(&entry.line);
    }
    if let Err(text) = trace::compare(expected.order, &expected.lines, &scenario.trace.lines()) {
        panic!("{id}, {:?}, {deviations:#?}: {text}", scenario.how);
    }
}

/// The lines that stand in the place of asyncio's. If one of them is not needed, the traces differ because of it.
fn deviations_of(id: &str, mode: WriteMode) -> Vec<Deviation> {
    match mode {
        WriteMode::Immediate => Vec::new(),
        WriteMode::Batched => {
            tables::deviations().into_iter().filter(|entry| entry.scenario == id).collect()
        }
    }
}

thread_local! {
    /// What goes wrong below while scenarios are replayed.
    pub(crate) static FAULTS: Cell<Option<Faults>> = const { Cell::new(None) };
    /// The id and the trace of the scenario that this process replays.
    static CURRENT: RefCell<Option<(String, Trace)>> = const { RefCell::new(None) };
}

/// Begins the note about an excused line.
pub(crate) const EXCLUDED: &str = "excused ";
/// For a replay that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);
