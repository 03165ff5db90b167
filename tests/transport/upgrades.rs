//! Another protocol in the middle of a connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringloop::{Protocol, ProtocolRef, Transport, Upgrade};
use ringloop_tests::idle::settle;

use super::events;
use super::kinds::on_each_kind;

struct Silent;

impl Protocol for Silent {}

// spec: RISK-30, TRANS-41
#[test]
fn an_upgrade_pauses_and_hands_over_what_has_arrived() {
    on_each_kind(async |kind| {
        let (first, first_trace) = kind.recorder();
        let (second, second_trace) = kind.recorder();
        let next = Rc::new(second);
        let old = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&old);
        let first = first.on_data(move |transport, _| {
            kept.replace(transport.upgrade(Rc::clone(&next)));
            Ok(())
        });
        let (left, right) = kind.connect(first, Silent).await;
        right.write("upgrade").unwrap();
        settle().await;
        right.write("new bytes").unwrap();
        settle().await;
        assert!(matches!(old.take(), Some(ProtocolRef::Stream(_))) && !left.is_reading());
        assert!(events(&second_trace).is_empty());
        left.resume_reading();
        settle().await;
        right.close();
        settle().await;
        assert_eq!(events(&first_trace), ["connection_made", "data_received(b'upgrade')"]);
        assert_eq!(
            events(&second_trace),
            ["data_received(b'new bytes')", "eof_received", "connection_lost(None)"]
        );
    });
}

// spec: RISK-30, TLS-53
#[test]
fn what_the_old_protocol_holds_comes_before_what_is_parked() {
    on_each_kind(async |kind| {
        let (first, _) = kind.recorder();
        let (second, trace) = kind.recorder();
        let (left, right) = kind.connect(first, Silent).await;
        left.pause_reading();
        right.write("parked").unwrap();
        right.close();
        settle().await;
        let second = second.on_data(|transport, _| {
            transport.pause_reading(); // One at a time.
            Ok(())
        });
        assert!(left.upgrade(Upgrade::to(Rc::new(second)).unread("held ".as_bytes())).is_some());
        for _ in 0..3 {
            assert!(!left.is_reading());
            left.resume_reading();
            settle().await;
        }
        assert_eq!(
            events(&trace),
            [
                "data_received(b'held ')",
                "data_received(b'parked')",
                "eof_received",
                "connection_lost(None)"
            ]
        );
    });
}

// spec: TLS-50, TLS-53
#[test]
fn connection_made_of_a_new_protocol_is_called_if_the_upgrade_says_so() {
    on_each_kind(async |kind| {
        let (second, trace) = kind.recorder();
        let (left, right) = kind.connect(Silent, Silent).await;
        right.write("parked").unwrap();
        let second = Rc::new(second);
        let upgrade = Upgrade::to(Rc::clone(&second)).unread("held ".as_bytes()).connection_made();
        assert!(left.upgrade(upgrade).is_some());
        assert!(!left.is_reading() && !second.is_made());
        settle().await;
        assert!(left.is_reading());
        left.close();
        settle().await;
        let heard = events(&trace);
        assert_eq!(heard.first().unwrap(), "connection_made");
        assert_eq!(heard.last().unwrap(), "connection_lost(None)");
        assert_eq!(second.total(), "held parked".len());
    });
}

// spec: RISK-30, WRITE-20
#[test]
fn what_was_written_before_an_upgrade_is_sent_before_what_is_written_after_it() {
    on_each_kind(async |kind| {
        let (right, trace) = kind.recorder();
        let (left, _right) = kind.connect(Silent, right).await;
        left.write("plain, ").unwrap();
        assert!(left.upgrade(Rc::new(Silent)).is_some());
        left.write("then other").unwrap();
        left.close();
        settle().await;
        let heard = events(&trace).join("");
        assert!(heard.contains("plain, "), "{heard}");
        assert_eq!(heard.matches("data_received").count(), heard.matches("')").count());
    });
}

/// Hears the end, and nothing else.
#[derive(Default)]
struct Ends(Rc<Cell<u32>>);

impl Protocol for Ends {
    fn connection_lost(&self, _: &Transport, _: Option<&std::io::Error>) {
        self.0.set(self.0.get() + 1);
    }
}

// spec: PROTO-06, TRANS-35
#[test]
fn the_end_belongs_to_the_protocol_that_was_there_when_it_was_certain() {
    on_each_kind(async |kind| {
        let ends = Ends::default();
        let count = Rc::clone(&ends.0);
        let (left, right) = kind.connect(ends, Silent).await;
        left.close();
        assert!(left.upgrade(Rc::new(Silent)).is_none());
        settle().await;
        assert_eq!(count.get(), 1);
        assert!(left.upgrade(Rc::new(Silent)).is_none() && left.get_protocol().is_none());
        right.abort();
        settle().await;
    });
}

// spec: TRANS-15, TLS-53
#[test]
fn bytes_given_back_behind_a_kept_end_come_before_it_is_told_again() {
    on_each_kind(async |kind| {
        let (first, _) = kind.recorder();
        let (second, trace) = kind.recorder();
        let (left, right) = kind.connect(first.keep_open(), Silent).await;
        right.write("all").unwrap();
        right.write_eof().unwrap();
        settle().await;
        assert!(left.upgrade(Upgrade::to(Rc::new(second)).unread("all".as_bytes())).is_some());
        left.resume_reading();
        settle().await;
        assert_eq!(
            events(&trace),
            ["data_received(b'all')", "eof_received", "connection_lost(None)"]
        );
    });
}
