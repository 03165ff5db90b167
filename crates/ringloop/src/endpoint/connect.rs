//! One attempt to connect: a new socket, bound if asked for, and the connect op.

use std::io;
use std::pin::Pin;
use std::rc::Rc;

use socket2::SockAddr;

use super::client::Given;
use crate::event_loop::door::Kept;
use crate::socket::AddrInfo;
use crate::{Address, EventLoop, EventLoopBuilder, LoopRef, OsError, Result, Socket};

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
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ringloop::{Connector, EventLoop, Result};
    ///
    /// fn make_loop(connector: Rc<dyn Connector>) -> Result<EventLoop> {
    ///     EventLoop::builder().connector(connector).build()
    /// }
    /// ```
    pub fn connector(self, connector: Rc<dyn Connector>) -> Self {
        self.extension(ConnectorSlot::new(connector))
    }
}

impl EventLoop {
    /// Has `connector` stand between `create_connection()` and the system from now on.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ringloop::{Connector, EventLoop};
    ///
    /// fn connect_by(event_loop: &EventLoop, connector: impl Connector + 'static) {
    ///     event_loop.set_connector(Rc::new(connector));
    /// }
    /// ```
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
    ) -> Result<Given, Vec<io::Error>> {
        let socket = open(&remote).map_err(|error| vec![error])?;
        if let Some(local) = local {
            bind(&socket, &remote, &local)?;
        }
        let socket = Rc::new(socket);
        let attempt = |address| attempt(self.downgrade(), Rc::clone(&socket), address);
        let connected = match self.extension::<ConnectorSlot>() {
            Some(slot) => {
                let address = Address::from(&remote.address);
                let connect = slot.0.connect(&address, Box::pin(attempt(remote.address)));
                Kept::new("an attempt to connect", connect).as_mut().await
            }
            None => attempt(remote.address).await,
        };
        let given = connected.and_then(|()| Given::connected(&socket, remote.family));
        given.map_err(|error| vec![error])
    }
}

fn open(remote: &AddrInfo) -> io::Result<Socket> {
    Socket::with_protocol(remote.family, remote.socktype, Some(remote.protocol.into()))
}

/// Binds `socket` to the first local address of its family that is free (CONN-07).
fn bind(socket: &Socket, remote: &AddrInfo, local: &[AddrInfo]) -> Result<(), Vec<io::Error>> {
    let mut errors = Vec::new();
    for info in local.iter().filter(|info| info.family == remote.family) {
        match socket.bind(info.address.clone()) {
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

/// The error of a failed bind, in asyncio's words (SERVER-10, CONN-07).
pub(super) fn bind_error(error: &io::Error, address: &SockAddr) -> io::Error {
    let (address, reason) = (Address::from(address).as_python(), OsError::reason(error));
    let text = format!("error while attempting to bind on address {address}: {reason}");
    OsError::reword(error, text)
}

async fn attempt(event_loop: LoopRef, socket: Rc<Socket>, address: SockAddr) -> io::Result<()> {
    let Some(event_loop) = event_loop.upgrade() else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    socket.enter(&event_loop)?;
    drop(event_loop); // A task must not keep its loop alive.
    Ok(socket.connect_to(address).await?)
}
