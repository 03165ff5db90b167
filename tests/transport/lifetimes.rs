//! Who keeps whom alive, and what breaks the cycles.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringloop::{EventLoop, Protocol, Transport};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::{End, drain, pair};
use socket2::Socket;

use super::{attach, recorder, running};

/// Holds its own transport: a cycle.
#[derive(Default)]
struct Owner {
    transport: RefCell<Option<Transport>>,
    lost: Cell<bool>,
}

impl Protocol for Owner {
    fn connection_made(&self, transport: &Transport) {
        self.transport.replace(Some(transport.clone()));
    }
    fn connection_lost(&self, _: &Transport, _: Option<&std::io::Error>) {
        self.lost.set(true);
    }
}

async fn owned(socket: Socket) -> Rc<Owner> {
    let owner = Rc::new(Owner::default());
    running().create_connection(|| Rc::clone(&owner), socket).await.unwrap();
    owner
}

// spec: TRANS-35, TRANS-39
#[test]
fn connection_lost_and_the_end_of_the_loop_both_break_the_cycle() {
    for ends in ["connection", "loop", "handle"] {
        let event_loop = EventLoop::new().unwrap();
        let (a, b) = pair();
        let weak = event_loop
            .run_until_complete(async {
                let owner = owned(a).await;
                let weak = Rc::downgrade(&owner);
                drop(owner);
                settle().await;
                assert!(weak.upgrade().is_some(), "the loop keeps an open connection alive");
                if ends == "connection" {
                    let transport = weak.upgrade().unwrap().transport.borrow().clone().unwrap();
                    transport.close();
                    drop(transport);
                    settle().await;
                }
                weak
            })
            .unwrap();
        assert_eq!(weak.upgrade().is_none(), ends == "connection");
        let warnings = event_loop.stats().warnings;
        if ends == "loop" {
            event_loop.close().unwrap();
            assert_eq!(event_loop.stats().warnings, warnings + 1);
        }
        drop(event_loop);
        assert!(weak.upgrade().is_none());
        assert_eq!(drain(&b), (Vec::new(), End::Eof));
    }
}

#[test]
fn a_transport_that_outlives_its_loop_is_an_empty_shell() {
    let event_loop = EventLoop::new().unwrap();
    let (a, _b) = pair();
    let owner = event_loop.run_until_complete(owned(a)).unwrap();
    let transport = owner.transport.take().unwrap();
    drop(event_loop);
    assert!(!owner.lost.get() && transport.is_closing());
    transport.write(b"x").unwrap();
    transport.set_protocol(Rc::clone(&owner));
    transport.pause_reading();
    transport.resume_reading();
    transport.write_eof().unwrap();
    transport.close();
    transport.abort();
    assert!(transport.get_protocol().is_none());
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert_eq!(Rc::strong_count(&owner), 1);
}

// spec: TRANS-36
#[test]
fn a_connection_that_cannot_be_made_is_closed_and_its_protocol_is_not_called() {
    let event_loop = EventLoop::new().unwrap();
    let (a, b) = pair();
    event_loop.close().unwrap();
    let owner = Rc::new(Owner::default());
    let mut making = pin!(event_loop.create_connection(|| Rc::clone(&owner), a));
    let made = making.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = made else { panic!("a closed loop makes nothing") };
    assert_eq!(error.to_string(), "Event loop is closed");
    assert_eq!(drain(&b), (Vec::new(), End::Eof));
    assert!(owner.transport.borrow().is_none() && !owner.lost.get());
}

/// Uses its transport when it is dropped.
struct Parting(RefCell<Option<Transport>>);

impl Protocol for Parting {
    fn connection_made(&self, transport: &Transport) {
        self.0.replace(Some(transport.clone()));
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(transport) = self.0.take() {
            transport.write(b"bye").unwrap();
            transport.set_protocol(Rc::new(ringloop::Exclusive::new(())));
            transport.close();
            assert!(format!("{transport:?}").starts_with("<Transport"));
        }
    }
}

#[test]
fn a_protocol_may_use_its_transport_when_it_is_dropped() {
    on_loop(async {
        let (a, _b) = pair();
        let event_loop = running();
        let (transport, _) =
            event_loop.create_connection(|| Parting(RefCell::default()), a).await.unwrap();
        transport.abort();
        settle().await;
        let (a, b) = pair();
        let (transport, _) =
            event_loop.create_connection(|| Parting(RefCell::default()), a).await.unwrap();
        let (next, trace) = recorder();
        transport.set_protocol(Rc::new(next)); // Drops the old one, which closes.
        settle().await;
        assert_eq!(drain(&b), (b"bye".to_vec(), End::Eof));
        assert!(trace.lines().is_empty());
    });
}

// spec: TRANS-33
#[test]
fn dropping_every_handle_changes_nothing() {
    on_loop(async {
        let (a, b) = pair();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder.echo()).await;
        drop(transport);
        settle().await;
        drop(b);
        protocol.lost().await;
        assert_eq!(trace.lines().len(), 3);
    });
}
