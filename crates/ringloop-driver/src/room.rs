//! How much a socket is sure to take: what a transport must know before it can leave a large write for the iteration's one
//! call, and still tell its protocol in time that the kernel is full.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use crate::{Descriptor, sys};

impl Descriptor {
    /// Bytes that sends are sure to take in all, from now on, without waiting: half of the room in the send buffer, as the
    /// kernel counts its own overhead, too; less where a TCP peer takes small segments only. Each send on top of that costs
    /// [`SEND_OVERHEAD`] of it.
    ///
    /// Zero where only a send can tell: for what is neither TCP nor an `AF_UNIX` stream, and with a limit on unsent bytes
    /// (`TCP_NOTSENT_LOWAT`). Others who send on the same socket and a system short of memory make less of it, so it
    /// decides when to send, never whether something was sent. Up to four calls of getsockopt(2).
    pub fn assured_room(&self) -> usize {
        let Some(piece) = least_piece(self.as_fd()) else { return 0 };
        let (free, piece) = (free_in_buffer(self.as_fd()), u64::from(piece));
        let share = free as u64 * piece / (piece + PIECE_OVERHEAD);
        (share as usize).min(free / 2)
    }
}

/// What a send costs of [`Descriptor::assured_room`] besides its bytes.
pub const SEND_OVERHEAD: usize = 4096;

/// How many bytes the kernel puts into one of its own buffers at least, where there are so many; `None` if a send may take
/// less than the send buffer has room for.
fn least_piece(socket: BorrowedFd<'_>) -> Option<u32> {
    let limit = match sys::socket_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) {
        Some([0]) if is_unsent_limited() => return None,
        Some([limit]) => limit,
        None => return least_piece_of_unix(socket),
    };
    // Pieces are of one segment where the peer's window never was larger than two.
    let segment = sys::socket_option(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG);
    segment.filter(|_| limit == 0 || limit == u32::MAX).map(|[segment]| segment)
}

/// Of a stream: datagrams and packets are refused while the peer has not taken some that were sent before.
fn least_piece_of_unix(socket: BorrowedFd<'_>) -> Option<u32> {
    let figure = |name| sys::socket_option(socket, libc::SOL_SOCKET, name);
    let is_stream = figure(libc::SO_DOMAIN) == Some([libc::AF_UNIX as u32])
        && figure(libc::SO_TYPE) == Some([libc::SOCK_STREAM as u32]);
    is_stream.then_some(LEAST_OF_UNIX)
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

/// Bytes that the kernel counts for a buffer of its own besides what is in it: 832 (6.18) to 1280.
const PIECE_OVERHEAD: u64 = 1280;
/// Half of the least send buffer, but what the kernel keeps of that.
const LEAST_OF_UNIX: u32 = 2240;
