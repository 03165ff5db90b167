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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::Descriptor;
use crate::op::OpKey;
use crate::sys;

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
    /// Where the table is full, or could not be had: a number of our own.
    Duplicate(Descriptor),
}

/// What is watched, and the slots of the ring's file table.
pub(crate) struct FileTable {
    scratch: OwnedFd,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    /// Of files that are not watched any more, but still in the table.
    abandoned: Vec<u32>,
    /// By number, the watch that registered it last with the scratch epoll.
    latest: BTreeMap<RawFd, u64>,
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
        if slots.latest.get(&self.number) == Some(&self.id) {
            slots.latest.remove(&self.number);
            // An error means that the number names another file by now; epoll forgets the old one when it is closed.
            let _ = sys::epoll_delete(self.table.scratch.as_fd(), self.number);
        }
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchedFile({})", self.number)
    }
}

impl FileTable {
    /// `slots` are the slots that the ring has; none is a table too.
    pub(crate) fn new(slots: u32) -> io::Result<Rc<Self>> {
        let free = (0..slots).rev().collect();
        let slots = RefCell::new(Slots { free, ..Slots::default() });
        Ok(Rc::new(Self { scratch: sys::epoll()?, slots }))
    }

    /// Watches the file that `number` names; `set` puts it into a slot of the ring's table.
    pub(crate) fn watch(
        self: &Rc<Self>,
        number: RawFd,
        set: impl FnOnce(u32, RawFd) -> io::Result<()>,
    ) -> io::Result<WatchedFile> {
        match sys::epoll_add(self.scratch.as_fd(), number) {
            // Left over from a watch of the same file, whose number was another file's when the watch ended.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        let (slot, id) = {
            let mut slots = self.slots.borrow_mut();
            slots.id += 1;
            let id = slots.id;
            slots.latest.insert(number, id);
            (slots.free.pop(), id)
        };
        let place = slot.map_or_else(|| duplicate(number), |slot| self.place(slot, number, set));
        let (place, result) = match place {
            Ok(place) => (place, Ok(())),
            // Made all the same, so that its drop takes the registration back.
            Err(error) => (Place::Slot(u32::MAX), Err(error)),
        };
        let file = WatchedFile { number, place, id, op: Cell::new(None), table: Rc::clone(self) };
        result.map(|()| file)
    }

    fn place(
        &self,
        slot: u32,
        number: RawFd,
        set: impl FnOnce(u32, RawFd) -> io::Result<()>,
    ) -> io::Result<Place> {
        if set(slot, number).is_ok() {
            return Ok(Place::Slot(slot));
        }
        self.slots.borrow_mut().free.push(slot);
        duplicate(number)
    }

    /// Slots whose files must be let go of. They are free afterwards.
    pub(crate) fn take_abandoned(&self) -> Vec<u32> {
        let mut slots = self.slots.borrow_mut();
        let mut abandoned = std::mem::take(&mut slots.abandoned);
        abandoned.retain(|&slot| slot != u32::MAX);
        slots.free.extend(&abandoned);
        abandoned
    }
}

fn duplicate(number: RawFd) -> io::Result<Place> {
    // SAFETY: the borrow ends with this call, and the number was open when epoll looked; if another thread has closed it
    // since, the call fails or duplicates what is there now, as any use of a number does.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(Place::Duplicate(Descriptor::from(borrowed.try_clone_to_owned()?)))
}
