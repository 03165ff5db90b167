//! What epoll could do wrong and a ring could not: registrations that outlive their descriptor, events that nobody wants, calls
//! that would wait. A driver of epoll, whichever the other tests have.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use ringloop_driver::testing::Faults;
use ringloop_driver::{
    Account, Descriptor, Driver, DriverChoice, DriverConfig, Interest, OpKey, Outcome, SendStarted,
    Token, Wait,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, accepted, datagram, errno, fill, polled, queue_of, read_exact, received,
    ring_counters, sent, unix_pair, write_all,
};
use crate::sys::{in_forked_child, let_sigpipe_kill, pipe, replace_file};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_descriptor_that_is_closed_is_not_reported_though_a_duplicate_of_it_lives,
    a_descriptor_that_is_given_away_is_not_reported_any_more,
    a_number_that_is_used_again_has_the_events_of_its_new_file_only,
    a_file_that_was_replaced_under_its_number_makes_nothing_ready_that_has_the_number_later,
    a_descriptor_may_be_used_by_two_drivers_and_by_a_later_one,
    a_broken_connection_that_nobody_receives_from_does_not_spin,
    bytes_that_nobody_receives_do_not_spin,
    room_that_nobody_waits_for_does_not_spin,
    a_receive_and_a_send_wait_on_one_descriptor_at_once,
    a_receive_that_goes_on_after_a_pause_finds_what_came_meanwhile,
    an_accept_on_a_blocking_listener_does_not_block_and_leaves_it_blocking,
    a_connect_of_a_blocking_socket_does_not_block_and_leaves_it_blocking,
    a_connect_to_a_full_unix_backlog_waits_for_room_and_can_be_cancelled,
    a_read_of_an_empty_pipe_that_blocks_does_not_block,
    a_write_to_a_full_pipe_that_blocks_does_not_block,
    a_regular_file_is_read_and_written_and_always_ready,
    those_that_find_no_buffer_are_cancelled_retired_and_dropped,
    more_streams_than_buffers_are_echoed_and_none_looks_for_a_buffer_in_vain,
    many_connections_of_one_listener_come_in_several_iterations,
    many_datagrams_of_one_socket_come_in_several_iterations_and_none_starves,
    a_sandbox_without_epoll_pwait2_waits_as_long,
    a_child_of_a_fork_changes_no_registration,
    only_a_ring_counts_what_becomes_of_its_queues,
    a_send_that_may_be_a_call_has_come_before_anything_is_submitted,
    a_send_that_may_be_a_call_is_short_where_there_is_little_room_and_says_so_where_there_is_none,
    a_send_that_may_be_a_call_to_a_peer_that_is_gone_fails_and_raises_no_signal,
    a_send_that_may_be_a_call_is_none_in_a_forked_child,
    a_send_that_may_be_a_call_is_an_op_where_faults_happen_to_ops,
];

fn epoll() -> DriverConfig {
    DriverConfig { driver: DriverChoice::Epoll, ..DriverConfig::default() }
}

const READ: Interest = Interest { read: true, write: false };
const WRITE: Interest = Interest { read: false, write: true };

/// A wait that nothing ends but its own deadline; an event that comes again and again would be a call each.
fn assert_sleeps(driver: &mut TestDriver) {
    let before = driver.counters();
    let end = Instant::now() + Duration::from_millis(30);
    while Instant::now() < end {
        driver.wait(Wait::Until(end)).unwrap();
        assert!(driver.next_completion().is_none());
    }
    let rounds = driver.counters().rounds - before.rounds;
    assert!(rounds <= 2, "{rounds} calls while nothing happens");
}

fn a_descriptor_that_is_closed_is_not_reported_though_a_duplicate_of_it_lives() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let duplicate = ours.as_fd().try_clone_to_owned().unwrap();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.retire(key);
    drop(ours);
    write_all(&theirs, b"for the duplicate");
    assert_sleeps(&mut driver);
    drop((theirs, duplicate));
    driver.finish();
}

fn a_descriptor_that_is_given_away_is_not_reported_any_more() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.retire(key);
    let owned = ours.into_owned().unwrap();
    write_all(&theirs, b"for its new owner");
    assert_sleeps(&mut driver);
    // And it may come back.
    let ours = Descriptor::from(owned);
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"for its new owner");
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn a_number_that_is_used_again_has_the_events_of_its_new_file_only() {
    let mut driver = TestDriver::with(&epoll());
    let mut numbers = Vec::new();
    for round in 0..20_u8 {
        let (ours, theirs) = unix_pair();
        numbers.push(ours.as_raw_fd());
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        assert!(driver.ready_now().is_empty(), "round {round}");
        write_all(&theirs, &[round]);
        assert_eq!(received(driver.next_of(key)), [round]);
        driver.retire(key);
        write_all(&theirs, b"too late");
        driver.close(ours);
        driver.submit().unwrap();
    }
    assert!(numbers.iter().all(|&number| number == numbers[0]), "{numbers:?}");
    driver.finish();
}

fn a_file_that_was_replaced_under_its_number_makes_nothing_ready_that_has_the_number_later() {
    let mut driver = TestDriver::with(&epoll());
    let (old, its_peer) = unix_pair();
    let number = old.as_raw_fd();
    let duplicate = old.as_fd().try_clone_to_owned().unwrap();
    let key = driver.recv_multishot(&old, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.retire(key);
    // Epoll goes on to report the old file, and cannot be told not to: nothing has its number any more.
    replace_file(&old, &its_peer);
    drop(old);
    write_all(&its_peer, b"for the duplicate");
    let (new, peer) = unix_pair();
    assert_eq!(new.as_raw_fd(), number);
    let key = driver.poll(&new, READ, TOKEN);
    for _ in 0..3 {
        assert!(driver.ready_now().is_empty(), "there is nothing in the new file");
    }
    write_all(&peer, b"x");
    assert!(polled(driver.next_of(key)).read);
    drop((duplicate, its_peer, new, peer));
    driver.finish();
}

fn a_descriptor_may_be_used_by_two_drivers_and_by_a_later_one() {
    let mut first = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let receive = first.recv_multishot(&ours, &Account::new(), TOKEN);
    assert!(first.ready_now().is_empty());
    for round in 0..2 {
        let mut other = Driver::new(&epoll()).unwrap();
        let key = other.poll(&ours, WRITE, TOKEN);
        other.wait(Wait::Forever).unwrap();
        let completion = other.next_completion().unwrap();
        assert_eq!((completion.key, polled(completion).write), (key, true));
        drop(other);
        write_all(&theirs, &[round]);
        assert_eq!(received(first.next_of(receive)), [round]);
    }
    first.retire(receive);
    drop((ours, theirs));
    first.finish();
}

// spec: RISK-42
fn a_broken_connection_that_nobody_receives_from_does_not_spin() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.retire(key);
    drop(theirs);
    assert_sleeps(&mut driver);
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let completion = driver.next_of(key);
    assert!(!completion.more && received(completion).is_empty());
    assert_sleeps(&mut driver);
    drop(ours);
    driver.finish();
}

fn bytes_that_nobody_receives_do_not_spin() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let (busy, peer) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let other = driver.recv_multishot(&busy, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    driver.retire(key);
    write_all(&theirs, b"left");
    // Also beside one that is busy.
    for _ in 0..10 {
        write_all(&peer, b"x");
        assert_eq!(received(driver.next_of(other)), b"x");
    }
    assert_sleeps(&mut driver);
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"left");
    driver.retire(other);
    drop((ours, theirs, busy, peer));
    driver.finish();
}

fn room_that_nobody_waits_for_does_not_spin() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let poll = driver.poll(&ours, WRITE, TOKEN);
    assert!(polled(driver.next_of(poll)).write);
    assert_sleeps(&mut driver);
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(key)), b"x");
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn a_receive_and_a_send_wait_on_one_descriptor_at_once() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let blocked = std::os::unix::net::UnixStream::from(ours.as_fd().try_clone_to_owned().unwrap());
    blocked.set_nonblocking(true).unwrap();
    let filled = fill(&blocked);
    let receive = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let send = driver.send(&ours, queue_of(b"at last".as_slice()), false, Token(1));
    assert!(driver.ready_now().is_empty());
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(receive)), b"x");
    let mut theirs = theirs;
    theirs.read_exact(&mut vec![0; filled]).unwrap();
    assert_eq!(sent(driver.next_of(send)).0, 7);
    driver.retire(receive);
    drop((ours, theirs, blocked));
    driver.finish();
}

fn a_receive_that_goes_on_after_a_pause_finds_what_came_meanwhile() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    for round in 0..10_u8 {
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        if round > 0 {
            assert_eq!(received(driver.next_of(key)), [round - 1]);
        }
        driver.retire(key);
        write_all(&theirs, &[round]);
        // Long enough that it is asked for no more.
        (0..round).for_each(|_| assert!(driver.ready_now().is_empty()));
    }
    drop((ours, theirs));
    driver.finish();
}

// spec: MAP-12
fn an_accept_on_a_blocking_listener_does_not_block_and_leaves_it_blocking() {
    let mut driver = TestDriver::with(&epoll());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let ours: Descriptor = OwnedFd::from(listener.try_clone().unwrap()).into();
    let keys = [driver.accept(&ours, TOKEN), driver.accept_multishot(&ours, TOKEN)];
    assert!(driver.ready_now().is_empty());
    let peers: Vec<_> =
        (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    for _ in &peers {
        drop(accepted(driver.next()));
    }
    keys.into_iter().for_each(|key| drop(driver.retire(key)));
    assert!(!socket2::SockRef::from(&ours).nonblocking().unwrap());
    drop((peers, ours, listener));
    driver.finish();
}

fn a_connect_of_a_blocking_socket_does_not_block_and_leaves_it_blocking() {
    let mut driver = TestDriver::with(&epoll());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    assert!(!socket.nonblocking().unwrap());
    let ours = Descriptor::from(socket);
    let key = driver.connect(&ours, &listener.local_addr().unwrap().into(), TOKEN);
    assert!(matches!(driver.next_of(key).outcome, Outcome::Connected(Ok(()))));
    assert!(!socket2::SockRef::from(&ours).nonblocking().unwrap());
    drop((ours, listener));
    driver.finish();
}

fn a_connect_to_a_full_unix_backlog_waits_for_room_and_can_be_cancelled() {
    let mut driver = TestDriver::with(&epoll());
    let path = std::env::temp_dir().join(format!("ringloop-backlog-{}", std::process::id()));
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(&path).unwrap();
    full.bind(&address).unwrap();
    full.listen(0).unwrap();
    let connect = |driver: &mut TestDriver| -> (Descriptor, OpKey) {
        let ours = Descriptor::from(Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
        let key = driver.connect(&ours, &address, TOKEN);
        (ours, key)
    };
    let (first, key) = connect(&mut driver);
    assert!(matches!(driver.next_of(key).outcome, Outcome::Connected(Ok(()))));
    let (second, waiting) = connect(&mut driver);
    let (third, cancelled) = connect(&mut driver);
    assert!(driver.ready_now().is_empty());
    // It is tried again every few milliseconds, and does not spin meanwhile.
    let (before, start) = (driver.counters().rounds, Instant::now());
    driver.wait(Wait::Until(start + Duration::from_millis(30))).unwrap();
    let (looks, time) = (driver.counters().rounds - before, start.elapsed());
    assert!(u128::from(looks) <= time.as_millis() / 5 + 2, "{looks} looks in {time:?}");
    driver.cancel(cancelled);
    assert_eq!(errno(&driver.next_of(cancelled)), Some(libc::ECANCELED));
    let listener = UnixListener::from(OwnedFd::from(full));
    drop(listener.accept().unwrap());
    assert!(matches!(driver.next_of(waiting).outcome, Outcome::Connected(Ok(()))));
    fs::remove_file(&path).unwrap();
    drop((first, second, third, listener));
    driver.finish();
}

fn a_read_of_an_empty_pipe_that_blocks_does_not_block() {
    let mut driver = TestDriver::with(&epoll());
    let (read, mut write) = pipe();
    let ours = Descriptor::from(OwnedFd::from(read));
    let keys = [
        driver.read(&ours, &Account::new(), TOKEN),
        driver.read_multishot(&ours, &Account::new(), TOKEN),
    ];
    assert!(driver.ready_now().is_empty());
    for _ in 0..2 {
        write.write_all(b"x").unwrap();
        assert_eq!(received(driver.next()), b"x");
    }
    keys.into_iter().for_each(|key| drop(driver.retire(key)));
    drop((ours, write));
    driver.finish();
}

fn a_write_to_a_full_pipe_that_blocks_does_not_block() {
    let mut driver = TestDriver::with(&epoll());
    let (mut read, write) = pipe();
    let ours = Descriptor::from(OwnedFd::from(write));
    let mut queue = queue_of(vec![7; 300_000]);
    let mut left = 300_000;
    while left > 0 {
        let key = driver.write(&ours, queue, false, TOKEN);
        let found = driver.look(key).unwrap();
        let completion = found.unwrap_or_else(|| {
            // It waits for room, of which there is some now.
            read.read_exact(&mut [0; 65_536]).unwrap();
            driver.next_of(key)
        });
        let (count, rest) = sent(completion);
        (left, queue) = (left - count, rest);
    }
    drop((ours, read, queue));
    driver.finish();
}

fn a_regular_file_is_read_and_written_and_always_ready() {
    let mut driver = TestDriver::with(&epoll());
    let path = std::env::temp_dir().join(format!("ringloop-file-{}", std::process::id()));
    let ours = Descriptor::from(OwnedFd::from(File::create(&path).unwrap()));
    let key = driver.write(&ours, queue_of(b"text".as_slice()), false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 4);
    let key = driver.poll(&ours, WRITE, TOKEN);
    assert!(polled(driver.next_of(key)).write);
    drop(ours);
    let ours = Descriptor::from(OwnedFd::from(File::open(&path).unwrap()));
    let key = driver.read_multishot(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"text");
    let completion = driver.next_of(key);
    assert!(!completion.more && received(completion).is_empty());
    let key = driver.poll(&ours, READ, TOKEN);
    assert!(polled(driver.next_of(key)).read);
    fs::remove_file(&path).unwrap();
    drop(ours);
    driver.finish();
}

// spec: TRANS-24 RISK-04
fn those_that_find_no_buffer_are_cancelled_retired_and_dropped() {
    let config = DriverConfig { buffers: 1, buffer_size: 64, groups: 1, ..epoll() };
    let mut driver = TestDriver::with(&config);
    let (hoarder, its_peer) = unix_pair();
    write_all(&its_peer, b"held");
    let key = driver.recv(&hoarder, &Account::new(), TOKEN);
    let held = received(driver.next_of(key));
    assert!(!held.is_copy());
    let streams: Vec<_> = (0..3)
        .map(|token| {
            let (ours, theirs) = unix_pair();
            let key = driver.recv_multishot(&ours, &Account::new(), Token(token));
            write_all(&theirs, b"hungry");
            (key, ours, theirs)
        })
        .collect();
    driver.wait(Wait::Now).unwrap();
    // Decodes what there is: each has found none.
    assert!(driver.peek(key).is_none());
    assert_eq!(driver.counters().enobufs, 3);
    driver.cancel(streams[0].0);
    assert_eq!(errno(&driver.next_of(streams[0].0)), Some(libc::ECANCELED));
    let retired = driver.retire(streams[1].0);
    assert_eq!(retired.len(), 1);
    assert_eq!(errno(&retired[0]), Some(libc::ECANCELED));
    // Nobody gives a buffer back, so the last one gets memory of its own.
    let copy = received(driver.next_of(streams[2].0));
    assert!(copy.is_copy() && copy == b"hungry");
    write_all(&streams[2].2, b"never seen");
    driver.wait(Wait::Now).unwrap();
    let peers: Vec<_> =
        streams.into_iter().map(|(_, ours, theirs)| (drop(ours), theirs).1).collect();
    drop((hoarder, its_peer));
    drop(driver.into_driver());
    assert!((&peers[2]).write(b"x").is_err(), "it is closed");
    assert_eq!(held, b"held");
}

// spec: TRANS-24
fn more_streams_than_buffers_are_echoed_and_none_looks_for_a_buffer_in_vain() {
    let mut driver = TestDriver::with(&DriverConfig { buffers: 32, ..epoll() });
    let streams: Vec<_> = (0..100)
        .map(|token| {
            let (ours, theirs) = unix_pair();
            let key = driver.recv_multishot(&ours, &Account::new(), Token(token));
            (key, ours, theirs)
        })
        .collect();
    for _ in 0..3 {
        streams.iter().for_each(|(_, _, theirs)| write_all(theirs, b"echo"));
        let mut left = streams.len();
        while left > 0 {
            driver.wait(Wait::Forever).unwrap();
            while let Some(completion) = driver.next_completion() {
                let (_, ours, _) = &streams[completion.token.0 as usize];
                match completion.outcome {
                    Outcome::Received(bytes) => {
                        let bytes = bytes.unwrap();
                        assert!(!bytes.is_copy());
                        driver.send(ours, queue_of(bytes), true, completion.token);
                    }
                    Outcome::Sent(count, _) => {
                        assert_eq!(count.unwrap(), 4);
                        left -= 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        streams.iter().for_each(|(_, _, theirs)| assert_eq!(read_exact(theirs, 4), b"echo"));
    }
    let counters = driver.counters();
    assert_eq!((counters.enobufs, counters.copied, counters.groups), (0, 0, 1));
    for (key, ours, _) in streams {
        driver.retire(key);
        drop(ours);
    }
    driver.finish();
}

fn many_connections_of_one_listener_come_in_several_iterations() {
    let mut driver = TestDriver::with(&epoll());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    socket2::SockRef::from(&listener).listen(512).unwrap();
    let address = listener.local_addr().unwrap();
    let peers: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
    let ours = Descriptor::from(OwnedFd::from(listener));
    let key = driver.accept_multishot(&ours, TOKEN);
    let mut count = 0;
    while count < peers.len() {
        let some = driver.ready_now();
        // Some when the op starts, and as many when it is ready.
        assert!((1..=256).contains(&some.len()), "{} at once", some.len());
        count += some.into_iter().map(accepted).count();
    }
    driver.retire(key);
    drop((peers, ours));
    driver.finish();
}

fn many_datagrams_of_one_socket_come_in_several_iterations_and_none_starves() {
    let mut driver = TestDriver::with(&epoll());
    let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    (0..100).for_each(|_| assert_eq!(theirs.send(b"x").unwrap(), 1));
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.recv_from_multishot(&ours, &Account::new(), TOKEN);
    let mut count = 0;
    while count < 100 {
        let some = driver.ready_now();
        assert!(some.len() <= 32, "{} at once", some.len());
        count += some.into_iter().map(datagram).count();
    }
    assert_eq!(driver.counters().enobufs, 0);
    driver.retire(key);
    drop((ours, theirs));
    driver.finish();
}

fn a_sandbox_without_epoll_pwait2_waits_as_long() {
    for refused in [libc::ENOSYS, libc::EPERM] {
        let status = in_forked_child(|| {
            let mut driver = TestDriver::with(&epoll());
            crate::sys::refuse_calls(&[libc::SYS_epoll_pwait2], refused);
            let (ours, theirs) = unix_pair();
            let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
            let end = Instant::now() + Duration::from_micros(2500);
            driver.wait(Wait::Until(end)).unwrap();
            assert!(Instant::now() >= end, "too early");
            write_all(&theirs, b"x");
            assert_eq!(received(driver.next_of(key)), b"x");
            driver.retire(key);
            drop((ours, theirs));
            driver.finish();
        });
        assert_eq!(status, 0);
    }
}

fn a_child_of_a_fork_changes_no_registration() {
    let mut driver = Some(TestDriver::with(&epoll()));
    let (ours, theirs) = unix_pair();
    let mut ours = Some(ours);
    let key = {
        let driver = driver.as_mut().unwrap();
        let key = driver.recv_multishot(ours.as_ref().unwrap(), &Account::new(), TOKEN);
        assert!(driver.ready_now().is_empty());
        key
    };
    let status = in_forked_child(|| {
        // Closes and drops its own copies, which are of the same file.
        drop(ours.take());
        driver.as_mut().unwrap().submit().unwrap_err();
        drop(driver.take().unwrap().into_driver());
    });
    assert_eq!(status, 0);
    let mut driver = driver.unwrap();
    let writer = thread::spawn(move || {
        write_all(&theirs, b"x");
        theirs
    });
    assert_eq!(received(driver.next_of(key)), b"x");
    driver.retire(key);
    drop((ours, writer.join().unwrap()));
    driver.finish();
}

/// What became of a send that was a call.
fn done(started: SendStarted) -> std::io::Result<usize> {
    match started {
        SendStarted::Done(result) => result,
        SendStarted::InFlight(key) => panic!("it is an op: {key:?}"),
    }
}

fn only_a_ring_counts_what_becomes_of_its_queues() {
    let driver = TestDriver::with(&epoll());
    assert_eq!(driver.counters().ring, None);
    driver.finish();
    let driver = TestDriver::of_ring();
    let entries = u64::from(driver.info().completion_entries);
    assert_eq!(ring_counters(&driver).completion_entries, entries);
    driver.finish();
}

fn a_send_that_may_be_a_call_has_come_before_anything_is_submitted() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    let mut queue = queue_of(b"copied ".as_slice());
    queue.push(vec![b'v'; 5000].into());
    let before = driver.counters();
    let result = done(driver.send_or_start(&ours, &mut queue, TOKEN));
    assert_eq!((result.unwrap(), queue.len()), (5007, 5007), "what was sent is still in it");
    assert!(read_exact(&theirs, 5007).starts_with(b"copied vvv"));
    let after = driver.counters();
    assert_eq!((after.in_flight, after.bytes_out - before.bytes_out), (0, 5007));
    assert_eq!((after.submitted - before.submitted, after.completed - before.completed), (1, 1));
    assert!(driver.ready_now().is_empty(), "no completion follows");
    drop((ours, theirs));
    driver.finish();
}

fn a_send_that_may_be_a_call_is_short_where_there_is_little_room_and_says_so_where_there_is_none() {
    let mut driver = TestDriver::with(&epoll());
    // A blocking socket: the call must not wait all the same.
    let (ours, theirs) = unix_pair();
    let mut queue = queue_of(vec![1; 8 << 20]);
    let mut count = done(driver.send_or_start(&ours, &mut queue, TOKEN)).unwrap();
    assert!(count > 0 && count < 8 << 20);
    queue.advance(count);
    let error = loop {
        match done(driver.send_or_start(&ours, &mut queue, TOKEN)) {
            Ok(sent) => {
                count += sent;
                queue.advance(sent);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    assert_eq!((queue.len(), driver.counters().bytes_out), ((8 << 20) - count, count as u64));
    read_exact(&theirs, count);
    drop((ours, theirs, queue));
    driver.finish();
}

fn a_send_that_may_be_a_call_to_a_peer_that_is_gone_fails_and_raises_no_signal() {
    let_sigpipe_kill();
    let mut driver = TestDriver::with(&epoll());
    let (ours, theirs) = unix_pair();
    drop(theirs);
    let mut queue = queue_of(b"x".as_slice());
    let result = done(driver.send_or_start(&ours, &mut queue, TOKEN));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
    drop((ours, queue));
    driver.finish();
}

// spec: RISK-40
fn a_send_that_may_be_a_call_is_none_in_a_forked_child() {
    let mut driver = TestDriver::with(&epoll());
    let (ours, mut theirs) = unix_pair();
    let status = in_forked_child(|| {
        let started = driver.send_or_start(&ours, &mut queue_of(b"twice".as_slice()), TOKEN);
        assert!(matches!(started, SendStarted::InFlight(_)));
        assert!(driver.submit().is_err());
    });
    assert_eq!(status, 0);
    theirs.set_nonblocking(true).unwrap();
    assert!(theirs.read(&mut [0; 8]).is_err(), "nothing came");
    drop((ours, theirs));
    driver.finish();
}

fn a_send_that_may_be_a_call_is_an_op_where_faults_happen_to_ops() {
    let faults = Some(Faults { seed: 1, short_sends: 1000, ..Faults::default() });
    let mut driver = TestDriver::with(&DriverConfig { faults, ..epoll() });
    let (ours, theirs) = unix_pair();
    let started = driver.send_or_start(&ours, &mut queue_of(vec![1; 100]), TOKEN);
    let key = started.key().expect("it is an op");
    let (count, rest) = sent(driver.next_of(key));
    assert!(count < 100, "it is made short");
    read_exact(&theirs, count);
    drop((ours, theirs, rest));
    driver.finish();
}
