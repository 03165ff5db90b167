//! Stream transports over sockets: asyncio's selector transport, over staged completions.
//!
//! # The life of a stream
//!
//! Construction queues one handle, [`MADE`], which does what asyncio's three do: `connection_made()`, start reading,
//! complete the waiter of the creator. From then on a receive is in flight while the protocol reads
//! ([`Receives`]), and what is written goes out with the enters ([`Sending`]).
//!
//! In the reap, completions are only staged, and one handle, [`IO`], is queued for the transport, however many came. It
//! does what asyncio's reader and writer of one descriptor do, in that order.
//!
//! The end comes by a third handle, [`LOST`], which `close()` and `abort()` queue, or inside the [`IO`] handle whose write
//! event has emptied the buffer of a closing transport.
//!
//! # Closing with unsent bytes
//!
//! Where asyncio's `write()` has sent its bytes and finds out whether the kernel took them all, ours has only kept them.
//! So `close()` *assumes* that it will: [`LOST`] is queued as if nothing were buffered, and looks when it runs, after the
//! enter that sent: all taken, the connection is lost; not all, the transport goes on flushing; an error, that is the end.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use ringloop_driver::{
    Chunk, Completion, Descriptor, Driver, Outcome, Received, SendQueue, SendStarted, Token,
};
use socket2::{SockAddr, SockRef};

use super::extra_info::{PEERNAME, SOCKET, SOCKNAME};
use super::halves::{IO, Lends, Receives, Schedule, Sending, Sends, Whole, Writes};
use super::{
    ProtocolError, ProtocolRef, StreamTransport, Transport, TransportBase, TransportSocket,
    WriteMode,
};
use crate::event_loop::door::let_go;
use crate::event_loop::{Snapshot, Source};
use crate::source::{Attachment, Recv, StagedSource, reset_on_close};
use crate::{Address, Error, EventLoop, LoopFuture, Result};

/// A connected stream socket and the protocol for it, from which a transport is made.
pub(crate) struct Connection {
    pub(crate) descriptor: Descriptor,
    /// What was received before, and comes first.
    pub(crate) arrived: Vec<io::Result<Received>>,
    pub(crate) protocol: ProtocolRef,
    /// Whether it can be reset by closing it (`SO_LINGER` of zero).
    pub(crate) is_tcp: bool,
    pub(crate) write_mode: WriteMode,
    /// The server that accepted it.
    pub(crate) keeper: Option<Weak<dyn Keeper>>,
    /// The future of whoever made the transport; completed after `connection_made()`.
    pub(crate) waiter: Option<LoopFuture<()>>,
}

/// Who wants to know which transports are open: a server.
pub(crate) trait Keeper {
    /// Gives the key for [`detach`](Self::detach).
    fn attach(&self, transport: Weak<dyn StreamTransport>) -> usize;
    fn detach(&self, key: usize);
}

impl Connection {
    /// Makes the transport. All that follows comes soon, nothing inside.
    pub(crate) fn start(self, event_loop: &EventLoop) -> Result<Transport> {
        event_loop.check_closed()?;
        let fd = self.descriptor.as_raw_fd();
        if let Some(other) = event_loop.source_using(fd) {
            let text = format!("File descriptor {fd} is used by transport {}", other.describe());
            return Err(Error::state(text));
        }
        let mut names = Names::default();
        if !self.is_tcp {
            names.ask_peer(&self.descriptor); // It may take another name later.
        }
        let stream = Rc::new(Stream {
            schedule: Schedule::default(),
            is_tcp: self.is_tcp,
            arrivals: StagedSource::new(),
            attachment: Attachment::new(self.descriptor),
            sending: Sending::new(self.write_mode),
            base: TransportBase::new(event_loop, self.protocol, self.waiter),
            names: RefCell::new(names),
            keeper: Cell::new(None),
        });
        if !self.arrived.is_empty() {
            self.arrived.into_iter().for_each(|arrived| stream.arrivals.stage(arrived, false));
        }
        if let Some(keeper) = self.keeper {
            if let Some(server) = keeper.upgrade() {
                let weak = Rc::downgrade(&stream) as Weak<dyn StreamTransport>;
                let key = server.attach(weak);
                stream.keeper.set(Some((keeper, key)));
            }
        }
        stream.attachment.register(event_loop, Rc::clone(&stream) as Rc<dyn Source>);
        event_loop.queue_source(Rc::clone(&stream) as Rc<dyn Source>, MADE);
        Ok(Transport::from(stream as Rc<dyn StreamTransport>))
    }
}

/// One connection.
///
/// With thousands of them each message finds its connection in no cache, and pays for each line of memory that it touches. So the
/// fields stand in the order in which a message comes to them, and what only the beginning and the end of a connection need stands
/// behind them. What few connections use at all is in boxes ([`Seldom`](super::seldom::Seldom)).
#[repr(C)]
pub(crate) struct Stream {
    schedule: Schedule,
    is_tcp: bool,
    arrivals: StagedSource<Recv>,
    attachment: Attachment,
    sending: Sending,
    base: TransportBase,
    names: RefCell<Names>,
    keeper: Cell<Option<(Weak<dyn Keeper>, usize)>>,
}

/// The addresses of both sides: `None` if the kernel was not asked yet. Boxed, as seldom somebody asks.
#[derive(Default)]
struct Names {
    sockname: Option<Box<Address>>,
    peername: Option<Box<Address>>,
}

impl Names {
    fn ask_own(&mut self, descriptor: &Descriptor) {
        if self.sockname.is_none() {
            self.sockname = Self::boxed(SockRef::from(descriptor).local_addr());
        }
    }

    fn ask_peer(&mut self, descriptor: &Descriptor) {
        if self.peername.is_none() {
            self.peername = Self::boxed(descriptor.peer_addr());
        }
    }

    fn boxed(address: io::Result<SockAddr>) -> Option<Box<Address>> {
        address.ok().map(|address| Box::new(Address::from(&address)))
    }
}

/// What a queued handle is for.
const MADE: u8 = 0;
const LOST: u8 = 2;

impl Source for Stream {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        match completion.outcome {
            Outcome::Received(result) => self.received(result, completion.more, event_loop),
            Outcome::Sent(result, queue) => self.send_completed(result, queue, event_loop),
            Outcome::Polled(result) => self.polled(&result, completion.more, event_loop),
            _ => {}
        }
        if self.base.is_over() {
            self.unregister_if_retired(event_loop);
            event_loop.queue_source(self, LOST); // So that what goes with the stream does not go in the reap.
        }
    }

    fn take_received(self: Rc<Self>, data: Received, event_loop: &EventLoop) -> Option<Received> {
        if !self.base.delivers() {
            return Some(data);
        }
        if let Some(data) = self.arrivals.stage_first(data) {
            return self.take_more(data, event_loop);
        }
        if self.schedule.io_is_to_be_queued() {
            event_loop.queue_source(self, IO);
        }
        None
    }

    fn take_end(self: Rc<Self>, event_loop: &EventLoop) -> bool {
        if !self.base.delivers() {
            return false;
        }
        self.arrivals.stage_end();
        if self.schedule.io_is_to_be_queued() {
            event_loop.queue_source(self, IO);
        }
        true
    }

    fn take_sent(&self, sent: usize, queue: &mut SendQueue) -> bool {
        self.sent_all(sent, queue)
    }

    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop) {
        match event {
            MADE => self.made(event_loop),
            IO => {
                self.schedule.begin_io();
                self.read_one(event_loop);
                if self.sending.has_event() {
                    self.write_ready(event_loop);
                }
            }
            _ => self.lost_ready(event_loop),
        }
    }

    fn is_told_unclosed(&self) -> bool {
        false
    }

    fn context(&self) -> Snapshot {
        self.attachment.context()
    }

    fn flush(self: Rc<Self>, event_loop: &EventLoop) {
        self.schedule.begin_flush();
        if !self.base.delivers() || !self.arrivals.is_empty() {
            self.flush_reading(event_loop);
        }
        if !self.flush_one_to_socket(event_loop) {
            self.flush_writing(event_loop);
        }
    }

    fn on_loop_close(self: Rc<Self>) {
        if let (false, Some(event_loop)) = (self.base.is_closing(), self.base.event_loop()) {
            event_loop.warn_unclosed(&format!("transport {:?}", Described(&self)));
        }
        self.cut();
    }

    fn as_raw_fd(&self) -> Option<RawFd> {
        if self.base.is_closing() {
            return None; // From now on others may use the number (READY-11).
        }
        self.attachment.as_raw_fd()
    }

    fn describe(&self) -> String {
        format!("{:?}", Described(self))
    }
}

impl Stream {
    /// Something waits to be delivered already.
    #[inline(never)]
    fn take_more(self: Rc<Self>, data: Received, event_loop: &EventLoop) -> Option<Received> {
        self.arrivals.stage_data(data);
        self.queue_io(event_loop);
        None
    }

    fn made(self: &Rc<Self>, event_loop: &EventLoop) {
        self.base.begin(&self.transport(), || self.start_reading(event_loop));
    }

    fn lost_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.sending.assumes_sent.get() {
            self.try_send(event_loop);
            // Unless the send has found an error, which has ended the connection.
            if self.sending.assumes_sent.replace(false) && self.sending.size() == 0 {
                if self.base.flow().is_paused() {
                    self.tell(event_loop); // `resume_writing()` comes before `connection_lost()`.
                } else {
                    self.base.lose(None);
                }
            }
        }
        // Else this is flushing: the write event ends it.
        if self.base.is_lost() {
            self.call_connection_lost(event_loop);
        }
    }

    /// Closes the descriptor, then drops the protocol and leaves the server, in this order.
    fn release(self: &Rc<Self>, event_loop: &EventLoop) {
        self.base.lose(None);
        self.sending.tell_borrower(None);
        self.give_up_room(event_loop);
        // Usually their last completions are in already, and nothing is paid.
        self.retire_receive(event_loop);
        self.retire_send(event_loop);
        self.unregister_if_retired(event_loop);
        let descriptor = self.take_descriptor();
        if let (true, true, Some(descriptor)) =
            (self.is_tcp, self.arrivals.has_discarded(), &descriptor)
        {
            // In asyncio they would have stayed in the kernel, which answers a close with a reset (RISK-06).
            reset_on_close(descriptor);
        }
        drop(descriptor);
        self.cut();
    }

    /// Should the kernel keep an op for long, the registry keeps the stream, for its last completion.
    fn unregister_if_retired(&self, event_loop: &EventLoop) {
        if self.arrivals.is_in_flight() || self.sending.is_in_flight() {
            return;
        }
        self.attachment.unregister(event_loop);
    }

    /// Lets go of everything; whoever still holds a handle has one that does nothing.
    fn cut(&self) {
        self.arrivals.discard();
        drop(self.take_descriptor());
        self.base.cut();
        self.sending.drop_all();
        self.detach();
    }

    fn detach(&self) {
        if let Some((keeper, key)) = self.keeper.take() {
            if let Some(keeper) = keeper.upgrade() {
                keeper.detach(key);
            }
        }
    }

    /// The kernel gives the addresses only while the socket is open, and who has a handle may ask for them later.
    fn take_descriptor(&self) -> Option<Descriptor> {
        if self.base.has_handles() {
            self.ask(Names::ask_own);
            self.ask(Names::ask_peer);
        }
        self.attachment.take()
    }

    /// Asks the kernel for an address, while the socket is open.
    fn ask(&self, ask: fn(&mut Names, &Descriptor)) {
        if let Some(descriptor) = &*self.attachment.descriptor() {
            ask(&mut self.names.borrow_mut(), descriptor);
        }
    }
}

impl Whole for Stream {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Ends the connection: `connection_lost(error)` comes soon. What is buffered is dropped by the caller if it
    /// may run user code, else when [`LOST`] runs.
    fn lose(self: &Rc<Self>, error: Option<io::Error>, event_loop: &EventLoop) {
        if !self.base.lose(error) {
            return;
        }
        self.stop_reading(event_loop);
        self.give_up_room(event_loop);
        if !self.sending.assumes_sent.replace(false) {
            event_loop.queue_source(Rc::clone(self) as Rc<dyn Source>, LOST);
        }
    }

    fn call_connection_lost(self: &Rc<Self>, event_loop: &EventLoop) {
        if !self.base.end(&self.transport()) {
            return;
        }
        // After a flush, what `connection_lost()` itself writes is sent: asyncio's transport is not lost before it returns.
        self.try_send(event_loop);
        self.release(event_loop);
    }
}

impl Receives for Stream {
    type Op = Recv;

    fn arrivals(&self) -> &StagedSource<Recv> {
        &self.arrivals
    }

    fn foresee_end(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.sending.size() > 0 {
            self.show(event_loop);
        }
    }

    fn fail_receiving(
        self: &Rc<Self>,
        transport: &Transport,
        error: io::Error,
        event_loop: &EventLoop,
    ) {
        if self.is_tcp {
            // In asyncio `write()` would have met this very error: so what is unsent is dropped.
            self.lose(Some(error), event_loop);
            self.sending.drop_all();
        } else {
            let message = "Fatal read error on socket transport";
            self.base.fatal_error(transport, message, ProtocolError::Io(error));
        }
    }
}

impl Sends for Stream {
    fn sending(&self) -> &Sending {
        &self.sending
    }

    #[inline(always)]
    fn start_send(
        driver: &mut Driver,
        descriptor: &Descriptor,
        queue: &mut SendQueue,
        token: Token,
    ) -> SendStarted {
        driver.send_or_start(descriptor, queue, token)
    }

    fn end_sending(&self, descriptor: &Descriptor) {
        // An error means that the peer is gone, which the receiving side reports (WRITE-32).
        let _ = SockRef::from(descriptor).shutdown(Shutdown::Write);
    }

    fn cause_of(self: &Rc<Self>, error: io::Error, event_loop: &EventLoop) -> io::Error {
        let is_broken = self.is_tcp && error.raw_os_error() == Some(libc::EPIPE);
        let reset = if is_broken { self.take_reset(event_loop) } else { None };
        reset.unwrap_or(error)
    }
}

impl StreamTransport for Stream {
    fn base(&self) -> &TransportBase {
        &self.base
    }

    fn is_unborrowed(&self) -> bool {
        self.attachment.is_unborrowed()
            && self.names.try_borrow_mut().is_ok()
            && self.arrivals.is_unborrowed()
            && self.sending.is_unborrowed()
    }

    fn close(self: Rc<Self>) {
        if !self.base.begin_close() {
            return;
        }
        let Some(event_loop) = self.base.event_loop() else { return };
        self.stop_reading(&event_loop);
        if self.sending.room.is_awaited() {
            return; // The write event that empties the buffer ends it.
        }
        if self.sending.size() > 0 {
            self.sending.assumes_sent.set(true);
        } else if self.base.flow().is_paused() {
            return self.tell(&event_loop); // `resume_writing()` comes before `connection_lost()`.
        } else {
            self.base.lose(None);
        }
        event_loop.queue_source(self as Rc<dyn Source>, LOST);
    }

    fn force_close(self: Rc<Self>, error: Option<io::Error>) {
        let Some(event_loop) = self.base.event_loop().filter(|_| !self.base.is_lost()) else {
            return let_go("an error of a protocol", error);
        };
        self.try_send(&event_loop); // asyncio's `write()` had sent it.
        if self.sending.assumes_sent.get() && self.sending.size() == 0 {
            return let_go("an error of a protocol", error); // `close()` was right: this comes too late.
        }
        self.lose(error, &event_loop);
        self.sending.drop_all();
    }

    fn extra_info(self: Rc<Self>, name: &str) -> Option<Rc<dyn Any>> {
        match name {
            name if name == SOCKET.name() => {
                let weak = Rc::downgrade(&self) as Weak<dyn StreamTransport>;
                Some(Rc::new(TransportSocket::new(
                    self.attachment.descriptor().as_ref(),
                    Some(weak),
                )))
            }
            name if name == SOCKNAME.name() => {
                self.ask(Names::ask_own);
                Some(Rc::new(self.names.borrow().sockname.as_deref()?.clone()))
            }
            name if name == PEERNAME.name() => {
                self.ask(Names::ask_peer);
                Some(Rc::new(self.names.borrow().peername.as_deref()?.clone()))
            }
            _ => None,
        }
    }

    fn pause_reading(self: Rc<Self>) {
        self.pause();
    }

    fn resume_reading(self: Rc<Self>) {
        self.resume();
    }

    fn unread(self: Rc<Self>, data: Received) {
        self.put_back(data);
    }

    fn write(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        self.write_chunk(data)
    }

    fn writelines<'a>(self: Rc<Self>, list: &mut dyn Iterator<Item = Chunk<'a>>) -> Result<()> {
        self.write_list(list)
    }

    fn begin_lending(self: Rc<Self>) -> Result<()> {
        self.begin_to_lend()
    }

    fn poll_drained(self: Rc<Self>, cx: &Context<'_>) -> Poll<Result<Descriptor>> {
        self.look_drained(cx)
    }

    fn poll_lost(self: Rc<Self>, cx: &Context<'_>) -> Poll<Error> {
        self.look_lost(cx)
    }

    fn end_lending(self: Rc<Self>) {
        self.end_to_lend();
    }

    fn write_eof(self: Rc<Self>) -> Result<()> {
        self.end_writing();
        Ok(())
    }

    fn can_write_eof(&self) -> bool {
        true
    }

    fn write_buffer_size(self: Rc<Self>) -> usize {
        self.show_now();
        self.buffer_size()
    }

    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    fn is_flushed(self: Rc<Self>) -> bool {
        self.buffer_size() == 0 && !self.sending.has_dropped()
    }

    fn write_mode(&self) -> WriteMode {
        self.sending.mode()
    }

    fn set_write_mode(self: Rc<Self>, mode: WriteMode) {
        self.show_now();
        self.sending.set_mode(mode);
    }

    fn flush_now(self: Rc<Self>) {
        self.show_now();
    }

    fn lend(self: Rc<Self>) {
        self.show_now();
        self.sending.room.distrust();
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Described(self))
    }
}

/// Its debug text. Changes nothing, so it does not flush.
struct Described<'a>(&'a Stream);

impl fmt::Debug for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.0;
        f.write_str("<Transport")?;
        let Some(fd) = stream.attachment.as_raw_fd() else { return f.write_str(" closed>") };
        if stream.base.is_closing() {
            f.write_str(" closing")?;
        }
        let state = |polls| if polls { "polling" } else { "idle" };
        let read = state(stream.base.delivers());
        let write = state(stream.sending.room.is_awaited());
        let size = stream.buffer_size();
        write!(f, " fd={fd} read={read} write=<{write}, bufsize={size}>>")
    }
}

impl Drop for Stream {
    /// One that was never lost, as its loop is gone.
    fn drop(&mut self) {
        if !self.base.is_cut() {
            self.cut();
        }
    }
}
