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
use std::ptr;
use std::rc::Rc;

use crate::fork::Inherited;
use crate::key::OpKey;
use crate::sys;
use crate::uring::ring::{self, Ring};
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
        let free = (0..ring.map_or(0, register)).rev().collect();
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
        let Some(ring) = ring else { return };
        // SAFETY: no memory is named. An error means that there is no table.
        let _ = unsafe { ring.register(ring::UNREGISTER_FILES, ptr::null_mut::<()>(), 0) };
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
            if set(ring, slot, number).is_ok() {
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
            let _ = set(ring, slot, -1);
            slots.free.push(slot);
        }
    }
}

/// Registers a sparse table, and gives its size: none where the kernel has no memory for it.
fn register(ring: &Ring) -> u32 {
    let most = sys::soft_limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX);
    let slots = most.clamp(1, MOST_SLOTS) as u32;
    let mut request = Registration { slots, flags: SPARSE, ..Registration::default() };
    // SAFETY: the request is a valid place of the layout that the call expects, and names no memory.
    let registered = unsafe {
        ring.register(ring::REGISTER_FILES2, &raw mut request, size_of::<Registration>() as u32)
    };
    registered.map_or(0, |_| slots)
}

/// Puts the file of `number` into `slot`, or nothing for -1.
fn set(ring: &Ring, slot: u32, number: RawFd) -> io::Result<()> {
    let mut update = Update { slot, reserved: 0, numbers: (&raw const number) as u64 };
    // SAFETY: the update is a valid place, and names one number, which outlives the call.
    unsafe { ring.register(ring::REGISTER_FILES_UPDATE, &raw mut update, 1) }.map(drop)
}

fn duplicate(number: RawFd) -> io::Result<Descriptor> {
    // SAFETY: the borrow ends with this call, and the number was open when epoll looked; if another thread has closed it
    // since, the call fails or duplicates what is there now, as any use of a number does.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(Descriptor::from(borrowed.try_clone_to_owned()?))
}

/// `struct io_uring_rsrc_register`.
#[derive(Default)]
#[repr(C)]
struct Registration {
    slots: u32,
    flags: u32,
    reserved: u64,
    data: u64,
    tags: u64,
}

/// `struct io_uring_files_update`.
#[repr(C)]
struct Update {
    slot: u32,
    reserved: u32,
    numbers: u64,
}

const _: () = {
    assert!(size_of::<Registration>() == 32);
    assert!(size_of::<Update>() == 16);
};

/// `IORING_RSRC_REGISTER_SPARSE`.
const SPARSE: u32 = 1;

/// Files that are polled by their slots; beyond, and beyond the limit of open files, by numbers of our own.
const MOST_SLOTS: u64 = 1 << 15;
