//! How every op ends: cancelled, retired, looked at, or dropped with its driver.

use std::any::Any;
use std::fs::File;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use ringloop_driver::{
    Account, Completion, Descriptor, Driver, DriverConfig, OpKey, Outcome, Received, SendQueue,
    Sink, Token, Wait,
};

use super::{READ, listener, nonblocking_pair, udp_pair};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, accepted, errno, fill, queue_of, read_exact, received, sent, unix_pair,
    write_all,
};
use crate::sys::{pipe, set_nonblocking};

pub(super) const TESTS: &[Test] = crate::tests![
    a_sink_takes_what_is_usual_where_it_stands,
    what_a_sink_does_not_take_comes_as_a_completion_in_its_order,
    the_buffer_in_which_a_file_has_ended_is_free_again_with_a_sink_that_takes_ends,
    a_sink_takes_what_a_poll_has_found_that_goes_on,
    a_cancelled_op_that_has_nothing_to_do_ends_with_ecanceled_and_is_over,
    a_cancel_that_is_submitted_together_with_its_op_ends_it,
    an_op_that_is_cancelled_twice_ends_once,
    a_retired_op_is_over_when_retire_returns,
    retire_gives_the_bytes_that_came_before_the_cancel_and_leaves_those_of_others_in_place,
    a_dropped_driver_lets_go_of_the_descriptors_of_its_ops,
    the_key_of_an_op_that_is_over_is_harmless,
    look_finds_an_op_that_is_ready_complete_inside_the_call,
    look_arms_an_op_that_is_not_ready_and_keeps_completions_of_others_in_place,
    peek_makes_no_call,
];

/// Starts an op that has nothing to do.
type Start = Box<dyn Fn(&mut Driver) -> OpKey>;

/// Every op that can wait, on a descriptor that gives it nothing to do; with what must stay open meanwhile.
fn idle_ops() -> Vec<(&'static str, Start, Box<dyn Any>)> {
    let mut all: Vec<(&'static str, Start, Box<dyn Any>)> = Vec::new();
    let (fd, listener) = listener();
    let ours = fd.clone();
    all.push(("accept", Box::new(move |driver| driver.accept(&ours, TOKEN)), Box::new(())));
    all.push((
        "accept_multishot",
        Box::new(move |driver| driver.accept_multishot(&fd, TOKEN)),
        Box::new(listener),
    ));
    let (fd, theirs) = unix_pair();
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.recv(&ours, &Account::new(), TOKEN));
    all.push(("recv", start, Box::new(())));
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.recv_multishot(&ours, &Account::new(), TOKEN));
    all.push(("recv_multishot", start, Box::new(())));
    all.push(("poll", Box::new(move |driver| driver.poll(&fd, READ, TOKEN)), Box::new(theirs)));
    let (read, write) = pipe();
    let fd = Descriptor::from(OwnedFd::from(read));
    let ours = fd.clone();
    let start: Start = Box::new(move |driver| driver.read(&ours, &Account::new(), TOKEN));
    all.push(("read", start, Box::new(())));
    let start: Start = Box::new(move |driver| driver.read_multishot(&fd, &Account::new(), TOKEN));
    all.push(("read_multishot", start, Box::new(write)));
    let (fd, theirs, _) = udp_pair();
    let ours = fd.clone();
    all.push(("recv_from", Box::new(move |d| d.recv_from(&ours, 10, TOKEN)), Box::new(())));
    let start: Start =
        Box::new(move |driver| driver.recv_from_multishot(&fd, &Account::new(), TOKEN));
    all.push(("recv_from_multishot", start, Box::new(theirs)));
    let (full, theirs) = nonblocking_pair();
    fill(&full);
    let fd = Descriptor::from(OwnedFd::from(full));
    let start: Start =
        Box::new(move |driver| driver.send(&fd, queue_of(b"x".as_slice()), false, TOKEN));
    all.push(("send", start, Box::new(theirs)));
    let (read, write) = pipe();
    fill_pipe(&write);
    let fd = Descriptor::from(OwnedFd::from(write));
    let start: Start =
        Box::new(move |driver| driver.write(&fd, queue_of(b"x".as_slice()), false, TOKEN));
    all.push(("write", start, Box::new(read)));
    let (full, theirs) = UnixDatagram::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send(&[0; 1000]).is_ok() {}
    let fd = Descriptor::from(OwnedFd::from(full));
    let start: Start =
        Box::new(move |driver| driver.send_to(&fd, queue_of(b"x".as_slice()), None, false, TOKEN));
    all.push(("send_to", start, Box::new(theirs)));
    all
}

fn a_cancelled_op_that_has_nothing_to_do_ends_with_ecanceled_and_is_over() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.submit().unwrap();
        assert!(driver.ready_now().is_empty(), "{name} had something to do");
        driver.cancel(key);
        assert!(driver.is_in_flight(key), "{name}: its last completion is still to come");
        let completion = driver.next_of(key);
        assert_eq!((errno(&completion), completion.more), (Some(libc::ECANCELED), false), "{name}");
        assert!(!driver.is_in_flight(key), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn a_cancel_that_is_submitted_together_with_its_op_ends_it() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.cancel(key);
        assert_eq!(errno(&driver.next_of(key)), Some(libc::ECANCELED), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn an_op_that_is_cancelled_twice_ends_once() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.cancel(key);
        driver.submit().unwrap();
        driver.cancel(key);
        driver.next_of(key);
        driver.cancel(key);
        assert!(driver.ready_now().is_empty(), "{name}");
        drop((start, kept));
    }
    driver.finish();
}

fn a_retired_op_is_over_when_retire_returns() {
    let mut driver = TestDriver::new();
    for (name, start, kept) in idle_ops() {
        let key = start(&mut driver);
        driver.submit().unwrap();
        let completions = driver.retire(key);
        assert_eq!(completions.len(), 1, "{name}");
        assert_eq!(errno(&completions[0]), Some(libc::ECANCELED), "{name}");
        assert!(!driver.is_in_flight(key), "{name}");
        assert!(driver.retire(key).is_empty(), "{name}: once more is harmless");
        drop((start, kept));
    }
    driver.finish();
}

// spec: RISK-01
fn retire_gives_the_bytes_that_came_before_the_cancel_and_leaves_those_of_others_in_place() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (other, its_peer) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    let other_key = driver.recv_multishot(&other, &Account::new(), Token(8));
    driver.submit().unwrap();
    for message in [b"1", b"2"] {
        write_all(&its_peer, message);
        write_all(&theirs, message);
        // Moves the bytes into completions, which nobody takes yet.
        driver.wait(Wait::Now).unwrap();
    }
    let mut completions = driver.retire(key).into_iter();
    let bytes: Vec<u8> = completions.by_ref().take(2).flat_map(|c| received(c).to_vec()).collect();
    assert_eq!(bytes, b"12");
    assert_eq!(errno(&completions.next().unwrap()), Some(libc::ECANCELED));
    for message in [b"1", b"2"] {
        let completion = driver.next_of(other_key);
        assert_eq!(completion.token, Token(8));
        assert_eq!(received(completion), message);
    }
    driver.retire(other_key);
    drop((ours, theirs, other, its_peer));
    driver.finish();
}

fn a_dropped_driver_lets_go_of_the_descriptors_of_its_ops() {
    for which in 0..idle_ops().len() {
        let mut driver = TestDriver::new();
        let (_, start, kept) = idle_ops().swap_remove(which);
        start(&mut driver);
        driver.submit().unwrap();
        drop((start, kept));
        driver.finish_with_ops_in_flight();
    }
    let mut driver = TestDriver::new();
    let all = idle_ops();
    all.iter().for_each(|(_, start, _)| {
        start(&mut driver);
    });
    drop(all);
    driver.finish_with_ops_in_flight();
}

fn the_key_of_an_op_that_is_over_is_harmless() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let old = driver.recv(&ours, &Account::new(), TOKEN);
    driver.retire(old);
    let new = driver.recv(&ours, &Account::new(), TOKEN);
    driver.cancel(old);
    assert!(driver.retire(old).is_empty());
    assert!(driver.look(old).unwrap().is_none());
    assert!(!driver.is_in_flight(old));
    write_all(&theirs, b"x");
    assert_eq!(received(driver.next_of(new)), b"x", "it has the place of the old one");
    drop((ours, theirs));
    driver.finish();
}

// spec: SOCK-01 RISK-27
fn look_finds_an_op_that_is_ready_complete_inside_the_call() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    let before = driver.counters().rounds;
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.look(key).unwrap().unwrap()), b"x");
    let key = driver.send(&ours, queue_of(b"y".as_slice()), true, TOKEN);
    assert_eq!(sent(driver.look(key).unwrap().unwrap()).0, 1);
    let (listening, listener) = listener();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let key = driver.accept(&listening, TOKEN);
    drop(accepted(driver.look(key).unwrap().unwrap()));
    assert_eq!(driver.counters().rounds - before, 3);
    drop((ours, theirs, listening, listener, peer));
    driver.finish();
}

fn look_arms_an_op_that_is_not_ready_and_keeps_completions_of_others_in_place() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let (other, its_peer) = unix_pair();
    write_all(&its_peer, b"1");
    let first = driver.recv(&other, &Account::new(), TOKEN);
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert!(driver.look(key).unwrap().is_none());
    assert!(driver.has_completions());
    write_all(&theirs, b"2");
    assert_eq!(received(driver.next_of(first)), b"1");
    assert_eq!(received(driver.next_of(key)), b"2");
    drop((ours, theirs, other, its_peer));
    driver.finish();
}

fn peek_makes_no_call() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    write_all(&theirs, b"x");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    let before = driver.counters().rounds;
    assert!(driver.peek(key).is_none(), "it is not submitted yet");
    driver.submit().unwrap();
    assert_eq!(received(driver.peek(key).unwrap()), b"x");
    assert_eq!(driver.counters().rounds - before, 1);
    drop((ours, theirs));
    driver.finish();
}

/// Notes what it is offered, and takes it if it is told so.
#[derive(Default)]
struct Taker {
    takes: bool,
    offered: Vec<String>,
    polled: Vec<OpKey>,
}

impl Sink for Taker {
    fn received(&mut self, token: Token, data: Received) -> Option<Received> {
        self.offered.push(format!("{}: {data:?}", token.0));
        Some(data).filter(|_| !self.takes)
    }

    fn polled(&mut self, token: Token, key: OpKey) -> bool {
        self.offered.push(format!("{}: polled", token.0));
        self.polled.push(key);
        self.takes
    }

    fn ended(&mut self, token: Token) -> bool {
        self.offered.push(format!("{}: the end", token.0));
        self.takes
    }

    fn accepted(&mut self, token: Token, connection: Descriptor) -> Option<Descriptor> {
        self.offered.push(format!("{}: a connection", token.0));
        Some(connection).filter(|_| !self.takes)
    }

    fn sent(&mut self, token: Token, sent: usize, queue: &mut SendQueue) -> bool {
        self.offered.push(format!("{}: {sent} of {}", token.0, queue.len()));
        self.takes
    }
}

/// A receive that goes on has got three bytes, a send has ended that had two, and an accept that goes on has got a connection;
/// then the stream ends.
fn offer_to(takes: bool) -> (Vec<String>, Vec<String>) {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    driver.recv_multishot(&ours, &Account::new(), Token(1));
    driver.submit().unwrap();
    write_all(&theirs, b"abc");
    driver.wait(Wait::Now).unwrap();
    let send = driver.send(&ours, queue_of(b"de".as_slice()), true, Token(2));
    driver.wait(Wait::Now).unwrap();
    assert_eq!(read_exact(&theirs, 2), b"de");
    let (listening, listener) = listener();
    let accept = driver.accept_multishot(&listening, Token(3));
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    driver.wait(Wait::Now).unwrap();
    drop(theirs);
    driver.wait(Wait::Now).unwrap();
    let mut sink = Taker { takes, ..Taker::default() };
    let mut left = 100;
    let text = |Completion { token, more, outcome, .. }| match outcome {
        Outcome::Accepted(Ok(_)) => format!("{} {more} a connection", token.0),
        outcome => format!("{} {more} {outcome:?}", token.0),
    };
    let rest = std::iter::from_fn(|| driver.reap(&mut sink, &mut left).map(text)).collect();
    assert!(!driver.is_in_flight(send));
    driver.retire(accept);
    drop((ours, peer, listening, listener));
    driver.finish();
    (sink.offered, rest)
}

fn a_sink_takes_what_is_usual_where_it_stands() {
    let (offered, rest) = offer_to(true);
    assert_eq!(offered, OFFERED);
    assert!(rest.is_empty(), "{rest:?}");
}

fn what_a_sink_does_not_take_comes_as_a_completion_in_its_order() {
    let (offered, rest) = offer_to(false);
    assert_eq!(offered, OFFERED);
    let expected = [
        r#"1 true Received(Ok(Received("abc")))"#,
        "2 false Sent(Ok(2), SendQueue(2 bytes in 1 chunks))",
        "3 true a connection",
        r#"1 false Received(Ok(Received("")))"#,
    ];
    assert_eq!(rest, expected);
}

/// A ring names a buffer at the end of what is no socket: it has picked one before it reads.
fn the_buffer_in_which_a_file_has_ended_is_free_again_with_a_sink_that_takes_ends() {
    let mut driver = TestDriver::with(&DriverConfig { buffers: 1, ..DriverConfig::default() });
    let mut sink = Taker { takes: true, ..Taker::default() };
    let null = Descriptor::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    for _ in 0..3 {
        let key = driver.read_multishot(&null, &Account::new(), TOKEN);
        while driver.is_in_flight(key) {
            driver.wait(Wait::Forever).unwrap();
            if let Some(completion) = driver.reap(&mut sink, &mut 100) {
                assert!(!completion.more && received(completion).is_empty());
            }
            assert_eq!(driver.counters().enobufs, 0);
        }
    }
    drop(null);
    driver.finish();
}

/// Over epoll no poll goes on, so each is a completion.
fn a_sink_takes_what_a_poll_has_found_that_goes_on() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let poll = driver.poll_multishot(&ours, READ, Token(3));
    for takes in [true, false] {
        write_all(&theirs, b"x");
        driver.wait(Wait::Now).unwrap();
        let mut sink = Taker { takes, ..Taker::default() };
        let mut left = 100;
        let completion = driver.reap(&mut sink, &mut left);
        if !driver.is_ring() {
            break;
        }
        assert_eq!((sink.offered, sink.polled), (vec!["3: polled".to_owned()], vec![poll]));
        assert_eq!(completion.map(|completion| completion.more), (!takes).then_some(true));
    }
    driver.retire(poll);
    drop((ours, theirs));
    driver.finish();
}

fn fill_pipe(write: &File) {
    set_nonblocking(write);
    fill(write);
}

/// What a sink is offered.
const OFFERED: [&str; 4] = [r#"1: Received("abc")"#, "2: 2 of 2", "3: a connection", "1: the end"];
