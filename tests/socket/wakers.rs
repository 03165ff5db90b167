//! Wakers of others, which may do anything when they are cloned, woken or dropped. A socket keeps the last one of each side.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ringloop::{Received, Result, Socket};
use ringloop_tests::foreign_waker::{Event, at_next, foreign_waker, has_acted, wakes};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;

use crate::support::{listener, now, on_loop, pair, poll_once, receive, running};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_call_waits_well_although_the_clone_of_its_waker_has_ended_the_op,
    a_call_that_begins_to_wait_inside_of_a_wake_is_woken_itself,
    a_call_that_moves_to_another_task_wakes_that_one,
    what_came_for_a_call_before_its_waker_was_cloned_is_its,
    the_waker_of_a_call_that_is_over_goes_with_the_next_one_or_the_socket,
    a_waker_that_panics_in_its_drop_is_reported,
];

type Receiving = Pin<Box<dyn Future<Output = Result<Received>>>>;

/// What a clone does with a listener.
type Act = Rc<dyn Fn(&Socket)>;

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, number: usize) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&foreign_waker(number)))
}

fn receiving(socket: &Rc<Socket>, most: usize) -> Receiving {
    let socket = Rc::clone(socket);
    Box::pin(async move { socket.recv(most).await })
}

// spec: SOCK-02, SOCK-12
fn a_call_waits_well_although_the_clone_of_its_waker_has_ended_the_op() {
    on_loop(async {
        let (listener, address) = listener();
        let cancels = |other: &Socket| assert!(poll_once(pin!(other.accept())).is_pending());
        let takes = move |other: &Socket| {
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = now(other.accept()).unwrap();
            assert_eq!(accepted.getpeername().unwrap(), client.local_addr().unwrap().into());
        };
        let acts: [Act; 2] = [Rc::new(cancels), Rc::new(takes)];
        for act in acts {
            let other = Rc::clone(&listener);
            at_next(Event::Clone, move || act(&other));
            let mut accepting = pin!(listener.accept());
            assert!(poll(accepting.as_mut(), 1).is_pending() && has_acted());
            let _client = TcpStream::connect(address).unwrap();
            settle().await;
            assert_eq!(wakes(), 1);
            assert!(matches!(poll(accepting.as_mut(), 1), Poll::Ready(Ok(_))));
            // A call that waits with another waker, so that the next one clones its own.
            assert!(poll_once(pin!(listener.accept())).is_pending());
        }
    });
}

// spec: SOCK-02
fn a_call_that_begins_to_wait_inside_of_a_wake_is_woken_itself() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let mut first = receiving(&ours, 1);
        assert!(poll(first.as_mut(), 1).is_pending());
        let second = Rc::new(RefCell::new(receiving(&ours, 2)));
        let counter = Arc::new(Counter::default());
        let (to_poll, waker) = (Rc::clone(&second), Waker::from(Arc::clone(&counter)));
        at_next(Event::Wake, move || {
            let mut second = to_poll.borrow_mut();
            assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        });
        theirs.write_all(b"a").unwrap();
        settle().await;
        assert!(has_acted());
        assert_eq!((wakes(), counter.wakes()), (1, 0));
        theirs.write_all(b"bc").unwrap();
        settle().await;
        assert_eq!((wakes(), counter.wakes()), (0, 1));
        assert_eq!(now(first.as_mut()).unwrap(), b"a");
        assert_eq!(now(second.borrow_mut().as_mut()).unwrap(), b"bc");
    });
}

// spec: SOCK-02
fn a_call_that_moves_to_another_task_wakes_that_one() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let counters = [(); 3].map(|()| Arc::new(Counter::default()));
        let wakers = counters.clone().map(Waker::from);
        for round in 0..3 {
            let mut call = receiving(&ours, 1);
            for waker in &wakers {
                assert!(call.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
            }
            theirs.write_all(b"x").unwrap();
            settle().await;
            assert_eq!(counters.each_ref().map(|counter| counter.wakes()), [0, 0, round + 1]);
            assert_eq!(now(call.as_mut()).unwrap(), b"x");
        }
    });
}

// spec: SOCK-08
fn what_came_for_a_call_before_its_waker_was_cloned_is_its() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let (mut first, mut second) = (receiving(&ours, 1), receiving(&ours, 1));
        assert!(poll(first.as_mut(), 1).is_pending());
        theirs.write_all(b"ab").unwrap();
        turn(2).await;
        assert_eq!(wakes(), 1);
        assert_eq!(poll(second.as_mut(), 2).map(Result::unwrap), Poll::Ready(b"b"[..].into()));
        drop(first);
        assert_eq!(now(ours.recv(2)).unwrap(), b"a");
    });
}

fn the_waker_of_a_call_that_is_over_goes_with_the_next_one_or_the_socket() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let counter = Arc::new(Counter::default());
        for most in [1, 2] {
            let mut call = receiving(&ours, most);
            let waker = Waker::from(Arc::clone(&counter));
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            theirs.write_all(b"x").unwrap();
            settle().await;
            assert_eq!(now(call.as_mut()).unwrap(), b"x");
        }
        assert_eq!(Arc::strong_count(&counter), 2, "one is kept, for the next call");
        let task = receive(&ours, 1);
        turn(2).await;
        assert_eq!(Arc::strong_count(&counter), 1);
        task.cancel();
        turn(2).await;

        let mut call = receiving(&ours, 1);
        let waker = Waker::from(Arc::clone(&counter));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(call);
        assert_eq!(Arc::strong_count(&counter), 1, "a call that is dropped takes its waker along");
        let mut call = receiving(&ours, 1);
        let waker = Waker::from(Arc::clone(&counter));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        theirs.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(now(call).unwrap(), b"x");
        drop(ours);
        assert_eq!(Arc::strong_count(&counter), 1);
    });
}

fn a_waker_that_panics_in_its_drop_is_reported() {
    on_loop(async {
        let reports = Rc::<RefCell<Vec<String>>>::default();
        let seen = Rc::clone(&reports);
        running().set_exception_handler(move |_, context| {
            seen.borrow_mut().push(context.message.to_string());
        });
        let (ours, mut theirs) = pair();
        let mut call = receiving(&ours, 1);
        assert!(poll(call.as_mut(), 1).is_pending());
        theirs.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(wakes(), 1);
        assert_eq!(now(call).unwrap(), b"x");
        at_next(Event::Drop, || panic!("in the drop"));
        drop(ours);
        assert!(has_acted());
        assert_eq!(*reports.borrow(), ["Exception in the drop of a waker"]);
    });
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Counter {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
