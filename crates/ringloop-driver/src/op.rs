//! Ops: what each asks of the kernel, and what it owns until its last completion.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::process;
use std::rc::Rc;

use io_uring::squeue::{Entry as Request, Flags};
use io_uring::{opcode, types};
use slab::Slab;
use socket2::SockAddr;

use crate::buffers::Group;
use crate::completion::{Interest, Token};
use crate::datagram::Message;
use crate::send_queue::{Gathered, MOST_AT_ONCE};
use crate::{Account, Descriptor, SendQueue};

/// Names one op. A key of an op that is over names nothing, also when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpKey {
    index: u32,
    /// As many as there will ever be: a key that somebody keeps for hours names no later op.
    generation: u64,
}

/// What fits of a key into the word that a request carries: half of its generation. It tells an op from those that were in
/// its place before, as all of their entries have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    index: u32,
    generation: u32,
}

impl OpKey {
    pub(crate) fn mark(self) -> Mark {
        Mark { index: self.index, generation: self.generation as u32 }
    }

    /// All keys of that place, in order.
    pub(crate) fn all_at(mark: Mark) -> RangeInclusive<Self> {
        let key = |generation| Self { index: mark.index, generation };
        key(0)..=key(u64::MAX)
    }
}

/// An op in flight. The slab owns it, and with it all that the kernel may touch, until the last completion.
pub(crate) struct Op {
    generation: u64,
    pub(crate) token: Token,
    pub(crate) target: Target,
    pub(crate) kind: Kind,
    /// That the kernel takes a buffer of, while the op is armed so. The kernel may write to one that it has taken until the
    /// last completion, so the group must live as long.
    pub(crate) group: Option<Rc<Group>>,
    /// Nobody wants more of it, so it is not armed again.
    pub(crate) cancelled: bool,
    pub(crate) state: State,
}

/// What of an op the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its request.
    Armed,
    /// Nothing: it is a receive that found no free buffer.
    Starved,
    /// Its request again, after it had starved; nothing has come since.
    Fed,
    /// A poll under its key: it is a receive that waits for something to receive, and holds no memory meanwhile.
    Polling,
    /// A poll that is kept apart (see `driver/quiet.rs`): it is a poll that would be ready for nothing at once.
    Quiet,
}

/// What an op works on.
#[derive(Clone)]
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
        call: Call,
        /// Bytes until the kernel ends a multishot by itself, as it was asked to; all that a single one is to take.
        left: u32,
    },
    /// Datagrams, with their senders.
    RecvFrom {
        account: Account,
        multishot: bool,
        message: Box<Message>,
    },
    Send {
        queue: SendQueue,
        dont_wait: bool,
        call: Call,
        /// Bytes that the kernel is shown.
        #[cfg(feature = "testing")]
        most: usize,
    },
    /// One datagram.
    SendTo {
        queue: SendQueue,
        dont_wait: bool,
        /// Boxed: the kernel reads it when it starts the op, which may be after the slab has grown.
        address: Option<Box<SockAddr>>,
    },
    /// Boxed, as above.
    Connect {
        address: Box<SockAddr>,
    },
    Poll {
        interest: Interest,
    },
    Shutdown {
        how: i32,
    },
}

/// Sockets have calls of their own; pipes and the like are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Socket,
    File,
}

/// Where an op has the memory from that the kernel writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Group,
    /// The group for datagrams.
    Datagrams,
    /// The op itself, or none.
    Own,
}

/// All ops in flight.
#[derive(Default)]
pub(crate) struct Ops {
    slab: Slab<Op>,
    generation: u64,
}

/// What a completion is about: an op, or one of the driver's own requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject<K = OpKey> {
    Op(K),
    /// The poll that is kept apart for an op.
    Quiet(K),
    Wake,
    /// A cancel or a close, which nobody waits for.
    Aside,
}

impl Ops {
    #[inline]
    pub(crate) fn insert(&mut self, target: Target, token: Token, kind: Kind) -> OpKey {
        let place = self.slab.vacant_entry();
        if place.key() >= MOST_OPS {
            process::abort(); // As `Rc`: the index would run into the generation, and name another op.
        }
        self.generation += 1;
        let generation = self.generation;
        let state = State::Armed;
        let key = OpKey { index: place.key() as u32, generation };
        place.insert(Op { generation, token, target, kind, group: None, cancelled: false, state });
        key
    }

    /// Whose entry it is.
    #[inline]
    pub(crate) fn find(&self, mark: Mark) -> Option<(OpKey, &Op)> {
        let op = self.slab.get(mark.index as usize)?;
        let key = OpKey { index: mark.index, generation: op.generation };
        (key.mark() == mark).then_some((key, op))
    }

    #[inline]
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

    pub(crate) fn keys(&self) -> impl Iterator<Item = OpKey> {
        self.slab.iter().map(|(index, op)| OpKey { index: index as u32, generation: op.generation })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// None is armed again.
    pub(crate) fn cancel_all(&mut self) {
        self.slab.iter_mut().for_each(|(_, op)| op.cancelled = true);
    }
}

impl Op {
    /// The request for this op. Every address in it is of memory that the op owns. A multishot receive is to end after
    /// `limit` bytes; zero is no limit.
    pub(crate) fn request(&mut self, key: OpKey, limit: u32) -> Request {
        let group = self.group.as_ref().map_or(0, |group| group.size().id);
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
            Kind::Recv { own, multishot, call, left, .. } => {
                if *multishot {
                    *left = if limit == 0 { crate::driver::READ_AHEAD } else { limit };
                }
                let most = if *multishot { 0 } else { *left };
                receive(fd, own.as_mut(), *multishot, limit, most, *call, group)
            }
            Kind::RecvFrom { message, .. } => message.receive(fd),
            Kind::Send {
                queue,
                dont_wait,
                call,
                #[cfg(feature = "testing")]
                most,
            } => {
                let gathered = queue.gather();
                #[cfg(feature = "testing")]
                let gathered = gathered.shorten(*most, queue);
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
            Kind::Poll { interest } => opcode::PollAdd::new(fd, interest.mask()).build(),
            Kind::Shutdown { how } => opcode::Shutdown::new(fd, *how).build(),
        };
        entry.user_data(Subject::Op(key).encode())
    }

    /// Where it takes its buffer from.
    pub(crate) fn source(&self) -> Source {
        match &self.kind {
            Kind::Recv { own: None, .. } => Source::Group,
            Kind::RecvFrom { message, .. } if !message.has_own() => Source::Datagrams,
            _ => Source::Own,
        }
    }

    /// Only polls name a file by its slot.
    fn request_by_slot(&self, key: OpKey, slot: u32) -> Request {
        let mask = match &self.kind {
            Kind::Poll { interest } => interest.mask(),
            _ => 0,
        };
        opcode::PollAdd::new(types::Fixed(slot), mask).build().user_data(Subject::Op(key).encode())
    }

    /// Whether a result that is no error, and the last entry, is the end of this op: all that is asked of most.
    #[inline]
    pub(crate) fn ends_with_a_result(&self) -> bool {
        let is_once = match &self.kind {
            Kind::Send { .. } | Kind::SendTo { .. } | Kind::Connect { .. } => true,
            Kind::Recv { multishot, .. } => !multishot,
            _ => false,
        };
        is_once && self.state == State::Armed
    }

    /// What is to be done when the kernel has ended this op, and nobody had asked for that.
    pub(crate) fn end_of_arm(&self, result: &io::Result<u32>) -> EndOfArm {
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        match (&self.kind, errno) {
            (Kind::Recv { .. }, Some(libc::ENOBUFS)) => EndOfArm::Starved,
            (Kind::RecvFrom { .. }, Some(libc::ENOBUFS)) => EndOfArm::AgainWithOwnMemory,
            (Kind::Poll { interest }, None)
                if interest.is_missed_by(*result.as_ref().unwrap_or(&0)) =>
            {
                EndOfArm::AgainQuietly
            }
            (Kind::Connect { .. } | Kind::Poll { .. } | Kind::Shutdown { .. }, _) => EndOfArm::Over,
            (_, Some(libc::EINTR)) => EndOfArm::Again,
            // An overflow of the completion queue ends a multishot with a result that is as good as any.
            (Kind::Accept { multishot: true } | Kind::RecvFrom { multishot: true, .. }, None) => {
                EndOfArm::Again
            }
            (Kind::Recv { multishot: true, left, .. }, None) => match result {
                // At the end of the stream, or of what it was to receive.
                Ok(count) if *count == 0 || count >= left => EndOfArm::Over,
                _ => EndOfArm::Again,
            },
            _ => EndOfArm::Over,
        }
    }
}

/// Into `own`, or into a buffer of the group; up to `most` bytes, unless that is zero. A multishot read is played by one after the other: the kernel has it since
/// 6.7 only, and lost buffers in 6.8.
fn receive(
    fd: types::Fd,
    own: Option<&mut Vec<u8>>,
    multishot: bool,
    limit: u32,
    most: u32,
    call: Call,
    group: u16,
) -> Request {
    let (start, len) = own.map_or((std::ptr::null_mut(), most), |own| {
        let len = own.len().min(MOST_AT_ONCE) as u32;
        (own.as_mut_ptr(), if most == 0 { len } else { len.min(most) })
    });
    let request = match call {
        Call::Socket => {
            let many = multishot && start.is_null();
            // No POLL_FIRST: where the end of an AF_UNIX stream is there already, it would be lost.
            let how = if many { MULTISHOT } else { 0 };
            let request = opcode::Recv::new(fd, start, len).buf_group(group).ioprio(how).build();
            if many { with_limit(request, limit) } else { request }
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
    receive(types::Fd(-1), None, true, 1, 0, Call::Socket, 0)
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

/// What follows on the last result of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndOfArm {
    Over,
    /// It is armed again under the same key.
    Again,
    /// As `Again`, but without a buffer of the group.
    AgainWithOwnMemory,
    /// It is a poll that was ready for nothing, and goes on in another way.
    AgainQuietly,
    /// It waits for a buffer.
    Starved,
}

impl Subject {
    /// Half of the generation, index and kind in one word: a late completion of an op that is over finds nobody.
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::Op(key) => key.generation << 32 | u64::from(key.index) << 2 | OP,
            Self::Quiet(key) => Self::Op(key).encode() | QUIET,
            Self::Wake => WAKE,
            Self::Aside => ASIDE,
        }
    }
}

impl Subject<Mark> {
    pub(crate) fn decode(user_data: u64) -> Self {
        let mark = Mark { index: (user_data as u32) >> 2, generation: (user_data >> 32) as u32 };
        match user_data & 3 {
            OP => Self::Op(mark),
            QUIET => Self::Quiet(mark),
            WAKE => Self::Wake,
            _ => Self::Aside,
        }
    }
}

/// Ops in flight: an index has 30 bits of the word.
const MOST_OPS: usize = 1 << 30;

const OP: u64 = 0;
const WAKE: u64 = 1;
const ASIDE: u64 = 2;
const QUIET: u64 = 3;

/// The word of a request that says after how many bytes a multishot receive ends (6.17).
const OPTLEN: usize = 11;

/// `IORING_RECV_MULTISHOT`.
pub(crate) const MULTISHOT: u16 = 1 << 1;
/// `IORING_RECVSEND_POLL_FIRST`: an idle socket is not refused while no buffer is free. For datagrams only.
pub(crate) const POLL_FIRST: u16 = 1;

/// As the offset of a read or write: the current position of the file. Pipes and sockets have none and ignore it.
const CURRENT_POSITION: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn poll() -> (Target, Kind) {
        (Target::Slot(0), Kind::Poll { interest: Interest { read: true, write: false } })
    }

    fn insert(ops: &mut Ops) -> OpKey {
        let (target, kind) = poll();
        ops.insert(target, Token(0), kind)
    }

    #[test]
    fn a_key_names_its_op_and_no_later_one_in_the_same_place() {
        let mut ops = Ops::default();
        let first = insert(&mut ops);
        assert!(ops.contains(first));
        assert!(ops.remove(first).is_some());
        let second = insert(&mut ops);
        assert_eq!(first.index, second.index);
        assert!(!ops.contains(first) && ops.contains(second));
        assert!(ops.get_mut(first).is_none());
        assert!(ops.remove(first).is_none());
        assert_eq!(ops.len(), 1);
    }

    #[test]
    fn a_key_names_no_later_op_whose_mark_is_the_same() {
        let mut ops = Ops::default();
        let first = insert(&mut ops);
        assert_eq!(ops.find(first.mark()).map(|(key, _)| key), Some(first));
        ops.remove(first);
        assert!(ops.find(first.mark()).is_none());
        ops.generation += u64::from(u32::MAX);
        let second = insert(&mut ops);
        assert_eq!(first.mark(), second.mark());
        assert_eq!(ops.find(first.mark()).map(|(key, _)| key), Some(second));
        assert!(!ops.contains(first) && ops.get_mut(first).is_none());
        assert!(OpKey::all_at(first.mark()).contains(&second));
    }

    #[test]
    fn a_subject_comes_back_from_its_word() {
        for generation in [0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            for index in [0, 1, (1 << 30) - 1] {
                let key = OpKey { index, generation };
                assert_eq!(Subject::decode(Subject::Op(key).encode()), Subject::Op(key.mark()));
                let quiet = Subject::Quiet(key);
                assert_eq!(Subject::decode(quiet.encode()), Subject::Quiet(key.mark()));
            }
        }
        assert_eq!(Subject::decode(Subject::Wake.encode()), Subject::Wake);
        assert_eq!(Subject::decode(Subject::Aside.encode()), Subject::Aside);
    }

    fn op(kind: Kind) -> Op {
        let (target, state) = (Target::Slot(0), State::Armed);
        Op { generation: 0, token: Token(0), target, kind, group: None, cancelled: false, state }
    }

    fn receive(multishot: bool, left: u32) -> Op {
        let account = Account::new();
        op(Kind::Recv { account, multishot, own: None, call: Call::Socket, left })
    }

    fn failed(errno: i32) -> io::Result<u32> {
        Err(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn what_the_kernel_ended_goes_on_if_it_was_not_over() {
        let many = receive(true, 100);
        assert_eq!(many.end_of_arm(&Ok(99)), EndOfArm::Again);
        assert_eq!(many.end_of_arm(&Ok(100)), EndOfArm::Over);
        assert_eq!(many.end_of_arm(&Ok(0)), EndOfArm::Over);
        assert_eq!(many.end_of_arm(&failed(libc::ENOBUFS)), EndOfArm::Starved);
        assert_eq!(many.end_of_arm(&failed(libc::EINTR)), EndOfArm::Again);
        assert_eq!(many.end_of_arm(&failed(libc::ECONNRESET)), EndOfArm::Over);
        let once = receive(false, 0);
        assert_eq!(once.end_of_arm(&Ok(99)), EndOfArm::Over);
        assert_eq!(once.end_of_arm(&failed(libc::ENOBUFS)), EndOfArm::Starved);
        let accept = op(Kind::Accept { multishot: true });
        assert_eq!(accept.end_of_arm(&Ok(0)), EndOfArm::Again);
        assert_eq!(accept.end_of_arm(&failed(libc::EMFILE)), EndOfArm::Over);
        let poll = op(poll().1);
        assert_eq!(poll.end_of_arm(&Ok(libc::POLLIN as u32)), EndOfArm::Over);
        assert_eq!(poll.end_of_arm(&Ok(libc::POLLHUP as u32)), EndOfArm::Over);
        assert_eq!(poll.end_of_arm(&Ok(libc::POLLRDHUP as u32)), EndOfArm::AgainQuietly);
    }
}
