//! A toy of a layer, with all that makes TLS hard but the cryptography: below it is a protocol, above it a transport.
//!
//! What is written is rotated by 13 letters, and so is what is received. Its records are lines: a line that has not ended is
//! kept, until the peer's end or our own `close()`, which **delivers it inside the call**, as asyncio's TLS delivers what it
//! has deciphered. While the transport below has its writing paused, what is written is kept here and counts for the water
//! marks of the transport above.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::rc::{Rc, Weak};

use ringloop::{
    AfterEof, AnyTransport, Chunk, Protocol, ProtocolRef, ProtocolResult, Received, Result,
    SendBuffer, StreamTransport, Transport, TransportBase, Upgrade,
};

/// Protocol below and transport above.
pub struct Rot13 {
    base: TransportBase,
    me: Weak<Self>,
    below: Transport,
    /// `connection_made()` is called on the protocol above, since it has not heard of the connection.
    is_new: bool,
    /// Deciphered lines that came while reading was paused.
    parked: RefCell<Vec<u8>>,
    /// The beginning of a line.
    rest: RefCell<Vec<u8>>,
    /// Enciphered while the transport below wanted no more.
    pending: RefCell<Option<SendBuffer>>,
    is_below_paused: Cell<bool>,
}

impl Rot13 {
    /// As `start_tls`: the protocol of `below` goes on above the layer, without a second `connection_made()`. `unread` is
    /// what it was given and was meant for the layer.
    pub fn start(below: &Transport, unread: impl Into<Received>) -> Option<Transport> {
        let protocol = below.get_protocol()?;
        Self::upgrade(below, protocol, unread, false)
    }

    /// As a connection that has the layer from the beginning: `protocol` gets its `connection_made()` with the transport
    /// above.
    pub fn wrap(below: &Transport, protocol: ProtocolRef) -> Option<Transport> {
        Self::upgrade(below, protocol, Received::default(), true)
    }

    fn upgrade(
        below: &Transport,
        protocol: ProtocolRef,
        unread: impl Into<Received>,
        is_new: bool,
    ) -> Option<Transport> {
        let event_loop = below.base().event_loop()?;
        let layer = Rc::new_cyclic(|me| Self {
            base: TransportBase::new(&event_loop, protocol, None),
            me: Weak::clone(me),
            below: below.clone(),
            is_new,
            parked: RefCell::default(),
            rest: RefCell::default(),
            pending: RefCell::default(),
            is_below_paused: Cell::new(false),
        });
        let upgrade = Upgrade::to(Rc::clone(&layer)).unread(unread).connection_made();
        below.upgrade(upgrade)?;
        Some(layer.above())
    }

    /// Delivers what was deciphered, unless reading is paused.
    fn deliver(&self) {
        let data = self.parked.take();
        if !self.base.is_reading() && !self.base.is_closing() {
            self.parked.replace(data);
        } else if !data.is_empty() {
            self.base.feed(&self.above(), data);
        }
    }

    /// The line that has not ended ends here.
    fn deliver_rest(&self) {
        let rest = self.rest.take();
        self.parked.borrow_mut().extend(rest);
        self.deliver();
    }

    fn send(&self) {
        if !self.is_below_paused.get() {
            let pending = self.pending.take();
            if let Some(pending) = pending {
                let _ = self.below.write(pending); // Only misuse is an error, and there is none.
            }
        }
        if self.base.is_closing() && self.size() == 0 {
            self.below.close();
        }
    }

    fn size(&self) -> usize {
        if self.base.is_lost() {
            0
        } else {
            self.pending.borrow().as_ref().map_or(0, |pending| pending.len())
        }
    }

    fn above(&self) -> Transport {
        Transport::from(self.strong() as Rc<dyn StreamTransport>)
    }

    fn strong(&self) -> Rc<Self> {
        self.me.upgrade().expect("called through an Rc")
    }
}

impl Protocol for Rot13 {
    fn connection_made(&self, _: &Transport) {
        if self.is_new {
            self.base.begin(&self.above(), || {});
        }
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        let mut rest = self.rest.borrow_mut();
        rest.extend(data.iter().copied().map(rotate));
        let end = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let begun = rest.split_off(end);
        self.parked.borrow_mut().append(&mut mem::replace(&mut *rest, begun));
        drop(rest);
        self.deliver();
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.deliver_rest();
        Ok(self.base.deliver_eof(&self.above()).unwrap_or_default())
    }

    /// That of the protocol above comes soon after (TLS-40).
    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.base.lose(error.map(|error| io::Error::from(error.kind())));
        let me = self.strong();
        let event_loop = self.base.event_loop().unwrap();
        event_loop
            .call_soon(move |_| {
                if me.base.end(&me.above()) {
                    me.base.cut();
                }
            })
            .unwrap();
    }

    fn pause_writing(&self, _: &Transport) {
        self.is_below_paused.set(true);
    }

    fn resume_writing(&self, _: &Transport) {
        self.is_below_paused.set(false);
        self.send();
        self.base.maybe_resume_protocol(self.size(), || self.above());
    }
}

impl StreamTransport for Rot13 {
    fn base(&self) -> &TransportBase {
        &self.base
    }

    fn is_unborrowed(&self) -> bool {
        self.pending.try_borrow_mut().is_ok()
            && [&self.parked, &self.rest].iter().all(|cell| cell.try_borrow_mut().is_ok())
    }

    fn is_closing(&self) -> bool {
        self.base.is_closing() || self.below.is_closing()
    }

    fn close(self: Rc<Self>) {
        if self.base.begin_close() {
            self.deliver_rest();
            if !self.base.is_lost() {
                self.send();
            }
        }
    }

    fn force_close(self: Rc<Self>, error: Option<io::Error>) {
        if self.base.lose(error) {
            self.pending.take();
            self.below.abort();
        }
    }

    /// What the layer does not know, the connection does.
    fn extra_info(self: Rc<Self>, name: &str) -> Option<Rc<dyn Any>> {
        self.below.find_extra_info(name)
    }

    fn pause_reading(self: Rc<Self>) {
        if self.base.try_pause_reading() {
            self.below.pause_reading();
        }
    }

    fn resume_reading(self: Rc<Self>) {
        if self.base.try_resume_reading() {
            let me = Rc::clone(&self);
            let event_loop = self.base.event_loop().unwrap();
            event_loop.call_soon(move |_| me.deliver()).unwrap();
            self.below.resume_reading();
        }
    }

    /// As it comes from above it is deciphered already.
    fn unread(self: Rc<Self>, data: Received) {
        self.parked.borrow_mut().splice(..0, data.iter().copied());
        if self.base.is_reading() {
            let me = Rc::clone(&self);
            self.base.event_loop().unwrap().call_soon(move |_| me.deliver()).unwrap();
        }
    }

    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        if data.is_empty() || self.base.note_late_write() {
            return Ok(());
        }
        let mut pending = self.pending.borrow_mut();
        pending.get_or_insert_default().extend(data.iter().copied().map(rotate));
        drop(pending);
        if !self.is_below_paused.get() {
            self.send();
        }
        self.base.maybe_pause_protocol(self.size(), || self.above());
        Ok(())
    }

    fn write_buffer_size(self: Rc<Self>) -> usize {
        self.size()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Rot13 over {:?}>", self.below)
    }
}

impl fmt::Debug for Rot13 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

/// The cipher, which is its own inverse.
pub fn rotate(byte: u8) -> u8 {
    match byte {
        b'a'..=b'm' | b'A'..=b'M' => byte + 13,
        b'n'..=b'z' | b'N'..=b'Z' => byte - 13,
        _ => byte,
    }
}

/// A text in it.
pub fn rot13(text: &str) -> String {
    text.chars()
        .map(|letter| u8::try_from(letter).map_or(letter, |byte| rotate(byte).into()))
        .collect()
}
