//! The steps of `tasks.py --meeting`: tasks that meet at locks and queues, stand in groups, and wait for each other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    Barrier, BoundedSemaphore, Condition, Error, Event, GetNowaitError, LifoQueue, Lock,
    PriorityQueue, PutNowaitError, Queue, ReturnWhen, Semaphore, Task, TaskGroup, TaskRef,
    as_completed, current_task, shield, wait, wait_for,
};
use serde_json::Value;

use crate::recorded::{list, number};
use crate::tasks::{Dropped, Player, Taken};

/// Where the tasks of a script meet.
pub(crate) struct Places {
    lock: Lock,
    semaphore: Semaphore,
    bounded: BoundedSemaphore,
    condition_lock: Lock,
    condition: Condition,
    event: Event,
    barrier: Barrier,
    fifo: Queue<usize>,
    lifo: LifoQueue<usize>,
    priority: PriorityQueue<usize>,
    /// Who waits for which task.
    waiting: RefCell<HashMap<usize, usize>>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            lock: Lock::new(()),
            semaphore: Semaphore::new(2),
            bounded: BoundedSemaphore::new(1),
            condition_lock: Lock::new(()),
            condition: Condition::new(),
            event: Event::new(),
            barrier: Barrier::new(3).unwrap(),
            fifo: Queue::bounded(2),
            lifo: LifoQueue::bounded(2),
            priority: PriorityQueue::new(),
            waiting: RefCell::default(),
        }
    }

    fn queue(&self, argument: &Value) -> &Queue<usize> {
        match number(argument) {
            0 => &self.fifo,
            1 => self.lifo.deref(),
            _ => self.priority.deref(),
        }
    }
}

impl Player {
    /// Takes a step of those that `--meeting` adds.
    pub(crate) async fn meet(
        self: &Rc<Self>,
        name: &str,
        kind: &str,
        argument: &Value,
        more: &Value,
    ) -> Taken {
        let places = &self.places;
        match kind {
            "lock" => {
                let _guard = places.lock.acquire().await;
                self.hold(name, kind, argument).await?;
            }
            "semaphore" => {
                let _permit = places.semaphore.acquire().await;
                self.hold(name, kind, argument).await?;
            }
            "bounded" => {
                let _permit = places.bounded.acquire().await;
                self.hold(name, kind, argument).await?;
            }
            "event set" => places.event.set(),
            "event clear" => places.event.clear(),
            "event wait" => {
                places.event.wait().await;
                self.log(format!("{name} saw the event"));
            }
            "put" | "put now" => {
                let (item, queue) = (self.number() * 7 % 5, places.queue(argument));
                let put = match kind {
                    "put" => queue.put(item).await.map_err(|_| PutNowaitError::ShutDown(item)),
                    _ => queue.put_nowait(item),
                };
                self.log(match put {
                    Ok(()) => format!("{name} put {item} into {argument}"),
                    Err(PutNowaitError::Full(_)) => format!("{name} {argument} is full"),
                    Err(PutNowaitError::ShutDown(_)) => format!("{name} {argument} is shut down"),
                });
            }
            "get" | "get now" => {
                let queue = places.queue(argument);
                let got = match kind {
                    "get" => queue.get().await.map_err(|_| GetNowaitError::ShutDown),
                    _ => queue.get_nowait(),
                };
                self.log(match got {
                    Ok(item) => format!("{name} got {item} from {argument}"),
                    Err(GetNowaitError::Empty) => format!("{name} {argument} is empty"),
                    Err(GetNowaitError::ShutDown) => format!("{name} {argument} is shut down"),
                });
            }
            "done" => {
                if let Err(error) = places.queue(argument).task_done() {
                    self.log(format!("{name} {error}"));
                }
            }
            "join" => {
                places.queue(argument).join().await;
                self.log(format!("{name} joined {argument}"));
            }
            "shutdown" => {
                places.queue(argument).shutdown(number(more) == 1);
                self.log(format!("{name} shuts {argument} down"));
            }
            "barrier" => self.log(match places.barrier.wait().await {
                Ok(index) => format!("{name} passed as {index}"),
                Err(error) => format!("{name} {error}"),
            }),
            "reset" => places.barrier.reset(),
            "abort" => places.barrier.abort(),
            "condition" => {
                let guard = places.condition_lock.acquire().await;
                self.log(format!("{name} waits for the condition"));
                let _guard = places.condition.wait(guard).await;
                self.log(format!("{name} was notified"));
            }
            "notify" => {
                let _guard = places.condition_lock.acquire().await;
                places.condition.notify(number(argument));
                self.log(format!("{name} notifies"));
            }
            "fail" => {
                self.log(format!("{name} fails"));
                return Err(format!("of {name}"));
            }
            "group" => self.group(name, argument, more).await,
            "shield" | "limit" | "join task" => self.wait_for_one(name, kind, argument).await,
            "wait for all" => self.wait_for_some(name, argument, more).await,
            "in order" => self.in_order(name, argument, more).await,
            other => panic!("unknown step {other}"),
        }
        if let "lock" | "semaphore" | "bounded" = kind {
            self.log(format!("{name} gave {kind} back"));
        }
        Ok(())
    }

    async fn hold(self: &Rc<Self>, name: &str, kind: &str, steps: &Value) -> Taken {
        self.log(format!("{name} has {kind}"));
        self.run(name, steps).await
    }

    async fn group(self: &Rc<Self>, name: &str, body: &Value, children: &Value) {
        let ended = TaskGroup::run(async |group| {
            for (index, steps) in list(children).iter().enumerate() {
                let (player, steps) = (Rc::clone(self), steps.clone());
                let name = format!("{name}.{index}");
                drop(group.create_task(async move {
                    player.log(format!("{name} begins"));
                    let mut guard = Dropped { player: &player, name: &name, ended: false };
                    let taken = player.run(&name, &steps).await;
                    guard.ended = true;
                    taken?;
                    player.log(format!("{name} ends"));
                    Ok::<_, String>(())
                }));
            }
            self.run(name, body).await
        });
        match ended.await {
            Ok(()) => self.log(format!("{name} group ended")),
            Err(Error::Multiple(group)) => {
                let errors = group.errors().iter().map(|error| format!("'{error}'"));
                let errors = errors.collect::<Vec<_>>().join(", ");
                self.log(format!("{name} group: [{errors}]"));
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn wait_for_one(&self, name: &str, kind: &str, argument: &Value) {
        let (Some(this), true) = (current_task(), self.is_spawned()) else { return };
        let Some((place, task)) = self.tasks_at([number(argument)].into_iter()).pop() else {
            return;
        };
        let this = self.place(&this);
        let mut next = Some(place);
        while let Some(place) = next {
            if place == this {
                return;
            }
            next = self.places.waiting.borrow().get(&place).copied();
        }
        self.places.waiting.borrow_mut().insert(this, place);
        let _waiting = Waiting { places: &self.places, this };
        let result = match kind {
            "shield" => shield(Task::clone(&task)).await,
            "limit" => wait_for(Duration::ZERO, Task::clone(&task)).await,
            _ => Task::clone(&task).await,
        };
        self.log(match result {
            Err(Error::Cancelled) => format!("{name} task was cancelled"),
            Err(Error::Timeout) => format!("{name} was in time for nothing"),
            _ => format!("{name} waited for {argument}"),
        });
    }

    async fn wait_for_some(&self, name: &str, which: &Value, mode: &Value) {
        let tasks = self.known(which);
        if tasks.is_empty() {
            return;
        }
        let modes =
            [ReturnWhen::FirstCompleted, ReturnWhen::FirstException, ReturnWhen::AllCompleted];
        let mode = number(mode);
        let limit = (mode == 3).then_some(Duration::ZERO);
        let waited = wait(tasks.clone(), limit, modes[mode.min(2)]).await.unwrap();
        let done = tasks.iter().map(|task| if waited.done.contains(task) { "1" } else { "0" });
        self.log(format!("{name} waited: [{}]", done.collect::<Vec<_>>().join(", ")));
    }

    async fn in_order(&self, name: &str, which: &Value, mode: &Value) {
        let tasks = self.known(which);
        if tasks.is_empty() {
            return;
        }
        let limit = (number(mode) == 3).then_some(Duration::ZERO);
        let mut ended = as_completed(tasks, limit).unwrap();
        while let Some(task) = ended.next().await {
            match task {
                Ok(task) => self.log(format!("{name} next is {}", self.place(&task))),
                Err(_) => return self.log(format!("{name} too late")),
            }
        }
    }

    fn known(&self, which: &Value) -> Vec<TaskRef> {
        let tasks = self.tasks_at(list(which).iter().map(number));
        tasks.into_iter().map(|(_, task)| task.task_ref()).collect()
    }
}

struct Waiting<'a> {
    places: &'a Places,
    this: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.places.waiting.borrow_mut().remove(&self.this);
    }
}
