//! Datagrams: whole, with their senders.

use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use socket2::{SockAddr, SockAddrStorage};

use crate::Received;
use crate::buffers::GroupSize;
use crate::op::{MULTISHOT, POLL_FIRST};

/// One datagram.
#[derive(Debug)]
pub struct Datagram {
    /// What was in it, which may be nothing.
    pub data: Received,
    /// Who sent it, if that was named.
    pub address: Option<SockAddr>,
    /// Whether it was longer than its buffer, so that its end is lost.
    pub truncated: bool,
}

/// What a receive of a datagram needs. The kernel reads and writes the header and the name until the last completion.
pub(crate) struct Message {
    header: libc::msghdr,
    vector: libc::iovec,
    name: MaybeUninit<libc::sockaddr_storage>,
    /// Memory of its own, instead of a buffer of the group.
    own: Option<Vec<u8>>,
}

impl Message {
    pub(crate) fn new(own: Option<Vec<u8>>) -> Box<Self> {
        // SAFETY: a `msghdr` of zeros is valid: null pointers and lengths of zero.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Box::new(Self { header, vector, name: MaybeUninit::zeroed(), own })
    }

    pub(crate) fn set_own(&mut self, own: Vec<u8>) {
        self.own = Some(own);
    }

    /// The request. It names this message, which must not move or change before its completion.
    pub(crate) fn receive(&mut self, fd: types::Fd) -> Entry {
        self.header.msg_namelen = NAME_BYTES as libc::socklen_t;
        self.header.msg_flags = 0;
        let Some(own) = &mut self.own else {
            let group = GroupSize::for_datagrams().id;
            let request = opcode::RecvMsgMulti::new(fd, &raw const self.header, group);
            return request.ioprio(MULTISHOT | POLL_FIRST).build();
        };
        self.vector.iov_base = own.as_mut_ptr().cast();
        self.vector.iov_len = own.len();
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        opcode::RecvMsg::new(fd, &raw mut self.header).build()
    }

    /// The datagram of `len` bytes that the kernel has put into memory of the message's own, if that was armed.
    pub(crate) fn take(&mut self, len: usize) -> Option<Datagram> {
        let mut own = self.own.take()?;
        let truncated = self.header.msg_flags & libc::MSG_TRUNC != 0;
        own.truncate(len);
        // SAFETY: it began as zeros, and the kernel has written an address, or nothing.
        let name = unsafe { self.name.assume_init_ref() };
        let name = (&raw const *name).cast::<u8>();
        // SAFETY: the name is so many bytes long, all of them initialised, and outlives the slice.
        let name = unsafe { std::slice::from_raw_parts(name, NAME_BYTES) };
        let address = address_in(name, self.header.msg_namelen as usize);
        self.header.msg_name = ptr::null_mut();
        self.header.msg_iov = ptr::null_mut();
        self.header.msg_iovlen = 0;
        Some(Datagram { data: own.into(), address, truncated })
    }
}

impl Datagram {
    /// What a multishot receive has put into one buffer: a description, the name, the bytes.
    pub(crate) fn in_buffer(mut buffer: Received) -> io::Result<Self> {
        let word = |index: usize| {
            let bytes = buffer.get(index * 4..index * 4 + 4)?;
            Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let (Some(name_len), Some(len), Some(flags)) = (word(0), word(2), word(3)) else {
            return Err(io::Error::other("a datagram without its description"));
        };
        let name = buffer.get(DESCRIPTION..DESCRIPTION + NAME_BYTES).unwrap_or_default();
        let address = address_in(&name, name_len as usize);
        drop(name);
        buffer.advance(DESCRIPTION + NAME_BYTES);
        // The length is that of the datagram, also where the buffer was shorter.
        buffer.truncate(len as usize);
        let truncated = flags & libc::MSG_TRUNC as u32 != 0;
        Ok(Self { data: buffer, address, truncated })
    }
}

/// `None` for a sender without a name, and for a name that is longer than any that the system knows.
fn address_in(bytes: &[u8], len: usize) -> Option<SockAddr> {
    if len < size_of::<libc::sa_family_t>() || len > bytes.len() {
        return None;
    }
    let mut storage = SockAddrStorage::zeroed();
    if len > storage.size_of() as usize {
        return None;
    }
    // SAFETY: every part of an address is plain bytes.
    let place = unsafe { storage.view_as::<SockAddrStorage>() };
    let place = (&raw mut *place).cast::<u8>();
    // SAFETY: both are at least `len` bytes long, and apart.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, len) };
    // SAFETY: the storage holds an address of that length.
    Some(unsafe { SockAddr::new(storage, len as libc::socklen_t) })
}

const NAME_BYTES: usize = size_of::<libc::sockaddr_storage>();
/// `struct io_uring_recvmsg_out`: lengths of name, control data and payload, and flags.
const DESCRIPTION: usize = 16;
