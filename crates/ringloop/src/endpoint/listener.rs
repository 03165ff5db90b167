//! One listening socket of a server.
//!
//! # The life of a listener
//!
//! ```text
//! bound -> start() -> accepting <-> resting, for 1 s, when the system is out of resources or the socket is broken
//!                         |
//!                         +-> close(): the accept op is retired, so that the next connect is refused at once
//! ```
//!
//! A multishot accept is in flight while the listener accepts. When completions are decoded, connections are staged and one
//! handle, [`ACCEPT`], is queued. It takes up to `backlog + 1` of them, as asyncio's accept callback does, and queues a handle
//! [`BUILD`] for each, where asyncio has a task: the factory is called and the transport made one iteration later, in the order
//! of the accepts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ringloop_driver::{Completion, Descriptor, Outcome};
use socket2::SockRef;

use super::client::Given;
use super::server::{Bound, ServerInner};
use super::unix::SocketFile;
use crate::event_loop::{Snapshot, Source};
use crate::source::{self, Attachment, OpSlot};
use crate::transport::TransportSocket;
use crate::{EventLoop, ExceptionContext, TimerHandle};

pub(super) struct Listener {
    attachment: Attachment,
    is_tcp: bool,
    /// Removed by the server's `close()`.
    file: Cell<Option<SocketFile>>,
    server: Weak<ServerInner>,
    /// Keeps the server alive while it listens, whether or not anybody has a handle to it (SERVER-34b).
    serving: RefCell<Option<Rc<ServerInner>>>,
    /// The accept in flight.
    op: OpSlot,
    backlog: Cell<u32>,
    accepted: RefCell<VecDeque<io::Result<Descriptor>>>,
    /// Connections that the accept handle has taken, and that wait for their transports.
    building: RefCell<VecDeque<Descriptor>>,
    is_accept_queued: Cell<bool>,
    /// The timer that ends the second of rest.
    resting: RefCell<Option<TimerHandle>>,
}

/// What a queued handle is for.
const ACCEPT: u8 = 0;
const BUILD: u8 = 1;

impl Listener {
    /// Connections that were accepted before are the first.
    pub(super) fn new(bound: Bound, server: Weak<ServerInner>) -> Self {
        let Bound { given: Given { descriptor, is_tcp, unclaimed }, file } = bound;
        let accepted = unclaimed.accepted.into_iter().map(|accepted| Ok(accepted?.release()?.0));
        Self {
            attachment: Attachment::new(descriptor),
            is_tcp,
            file: Cell::new(file),
            server,
            serving: RefCell::new(None),
            op: OpSlot::default(),
            backlog: Cell::new(0),
            accepted: RefCell::new(accepted.collect()),
            building: RefCell::default(),
            is_accept_queued: Cell::new(false),
            resting: RefCell::new(None),
        }
    }

    pub(super) fn view(&self) -> TransportSocket {
        TransportSocket::new(self.attachment.descriptor().as_ref(), None)
    }

    /// Listens, and accepts from the next enter on.
    pub(super) fn start(
        self: &Rc<Self>,
        backlog: u32,
        server: Rc<ServerInner>,
        event_loop: &EventLoop,
    ) -> io::Result<()> {
        if let Some(descriptor) = &*self.attachment.descriptor() {
            SockRef::from(descriptor).listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        }
        self.backlog.set(backlog);
        self.serving.replace(Some(server));
        self.attachment.register(event_loop, Rc::clone(self) as Rc<dyn Source>);
        if !self.accepted.borrow().is_empty() {
            event_loop.list_for_flush(Rc::clone(self) as Rc<dyn Source>);
        }
        self.accept(event_loop);
        Ok(())
    }

    /// Closes the socket, so that a connect that comes after this is refused. Connections that nobody has taken are reset,
    /// as the kernel resets those in its own queue (RISK-31).
    pub(super) fn close(&self, event_loop: Option<&EventLoop>) {
        let mut left: Vec<io::Result<Descriptor>> = self.accepted.take().into();
        if let Some(event_loop) = event_loop {
            if let Some(mut driver) = event_loop.try_driver() {
                left.extend(self.op.retire(&mut driver).into_iter().filter_map(|completion| {
                    match completion.outcome {
                        Outcome::Accepted(result) => Some(result),
                        _ => None,
                    }
                }));
            }
            self.attachment.unregister(event_loop);
        }
        left.into_iter().flatten().for_each(|connection| source::reset_on_close(&connection));
        let resting = self.resting.take();
        if let Some(resting) = resting {
            resting.cancel(); // A number that is free again must not be listened to (SERVER-44).
        }
        drop(self.attachment.take());
        if let (Some(file), Some(event_loop)) = (self.file.take(), event_loop) {
            file.remove(event_loop);
        }
        let serving = self.serving.take();
        drop(serving); // Outside the borrow: the factory goes with the last of it.
    }

    fn accept(&self, event_loop: &EventLoop) {
        if self.op.is_in_flight() || self.resting.borrow().is_some() {
            return;
        }
        self.attachment.with(|descriptor, token| {
            self.op.fill(event_loop.driver().accept_multishot(descriptor, token));
        });
    }

    /// In the reap: an accept has completed.
    fn take(self: Rc<Self>, accepted: io::Result<Descriptor>, event_loop: &EventLoop) {
        self.accepted.borrow_mut().push_back(accepted);
        if !self.is_accept_queued.replace(true) {
            event_loop.queue_source(self, ACCEPT);
        }
    }

    /// asyncio's `_accept_connection`.
    fn accept_ready(self: &Rc<Self>, event_loop: &EventLoop) {
        for _ in 0..=self.backlog.get() {
            let accepted = self.accepted.borrow_mut().pop_front();
            match accepted {
                None => break,
                Some(Ok(connection)) => {
                    self.building.borrow_mut().push_back(connection);
                    event_loop.queue_source(Rc::clone(self) as Rc<dyn Source>, BUILD);
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => {
                    if !is_of_one_connection(&error) {
                        self.rest(event_loop);
                    }
                    self.report(&error, event_loop);
                    break;
                }
            }
        }
        // The handler is the user's, and may have closed the server.
        if !self.accepted.borrow().is_empty() {
            event_loop.list_for_flush(Rc::clone(self) as Rc<dyn Source>);
        }
        self.accept(event_loop);
    }

    /// Accepts nothing for a second (SERVER-42, SERVER-43): an accept would fail at once, and so would each one after it.
    fn rest(self: &Rc<Self>, event_loop: &EventLoop) {
        let weak = Rc::downgrade(self);
        let resting = event_loop.call_later(RETRY_DELAY, move |event_loop| {
            if let Some(listener) = weak.upgrade() {
                listener.resting.take();
                listener.accept(event_loop);
            }
        });
        self.resting.replace(resting.ok()); // A closed loop accepts nothing any more.
    }

    fn report(&self, error: &io::Error, event_loop: &EventLoop) {
        let message = if is_out_of_resources(error) {
            "socket.accept() out of system resource"
        } else {
            "Exception in callback Listener.accept()"
        };
        let (context, socket) = (ExceptionContext::new(message), self.view());
        event_loop.call_exception_handler(&context.error(error).socket(&socket));
    }

    /// Makes protocol and transport for the next connection: in asyncio, the body of the task for it.
    fn build(&self, event_loop: &EventLoop) {
        let connection = self.building.borrow_mut().pop_front();
        if let (Some(connection), Some(server)) = (connection, self.server.upgrade()) {
            server.build(connection, self.is_tcp, event_loop);
        }
    }
}

impl Source for Listener {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        let Outcome::Accepted(result) = completion.outcome else { return };
        self.op.completed(completion.more);
        self.take(result, event_loop);
    }

    fn take_accepted(
        self: Rc<Self>,
        connection: Descriptor,
        event_loop: &EventLoop,
    ) -> Option<Descriptor> {
        self.take(Ok(connection), event_loop);
        None
    }

    fn run(self: Rc<Self>, event: u8, event_loop: &EventLoop) {
        if event == BUILD {
            self.build(event_loop);
        } else {
            self.is_accept_queued.set(false);
            self.accept_ready(event_loop);
        }
    }

    fn context(&self) -> Snapshot {
        self.attachment.context()
    }

    /// More were accepted than one event may take: the next poll brings the rest.
    fn flush(self: Rc<Self>, event_loop: &EventLoop) {
        if !self.accepted.borrow().is_empty() && !self.is_accept_queued.replace(true) {
            event_loop.queue_source(self, ACCEPT);
        }
    }

    fn on_loop_close(self: Rc<Self>) {
        self.close(None);
    }

    fn describe(&self) -> String {
        match self.attachment.as_raw_fd() {
            Some(fd) => format!("<Listener fd={fd}>"),
            None => "<Listener closed>".to_owned(),
        }
    }
}

fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Whether an accept failed for a reason that nobody need hear of: as every op may, or because the connection was gone before
/// it was accepted (SERVER-41).
fn is_passing(error: &io::Error) -> bool {
    source::is_passing(error) || error.raw_os_error() == Some(libc::ECONNABORTED)
}

/// An error of the network that came with a connection, which is lost with it: the next one may be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ETIMEDOUT
                | libc::ECONNRESET
        )
    )
}

const RETRY_DELAY: Duration = Duration::from_secs(1);
