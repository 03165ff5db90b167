//! `AsyncFd`: futures for the readiness of what one owns.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringloop::{AsyncFd, Error, EventLoop, timeout};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{End, drain, pair};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use socket2::Socket;

use crate::support::{fill, receive, send, while_asleep, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    readable_waits_for_something_and_takes_nothing,
    readable_is_ready_again_until_all_is_read,
    readable_wakes_at_the_end_of_the_stream,
    writable_waits_for_room,
    read_with_tries_until_it_gives_anything_but_would_block,
    write_with_sends_all_that_a_slow_peer_takes,
    an_error_of_the_attempt_is_given_as_it_is,
    an_attempt_that_was_interrupted_is_repeated_without_waiting,
    all_that_wait_are_woken_together,
    both_directions_are_waited_for_at_a_time,
    a_wait_that_is_dropped_loses_nothing_and_leaves_nothing_in_the_kernel,
    a_wait_that_is_dropped_leaves_the_others_waiting,
    a_wait_that_times_out_loses_nothing,
    a_wait_that_was_called_needs_no_other_call,
    a_handle_of_those_who_left_wakes_nobody_who_came_later,
    an_idle_one_has_no_op_in_flight,
    a_waiting_one_lets_the_loop_sleep,
    into_inner_gives_it_back_unwatched,
    dropping_it_closes_the_descriptor,
    a_wait_fails_once_the_loop_is_closed,
    it_may_outlive_its_loop,
    a_task_that_waits_is_let_go_of_with_its_loop,
    what_is_always_ready_is_refused_with_eperm,
    it_needs_a_running_loop,
    wakers_may_use_it_while_they_are_cloned_woken_and_dropped,
    an_eventfd_counts_from_task_to_task,
    a_pidfd_waits_for_its_process,
];

/// Runs `main` on a loop of its own, at whose end nothing is left.
fn run<F: Future<Output = ()>>(main: impl FnOnce(EventLoop) -> F) {
    with_loop(|event_loop| {
        event_loop.run_until_complete(main(event_loop.clone())).unwrap();
    });
}

/// An owner of one end, and the other.
fn owned_pair() -> (AsyncFd<Socket>, Socket) {
    let (ours, theirs) = pair();
    (AsyncFd::new(ours).unwrap(), theirs)
}

async fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    let mut future = future;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn read_some(mut socket: &Socket) -> io::Result<Vec<u8>> {
    let mut data = vec![0; 64];
    let length = io::Read::read(&mut socket, &mut data)?;
    data.truncate(length);
    Ok(data)
}

// spec: READY-12, READY-15
fn readable_waits_for_something_and_takes_nothing() {
    run(async |_| {
        let (ours, theirs) = owned_pair();
        let mut readable = pin!(ours.readable());
        assert!(poll_once(readable.as_mut()).await.is_none());
        turn(3).await;
        assert!(poll_once(readable.as_mut()).await.is_none());
        send(&theirs, b"x");
        readable.await.unwrap();
        assert_eq!(receive(ours.get_ref(), 9), b"x");
    });
}

// spec: READY-01
fn readable_is_ready_again_until_all_is_read() {
    run(async |_| {
        let (ours, theirs) = owned_pair();
        send(&theirs, &[1, 2, 3]);
        for byte in 1..=3 {
            ours.readable().await.unwrap();
            assert_eq!(receive(ours.get_ref(), 1), [byte]);
        }
        let mut readable = pin!(ours.readable());
        assert!(poll_once(readable.as_mut()).await.is_none());
        turn(3).await;
        assert!(poll_once(readable.as_mut()).await.is_none());
    });
}

// spec: READY-08
fn readable_wakes_at_the_end_of_the_stream() {
    run(async |_| {
        let (ours, theirs) = owned_pair();
        drop(theirs);
        ours.readable().await.unwrap();
        assert_eq!(ours.read_with(read_some).await.unwrap(), b"");
    });
}

// spec: READY-13
fn writable_waits_for_room() {
    run(async |_| {
        let (ours, theirs) = owned_pair();
        ours.writable().await.unwrap();
        fill(ours.get_ref());
        let mut writable = pin!(ours.writable());
        assert!(poll_once(writable.as_mut()).await.is_none());
        turn(3).await;
        assert!(poll_once(writable.as_mut()).await.is_none());
        drain(&theirs);
        writable.await.unwrap();
    });
}

// spec: READY-03
fn read_with_tries_until_it_gives_anything_but_would_block() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let ours = Rc::new(ours);
        let (socket, tries) = (Rc::clone(&ours), Rc::new(Cell::new(0)));
        let count = Rc::clone(&tries);
        let task = event_loop.spawn(async move {
            let attempt = |socket: &Socket| {
                count.set(count.get() + 1);
                read_some(socket)
            };
            socket.read_with(attempt).await.unwrap()
        });
        turn(3).await;
        assert_eq!(tries.get(), 1);
        send(&theirs, b"taken by somebody else");
        // In the iteration of its step, but before that.
        turn(2).await;
        receive(ours.get_ref(), 64);
        turn(3).await;
        assert_eq!(tries.get(), 2);
        send(&theirs, b"hello");
        assert_eq!(task.await.unwrap(), b"hello");
        assert_eq!(tries.get(), 3);
    });
}

fn write_with_sends_all_that_a_slow_peer_takes() {
    run(async |event_loop| {
        const LENGTH: usize = 1 << 20;
        let (ours, theirs) = owned_pair();
        let writer = event_loop.spawn(async move {
            let data = vec![7; LENGTH];
            let mut sent = 0;
            while sent < LENGTH {
                let attempt = |mut socket: &Socket| io::Write::write(&mut socket, &data[sent..]);
                sent += ours.write_with(attempt).await.unwrap();
            }
        });
        let theirs = AsyncFd::new(theirs).unwrap();
        let mut received = 0;
        loop {
            match theirs.read_with(read_some).await.unwrap().len() {
                0 => break,
                length => received += length,
            }
        }
        writer.await.unwrap();
        assert_eq!(received, LENGTH);
    });
}

fn an_error_of_the_attempt_is_given_as_it_is() {
    run(async |_| {
        let (ours, _theirs) = owned_pair();
        let broken = |_: &Socket| Err::<(), _>(io::Error::from_raw_os_error(libc::EIO));
        let error = ours.read_with(broken).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let error = ours.write_with(broken).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    });
}

fn an_attempt_that_was_interrupted_is_repeated_without_waiting() {
    run(async |_| {
        let (ours, _theirs) = owned_pair();
        let mut results = [Err(io::ErrorKind::Interrupted.into()), Ok(7)].into_iter();
        let mut read = pin!(ours.read_with(move |_| results.next().unwrap()));
        assert_eq!(poll_once(read.as_mut()).await.unwrap().unwrap(), 7);
    });
}

fn all_that_wait_are_woken_together() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let ours = Rc::new(ours);
        let woken = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (ours, woken) = (Rc::clone(&ours), Rc::clone(&woken));
            let waiter = async move {
                ours.readable().await.unwrap();
                woken.set(woken.get() + 1);
            };
            drop(event_loop.spawn(waiter));
        }
        turn(3).await;
        assert_eq!(woken.get(), 0);
        send(&theirs, b"x");
        // The handle calls them in the first iteration, they take their steps in the second.
        turn(3).await;
        assert_eq!(woken.get(), 5);
        assert_eq!(event_loop.stats().tasks, 1);
    });
}

// spec: READY-04
fn both_directions_are_waited_for_at_a_time() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        fill(ours.get_ref());
        let mut readable = pin!(ours.readable());
        let mut writable = pin!(ours.writable());
        assert!(poll_once(readable.as_mut()).await.is_none());
        turn(2).await;
        assert!(poll_once(writable.as_mut()).await.is_none());
        turn(2).await;
        assert_eq!(event_loop.stats().in_flight, 1, "one op for both");
        send(&theirs, b"x");
        readable.await.unwrap();
        assert!(poll_once(writable.as_mut()).await.is_none());
        drain(&theirs);
        writable.await.unwrap();
    });
}

// spec: READY-06, RISK-11, RISK-12
fn a_wait_that_is_dropped_loses_nothing_and_leaves_nothing_in_the_kernel() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        for is_armed in [false, true] {
            {
                let mut read = pin!(ours.read_with(read_some));
                assert!(poll_once(read.as_mut()).await.is_none());
                if is_armed {
                    turn(1).await;
                    assert_eq!(event_loop.stats().in_flight, 1);
                }
                send(&theirs, b"x");
            }
            assert_eq!(event_loop.stats().in_flight, 0);
            turn(2).await;
            assert_eq!(ours.read_with(read_some).await.unwrap(), b"x");
        }
    });
}

fn a_wait_that_is_dropped_leaves_the_others_waiting() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let mut first = Box::pin(ours.readable());
        let mut second = Box::pin(ours.readable());
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(poll_once(second.as_mut()).await.is_none());
        turn(1).await;
        drop(first);
        assert_eq!(event_loop.stats().in_flight, 1);
        send(&theirs, b"x");
        second.await.unwrap();
        let mut third = Box::pin(ours.writable());
        assert!(poll_once(third.as_mut()).await.is_none());
        let mut fourth = Box::pin(ours.readable());
        assert!(poll_once(fourth.as_mut()).await.is_none());
        drop(third);
        fourth.await.unwrap();
    });
}

fn a_wait_that_times_out_loses_nothing() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let waited = timeout(Duration::from_millis(1), ours.read_with(read_some)).await;
        assert!(matches!(waited, Err(Error::Timeout)), "{waited:?}");
        assert_eq!(event_loop.stats().in_flight, 0);
        send(&theirs, b"x");
        turn(2).await;
        assert_eq!(ours.read_with(read_some).await.unwrap(), b"x");
    });
}

fn a_wait_that_was_called_needs_no_other_call() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let mut readable = pin!(ours.readable());
        assert!(poll_once(readable.as_mut()).await.is_none());
        send(&theirs, b"x");
        turn(2).await;
        receive(ours.get_ref(), 9);
        turn(2).await;
        assert!(poll_once(readable.as_mut()).await.is_some(), "it was ready in between");
        assert_eq!(event_loop.stats().in_flight, 0);
    });
}

// spec: READY-06, RISK-11
fn a_handle_of_those_who_left_wakes_nobody_who_came_later() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let ours = Rc::new(ours);
        let wait = |ours: &Rc<AsyncFd<Socket>>| {
            let ours = Rc::clone(ours);
            Box::pin(async move { ours.readable().await })
        };
        let mut first = wait(&ours);
        let second = Rc::new(RefCell::new(wait(&ours)));
        assert!(poll_idly(first.as_mut()).is_pending());
        turn(1).await;
        send(&theirs, b"x");
        let (socket, comes) = (Rc::clone(&ours), Rc::clone(&second));
        // In the queue before the handle of the first wait, which is queued when the next iteration polls.
        let replace = move |_: &EventLoop| {
            drop(first);
            receive(socket.get_ref(), 9);
            assert!(poll_idly(comes.borrow_mut().as_mut()).is_pending());
        };
        event_loop.call_soon(replace).unwrap();
        turn(3).await;
        assert!(poll_idly(second.borrow_mut().as_mut()).is_pending());
        send(&theirs, b"y");
        turn(3).await;
        assert!(poll_idly(second.borrow_mut().as_mut()).is_ready());
    });
}

/// Polls for nobody.
fn poll_idly<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn an_idle_one_has_no_op_in_flight() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        send(&theirs, b"x");
        turn(1).await;
        let before = event_loop.counters();
        turn(5).await;
        let after = event_loop.counters();
        assert_eq!((after.submitted, after.in_flight), (before.submitted, 0));
        ours.readable().await.unwrap();
        assert_eq!(event_loop.counters().in_flight, 0);
    });
}

fn a_waiting_one_lets_the_loop_sleep() {
    with_loop(|event_loop| {
        let task = event_loop.spawn(async {
            let (ours, _theirs) = owned_pair();
            ours.readable().await
        });
        crate::support::turn(event_loop);
        assert_eq!(while_asleep(event_loop), (0, 0));
        task.cancel();
        event_loop.run_until_complete(task).unwrap().unwrap_err();
    });
}

fn into_inner_gives_it_back_unwatched() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        let ours = ours.into_inner();
        assert_eq!(event_loop.stats().sources, 0);
        send(&theirs, b"x");
        assert_eq!(receive(&ours, 9), b"x");
        AsyncFd::new(ours).unwrap().writable().await.unwrap();
    });
}

// spec: RISK-08
fn dropping_it_closes_the_descriptor() {
    run(async |event_loop| {
        let (ours, theirs) = owned_pair();
        drop(ours);
        assert_eq!(drain(&theirs).1, End::Eof);
        assert_eq!(event_loop.stats().sources, 0);
    });
}

// spec: READY-14
fn a_wait_fails_once_the_loop_is_closed() {
    with_loop(|_| {
        let event_loop = EventLoop::new().unwrap();
        let (ours, theirs) = event_loop.run_until_complete(async { owned_pair() }).unwrap();
        let mut waits = Box::pin(ours.readable());
        assert!(poll_idly(waits.as_mut()).is_pending());
        crate::support::turn(&event_loop);
        send(&theirs, b"x");
        event_loop.close().unwrap();
        let mut comes_later = Box::pin(ours.readable());
        for future in [&mut waits, &mut comes_later] {
            match poll_idly(future.as_mut()) {
                Poll::Ready(Err(Error::State(text))) => assert_eq!(text, "Event loop is closed"),
                other => panic!("{other:?}"),
            }
        }
        drop(event_loop);
        assert!(matches!(poll_idly(Box::pin(ours.writable()).as_mut()), Poll::Ready(Err(_))));
    });
}

fn it_may_outlive_its_loop() {
    with_loop(|_| {
        let event_loop = EventLoop::new().unwrap();
        let (ours, theirs) = event_loop.run_until_complete(async { owned_pair() }).unwrap();
        let mut waits = Box::pin(ours.readable());
        assert!(poll_idly(waits.as_mut()).is_pending());
        crate::support::turn(&event_loop);
        drop(event_loop);
        drop(waits);
        send(&theirs, b"x");
        assert_eq!(receive(ours.get_ref(), 9), b"x", "the descriptor is its owner's");
        drop(ours);
        assert_eq!(drain(&theirs).1, End::Eof);
    });
}

fn a_task_that_waits_is_let_go_of_with_its_loop() {
    with_loop(|_| {
        let event_loop = EventLoop::new().unwrap();
        event_loop.set_exception_handler(|_, _| ());
        let (ours, theirs) = pair();
        let waits = async move { AsyncFd::new(ours).unwrap().readable().await };
        drop(event_loop.spawn(waits));
        crate::support::turn(&event_loop);
        crate::support::turn(&event_loop);
        assert_eq!(event_loop.stats().in_flight, 1);
        event_loop.close().unwrap();
        assert_eq!(drain(&theirs).1, End::Eof);
    });
}

// spec: READY-12, RISK-39
fn what_is_always_ready_is_refused_with_eperm() {
    run(async |event_loop| {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = AsyncFd::new(file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_eq!(event_loop.stats().sources, 0);
    });
}

fn it_needs_a_running_loop() {
    with_loop(|_| {
        let error = AsyncFd::new(pair().0).unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error:?}");
        assert_eq!(error.to_string(), "no running event loop");
    });
}

thread_local! {
    /// What a [`Meddler`] meddles with.
    static TARGET: RefCell<Option<Rc<AsyncFd<Socket>>>> = const { RefCell::new(None) };
    /// How often one has.
    static MEDDLED: Cell<u32> = const { Cell::new(0) };
}

/// A waker that starts and drops another wait when it is woken, and when it is dropped.
struct Meddler;

impl Meddler {
    fn meddle() {
        let Some(fd) = TARGET.with_borrow(Clone::clone) else { return };
        MEDDLED.set(MEDDLED.get() + 1);
        assert!(poll_idly(Box::pin(fd.writable()).as_mut()).is_pending());
        assert!(poll_idly(Box::pin(fd.readable()).as_mut()).is_pending());
    }
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        Self::meddle();
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        Self::meddle();
    }
}

fn wakers_may_use_it_while_they_are_cloned_woken_and_dropped() {
    run(async |_| {
        let (ours, theirs) = owned_pair();
        let ours = Rc::new(ours);
        TARGET.set(Some(Rc::clone(&ours)));
        let poll = |future: Pin<&mut _>, waker: Waker| -> Poll<_> {
            let future: Pin<&mut dyn Future<Output = ringloop::Result<()>>> = future;
            future.poll(&mut Context::from_waker(&waker))
        };
        let mut readable = Box::pin(ours.readable());
        assert!(poll(readable.as_mut(), Waker::from(Arc::new(Meddler))).is_pending());
        assert_eq!(MEDDLED.get(), 0);
        // Its place is taken by another.
        assert!(poll(readable.as_mut(), Waker::from(Arc::new(Meddler))).is_pending());
        assert_eq!(MEDDLED.get(), 1);
        // It is dropped with the last who waits; what it starts meanwhile comes and goes.
        drop(readable);
        assert_eq!(MEDDLED.get(), 2);
        let mut readable = Box::pin(ours.readable());
        assert!(poll(readable.as_mut(), Waker::from(Arc::new(Meddler))).is_pending());
        send(&theirs, b"x");
        turn(2).await;
        assert_eq!(MEDDLED.get(), 4, "woken, then dropped");
        assert!(poll_idly(readable.as_mut()).is_ready());
        drop(readable);
        TARGET.take();
    });
}

fn an_eventfd_counts_from_task_to_task() {
    run(async |event_loop| {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let fd: Rc<AsyncFd<OwnedFd>> = Rc::new(AsyncFd::new(fd).unwrap());
        let reader = Rc::clone(&fd);
        let task = event_loop.spawn(async move {
            let mut count = [0; 8];
            reader.read_with(|fd| Ok(read(fd, &mut count)?)).await.unwrap();
            u64::from_ne_bytes(count)
        });
        turn(2).await;
        fd.write_with(|fd| Ok(write(fd, &3_u64.to_ne_bytes())?)).await.unwrap();
        assert_eq!(task.await.unwrap(), 3);
    });
}

// spec: READY-12
fn a_pidfd_waits_for_its_process() {
    run(async |_| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let fd = AsyncFd::new(pidfd_open(pid, PidfdFlags::empty()).unwrap()).unwrap();
        drop(child.stdin.take());
        fd.readable().await.unwrap();
        assert!(child.try_wait().unwrap().unwrap().success());
        settle().await;
    });
}
