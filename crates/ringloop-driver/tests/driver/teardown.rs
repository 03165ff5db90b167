//! The end of a driver: the kernel lets go of everything before anything is freed.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringloop_driver::testing::{Faults, Memory, close_kept_ring};
use ringloop_driver::{Account, Descriptor, Driver, DriverConfig, Interest, Token, Wait};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, assert_at_end, fill, open_descriptors, queue_of, received, unix_pair,
    write_all,
};
use crate::sys::{Paused, allow_most_descriptors};

pub(crate) const TESTS: &[Test] = crate::tests![
    after_the_drop_the_kernel_writes_to_no_buffer,
    after_the_drop_the_kernel_writes_to_no_buffer_though_a_child_has_the_ring,
    after_the_drop_the_kernel_writes_to_no_buffer_though_a_child_was_forked,
    after_the_drop_the_kernel_writes_to_no_buffer_though_a_program_was_executed,
    after_the_drop_the_kernel_writes_to_no_buffer_though_the_thread_goes_on_with_another_driver,
    a_panic_that_unwinds_through_the_loop_drains_the_ring,
    a_drop_reads_what_came_too_late_and_closes_it,
    a_drop_submits_what_was_queued_behind_a_full_queue,
    a_drop_with_starved_receives_ends,
    a_drop_under_faults_ends_with_nothing_open,
    a_drop_with_a_send_in_flight_frees_its_bytes_after_the_kernel,
    a_drop_with_a_thousand_ops_of_all_kinds_leaves_nothing_open,
    a_drop_with_as_many_connections_and_watches_as_a_process_may_have_ends_them_all,
    completions_that_nobody_took_are_dropped_with_the_driver,
    a_watch_that_outlives_its_driver_is_harmless,
];

/// Ends the senders of the one scene of this process.
static STOP: AtomicBool = AtomicBool::new(false);

const CONNECTIONS: u64 = 1000;
const PATTERN: u8 = 0xa5;

/// A driver with receives in flight into memory of the test's own, and peers that send until they are stopped.
struct Scene {
    driver: Driver,
    memory: Memory,
    pairs: Vec<(Descriptor, UnixStream)>,
    senders: Vec<thread::JoinHandle<()>>,
}

impl Scene {
    fn new() -> Self {
        let memory = Memory::new(256 * 16 * 1024).unwrap();
        let config = DriverConfig { memory: Some(memory.clone()), ..DriverConfig::default() };
        let mut driver = Driver::new(&config).unwrap();
        let pairs: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                let (ours, theirs) = unix_pair();
                theirs.set_nonblocking(true).unwrap();
                driver.recv_multishot(&ours, &Account::new(), Token(index));
                (ours, theirs)
            })
            .collect();
        driver.submit().unwrap();
        let senders = pairs
            .chunks(CONNECTIONS as usize / 2)
            .map(|chunk| {
                let peers: Vec<_> =
                    chunk.iter().map(|(_, peer)| peer.try_clone().unwrap()).collect();
                thread::spawn(move || {
                    while !STOP.load(Ordering::Relaxed) {
                        peers.iter().for_each(|peer| drop((&mut &*peer).write(b"while it ends")));
                    }
                })
            })
            .collect();
        let mut scene = Self { driver, memory, pairs, senders };
        // Some have come before the end begins.
        let mut count = 0;
        while count < 2000 {
            scene.driver.wait(Wait::Forever).unwrap();
            while scene.driver.next_completion().is_some() {
                count += 1;
            }
        }
        scene
    }

    /// Drops the driver while the peers send, and then lets each of them send a mebibyte more.
    fn end(self, after_the_drop: impl FnOnce()) {
        let Self { driver, memory, pairs, senders } = self;
        assert_eq!(driver.counters().in_flight, CONNECTIONS);
        drop(driver);
        memory.fill(PATTERN);
        after_the_drop();
        STOP.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        for (ours, theirs) in pairs {
            send_a_mebibyte(ours, theirs);
        }
        assert_eq!(memory.count_other_than(PATTERN), 0, "bytes were written after the drop");
    }
}

fn send_a_mebibyte(ours: Descriptor, mut theirs: UnixStream) {
    let mut ours = UnixStream::from(ours.into_owned().expect("no op is in flight on it"));
    ours.set_nonblocking(true).unwrap();
    let chunk = [1; 64 * 1024];
    let mut buffer = vec![0; 64 * 1024];
    let mut left = 1 << 20;
    while left > 0 {
        match theirs.write(&chunk[..chunk.len().min(left)]) {
            Ok(count) => left -= count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        while ours.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
    drop(theirs);
    while ours.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

fn after_the_drop_the_kernel_writes_to_no_buffer() {
    Scene::new().end(|| {});
}

fn after_the_drop_the_kernel_writes_to_no_buffer_though_a_child_has_the_ring() {
    let scene = Scene::new();
    // Around the C library, so that the child keeps the ring.
    let _child = Paused::raw_fork();
    scene.end(|| {});
}

fn after_the_drop_the_kernel_writes_to_no_buffer_though_a_child_was_forked() {
    let scene = Scene::new();
    let _child = Paused::fork();
    scene.end(|| {});
}

fn after_the_drop_the_kernel_writes_to_no_buffer_though_a_program_was_executed() {
    let scene = Scene::new();
    let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
    scene.end(|| {});
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn after_the_drop_the_kernel_writes_to_no_buffer_though_the_thread_goes_on_with_another_driver() {
    Scene::new().end(|| {
        let mut next = Driver::new(&DriverConfig::default()).unwrap();
        for _ in 0..100 {
            next.wait(Wait::Now).unwrap();
            assert!(next.next_completion().is_none());
        }
        assert_eq!(next.counters().stale, 0);
    });
}

fn a_panic_that_unwinds_through_the_loop_drains_the_ring() {
    drop(Driver::new(&DriverConfig::default()).unwrap());
    let before = open_descriptors();
    let (ours, theirs) = unix_pair();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut driver = Driver::new(&DriverConfig::default()).unwrap();
        for _ in 0..10 {
            driver.recv_multishot(&ours, &Account::new(), TOKEN);
        }
        driver.submit().unwrap();
        write_all(&theirs, b"x");
        driver.wait(Wait::Forever).unwrap();
        let _held = driver.next_completion();
        panic!("in the user's code");
    }));
    assert!(unwound.is_err());
    assert_eq!(ours.holders(), 1, "no op has it any more");
    drop(ours);
    assert_at_end(&theirs);
    drop(theirs);
    assert_eq!(open_descriptors(), before);
}

fn a_drop_reads_what_came_too_late_and_closes_it() {
    let mut driver = TestDriver::new();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let ours = Descriptor::from(OwnedFd::from(listener.try_clone().unwrap()));
    driver.accept_multishot(&ours, TOKEN);
    driver.submit().unwrap();
    let peers: Vec<_> = (0..50)
        .map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
        .collect();
    driver.wait(Wait::Now).unwrap();
    drop((ours, listener));
    let ended: Vec<_> = peers.iter().map(|peer| peer.try_clone().unwrap()).collect();
    drop(peers);
    drop(driver.into_driver());
    for mut peer in ended {
        match peer.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

fn a_drop_submits_what_was_queued_behind_a_full_queue() {
    let config =
        DriverConfig { submission_entries: 2, completion_entries: 4, ..DriverConfig::default() };
    let mut driver = TestDriver::with(&config);
    let pairs: Vec<_> = (0..200).map(|_| unix_pair()).collect();
    let mut peers = Vec::new();
    for (ours, theirs) in pairs {
        driver.recv_multishot(&ours, &Account::new(), TOKEN);
        driver.poll(&ours, Interest { read: true, write: false }, TOKEN);
        let (closed, its_peer) = unix_pair();
        driver.close(closed);
        peers.extend([theirs, its_peer]);
    }
    drop(driver.into_driver());
    peers.iter().for_each(assert_at_end);
}

fn a_drop_with_starved_receives_ends() {
    let config = DriverConfig { buffers: 1, buffer_size: 64, groups: 1, ..DriverConfig::default() };
    let mut driver = TestDriver::with(&config);
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    write_all(&theirs, b"held");
    let lease = received(driver.next_of(key));
    let (hungry, its_peer) = unix_pair();
    let starving = driver.recv_multishot(&hungry, &Account::new(), TOKEN);
    driver.submit().unwrap();
    write_all(&its_peer, b"x");
    driver.look(starving).unwrap();
    assert!(driver.next_completion().is_none());
    assert!(driver.counters().enobufs > 0, "it starves");
    drop((ours, theirs, hungry));
    drop(driver.into_driver());
    assert_eq!(lease, b"held");
    drop((lease, its_peer));
}

fn a_drop_under_faults_ends_with_nothing_open() {
    for seed in 0..50 {
        let faults = Some(Faults { errors: 50, ..Faults::harmless(seed) });
        let mut driver = TestDriver::with(&DriverConfig { faults, ..DriverConfig::default() });
        let pairs: Vec<_> = (0..20).map(|_| unix_pair()).collect();
        for (ours, theirs) in &pairs {
            driver.recv_multishot(ours, &Account::new(), TOKEN);
            driver.send(ours, queue_of(vec![0; 1000]), false, TOKEN);
            write_all(theirs, b"x");
        }
        driver.wait(Wait::Now).unwrap();
        for _ in 0..seed % 20 {
            driver.next_completion();
        }
        drop(pairs);
        driver.finish_with_ops_in_flight();
    }
}

fn a_drop_with_a_send_in_flight_frees_its_bytes_after_the_kernel() {
    /// Counts, by its clones, who still has the bytes.
    struct Owned(Arc<[u8; 1 << 20]>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }
    let mut driver = TestDriver::new();
    let (ours, mut theirs) = unix_pair();
    ours_is_full(&ours);
    let owner = Arc::new([7; 1 << 20]);
    let shared = bytes::Bytes::from_owner(Owned(Arc::clone(&owner)));
    driver.send(&ours, queue_of(shared), false, TOKEN);
    driver.submit().unwrap();
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(ours);
    drop(driver.into_driver());
    assert_eq!(Arc::strong_count(&owner), 1);
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert!(got.iter().all(|&byte| byte == 0), "nothing was taken of what was cancelled");
}

fn ours_is_full(ours: &Descriptor) {
    let ours = UnixStream::from(ours.as_fd().try_clone_to_owned().unwrap());
    ours.set_nonblocking(true).unwrap();
    fill(&ours);
}

fn a_drop_with_a_thousand_ops_of_all_kinds_leaves_nothing_open() {
    close_kept_ring();
    let mut driver = TestDriver::new();
    let mut kept = Vec::new();
    for _ in 0..250 {
        let (ours, theirs) = unix_pair();
        driver.recv_multishot(&ours, &Account::new(), TOKEN);
        driver.poll(&ours, Interest { read: true, write: false }, TOKEN);
        let (read, write) = crate::sys::pipe();
        driver.read_multishot(&OwnedFd::from(read).into(), &Account::new(), TOKEN);
        let (datagrams, its_peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
        driver.recv_from_multishot(&OwnedFd::from(datagrams).into(), &Account::new(), TOKEN);
        kept.push((theirs, OwnedFd::from(write), OwnedFd::from(its_peer)));
    }
    driver.submit().unwrap();
    assert_eq!(driver.counters().in_flight, 1000);
    drop(kept);
    driver.finish_with_ops_in_flight();
}

// spec: RISK-33
fn a_drop_with_as_many_connections_and_watches_as_a_process_may_have_ends_them_all() {
    let limit = allow_most_descriptors();
    let mut driver = TestDriver::new();
    let before = open_descriptors();
    // Epoll holds a watched file by a number of its own, and what it was made with is not kept.
    let (numbers, not_kept) = if driver.is_ring() { (2, 0) } else { (3, 2) };
    let connections = limit.min(20_000) as usize / numbers - before;
    let mut peers = Vec::new();
    for _ in 0..connections {
        let (ours, theirs) = unix_pair();
        driver.recv_multishot(&ours, &Account::new(), TOKEN);
        let file = driver.watch(&ours).unwrap();
        driver.poll_watched(&file, Interest { read: true, write: false }, TOKEN);
        peers.push(theirs);
    }
    driver.submit().unwrap();
    assert_eq!(driver.counters().in_flight, 2 * connections as u64);
    drop(driver.into_driver());
    peers.iter().for_each(assert_at_end);
    drop(peers);
    assert_eq!(open_descriptors() + not_kept, before, "a ring is kept, and nothing else");
}

fn completions_that_nobody_took_are_dropped_with_the_driver() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (other, its_peer) = unix_pair();
    driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let key = driver.recv_multishot(&other, &Account::new(), TOKEN);
    driver.submit().unwrap();
    write_all(&theirs, b"decoded, as another was looked for");
    write_all(&its_peer, b"x");
    assert!(driver.look(key).unwrap().is_some());
    write_all(&theirs, b"still in the ring");
    driver.submit().unwrap();
    drop((ours, theirs, other, its_peer));
    driver.finish_with_ops_in_flight();
}

fn a_watch_that_outlives_its_driver_is_harmless() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let file = driver.watch(&ours).unwrap();
    driver.poll_watched(&file, Interest { read: true, write: false }, TOKEN);
    driver.submit().unwrap();
    drop(ours);
    drop(driver.into_driver());
    assert_at_end(&theirs);
    assert!(!file.is_current());
    drop(file);
}
