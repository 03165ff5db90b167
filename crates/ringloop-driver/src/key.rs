//! How ops are named: by keys towards the layer above, and by one word towards the kernel.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

/// Names one op. A key of an op that is over names nothing, also when its place is used again.
#[repr(C, packed(4))] // Twelve bytes: whoever holds one for each of many connections has room for what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpKey {
    pub(crate) index: u32,
    /// How many ops had this place before. It has 64 bits so that it never wraps: a key that is kept for hours names no
    /// later op. It begins with one, so that a place for a key takes no more room than a key.
    pub(crate) generation: NonZeroU64,
}

/// The part of a key that fits into the 64 bits of user data in a request: the index, and the lower half of the generation.
/// Half is enough to tell an op from those that had its place before, since all of their entries have come by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OpKey {
    #[inline]
    pub(crate) fn mark(self) -> Mark {
        Mark { index: self.index, generation: self.generation.get() as u32 }
    }

    /// All keys that any op in the place of `mark` has ever had, in order.
    pub(crate) fn all_at(mark: Mark) -> RangeInclusive<Self> {
        let key = |generation| Self { index: mark.index, generation };
        key(NonZeroU64::MIN)..=key(NonZeroU64::MAX)
    }
}

/// What a completion is about: an op, or one of the driver's own requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag<K = OpKey> {
    Op(K),
    /// The poll that is kept apart for an op.
    Quiet(K),
    Wake,
    /// A cancel or a close, which nobody waits for.
    Aside,
}

impl Tag {
    /// The user data of a request: half of the generation, the index and the kind. By the generation, a late completion of
    /// an op that is over is found to be of no op.
    #[inline]
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::Op(key) => key.generation.get() << 32 | u64::from(key.index) << 2 | OP,
            Self::Quiet(key) => Self::Op(key).encode() | QUIET,
            Self::Wake => WAKE,
            Self::Aside => ASIDE,
        }
    }
}

impl Tag<Mark> {
    #[inline]
    pub(crate) fn decode(user_data: u64) -> Self {
        let mark = Mark { index: (user_data as u32) >> 2, generation: (user_data >> 32) as u32 };
        match user_data & 3 {
            OP => Self::Op(mark),
            QUIET => Self::Quiet(mark),
            WAKE => Self::Wake,
            _ => Self::Aside,
        }
    }
}

const OP: u64 = 0;
const WAKE: u64 = 1;
const ASIDE: u64 = 2;
const QUIET: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_from_its_word() {
        for generation in [1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let generation = NonZeroU64::new(generation).unwrap();
            for index in [0, 1, (1 << 30) - 1] {
                let key = OpKey { index, generation };
                assert_eq!(Tag::decode(Tag::Op(key).encode()), Tag::Op(key.mark()));
                let quiet = Tag::Quiet(key);
                assert_eq!(Tag::decode(quiet.encode()), Tag::Quiet(key.mark()));
            }
        }
        assert_eq!(Tag::decode(Tag::Wake.encode()), Tag::Wake);
        assert_eq!(Tag::decode(Tag::Aside.encode()), Tag::Aside);
    }
}
