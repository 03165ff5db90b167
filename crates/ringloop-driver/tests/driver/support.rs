//! What the tests share: a driver whose end is checked, connected pairs, and ways to wait for what must come.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringloop_driver::{
    Chunk, Completion, Datagram, Descriptor, Driver, DriverChoice, DriverConfig, DriverKind,
    Features, OpKey, Outcome, Readiness, Received, RingCounters, SendQueue, Token, Wait,
};

/// A driver that is checked when the test ends: no op in flight, no buffer leased, nothing stale, no descriptor left.
pub(crate) struct TestDriver {
    driver: Option<Driver>,
    descriptors_before: usize,
}

impl TestDriver {
    pub(crate) fn new() -> Self {
        Self::with(&DriverConfig::default())
    }

    /// A ring, whichever driver the other tests have: for what a ring does and epoll does not.
    pub(crate) fn of_ring() -> Self {
        Self::with(&ring())
    }

    pub(crate) fn with(config: &DriverConfig) -> Self {
        // From then on the thread keeps a ring, whatever the test does.
        drop(Driver::new(config).unwrap());
        let descriptors_before = open_descriptors();
        Self { driver: Some(Driver::new(config).unwrap()), descriptors_before }
    }

    /// Waits for the next completion.
    pub(crate) fn next(&mut self) -> Completion {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.next_completion() {
                return completion;
            }
            assert!(Instant::now() < end, "no completion came");
            self.wait(Wait::Until(end)).unwrap();
        }
    }

    /// Waits for the next completion of `key`; one of another op is a mistake of the test.
    pub(crate) fn next_of(&mut self, key: OpKey) -> Completion {
        let completion = self.next();
        assert_eq!(completion.key, key, "{completion:?}");
        completion
    }

    /// Everything that comes in one iteration, which does not wait.
    pub(crate) fn ready_now(&mut self) -> Vec<Completion> {
        self.wait(Wait::Now).unwrap();
        std::iter::from_fn(|| self.next_completion()).collect()
    }

    /// Everything that is there already: as many iterations as bring something.
    pub(crate) fn all_ready(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        loop {
            let some = self.ready_now();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// Whether io_uring does the work; epoll may need more calls for it.
    pub(crate) fn is_ring(&self) -> bool {
        self.info().driver == DriverKind::Uring
    }

    /// Whether the driver has `feature`, of Linux `since`; else the test is skipped. It must be there on such a kernel,
    /// unless it is masked.
    pub(crate) fn has(&self, feature: Features, since: (u32, u32)) -> bool {
        let has = self.info().features.contains(feature);
        if !has {
            let masked = DriverConfig::default().mask.contains(feature);
            assert!(masked || kernel_version() < since, "not found: {feature:?}");
            println!("skipped: needs {feature:?} ({}.{})", since.0, since.1);
        }
        has
    }

    /// Waits until nothing is in flight, and gives all that came.
    pub(crate) fn run_out(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        while self.counters().in_flight > 0 {
            all.push(self.next());
        }
        all.extend(std::iter::from_fn(|| self.next_completion()));
        all
    }

    /// The driver alone, unchecked.
    pub(crate) fn into_driver(mut self) -> Driver {
        self.driver.take().unwrap()
    }

    /// As [`finish`](Self::finish), where the drop of the driver is what is tested.
    pub(crate) fn finish_with_ops_in_flight(mut self) {
        let driver = self.driver.take().unwrap();
        assert_ne!(driver.counters().in_flight, 0);
        drop(driver);
        self.assert_no_descriptor_is_left();
    }

    /// Ends the test: what is still in flight, leased or open is a failure.
    pub(crate) fn finish(mut self) {
        let driver = self.driver.take().unwrap();
        let counters = driver.counters();
        assert_eq!(counters.in_flight, 0, "in flight: {counters:?}");
        assert_eq!(counters.leased, 0, "leased: {counters:?}");
        assert_eq!(counters.stale, 0, "stale: {counters:?}");
        drop(driver);
        self.assert_no_descriptor_is_left();
    }

    fn assert_no_descriptor_is_left(&self) {
        let names: Vec<_> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        assert_eq!(open_descriptors(), self.descriptors_before, "not all are closed: {names:?}");
    }
}

impl Deref for TestDriver {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.driver.as_ref().unwrap()
    }
}

impl DerefMut for TestDriver {
    fn deref_mut(&mut self) -> &mut Driver {
        self.driver.as_mut().unwrap()
    }
}

/// For what a ring does and epoll does not: a ring, whichever driver the other tests have.
pub(crate) fn ring() -> DriverConfig {
    DriverConfig { driver: DriverChoice::Uring, ..DriverConfig::default() }
}

/// What has become of the queues of a driver that is a ring.
pub(crate) fn ring_counters(driver: &Driver) -> RingCounters {
    driver.counters().ring.expect("a ring")
}

/// A stream of the driver's, and the peer that the test plays.
pub(crate) fn unix_pair() -> (Descriptor, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (OwnedFd::from(ours).into(), theirs)
}

pub(crate) fn tcp_pair() -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    (OwnedFd::from(ours).into(), theirs)
}

pub(crate) fn write_all(mut peer: impl Write, bytes: &[u8]) {
    peer.write_all(bytes).unwrap();
}

pub(crate) fn read_exact(mut peer: impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

/// The peer sees the end of the stream, and nothing before it.
pub(crate) fn assert_at_end(mut peer: impl Read) {
    assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
}

/// Whether this is Linux 6.1, which differs from later kernels in what is said here: then what does not hold there is skipped.
pub(crate) fn is_linux_6_1(difference: &str) -> bool {
    let is = kernel_version() == (6, 1);
    if is {
        println!("skipped in part: {difference}");
    }
    is
}

fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse());
    (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap())
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn received(completion: Completion) -> Received {
    match completion.outcome {
        Outcome::Received(Ok(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

/// The same, and nothing of a receive that was cancelled: by its owner, or since it had read as far ahead as it may.
pub(crate) fn received_or_cancelled(outcome: Outcome) -> Received {
    match outcome {
        Outcome::Received(Ok(bytes)) => bytes,
        Outcome::Received(Err(error)) if error.raw_os_error() == Some(libc::ECANCELED) => {
            Received::default()
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn polled(completion: Completion) -> Readiness {
    match completion.outcome {
        Outcome::Polled(Ok(readiness)) => readiness,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn accepted(completion: Completion) -> Descriptor {
    match completion.outcome {
        Outcome::Accepted(Ok(fd)) => fd,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn datagram(completion: Completion) -> Datagram {
    match completion.outcome {
        Outcome::Datagram(Ok(datagram)) => datagram,
        other => panic!("{other:?}"),
    }
}

/// How much the kernel took, and the queue, advanced by it.
pub(crate) fn sent(completion: Completion) -> (usize, SendQueue) {
    match completion.outcome {
        Outcome::Sent(Ok(count), mut queue) => {
            queue.advance(count);
            (count, queue)
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn queue_of(chunk: impl Into<Chunk<'static>>) -> SendQueue {
    let mut queue = SendQueue::new();
    queue.push(chunk.into());
    queue
}

/// A stream that the kernel takes no more bytes for.
pub(crate) fn fill(mut peer: impl Write) -> usize {
    let chunk = [0; 4096];
    let mut count = 0;
    loop {
        match peer.write(&chunk) {
            Ok(written) => count += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The errno of a completion that failed.
pub(crate) fn errno(completion: &Completion) -> Option<i32> {
    let error = match &completion.outcome {
        Outcome::Datagram(result) => result.as_ref().err(),
        Outcome::ShutDown(result) => result.as_ref().err(),
        Outcome::Accepted(result) => result.as_ref().err(),
        Outcome::Received(result) => result.as_ref().err(),
        Outcome::Sent(result, _) => result.as_ref().err(),
        Outcome::Connected(result) => result.as_ref().err(),
        Outcome::Polled(result) => result.as_ref().err(),
        _ => None,
    };
    error.and_then(std::io::Error::raw_os_error)
}

pub(crate) const TOKEN: Token = Token(7);

/// How long a test waits for what must come. It only bounds a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
