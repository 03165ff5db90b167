//! How the ring is set up, what this kernel gave, and what was counted since.

use std::fmt;
use std::ops::{BitAnd, BitOr, Not};

/// Sizes of the ring and its buffers, and which optional features may be used.
///
/// ```
/// use ringloop_driver::{Driver, DriverConfig};
///
/// let small = DriverConfig { buffers: 16, buffer_size: 4096, ..DriverConfig::default() };
/// let driver = Driver::new(&small)?;
/// assert_eq!(driver.counters().in_flight, 0);
/// # Ok::<(), ringloop_driver::SetupError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Entries of the submission queue; a full one is submitted early, so this bounds no one.
    pub submission_entries: u32,
    /// Entries of the completion queue. An overflow loses nothing, but ends multishot ops, which costs a re-arm each.
    pub completion_entries: u32,
    /// Buffers of one buffer group; rounded up to a power of two, at most 32768.
    pub buffers: u16,
    /// Bytes of one buffer.
    pub buffer_size: u32,
    /// Buffer groups at most: a second one is added while all buffers of the first are lent.
    pub groups: u16,
    /// Optional kernel features to do without, as if the kernel lacked them.
    pub mask: Features,
}

impl Default for DriverConfig {
    /// 256 submission and 4096 completion entries; 256 buffers of 16 KiB, so that the pool fits a cache.
    fn default() -> Self {
        Self {
            submission_entries: 256,
            completion_entries: 4096,
            buffers: 256,
            buffer_size: 16 * 1024,
            groups: 2,
            mask: Features::NONE,
        }
    }
}

/// A set of optional kernel features: those that [`DriverInfo`] reports and [`DriverConfig::mask`] hides.
///
/// The floor is Linux 6.1, which has none of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u32);

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// `IORING_SETUP_NO_SQARRAY` (6.6): one indirection less per submission.
    pub const NO_SQARRAY: Self = Self(1);
    /// `IORING_ENTER_NO_IOWAIT` (6.15): an idle loop is not shown as waiting for a disk.
    pub const NO_IOWAIT: Self = Self(1 << 1);
    /// All of them: as a mask, what is left is Linux 6.1.
    pub const ALL: Self = Self(0b11);

    /// Whether all of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(feature, _)| self.contains(*feature)).map(|&(_, name)| name)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Features {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What the ring was made with: the features in use, and why the others are not.
#[derive(Clone, Debug)]
pub struct DriverInfo {
    /// In use.
    pub features: Features,
    /// One line for each feature that is not in use: its name and the reason.
    pub missing: Vec<(&'static str, String)>,
    /// Entries of the submission queue, as the kernel made it.
    pub submission_entries: u32,
    /// Entries of the completion queue, as the kernel made it.
    pub completion_entries: u32,
    /// Buffers of the first group.
    pub buffers: u16,
    /// Bytes of one buffer.
    pub buffer_size: u32,
}

impl DriverInfo {
    pub(crate) fn why_missing(
        features: Features,
        config: &DriverConfig,
    ) -> Vec<(&'static str, String)> {
        NAMES
            .iter()
            .filter(|(feature, _)| !features.contains(*feature))
            .map(|&(feature, name)| {
                let masked = config.mask.contains(feature);
                let why =
                    if masked { "masked by the configuration" } else { "this kernel lacks it" };
                (name, why.to_owned())
            })
            .collect()
    }
}

impl fmt::Display for DriverInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "io_uring with {} submission and {} completion entries, {} buffers of {} bytes; in use:",
            self.submission_entries, self.completion_entries, self.buffers, self.buffer_size
        )?;
        for name in self.features.names() {
            write!(f, " {name}")?;
        }
        for (name, why) in &self.missing {
            write!(f, "; not {name}: {why}")?;
        }
        Ok(())
    }
}

/// What a driver has done so far, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Requests given to the kernel.
    pub sqes: u64,
    /// Completions taken from it.
    pub cqes: u64,
    /// Times that the completion queue was found overflown. Nothing is lost by one.
    pub overflows: u64,
    /// Receives that found no free buffer, and waited for one.
    pub enobufs: u64,
    /// Completions of ops that were over already. A wrong one would be a bug: they are counted, never used.
    pub stale: u64,
    /// Times that another thread or a signal woke the ring.
    pub wakes: u64,
    /// Times that the submission queue was full, so that requests waited in the backlog.
    pub backlogs: u64,
    /// Times that a submission was refused for want of memory, and tried again.
    pub refusals: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel took.
    pub bytes_out: u64,
    /// Receives that were copied out of their buffer, as their connection held too many.
    pub copied: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ops in flight now.
    pub in_flight: u64,
    /// Buffers that are lent now.
    pub leased: u64,
    /// Buffer groups now.
    pub groups: u64,
}

const NAMES: [(Features, &str); 2] =
    [(Features::NO_SQARRAY, "NO_SQARRAY"), (Features::NO_IOWAIT, "NO_IOWAIT")];
