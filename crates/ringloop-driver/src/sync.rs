//! What threads share: a model checker (`tests/loom.rs`) has its own in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub(crate) use crossbeam_queue::SegQueue as Queue;
