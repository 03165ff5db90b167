//! Ops: what each asks of the kernel, and what it owns until its last completion.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use slab::Slab;
use socket2::SockAddr;

use crate::completion::{Interest, Token};
use crate::send_queue::Gathered;
use crate::{Account, Descriptor, SendQueue};

/// Names one op. A key of an op that is over names nothing, also when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpKey {
    index: u32,
    generation: u32,
}

/// An op in flight. The slab owns it, and with it all that the kernel may touch, until the last completion.
pub(crate) struct Op {
    generation: u32,
    pub(crate) token: Token,
    target: Target,
    pub(crate) kind: Kind,
    /// Nobody wants more of it, so it is not armed again.
    pub(crate) cancelled: bool,
    /// It found no free buffer and is not armed.
    pub(crate) starved: bool,
}

/// What an op works on.
pub(crate) enum Target {
    Descriptor(Descriptor),
    /// Of the ring's file table. The request holds the file from its submission on.
    Slot(u32),
}

pub(crate) enum Kind {
    Accept {
        multishot: bool,
    },
    /// Into buffers of the group, or into `own` where the account holds too many of them.
    Recv {
        account: Account,
        multishot: bool,
        own: Option<Vec<u8>>,
    },
    Send {
        queue: SendQueue,
        dont_wait: bool,
    },
    /// Boxed: the kernel reads the address when it starts the op, which may be after the slab has grown.
    Connect {
        address: Box<SockAddr>,
    },
    Poll {
        interest: Interest,
    },
}

/// All ops in flight.
#[derive(Default)]
pub(crate) struct Ops {
    slab: Slab<Op>,
    generation: u32,
}

/// What a completion is about: an op, or one of the driver's own requests.
pub(crate) enum Subject {
    Op(OpKey),
    Wake,
    /// A cancel or a close, which nobody waits for.
    Aside,
}

impl Ops {
    pub(crate) fn insert(&mut self, target: Target, token: Token, kind: Kind) -> OpKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let op = Op { generation, token, target, kind, cancelled: false, starved: false };
        let index = self.slab.insert(op) as u32;
        OpKey { index, generation }
    }

    pub(crate) fn get_mut(&mut self, key: OpKey) -> Option<&mut Op> {
        self.slab.get_mut(key.index as usize).filter(|op| op.generation == key.generation)
    }

    pub(crate) fn contains(&self, key: OpKey) -> bool {
        self.slab.get(key.index as usize).is_some_and(|op| op.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: OpKey) -> Option<Op> {
        self.contains(key).then(|| self.slab.remove(key.index as usize))
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<OpKey> {
        self.slab
            .iter()
            .map(|(index, op)| OpKey { index: index as u32, generation: op.generation })
            .collect()
    }
}

impl Op {
    /// The request for this op. Every address in it is of memory that the op owns.
    pub(crate) fn request(&mut self, key: OpKey, group: u16) -> Entry {
        let fd = match &self.target {
            Target::Descriptor(fd) => types::Fd(fd.as_raw_fd()),
            &Target::Slot(slot) => return self.request_by_slot(key, slot),
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
            Kind::Recv { own: Some(buffer), .. } => {
                opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build()
            }
            Kind::Recv { multishot, own: None, .. } => {
                let how = if *multishot { MULTISHOT | POLL_FIRST } else { 0 };
                let request =
                    opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(group).ioprio(how);
                request.build().flags(Flags::BUFFER_SELECT)
            }
            Kind::Send { queue, dont_wait } => {
                let flags = if *dont_wait { libc::MSG_DONTWAIT } else { 0 };
                match queue.gather() {
                    Gathered::One { start, len } => {
                        opcode::Send::new(fd, start, u32::try_from(len).unwrap_or(LONGEST))
                            .flags(flags)
                            .build()
                    }
                    Gathered::Many(header) => {
                        opcode::SendMsg::new(fd, header).flags(flags as u32).build()
                    }
                }
            }
            Kind::Connect { address } => {
                opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
            }
            Kind::Poll { interest } => opcode::PollAdd::new(fd, interest.mask()).build(),
        };
        entry.user_data(Subject::Op(key).encode())
    }

    /// Only polls name a file by its slot.
    fn request_by_slot(&self, key: OpKey, slot: u32) -> Entry {
        let mask = match &self.kind {
            Kind::Poll { interest } => interest.mask(),
            _ => 0,
        };
        opcode::PollAdd::new(types::Fixed(slot), mask).build().user_data(Subject::Op(key).encode())
    }

    /// What is to be done when the kernel has ended this op, and nobody had asked for that.
    pub(crate) fn end_of_arm(&self, result: &io::Result<u32>) -> EndOfArm {
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        match (&self.kind, errno) {
            (Kind::Recv { .. }, Some(libc::ENOBUFS)) => EndOfArm::Starved,
            (Kind::Recv { .. } | Kind::Accept { .. } | Kind::Send { .. }, Some(libc::EINTR)) => {
                EndOfArm::Again
            }
            // An overflow of the completion queue ends a multishot with a result that is as good as any.
            (Kind::Accept { multishot: true }, None) => EndOfArm::Again,
            (Kind::Recv { multishot: true, .. }, None) if !matches!(result, Ok(0)) => {
                EndOfArm::Again
            }
            _ => EndOfArm::Over,
        }
    }

    /// The memory of its own that this receive was given instead of a buffer of the group.
    pub(crate) fn take_own(&mut self) -> Option<Vec<u8>> {
        match &mut self.kind {
            Kind::Recv { own, .. } => own.take(),
            _ => None,
        }
    }

    pub(crate) fn account(&self) -> Option<Account> {
        match &self.kind {
            Kind::Recv { account, .. } => Some(account.clone()),
            _ => None,
        }
    }
}

/// What follows on the last result of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndOfArm {
    Over,
    /// It is armed again under the same key.
    Again,
    /// It waits for a buffer.
    Starved,
}

impl Subject {
    /// Generation, index and kind in one word: a late completion of an op that is over finds nobody.
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::Op(key) => u64::from(key.generation) << 32 | u64::from(key.index) << 2 | OP,
            Self::Wake => WAKE,
            Self::Aside => ASIDE,
        }
    }

    pub(crate) fn decode(user_data: u64) -> Self {
        match user_data & 3 {
            OP => {
                let (generation, index) = ((user_data >> 32) as u32, (user_data as u32) >> 2);
                Self::Op(OpKey { index, generation })
            }
            WAKE => Self::Wake,
            _ => Self::Aside,
        }
    }
}

const OP: u64 = 0;
const WAKE: u64 = 1;
const ASIDE: u64 = 2;

/// `IORING_RECV_MULTISHOT`.
const MULTISHOT: u16 = 1 << 1;
/// `IORING_RECVSEND_POLL_FIRST`: an idle socket is not refused while no buffer is free.
const POLL_FIRST: u16 = 1;

/// Of one send, where there is more than fits into its length; the rest goes with the next.
const LONGEST: u32 = 1 << 30;
