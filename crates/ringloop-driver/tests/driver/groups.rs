//! A buffer group stays where it is while the kernel may write to one of its buffers.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use ringloop_driver::testing::Faults;
use ringloop_driver::{
    Account, Descriptor, DriverChoice, DriverConfig, OpKey, Received, Token, Wait,
};

use crate::isolated::Test;
use crate::slow_file::SlowFile;
use crate::support::{
    PATIENCE, TOKEN, TestDriver, datagram, is_linux_6_1, received, ring, unix_pair, write_all,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_group_stays_while_a_read_of_a_named_pipe_waits_in_a_kernel_thread,
    a_group_that_an_idle_receive_is_armed_on_stays_and_the_next_one_is_another,
    over_epoll_idle_receives_keep_no_group,
    groups_that_idle_receives_are_armed_on_are_bounded,
    groups_outlive_a_driver_whose_read_of_a_slow_file_does_not_end,
    groups_outlive_a_driver_whose_ops_never_end,
];

const BUFFER: u32 = 128 * 1024;

/// One buffer in each of two groups: a lease of the first takes the rest to the second.
struct Scene {
    driver: TestDriver,
    hoarder: Stream,
    hoard: Option<Received>,
    other: Stream,
    /// Where the buffer of the second group is.
    second: usize,
}

struct Stream {
    key: OpKey,
    _ours: Descriptor,
    theirs: UnixStream,
}

impl Stream {
    fn new(driver: &mut TestDriver) -> Self {
        let (ours, theirs) = unix_pair();
        let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
        Self { key, _ours: ours, theirs }
    }

    fn receive(&self, driver: &mut TestDriver) -> Received {
        write_all(&self.theirs, b"x");
        let bytes = received(driver.next_of(self.key));
        assert!(!bytes.is_copy());
        bytes
    }
}

impl Scene {
    /// For what the kernel does with a ring's buffers while nobody calls it.
    fn of_ring() -> Self {
        Self::with(&ring())
    }

    fn with(config: &DriverConfig) -> Self {
        let (buffers, buffer_size, groups) = (1, BUFFER, 2);
        let config = DriverConfig { buffers, buffer_size, groups, ..config.clone() };
        let mut driver = TestDriver::with(&config);
        let hoarder = Stream::new(&mut driver);
        let hoard = Some(hoarder.receive(&mut driver));
        let other = Stream::new(&mut driver);
        let second = address_of(&other.receive(&mut driver));
        assert_eq!(driver.counters().groups, 2);
        Self { driver, hoarder, hoard, other, second }
    }

    /// Nothing is armed on the second group any more, of what this scene began with.
    fn retire_streams(&mut self) {
        for key in [self.hoarder.key, self.other.key] {
            assert_eq!(self.driver.retire(key).len(), 1);
        }
    }

    /// The pressure is gone, and with it the second group.
    fn relax(&mut self) {
        self.hoard = None;
        while self.driver.counters().groups > 1 {
            self.driver.wait(Wait::Now).unwrap();
        }
    }
}

fn address_of(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr()
}

fn is_mapped(address: usize) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let mut ends =
            line.split([' ', '-']).map(|end| usize::from_str_radix(end, 16).unwrap_or(0));
        let (start, end) = (ends.next().unwrap(), ends.next().unwrap());
        (start..end).contains(&address)
    })
}

/// Enters until a thread of the kernel waits in a function of that name.
fn wait_for_thread_in(function: &str, scene: &mut Scene) {
    let end = Instant::now() + PATIENCE;
    while !is_a_thread_waiting_in(function) {
        assert!(Instant::now() < end, "no thread of the kernel waits there");
        scene.driver.wait(Wait::Now).unwrap();
        let completion = scene.driver.next_completion();
        assert!(completion.is_none(), "{completion:?}");
    }
}

fn is_a_thread_waiting_in(function: &str) -> bool {
    fs::read_dir("/proc/self/task").unwrap().any(|task| {
        let path = task.unwrap().path();
        let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        read("comm").starts_with("iou-wrk") && read("wchan").contains(function)
    })
}

fn a_group_stays_while_a_read_of_a_named_pipe_waits_in_a_kernel_thread() {
    let mut scene = Scene::of_ring();
    scene.retire_streams();
    let path = format!("/tmp/ringloop-pipe-{}", std::process::id());
    let mut writer = crate::sys::named_pipe(&path);
    let ours: Descriptor = OwnedFd::from(fs::File::open(&path).unwrap()).into();
    let mut key = scene.driver.read_multishot(&ours, &Account::new(), TOKEN);
    let end = Instant::now() + PATIENCE;
    // The end of the pipe wakes the read, in vain, until a thread of the kernel has it; the end must be gone when it looks.
    while !is_a_thread_waiting_in("pipe_read") {
        assert!(Instant::now() < end, "no thread of the kernel waits for the pipe");
        drop(writer);
        scene.driver.wait(Wait::Now).unwrap();
        writer = fs::File::options().write(true).open(&path).unwrap();
        if let Some(completion) = scene.driver.next_completion() {
            assert!(!completion.more && received(completion).is_empty());
            key = scene.driver.read_multishot(&ours, &Account::new(), TOKEN);
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(scene.driver.counters().groups, 2);
    scene.relax();
    assert!(is_mapped(scene.second), "the kernel will write there");
    write_all(&writer, b"late");
    let bytes = received(scene.driver.next_of(key));
    assert_eq!((&*bytes, address_of(&bytes)), (&b"late"[..], scene.second));
    drop(bytes);
    assert!(!is_mapped(scene.second), "nobody has it any more");
    scene.driver.retire(key);
    drop((ours, writer, scene.hoarder, scene.other));
    scene.driver.finish();
}

fn a_group_that_an_idle_receive_is_armed_on_stays_and_the_next_one_is_another() {
    if is_linux_6_1(NO_IDLE_RECEIVE) {
        return;
    }
    let mut scene = Scene::of_ring();
    scene.relax();
    assert!(is_mapped(scene.second), "a receive is armed on it");
    // New pressure: what is armed on the old group finds none of the new one's buffers by its number.
    let hoard = scene.hoarder.receive(&mut scene.driver);
    let third = Stream::new(&mut scene.driver);
    let bytes = third.receive(&mut scene.driver);
    assert_ne!(address_of(&bytes), scene.second);
    assert_eq!(scene.driver.counters().groups, 2);
    drop(bytes);
    let bytes = scene.other.receive(&mut scene.driver);
    assert_ne!(address_of(&bytes), scene.second);
    assert!(!is_mapped(scene.second), "nobody has it any more");
    drop((bytes, hoard));
    for stream in [scene.hoarder, scene.other, third] {
        scene.driver.retire(stream.key);
    }
    scene.driver.finish();
}

fn over_epoll_idle_receives_keep_no_group() {
    let epoll = DriverConfig { driver: DriverChoice::Epoll, ..DriverConfig::default() };
    let mut scene = Scene::with(&epoll);
    scene.relax();
    assert!(
        !is_mapped(scene.second),
        "a receive chooses its group when there is something to receive"
    );
    let hoard = scene.hoarder.receive(&mut scene.driver);
    let from_second = scene.other.receive(&mut scene.driver);
    assert_eq!(scene.driver.counters().groups, 2);
    drop((hoard, from_second));
    for stream in [scene.hoarder, scene.other] {
        scene.driver.retire(stream.key);
    }
    scene.driver.finish();
}

fn groups_that_idle_receives_are_armed_on_are_bounded() {
    if is_linux_6_1(NO_IDLE_RECEIVE) {
        return;
    }
    let mut scene = Scene::of_ring();
    scene.relax();
    let mut idle = Vec::new();
    for _ in 0..5 {
        let hoard = scene.hoarder.receive(&mut scene.driver);
        let stream = Stream::new(&mut scene.driver);
        drop(stream.receive(&mut scene.driver));
        idle.push(stream);
        drop(hoard);
        for _ in 0..3 {
            scene.driver.wait(Wait::Now).unwrap();
        }
        // The first one, that of the idle ones, and the one that has gone before.
        assert_eq!(scene.driver.counters().groups, 2);
        assert!(is_mapped(scene.second));
    }
    drop(scene.other.receive(&mut scene.driver));
    assert!(!is_mapped(scene.second), "nobody has it any more");
    idle.extend([scene.hoarder, scene.other]);
    for stream in idle {
        scene.driver.retire(stream.key);
    }
    scene.driver.finish();
}

fn groups_outlive_a_driver_whose_read_of_a_slow_file_does_not_end() {
    let Some(file) = SlowFile::new(BUFFER) else { return };
    let mut scene = Scene::of_ring();
    let key = scene.driver.read_multishot(&file.open(), &Account::new(), TOKEN);
    wait_for_thread_in("folio_wait", &mut scene);
    scene.retire_streams();
    assert!(scene.driver.is_in_flight(key));
    drop(scene.driver.into_driver());
    assert!(is_mapped(scene.second), "the kernel will write there");
    file.answer(7);
    let end = Instant::now() + PATIENCE;
    let last = std::ptr::with_exposed_provenance::<u8>(scene.second + BUFFER as usize - 1);
    // SAFETY: the memory is mapped, as was just seen, and is leaked: it stays.
    let last = || unsafe { last.read_volatile() };
    while last() != 7 {
        assert!(Instant::now() < end, "the read has not ended");
    }
}

fn groups_outlive_a_driver_whose_ops_never_end() {
    if is_linux_6_1(NO_IDLE_RECEIVE) {
        return;
    }
    let withheld = Some(Faults { seed: 1, withheld: 1000, ..Faults::default() });
    let mut scene = Scene::with(&DriverConfig { faults: withheld, ..ring() });
    let first = address_of(scene.hoard.as_ref().unwrap());
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ours: Descriptor = OwnedFd::from(ours).into();
    let key = scene.driver.recv_from_multishot(&ours, &Account::new(), Token(2));
    theirs.send(b"x").unwrap();
    let bytes = datagram(scene.driver.next_of(key)).into_data();
    let of_datagrams = address_of(&bytes);
    drop((bytes, scene.hoard.take()));
    assert!(scene.driver.counters().in_flight == 3);
    drop(scene.driver.into_driver());
    for address in [first, scene.second, of_datagrams] {
        assert!(is_mapped(address), "the kernel may write there");
    }
    assert!(ours.holders() > 1, "the op has it for ever");
}

/// Of Linux 6.1.
const NO_IDLE_RECEIVE: &str = "a receive asks for a buffer before it looks for bytes, so none stays armed on a group without one";
