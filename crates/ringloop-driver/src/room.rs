//! How much a socket is sure to take: what a transport must know before it can leave a large write for the iteration's one
//! call, and still tell its protocol in time that the kernel is full.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use crate::{Descriptor, sys};

impl Descriptor {
    /// Bytes that sends are sure to take in all, from now on, without waiting: half of the room in the send buffer, as the
    /// kernel counts its own overhead, too. Each send on top of that costs [`SEND_OVERHEAD`] of it.
    ///
    /// Zero where only a send can tell: for what is neither TCP nor `AF_UNIX`, and with a limit on unsent bytes
    /// (`TCP_NOTSENT_LOWAT`). Others who send on the same socket and a system short of memory make less of it, so it
    /// decides when to send, never whether something was sent. Two or three calls of getsockopt(2).
    pub fn assured_room(&self) -> usize {
        let room = if takes_what_fits(self.as_fd()) { free_in_buffer(self.as_fd()) } else { 0 };
        room / 2
    }
}

/// What a send costs of [`Descriptor::assured_room`] besides its bytes.
pub const SEND_OVERHEAD: usize = 4096;

/// Whether a send takes as much as the send buffer has room for.
fn takes_what_fits(socket: BorrowedFd<'_>) -> bool {
    match sys::socket_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) {
        Some([0]) => !is_unsent_limited(),
        Some([limit]) => limit == u32::MAX,
        None => {
            let domain = sys::socket_option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN);
            domain == Some([libc::AF_UNIX as u32])
        }
    }
}

fn free_in_buffer(socket: BorrowedFd<'_>) -> usize {
    let memory = sys::socket_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO);
    let memory: [u32; libc::SK_MEMINFO_DROPS as usize + 1] = memory.unwrap_or_default();
    let figure = |place: libc::c_int| memory[place as usize] as usize;
    let used = figure(libc::SK_MEMINFO_WMEM_ALLOC).max(figure(libc::SK_MEMINFO_WMEM_QUEUED));
    figure(libc::SK_MEMINFO_SNDBUF).saturating_sub(used)
}

/// Whether the system limits the unsent bytes of every TCP socket. Read once: it is set when a system starts.
fn is_unsent_limited() -> bool {
    static LIMITED: OnceLock<bool> = OnceLock::new();
    *LIMITED.get_or_init(|| {
        let limit = fs::read_to_string("/proc/sys/net/ipv4/tcp_notsent_lowat");
        limit.ok().and_then(|limit| limit.trim().parse().ok()) != Some(u32::MAX)
    })
}
