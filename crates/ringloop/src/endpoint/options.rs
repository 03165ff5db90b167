//! Where to listen and where to connect: asyncio's keyword arguments, as builders (MAP-10).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::Domain;

use crate::socket::{Port, Socket};
use crate::transport::WriteMode;
use crate::{Error, Result};

/// Where and how a server listens: the arguments of [`create_server`](crate::EventLoop::create_server).
///
/// An address, a pair of a host and a port, and a socket that is bound already become one by `into()`.
///
/// ```
/// use ringloop::Listen;
///
/// let everywhere = Listen::on("", 8080).backlog(4096).reuse_port(true);
/// let here: Listen = ("127.0.0.1", 0).into(); // A free port.
/// ```
///
/// ```compile_fail
/// ringloop::Listen::on("", 8080).backlog(1.5); // A backlog is a whole number.
/// ```
///
/// With other options:
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{EventLoop, Exclusive, Listen, WriteMode};
///
/// let listen = Listen::default()
///     .host("127.0.0.1")
///     .host("127.0.0.2")
///     .port(0)
///     .family(socket2::Domain::IPV4)
///     .reuse_address(true)
///     .keep_alive(true)
///     .write_mode(WriteMode::Immediate)
///     .start_serving(false);
/// let server = EventLoop::running()?.create_server(|| Exclusive::new(()), listen).await?;
/// assert_eq!(server.sockets().len(), 2);
/// assert!(!server.is_serving());
/// server.close();
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "it does nothing until it is given to `create_server()`"]
pub struct Listen {
    pub(super) hosts: Vec<String>,
    pub(super) port: Option<Port>,
    pub(super) family: Option<Domain>,
    pub(super) sock: Option<Socket>,
    pub(super) backlog: Option<u32>,
    pub(super) reuse_address: Option<bool>,
    pub(super) reuse_port: bool,
    pub(super) keep_alive: bool,
    pub(super) start_serving: Option<bool>,
    pub(super) write_mode: Option<WriteMode>,
    pub(crate) limit: Option<usize>,
    pub(super) has_tls: bool,
}

/// Where and how to connect: the arguments of [`create_connection`](crate::EventLoop::create_connection).
///
/// An address, a pair of a host and a port, and a socket that is connected already become one by `into()`.
///
/// ```
/// use std::time::Duration;
/// use ringloop::Target;
///
/// let raced = Target::new("example.org", 80).happy_eyeballs_delay(Duration::from_millis(250));
/// let plain: Target = ("127.0.0.1", 80).into();
/// ```
///
/// With other options:
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{EventLoop, Exclusive, Target, WriteMode};
///
/// let event_loop = EventLoop::running()?;
/// let server = event_loop.create_server(|| Exclusive::new(()), ("127.0.0.1", 0)).await?;
/// let target = Target::new("127.0.0.1", server.local_addr().unwrap().port())
///     .family(socket2::Domain::IPV4)
///     .protocol(6) // IPPROTO_TCP
///     .flags(4) // AI_NUMERICHOST
///     .local_addr("127.0.0.2", 0)
///     .interleave(1)
///     .all_errors(true)
///     .write_mode(WriteMode::Immediate);
/// let (transport, _protocol) =
///     event_loop.create_connection(|| Exclusive::new(()), target).await?;
/// transport.close();
/// server.close();
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "it does nothing until it is given to `create_connection()`"]
pub struct Target {
    pub(super) host: Option<Host>,
    pub(super) port: Option<Port>,
    pub(super) family: Option<Domain>,
    pub(super) protocol: i32,
    pub(super) flags: i32,
    pub(super) sock: Option<Socket>,
    pub(super) local_addr: Option<(String, Port)>,
    pub(super) happy_eyeballs_delay: Option<Duration>,
    pub(super) interleave: Option<usize>,
    pub(super) all_errors: bool,
    pub(super) write_mode: Option<WriteMode>,
    pub(crate) limit: Option<usize>,
    pub(super) has_tls: bool,
}

/// Whom to connect to.
#[derive(Debug)]
pub(super) enum Host {
    Name(String),
    /// Has no zone, and so needs no resolver.
    Ip(IpAddr),
}

impl Listen {
    /// Listens on all addresses of `host`; on all interfaces if it is empty. With port 0 each address gets a free port.
    pub fn on(host: impl Into<String>, port: u16) -> Self {
        Self::default().port(port).host(host)
    }

    /// Listens on a socket that is bound already. It belongs to the server, whose `close()` closes it.
    ///
    /// ```
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let listen = ringloop::Listen::default().sock(socket);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// Adds a host. An address that several hosts have is bound once.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Sets the port; 0 means a free one for each address.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(Port::Number(port)), ..self }
    }

    /// Sets the port by the name of its service, such as `"http"`; the resolver looks it up.
    ///
    /// ```
    /// let listen = ringloop::Listen::default().host("127.0.0.1").service("http");
    /// ```
    pub fn service(self, name: impl Into<String>) -> Self {
        Self { port: Some(Port::from_service(name)), ..self }
    }

    /// Uses only addresses of this family, such as `Domain::IPV6` of the crate socket2.
    pub fn family(self, family: Domain) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Sets how many connections the kernel keeps that are not accepted yet (100 by default). The kernel has a limit of its
    /// own, `net.core.somaxconn`.
    pub fn backlog(self, backlog: u32) -> Self {
        Self { backlog: Some(backlog), ..self }
    }

    /// Sets whether a port may be bound while old connections of it still linger (`SO_REUSEADDR`, on by default).
    pub fn reuse_address(self, on: bool) -> Self {
        Self { reuse_address: Some(on), ..self }
    }

    /// Sets whether other sockets may be bound to the same port, too, and share its connections (`SO_REUSEPORT`, off by
    /// default).
    pub fn reuse_port(self, on: bool) -> Self {
        Self { reuse_port: on, ..self }
    }

    /// Sets whether the kernel probes idle connections and ends those whose peer is gone (`SO_KEEPALIVE`, off by default).
    pub fn keep_alive(self, on: bool) -> Self {
        Self { keep_alive: on, ..self }
    }

    /// Sets whether the server accepts connections at once (the default), or only binds and waits for
    /// [`start_serving`](crate::Server::start_serving); until then the kernel refuses connections.
    pub fn start_serving(self, on: bool) -> Self {
        Self { start_serving: Some(on), ..self }
    }

    /// Sets when the transports of this server give written bytes to the kernel; by default as the loop says.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// Sets the limit of the readers of [`start_server`](crate::start_server), in bytes (64 KiB by default). A reader holds
    /// up to twice as much, and no line may be longer.
    ///
    /// ```
    /// use ringloop::{Listen, Result, StreamReader, StreamWriter, start_server};
    ///
    /// async fn print_line(reader: StreamReader, _: StreamWriter) -> Result<()> {
    ///     println!("{}", reader.read_line().await?.escape_ascii());
    ///     Ok(())
    /// }
    ///
    /// async fn serve_short_lines() -> Result<()> {
    ///     let listen = Listen::on("127.0.0.1", 8888).limit(512);
    ///     start_server(print_line, listen).await?.serve_forever().await
    /// }
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_server()` gives [`Error::Unsupported`].
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, EventLoop, Exclusive, Listen};
    ///
    /// let listen = Listen::on("127.0.0.1", 0)
    ///     .ssl(true)
    ///     .ssl_handshake_timeout(Duration::from_secs(60))
    ///     .ssl_shutdown_timeout(Duration::from_secs(30));
    /// let refused = EventLoop::running()?.create_server(|| Exclusive::new(()), listen).await;
    /// assert!(matches!(refused, Err(Error::Unsupported(_))));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn ssl(self, on: bool) -> Self {
        Self { has_tls: self.has_tls || on, ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_server()` gives [`Error::Unsupported`].
    pub fn ssl_handshake_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_server()` gives [`Error::Unsupported`].
    pub fn ssl_shutdown_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// The checks that asyncio makes before it does anything (SERVER-02).
    pub(super) fn check(&self) -> Result<()> {
        let has_address = !self.hosts.is_empty() || self.port.is_some();
        let missing = "Neither host/port nor sock were specified";
        check(self.has_tls, self.limit, self.sock.as_ref(), has_address, missing)
    }
}

impl Target {
    /// Connects to one of the addresses of `host`, at `port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::at(Host::Name(host.into()), port)
    }

    fn at(host: Host, port: u16) -> Self {
        Self { host: Some(host), port: Some(Port::Number(port)), ..Self::default() }
    }

    /// Takes a socket that is connected already. It belongs to the transport; if no transport can be made, it is closed.
    ///
    /// ```
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let target = ringloop::Target::default().sock(ours);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// Sets the port by the name of its service, such as `"http"`; the resolver looks it up.
    ///
    /// ```
    /// let target = ringloop::Target::new("example.org", 0).service("http");
    /// ```
    pub fn service(self, name: impl Into<String>) -> Self {
        Self { port: Some(Port::from_service(name)), ..self }
    }

    /// Uses only addresses of this family, such as `Domain::IPV6` of the crate socket2.
    pub fn family(self, family: Domain) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Sets the protocol that the resolver is asked for (`IPPROTO_*`); zero, the default, means any.
    pub fn protocol(self, protocol: i32) -> Self {
        Self { protocol, ..self }
    }

    /// Sets flags for the resolver (`AI_*`; none by default).
    pub fn flags(self, flags: i32) -> Self {
        Self { flags, ..self }
    }

    /// Binds the socket to an address of this machine before it connects. Port 0 takes a free one.
    pub fn local_addr(self, host: impl Into<String>, port: u16) -> Self {
        Self { local_addr: Some((host.into(), Port::Number(port))), ..self }
    }

    /// Has addresses race: when one has not answered after `delay`, the next is tried, too. The first that answers is taken,
    /// and the other attempts are given up. Without this call the next address is tried only when one has failed.
    pub fn happy_eyeballs_delay(self, delay: Duration) -> Self {
        Self { happy_eyeballs_delay: Some(delay), ..self }
    }

    /// Has addresses of different families alternate, after so many of the family that comes first. 0 keeps the resolver's
    /// order, which is also the default, unless addresses race: then it is 1.
    pub fn interleave(self, first_family_count: usize) -> Self {
        Self { interleave: Some(first_family_count), ..self }
    }

    /// Sets whether a failure gives the errors of all addresses ([`Error::Multiple`]) or one error for all (the default).
    pub fn all_errors(self, on: bool) -> Self {
        Self { all_errors: on, ..self }
    }

    /// Sets when the transport gives written bytes to the kernel; by default as the loop says.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// Sets the limit of the reader of [`open_connection`](crate::open_connection), in bytes (64 KiB by default). The reader
    /// holds up to twice as much, and no line may be longer.
    ///
    /// ```
    /// use ringloop::{Received, Result, Target, open_connection};
    ///
    /// async fn first_line() -> Result<Received> {
    ///     let (reader, _writer) = open_connection(Target::new("127.0.0.1", 8888).limit(512)).await?;
    ///     reader.read_line().await
    /// }
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, EventLoop, Exclusive, Target};
    ///
    /// let target = Target::new("127.0.0.1", 443)
    ///     .ssl(true)
    ///     .server_hostname("example.org")
    ///     .ssl_handshake_timeout(Duration::from_secs(60))
    ///     .ssl_shutdown_timeout(Duration::from_secs(30));
    /// let refused = EventLoop::running()?.create_connection(|| Exclusive::new(()), target).await;
    /// assert!(matches!(refused, Err(Error::Unsupported(_))));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn ssl(self, on: bool) -> Self {
        Self { has_tls: self.has_tls || on, ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn server_hostname(self, _: impl Into<String>) -> Self {
        Self { has_tls: true, ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn ssl_handshake_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// Asks for TLS, which is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn ssl_shutdown_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// The checks that asyncio makes before it does anything (CONN-02).
    pub(super) fn check(&self) -> Result<()> {
        let has_address = self.host.is_some() || self.port.is_some();
        let missing = "host and port was not specified and no sock specified";
        check(self.has_tls, self.limit, self.sock.as_ref(), has_address, missing)
    }
}

/// There must be an address or a socket; if there is neither, the error says `missing`.
fn check(
    has_tls: bool,
    limit: Option<usize>,
    sock: Option<&Socket>,
    has_address: bool,
    missing: &'static str,
) -> Result<()> {
    check_tls(has_tls)?;
    check_limit(limit)?;
    match sock {
        Some(_) if has_address => {
            Err(Error::invalid_argument("host/port and sock can not be specified at the same time"))
        }
        Some(sock) => sock.check_stream(),
        None if has_address => Ok(()),
        None => Err(Error::invalid_argument(missing)),
    }
}

pub(super) fn check_tls(has_tls: bool) -> Result<()> {
    if has_tls { Err(Error::Unsupported("TLS is not supported yet".into())) } else { Ok(()) }
}

/// The limit is for readers of streams: `open_connection()` and `start_server()` take it out before this check.
pub(super) fn check_limit(limit: Option<usize>) -> Result<()> {
    match limit {
        Some(_) => Err(Error::invalid_argument("limit is only meaningful with streams")),
        None => Ok(()),
    }
}

impl From<(&str, u16)> for Listen {
    fn from((host, port): (&str, u16)) -> Self {
        Self::on(host, port)
    }
}

impl From<(String, u16)> for Listen {
    fn from((host, port): (String, u16)) -> Self {
        Self::on(host, port)
    }
}

impl From<(&[&str], u16)> for Listen {
    fn from((hosts, port): (&[&str], u16)) -> Self {
        hosts.iter().fold(Self::default().port(port), |listen, &host| listen.host(host))
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::on(host_of(address), address.port())
    }
}

/// With the connections that were accepted for cancelled calls.
impl From<Socket> for Listen {
    fn from(sock: Socket) -> Self {
        Self::default().sock(sock)
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self::new(host, port)
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        Self::new(host, port)
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let has_zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        let host = if has_zone { Host::Name(host_of(address)) } else { Host::Ip(address.ip()) };
        Self::at(host, address.port())
    }
}

/// With all that has come for cancelled calls.
impl From<Socket> for Target {
    fn from(sock: Socket) -> Self {
        Self::default().sock(sock)
    }
}

/// Makes options of a socket of each of these types.
macro_rules! from_sock {
    ($options:ident: $($sock:ty),*) => {
        $(impl From<$sock> for $options {
            fn from(sock: $sock) -> Self {
                Self::default().sock(sock)
            }
        })*
    };
}
pub(super) use from_sock;

from_sock!(Listen: socket2::Socket, std::net::TcpListener);
from_sock!(Target: socket2::Socket, OwnedFd, std::net::TcpStream, std::os::unix::net::UnixStream);

/// The address as text, with its zone: so that only one way leads to a socket.
fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}
