//! Water marks: when `pause_writing()` and `resume_writing()` of a protocol are called.
//!
//! ```text
//! flowing -- size > high --> paused -- size <= low --> flowing
//! ```
//!
//! This file only decides; the transport makes the calls.

use std::cell::Cell;

use crate::{Error, Result};

/// The marks of one transport, and on which side its protocol is. Never calls out.
#[derive(Debug)]
pub(crate) struct FlowControl {
    low: Cell<usize>,
    high: Cell<usize>,
    paused: Cell<bool>,
}

impl FlowControl {
    pub(crate) fn new() -> Self {
        Self { low: Cell::new(LOW_WATER), high: Cell::new(HIGH_WATER), paused: Cell::new(false) }
    }

    /// As asyncio: (low, high).
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.low.get(), self.high.get())
    }

    /// A mark that is not given follows from the other, a quarter or four times of it.
    pub(crate) fn set_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        let high = high.unwrap_or_else(|| low.map_or(HIGH_WATER, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if low > high {
            let text = format!("high ({high}) must be >= low ({low}) must be >= 0");
            return Err(Error::invalid_argument(text));
        }
        self.high.set(high);
        self.low.set(low);
        Ok(())
    }

    pub(crate) fn is_over(&self, size: usize) -> bool {
        size > self.high.get()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Whether a paused protocol is to be resumed with so much in the buffer.
    pub(crate) fn would_resume(&self, size: usize) -> bool {
        self.paused.get() && size <= self.low.get()
    }

    /// Whether the protocol is to be paused now. If so it counts as paused from here on.
    pub(crate) fn try_pause(&self, size: usize) -> bool {
        self.is_over(size) && !self.paused.replace(true)
    }

    /// Whether the protocol is to be resumed now. If so it counts as resumed from here on.
    pub(crate) fn try_resume(&self, size: usize) -> bool {
        let resumes = self.would_resume(size);
        if resumes {
            self.paused.set(false);
        }
        resumes
    }
}

const HIGH_WATER: usize = 64 * 1024;
const LOW_WATER: usize = HIGH_WATER / 4;

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FLOW-01, FLOW-02
    #[test]
    fn a_mark_that_is_not_given_follows_from_the_other() {
        let flow = FlowControl::new();
        assert_eq!(flow.limits(), (16384, 65536));
        for (high, low, limits) in [
            (Some(100), None, (25, 100)),
            (None, Some(100), (100, 400)),
            (Some(0), None, (0, 0)),
            (Some(7), Some(7), (7, 7)),
            (None, None, (16384, 65536)),
        ] {
            flow.set_limits(high, low).unwrap();
            assert_eq!(flow.limits(), limits);
        }
    }

    // spec: FLOW-03
    #[test]
    fn a_low_mark_over_the_high_one_is_refused_and_changes_nothing() {
        let flow = FlowControl::new();
        let error = flow.set_limits(Some(1), Some(2)).unwrap_err();
        assert_eq!(error.to_string(), "high (1) must be >= low (2) must be >= 0");
        assert_eq!(flow.limits(), (16384, 65536));
    }

    // spec: FLOW-05, FLOW-06, PROTO-07
    #[test]
    fn pause_and_resume_alternate_and_the_marks_themselves_count_as_below() {
        let flow = FlowControl::new();
        assert!(!flow.try_pause(65536));
        assert!(!flow.try_resume(0));
        assert!(flow.try_pause(65537));
        assert!(!flow.try_pause(70000));
        assert!(!flow.try_resume(16385));
        assert!(flow.try_resume(16384));
        assert!(!flow.try_resume(0));
    }
}
