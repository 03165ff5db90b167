//! Extreme sizes: of what is configured, and of what is sent at once.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use bytes::Bytes;
use ringloop_driver::testing::set_lease_count;
use ringloop_driver::{Account, Descriptor, Driver, DriverConfig, SendQueue};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, errno, queue_of, received, sent, tcp_pair, unix_pair, write_all,
};
use crate::sys::{in_forked_child, pipe, set_nonblocking};

pub(crate) const TESTS: &[Test] = crate::tests![
    extreme_numbers_of_entries_work,
    extreme_numbers_of_buffers_and_groups_work,
    extreme_sizes_of_buffers_work,
    a_buffer_that_is_larger_than_the_kernel_fills_is_refused_at_once,
    a_receive_without_a_buffer_takes_little_memory_however_large_buffers_are,
    a_chunk_of_more_than_two_gib_is_sent_in_part,
    chunks_of_more_than_two_gib_together_are_sent_in_part,
    a_datagram_of_more_than_two_gib_is_refused,
    a_datagram_of_thousands_of_chunks_is_sent_whole,
    a_lease_that_has_as_many_clones_as_can_be_counted_ends_the_process_before_it_wraps,
];

/// Bytes come and go.
fn assert_works(config: &DriverConfig) {
    println!("{config:?}");
    let mut driver = TestDriver::with(config);
    let (ours, theirs) = unix_pair();
    let account = Account::new();
    let mut key = driver.recv_multishot(&ours, &account, TOKEN);
    for byte in 0..10 {
        write_all(&theirs, &[byte]);
        let completion = driver.next();
        let more = completion.more;
        let bytes = received(completion);
        if !more {
            key = driver.recv_multishot(&ours, &account, TOKEN);
        }
        // At the end of what it was to receive it may have had nothing.
        assert_eq!(bytes, [byte]);
        let key = driver.send(&ours, queue_of(bytes), false, TOKEN);
        assert_eq!(sent(driver.next_of(key)).0, 1);
        assert_eq!(crate::support::read_exact(&theirs, 1), [byte]);
    }
    driver.retire(key).into_iter().for_each(drop);
    drop((ours, theirs));
    driver.finish();
}

fn extreme_numbers_of_entries_work() {
    for submission_entries in [0, 1, 256, u32::MAX] {
        for completion_entries in [0, 1, 4096, u32::MAX] {
            assert_works(&DriverConfig {
                submission_entries,
                completion_entries,
                ..DriverConfig::default()
            });
        }
    }
}

fn extreme_numbers_of_buffers_and_groups_work() {
    for buffers in [0, 1, 256, u16::MAX] {
        for groups in [0, 1, 2, u16::MAX] {
            assert_works(&DriverConfig { buffers, groups, ..DriverConfig::default() });
        }
    }
}

fn extreme_sizes_of_buffers_work() {
    for buffer_size in [0, 1, 1 << 30, LARGEST] {
        for buffers in [0, 1] {
            assert_works(&DriverConfig { buffers, buffer_size, ..DriverConfig::default() });
        }
    }
}

fn a_buffer_that_is_larger_than_the_kernel_fills_is_refused_at_once() {
    for buffer_size in [LARGEST + 1, 1 << 31, u32::MAX] {
        let config = DriverConfig { buffers: 1, buffer_size, ..DriverConfig::default() };
        let error = Driver::new(&config).err().unwrap();
        assert!(error.cause().contains(&buffer_size.to_string()), "{error}");
        assert!(error.remedy().contains(&LARGEST.to_string()), "{error}");
        let error = std::io::Error::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

fn a_receive_without_a_buffer_takes_little_memory_however_large_buffers_are() {
    let (buffers, buffer_size, groups) = (1, LARGEST, 1);
    let config = DriverConfig { buffers, buffer_size, groups, ..DriverConfig::default() };
    let mut driver = TestDriver::with(&config);
    let (ours, theirs) = unix_pair();
    let recv = |driver: &mut TestDriver| {
        write_all(&theirs, &[7; 100]);
        let key = driver.recv(&ours, &Account::new(), TOKEN);
        received(driver.next_of(key))
    };
    let held = recv(&mut driver);
    assert!(!held.is_copy());
    // Each would be of 2 GiB, if it were as large as the buffer.
    let copies: Vec<_> = (0..100).map(|_| recv(&mut driver)).collect();
    assert!(copies.iter().all(|bytes| bytes.is_copy() && **bytes == [7; 100]));
    drop((held, copies, ours, theirs));
    driver.finish();
}

/// The kernel takes some of it, as there is room.
fn assert_sent_in_part(queue: impl Fn() -> SendQueue) {
    let mut driver = TestDriver::new();
    let unix = unix_pair();
    let tcp: (Descriptor, TcpStream) = tcp_pair();
    for socket in [&unix.0, &tcp.0] {
        let queue = queue();
        let len = queue.len();
        let key = driver.send(socket, queue, true, TOKEN);
        let (count, rest) = sent(driver.next_of(key));
        assert!(count > 0);
        assert_eq!(rest.len(), len - count);
    }
    let (read, write) = pipe();
    let write: Descriptor = OwnedFd::from(write).into();
    set_nonblocking(&write);
    let key = driver.write(&write, queue(), true, TOKEN);
    assert!(sent(driver.next_of(key)).0 > 0);
    drop((unix, tcp, read, write));
    driver.finish();
}

fn a_chunk_of_more_than_two_gib_is_sent_in_part() {
    // Zeros that nobody has touched take no memory.
    let chunk = Bytes::from(vec![0; (4 << 30) + 5]);
    for len in [(1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (4 << 30) + 5] {
        assert_sent_in_part(|| queue_of(chunk.slice(..len)));
    }
}

fn chunks_of_more_than_two_gib_together_are_sent_in_part() {
    let chunk = Bytes::from(vec![0; 1 << 30]);
    for count in [2, 3, 5, 2000] {
        assert_sent_in_part(|| {
            let mut queue = SendQueue::new();
            (0..count).for_each(|_| queue.push(chunk.clone().into()));
            queue
        });
    }
}

fn datagram_pair() -> (Descriptor, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    (OwnedFd::from(ours).into(), theirs)
}

fn a_datagram_of_more_than_two_gib_is_refused() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = datagram_pair();
    theirs.set_nonblocking(true).unwrap();
    let chunk = Bytes::from(vec![0; 1 << 30]);
    for count in [1, 2, 5] {
        let mut queue = SendQueue::new();
        (0..count).for_each(|_| queue.push(chunk.clone().into()));
        let key = driver.send_to(&ours, queue, None, false, TOKEN);
        assert_eq!(errno(&driver.next_of(key)), Some(libc::EMSGSIZE), "{count}");
        assert!(theirs.recv(&mut [0]).is_err(), "nothing came");
    }
    drop((ours, theirs));
    driver.finish();
}

fn a_datagram_of_thousands_of_chunks_is_sent_whole() {
    let mut driver = TestDriver::new();
    let (ours, theirs) = datagram_pair();
    for count in [1023, 1024, 1025, 5000] {
        let mut queue = SendQueue::new();
        // Each is a chunk of its own: only what is borrowed or small is joined to what is there.
        let whole: Vec<u8> = (0..count).map(|number: u32| number as u8).collect();
        whole.iter().for_each(|&byte| queue.push(Bytes::copy_from_slice(&[byte]).into()));
        assert_eq!(queue.chunks(), whole.len());
        let key = driver.send_to(&ours, queue, None, false, TOKEN);
        assert_eq!(sent(driver.next_of(key)).0, whole.len());
        let mut buffer = [0; 10_000];
        let len = theirs.recv(&mut buffer).unwrap();
        assert!(buffer[..len] == whole, "{count}: {len}");
    }
    drop((ours, theirs));
    driver.finish();
}

fn a_lease_that_has_as_many_clones_as_can_be_counted_ends_the_process_before_it_wraps() {
    let mut driver = TestDriver::new();
    let (ours, theirs): (Descriptor, UnixStream) = unix_pair();
    write_all(&theirs, b"held");
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    let lease = received(driver.next_of(key));
    let status = in_forked_child(|| {
        set_lease_count(&lease, usize::MAX - 1);
        let last = lease.clone();
        assert_eq!(last, b"held");
        let _ = lease.clone();
        println!("it has wrapped");
    });
    assert_eq!(status, -libc::SIGABRT);
    drop((lease, ours, theirs));
    driver.finish();
}

/// Bytes that the kernel fills at once, whatever the size of its pages.
const LARGEST: u32 = 0x7fff_0000;
