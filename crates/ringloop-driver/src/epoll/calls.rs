//! The calls by which ops are done here and now. None of them waits.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use socket2::SockAddr;

use crate::op::Call;
use crate::send_queue::Gathered;
use crate::sys::repeat;

/// Receives up to `len` bytes.
///
/// # Safety
///
/// `place` is valid for writes of `len` bytes, and nobody reads them meanwhile.
#[inline]
pub(super) unsafe fn receive(
    fd: BorrowedFd<'_>,
    place: NonNull<u8>,
    len: usize,
    call: Call,
    may_wait: bool,
) -> io::Result<usize> {
    if call == Call::Socket {
        let (fd, place) = (fd.as_raw_fd(), place.as_ptr().cast());
        return repeat(|| {
            // SAFETY: as the caller promises.
            unsafe { libc::recv(fd, place, len, libc::MSG_DONTWAIT) }
        });
    }
    let vector = libc::iovec { iov_base: place.as_ptr().cast(), iov_len: len };
    // SAFETY: as the caller promises; the vector outlives the call.
    let read = |flags| repeat(|| unsafe { read_vector(fd, &raw const vector, flags) });
    if may_wait {
        return read(0);
    }
    match read(libc::RWF_NOWAIT) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            if is_ready(fd, libc::POLLIN) { read(0) } else { Err(would_block()) }
        }
        other => other,
    }
}

/// Sends what was gathered.
///
/// # Safety
///
/// All that `gathered` names is valid for reads.
#[inline]
pub(crate) unsafe fn send(
    fd: BorrowedFd<'_>,
    gathered: &Gathered,
    call: Call,
    may_wait: bool,
) -> io::Result<usize> {
    match (call, gathered) {
        (Call::Socket, &Gathered::One { start, len }) => {
            // SAFETY: as the caller promises.
            repeat(|| unsafe { libc::send(fd.as_raw_fd(), start.cast(), len, SEND) })
        }
        // SAFETY: as the caller promises.
        (Call::Socket, &Gathered::Many { header, .. }) => unsafe { send_message(fd, header) },
        (Call::File, &Gathered::One { start, len }) => {
            let vector = libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len };
            // SAFETY: as the caller promises; the vector outlives the call.
            unsafe { write(fd, &raw const vector, 1, may_wait) }
        }
        (Call::File, &Gathered::Many { vector, len, .. }) => {
            // SAFETY: as the caller promises.
            unsafe { write(fd, vector, len, may_wait) }
        }
    }
}

/// Sends one datagram, or what a header gathers for a stream.
///
/// # Safety
///
/// All that `header` names is valid for reads.
#[inline]
pub(super) unsafe fn send_message(
    fd: BorrowedFd<'_>,
    header: *const libc::msghdr,
) -> io::Result<usize> {
    // SAFETY: as the caller promises.
    repeat(|| unsafe { libc::sendmsg(fd.as_raw_fd(), header, SEND) })
}

/// # Safety
///
/// `vector` and the `count` parts that it names are valid for reads.
unsafe fn write(
    fd: BorrowedFd<'_>,
    vector: *const libc::iovec,
    count: u32,
    may_wait: bool,
) -> io::Result<usize> {
    // SAFETY: as the caller promises, for all parts or the first.
    let write = |count, flags| repeat(|| unsafe { write_vector(fd, vector, count, flags) });
    if may_wait {
        return write(count, 0);
    }
    match write(count, libc::RWF_NOWAIT) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => return other,
    }
    if !is_ready(fd, libc::POLLOUT) {
        return Err(would_block());
    }
    if is_nonblocking(fd) {
        return write(count, 0);
    }
    // What is ready takes so many bytes without waiting, and more only as its reader likes.
    // SAFETY: as the caller promises.
    let first = unsafe { vector.read() };
    let first = libc::iovec { iov_len: first.iov_len.min(libc::PIPE_BUF), ..first };
    // SAFETY: a part of what the caller promises; the vector outlives the call.
    repeat(|| unsafe { write_vector(fd, &raw const first, 1, 0) })
}

/// # Safety
///
/// The part that `vector` names is valid for writes.
unsafe fn read_vector(fd: BorrowedFd<'_>, vector: *const libc::iovec, flags: i32) -> isize {
    // By number: not every C library has the call. At the current position, which is told by both halves of -1.
    // SAFETY: as the caller promises.
    let read = unsafe {
        libc::syscall(libc::SYS_preadv2, fd.as_raw_fd(), vector, 1, CURRENT, CURRENT, flags)
    };
    read as isize
}

/// # Safety
///
/// `vector` and the `count` parts that it names are valid for reads.
unsafe fn write_vector(
    fd: BorrowedFd<'_>,
    vector: *const libc::iovec,
    count: u32,
    flags: i32,
) -> isize {
    let (fd, count) = (fd.as_raw_fd(), count as usize);
    // SAFETY: as the caller promises.
    let written =
        unsafe { libc::syscall(libc::SYS_pwritev2, fd, vector, count, CURRENT, CURRENT, flags) };
    written as isize
}

/// Accepts a connection, which is non-blocking and close-on-exec. The listener must be [non-blocking](Nonblocking).
pub(super) fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let accepted = repeat(|| {
        // SAFETY: no memory is named: nobody asks for the peer's address.
        let fd = unsafe { libc::accept4(fd.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
        fd as isize
    })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted as i32) })
}

/// Begins to connect.
pub(super) fn connect(fd: BorrowedFd<'_>, address: &SockAddr) -> io::Result<()> {
    let _nonblocking = Nonblocking::new(fd);
    // SAFETY: the address is valid for reads of its length.
    let result = unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), address.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn shut_down(fd: BorrowedFd<'_>, how: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::shutdown(fd.as_raw_fd(), how) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor whose calls do not wait while this lives. One that its user has left blocking is so again afterwards.
///
/// There is no flag of accept or connect that says so, and a call that waits would stop the loop: an accept does when another
/// process was faster, though the listener was ready.
pub(super) struct Nonblocking<'a> {
    fd: BorrowedFd<'a>,
    was_blocking: bool,
}

impl<'a> Nonblocking<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        let was_blocking = !is_nonblocking(fd);
        if was_blocking {
            set_nonblocking(fd, true);
        }
        Self { fd, was_blocking }
    }
}

impl Drop for Nonblocking<'_> {
    fn drop(&mut self) {
        if self.was_blocking {
            set_nonblocking(self.fd, false);
        }
    }
}

/// Waits for events; for ever without a `limit`. Gives how many there are.
pub(super) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    limit: Option<Duration>,
) -> io::Result<usize> {
    let (epoll, place) = (epoll.as_raw_fd(), events.as_mut_ptr());
    let most = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let milliseconds = match limit {
        None => -1,
        Some(Duration::ZERO) => 0,
        Some(limit) => {
            let time = libc::timespec {
                tv_sec: limit.as_secs().min(LONGEST) as libc::time_t,
                tv_nsec: limit.subsec_nanos().into(),
            };
            let (time, no_signals) = (&raw const time, ptr::null::<libc::sigset_t>());
            let call = libc::SYS_epoll_pwait2;
            // SAFETY: `events` is valid for writes of so many; the time outlives the call.
            let count = unsafe { libc::syscall(call, epoll, place, most, time, no_signals, 0) };
            if count >= 0 {
                return Ok(count as usize);
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                return Err(error);
            }
            // A sandbox that does not know the call: whole milliseconds, and never early.
            i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        }
    };
    // SAFETY: as above.
    let count = unsafe { libc::epoll_wait(epoll, place, most, milliseconds) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

pub(super) fn is_ready(fd: BorrowedFd<'_>, events: i16) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid place.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    flags_of(fd) & libc::O_NONBLOCK != 0
}

fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) {
    let flags = flags_of(fd) & !libc::O_NONBLOCK;
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags };
    // SAFETY: no pointers are passed. It cannot fail for an open descriptor.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) };
}

fn flags_of(fd: BorrowedFd<'_>) -> i32 {
    // SAFETY: no pointers are passed. It cannot fail for an open descriptor.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }
}

fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

const SEND: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// As the offset of a read or write: the current position of the file. Pipes and sockets have none and ignore it.
const CURRENT: libc::c_long = -1;

/// Seconds: as far as a timeout may go without a second thought.
const LONGEST: u64 = i32::MAX as u64;

const _: () = assert!(size_of::<libc::timespec>() == 16);
