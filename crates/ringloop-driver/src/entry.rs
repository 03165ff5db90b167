//! What a backend says of one op: a result, and whether more will come.

use std::io;

use crate::key::{OpKey, Tag};

/// An entry of the completion queue, laid out as the kernel's ring has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) user_data: u64,
    /// A count or a descriptor, or an errno below zero.
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Entry {
    /// The result of a call that was made here.
    #[inline]
    pub(crate) fn of(subject: Tag, result: i32, more: bool) -> Self {
        Self { user_data: subject.encode(), result, flags: if more { FLAG_MORE } else { 0 } }
    }

    /// `count` bytes in buffer `index` of the group with this number, which was chosen here.
    #[inline]
    pub(crate) fn in_buffer(key: OpKey, count: usize, group: u16, index: u16, more: bool) -> Self {
        let entry = Self::of(Tag::Op(key), count_of(count), more);
        let group = u32::from(group.min(MOST_GROUPS)) << GROUP_SHIFT;
        let buffer = FLAG_BUFFER | u32::from(index) << BUFFER_SHIFT;
        Self { flags: entry.flags | group | buffer, ..entry }
    }

    /// The end of an op by what a call of ours has said.
    #[inline]
    pub(crate) fn last(key: OpKey, result: io::Result<usize>) -> Self {
        let result = match result {
            Ok(count) => count_of(count),
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        Self::of(Tag::Op(key), result, false)
    }

    /// Whether more entries of the same request will come.
    #[inline]
    pub(crate) fn has_more(self) -> bool {
        self.flags & FLAG_MORE != 0
    }

    /// The number of the buffer that a receive has filled.
    #[inline]
    pub(crate) fn buffer(self) -> Option<u16> {
        (self.flags & FLAG_BUFFER != 0).then_some((self.flags >> BUFFER_SHIFT) as u16)
    }

    /// The group of that buffer, in an entry that was made [here](Self::in_buffer). The kernel has other uses for these bits.
    #[inline]
    pub(crate) fn group(self) -> u16 {
        (self.flags >> GROUP_SHIFT) as u16 & MOST_GROUPS
    }

    /// A count or a descriptor, or the error.
    #[inline]
    pub(crate) fn outcome(self) -> io::Result<u32> {
        u32::try_from(self.result)
            .map_err(|_| io::Error::from_raw_os_error(self.result.wrapping_neg()))
    }
}

#[inline]
fn count_of(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// `IORING_CQE_F_BUFFER`.
const FLAG_BUFFER: u32 = 1;
/// `IORING_CQE_F_MORE`.
const FLAG_MORE: u32 = 1 << 1;
const GROUP_SHIFT: u32 = 3;
const BUFFER_SHIFT: u32 = 16;

/// The largest number of a group: so many bits are free between the flags and the number of the buffer.
pub(crate) const MOST_GROUPS: u16 = (1 << (BUFFER_SHIFT - GROUP_SHIFT)) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;
    use crate::op::{Kind, OpFile, Ops};

    #[test]
    fn an_entry_says_its_result_its_buffer_and_whether_more_comes() {
        let entry = |result, flags| Entry { user_data: 0, result, flags };
        assert_eq!(entry(5, 0).outcome().unwrap(), 5);
        let error = entry(-libc::EPIPE, 0).outcome().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        assert_eq!(entry(i32::MIN + 1, 0).outcome().unwrap_err().raw_os_error(), Some(i32::MAX));
        assert!(entry(i32::MIN, 0).outcome().is_err());
        assert_eq!(entry(5, 0xffff << 16 | 1).buffer(), Some(0xffff));
        assert_eq!(entry(5, 7 << 16).buffer(), None, "without its flag it names none");
        assert!(entry(5, 2).has_more() && !entry(5, 1).has_more());
    }

    #[test]
    fn an_entry_that_was_made_here_names_the_group_of_its_buffer() {
        let key = Ops::default().insert(OpFile::Slot(0), Token(0), Kind::Shutdown { how: 0 });
        for group in [0, 1, 300, MOST_GROUPS] {
            for more in [false, true] {
                let entry = Entry::in_buffer(key, 5, group, 0xfffe, more);
                let said = (entry.group(), entry.buffer(), entry.has_more(), entry.result);
                assert_eq!(said, (group, Some(0xfffe), more, 5));
            }
        }
    }
}
