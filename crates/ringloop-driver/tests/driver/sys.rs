//! System calls that the tests need and std lacks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

/// The read end, and the write end.
pub(crate) fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: the call writes two numbers.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) });
    let [read, write] = ends.map(|end| {
        // SAFETY: the kernel has just made it for us.
        unsafe { File::from_raw_fd(end) }
    });
    (read, write)
}

/// A new pipe with a name, open in both directions, and non-blocking.
pub(crate) fn named_pipe(path: &str) -> File {
    let name = CString::new(path).unwrap();
    // SAFETY: the path ends in a zero.
    checked(unsafe { libc::mkfifo(name.as_ptr(), 0o600) });
    let flags = libc::O_NONBLOCK;
    File::options().read(true).write(true).custom_flags(flags).open(path).unwrap()
}

pub(crate) fn eventfd() -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has the number of `fd` name the file of `by` from here on, as a program does that is careless with numbers.
pub(crate) fn replace_file(fd: &impl AsRawFd, by: &impl AsRawFd) {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::dup3(by.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) });
}

pub(crate) fn set_nonblocking(fd: &impl AsRawFd) {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) });
}

pub(crate) fn descriptor_flags(fd: &impl AsRawFd) -> i32 {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) })
}

pub(crate) fn set_socket_option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) {
    let (place, len) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: `place` is a valid place for `len` bytes.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, len) });
}

/// The hard limit stays.
pub(crate) fn set_soft_limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a valid place.
    checked(unsafe { libc::getrlimit(resource, &raw mut limit) });
    limit.rlim_cur = soft;
    // SAFETY: as above.
    checked(unsafe { libc::setrlimit(resource, &raw const limit) });
}

/// Bytes of addresses that this process uses.
pub(crate) fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// Raises the limit of open files to the hard one, and gives it.
pub(crate) fn allow_most_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a valid place.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
    limit.rlim_max
}

/// A signal that interrupts the calls of the thread that gets it, and does nothing else.
pub(crate) fn handle_without_restart(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    handle(signal, nothing);
}

/// `handler` does only what is safe in a handler.
fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: a `sigaction` of zeros is valid: default action, no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the action is valid, and its handler is safe, as the caller sees to.
    checked(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) });
}

/// This process ends after so many seconds, if it has not ended by then.
pub(crate) fn end_after(seconds: u32) {
    // SAFETY: no pointers are passed.
    unsafe { libc::alarm(seconds) };
}

/// Names a thread to [`signal_thread`].
pub(crate) fn this_thread() -> libc::pthread_t {
    // SAFETY: it cannot fail.
    unsafe { libc::pthread_self() }
}

pub(crate) fn signal_thread(thread: libc::pthread_t, signal: i32) {
    // SAFETY: the caller sees to it that the thread is not over.
    checked(unsafe { libc::pthread_kill(thread, signal) });
}

pub(crate) fn raise(signal: i32) {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::kill(std::process::id() as i32, signal) });
}

/// Sends it to this thread, whose handler has run when this returns.
pub(crate) fn raise_here(signal: i32) {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::raise(signal) });
}

pub(crate) fn ignore(signal: i32) {
    // SAFETY: to ignore needs no function.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// What `signal` does.
pub(crate) fn disposition(signal: i32) -> libc::sighandler_t {
    // SAFETY: a `sigaction` of zeros is valid, and is overwritten.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the place is valid, and nothing is changed.
    checked(unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) });
    action.sa_sigaction
}

/// As a program has it that does not run in Rust's runtime.
pub(crate) fn let_sigpipe_kill() {
    // SAFETY: the default action needs no function.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Shows `text` at `path` to this process alone.
pub(crate) fn show_at(path: &str, text: &str) {
    let shown = format!("/tmp/ringloop-shown-{}", std::process::id());
    std::fs::write(&shown, text).unwrap();
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    mount(None, "/", libc::MS_REC | libc::MS_PRIVATE);
    mount(Some(&shown), path, libc::MS_BIND);
    std::fs::remove_file(&shown).unwrap();
}

fn mount(source: Option<&str>, target: &str, flags: libc::c_ulong) {
    let source = source.map(|source| CString::new(source).unwrap());
    let source = source.as_ref().map_or(ptr::null(), |source| source.as_ptr());
    let target = CString::new(target).unwrap();
    // SAFETY: the strings end in a zero, and live until after the call.
    checked(unsafe { libc::mount(source, target.as_ptr(), ptr::null(), flags, ptr::null()) });
}

pub(crate) fn set_variable(name: &str, value: &str) {
    // SAFETY: the test has one thread.
    unsafe { std::env::set_var(name, value) };
}

/// Without the privileges of root, CAP_IPC_LOCK among them, as a user that nothing else on the machine runs as.
pub(crate) fn become_nobody_else() {
    let user = 60_000 + std::process::id() % 4000;
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) } as i32);
}

/// Runs `body` in a forked child, and gives how that ended: its exit status, or minus the signal.
pub(crate) fn in_forked_child(body: impl FnOnce()) -> i32 {
    // SAFETY: the test has one thread, or its others hold no lock that the child needs.
    let child = checked(unsafe { libc::fork() });
    if child == 0 {
        end_child(body);
    }
    wait_for(child)
}

/// A child that does nothing, until this is dropped.
pub(crate) struct Paused(i32);

impl Paused {
    pub(crate) fn fork() -> Self {
        // SAFETY: the child does nothing but wait for its end.
        Self::parent_of(unsafe { libc::fork() })
    }

    /// Around the C library: its handlers are not called.
    pub(crate) fn raw_fork() -> Self {
        // SAFETY: as above.
        Self::parent_of(unsafe { libc::syscall(libc::SYS_fork) } as i32)
    }

    fn parent_of(child: i32) -> Self {
        if checked(child) == 0 {
            loop {
                // SAFETY: no pointers are passed.
                unsafe { libc::pause() };
            }
        }
        Self(child)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // SAFETY: no pointers are passed; the child is ours, and not waited for yet.
        checked(unsafe { libc::kill(self.0, libc::SIGKILL) });
        wait_for(self.0);
    }
}

fn end_child(body: impl FnOnce()) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    // SAFETY: it ends the process; nothing of the parent's is run down.
    unsafe { libc::_exit(i32::from(result.is_err())) }
}

fn wait_for(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is a valid place.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) });
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// From now on, each of these calls of this process fails with `errno`; the filter cannot be taken back.
pub(crate) fn refuse_calls(calls: &[libc::c_long], errno: i32) {
    filter_calls(calls, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// From now on, each of these calls of this thread runs `instead` and does nothing; the filter cannot be taken back.
pub(crate) fn replace_calls(calls: &[libc::c_long], instead: extern "C" fn(i32)) {
    handle(libc::SIGSYS, instead);
    filter_calls(calls, libc::SECCOMP_RET_TRAP);
}

/// Of this thread, and of those that it starts.
fn filter_calls(calls: &[libc::c_long], action: u32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for &call in calls {
        let mut jump = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32);
        jump.jf = 1;
        program.push(jump);
        program.push(statement(libc::BPF_RET | libc::BPF_K, action));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    // SAFETY: the filter and its program live until after the call, which copies them.
    checked(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    });
}

fn checked(result: i32) -> i32 {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}
