//! How bytes and datagrams arrive: the op that brings them, and what it has brought.
//!
//! # The life of an arrival
//!
//! ```text
//! wants() -> receive() -> in flight -- complete(), in the reap --> staged -- next_within(), from the handle --> delivered
//!                            '-- cancel(), retire() --> its last completion is staged, too
//! ```
//!
//! A multishot op is in flight while its owner reads. Where the owner holds too many buffers, it is cancelled, and one-shot
//! ops go on, one per delivery, until the owner holds fewer. Nothing that an op brings is lost, whatever ended it.
//!
//! The source is the same for every way to receive ([`ReceiveOp`]). Its owner decides when to read, and what one delivery is.
//! Nothing in this file runs user code.

use std::cell::{Cell, RefCell};
use std::io;

use ringloop_driver::{Account, Datagram, Descriptor, Driver, OpKey, Outcome, Received, Token};

use super::OpSlot;
use super::staged::{Arrived, Staged};

/// A way to receive: which op of the driver does it.
pub(crate) trait ReceiveOp {
    /// What one completion brings.
    type Item: Arrival;

    /// Starts an op for one arrival.
    const ONE: Start;
    /// Starts an op for many.
    const MANY: Start;
}

type Start = fn(&mut Driver, &Descriptor, &Account, Token) -> OpKey;

/// What completions bring, and can be counted in bytes.
pub(crate) trait Arrival: Sized {
    /// What the completion says; `None` for one of another kind of op.
    fn result(outcome: Outcome) -> Option<io::Result<Self>>;

    fn len(&self) -> usize;

    /// Whether nothing comes after this.
    fn is_end(&self) -> bool;
}

/// A stream socket.
pub(crate) enum Recv {}

/// A pipe, a terminal, a character device.
#[cfg_attr(not(test), expect(dead_code, reason = "for the transports of pipes"))]
pub(crate) enum Read {}

/// A datagram socket.
#[cfg_attr(not(test), expect(dead_code, reason = "for datagram endpoints"))]
pub(crate) enum RecvFrom {}

impl ReceiveOp for Recv {
    type Item = Received;
    const ONE: Start = Driver::recv;
    const MANY: Start = Driver::recv_multishot;
}

impl ReceiveOp for Read {
    type Item = Received;
    const ONE: Start = Driver::read;
    const MANY: Start = Driver::read_multishot;
}

impl ReceiveOp for RecvFrom {
    type Item = Datagram;
    const ONE: Start =
        |driver, descriptor, _, token| driver.recv_from(descriptor, 64 * 1024, token); // No datagram is longer.
    const MANY: Start = Driver::recv_from_multishot;
}

impl Arrival for Received {
    fn result(outcome: Outcome) -> Option<io::Result<Self>> {
        match outcome {
            Outcome::Received(result) => Some(result),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn is_end(&self) -> bool {
        self.is_empty()
    }
}

impl Arrival for Datagram {
    fn result(outcome: Outcome) -> Option<io::Result<Self>> {
        match outcome {
            Outcome::Datagram(result) => Some(result),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        self.data().len()
    }

    /// An empty datagram is a datagram.
    fn is_end(&self) -> bool {
        false
    }
}

/// What has arrived at one descriptor, and the op that brings more.
pub(crate) struct StagedSource<O: ReceiveOp> {
    /// The op in flight.
    op: OpSlot,
    account: Account,
    staged: RefCell<Staged<O::Item>>,
    /// The end of the stream or an error was staged; nothing comes after it.
    has_ended: Cell<bool>,
    /// Data were thrown away that the protocol never got.
    has_discarded: Cell<bool>,
}

/// What is to be done to keep the op in flight that suits what the source holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Nothing,
    /// Call [`StagedSource::cancel`].
    Cancel,
    /// Call [`StagedSource::receive`].
    Receive,
}

impl<O: ReceiveOp> StagedSource<O> {
    pub(crate) fn new() -> Self {
        Self {
            op: OpSlot::default(),
            account: Account::new(),
            staged: RefCell::default(),
            has_ended: Cell::new(false),
            has_discarded: Cell::new(false),
        }
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.op.is_in_flight()
    }

    pub(crate) fn is_unborrowed(&self) -> bool {
        self.staged.try_borrow_mut().is_ok()
    }

    /// Whether the end or an error has been staged, so that nothing more comes.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    pub(crate) fn has_discarded(&self) -> bool {
        self.has_discarded.get()
    }

    /// Whether nothing is staged.
    pub(crate) fn is_empty(&self) -> bool {
        self.staged.borrow().is_empty()
    }

    /// Asked while the owner reads.
    pub(crate) fn wants(&self) -> Wants {
        let parked = self.staged.borrow().bytes();
        if self.is_in_flight() {
            if self.account.is_over() || parked >= BUDGET { Wants::Cancel } else { Wants::Nothing }
        } else if !self.has_ended.get() && parked < BUDGET {
            Wants::Receive
        } else {
            Wants::Nothing
        }
    }

    pub(crate) fn receive(&self, driver: &mut Driver, descriptor: &Descriptor, token: Token) {
        let start = if self.account.is_over() { O::ONE } else { O::MANY };
        self.op.fill(start(driver, descriptor, &self.account, token));
    }

    pub(crate) fn cancel(&self, driver: &mut Driver) {
        self.op.cancel(driver);
    }

    /// Waits for the op's last completion, if it is not in yet.
    pub(crate) fn retire(&self, driver: &mut Driver) {
        for completion in self.op.retire(driver) {
            self.complete(completion.outcome, completion.more);
        }
    }

    /// Stages a completion of the op, in the reap or out of it.
    pub(crate) fn complete(&self, outcome: Outcome, more: bool) {
        if let Some(result) = O::Item::result(outcome) {
            self.stage(result, more);
        }
    }

    #[inline(always)]
    pub(crate) fn stage(&self, result: io::Result<O::Item>, more: bool) {
        self.op.completed(more);
        match result {
            Ok(item) if item.is_end() => self.stage_last(Arrived::Eof),
            Ok(item) => self.stage_data(item),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.stage_last(Arrived::Error(error)),
        }
    }

    /// The op is over, and with it the stream.
    pub(crate) fn stage_end(&self) {
        self.op.completed(false);
        self.stage_last(Arrived::Eof);
    }

    fn stage_last(&self, last: Arrived<O::Item>) {
        self.has_ended.set(true);
        self.staged.borrow_mut().push(last);
    }

    /// As [`stage`](Self::stage), for data that are no end, of an op that goes on.
    pub(crate) fn stage_data(&self, data: O::Item) {
        self.staged.borrow_mut().push(Arrived::Data(data));
    }

    /// As [`stage_data`](Self::stage_data), if nothing else is staged; else they come back.
    #[inline(always)]
    pub(crate) fn stage_first(&self, data: O::Item) -> Option<O::Item> {
        let mut staged = self.staged.borrow_mut();
        if !staged.is_empty() {
            return Some(data);
        }
        staged.push_first(data);
        None
    }

    /// What is next, if it is data, and all that is staged.
    #[inline(always)]
    pub(crate) fn next_only(&self) -> Option<O::Item> {
        self.staged.borrow_mut().pop_only()
    }

    /// Whether nothing is to be done for the op: nothing is staged, and it goes on.
    #[inline(always)]
    pub(crate) fn goes_on(&self) -> bool {
        self.staged.borrow().is_empty() && self.is_in_flight() && !self.account.is_over()
    }

    /// What is next in this iteration, which may deliver `budget` bytes more.
    #[inline(always)]
    pub(crate) fn next_within(&self, budget: usize, is_first: bool) -> Option<Arrived<O::Item>> {
        let mut staged = self.staged.borrow_mut();
        match staged.first()? {
            Arrived::Data(data) if data.len() <= budget => {}
            _ if is_first => {}
            // The rest of the data, an end and an error each have an iteration of their own (TRANS-10, TRANS-16).
            _ => return None,
        }
        staged.pop()
    }

    /// Puts `data` in front of what is staged.
    pub(crate) fn put_back(&self, data: O::Item) {
        self.staged.borrow_mut().push_front(data);
    }

    /// Stages the end of the stream once more if the protocol got it, and reads again: a socket at its end stays readable
    /// (TRANS-15).
    pub(crate) fn repeat_eof(&self) {
        let mut staged = self.staged.borrow_mut();
        if self.has_ended.get() && !staged.has_end() {
            staged.push(Arrived::Eof);
        }
    }

    /// Drops what is staged, and notes that data were dropped.
    pub(crate) fn discard(&self) {
        if self.is_empty() {
            return;
        }
        let staged = self.staged.take();
        if staged.bytes() > 0 {
            self.note_discarded();
        }
    }

    pub(crate) fn note_discarded(&self) {
        self.has_discarded.set(true);
    }

    /// The error at the end of what has arrived by now, also if the reap has not come to it.
    pub(crate) fn take_error(&self, driver: &mut Driver) -> Option<io::Error> {
        while let Some(completion) = self.op.peek(driver) {
            self.complete(completion.outcome, completion.more);
        }
        self.staged.borrow_mut().take_error()
    }
}

/// Whether an op ended for a reason that is no error of its owner's: it was cancelled, or may simply be repeated.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
}

/// What one transport may deliver in one iteration, and hold ahead of its protocol (TRANS-10).
pub(crate) const BUDGET: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::process::{ChildStdin, Command, Stdio};
    use std::rc::Rc;
    use std::time::Duration;

    use ringloop_driver::{Completion, DriverChoice, DriverConfig};

    use super::*;
    use crate::event_loop::Source;
    use crate::source::Attachment;
    use crate::{EventLoop, run, sleep, yield_now};

    /// An owner of a source that is as small as can be: it delivers what arrives, one piece in each event.
    struct Tap<O: ReceiveOp> {
        attachment: Attachment,
        source: StagedSource<O>,
        is_reading: Cell<bool>,
        show: fn(O::Item) -> String,
        seen: RefCell<Vec<String>>,
    }

    impl<O: ReceiveOp + 'static> Tap<O> {
        fn open(fd: impl Into<OwnedFd>, show: fn(O::Item) -> String) -> Rc<Self> {
            let event_loop = EventLoop::running().unwrap();
            let tap = Rc::new(Self {
                attachment: Attachment::new(Descriptor::from(fd.into())),
                source: StagedSource::new(),
                is_reading: Cell::new(true),
                show,
                seen: RefCell::default(),
            });
            tap.attachment.register(&event_loop, Rc::clone(&tap) as Rc<dyn Source>);
            tap.read_on(&event_loop);
            tap
        }

        fn read_on(&self, event_loop: &EventLoop) {
            let mut driver = event_loop.driver();
            match self.source.wants() {
                Wants::Nothing => {}
                Wants::Cancel => self.source.cancel(&mut driver),
                Wants::Receive => {
                    self.attachment.with(|descriptor, token| {
                        self.source.receive(&mut driver, descriptor, token);
                    });
                }
            }
        }

        fn pause(&self, event_loop: &EventLoop) {
            self.is_reading.set(false);
            self.source.cancel(&mut event_loop.driver());
        }

        fn resume(self: &Rc<Self>, event_loop: &EventLoop) {
            self.is_reading.set(true);
            event_loop.queue_source(Rc::clone(self) as Rc<dyn Source>, 0);
        }

        fn close(&self, event_loop: &EventLoop) {
            self.source.retire(&mut event_loop.driver());
            assert!(!self.source.is_in_flight() && self.source.is_unborrowed());
            self.attachment.unregister(event_loop);
            drop(self.attachment.take());
        }
    }

    impl<O: ReceiveOp + 'static> Source for Tap<O> {
        fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
            self.source.complete(completion.outcome, completion.more);
            event_loop.queue_source(self, 0);
        }

        fn run(self: Rc<Self>, _: u8, event_loop: &EventLoop) {
            while self.is_reading.get() {
                let Some(arrived) = self.source.next_within(BUDGET, true) else { break };
                self.seen.borrow_mut().push(match arrived {
                    Arrived::Data(item) => (self.show)(item),
                    Arrived::Eof => "eof".to_owned(),
                    Arrived::Error(error) => format!("{:?}", error.kind()),
                });
            }
            if self.is_reading.get() && self.attachment.as_raw_fd().is_some() {
                self.read_on(event_loop);
            }
        }

        fn on_loop_close(self: Rc<Self>) {}

        fn describe(&self) -> String {
            "<Tap>".to_owned()
        }
    }

    fn text(data: Received) -> String {
        String::from_utf8(data.to_vec()).unwrap()
    }

    async fn settle() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    impl<O: ReceiveOp> Tap<O> {
        /// Waits for the next events. A pipe that was opened by its number is read by a thread of the kernel's.
        async fn next(&self, count: usize) -> Vec<String> {
            while self.seen.borrow().len() < count {
                sleep(Duration::from_millis(1)).await;
            }
            self.seen.take()
        }
    }

    /// A pipe: the program is long over; its standard input is the end that is written to.
    fn pipe() -> (OwnedFd, ChildStdin) {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let writer = child.stdin.take().unwrap();
        child.wait().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let reader = std::fs::File::open(format!("/proc/self/fd/{number}")).unwrap();
        (reader.into(), writer)
    }

    /// Bytes, a pause in which more come, the end.
    async fn stream_through<O>(fd: impl Into<OwnedFd>, mut peer: impl Write)
    where
        O: ReceiveOp<Item = Received> + 'static,
    {
        let event_loop = EventLoop::running().unwrap();
        let tap = Tap::<O>::open(fd, text);
        for bytes in ["one", "two"] {
            peer.write_all(bytes.as_bytes()).unwrap();
            assert_eq!(tap.next(1).await, [bytes]);
        }
        tap.pause(&event_loop);
        settle().await;
        peer.write_all(b"three").unwrap();
        settle().await;
        assert!(tap.seen.borrow().is_empty());
        tap.source.put_back(Received::from(b"held".as_slice()));
        tap.resume(&event_loop);
        assert_eq!(tap.next(2).await, ["held", "three"]);
        drop(peer);
        assert_eq!(tap.next(1).await, ["eof"]);
        assert_eq!((tap.source.wants(), tap.source.is_in_flight()), (Wants::Nothing, false));
        tap.source.repeat_eof();
        tap.source.repeat_eof();
        tap.resume(&event_loop);
        assert_eq!(tap.next(1).await, ["eof"]);
        tap.close(&event_loop);
    }

    #[test]
    fn a_stream_socket_and_a_pipe_go_through_the_same_source() {
        run(async {
            let (a, b) = UnixStream::pair().unwrap();
            stream_through::<Recv>(a, b).await;
            let (reader, writer) = pipe();
            stream_through::<Read>(reader, writer).await;
        })
        .unwrap();
    }

    #[test]
    fn datagrams_go_through_the_same_source_and_have_no_end() {
        run(async {
            let show = |datagram: Datagram| {
                let sender = datagram.address().and_then(|address| address.as_socket());
                format!("{:?} {}", text(datagram.into_data()), sender.is_some())
            };
            let (a, b) = UnixDatagram::pair().unwrap();
            let event_loop = EventLoop::running().unwrap();
            let tap = Tap::<RecvFrom>::open(a, show);
            for bytes in ["one", "", "three"] {
                b.send(bytes.as_bytes()).unwrap();
            }
            settle().await;
            assert_eq!(tap.seen.take(), [r#""one" false"#, r#""" false"#, r#""three" false"#]);
            tap.close(&event_loop);
            let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0"));
            let address = a.local_addr().unwrap();
            let tap = Tap::<RecvFrom>::open(a, show);
            b.unwrap().send_to(b"four", address).unwrap();
            settle().await;
            assert_eq!(tap.seen.take(), [r#""four" true"#]);
            tap.close(&event_loop);
        })
        .unwrap();
    }

    /// On the ring, since the receive takes the bytes inside the enter that ends it. With epoll it ends without a try, and
    /// the bytes stay in the kernel.
    #[test]
    fn what_has_arrived_when_a_ring_retires_an_op_is_kept() {
        let ring = DriverConfig { driver: DriverChoice::Uring, ..DriverConfig::default() };
        EventLoop::builder()
            .driver(ring)
            .run(async {
                let event_loop = EventLoop::running().unwrap();
                let (a, mut b) = UnixStream::pair().unwrap();
                b.write_all(b"last").unwrap();
                let tap = Tap::<Recv>::open(a, text); // Receives inside the enter that ends it.
                tap.close(&event_loop);
                assert!(matches!(
                    tap.source.next_within(1, true),
                    Some(Arrived::Data(data)) if *data == *b"last"
                ));
                tap.source.put_back(Received::from(b"last".as_slice()));
                tap.source.discard();
                assert!(tap.source.has_discarded() && tap.source.is_empty());
            })
            .unwrap();
    }
}
