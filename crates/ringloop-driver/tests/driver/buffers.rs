//! Leases of received bytes, and what happens when buffers run out.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use ringloop_driver::{
    Account, Chunk, Descriptor, Driver, DriverConfig, OpKey, Received, SendBuffer, SendQueue,
    Token, Wait,
};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, datagram, errno, is_linux_6_1, queue_of, read_exact, received, sent,
    unix_pair, write_all,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_lease_is_the_kernels_buffer_and_its_last_clone_returns_it,
    slices_and_splits_of_a_lease_share_its_buffer,
    a_slice_outside_of_the_bytes_panics_as_indexing_does_and_get_gives_none,
    bytes_of_a_lease_go_to_another_thread_and_their_buffer_comes_back,
    a_loop_that_needs_a_buffer_goes_on_while_another_thread_drops_one,
    a_lease_that_is_sent_on_goes_out_without_a_copy,
    leases_and_bytes_outlive_the_driver,
    a_lease_that_outlives_its_driver_is_returned_to_no_later_one,
    an_idle_connection_that_is_armed_while_there_is_no_buffer_gets_its_later_bytes,
    an_idle_connection_that_waits_for_a_buffer_can_be_cancelled_and_dropped,
    receives_that_starve_are_fed_in_the_order_in_which_they_did,
    a_starved_receive_that_is_cancelled_ends_with_ecanceled,
    a_starved_receive_goes_on_with_memory_of_its_own_when_nobody_returns_a_buffer,
    over_its_account_a_connection_gets_copies_and_lends_again_when_it_is_under,
    an_account_holds_an_eighth_of_a_small_group_and_one_buffer_at_least,
    an_account_holds_256_kib_of_a_large_group,
    a_one_shot_receive_over_its_account_takes_no_buffer,
    a_connection_that_keeps_many_leases_leaves_buffers_for_the_others,
    a_second_group_comes_under_pressure_and_goes_after_it,
    a_receive_that_is_armed_on_a_group_that_went_is_armed_on_another,
    no_more_groups_than_configured,
    bytes_are_exactly_those_that_the_kernel_wrote,
    every_buffer_of_a_group_is_used_and_comes_back,
    datagrams_have_a_group_of_their_own_and_go_on_without_it,
    small_owned_chunks_are_copied_and_large_ones_are_not,
    a_queue_that_is_appended_to_another_keeps_its_rest,
    a_queue_knows_whether_dropping_it_runs_code_of_others,
];

fn small(buffers: u16) -> DriverConfig {
    DriverConfig { buffers, buffer_size: 64, groups: 1, ..DriverConfig::default() }
}

struct Connection {
    key: OpKey,
    account: Account,
    ours: Descriptor,
    theirs: UnixStream,
}

fn connection(driver: &mut Driver, token: u64) -> Connection {
    let (ours, theirs) = unix_pair();
    let account = Account::new();
    let key = driver.recv_multishot(&ours, &account, Token(token));
    Connection { key, account, ours, theirs }
}

fn end(driver: &mut TestDriver, connections: impl IntoIterator<Item = Connection>) {
    for Connection { key, account, ours, theirs } in connections {
        driver.retire(key);
        assert_eq!(account.bytes(), 0);
        drop((ours, theirs));
    }
}

/// Sends `message` to the driver and gives what it receives.
fn exchange(driver: &mut TestDriver, connection: &Connection, message: &[u8]) -> Received {
    write_all(&connection.theirs, message);
    let bytes = received(driver.next_of(connection.key));
    assert_eq!(bytes, *message);
    bytes
}

fn a_lease_is_the_kernels_buffer_and_its_last_clone_returns_it() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let first = exchange(&mut driver, &connection, b"hello");
    assert!(!first.is_copy());
    let clone = first.clone();
    assert_eq!(first.as_ptr(), clone.as_ptr());
    assert_eq!((driver.counters().leased, connection.account.bytes()), (1, 16 * 1024));
    drop(first);
    assert_eq!(driver.counters().leased, 1);
    drop(clone);
    assert_eq!((driver.counters().leased, connection.account.bytes()), (0, 0));
    end(&mut driver, [connection]);
    driver.finish();
}

fn slices_and_splits_of_a_lease_share_its_buffer() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let mut rest = exchange(&mut driver, &connection, b"GET / HTTP/1.1");
    let start = rest.as_ptr();
    let method = rest.slice(..3);
    let path = rest.get(4..=4).unwrap();
    let split = rest.split_to(6);
    assert_eq!(
        (&*method, &*path, &*split, &*rest),
        (&b"GET"[..], &b"/"[..], &b"GET / "[..], &b"HTTP/1.1"[..])
    );
    assert_eq!((method.as_ptr(), rest.as_ptr()), (start, start.wrapping_add(6)));
    rest.advance(5);
    rest.truncate(1);
    assert_eq!(rest, b"1");
    rest.advance(100);
    assert!(rest.is_empty());
    drop((rest, split, path));
    assert_eq!(driver.counters().leased, 1);
    drop(method);
    assert_eq!(driver.counters().leased, 0);
    end(&mut driver, [connection]);
    driver.finish();
}

fn a_slice_outside_of_the_bytes_panics_as_indexing_does_and_get_gives_none() {
    let bytes = Received::from(b"four".as_slice());
    assert_eq!(bytes.get(2..5), None);
    assert_eq!(bytes.get(std::ops::Range { start: 3, end: 2 }), None);
    assert_eq!(bytes.get(..).unwrap(), b"four");
    assert_eq!(bytes.get(4..).unwrap(), b"");
    std::panic::catch_unwind(|| Received::from(b"four".as_slice()).slice(5..)).unwrap_err();
}

fn bytes_of_a_lease_go_to_another_thread_and_their_buffer_comes_back() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &connection, b"hello there");
    let start = lease.as_ptr() as usize;
    let bytes = lease.slice(6..).into_bytes();
    drop(lease);
    let back = thread::spawn(move || {
        assert_eq!(bytes.as_ptr() as usize, start + 6, "no copy");
        let part = bytes.slice(..2);
        drop(bytes);
        assert_eq!(&*part, b"th");
        part
    });
    let part = back.join().unwrap();
    driver.wait(Wait::Now).unwrap();
    assert_eq!(driver.counters().leased, 1);
    drop(part);
    driver.wait(Wait::Now).unwrap();
    assert_eq!(driver.counters().leased, 0);
    end(&mut driver, [connection]);
    driver.finish();
}

fn a_loop_that_needs_a_buffer_goes_on_while_another_thread_drops_one() {
    let mut driver = TestDriver::with(&small(1));
    let hoarder = connection(&mut driver, 0);
    let other = connection(&mut driver, 1);
    let bytes = exchange(&mut driver, &hoarder, b"kept").into_bytes();
    let (give, take) = channel::<Bytes>();
    let dropper = thread::spawn(move || take.into_iter().for_each(drop));
    give.send(bytes).unwrap();
    write_all(&other.theirs, b"hungry");
    // With the returned buffer, or with memory of its own: it does not sleep for ever.
    assert_eq!(received(driver.next_of(other.key)), b"hungry");
    drop(give);
    dropper.join().unwrap();
    driver.wait(Wait::Now).unwrap();
    end(&mut driver, [hoarder, other]);
    driver.finish();
}

fn a_lease_that_is_sent_on_goes_out_without_a_copy() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &connection, b"echo");
    let key = driver.send(&connection.ours, queue_of(lease), false, TOKEN);
    assert_eq!(driver.counters().leased, 1, "the op has it");
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, driver.counters().leased), (4, 0));
    assert_eq!(read_exact(&connection.theirs, 4), b"echo");
    drop(queue);
    end(&mut driver, [connection]);
    driver.finish();
}

fn leases_and_bytes_outlive_the_driver() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &connection, b"lease");
    let bytes = exchange(&mut driver, &connection, b"bytes").into_bytes();
    driver.retire(connection.key);
    drop(driver.into_driver());
    let clone = lease.clone();
    drop(lease);
    assert_eq!(clone, b"lease");
    assert_eq!(clone.into_bytes(), b"lease"[..]);
    thread::spawn(move || assert_eq!(&*bytes, b"bytes")).join().unwrap();
}

fn a_lease_that_outlives_its_driver_is_returned_to_no_later_one() {
    let mut driver = TestDriver::with(&small(2));
    let connection_of_first = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &connection_of_first, b"kept by the program");
    driver.retire(connection_of_first.key);
    drop(driver.into_driver());
    let mut driver = TestDriver::with(&small(2));
    let connection = connection(&mut driver, 0);
    for _ in 0..10 {
        drop(exchange(&mut driver, &connection, b"others"));
    }
    assert_eq!(lease, b"kept by the program");
    drop(lease);
    let held: Vec<_> = (0..2).map(|_| exchange(&mut driver, &connection, b"others")).collect();
    assert!(held.iter().all(|bytes| bytes == b"others"));
    drop(held);
    end(&mut driver, [connection]);
    driver.finish();
}

fn an_idle_connection_that_is_armed_while_there_is_no_buffer_gets_its_later_bytes() {
    let mut driver = TestDriver::with(&small(1));
    let hoarder = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &hoarder, b"all there is");
    let idle: Vec<_> = (1..20).map(|token| connection(&mut driver, token)).collect();
    assert!(driver.all_ready().is_empty());
    // Armed again, and answered once.
    driver.wait(Wait::Now).unwrap();
    let quiet = driver.counters();
    for _ in 0..10 {
        driver.wait(Wait::Now).unwrap();
    }
    if driver.is_ring() {
        assert_eq!(driver.counters().rounds, quiet.rounds, "they wait without a call");
    }
    assert_eq!(driver.counters().completed, quiet.completed, "and without a completion");
    let (lent, waiting) = idle.split_at(10);
    for connection in waiting {
        assert!(exchange(&mut driver, connection, b"x").is_copy());
    }
    drop(lease);
    for connection in lent {
        assert!(!exchange(&mut driver, connection, b"x").is_copy());
    }
    end(&mut driver, idle);
    end(&mut driver, [hoarder]);
    driver.finish();
}

fn an_idle_connection_that_waits_for_a_buffer_can_be_cancelled_and_dropped() {
    let mut driver = TestDriver::with(&small(1));
    let hoarder = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &hoarder, b"all there is");
    let idle = [connection(&mut driver, 1), connection(&mut driver, 2)];
    assert!(driver.all_ready().is_empty());
    for connection in &idle {
        // With nothing there, and with something.
        driver.cancel(connection.key);
        let completion = driver.next_of(connection.key);
        assert_eq!((errno(&completion), completion.more), (Some(libc::ECANCELED), false));
        write_all(&connection.theirs, b"left in the socket");
    }
    let last = connection(&mut driver, 3);
    assert!(driver.all_ready().is_empty());
    write_all(&last.theirs, b"too late");
    drop((lease, idle, hoarder, last));
    driver.finish_with_ops_in_flight();
}

fn receives_that_starve_are_fed_in_the_order_in_which_they_did() {
    let mut driver = TestDriver::with(&small(2));
    let hoarder = connection(&mut driver, 0);
    let mut held: VecDeque<_> = (0..2).map(|_| exchange(&mut driver, &hoarder, b"held")).collect();
    assert!(held.iter().any(|lease| !lease.is_copy()));
    let hungry: Vec<_> = (1..=6).map(|token| connection(&mut driver, token)).collect();
    assert!(driver.ready_now().is_empty());
    // In another order than that of their keys.
    let order = [3, 0, 5, 1, 4, 2];
    for index in order {
        write_all(&hungry[index].theirs, b"hungry");
        driver.submit().unwrap();
    }
    let mut tokens = Vec::new();
    while tokens.len() < order.len() {
        held.pop_front();
        let completion = driver.next();
        tokens.push(completion.token.0 as usize - 1);
        held.push_back(received(completion));
    }
    let in_reverse = "the kernel does deferred work in reverse, so that they starve in reverse";
    if driver.is_ring() && is_linux_6_1(in_reverse) {
        tokens.reverse();
    }
    assert_eq!(tokens, order);
    assert!(driver.counters().enobufs > 0);
    drop(held);
    end(&mut driver, hungry);
    end(&mut driver, [hoarder]);
    driver.finish();
}

fn a_starved_receive_that_is_cancelled_ends_with_ecanceled() {
    let mut driver = TestDriver::with(&small(1));
    let hoarder = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &hoarder, b"held");
    let hungry = connection(&mut driver, 1);
    driver.submit().unwrap();
    write_all(&hungry.theirs, b"left in the socket");
    driver.look(hungry.key).unwrap();
    assert!(driver.next_completion().is_none());
    assert!(driver.counters().enobufs > 0);
    driver.cancel(hungry.key);
    let completion = driver.next_of(hungry.key);
    assert_eq!((errno(&completion), completion.more), (Some(libc::ECANCELED), false));
    drop(lease);
    let key = driver.recv(&hungry.ours, &hungry.account, TOKEN);
    assert_eq!(received(driver.next_of(key)), b"left in the socket");
    end(&mut driver, [hungry, hoarder]);
    driver.finish();
}

fn a_starved_receive_goes_on_with_memory_of_its_own_when_nobody_returns_a_buffer() {
    let mut driver = TestDriver::with(&small(1));
    let hoarder = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &hoarder, b"never returned");
    let hungry = connection(&mut driver, 1);
    for _ in 0..5 {
        assert!(exchange(&mut driver, &hungry, b"hungry").is_copy());
    }
    assert_eq!(hungry.account.bytes(), 0);
    assert!(driver.counters().copied >= 5);
    drop(lease);
    for _ in 0..2 {
        assert!(!exchange(&mut driver, &hungry, b"lent again").is_copy());
    }
    end(&mut driver, [hungry, hoarder]);
    driver.finish();
}

fn over_its_account_a_connection_gets_copies_and_lends_again_when_it_is_under() {
    let mut driver = TestDriver::with(&small(32));
    let connection = connection(&mut driver, 0);
    let mut held = Vec::new();
    while !connection.account.is_over() {
        held.push(exchange(&mut driver, &connection, b"x"));
    }
    assert!(held.iter().all(|bytes| !bytes.is_copy()));
    assert_eq!((held.len(), connection.account.bytes()), (4, 4 * 64), "an eighth of 32 buffers");
    let copies: Vec<_> = (0..100).map(|_| exchange(&mut driver, &connection, b"y")).collect();
    assert!(copies.iter().all(Received::is_copy));
    assert_eq!((driver.counters().leased, driver.counters().copied), (4, 100));
    held.pop();
    let lent = exchange(&mut driver, &connection, b"z");
    assert!(!lent.is_copy());
    drop((held, copies, lent));
    end(&mut driver, [connection]);
    driver.finish();
}

fn an_account_holds_an_eighth_of_a_small_group_and_one_buffer_at_least() {
    for (buffers, most) in [(1, 1), (4, 1), (8, 1), (16, 2), (128, 16)] {
        let mut driver = TestDriver::with(&small(buffers));
        let connection = connection(&mut driver, 0);
        let mut held = Vec::new();
        while !connection.account.is_over() {
            held.push(exchange(&mut driver, &connection, b"x"));
        }
        assert_eq!(held.len(), most, "of {buffers} buffers");
        drop(held);
        end(&mut driver, [connection]);
        driver.finish();
    }
}

// spec: TRANS-24
fn an_account_holds_256_kib_of_a_large_group() {
    let mut driver = TestDriver::new();
    let connection = connection(&mut driver, 0);
    let mut held = Vec::new();
    while !connection.account.is_over() {
        held.push(exchange(&mut driver, &connection, b"x"));
    }
    assert_eq!(connection.account.bytes(), 256 * 1024);
    drop(held);
    end(&mut driver, [connection]);
    driver.finish();
}

fn a_one_shot_receive_over_its_account_takes_no_buffer() {
    let mut driver = TestDriver::with(&small(8));
    let connection = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &connection, b"all that it may hold");
    driver.retire(connection.key);
    write_all(&connection.theirs, &[7; 100]);
    for expected in [64, 36] {
        let key = driver.recv(&connection.ours, &connection.account, TOKEN);
        let bytes = received(driver.next_of(key));
        assert_eq!((bytes.len(), bytes.is_copy()), (expected, true));
    }
    assert_eq!(driver.counters().leased, 1);
    drop(lease);
    end(&mut driver, [connection]);
    driver.finish();
}

fn a_connection_that_keeps_many_leases_leaves_buffers_for_the_others() {
    let mut driver = TestDriver::with(&small(32));
    let hoarder = connection(&mut driver, 0);
    let others: Vec<_> = (1..=20).map(|token| connection(&mut driver, token)).collect();
    let mut hoard = Vec::new();
    for _ in 0..50 {
        hoard.push(exchange(&mut driver, &hoarder, b"mine"));
        for other in &others {
            let bytes = exchange(&mut driver, other, b"x");
            assert!(!bytes.is_copy());
        }
    }
    assert_eq!(driver.counters().enobufs, 0);
    assert_eq!(driver.counters().leased, 4, "an eighth of the group");
    drop(hoard);
    end(&mut driver, others);
    end(&mut driver, [hoarder]);
    driver.finish();
}

fn a_second_group_comes_under_pressure_and_goes_after_it() {
    let mut driver = TestDriver::with(&DriverConfig { groups: 2, ..small(8) });
    let connections: Vec<_> = (0..12).map(|token| connection(&mut driver, token)).collect();
    let mut held = Vec::new();
    for connection in &connections {
        held.push(exchange(&mut driver, connection, b"held"));
    }
    assert!(held.iter().all(|bytes| !bytes.is_copy()));
    assert_eq!((driver.counters().groups, driver.counters().leased), (2, 12));
    drop(held);
    driver.wait(Wait::Now).unwrap();
    assert_eq!((driver.counters().groups, driver.counters().leased), (1, 0));
    for connection in &connections {
        assert!(!exchange(&mut driver, connection, b"again").is_copy());
    }
    end(&mut driver, connections);
    driver.finish();
}

fn a_receive_that_is_armed_on_a_group_that_went_is_armed_on_another() {
    let mut driver = TestDriver::with(&DriverConfig { groups: 2, ..small(1) });
    let hoarder = connection(&mut driver, 0);
    let lease = exchange(&mut driver, &hoarder, b"first group");
    let hungry = connection(&mut driver, 1);
    drop(exchange(&mut driver, &hungry, b"second group"));
    drop(lease);
    assert!(driver.all_ready().is_empty());
    driver.wait(Wait::Now).unwrap();
    assert_eq!(driver.counters().groups, 1);
    for _ in 0..3 {
        assert!(!exchange(&mut driver, &hungry, b"first group").is_copy());
    }
    end(&mut driver, [hoarder, hungry]);
    driver.finish();
}

fn no_more_groups_than_configured() {
    let mut driver = TestDriver::with(&DriverConfig { groups: 3, ..small(2) });
    let connections: Vec<_> = (0..12).map(|token| connection(&mut driver, token)).collect();
    let held: Vec<_> =
        connections.iter().map(|connection| exchange(&mut driver, connection, b"held")).collect();
    assert_eq!(held.iter().filter(|bytes| !bytes.is_copy()).count(), 6);
    assert_eq!(driver.counters().groups, 3);
    drop(held);
    for _ in 0..2 {
        driver.wait(Wait::Now).unwrap();
    }
    assert_eq!(driver.counters().groups, 1);
    end(&mut driver, connections);
    driver.finish();
}

fn bytes_are_exactly_those_that_the_kernel_wrote() {
    let mut driver = TestDriver::with(&small(1));
    let connection = connection(&mut driver, 0);
    drop(exchange(&mut driver, &connection, &[b's'; 64]));
    let bytes = exchange(&mut driver, &connection, b"short");
    assert_eq!(bytes.len(), 5, "what was in the buffer before is out of reach");
    assert_eq!(bytes.get(..6), None);
    drop(bytes);
    end(&mut driver, [connection]);
    driver.finish();
}

fn every_buffer_of_a_group_is_used_and_comes_back() {
    let mut driver = TestDriver::with(&small(16));
    let connections: Vec<_> = (0..16).map(|token| connection(&mut driver, token)).collect();
    for _ in 0..300 {
        let held: Vec<_> =
            connections.iter().map(|connection| exchange(&mut driver, connection, b"x")).collect();
        let mut places: Vec<_> = held.iter().map(|bytes| bytes.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!((places.len(), driver.counters().leased), (16, 16), "no two have one buffer");
    }
    assert_eq!(driver.counters().copied, 0);
    let starved = driver.counters().enobufs;
    assert!(starved == 0 || is_linux_6_1("a receive asks for a buffer before it looks for bytes"));
    end(&mut driver, connections);
    driver.finish();
}

fn datagrams_have_a_group_of_their_own_and_go_on_without_it() {
    let mut driver = TestDriver::with(&small(1));
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let ours = Descriptor::from(std::os::fd::OwnedFd::from(ours));
    let accounts: Vec<_> = (0..20).map(|_| Account::new()).collect();
    let mut held = Vec::new();
    // Each account holds some, until all buffers of the group are lent.
    for account in &accounts {
        let key = driver.recv_from_multishot(&ours, account, TOKEN);
        for _ in 0..5 {
            theirs.send(b"whole").unwrap();
            let found = datagram(driver.next_of(key));
            assert_eq!((&*found.data(), found.is_truncated()), (&b"whole"[..], false));
            held.push(found.into_data());
        }
        driver.retire(key);
    }
    assert_eq!(driver.counters().leased, 32);
    assert!(driver.counters().enobufs > 0);
    drop(held);
    let key = driver.recv_from_multishot(&ours, &accounts[0], TOKEN);
    theirs.send(b"lent").unwrap();
    assert!(!datagram(driver.next_of(key)).data().is_copy());
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn small_owned_chunks_are_copied_and_large_ones_are_not() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut queue = SendQueue::new();
    let large = vec![b'l'; 1000];
    queue.push(Chunk::from(b"borrowed ".as_slice()));
    queue.push(Chunk::from(b"small ".to_vec()));
    queue.push(large.into());
    queue.push(filled(b'f').into());
    queue.push("text".into());
    queue.push(Chunk::from(b"".as_slice()));
    assert_eq!(queue.len(), 9 + 6 + 1000 + 1000 + 4);
    assert_eq!(format!("{queue:?}"), "SendQueue(2019 bytes in 3 chunks)");
    let key = driver.send(&ours, queue, false, TOKEN);
    let (count, _) = sent(driver.next_of(key));
    let got = read_exact(&theirs, count);
    assert!(got.starts_with(b"borrowed small l") && got.ends_with(b"ftext"));
    drop((ours, theirs));
    driver.finish();
}

fn filled(byte: u8) -> SendBuffer {
    let mut buffer = SendBuffer::new();
    buffer.resize(1000, byte);
    buffer
}

// spec: WRITE-05
fn a_queue_that_is_appended_to_another_keeps_its_rest() {
    for chunk in [
        Chunk::from(vec![b'o'; 1000]),
        Chunk::from(filled(b'o')),
        Chunk::from(Bytes::from(vec![b'o'; 1000])),
        Chunk::from(Received::from(vec![b'o'; 1000])),
        Chunk::Borrowed(&[b'o'; 1000]),
    ] {
        let mut driver = TestDriver::new();
        let (ours, theirs) = unix_pair();
        let mut front = queue_of(b"front".as_slice());
        let mut other = SendQueue::new();
        other.push(chunk);
        other.push(b"end".into());
        other.advance(998);
        front.append(&mut other);
        front.append(&mut SendQueue::new());
        other.append(&mut front);
        assert_eq!((front.len(), other.len()), (0, 10));
        other.advance(2);
        let key = driver.send(&ours, other, false, TOKEN);
        sent(driver.next_of(key));
        assert_eq!(read_exact(&theirs, 8), b"ontooend");
        drop((ours, theirs));
        driver.finish();
    }
}

fn a_queue_knows_whether_dropping_it_runs_code_of_others() {
    let mut queue = SendQueue::new();
    queue.push(vec![0; 1000].into());
    queue.push(b"borrowed".into());
    queue.push(Received::default().into());
    assert!(!queue.has_foreign());
    queue.push(Bytes::from_static(b"shared").into());
    assert!(queue.has_foreign());
    queue.advance(1000 + 8);
    assert!(queue.has_foreign());
    queue.advance(5);
    assert!(queue.has_foreign());
    queue.advance(1);
    assert!(!queue.has_foreign() && queue.is_empty());
    queue.push(Bytes::from_static(b"shared").into());
    queue.clear();
    assert!(!queue.has_foreign());
}
