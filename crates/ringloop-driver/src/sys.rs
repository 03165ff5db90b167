//! System calls that std lacks, each behind a safe face.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use socket2::{SockAddr, SockAddrStorage};

/// Memory of whole pages, given back on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Zeros, private to this process.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Shared with the ring that `fd` names.
    pub(crate) fn of_ring(fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// A forked child does not inherit it.
    pub(crate) fn keep_from_children(&self) {
        if cfg!(miri) {
            return; // It has neither advice nor children.
        }
        // SAFETY: the mapping is ours; the advice changes nothing in this process. It cannot fail for a valid mapping.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTFORK) };
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: it is memory owned by the value; what is done with the bytes is the business of who holds it.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared `Mapping` only gives its address.
unsafe impl Sync for Mapping {}

/// Makes the C library call these handlers around each `fork(2)`.
pub(crate) fn at_fork(
    prepare: extern "C" fn(),
    in_parent: extern "C" fn(),
    in_child: extern "C" fn(),
) {
    if cfg!(miri) {
        return; // It has no children.
    }
    // SAFETY: the handlers are functions, valid for ever. Out of memory, the one error, leaves children unprotected.
    unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
}

/// Makes `number` refer to what `instead` refers to.
pub(crate) fn replace_number(number: RawFd, instead: RawFd) {
    // SAFETY: no pointers are passed; both numbers belong to a driver. It cannot fail for two open numbers.
    unsafe { libc::dup3(instead, number, libc::O_CLOEXEC) };
}

/// Fills a hole in the address space, which a mapping that was not inherited has left.
pub(crate) fn map_zeros_at(address: usize, len: usize) {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: an address that is in use is refused, so no existing memory is touched.
    unsafe { libc::mmap(ptr::with_exposed_provenance_mut(address), len, protection, flags, -1, 0) };
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd. Safe in a signal handler.
pub(crate) fn eventfd_add(fd: BorrowedFd<'_>) {
    let one = 1_u64;
    // SAFETY: the buffer is eight bytes long. The one error, a full counter, takes 2^64 wake-ups.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

pub(crate) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn epoll_add(epoll: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    epoll_control(epoll, libc::EPOLL_CTL_ADD, number, 0, 0)
}

pub(crate) fn epoll_modify(epoll: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    epoll_control(epoll, libc::EPOLL_CTL_MOD, number, 0, 0)
}

pub(crate) fn epoll_delete(epoll: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    epoll_control(epoll, libc::EPOLL_CTL_DEL, number, 0, 0)
}

/// `word` is what an event of `number` will say.
pub(crate) fn epoll_control(
    epoll: BorrowedFd<'_>,
    operation: i32,
    number: RawFd,
    events: u32,
    word: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: word };
    // SAFETY: `event` is a valid place; a number that names nothing, or anything, is answered by an error.
    if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, number, &raw mut event) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives one message, without waiting.
///
/// # Safety
///
/// All that `header` names is valid for writes.
pub(crate) unsafe fn receive_message(
    fd: BorrowedFd<'_>,
    header: *mut libc::msghdr,
) -> io::Result<usize> {
    // SAFETY: as the caller promises.
    repeat(|| unsafe { libc::recvmsg(fd.as_raw_fd(), header, libc::MSG_DONTWAIT) })
}

/// Calls until no signal interrupts.
#[inline]
pub(crate) fn repeat(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if let Ok(count) = usize::try_from(result) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// The clock of [`std::time::Instant`], as the kernel counts it.
pub(crate) fn monotonic_clock() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place. It cannot fail for a clock that every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// An option of `N` numbers; `None` if the socket does not know it, or has it in another size.
pub(crate) fn socket_option<const N: usize>(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
) -> Option<[u32; N]> {
    let mut value = [0; N];
    let mut len = size_of_val(&value) as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: `value` is a valid place for as many bytes as `len` says, and any bytes are numbers.
    let result = unsafe { libc::getsockopt(fd, level, name, place, &raw mut len) };
    (result == 0 && len as usize == size_of_val(&value)).then_some(value)
}

/// The address of the peer of an IP socket, in every state in which accept(2) would give it. `None` for other sockets, and where
/// there is no such option.
pub(crate) fn peer_of_ip(socket: BorrowedFd<'_>) -> Option<SockAddr> {
    // The kernel refuses more room than the name takes, and cuts it off where there is less: so the shortest tells the family.
    let name = peer_name(socket, size_of::<libc::sockaddr_in>())?;
    match i32::from(name.family()) {
        libc::AF_INET => Some(name),
        libc::AF_INET6 => peer_name(socket, size_of::<libc::sockaddr_in6>()),
        _ => None,
    }
}

/// The first `len` bytes of the peer's address, which has at least so many.
fn peer_name(socket: BorrowedFd<'_>, len: usize) -> Option<SockAddr> {
    let mut name = SockAddrStorage::zeroed();
    let mut name_len = len.min(size_of_val(&name)) as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), (&raw mut name).cast());
    // SAFETY: the name has room for as many bytes as its length says.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERNAME, place, &raw mut name_len)
    };
    if result != 0 || name_len as usize != len {
        return None;
    }
    // SAFETY: the kernel has put so many bytes of a name there, and the others are zero.
    Some(unsafe { SockAddr::new(name, name_len) })
}

/// Receives without waiting.
#[inline]
pub(crate) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (place, len) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the place is `len` bytes that are the caller's own to write to, until the call returns.
    counted(unsafe { libc::recv(socket.as_raw_fd(), place, len, libc::MSG_DONTWAIT) })
}

/// As [`recv`], with the sender, if it has a name.
pub(crate) fn recv_from(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SockAddr>)> {
    let mut name = SockAddrStorage::zeroed();
    let mut name_len = name.size_of();
    let (fd, place, len) = (socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
    let flags = libc::MSG_DONTWAIT;
    let name_place = (&raw mut name).cast();
    // SAFETY: as in `recv()`; the name has room for any, and its length says how much.
    let count =
        counted(unsafe { libc::recvfrom(fd, place, len, flags, name_place, &raw mut name_len) })?;
    if name_len < size_of::<libc::sa_family_t>() as libc::socklen_t {
        return Ok((count, None));
    }
    // SAFETY: the kernel has put a name of that length there.
    Ok((count, Some(unsafe { SockAddr::new(name, name_len) })))
}

/// Sends without waiting, and without a signal.
#[inline]
pub(crate) fn send_to(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    address: Option<&SockAddr>,
) -> io::Result<usize> {
    let (fd, place, len) = (socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (name, name_len) = match address {
        Some(address) => (address.as_ptr().cast(), address.len()),
        None => (ptr::null(), 0),
    };
    // SAFETY: bytes and address are the caller's and live longer than the call, which only reads them.
    counted(unsafe { libc::sendto(fd, place, len, flags, name, name_len) })
}

/// Sends from a file, as far as there is room. For sockets that do not block.
pub(crate) fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    // SAFETY: no pointers are passed.
    let status = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    if status >= 0 && status & libc::O_NONBLOCK == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is a blocking one"));
    }
    let Ok(mut offset) = libc::off64_t::try_from(offset) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let (to, from) = (socket.as_raw_fd(), file.as_raw_fd());
    // SAFETY: the offset is a valid place.
    counted(unsafe { libc::sendfile64(to, from, &raw mut offset, count) })
}

#[inline]
fn counted(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The soft limit of `resource`, in its own unit; `None` if there is none.
pub(crate) fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    let failed = unsafe { libc::getrlimit(resource, &raw mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
