//! The ring's table of files, which polls name by their slots.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use super::ring::{self, Ring};
use crate::sys;

impl Ring {
    /// Registers a sparse table, and gives its size: none where the kernel has no memory for it.
    pub(crate) fn register_files(&self) -> u32 {
        let most = sys::soft_limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX);
        let slots = most.clamp(1, MOST_SLOTS) as u32;
        let mut request = Registration { slots, flags: SPARSE, ..Registration::default() };
        // SAFETY: the request is a valid place of the layout that the call expects, and names no memory.
        let registered = unsafe {
            self.register(ring::REGISTER_FILES2, &raw mut request, size_of::<Registration>() as u32)
        };
        registered.map_or(0, |_| slots)
    }

    /// Puts the file of `number` into `slot`, or nothing for -1.
    ///
    /// # Errors
    ///
    /// As `io_uring_register(2)`; none for a slot that was set and is to hold nothing.
    pub(crate) fn set_file(&self, slot: u32, number: RawFd) -> io::Result<()> {
        let mut update = Update { slot, reserved: 0, numbers: (&raw const number) as u64 };
        // SAFETY: the update is a valid place, and names one number, which outlives the call.
        unsafe { self.register(ring::REGISTER_FILES_UPDATE, &raw mut update, 1) }.map(drop)
    }

    /// Lets go of the table and of all files in it, if there is one.
    pub(crate) fn forget_files(&self) {
        // SAFETY: no memory is named. An error means that there is no table.
        let _ = unsafe { self.register(ring::UNREGISTER_FILES, ptr::null_mut::<()>(), 0) };
    }
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
