//! The epoll instance, and who waits for what on it.
//!
//! A descriptor is registered when an op first has to wait on it, and stays so: in steady work no `epoll_ctl` is called. It
//! is registered for at least what its ops wait for. What it is registered for beyond that is taken back when it shows
//! that it would keep the loop awake.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};

use crate::fork::Inherited;
use crate::generation;
use crate::key::OpKey;
use crate::sys;
use crate::{Descriptor, DriverWaker};

/// An epoll instance and its registrations, by number.
pub(super) struct Poller {
    /// In a forked child it would act on the parent's registrations.
    _inherited: Inherited,
    epoll: OwnedFd,
    /// Of the process that made it.
    generation: u64,
    slots: RefCell<Vec<Slot>>,
    /// Keeps open what a child gets instead.
    _waker: DriverWaker,
}

/// What is known of one number.
#[derive(Default)]
pub(super) struct Slot {
    /// Tells the descriptor from an earlier one of the same number.
    pub(super) generation: u32,
    /// The descriptor tells when it is closed.
    is_known: bool,
    /// As epoll has it; nothing if it is not registered.
    pub(super) registered: u32,
    pub(super) waiters: Vec<Waiter>,
    /// How often in a row it was ready for nobody.
    pub(super) in_vain: u8,
    /// The call that looked at it last.
    pub(super) round: u32,
}

/// An op that waits until its descriptor is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) key: OpKey,
    pub(super) events: u32,
    /// Bytes that its multishot receive has had since it was armed.
    pub(super) taken: u32,
}

/// Ends with the descriptor that it is of, before that is closed: others may hold the same file, and epoll would go on to
/// report it.
pub(crate) struct Registration {
    poller: Weak<Poller>,
    number: RawFd,
}

impl Poller {
    pub(super) fn new(waker: &DriverWaker) -> io::Result<Rc<Self>> {
        let epoll = sys::epoll()?;
        // Each further write to the eventfd is a new edge.
        sys::epoll_control(
            epoll.as_fd(),
            libc::EPOLL_CTL_ADD,
            waker.eventfd().as_raw_fd(),
            INPUT | libc::EPOLLET as u32,
            WAKE,
        )?;
        Ok(Rc::new(Self {
            _inherited: Inherited::number(epoll.as_raw_fd(), waker.eventfd().as_raw_fd()),
            epoll,
            generation: generation::current(),
            slots: RefCell::default(),
            _waker: waker.clone(),
        }))
    }

    pub(super) fn is_ours(&self) -> bool {
        self.generation == generation::current()
    }

    pub(super) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Shows `look` what is known of `number`; `None` if nothing is.
    #[inline]
    pub(super) fn with_slot<R>(
        &self,
        number: RawFd,
        look: impl FnOnce(&mut Slot) -> R,
    ) -> Option<R> {
        self.slots.borrow_mut().get_mut(number as usize).map(look)
    }

    /// Lets an op wait.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`: `EPERM` for what is always ready.
    pub(super) fn wait_on(self: &Rc<Self>, fd: &Descriptor, waiter: Waiter) -> io::Result<()> {
        let number = fd.as_raw_fd();
        let mut slots = self.slots.borrow_mut();
        let index = number as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut slots[index];
        if !slot.is_known {
            fd.add_registration(Registration { poller: Rc::downgrade(self), number });
            slot.is_known = true;
        }
        slot.in_vain = 0;
        self.register(number, slot, slot.registered | waiter.events)?;
        slot.waiters.push(waiter);
        Ok(())
    }

    /// Registers `number` for `events`, which may be none.
    pub(super) fn register(&self, number: RawFd, slot: &mut Slot, events: u32) -> io::Result<()> {
        if events == slot.registered {
            return Ok(());
        }
        let operation = match (slot.registered, events) {
            (0, _) => libc::EPOLL_CTL_ADD,
            // Without any event it would still report errors and hang-ups.
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        let word = word_of(number, slot.generation);
        sys::epoll_control(self.epoll(), operation, number, events, word)?;
        slot.registered = events;
        Ok(())
    }

    /// Registers `number` for no more than its ops wait for.
    pub(super) fn quieten(&self, number: RawFd) {
        self.with_slot(number, |slot| {
            slot.in_vain = 0;
            let wanted = slot.waiters.iter().fold(0, |events, waiter| events | waiter.events);
            // It can only fail for want of memory, or because others have closed the number: then it is looked at again.
            let _ = self.register(number, slot, wanted & slot.registered);
        });
    }

    /// Whether `key` waited on `number`, and does so no more.
    pub(super) fn stop_waiting(&self, number: RawFd, key: OpKey) -> bool {
        let stopped = self.with_slot(number, |slot| {
            let place = slot.waiters.iter().position(|waiter| waiter.key == key)?;
            slot.waiters.remove(place);
            Some(())
        });
        stopped.flatten().is_some()
    }
}

impl Registration {
    /// Whether there is still something to end.
    pub(crate) fn is_alive(&self) -> bool {
        self.poller.strong_count() > 0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(poller) = self.poller.upgrade() else { return };
        poller.with_slot(self.number, |slot| {
            let generation = slot.generation.wrapping_add(1);
            // It can only fail if others have closed the number.
            if poller.is_ours() {
                let _ = poller.register(self.number, slot, 0);
            }
            let mut waiters = std::mem::take(&mut slot.waiters);
            waiters.clear();
            *slot = Slot { generation, waiters, ..Slot::default() };
        });
    }
}

fn word_of(number: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(number as u32)
}

/// The number and the generation in the word of an event.
pub(super) fn number_of(word: u64) -> (RawFd, u32) {
    (word as u32 as RawFd, (word >> 32) as u32)
}

/// The word of the eventfd: no descriptor has such a number.
pub(super) const WAKE: u64 = u64::MAX;

pub(super) const INPUT: u32 = libc::EPOLLIN as u32;
pub(super) const OUTPUT: u32 = libc::EPOLLOUT as u32;
pub(super) const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
