//! Connecting: `create_connection()`, and transports for sockets that were connected or accepted elsewhere.

use std::io;
use std::rc::Rc;

use ringloop_driver::Descriptor;
use socket2::{Domain, SockRef};

use super::happy_eyeballs::{interleave, staggered_race};
use super::options::Target;
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
        let (descriptor, unclaimed) = match target.sock.take() {
            Some(sock) => sock.release()?,
            None => (self.connect_any(&target).await?, Unclaimed::default()),
        };
        self.start_transport(factory, descriptor, unclaimed, write_mode).await
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
        let (descriptor, unclaimed) = sock.release()?;
        self.start_transport(factory, descriptor, unclaimed, self.write_mode()).await
    }

    pub(super) async fn start_transport<P: IntoProtocol>(
        &self,
        factory: impl FnOnce() -> P,
        descriptor: Descriptor,
        unclaimed: Unclaimed,
        write_mode: crate::WriteMode,
    ) -> Result<(Transport, Rc<P::Protocol>)> {
        let is_tcp = prepare(&descriptor)?;
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

    async fn connect_any(&self, target: &Target) -> Result<Descriptor> {
        let options = ResolveOptions {
            family: target.family,
            socktype: None,
            protocol: target.protocol,
            flags: target.flags,
        };
        let port = target.port.as_ref().ok_or_else(|| {
            Error::invalid_argument("host and port was not specified and no sock specified")
        })?;
        let mut infos = self.resolve_some(target.host.as_deref(), port, options).await?;
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
                        Ok(descriptor) => return Ok(descriptor),
                        Err(more) => errors.extend(more),
                    }
                }
            }
            Some(delay) => {
                let raced = staggered_race(attempts, delay).await;
                if let Some((descriptor, _)) = raced.winner {
                    return Ok(descriptor);
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

/// Gives whether it is a TCP socket.
pub(super) fn prepare(descriptor: &Descriptor) -> io::Result<bool> {
    let socket = SockRef::from(descriptor);
    socket.set_nonblocking(true)?;
    let is_tcp = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
    if is_tcp {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(is_tcp)
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
