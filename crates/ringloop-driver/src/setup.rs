//! Making a ring, and saying why it could not be made.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::DriverWaker;
use crate::backend::Backend;
use crate::buffers::{Group, GroupSize};
use crate::config::{DRIVER_VARIABLE, DriverConfig, DriverKind, Features};
use crate::epoll::Epoll;
use crate::refusal::Refusal;
use crate::send_queue::MOST_AT_ONCE;
use crate::sys;
use crate::uring::request::limited_receive_of_nothing;
use crate::uring::ring::{self, Limit, Ring};

/// Why there is no ring, and what to do about it.
///
/// ```
/// use ringloop_driver::{Driver, DriverConfig};
///
/// match Driver::new(&DriverConfig::default()) {
///     Ok(driver) => println!("{}", driver.info()),
///     Err(error) => eprintln!("error: {}\nremedy: {}", error.cause(), error.remedy()),
/// }
/// ```
#[derive(Debug)]
pub struct SetupError {
    source: io::Error,
    cause: String,
    remedy: String,
}

impl SetupError {
    /// What is in the way, in the field's words: seccomp, kernel, memlock, open files.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What can be done about it.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The errno of the call that failed.
    ///
    /// ```
    /// use ringloop_driver::{Driver, DriverConfig};
    ///
    /// let config = DriverConfig { buffer_size: 0, ..DriverConfig::default() };
    /// match Driver::new(&config) {
    ///     Ok(_) => println!("it works"),
    ///     Err(error) => println!("{}: {:?}", error.cause(), error.raw_os_error()),
    /// }
    /// ```
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    pub(crate) fn new(source: io::Error, what: &str) -> Self {
        let (cause, remedy) = explain(&source, what);
        Self { source, cause, remedy }
    }

    /// The environment asks for a driver that there is not.
    pub(crate) fn no_such_driver(name: &str) -> Self {
        Self {
            source: io::Error::from_raw_os_error(libc::EINVAL),
            cause: format!("{DRIVER_VARIABLE} is {name:?}, and no driver is called so"),
            remedy: format!("set {DRIVER_VARIABLE} to auto, uring or epoll, or unset it"),
        }
    }

    fn too_old(source: io::Error) -> Self {
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            source,
            cause: format!("kernel {release} is too old: its io_uring lacks what ringloop needs"),
            remedy: "use Linux 6.1 or later".to_owned(),
        }
    }

    fn too_large(buffer_size: u32) -> Self {
        Self {
            source: io::ErrorKind::InvalidInput.into(),
            cause: format!(
                "buffers of {buffer_size} bytes are larger than what the kernel fills at once"
            ),
            remedy: format!("ask for buffers of {MOST_AT_ONCE} bytes at most"),
        }
    }

    fn no_memory(source: io::Error, size: GroupSize) -> Self {
        let GroupSize { buffers, buffer_size, .. } = size;
        let limit = limit_in_kib(libc::RLIMIT_AS);
        Self {
            source,
            cause: format!(
                "no memory for {buffers} buffers of {buffer_size} bytes and a ring (mmap: ENOMEM); the limit of address space (RLIMIT_AS) is {limit}"
            ),
            remedy: "ask for fewer or smaller buffers, or raise what is short: ulimit -v, the memory of the container, vm.overcommit_memory (sysctl)"
                .to_owned(),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// What a driver starts with.
pub(crate) struct Made {
    pub(crate) backend: Backend,
    pub(crate) group: Rc<Group>,
    pub(crate) features: Features,
}

/// Refuses what can never work.
pub(crate) fn check(config: &DriverConfig) -> Result<(), SetupError> {
    if config.buffer_size as usize > MOST_AT_ONCE {
        return Err(SetupError::too_large(config.buffer_size));
    }
    Ok(())
}

/// The backend that was chosen, with its first buffer group.
pub(crate) fn make(
    config: &DriverConfig,
    kind: DriverKind,
    waker: &DriverWaker,
) -> Result<Made, SetupError> {
    match kind {
        DriverKind::Uring => make_ring(config),
        DriverKind::Epoll => make_epoll(config, waker),
    }
}

fn make_epoll(config: &DriverConfig, waker: &DriverWaker) -> Result<Made, SetupError> {
    let epoll = Epoll::new(waker).map_err(|error| SetupError::new(error, "epoll_create1"))?;
    let size = GroupSize::first(config);
    let group = Group::new(None, size, config.memory())
        .map_err(|refusal| SetupError::no_memory(refusal.error, size))?;
    Ok(Made { backend: Backend::Epoll(epoll), group, features: Features::NONE })
}

/// The first ring of the ladder that this kernel makes, its first buffer group, and the features that it has.
///
/// By trying, never by the kernel's version: distributions port features back, and containers hide them.
fn make_ring(config: &DriverConfig) -> Result<Made, SetupError> {
    let mut features = !config.mask;
    let mut tried = try_sizes(config, features);
    if has_errno(&tried, libc::EINVAL) && features.contains(Features::NO_SQARRAY) {
        features = features & !Features::NO_SQARRAY;
        tried = try_sizes(config, features);
    }
    match tried {
        Ok((mut ring, group)) => {
            features = features & probe(&mut ring, features);
            Ok(Made { backend: Backend::Uring(ring), group, features })
        }
        Err(Refusal { error, .. }) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(SetupError::too_old(error))
        }
        Err(refusal) if refusal.is_of_own_memory() => {
            Err(SetupError::no_memory(refusal.error, GroupSize::first(config)))
        }
        Err(Refusal { error, call }) => Err(SetupError::new(error, call)),
    }
}

/// Memory of closed rings comes back late, and is counted for all processes of a user: so with patience first, and only
/// then smaller. Where not even an empty account would do there is nothing to wait for.
fn try_sizes(config: &DriverConfig, features: Features) -> Result<(Ring, Rc<Group>), Refusal> {
    let mut sizes = SIZES.into_iter();
    let (mut submission, mut completion) = (config.submission_entries, config.completion_entries);
    let end = Instant::now() + PATIENCE;
    loop {
        let tried = try_once(submission, completion, features, config);
        let is_own = tried.as_ref().is_err_and(Refusal::is_of_own_memory);
        if is_own || !has_errno(&tried, libc::ENOMEM) {
            return tried;
        }
        let limit = sys::soft_limit(libc::RLIMIT_MEMLOCK).unwrap_or(u64::MAX);
        if Instant::now() < end && charge(submission, completion, config.buffers) <= limit {
            wait_a_little();
            continue;
        }
        match sizes.find(|&(fewer, shorter)| fewer < submission || shorter < completion) {
            Some((fewer, shorter)) => {
                (submission, completion) = (fewer.min(submission), shorter.min(completion));
            }
            None => return tried,
        }
    }
}

fn try_once(
    submission: u32,
    completion: u32,
    features: Features,
    config: &DriverConfig,
) -> Result<(Ring, Rc<Group>), Refusal> {
    let mut flags = ring::SETUP_CLAMP
        | ring::SETUP_SUBMIT_ALL
        | ring::SETUP_SINGLE_ISSUER
        | ring::SETUP_DEFER_TASKRUN
        | ring::SETUP_TASKRUN_FLAG;
    if features.contains(Features::NO_SQARRAY) {
        flags |= ring::SETUP_NO_SQARRAY;
    }
    let ring = Ring::new(submission, completion, flags)?;
    let group = Group::new(Some(&ring), GroupSize::first(config), config.memory())?;
    ring.limit_workers();
    Ok((ring, group))
}

/// Of those that are wanted, what this kernel has.
fn probe(ring: &mut Ring, wanted: Features) -> Features {
    let mut missing = Features::NONE;
    if ring.features() & ring::FEATURE_NO_IOWAIT == 0 {
        missing = missing | Features::NO_IOWAIT;
    }
    if wanted.contains(Features::ABS_TIMER) {
        // A time long past, and nothing to wait for: it can only be refused.
        let tried = ring.enter(0, ring::ENTER_GETEVENTS, Limit::At(Duration::ZERO));
        if has_errno_of(&tried, libc::EINVAL) {
            missing = missing | Features::ABS_TIMER;
        }
    }
    if wanted.contains(Features::MSHOT_LIMIT) && !has_multishot_limit(ring) {
        missing = missing | Features::MSHOT_LIMIT;
    }
    // Growing moves the queues, and the array of the submission queue with them.
    if !wanted.contains(Features::NO_SQARRAY) || !ring.can_grow() {
        missing = missing | Features::RESIZE_RINGS;
    }
    !missing
}

/// Asks for a receive that cannot be: a kernel that does not know the limit complains about it, one that does about the
/// descriptor.
fn has_multishot_limit(ring: &mut Ring) -> bool {
    let request = limited_receive_of_nothing();
    // SAFETY: the request names no memory.
    let queued = unsafe { ring.push(&request) };
    let entered = ring.enter(1, ring::ENTER_GETEVENTS, Limit::After(PATIENCE));
    let entry = ring.next();
    queued && entered.is_ok() && entry.is_some_and(|entry| entry.result == -libc::EBADF)
}

/// Bytes that the kernel counts against the limit of locked memory: whole pages for each part.
fn charge(submission: u32, completion: u32, buffers: u16) -> u64 {
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE);
    let submission = u64::from(submission.clamp(1, MOST_SUBMISSIONS).next_power_of_two());
    let completion = u64::from(completion.clamp(1, MOST_COMPLETIONS).next_power_of_two());
    let buffers = u64::from(buffers).next_power_of_two();
    pages(submission * 64) + pages(completion * 16 + HEADER) + pages(buffers * 16)
}

/// Nothing tells when the kernel has given the memory back.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
fn wait_a_little() {
    std::thread::sleep(Duration::from_millis(10));
}

fn has_errno<T>(result: &Result<T, Refusal>, errno: i32) -> bool {
    result.as_ref().is_err_and(|refusal| refusal.error.raw_os_error() == Some(errno))
}

fn has_errno_of<T>(result: &io::Result<T>, errno: i32) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(errno))
}

fn explain(error: &io::Error, what: &str) -> (String, String) {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => (
            format!("the kernel or sandbox has no io_uring ({what}: ENOSYS)"),
            "use Linux 6.1 or later, built with io_uring, and a sandbox that passes it through"
                .to_owned(),
        ),
        Some(libc::EPERM | libc::EACCES) => explain_permission(what),
        Some(libc::ENOMEM) => {
            let limit = limit_in_kib(libc::RLIMIT_MEMLOCK);
            (
                format!("no memory for a ring ({what}: ENOMEM); memlock limit (RLIMIT_MEMLOCK) is {limit}, shared by all processes of the user"),
                "raise memlock (ulimit -l, LimitMEMLOCK=, docker --ulimit memlock=) or grant CAP_IPC_LOCK".to_owned(),
            )
        }
        Some(libc::EMFILE) => {
            let limit = sys::soft_limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX);
            (
                format!(
                    "too many open files in this process ({what}: EMFILE); the limit is {limit}"
                ),
                "raise the limit of open files (ulimit -n, LimitNOFILE=) or close some".to_owned(),
            )
        }
        Some(libc::ENFILE) => (
            format!("too many open files in the system ({what}: ENFILE)"),
            "raise fs.file-max (sysctl), or find who holds the open files".to_owned(),
        ),
        _ => (format!("{what} failed: {error}"), "see io_uring_setup(2) for this error".to_owned()),
    }
}

fn limit_in_kib(resource: libc::__rlimit_resource_t) -> String {
    let limit = sys::soft_limit(resource);
    limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024))
}

/// The kernel says EPERM for a sysctl and for a filter alike, so look which it can be.
fn explain_permission(what: &str) -> (String, String) {
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    if disabled == "2" || disabled == "1" {
        return (
            format!("io_uring is disabled on this machine: sysctl kernel.io_uring_disabled is {disabled} ({what}: EPERM)"),
            "set the sysctl kernel.io_uring_disabled=0, or 1 and join the group of kernel.io_uring_group".to_owned(),
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp =
        status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("?", str::trim);
    if seccomp == "0" {
        return (
            format!(
                "io_uring is forbidden here ({what}: EPERM), by neither sysctl nor seccomp: a security module of the kernel"
            ),
            "allow io_uring in the policy of SELinux, AppArmor or the like".to_owned(),
        );
    }
    (
        format!("io_uring is forbidden by a seccomp filter ({what}: EPERM; Seccomp: {seccomp} in /proc/self/status)"),
        "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker --security-opt seccomp=…)"
            .to_owned(),
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

/// How long a creation waits for the memory of rings that were closed before.
const PATIENCE: Duration = Duration::from_secs(1);

/// Smaller rings, for where memory is short.
const SIZES: [(u32, u32); 2] = [(128, 512), (64, 256)];

/// More are asked for in vain: the kernel makes as many.
const MOST_SUBMISSIONS: u32 = 1 << 15;
pub(crate) const MOST_COMPLETIONS: u32 = 1 << 16;

const PAGE: u64 = 4096;
/// Of both queues, before their entries; not less than it is.
const HEADER: u64 = 512;
