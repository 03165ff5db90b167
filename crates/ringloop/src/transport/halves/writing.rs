//! The sending half, as users and the protocol see it: `write()` and its kin, pause and resume, the end.
//!
//! Written bytes are unsent at first. They go to the kernel with the system call that ends the iteration, or at once where a program
//! could see the difference. What the kernel does not take waits for room, as in asyncio's buffer. How bytes are sent is in
//! [`sending`](super::sending).

use std::rc::Rc;

use ringloop_driver::{Chunk, SendQueue};

use super::Sends;
use crate::event_loop::door::{catch, let_go};
use crate::transport::WriteMode;
use crate::{Error, EventLoop, Result};

/// What a transport that sends has by that, above [`Sends`].
pub(crate) trait Writes: Sends {
    /// What is usual comes first: received bytes are sent on, nothing else waits, and nothing is to be looked at; or a few bytes
    /// are written behind others.
    #[inline(always)]
    fn write_chunk(self: Rc<Self>, data: Chunk<'_>) -> Result<()> {
        if let Chunk::Received(bytes) = data {
            if !self.takes_at_once(bytes.len()) {
                return self.write_any(Chunk::Received(bytes));
            }
            let rest = self.sending().buffer.borrow_mut().push_first(bytes);
            if let Some(bytes) = rest {
                return self.write_any(Chunk::Received(bytes));
            }
            self.list();
            return Ok(());
        }
        if matches!(data, Chunk::Borrowed(bytes) if self.goes_with_the_rest(bytes)) {
            return Ok(());
        }
        self.write_any(data)
    }

    /// Whether `bytes` were copied behind others that wait for the end of the iteration.
    #[inline(always)]
    fn goes_with_the_rest(&self, bytes: &[u8]) -> bool {
        if !self.schedule().is_listed() {
            return false;
        }
        let mut buffer = self.sending().buffer.borrow_mut();
        let size = buffer.size().saturating_add(bytes.len());
        self.takes_at_once(size) && buffer.copy_behind(bytes)
    }

    /// Whether so many bytes, if that is all that is buffered, only wait for the end of the iteration.
    #[inline(always)]
    fn takes_at_once(&self, len: usize) -> bool {
        let (base, sending) = (self.base(), self.sending());
        base.takes_writes()
            && sending.is_plain()
            && !base.flow().is_over(len)
            && sending.mode.get() == WriteMode::Batched
    }

    #[inline(never)]
    fn write_any(self: &Rc<Self>, data: Chunk<'_>) -> Result<()> {
        let len = data.len();
        match self.takes("write", len) {
            Ok(Some(before)) => {
                self.sending().buffer.borrow_mut().push(data);
                self.written(before == 0, before + len);
                Ok(())
            }
            refused => {
                let_go("bytes", data);
                refused.map(drop)
            }
        }
    }

    /// How many bytes wait already, if so many more are to be sent. None are, and those of a lost connection are ignored.
    fn takes(self: &Rc<Self>, method: &str, len: usize) -> Result<Option<usize>> {
        self.base().check_eof(method)?;
        self.sending().check_lent(method)?;
        if len == 0 || self.comes_too_late() {
            return Ok(None);
        }
        let before = self.sending().size();
        check_size(before, len)?;
        Ok(Some(before))
    }

    fn write_list<'a>(self: &Rc<Self>, list: &mut dyn Iterator<Item = Chunk<'a>>) -> Result<()> {
        self.base().check_eof("writelines")?;
        self.sending().check_lent("writelines")?;
        // The iterator is the user's own, so nothing is borrowed while it runs.
        let mut queue = SendQueue::new();
        catch(|| -> Result<()> {
            for chunk in list {
                check_size(queue.len(), chunk.len())?;
                queue.push(chunk);
            }
            Ok(())
        })??;
        if self.takes("writelines", queue.len())?.is_none() {
            return Ok(());
        }
        self.sending().buffer.borrow_mut().append(queue);
        if self.sending().room.is_awaited() {
            self.insist_now_as_event();
        }
        self.written(true, self.sending().size());
        Ok(())
    }

    /// asyncio's `writelines()` tries to send even if bytes are buffered already, and does inside the call what a write event
    /// would do: resume the protocol, or end the connection. Nothing else would do that later (WRITE-21).
    fn insist_now_as_event(self: &Rc<Self>) {
        let Some(event_loop) = self.base().event_loop() else { return };
        let size = self.sending().size();
        self.insist(&event_loop);
        if self.sending().size() < size && !self.base().is_lost() {
            self.has_sent(&event_loop);
        }
    }

    /// What `write()` does once the bytes are in the buffer: `size` of them, with all that wait.
    fn written(self: &Rc<Self>, was_empty: bool, size: usize) {
        let (sending, is_over) = (self.sending(), self.base().flow().is_over(size));
        let is_batched = sending.mode.get() == WriteMode::Batched;
        let is_awaited = sending.room.is_awaited();
        if is_batched && !is_over {
            if !is_awaited {
                self.list();
            }
            return; // It goes out with the rest.
        }
        let Some(event_loop) = self.base().event_loop() else { return };
        if !is_awaited {
            if is_batched && self.is_assured() {
                return self.list(); // asyncio's buffer would be empty.
            }
            if is_batched || was_empty {
                self.try_send(&event_loop);
            } else {
                self.list();
            }
        }
        self.maybe_pause_protocol();
    }

    /// Whether a write comes after the loss.
    fn comes_too_late(self: &Rc<Self>) -> bool {
        if self.sending().assumes_sent.get() {
            self.find_out_what_was_sent();
        }
        self.base().is_lost() && self.base().note_late_write()
    }

    /// Whether a write comes too late depends on whether the kernel took all that was unsent.
    #[cold]
    fn find_out_what_was_sent(self: &Rc<Self>) {
        self.try_send_now();
        if self.sending().assumes_sent.get() && self.sending().size() == 0 {
            self.sending().assumes_sent.set(false);
            self.base().lose(None);
        }
    }

    fn end_writing(self: &Rc<Self>) {
        if self.base().is_closing() || self.base().has_eof() {
            return;
        }
        self.try_send_now(); // May find out that the peer is gone: then there is nothing to end.
        if self.base().try_end_writing() && self.sending().size() == 0 {
            self.shut_down();
        }
    }

    /// The size that asyncio would give: what the kernel has not taken.
    fn buffer_size(&self) -> usize {
        if self.base().is_lost() { 0 } else { self.sending().size() }
    }

    fn maybe_pause_protocol(self: &Rc<Self>) {
        self.base().maybe_pause_protocol(self.buffer_size(), || self.transport());
    }

    /// asyncio's `_write_ready`: there is room again, or a send waits to be settled.
    fn write_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        let sending = self.sending();
        if !sending.has_event.replace(false) || self.base().is_lost() {
            return;
        }
        if sending.room.is_awaited() {
            self.insist(event_loop);
        } else {
            self.settle_landed(event_loop);
        }
        if self.base().is_lost() {
            return;
        }
        if sending.room.is_awaited() {
            self.maybe_pause_protocol(); // There was less room than assured.
        }
        self.has_sent(event_loop);
    }

    /// The rest of a write event: resumes the protocol, then closes the connection or its sending side if that waits for
    /// the last byte.
    fn has_sent(self: &Rc<Self>, event_loop: &EventLoop) {
        let sending = self.sending();
        loop {
            let size = sending.size();
            self.base().maybe_resume_protocol(size, || self.transport()); // May write, close or abort.
            if sending.size() == 0 {
                sending.tell_borrower(None);
            }
            let is_lost = self.base().is_lost() || self.sending().assumes_sent.get();
            if is_lost || !self.base().is_closing() && !self.base().ends_writing() {
                return;
            }
            self.try_send(event_loop); // What it has written.
            if self.base().is_lost() || sending.size() > 0 {
                return;
            }
            if !self.base().flow().is_paused() {
                break;
            }
        }
        if self.base().is_closing() {
            self.call_connection_lost(event_loop);
        } else {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        if self.base().try_shut_down() {
            self.attachment().with(|descriptor, _| self.end_sending(descriptor));
        }
    }
}

impl<T: Sends> Writes for T {}

/// Bytes of one owner may be written so often that their number fits no word.
#[inline]
fn check_size(size: usize, more: usize) -> Result<()> {
    match size.checked_add(more) {
        Some(_) => Ok(()),
        None => Err(Error::invalid_argument(format!(
            "{more} bytes behind {size} that wait are more than can be counted; write them when those are sent"
        ))),
    }
}
