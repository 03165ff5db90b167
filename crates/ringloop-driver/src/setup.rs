//! Making a ring, and saying why it could not be made.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use io_uring::IoUring;

use crate::config::{DriverConfig, Features};
use crate::sys;

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
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    pub(crate) fn new(source: io::Error, what: &str) -> Self {
        let (cause, remedy) = explain(&source, what);
        Self { source, cause, remedy }
    }

    fn too_old(source: io::Error) -> Self {
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            source,
            cause: format!("kernel {release} is too old: its io_uring lacks what ringloop needs"),
            remedy: "use Linux 6.1 or later".to_owned(),
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

/// The first ring of the ladder that this kernel makes, and the features that it has.
///
/// By trying, never by the kernel's version: distributions port features back, and containers hide them.
pub(crate) fn make_ring(config: &DriverConfig) -> Result<(IoUring, Features), SetupError> {
    let wanted = !config.mask;
    let mut tried = try_sizes(config, wanted);
    let mut features = wanted;
    if has_errno(&tried, libc::EINVAL) && features.contains(Features::NO_SQARRAY) {
        features = features & !Features::NO_SQARRAY;
        tried = try_sizes(config, features);
    }
    let ring = match tried {
        Ok(ring) => ring,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(SetupError::too_old(error));
        }
        Err(error) => return Err(SetupError::new(error, "io_uring_setup")),
    };
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err(SetupError::too_old(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    if !ring.params().is_feature_no_iowait() {
        features = features & !Features::NO_IOWAIT;
    }
    Ok((ring, features))
}

/// Memory of closed rings comes back late, and is counted for all processes of a user: so with patience first, and only
/// then smaller.
fn try_sizes(config: &DriverConfig, features: Features) -> io::Result<IoUring> {
    let mut sizes =
        [(config.submission_entries, config.completion_entries), (128, 512), (64, 256)].into_iter();
    let (mut submission, mut completion) = sizes.next().unwrap_or((64, 256));
    let mut patience = Some(Instant::now() + PATIENCE);
    loop {
        let tried = build(submission, completion, features);
        if !has_errno(&tried, libc::ENOMEM) {
            return tried;
        }
        if patience.is_some_and(|end| Instant::now() < end) {
            wait_a_little();
            continue;
        }
        patience = None;
        match sizes.find(|&(smaller, _)| smaller < submission) {
            Some(smaller) => (submission, completion) = smaller,
            None => return tried,
        }
    }
}

fn build(submission: u32, completion: u32, features: Features) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_clamp()
        .setup_cqsize(completion.max(submission))
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    if features.contains(Features::NO_SQARRAY) {
        builder.setup_no_sqarray();
    }
    builder.build(submission.max(1))
}

/// Nothing tells when the kernel has given the memory back.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
fn wait_a_little() {
    std::thread::sleep(Duration::from_millis(10));
}

fn has_errno<T>(result: &io::Result<T>, errno: i32) -> bool {
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
            let limit = sys::soft_limit(libc::RLIMIT_MEMLOCK);
            let limit = limit
                .map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
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
