//! Calls that are made here and now, on memory of the caller's that the kernel has let go of when they return.
//!
//! None of them waits, whether the descriptor is blocking or not: what is not possible now is
//! [`WouldBlock`](io::ErrorKind::WouldBlock), and a [`poll`](Driver::poll) or a [`recv`](Driver::recv) waits for it. So a
//! caller needs no buffer of its own, and what it drops leaves nothing in flight.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;

use socket2::SockAddr;

use super::Driver;
use super::reap::lease;
use crate::backend::Backend;
use crate::completion::{SendStarted, Token};
use crate::epoll::calls;
use crate::key::{OpKey, Tag};
use crate::op::Call;
use crate::send_queue::MOST_AT_ONCE;
use crate::uring::ring::SendRequest;
use crate::{Account, Descriptor, Received, SendQueue, sys};

impl Driver {
    /// Receives into `buffer`. Zero bytes are the end of the stream, or an empty datagram; the rest of a datagram that is
    /// longer than `buffer` is lost.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`; [`io::ErrorKind::WouldBlock`] if there is nothing.
    pub fn try_recv(&mut self, socket: &Descriptor, buffer: &mut [u8]) -> io::Result<usize> {
        self.hooks.refuse_call()?;
        let count = sys::recv(socket.as_fd(), buffer)?;
        self.counters.bytes_in += count as u64;
        Ok(count)
    }

    /// As [`try_recv`](Self::try_recv), of up to `most` bytes of a stream, into one of the buffers that are lent: what it gives
    /// is as of a [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_recv_lent(
        &mut self,
        socket: &Descriptor,
        account: &Account,
        most: usize,
    ) -> io::Result<Received> {
        let Some((group, index, place)) = self.next_for_direct() else {
            let mut own = vec![0; most.min(self.own_buffer_size())];
            let count = self.try_recv(socket, &mut own)?;
            own.truncate(count);
            self.counters.copied += u64::from(count > 0);
            return Ok(own.into());
        };
        let group = Rc::clone(group);
        self.hooks.refuse_call()?;
        let len = most.min(group.buffer_size());
        // SAFETY: the buffer is so long, of initialised bytes; it is offered, and to this thread only, so nobody has it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), len) };
        let count = sys::recv(socket.as_fd(), buffer)?;
        if count == 0 {
            return Ok(Received::default());
        }
        self.counters.bytes_in += count as u64;
        group.take_offered();
        lease(&mut self.counters, Some(index), count, account, Some(&group))
    }

    /// As [`try_recv`](Self::try_recv), with the sender, if it is named.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv_from(
        &mut self,
        socket: &Descriptor,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SockAddr>)> {
        self.hooks.refuse_call()?;
        let (count, sender) = sys::recv_from(socket.as_fd(), buffer)?;
        self.counters.bytes_in += count as u64;
        Ok((count, sender))
    }

    /// Sends as much of `bytes` as there is room for: to whom the socket is connected, or to `address`.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`; [`io::ErrorKind::WouldBlock`] if there is no room. No signal comes with a broken pipe.
    #[inline]
    pub fn try_send(
        &mut self,
        socket: &Descriptor,
        bytes: &[u8],
        address: Option<&SockAddr>,
    ) -> io::Result<usize> {
        self.hooks.refuse_call()?;
        let most = self.hooks.shorten(bytes.len());
        // A datagram is sent whole or not at all.
        let bytes = if address.is_none() { &bytes[..most] } else { bytes };
        let count = sys::send_to(socket.as_fd(), bytes, address)?;
        self.counters.bytes_out += count as u64;
        Ok(count)
    }

    /// As [`send`](Self::send) to a socket that has nothing in flight and is not to be waited for. `queue` is left empty. Where each
    /// send is a system call of its own, over epoll, that call is made here and now, and no completion comes: then the queue stays as
    /// it is.
    #[inline]
    pub fn send_or_start(
        &mut self,
        socket: &Descriptor,
        queue: &mut SendQueue,
        token: Token,
    ) -> SendStarted {
        if self.sends_at_once() {
            return SendStarted::Done(self.send_now(socket, queue));
        }
        if let Some((key, _)) = self.start_send_of_one(socket, queue, token) {
            return SendStarted::InFlight(key);
        }
        SendStarted::InFlight(self.send(socket, mem::take(queue), true, token))
    }

    /// As [`send_or_start`](Self::send_or_start), for what almost every send is: one piece, to a ring that has room for it. `None`,
    /// and nothing has changed, if it is anything else. Gives how many bytes it is, too.
    #[inline(always)]
    pub fn start_send_of_one(
        &mut self,
        socket: &Descriptor,
        queue: &mut SendQueue,
        token: Token,
    ) -> Option<(OpKey, usize)> {
        let bytes = queue.only_piece()?;
        // Where the bytes are does not change when the queue is moved to the op.
        let (start, len) = (bytes.as_ptr(), bytes.len());
        let Backend::Uring(ring) = &mut *self.backend else { return None };
        if self.hooks.are_set() || !self.backlog.is_empty() || !ring.has_room() {
            return None;
        }
        let key = self.ops.insert_send(socket, token, queue)?;
        let request = SendRequest {
            fd: socket.as_raw_fd(),
            start,
            len: len.min(MOST_AT_ONCE) as u32,
            flags: libc::MSG_DONTWAIT,
            user_data: Tag::Op(key).encode(),
        };
        // SAFETY: there is room, as was seen above. The bytes are of a piece that the op owns until its last completion; they do not
        // move with it.
        unsafe { ring.push_send(request) };
        Some((key, len))
    }

    #[inline]
    fn send_now(&mut self, socket: &Descriptor, queue: &mut SendQueue) -> io::Result<usize> {
        let gathered = queue.gather();
        // SAFETY: what is gathered belongs to the queue, which is neither changed nor dropped before the call returns.
        let result = unsafe { calls::send(socket.as_fd(), &gathered, Call::Socket, false) };
        self.counters.submitted += 1;
        self.counters.completed += 1;
        self.counters.bytes_out += *result.as_ref().unwrap_or(&0) as u64;
        result
    }

    /// Not where faults are to happen to ops, nor in a forked child, which is refused when it submits.
    #[inline]
    fn sends_at_once(&self) -> bool {
        let is_ours = matches!(&*self.backend, Backend::Epoll(epoll) if epoll.is_ours());
        is_ours && !self.hooks.are_set()
    }

    /// Sends up to `count` bytes of `file` from `offset` on, as much as there is room for; zero at the end of the file. The
    /// file's own position stays. Reading what is not in memory yet waits for the disk.
    ///
    /// # Errors
    ///
    /// Those of `sendfile(2)`; [`io::ErrorKind::WouldBlock`] if there is no room. A broken pipe brings `SIGPIPE` unless it
    /// is ignored, as Rust programs do. [`io::ErrorKind::InvalidInput`] for a socket that blocks, as this call would.
    pub fn try_sendfile(
        &mut self,
        socket: &Descriptor,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        self.hooks.refuse_call()?;
        let most = self.hooks.shorten(count);
        let count = sys::send_file(socket.as_fd(), file, offset, most)?;
        self.counters.bytes_out += count as u64;
        Ok(count)
    }
}
