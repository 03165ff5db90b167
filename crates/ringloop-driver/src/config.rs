//! How the ring is set up, what this kernel gave, and what was counted since.

use std::env;
use std::error::Error;
use std::fmt;
use std::ops::{BitAnd, BitOr, Not};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::SetupError;

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
    /// Which driver is to be made.
    pub driver: DriverChoice,
    /// Entries of the submission queue. A full queue is submitted early, so this does not limit how many ops are in flight.
    pub submission_entries: u32,
    /// Entries of the completion queue. An overflow loses nothing, but it ends multishot ops, each of which then costs a
    /// request to arm it again. Where the kernel can, the queue doubles after an overflow.
    pub completion_entries: u32,
    /// Buffers in one group; rounded up to a power of two, at most 32768. The kernel puts what arrives into any free one.
    pub buffers: u16,
    /// Bytes in one buffer: at most 2147418112, which is what the kernel fills at once.
    pub buffer_size: u32,
    /// Whether connections that fill whole buffers get larger ones: of 64 KiB, in one more group, which has as much memory as
    /// the first. It is made when the first connection needs it, takes only the memory that bytes have come to, and goes when
    /// nobody has filled a buffer for a while and no receive waits for it. There is none where buffers are that large anyway,
    /// where the first group has less than 1 MiB, and where a ring knows no limit of a receive (before Linux 6.17).
    pub large_buffers: bool,
    /// How many groups there may be, besides that of the large buffers. One is made at first; another one is added while all
    /// buffers are lent for long.
    pub groups: u16,
    /// Optional kernel features that are not used, as if the kernel lacked them.
    pub mask: Features,
    /// Faults of the kernel that a test plays.
    #[cfg(feature = "testing")]
    pub faults: Option<crate::testing::Faults>,
    /// Where the buffers of the first group are, if not in memory of the driver's own.
    #[cfg(feature = "testing")]
    pub memory: Option<crate::testing::Memory>,
}

impl DriverConfig {
    #[cfg(feature = "testing")]
    pub(crate) fn memory(&self) -> Option<Arc<crate::sys::Mapping>> {
        self.memory.as_ref().map(crate::testing::Memory::mapping)
    }

    #[cfg(not(feature = "testing"))]
    pub(crate) fn memory(&self) -> Option<Arc<crate::sys::Mapping>> {
        None
    }
}

impl Default for DriverConfig {
    /// 256 submission and 4096 completion entries; 256 buffers of 16 KiB, so that the pool fits a cache.
    ///
    /// The environment variable `RINGLOOP_MASK` names the kernel that is to be played: with `6.1`, all features that came
    /// later are masked.
    fn default() -> Self {
        Self {
            driver: DriverChoice::Environment,
            submission_entries: 256,
            completion_entries: 4096,
            buffers: 256,
            buffer_size: 16 * 1024,
            large_buffers: true,
            groups: 2,
            mask: Features::masked_by_environment(),
            #[cfg(feature = "testing")]
            faults: None,
            #[cfg(feature = "testing")]
            memory: None,
        }
    }
}

/// Which driver is to be made.
///
/// ```
/// use ringloop_driver::DriverChoice;
///
/// assert_eq!("epoll".parse(), Ok(DriverChoice::Epoll));
/// assert!("kqueue".parse::<DriverChoice>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverChoice {
    /// As the environment variable `RINGLOOP_DRIVER` says: `auto`, `uring` or `epoll`. Automatic if it is not set; an error
    /// if it says anything else.
    #[default]
    Environment,
    /// io_uring if it can be had, else epoll.
    Auto,
    /// io_uring, or an error.
    Uring,
    /// epoll, or an error.
    Epoll,
}

impl DriverChoice {
    /// What the environment says, where it is to decide.
    pub(crate) fn resolved(self) -> Result<Self, SetupError> {
        if self != Self::Environment {
            return Ok(self);
        }
        // Read once. No `OnceLock`: a child that is forked by another thread meanwhile would wait for it for ever.
        static CHOICE: AtomicU32 = AtomicU32::new(UNREAD);
        let known = CHOICE.load(Ordering::Relaxed);
        let choice = if known == UNREAD {
            let choice = match env::var(DRIVER_VARIABLE) {
                Ok(name) => name.parse().map_err(|_| SetupError::no_such_driver(&name))?,
                Err(_) => Self::Auto,
            };
            CHOICE.store(choice as u32, Ordering::Relaxed);
            choice
        } else if known == Self::Uring as u32 {
            Self::Uring
        } else if known == Self::Epoll as u32 {
            Self::Epoll
        } else {
            Self::Auto
        };
        Ok(choice)
    }
}

impl FromStr for DriverChoice {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownDriver),
        }
    }
}

/// A name that no driver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownDriver;

impl fmt::Display for UnknownDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such driver: it is auto, uring or epoll")
    }
}

impl Error for UnknownDriver {}

/// What does the work behind a driver.
///
/// ```
/// assert_eq!(ringloop_driver::DriverKind::Uring.to_string(), "io_uring");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverKind {
    /// A ring of io_uring.
    Uring,
    /// An epoll instance, and a system call for each op.
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// A set of optional kernel features: those that [`DriverInfo`] reports and [`DriverConfig::mask`] hides.
///
/// The floor is Linux 6.1, which has none of them.
///
/// ```
/// use ringloop_driver::Features;
///
/// let lacking = Features::newer_than(6, 12);
/// assert!(lacking.contains(Features::NO_IOWAIT));
/// assert!(!lacking.contains(Features::ABS_TIMER));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u32);

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// `IORING_SETUP_NO_SQARRAY` (6.6): one indirection less per submission.
    pub const NO_SQARRAY: Self = Self(1);
    /// `IORING_ENTER_ABS_TIMER` (6.12): a deadline needs no look at the clock, and does not drift.
    pub const ABS_TIMER: Self = Self(1 << 1);
    /// `IORING_REGISTER_RESIZE_RINGS` (6.13): the completion queue grows after it has overflown.
    pub const RESIZE_RINGS: Self = Self(1 << 2);
    /// `IORING_ENTER_NO_IOWAIT` (6.15): an idle loop is not shown as waiting for a disk.
    pub const NO_IOWAIT: Self = Self(1 << 3);
    /// A limit for a multishot receive (6.17): it reads no further ahead than 256 KiB.
    pub const MSHOT_LIMIT: Self = Self(1 << 4);
    /// All of them: as a mask, what is left is Linux 6.1.
    pub const ALL: Self = Self(0b1_1111);

    /// Those that Linux `major.minor` lacks.
    pub fn newer_than(major: u32, minor: u32) -> Self {
        KNOWN
            .iter()
            .filter(|known| known.since > (major, minor))
            .fold(Self::NONE, |all, known| all | known.feature)
    }

    fn masked_by_environment() -> Self {
        // Read once. No `OnceLock`: a child that is forked by another thread meanwhile would wait for it for ever.
        static MASK: AtomicU32 = AtomicU32::new(UNREAD);
        let known = MASK.load(Ordering::Relaxed);
        if known != UNREAD {
            return Self(known);
        }
        let mask = match env::var(MASK_VARIABLE) {
            // What is no version masks all: a slip must not let a masked run pass unmasked.
            Ok(text) => parse_version(&text).map_or(Self::ALL, |(a, b)| Self::newer_than(a, b)),
            Err(_) => Self::NONE,
        };
        MASK.store(mask.0, Ordering::Relaxed);
        mask
    }

    /// Whether all of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        KNOWN.iter().filter(move |known| self.contains(known.feature)).map(|known| known.name)
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

/// What the driver was made with: the features in use, and why the others are not.
///
/// ```
/// let driver = ringloop_driver::Driver::new(&ringloop_driver::DriverConfig::default())?;
/// println!("{}", driver.info()); // What does the work, its sizes, and the features in use.
/// # Ok::<(), ringloop_driver::SetupError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DriverInfo {
    /// What does the work.
    pub driver: DriverKind,
    /// Why io_uring could not be had, where epoll was taken in its place; with the remedy.
    pub refused: Option<Arc<SetupError>>,
    /// The optional features that are in use.
    pub features: Features,
    /// One line for each feature that is not in use: its name and the reason.
    pub missing: Vec<(&'static str, String)>,
    /// Entries of the submission queue, as the kernel made it; none with epoll.
    pub submission_entries: u32,
    /// Entries of the completion queue, as the kernel made it; none with epoll.
    pub completion_entries: u32,
    /// Buffers of the first group.
    pub buffers: u16,
    /// Bytes of one buffer.
    pub buffer_size: u32,
}

impl DriverInfo {
    pub(crate) fn why_missing(
        kind: DriverKind,
        features: Features,
        config: &DriverConfig,
    ) -> Vec<(&'static str, String)> {
        if kind == DriverKind::Epoll {
            return Vec::new(); // They are features of a ring.
        }
        KNOWN
            .iter()
            .filter(|known| !features.contains(known.feature))
            .map(|known| {
                let why = if config.mask.contains(known.feature) {
                    "masked by the configuration".to_owned()
                } else if known.feature == Features::RESIZE_RINGS
                    && !features.contains(Features::NO_SQARRAY)
                {
                    "it needs NO_SQARRAY".to_owned()
                } else {
                    format!("this kernel lacks it (Linux {}.{})", known.since.0, known.since.1)
                };
                (known.name, why)
            })
            .collect()
    }
}

impl fmt::Display for DriverInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.driver == DriverKind::Epoll {
            write!(f, "epoll with {} buffers of {} bytes", self.buffers, self.buffer_size)?;
            return match &self.refused {
                Some(error) => write!(f, "; no io_uring: {error}"),
                None => Ok(()),
            };
        }
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
///
/// ```
/// use ringloop_driver::{Driver, DriverConfig};
///
/// let driver = Driver::new(&DriverConfig::default())?;
/// let counters = driver.counters();
/// println!("{} ops submitted, {} in flight", counters.submitted, counters.in_flight);
/// # Ok::<(), ringloop_driver::SetupError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Times that the driver went to the kernel to hand over ops, to look for what is complete, or to wait for it: calls of
    /// `io_uring_enter`; over epoll calls of `epoll_wait`, and times that ops were tried without one.
    pub rounds: u64,
    /// Ops, cancels and closes given to the kernel; over epoll, tried for the first time.
    pub submitted: u64,
    /// Completions taken from the kernel; over epoll, made of what its calls said.
    pub completed: u64,
    /// Receives that found no free buffer, and waited for one.
    pub enobufs: u64,
    /// Completions of ops that were over already: always 0, or there is a bug. They are counted and reach nobody.
    pub stale: u64,
    /// Times that another thread or a signal woke the driver.
    pub wakes: u64,
    /// Times that a round was refused for want of memory, and tried again.
    pub refusals: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel took.
    pub bytes_out: u64,
    /// Receives that were copied out of their buffer, since their connection had too many buffers lent.
    pub copied: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ops in flight now.
    pub in_flight: u64,
    /// Buffers that are lent now.
    pub leased: u64,
    /// Buffer groups of streams now, with that of the large buffers.
    pub groups: u64,
    /// What only a ring has to count; none over epoll.
    pub ring: Option<RingCounters>,
}

/// What has become of the queues of a ring: a part of [`Counters`].
///
/// ```
/// use ringloop_driver::{Driver, DriverConfig, RingCounters};
///
/// let driver = Driver::new(&DriverConfig::default())?;
/// let of_ring: Option<RingCounters> = driver.counters().ring;
/// assert!(of_ring.is_none_or(|counters| counters.overflows == 0), "nothing has come yet");
/// # Ok::<(), ringloop_driver::SetupError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingCounters {
    /// Times that the completion queue had overflowed. Nothing is lost by that.
    pub overflows: u64,
    /// Times that the submission queue was full, so that requests waited in the backlog.
    pub backlogs: u64,
    /// Entries of the completion queue now: it grows after an overflow, where the kernel can.
    pub completion_entries: u64,
}

/// What there is to know about a feature.
struct Known {
    feature: Features,
    name: &'static str,
    /// The first version of Linux that has it.
    since: (u32, u32),
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

const KNOWN: [Known; 5] = [
    Known { feature: Features::NO_SQARRAY, name: "NO_SQARRAY", since: (6, 6) },
    Known { feature: Features::ABS_TIMER, name: "ABS_TIMER", since: (6, 12) },
    Known { feature: Features::RESIZE_RINGS, name: "RESIZE_RINGS", since: (6, 13) },
    Known { feature: Features::NO_IOWAIT, name: "NO_IOWAIT", since: (6, 15) },
    Known { feature: Features::MSHOT_LIMIT, name: "MSHOT_LIMIT", since: (6, 17) },
];

/// No set of features, and no choice.
const UNREAD: u32 = u32::MAX;

const MASK_VARIABLE: &str = "RINGLOOP_MASK";

pub(crate) const DRIVER_VARIABLE: &str = "RINGLOOP_DRIVER";
