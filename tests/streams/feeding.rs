//! Who feeds a reader, and when it pauses.

use std::rc::Rc;

use bytes::Bytes;
use ringloop::{Error, Received, StreamReader};
use ringloop_tests::bomb::Bomb;
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::sockets::pair;
use tokio::io::AsyncBufReadExt;

use super::{reader, running, spawn, transport};

// spec: STREAM-05
#[test]
fn a_limit_of_zero_is_refused() {
    let error = StreamReader::new(0).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    assert_eq!(error.to_string(), "Limit cannot be <= 0");
}

// spec: STREAM-10
#[test]
fn bytes_of_every_kind_are_fed_in_order() {
    on_loop(async {
        let reader = reader(100);
        reader.feed_data("text ").unwrap();
        reader.feed_data(b"slice ").unwrap();
        reader.feed_data(vec![b'v'; 2]).unwrap();
        reader.feed_data(Bytes::from_static(b" bytes ")).unwrap();
        reader.feed_data(Received::from(b"received".as_slice())).unwrap();
        reader.feed_eof();
        assert_eq!(reader.read_to_end().await.unwrap(), b"text slice vv bytes received");
    });
}

// spec: STREAM-10
#[test]
fn feeding_wakes_the_read_soon_and_feeding_nothing_does_not() {
    on_loop(async {
        let reader = reader(100);
        let task = spawn({
            let reader = Rc::clone(&reader);
            async move { reader.read(10).await }
        });
        turn(1).await;
        reader.feed_data(b"").unwrap();
        turn(2).await;
        assert!(!task.done());
        reader.feed_data(b"x").unwrap();
        assert!(!task.done());
        turn(1).await;
        assert!(task.done());
        assert_eq!(task.await.unwrap().unwrap(), b"x");
    });
}

// spec: STREAM-10
#[test]
fn nothing_can_be_fed_after_the_end() {
    let reader = reader(100);
    reader.feed_eof();
    for data in [&b""[..], b"x", &[0; 5000]] {
        let error = reader.feed_data(data).unwrap_err();
        assert!(matches!(error, Error::State(_)));
        assert_eq!(error.to_string(), "feed_data after feed_eof");
    }
    assert!(reader.at_eof());
}

// spec: STREAM-12
#[test]
fn the_end_is_reached_when_everything_is_taken() {
    on_loop(async {
        let reader = reader(100);
        assert!(!reader.at_eof());
        reader.feed_data(b"x").unwrap();
        reader.feed_eof();
        assert!(!reader.at_eof());
        assert_eq!(reader.read(1).await.unwrap(), b"x");
        assert!(reader.at_eof());
        assert_eq!(reader.read(1).await.unwrap(), b"");
    });
}

// spec: STREAM-11, STREAM-13
#[test]
fn a_reader_pauses_above_twice_the_limit_and_goes_on_at_the_limit() {
    on_loop(async {
        let (a, _b) = pair();
        let (transport, _) = transport(a).await;
        let reader = reader(3);
        reader.set_transport(&transport).unwrap();
        reader.feed_data(b"123456").unwrap();
        assert!(transport.is_reading(), "twice the limit is not more than that");
        reader.feed_data(b"7").unwrap();
        assert!(!transport.is_reading());
        reader.read(3).await.unwrap();
        assert!(!transport.is_reading(), "four bytes are above the limit");
        reader.read(1).await.unwrap();
        assert!(transport.is_reading());
        transport.close();
    });
}

// spec: STREAM-14, STREAM-23
#[test]
fn a_read_that_waits_for_more_lets_a_paused_transport_go_on() {
    on_loop(async {
        let (a, _b) = pair();
        let (transport, _) = transport(a).await;
        let reader = reader(3);
        reader.set_transport(&transport).unwrap();
        reader.feed_data(b"0123456").unwrap();
        assert!(!transport.is_reading());
        let task = spawn({
            let reader = Rc::clone(&reader);
            async move { reader.read_exactly(10).await }
        });
        turn(1).await;
        assert!(transport.is_reading());
        reader.feed_data(b"78").unwrap();
        assert!(!transport.is_reading());
        turn(1).await;
        assert!(transport.is_reading());
        reader.feed_data(b"9").unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"0123456789");
        transport.close();
    });
}

// spec: STREAM-21, STREAM-11
#[test]
fn a_read_to_the_end_is_not_paused_however_much_comes_until_it_is_given_up() {
    on_loop(async {
        let (a, _b) = pair();
        let (transport, _) = transport(a).await;
        let reader = reader(3);
        reader.set_transport(&transport).unwrap();
        let task = spawn({
            let reader = Rc::clone(&reader);
            async move { reader.read_to_end().await }
        });
        turn(1).await;
        for _ in 0..3 {
            reader.feed_data(b"0123456789").unwrap();
            assert!(transport.is_reading());
            turn(1).await;
        }
        assert!(reader.read_to_end().await.is_err(), "the first one waits");
        reader.feed_data(b"0123456789").unwrap();
        assert!(transport.is_reading());
        task.cancel();
        turn(2).await;
        assert!(transport.is_reading());
        reader.feed_data(b"0").unwrap();
        assert!(!transport.is_reading());
        reader.feed_eof();
        assert_eq!(reader.read_to_end().await.unwrap().len(), 41);
        assert!(transport.is_reading());
        transport.close();
    });
}

// spec: STREAM-18
#[test]
fn a_second_transport_is_refused() {
    on_loop(async {
        let (a, _b) = pair();
        let (transport, _) = transport(a).await;
        let reader = reader(3);
        reader.set_transport(&transport).unwrap();
        let error = reader.set_transport(&transport).unwrap_err();
        assert_eq!(error.to_string(), "Transport already set");
        transport.close();
    });
}

// spec: STREAM-63
#[test]
fn the_debug_text_of_a_reader_shows_its_state() {
    on_loop(async {
        assert_eq!(format!("{:?}", reader(64 * 1024)), "<StreamReader>");
        let reader = reader(123);
        reader.feed_data(b"data").unwrap();
        assert_eq!(format!("{reader:?}"), "<StreamReader 4 bytes limit=123>");
        reader.set_exception(Error::Timeout);
        reader.feed_eof();
        assert_eq!(format!("{reader:?}"), "<StreamReader 4 bytes eof limit=123 exception=Timeout>");
    });
}

// spec: STREAM-10, STREAM-24
#[test]
fn an_owner_of_fed_bytes_that_panics_when_the_reader_drops_it_is_reported() {
    on_loop(async {
        // Some are reported at once, some in the next iteration.
        let reports = async || {
            settle().await;
            running().stats().reports
        };
        running().set_exception_handler(|_, context| {
            assert!(context.message.starts_with("Exception in the drop of "));
        });
        let reader = reader(100);
        reader.feed_data(Bomb::bytes("copied, as it is small")).unwrap();
        assert_eq!(reports().await, 1);
        reader.feed_data(Bomb::bytes("")).unwrap();
        assert_eq!(reports().await, 2);
        reader.feed_data(Received::from(Bomb::bytes("a piece"))).unwrap();
        reader.feed_eof();
        let error = reader.read_exactly(100).await.unwrap_err();
        assert!(matches!(error, Error::IncompleteRead { partial, .. } if partial.len() == 29));
        assert_eq!(reports().await, 3);
        reader.feed_data(Bomb::bytes("late")).unwrap_err();
        reader.feed_data(Received::from(Bomb::bytes("late, too"))).unwrap_err();
        assert_eq!(reports().await, 5);

        let mut reader = StreamReader::new(100).unwrap();
        for _ in 0..3 {
            reader.feed_data(Received::from(Bomb::bytes("nobody reads it"))).unwrap();
        }
        assert_eq!(reader.fill_buf().await.unwrap(), b"nobody reads it");
        AsyncBufReadExt::consume(&mut reader, 15);
        assert_eq!(reader.fill_buf().await.unwrap(), b"nobody reads it");
        drop(reader);
        assert_eq!(reports().await, 8);
    });
}
