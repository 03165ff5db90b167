//! Datagrams: whole, with their senders.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use socket2::{SockAddr, SockAddrStorage};

use crate::Received;
use crate::sys;

/// One datagram.
///
/// It is in one piece of memory with the name of its sender, so that it costs no more than other bytes.
pub struct Datagram {
    /// A description of the kernel's, the name, and what was sent.
    whole: Received,
    name_len: u16,
    truncated: bool,
}

impl Datagram {
    /// What was in it, which may be nothing.
    pub fn data(&self) -> Received {
        let mut data = self.whole.clone();
        data.advance(PREFIX);
        data
    }

    /// As [`data`](Self::data), for who needs the sender no more.
    pub fn into_data(self) -> Received {
        let mut data = self.whole;
        data.advance(PREFIX);
        data
    }

    /// Who sent it, if that was named.
    pub fn address(&self) -> Option<SockAddr> {
        let name = self.whole.get(DESCRIPTION..PREFIX)?;
        address_in(&name, self.name_len.into())
    }

    /// Whether it was longer than its buffer, so that its end is lost.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    pub(crate) fn len(&self) -> usize {
        self.whole.len().saturating_sub(PREFIX)
    }

    /// What a multishot receive has put into one buffer.
    pub(crate) fn in_buffer(mut whole: Received) -> io::Result<Self> {
        let word = |index: usize| {
            let bytes = whole.get(index * 4..index * 4 + 4)?;
            Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let (Some(name_len), Some(len), Some(flags)) = (word(0), word(2), word(3)) else {
            return Err(io::Error::other("a datagram without its description"));
        };
        // The length is that of the datagram, also where the buffer was shorter.
        whole.truncate(PREFIX + len as usize);
        let truncated = flags & libc::MSG_TRUNC as u32 != 0;
        Ok(Self { whole, name_len: u16::try_from(name_len).unwrap_or(u16::MAX), truncated })
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("data", &self.data())
            .field("address", &self.address())
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// What a receive of a datagram needs. The kernel reads and writes the header until the last completion.
pub(crate) struct Message {
    header: libc::msghdr,
    vector: libc::iovec,
    /// Memory of its own, instead of a buffer of the group, and laid out as one.
    own: Option<Vec<u8>>,
}

impl Message {
    /// For datagrams of up to `own` bytes in memory of its own, or for buffers of the group.
    pub(crate) fn new(own: Option<usize>) -> Box<Self> {
        // SAFETY: a `msghdr` of zeros is valid: null pointers and lengths of zero.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut message = Box::new(Self { header, vector, own: None });
        if let Some(len) = own {
            message.set_own(len);
        }
        message
    }

    /// The next datagram, of up to `len` bytes, goes into memory of its own.
    pub(crate) fn set_own(&mut self, len: usize) {
        self.own = Some(vec![0; PREFIX.saturating_add(len)]);
    }

    /// Whether the next datagram goes into memory of its own.
    pub(crate) fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// Receives a datagram into memory of its own, without waiting; `None` if there is no such memory.
    pub(crate) fn receive_own(&mut self, fd: BorrowedFd<'_>) -> Option<io::Result<usize>> {
        self.point_at_own().then(|| {
            // SAFETY: the header names this message's own memory, by its lengths.
            unsafe { sys::receive_message(fd, &raw mut self.header) }
        })
    }

    /// The header, for a request. It names this message, which must not move or change before the completion.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        if !self.point_at_own() {
            self.header.msg_namelen = NAME_BYTES as libc::socklen_t;
            self.header.msg_name = ptr::null_mut();
            self.header.msg_iov = ptr::null_mut();
            self.header.msg_iovlen = 0;
        }
        &raw mut self.header
    }

    /// Makes the header name the memory of this message's own, if there is some.
    fn point_at_own(&mut self) -> bool {
        let Some(own) = &mut self.own else { return false };
        self.header.msg_namelen = NAME_BYTES as libc::socklen_t;
        self.header.msg_flags = 0;
        let (prefix, data) = own.split_at_mut(PREFIX);
        self.vector.iov_base = data.as_mut_ptr().cast();
        self.vector.iov_len = data.len();
        self.header.msg_name = prefix[DESCRIPTION..].as_mut_ptr().cast();
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        true
    }

    /// The datagram of `len` bytes that the kernel has put into memory of the message's own, if that was armed.
    pub(crate) fn take(&mut self, len: usize) -> Option<Datagram> {
        let mut own = self.own.take()?;
        own.truncate(PREFIX.saturating_add(len));
        Some(Datagram {
            whole: own.into(),
            name_len: u16::try_from(self.header.msg_namelen).unwrap_or(u16::MAX),
            truncated: self.header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// Receives a datagram into a buffer of `len` bytes, without waiting, and lays it out as a multishot receive does. Gives how
/// many bytes of the buffer are filled.
///
/// # Safety
///
/// `place` is valid for writes of `len` bytes, and nobody reads them meanwhile.
pub(crate) unsafe fn receive_into(
    fd: BorrowedFd<'_>,
    place: NonNull<u8>,
    len: usize,
) -> io::Result<usize> {
    let Some(room) = len.checked_sub(PREFIX) else {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    };
    // SAFETY: the place is inside the buffer, as that is longer than the prefix.
    let name = unsafe { place.add(DESCRIPTION) };
    // SAFETY: as above, or one past the end.
    let data = unsafe { place.add(PREFIX) };
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast(), iov_len: room };
    // SAFETY: a `msghdr` of zeros is valid: null pointers and lengths of zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_ptr().cast();
    header.msg_namelen = NAME_BYTES as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    // SAFETY: what the header names is inside the buffer.
    let count = unsafe { sys::receive_message(fd, &raw mut header) }?;
    let description = [header.msg_namelen, 0, count as u32, header.msg_flags as u32];
    // SAFETY: the description is as long as its place at the start of the buffer; bytes need no alignment.
    unsafe { place.cast::<[u32; 4]>().write_unaligned(description) };
    Ok(PREFIX + count)
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
/// What stands before the bytes of a datagram.
const PREFIX: usize = DESCRIPTION + NAME_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel lays it out: lengths of name, control data and payload, flags; the name; the payload.
    fn buffer(name: &[u8], payload: &[u8], len: u32, flags: u32) -> Received {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, 0, len, flags] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(name);
        bytes.resize(PREFIX, 0);
        bytes.extend(payload);
        bytes.into()
    }

    #[test]
    fn a_buffer_holds_a_name_and_bytes() {
        let name = [[2, 0, 0, 80, 127, 0, 0, 1].as_slice(), &[0; 8]].concat();
        let datagram = Datagram::in_buffer(buffer(&name, b"hello", 5, 0)).unwrap();
        assert_eq!(datagram.data(), b"hello");
        assert_eq!((datagram.len(), datagram.is_truncated()), (5, false));
        let address = datagram.address().unwrap().as_socket().unwrap();
        assert_eq!(address, ([127, 0, 0, 1], 80).into());
        assert_eq!(datagram.into_data(), b"hello");
    }

    #[test]
    fn a_datagram_that_did_not_fit_is_cut_and_says_so() {
        let flags = libc::MSG_TRUNC as u32;
        let datagram = Datagram::in_buffer(buffer(&[], b"hel", 5, flags)).unwrap();
        assert_eq!((&*datagram.data(), datagram.is_truncated()), (&b"hel"[..], true));
        assert!(datagram.address().is_none());
    }

    #[test]
    fn a_buffer_that_is_no_datagram_is_an_error_or_empty() {
        assert!(Datagram::in_buffer(Received::from(b"short".as_slice())).is_err());
        let datagram = Datagram::in_buffer(Received::from([0xff; 20].as_slice())).unwrap();
        assert!(datagram.data().is_empty() && datagram.address().is_none());
    }
}
