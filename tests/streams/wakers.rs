//! Wakers of others, which may do anything when they are cloned, woken or dropped.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use ringloop::{Error, Received, Result, StreamReader, yield_now};
use ringloop_tests::clean::on_loop;
use ringloop_tests::foreign_waker::{Event, at_next, foreign_waker, has_acted, wakes};

use super::{reader, running};

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, number: usize) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&foreign_waker(number)))
}

/// The texts of what goes to the exception handler.
fn reports() -> Rc<RefCell<Vec<String>>> {
    let reports = Rc::<RefCell<Vec<_>>>::default();
    let seen = Rc::clone(&reports);
    running().set_exception_handler(move |_, context| {
        let error = context.error.map(ToString::to_string).unwrap_or_default();
        seen.borrow_mut().push(format!("{}: {error}", context.message));
    });
    reports
}

/// Ways in which a read may be satisfied.
type Way = (&'static str, fn(&StreamReader), fn(Result<Received>));

const WAYS: [Way; 3] = [
    ("bytes", |reader| reader.feed_data(b"x").unwrap(), |read| assert_eq!(read.unwrap(), b"x")),
    ("the end", |reader| reader.feed_eof(), |read| assert_eq!(read.unwrap(), b"")),
    (
        "an error",
        |reader| reader.set_exception(Error::Timeout),
        |read| assert!(matches!(read, Err(Error::Timeout))),
    ),
];

// spec: STREAM-10
#[test]
fn a_read_does_not_sleep_over_what_the_clone_or_the_drop_of_a_waker_feeds() {
    on_loop(async {
        for (name, feed, check) in WAYS {
            for (polls, event) in
                [(1, Event::Clone), (2, Event::Clone), (2, Event::Drop), (3, Event::Clone)]
            {
                let reader = reader(100);
                let mut read = pin!(reader.read(10));
                for number in 1..polls {
                    assert!(poll(read.as_mut(), number).is_pending());
                }
                assert_eq!(wakes(), 0);
                let fed = Rc::clone(&reader);
                at_next(event, move || feed(&fed));
                let polled = match poll(read.as_mut(), polls) {
                    Poll::Pending if wakes() > 0 => poll(read.as_mut(), polls),
                    polled => polled,
                };
                assert!(has_acted());
                let Poll::Ready(read) = polled else {
                    panic!("the read sleeps over {name} at {event:?} in poll {polls}")
                };
                check(read);
                wakes();
            }
        }
    });
}

// spec: STREAM-10, STREAM-15
#[test]
fn a_read_whose_waker_panics_leaves_the_reader_as_it_was() {
    on_loop(async {
        let reports = reports();
        for polls in 1..3 {
            let reader = reader(100);
            {
                let mut read = pin!(reader.read(10));
                for number in 1..polls {
                    assert!(poll(read.as_mut(), number).is_pending());
                }
                at_next(Event::Clone, || panic!("cloned"));
                catch_unwind(AssertUnwindSafe(|| poll(read.as_mut(), polls))).unwrap_err();
            }
            assert!(reports.borrow().is_empty(), "the panic is that of the poll");
            let mut read = pin!(reader.read(10));
            assert!(poll(read.as_mut(), 9).is_pending(), "nobody else waits any more");
            reader.feed_data(b"x").unwrap();
            assert_eq!(wakes(), 1);
            let Poll::Ready(read) = poll(read, 9) else { panic!("it was fed") };
            assert_eq!(read.unwrap(), b"x");
        }
    });
}

// spec: STREAM-10
#[test]
fn a_waker_that_panics_when_it_is_woken_or_dropped_is_reported_and_the_feed_goes_on() {
    on_loop(async {
        let reports = reports();
        let reader = reader(100);
        {
            let mut read = pin!(reader.read(10));
            assert!(poll(read.as_mut(), 1).is_pending());
            at_next(Event::Wake, || panic!("woken"));
            reader.feed_data(b"x").unwrap();
            assert_eq!(reports.take(), ["Exception in a waker: woken"]);
            let Poll::Ready(read) = poll(read, 1) else { panic!("it was fed") };
            assert_eq!(read.unwrap(), b"x");
        }
        {
            let waker = foreign_waker(2); // Goes after the read.
            let mut read = pin!(reader.read(10));
            assert!(poll(read.as_mut(), 1).is_pending());
            at_next(Event::Drop, || panic!("dropped"));
            assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!(reports.take(), ["Exception in the drop of a waker: dropped"]);
            at_next(Event::Drop, || panic!("dropped with the read"));
        }
        assert_eq!(reports.take(), ["Exception in the drop of a waker: dropped with the read"]);
        reader.feed_data(b"y").unwrap();
        assert_eq!(reader.read(1).await.unwrap(), b"y");
        wakes();
    });
}

// spec: STREAM-10, STREAM-15
#[test]
fn a_reader_may_be_used_by_the_waker_that_it_wakes() {
    on_loop(async {
        let reader = reader(100);
        let mut read = pin!(reader.read(10));
        assert!(poll(read.as_mut(), 1).is_pending());
        let used = Rc::clone(&reader);
        at_next(Event::Wake, move || {
            let Poll::Ready(taken) = poll(pin!(used.read(10)), 2) else { panic!("it is there") };
            assert_eq!(taken.unwrap(), b"x");
            let mut next = Box::pin({
                let used = Rc::clone(&used);
                async move { used.read(10).await }
            });
            assert!(poll(next.as_mut(), 3).is_pending(), "it has the place of who waits");
            NEXT_READ.set(Some(next));
        });
        reader.feed_data(b"x").unwrap();
        assert!(has_acted());
        let Poll::Ready(refused) = poll(read.as_mut(), 1) else { panic!("another one waits") };
        assert!(matches!(refused, Err(Error::State(_))));
        wakes();
        reader.feed_data(b"y").unwrap();
        assert_eq!(wakes(), 1);
        let mut next = NEXT_READ.take().unwrap();
        let Poll::Ready(taken) = poll(next.as_mut(), 3) else { panic!("it was fed") };
        assert_eq!(taken.unwrap(), b"y");
        yield_now().await;
    });
}

type BoxedRead = Pin<Box<dyn Future<Output = Result<Received>>>>;

thread_local! {
    /// The read that a waker has begun.
    static NEXT_READ: Cell<Option<BoxedRead>> = const { Cell::new(None) };
}
