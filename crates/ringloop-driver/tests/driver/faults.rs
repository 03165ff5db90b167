//! What the fault layer does, and that a program that is right does not notice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use ringloop_driver::testing::{FaultCounts, Faults};
use ringloop_driver::{
    Account, Descriptor, DriverConfig, Interest, Outcome, SendQueue, Token, Wait,
};

use crate::isolated::Test;
use crate::random::Random;
use crate::support::{
    TOKEN, TestDriver, accepted, errno, queue_of, read_exact, received, sent, unix_pair, write_all,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    an_echo_under_all_harmless_faults_loses_and_moves_no_byte,
    connections_under_all_harmless_faults_are_all_accepted,
    a_short_send_takes_what_it_says,
    a_receive_in_two_parts_is_one_lease,
    an_interrupted_op_is_armed_again_unseen,
    a_receive_without_buffer_goes_on,
    an_error_consumes_nothing,
    a_late_cancel_comes_in_the_end,
    reordered_completions_of_one_op_keep_their_order,
    the_same_seed_gives_the_same_faults,
    without_faults_nothing_is_counted,
];

fn with(faults: Faults) -> TestDriver {
    TestDriver::with(&DriverConfig { faults: Some(faults), ..DriverConfig::default() })
}

fn an_echo_under_all_harmless_faults_loses_and_moves_no_byte() {
    let mut random = Random::new();
    let mut driver = with(Faults::harmless(random.next()));
    let total = 200_000;
    let mut peers = Vec::new();
    let connections: Vec<_> = (0..8)
        .map(|index| {
            let (ours, theirs) = unix_pair();
            driver.recv_multishot(&ours, &Account::new(), Token(index));
            peers.push(thread::spawn(move || talk(theirs, total, index)));
            ours
        })
        .collect();
    let mut waiting: Vec<SendQueue> = connections.iter().map(|_| SendQueue::new()).collect();
    let mut sending = vec![false; connections.len()];
    let mut open = connections.len();
    while open > 0 {
        driver.wait(Wait::Forever).unwrap();
        while let Some(completion) = driver.next_completion() {
            let index = completion.token.0 as usize;
            match completion.outcome {
                Outcome::Received(Ok(bytes)) if bytes.is_empty() => open -= 1,
                Outcome::Received(Ok(bytes)) => waiting[index].push(bytes.into()),
                Outcome::Sent(Ok(count), mut queue) => {
                    sending[index] = false;
                    queue.advance(count);
                    queue.append(&mut waiting[index]);
                    waiting[index] = queue;
                }
                other => panic!("{other:?}"),
            }
            if !sending[index] && !waiting[index].is_empty() {
                sending[index] = true;
                let queue = std::mem::take(&mut waiting[index]);
                driver.send(&connections[index], queue, false, completion.token);
            }
        }
    }
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    let counts = driver.fault_counts();
    println!("{counts:?}");
    // A receive is armed a few times only, so that it may have found its buffers.
    let FaultCounts { short_sends, short_receives, interrupted, reordered, busy, .. } = counts;
    for count in [short_sends, short_receives, interrupted, reordered, busy] {
        assert!(count > 0, "{counts:?}");
    }
    driver.run_out();
    drop(connections);
    driver.finish();
}

/// Sends numbered bytes, and checks that they come back.
fn talk(mut stream: UnixStream, total: usize, index: u64) {
    let byte_at = |place: usize| (place as u64 * 7 + index) as u8;
    let (mut written, mut read) = (0, 0);
    let mut buffer = [0; 4096];
    while read < total {
        if written < total {
            let len = (1 + written % 3000).min(total - written);
            let chunk: Vec<u8> = (written..written + len).map(byte_at).collect();
            stream.write_all(&chunk).unwrap();
            written += len;
        } else {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        while read < written {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the stream ended after {read} bytes");
            for &byte in &buffer[..count] {
                assert_eq!(byte, byte_at(read), "at {read}");
                read += 1;
            }
        }
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
}

fn connections_under_all_harmless_faults_are_all_accepted() {
    let mut random = Random::new();
    let mut driver = with(Faults::harmless(random.next()));
    let path = format!("/tmp/ringloop-faults-{}", std::process::id());
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let ours = Descriptor::from(OwnedFd::from(listener));
    let key = driver.accept_multishot(&ours, TOKEN);
    for number in 0..500_u16 {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.write_all(&number.to_ne_bytes()).unwrap();
        let connection = accepted(driver.next_of(key));
        let recv = driver.recv(&connection, &Account::new(), TOKEN);
        assert_eq!(received(driver.next_of(recv)), number.to_ne_bytes());
    }
    driver.retire(key);
    std::fs::remove_file(&path).unwrap();
    drop(ours);
    driver.finish();
}

fn a_short_send_takes_what_it_says() {
    let mut driver = with(Faults { seed: 1, short_sends: 1000, ..Faults::default() });
    let (ours, theirs) = unix_pair();
    for chunks in [1, 2, 5] {
        let mut queue = SendQueue::new();
        (0..chunks).for_each(|chunk| queue.push(vec![chunk; 300].into()));
        let mut calls = 0;
        while !queue.is_empty() {
            let before = queue.len();
            let key = driver.send(&ours, queue, false, TOKEN);
            let (count, rest) = sent(driver.next_of(key));
            assert!(count < before || before == 1);
            queue = rest;
            calls += 1;
        }
        assert!(calls > 1);
        let got = read_exact(&theirs, usize::from(chunks) * 300);
        let expected: Vec<u8> = (0..chunks).flat_map(|chunk| vec![chunk; 300]).collect();
        assert_eq!(got, expected);
    }
    drop((ours, theirs));
    driver.finish();
}

fn a_receive_in_two_parts_is_one_lease() {
    let mut driver = with(Faults { seed: 1, short_receives: 1000, ..Faults::default() });
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    write_all(&theirs, b"hello");
    let (first, second) = (driver.next_of(key), driver.next_of(key));
    assert!(first.more && second.more);
    let (first, second) = (received(first), received(second));
    assert_eq!([&*first, &*second].concat(), b"hello");
    assert!(!first.is_empty() && !second.is_empty());
    assert_eq!(driver.counters().leased, 1);
    drop((first, second));
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn an_interrupted_op_is_armed_again_unseen() {
    let mut driver = with(Faults { seed: 1, interrupted: 500, ..Faults::default() });
    for _ in 0..50 {
        let (ours, theirs) = unix_pair();
        write_all(&theirs, b"x");
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        assert_eq!(received(driver.next_of(key)), b"x");
        let key = driver.send(&ours, queue_of(b"y".as_slice()), false, TOKEN);
        assert_eq!(sent(driver.next_of(key)).0, 1);
    }
    let counts = driver.fault_counts();
    assert!(counts.interrupted > 20 && counts.interrupted_waits > 0, "{counts:?}");
    driver.finish();
}

fn a_receive_without_buffer_goes_on() {
    let mut driver = with(Faults { seed: 1, no_buffers: 500, ..Faults::default() });
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    for _ in 0..10 {
        write_all(&theirs, b"x");
        assert_eq!(received(driver.next_of(key)), b"x");
    }
    driver.retire(key);
    for _ in 0..50 {
        write_all(&theirs, b"x");
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        assert_eq!(received(driver.next_of(key)), b"x");
    }
    assert!(driver.fault_counts().no_buffers > 10);
    assert_eq!(driver.counters().enobufs, driver.fault_counts().no_buffers);
    drop((ours, theirs));
    driver.finish();
}

fn an_error_consumes_nothing() {
    let mut driver = with(Faults { seed: 1, errors: 1000, ..Faults::default() });
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"still there");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::ECONNRESET));
    let key = driver.send(&ours, queue_of(b"not sent".as_slice()), false, TOKEN);
    let completion = driver.next_of(key);
    assert_eq!(errno(&completion), Some(libc::ECONNRESET));
    let Outcome::Sent(_, queue) = completion.outcome else { panic!() };
    assert_eq!(queue.len(), 8);
    let key = driver.poll(&ours, Interest { read: true, write: false }, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), None, "a poll has no error of its own");
    assert_eq!(read_exact(UnixStream::from(ours.into_owned().unwrap()), 11), b"still there");
    drop((theirs, queue));
    driver.finish();
}

fn a_late_cancel_comes_in_the_end() {
    let mut driver = with(Faults { seed: 1, late_cancels: 1000, ..Faults::default() });
    let (ours, theirs) = unix_pair();
    let mut late = 0;
    for _ in 0..20 {
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        driver.cancel(key);
        let mut waits = 0;
        let completion = loop {
            driver.wait(Wait::Forever).unwrap();
            waits += 1;
            if let Some(completion) = driver.next_completion() {
                break completion;
            }
        };
        assert_eq!(errno(&completion), Some(libc::ECANCELED));
        late = late.max(waits);
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        assert_eq!(driver.retire(key).len(), 1, "retire waits for it");
    }
    assert!(late > 3);
    drop((ours, theirs));
    driver.finish();
}

fn reordered_completions_of_one_op_keep_their_order() {
    let mut driver = with(Faults { seed: 1, reordered: 300, ..Faults::default() });
    let pairs: Vec<_> = (0..20).map(|_| unix_pair()).collect();
    let keys: Vec<_> = (0..)
        .zip(&pairs)
        .map(|(token, (ours, _))| driver.recv_multishot(ours, &Account::new(), Token(token)))
        .collect();
    let mut order = Vec::new();
    let mut next: BTreeMap<u64, u8> = BTreeMap::new();
    for number in 0..50_u8 {
        pairs.iter().for_each(|(_, theirs)| write_all(theirs, &[number]));
        driver.wait(Wait::Now).unwrap();
        while let Some(completion) = driver.next_completion() {
            let token = completion.token.0;
            order.push(token);
            for &byte in &*received(completion) {
                let expected = next.entry(token).or_default();
                assert_eq!(byte, *expected, "of {token}");
                *expected += 1;
            }
        }
    }
    while next.values().any(|&next| next < 50) || next.len() < 20 {
        let completion = driver.next();
        let next = next.entry(completion.token.0).or_default();
        for &byte in &*received(completion) {
            assert_eq!(byte, *next);
            *next += 1;
        }
    }
    assert!(order.windows(2).any(|pair| pair[1] < pair[0] && pair[1] != 0), "no order was changed");
    keys.into_iter().for_each(|key| drop(driver.retire(key)));
    drop(pairs);
    driver.finish();
}

fn the_same_seed_gives_the_same_faults() {
    let run = |seed| {
        let mut driver = with(Faults::harmless(seed));
        let (ours, theirs) = unix_pair();
        for _ in 0..100 {
            write_all(&theirs, b"hello");
            let key = driver.recv(&ours, &Account::new(), TOKEN);
            drop(driver.next_of(key));
        }
        let counts = driver.fault_counts();
        drop((ours, theirs));
        driver.finish();
        counts
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

fn without_faults_nothing_is_counted() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    driver.next_of(key);
    assert_eq!(driver.fault_counts(), FaultCounts::default());
    drop((ours, theirs));
    driver.finish();
}
