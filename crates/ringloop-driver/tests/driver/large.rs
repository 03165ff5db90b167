//! Large buffers, for connections that fill whole ones.

use std::os::unix::net::UnixStream;
use std::thread;

use ringloop_driver::testing::Faults;
use ringloop_driver::{
    Account, Completion, Descriptor, Driver, DriverConfig, Features, OpKey, Received, Wait,
};

use crate::isolated::Test;
use crate::random::Random;
use crate::support::{
    TOKEN, TestDriver, errno, received, received_or_cancelled, ring, unix_pair, write_all,
};
use crate::sys::{address_space, in_forked_child, set_soft_limit};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_connection_that_fills_its_buffers_gets_large_ones,
    a_connection_whose_last_receive_was_small_gets_small_buffers_again,
    large_buffers_go_when_nobody_has_filled_one_for_long,
    large_buffers_stay_while_a_receive_is_armed_on_them_or_one_is_lent,
    streams_find_no_more_large_buffers_than_the_window_and_get_all_their_bytes,
    a_connection_that_finds_no_large_buffer_goes_on_with_small_ones,
    beyond_256_kib_of_large_buffers_a_connection_gets_copies,
    a_lease_of_a_large_buffer_outlives_its_driver_and_comes_back_from_another_thread,
    an_end_and_a_reset_come_to_a_receive_that_has_large_buffers,
    a_receive_that_has_large_buffers_is_cancelled_without_loss,
    under_faults_a_stream_loses_and_moves_no_byte,
    a_child_that_is_forked_while_large_buffers_are_filled_leaves_them_to_its_parent,
    there_are_no_large_buffers_where_they_are_not_wanted_or_would_be_few,
    there_are_no_large_buffers_where_the_kernel_knows_no_limit_of_a_receive,
    without_memory_for_large_buffers_a_stream_goes_on_with_small_ones,
    a_hundred_streams_end_though_some_of_the_bytes_are_kept,
];

/// A connection whose peer sends numbered bytes.
struct Stream {
    ours: Descriptor,
    theirs: UnixStream,
    account: Account,
    key: OpKey,
    sent: usize,
    got: usize,
}

fn byte_at(place: usize) -> u8 {
    (place * 7 + (place >> 8) * 13) as u8
}

impl Stream {
    fn new(driver: &mut Driver) -> Self {
        let (ours, theirs) = unix_pair();
        let account = Account::new();
        let key = driver.recv_multishot(&ours, &account, TOKEN);
        Self { ours, theirs, account, key, sent: 0, got: 0 }
    }

    /// One that has filled so many small buffers that it has large ones now.
    fn with_large_buffers(driver: &mut TestDriver) -> Self {
        let mut stream = Self::new(driver);
        for _ in 0..LIMIT / SMALL {
            assert_eq!(stream.exchange(driver, SMALL), [SMALL]);
        }
        stream
    }

    fn send(&mut self, count: usize) {
        let bytes: Vec<u8> = (self.sent..self.sent + count).map(byte_at).collect();
        write_all(&self.theirs, &bytes);
        self.sent += count;
    }

    /// Checks what came, and starts the next receive where this one is over.
    fn take(&mut self, driver: &mut Driver, completion: Completion) -> Received {
        let more = completion.more;
        let bytes = received_or_cancelled(completion.outcome);
        for &byte in &*bytes {
            assert_eq!(byte, byte_at(self.got), "at {}", self.got);
            self.got += 1;
        }
        if !more {
            self.key = driver.recv_multishot(&self.ours, &self.account, TOKEN);
        }
        bytes
    }

    /// Receives what was sent, and holds it.
    fn receive(&mut self, driver: &mut TestDriver) -> Vec<Received> {
        let mut pieces = Vec::new();
        while self.got < self.sent {
            let completion = driver.next_of(self.key);
            pieces.push(self.take(driver, completion));
        }
        pieces
    }

    /// Sends `count` bytes, all of which are there before they are received, and gives how many came at a time.
    fn exchange(&mut self, driver: &mut TestDriver, count: usize) -> Vec<usize> {
        self.send(count);
        self.receive(driver).iter().map(|piece| piece.len()).collect()
    }

    fn end(self, driver: &mut TestDriver) {
        driver.retire(self.key);
        assert_eq!(self.account.bytes(), 0);
    }
}

/// `None` where there are no large buffers.
fn with(config: &DriverConfig) -> Option<TestDriver> {
    let driver = TestDriver::with(config);
    if driver.is_ring() && !driver.has(Features::MSHOT_LIMIT, (6, 17)) {
        driver.finish();
        return None;
    }
    Some(driver)
}

fn wait_often(driver: &mut TestDriver) {
    for _ in 0..CALM {
        assert!(driver.ready_now().is_empty());
    }
}

// spec: RISK-04
fn a_connection_that_fills_its_buffers_gets_large_ones() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::new(&mut driver);
    for _ in 0..LIMIT / SMALL {
        assert_eq!(driver.counters().groups, 1);
        assert_eq!(stream.exchange(&mut driver, SMALL), [SMALL]);
    }
    for _ in 0..10 {
        assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
        assert_eq!(stream.exchange(&mut driver, 100), [100]);
        assert_eq!(stream.exchange(&mut driver, LARGE + 1), [LARGE, 1]);
        // With that the receive has had what it may before somebody looks, and the next one is armed.
        assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
    }
    assert_eq!((driver.counters().groups, driver.counters().copied), (2, 0));
    stream.end(&mut driver);
    driver.finish();
}

fn a_connection_whose_last_receive_was_small_gets_small_buffers_again() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::with_large_buffers(&mut driver);
    for _ in 0..3 {
        assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
        assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
        assert_eq!(stream.exchange(&mut driver, LARGE - 1), [LARGE - 1]);
        assert_eq!(stream.exchange(&mut driver, 100), [100]);
        for _ in 0..LIMIT / LARGE {
            assert_eq!(stream.exchange(&mut driver, LARGE), [SMALL; 4]);
        }
        assert_eq!(stream.exchange(&mut driver, LIMIT % LARGE), [SMALL; 3]);
    }
    stream.end(&mut driver);
    driver.finish();
}

fn large_buffers_go_when_nobody_has_filled_one_for_long() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    for _ in 0..3 {
        let stream = Stream::with_large_buffers(&mut driver);
        stream.end(&mut driver);
        assert_eq!(driver.counters().groups, 2);
        wait_often(&mut driver);
        assert_eq!(driver.counters().groups, 1);
    }
    driver.finish();
}

fn large_buffers_stay_while_a_receive_is_armed_on_them_or_one_is_lent() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::with_large_buffers(&mut driver);
    assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
    wait_often(&mut driver);
    assert_eq!(driver.counters().groups, 2);
    stream.send(LARGE);
    let lease = stream.receive(&mut driver);
    driver.retire(stream.key);
    wait_often(&mut driver);
    assert_eq!((driver.counters().groups, driver.counters().leased), (2, 1));
    let bytes = lease.into_iter().next().unwrap().into_bytes();
    wait_often(&mut driver);
    assert_eq!((driver.counters().groups, bytes[0]), (2, byte_at(stream.got - LARGE)));
    drop(bytes);
    wait_often(&mut driver);
    assert_eq!((driver.counters().groups, driver.counters().leased), (1, 0));
    drop(stream);
    driver.finish();
}

fn streams_find_no_more_large_buffers_than_the_window_and_get_all_their_bytes() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut streams: Vec<_> = (0..20).map(|_| Stream::with_large_buffers(&mut driver)).collect();
    for _ in 0..10 {
        streams.iter_mut().for_each(|stream| stream.send(LARGE));
        let mut in_first_call = None;
        while streams.iter().any(|stream| stream.got < stream.sent) {
            let came = driver.ready_now();
            in_first_call.get_or_insert(came.len());
            for completion in came {
                let of = streams.iter_mut().find(|stream| stream.key == completion.key).unwrap();
                of.take(&mut driver, completion);
            }
        }
        assert!(in_first_call <= Some(WINDOW), "{in_first_call:?}");
    }
    assert!(driver.counters().enobufs > 0);
    streams.into_iter().for_each(|stream| stream.end(&mut driver));
    driver.finish();
}

fn a_connection_that_finds_no_large_buffer_goes_on_with_small_ones() {
    // Sixteen large ones; each connection may hold an eighth of them.
    let config = DriverConfig { buffers: 64, ..DriverConfig::default() };
    let Some(mut driver) = with(&config) else { return };
    let mut hoarders = Vec::new();
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = Stream::with_large_buffers(&mut driver);
        stream.send(2 * LARGE);
        held.extend(stream.receive(&mut driver));
        hoarders.push(stream);
    }
    assert!(held.len() == 16 && held.iter().all(|piece| piece.len() == LARGE));
    let mut other = Stream::with_large_buffers(&mut driver);
    assert_eq!(other.exchange(&mut driver, LARGE), [SMALL; 4]);
    // One that is armed on them starves, and is armed on the others.
    held.truncate(14);
    let mut last = Stream::with_large_buffers(&mut driver);
    hoarders[7].send(2 * LARGE);
    held.extend(hoarders[7].receive(&mut driver));
    assert_eq!(last.exchange(&mut driver, LARGE), [SMALL; 4]);
    assert!(driver.counters().enobufs > 0);
    drop(held);
    for stream in hoarders.into_iter().chain([other, last]) {
        stream.end(&mut driver);
    }
    driver.finish();
}

// spec: RISK-30
fn beyond_256_kib_of_large_buffers_a_connection_gets_copies() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::with_large_buffers(&mut driver);
    let mut held = Vec::new();
    for place in 0..8 {
        stream.send(LARGE);
        held.extend(stream.receive(&mut driver));
        assert_eq!(held[place].is_copy(), place >= 4);
        assert_eq!(stream.account.bytes(), LARGE * (place + 1).min(4));
    }
    drop(held);
    assert_eq!(stream.account.bytes(), 0);
    stream.end(&mut driver);
    driver.finish();
}

fn a_lease_of_a_large_buffer_outlives_its_driver_and_comes_back_from_another_thread() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::with_large_buffers(&mut driver);
    let from = stream.got;
    stream.send(2 * LARGE);
    let mut pieces = stream.receive(&mut driver);
    let bytes = pieces.pop().unwrap().into_bytes();
    thread::spawn(move || drop(bytes)).join().unwrap();
    driver.ready_now();
    assert_eq!((driver.counters().leased, stream.account.bytes()), (1, LARGE));
    driver.retire(stream.key);
    drop(driver.into_driver());
    assert!(pieces[0].iter().enumerate().all(|(place, &byte)| byte == byte_at(from + place)));
    drop(pieces);
    assert_eq!(stream.account.bytes(), 0);
}

// spec: RISK-21
fn an_end_and_a_reset_come_to_a_receive_that_has_large_buffers() {
    for is_reset in [false, true] {
        let Some(mut driver) = with(&DriverConfig::default()) else { return };
        let mut stream = Stream::with_large_buffers(&mut driver);
        stream.send(LARGE + 10);
        assert_eq!(received(driver.next_of(stream.key)).len(), LARGE);
        assert_eq!(received(driver.next_of(stream.key)).len(), 10);
        let ours = stream.ours.clone();
        if is_reset {
            // What its peer has not read when it closes makes a reset.
            driver.try_send(&ours, b"unread", None).unwrap();
        }
        drop(stream.theirs);
        let end = driver.next_of(stream.key);
        assert!(!end.more);
        if is_reset {
            assert_eq!(errno(&end), Some(libc::ECONNRESET));
        } else {
            assert!(received(end).is_empty());
        }
        drop((ours, stream.ours));
        driver.finish();
    }
}

fn a_receive_that_has_large_buffers_is_cancelled_without_loss() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut random = Random::new();
    let mut stream = Stream::with_large_buffers(&mut driver);
    for _ in 0..200 {
        stream.send(1 + random.next() as usize % LARGE);
        if random.next() % 2 == 0 {
            let some = driver.ready_now();
            some.into_iter().for_each(|completion| drop(stream.take(&mut driver, completion)));
        }
        for completion in driver.retire(stream.key) {
            stream.take(&mut driver, completion);
        }
        stream.receive(&mut driver);
    }
    stream.end(&mut driver);
    driver.finish();
}

fn under_faults_a_stream_loses_and_moves_no_byte() {
    let mut random = Random::new();
    for _ in 0..5 {
        let faults = Some(Faults::harmless(random.next()));
        let Some(mut driver) = with(&DriverConfig { faults, ..DriverConfig::default() }) else {
            return;
        };
        let mut stream = Stream::new(&mut driver);
        for _ in 0..40 {
            stream.send(LARGE);
            stream.receive(&mut driver);
        }
        assert_eq!(driver.counters().groups, 2);
        stream.end(&mut driver);
        driver.run_out();
        driver.finish();
    }
}

fn a_child_that_is_forked_while_large_buffers_are_filled_leaves_them_to_its_parent() {
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut stream = Stream::with_large_buffers(&mut driver);
    stream.send(LARGE);
    let held = stream.receive(&mut driver);
    let first = held[0][0];
    let status = in_forked_child(|| {
        assert_eq!((held[0].len(), held[0][0]), (LARGE, first));
        assert!(driver.wait(Wait::Now).is_err());
        drop(held.clone());
    });
    assert_eq!(status, 0);
    drop(held);
    for _ in 0..20 {
        assert_eq!(stream.exchange(&mut driver, LARGE), [LARGE]);
    }
    stream.end(&mut driver);
    driver.finish();
}

fn there_are_no_large_buffers_where_they_are_not_wanted_or_would_be_few() {
    for config in [
        DriverConfig { large_buffers: false, ..DriverConfig::default() },
        DriverConfig { buffers: 32, ..DriverConfig::default() },
        DriverConfig { buffer_size: LARGE as u32, ..DriverConfig::default() },
    ] {
        let mut driver = TestDriver::with(&config);
        let mut stream = Stream::new(&mut driver);
        for _ in 0..20 {
            let sizes = stream.exchange(&mut driver, LARGE);
            assert!(sizes.iter().all(|&size| size <= config.buffer_size as usize), "{sizes:?}");
        }
        assert_eq!(driver.counters().groups, 1);
        stream.end(&mut driver);
        driver.finish();
    }
}

fn there_are_no_large_buffers_where_the_kernel_knows_no_limit_of_a_receive() {
    let config = DriverConfig { mask: Features::MSHOT_LIMIT, ..ring() };
    let mut driver = TestDriver::with(&config);
    let mut stream = Stream::new(&mut driver);
    for _ in 0..20 {
        let sizes = stream.exchange(&mut driver, LARGE);
        assert!(sizes.iter().all(|&size| size <= SMALL), "{sizes:?}");
    }
    assert_eq!(driver.counters().groups, 1);
    stream.end(&mut driver);
    driver.finish();
}

fn without_memory_for_large_buffers_a_stream_goes_on_with_small_ones() {
    // Of 64 MiB, as the large ones would be: the test itself needs far less.
    let config = DriverConfig { buffers: 4096, ..DriverConfig::default() };
    let Some(mut driver) = with(&config) else { return };
    let mut stream = Stream::new(&mut driver);
    set_soft_limit(libc::RLIMIT_AS, address_space() + 32 * 1024 * 1024);
    for round in 0..20 {
        // Once there was none, it is not tried again: each try would be a call that fails.
        if round == 10 {
            set_soft_limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
        }
        let sizes = stream.exchange(&mut driver, LARGE);
        assert!(sizes.iter().all(|&size| size <= SMALL), "{sizes:?}");
        assert_eq!(driver.counters().groups, 1);
    }
    stream.end(&mut driver);
    driver.finish();
}

// spec: RISK-30
fn a_hundred_streams_end_though_some_of_the_bytes_are_kept() {
    const PIECE: usize = 32 * 1024; // Fits into the peer's socket at once.
    let Some(mut driver) = with(&DriverConfig::default()) else { return };
    let mut streams: Vec<_> = (0..100).map(|_| Stream::new(&mut driver)).collect();
    let mut kept = Vec::new();
    for round in 0..640 * 1024 / PIECE {
        streams.iter_mut().for_each(|stream| stream.send(PIECE));
        while streams.iter().any(|stream| stream.got < stream.sent) {
            for completion in driver.ready_now() {
                let of = streams.iter_mut().find(|stream| stream.key == completion.key).unwrap();
                let bytes = of.take(&mut driver, completion);
                // A hundred bytes of what comes hold all of its buffer.
                if kept.len() < 100 * (round + 1) && !bytes.is_empty() {
                    kept.push(bytes.slice(..bytes.len().min(100)));
                }
                assert!(of.account.bytes() <= 256 * 1024 + LARGE, "{}", of.account.bytes());
            }
        }
    }
    assert!(driver.counters().groups <= 1 + u64::from(DriverConfig::default().groups));
    drop(kept);
    streams.into_iter().for_each(|stream| stream.end(&mut driver));
    driver.finish();
}

const SMALL: usize = 16 * 1024;
const LARGE: usize = 64 * 1024;
/// Bytes after which a receive into small buffers ends.
const LIMIT: usize = 240 * 1024;
/// Full large buffers that one call fills.
const WINDOW: usize = 384 * 1024 / LARGE;
/// More waits than large buffers stay without use.
const CALM: u32 = 2000;
