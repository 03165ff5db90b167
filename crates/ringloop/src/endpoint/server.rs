//! Servers: listening sockets, and the transports of the connections that they have accepted.
//!
//! # The life of a server
//!
//! ```text
//! bound -> start_serving() -> serving -> close() -> closed -> the last transport is gone -> wait_closed() returns
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::Poll;

use ringloop_driver::Descriptor;
use slab::Slab;
use socket2::{Domain, Socket};

use super::client::Given;
use super::connect::bind_error;
use super::listener::Listener;
use super::options::Listen;
use super::unix::SocketFile;
use crate::event_loop::door::{catch, let_go};
use crate::event_loop::{Place, Waiters};
use crate::socket::{AddrInfo, Port, ResolveOptions};
use crate::transport::{
    Connection, IntoProtocol, Keeper, ProtocolRef, ProtocolResult, StreamTransport, Transport,
    TransportSocket, WriteMode,
};
use crate::{
    Address, Error, EventLoop, ExceptionContext, LoopFuture, LoopRef, Result, catch_cancel,
    yield_now,
};

/// Accepts connections and makes a transport and a protocol for each: what [`EventLoop::create_server`] gives.
///
/// A clone is the same server. Dropping all clones does not stop it, since the loop keeps it; [`close`](Self::close) does.
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{EventLoop, Exclusive, Listen};
///
/// let event_loop = EventLoop::running()?;
/// let listen = Listen::on("127.0.0.1", 0).start_serving(false);
/// let server = event_loop.create_server(|| Exclusive::new(()), listen).await?;
/// server.start_serving().await?;
/// println!("listening on {}", server.local_addr().unwrap());
/// assert_eq!(server.sockets().len(), 1);
/// assert_eq!(server.get_loop(), Some(event_loop));
/// server.close();
/// server.close_clients(); // Each sends what is buffered.
/// server.abort_clients(); // For those that do not read it.
/// server.wait_closed().await?;
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct Server {
    inner: Rc<ServerInner>,
}

/// A socket to listen on.
pub(super) struct Bound {
    /// Accepted sockets inherit its options, so that those cost no call per connection.
    pub(super) given: Given,
    /// The file of a Unix socket, to be removed when the socket is closed.
    pub(super) file: Option<SocketFile>,
}

impl Bound {
    /// What is left of `sock` is an empty shell.
    pub(super) fn new(sock: &crate::Socket, file: Option<SocketFile>) -> io::Result<Self> {
        Ok(Self { given: Given::new(sock)?, file })
    }
}

/// How to serve, whatever the sockets are.
pub(super) struct Serving {
    pub(super) backlog: Option<u32>,
    pub(super) write_mode: Option<WriteMode>,
    pub(super) start_serving: Option<bool>,
}

pub(super) struct ServerInner {
    event_loop: LoopRef,
    /// `None` while it is being called.
    factory: Cell<Option<Factory>>,
    backlog: u32,
    write_mode: WriteMode,
    /// `None` once it is closed.
    listeners: RefCell<Option<Vec<Rc<Listener>>>>,
    is_serving: Cell<bool>,
    transports: RefCell<Slab<Weak<dyn StreamTransport>>>,
    /// The tasks that wait for the end of the server.
    waiters: Waiters,
    /// It is closed, and its last connection is gone.
    is_over: Cell<bool>,
    serving_forever: RefCell<Option<LoopFuture<()>>>,
}

type Factory = Box<dyn FnMut() -> ProtocolResult<ProtocolRef>>;

impl EventLoop {
    /// Makes a server: it listens, and `factory` makes a protocol for each connection.
    ///
    /// `listen` is an address, a socket that is bound already, or a [`Listen`] with options. `factory` returns a protocol,
    /// an `Rc` of one, or a `Result` of these. It is called in the order in which connections are accepted, at least one
    /// iteration before the protocol's `connection_made()`. If it fails, that connection alone is dropped, and in debug mode
    /// the exception handler gets a report.
    ///
    /// The number of connections is not limited, and a protocol that answers what it receives should stop receiving while
    /// its answers are not read: see [`Transport::write`].
    ///
    /// ```
    /// use ringloop::{Protocol, ProtocolResult, Received, Transport};
    ///
    /// struct Echo;
    ///
    /// impl Protocol for Echo {
    ///     fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
    ///         transport.write(data)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// ringloop::run(async {
    ///     let event_loop = ringloop::EventLoop::running()?;
    ///     let server = event_loop.create_server(|| Echo, ("127.0.0.1", 0)).await?;
    ///     assert!(server.is_serving());
    ///     server.close();
    ///     server.wait_closed().await
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for options that contradict each other. [`Error::Io`] if a name has no address or an
    /// address cannot be bound; what was bound is closed then. An address that this machine does not have is left out, and
    /// it is an error only if none is left.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before it is done, everything that it has opened is closed.
    pub async fn create_server<P, F>(&self, factory: F, listen: impl Into<Listen>) -> Result<Server>
    where
        F: FnMut() -> P + 'static,
        P: IntoProtocol,
    {
        let mut listen = listen.into();
        listen.check()?;
        let sockets = match listen.sock.take() {
            Some(sock) => vec![sock],
            None => self.bind_all(&listen).await?.into_iter().map(Into::into).collect(),
        };
        let sockets =
            sockets.iter().map(|sock| Bound::new(sock, None)).collect::<io::Result<_>>()?;
        let serving = Serving {
            backlog: listen.backlog,
            write_mode: listen.write_mode,
            start_serving: listen.start_serving,
        };
        self.serve(factory, sockets, serving).await
    }

    /// Makes a server of what is bound, and has it serve.
    pub(super) async fn serve<P, F>(
        &self,
        mut factory: F,
        sockets: Vec<Bound>,
        serving: Serving,
    ) -> Result<Server>
    where
        F: FnMut() -> P + 'static,
        P: IntoProtocol,
    {
        let inner = Rc::new_cyclic(|weak| ServerInner {
            event_loop: self.downgrade(),
            factory: Cell::new(Some(Box::new(move || Ok(factory().into_protocol()?.1)))),
            backlog: serving.backlog.unwrap_or(DEFAULT_BACKLOG),
            write_mode: serving.write_mode.unwrap_or_else(|| self.write_mode()),
            listeners: RefCell::new(Some(
                sockets
                    .into_iter()
                    .map(|bound| Rc::new(Listener::new(bound, Weak::clone(weak))))
                    .collect(),
            )),
            is_serving: Cell::new(false),
            transports: RefCell::default(),
            waiters: Waiters::default(),
            is_over: Cell::new(false),
            serving_forever: RefCell::new(None),
        });
        let server = Server { inner };
        if serving.start_serving.unwrap_or(true) {
            let mut guard = CloseOnDrop(Some(&server.inner));
            server.start_serving().await?;
            guard.0 = None;
        }
        Ok(server)
    }

    /// A bound socket for each address (SERVER-04).
    async fn bind_all(&self, listen: &Listen) -> Result<Vec<Socket>> {
        let port = listen.port.clone().unwrap_or(Port::Number(0));
        let options = ResolveOptions {
            family: listen.family,
            flags: libc::AI_PASSIVE,
            ..ResolveOptions::default()
        };
        let mut hosts: Vec<Option<&str>> = listen
            .hosts
            .iter()
            .map(|host| Some(host.as_str()).filter(|host| !host.is_empty()))
            .collect();
        if hosts.is_empty() {
            hosts.push(None);
        }
        let mut infos: Vec<AddrInfo> = Vec::new();
        for host in hosts {
            let found = self.ensure_resolved(host, &port, options).await?;
            if found.is_empty() {
                let host = host.unwrap_or("None");
                return Err(
                    io::Error::other(format!("getaddrinfo({host}) returned empty list")).into()
                );
            }
            for info in found {
                let is_known = |known: &AddrInfo| {
                    known.address == info.address && known.protocol == info.protocol
                };
                if !infos.iter().any(is_known) {
                    infos.push(info);
                }
            }
        }
        let mut sockets = Vec::new();
        for info in &infos {
            sockets.extend(self.bind_one(listen, info)?);
        }
        if sockets.is_empty() {
            let list: Vec<_> =
                infos.iter().map(|info| Address::from(&info.address).as_python()).collect();
            let text = format!("could not bind on any address out of [{}]", list.join(", "));
            return Err(io::Error::other(text).into());
        }
        Ok(sockets)
    }

    /// `None` if this machine has no such address or family (SERVER-07, SERVER-10).
    fn bind_one(&self, listen: &Listen, info: &AddrInfo) -> Result<Option<Socket>> {
        let socket = match Socket::new(info.family, info.socktype, Some(info.protocol.into())) {
            Ok(socket) => socket,
            Err(error) => {
                if self.get_debug() {
                    self.warn(&format!(
                        "create_server() failed to create socket for {info:?}: {error}"
                    ));
                }
                return Ok(None);
            }
        };
        if listen.reuse_address.unwrap_or(true) {
            socket.set_reuse_address(true)?;
        }
        if listen.reuse_port {
            socket.set_reuse_port(true).map_err(|_| {
                Error::invalid_argument("reuse_port not supported by socket module")
            })?;
        }
        if listen.keep_alive {
            socket.set_keepalive(true)?;
        }
        if info.family == Domain::IPV6 {
            socket.set_only_v6(true)?; // So that IPv4 can have the same port (SERVER-09).
        }
        match socket.bind(&info.address) {
            Ok(()) => Ok(Some(socket)),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                if self.get_debug() {
                    self.warn(&bind_error(&error, &info.address).to_string());
                }
                Ok(None)
            }
            Err(error) => Err(bind_error(&error, &info.address).into()),
        }
    }
}

impl Server {
    /// The listening sockets, in a view that cannot accept; none after [`close`](Self::close). Their order is not defined.
    pub fn sockets(&self) -> Vec<TransportSocket> {
        let listeners = self.inner.listeners.borrow();
        listeners.iter().flatten().map(|listener| listener.view()).collect()
    }

    /// The address of the first listening socket, with the port that was found if 0 was asked for. `None` after
    /// [`close`](Self::close), and for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.sockets().first()?.getsockname().ok()?.as_ip()
    }

    /// Whether the server accepts connections.
    pub fn is_serving(&self) -> bool {
        self.inner.is_serving.get()
    }

    /// The loop of the server; `None` once it is gone.
    pub fn get_loop(&self) -> Option<EventLoop> {
        self.inner.event_loop.upgrade()
    }

    /// Begins to accept connections, and gives up control for one iteration. Does nothing else if the server does already.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the server is closed; [`Error::Io`] if a socket cannot listen.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after its first step, the server goes on accepting.
    pub async fn start_serving(&self) -> Result<()> {
        self.inner.start_serving()?;
        yield_now().await;
        Ok(())
    }

    /// Accepts connections until the task is cancelled or the server is closed.
    ///
    /// ```
    /// # use ringloop::{Error, EventLoop, Exclusive};
    /// ringloop::run(async {
    ///     let event_loop = EventLoop::running()?;
    ///     let server = event_loop.create_server(|| Exclusive::new(()), ("127.0.0.1", 0)).await?;
    ///     let closer = server.clone();
    ///     event_loop.call_soon(move |_| closer.close())?;
    ///     assert!(matches!(server.serve_forever().await, Err(Error::Cancelled)));
    ///     Ok::<(), Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// It never returns without one: [`Error::Cancelled`] after [`close`](Self::close), [`Error::State`] if the server was
    /// closed before, or somebody else awaits this already.
    ///
    /// # Cancel safety
    ///
    /// When its task is cancelled, it closes the server and waits until the last connection is gone; then the task ends
    /// cancelled. A client that never closes holds it up: [`abort_clients`](Self::abort_clients) helps. When the future is
    /// dropped in another way, by `timeout()` for example, it closes the server and does not wait.
    pub async fn serve_forever(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.serving_forever.borrow().is_some() {
            let text = format!("server {self:?} is already being awaited on serve_forever()");
            return Err(Error::state(text));
        }
        inner.start_serving()?;
        let event_loop = inner.event_loop.upgrade().ok_or_else(Error::loop_closed)?;
        let forever = event_loop.create_future();
        drop(event_loop); // A task must not keep its loop alive.
        inner.serving_forever.replace(Some(forever.clone()));
        let guard = Forever(inner);
        let ended = catch_cancel(forever.clone()).await;
        forever.cancel();
        inner.close();
        self.wait_closed().await?;
        drop(guard);
        if let Err(cancelled) = ended {
            match cancelled.propagate().await {}
        }
        Err(Error::Cancelled)
    }

    /// Stops accepting connections. When this returns, the listening sockets are closed, and the kernel refuses new
    /// connections. Those that exist go on. Whoever waits in [`serve_forever`](Self::serve_forever) gets
    /// [`Error::Cancelled`]. A second call does nothing.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Calls [`Transport::close`] on all connections: what is buffered is sent first. The server itself goes on.
    pub fn close_clients(&self) {
        self.transports().iter().for_each(Transport::close);
    }

    /// Calls [`Transport::abort`] on all connections: what is buffered is dropped. The server itself goes on.
    pub fn abort_clients(&self) {
        self.transports().iter().for_each(Transport::abort);
    }

    /// Waits until the server is closed and its last connection is gone. Returns at once if both are true already; before
    /// [`close`](Self::close) it waits even if there is no connection.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the loop is gone.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time; that has no effect on the server.
    pub async fn wait_closed(&self) -> Result<()> {
        let server = &*self.inner;
        let mut place = Place::new(&server.waiters);
        poll_fn(|cx| {
            let must_wait = || !server.is_over.get();
            if must_wait() {
                server.event_loop.upgrade().ok_or_else(Error::loop_closed)?;
            }
            if place.is_waiting(cx, must_wait) { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    /// Runs `body`, then closes the server and waits until its last connection is gone: asyncio's `async with server`.
    ///
    /// ```
    /// # use ringloop::{EventLoop, Exclusive};
    /// ringloop::run(async {
    ///     let event_loop = EventLoop::running()?;
    ///     let server = event_loop.create_server(|| Exclusive::new(()), ("127.0.0.1", 0)).await?;
    ///     let served = server.scope(async |server| server.is_serving()).await?;
    ///     assert!(served && !server.is_serving());
    ///     Ok::<(), ringloop::Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait_closed`](Self::wait_closed).
    ///
    /// # Cancel safety
    ///
    /// When its task is cancelled, it drops `body`, closes the server and waits; then the task ends cancelled. When the
    /// future is dropped in another way, it closes the server and does not wait.
    pub async fn scope<R>(&self, body: impl AsyncFnOnce(&Self) -> R) -> Result<R> {
        let guard = CloseOnDrop(Some(&self.inner));
        let ended = catch_cancel(body(self)).await;
        self.inner.close();
        self.wait_closed().await?;
        drop(guard);
        match ended {
            Ok(result) => Ok(result),
            Err(cancelled) => match cancelled.propagate().await {},
        }
    }

    fn transports(&self) -> Vec<Transport> {
        let transports = self.inner.transports.borrow();
        transports.iter().filter_map(|(_, weak)| weak.upgrade()).map(Transport::from).collect()
    }
}

impl ServerInner {
    fn start_serving(self: &Rc<Self>) -> Result<()> {
        let listeners = self.listeners.borrow().clone();
        let Some(listeners) = listeners else {
            return Err(Error::state(format!("server {self:?} is closed")));
        };
        let event_loop = self.event_loop.upgrade().ok_or_else(Error::loop_closed)?;
        event_loop.check_closed()?;
        if !self.is_serving.replace(true) {
            event_loop.note(|| format!("{self:?} is serving"));
            for listener in &listeners {
                listener.start(self.backlog, Rc::clone(self), &event_loop)?;
            }
        }
        Ok(())
    }

    fn close(&self) {
        let listeners = self.listeners.take();
        let Some(listeners) = listeners else { return };
        self.is_serving.set(false);
        let event_loop = self.event_loop.upgrade();
        for listener in listeners {
            listener.close(event_loop.as_ref());
        }
        // If its task was cancelled, `serve_forever()` is done already, and only waits until the last connection is gone.
        let forever = self.serving_forever.borrow_mut().take_if(|forever| !forever.done());
        if let Some(forever) = forever {
            forever.cancel();
        }
        if self.transports.borrow().is_empty() {
            self.wake_up();
        }
    }

    fn is_closed(&self) -> bool {
        self.listeners.borrow().is_none()
    }

    fn wake_up(&self) {
        self.is_over.set(true);
        self.waiters.wake_all();
    }

    /// Makes protocol and transport for one connection (SERVER-45). If that fails, only this connection is lost.
    pub(super) fn build(
        self: &Rc<Self>,
        connection: Descriptor,
        is_tcp: bool,
        event_loop: &EventLoop,
    ) {
        let protocol = match self.make_protocol() {
            Ok(protocol) => protocol,
            Err(error) => return report(&error, event_loop),
        };
        if self.is_closed() {
            // The server was closed since the accept: in asyncio the transport cannot attach itself any more (SERVER-34).
            return report(&Error::state("the server is closed"), event_loop);
        }
        let connection = Connection {
            descriptor: connection,
            arrived: Vec::new(),
            protocol,
            is_tcp,
            write_mode: self.write_mode,
            keeper: Some(Rc::downgrade(self) as Weak<dyn Keeper>),
            waiter: None,
        };
        event_loop.note(|| String::from("the server got a new connection"));
        if let Err(error) = connection.start(event_loop) {
            report(&error, event_loop);
        }
    }

    fn make_protocol(&self) -> Result<ProtocolRef> {
        let Some(mut factory) = self.factory.take() else {
            return Err(Error::state("the protocol factory is running already"));
        };
        let made = catch(&mut factory);
        self.factory.set(Some(factory));
        made?.map_err(|error| error.into_io_error().into())
    }
}

/// Reports, in debug mode only, why a connection got no transport.
fn report(error: &Error, event_loop: &EventLoop) {
    if event_loop.get_debug() {
        let message = "Error on transport creation for incoming connection";
        event_loop.call_exception_handler(&ExceptionContext::new(message).error(error));
    }
}

impl Drop for ServerInner {
    fn drop(&mut self) {
        let_go("a protocol factory", self.factory.take());
    }
}

impl Keeper for ServerInner {
    fn attach(&self, transport: Weak<dyn StreamTransport>) -> usize {
        self.transports.borrow_mut().insert(transport)
    }

    fn detach(&self, key: usize) {
        let gone = self.transports.borrow_mut().try_remove(key);
        drop(gone);
        if self.is_closed() && self.transports.borrow().is_empty() {
            self.wake_up();
        }
    }
}

/// Lives as long as `serve_forever()` is awaited.
struct Forever<'a>(&'a ServerInner);

impl Drop for Forever<'_> {
    fn drop(&mut self) {
        self.0.close();
        drop(self.0.serving_forever.take());
    }
}

struct CloseOnDrop<'a>(Option<&'a ServerInner>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.0 {
            server.close();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for ServerInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners = self.listeners.borrow();
        let sockets: Vec<_> = listeners.iter().flatten().map(|listener| listener.view()).collect();
        write!(f, "<Server sockets={sockets:?}>")
    }
}

const DEFAULT_BACKLOG: u32 = 100;
