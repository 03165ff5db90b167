//! The table in which a loop keeps its tasks.

use std::rc::Rc;

use slab::Slab;

use super::{AnyTask, TaskKey, TaskRef};

/// The tasks of one loop that are not done.
#[derive(Default)]
pub(in crate::event_loop) struct TaskTable {
    tasks: Slab<(u32, Rc<dyn AnyTask>)>,
    next_generation: u32,
}

impl TaskTable {
    pub(super) fn insert<R>(&mut self, make: impl FnOnce(TaskKey) -> (Rc<dyn AnyTask>, R)) -> R {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let entry = self.tasks.vacant_entry();
        let index = u32::try_from(entry.key()).expect("memory ends before four billion tasks");
        let (task, rest) = make(TaskKey { index, generation });
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
        self.get(key)?;
        Some(self.tasks.remove(key.index as usize).1)
    }

    pub(in crate::event_loop) fn all(&self) -> Vec<TaskRef> {
        self.tasks.iter().map(|(_, (_, task))| TaskRef::from(Rc::clone(task))).collect()
    }

    pub(in crate::event_loop) fn len(&self) -> usize {
        self.tasks.len()
    }
}
