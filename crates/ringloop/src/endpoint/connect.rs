//! One attempt to connect: a new socket, bound if asked for, and the connect op.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;

use ringloop_driver::{Completion, Descriptor, OpKey, Outcome, Token};
use socket2::{SockAddr, Socket};

use super::AddrInfo;
use crate::event_loop::Source;
use crate::event_loop::door::Kept;
use crate::{Address, EventLoop, EventLoopBuilder, LoopFuture, LoopRef, OsError, Result};

/// Stands between `create_connection()` and the system: a test may refuse or delay connections, a program count them.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Address, ConnectFuture, Connector, EventLoop};
///
/// struct Log;
///
/// impl Connector for Log {
///     fn connect(&self, address: &Address, connect: ConnectFuture) -> ConnectFuture {
///         println!("connecting to {address}");
///         connect
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// event_loop.set_connector(Rc::new(Log));
/// # Ok::<(), ringloop::Error>(())
/// ```
pub trait Connector {
    /// Connects to `address`, as `connect` does once it is polled.
    fn connect(&self, address: &Address, connect: ConnectFuture) -> ConnectFuture;
}

/// An attempt to connect. Dropping it gives the attempt up.
pub type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<()>>>>;

struct ConnectorSlot(Kept<Rc<dyn Connector>>);

impl ConnectorSlot {
    fn new(connector: Rc<dyn Connector>) -> Rc<Self> {
        Rc::new(Self(Kept::new("a connector", connector)))
    }
}

impl EventLoopBuilder {
    /// Has `connector` stand between `create_connection()` and the system.
    pub fn connector(self, connector: Rc<dyn Connector>) -> Self {
        self.extension(ConnectorSlot::new(connector))
    }
}

impl EventLoop {
    /// Has `connector` stand between `create_connection()` and the system from now on.
    pub fn set_connector(&self, connector: Rc<dyn Connector>) {
        self.set_extension(ConnectorSlot::new(connector));
    }

    /// A socket that is connected to `remote`; or all errors of the attempt, the last of which is why it failed (CONN-06).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt is given up and the socket closed.
    pub(super) async fn connect_socket(
        &self,
        remote: AddrInfo,
        local: Option<Rc<[AddrInfo]>>,
    ) -> Result<Descriptor, Vec<io::Error>> {
        let socket = open(&remote).map_err(|error| vec![error])?;
        if let Some(local) = local {
            bind(&socket, &remote, &local)?;
        }
        let descriptor = Descriptor::from(socket);
        let address = Address::from(&remote.address);
        let attempt = attempt(self.downgrade(), descriptor.clone(), remote.address);
        let connected = match self.extension::<ConnectorSlot>() {
            Some(slot) => {
                let connect = slot.0.connect(&address, Box::pin(attempt));
                Kept::new("an attempt to connect", connect).as_mut().await
            }
            None => attempt.await,
        };
        connected.map_err(|error| vec![error])?;
        Ok(descriptor)
    }
}

fn open(remote: &AddrInfo) -> io::Result<Socket> {
    let socket = Socket::new(remote.family, remote.socktype, Some(remote.protocol.into()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// To the first local address of the family that can be had (CONN-07).
fn bind(socket: &Socket, remote: &AddrInfo, local: &[AddrInfo]) -> Result<(), Vec<io::Error>> {
    let mut errors = Vec::new();
    for info in local.iter().filter(|info| info.family == remote.family) {
        match socket.bind(&info.address) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(bind_error(&error, &info.address)),
        }
    }
    if errors.is_empty() {
        let family = i32::from(remote.family);
        let text = format!("no matching local address with family={family} found");
        errors.push(io::Error::other(text));
    }
    Err(errors)
}

/// As asyncio words it (SERVER-10, CONN-07).
pub(super) fn bind_error(error: &io::Error, address: &SockAddr) -> io::Error {
    let (address, reason) = (Address::from(address).as_python(), OsError::reason(error));
    let text = format!("error while attempting to bind on address {address}: {reason}");
    OsError::reword(error, text)
}

async fn attempt(event_loop: LoopRef, descriptor: Descriptor, address: SockAddr) -> io::Result<()> {
    let Some(event_loop) = event_loop.upgrade() else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let attempt = Attempt::start(&event_loop, descriptor, &address);
    drop(event_loop); // A task must not keep its loop alive.
    match attempt.source.connected.clone().await {
        Ok(()) => Ok(()),
        Err(error) if address.is_unix() => Err(error.into()), // asyncio is told at once, and adds nothing.
        Err(error) => {
            let error = io::Error::from(error);
            let address = Address::from(&address).as_python();
            Err(OsError::reword(&error, format!("Connect call failed {address}")))
        }
    }
}

/// A connect op in flight; dropped, it is retired.
struct Attempt {
    event_loop: LoopRef,
    token: Token,
    source: Rc<ConnectSource>,
}

struct ConnectSource {
    op: Cell<Option<OpKey>>,
    /// What came; told from the handle, as asyncio's writer callback does.
    result: RefCell<Option<io::Result<()>>>,
    connected: LoopFuture<()>,
    /// For reports.
    fd: RawFd,
}

impl Attempt {
    fn start(event_loop: &EventLoop, descriptor: Descriptor, address: &SockAddr) -> Self {
        let source = Rc::new(ConnectSource {
            op: Cell::new(None),
            result: RefCell::new(None),
            connected: event_loop.create_future(),
            fd: descriptor.as_raw_fd(),
        });
        let token = event_loop.register(Rc::clone(&source) as Rc<dyn Source>);
        if let Some(mut driver) = event_loop.try_driver() {
            source.op.set(Some(driver.connect(&descriptor, address, token)));
        }
        Self { event_loop: event_loop.downgrade(), token, source }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(event_loop) = self.event_loop.upgrade() else { return };
        if let Some(op) = self.source.op.take() {
            if let Some(mut driver) = event_loop.try_driver() {
                driver.retire(op);
            }
        }
        event_loop.unregister(self.token);
    }
}

impl Source for ConnectSource {
    fn complete(self: Rc<Self>, completion: Completion, event_loop: &EventLoop) {
        if let Outcome::Connected(result) = completion.outcome {
            self.op.set(None);
            self.result.replace(Some(result));
            event_loop.queue_source(self, 0);
        }
    }

    fn run(self: Rc<Self>, _: u8, _: &EventLoop) {
        let result = self.result.take();
        // Somebody may have cancelled the future: then there is nobody to tell.
        let _ = match result {
            Some(Ok(())) => self.connected.set_result_unless_cancelled(()),
            Some(Err(error)) if !self.connected.done() => self.connected.set_exception(error),
            _ => Ok(()),
        };
    }

    fn on_loop_close(self: Rc<Self>) {
        self.op.set(None);
    }

    fn describe(&self) -> String {
        format!("<Connect fd={}>", self.fd)
    }
}
