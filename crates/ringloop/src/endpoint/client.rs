//! Connecting: `create_connection()`, and transports for sockets that were connected or accepted elsewhere.

use std::io;
use std::rc::Rc;

use ringloop_driver::Descriptor;
use socket2::{Domain, SockRef};

use super::happy_eyeballs::{interleave, staggered_race};
use super::options::{Host, Target};
use crate::event_loop::door::{self, let_go_all};
use crate::socket::{AddrInfo, Port, ResolveOptions, Socket, Unclaimed};
use crate::transport::{Connection, IntoProtocol, Transport};
use crate::{Error, ErrorGroup, EventLoop, Result};

impl EventLoop {
    /// Connects to a server. When the connection stands, `factory` makes the protocol; the call returns after the
    /// protocol's `connection_made()` was called, and before it is given any data.
    ///
    /// `target` is an address, a socket that is connected already, or a [`Target`] with options. If a name has several
    /// addresses, they are tried one after the other, or side by side with [`Target::happy_eyeballs_delay`].
    ///
    /// ```
    /// use ringloop::{EventLoop, Protocol, Transport};
    ///
    /// struct Hello;
    ///
    /// impl Protocol for Hello {
    ///     fn connection_made(&self, transport: &Transport) {
    ///         transport.write(b"hello").ok();
    ///     }
    /// }
    ///
    /// ringloop::run(async {
    ///     let event_loop = EventLoop::running()?;
    ///     let server = event_loop.create_server(|| Hello, ("127.0.0.1", 0)).await?;
    ///     let target = server.local_addr().unwrap();
    ///     let (transport, _hello) = event_loop.create_connection(|| Hello, target).await?;
    ///     transport.close();
    ///     Ok::<(), ringloop::Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for options that contradict each other. [`Error::Io`] if no address could be connected
    /// to: the error itself if it was the same for all addresses, else one whose text is "Multiple exceptions: " and all
    /// of them. With [`Target::all_errors`] it is [`Error::Multiple`] instead. The factory's own error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, whatever it has opened is closed, and so is a socket that it was given.
    pub async fn create_connection<P: IntoProtocol>(
        &self,
        factory: impl FnOnce() -> P,
        target: impl Into<Target>,
    ) -> Result<(Transport, Rc<P::Protocol>)> {
        let mut target = target.into();
        target.check()?;
        let write_mode = target.write_mode.unwrap_or_else(|| self.write_mode());
        let given = match target.sock.take() {
            Some(sock) => Given::new(&sock)?,
            None => self.connect_any(&target).await?,
        };
        self.start_transport(factory, given, write_mode).await
    }

    /// Makes a transport and a protocol for a connection that somebody else has accepted.
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use ringloop::{EventLoop, Exclusive};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let _client = TcpStream::connect(listener.local_addr()?)?;
    /// let (accepted, _) = listener.accept()?;
    /// ringloop::run(async {
    ///     let event_loop = EventLoop::running()?;
    ///     let factory = || Exclusive::new(());
    ///     let (transport, _) = event_loop.connect_accepted_socket(factory, accepted).await?;
    ///     transport.close();
    ///     Ok::<(), ringloop::Error>(())
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if `sock` is no stream socket; the factory's own error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the connection is closed.
    pub async fn connect_accepted_socket<P: IntoProtocol>(
        &self,
        factory: impl FnOnce() -> P,
        sock: impl Into<Socket>,
    ) -> Result<(Transport, Rc<P::Protocol>)> {
        let sock = sock.into();
        sock.check_stream()?;
        self.start_transport(factory, Given::new(&sock)?, self.write_mode()).await
    }

    pub(super) async fn start_transport<P: IntoProtocol>(
        &self,
        factory: impl FnOnce() -> P,
        given: Given,
        write_mode: crate::WriteMode,
    ) -> Result<(Transport, Rc<P::Protocol>)> {
        let Given { descriptor, is_tcp, unclaimed } = given;
        let made = factory().into_protocol().map_err(|error| Error::from(error.into_io_error()));
        let (protocol, protocol_ref) = made?;
        let waiter = self.create_future();
        let connection = Connection {
            descriptor,
            arrived: unclaimed.received,
            protocol: protocol_ref,
            is_tcp,
            write_mode,
            keeper: None,
            waiter: Some(waiter.clone()),
        };
        let mut guard = CloseOnDrop(Some(connection.start(self)?));
        waiter.await?;
        let transport = guard.0.take().ok_or_else(Error::loop_closed)?;
        self.note(|| format!("connected: {transport:?}"));
        Ok((transport, protocol))
    }

    async fn connect_any(&self, target: &Target) -> Result<Given> {
        let options = ResolveOptions {
            family: target.family,
            socktype: None,
            protocol: target.protocol,
            flags: target.flags,
        };
        let port = target.port.as_ref().ok_or_else(|| {
            Error::invalid_argument("host and port was not specified and no sock specified")
        })?;
        let mut infos = match &target.host {
            Some(Host::Ip(ip)) => match AddrInfo::of_ip(*ip, port, options) {
                Some(known) => vec![known],
                None => self.resolve_some(Some(&ip.to_string()), port, options).await?,
            },
            Some(Host::Name(name)) => self.resolve_some(Some(name), port, options).await?,
            None => self.resolve_some(None, port, options).await?,
        };
        let local: Option<Rc<[AddrInfo]>> = match &target.local_addr {
            Some((host, port)) => Some(self.resolve_some(Some(host), port, options).await?.into()),
            None => None,
        };
        let interleaved = target.interleave.or_else(|| target.happy_eyeballs_delay.map(|_| 1));
        if let Some(count @ 1..) = interleaved {
            infos = interleave(infos, count);
        }
        let mut attempts = infos.into_iter().map(|info| self.connect_socket(info, local.clone()));
        let mut errors = Vec::new();
        match target.happy_eyeballs_delay {
            None => {
                for attempt in &mut attempts {
                    match attempt.await {
                        Ok(given) => return Ok(given),
                        Err(more) => errors.extend(more),
                    }
                }
            }
            Some(delay) => {
                let raced = staggered_race(attempts, delay).await;
                if let Some((given, _)) = raced.winner {
                    return Ok(given);
                }
                errors.extend(raced.errors.into_iter().flatten().flatten());
            }
        }
        Err(combined(errors, target.all_errors))
    }

    async fn resolve_some(
        &self,
        host: Option<&str>,
        port: &Port,
        options: ResolveOptions,
    ) -> Result<Vec<AddrInfo>> {
        let infos = self.ensure_resolved(host, port, options).await?;
        if infos.is_empty() {
            return Err(io::Error::other("getaddrinfo() returned empty list").into());
        }
        Ok(infos)
    }
}

/// What a transport or a server is made of: a socket that does not block, and sends what is small at once if it is TCP.
pub(super) struct Given {
    pub(super) descriptor: Descriptor,
    pub(super) is_tcp: bool,
    pub(super) unclaimed: Unclaimed,
}

impl Given {
    /// What is left of `sock` is an empty shell.
    pub(super) fn new(sock: &Socket) -> io::Result<Self> {
        let (descriptor, unclaimed) = sock.release()?;
        let socket = SockRef::from(&descriptor);
        socket.set_nonblocking(true)?;
        let family = socket.domain()?;
        Self::of(descriptor, family, unclaimed)
    }

    /// As [`new`](Self::new), for a socket that was made here, does not block, and is of this family.
    pub(super) fn connected(sock: &Socket, family: Domain) -> io::Result<Self> {
        let (descriptor, unclaimed) = sock.release()?;
        Self::of(descriptor, family, unclaimed)
    }

    fn of(descriptor: Descriptor, family: Domain, unclaimed: Unclaimed) -> io::Result<Self> {
        let is_tcp = matches!(family, Domain::IPV4 | Domain::IPV6);
        if is_tcp {
            SockRef::from(&descriptor).set_tcp_nodelay(true)?;
        }
        Ok(Self { descriptor, is_tcp, unclaimed })
    }
}

/// One error for all attempts (CONN-08).
fn combined(mut errors: Vec<io::Error>, all_errors: bool) -> Error {
    if all_errors {
        return ErrorGroup::new("create_connection failed", errors).into();
    }
    let texts: Vec<String> = errors.iter().map(|error| door::text(error)).collect();
    match texts.first() {
        Some(first) if texts.iter().all(|text| text == first) => {
            let first = errors.swap_remove(0);
            let_go_all("an error of a connector", errors);
            first.into()
        }
        _ => {
            let_go_all("an error of a connector", errors);
            io::Error::other(format!("Multiple exceptions: {}", texts.join(", "))).into()
        }
    }
}

/// The wait for `connection_made()` was given up, so there is nobody for the connection.
struct CloseOnDrop(Option<Transport>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.close();
        }
    }
}
