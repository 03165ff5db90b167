//! How tasks are named.

/// Which task, in the table of its loop; a stale one finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::event_loop) struct TaskKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl TaskKey {
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self { index: (bits >> 32) as u32, generation: bits as u32 }
    }
}

/// No task in a table has this key.
pub(super) const NO_KEY: TaskKey = TaskKey { index: u32::MAX, generation: u32::MAX };
