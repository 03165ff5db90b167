//! Ops: what each is to do, and what it owns until its last completion.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::num::NonZeroU64;
use std::process;
use std::rc::Rc;

use socket2::SockAddr;

use crate::buffers::Group;
use crate::completion::{Interest, Token};
use crate::datagram::Message;
use crate::key::{Mark, OpKey};
use crate::send_queue::Shown;
use crate::{Account, Descriptor, SendQueue};

/// An op in flight. The slab owns it, and with it all that the kernel may touch, until the last completion.
pub(crate) struct Op {
    generation: NonZeroU64,
    pub(crate) token: Token,
    pub(crate) file: OpFile,
    pub(crate) kind: Kind,
    /// The group of which the kernel takes a buffer for this op, while the op is armed on one. The kernel may write to a
    /// buffer that it has taken until the last completion, so the op keeps the group alive until then. Over epoll the group of
    /// large buffers, or none: then a receive takes its buffer from any of the others.
    pub(crate) group: Option<Rc<Group>>,
    /// The caller has cancelled the op, so it is not armed again when the kernel ends it.
    pub(crate) cancelled: bool,
    pub(crate) state: State,
}

/// What the kernel has of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The kernel has the op's request.
    Armed,
    /// The kernel has nothing: the op is a receive that found no free buffer, and waits for one.
    Starved,
    /// The kernel has the request again, after the op was [`Starved`](Self::Starved); no entry has come since.
    Fed,
    /// The kernel has a poll under the op's key: the op is a receive, which holds no memory until there is something to
    /// receive.
    Polling,
    /// The kernel has a multishot poll in place of the op's own, which would be ready at once for nothing that was asked
    /// for: see `uring/quiet.rs`.
    Quiet,
}

/// What an op works on.
#[derive(Clone)]
pub(crate) enum OpFile {
    Descriptor(Descriptor),
    /// Of the ring's file table. The request holds the file from its submission on.
    Slot(u32),
}

/// Its discriminant has a byte of its own, as it is looked at for each entry: one that is hidden in a field takes several instructions.
#[repr(u8)]
pub(crate) enum Kind {
    Accept {
        multishot: bool,
    },
    /// Into buffers of the group, or into `own` where the account holds too many of them.
    Recv {
        multishot: bool,
        call: Call,
        /// Bytes until the kernel ends a multishot by itself, as it was asked to.
        left: u32,
        account: Account,
        own: Option<Vec<u8>>,
    },
    /// Datagrams, with their senders.
    RecvFrom {
        multishot: bool,
        account: Account,
        message: Box<Message>,
    },
    Send {
        dont_wait: bool,
        call: Call,
        queue: SendQueue,
        shown: Shown,
    },
    /// One datagram.
    SendTo {
        dont_wait: bool,
        queue: SendQueue,
        /// Boxed: the kernel reads it when it starts the op, which may be after the slab has grown.
        address: Option<Box<SockAddr>>,
    },
    /// Boxed, as above.
    Connect {
        address: Box<SockAddr>,
    },
    Poll {
        interest: Interest,
        multishot: bool,
    },
    Shutdown {
        how: i32,
    },
}

impl Kind {
    /// Whether its end is to be seen in the iteration in which it comes.
    pub(crate) fn is_prompt(&self) -> bool {
        matches!(self, Self::Poll { multishot: false, .. } | Self::Connect { .. })
    }
}

/// Sockets have calls of their own; pipes and the like are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Socket,
    File,
}

/// Where an op has the memory from that the kernel writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffers {
    Group,
    /// The group for datagrams.
    Datagrams,
    /// The op itself, or none.
    Own,
}

/// All ops in flight, in places that are used again. An op is written where it stays, and ends there.
pub(crate) struct Ops {
    places: Vec<Place>,
    /// The first free place; beyond all of them if none is free.
    free: u32,
    taken: usize,
    /// Of the next op.
    generation: NonZeroU64,
}

enum Place {
    /// Names the next free one.
    Free(u32),
    Taken(Op),
}

impl Default for Ops {
    fn default() -> Self {
        Self { places: Vec::new(), free: NO_PLACE, taken: 0, generation: NonZeroU64::MIN }
    }
}

impl Ops {
    #[inline(always)]
    pub(crate) fn insert(&mut self, file: OpFile, token: Token, kind: Kind) -> OpKey {
        let (index, generation) = (self.free, self.generation);
        self.generation = generation.saturating_add(1);
        self.taken += 1;
        let state = State::Armed;
        let op = Op { generation, token, file, kind, group: None, cancelled: false, state };
        match self.places.get_mut(index as usize) {
            Some(place @ &mut Place::Free(next)) => {
                self.free = next;
                // A free place has nothing to be dropped.
                let _free = ManuallyDrop::new(mem::replace(place, Place::Taken(op)));
                OpKey { index, generation }
            }
            _ => self.add(op),
        }
    }

    #[cold]
    fn add(&mut self, op: Op) -> OpKey {
        let (index, generation) = (self.places.len(), op.generation);
        if index >= MOST_OPS {
            process::abort(); // As `Rc`: the index would run into the generation, and name another op.
        }
        self.places.push(Place::Taken(op));
        OpKey { index: index as u32, generation }
    }

    /// Whose entry it is.
    #[inline]
    pub(crate) fn find(&self, mark: Mark) -> Option<(OpKey, &Op)> {
        let op = self.at(mark.index).filter(|op| op.generation.get() as u32 == mark.generation)?;
        Some((op.key(mark), op))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: OpKey) -> Option<&mut Op> {
        let OpKey { index, generation } = key;
        self.at_mut(index).filter(|op| op.generation == generation)
    }

    #[inline]
    pub(crate) fn contains(&self, key: OpKey) -> bool {
        let OpKey { index, generation } = key;
        self.at(index).is_some_and(|op| op.generation == generation)
    }

    pub(crate) fn remove(&mut self, key: OpKey) -> Option<Op> {
        if !self.contains(key) {
            return None;
        }
        match self.free_place(key.index) {
            Place::Taken(op) => Some(op),
            Place::Free(_) => None,
        }
    }

    /// As [`insert`](Self::insert) of a send that is not to wait: what is in `queue` goes to where it stays, and is not moved before.
    /// `None`, and nothing has changed, if no place is free.
    #[inline(always)]
    pub(crate) fn insert_send(
        &mut self,
        socket: &Descriptor,
        token: Token,
        queue: &mut SendQueue,
    ) -> Option<OpKey> {
        let (index, generation) = (self.free, self.generation);
        let place = self.places.get_mut(index as usize)?;
        let Place::Free(next) = *place else { return None };
        let (dont_wait, call, shown) = (true, Call::Socket, Shown::ALL);
        let kind = Kind::Send { dont_wait, call, queue: SendQueue::new(), shown };
        let file = OpFile::Descriptor(socket.clone());
        let (group, cancelled, state) = (None, false, State::Armed);
        let op = Op { generation, token, file, kind, group, cancelled, state };
        // Neither a free place nor an empty queue has anything to be dropped.
        let _free = ManuallyDrop::new(mem::replace(place, Place::Taken(op)));
        if let Place::Taken(Op { kind: Kind::Send { queue: place, .. }, .. }) = place {
            let _empty = ManuallyDrop::new(mem::replace(place, mem::take(queue)));
        }
        self.free = next;
        self.generation = generation.saturating_add(1);
        self.taken += 1;
        Some(OpKey { index, generation })
    }

    /// Where `mark` has its op, to be ended there.
    #[inline(always)]
    pub(crate) fn place_of(&mut self, mark: Mark) -> Option<OpPlace<'_>> {
        let Self { places, free, taken, .. } = self;
        let place = places.get_mut(mark.index as usize)?;
        match place {
            Place::Taken(op) if op.generation.get() as u32 == mark.generation => {
                Some(OpPlace { place, free, taken, index: mark.index })
            }
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = OpKey> {
        self.places.iter().enumerate().filter_map(|(index, place)| match place {
            Place::Taken(op) => Some(OpKey { index: index as u32, generation: op.generation }),
            Place::Free(_) => None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// None is armed again.
    pub(crate) fn cancel_all(&mut self) {
        for place in &mut self.places {
            if let Place::Taken(op) = place {
                op.cancelled = true;
            }
        }
    }

    /// Gives what stood in a place that was taken.
    fn free_place(&mut self, index: u32) -> Place {
        self.taken -= 1;
        let next = mem::replace(&mut self.free, index);
        mem::replace(&mut self.places[index as usize], Place::Free(next))
    }

    #[inline]
    fn at(&self, index: u32) -> Option<&Op> {
        match self.places.get(index as usize) {
            Some(Place::Taken(op)) => Some(op),
            _ => None,
        }
    }

    #[inline]
    fn at_mut(&mut self, index: u32) -> Option<&mut Op> {
        match self.places.get_mut(index as usize) {
            Some(Place::Taken(op)) => Some(op),
            _ => None,
        }
    }
}

/// The place of an op that was found, and what is to be kept in order when that ends.
pub(crate) struct OpPlace<'a> {
    place: &'a mut Place,
    free: &'a mut u32,
    taken: &'a mut usize,
    index: u32,
}

impl OpPlace<'_> {
    /// `None` once it has ended.
    #[inline(always)]
    pub(crate) fn op(&mut self) -> Option<&mut Op> {
        match self.place {
            Place::Taken(op) => Some(op),
            Place::Free(_) => None,
        }
    }

    /// Drops the op, which must have nothing of the user's.
    #[inline]
    pub(crate) fn remove(self) {
        let op = mem::replace(self.place, Place::Free(*self.free));
        *self.free = self.index;
        *self.taken -= 1;
        drop(op);
    }

    /// Drops the op if it is a send.
    #[inline(always)]
    pub(crate) fn drop_send(self) {
        let Place::Taken(Op { kind: Kind::Send { queue, .. }, .. }) = self.place else { return };
        queue.clear();
        let free = mem::replace(self.place, Place::Free(*self.free));
        *self.free = self.index;
        *self.taken -= 1;
        if let Place::Taken(Op { file, kind, group, .. }) = free {
            // An empty queue has nothing to be dropped, and a send has no group; so the drop of each kind of op is not gone through.
            let _nothing = ManuallyDrop::new((kind, group));
            drop(file);
        }
    }
}

impl Op {
    /// By the mark of whose place it is found.
    #[inline]
    pub(crate) fn key(&self, mark: Mark) -> OpKey {
        OpKey { index: mark.index, generation: self.generation }
    }

    /// Where it takes its buffer from.
    pub(crate) fn buffers(&self) -> Buffers {
        match &self.kind {
            Kind::Recv { own: None, .. } => Buffers::Group,
            Kind::RecvFrom { message, .. } if !message.has_own() => Buffers::Datagrams,
            _ => Buffers::Own,
        }
    }

    /// Whether it is to have large buffers.
    pub(crate) fn streams(&self) -> bool {
        match &self.kind {
            Kind::Recv { multishot: true, call: Call::Socket, own: None, account, .. } => {
                account.streams()
            }
            _ => false,
        }
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

    /// Whether it is a poll that was ready for nothing that it was asked for.
    pub(crate) fn is_missed_by(&self, result: &io::Result<u32>) -> bool {
        match (&self.kind, result) {
            (Kind::Poll { interest, .. }, Ok(mask)) => interest.is_missed_by(*mask),
            _ => false,
        }
    }

    /// What is to be done when the kernel has ended this op, and nobody had asked for that.
    pub(crate) fn end_of_arm(&self, result: &io::Result<u32>) -> EndOfArm {
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        match (&self.kind, errno) {
            (Kind::Recv { .. }, Some(libc::ENOBUFS)) => EndOfArm::Starved,
            (Kind::RecvFrom { .. }, Some(libc::ENOBUFS)) => EndOfArm::AgainWithOwnMemory,
            (Kind::Poll { multishot: false, .. }, None) if self.is_missed_by(result) => {
                EndOfArm::AgainQuietly
            }
            (Kind::Connect { .. } | Kind::Poll { .. } | Kind::Shutdown { .. }, _) => EndOfArm::Over,
            (Kind::Send { call: Call::File, dont_wait: true, .. }, Some(libc::EOPNOTSUPP)) => {
                EndOfArm::Directly
            }
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
    /// It is a write that must not wait, which the kernel cannot do with such a file: a call can, by a look at its readiness.
    Directly,
}

/// Bytes that one multishot receive may take before anybody has looked at them.
pub(crate) const READ_AHEAD: u32 = 256 * 1024;

/// Beyond all places.
const NO_PLACE: u32 = u32::MAX;

/// Ops in flight: an index has 30 bits of the word.
const MOST_OPS: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn poll() -> (OpFile, Kind) {
        (
            OpFile::Slot(0),
            Kind::Poll { interest: Interest { read: true, write: false }, multishot: false },
        )
    }

    fn insert(ops: &mut Ops) -> OpKey {
        let (file, kind) = poll();
        ops.insert(file, Token(0), kind)
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
        ops.generation = ops.generation.saturating_add(u64::from(u32::MAX));
        let second = insert(&mut ops);
        assert_eq!(first.mark(), second.mark());
        assert_eq!(ops.find(first.mark()).map(|(key, _)| key), Some(second));
        assert!(!ops.contains(first) && ops.get_mut(first).is_none());
        assert!(OpKey::all_at(first.mark()).contains(&second));
    }

    #[test]
    fn a_send_that_is_dropped_in_its_place_lets_go_of_its_socket_and_its_bytes() {
        struct Owner {
            _counted: Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                b"bytes"
            }
        }
        let mut ops = Ops::default();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let socket = Descriptor::from(OwnedFd::from(socket));
        let owner = Arc::new(());
        let mut queue = SendQueue::new();
        queue.push(Bytes::from_owner(Owner { _counted: Arc::clone(&owner) }).into());
        let (call, shown) = (Call::Socket, Shown::ALL);
        let kind = Kind::Send { dont_wait: true, call, queue, shown };
        let send = ops.insert(OpFile::Descriptor(socket.clone()), Token(0), kind);
        assert_eq!((socket.holders(), Arc::strong_count(&owner)), (2, 2));
        ops.place_of(send.mark()).unwrap().drop_send();
        assert_eq!((socket.holders(), Arc::strong_count(&owner)), (1, 1));
        assert!(ops.is_empty() && !ops.contains(send));
        let poll = insert(&mut ops);
        assert_eq!((poll.index, ops.len()), (send.index, 1));
        ops.place_of(poll.mark()).unwrap().drop_send();
        assert!(ops.contains(poll), "it is no send");
    }

    fn op(kind: Kind) -> Op {
        let (file, state) = (OpFile::Slot(0), State::Armed);
        Op {
            generation: NonZeroU64::MIN,
            token: Token(0),
            file,
            kind,
            group: None,
            cancelled: false,
            state,
        }
    }

    fn receive(multishot: bool, left: u32) -> Op {
        let account = Account::new();
        let (own, call) = (None, Call::Socket);
        op(Kind::Recv { account, multishot, own, call, left })
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
