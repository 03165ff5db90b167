//! Where to listen and where to connect, with the options of asyncio's keyword arguments (MAP-10).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::transport::WriteMode;
use crate::{Error, Result};

/// Where and how a server listens: the arguments of [`create_server`](crate::EventLoop::create_server) (SERVER-01).
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

/// Where and how to connect: the arguments of [`create_connection`](crate::EventLoop::create_connection) (CONN-01).
///
/// ```
/// use std::time::Duration;
/// use ringloop::Target;
///
/// let raced = Target::new("example.org", 80).happy_eyeballs_delay(Duration::from_millis(250));
/// let plain: Target = ("127.0.0.1", 80).into();
/// ```
#[derive(Debug, Default)]
#[must_use = "it does nothing until it is given to `create_connection()`"]
pub struct Target {
    pub(super) host: Option<String>,
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

/// A port by its number, or by the name of its service.
#[derive(Clone, Debug)]
pub(crate) enum Port {
    Number(u16),
    Service(String),
}

impl Port {
    /// A name that is a number is one; an empty one is zero (RESOLVE-04).
    fn from_service(name: impl Into<String>) -> Self {
        let name = name.into();
        match name.parse() {
            Ok(number) => Self::Number(number),
            Err(_) if name.is_empty() => Self::Number(0),
            Err(_) => Self::Service(name),
        }
    }
}

impl Listen {
    /// On the addresses of `host`; with an empty one on all interfaces. Port 0 takes a free one for each address.
    pub fn on(host: impl Into<String>, port: u16) -> Self {
        Self::default().port(port).host(host)
    }

    /// On a socket that is bound already. The server owns it: its `close()` closes it (SERVER-14).
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// One more host. An address that several hosts have is bound once (SERVER-04).
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// The port.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(Port::Number(port)), ..self }
    }

    /// The port, by the name of its service.
    pub fn service(self, name: impl Into<String>) -> Self {
        Self { port: Some(Port::from_service(name)), ..self }
    }

    /// Only addresses of this family.
    pub fn family(self, family: Domain) -> Self {
        Self { family: Some(family), ..self }
    }

    /// How many connections the kernel keeps that are not accepted yet; 100 if not said.
    pub fn backlog(self, backlog: u32) -> Self {
        Self { backlog: Some(backlog), ..self }
    }

    /// Whether a port may be bound whose old connections still linger (`SO_REUSEADDR`); true if not said (SERVER-08).
    pub fn reuse_address(self, on: bool) -> Self {
        Self { reuse_address: Some(on), ..self }
    }

    /// Whether other sockets may be bound to the same port, which then share its connections (`SO_REUSEPORT`).
    pub fn reuse_port(self, on: bool) -> Self {
        Self { reuse_port: on, ..self }
    }

    /// Whether idle connections are probed (`SO_KEEPALIVE`).
    pub fn keep_alive(self, on: bool) -> Self {
        Self { keep_alive: on, ..self }
    }

    /// Whether the server accepts connections at once, or only binds (SERVER-13); true if not said.
    pub fn start_serving(self, on: bool) -> Self {
        Self { start_serving: Some(on), ..self }
    }

    /// When the transports of this server give written bytes to the kernel.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// For [`start_server`](crate::start_server): the limit of its readers, in bytes; 64 KiB if not said. A reader holds up
    /// to twice as much, and no line may be longer.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// TLS is not supported yet: `create_server()` gives [`Error::Unsupported`].
    pub fn ssl(self, on: bool) -> Self {
        Self { has_tls: self.has_tls || on, ..self }
    }

    /// TLS is not supported yet: `create_server()` gives [`Error::Unsupported`].
    pub fn ssl_handshake_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// TLS is not supported yet: `create_server()` gives [`Error::Unsupported`].
    pub fn ssl_shutdown_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// What asyncio checks before it does anything (SERVER-02).
    pub(super) fn check(&self) -> Result<()> {
        check_tls(self.has_tls)?;
        check_limit(self.limit)?;
        let has_address = !self.hosts.is_empty() || self.port.is_some();
        match &self.sock {
            Some(_) if has_address => Err(Error::invalid_argument(
                "host/port and sock can not be specified at the same time",
            )),
            Some(sock) => check_stream(sock),
            None if has_address => Ok(()),
            None => Err(Error::invalid_argument("Neither host/port nor sock were specified")),
        }
    }
}

impl Target {
    /// The addresses of `host`, at `port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: Some(host.into()), port: Some(Port::Number(port)), ..Self::default() }
    }

    /// A socket that is connected already. It belongs to the transport, and is closed if there is to be none.
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// The port, by the name of its service.
    pub fn service(self, name: impl Into<String>) -> Self {
        Self { port: Some(Port::from_service(name)), ..self }
    }

    /// Only addresses of this family.
    pub fn family(self, family: Domain) -> Self {
        Self { family: Some(family), ..self }
    }

    /// The protocol that the resolver is asked for; zero, for any, if not said.
    pub fn protocol(self, protocol: i32) -> Self {
        Self { protocol, ..self }
    }

    /// Flags for the resolver (`AI_*`).
    pub fn flags(self, flags: i32) -> Self {
        Self { flags, ..self }
    }

    /// The address to bind to before connecting (CONN-07).
    pub fn local_addr(self, host: impl Into<String>, port: u16) -> Self {
        Self { local_addr: Some((host.into(), Port::Number(port))), ..self }
    }

    /// Starts with the next address when one has not answered after this time, and takes the first that does (CONN-11).
    pub fn happy_eyeballs_delay(self, delay: Duration) -> Self {
        Self { happy_eyeballs_delay: Some(delay), ..self }
    }

    /// Has addresses of different families alternate, after this many of the first one; 0 keeps their order (CONN-10).
    pub fn interleave(self, first_family_count: usize) -> Self {
        Self { interleave: Some(first_family_count), ..self }
    }

    /// Whether a failure gives the errors of all addresses ([`Error::Multiple`]), instead of one error for all (CONN-08).
    pub fn all_errors(self, on: bool) -> Self {
        Self { all_errors: on, ..self }
    }

    /// When the transport gives written bytes to the kernel.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// For [`open_connection`](crate::open_connection): the limit of the reader, in bytes; 64 KiB if not said. It holds up to
    /// twice as much, and no line may be longer.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// TLS is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn ssl(self, on: bool) -> Self {
        Self { has_tls: self.has_tls || on, ..self }
    }

    /// TLS is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn server_hostname(self, _: impl Into<String>) -> Self {
        Self { has_tls: true, ..self }
    }

    /// TLS is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn ssl_handshake_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// TLS is not supported yet: `create_connection()` gives [`Error::Unsupported`].
    pub fn ssl_shutdown_timeout(self, _: Duration) -> Self {
        Self { has_tls: true, ..self }
    }

    /// What asyncio checks before it does anything (CONN-02).
    pub(super) fn check(&self) -> Result<()> {
        check_tls(self.has_tls)?;
        check_limit(self.limit)?;
        let has_address = self.host.is_some() || self.port.is_some();
        match &self.sock {
            Some(_) if has_address => Err(Error::invalid_argument(
                "host/port and sock can not be specified at the same time",
            )),
            Some(sock) => check_stream(sock),
            None if has_address => Ok(()),
            None => Err(Error::invalid_argument(
                "host and port was not specified and no sock specified",
            )),
        }
    }
}

pub(super) fn check_tls(has_tls: bool) -> Result<()> {
    if has_tls { Err(Error::Unsupported("TLS is not supported yet".into())) } else { Ok(()) }
}

/// Streams have taken it.
pub(super) fn check_limit(limit: Option<usize>) -> Result<()> {
    match limit {
        Some(_) => Err(Error::invalid_argument("limit is only meaningful with streams")),
        None => Ok(()),
    }
}

fn check_stream(sock: &Socket) -> Result<()> {
    if sock.r#type()? == Type::STREAM {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("A Stream Socket was expected, got {sock:?}")))
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

impl From<Socket> for Listen {
    fn from(sock: Socket) -> Self {
        Self::default().sock(sock)
    }
}

impl From<std::net::TcpListener> for Listen {
    fn from(sock: std::net::TcpListener) -> Self {
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
        Self::new(host_of(address), address.port())
    }
}

impl From<Socket> for Target {
    fn from(sock: Socket) -> Self {
        Self::default().sock(sock)
    }
}

impl From<OwnedFd> for Target {
    fn from(fd: OwnedFd) -> Self {
        Self::default().sock(fd)
    }
}

impl From<std::net::TcpStream> for Target {
    fn from(sock: std::net::TcpStream) -> Self {
        Self::default().sock(sock)
    }
}

impl From<std::os::unix::net::UnixStream> for Target {
    fn from(sock: std::os::unix::net::UnixStream) -> Self {
        Self::default().sock(sock)
    }
}

/// The address as text, with its zone: so that only one way leads to a socket.
fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}
