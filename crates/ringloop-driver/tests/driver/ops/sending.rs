//! Sending to sockets, writing to pipes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use ringloop_driver::{Descriptor, Outcome, SendQueue, SendStarted};

use super::nonblocking_pair;

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, errno, fill, is_linux_6_1, queue_of, read_exact, sent, unix_pair,
};
use crate::sys::{let_sigpipe_kill, pipe};

pub(super) const TESTS: &[Test] = crate::tests![
    send_gives_a_gathered_queue_to_the_peer_in_order,
    send_or_start_takes_all_that_is_in_a_queue_and_leaves_it_to_be_filled_again,
    send_of_more_than_there_is_room_for_is_short_and_goes_on_when_there_is,
    send_that_must_not_wait_says_would_block_when_there_is_no_room,
    send_that_may_wait_goes_on_when_there_is_room_although_the_socket_is_nonblocking,
    send_of_two_thousand_chunks_takes_as_many_as_one_call_can,
    send_to_a_peer_that_is_gone_fails_with_epipe_and_raises_no_signal,
    write_gives_a_gathered_queue_to_a_pipe,
    write_that_must_not_wait_says_would_block_when_a_pipe_is_full,
    write_that_must_not_wait_says_would_block_when_a_pipe_that_has_a_name_is_full,
    write_to_a_pipe_without_reader_fails_with_epipe,
];

fn send_gives_a_gathered_queue_to_the_peer_in_order() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut queue = queue_of(b"copied ".as_slice());
    queue.push(vec![b'v'; 300].into());
    queue.push(bytes::Bytes::from_static(b" shared ").into());
    queue.push(b"and copied again".into());
    let expected = [b"copied ".as_slice(), &[b'v'; 300], b" shared and copied again"].concat();
    let key = driver.send(&ours, queue, false, TOKEN);
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, queue.is_empty()), (expected.len(), true));
    assert_eq!(read_exact(&theirs, count), expected);
    drop((ours, theirs));
    driver.finish();
}

fn send_or_start_takes_all_that_is_in_a_queue_and_leaves_it_to_be_filled_again() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut staged = queue_of(b"one piece".as_slice());
    let first = driver.send_or_start(&ours, &mut staged, TOKEN);
    assert_eq!(count_of(first, &mut staged, &mut driver), 9);
    assert!(staged.is_empty());
    staged.push(vec![b'v'; 300].into());
    staged.push(b" and more".into());
    let second = driver.send_or_start(&ours, &mut staged, TOKEN);
    assert_eq!(count_of(second, &mut staged, &mut driver), 309);
    assert_eq!((staged.len(), staged.chunks()), (0, 0));
    let expected = [b"one piece".as_slice(), &[b'v'; 300], b" and more"].concat();
    assert_eq!(read_exact(&theirs, 318), expected);
    drop((ours, theirs));
    driver.finish();
}

/// How much the kernel took: of an op, which has the queue, or of `staged`, which still has what was sent.
fn count_of(started: SendStarted, staged: &mut SendQueue, driver: &mut TestDriver) -> usize {
    match started {
        SendStarted::InFlight(key) => {
            assert!(staged.is_empty());
            sent(driver.next_of(key)).0
        }
        SendStarted::Done(result) => {
            let count = result.unwrap();
            staged.advance(count);
            count
        }
    }
}

// spec: WRITE-05 RISK-16
fn send_of_more_than_there_is_room_for_is_short_and_goes_on_when_there_is() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|place| (place % 251) as u8).collect();
    let mut queue = queue_of(bytes.clone());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        (&theirs).read_to_end(&mut all).unwrap();
        all
    });
    let mut shorts = 0;
    while !queue.is_empty() {
        let key = driver.send(&ours, queue, false, TOKEN);
        (_, queue) = sent(driver.next_of(key));
        shorts += usize::from(!queue.is_empty());
    }
    assert!(shorts > 0);
    drop(ours);
    assert!(reader.join().unwrap() == bytes);
    driver.finish();
}

fn send_that_must_not_wait_says_would_block_when_there_is_no_room() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = nonblocking_pair();
    fill(&ours);
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.send(&ours, queue_of(b"x".as_slice()), true, TOKEN);
    let completion = driver.look(key).unwrap().expect("it does not wait");
    assert_eq!(errno(&completion), Some(libc::EAGAIN));
    let Outcome::Sent(_, queue) = completion.outcome else { panic!() };
    assert_eq!(queue.len(), 1, "nothing of it was taken");
    drop((ours, theirs));
    driver.finish();
}

fn send_that_may_wait_goes_on_when_there_is_room_although_the_socket_is_nonblocking() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = nonblocking_pair();
    let filled = fill(&ours);
    let ours = Descriptor::from(OwnedFd::from(ours));
    let key = driver.send(&ours, queue_of(b"x".as_slice()), false, TOKEN);
    assert!(driver.ready_now().is_empty());
    read_exact(&theirs, filled);
    assert_eq!(sent(driver.next_of(key)).0, 1);
    drop((ours, theirs));
    driver.finish();
}

fn send_of_two_thousand_chunks_takes_as_many_as_one_call_can() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = unix_pair();
    let mut queue = SendQueue::new();
    (0..2000).for_each(|_| queue.push(bytes::Bytes::from_static(b"x").into()));
    let key = driver.send(&ours, queue, false, TOKEN);
    let (count, queue) = sent(driver.next_of(key));
    assert_eq!((count, queue.len()), (1024, 2000 - 1024));
    read_exact(&theirs, count);
    drop((ours, theirs));
    driver.finish();
}

fn send_to_a_peer_that_is_gone_fails_with_epipe_and_raises_no_signal() {
    let mut driver = TestDriver::new();
    let_sigpipe_kill();
    let (ours, theirs) = unix_pair();
    drop(theirs);
    let key = driver.send(&ours, queue_of(b"x".as_slice()), false, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EPIPE));
    drop(ours);
    driver.finish();
}

fn write_gives_a_gathered_queue_to_a_pipe() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    let mut queue = queue_of(vec![b'v'; 300]);
    queue.push(bytes::Bytes::from_static(b" shared").into());
    let key = driver.write(&write, queue, false, TOKEN);
    let (mut count, mut queue) = sent(driver.next_of(key));
    if !driver.is_ring() && is_linux_6_1("a pipe that may block is given one part at a time") {
        assert_eq!(count, 300);
        let key = driver.write(&write, queue, false, TOKEN);
        let (rest, left) = sent(driver.next_of(key));
        (count, queue) = (count + rest, left);
    }
    assert_eq!((count, queue.is_empty()), (307, true));
    assert!(read_exact(&read, count).ends_with(b"v shared"));
    let key = driver.write(&write, queue_of(b"alone".as_slice()), false, TOKEN);
    assert_eq!(sent(driver.next_of(key)).0, 5);
    assert_eq!(read_exact(&read, 5), b"alone");
    drop((read, write));
    driver.finish();
}

fn write_that_must_not_wait_says_would_block_when_a_pipe_is_full() {
    let driver = TestDriver::new();
    let (read, write) = pipe();
    assert_says_would_block_when_full(driver, read, write);
}

/// A ring cannot write to it without waiting.
fn write_that_must_not_wait_says_would_block_when_a_pipe_that_has_a_name_is_full() {
    let driver = TestDriver::new();
    let path = format!("/tmp/ringloop-full-pipe-{}", std::process::id());
    let pipe = crate::sys::named_pipe(&path);
    let write = pipe.try_clone().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_says_would_block_when_full(driver, pipe, write);
}

fn assert_says_would_block_when_full(mut driver: TestDriver, read: File, write: File) {
    let write = Descriptor::from(OwnedFd::from(write));
    let mut queue = queue_of(vec![0; 1 << 20]);
    let mut count = 0;
    loop {
        let key = driver.write(&write, queue, true, TOKEN);
        let completion = driver.look(key).unwrap().expect("it does not wait");
        match completion.outcome {
            Outcome::Sent(Ok(taken), rest) => {
                queue = rest;
                queue.advance(taken);
                count += taken;
            }
            Outcome::Sent(Err(error), _) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(count > 0);
    read_exact(&read, count);
    drop((read, write));
    driver.finish();
}

fn write_to_a_pipe_without_reader_fails_with_epipe() {
    let mut driver = TestDriver::new();
    let (read, write) = pipe();
    let write = Descriptor::from(OwnedFd::from(write));
    drop(read);
    let key = driver.write(&write, queue_of(b"x".as_slice()), false, TOKEN);
    assert_eq!(errno(&driver.next_of(key)), Some(libc::EPIPE));
    drop(write);
    driver.finish();
}
