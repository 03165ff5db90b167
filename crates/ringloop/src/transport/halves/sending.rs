//! How written bytes get to the kernel.
//!
//! # States of what is written
//!
//! ```text
//! empty -- write() --> unsent -- flush(), try_send() --> sent: empty again, or
//!                                                     short: waiting for room -- poll, insist() --> ...
//! ```
//!
//! No send ever waits in the kernel. Each ends inside the system call that submits it, and has then sent what the socket had
//! room for; so the loop always knows how many bytes are left. Where there was no room, a multishot poll waits for it, as
//! asyncio's registered writer does. (A send that waits in the kernel does so badly once the peer has closed its sending
//! side: the kernel's own poll then never sleeps, and after 128 rounds the send blocks a kernel thread. Measured on 6.18.)

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::rc::Rc;

use ringloop_driver::{
    Completion, Descriptor, Driver, Interest, OpKey, Outcome, Readiness, SEND_OVERHEAD, SendQueue,
    SendStarted, Token,
};

use super::Whole;
use super::lending::Lending;
use crate::EventLoop;
use crate::source::OpSlot;
use crate::transport::WriteMode;
use crate::transport::seldom::Seldom;
use crate::transport::write_buffer::WriteBuffer;

/// What is written and not sent, and whether there is room for it.
#[derive(Default)]
pub(crate) struct Sending {
    pub(super) buffer: RefCell<WriteBuffer>,
    pub(in crate::transport) room: Room,
    pub(super) mode: Cell<WriteMode>,
    /// `close()` was called with bytes unsent, and has queued the loss before they are sent. If they are not sent whole, the loss
    /// waits.
    pub(in crate::transport) assumes_sent: Cell<bool>,
    /// The handle has something to do for the sending half.
    pub(super) has_event: Cell<bool>,
    /// The connection has ended with bytes that were not sent.
    has_dropped: Cell<bool>,
    rare: Seldom<Rare>,
}

/// What few transports have.
#[derive(Default)]
struct Rare {
    /// A send that has completed in the reap, and is settled later: dropping what it has sent may run user code.
    landed: Cell<Option<Landed>>,
    /// Somebody else sends on the descriptor.
    lending: RefCell<Option<Rc<Lending>>>,
}

/// What has become of a send that was given to the driver.
pub(crate) enum Sent {
    /// It is in flight.
    Later,
    /// It is over.
    Now(Landed),
    /// It is over and settled: it sent all, and leaves nothing to do.
    Whole,
}

/// What a send gave, and the queue that it had.
pub(crate) type Landed = (io::Result<usize>, SendQueue);

impl Sending {
    pub(crate) fn new(mode: WriteMode) -> Self {
        Self { mode: Cell::new(mode), ..Self::default() }
    }

    /// Whether the handle has something to do for the sending half.
    pub(in crate::transport) fn has_event(&self) -> bool {
        self.has_event.get()
    }

    pub(crate) fn mode(&self) -> WriteMode {
        self.mode.get()
    }

    pub(crate) fn set_mode(&self, mode: WriteMode) {
        self.mode.set(mode);
    }

    pub(crate) fn size(&self) -> usize {
        self.buffer.borrow().size()
    }

    /// Whether nobody else sends on the descriptor, and nothing is waited for.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        !self.is_lent() && !self.assumes_sent.get() && !self.room.is_awaited.get()
    }

    #[inline(always)]
    pub(super) fn is_lent(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.lending.borrow().is_some())
    }

    /// To whom the descriptor is lent.
    pub(super) fn lending(&self) -> Option<Rc<Lending>> {
        self.rare.get()?.lending.borrow().clone()
    }

    /// Gives the one before, to be dropped outside of borrows.
    pub(super) fn set_lending(&self, lending: Option<Rc<Lending>>) -> Option<Rc<Lending>> {
        self.rare.get_or_make().lending.replace(lending)
    }

    /// A send has completed, and is [settled](Sends::settle_landed) later.
    fn land(&self, landed: Landed) {
        self.rare.get_or_make().landed.set(Some(landed));
    }

    fn take_landed(&self) -> Option<Landed> {
        self.rare.get()?.landed.take()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.buffer.borrow().key().is_some() || self.room.is_polled()
    }

    pub(crate) fn is_unborrowed(&self) -> bool {
        self.buffer.try_borrow_mut().is_ok()
            && self.rare.get().is_none_or(|rare| rare.lending.try_borrow_mut().is_ok())
    }

    /// Drops everything that is not in flight, which may run user code. The connection has ended.
    pub(crate) fn drop_all(&self) {
        if self.buffer.borrow().is_idle() && self.rare.get().is_none() {
            return;
        }
        if self.size() > 0 {
            self.has_dropped.set(true);
        }
        let unsent = self.buffer.borrow_mut().take_unsent();
        let landed = self.take_landed();
        drop((unsent, landed)); // Outside of the borrows.
    }

    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn has_dropped(&self) -> bool {
        self.has_dropped.get()
    }
}

/// Whether the kernel has room for more.
#[derive(Default)]
pub(crate) struct Room {
    /// The poll that completes when there is room.
    poll: OpSlot,
    /// The last send found no room for everything. In asyncio the buffer is not empty then, and a writer is registered.
    is_awaited: Cell<bool>,
    /// How many bytes the kernel is sure to take, behind all that was given to it already.
    assured: Cell<usize>,
    /// Another holder of the socket may use up that room, so the kernel's figure is read anew each time.
    is_distrusted: Cell<bool>,
}

impl Room {
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited.get()
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.poll.is_in_flight()
    }

    fn holds(&self, len: usize) -> bool {
        len.saturating_add(SEND_OVERHEAD) <= self.assured.get()
    }

    /// From now on the room is read from the kernel before each use.
    pub(crate) fn distrust(&self) {
        self.is_distrusted.set(true);
    }

    /// Somebody else has sent: the kernel's figure is read anew.
    pub(super) fn forget(&self) {
        self.assured.set(0);
    }

    fn spend(&self, len: usize) {
        let assured = self.assured.get();
        if assured > 0 {
            self.assured.set(assured.saturating_sub(len.saturating_add(SEND_OVERHEAD)));
        }
    }
}

/// What a transport that sends says of itself, and how its bytes get to the kernel.
pub(crate) trait Sends: Whole {
    fn sending(&self) -> &Sending;

    /// Starts one send of all that is in `queue`, which must not wait in the kernel; or sends it, where the driver does so at
    /// once.
    fn start_send(
        driver: &mut Driver,
        descriptor: &Descriptor,
        queue: &mut SendQueue,
        token: Token,
    ) -> SendStarted;

    /// Everything is sent, and the protocol has ended its direction.
    fn end_sending(&self, descriptor: &Descriptor);

    /// The argument of `connection_lost()` after a send has failed with `error`.
    fn cause_of(self: &Rc<Self>, error: io::Error, event_loop: &EventLoop) -> io::Error;

    /// Whether the kernel is sure to take all that is unsent. Then nothing has to be sent to find out, which would be a
    /// system call of its own, and would wake the peer for the bytes of one connection. Of more than [`MOST_UNSENT`] nobody asks:
    /// they are memory of this process until they are sent, with each of many connections.
    fn is_assured(&self) -> bool {
        let (room, (unsent, out)) = (&self.sending().room, self.sending().buffer.borrow().sizes());
        if unsent.saturating_add(out) > MOST_UNSENT {
            return false;
        }
        if room.is_distrusted.get() || !room.holds(unsent) {
            let assured = self.attachment().with(|descriptor, _| descriptor.assured_room());
            room.assured.set(assured.unwrap_or(0));
            if out > 0 {
                room.spend(out); // It may not have got to the kernel yet.
            }
        }
        room.holds(unsent)
    }

    /// Makes the state what it would be if each `write()` had called the kernel itself: what is unsent is sent now, and what
    /// the kernel does not take waits for room. An error ends the connection here.
    fn try_send(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.base().is_lost() {
            return;
        }
        let before = self.sending().size();
        // What was submitted earlier in this iteration.
        self.settle_landed(event_loop);
        self.look(event_loop);
        if !self.sending().room.is_awaited() {
            self.insist(event_loop);
        }
        let size = self.sending().size();
        let tells =
            self.base().flow().would_resume(size) || size == 0 && self.base().is_flush_awaited();
        if !self.base().is_lost() && size < before && tells {
            self.queue_event(event_loop); // The completion that would have queued it has been read here.
        }
    }

    /// As [`try_send`](Self::try_send), for methods that only return a value. If the connection is to end once everything is sent,
    /// that end is scheduled and does not come inside such a call.
    fn show(self: &Rc<Self>, event_loop: &EventLoop) {
        let before = self.sending().size();
        self.try_send(event_loop);
        if !self.base().is_lost() && self.sending().size() < before {
            self.tell(event_loop);
        }
    }

    fn show_now(self: &Rc<Self>) {
        if let Some(event_loop) = self.base().event_loop() {
            self.show(&event_loop);
        }
    }

    /// As [`try_send`](Self::try_send), but tries again although the last send found no room.
    fn insist(self: &Rc<Self>, event_loop: &EventLoop) {
        let mut has_room = true;
        while has_room && !self.base().is_lost() {
            has_room = match self.send(event_loop) {
                None | Some(Sent::Whole) => break,
                Some(Sent::Later) => self.look(event_loop),
                Some(Sent::Now((result, queue))) => self.settle(result, queue, event_loop),
            };
        }
        if !self.base().is_lost() {
            self.await_room(event_loop);
        }
    }

    fn try_send_now(self: &Rc<Self>) {
        if let Some(event_loop) = self.base().event_loop() {
            self.try_send(&event_loop);
        }
    }

    /// [`flush_writing`](Self::flush_writing) of a socket, for what is usual: one piece is unsent, and nothing else is to be done. If
    /// it is not so, gives `false`, and has done nothing. What is no socket must not call it: the driver sends here, and does not
    /// write.
    #[inline(always)]
    fn flush_one_to_socket(&self, event_loop: &EventLoop) -> bool {
        let sending = self.sending();
        if sending.room.is_awaited() || sending.room.is_polled() {
            return false;
        }
        let Some(token) = self.attachment().token() else { return false };
        let descriptor = self.attachment().descriptor();
        let Some(descriptor) = descriptor.as_ref() else { return false };
        let mut buffer = sending.buffer.borrow_mut();
        let Some(queue) = buffer.unsent() else { return false };
        let Some((key, len)) = event_loop.driver().start_send_of_one(descriptor, queue, token)
        else {
            return false;
        };
        buffer.went_out(len, Some(key), false);
        sending.room.spend(len);
        true
    }

    /// Gives the driver what is unsent: before the loop waits, and now and then between handles.
    fn flush_writing(self: &Rc<Self>, event_loop: &EventLoop) {
        // A send that was submitted earlier in this iteration may have completed: then what was written since can go.
        let key = self.sending().buffer.borrow().key();
        if let Some(key) = key {
            self.peek_sent(key, event_loop);
        }
        if self.sending().room.is_awaited() {
            return;
        }
        self.send_on(event_loop);
        if !self.sending().room.is_awaited() {
            self.cancel_poll(event_loop);
        }
    }

    /// Gives what is unsent to the driver, and what is left of it again, as long as that is sent at once and there is room. No
    /// user code.
    fn send_on(self: &Rc<Self>, event_loop: &EventLoop) {
        while let Some(Sent::Now((result, queue))) = self.send(event_loop) {
            if !self.sent(result, queue, event_loop) {
                break;
            }
        }
    }

    /// In the reap: no user code.
    #[inline(always)]
    fn send_completed(
        self: &Rc<Self>,
        result: io::Result<usize>,
        queue: SendQueue,
        event_loop: &EventLoop,
    ) {
        if self.sent(result, queue, event_loop) {
            self.send_on(event_loop);
        }
    }

    #[cold]
    fn peek_sent(self: &Rc<Self>, key: OpKey, event_loop: &EventLoop) {
        let landed = event_loop.driver().peek(key);
        if let Some(Completion { outcome: Outcome::Sent(result, queue), .. }) = landed {
            let _ = self.sent(result, queue, event_loop); // What is unsent is sent after this.
        }
    }

    /// Gives what is unsent to the driver, unless a send is in flight already.
    fn send(&self, event_loop: &EventLoop) -> Option<Sent> {
        let sending = self.sending();
        let token = self.attachment().token()?;
        let descriptor = self.attachment().descriptor();
        let descriptor = descriptor.as_ref()?;
        let mut buffer = sending.buffer.borrow_mut();
        let queue = buffer.sendable()?;
        let (len, has_many_chunks) = (queue.len(), queue.chunks() > SendQueue::MOST_CHUNKS);
        sending.room.spend(len);
        let started = Self::start_send(&mut event_loop.driver(), descriptor, queue, token);
        let key = started.key();
        let sent = match started {
            SendStarted::Done(Ok(sent))
                if sent == len && !queue.has_foreign() && self.is_nothing_awaited() =>
            {
                queue.clear();
                return Some(Sent::Whole);
            }
            SendStarted::Done(result) => Sent::Now((result, mem::take(queue))),
            SendStarted::InFlight(_) => Sent::Later,
        };
        buffer.went_out(len, key, has_many_chunks);
        Some(sent)
    }

    /// Submits what is queued and settles the send in flight. Gives whether there may be room for more.
    fn look(self: &Rc<Self>, event_loop: &EventLoop) -> bool {
        let Some(key) = self.sending().buffer.borrow().key() else { return false };
        let looked = event_loop.driver().look(key);
        match looked {
            Ok(Some(Completion { outcome: Outcome::Sent(result, queue), .. })) => {
                self.sending().buffer.borrow_mut().landed();
                self.settle(result, queue, event_loop)
            }
            _ => false,
        }
    }

    /// Whether a send that has completed without an error, after `sent` bytes, leaves nothing to do, as is usual: it sent
    /// all, nothing was written since, and nobody waits for that. It is settled then.
    #[inline(always)]
    fn sent_all(&self, sent: usize, queue: &SendQueue) -> bool {
        if queue.is_lease_of(sent) { self.sent_whole() } else { self.sent_pieces(sent, queue) }
    }

    #[inline(never)]
    fn sent_pieces(&self, sent: usize, queue: &SendQueue) -> bool {
        sent == queue.len() && !queue.has_foreign() && self.sent_whole()
    }

    /// [`sent_all`](Self::sent_all), for a queue that was sent to its end and has nothing foreign.
    #[inline(always)]
    fn sent_whole(&self) -> bool {
        self.is_nothing_awaited() && self.sending().buffer.borrow_mut().settle_all()
    }

    /// Whether nothing follows on a send of all that is written.
    #[inline(always)]
    fn is_nothing_awaited(&self) -> bool {
        let base = self.base();
        let is_awaited = self.sending().room.is_awaited() || base.is_flush_awaited();
        !is_awaited && base.takes_writes() && !base.flow().is_paused()
    }

    /// A send is over. No user code. Gives whether what is unsent now is to be sent at once.
    fn sent(
        self: &Rc<Self>,
        result: io::Result<usize>,
        mut queue: SendQueue,
        event_loop: &EventLoop,
    ) -> bool {
        let sending = self.sending();
        if self.base().is_lost() {
            sending.buffer.borrow_mut().landed();
            sending.land((result, queue)); // Dropped when `LOST` runs.
        } else if let Err(error) = fatal(&result) {
            // In asyncio `write()` would have met this error, before anything that has arrived since (ERR-09).
            sending.buffer.borrow_mut().landed();
            self.lose_by_send(error, event_loop);
            sending.land((result, queue));
        } else if queue.has_foreign() {
            sending.buffer.borrow_mut().landed();
            sending.land((result, queue));
            self.queue_event(event_loop);
        } else {
            let sent = result.as_ref().map_or(0, |&sent| sent);
            queue.advance(sent);
            return self.settle_rest(queue, &result, event_loop);
        }
        false
    }

    /// Settles a send whose completion was only noted when it was decoded.
    fn settle_landed(self: &Rc<Self>, event_loop: &EventLoop) {
        let Some((result, queue)) = self.sending().take_landed() else { return };
        if self.settle(result, queue, event_loop) {
            self.list();
        } else if !self.base().is_lost() {
            self.await_room(event_loop);
        }
    }

    /// As [`sent`](Self::sent), but outside of the reap. Gives whether there may be room for more.
    fn settle(
        self: &Rc<Self>,
        result: io::Result<usize>,
        mut queue: SendQueue,
        event_loop: &EventLoop,
    ) -> bool {
        if let Err(error) = fatal(&result) {
            self.lose_by_send(error, event_loop);
            self.sending().drop_all();
            return false;
        }
        queue.advance(result.as_ref().map_or(0, |&sent| sent)); // May run user code, which may write: behind this.
        if self.base().is_lost() {
            return false;
        }
        let has_room = self.has_room(&queue, &result);
        self.sending().buffer.borrow_mut().settle(queue);
        has_room
    }

    /// Settles a send of which `rest` is left. Gives as [`sent`](Self::sent).
    #[inline(always)]
    fn settle_rest(
        self: &Rc<Self>,
        rest: SendQueue,
        result: &io::Result<usize>,
        event_loop: &EventLoop,
    ) -> bool {
        let has_room = self.has_room(&rest, result);
        let size = {
            let mut buffer = self.sending().buffer.borrow_mut();
            buffer.settle(rest);
            buffer.size()
        };
        let goes_on = has_room && !self.sending().room.is_awaited();
        if !goes_on {
            self.await_room(event_loop);
        }
        self.tell_of(size, event_loop);
        goes_on && size > 0 // What was written since, or the rest.
    }

    /// Whether there may be room for more, after a send of which `rest` is left.
    #[inline(always)]
    fn has_room(&self, rest: &SendQueue, result: &io::Result<usize>) -> bool {
        match result {
            Ok(_) => rest.is_empty() || self.sending().buffer.borrow().has_many_chunks(),
            Err(error) => error.raw_os_error() == Some(libc::EINTR),
        }
    }

    /// Queues the handle if the protocol is to be resumed, or the connection or its sending side is to end, now that the buffer is
    /// smaller. Usually neither is so: a poll for room has queued the handle already.
    fn tell(self: &Rc<Self>, event_loop: &EventLoop) {
        self.tell_of(self.sending().size(), event_loop);
    }

    #[inline(always)]
    fn tell_of(self: &Rc<Self>, size: usize, event_loop: &EventLoop) {
        let sending = self.sending();
        let ends = size == 0
            && (self.base().ends_writing()
                || self.base().is_closing() && !self.sending().assumes_sent.get());
        let flow = self.base().flow();
        let pauses = sending.room.is_awaited() && flow.is_over(size) && !flow.is_paused();
        let is_flushed = size == 0 && self.base().is_flush_awaited();
        if ends || flow.would_resume(size) || pauses || is_flushed {
            self.queue_event(event_loop);
        }
    }

    fn queue_event(self: &Rc<Self>, event_loop: &EventLoop) {
        self.sending().has_event.set(true);
        self.queue_io(event_loop);
    }

    fn lose_by_send(self: &Rc<Self>, error: io::Error, event_loop: &EventLoop) {
        let cause = self.cause_of(error, event_loop);
        if !self.base().is_lost() {
            self.sending().tell_borrower(Some(&cause));
        }
        self.lose(Some(cause), event_loop);
    }

    fn retire_send(self: &Rc<Self>, event_loop: &EventLoop) {
        let send = self.sending().buffer.borrow().key();
        // Dropping what was sent may run user code: after the driver is let go of.
        let sent = send.map(|key| event_loop.driver().retire(key));
        if sent.is_some_and(|sent| !sent.is_empty()) {
            self.sending().buffer.borrow_mut().landed();
        }
        if self.sending().room.is_polled() {
            self.sending().room.poll.retire(&mut event_loop.driver());
        }
    }

    // Waiting for room.

    /// Waits as long as there is something to send.
    fn await_room(self: &Rc<Self>, event_loop: &EventLoop) {
        let room = &self.sending().room;
        let is_out = self.sending().buffer.borrow().key().is_some();
        room.is_awaited.set(!is_out && self.sending().size() > 0);
        if !room.is_awaited.get() {
            if room.is_polled() {
                self.list(); // It is cancelled then, unless there is something to send again.
            }
        } else if !room.is_polled() {
            let interest = Interest { read: false, write: true };
            self.attachment().with(|descriptor, token| {
                room.poll.fill(event_loop.driver().poll(descriptor, interest, token));
            });
        }
    }

    /// In the reap: no user code.
    fn polled(self: &Rc<Self>, result: &io::Result<Readiness>, more: bool, event_loop: &EventLoop) {
        let room = &self.sending().room;
        room.poll.completed(more);
        if self.base().is_lost() || !room.is_awaited.get() {
            return;
        }
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                self.await_room(event_loop); // Somebody has begun to wait again meanwhile.
            }
            Ok(Readiness { write: false, .. }) => self.await_room(event_loop),
            // If something is wrong with the socket, the next send says what.
            _ => self.queue_event(event_loop),
        }
    }

    /// Nobody waits for room any more.
    fn give_up_room(&self, event_loop: &EventLoop) {
        self.sending().room.is_awaited.set(false);
        self.cancel_poll(event_loop);
    }

    fn cancel_poll(&self, event_loop: &EventLoop) {
        if self.sending().room.is_polled() {
            self.sending().room.poll.cancel(&mut event_loop.driver());
        }
    }
}

/// An error that ends the connection. Else there was no room, or the send was interrupted.
fn fatal(result: &io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(error.kind().into()),
        },
        Ok(_) => Ok(()),
    }
}

/// Bytes above the high-water mark that wait for the end of the iteration at most, however much room the kernel has. Half as
/// many were enough for what batching gains at 16 KiB, eight deep.
const MOST_UNSENT: usize = 256 * 1024;
