//! What ends a watch: replacement, removal, the end of the loop.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use ringloop::{Error, EventLoop};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{End, drain, pair};

use crate::support::{Count, Log, OnDrop, holding, send, turn, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_replaced_callback_does_not_run_even_if_it_was_queued,
    a_removed_callback_does_not_run_even_if_it_was_queued,
    removing_tells_whether_there_was_one,
    what_is_removed_while_it_waits_is_unregistered_and_not_queued_later,
    removed_and_added_again_in_one_iteration_is_a_fresh_watch,
    what_was_seen_of_a_removed_watcher_and_not_reaped_reaches_nobody,
    a_number_and_the_objects_that_have_it_are_the_same_key,
    the_drop_of_a_replaced_callback_may_use_the_loop,
    the_drop_of_a_removed_callback_may_replace_the_whole_watcher,
    a_removed_callback_is_dropped_when_it_has_returned,
    adding_fails_and_removing_finds_nothing_on_a_closed_loop,
    a_loop_that_closes_drops_callbacks_and_lets_go_of_files,
    drops_that_panic_while_the_loop_closes_are_reported_one_by_one,
];

// spec: READY-05, HANDLE-03, RISK-11
fn a_replaced_callback_does_not_run_even_if_it_was_queued() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        let (a, b) = (Rc::new(a), Rc::new(b));
        send(&to_a, b"x");
        send(&to_b, b"x");
        let log = Log::default();
        // Whichever comes first replaces both callbacks of the other, which are queued by then.
        for (own, other) in [(&a, &b), (&b, &a)] {
            let (own, other) = (Rc::clone(own), Rc::clone(other));
            let (fd, log) = (Rc::clone(&own), log.clone());
            event_loop.add_writer(&fd, log.adds("old writer")).unwrap();
            let replace = move |event_loop: &EventLoop| {
                log.add("old reader");
                event_loop.remove_reader(&own).unwrap();
                event_loop.remove_writer(&own).unwrap();
                event_loop.add_reader(&other, log.adds("new reader")).unwrap();
                event_loop.add_writer(&other, log.adds("new writer")).unwrap();
            };
            event_loop.add_reader(&fd, replace).unwrap();
        }
        turn(event_loop);
        assert_eq!(log.take(), ["old reader"]);
        turn(event_loop);
        assert_eq!(log.take(), ["new reader", "new writer"]);
        for socket in [&a, &b] {
            event_loop.remove_reader(socket).unwrap();
            event_loop.remove_writer(socket).unwrap();
        }
    });
}

// spec: READY-06, HANDLE-03, RISK-11
fn a_removed_callback_does_not_run_even_if_it_was_queued() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        let (a, b, log) = (Rc::new(a), Rc::new(b), Log::default());
        send(&to_a, b"x");
        send(&to_b, b"x");
        // Whichever comes first removes both callbacks of the other, which are queued by then.
        for (own, other) in [(&a, &b), (&b, &a)] {
            let (own, other, log) = (Rc::clone(own), Rc::clone(other), log.clone());
            let fd = Rc::clone(&own);
            event_loop.add_writer(&fd, log.adds("writer")).unwrap();
            let remove = move |event_loop: &EventLoop| {
                log.add("reader");
                event_loop.remove_writer(&own).unwrap();
                assert!(event_loop.remove_reader(&other).unwrap());
                assert!(event_loop.remove_writer(&other).unwrap());
            };
            event_loop.add_reader(&fd, remove).unwrap();
        }
        turn(event_loop);
        assert_eq!(log.take(), ["reader"]);
        for socket in [&a, &b] {
            event_loop.remove_reader(socket).unwrap();
        }
    });
}

// spec: READY-06
fn removing_tells_whether_there_was_one() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        assert!(!event_loop.remove_reader(&ours).unwrap());
        assert!(!event_loop.remove_writer(&ours).unwrap());
        event_loop.add_reader(&ours, |_| ()).unwrap();
        assert!(!event_loop.remove_writer(&ours).unwrap());
        assert!(event_loop.remove_reader(&ours).unwrap());
        assert!(!event_loop.remove_reader(&ours).unwrap());
        event_loop.add_writer(&ours, |_| ()).unwrap();
        assert!(event_loop.remove_writer(&ours).unwrap());
        assert!(!event_loop.remove_writer(&999).unwrap());
    });
}

/// A watcher is cancelled by its removal; no handle of it is given out.
// spec: READY-07, READY-06, RISK-11
fn what_is_removed_while_it_waits_is_unregistered_and_not_queued_later() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let calls = Count::default();
        event_loop.add_reader(&ours, calls.callback()).unwrap();
        turn(event_loop);
        assert_eq!((event_loop.stats().watchers, event_loop.stats().in_flight), (1, 1));
        event_loop.remove_reader(&ours).unwrap();
        assert_eq!((event_loop.stats().watchers, event_loop.stats().in_flight), (0, 0));
        send(&theirs, b"x");
        turn(event_loop);
        turn(event_loop);
        assert_eq!(calls.get(), 0);
    });
}

// spec: READY-10, READY-06, RISK-11
fn removed_and_added_again_in_one_iteration_is_a_fresh_watch() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, to_b)) = (pair(), pair());
        let (a, b, log) = (Rc::new(a), Rc::new(b), Log::default());
        send(&to_a, b"x");
        send(&to_b, b"x");
        for (own, other) in [(&a, &b), (&b, &a)] {
            let (own, other, log) = (Rc::clone(own), Rc::clone(other), log.clone());
            let fd = Rc::clone(&own);
            let renew = move |event_loop: &EventLoop| {
                log.add("old");
                for socket in [&own, &other] {
                    assert!(event_loop.remove_reader(socket).unwrap());
                    event_loop.add_reader(socket, log.adds("new")).unwrap();
                }
            };
            event_loop.add_reader(&fd, renew).unwrap();
        }
        turn(event_loop);
        assert_eq!(log.take(), ["old"], "the handle of the other is that of its old watch");
        turn(event_loop);
        assert_eq!(log.take(), ["new", "new"]);
        event_loop.remove_reader(&a).unwrap();
        event_loop.remove_reader(&b).unwrap();
    });
}

// spec: READY-06, RISK-11
fn what_was_seen_of_a_removed_watcher_and_not_reaped_reaches_nobody() {
    with_loop(|event_loop| {
        let ((a, to_a), (b, _to_b)) = (pair(), pair());
        let calls = Count::default();
        event_loop.add_reader(&a, calls.callback()).unwrap();
        event_loop.add_reader(&b, calls.callback()).unwrap();
        turn(event_loop);
        send(&to_a, b"x");
        // Retires its op, and so decodes what has come for the other.
        event_loop.remove_reader(&b).unwrap();
        event_loop.remove_reader(&a).unwrap();
        turn(event_loop);
        assert_eq!((calls.get(), event_loop.stats().stale), (0, 0));
    });
}

// spec: READY-17
fn a_number_and_the_objects_that_have_it_are_the_same_key() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let log = Log::default();
        send(&theirs, b"x");
        event_loop.add_reader(&ours, log.adds("by object")).unwrap();
        event_loop.add_reader(&ours.as_raw_fd(), log.adds("by number")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["by number"]);
        assert!(event_loop.remove_reader(&std::os::fd::AsFd::as_fd(&ours)).unwrap());
        assert!(!event_loop.remove_reader(&ours.as_raw_fd()).unwrap());
    });
}

// spec: READY-05, READY-18
fn the_drop_of_a_replaced_callback_may_use_the_loop() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, log) = (Rc::new(ours), Log::default());
        send(&theirs, b"x");
        let (weak, socket, inner) = (event_loop.downgrade(), Rc::clone(&ours), log.clone());
        let held = OnDrop(move || {
            let event_loop = weak.upgrade().unwrap();
            assert!(event_loop.remove_reader(&socket).unwrap(), "the new one is there already");
            event_loop.add_reader(&socket, inner.adds("of the drop")).unwrap();
        });
        event_loop.add_reader(&ours, holding(held)).unwrap();
        event_loop.add_reader(&ours, log.adds("the new one")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["of the drop"]);
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-06, READY-18
fn the_drop_of_a_removed_callback_may_replace_the_whole_watcher() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, log) = (Rc::new(ours), Log::default());
        send(&theirs, b"x");
        let (weak, socket, inner) = (event_loop.downgrade(), Rc::clone(&ours), log.clone());
        let held = OnDrop(move || {
            let event_loop = weak.upgrade().unwrap();
            assert!(event_loop.remove_writer(&socket).unwrap());
            event_loop.add_reader(&socket, inner.adds("reader")).unwrap();
        });
        event_loop.add_writer(&ours, log.adds("writer")).unwrap();
        event_loop.add_reader(&ours, holding(held)).unwrap();
        assert!(event_loop.remove_reader(&ours).unwrap());
        turn(event_loop);
        assert_eq!(log.take(), ["reader"]);
        assert!(event_loop.remove_reader(&ours).unwrap());
        assert_eq!(event_loop.stats().sources, 0);
    });
}

// spec: READY-18
fn a_removed_callback_is_dropped_when_it_has_returned() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (ours, log) = (Rc::new(ours), Log::default());
        send(&theirs, b"x");
        let (socket, inner, at_end) = (Rc::clone(&ours), log.clone(), log.clone());
        let held = OnDrop(move || at_end.add("dropped"));
        let reader = move |event_loop: &EventLoop| {
            let _held = &held;
            event_loop.remove_reader(&socket).unwrap();
            inner.add("still running");
        };
        event_loop.add_reader(&ours, reader).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["still running", "dropped"]);
    });
}

// spec: READY-14
fn adding_fails_and_removing_finds_nothing_on_a_closed_loop() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        let closed = EventLoop::new().unwrap();
        closed.add_reader(&ours, |_| ()).unwrap();
        closed.add_writer(&ours, |_| ()).unwrap();
        turn(&closed);
        closed.close().unwrap();
        for error in [closed.add_reader(&ours, |_| ()), closed.add_writer(&ours, |_| ())] {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::State(_)), "{error:?}");
            assert_eq!(error.to_string(), "Event loop is closed");
        }
        assert!(!closed.remove_reader(&ours).unwrap());
        assert!(!closed.remove_writer(&ours).unwrap());
        assert!(!closed.remove_reader(&-1).unwrap(), "a closed loop looks at no argument");
        event_loop.add_reader(&ours, |_| ()).unwrap();
        event_loop.remove_reader(&ours).unwrap();
    });
}

// spec: READY-14
fn a_loop_that_closes_drops_callbacks_and_lets_go_of_files() {
    with_loop(|_| {
        let event_loop = EventLoop::new().unwrap();
        let (ours, theirs) = pair();
        let dropped = Rc::new(Cell::new(false));
        let (flag, weak, fd) = (Rc::clone(&dropped), event_loop.downgrade(), ours.as_raw_fd());
        let held = OnDrop(move || {
            let event_loop = weak.upgrade().unwrap();
            assert!(event_loop.add_reader(&fd, |_| ()).is_err());
            assert!(!event_loop.remove_reader(&fd).unwrap());
            flag.set(true);
        });
        event_loop.add_reader(&ours, holding(held)).unwrap();
        turn(&event_loop);
        event_loop.close().unwrap();
        assert!(dropped.get());
        assert_eq!(drain(&theirs).1, End::Again, "the descriptor is its owner's");
        drop(ours);
        assert_eq!(drain(&theirs).1, End::Eof);
    });
}

// spec: READY-14
fn drops_that_panic_while_the_loop_closes_are_reported_one_by_one() {
    with_loop(|_| {
        let event_loop = EventLoop::new().unwrap();
        let (a, b) = pair();
        for socket in [&a, &b] {
            let held = OnDrop(|| panic!("in a drop"));
            event_loop.add_reader(socket, holding(held)).unwrap();
        }
        event_loop.close().unwrap();
        assert_eq!(event_loop.stats().reports, 2);
    });
}
