//! What a socket is below its handle: a descriptor, and two sides with an op each.
//!
//! # The life of a call that has to wait
//!
//! ```text
//! called -> something staged, or a try that succeeds: done, without giving up control
//!        -> waits: an op is in flight -- it completes: staged, a handle is queued, the handle wakes the call
//!                                     -- the call is dropped: the op is cancelled; what it still brings is staged for the next
//! ```
//!
//! For the bytes of a stream the op is a poll: it brings nothing, its handle receives, and it stays when the call is over or
//! dropped, so that the next call that waits finds it there.
//!
//! The op belongs to the socket, never to the future. So a future may be dropped, or leaked, at any point: nothing that the
//! kernel gave is lost, and nothing that it works on is freed.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use ringloop_driver::{
    Account, Completion, Descriptor, Driver, Interest, OpKey, Outcome, Received,
};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::replaced;
use super::side::{Brought, NOBODY, Side, Wanted};
use crate::event_loop::Source;
use crate::event_loop::door::{self, let_go};
use crate::source::{self, Attachment, Direction, reset_on_close};
use crate::{Error, EventLoop, LoopRef, Result};

pub(super) struct Core {
    this: Weak<Self>,
    attachment: Attachment,
    /// The loop that keeps it; the first that a call is made on.
    event_loop: RefCell<Option<LoopRef>>,
    pub(super) reading: Side,
    pub(super) writing: Side,
    account: Account,
    kind: OnceCell<Kind>,
    /// No call begins any more. The descriptor is closed when no call waits any more.
    is_closed: Cell<bool>,
}

/// What the socket was made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) domain: Domain,
    pub(crate) socktype: Type,
}

impl Core {
    pub(super) fn new(descriptor: Descriptor, kind: Option<Kind>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            attachment: Attachment::new(descriptor),
            event_loop: RefCell::new(None),
            reading: Side::new(Wanted::Readiness),
            writing: Side::new(Wanted::Room),
            account: Account::new(),
            kind: kind.map_or_else(OnceCell::new, OnceCell::from),
            is_closed: Cell::new(false),
        })
    }

    pub(super) fn enter(&self, event_loop: &EventLoop) -> Result<()> {
        event_loop.check_closed()?;
        self.check_open()?;
        if event_loop.get_debug() && !self.with_socket(|socket| socket.nonblocking())? {
            return Err(Error::invalid_argument("the socket must be non-blocking"));
        }
        if self.event_loop.borrow().as_ref().is_some_and(|home| home.is_to(event_loop)) {
            return Ok(());
        }
        let home = self.event_loop.borrow().as_ref().and_then(LoopRef::upgrade);
        if home.is_some_and(|home| !home.is_closed()) {
            return Err(Error::state("the socket belongs to another event loop"));
        }
        if let Some(this) = self.this.upgrade() {
            self.event_loop.replace(Some(event_loop.downgrade()));
            self.attachment.register(event_loop, this);
        }
        Ok(())
    }

    /// Before each call that is made on the loop that runs here: gives that.
    #[inline(always)]
    pub(super) fn enter_running(&self) -> Result<EventLoop> {
        let home = self.event_loop.borrow().as_ref().and_then(LoopRef::upgrade);
        match home {
            // It is the one that runs, as there is one at most.
            Some(home) if home.is_running() && !self.is_closed.get() && !home.get_debug() => {
                Ok(home)
            }
            _ => self.enter_another(),
        }
    }

    #[cold]
    fn enter_another(&self) -> Result<EventLoop> {
        let event_loop = EventLoop::running()?;
        self.enter(&event_loop)?;
        Ok(event_loop)
    }

    pub(super) fn event_loop(&self) -> Result<EventLoop> {
        let event_loop = self.event_loop.borrow().as_ref().and_then(LoopRef::upgrade);
        let event_loop = event_loop.ok_or_else(Error::loop_closed)?;
        event_loop.check_closed()?;
        Ok(event_loop)
    }

    #[inline]
    pub(super) fn kind(&self) -> io::Result<Kind> {
        match self.kind.get() {
            Some(kind) => Ok(*kind),
            None => self.ask_kind(),
        }
    }

    #[cold]
    fn ask_kind(&self) -> io::Result<Kind> {
        let kind = self.with_socket(|socket| {
            Ok(Kind { domain: socket.domain()?, socktype: socket.r#type()? })
        })?;
        Ok(*self.kind.get_or_init(|| kind))
    }

    #[inline]
    pub(super) fn is_stream(&self) -> io::Result<bool> {
        Ok(self.kind()?.socktype == Type::STREAM)
    }

    pub(super) fn check_open(&self) -> io::Result<()> {
        if self.is_closed.get() || self.attachment.as_raw_fd().is_none() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(())
    }

    pub(super) fn as_raw_fd(&self) -> Option<RawFd> {
        self.check_open().ok()?;
        self.attachment.as_raw_fd()
    }

    /// A plain system call on the socket.
    pub(super) fn with_socket<R>(
        &self,
        call: impl FnOnce(&SockRef<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.check_open()?;
        // A holder of its own: the call may be the user's, who may close the socket in there.
        let descriptor = self.attachment.descriptor().clone();
        match &descriptor {
            Some(descriptor) => call(&SockRef::from(descriptor)),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// A direct call of the driver, which a signal does not end.
    pub(super) fn try_now<R>(
        &self,
        call: impl FnMut(&mut Driver, &Descriptor) -> io::Result<R>,
    ) -> Result<R> {
        Ok(self.try_on(&self.event_loop()?, call)?)
    }

    #[inline(always)]
    pub(super) fn try_on<R>(
        &self,
        event_loop: &EventLoop,
        mut call: impl FnMut(&mut Driver, &Descriptor) -> io::Result<R>,
    ) -> io::Result<R> {
        let descriptor = self.attachment.descriptor();
        let Some(descriptor) = &*descriptor else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let mut driver = event_loop.driver();
        loop {
            match call(&mut driver, descriptor) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                done => return done,
            }
        }
    }

    /// What a call of its kind brings: what is staged, or what an op brings that is ready, or is waited for.
    pub(super) async fn obtain(&self, direction: Direction, wanted: Wanted) -> Result<Brought> {
        let found = self.obtain_now(direction, wanted, &self.event_loop()?)?;
        match found {
            Some(brought) => Ok(brought),
            None => self.turn(direction, wanted).await,
        }
    }

    /// Bytes of a stream that can be had now; else a [`turn`](Self::turn) waits for them.
    #[inline(always)]
    pub(super) fn bytes_now(
        &self,
        most: NonZeroU32,
        event_loop: &EventLoop,
    ) -> Result<Option<io::Result<Received>>> {
        let side = &self.reading;
        if side.is_empty() && (side.has_poll_for_bytes() || !side.op.is_in_flight()) {
            return Ok(self.try_recv(most, event_loop));
        }
        let found = self.obtain_now(Direction::Read, Wanted::Bytes(most), event_loop)?;
        match found {
            None => Ok(None),
            Some(Brought::Bytes(received)) => Ok(Some(received)),
            Some(_) => Err(replaced()),
        }
    }

    /// What [`obtain`](Self::obtain) gives, unless it is to be waited for, by a [`turn`](Self::turn).
    pub(super) fn obtain_now(
        &self,
        direction: Direction,
        wanted: Wanted,
        event_loop: &EventLoop,
    ) -> Result<Option<Brought>> {
        let found = self.find(direction, wanted, event_loop)?;
        if found.is_some() {
            self.go_on(direction, event_loop);
        }
        Ok(found)
    }

    /// What comes after a direct call that has found nothing.
    pub(super) async fn next(&self, direction: Direction, wanted: Wanted) -> Result<Brought> {
        self.start(self.side(direction), wanted, &self.event_loop()?);
        self.turn(direction, wanted).await
    }

    /// Waits until a direct call is worth another try.
    pub(super) async fn ready(&self, direction: Direction) -> Result<()> {
        let event_loop = self.event_loop()?;
        let (side, wanted) = match direction {
            Direction::Read => (&self.reading, Wanted::Readiness),
            Direction::Write => (&self.writing, Wanted::Room),
        };
        self.make_way(side, wanted, &event_loop);
        self.start(side, wanted, &event_loop);
        drop(event_loop); // A task must not keep its loop alive.
        // If something is wrong with the socket, the next try returns the error.
        self.turn(direction, wanted).await.map(drop)
    }

    /// Connects to an address of the socket's own family.
    pub(super) async fn connected(&self, address: &SockAddr, at_once: bool) -> Result<()> {
        let event_loop = self.event_loop()?;
        let (side, wanted) = (&self.writing, Wanted::Connected);
        self.retire(side, &event_loop);
        self.attachment.with(|descriptor, token| {
            side.brings.set(wanted);
            side.op.fill(event_loop.driver().connect(descriptor, address, token));
        });
        let looked = if at_once { side.op.look(&mut event_loop.driver())? } else { None };
        let brought = match looked {
            Some(completion) => {
                self.go_on(Direction::Write, &event_loop);
                Brought::by_an_op(completion.outcome)
            }
            None => {
                drop(event_loop); // A task must not keep its loop alive.
                Some(self.turn(Direction::Write, wanted).await?)
            }
        };
        match brought {
            Some(Brought::Connected(result)) => Ok(result?),
            _ => Err(Error::state("the connect op was replaced")),
        }
    }

    /// Nothing of this is in the kernel, or in the loop, any more when it returns. What ops have brought stays staged.
    pub(super) fn detach(&self) {
        let event_loop = self.event_loop.take().and_then(|event_loop| event_loop.upgrade());
        let Some(event_loop) = event_loop else { return };
        for side in [&self.reading, &self.writing] {
            self.retire(side, &event_loop);
        }
        self.attachment.unregister(&event_loop);
    }

    /// No call begins any more. Calls that wait go on, and the descriptor with them.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.close_if_over();
    }

    /// Gives the descriptor away, with what is staged.
    pub(super) fn take(&self) -> (Option<Descriptor>, Vec<Brought>) {
        self.detach();
        self.is_closed.set(true);
        let staged = self.reading.take_all().chain(self.writing.take_all()).collect();
        (self.attachment.take(), staged)
    }

    /// Makes sure that no op takes anything that nobody waits for.
    pub(super) fn settle(&self) {
        let Ok(event_loop) = self.event_loop() else { return };
        for side in [&self.reading, &self.writing] {
            if !side.is_waited_for() && !side.brings.get().stays_in_the_kernel() {
                self.retire(side, &event_loop);
            }
        }
    }

    /// Closes the descriptor, and throws away what is staged, so that the peer sees what it would if it were in the kernel.
    pub(super) fn discard(&self) {
        let (descriptor, staged) = self.take();
        let mut has_data = false;
        for brought in staged {
            match brought {
                Brought::Connection(Ok(connection)) => reset_on_close(&connection),
                Brought::Bytes(Ok(data)) => has_data |= !data.is_empty(),
                _ => {}
            }
        }
        if let (true, Some(descriptor)) = (has_data, &descriptor) {
            reset_on_close(descriptor);
        }
    }

    #[inline]
    fn close_if_over(&self) {
        if self.is_closed.get() && self.reading.is_idle() && self.writing.is_idle() {
            self.discard();
        }
    }

    fn find(
        &self,
        direction: Direction,
        wanted: Wanted,
        event_loop: &EventLoop,
    ) -> Result<Option<Brought>> {
        let side = self.side(direction);
        if let Some(brought) = side.take(wanted) {
            return Ok(Some(self.fill_up(brought, wanted, event_loop)));
        }
        self.make_way(side, wanted, event_loop);
        if let Wanted::Bytes(most) = wanted {
            return Ok(self.try_recv(most, event_loop).map(Brought::Bytes));
        }
        if !side.op.is_in_flight() {
            if let Some(brought) = side.take(wanted) {
                return Ok(Some(brought)); // It had come.
            }
            self.start(side, wanted, event_loop);
        }
        let looked = side.op.look(&mut event_loop.driver())?;
        if let Some(completion) = looked {
            match Brought::by_an_op(completion.outcome) {
                Some(brought) => side.stage(brought),
                None => self.start(side, wanted, event_loop),
            }
        }
        Ok(side.take(wanted))
    }

    /// Receives here and now; if there is nothing, a poll is to wait for it, which goes to the kernel with all other ops.
    #[inline(always)]
    fn try_recv(&self, most: NonZeroU32, event_loop: &EventLoop) -> Option<io::Result<Received>> {
        let received = self.try_on(event_loop, |driver, socket| {
            driver.try_recv_lent(socket, &self.account, most.get() as usize)
        });
        match received {
            Err(error) if source::is_passing(&error) => {
                if !self.reading.op.is_in_flight() {
                    self.start(&self.reading, Wanted::Bytes(most), event_loop);
                }
                None
            }
            received => Some(received),
        }
    }

    /// What was received for a call that was dropped is no more than had come by then. With asyncio it would still be in the
    /// kernel, together with what has come since.
    fn fill_up(&self, brought: Brought, wanted: Wanted, event_loop: &EventLoop) -> Brought {
        let (Wanted::Bytes(most), Brought::Bytes(Ok(data))) = (wanted, &brought) else {
            return brought;
        };
        let missing = (most.get() as usize).saturating_sub(data.len());
        if missing == 0 || data.is_empty() || self.reading.has_something_for(wanted) {
            return brought;
        }
        let more = self.try_on(event_loop, |driver, socket| {
            driver.try_recv_lent(socket, &self.account, missing)
        });
        match more {
            Ok(more) if more.is_empty() => brought, // The end is told to the next call.
            Ok(more) => Brought::Bytes(Ok([&data[..], &more].concat().into())),
            Err(error) => {
                if !source::is_passing(&error) {
                    self.reading.stage(Brought::Bytes(Err(error)));
                }
                brought
            }
        }
    }

    /// Gives him who waits what has come for him. Of a stream it receives that now, as asyncio's callback would.
    fn hand_over(&self, direction: Direction, event_loop: &EventLoop) {
        let side = self.side(direction);
        if !side.is_waited_for() || !side.is_empty() && side.hand_over() {
            return;
        }
        if let (Direction::Read, Wanted::Bytes(most)) = (direction, side.wanted.get()) {
            if let Some(received) = self.try_recv(most, event_loop) {
                side.give(received);
            }
        }
    }

    /// A poll for bytes has told of something, and goes on. While nobody waits that stays for the next call. Gives whether that
    /// is all: who does not receive for long is not to be told of all that arrives.
    #[inline(always)]
    fn notice(self: Rc<Self>, event_loop: &EventLoop) -> bool {
        let side = &self.reading;
        if side.is_waited_for() {
            if !side.is_queued.replace(true) {
                event_loop.queue_source(self, Direction::Read as u8);
            }
            return true;
        }
        side.count_unasked() <= MOST_UNASKED
    }

    /// A poll for bytes has completed.
    fn polled(self: Rc<Self>, polled: Outcome, event_loop: &EventLoop) {
        let side = &self.reading;
        match polled {
            Outcome::Polled(Err(error)) if side.is_waited_for() && !source::is_passing(&error) => {
                side.stage(Brought::Bytes(Err(error)));
            }
            _ => {}
        }
        if !Rc::clone(&self).notice(event_loop) {
            self.reading.op.cancel(&mut event_loop.driver());
        }
    }

    /// Ends the op in flight, unless it serves this caller, too.
    fn make_way(&self, side: &Side, wanted: Wanted, event_loop: &EventLoop) {
        if side.op.is_cancelled() || !side.brings.get().is_like(wanted) {
            self.retire(side, event_loop);
        }
    }

    fn retire(&self, side: &Side, event_loop: &EventLoop) {
        if !side.op.is_in_flight() {
            return;
        }
        let Some(mut driver) = event_loop.try_driver() else { return };
        for completion in side.op.retire(&mut driver) {
            if let Some(brought) = Brought::by_an_op(completion.outcome) {
                side.keep(brought);
            }
        }
    }

    /// Starts the op for `wanted`, unless one is in flight.
    fn start(&self, side: &Side, wanted: Wanted, event_loop: &EventLoop) {
        if side.op.is_in_flight() {
            return;
        }
        self.attachment.with(|descriptor, token| {
            let mut driver = event_loop.driver();
            side.brings.set(wanted);
            side.op.fill(match wanted {
                Wanted::Connection => driver.accept(descriptor, token),
                Wanted::Bytes(_) => driver.poll_multishot(descriptor, INPUT, token),
                Wanted::Readiness => driver.poll(descriptor, INPUT, token),
                Wanted::Room | Wanted::Connected => {
                    driver.poll(descriptor, Interest { read: false, write: true }, token)
                }
            });
        });
    }

    /// A call that waits goes on, although another call has taken what the op had brought, or has ended the op: with what is left
    /// of that, or with a new op.
    fn go_on(&self, direction: Direction, event_loop: &EventLoop) {
        let side = self.side(direction);
        if !side.is_waited_for() {
            return;
        }
        if side.has_something_for(side.wanted.get()) {
            self.queue(direction, event_loop);
        } else {
            self.start(side, side.wanted.get(), event_loop);
        }
    }

    /// Somebody waits, and the op or a result may have been another's.
    #[cold]
    fn serve_next(&self, direction: Direction) {
        match self.event_loop() {
            Ok(event_loop) => self.go_on(direction, &event_loop),
            Err(_) => self.side(direction).wake(), // He learns that the loop is closed.
        }
    }

    pub(super) fn turn(&self, direction: Direction, wanted: Wanted) -> Turn<'_> {
        Turn { core: self, side: self.side(direction), direction, wanted, place: NOBODY }
    }

    fn leave(&self, direction: Direction, place: u64) {
        let side = self.side(direction);
        let event_loop = self.event_loop().ok();
        if side.give_up(place) {
            side.forget_readiness();
            if let (true, Some(event_loop)) = (side.is_waited_for(), &event_loop) {
                self.queue(direction, event_loop);
            }
        } else if side.leave(place) && !side.is_waited_for() {
            side.forget_readiness();
            if side.brings.get().stays_in_the_kernel() {
                // It takes nothing, and the next call may wait for the same.
            } else if let Some(mut driver) = event_loop.as_ref().and_then(EventLoop::try_driver) {
                side.op.cancel(&mut driver);
            }
        }
        self.close_if_over();
    }

    fn queue(&self, direction: Direction, event_loop: &EventLoop) {
        if let (false, Some(this)) =
            (self.side(direction).is_queued.replace(true), self.this.upgrade())
        {
            event_loop.queue_source(this, direction as u8);
        }
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Read => &self.reading,
            Direction::Write => &self.writing,
        }
    }
}

impl Source for Core {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        let is_its = |side: &Side| side.op.key() == Some(completion.key);
        let direction = if is_its(&self.reading) {
            Direction::Read
        } else if is_its(&self.writing) {
            Direction::Write
        } else {
            return;
        };
        let side = self.side(direction);
        side.op.completed(completion.more);
        if let Wanted::Bytes(_) = side.brings.get() {
            return self.polled(completion.outcome, event_loop);
        }
        match Brought::by_an_op(completion.outcome) {
            Some(brought) if side.is_waited_for() => {
                side.stage(brought);
                self.queue(direction, event_loop);
            }
            Some(brought) => side.keep(brought),
            None if side.is_waited_for() => self.start(side, side.wanted.get(), event_loop),
            None => {}
        }
    }

    fn take_polled(self: Rc<Self>, op: OpKey, event_loop: &EventLoop) -> bool {
        let side = &self.reading;
        let is_for_bytes = side.op.key() == Some(op) && side.brings.get().stays_in_the_kernel();
        is_for_bytes && self.notice(event_loop)
    }

    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop) {
        let direction =
            if event == Direction::Read as u8 { Direction::Read } else { Direction::Write };
        self.side(direction).is_queued.set(false);
        self.hand_over(direction, event_loop);
    }

    /// What its ops have brought stays, for calls on another loop.
    fn on_loop_close(self: Rc<Self>) {
        self.detach();
        for side in [&self.reading, &self.writing] {
            side.is_queued.set(false); // A handle that was queued is gone with the loop.
            side.wake(); // A call that waits in a task of another loop would wait for ever.
        }
    }

    fn describe(&self) -> String {
        match self.attachment.as_raw_fd() {
            Some(fd) => format!("<Socket fd={fd}>"),
            None => "<Socket closed>".to_owned(),
        }
    }
}

/// One call that waits for its turn; dropped, it leaves what has come to the next one.
pub(super) struct Turn<'a> {
    core: &'a Core,
    side: &'a Side,
    direction: Direction,
    wanted: Wanted,
    /// From the first poll to the result; else [`NOBODY`].
    place: u64,
}

impl Future for Turn<'_> {
    type Output = Result<Brought>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Brought>> {
        let side = self.side;
        if self.place == NOBODY {
            if side.has_waker(cx.waker()) {
                self.place = side.take_over(self.wanted);
            } else {
                self.begin_with(cx.waker());
            }
            return Poll::Pending;
        }
        if let Some(brought) = side.claim(self.wanted, self.place) {
            self.place = NOBODY;
            if side.is_waited_for() {
                self.core.serve_next(self.direction);
            }
            self.core.close_if_over();
            return Poll::Ready(Ok(brought));
        }
        self.wait_on(cx.waker())
    }
}

impl Turn<'_> {
    /// Begins to wait with a waker that is not known. It may be anybody's, and cloning and dropping it may start and end other
    /// calls: so it is seen to after that that an op is in flight.
    #[cold]
    fn begin_with(&mut self, waker: &Waker) {
        let side = self.side;
        let old = side.keep_waker(waker.clone());
        self.place = side.take_over(self.wanted);
        self.core.serve_next(self.direction);
        let_go("a waker", old);
    }

    /// Woken for something else, or moved to another task.
    #[cold]
    fn wait_on(&self, waker: &Waker) -> Poll<Result<Brought>> {
        self.core.event_loop()?;
        let side = self.side;
        if side.waits_at(self.place) && !side.has_waker(waker) {
            let clone = waker.clone();
            if side.waits_at(self.place) {
                let_go("a waker", side.keep_waker(clone));
            } else {
                let_go("a waker", clone);
                door::wake(waker); // The clone of a foreign waker has brought about what it is to wait for.
            }
        }
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.place != NOBODY {
            self.core.leave(self.direction, self.place);
        }
    }
}

const INPUT: Interest = Interest { read: true, write: false };

/// So often a poll that stays may tell of what nobody has asked for yet: a peer that sends in pieces while the last of them are
/// worked on does that, too.
const MOST_UNASKED: u32 = 8;
