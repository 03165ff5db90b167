//! When buffers run out: who waits, who gets the next one, and where more come from.

use std::mem;
use std::rc::Rc;

use super::Driver;
use crate::buffers::{Group, GroupSize};
use crate::ring::Ring;

impl Driver {
    /// Takes back what other threads returned; arms receives that starved, in the order in which they did, as far as there
    /// are buffers. The others wait without one until they have something to receive, and then get memory of their own if
    /// need be: who has the buffers may never give them back.
    pub(super) fn feed_starved(&mut self) {
        for group in self.all_groups() {
            group.collect_returned();
        }
        if self.groups.len() > 1 {
            self.drop_idle_group();
        }
        // What waits in the ring may hold buffers that come back right away.
        if self.starved.is_empty() || self.has_completions() {
            return;
        }
        if self.free_buffers() == 0 {
            self.add_group();
        }
        let fed = self.starved.len().min(self.free_buffers() as usize);
        for (place, key) in mem::take(&mut self.starved).into_iter().enumerate() {
            if place < fed {
                self.arm(key);
            } else {
                self.arm_poll(key);
            }
        }
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
