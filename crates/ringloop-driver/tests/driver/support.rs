//! What the tests share: a driver whose end is checked, connected pairs, and ways to wait for what must come.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringloop_driver::{
    Completion, Descriptor, Driver, DriverConfig, OpKey, Outcome, Readiness, Received, Token, Wait,
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

    pub(crate) fn with(config: &DriverConfig) -> Self {
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

    /// Everything that is there by the end of one wait that does not wait.
    pub(crate) fn ready_now(&mut self) -> Vec<Completion> {
        self.wait(Wait::Now).unwrap();
        std::iter::from_fn(|| self.next_completion()).collect()
    }

    /// Ends the test: what is still in flight, leased or open is a failure.
    pub(crate) fn finish(mut self) {
        let driver = self.driver.take().unwrap();
        let counters = driver.counters();
        assert_eq!(counters.in_flight, 0, "in flight: {counters:?}");
        assert_eq!(counters.leased, 0, "leased: {counters:?}");
        assert_eq!(counters.stale, 0, "stale: {counters:?}");
        drop(driver);
        assert_eq!(open_descriptors(), self.descriptors_before, "descriptors leaked");
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

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn received(completion: Completion) -> Received {
    match completion.outcome {
        Outcome::Received(Ok(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn polled(completion: Completion) -> Readiness {
    match completion.outcome {
        Outcome::Polled(Ok(readiness)) => readiness,
        other => panic!("{other:?}"),
    }
}

/// The errno of a completion that failed.
pub(crate) fn errno(completion: &Completion) -> Option<i32> {
    let error = match &completion.outcome {
        Outcome::Accepted(result) => result.as_ref().err(),
        Outcome::Received(result) => result.as_ref().err(),
        Outcome::Sent(result, _) => result.as_ref().err(),
        Outcome::Connected(result) => result.as_ref().err(),
        Outcome::Polled(result) => result.as_ref().err(),
        _ => None,
    };
    error.and_then(std::io::Error::raw_os_error)
}

pub(crate) fn number(fd: &impl AsRawFd) -> i32 {
    fd.as_raw_fd()
}

pub(crate) const TOKEN: Token = Token(7);

/// How long a test waits for what must come. It only bounds a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
