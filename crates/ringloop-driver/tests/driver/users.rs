//! What runs the user's code inside the driver: the drops of owners of bytes, which may panic and call back.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use ringloop_driver::{
    Account, Descriptor, Driver, DriverConfig, Received, SendQueue, Token, Wait, discard_panic,
    take_drop_panics,
};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, assert_at_end, fill, open_descriptors, queue_of, received, ring, unix_pair,
    write_all,
};
use crate::sys::in_forked_child;

pub(crate) const TESTS: &[Test] = crate::tests![
    owners_that_panic_while_the_driver_is_dropped_leave_nothing_open,
    owners_that_panic_while_a_panic_unwinds_through_the_driver_leave_nothing_open,
    an_owner_that_makes_a_driver_while_the_old_one_is_dropped_gets_its_ring,
    owners_that_panic_in_a_forked_child_are_all_dropped,
    owners_that_panic_at_the_end_of_a_thread_do_not_end_the_process,
];

/// Runs `at_drop` when it is dropped.
struct Owner<F: FnMut()> {
    at_drop: F,
}

impl<F: FnMut()> AsRef<[u8]> for Owner<F> {
    fn as_ref(&self) -> &[u8] {
        &[7; 1000]
    }
}

impl<F: FnMut()> Drop for Owner<F> {
    fn drop(&mut self) {
        (self.at_drop)();
    }
}

fn owned(at_drop: impl FnMut() + Send + 'static) -> Bytes {
    Bytes::from_owner(Owner { at_drop })
}

/// Two owners in one queue that both panic.
fn dangerous_queue() -> SendQueue {
    let mut queue = queue_of(owned(|| panic_any(1_u8)));
    queue.push(Received::from(owned(|| panic_any(2_u8))).into());
    queue
}

/// A connection of which a send of such a queue is in flight, for want of room.
fn full_pair() -> (Descriptor, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    fill(&ours);
    ours.set_nonblocking(false).unwrap();
    (OwnedFd::from(ours).into(), theirs)
}

fn start_sends(driver: &mut Driver, count: u64) -> Vec<UnixStream> {
    let start = |token| {
        let (ours, theirs) = full_pair();
        driver.send(&ours, dangerous_queue(), false, Token(token));
        driver.recv_multishot(&ours, &Account::new(), Token(token));
        theirs
    };
    let peers = (0..count).map(start).collect();
    driver.submit().unwrap();
    peers
}

/// What was sent before comes, and then the end.
fn assert_all_end(peers: &[UnixStream]) {
    for mut peer in peers {
        let sent = io::copy(&mut peer, &mut io::sink()).unwrap();
        assert!(sent > 0);
        assert_at_end(peer);
    }
}

fn owners_that_panic_while_the_driver_is_dropped_leave_nothing_open() {
    let mut driver = TestDriver::new();
    let peers = start_sends(&mut driver, 100);
    let ended: Vec<_> = peers.iter().map(|peer| peer.try_clone().unwrap()).collect();
    drop(peers);
    assert_eq!(driver.counters().in_flight, 200);
    drop(driver.into_driver());
    assert_all_end(&ended);
    let panics = take_drop_panics();
    assert!(panics.len() > 1, "the first ones are told");
    let number = |payload: &Box<dyn Any + Send>| *payload.downcast_ref::<u8>().unwrap();
    assert_eq!(panics[..2].iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert!(take_drop_panics().is_empty());
}

fn owners_that_panic_while_a_panic_unwinds_through_the_driver_leave_nothing_open() {
    drop(Driver::new(&DriverConfig::default()).unwrap());
    let before = open_descriptors();
    let mut peers = Vec::new();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut driver = Driver::new(&DriverConfig::default()).unwrap();
        peers = start_sends(&mut driver, 10);
        panic_any("in the user's code");
    }));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"in the user's code"));
    assert_all_end(&peers);
    drop(peers);
    assert_eq!(open_descriptors(), before);
    take_drop_panics().into_iter().for_each(discard_panic);
}

fn an_owner_that_makes_a_driver_while_the_old_one_is_dropped_gets_its_ring() {
    drop(Driver::new(&ring()).unwrap());
    let before = open_descriptors();
    let (ours, theirs) = full_pair();
    let mut driver = Driver::new(&ring()).unwrap();
    let with_driver = open_descriptors();
    let (sender, seen) = channel();
    let bytes = owned(move || {
        let (ours, theirs) = unix_pair();
        let mut driver = Driver::new(&ring()).unwrap();
        write_all(&theirs, b"hello");
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        driver.wait(Wait::Forever).unwrap();
        let completion = driver.next_completion().unwrap();
        assert_eq!(completion.key, key);
        assert_eq!(received(completion), b"hello");
        drop((ours, theirs));
        sender.send(open_descriptors()).unwrap();
    });
    driver.send(&ours, queue_of(bytes), false, TOKEN);
    driver.submit().unwrap();
    drop(driver);
    assert_eq!(seen.recv().unwrap(), with_driver, "one ring at a time");
    assert!(take_drop_panics().is_empty());
    drop((ours, theirs));
    assert_eq!(open_descriptors(), before);
}

fn owners_that_panic_in_a_forked_child_are_all_dropped() {
    let mut driver = TestDriver::new();
    let peers = start_sends(&mut driver, 5);
    let mut held = Some(driver.into_driver());
    let status = in_forked_child(|| {
        drop(held.take());
        assert_eq!(take_drop_panics().len(), 10);
    });
    assert_eq!(status, 0);
    // The parent's are still in flight.
    assert_eq!(held.as_ref().unwrap().counters().in_flight, 10);
    assert!(take_drop_panics().is_empty());
    drop((held, peers));
    assert_eq!(take_drop_panics().len(), 10);
}

fn owners_that_panic_at_the_end_of_a_thread_do_not_end_the_process() {
    thread_local! {
        static DRIVER: RefCell<Option<Driver>> = const { RefCell::new(None) };
    }
    let thread = thread::spawn(|| {
        let mut driver = Driver::new(&DriverConfig::default()).unwrap();
        let peers = start_sends(&mut driver, 5);
        DRIVER.set(Some(driver));
        peers
    });
    assert_all_end(&thread.join().unwrap());
}
