//! How completions come back: what the kernel says is decoded. No code of the layer above runs in here.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::{Driver, LONGEST_DATAGRAM};
use crate::buffers::Group;
use crate::completion::{Completion, Outcome, Readiness, Sink};
use crate::config::Counters;
use crate::entry::Entry;
use crate::epoll::calls;
use crate::key::{Mark, OpKey, Tag};
use crate::op::{EndOfArm, Kind, Op, OpFile, State};
use crate::{Account, Datagram, Descriptor, Received};

impl Driver {
    /// Gives `sink` what it takes, and ends with the first completion that it does not; with none, if there is none, or
    /// `left` have been decoded.
    #[inline]
    pub fn reap(&mut self, sink: &mut impl Sink, left: &mut usize) -> Option<Completion> {
        while *left > 0 {
            *left -= 1;
            if !self.decoded.is_empty() {
                return self.decoded.pop_front();
            }
            let mut entry = self.next_entry()?;
            loop {
                self.counters.completed += 1;
                match self.offer(entry, sink) {
                    Offered::Taken => {}
                    Offered::GivenBack => break,
                    Offered::ToDecode => {
                        let Some(completion) = self.decode(entry) else { break };
                        let (completion, rest) = self.hooks.split(completion);
                        if let Some(rest) = rest {
                            self.decoded.push_front(rest);
                        }
                        return Some(completion);
                    }
                }
                if *left == 0 {
                    return None;
                }
                *left -= 1;
                entry = self.next_entry()?;
            }
        }
        None
    }

    /// Offers what the entry says to `sink`, if that is bytes for a receive that goes on, the end of its stream, a connection of an
    /// accept that goes on, what a poll has found that goes on, or the end of a send without an error: almost every entry is one of
    /// them. The end of what is no socket may name a buffer, which is taken back where it is decoded.
    #[inline(always)]
    fn offer(&mut self, entry: Entry, sink: &mut impl Sink) -> Offered {
        if self.hooks.are_set() {
            return Offered::ToDecode;
        }
        let Tag::Op(mark) = Tag::decode(entry.user_data) else { return Offered::ToDecode };
        let Some(mut place) = self.ops.place_of(mark) else { return Offered::ToDecode };
        let Some(op) = place.op() else { return Offered::ToDecode };
        match &mut op.kind {
            Kind::Recv { account, own, left, .. } if entry.has_more() && entry.result > 0 => {
                let len = entry.result as u32;
                let rest = left.saturating_sub(len);
                if account.is_over() || rest == 0 && self.limit == 0 {
                    return Offered::ToDecode;
                }
                let group = match &op.group {
                    Some(group) => Some(group), // So it has no memory of its own.
                    None if own.is_none() => group_of(&self.groups, entry),
                    None => None,
                };
                let Some((group, index)) = group.zip(entry.buffer()) else {
                    return Offered::ToDecode;
                };
                let Some(data) = group.lend(index, len as usize, account.clone()) else {
                    return Offered::ToDecode;
                };
                *left = rest;
                op.state = State::Armed;
                self.counters.bytes_in += u64::from(len);
                let Some(data) = sink.received(op.token, data) else { return Offered::Taken };
                let (token, key) = (op.token, op.key(mark));
                let outcome = Outcome::Received(Ok(data));
                self.decoded.push_back(Completion { token, key, more: true, outcome });
                Offered::GivenBack
            }
            Kind::Recv { multishot: true, own: None, .. }
                if entry.result == 0
                    && !entry.has_more()
                    && op.state == State::Armed
                    && entry.buffer().is_none() =>
            {
                if !sink.ended(op.token) {
                    return Offered::ToDecode;
                }
                place.remove();
                Offered::Taken
            }
            Kind::Accept { .. } if entry.has_more() && entry.result >= 0 => {
                let connection = accepted(&mut self.counters, entry.result);
                let Some(connection) = sink.accepted(op.token, connection) else {
                    return Offered::Taken;
                };
                let (token, key) = (op.token, op.key(mark));
                let outcome = Outcome::Accepted(Ok(connection));
                self.decoded.push_back(Completion { token, key, more: true, outcome });
                Offered::GivenBack
            }
            Kind::Poll { .. } if entry.has_more() && entry.result >= 0 => {
                let (token, key) = (op.token, op.key(mark));
                if sink.polled(token, key) { Offered::Taken } else { Offered::ToDecode }
            }
            Kind::Send { queue, .. } if entry.result >= 0 && !entry.has_more() => {
                let sent = entry.result as usize;
                if !sink.sent(op.token, sent, queue) {
                    return Offered::ToDecode;
                }
                self.counters.bytes_out += sent as u64;
                place.drop_send();
                Offered::Taken
            }
            _ => Offered::ToDecode,
        }
    }

    pub(super) fn decode_all(&mut self) {
        while let Some(entry) = self.next_entry() {
            self.counters.completed += 1;
            if let Some(completion) = self.decode(entry) {
                self.decoded.push_back(completion);
            }
        }
    }

    pub(super) fn take_decoded(&mut self, key: OpKey) -> Option<Completion> {
        let place = self.decoded.iter().position(|completion| completion.key == key)?;
        self.decoded.remove(place)
    }

    fn next_entry(&mut self) -> Option<Entry> {
        self.hooks.next(&mut self.backend)
    }

    pub(super) fn has_entries(&mut self) -> bool {
        self.backend.has_entries() || self.hooks.hold_any()
    }

    /// What an entry of the completion queue means to the layer above; `None` if nothing.
    fn decode(&mut self, entry: Entry) -> Option<Completion> {
        match Tag::decode(entry.user_data) {
            Tag::Op(mark) => self.decode_op(mark, entry),
            Tag::Quiet(mark) => self.decode_quiet(mark, entry),
            Tag::Wake => {
                self.decode_wake(entry);
                None
            }
            Tag::Aside => None,
        }
    }

    /// The poll that waits in place of an op's own was ready, or is over.
    #[cold]
    fn decode_quiet(&mut self, mark: Mark, entry: Entry) -> Option<Completion> {
        let more = entry.has_more();
        let Some(key) = self.quiet.seen(mark, more) else {
            self.counters.stale += 1;
            return None;
        };
        let result = entry.outcome();
        if self.ops.get_mut(key)?.is_missed_by(&result) {
            if !more {
                self.wait_quietly(key);
            }
            return None;
        }
        if more {
            self.push_cancel(Tag::Quiet(key));
        }
        self.complete(key, result, entry, false)
    }

    /// Goes on waiting for `key`, whose poll was ready for nothing.
    #[cold]
    fn wait_quietly(&mut self, key: OpKey) {
        let request = self.ops.get_mut(key).and_then(|op| self.quiet.start(key, op));
        if let Some(request) = request {
            self.push(&request);
        }
    }

    #[cold]
    fn decode_wake(&mut self, entry: Entry) {
        self.counters.wakes += 1;
        if !entry.has_more() {
            self.wake_armed = false;
            self.arm_wake();
        }
    }

    fn decode_op(&mut self, mark: Mark, entry: Entry) -> Option<Completion> {
        let Some((key, op)) = self.ops.find(mark) else {
            self.counters.stale += 1;
            return None;
        };
        if entry.has_more() {
            return self.complete_one_of_many(key, entry.outcome(), entry);
        }
        if entry.result >= 0 && op.ends_with_a_result() {
            return self.complete_last(key, entry.outcome(), entry);
        }
        self.decode_end(key, entry)
    }

    /// The kernel has ended an op that may have to go on.
    fn decode_end(&mut self, key: OpKey, entry: Entry) -> Option<Completion> {
        let result = entry.outcome();
        let op = self.ops.get_mut(key)?;
        if result.is_err() {
            take_back(op.group.take().as_ref(), entry);
        }
        if op.state == State::Polling {
            return self.decode_polling(key);
        }
        if op.cancelled {
            return self.complete(key, cancelled(result), entry, false);
        }
        match op.end_of_arm(&result) {
            EndOfArm::Over => self.complete(key, result, entry, false),
            EndOfArm::Again if result.is_ok() => {
                let completion = self.complete(key, result, entry, true);
                self.arm(key);
                completion
            }
            EndOfArm::Again => {
                self.arm(key);
                None
            }
            EndOfArm::AgainWithOwnMemory => {
                self.counters.enobufs += 1;
                if let Kind::RecvFrom { message, .. } = &mut op.kind {
                    message.set_own(LONGEST_DATAGRAM);
                }
                self.arm(key);
                None
            }
            EndOfArm::AgainQuietly => {
                self.wait_quietly(key);
                None
            }
            EndOfArm::Starved => {
                self.counters.enobufs += 1;
                self.starve(key);
                None
            }
            EndOfArm::Directly => {
                let result = self.write_directly(key);
                self.complete(key, result, Entry::default(), false)
            }
        }
    }

    /// A pipe that has a name cannot be written by a ring without waiting, and on Linux 6.1 no pipe can.
    #[cold]
    fn write_directly(&mut self, key: OpKey) -> io::Result<u32> {
        let Some(Op { file: OpFile::Descriptor(fd), kind: Kind::Send { queue, call, .. }, .. }) =
            self.ops.get_mut(key)
        else {
            return Err(cancelled_error());
        };
        let gathered = queue.gather();
        // SAFETY: what is gathered belongs to the queue, which is neither changed nor dropped before the call returns.
        let written = unsafe { calls::send(fd.as_fd(), &gathered, *call, false) };
        written.map(|count| count as u32)
    }

    /// There is something to receive, for an op that has no buffer yet; or its cancel came first.
    #[cold]
    fn decode_polling(&mut self, key: OpKey) -> Option<Completion> {
        let has_buffer = self.free_buffers() > 0;
        let memory = (!has_buffer).then(|| self.own_buffer());
        let op = self.ops.get_mut(key)?;
        if op.cancelled {
            return self.complete(key, Err(cancelled_error()), Entry::default(), false);
        }
        if let Kind::Recv { own, .. } = &mut op.kind {
            *own = memory;
        }
        self.arm(key);
        None
    }

    /// The op was not in the kernel, so this is its last completion.
    pub(super) fn end_locally(&mut self, key: OpKey) {
        let error = Err(cancelled_error());
        if let Some(completion) = self.complete(key, error, Entry::default(), false) {
            self.decoded.push_back(completion);
        }
    }

    /// Turns a result into a completion; without `more` the op leaves the slab.
    pub(super) fn complete(
        &mut self,
        key: OpKey,
        result: io::Result<u32>,
        entry: Entry,
        more: bool,
    ) -> Option<Completion> {
        if more {
            self.complete_one_of_many(key, result, entry)
        } else {
            self.complete_last(key, result, entry)
        }
    }

    fn complete_last(
        &mut self,
        key: OpKey,
        result: io::Result<u32>,
        entry: Entry,
    ) -> Option<Completion> {
        let Op { token, kind, group, .. } = self.ops.remove(key)?;
        if let (Kind::Recv { account, multishot: true, .. }, &Ok(len @ 1..)) = (&kind, &result) {
            self.note_last(account, len);
        }
        let (group, counters) = (group.as_ref(), &mut self.counters);
        let (groups, datagrams) = (&self.groups, self.datagrams.as_ref());
        let outcome = match kind {
            Kind::Accept { .. } => {
                Outcome::Accepted(result.map(|fd| accepted(counters, fd as RawFd)))
            }
            Kind::Recv { account, own, .. } => {
                let group = group.or_else(|| group_of(groups, entry));
                Outcome::Received(received(counters, result, entry, own, &account, group))
            }
            Kind::RecvFrom { account, mut message, .. } => {
                let own = message.take(*result.as_ref().unwrap_or(&0) as usize);
                let group = group.or(datagrams);
                Outcome::Datagram(datagram(counters, result, entry, own, &account, group))
            }
            Kind::Send { queue, .. } | Kind::SendTo { queue, .. } => {
                let sent = result.map(|count| count as usize);
                counters.bytes_out += *sent.as_ref().unwrap_or(&0) as u64;
                Outcome::Sent(sent, queue)
            }
            Kind::Connect { .. } => {
                self.prompt -= 1;
                Outcome::Connected(result.map(drop))
            }
            Kind::Poll { multishot, .. } => {
                self.prompt -= usize::from(!multishot);
                Outcome::Polled(result.map(Readiness::from_mask))
            }
            Kind::Shutdown { .. } => Outcome::ShutDown(result.map(drop)),
        };
        Some(Completion { token, key, more: false, outcome })
    }

    fn complete_one_of_many(
        &mut self,
        key: OpKey,
        result: io::Result<u32>,
        entry: Entry,
    ) -> Option<Completion> {
        let op = self.ops.get_mut(key)?;
        let (token, group, counters) = (op.token, op.group.as_ref(), &mut self.counters);
        let (groups, datagrams) = (&self.groups, self.datagrams.as_ref());
        let mut is_spent = false;
        let outcome = match &mut op.kind {
            Kind::Recv { account, own, left, .. } => {
                op.state = State::Armed;
                *left = left.saturating_sub(*result.as_ref().unwrap_or(&0));
                is_spent = *left == 0 && self.limit == 0;
                let group = group.or_else(|| group_of(groups, entry));
                Outcome::Received(received(counters, result, entry, own.take(), account, group))
            }
            Kind::RecvFrom { account, message, .. } => {
                let own = message.take(*result.as_ref().unwrap_or(&0) as usize);
                let group = group.or(datagrams);
                Outcome::Datagram(datagram(counters, result, entry, own, account, group))
            }
            Kind::Poll { .. } => Outcome::Polled(result.map(Readiness::from_mask)),
            // Of the other ops only an accept gives more than one completion.
            _ => Outcome::Accepted(result.map(|fd| accepted(counters, fd as RawFd))),
        };
        if is_spent {
            self.cancel(key); // Before 6.17 the kernel has no limit for a receive, so the driver counts.
        }
        Some(Completion { token, key, more: true, outcome })
    }
}

/// What became of an entry that was offered.
enum Offered {
    Taken,
    /// The bytes came back: they are decoded now.
    GivenBack,
    /// It was not offered, or not taken.
    ToDecode,
}

/// Takes what an accept has brought.
fn accepted(counters: &mut Counters, fd: RawFd) -> Descriptor {
    counters.accepted += 1;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

fn received(
    counters: &mut Counters,
    result: io::Result<u32>,
    entry: Entry,
    own: Option<Vec<u8>>,
    account: &Account,
    group: Option<&Rc<Group>>,
) -> io::Result<Received> {
    let len = result? as usize;
    counters.bytes_in += len as u64;
    if len == 0 {
        take_back(group, entry);
        return Ok(Received::default());
    }
    if let Some(mut buffer) = own {
        counters.copied += 1;
        buffer.truncate(len);
        return Ok(buffer.into());
    }
    lease(counters, entry.buffer(), len, account, group)
}

fn datagram(
    counters: &mut Counters,
    result: io::Result<u32>,
    entry: Entry,
    own: Option<Datagram>,
    account: &Account,
    group: Option<&Rc<Group>>,
) -> io::Result<Datagram> {
    let len = result? as usize;
    let datagram = match own {
        Some(datagram) => datagram,
        None => Datagram::in_buffer(lease(counters, entry.buffer(), len, account, group)?)?,
    };
    counters.bytes_in += datagram.len() as u64;
    Ok(datagram)
}

/// The buffer that the kernel has filled; a copy of it, if the account holds all that it may.
#[inline]
pub(super) fn lease(
    counters: &mut Counters,
    index: Option<u16>,
    len: usize,
    account: &Account,
    group: Option<&Rc<Group>>,
) -> io::Result<Received> {
    let over = account.is_over();
    let lease = group.zip(index);
    let lease = lease.and_then(|(group, index)| group.lend(index, len, account.clone()));
    match lease {
        Some(lease) if over => {
            counters.copied += 1;
            Ok(Received::from(&*lease))
        }
        Some(lease) => Ok(lease),
        // The kernel names the buffer of every receive that has one; without it the bytes are out of reach.
        None => Err(io::Error::other("a receive without its buffer")),
    }
}

/// The group of the buffer that an entry names, where the op is not armed on one: over epoll, the receive itself chooses.
/// Such an entry keeps its group in use, as none goes while entries are there.
fn group_of(groups: &[Rc<Group>], entry: Entry) -> Option<&Rc<Group>> {
    groups.iter().find(|group| group.size().id == entry.group())
}

/// Takes the buffer back of a read that gave no bytes: at the end of a file, or after an error in a thread of the kernel's,
/// the kernel has picked a buffer all the same.
fn take_back(group: Option<&Rc<Group>>, entry: Entry) {
    if let Some((group, index)) = group.zip(entry.buffer()) {
        group.take_back(index);
    }
}

fn cancelled_error() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

/// The error of an op that was cancelled. Where the kernel had ended it before for a passing reason, after which it would
/// have been armed again, it counts as cancelled, and not as failed.
fn cancelled(result: io::Result<u32>) -> io::Result<u32> {
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::EINTR | libc::EOPNOTSUPP) => {
            io::Error::from_raw_os_error(libc::ECANCELED)
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_op_that_was_to_go_on_is_cancelled_and_keeps_its_bytes() {
        let errno = |errno| {
            let result = cancelled(Err(io::Error::from_raw_os_error(errno)));
            result.unwrap_err().raw_os_error().unwrap()
        };
        assert_eq!(errno(libc::ENOBUFS), libc::ECANCELED);
        assert_eq!(errno(libc::EINTR), libc::ECANCELED);
        assert_eq!(errno(libc::ECONNRESET), libc::ECONNRESET);
        assert_eq!(cancelled(Ok(5)).unwrap(), 5);
    }
}
