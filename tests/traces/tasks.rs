//! Random scripts of steps in tasks and callbacks: `tasks.py` makes them and has CPython's side.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, LoopFuture, Task, TaskRef, catch_cancel, current_task};
use ringloop_tests::idle::turn;
use ringloop_tests::isolated::Test;
use ringloop_tests::trace::{self, Order, Trace};
use serde_json::Value;

use crate::meeting::Places;
use crate::recorded::{self, list, number, text};
use crate::scenario::{py, running};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "tasks_take_their_steps_in_the_order_of_cpython",
        body: tasks_take_their_steps_in_the_order_of_cpython,
        deadline: Duration::from_secs(600),
    },
    Test {
        name: "tasks_that_meet_take_their_steps_in_the_order_of_cpython",
        body: tasks_that_meet_take_their_steps_in_the_order_of_cpython,
        deadline: Duration::from_secs(600),
    },
];

// spec: LOOP-01, FUT-04, TASK-03, TASK-05
fn tasks_take_their_steps_in_the_order_of_cpython() {
    replay_all(include_str!("tasks.json"));
}

// spec: TASK-11, TASK-16, SYNC-01, SYNC-02
fn tasks_that_meet_take_their_steps_in_the_order_of_cpython() {
    replay_all(include_str!("meeting.json"));
}

/// All that are recorded, or those of the file that a developer names.
fn replay_all(recorded: &str) {
    let scripts = recorded::scripts(FILE, recorded);
    recorded::check(scripts.iter().filter_map(replay).collect(), &scripts);
}

/// How the trace of a script differs.
fn replay(script: &Value) -> Option<String> {
    let trace = Trace::new();
    ringloop::run(play(trace.clone(), script.clone())).unwrap();
    let expected = recorded::trace(script);
    let difference = trace::compare(Order::Total, &expected, &trace.lines()).err()?;
    Some(format!("{} {} {}: {difference}", script["seed"], script["steps"], script["turns"]))
}

async fn play(trace: Trace, script: Value) {
    let player = Rc::new(Player {
        trace,
        futures: [0; FUTURES].map(|_| running().create_future()),
        tasks: RefCell::default(),
        count: Cell::new(0),
        places: Places::new(),
    });
    player.spawn(script["steps"].clone());
    turn(number(&script["turns"])).await;
    player.log("main cancels");
    player.cancel_all();
    for _ in 0..30 {
        turn(1).await;
        if player.all_done() {
            break;
        }
        player.cancel_all();
    }
    player.log(format!("main ends, all done={}", py(player.all_done())));
}

pub(crate) struct Player {
    trace: Trace,
    futures: [LoopFuture<()>; FUTURES],
    tasks: RefCell<Vec<Rc<Task<()>>>>,
    count: Cell<usize>,
    pub(crate) places: Places,
}

/// What a step that fails gives.
pub(crate) type Taken = Result<(), String>;

impl Player {
    pub(crate) fn log(&self, event: impl AsRef<str>) {
        self.trace.log("main", event);
    }

    pub(crate) fn number(&self) -> usize {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    fn cancel_all(&self) {
        let tasks = self.tasks.borrow().clone();
        for task in tasks {
            task.cancel();
        }
    }

    fn all_done(&self) -> bool {
        self.tasks.borrow().iter().all(|task| task.done())
    }

    fn spawn(self: &Rc<Self>, steps: Value) {
        let player = Rc::clone(self);
        let name = format!("task {}", self.tasks.borrow().len());
        let body = async move {
            player.log(format!("{name} begins"));
            let mut guard = Dropped { player: &player, name: &name, ended: false };
            let taken = player.run(&name, &steps).await;
            guard.ended = true;
            taken.expect("only the children of groups fail");
            player.log(format!("{name} ends"));
        };
        self.tasks.borrow_mut().push(Rc::new(running().create_task(body)));
    }

    /// Boxed, since a step may have steps of its own.
    pub(crate) fn run<'a>(
        self: &'a Rc<Self>,
        name: &'a str,
        steps: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Taken> + 'a>> {
        Box::pin(async move {
            for step in list(steps) {
                let step = list(step);
                let (kind, argument) = (text(&step[0]), step.get(1).unwrap_or(&Value::Null));
                self.take(name, kind, argument, step.get(2).unwrap_or(&Value::Null)).await?;
            }
            Ok(())
        })
    }

    async fn take(
        self: &Rc<Self>,
        name: &str,
        kind: &str,
        argument: &Value,
        more: &Value,
    ) -> Taken {
        match kind {
            "log" => self.log(format!("{name} {}", self.number())),
            "turn" => {
                turn(number(argument)).await;
                self.log(format!("{name} turned"));
            }
            "soon" => {
                let (player, text) = (Rc::clone(self), format!("soon {}", self.number()));
                running().call_soon(move |_| player.log(text)).unwrap();
            }
            "later" => {
                let (player, text) = (Rc::clone(self), format!("later {}", self.number()));
                running().call_later(Duration::ZERO, move |_| player.log(text)).unwrap();
            }
            "set" => {
                if self.futures[number(argument)].set_result(()).is_err() {
                    self.log(format!("{name} InvalidStateError"));
                }
            }
            "cancel future" => {
                let cancelled = self.futures[number(argument)].cancel();
                self.log(format!("{name} cancels {}", py(cancelled)));
            }
            "state" => {
                let future = &self.futures[number(argument)];
                let (done, cancelled) = (py(future.done()), py(future.cancelled()));
                self.log(format!("{name} done={done} cancelled={cancelled}"));
            }
            "watch" => {
                let (player, n) = (Rc::clone(self), self.number());
                self.futures[number(argument)].add_done_callback(move |future| {
                    player.log(format!("watch {n} cancelled={}", py(future.cancelled())));
                });
            }
            "wait" => match self.futures[number(argument)].clone().await {
                Ok(()) => self.log(format!("{name} got {argument}")),
                Err(Error::Cancelled) => self.log(format!("{name} future was cancelled")),
                Err(error) => panic!("{error}"),
            },
            "spawn" => self.spawn(argument.clone()),
            "cancel task" => {
                let task = self.tasks.borrow().get(number(argument)).cloned();
                if let Some(task) = task {
                    let cancelled = py(task.cancel());
                    self.log(format!("{name} cancels task {argument} {cancelled}"));
                }
            }
            "catch" => match catch_cancel(self.run(name, argument)).await {
                Ok(taken) => {
                    taken?;
                    self.log(format!("{name} nothing caught"));
                }
                Err(_) => {
                    let left = current_task().expect("in a task").uncancel();
                    self.log(format!("{name} caught, uncancel={left}"));
                }
            },
            "cancel self" => {
                current_task().expect("in a task").cancel();
                self.log(format!("{name} cancels itself"));
            }
            other => return self.meet(name, other, argument, more).await,
        }
        Ok(())
    }

    /// The tasks at these places that there are, but for the one that asks.
    pub(crate) fn tasks_at<'a>(
        &'a self,
        places: impl Iterator<Item = usize> + 'a,
    ) -> Vec<(usize, Rc<Task<()>>)> {
        let tasks = self.tasks.borrow();
        places
            .filter_map(|place| Some((place, Rc::clone(tasks.get(place)?))))
            .filter(|(_, task)| current_task() != Some(task.task_ref()))
            .collect()
    }

    pub(crate) fn place(&self, this: &TaskRef) -> usize {
        let tasks = self.tasks.borrow();
        tasks.iter().position(|task| task.task_ref() == *this).expect("it was spawned")
    }

    /// Whether the task that asks is none of a group.
    pub(crate) fn is_spawned(&self) -> bool {
        let this = current_task();
        self.tasks.borrow().iter().any(|task| Some(task.task_ref()) == this)
    }
}

/// Where Python's body sees a `CancelledError`, ours is dropped.
pub(crate) struct Dropped<'a> {
    pub(crate) player: &'a Player,
    pub(crate) name: &'a str,
    pub(crate) ended: bool,
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.player.log(format!("{} is dropped", self.name));
        }
    }
}

const FUTURES: usize = 3;

/// Names a file of scripts that stands in for the recorded ones.
const FILE: &str = "RINGLOOP_TASKS";
