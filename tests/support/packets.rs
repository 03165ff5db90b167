//! A transport of another kind than streams: packets arrive whole, and an error ends nothing, as with asyncio's datagrams. Both
//! ends are in one loop.
//!
//! The life cycle, the water marks and the door to the protocol are those of all kinds ([`TransportBase`]). Here are only the
//! protocol's own methods and what moves the packets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};

use ringloop::{AnyProtocol, AnyTransport, EventLoop, TransportBase};

/// What the user of such a transport implements.
pub trait PacketProtocol {
    /// The first call.
    fn connection_made(&self, _: &PacketTransport) {}
    /// One packet, which may be empty.
    fn packet_received(&self, transport: &PacketTransport, packet: Vec<u8>);
    /// A packet was refused.
    fn error_received(&self, _: &PacketTransport, _: io::Error) {}
    /// More waits than the high-water mark.
    fn pause_writing(&self, _: &PacketTransport) {}
    /// No more waits than the low-water mark.
    fn resume_writing(&self, _: &PacketTransport) {}
    /// The last call.
    fn connection_lost(&self, _: &PacketTransport, _: Option<&io::Error>) {}
}

/// A handle to one end.
#[derive(Clone)]
pub struct PacketTransport(Rc<End>);

/// A protocol as an end holds it.
#[derive(Clone)]
pub struct PacketProtocolRef(Rc<dyn PacketProtocol>);

struct End {
    base: TransportBase<PacketProtocolRef>,
    peer: RefCell<Weak<Self>>,
    /// Sent, and not with the peer yet.
    outgoing: RefCell<VecDeque<Vec<u8>>>,
    is_queued: Cell<bool>,
}

impl PacketTransport {
    /// Connects two protocols. All that follows comes soon.
    pub fn connect(left: Rc<dyn PacketProtocol>, right: Rc<dyn PacketProtocol>) -> (Self, Self) {
        let (left, right) = (Self::start(left), Self::start(right));
        left.0.peer.replace(Rc::downgrade(&right.0));
        right.0.peer.replace(Rc::downgrade(&left.0));
        (left, right)
    }

    fn start(protocol: Rc<dyn PacketProtocol>) -> Self {
        let event_loop = EventLoop::running().unwrap();
        let transport = Self(Rc::new(End {
            base: TransportBase::new(&event_loop, PacketProtocolRef(protocol), None),
            peer: RefCell::default(),
            outgoing: RefCell::default(),
            is_queued: Cell::new(false),
        }));
        transport.soon(|transport| transport.base().begin(transport, || {}));
        transport
    }

    /// The packet is with the peer later; each iteration takes one.
    pub fn send(&self, packet: &[u8]) {
        if self.base().note_late_write() {
            return;
        }
        self.0.outgoing.borrow_mut().push_back(packet.to_vec());
        self.queue();
        self.base().maybe_pause_protocol(self.size(), || self.clone());
    }

    /// Sends what waits, then ends.
    pub fn close(&self) {
        if self.base().begin_close() && self.size() == 0 {
            self.base().lose(None);
            self.soon(Self::call_connection_lost);
        }
    }

    /// Ends, and drops what waits.
    pub fn abort(&self) {
        self.force_close(None);
    }

    /// Whether it was closed or aborted.
    pub fn is_closing(&self) -> bool {
        self.base().is_closing()
    }

    /// The bytes that are not with the peer yet.
    pub fn size(&self) -> usize {
        self.0.outgoing.borrow().iter().map(Vec::len).sum()
    }

    fn queue(&self) {
        if !self.0.is_queued.replace(true) {
            self.soon(Self::pass_on);
        }
    }

    fn pass_on(&self) {
        self.0.is_queued.set(false);
        let packet = self.0.outgoing.borrow_mut().pop_front();
        let Some(packet) = packet else { return };
        let peer = self.0.peer.borrow().upgrade().filter(|peer| !peer.base.is_over());
        match peer.map(Self) {
            Some(peer) if peer.is_closing() => {}
            Some(peer) => {
                peer.base().notify(&peer, "protocol.packet_received() failed", |protocol| {
                    protocol.0.packet_received(&peer, packet);
                })
            }
            None => self.base().notify(self, "protocol.error_received() failed", |protocol| {
                protocol.0.error_received(self, io::ErrorKind::ConnectionRefused.into());
            }),
        }
        self.base().maybe_resume_protocol(self.size(), || self.clone());
        if self.size() > 0 {
            self.queue();
        } else if self.is_closing() && self.base().lose(None) {
            self.call_connection_lost();
        }
    }

    fn call_connection_lost(&self) {
        if self.base().end(self) {
            self.base().cut();
        }
    }

    fn soon(&self, call: impl FnOnce(&Self) + 'static) {
        let Some(event_loop) = self.base().event_loop() else { return };
        let transport = self.clone();
        event_loop.call_soon(move |_| call(&transport)).unwrap();
    }
}

impl AnyTransport for PacketTransport {
    type Protocol = PacketProtocolRef;

    fn base(&self) -> &TransportBase<PacketProtocolRef> {
        &self.0.base
    }

    fn is_unborrowed(&self) -> bool {
        self.0.peer.try_borrow_mut().is_ok() && self.0.outgoing.try_borrow_mut().is_ok()
    }

    fn force_close(&self, error: Option<io::Error>) {
        if self.base().lose(error) {
            self.0.outgoing.take();
            self.soon(Self::call_connection_lost);
        }
    }
}

impl AnyProtocol for PacketProtocolRef {
    type Transport = PacketTransport;

    fn connection_made(&self, transport: &PacketTransport) {
        self.0.connection_made(transport);
    }

    fn connection_lost(&self, transport: &PacketTransport, error: Option<&io::Error>) {
        self.0.connection_lost(transport, error);
    }

    fn pause_writing(&self, transport: &PacketTransport) {
        self.0.pause_writing(transport);
    }

    fn resume_writing(&self, transport: &PacketTransport) {
        self.0.resume_writing(transport);
    }

    fn is_last(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for PacketTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Packets>")
    }
}

impl fmt::Debug for PacketProtocolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<PacketProtocol>")
    }
}
