//! A stream transport in memory: two ends in one loop, and between them a "kernel" with bounded buffers.
//!
//! Written upon what all transports share ([`TransportBase`]), without the driver. What a socket's transport does in system
//! calls, it does on a `Pipe` in each direction; readiness is a callback that is scheduled soon.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};

use ringloop::{
    AfterEof, Chunk, EventLoop, ProtocolRef, Received, Result, StreamTransport, Transport,
    TransportBase,
};

/// One end of a connection.
pub struct Memory {
    base: TransportBase,
    me: Weak<Self>,
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    /// Given back by somebody who had it already: comes before what is in the pipe.
    unread: RefCell<VecDeque<Received>>,
    /// Written, and not in the pipe yet.
    buffer: RefCell<VecDeque<u8>>,
    /// As asyncio's registered reader: the end is listened to.
    is_reader: Cell<bool>,
    is_read_queued: Cell<bool>,
    is_write_queued: Cell<bool>,
}

/// One direction: what a kernel would keep.
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    /// Nothing is written any more.
    is_ended: Cell<bool>,
    /// Nobody reads any more.
    is_broken: Cell<bool>,
    writer: RefCell<Weak<Memory>>,
    reader: RefCell<Weak<Memory>>,
}

impl Memory {
    /// Connects two protocols. As with sockets, all that follows comes soon.
    pub fn connect(left: ProtocolRef, right: ProtocolRef) -> (Transport, Transport) {
        let there = Rc::new(Pipe::new());
        let back = Rc::new(Pipe::new());
        let left = Self::start(left, Rc::clone(&back), Rc::clone(&there));
        let right = Self::start(right, there, back);
        (left, right)
    }

    fn start(protocol: ProtocolRef, incoming: Rc<Pipe>, outgoing: Rc<Pipe>) -> Transport {
        let event_loop = EventLoop::running().unwrap();
        let end = Rc::new_cyclic(|me| Self {
            base: TransportBase::new(&event_loop, protocol, None),
            me: Weak::clone(me),
            incoming,
            outgoing,
            unread: RefCell::default(),
            buffer: RefCell::default(),
            is_reader: Cell::new(false),
            is_read_queued: Cell::new(false),
            is_write_queued: Cell::new(false),
        });
        end.incoming.reader.replace(Weak::clone(&end.me));
        end.outgoing.writer.replace(Weak::clone(&end.me));
        end.soon(|end| end.base.begin(&end.transport(), || end.start_reading()));
        end.transport()
    }

    fn start_reading(&self) {
        if self.base.is_reading() {
            self.is_reader.set(true);
            self.queue_read();
        }
    }

    /// Takes what is there, as much as one receive of a socket would, or the end.
    fn read_ready(&self) {
        let transport = self.transport();
        if !self.is_reader.get() {
            return;
        }
        let unread = self.unread.borrow_mut().pop_front();
        let mut data = unread.unwrap_or_else(|| self.incoming.take());
        if !data.is_empty() {
            while !data.is_empty() && self.is_reader.get() {
                if !self.base.deliver(&transport, &mut data, None) {
                    return;
                }
            }
            if !data.is_empty() {
                self.unread.borrow_mut().push_front(data);
            }
        } else if !self.incoming.is_ended.get() {
            return; // The one who writes will say when there is something.
        } else if self.base.deliver_eof(&transport) == Some(AfterEof::KeepOpen) {
            self.is_reader.set(false);
        }
        self.queue_read();
    }

    /// Puts as much as there is room for into the pipe.
    fn send(&self) {
        if self.outgoing.is_broken.get() && !self.buffer.borrow().is_empty() {
            let error = io::ErrorKind::BrokenPipe;
            return self.strong().force_close(Some(error.into()));
        }
        self.outgoing.put(&mut self.buffer.borrow_mut());
    }

    fn write_ready(&self) {
        if self.base.is_lost() {
            return;
        }
        self.send();
        self.base.maybe_resume_protocol(self.size(), || self.transport()); // May write, close or abort.
        if self.base.is_lost() || self.size() > 0 {
            return;
        }
        if self.base.is_closing() {
            self.base.lose(None);
            self.call_connection_lost();
        } else if self.base.has_eof() {
            self.outgoing.end();
        }
    }

    fn call_connection_lost(&self) {
        if self.base.end(&self.transport()) {
            self.incoming.is_broken.set(true);
            self.incoming.wake_writer();
            self.outgoing.end();
            self.base.cut();
        }
    }

    fn queue_read(&self) {
        if self.is_reader.get() && !self.is_read_queued.replace(true) {
            self.soon(|end| {
                end.is_read_queued.set(false);
                end.read_ready();
            });
        }
    }

    fn queue_write(&self) {
        if !self.is_write_queued.replace(true) {
            self.soon(|end| {
                end.is_write_queued.set(false);
                end.write_ready();
            });
        }
    }

    fn soon(&self, call: impl FnOnce(&Self) + 'static) {
        let me = self.strong();
        let Some(event_loop) = self.base.event_loop() else { return };
        event_loop.call_soon(move |_| call(&me)).unwrap();
    }

    fn size(&self) -> usize {
        if self.base.is_lost() { 0 } else { self.buffer.borrow().len() }
    }

    fn transport(&self) -> Transport {
        Transport::from(self.strong() as Rc<dyn StreamTransport>)
    }

    fn strong(&self) -> Rc<Self> {
        self.me.upgrade().expect("called through an Rc")
    }
}

impl StreamTransport for Memory {
    fn base(&self) -> &TransportBase {
        &self.base
    }

    fn is_unborrowed(&self) -> bool {
        self.unread.try_borrow_mut().is_ok()
            && self.buffer.try_borrow_mut().is_ok()
            && self.incoming.bytes.try_borrow_mut().is_ok()
            && self.outgoing.bytes.try_borrow_mut().is_ok()
    }

    fn close(self: Rc<Self>) {
        if !self.base.begin_close() {
            return;
        }
        self.is_reader.set(false);
        if self.size() == 0 {
            self.base.lose(None);
            self.soon(Self::call_connection_lost);
        }
    }

    fn force_close(self: Rc<Self>, error: Option<io::Error>) {
        if self.base.lose(error) {
            self.is_reader.set(false);
            self.buffer.take();
            self.soon(Self::call_connection_lost);
        }
    }

    fn pause_reading(self: Rc<Self>) {
        if self.base.try_pause_reading() {
            self.is_reader.set(false);
        }
    }

    fn resume_reading(self: Rc<Self>) {
        if self.base.try_resume_reading() {
            self.is_reader.set(true);
            self.queue_read();
        }
    }

    fn unread(self: Rc<Self>, data: Received) {
        self.unread.borrow_mut().push_front(data);
        self.queue_read();
    }

    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        self.base.check_eof("write")?;
        if data.is_empty() || self.base.note_late_write() {
            return Ok(());
        }
        self.buffer.borrow_mut().extend(&*data);
        self.send();
        self.base.maybe_pause_protocol(self.size(), || self.transport());
        Ok(())
    }

    fn write_eof(self: Rc<Self>) -> Result<()> {
        if self.base.try_end_writing() && self.size() == 0 {
            self.outgoing.end();
        }
        Ok(())
    }

    fn can_write_eof(&self) -> bool {
        true
    }

    fn write_buffer_size(self: Rc<Self>) -> usize {
        self.size()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Memory>")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

impl Pipe {
    fn new() -> Self {
        Self {
            bytes: RefCell::default(),
            is_ended: Cell::new(false),
            is_broken: Cell::new(false),
            writer: RefCell::default(),
            reader: RefCell::default(),
        }
    }

    fn put(&self, buffer: &mut VecDeque<u8>) {
        let mut bytes = self.bytes.borrow_mut();
        let room = (CAPACITY - bytes.len()).min(buffer.len());
        bytes.extend(buffer.drain(..room));
        drop(bytes);
        if room > 0 {
            self.wake_reader();
        }
    }

    fn take(&self) -> Received {
        let mut bytes = self.bytes.borrow_mut();
        let taken = bytes.len().min(LONGEST_READ);
        let data: Vec<u8> = bytes.drain(..taken).collect();
        drop(bytes);
        if taken > 0 {
            self.wake_writer();
        }
        data.into()
    }

    fn end(&self) {
        if !self.is_ended.replace(true) {
            self.wake_reader();
        }
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.borrow().upgrade() {
            reader.queue_read();
        }
    }

    /// If it waits for room.
    fn wake_writer(&self) {
        if let Some(writer) = self.writer.borrow().upgrade().filter(|writer| writer.size() > 0) {
            writer.queue_write();
        }
    }
}

/// What a pipe holds.
const CAPACITY: usize = 128 * 1024;

/// What one receive takes.
const LONGEST_READ: usize = 16 * 1024;
