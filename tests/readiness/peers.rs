//! Ends, hang-ups and errors.

use std::net::Shutdown;

use ringloop::EventLoop;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{drain, narrow_tcp_pair, pair, reset, tcp_pair};
use socket2::Socket;

use crate::support::{Count, Log, fill, receive, send, turn, while_asleep, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    the_end_of_the_stream_is_readable_in_every_iteration,
    a_hang_up_runs_a_lone_writer,
    a_reset_runs_a_lone_reader,
    a_reset_runs_a_lone_writer_whose_buffer_is_full,
    an_error_runs_the_reader_and_the_writer,
    a_half_closed_socket_is_readable_and_writable,
    a_writer_of_a_full_half_closed_unix_socket_sleeps_until_there_is_room,
    a_writer_of_a_full_half_closed_tcp_socket_sleeps_until_there_is_room,
    a_watcher_of_both_on_a_full_half_closed_socket_runs_the_reader_alone,
];

// spec: READY-08
fn the_end_of_the_stream_is_readable_in_every_iteration() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let calls = Count::default();
        event_loop.add_reader(&ours, calls.callback()).unwrap();
        turn(event_loop);
        drop(theirs);
        for call in 1..=3 {
            turn(event_loop);
            assert_eq!(calls.get(), call);
        }
        assert_eq!(receive(&ours, 9), b"");
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-08
fn a_hang_up_runs_a_lone_writer() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let calls = Count::default();
        fill(&ours);
        event_loop.add_writer(&ours, calls.callback()).unwrap();
        turn(event_loop);
        assert_eq!(calls.get(), 0);
        drop(theirs);
        turn(event_loop);
        assert_eq!(calls.get(), 1);
        event_loop.remove_writer(&ours).unwrap();
    });
}

// spec: READY-08
fn a_reset_runs_a_lone_reader() {
    with_loop(|event_loop| {
        let (ours, theirs) = tcp_pair();
        let calls = Count::default();
        event_loop.add_reader(&ours, calls.stopping()).unwrap();
        turn(event_loop);
        reset(theirs);
        event_loop.run_forever().unwrap();
        assert_eq!(calls.get(), 1);
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-08, RISK-42
fn a_reset_runs_a_lone_writer_whose_buffer_is_full() {
    with_loop(|event_loop| {
        let (ours, theirs) = narrow_tcp_pair();
        let calls = Count::default();
        fill(&ours);
        event_loop.add_writer(&ours, calls.stopping()).unwrap();
        reset(theirs);
        event_loop.run_forever().unwrap();
        assert_eq!(calls.get(), 1);
        assert_eq!(ours.take_error().unwrap().unwrap().raw_os_error(), Some(libc::ECONNRESET));
        event_loop.remove_writer(&ours).unwrap();
    });
}

// spec: READY-08, LOOP-23
fn an_error_runs_the_reader_and_the_writer() {
    with_loop(|event_loop| {
        let (ours, theirs) = tcp_pair();
        let log = Log::default();
        let inner = log.clone();
        let writer = move |event_loop: &EventLoop| {
            inner.add("writer");
            event_loop.stop();
        };
        reset(theirs);
        event_loop.add_writer(&ours, writer).unwrap();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        event_loop.run_forever().unwrap();
        assert_eq!(log.take(), ["reader", "writer"]);
        event_loop.remove_reader(&ours).unwrap();
        event_loop.remove_writer(&ours).unwrap();
    });
}

// spec: READY-13, READY-08
fn a_half_closed_socket_is_readable_and_writable() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        theirs.shutdown(Shutdown::Write).unwrap();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        turn(event_loop);
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer", "reader", "writer"]);
        send(&ours, b"still heard");
        assert_eq!(receive(&theirs, 20), b"still heard");
        event_loop.remove_reader(&ours).unwrap();
        event_loop.remove_writer(&ours).unwrap();
    });
}

fn assert_sleeps_until_there_is_room(ours: &Socket, theirs: &Socket) {
    with_loop(|event_loop| {
        let calls = Count::default();
        let (count, fd) = (calls.clone(), ours.try_clone().unwrap());
        let writer = move |event_loop: &EventLoop| {
            count.add();
            fill(&fd); // Until the peer's buffer is full, too.
            event_loop.stop();
        };
        theirs.shutdown(Shutdown::Write).unwrap();
        event_loop.add_writer(ours, writer).unwrap();
        let mut before = None;
        while before != Some(calls.get()) {
            before = Some(calls.get());
            while_asleep(event_loop);
        }
        assert_eq!(while_asleep(event_loop), (0, 0));
        drain(theirs);
        event_loop.run_forever().unwrap();
        assert_eq!(Some(calls.get() - 1), before);
        event_loop.remove_writer(ours).unwrap();
    });
}

// spec: READY-13, READY-08, RISK-10
fn a_writer_of_a_full_half_closed_unix_socket_sleeps_until_there_is_room() {
    let (ours, theirs) = pair();
    assert_sleeps_until_there_is_room(&ours, &theirs);
}

// spec: READY-13, READY-08, RISK-10
fn a_writer_of_a_full_half_closed_tcp_socket_sleeps_until_there_is_room() {
    let (ours, theirs) = narrow_tcp_pair();
    assert_sleeps_until_there_is_room(&ours, &theirs);
}

// spec: READY-13, READY-08, READY-04
fn a_watcher_of_both_on_a_full_half_closed_socket_runs_the_reader_alone() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        fill(&ours);
        theirs.shutdown(Shutdown::Write).unwrap();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        turn(event_loop);
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "reader"]);
        drain(&theirs);
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer"]);
        event_loop.remove_reader(&ours).unwrap();
        event_loop.remove_writer(&ours).unwrap();
    });
}
