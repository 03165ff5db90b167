//! Watching descriptors that belong to others.
//!
//! A number may be closed and used again at any time by who owns it. So what is watched is the file, not the number: it is
//! put into the ring's file table, and polled by its slot there. A scratch epoll is never waited on, but asked:
//!
//! | question | call | answer |
//! | --- | --- | --- |
//! | can this file be watched? | `EPOLL_CTL_ADD` | `EPERM` for what is always ready, `EBADF` for a bad number |
//! | does this number still name it? | `EPOLL_CTL_MOD` | `ENOENT` or `EBADF` if not: epoll knows a file by number and identity |

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::fork::Inherited;
use crate::key::OpKey;
use crate::sys;
use crate::uring::ring::Ring;
use crate::{Descriptor, DriverWaker, WeakDescriptor};

/// A file of someone else's that can be polled, kept open meanwhile.
///
/// Give it to [`Driver::unwatch`](crate::Driver::unwatch); one that is dropped is let go of with the next watch.
pub struct WatchedFile {
    number: RawFd,
    place: Place,
    /// Tells this watch from an older one of the same number.
    id: u64,
    op: Cell<Option<OpKey>>,
    table: Rc<FileTable>,
}

/// Where the file is held.
#[derive(Clone)]
pub(crate) enum Place {
    /// Of the ring's file table.
    Slot(u32),
    /// Where the table is full, or there is none: a number of our own.
    ///
    /// The table has it, so that it is closed with the driver.
    Duplicate(WeakDescriptor),
}

/// What is watched, and the slots of the ring's file table.
pub(crate) struct FileTable {
    /// In a forked child it would act on the parent's registrations.
    _inherited: Inherited,
    scratch: OwnedFd,
    slots: RefCell<Slots>,
    /// Keeps open what a child gets instead.
    _waker: DriverWaker,
}

#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    /// Of files that are not watched any more, but still in the table.
    abandoned: Vec<u32>,
    /// By number, the watch that registered it last with the scratch epoll.
    latest: BTreeMap<RawFd, u64>,
    /// Descriptors of our own, by their watches.
    duplicates: BTreeMap<u64, Descriptor>,
    id: u64,
}

impl WatchedFile {
    /// The number under which the file was watched.
    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Whether that number still names this file: false if it was closed since, also when it was used again.
    pub fn is_current(&self) -> bool {
        sys::epoll_modify(self.table.scratch.as_fd(), self.number).is_ok()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn op(&self) -> &Cell<Option<OpKey>> {
        &self.op
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        let mut slots = self.table.slots.borrow_mut();
        if let Place::Slot(slot) = self.place {
            slots.abandoned.push(slot);
        }
        let duplicate = slots.duplicates.remove(&self.id);
        if slots.latest.get(&self.number) == Some(&self.id) {
            slots.latest.remove(&self.number);
            // An error means that the number names another file by now; epoll forgets the old one when it is closed.
            let _ = sys::epoll_delete(self.table.scratch.as_fd(), self.number);
        }
        drop(slots);
        drop(duplicate);
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchedFile({})", self.number)
    }
}

impl FileTable {
    pub(crate) fn new(ring: Option<&Ring>, waker: &DriverWaker) -> io::Result<Rc<Self>> {
        let scratch = sys::epoll()?;
        let free = (0..ring.map_or(0, Ring::register_files)).rev().collect();
        Ok(Rc::new(Self {
            _inherited: Inherited::number(scratch.as_raw_fd(), waker.eventfd().as_raw_fd()),
            scratch,
            slots: RefCell::new(Slots { free, ..Slots::default() }),
            _waker: waker.clone(),
        }))
    }

    /// Lets go of all files.
    pub(crate) fn clear(&self, ring: Option<&Ring>) {
        self.slots.take();
        if let Some(ring) = ring {
            ring.forget_files();
        }
    }

    /// Watches the file that `number` names.
    pub(crate) fn watch(
        self: &Rc<Self>,
        ring: Option<&Ring>,
        number: RawFd,
    ) -> io::Result<WatchedFile> {
        self.clear_abandoned(ring);
        match sys::epoll_add(self.scratch.as_fd(), number) {
            // Left over from a watch of the same file, whose number was another file's when the watch ended.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        let id = self.slots.borrow().id + 1;
        let place = self.place(ring, number, id).inspect_err(|_| {
            let _ = sys::epoll_delete(self.scratch.as_fd(), number);
        })?;
        let mut slots = self.slots.borrow_mut();
        slots.id = id;
        slots.latest.insert(number, id);
        Ok(WatchedFile { number, place, id, op: Cell::new(None), table: Rc::clone(self) })
    }

    fn place(&self, ring: Option<&Ring>, number: RawFd, id: u64) -> io::Result<Place> {
        let slot = self.slots.borrow_mut().free.pop();
        if let (Some(ring), Some(slot)) = (ring, slot) {
            if ring.set_file(slot, number).is_ok() {
                return Ok(Place::Slot(slot));
            }
            self.slots.borrow_mut().free.push(slot);
        }
        let duplicate = duplicate(number)?;
        let place = Place::Duplicate(duplicate.downgrade());
        self.slots.borrow_mut().duplicates.insert(id, duplicate);
        Ok(place)
    }

    /// Lets go of files that are not watched any more.
    pub(crate) fn clear_abandoned(&self, ring: Option<&Ring>) {
        let Some(ring) = ring else { return };
        let mut slots = self.slots.borrow_mut();
        while let Some(slot) = slots.abandoned.pop() {
            // It cannot fail for a slot that was set.
            let _ = ring.set_file(slot, -1);
            slots.free.push(slot);
        }
    }
}

fn duplicate(number: RawFd) -> io::Result<Descriptor> {
    // SAFETY: the borrow ends with this call, and the number was open when epoll looked; if another thread has closed it
    // since, the call fails or duplicates what is there now, as any use of a number does.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(Descriptor::from(borrowed.try_clone_to_owned()?))
}
