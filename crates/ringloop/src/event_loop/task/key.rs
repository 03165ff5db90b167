//! How tasks are named.

/// Which task, in the table of its loop; a stale one finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::event_loop) struct TaskKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// No task in a table has this key.
pub(super) const NO_KEY: TaskKey = TaskKey { index: u32::MAX, generation: u32::MAX };
