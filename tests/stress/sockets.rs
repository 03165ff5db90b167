//! Gigabytes through socket calls, in a memory that does not grow with them.

use std::fs;
use std::io::Read;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use ringloop::{EventLoop, Socket};
use ringloop_tests::clean::on_loop;
use ringloop_tests::files::temporary;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{noise, pair, tcp_pair};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "a_file_of_one_gib_is_sent_in_little_memory",
        body: a_file_of_one_gib_is_sent_in_little_memory,
        deadline: Duration::from_secs(300),
    },
    Test {
        name: "four_gib_arrive_whole_in_little_memory",
        body: four_gib_arrive_whole_in_little_memory,
        deadline: Duration::from_secs(300),
    },
];

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;
/// After so many bytes the same ones come again: no buffer, and no page, has a length that divides it.
const PERIOD: usize = MIB - 3;

// spec: SENDFILE-01, SENDFILE-03, RISK-34
fn a_file_of_one_gib_is_sent_in_little_memory() {
    let file = temporary(b"");
    // Nothing but a number now and then: the rest takes no room on the disk.
    file.set_len(GIB as u64).unwrap();
    for place in (0..GIB).step_by(MIB) {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&(place as u64 + 1).to_le_bytes(), place as u64).unwrap();
    }
    let before = most_memory();
    on_loop(async {
        let (ours, mut theirs) = pair();
        theirs.set_nonblocking(false).unwrap();
        let reader = thread::spawn(move || {
            let mut block = vec![0; MIB];
            for place in (0..GIB).step_by(MIB) {
                theirs.read_exact(&mut block).unwrap();
                assert_eq!(block[..8], (place as u64 + 1).to_le_bytes());
                assert!(block[8..].iter().all(|&byte| byte == 0));
            }
        });
        assert_eq!(Socket::from(ours).sendfile(&file).await.unwrap(), GIB as u64);
        reader.join().unwrap();
    });
    let grown = most_memory() - before;
    assert!(grown < 64 * MIB, "{grown} bytes");
}

// spec: SOCK-40, SOCK-41, SOCK-50
fn four_gib_arrive_whole_in_little_memory() {
    let noise: Rc<[u8]> = noise(PERIOD).into();
    let before = most_memory();
    on_loop(async {
        let (left, right) = tcp_pair();
        let (left, right) = (Rc::new(Socket::from(left)), Rc::new(Socket::from(right)));
        let event_loop = EventLoop::running().unwrap();
        let sends = [&left, &right].map(|socket| {
            event_loop.create_task(send_two_gib(Rc::clone(socket), Rc::clone(&noise)))
        });
        let leased = receive_two_gib(Rc::clone(&right), Rc::clone(&noise), false);
        let copied = receive_two_gib(Rc::clone(&left), Rc::clone(&noise), true);
        let receives = [event_loop.create_task(leased), event_loop.create_task(copied)];
        for task in sends.into_iter().chain(receives) {
            task.await.unwrap();
        }
    });
    let grown = most_memory() - before;
    assert!(grown < 64 * MIB, "{grown} bytes");
}

async fn send_two_gib(socket: Rc<Socket>, noise: Rc<[u8]>) {
    let mut sent = 0;
    while sent < 2 * GIB {
        let rest = &noise[sent % PERIOD..];
        let rest = &rest[..rest.len().min(2 * GIB - sent)];
        socket.sendall(rest).await.unwrap();
        sent += rest.len();
    }
}

async fn receive_two_gib(socket: Rc<Socket>, noise: Rc<[u8]>, into_a_slice: bool) {
    let mut buffer = vec![0; MIB];
    let mut place = 0;
    while place < 2 * GIB {
        let lease;
        let received = if into_a_slice {
            let count = socket.recv_into(&mut buffer).await.unwrap();
            &buffer[..count]
        } else {
            lease = socket.recv(MIB).await.unwrap();
            &lease[..]
        };
        assert!(!received.is_empty(), "the end at {place}");
        let (first, rest) = received.split_at(received.len().min(PERIOD - place % PERIOD));
        let is_right = noise[place % PERIOD..].starts_with(first) && noise.starts_with(rest);
        assert!(is_right, "at {place}");
        place += received.len();
    }
    assert_eq!(place, 2 * GIB);
}

/// The most that this process has had at a time, in bytes.
fn most_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
