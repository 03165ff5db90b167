//! The table in which a loop keeps its tasks.

use std::panic::Location;
use std::rc::Rc;

use slab::Slab;

use super::core::{OwnedCore, TaskCore};
use super::{AnyTask, TaskKey, TaskRef};
use crate::event_loop::EventLoop;

/// The tasks of one loop that are not done.
#[derive(Default)]
pub(in crate::event_loop) struct TaskTable {
    tasks: Slab<(u32, Rc<dyn AnyTask>)>,
    next_generation: u32,
    /// Cores that belong to no task.
    #[expect(clippy::vec_box, reason = "a core moves from task to task, and stays where it is")]
    free: Vec<Box<TaskCore>>,
}

impl TaskTable {
    /// Makes a task of `event_loop`, whose table this is.
    pub(super) fn insert<R>(
        &mut self,
        event_loop: &EventLoop,
        location: &'static Location<'static>,
        make: impl FnOnce(OwnedCore) -> (Rc<dyn AnyTask>, R),
    ) -> R {
        let free = self.free.pop();
        let mut core = free.unwrap_or_else(|| Box::new(TaskCore::new(event_loop, location)));
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let entry = self.tasks.vacant_entry();
        let index = u32::try_from(entry.key()).expect("memory ends before four billion tasks");
        core.begin(TaskKey { index, generation }, event_loop.next_task_number(), location);
        let (task, rest) = make(OwnedCore::new(core));
        entry.insert((generation, task));
        rest
    }

    pub(in crate::event_loop) fn get(&self, key: TaskKey) -> Option<TaskRef> {
        match self.tasks.get(key.index as usize) {
            Some((generation, task)) if *generation == key.generation => {
                Some(TaskRef::from(Rc::clone(task)))
            }
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, key: TaskKey) -> Option<Rc<dyn AnyTask>> {
        match self.tasks.get(key.index as usize) {
            Some((generation, _)) if *generation == key.generation => {
                Some(self.tasks.remove(key.index as usize).1)
            }
            _ => None,
        }
    }

    pub(in crate::event_loop) fn all(&self) -> Vec<TaskRef> {
        self.tasks.iter().map(|(_, (_, task))| TaskRef::from(Rc::clone(task))).collect()
    }

    pub(in crate::event_loop) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Keeps a core for a task to come.
    pub(super) fn keep(&mut self, core: Box<TaskCore>) {
        if self.free.len() < MOST_FREE {
            self.free.push(core);
        }
    }
}

/// A loop keeps so many cores that belong to no task.
const MOST_FREE: usize = 1024;
