//! Few buffers for much: the window of those that are offered, and whose turn it is to get one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use ringloop_driver::testing::Faults;
use ringloop_driver::{
    Account, Completion, Descriptor, Driver, DriverChoice, DriverConfig, Features, Interest, OpKey,
    Outcome, Received, Token, Wait,
};

use crate::isolated::Test;
use crate::random::Random;
use crate::support::{
    TOKEN, TestDriver, datagram, errno, is_linux_6_1, polled, queue_of, received,
    received_or_cancelled, sent, unix_pair, write_all,
};
use crate::sys::{in_forked_child, pipe, set_nonblocking};

pub(crate) const TESTS: &[Test] = crate::tests![
    large_receives_find_no_more_buffers_than_the_window_and_lose_nothing,
    small_receives_find_all_buffers,
    the_window_opens_when_messages_become_small_and_closes_when_they_become_large,
    datagrams_find_all_buffers_of_their_group,
    the_end_of_a_pipe_takes_no_buffer_away,
    of_connections_that_take_all_buffers_each_none_waits_for_ever,
    receives_that_are_started_again_at_once_leave_buffers_to_those_that_starve,
    of_connections_that_fill_one_buffer_each_none_waits_for_ever,
    calls_between_the_waits_leave_buffers_to_those_that_starve,
    new_receives_leave_buffers_to_those_that_starve,
    completions_that_are_there_at_each_wait_keep_nobody_starving,
    hundreds_that_starve_get_all_their_bytes_in_a_bounded_number_of_calls,
    hundreds_of_connections_get_all_their_bytes_while_one_keeps_the_buffers,
    those_that_starve_are_served_in_order_and_few_of_them_in_vain,
    a_wait_does_not_sleep_while_some_have_not_had_their_turn,
    connections_that_ended_or_were_reset_while_they_starved_say_so_and_keep_nobody_awake,
    a_receive_that_starved_is_cancelled_whatever_became_of_it,
    a_receive_that_starved_is_retired_whatever_became_of_it,
    a_driver_is_dropped_whatever_became_of_those_that_starved,
    a_child_that_is_forked_while_receives_starve_refuses_to_work_and_its_parent_goes_on,
    a_group_does_not_go_while_what_it_holds_waits_for_room_in_the_completion_queue,
    those_that_starve_find_the_buffers_of_every_group,
    whatever_is_done_while_buffers_are_short_every_byte_comes_once_and_in_order,
    under_faults_all_that_starve_get_all_their_bytes,
];

/// A connection on which `count` bytes, numbered by its token, are there to be received.
struct Stream {
    ours: Descriptor,
    theirs: UnixStream,
    token: u64,
    key: OpKey,
    account: Account,
    sent: usize,
    got: usize,
}

impl Stream {
    fn new(driver: &mut Driver, token: u64) -> Self {
        let (ours, theirs) = unix_pair();
        theirs.set_nonblocking(true).unwrap();
        let account = Account::new();
        let key = driver.recv_multishot(&ours, &account, Token(token));
        Self { ours, theirs, token, key, account, sent: 0, got: 0 }
    }

    fn byte_at(&self, place: usize) -> u8 {
        (place as u64 * 7 + (place as u64 >> 8) * 13 + self.token) as u8
    }

    /// Sends until `most` bytes are there in all, or no more fit into the socket.
    fn send_up_to(&mut self, most: usize) {
        while self.sent < most {
            let end = (self.sent + 8192).min(most);
            let bytes: Vec<u8> = (self.sent..end).map(|place| self.byte_at(place)).collect();
            match (&self.theirs).write(&bytes) {
                Ok(count) => self.sent += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return;
                }
            }
        }
    }

    /// Checks what came, and starts the next receive where this one is over.
    fn take(&mut self, driver: &mut Driver, completion: Completion) -> Received {
        assert_eq!((completion.key, completion.token.0), (self.key, self.token));
        let more = completion.more;
        let bytes = received_or_cancelled(completion.outcome);
        for &byte in &*bytes {
            assert_eq!(byte, self.byte_at(self.got), "of {} at {}", self.token, self.got);
            self.got += 1;
        }
        if !more {
            self.key = driver.recv_multishot(&self.ours, &self.account, Token(self.token));
        }
        bytes
    }
}

fn streams(driver: &mut TestDriver, count: u64) -> Vec<Stream> {
    let streams = (0..count).map(|token| Stream::new(driver, token)).collect();
    assert!(driver.ready_now().is_empty());
    streams
}

fn end(driver: &mut TestDriver, streams: Vec<Stream>) {
    for Stream { key, ours, theirs, account, .. } in streams {
        driver.retire(key);
        assert_eq!(account.bytes(), 0);
        drop((ours, theirs));
    }
}

/// Receives until all that was sent has come.
fn receive_all(driver: &mut TestDriver, streams: &mut [Stream]) {
    while streams.iter().any(|stream| stream.got < stream.sent) {
        let completion = driver.next();
        streams[completion.token.0 as usize].take(driver, completion);
    }
}

/// Bytes of one buffer.
const FULL: usize = 16 * 1024;
/// Full buffers that are offered at a time.
const WINDOW: usize = 384 * 1024 / FULL;

fn of_one_size() -> DriverConfig {
    DriverConfig { large_buffers: false, ..DriverConfig::default() }
}

/// From then on the driver knows that what arrives is as large as its buffers; each of those that were offered before has
/// been used.
fn receive_large_ones(driver: &mut TestDriver, streams: &mut [Stream]) {
    for _ in 0..300 {
        let most = streams[0].sent + FULL;
        streams[0].send_up_to(most);
        receive_all(driver, streams);
    }
}

/// More than a window of full buffers is there for them, and no more come with one call.
fn receive_a_window(driver: &mut TestDriver, streams: &mut [Stream]) {
    for stream in &mut *streams {
        let most = stream.sent + 4 * FULL;
        stream.send_up_to(most);
    }
    let came = driver.ready_now();
    assert!((1..=WINDOW).contains(&came.len()), "{} buffers", came.len());
    for completion in came {
        streams[completion.token.0 as usize].take(driver, completion);
    }
    receive_all(driver, streams);
}

fn large_receives_find_no_more_buffers_than_the_window_and_lose_nothing() {
    let mut driver = TestDriver::with(&of_one_size());
    let mut streams = streams(&mut driver, 100);
    receive_large_ones(&mut driver, &mut streams);
    assert_eq!(driver.counters().enobufs, 0);
    for _ in 0..5 {
        receive_a_window(&mut driver, &mut streams);
        assert!(driver.ready_now().is_empty());
    }
    assert!(driver.counters().enobufs > 0);
    assert_eq!((driver.counters().copied, driver.counters().groups), (0, 1));
    end(&mut driver, streams);
    driver.finish();
}

fn small_receives_find_all_buffers() {
    let mut driver = TestDriver::new();
    let pairs: Vec<_> = (0..250).map(|_| unix_pair()).collect();
    for _ in 0..3 {
        pairs.iter().for_each(|(_, theirs)| write_all(theirs, &[7; 1000]));
        // They are served inside one call, one after the other.
        for (ours, _) in &pairs {
            driver.recv(ours, &Account::new(), TOKEN);
        }
        let held: Vec<_> = driver.ready_now().into_iter().map(received).collect();
        assert_eq!((held.len(), driver.counters().leased), (250, 250));
        assert!(held.iter().all(|bytes| bytes.len() == 1000));
    }
    assert_eq!((driver.counters().enobufs, driver.counters().groups), (0, 1));
    drop(pairs);
    driver.finish();
}

fn the_window_opens_when_messages_become_small_and_closes_when_they_become_large() {
    let mut driver = TestDriver::with(&of_one_size());
    let mut streams = streams(&mut driver, 200);
    for _ in 0..3 {
        receive_large_ones(&mut driver, &mut streams);
        receive_a_window(&mut driver, &mut streams);
        // Two rounds open it, and in the others nobody has to wait.
        for round in 0..5 {
            let before = driver.counters().enobufs;
            for stream in &mut streams {
                let most = stream.sent + 1;
                stream.send_up_to(most);
            }
            receive_all(&mut driver, &mut streams);
            assert!(round < 2 || driver.counters().enobufs == before, "in round {round}");
        }
    }
    end(&mut driver, streams);
    driver.finish();
}

fn datagrams_find_all_buffers_of_their_group() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours = Descriptor::from(OwnedFd::from(ours));
    let account = Account::new();
    let key = driver.recv_from_multishot(&ours, &account, TOKEN);
    let large = vec![7; 60_000];
    for _ in 0..50 {
        theirs.send(&large).unwrap();
        assert_eq!(datagram(driver.next_of(key)).data(), *large);
    }
    driver.retire(key);
    // More in one call than the eight that a window of such bytes would leave.
    let pairs: Vec<_> = (0..30).map(|_| UnixDatagram::pair().unwrap()).collect();
    let pairs: Vec<_> =
        pairs.into_iter().map(|(a, b)| (Descriptor::from(OwnedFd::from(a)), b)).collect();
    let keys: Vec<_> = pairs
        .iter()
        .map(|(ours, _)| driver.recv_from_multishot(ours, &Account::new(), TOKEN))
        .collect();
    assert!(driver.ready_now().is_empty());
    pairs.iter().for_each(|(_, theirs)| assert!(theirs.send(&large).is_ok()));
    let held: Vec<_> =
        driver.all_ready().into_iter().map(|one| datagram(one).into_data()).collect();
    assert!(held.len() == 30 && held.iter().all(|data| !data.is_copy()));
    assert_eq!((driver.counters().leased, driver.counters().enobufs), (30, 0));
    drop(held);
    keys.into_iter().for_each(|key| drop(driver.retire(key)));
    drop((pairs, ours, theirs));
    driver.finish();
}

fn few(buffers: u16) -> DriverConfig {
    DriverConfig { buffers, buffer_size: 64, groups: 1, ..DriverConfig::default() }
}

fn the_end_of_a_pipe_takes_no_buffer_away() {
    let mut driver = TestDriver::with(&few(4));
    for _ in 0..20 {
        let (read, write) = pipe();
        let read = Descriptor::from(OwnedFd::from(read));
        let key = driver.read_multishot(&read, &Account::new(), TOKEN);
        write_all(&write, b"x");
        assert_eq!(received(driver.next_of(key)), b"x");
        drop(write);
        let end = driver.next_of(key);
        assert!(!end.more && received(end).is_empty());
    }
    let streams: Vec<_> = (0..4).map(|_| unix_pair()).collect();
    let held: Vec<_> = streams
        .iter()
        .map(|(ours, theirs)| {
            let key = driver.recv_multishot(ours, &Account::new(), TOKEN);
            write_all(theirs, b"x");
            let bytes = received(driver.next_of(key));
            driver.retire(key);
            bytes
        })
        .collect();
    assert!(held.iter().all(|bytes| !bytes.is_copy()));
    assert_eq!((driver.counters().leased, driver.counters().enobufs), (4, 0));
    drop((held, streams));
    driver.finish();
}

/// How long each had to wait for its turn, and how often it had one.
struct Turns {
    waited: Vec<usize>,
    most: usize,
    served: Vec<usize>,
}

impl Turns {
    fn of(count: usize) -> Self {
        Self { waited: vec![0; count], most: 0, served: vec![0; count] }
    }

    fn turn(&mut self, came: &[bool]) {
        for (index, &came) in came.iter().enumerate() {
            self.waited[index] = if came { 0 } else { self.waited[index] + 1 };
            self.served[index] += usize::from(came);
            self.most = self.most.max(self.waited[index]);
        }
    }

    /// Whoever is before one in the queue is there once, and once more if it was idle; and one wait may be put off.
    fn assert_bounded(&self) {
        let bound = 2 * self.waited.len() + 1;
        assert!(self.most <= bound, "one has waited {} turns: {:?}", self.most, self.served);
        assert!(self.served.iter().all(|&count| count > 0), "{:?}", self.served);
    }
}

/// In each turn all have `ahead` bytes to receive, and hold none of what came before; `call` is done before the wait.
fn take_turns(
    driver: &mut TestDriver,
    streams: &mut [Stream],
    ahead: usize,
    call: impl Fn(&mut TestDriver),
) {
    let mut turns = Turns::of(streams.len());
    for _ in 0..streams.len() * 20 {
        for stream in &mut *streams {
            let most = stream.got + ahead;
            stream.send_up_to(most);
        }
        call(driver);
        driver.wait(Wait::Now).unwrap();
        let mut came = vec![false; streams.len()];
        while let Some(completion) = driver.next_completion() {
            let index = completion.token.0 as usize;
            came[index] |= !streams[index].take(driver, completion).is_empty();
        }
        turns.turn(&came);
    }
    turns.assert_bounded();
}

fn of_connections_that_take_all_buffers_each_none_waits_for_ever() {
    for count in 2..=24 {
        let mut driver = TestDriver::with(&few(8));
        let mut streams = streams(&mut driver, count);
        // The eight buffers hold 512 bytes.
        take_turns(&mut driver, &mut streams, 2048, |_| {});
        assert!(driver.counters().enobufs > 0);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn of_connections_that_fill_one_buffer_each_none_waits_for_ever() {
    for count in [8, 9, 10, 16, 17, 40] {
        let mut driver = TestDriver::with(&few(8));
        let mut streams = streams(&mut driver, count);
        take_turns(&mut driver, &mut streams, 64, |_| {});
        let starved = driver.counters().enobufs > 0;
        let asks_first = || is_linux_6_1("a receive asks for a buffer before it looks for bytes");
        assert!(starved == (count > 8) || starved && asks_first());
        end(&mut driver, streams);
        driver.finish();
    }
}

fn receives_that_are_started_again_at_once_leave_buffers_to_those_that_starve() {
    if is_linux_6_1("the kernel does deferred work in reverse, so reads of pipes have no turns") {
        return;
    }
    for count in [8, 9, 12, 24] {
        let mut driver = TestDriver::with(&few(8));
        let pipes: Vec<_> = (0..count)
            .map(|token| {
                let (read, write) = pipe();
                set_nonblocking(&write);
                let read = Descriptor::from(OwnedFd::from(read));
                let key = driver.read_multishot(&read, &Account::new(), Token(token));
                (read, write, key)
            })
            .collect();
        let mut turns = Turns::of(pipes.len());
        for _ in 0..pipes.len() * 20 {
            for (_, write, _) in &pipes {
                let _ = (&*write).write(&[7; 2048]);
            }
            driver.wait(Wait::Now).unwrap();
            let mut came = vec![false; pipes.len()];
            while let Some(completion) = driver.next_completion() {
                came[completion.token.0 as usize] = true;
                assert_eq!(received(completion), [7; 64]);
            }
            turns.turn(&came);
        }
        turns.assert_bounded();
        for (read, write, key) in pipes {
            driver.retire(key);
            drop((read, write));
        }
        driver.finish();
    }
}

fn new_receives_leave_buffers_to_those_that_starve() {
    for count in [8, 9, 12, 24] {
        let mut driver = TestDriver::with(&few(8));
        let pairs: Vec<_> = (0..count).map(|_| unix_pair()).collect();
        let mut keys: Vec<Option<OpKey>> = vec![None; count];
        let mut turns = Turns::of(count);
        for _ in 0..count * 20 {
            for (index, (ours, theirs)) in pairs.iter().enumerate() {
                if keys[index].is_none() {
                    write_all(theirs, &[7; 64]);
                    let token = Token(index as u64);
                    keys[index] = Some(driver.recv(ours, &Account::new(), token));
                }
            }
            driver.wait(Wait::Now).unwrap();
            let mut came = vec![false; count];
            while let Some(completion) = driver.next_completion() {
                let index = completion.token.0 as usize;
                (came[index], keys[index]) = (true, None);
                assert_eq!(received(completion), [7; 64]);
            }
            turns.turn(&came);
        }
        turns.assert_bounded();
        keys.into_iter().flatten().for_each(|key| drop(driver.retire(key)));
        drop(pairs);
        driver.finish();
    }
}

fn calls_between_the_waits_leave_buffers_to_those_that_starve() {
    // Each lets those who are armed receive.
    let look = |driver: &mut TestDriver, ours: &Descriptor| {
        let key = driver.poll(ours, Interest { read: false, write: true }, TOKEN);
        assert!(polled(driver.look(key).unwrap().unwrap()).write);
    };
    let retire = |driver: &mut TestDriver, ours: &Descriptor| {
        let key = driver.poll(ours, Interest { read: true, write: false }, TOKEN);
        assert_eq!(driver.retire(key).len(), 1);
    };
    let submit = |driver: &mut TestDriver, _: &Descriptor| driver.submit().unwrap();
    let overfill = |driver: &mut TestDriver, _: &Descriptor| {
        (0..10).for_each(|_| driver.close(unix_pair().0));
    };
    type Call<'a> = &'a dyn Fn(&mut TestDriver, &Descriptor);
    for call in [&submit as Call<'_>, &look, &retire, &overfill] {
        for count in [9, 12, 17] {
            let mut driver = TestDriver::with(&DriverConfig { submission_entries: 4, ..few(8) });
            let mut streams = streams(&mut driver, count);
            let (ours, theirs) = unix_pair();
            take_turns(&mut driver, &mut streams, 64, |driver| call(driver, &ours));
            assert!(driver.counters().enobufs > 0);
            end(&mut driver, streams);
            drop((ours, theirs));
            driver.finish();
        }
    }
}

fn completions_that_are_there_at_each_wait_keep_nobody_starving() {
    let mut driver = TestDriver::with(&few(1));
    let mut streams = streams(&mut driver, 3);
    streams[0].send_up_to(1);
    let completion = driver.next();
    let held = streams[0].take(&mut driver, completion);
    streams.iter_mut().for_each(|stream| stream.send_up_to(100));
    let (ours, theirs) = unix_pair();
    let mut waits = 0;
    while streams.iter().any(|stream| stream.got < stream.sent) {
        // Its completion is there when it is submitted.
        driver.send(&ours, queue_of(b"x".as_slice()), true, Token(9));
        driver.submit().unwrap();
        driver.wait(Wait::Now).unwrap();
        while let Some(completion) = driver.next_completion() {
            match completion.token {
                Token(9) => drop(sent(completion)),
                Token(index) => drop(streams[index as usize].take(&mut driver, completion)),
            }
        }
        waits += 1;
        assert!(waits < 20, "nobody has been fed");
    }
    drop((held, ours, theirs));
    end(&mut driver, streams);
    driver.finish();
}

fn hundreds_that_starve_get_all_their_bytes_in_a_bounded_number_of_calls() {
    let mut random = Random::new();
    for config in [few(8), DriverConfig { groups: 2, ..few(8) }, DriverConfig::default()] {
        let mut driver = TestDriver::with(&config);
        let size = driver.info().buffer_size as usize;
        let mut streams = streams(&mut driver, 300);
        let mut buffers = 0;
        for stream in &mut streams {
            let most = random.below(10 * size.min(4096) as u64) as usize;
            stream.send_up_to(most);
            buffers += stream.sent.div_ceil(size.min(4096));
        }
        let before = driver.counters().rounds;
        let mut waits = 0;
        while streams.iter().any(|stream| stream.got < stream.sent) {
            driver.wait(Wait::Forever).unwrap();
            waits += 1;
            while let Some(completion) = driver.next_completion() {
                streams[completion.token.0 as usize].take(&mut driver, completion);
            }
        }
        // The first of each turn fills a buffer, or has nothing to receive and is not starving any more.
        let most = buffers + 2 * streams.len();
        assert!(waits <= most, "{waits} waits for {buffers} buffers");
        let rounds = driver.counters().rounds - before;
        assert!(rounds <= 2 * most as u64, "{rounds} rounds for {buffers} buffers");
        assert!(size > 64 || driver.counters().enobufs > 0);
        // And then all is quiet.
        assert!(driver.all_ready().is_empty());
        let quiet = driver.counters();
        (0..100).for_each(|_| driver.wait(Wait::Now).unwrap());
        assert_eq!((driver.counters().completed, quiet.groups), (quiet.completed, 1));
        assert!(!driver.is_ring() || driver.counters().rounds == quiet.rounds);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn hundreds_of_connections_get_all_their_bytes_while_one_keeps_the_buffers() {
    let mut driver = TestDriver::with(&few(8));
    let mut streams = streams(&mut driver, 200);
    let mut hoard = Vec::new();
    // The hoarder has one buffer at most; each of the others keeps what it got for some time.
    let mut kept = VecDeque::new();
    streams.iter_mut().for_each(|stream| stream.send_up_to(1000));
    let mut waits = 0;
    while streams.iter().any(|stream| stream.got < stream.sent) {
        driver.wait(Wait::Forever).unwrap();
        waits += 1;
        while let Some(completion) = driver.next_completion() {
            let index = completion.token.0 as usize;
            let bytes = streams[index].take(&mut driver, completion);
            if index == 0 {
                hoard.push(bytes);
            } else {
                kept.push_back(bytes);
            }
            if kept.len() > 20 {
                kept.pop_front();
            }
        }
    }
    // 16 buffers each.
    assert!(waits <= (16 + 2) * streams.len(), "{waits} waits");
    assert!(driver.counters().enobufs > 0);
    drop((hoard, kept));
    end(&mut driver, streams);
    driver.finish();
}

/// All buffers are lent; `streams`, but the first, have found none, and the driver knows it. That is of a ring: with epoll
/// nobody looks for a buffer before it has something to receive.
fn starving(buffers: u16, count: u64) -> (TestDriver, Vec<Stream>, Vec<Received>) {
    let mut driver =
        TestDriver::with(&DriverConfig { driver: DriverChoice::Uring, ..few(buffers) });
    let mut streams = vec![Stream::new(&mut driver, 0)];
    let mut held = Vec::new();
    while held.len() < usize::from(buffers) {
        // Each of an account of its own, as one would be given copies.
        let (ours, theirs) = unix_pair();
        write_all(&theirs, b"held");
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        held.push(received(driver.next_of(key)));
    }
    streams.extend((1..count).map(|token| Stream::new(&mut driver, token)));
    driver.submit().unwrap();
    assert!(driver.next_completion().is_none());
    assert_eq!(driver.counters().enobufs, count - 1);
    (driver, streams, held)
}

fn those_that_starve_are_served_in_order_and_few_of_them_in_vain() {
    let count = 400;
    // With eight buffers, of which each takes one or two.
    for len in [64, 128] {
        let (mut driver, mut streams, held) = starving(8, count);
        let starved = driver.counters().enobufs;
        streams[1..].iter_mut().for_each(|stream| stream.send_up_to(len));
        drop(held);
        let (mut order, mut waits) = (Vec::new(), 0);
        while order.len() < count as usize - 1 {
            driver.wait(Wait::Forever).unwrap();
            waits += 1;
            while let Some(completion) = driver.next_completion() {
                let stream = &mut streams[completion.token.0 as usize];
                if stream.got == 0 {
                    order.push(stream.token);
                }
                stream.take(&mut driver, completion);
            }
        }
        assert!(order.iter().copied().eq(1..count), "{order:?}");
        let again = driver.counters().enobufs - starved;
        assert!(again <= count && waits * 3 <= count, "{again} in vain, {waits} waits");
        receive_all(&mut driver, &mut streams);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn a_wait_does_not_sleep_while_some_have_not_had_their_turn() {
    let (mut driver, mut streams, held) = starving(1, 100);
    let last = streams.len() - 1;
    streams[last].send_up_to(10);
    drop(held);
    let before = driver.counters().rounds;
    let mut waits = 0;
    let completion = loop {
        // The others have nothing to receive, so nothing else would end it.
        driver.wait(Wait::Forever).unwrap();
        waits += 1;
        if let Some(completion) = driver.next_completion() {
            break completion;
        }
    };
    streams[last].take(&mut driver, completion);
    assert_eq!(streams[last].got, 10);
    assert!(waits <= 100 && driver.counters().rounds - before <= 200, "{waits}");
    assert!(driver.all_ready().is_empty());
    // Nobody starves any more: now it sleeps.
    let (waker, is_woken) = (driver.waker(), Arc::new(AtomicBool::new(false)));
    let wakes = Arc::clone(&is_woken);
    let rounds = driver.counters().rounds;
    let thread = thread::spawn(move || {
        wakes.store(true, Ordering::Relaxed);
        waker.wake();
    });
    driver.wait(Wait::Forever).unwrap();
    assert!(is_woken.load(Ordering::Relaxed));
    thread.join().unwrap();
    assert!(driver.counters().rounds - rounds <= 2);
    end(&mut driver, streams);
    driver.finish();
}

fn connections_that_ended_or_were_reset_while_they_starved_say_so_and_keep_nobody_awake() {
    let (mut driver, mut streams, held) = starving(1, 30);
    for (index, stream) in streams.iter_mut().enumerate() {
        match index % 3 {
            0 => {}
            1 => drop(std::mem::replace(&mut stream.theirs, unix_pair().1)),
            // What the peer has not read makes it a reset.
            _ => {
                let ours = UnixStream::from(stream.ours.as_fd().try_clone_to_owned().unwrap());
                write_all(&ours, b"unread");
                drop(std::mem::replace(&mut stream.theirs, unix_pair().1));
            }
        }
    }
    drop(held);
    let mut ended = 0;
    while ended < 20 {
        let completion = driver.next();
        assert!(!completion.more);
        match completion.token.0 % 3 {
            1 => assert!(received(completion).is_empty()),
            2 => assert_eq!(errno(&completion), Some(libc::ECONNRESET)),
            _ => panic!("{completion:?}"),
        }
        ended += 1;
    }
    assert!(driver.all_ready().is_empty());
    let rounds = driver.counters().rounds;
    (0..100).for_each(|_| driver.wait(Wait::Now).unwrap());
    assert_eq!(driver.counters().rounds, rounds);
    end(&mut driver, streams);
    driver.finish();
}

/// What became of receives that starved.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// They wait for their turn, though there are free buffers.
    BuffersAreFree,
    /// They wait for their turn, and there is none.
    NoneIsFree,
    /// They have had their turn, and wait in the kernel for something to receive.
    Fed,
    /// They wait without a buffer for something to receive.
    Polling,
}

const THEN: [Then; 4] = [Then::BuffersAreFree, Then::NoneIsFree, Then::Fed, Then::Polling];

/// Ten receives of which that became, and what is held so that it stays so; then, or just before, something to receive.
fn starved(then: Then, has_bytes: bool) -> (TestDriver, Vec<Stream>, Vec<Received>) {
    let (mut driver, mut streams, mut held) = starving(16, 11);
    match then {
        Then::BuffersAreFree => held.clear(),
        Then::NoneIsFree => {}
        Then::Fed => {
            held.clear();
            (0..10).for_each(|_| assert!(driver.ready_now().is_empty()));
        }
        Then::Polling => assert!(driver.all_ready().is_empty()),
    }
    if has_bytes {
        streams[1..].iter_mut().for_each(|stream| stream.send_up_to(20));
    }
    (driver, streams, held)
}

fn a_receive_that_starved_is_cancelled_whatever_became_of_it() {
    for (then, has_bytes) in THEN.into_iter().flat_map(|then| [(then, false), (then, true)]) {
        let (mut driver, mut streams, held) = starved(then, has_bytes);
        let mut open: Vec<_> = streams[1..].iter().map(|stream| stream.key).collect();
        open.iter().for_each(|&key| driver.cancel(key));
        while !open.is_empty() {
            let completion = driver.next();
            let stream = &mut streams[completion.token.0 as usize];
            assert_eq!(stream.key, completion.key);
            if !completion.more {
                open.retain(|&key| key != completion.key);
            }
            stream.take_last(completion, then);
        }
        resume(&mut driver, &mut streams, held);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn a_receive_that_starved_is_retired_whatever_became_of_it() {
    for (then, has_bytes) in THEN.into_iter().flat_map(|then| [(then, false), (then, true)]) {
        let (mut driver, mut streams, held) = starved(then, has_bytes);
        for stream in &mut streams[1..] {
            let completions = driver.retire(stream.key);
            assert!(!driver.is_in_flight(stream.key), "{then:?}");
            assert!(completions.last().is_some_and(|last| !last.more), "{then:?}");
            completions.into_iter().for_each(|completion| stream.take_last(completion, then));
        }
        resume(&mut driver, &mut streams, held);
        end(&mut driver, streams);
        driver.finish();
    }
}

impl Stream {
    fn take_last(&mut self, completion: Completion, then: Then) {
        match completion.outcome {
            Outcome::Received(Ok(bytes)) => {
                let end = self.got + bytes.len();
                assert!((self.got..end).map(|place| self.byte_at(place)).eq(bytes.iter().copied()));
                self.got = end;
            }
            _ => assert_eq!(errno(&completion), Some(libc::ECANCELED), "{then:?}"),
        }
    }
}

/// What no receive has brought is there for the next ones, and nobody else was forgotten.
fn resume(driver: &mut TestDriver, streams: &mut [Stream], held: Vec<Received>) {
    assert_eq!(driver.counters().in_flight, 1);
    for stream in &mut streams[1..] {
        stream.key = driver.recv_multishot(&stream.ours, &stream.account, Token(stream.token));
    }
    drop(held);
    streams.iter_mut().for_each(|stream| stream.send_up_to(50));
    receive_all(driver, streams);
}

fn a_driver_is_dropped_whatever_became_of_those_that_starved() {
    for (then, has_bytes) in THEN.into_iter().flat_map(|then| [(then, false), (then, true)]) {
        let (driver, streams, held) = starved(then, has_bytes);
        for stream in &streams {
            assert_eq!(stream.ours.holders(), 2);
        }
        drop(driver.into_driver());
        for stream in streams {
            assert_eq!(stream.ours.holders(), 1, "{then:?}");
        }
        drop(held);
        // The next one of this thread has the ring, and all buffers.
        let mut next = TestDriver::with(&few(16));
        let mut streams = self::streams(&mut next, 16);
        streams.iter_mut().for_each(|stream| stream.send_up_to(10));
        let got: Vec<_> = (0..16)
            .map(|_| {
                let completion = next.next();
                streams[completion.token.0 as usize].take(&mut next, completion)
            })
            .collect();
        assert_eq!((next.counters().leased, next.counters().enobufs), (16, 0));
        drop(got);
        end(&mut next, streams);
        next.finish();
    }
}

fn a_child_that_is_forked_while_receives_starve_refuses_to_work_and_its_parent_goes_on() {
    for then in THEN {
        let (mut driver, mut streams, held) = starved(then, true);
        let status = in_forked_child(|| {
            for _ in 0..3 {
                assert!(driver.wait(Wait::Forever).is_err());
                assert!(driver.submit().is_err());
                assert!(driver.next_completion().is_none());
            }
            // The child returns its own copies.
            held.iter().for_each(|lease| drop(lease.clone()));
        });
        assert_eq!(status, 0, "{then:?}");
        drop(held);
        receive_all(&mut driver, &mut streams);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn under_faults_all_that_starve_get_all_their_bytes() {
    let mut random = Random::new();
    for _ in 0..10 {
        let seed = random.next();
        println!("faults: {seed}");
        let config = DriverConfig { faults: Some(Faults::harmless(seed)), ..few(8) };
        let mut driver = TestDriver::with(&config);
        let mut streams: Vec<_> = (0..40).map(|token| Stream::new(&mut driver, token)).collect();
        let mut kept = VecDeque::new();
        for round in 1..=10 {
            streams.iter_mut().for_each(|stream| stream.send_up_to(round * 200));
            while streams.iter().any(|stream| stream.got < stream.sent) {
                driver.wait(Wait::Forever).unwrap();
                while let Some(completion) = driver.next_completion() {
                    let index = completion.token.0 as usize;
                    kept.push_back(streams[index].take(&mut driver, completion));
                }
                while kept.len() > 4 {
                    kept.pop_front();
                }
            }
        }
        assert!(driver.counters().enobufs > driver.fault_counts().no_buffers);
        drop(kept);
        end(&mut driver, streams);
        driver.finish();
    }
}

fn a_group_does_not_go_while_what_it_holds_waits_for_room_in_the_completion_queue() {
    let config = DriverConfig {
        submission_entries: 2,
        completion_entries: 4,
        groups: 2,
        mask: Features::ALL,
        driver: DriverChoice::Uring,
        ..few(32)
    };
    let mut driver = TestDriver::with(&config);
    let mut held = Vec::new();
    for _ in 0..32 {
        let (ours, theirs) = unix_pair();
        write_all(&theirs, b"held");
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        held.push(received(driver.next_of(key)));
    }
    // Armed on the second group.
    let mut streams = streams(&mut driver, 20);
    (0..20).for_each(|_| assert!(driver.ready_now().is_empty()));
    assert_eq!(driver.counters().groups, 2);
    streams.iter_mut().for_each(|stream| stream.send_up_to(10));
    driver.submit().unwrap();
    while let Some(completion) = driver.next_completion() {
        streams[completion.token.0 as usize].take(&mut driver, completion);
    }
    assert!(streams.iter().any(|stream| stream.got == 0));
    drop(held);
    receive_all(&mut driver, &mut streams);
    end(&mut driver, streams);
    driver.finish();
}

fn those_that_starve_find_the_buffers_of_every_group() {
    let mut driver = TestDriver::with(&DriverConfig { groups: 2, ..few(8) });
    let mut held = Vec::new();
    // The first of the second group: now there is one.
    for _ in 0..9 {
        let (ours, theirs) = unix_pair();
        write_all(&theirs, b"held");
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        held.push(received(driver.next_of(key)));
        driver.retire(key);
    }
    assert!(held.iter().all(|lease| !lease.is_copy()));
    assert_eq!(driver.counters().groups, 2);
    // One is free in the first, and seven in the second.
    held.pop();
    let lease = held.pop();
    let mut streams: Vec<_> = (0..200).map(|token| Stream::new(&mut driver, token)).collect();
    streams.iter_mut().for_each(|stream| stream.send_up_to(64));
    drop(lease);
    let mut waits = 0;
    while streams.iter().any(|stream| stream.got < stream.sent) {
        driver.wait(Wait::Forever).unwrap();
        waits += 1;
        while let Some(completion) = driver.next_completion() {
            streams[completion.token.0 as usize].take(&mut driver, completion);
        }
    }
    assert!(waits <= 200 / 4, "{waits} waits");
    drop(held);
    end(&mut driver, streams);
    driver.finish();
}

fn whatever_is_done_while_buffers_are_short_every_byte_comes_once_and_in_order() {
    let mut random = Random::new();
    let (sender, returned) = channel::<Bytes>();
    let elsewhere = thread::spawn(move || returned.into_iter().for_each(drop));
    for _ in 0..20 {
        let seed = random.next();
        let faults = (seed % 2 == 0).then(|| Faults::harmless(seed));
        let groups = 1 + (seed >> 8) as u16 % 3;
        let buffers = 1 << ((seed >> 16) % 5);
        println!("{groups} groups of {buffers}, faults: {faults:?}");
        let config = DriverConfig { faults, groups, ..few(buffers) };
        let mut driver = TestDriver::with(&config);
        let mut streams: Vec<_> = (0..30).map(|token| Stream::new(&mut driver, token)).collect();
        let mut kept = Vec::new();
        for _ in 0..1000 {
            let index = random.below(streams.len() as u64) as usize;
            let stream = &mut streams[index];
            match random.below(12) {
                0..4 => {
                    let most = stream.sent + random.below(300) as usize;
                    stream.send_up_to(most);
                }
                4 => driver.cancel(stream.key),
                5 => {
                    let completions = driver.retire(stream.key);
                    kept.extend(completions.into_iter().map(|one| stream.take(&mut driver, one)));
                }
                6 => driver.submit().unwrap(),
                7 => kept.extend(
                    driver.look(stream.key).unwrap().map(|one| stream.take(&mut driver, one)),
                ),
                8 => kept.truncate(random.below(20) as usize),
                9 => kept
                    .drain(..random.below(3).min(kept.len() as u64) as usize)
                    .for_each(|bytes| sender.send(bytes.into_bytes()).unwrap()),
                _ => {
                    driver.wait(Wait::Now).unwrap();
                    while let Some(completion) = driver.next_completion() {
                        let stream = &mut streams[completion.token.0 as usize];
                        kept.push(stream.take(&mut driver, completion));
                    }
                }
            }
        }
        assert!(driver.counters().enobufs > 0);
        // Those who keep what they have need not end it.
        receive_all(&mut driver, &mut streams);
        drop(kept);
        for stream in &streams {
            driver.retire(stream.key).into_iter().for_each(drop);
        }
        // What the other thread still has is on its way.
        while driver.counters().leased > 0 {
            driver.wait(Wait::Now).unwrap();
            thread::yield_now();
        }
        drop(streams);
        driver.finish();
    }
    drop(sender);
    elsewhere.join().unwrap();
}
