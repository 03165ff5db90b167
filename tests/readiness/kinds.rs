//! Every kind of descriptor that `epoll` takes.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::rc::Rc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use ringloop::{Error, EventLoop};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{address_of, connect, listener, pair, tcp_pair};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::inotify;
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::support::{Count, fill, holding, receive, send, turn, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_unix_socket,
    a_tcp_socket,
    a_datagram_socket,
    a_listening_socket,
    a_descriptor_that_blocks,
    a_pipe_for_reading,
    a_pipe_for_writing,
    a_terminal_and_its_master,
    an_eventfd_in_both_directions,
    a_timerfd,
    a_signalfd,
    a_pidfd,
    an_inotify,
    an_epoll,
    regular_files_and_what_is_always_ready_are_refused_with_eperm,
    a_negative_number_is_refused_as_an_argument,
    a_number_that_is_not_open_is_refused_with_ebadf,
];

/// The reader waits, runs when there is something, in each iteration until that is taken, and waits again.
fn assert_readable_until_taken<F: AsRawFd>(
    event_loop: &EventLoop,
    fd: F,
    make_ready: impl FnOnce(),
    take: impl FnOnce(&F),
) {
    let calls = assert_readable(event_loop, &fd, make_ready);
    take(&fd);
    let before = calls.get();
    turn(event_loop);
    assert_eq!(calls.get(), before, "all was taken");
    assert!(event_loop.remove_reader(&fd).unwrap());
}

/// The reader waits, runs when there is something, and in each iteration from then on.
fn assert_readable(event_loop: &EventLoop, fd: &impl AsRawFd, make_ready: impl FnOnce()) -> Count {
    let calls = Count::default();
    event_loop.add_reader(fd, calls.stopping()).unwrap();
    turn(event_loop);
    turn(event_loop);
    assert_eq!(calls.get(), 0, "there is nothing yet");
    make_ready();
    event_loop.run_forever().unwrap();
    turn(event_loop);
    assert_eq!(calls.get(), 2);
    calls
}

fn read_all(fd: impl AsFd) -> usize {
    read(fd, &mut [0; 4096]).unwrap()
}

// spec: READY-12, RISK-39
fn a_unix_socket() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let take = |ours: &_| assert_eq!(receive(ours, 9), b"x");
        assert_readable_until_taken(event_loop, ours, || send(&theirs, b"x"), take);
    });
}

// spec: READY-12, RISK-39
fn a_tcp_socket() {
    with_loop(|event_loop| {
        let (ours, theirs) = tcp_pair();
        let take = |ours: &_| assert_eq!(receive(ours, 9), b"x");
        assert_readable_until_taken(event_loop, ours, || send(&theirs, b"x"), take);
    });
}

// spec: READY-12, RISK-39
fn a_datagram_socket() {
    with_loop(|event_loop| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let make_ready = || assert_eq!(theirs.send(b"").unwrap(), 0);
        let take = |ours: &UnixDatagram| assert_eq!(ours.recv(&mut [0]).unwrap(), 0);
        assert_readable_until_taken(event_loop, ours, make_ready, take);
    });
}

// spec: READY-13, READY-12
fn a_listening_socket() {
    with_loop(|event_loop| {
        let listener = listener(1);
        let address = address_of(&listener);
        let mut client = None;
        let make_ready = || client = Some(connect(address));
        assert_readable_until_taken(event_loop, listener, make_ready, |listener| {
            drop(listener.accept().unwrap());
        });
        drop(client);
    });
}

// spec: READY-13
fn a_descriptor_that_blocks() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        ours.set_nonblocking(false).unwrap();
        let take = |ours: &_| assert_eq!(receive(ours, 9), b"x");
        assert_readable_until_taken(event_loop, ours, || send(&theirs, b"x"), take);
    });
}

// spec: READY-12, RISK-39, READY-08
fn a_pipe_for_reading() {
    with_loop(|event_loop| {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let fd = reader.as_raw_fd();
        let make_ready = || assert_eq!(write(&writer, b"x").unwrap(), 1);
        assert_readable_until_taken(event_loop, fd, make_ready, |_| {
            assert_eq!(read_all(&reader), 1);
        });
        assert_readable(event_loop, &reader, || drop(writer));
        assert_eq!(read_all(&reader), 0, "that was its end");
        event_loop.remove_reader(&reader).unwrap();
    });
}

// spec: READY-13, READY-08, RISK-39
fn a_pipe_for_writing() {
    with_loop(|event_loop| {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let calls = Count::default();
        event_loop.add_writer(&writer, calls.stopping()).unwrap();
        turn(event_loop);
        assert_eq!(calls.get(), 1, "an empty pipe has room");
        fill(&writer);
        turn(event_loop);
        turn(event_loop);
        assert_eq!(calls.get(), 1, "a full one has none");
        while read(&reader, &mut [0; 4096]).is_ok() {}
        event_loop.run_forever().unwrap();
        assert_eq!(calls.get(), 2);
        fill(&writer);
        turn(event_loop);
        assert_eq!(calls.get(), 2);
        drop(reader);
        event_loop.run_forever().unwrap();
        assert_eq!(calls.get(), 3, "nobody will read any more");
        assert_eq!(write(&writer, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        event_loop.remove_writer(&writer).unwrap();
    });
}

// spec: READY-12, RISK-39
fn a_terminal_and_its_master() {
    with_loop(|event_loop| {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let mut mode = tcgetattr(&terminal).unwrap();
        mode.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &mode).unwrap();
        for (ours, theirs) in [(&terminal, &master), (&master, &terminal)] {
            let calls = Count::default();
            event_loop.add_writer(ours, calls.callback()).unwrap();
            turn(event_loop);
            assert_eq!(calls.get(), 1);
            event_loop.remove_writer(ours).unwrap();
            let make_ready = || assert_eq!(write(theirs, b"x").unwrap(), 1);
            assert_readable_until_taken(event_loop, ours.as_raw_fd(), make_ready, |_| {
                assert_eq!(read_all(ours), 1);
            });
        }
    });
}

// spec: READY-12, RISK-39
fn an_eventfd_in_both_directions() {
    with_loop(|event_loop| {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let writes = Count::default();
        event_loop.add_writer(&fd, writes.callback()).unwrap();
        turn(event_loop);
        assert_eq!(writes.get(), 1);
        let most = (u64::MAX - 1).to_ne_bytes();
        write(&fd, &most).unwrap();
        turn(event_loop);
        assert_eq!(writes.get(), 1, "it takes no more");
        event_loop.remove_writer(&fd).unwrap();
        read_all(&fd);
        let make_ready = || assert_eq!(write(&fd, &1_u64.to_ne_bytes()).unwrap(), 8);
        assert_readable_until_taken(event_loop, fd.as_raw_fd(), make_ready, |_| {
            assert_eq!(read_all(&fd), 8);
        });
    });
}

// spec: READY-12, RISK-39
fn a_timerfd() {
    with_loop(|event_loop| {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).unwrap();
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let soon = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: 0, tv_nsec: 1 } };
        let make_ready = || {
            timerfd_settime(&fd, TimerfdTimerFlags::empty(), &soon).unwrap();
        };
        assert_readable_until_taken(event_loop, fd.as_raw_fd(), make_ready, |_| {
            assert_eq!(read_all(&fd), 8);
        });
    });
}

// spec: READY-12, RISK-39
fn a_signalfd() {
    with_loop(|event_loop| {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGUSR1);
        signals.thread_block().unwrap();
        let fd = SignalFd::new(&signals).unwrap();
        let make_ready = || nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
        assert_readable_until_taken(event_loop, fd, make_ready, |fd| {
            let signal = fd.read_signal().unwrap().unwrap();
            assert_eq!(signal.ssi_signo, Signal::SIGUSR1 as u32);
        });
    });
}

// spec: READY-12, RISK-39
fn a_pidfd() {
    with_loop(|event_loop| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let fd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let input = child.stdin.take();
        assert_readable(event_loop, &fd, || drop(input));
        assert!(child.wait().unwrap().success());
        event_loop.remove_reader(&fd).unwrap();
    });
}

// spec: READY-12, RISK-39
fn an_inotify() {
    with_loop(|event_loop| {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let folder = std::env::temp_dir().join(format!("ringloop-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        inotify::add_watch(&fd, &folder, inotify::WatchFlags::CREATE).unwrap();
        let file = folder.join("file");
        let make_ready = || drop(File::create(&file).unwrap());
        assert_readable_until_taken(event_loop, fd.as_raw_fd(), make_ready, |_| {
            assert!(read_all(&fd) > 0);
        });
        fs::remove_dir_all(&folder).unwrap();
    });
}

// spec: READY-12, RISK-39
fn an_epoll() {
    with_loop(|event_loop| {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (ours, theirs) = pair();
        let data = epoll::EventData::new_u64(0);
        epoll::add(&fd, &ours, data, epoll::EventFlags::IN).unwrap();
        assert_readable_until_taken(
            event_loop,
            fd,
            || send(&theirs, b"x"),
            |_| {
                receive(&ours, 9);
            },
        );
    });
}

// spec: READY-12, RISK-39
fn regular_files_and_what_is_always_ready_are_refused_with_eperm() {
    with_loop(|event_loop| {
        for path in ["/proc/self/exe", "/proc/self/status", "/dev/null", "/"] {
            let file = File::open(path).unwrap();
            for refused in
                [event_loop.add_reader(&file, |_| ()), event_loop.add_writer(&file, |_| ())]
            {
                assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM), "{path}");
            }
            assert!(!event_loop.remove_reader(&file).unwrap());
        }
    });
}

// spec: READY-12
fn a_negative_number_is_refused_as_an_argument() {
    fn assert_refused<T: Debug>(result: Result<T, Error>) {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        assert_eq!(error.to_string(), "Invalid file descriptor: -1");
    }
    with_loop(|event_loop| {
        assert_refused(event_loop.add_reader(&-1, |_| ()));
        assert_refused(event_loop.add_writer(&-1, |_| ()));
        assert_refused(event_loop.remove_reader(&-1));
        assert_refused(event_loop.remove_writer(&-1));
    });
}

// spec: READY-12, RISK-39
fn a_number_that_is_not_open_is_refused_with_ebadf() {
    with_loop(|event_loop| {
        let closed = 999;
        for refused in
            [event_loop.add_reader(&closed, |_| ()), event_loop.add_writer(&closed, |_| ())]
        {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
        let held = Rc::new(());
        event_loop.add_reader(&closed, holding(Rc::clone(&held))).unwrap_err();
        assert_eq!(Rc::strong_count(&held), 1, "the callback of a refused watch is dropped");
    });
}
