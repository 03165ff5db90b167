//! What each read gives, of a reader that is fed by hand.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use ringloop::{Error, Received, Result, StreamReader, catch_cancel};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::turn;

use super::{reader, spawn};

/// A task that reads.
fn reading<F: Future<Output = Result<Received>> + 'static>(
    reader: &Rc<StreamReader>,
    read: impl FnOnce(Rc<StreamReader>) -> F,
) -> ringloop::Task<Result<Received>> {
    spawn(read(Rc::clone(reader)))
}

// spec: STREAM-20
#[test]
fn read_gives_what_is_there_up_to_a_number_of_bytes() {
    on_loop(async {
        let reader = reader(100);
        assert_eq!(reader.read(0).await.unwrap(), b"");
        reader.feed_data(b"hello").unwrap();
        reader.feed_data(Received::from(b" world".as_slice())).unwrap();
        assert_eq!(reader.read(0).await.unwrap(), b"");
        assert_eq!(reader.read(2).await.unwrap(), b"he");
        assert_eq!(reader.read(5).await.unwrap(), b"llo w", "small pieces are joined");
        assert_eq!(reader.read(usize::MAX).await.unwrap(), b"orld");
    });
}

// spec: STREAM-20
#[test]
fn read_gives_large_pieces_one_by_one_as_they_came() {
    on_loop(async {
        let reader = reader(1 << 20);
        let pieces = [vec![1; 5000], vec![2; 6000]];
        for piece in &pieces {
            reader.feed_data(piece.clone()).unwrap();
        }
        let first = reader.read(usize::MAX).await.unwrap();
        assert_eq!(first[..], pieces[0]);
        assert_eq!(reader.read(100).await.unwrap()[..], pieces[1][..100]);
        assert_eq!(reader.read(usize::MAX).await.unwrap()[..], pieces[1][100..]);
    });
}

// spec: STREAM-20, STREAM-21
#[test]
fn read_to_end_joins_everything_however_much_it_is() {
    on_loop(async {
        let reader = reader(10);
        let task = reading(&reader, |r| async move { r.read_to_end().await });
        turn(1).await;
        for _ in 0..100 {
            reader.feed_data(&[7; 99]).unwrap();
            turn(1).await;
        }
        assert!(!task.done());
        reader.feed_eof();
        assert_eq!(task.await.unwrap().unwrap()[..], [7; 9900]);
        assert_eq!(reader.read_to_end().await.unwrap(), b"");
        assert_eq!(reader.read(5).await.unwrap(), b"");
    });
}

// spec: STREAM-22, STREAM-17
#[test]
fn an_error_during_read_to_end_is_its_result() {
    on_loop(async {
        let reader = reader(10);
        let task = reading(&reader, |r| async move { r.read_to_end().await });
        turn(1).await;
        reader.feed_data(b"lost").unwrap();
        turn(2).await;
        reader.set_exception(Error::other("broken"));
        assert_eq!(task.await.unwrap().unwrap_err().to_string(), "broken");
        assert_eq!(reader.read(1).await.unwrap_err().to_string(), "broken");
    });
}

// spec: STREAM-23, STREAM-24
#[test]
fn read_exactly_gives_so_many_bytes_or_says_what_was_missing() {
    on_loop(async {
        let reader = reader(2);
        reader.feed_data(b"abcdefgh").unwrap();
        assert_eq!(reader.read_exactly(0).await.unwrap(), b"");
        assert_eq!(reader.read_exactly(5).await.unwrap(), b"abcde");
        let task = reading(&reader, |r| async move { r.read_exactly(5).await });
        turn(1).await;
        reader.feed_data(b"i").unwrap();
        turn(2).await;
        assert!(!task.done());
        reader.feed_eof();
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "4 bytes read on a total of 5 expected bytes");
        let Error::IncompleteRead { partial, expected } = error else { panic!("{error}") };
        assert_eq!((partial, expected), (Bytes::from_static(b"fghi"), Some(5)));
        assert!(reader.at_eof(), "the bytes are in the error");
    });
}

// spec: STREAM-25, STREAM-28, STREAM-30
#[test]
fn a_separator_is_found_wherever_it_is_cut() {
    on_loop(async {
        let text = b"one--two---three----";
        for separator in ["--", "---", "o", "e--", "hree----"] {
            for cut in 0..text.len() {
                let reader = reader(100);
                let separator = separator.to_owned();
                let task = reading(&reader, move |r| async move { r.read_until(&separator).await });
                turn(1).await;
                for part in [&text[..cut], &text[cut..]] {
                    reader.feed_data(Received::from(part)).unwrap();
                    turn(1).await;
                }
                reader.feed_eof();
                let found = task.await.unwrap().unwrap();
                assert!(text.starts_with(&found), "{found:?}");
                let rest = reader.read_to_end().await.unwrap();
                assert_eq!([&found[..], &rest].concat(), text);
            }
        }
    });
}

// spec: STREAM-25
#[test]
fn a_separator_that_is_cut_into_single_bytes_is_found() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read_until("aab").await });
        for byte in b"aaaaaaab" {
            assert!(!task.done());
            reader.feed_data(Received::from(&[*byte][..])).unwrap();
            turn(1).await;
        }
        assert_eq!(task.await.unwrap().unwrap(), b"aaaaaaab");
    });
}

// spec: STREAM-25, STREAM-29
#[test]
fn empty_separators_and_none_at_all_are_refused() {
    on_loop(async {
        let reader = reader(100);
        reader.set_exception(Error::Timeout);
        let error = reader.read_until("").await.unwrap_err();
        assert_eq!(error.to_string(), "Separator should be at least one-byte string");
        let error = reader.read_until_any(&["", "a"]).await.unwrap_err();
        assert_eq!(error.to_string(), "Separator should be at least one-byte string");
        let error = reader.read_until_any::<&str>(&[]).await.unwrap_err();
        assert_eq!(error.to_string(), "Separator should contain at least one element");
    });
}

// spec: STREAM-26, STREAM-27
#[test]
fn beyond_the_limit_the_bytes_stay_and_the_error_says_how_many() {
    on_loop(async {
        let reader = reader(3);
        reader.feed_data(b"abc|").unwrap();
        assert_eq!(reader.read_until("|").await.unwrap(), b"abc|", "the limit itself is allowed");
        reader.feed_data(b"abcd|").unwrap();
        for _ in 0..2 {
            let error = reader.read_until("|").await.unwrap_err();
            assert_eq!(error.to_string(), "Separator is found, but chunk is longer than limit");
            let Error::LimitOverrun { consumed, .. } = error else { panic!("{error}") };
            assert_eq!(consumed, 4);
        }
        assert_eq!(reader.read_exactly(5).await.unwrap(), b"abcd|");
        reader.feed_data(b"abcd#").unwrap();
        let error = reader.read_until("##").await.unwrap_err();
        assert_eq!(error.to_string(), "Separator is not found, and chunk exceed the limit");
        let Error::LimitOverrun { consumed, .. } = error else { panic!("{error}") };
        assert_eq!(consumed, 4, "the last byte may be the first of the separator");
        reader.feed_data(b"#").unwrap();
        assert_eq!(reader.read_exactly(6).await.unwrap(), b"abcd##");
    });
}

// spec: STREAM-28
#[test]
fn the_last_chunk_may_complete_a_separator_and_without_one_all_is_in_the_error() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read_until("##").await });
        turn(1).await;
        reader.feed_data(b"a#").unwrap();
        turn(1).await;
        reader.feed_data(b"#b#").unwrap();
        reader.feed_eof();
        assert_eq!(task.await.unwrap().unwrap(), b"a##");
        let error = reader.read_until("##").await.unwrap_err();
        assert_eq!(error.to_string(), "2 bytes read on a total of undefined expected bytes");
        let Error::IncompleteRead { partial, expected: None } = error else { panic!("{error}") };
        assert_eq!(&partial[..], b"b#");
        assert!(reader.at_eof());
    });
}

// spec: STREAM-29
#[test]
fn of_several_separators_the_one_that_ends_first_counts() {
    on_loop(async {
        let reader = reader(100);
        reader.feed_data(b"a\r\nb\nc<end>d").unwrap();
        let separators = ["<end>", "\n", "\r\n"];
        for line in ["a\r\n", "b\n", "c<end>"] {
            assert_eq!(reader.read_until_any(&separators).await.unwrap()[..], *line.as_bytes());
        }
        reader.feed_data(b"ataa").unwrap();
        let task = reading(&reader, |r| async move { r.read_until_any(&["tab", "aaa"]).await });
        turn(1).await;
        reader.feed_data(b"ab").unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"dataaa");
    });
}

// spec: STREAM-29, STREAM-26
#[test]
fn of_two_separators_that_end_together_the_shorter_one_counts_for_the_limit() {
    on_loop(async {
        let reader = reader(4);
        reader.feed_data(b"wholeEND").unwrap();
        let error = reader.read_until_any(&["wholeEND", "END"]).await.unwrap_err();
        let Error::LimitOverrun { consumed, .. } = error else { panic!("{error}") };
        assert_eq!(consumed, 5);
    });
}

// spec: STREAM-31, STREAM-33
#[test]
fn read_line_gives_lines_then_the_rest_then_nothing() {
    on_loop(async {
        let reader = reader(100);
        reader.feed_data(b"one\n\ntw").unwrap();
        assert_eq!(reader.read_line().await.unwrap(), b"one\n");
        assert_eq!(reader.read_line().await.unwrap(), b"\n");
        let task = reading(&reader, |r| async move { r.read_line().await });
        turn(1).await;
        reader.feed_data(Received::from(b"o\nthree".as_slice())).unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"two\n");
        reader.feed_eof();
        let mut lines = reader.lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), b"three");
        assert_eq!(lines.next_line().await.unwrap(), None);
        assert_eq!(reader.read_line().await.unwrap(), b"");
    });
}

// spec: STREAM-32
#[test]
fn a_line_that_is_too_long_is_dropped_with_its_newline_or_as_far_as_it_is_there() {
    on_loop(async {
        let reader = reader(3);
        reader.feed_data(b"long\nok\n").unwrap();
        let error = reader.read_line().await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
        assert_eq!(error.to_string(), "Separator is found, but chunk is longer than limit");
        assert_eq!(reader.read_line().await.unwrap(), b"ok\n");
        reader.feed_data(b"very").unwrap();
        let error = reader.read_line().await.unwrap_err();
        assert_eq!(error.to_string(), "Separator is not found, and chunk exceed the limit");
        reader.feed_data(b" x\nok\n").unwrap();
        assert_eq!(reader.read_line().await.unwrap(), b" x\n");
        assert_eq!(reader.read_line().await.unwrap(), b"ok\n");
    });
}

// spec: STREAM-31, STREAM-32
#[test]
fn read_line_into_appends_the_line_and_nothing_if_it_fails() {
    on_loop(async {
        let reader = reader(5);
        let mut line = b"> ".to_vec();
        reader.feed_data(b"on").unwrap();
        reader.feed_data(Received::from(b"e\ntoo long\nend".as_slice())).unwrap();
        assert_eq!(reader.read_line_into(&mut line).await.unwrap(), 4);
        assert!(reader.read_line_into(&mut line).await.is_err());
        reader.feed_eof();
        assert_eq!(reader.read_line_into(&mut line).await.unwrap(), 3);
        assert_eq!(reader.read_line_into(&mut line).await.unwrap(), 0);
        assert_eq!(line, b"> one\nend");
    });
}

// spec: STREAM-15
#[test]
fn a_second_read_that_would_wait_is_refused_and_one_that_need_not_is_served() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read_exactly(4).await });
        turn(1).await;
        let error = reader.read_line().await.unwrap_err();
        assert!(matches!(error, Error::State(_)));
        assert_eq!(
            error.to_string(),
            "readuntil() called while another coroutine is already waiting for incoming data"
        );
        reader.feed_data(b"xabcd").unwrap();
        assert_eq!(reader.read(1).await.unwrap(), b"x");
        assert_eq!(task.await.unwrap().unwrap(), b"abcd");
    });
}

// spec: STREAM-15, STREAM-20
#[test]
fn a_read_whose_bytes_were_taken_by_another_waits_on() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read(4).await });
        turn(1).await;
        reader.feed_data(b"x").unwrap();
        assert_eq!(reader.read(4).await.unwrap(), b"x");
        turn(2).await;
        assert!(!task.done(), "only the end is empty");
        reader.feed_data(b"y").unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"y");
    });
}

// spec: STREAM-16
#[test]
fn a_cancelled_read_frees_its_place_and_leaves_its_bytes() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read_exactly(4).await });
        turn(1).await;
        reader.feed_data(b"abc").unwrap();
        task.cancel();
        let other = reading(&reader, |r| async move { r.read_until("d").await });
        turn(2).await;
        assert!(task.cancelled());
        reader.feed_data(b"d").unwrap();
        assert_eq!(other.await.unwrap().unwrap(), b"abcd");
    });
}

// spec: STREAM-16, STREAM-15
#[test]
fn a_read_that_is_dropped_or_forgotten_while_it_waits_loses_nothing() {
    on_loop(async {
        let reader = reader(100);
        for forget in [false, true] {
            let mut read = Box::pin(async {
                let reader = &reader;
                reader.read_exactly(4).await
            });
            poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            if forget {
                let _kept = std::mem::ManuallyDrop::new(read);
                assert!(reader.read(1).await.is_err(), "its place is still taken");
            }
            reader.feed_data(b"ab").unwrap(); // Frees it.
            assert_eq!(reader.read(4).await.unwrap(), b"ab");
        }
    });
}

// spec: STREAM-17
#[test]
fn an_error_comes_before_the_bytes_and_can_be_asked_for() {
    on_loop(async {
        let reader = reader(100);
        assert!(reader.exception().is_none());
        reader.feed_data(b"line\n").unwrap();
        reader.set_exception(Error::other("broken"));
        assert_eq!(reader.exception().unwrap().to_string(), "broken");
        let reads = [
            reader.read(0).await,
            reader.read(4).await,
            reader.read_exactly(0).await,
            reader.read_exactly(4).await,
            reader.read_line().await,
            reader.read_until("\n").await,
            reader.read_to_end().await,
        ];
        for read in reads {
            assert_eq!(read.unwrap_err().to_string(), "broken");
        }
        assert!(!reader.at_eof());
    });
}

// spec: STREAM-17
#[test]
fn bytes_that_came_before_the_error_go_to_the_read_that_they_have_woken() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read(4).await });
        turn(1).await;
        reader.feed_data(b"last").unwrap();
        reader.set_exception(Error::other("broken"));
        assert_eq!(task.await.unwrap().unwrap(), b"last");
        let task = reading(&reader, |r| async move { r.read(4).await });
        assert!(task.await.unwrap().is_err());
    });
}

// spec: STREAM-17
#[test]
fn a_read_that_was_woken_by_too_few_bytes_fails_with_the_error_that_came_next() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move { r.read_until("\n").await });
        turn(1).await;
        reader.feed_data(b"no newline").unwrap();
        reader.set_exception(Error::other("broken"));
        assert_eq!(task.await.unwrap().unwrap_err().to_string(), "broken");
    });
}

// spec: STREAM-16
#[test]
fn a_scope_that_catches_a_cancellation_can_read_on() {
    on_loop(async {
        let reader = reader(100);
        let task = reading(&reader, |r| async move {
            catch_cancel(r.read_line()).await.unwrap_err();
            r.read_line().await
        });
        turn(1).await;
        reader.feed_data(b"li").unwrap();
        turn(1).await;
        task.cancel();
        turn(2).await;
        reader.feed_data(b"ne\n").unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"line\n");
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// spec: STREAM-10
#[test]
fn only_the_waker_of_the_last_poll_is_woken_and_once() {
    let reader = reader(100);
    let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
    let wakers = counts.each_ref().map(|count| Waker::from(Arc::clone(count)));
    let mut read = pin!(reader.read(4));
    for waker in &wakers {
        assert!(read.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    reader.feed_data(b"a").unwrap();
    reader.feed_data(b"b").unwrap();
    let woken = counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
    assert_eq!(woken, [0, 1]);
    let Poll::Ready(read) = read.poll(&mut Context::from_waker(&wakers[0])) else { panic!() };
    assert_eq!(read.unwrap(), b"ab");
}

/// Bytes that read from the reader when they are dropped.
struct Reads(Rc<StreamReader>, Rc<Cell<usize>>);

// spec: STREAM-10
#[test]
fn code_of_the_users_that_runs_when_fed_bytes_are_dropped_may_use_the_reader() {
    // `Bytes` with an owner must be `Send`, so the owner finds the reader by a thread-local.
    thread_local! {
        static READS: Cell<Option<Reads>> = const { Cell::new(None) };
    }
    struct Owner;
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &[1; 4000]
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            if let Some(reads) = READS.take() {
                reads.0.feed_data(b"more").unwrap();
                reads.1.set(reads.1.get() + 1);
            }
        }
    }
    on_loop(async {
        let dropped = Rc::new(Cell::new(0));
        for way in 0..4 {
            let reader = reader(100);
            reader.feed_data(Bytes::from_owner(Owner)).unwrap();
            reader.feed_data(vec![2; 4000]).unwrap();
            READS.set(Some(Reads(Rc::clone(&reader), Rc::clone(&dropped))));
            match way {
                0 => assert_eq!(reader.read_exactly(6000).await.unwrap()[..4000], [1; 4000]),
                1 => assert_eq!(reader.read(4000).await.unwrap()[..], [1; 4000]),
                2 => assert!(reader.read_line().await.is_err(), "it is longer than the limit"),
                _ => assert_eq!(reader.read_exactly(8000).await.unwrap()[4000..], [2; 4000]),
            }
            assert_eq!(dropped.get(), way + 1);
        }
    });
}

thread_local! {
    /// The reader that [`Meddling`] breaks a second time.
    static MEDDLED: RefCell<Option<Rc<StreamReader>>> = const { RefCell::new(None) };
}

/// An error that gives its reader another one when it is shown, copied, and dropped.
struct Meddling;

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::meddle();
        f.write_str("Meddling")
    }
}

impl Meddling {
    fn meddle() {
        let reader = MEDDLED.with(|reader| reader.borrow().clone());
        if let Some(reader) = reader {
            reader.set_exception(Error::other("the second"));
            assert!(reader.exception().is_some());
        }
    }
}

impl fmt::Display for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::meddle();
        f.write_str("the first")
    }
}

impl std::error::Error for Meddling {}

impl Drop for Meddling {
    fn drop(&mut self) {
        Self::meddle();
    }
}

// spec: STREAM-17
#[test]
fn an_error_that_breaks_its_reader_again_while_it_is_copied_or_shown_finds_it_free() {
    on_loop(async {
        let reader = reader(100);
        MEDDLED.set(Some(Rc::clone(&reader)));
        let text = |error: Option<Error>| error.map(|error| error.to_string());
        reader.set_exception(io::Error::other(Meddling));
        assert_eq!(text(reader.exception()).as_deref(), Some("the first"));
        assert_eq!(text(reader.exception()).as_deref(), Some("the second"));
        reader.set_exception(io::Error::other(Meddling));
        assert_eq!(reader.read(1).await.unwrap_err().to_string(), "the first");
        assert_eq!(reader.read(1).await.unwrap_err().to_string(), "the second");
        reader.set_exception(io::Error::other(Meddling));
        assert!(format!("{reader:?}").contains("Meddling"));
        assert!(!format!("{reader:?}").contains("Meddling"));
        MEDDLED.take();
    });
}
