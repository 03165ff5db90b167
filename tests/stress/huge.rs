//! More bytes at once than the kernel takes in one call, and than 32 bits can count.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringloop::{EventLoop, Protocol, Target, Transport, WriteMode};
use ringloop_tests::clean::on_loop;
use ringloop_tests::isolated::Test;
use ringloop_tests::recorder::Event;
use ringloop_tests::sockets::{noise, pair};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "four_gib_in_one_write_arrive_whole",
        body: four_gib_in_one_write_arrive_whole,
        deadline: Duration::from_secs(240),
    },
    Test {
        name: "four_gib_in_one_writelines_arrive_whole",
        body: four_gib_in_one_writelines_arrive_whole,
        deadline: Duration::from_secs(240),
    },
];

const FOUR_GIB: usize = 4 << 30;
const MIB: usize = 1 << 20;

#[derive(Default)]
struct Writer {
    lost: Event,
}

impl Protocol for Writer {
    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        assert!(error.is_none(), "{error:?}");
        self.lost.set();
    }
}

// spec: WRITE-01
fn four_gib_in_one_write_arrive_whole() {
    // Zeros that nobody has touched take no memory.
    let mut chunk = vec![0; FOUR_GIB + 3];
    chunk[FOUR_GIB..].copy_from_slice(b"end");
    let zeros = vec![0; MIB];
    let is_right = move |place: usize, part: &[u8]| {
        let (before, end) = part.split_at(part.len().min(FOUR_GIB.saturating_sub(place)));
        let offset = place.saturating_sub(FOUR_GIB);
        *before == zeros[..before.len()] && b"end"[offset..].starts_with(end)
    };
    let count = write_and_read(|transport| transport.write(chunk).unwrap(), is_right);
    assert_eq!(count, FOUR_GIB + 3);
}

// spec: WRITE-13
fn four_gib_in_one_writelines_arrive_whole() {
    let noise = noise(MIB);
    let chunk = Bytes::from(noise.clone());
    let count = write_and_read(
        |transport| {
            let chunks = std::iter::repeat_n(chunk, FOUR_GIB / MIB);
            transport.writelines(chunks).unwrap();
        },
        move |place, part| {
            let start = place % MIB;
            let (first, rest) = part.split_at(part.len().min(MIB - start));
            noise[start..].starts_with(first) && noise.starts_with(rest)
        },
    );
    assert_eq!(count, FOUR_GIB);
}

/// Gives how much came, which `is_right` has looked at: each part with its place in the whole.
fn write_and_read(
    write: impl FnOnce(&Transport),
    is_right: impl Fn(usize, &[u8]) -> bool + Send + 'static,
) -> usize {
    on_loop(async move {
        let (ours, theirs) = pair();
        let mut theirs = UnixStream::from(OwnedFd::from(theirs));
        theirs.set_nonblocking(false).unwrap();
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; MIB];
            let mut count = 0;
            loop {
                let len = theirs.read(&mut buffer).unwrap();
                if len == 0 {
                    return count;
                }
                assert!(is_right(count, &buffer[..len]), "at {count}");
                count += len;
            }
        });
        let writer = Rc::new(Writer::default());
        let event_loop = EventLoop::running().unwrap();
        let target = Target::from(ours).write_mode(WriteMode::Batched);
        let made = Rc::clone(&writer);
        let (transport, _) = event_loop.create_connection(|| made, target).await.unwrap();
        write(&transport);
        transport.close();
        drop(transport);
        writer.lost.wait().await;
        reader.join().unwrap()
    })
}
