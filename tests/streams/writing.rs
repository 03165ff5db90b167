//! The writing half: drain, close, and what waits for them.

use std::io::{ErrorKind, Write};
use std::rc::Rc;

use ringloop::{Error, StreamWriter, Target, Task, WriteMode, extra_info, yield_now};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_all, drain_exactly, settle, turn};
use ringloop_tests::sockets::{drained, pair, reset, tcp_pair};

use super::{MODES, running, spawn, streams, streams_with};

fn draining(writer: &Rc<StreamWriter>) -> Task<ringloop::Result<()>> {
    let writer = Rc::clone(writer);
    spawn(async move { writer.drain().await })
}

fn closing(writer: &Rc<StreamWriter>) -> Task<ringloop::Result<()>> {
    let writer = Rc::clone(writer);
    spawn(async move { writer.wait_closed().await })
}

// spec: STREAM-50
#[test]
fn a_writer_passes_on_to_its_transport() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = tcp_pair();
            let peer = b.local_addr().unwrap().as_socket().unwrap();
            let (_reader, writer) = streams_with(Target::from(a).write_mode(mode)).await;
            assert_eq!(writer.transport().write_mode(), mode);
            assert_eq!(writer.get_extra_info(extra_info::PEERNAME).unwrap().as_ip(), Some(peer));
            writer.write(b"one ").unwrap();
            writer.writelines([&b"two "[..], b"three"]).unwrap();
            assert!(writer.can_write_eof() && !writer.is_closing());
            writer.write_eof().unwrap();
            assert!(writer.write(b"late").is_err());
            settle().await;
            assert_eq!(drained(&b), "(b'one two three', 'EOF')");
            writer.close();
            assert!(writer.is_closing());
            writer.wait_closed().await.unwrap();
        }
    });
}

// spec: STREAM-53
#[test]
fn a_drain_below_the_high_water_mark_returns_at_once() {
    on_loop(async {
        let (a, _b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.write(&[0; 1000]).unwrap();
        let task = draining(&writer);
        turn(1).await;
        assert!(task.done());
        writer.close();
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-53, STREAM-54, STREAM-64
#[test]
fn a_drain_waits_from_the_high_water_mark_to_the_low_one_with_as_many_as_like() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (_reader, writer) = streams_with(Target::from(a).write_mode(mode)).await;
            for _ in 0..2 {
                writer.write(vec![7; 1 << 20]).unwrap();
                let tasks = [draining(&writer), draining(&writer), draining(&writer)];
                settle().await;
                assert!(tasks.iter().all(|task| !task.done()));
                drain_exactly(&b, 1 << 20).await;
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
            }
            writer.close();
            writer.wait_closed().await.unwrap();
        }
    });
}

// spec: STREAM-56
#[test]
fn a_cancelled_drain_leaves_the_others_waiting() {
    on_loop(async {
        let (a, b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.write(vec![7; 1 << 20]).unwrap();
        let (first, second) = (draining(&writer), draining(&writer));
        settle().await;
        first.cancel();
        settle().await;
        assert!(first.cancelled() && !second.done());
        drain_exactly(&b, 1 << 20).await;
        second.await.unwrap().unwrap();
        writer.close();
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-52, STREAM-53
#[test]
fn a_loop_of_write_and_drain_sees_the_loss() {
    on_loop(async {
        let (a, b) = pair();
        let (_reader, writer) = streams(a).await;
        drop(b);
        let mut rounds = 0;
        let error = loop {
            writer.write(b"x").unwrap();
            if let Err(error) = writer.drain().await {
                break error;
            }
            rounds += 1;
            assert!(rounds < 100);
            if rounds == 1 {
                settle().await; // The broken pipe is met by the enter.
            }
        };
        let Error::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

// spec: STREAM-52, STREAM-53
#[test]
fn a_drain_after_close_gives_up_control_once_and_tells_the_loss() {
    on_loop(async {
        let (a, _b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.close();
        let task = draining(&writer);
        turn(1).await;
        assert!(!task.done());
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "Connection lost");
        let Error::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

// spec: STREAM-51, STREAM-47
#[test]
fn the_error_of_the_connection_is_that_of_drain_read_and_wait_closed() {
    on_loop(async {
        let (a, b) = tcp_pair();
        let (reader, writer) = streams(a).await;
        let waiting = closing(&writer);
        turn(2).await;
        reset(b);
        for result in [
            waiting.await.unwrap(),
            reader.read(1).await.map(drop),
            writer.drain().await,
            writer.wait_closed().await,
            writer.wait_closed().await,
        ] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        }
        assert_eq!(running().stats().reports, 0);
    });
}

// spec: STREAM-55
#[test]
fn a_drain_that_waits_gets_the_error_that_ends_the_connection() {
    on_loop(async {
        let (a, b) = tcp_pair();
        let (_reader, writer) = streams(a).await;
        writer.write(vec![7; 16 << 20]).unwrap();
        let tasks = [draining(&writer), draining(&writer)];
        settle().await;
        assert!(tasks.iter().all(|task| !task.done()));
        reset(b);
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        }
    });
}

// spec: STREAM-55
#[test]
fn a_drain_that_waits_ends_without_error_when_the_connection_does() {
    on_loop(async {
        let (a, _b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.write(vec![7; 1 << 20]).unwrap();
        let task = draining(&writer);
        settle().await;
        writer.transport().abort();
        task.await.unwrap().unwrap();
        assert_eq!(writer.drain().await.unwrap_err().to_string(), "Connection lost");
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-57
#[test]
fn wait_closed_waits_for_a_close_that_it_does_not_do() {
    on_loop(async {
        let (a, b) = pair();
        let (_reader, writer) = streams(a).await;
        let tasks = [closing(&writer), closing(&writer)];
        settle().await;
        tasks[0].cancel();
        settle().await;
        assert!(tasks[0].cancelled() && !tasks[1].done() && !writer.is_closing());
        let data = vec![7; 1 << 20];
        writer.write(&data).unwrap();
        writer.close();
        settle().await;
        assert!(!tasks[1].done(), "what is buffered goes first");
        assert!(drain_all(&b).await.0 == data);
        let [_, task] = tasks;
        task.await.unwrap().unwrap();
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-58
#[test]
fn an_error_that_nobody_asked_for_is_not_reported() {
    on_loop(async {
        let (a, b) = tcp_pair();
        let (reader, writer) = streams(a).await;
        turn(2).await;
        reset(b);
        settle().await;
        drop((reader, writer));
        settle().await;
        assert_eq!((running().stats().reports, running().stats().warnings), (0, 0));
    });
}

// spec: STREAM-59, STREAM-45
#[test]
fn what_was_received_before_close_can_be_read_after_it() {
    on_loop(async {
        let (a, mut b) = pair();
        let (reader, writer) = streams(a).await;
        b.write_all(b"unread").unwrap();
        settle().await;
        writer.close();
        writer.wait_closed().await.unwrap();
        assert_eq!(reader.read(100).await.unwrap(), b"unread");
        assert!(reader.at_eof());
        assert_eq!(reader.read(100).await.unwrap(), b"");
    });
}

// spec: STREAM-62
#[test]
fn a_writer_that_is_dropped_without_a_close_is_closed_with_a_warning() {
    on_loop(async {
        let (a, b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.write(vec![7; 1 << 20]).unwrap();
        drop(writer);
        assert_eq!(running().stats().warnings, 1);
        let (data, end) = drain_all(&b).await;
        assert_eq!((data.len(), end.text()), (1 << 20, "EOF"));
        let (a, _b) = pair();
        let (_reader, writer) = streams(a).await;
        writer.close();
        drop(writer);
        yield_now().await;
        assert_eq!(running().stats().warnings, 1);
    });
}

// spec: STREAM-54
#[test]
fn a_drain_that_is_forgotten_holds_up_nobody() {
    on_loop(async {
        let (a, b) = pair();
        let (_reader, writer) =
            streams_with(Target::from(a).write_mode(WriteMode::Immediate)).await;
        writer.write(vec![7; 1 << 20]).unwrap();
        let mut drain = Box::pin({
            let writer = Rc::clone(&writer);
            async move { writer.drain().await }
        });
        std::future::poll_fn(|cx| {
            assert!(drain.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        let _kept = std::mem::ManuallyDrop::new(drain);
        let task = draining(&writer);
        drain_exactly(&b, 1 << 20).await;
        task.await.unwrap().unwrap();
        writer.close();
        writer.wait_closed().await.unwrap();
    });
}
