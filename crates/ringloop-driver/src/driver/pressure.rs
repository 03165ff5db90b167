//! When buffers run out: who waits, who gets the next one, and where more come from.

use std::mem;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use super::Driver;
use crate::Account;
use crate::buffers::{FIRST_GROUP, GROUP_FOR_STREAMS, Group, GroupSize};
use crate::key::OpKey;
use crate::op::{Kind, READ_AHEAD, State};
use crate::uring::ring::Ring;

/// Which receives may try next while buffers are short.
///
/// Receives that found no buffer (the starved) wait in a queue, and are armed again in its order, a few in each turn: fewer
/// after a turn in which some found no buffer, more after one in which all did. Those that found none come first in the next
/// turn, and a receive that is armed meanwhile goes to the end. So the first one of each turn finds a buffer if there is one.
/// In a queue of `n` no receive waits for more than `2 * n` turns: each of the others is before it once, and once more if
/// nothing had arrived for it when its turn came.
#[derive(Debug)]
pub(super) struct Feeding {
    size: usize,
    /// How many at the front of the queue have had a turn and found no buffer.
    failed: usize,
    /// Some have had their turn, and it is not known of all of them whether they found a buffer.
    has_begun: bool,
    /// Some have not had their turn yet, so the next wait must not sleep.
    goes_on: bool,
    /// The last wait has left it to the next one.
    is_put_off: bool,
}

impl Default for Feeding {
    fn default() -> Self {
        Self { size: 1, failed: 0, has_begun: false, goes_on: false, is_put_off: false }
    }
}

impl Feeding {
    pub(super) fn goes_on(&self) -> bool {
        self.goes_on
    }

    fn next(&mut self, most: usize) -> usize {
        self.size = match mem::take(&mut self.failed) {
            0 => (self.size + self.size / 4 + 1).min(most),
            failed => self.size.saturating_sub(failed).max(1),
        };
        self.size
    }
}

impl Driver {
    /// Before a wait: takes back what other threads returned, and feeds those who starve. If no buffer is free, they wait
    /// without one until they have something to receive, and then get memory of their own if need be: who has the buffers
    /// may never give them back.
    pub(super) fn feed_starved(&mut self) {
        for group in self.all_groups() {
            group.collect_returned();
        }
        if self.groups.len() > 1 {
            self.drop_idle_group();
        }
        if self.large.is_some() {
            self.drop_idle_large();
        }
        self.feeding.goes_on = false;
        if self.starved.is_empty() {
            self.feeding.has_begun = false;
            return;
        }
        // What waits in the ring may hold buffers that come back right away. There may be something each time.
        if self.has_completions() && !mem::replace(&mut self.feeding.is_put_off, true) {
            return;
        }
        self.feeding.is_put_off = false;
        if self.free_buffers() == 0 {
            self.add_group();
        }
        let offered = self.offered_buffers();
        if offered == 0 {
            self.feeding.failed = 0;
            for key in mem::take(&mut self.starved) {
                self.arm_poll(key);
            }
            return;
        }
        self.feed(offered);
    }

    fn feed(&mut self, offered: usize) {
        self.feeding.has_begun = true;
        let fed = self.feeding.next(offered).min(self.starved.len());
        for place in 0..fed {
            let Some(key) = self.starved.pop_front() else { break };
            self.arm_on(key, Some(self.group_of(place)));
            if let Some(op) = self.ops.get_mut(key) {
                op.state = State::Fed;
            }
        }
        self.feeding.goes_on = !self.starved.is_empty();
    }

    /// Whether an op must wait for its turn with what it is to be armed for.
    #[inline]
    pub(super) fn must_queue(&mut self, key: OpKey) -> bool {
        if self.starved.is_empty() && !self.feeding.has_begun {
            return false;
        }
        self.ops.get_mut(key).is_some_and(|op| matches!(op.kind, Kind::Recv { own: None, .. }))
    }

    /// At the end of the queue; at its front if it has just had a turn in vain.
    pub(super) fn starve(&mut self, key: OpKey) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if mem::replace(&mut op.state, State::Starved) == State::Fed {
            let place = self.feeding.failed.min(self.starved.len());
            self.starved.insert(place, key);
            self.feeding.failed += 1;
        } else {
            self.starved.push_back(key);
        }
    }

    fn offered_buffers(&self) -> usize {
        self.groups.iter().map(|group| group.offered() as usize).sum()
    }

    pub(super) fn free_buffers(&self) -> u32 {
        self.groups.iter().map(|group| group.free()).sum()
    }

    pub(super) fn own_buffer(&self) -> Vec<u8> {
        vec![0; self.own_buffer_size()]
    }

    pub(super) fn own_buffer_size(&self) -> usize {
        self.info.buffer_size.min(READ_AHEAD) as usize
    }

    /// The place of the group of the offered buffer number `place`, counted over all.
    fn group_of(&self, mut place: usize) -> usize {
        let group = self.groups.iter().position(|group| {
            let offered = group.offered() as usize;
            let is_there = place < offered;
            place = place.saturating_sub(offered);
            is_there
        });
        group.unwrap_or(0)
    }

    /// Under pressure. Without memory for it the starved go on with memory of their own.
    fn add_group(&mut self) {
        if self.groups.len() >= usize::from(self.config.groups) {
            return;
        }
        let retired = self.retired.iter().filter_map(Weak::upgrade);
        let taken: Vec<_> =
            self.groups.iter().cloned().chain(retired).map(|group| group.size().id).collect();
        let free = (FIRST_GROUP + 1..GROUP_FOR_STREAMS).find(|id| !taken.contains(id));
        if let (Some(id), Some(first)) = (free, self.groups.first()) {
            let size = GroupSize { id, ..first.size() };
            self.groups.extend(Group::new(self.backend.ring(), size, None));
        }
    }

    /// The last group goes when the pressure is gone: none of its buffers is lent, and most of the first are free. A
    /// receive that is still armed on it starves once, and is armed on another; until then the kernel may have one of its
    /// buffers, so the memory stays. So that idle connections do not keep ever more of it, no more groups are kept so than
    /// there may be besides the first.
    fn drop_idle_group(&mut self) {
        if let [first, .., last] = &*self.groups {
            let calm = last.leased() == 0 && first.leased() as usize * 4 < first.len();
            self.retired.retain(|group| group.strong_count() > 0);
            let may_go = self.retired.len() + 1 < usize::from(self.config.groups);
            // What waits may name one of its buffers.
            if calm && may_go && !self.has_completions() && !self.backend.is_overflown() {
                if let Some(group) = self.groups.pop() {
                    group.unregister(self.backend.ring());
                    self.retired.push(Rc::downgrade(&group));
                }
            }
        }
    }

    /// The last buffer of a multishot receive has got `len` bytes. That says whether the next receive has large buffers, so small
    /// messages cost no look at it.
    pub(super) fn note_last(&mut self, account: &Account, len: u32) {
        let streams = len >= self.info.buffer_size;
        account.set_streams(streams);
        if streams {
            self.calm_waits = 0;
            self.make_large();
        }
    }

    fn make_large(&mut self) {
        if self.large.is_none() && self.backend.is_ours() {
            if let Some(size) = self.large_size.take() {
                self.large = Group::new(self.backend.ring(), size, None).ok();
                // Without memory for it, the small ones will do for ever.
                self.large_size = self.large.as_ref().map(|group| group.size());
            }
        }
    }

    /// When nobody has filled a buffer for a while, and no receive is armed on the large ones, their memory goes.
    fn drop_idle_large(&mut self) {
        self.calm_waits = self.calm_waits.saturating_add(1);
        if self.calm_waits < CALM_WAITS || self.has_completions() || self.backend.is_overflown() {
            return;
        }
        let is_free = |group: &Rc<Group>| Rc::strong_count(group) == 1 && group.leased() == 0;
        if self.large.as_ref().is_some_and(is_free) {
            if let Some(group) = self.large.take() {
                group.unregister(self.backend.ring());
            }
        }
    }

    /// The buffer that a direct receive is to fill; `None` if all are lent. Over epoll all buffers are for that; a ring gets a
    /// group of its own for it, of which the kernel does not know. A forked child has zeros in the place of the entries, which
    /// name the same buffer again and again: it gets none.
    #[inline]
    pub(super) fn next_for_direct(&mut self) -> Option<(&Rc<Group>, u16, NonNull<u8>)> {
        if !self.backend.is_ours() {
            return None;
        }
        if self.backend.ring().is_some() && self.direct.is_none() {
            let size = self.groups.first()?.size();
            self.direct = Group::new(None, size, None).ok();
        }
        let groups =
            if self.backend.ring().is_some() { self.direct.as_slice() } else { &self.groups };
        groups.iter().find_map(|group| {
            let (index, place) = group.next_offered()?;
            Some((group, index, place))
        })
    }

    /// Makes the group for datagrams if need be. False if there is no memory for it.
    pub(super) fn has_datagram_group(&mut self) -> bool {
        if self.datagrams.is_none() {
            let size = GroupSize::for_datagrams();
            self.datagrams = Group::new(self.backend.ring(), size, None).ok();
        }
        self.datagrams.is_some()
    }

    /// The kernel forgets all groups but the first.
    pub(super) fn drop_other_groups(&mut self, ring: Option<&Ring>) -> Option<Rc<Group>> {
        for group in self.groups.drain(1..).chain(self.datagrams.take()).chain(self.large.take()) {
            group.unregister(ring);
        }
        if let Some(direct) = self.direct.take() {
            direct.unregister(None);
        }
        self.groups.pop().inspect(|group| group.collect_returned())
    }
}

/// So many waits after a buffer was last filled, the large ones may go: a connection that pauses finds them again.
const CALM_WAITS: u32 = 1000;
