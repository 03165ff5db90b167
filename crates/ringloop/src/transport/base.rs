//! What every transport has, whatever its bytes travel through, and of whatever kind its protocol is.
//!
//! # The life of a transport, as its protocol sees it
//!
//! ```text
//! new -> begin(): connection_made, reading starts, the creator goes on
//!     -> open -- begin_close() --> closing -- lose() --> lost -- end(): connection_lost --> over, a shell
//!          '--------------------------- lose() ---------------^
//! ```
//!
//! How far it is, and whether an open one reads, is one value: [`Life`].
//!
//! A transport keeps a [`TransportBase`] and calls it at each of these steps. The base decides by asyncio's rules, and calls the
//! protocol ([`door`](super::door)). Where something is to happen *soon*, the base returns `true`, and the transport schedules it.

use std::any::Any;
use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;

use super::door::{PAUSE_FAILED, RESUME_FAILED};
use super::extra_info::ExtraMap;
use super::flow_control::FlowControl;
use super::kind::Called;
use super::seldom::Seldom;
use super::{AnyProtocol, ProtocolRef};
use crate::event_loop::door::let_go;
use crate::event_loop::{FlushList, Waiters};
use crate::{Error, EventLoop, LoopFuture, LoopRef, Result};

/// What all transports have in common: the protocol, the water marks, how far the end of the connection has come.
// What a message touches comes first, in one piece, as in `Stream`.
#[repr(C)]
pub struct TransportBase<P: AnyProtocol = ProtocolRef> {
    life: Cell<Life>,
    writing: Cell<Writing>,
    /// The protocol came by an upgrade, and its `connection_made()` is still to be called.
    is_unannounced: Cell<bool>,
    rare: Seldom<Rare>,
    flow: FlowControl,
    /// `None` after `connection_lost()`: a protocol that holds its transport would otherwise never be freed.
    protocol: RefCell<Option<P>>,
    /// How many handles there are of it.
    handles: Cell<usize>,
    flush_list: Rc<FlushList>,
    event_loop: LoopRef,
    id: u64,
    /// Completed after `connection_made()`.
    waiter: Cell<Option<Box<LoopFuture<()>>>>,
}

/// What few transports have.
#[derive(Default)]
struct Rare {
    extra: RefCell<ExtraMap>,
    /// Who waits until everything is sent.
    flushes: Waiters,
    /// How many upgrades there were.
    upgrades: Cell<u64>,
    lost_error: Cell<Option<io::Error>>,
    /// Writes since the loss.
    late_writes: Cell<u32>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open(Reading),
    /// `close()` was called: what is buffered goes out, nothing is delivered.
    Closing,
    /// asyncio's `_conn_lost`: `connection_lost()` is certain, and has its argument. Writes come too late.
    Lost,
    /// `connection_lost()` is called for one that was never lost, as all of it was sent: what it writes goes out.
    Ending,
    /// `connection_lost()` was called, or the loop has closed.
    Over,
}

/// What becomes of what arrives while a connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// `connection_made()` has not returned yet. Reading begins then, unless it was paused.
    NotBegun,
    /// It is delivered.
    On,
    /// `pause_reading()` was called: it is parked.
    Paused,
    /// A protocol came by an upgrade: as paused, and `resume_reading()` has no effect before its `connection_made()`.
    Held,
    /// The protocol has got the end of the stream and has kept the transport open: nothing more comes.
    AtEnd,
}

/// Whether the protocol may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    On,
    /// `write_eof()` was called, and not everything is sent.
    Ending,
    /// The sending side is shut down.
    Ended,
}

impl<P: AnyProtocol> TransportBase<P> {
    /// For a transport of `protocol`. `waiter` is the future of whoever makes it.
    pub fn new(event_loop: &EventLoop, protocol: P, waiter: Option<LoopFuture<()>>) -> Self {
        Self {
            life: Cell::new(Life::Open(Reading::NotBegun)),
            writing: Cell::new(Writing::On),
            is_unannounced: Cell::new(false),
            rare: Seldom::default(),
            flow: FlowControl::new(),
            protocol: RefCell::new(Some(protocol)),
            handles: Cell::new(0),
            flush_list: Rc::clone(event_loop.flush_list()),
            event_loop: event_loop.downgrade(),
            id: next_id(),
            waiter: Cell::new(waiter.map(Box::new)),
        }
    }

    /// A number that no other transport of this thread has or will have.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn add_handle(&self) {
        self.handles.set(self.handles.get().wrapping_add(1)); // What it is one of ends the process before it wraps.
    }

    pub(super) fn drop_handle(&self) {
        self.handles.set(self.handles.get().wrapping_sub(1));
    }

    /// Whether somebody has a handle, and so may ask it something later.
    pub(super) fn has_handles(&self) -> bool {
        self.handles.get() > 0
    }

    /// `None` once the loop is gone.
    pub fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade()
    }

    /// Where it asks to be flushed, which costs less than to see whether there still is a loop.
    pub(super) fn flush_list(&self) -> &FlushList {
        &self.flush_list
    }

    /// The protocol that is called; `None` after `connection_lost()`.
    pub fn protocol(&self) -> Option<P> {
        self.protocol.borrow().clone()
    }

    /// The same where it stands: never across user code.
    #[inline(always)]
    pub(super) fn current(&self) -> Ref<'_, Option<P>> {
        self.protocol.borrow()
    }

    /// The same, to be called now.
    pub(super) fn called(&self) -> Option<Called<P>> {
        self.protocol().map(Called::new)
    }

    /// Gives the old one, to be dropped outside of borrows. After `connection_lost()` it gives `new` back.
    pub(super) fn replace_protocol(&self, new: P) -> P {
        match &mut *self.protocol.borrow_mut() {
            Some(protocol) => {
                self.is_unannounced.set(false);
                mem::replace(protocol, new)
            }
            None => new,
        }
    }

    /// The protocol was put into the place of another one. If `is_announced`, its `connection_made()` is called before any other
    /// callback, and until then nothing is read. Gives the number of the upgrade, for [`end_upgrade`](Self::end_upgrade).
    pub(super) fn begin_upgrade(&self, is_announced: bool) -> u64 {
        self.is_unannounced.set(is_announced);
        if !self.is_closing() {
            let reading = if is_announced { Reading::Held } else { Reading::Paused };
            self.life.set(Life::Open(reading));
        }
        let upgrades = &self.rare.get_or_make().upgrades;
        upgrades.set(upgrades.get() + 1);
        upgrades.get()
    }

    /// Whether reading may go on after that upgrade: no other has come since.
    pub(super) fn end_upgrade(&self, upgrade: u64) -> bool {
        let is_last = self.rare.get().is_some_and(|rare| rare.upgrades.get() == upgrade);
        if is_last {
            self.turn(Reading::Held, Reading::Paused);
        }
        is_last
    }

    /// Calls `connection_made()` of a protocol that came by an upgrade, if that is still to be done.
    pub(super) fn announce(&self, transport: &P::Transport) {
        if self.is_unannounced.replace(false) {
            self.call_made(transport);
        }
    }

    fn call_made(&self, transport: &P::Transport) {
        self.notify(transport, "Exception in callback connection_made()", |protocol| {
            protocol.connection_made(transport);
        });
    }

    pub(super) fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.rare.get()?.extra.borrow().get(name)
    }

    /// Gives what stood there, to be dropped outside of borrows.
    pub(super) fn set_extra_info(
        &self,
        name: &'static str,
        value: Rc<dyn Any>,
    ) -> Option<Rc<dyn Any>> {
        if self.is_over() {
            return Some(value);
        }
        self.rare.get_or_make().extra.borrow_mut().set(name, value)
    }

    /// Whether nothing of it is borrowed, so that user code may run.
    pub(super) fn is_unborrowed(&self) -> bool {
        self.protocol.try_borrow_mut().is_ok()
            && self.rare.get().is_none_or(|rare| rare.extra.try_borrow_mut().is_ok())
    }

    /// What a transport does first, soon after it was made.
    pub fn begin(&self, transport: &P::Transport, start_reading: impl FnOnce()) {
        self.call_made(transport);
        self.turn(Reading::NotBegun, Reading::On);
        start_reading();
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.set_result_unless_cancelled(()); // Nobody else completes it.
        }
    }
}

/// Reading.
impl<P: AnyProtocol> TransportBase<P> {
    /// What users are told: whether the transport is neither closing nor paused. It may not have begun, or be at its end.
    pub fn is_reading(&self) -> bool {
        matches!(self.life.get(), Life::Open(Reading::NotBegun | Reading::On | Reading::AtEnd))
    }

    /// Whether bytes and the end of the stream are delivered now: in asyncio a reader is registered then.
    #[inline]
    pub fn delivers(&self) -> bool {
        self.life.get() == Life::Open(Reading::On)
    }

    /// The decision of `pause_reading()`: whether the transport is to stop reading now. It is not if it is paused already or
    /// closing.
    pub fn try_pause_reading(&self) -> bool {
        let was_reading = self.is_reading();
        if was_reading {
            self.life.set(Life::Open(Reading::Paused));
        }
        was_reading
    }

    /// The decision of `resume_reading()`: whether the transport is to go on reading, in a later iteration.
    pub fn try_resume_reading(&self) -> bool {
        self.turn(Reading::Paused, Reading::On)
    }

    /// Gives whether `from` was the state.
    pub(super) fn turn(&self, from: Reading, to: Reading) -> bool {
        let is_from = self.life.get() == Life::Open(from);
        if is_from {
            self.life.set(Life::Open(to));
        }
        is_from
    }
}

/// Writing.
impl<P: AnyProtocol> TransportBase<P> {
    /// Whether `write_eof()` was called.
    pub fn has_eof(&self) -> bool {
        self.writing.get() != Writing::On
    }

    /// Whether the connection is neither closing nor was `write_eof()` called.
    #[inline(always)]
    pub(super) fn takes_writes(&self) -> bool {
        self.writing.get() == Writing::On && !self.is_closing()
    }

    /// The decision of `write_eof()`: whether this is the first call, and the transport is not closing.
    pub fn try_end_writing(&self) -> bool {
        let begins = !self.is_closing() && !self.has_eof();
        if begins {
            self.writing.set(Writing::Ending);
        }
        begins
    }

    /// Whether the sending side is to be shut down once everything is sent.
    pub fn ends_writing(&self) -> bool {
        self.writing.get() == Writing::Ending
    }

    /// Everything is sent: whether the sending side is to be shut down now.
    pub fn try_shut_down(&self) -> bool {
        let ends = self.ends_writing();
        if ends {
            self.writing.set(Writing::Ended);
        }
        ends
    }

    /// The first check of `write()` and `writelines()`, whichever `method` names.
    ///
    /// # Errors
    ///
    /// "Cannot call write() after write_eof()".
    pub fn check_eof(&self, method: &str) -> Result<()> {
        if self.has_eof() {
            return Err(Error::state(format!("Cannot call {method}() after write_eof()")));
        }
        Ok(())
    }

    /// The last check of a write: whether the connection is lost already. Such writes are counted, and after some of them
    /// there is a warning.
    pub fn note_late_write(&self) -> bool {
        if !self.is_lost() {
            return false;
        }
        let late_writes = &self.rare.get_or_make().late_writes;
        let count = late_writes.get().saturating_add(1);
        late_writes.set(count);
        if count >= WARNING_THRESHOLD {
            if let Some(event_loop) = self.event_loop() {
                event_loop.warn("socket.send() raised exception.");
            }
        }
        true
    }

    pub(super) fn flow(&self) -> &FlowControl {
        &self.flow
    }

    /// Pauses the protocol if `size`, what is buffered now, is over the high-water mark.
    pub fn maybe_pause_protocol(&self, size: usize, transport: impl FnOnce() -> P::Transport) {
        if self.flow.try_pause(size) {
            let transport = transport();
            self.announce(&transport);
            self.notify(&transport, PAUSE_FAILED, |protocol| protocol.pause_writing(&transport));
        }
    }

    /// Resumes it if `size` is not over the low-water mark. It may write, close or abort.
    pub fn maybe_resume_protocol(&self, size: usize, transport: impl FnOnce() -> P::Transport) {
        if self.flow.try_resume(size) {
            let transport = transport();
            self.announce(&transport);
            self.notify(&transport, RESUME_FAILED, |protocol| protocol.resume_writing(&transport));
        }
        if size == 0 {
            self.wake_flushes();
        }
    }

    /// Who waits until everything is sent: woken when it is, and when it never will be.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn flushes(&self) -> &Waiters {
        &self.rare.get_or_make().flushes
    }

    pub(super) fn is_flush_awaited(&self) -> bool {
        self.rare.get().is_some_and(|rare| !rare.flushes.is_empty())
    }

    fn wake_flushes(&self) {
        if let Some(rare) = self.rare.get() {
            rare.flushes.wake_all();
        }
    }
}

/// The end.
impl<P: AnyProtocol> TransportBase<P> {
    /// Whether `close()` or `abort()` was called, or a fatal error has come.
    pub fn is_closing(&self) -> bool {
        !matches!(self.life.get(), Life::Open(_))
    }

    /// Whether `connection_lost()` is certain, and has an argument.
    pub fn is_lost(&self) -> bool {
        matches!(self.life.get(), Life::Lost | Life::Over)
    }

    /// Whether `connection_lost()` was called. After that the protocol is never called again.
    pub fn is_over(&self) -> bool {
        matches!(self.life.get(), Life::Ending | Life::Over)
    }

    /// The decision of `close()`: whether this is the first call.
    pub fn begin_close(&self) -> bool {
        let is_first = !self.is_closing();
        if is_first {
            self.life.set(Life::Closing);
        }
        is_first
    }

    /// The connection is gone, by `error` if there is one. Whether that is news, so that [`end`](Self::end) is to be
    /// called soon: the first cause decides.
    pub fn lose(&self, error: Option<io::Error>) -> bool {
        if self.is_lost() {
            if let Some(error) = error {
                let_go("an error of a protocol", error);
            }
            return false;
        }
        self.life.set(if self.is_over() { Life::Over } else { Life::Lost });
        if error.is_some() {
            self.rare.get_or_make().lost_error.set(error);
        }
        true
    }

    /// Calls `connection_lost()`. Gives whether this was the first time, so that the transport is to be released now; then it
    /// calls [`cut`](Self::cut).
    pub fn end(&self, transport: &P::Transport) -> bool {
        if self.is_over() {
            return false;
        }
        self.life.set(if self.is_lost() { Life::Over } else { Life::Ending });
        self.announce(transport);
        let error = self.take_lost_error();
        self.notify(transport, "Exception in callback connection_lost()", |protocol| {
            protocol.connection_lost(transport, error.as_ref());
        });
        if let Some(error) = error {
            let_go("an error of a protocol", error);
        }
        self.wake_flushes();
        true
    }

    /// Drops the protocol without a call of it, whether or not `connection_lost()` was called. A second call does nothing.
    pub fn cut(&self) {
        self.life.set(Life::Over);
        if self.is_cut() {
            return;
        }
        // Each may run user code when it goes: outside of the borrow.
        drop(self.waiter.take());
        if let Some(rare) = self.rare.get() {
            let extra = rare.extra.take();
            extra.let_go();
        }
        let protocol = self.protocol.take();
        drop(protocol.map(Called::new));
        if let Some(error) = self.take_lost_error() {
            let_go("an error of a protocol", error);
        }
    }

    /// Whether [`cut`](Self::cut) was called, so that nothing is left to be dropped.
    pub(super) fn is_cut(&self) -> bool {
        self.current().is_none()
    }

    fn take_lost_error(&self) -> Option<io::Error> {
        self.rare.get()?.lost_error.take()
    }
}

impl<P: AnyProtocol> Drop for TransportBase<P> {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<P: AnyProtocol> fmt::Debug for TransportBase<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportBase")
            .field("id", &self.id)
            .field("life", &self.life.get())
            .finish_non_exhaustive()
    }
}

fn next_id() -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(1) };
    }
    NEXT.with(|next| next.replace(next.get() + 1))
}

const WARNING_THRESHOLD: u32 = 5;
