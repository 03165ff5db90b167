//! Protocols with `&mut self`: what they hear late, and what they do not hear.

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;

use ringloop::{AfterEof, Exclusive, Handler, ProtocolResult, Received, Transport};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_exactly, settle};
use ringloop_tests::sockets::pair;

use super::running;

/// Writes to the last transport that it was given, whichever spoke to it.
#[derive(Default)]
struct Switch {
    target: Option<Transport>,
    panics: bool,
    seen: Rc<RefCell<Vec<String>>>,
    ids: Vec<u64>,
}

impl Switch {
    fn note(&self, transport: &Transport, event: &str) {
        let place = self.ids.iter().position(|&id| id == transport.id()).unwrap();
        self.seen.borrow_mut().push(format!("{place} {event}"));
    }
}

impl Handler for Switch {
    fn connection_made(&mut self, transport: &Transport) {
        self.ids.push(transport.id());
        self.target = Some(transport.clone());
    }

    fn data_received(&mut self, transport: &Transport, data: Received) -> ProtocolResult {
        self.note(transport, "data");
        if let Some(target) = &self.target {
            target.write(vec![0; 1 << 20])?;
        }
        self.note(transport, "written");
        assert!(!self.panics, "boom");
        self.panics = *data == *b"next panics";
        Ok(())
    }

    fn eof_received(&mut self, transport: &Transport) -> ProtocolResult<AfterEof> {
        self.note(transport, "eof");
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&mut self, transport: &Transport, _: Option<&std::io::Error>) {
        self.note(transport, "lost");
        self.target = None;
    }

    fn writing_paused(&mut self, transport: &Transport, paused: bool) {
        self.note(transport, if paused { "paused" } else { "resumed" });
    }
}

fn reports() -> Rc<RefCell<Vec<String>>> {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reports);
    running().set_exception_handler(move |_, context| {
        log.borrow_mut().push(format!("{}: {}", context.message, context.error.unwrap()));
    });
    reports
}

#[test]
fn a_pause_comes_right_after_the_call_that_caused_it_with_its_transport() {
    on_loop(async {
        let switch = Switch::default();
        let seen = Rc::clone(&switch.seen);
        let shared = Rc::new(Exclusive::new(switch));
        let event_loop = running();
        let (a, mut first_peer) = pair();
        let (b, second_peer) = pair();
        let (first, _) = event_loop.create_connection(|| Rc::clone(&shared), a).await.unwrap();
        let (second, _) = event_loop.create_connection(|| shared, b).await.unwrap();
        first_peer.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(seen.take(), ["0 data", "0 written", "1 paused"]);
        drain_exactly(&second_peer, 1 << 20).await;
        settle().await;
        assert_eq!(seen.take(), ["1 resumed"]);
        first_peer.shutdown(Shutdown::Write).unwrap();
        settle().await;
        assert_eq!(seen.take(), ["0 eof"]);
        assert!(!first.is_closing());
        first.close();
        second.close();
        settle().await;
        assert_eq!(seen.borrow().len(), 2);
    });
}

#[test]
fn a_handler_that_panics_gets_no_event_of_before_the_panic_later() {
    on_loop(async {
        let reports = reports();
        let switch = Switch { panics: true, ..Switch::default() };
        let seen = Rc::clone(&switch.seen);
        let shared = Rc::new(Exclusive::new(switch));
        let event_loop = running();
        let (a, mut first_peer) = pair();
        let (b, second_peer) = pair();
        let (first, _) = event_loop.create_connection(|| Rc::clone(&shared), a).await.unwrap();
        let (second, _) = event_loop.create_connection(|| shared, b).await.unwrap();
        first_peer.write_all(b"x").unwrap(); // Pauses the second, then panics.
        settle().await;
        assert_eq!(*reports.borrow(), ["Fatal error: protocol.data_received() call failed.: boom"]);
        assert!(first.is_closing() && !second.is_closing());
        second_peer.shutdown(Shutdown::Write).unwrap();
        settle().await;
        assert_eq!(*seen.borrow(), ["0 data", "0 written", "0 lost", "1 eof"]);
        second.abort();
    });
}

/// Panics over a pause that it heard late.
#[derive(Default)]
struct Panics(Option<Transport>);

impl Handler for Panics {
    fn connection_made(&mut self, transport: &Transport) {
        self.0 = Some(transport.clone());
    }
    fn data_received(&mut self, _: &Transport, _: Received) -> ProtocolResult {
        self.0.as_ref().unwrap().write(vec![0; 1 << 20])?;
        Ok(())
    }
    fn connection_lost(&mut self, _: &Transport, _: Option<&std::io::Error>) {
        self.0 = None;
    }
    fn writing_paused(&mut self, _: &Transport, _: bool) {
        panic!("boom");
    }
}

// spec: PROTO-14
#[test]
fn a_panic_in_a_late_pause_is_reported_for_the_transport_that_paused() {
    on_loop(async {
        let reports = reports();
        let shared = Rc::new(Exclusive::new(Panics::default()));
        let event_loop = running();
        let (a, mut peer) = pair();
        let (b, _second_peer) = pair();
        let (first, _) = event_loop.create_connection(|| Rc::clone(&shared), a).await.unwrap();
        let (second, _) = event_loop.create_connection(|| shared, b).await.unwrap();
        peer.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(*reports.borrow(), ["protocol.pause_writing() failed: boom"]);
        assert!(!first.is_closing() && !second.is_closing());
        first.abort();
        second.abort();
    });
}
