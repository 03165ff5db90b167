//! When readers and writers run.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use ringloop::EventLoop;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::pair;

use crate::support::{Count, Log, receive, send, turn, with_loop, with_reports, would_block};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_reader_runs_once_per_iteration_until_all_is_read,
    a_writer_of_an_idle_socket_runs_once_in_every_iteration,
    a_watcher_takes_nothing_out_of_the_descriptor,
    a_reader_runs_even_if_somebody_else_was_faster,
    a_watch_looks_at_the_descriptor_in_the_next_iteration_and_not_before,
    the_reader_runs_before_the_writer,
    a_writer_that_is_added_to_a_waiting_reader_runs_in_the_next_iteration,
    removing_one_of_two_leaves_the_other,
    callbacks_add_and_remove_watchers_their_own_included,
    a_callback_that_removes_itself_and_adds_itself_again_runs_once_per_iteration,
    a_callback_that_panics_is_reported_and_runs_again,
    watches_outlast_the_end_of_a_run,
    a_run_that_is_exited_from_repeats_no_call,
];

// spec: READY-01, READY-02, RISK-10, RISK-13
fn a_reader_runs_once_per_iteration_until_all_is_read() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, log) = (Rc::new(ours), Log::default());
        let (socket, inner) = (Rc::clone(&ours), log.clone());
        let reader = move |_: &_| inner.add(format!("{:?}", receive(&socket, 1)));
        event_loop.add_reader(&ours, reader).unwrap();
        turn(event_loop);
        assert!(log.take().is_empty());
        send(&theirs, &[1, 2]);
        turn(event_loop);
        assert_eq!(log.take(), ["[1]"]);
        turn(event_loop);
        assert_eq!(log.take(), ["[2]"], "what is left is not forgotten");
        turn(event_loop);
        assert!(log.take().is_empty());
        send(&theirs, &[3]);
        turn(event_loop);
        assert_eq!(log.take(), ["[3]"]);
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-02, READY-16, RISK-10
fn a_writer_of_an_idle_socket_runs_once_in_every_iteration() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        let calls = Count::default();
        event_loop.add_writer(&ours, calls.callback()).unwrap();
        for call in 1..=5 {
            turn(event_loop);
            assert_eq!(calls.get(), call);
        }
        assert!(event_loop.remove_writer(&ours).unwrap());
        turn(event_loop);
        assert_eq!(calls.get(), 5);
    });
}

// spec: READY-15, RISK-12
fn a_watcher_takes_nothing_out_of_the_descriptor() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        event_loop.add_reader(&ours, |_| ()).unwrap();
        turn(event_loop);
        send(&theirs, b"first ");
        turn(event_loop);
        send(&theirs, b"second");
        turn(event_loop);
        assert_eq!(receive(&ours, 20), b"first second");
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-03, RISK-12, RISK-13
fn a_reader_runs_even_if_somebody_else_was_faster() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, log) = (Rc::new(ours), Log::default());
        let (socket, inner) = (Rc::clone(&ours), log.clone());
        let reader = move |_: &_| inner.add(format!("would block: {}", would_block(&socket)));
        event_loop.add_reader(&ours, reader).unwrap();
        send(&theirs, b"x");
        // It was ready already, so it goes before what the poll finds.
        let socket = Rc::clone(&ours);
        event_loop.call_soon(move |_| assert_eq!(receive(&socket, 9), b"x")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["would block: true"]);
        turn(event_loop);
        assert!(log.take().is_empty());
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-01, READY-03, RISK-13
fn a_watch_looks_at_the_descriptor_in_the_next_iteration_and_not_before() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, calls) = (Rc::new(ours), Count::default());
        send(&theirs, b"x");
        let (socket, reader) = (Rc::clone(&ours), calls.callback());
        event_loop
            .call_soon(move |event_loop| {
                event_loop.add_reader(&socket, reader).unwrap();
                event_loop.flush().unwrap();
            })
            .unwrap();
        let socket = Rc::clone(&ours);
        event_loop.call_soon(move |_| assert_eq!(receive(&socket, 9), b"x")).unwrap();
        turn(event_loop);
        turn(event_loop);
        assert_eq!(calls.get(), 0, "at the poll of the second iteration there was nothing");
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: LOOP-23, READY-04, RISK-10
fn the_reader_runs_before_the_writer() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        send(&theirs, b"x");
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        turn(event_loop);
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer", "reader", "writer"]);
        event_loop.remove_reader(&ours).unwrap();
        event_loop.remove_writer(&ours).unwrap();
    });
}

// spec: READY-04
fn a_writer_that_is_added_to_a_waiting_reader_runs_in_the_next_iteration() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        turn(event_loop);
        assert_eq!(event_loop.stats().in_flight, 1);
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["writer"]);
        send(&theirs, b"x");
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer"]);
        event_loop.remove_writer(&ours).unwrap();
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-04, READY-06
fn removing_one_of_two_leaves_the_other() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        event_loop.add_reader(&ours, log.adds("reader")).unwrap();
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        send(&theirs, b"x");
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer"]);
        assert!(event_loop.remove_writer(&ours).unwrap());
        turn(event_loop);
        assert_eq!(log.take(), ["reader"]);
        assert!(!event_loop.remove_writer(&ours).unwrap());
        event_loop.add_writer(&ours, log.adds("new writer")).unwrap();
        assert!(event_loop.remove_reader(&ours).unwrap());
        turn(event_loop);
        assert_eq!(log.take(), ["new writer"]);
        assert!(event_loop.remove_writer(&ours).unwrap());
    });
}

// spec: READY-18, READY-06
fn callbacks_add_and_remove_watchers_their_own_included() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, to_b), (c, to_c)) = (pair(), pair(), pair());
        let log = Log::default();
        let (a, b, c) = (Rc::new(a), Rc::new(b), Rc::new(c));
        let (own, other, third) = (Rc::clone(&a), Rc::clone(&b), Rc::clone(&c));
        let inner = log.clone();
        let first = move |event_loop: &EventLoop| {
            inner.add("first");
            assert!(event_loop.remove_reader(&own).unwrap());
            assert!(!event_loop.remove_reader(&own).unwrap());
            assert!(event_loop.remove_reader(&other).unwrap());
            event_loop.add_reader(&third, inner.adds("third")).unwrap();
        };
        event_loop.add_reader(&a, first.clone()).unwrap();
        event_loop.add_reader(&b, log.adds("second")).unwrap();
        for peer in [&to_a, &to_c] {
            send(peer, b"x");
        }
        turn(event_loop);
        assert_eq!(log.take(), ["first"]);
        send(&to_b, b"x");
        turn(event_loop);
        assert_eq!(log.take(), ["third"]);
        event_loop.remove_reader(&c).unwrap();
    });
}

// spec: READY-02, READY-10, READY-18
fn a_callback_that_removes_itself_and_adds_itself_again_runs_once_per_iteration() {
    fn again(event_loop: &EventLoop, socket: Rc<socket2::Socket>, calls: Count) {
        let (fd, calls) = (Rc::clone(&socket), calls);
        let reader = move |event_loop: &EventLoop| {
            calls.add();
            assert!(event_loop.remove_reader(&socket).unwrap());
            again(event_loop, Rc::clone(&socket), calls.clone());
        };
        event_loop.add_reader(&fd, reader).unwrap();
    }
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, calls) = (Rc::new(ours), Count::default());
        send(&theirs, b"x");
        again(event_loop, Rc::clone(&ours), calls.clone());
        for call in 1..=4 {
            turn(event_loop);
            assert_eq!(calls.get(), call);
        }
        event_loop.remove_reader(&ours).unwrap();
    });
}

fn a_callback_that_panics_is_reported_and_runs_again() {
    with_reports(2, |event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        let inner = log.clone();
        event_loop.set_exception_handler(move |_, context| {
            inner.add(format!("{}: {}", context.message, context.error.unwrap()));
        });
        send(&theirs, b"x");
        event_loop.add_reader(&ours, |_| panic!("of the reader's")).unwrap();
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        turn(event_loop);
        turn(event_loop);
        let fd = ours.as_raw_fd();
        let report = format!("Exception in callback <Watcher fd={fd}>: of the reader's");
        assert_eq!(log.take(), [report.as_str(), "writer", &report, "writer"]);
        assert!(event_loop.remove_reader(&ours).unwrap());
        assert!(event_loop.remove_writer(&ours).unwrap());
    });
}

// spec: READY-01
fn watches_outlast_the_end_of_a_run() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let calls = Count::default();
        event_loop.add_reader(&ours, calls.stopping()).unwrap();
        turn(event_loop);
        send(&theirs, b"x");
        for call in 1..=3 {
            event_loop.run_forever().unwrap();
            assert_eq!(calls.get(), call);
        }
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-02
fn a_run_that_is_exited_from_repeats_no_call() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        let log = Log::default();
        for (socket, name) in [(&a, "a"), (&b, "b")] {
            let (log, mut calls) = (log.clone(), 0);
            let reader = move |event_loop: &EventLoop| {
                log.add(name);
                calls += 1;
                if calls == 1 {
                    event_loop.request_exit(1);
                }
            };
            event_loop.add_reader(socket, reader).unwrap();
        }
        send(&to_a, b"x");
        send(&to_b, b"x");
        event_loop.stop();
        event_loop.run_forever().unwrap_err();
        let first = log.take();
        assert_eq!(first.len(), 1, "the handle of the other is queued still");
        // That handle, and what the next poll finds, are one call.
        event_loop.stop();
        event_loop.run_forever().unwrap_err();
        let second = log.take();
        assert_eq!(second.len(), 1);
        assert_ne!(first, second);
        turn(event_loop);
        let mut both = [first, second].concat();
        both.sort();
        let mut third = log.take();
        third.sort();
        assert_eq!(third, both);
        event_loop.remove_reader(&a).unwrap();
        event_loop.remove_reader(&b).unwrap();
    });
}
