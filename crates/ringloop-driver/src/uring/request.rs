//! What an op is to a ring: the request that asks the kernel for it.

use std::os::fd::AsRawFd;

use io_uring::squeue::{Entry as Request, Flags};
use io_uring::{opcode, types};

use crate::buffers::GroupSize;
use crate::key::{OpKey, Tag};
use crate::op::{Call, Kind, Op, OpFile, READ_AHEAD};
use crate::send_queue::{Gathered, MOST_AT_ONCE};

impl Op {
    /// The request for this op. Every address in it is of memory that the op owns. A multishot receive is to end after
    /// `limit` bytes; zero is no limit.
    pub(crate) fn request(&mut self, key: OpKey, limit: u32) -> Request {
        let group = self.group.as_ref().map_or(0, |group| group.size().id);
        let fd = match &self.file {
            OpFile::Descriptor(fd) => types::Fd(fd.as_raw_fd()),
            &OpFile::Slot(slot) => return self.request_by_slot(key, slot),
        };
        let entry = match &mut self.kind {
            Kind::Accept { multishot } => {
                let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                if *multishot {
                    opcode::AcceptMulti::new(fd).flags(flags).build()
                } else {
                    opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                        .flags(flags)
                        .build()
                }
            }
            Kind::Recv { own, multishot, call, left, .. } => {
                let how_much = if *multishot {
                    *left = if limit == 0 { READ_AHEAD } else { limit };
                    HowMuch::Many { limit }
                } else {
                    HowMuch::Once
                };
                receive(fd, own.as_mut(), how_much, *call, group)
            }
            Kind::RecvFrom { message, .. } => {
                let header = message.header();
                if message.has_own() {
                    opcode::RecvMsg::new(fd, header).build()
                } else {
                    let group = GroupSize::for_datagrams().id;
                    let request = opcode::RecvMsgMulti::new(fd, header, group);
                    request.ioprio(MULTISHOT | POLL_FIRST).build()
                }
            }
            Kind::Send { queue, dont_wait, call, shown } => {
                let gathered = shown.gather(queue);
                send(fd, gathered, *dont_wait, *call)
            }
            Kind::SendTo { queue, dont_wait, address } => {
                let flags = if *dont_wait { libc::MSG_DONTWAIT } else { 0 };
                let header = queue.gather_datagram(address.as_deref());
                opcode::SendMsg::new(fd, header).flags(flags as u32).build()
            }
            Kind::Connect { address } => {
                opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
            }
            Kind::Poll { interest, multishot } => {
                opcode::PollAdd::new(fd, interest.mask()).multi(*multishot).build()
            }
            Kind::Shutdown { how } => opcode::Shutdown::new(fd, *how).build(),
        };
        entry.user_data(Tag::Op(key).encode())
    }

    /// Only polls name a file by its slot.
    fn request_by_slot(&self, key: OpKey, slot: u32) -> Request {
        let mask = match &self.kind {
            Kind::Poll { interest, .. } => interest.mask(),
            _ => 0,
        };
        opcode::PollAdd::new(types::Fixed(slot), mask).build().user_data(Tag::Op(key).encode())
    }
}

/// What a receive is asked for.
#[derive(Clone, Copy)]
enum HowMuch {
    /// Until the stream ends, or after `limit` bytes, unless that is zero.
    Many { limit: u32 },
    /// One piece.
    Once,
}

/// Into `own`, or into a buffer of the group. A multishot read is played by one after the other: the kernel has it since 6.7
/// only, and lost buffers in 6.8.
fn receive(
    fd: types::Fd,
    own: Option<&mut Vec<u8>>,
    how_much: HowMuch,
    call: Call,
    group: u16,
) -> Request {
    let (start, len) = own.map_or((std::ptr::null_mut(), 0), |own| {
        (own.as_mut_ptr(), own.len().min(MOST_AT_ONCE) as u32)
    });
    let request = match call {
        Call::Socket => {
            let request = opcode::Recv::new(fd, start, len).buf_group(group);
            match how_much {
                // No POLL_FIRST: where the end of an AF_UNIX stream is there already, it would be lost.
                HowMuch::Many { limit } if start.is_null() => {
                    with_limit(request.ioprio(MULTISHOT).build(), limit)
                }
                _ => request.build(),
            }
        }
        Call::File => {
            opcode::Read::new(fd, start, len).offset(CURRENT_POSITION).buf_group(group).build()
        }
    };
    if start.is_null() { request.flags(Flags::BUFFER_SELECT) } else { request }
}

/// Sets `optlen`, which the io-uring crate does not know.
fn with_limit(mut request: Request, limit: u32) -> Request {
    let words = (&raw mut request).cast::<u32>();
    // SAFETY: a request is sixteen words long.
    let place = unsafe { words.add(OPTLEN) };
    // SAFETY: the place is aligned, inside the request, and ours alone; a request is plain numbers.
    unsafe { place.write(limit) };
    request
}

/// A request that tells by its error whether the kernel knows the limit of a multishot receive.
pub(crate) fn limited_receive_of_nothing() -> Request {
    receive(types::Fd(-1), None, HowMuch::Many { limit: 1 }, Call::Socket, 0)
}

fn send(fd: types::Fd, gathered: Gathered, dont_wait: bool, call: Call) -> Request {
    let (socket_flags, file_flags) =
        if dont_wait { (libc::MSG_DONTWAIT, libc::RWF_NOWAIT) } else { (0, 0) };
    match (call, gathered) {
        (Call::Socket, Gathered::One { start, len }) => {
            let len = len as u32; // It is no more than `MOST_AT_ONCE`.
            opcode::Send::new(fd, start, len).flags(socket_flags).build()
        }
        (Call::Socket, Gathered::Many { header, .. }) => {
            opcode::SendMsg::new(fd, header).flags(socket_flags as u32).build()
        }
        (Call::File, Gathered::One { start, len }) => {
            let len = len as u32; // As above.
            let request = opcode::Write::new(fd, start, len).offset(CURRENT_POSITION);
            request.rw_flags(file_flags).build()
        }
        (Call::File, Gathered::Many { vector, len, .. }) => {
            let request = opcode::Writev::new(fd, vector, len).offset(CURRENT_POSITION);
            request.rw_flags(file_flags).build()
        }
    }
}

/// The word of a request that says after how many bytes a multishot receive ends (6.17).
const OPTLEN: usize = 11;

/// `IORING_RECV_MULTISHOT`.
const MULTISHOT: u16 = 1 << 1;
/// `IORING_RECVSEND_POLL_FIRST`: an idle socket is not refused while no buffer is free. For datagrams.
const POLL_FIRST: u16 = 1;

/// As the offset of a read or write: the current position of the file. Pipes and sockets have none and ignore it.
const CURRENT_POSITION: u64 = u64::MAX;
