//! When buffers run out: who waits, who gets the next one, and where more come from.

use std::mem;
use std::rc::Rc;

use super::Driver;
use crate::buffers::{Group, GroupSize};
use crate::op::State;
use crate::ring::Ring;

/// How many of the starved are armed at a time: less after some of them found no buffer, more after none did.
#[derive(Debug)]
pub(super) struct Feeding {
    size: usize,
    failed: usize,
    /// Some have not had their turn, so nobody may sleep.
    goes_on: bool,
}

impl Default for Feeding {
    fn default() -> Self {
        Self { size: 1, failed: 0, goes_on: false }
    }
}

impl Feeding {
    pub(super) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// One that was armed has starved again, and received nothing.
    pub(super) fn failed(&mut self) {
        self.failed += 1;
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
    /// Takes back what other threads returned; arms receives that starved, in the order in which they did, a few at a time:
    /// each takes as many buffers as it has bytes for, and who finds none has been armed in vain. If no buffer is free, they
    /// wait without one until they have something to receive, and then get memory of their own if need be: who has the
    /// buffers may never give them back.
    pub(super) fn feed_starved(&mut self) {
        for group in self.all_groups() {
            group.collect_returned();
        }
        if self.groups.len() > 1 {
            self.drop_idle_group();
        }
        self.feeding.goes_on = false;
        // What waits in the ring may hold buffers that come back right away.
        if self.starved.is_empty() || self.has_completions() {
            return;
        }
        if self.free_buffers() == 0 {
            self.add_group();
        }
        let offered = self.groups.iter().map(|group| group.offered() as usize).sum();
        if offered == 0 {
            for key in mem::take(&mut self.starved) {
                self.arm_poll(key);
            }
            return;
        }
        let fed = self.feeding.next(offered).min(self.starved.len());
        for _ in 0..fed {
            let Some(key) = self.starved.pop_front() else { break };
            self.arm(key);
            if let Some(op) = self.ops.get_mut(key) {
                op.state = State::Fed;
            }
        }
        self.feeding.goes_on = !self.starved.is_empty();
    }

    pub(super) fn free_buffers(&self) -> u32 {
        self.groups.iter().map(|group| group.free()).sum()
    }

    pub(super) fn own_buffer(&self) -> Vec<u8> {
        vec![0; self.info.buffer_size as usize]
    }

    /// The first group with a free buffer, so that the others become idle.
    pub(super) fn group_to_arm(&self) -> u16 {
        self.groups.iter().find(|group| group.free() > 0).map_or(0, |group| group.size().id)
    }

    /// Under pressure. Without memory for it the starved go on with memory of their own.
    fn add_group(&mut self) {
        let next = self.groups.last().and_then(|group| group.size().next());
        if let Some(size) = next.filter(|size| size.id < self.config.groups) {
            self.groups.extend(Group::new(&self.ring, size, None));
        }
    }

    /// The last group goes when the pressure is gone: none of its buffers is lent, and most of the first are free. A
    /// receive that is still armed on it starves once, and is armed on another.
    fn drop_idle_group(&mut self) {
        if let [first, .., last] = &*self.groups {
            let calm = last.leased() == 0 && first.leased() as usize * 4 < first.len();
            if calm && !self.has_completions() {
                if let Some(group) = self.groups.pop() {
                    group.unregister(&self.ring);
                }
            }
        }
    }

    /// Makes the group for datagrams if need be. False if there is no memory for it.
    pub(super) fn has_datagram_group(&mut self) -> bool {
        if self.datagrams.is_none() {
            let size = GroupSize::for_datagrams();
            self.datagrams = Group::new(&self.ring, size, None).ok();
        }
        self.datagrams.is_some()
    }

    /// The kernel forgets all groups but the first.
    pub(super) fn drop_other_groups(&mut self, ring: &Ring) -> Option<Rc<Group>> {
        for group in self.groups.drain(1..).chain(self.datagrams.take()) {
            group.unregister(ring);
        }
        self.groups.pop().inspect(|group| group.collect_returned())
    }
}
