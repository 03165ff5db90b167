//! Where the fault layer takes a hand: at ops that are to be armed, and at completions. For tests only.

use super::Driver;
use crate::completion::{Completion, Outcome};
use crate::key::OpKey;

impl Driver {
    /// Ends an op instead of arming it, or takes a part of what it would send. True if it must not be armed.
    pub(super) fn spoil(&mut self, key: OpKey) -> bool {
        match (&mut self.faults, self.ops.get_mut(key)) {
            (Some(faults), Some(op)) => faults.spoil(key, op),
            _ => false,
        }
    }

    /// Gives one result of many in two parts.
    pub(super) fn split(&mut self, mut completion: Completion) -> Completion {
        let Some(faults) = &mut self.faults else { return completion };
        let Outcome::Received(Ok(bytes)) = &mut completion.outcome else { return completion };
        let cut = if completion.more { faults.split(bytes.len()) } else { None };
        let Some(cut) = cut else { return completion };
        let first = bytes.split_to(cut);
        let Completion { token, key, more, .. } = completion;
        self.decoded.push_front(completion);
        Completion { token, key, more, outcome: Outcome::Received(Ok(first)) }
    }
}
