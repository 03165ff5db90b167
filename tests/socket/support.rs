//! A loop for one test, sockets for it, and single polls.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;

use ringloop::{Error, EventLoop, Received, Result, Socket, Task};
use ringloop_driver::testing::{Faults, close_kept_ring};
use ringloop_tests::clean::on_loop_with;
use ringloop_tests::sockets;

/// Runs `main` on a loop of its own. Afterwards nothing is open, in flight or lent any more.
pub(crate) fn on_loop<F: Future>(main: F) -> F::Output {
    with_faults(None, main)
}

/// The same with faults below.
pub(crate) fn with_faults<F: Future>(faults: Option<Faults>, main: F) -> F::Output {
    let (before, threads) = (open_descriptors(), count_threads());
    let output = on_loop_with(faults, main);
    close_kept_ring();
    // A thread of the executor may still hold the loop's eventfd: nobody waits for its end when the loop is closed.
    while count_threads() > threads {
        thread::yield_now();
    }
    assert_eq!(open_descriptors(), before, "of the caller's future nothing may be open");
    output
}

fn count_threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn running() -> EventLoop {
    EventLoop::running().unwrap()
}

/// One poll, by nobody who could be woken.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a call gives without giving up control.
#[track_caller]
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it gave up control"),
    }
}

/// A connected pair of Unix streams, one of them for the loop.
pub(crate) fn pair() -> (Rc<Socket>, socket2::Socket) {
    let (ours, theirs) = sockets::pair();
    (Rc::new(ours.into()), theirs)
}

/// The same over TCP.
pub(crate) fn tcp_pair() -> (Rc<Socket>, socket2::Socket) {
    let (ours, theirs) = sockets::tcp_pair();
    (Rc::new(ours.into()), theirs)
}

pub(crate) fn listener() -> (Rc<Socket>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (Rc::new(listener.into()), address)
}

/// A UDP socket for the loop, and one that sends to it.
pub(crate) fn udp_pair() -> (Rc<Socket>, UdpSocket) {
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    ours.set_nonblocking(true).unwrap();
    let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Rc::new(ours.into()), theirs)
}

pub(crate) fn receive(socket: &Rc<Socket>, most: usize) -> Task<Result<Received>> {
    let socket = Rc::clone(socket);
    running().create_task(async move { socket.recv(most).await })
}

pub(crate) fn accept(listener: &Rc<Socket>) -> Task<Result<(Socket, ringloop::Address)>> {
    let listener = Rc::clone(listener);
    running().create_task(async move { listener.accept().await })
}

pub(crate) fn send(socket: &Rc<Socket>, data: impl Into<Rc<[u8]>>) -> Task<Result<()>> {
    let (socket, data) = (Rc::clone(socket), data.into());
    running().create_task(async move { socket.sendall(&*data).await })
}

/// The errno of what failed.
#[track_caller]
pub(crate) fn errno<T>(result: Result<T>) -> i32 {
    match result {
        Err(Error::Io(error)) => ringloop::OsError::errno_of(&error).expect("it has an errno"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// The text of an argument that was refused.
#[track_caller]
pub(crate) fn refusal<T>(result: Result<T>) -> String {
    match result {
        Err(error @ Error::InvalidArgument(_)) => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// How many bytes of a stream socket nobody has received.
pub(crate) fn unread(socket: &Socket) -> u64 {
    socket.with_fd(|fd| rustix::io::ioctl_fionread(fd).unwrap()).unwrap()
}
