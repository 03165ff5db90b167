//! Numbers that are closed and used again, and those that have an owner.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use ringloop::{AsyncFd, Error, EventLoop, Protocol, Target};
use ringloop_tests::idle::{self, settle};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{End, drain, pair};
use rustix::io::dup2;
use socket2::Socket;

use crate::support::{Count, Log, OnDrop, holding, receive, send, turn, with_loop};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_number_may_be_closed_and_used_again_as_soon_as_its_watch_is_removed,
    a_number_that_was_used_again_while_it_was_watched_is_watched_anew,
    a_number_that_was_used_again_has_no_watch_of_its_old_owner_left,
    what_is_closed_while_it_is_watched_stays_open_until_the_watch_is_removed,
    a_refused_watch_changes_nothing,
    the_drop_of_an_old_owners_callback_may_use_the_loop,
    the_descriptor_of_an_open_transport_is_refused_until_it_closes,
    the_descriptor_of_an_async_fd_is_refused_until_that_goes,
    an_async_fd_is_refused_a_descriptor_that_is_watched_or_owned,
];

// spec: READY-09, RISK-08, RISK-11
fn a_number_may_be_closed_and_used_again_as_soon_as_its_watch_is_removed() {
    with_loop(|event_loop| {
        for is_armed in [false, true] {
            let (old, to_old) = pair();
            let (number, log) = (old.as_raw_fd(), Log::default());
            event_loop.add_reader(&old, log.adds("old")).unwrap();
            if is_armed {
                turn(event_loop);
            }
            send(&to_old, b"x");
            event_loop.remove_reader(&old).unwrap();
            drop(old);
            assert_eq!(drain(&to_old).1, End::Error("ConnectionResetError[ECONNRESET]".into()));
            let (new, to_new) = pair();
            assert_eq!(new.as_raw_fd(), number, "the lowest free number is taken");
            event_loop.add_reader(&new, log.adds("new")).unwrap();
            turn(event_loop);
            turn(event_loop);
            assert!(log.take().is_empty());
            send(&to_new, b"y");
            turn(event_loop);
            assert_eq!(log.take(), ["new"]);
            event_loop.remove_reader(&new).unwrap();
        }
    });
}

// spec: READY-09, RISK-08
fn a_number_that_was_used_again_while_it_was_watched_is_watched_anew() {
    with_loop(|event_loop| {
        for is_armed in [false, true] {
            let ((old, to_old), (new, to_new)) = (pair(), pair());
            let (mut fd, log) = (OwnedFd::from(old), Log::default());
            event_loop.add_reader(&fd, log.adds("old")).unwrap();
            if is_armed {
                turn(event_loop);
            }
            send(&to_old, b"x");
            dup2(&new, &mut fd).unwrap();
            event_loop.add_reader(&fd, log.adds("new")).unwrap();
            turn(event_loop);
            turn(event_loop);
            assert!(log.take().is_empty(), "what was readable is another file");
            assert!(matches!(drain(&to_old).1, End::Error(_)), "and that is closed now");
            send(&to_new, b"y");
            turn(event_loop);
            assert_eq!(log.take(), ["new"]);
            event_loop.remove_reader(&fd).unwrap();
        }
    });
}

// spec: READY-09, RISK-08
fn a_number_that_was_used_again_has_no_watch_of_its_old_owner_left() {
    with_loop(|event_loop| {
        let ((old, to_old), (new, to_new)) = (pair(), pair());
        let (mut fd, log) = (OwnedFd::from(old), Log::default());
        event_loop.add_reader(&fd, log.adds("old reader")).unwrap();
        event_loop.add_writer(&fd, log.adds("old writer")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["old writer"]);
        send(&to_old, b"x");
        send(&to_new, b"y");
        dup2(&new, &mut fd).unwrap();
        event_loop.add_writer(&fd, log.adds("new writer")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["new writer"]);
        assert!(!event_loop.remove_reader(&fd).unwrap());
        assert!(event_loop.remove_writer(&fd).unwrap());
    });
}

// spec: READY-09, RISK-08
fn what_is_closed_while_it_is_watched_stays_open_until_the_watch_is_removed() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (number, calls) = (ours.as_raw_fd(), Count::default());
        event_loop.add_reader(&ours, calls.callback()).unwrap();
        turn(event_loop);
        drop(ours);
        assert_eq!(drain(&theirs).1, End::Again, "unlike with epoll");
        send(&theirs, b"x");
        turn(event_loop);
        assert_eq!(calls.get(), 1, "the file is watched, not its number");
        assert!(event_loop.remove_reader(&number).unwrap());
        assert!(matches!(drain(&theirs).1, End::Error(_)));
    });
}

// spec: READY-12
fn a_refused_watch_changes_nothing() {
    with_loop(|event_loop| {
        let (ours, theirs) = pair();
        let (number, calls) = (ours.as_raw_fd(), Count::default());
        event_loop.add_reader(&ours, calls.callback()).unwrap();
        drop(ours);
        let refused = event_loop.add_writer(&number, |_| ()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        send(&theirs, b"x");
        turn(event_loop);
        assert_eq!(calls.get(), 1);
        assert!(event_loop.remove_reader(&number).unwrap());
    });
}

// spec: READY-09, READY-18
fn the_drop_of_an_old_owners_callback_may_use_the_loop() {
    with_loop(|event_loop| {
        let ((old, _to_old), (new, to_new)) = (pair(), pair());
        let (mut fd, log) = (OwnedFd::from(old), Log::default());
        let (weak, number, inner) = (event_loop.downgrade(), fd.as_raw_fd(), log.clone());
        let held = OnDrop(move || {
            let event_loop = weak.upgrade().unwrap();
            event_loop.add_writer(&number, inner.adds("writer")).unwrap();
        });
        event_loop.add_reader(&fd, holding(held)).unwrap();
        dup2(&new, &mut fd).unwrap();
        send(&to_new, b"x");
        event_loop.add_reader(&fd, log.adds("reader")).unwrap();
        turn(event_loop);
        assert_eq!(log.take(), ["reader", "writer"]);
        event_loop.remove_reader(&fd).unwrap();
        event_loop.remove_writer(&fd).unwrap();
    });
}

struct Deaf;

impl Protocol for Deaf {}

/// What the four functions say to `number`, all the same.
fn said_of(event_loop: &EventLoop, number: i32) -> String {
    let results = [
        event_loop.add_reader(&number, |_| ()),
        event_loop.remove_reader(&number).map(drop),
        event_loop.add_writer(&number, |_| ()),
        event_loop.remove_writer(&number).map(drop),
    ];
    let errors = results.map(|result| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error:?}");
        error.to_string()
    });
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    errors[0].clone()
}

// spec: READY-11, SOCK-09
fn the_descriptor_of_an_open_transport_is_refused_until_it_closes() {
    with_loop(|event_loop| {
        let main = async {
            let (ours, theirs) = pair();
            let number = ours.as_raw_fd();
            let (transport, _) =
                event_loop.create_connection(|| Deaf, Target::from(ours)).await.unwrap();
            let start = format!("File descriptor {number} is used by transport <");
            assert!(said_of(event_loop, number).starts_with(&start));
            let refused = event_loop.add_reader(&theirs, |_| ());
            refused.expect("the peer's is nobody's");
            event_loop.remove_reader(&theirs).unwrap();
            transport.close();
            assert!(!event_loop.remove_reader(&number).unwrap());
            event_loop.add_writer(&number, |_| ()).unwrap();
            assert!(event_loop.remove_writer(&number).unwrap());
            settle().await;
        };
        event_loop.run_until_complete(main).unwrap();
    });
}

// spec: READY-11
fn the_descriptor_of_an_async_fd_is_refused_until_that_goes() {
    with_loop(|event_loop| {
        let (ours, _theirs) = pair();
        let number = ours.as_raw_fd();
        let main = async {
            let ours = AsyncFd::new(ours).unwrap();
            let said = said_of(event_loop, number);
            assert_eq!(
                said,
                format!("File descriptor {number} is used by transport <AsyncFd fd={number}>")
            );
            ours.into_inner()
        };
        let ours = event_loop.run_until_complete(main).unwrap();
        event_loop.add_reader(&ours, |_| ()).unwrap();
        assert!(event_loop.remove_reader(&ours).unwrap());
    });
}

// spec: READY-11
fn an_async_fd_is_refused_a_descriptor_that_is_watched_or_owned() {
    fn said_to(socket: &Socket) -> String {
        let error = AsyncFd::new(socket).map(drop).unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error:?}");
        error.to_string()
    }
    with_loop(|event_loop| {
        let main = async {
            let (ours, theirs) = pair();
            let (number, calls) = (ours.as_raw_fd(), Count::default());
            event_loop.add_reader(&ours, calls.callback()).unwrap();
            let text = format!("File descriptor {number} is watched by a reader or a writer");
            assert_eq!(said_to(&ours), text);
            send(&theirs, b"x");
            idle::turn(2).await;
            assert_eq!(calls.get(), 1, "the reader is still there");
            receive(&ours, 9);
            event_loop.remove_reader(&ours).unwrap();
            let first = AsyncFd::new(&ours).unwrap();
            let text =
                format!("File descriptor {number} is used by transport <AsyncFd fd={number}>");
            assert_eq!(said_to(&ours), text);
            drop(first);
            AsyncFd::new(&ours).expect("it is nobody's again");
            let ours = Rc::new(ours);
            let target = Target::from(ours.try_clone().unwrap());
            let (transport, _) = event_loop.create_connection(|| Deaf, target).await.unwrap();
            AsyncFd::new(&*ours).expect("a duplicate has another number");
            transport.abort();
            settle().await;
        };
        event_loop.run_until_complete(main).unwrap();
    });
}
