//! Where servers listen: at a TCP port, or under a name in Linux's abstract namespace.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process;
use std::str::FromStr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A server's address. As text `127.0.0.1:80`, or `@name` for a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket's name. The kernel forgets it with the socket, so that no file is left behind, however the server ends.
    Unix(String),
}

impl Address {
    /// A name for a Unix socket that no other process takes.
    pub fn unix() -> Self {
        Self::Unix(format!("ringloop-benches-{}", process::id()))
    }

    /// A non-blocking socket of this kind. If it listens, its connections inherit what is set on it.
    ///
    /// The congestion control is the same everywhere, whatever the system's: BBR paces by timers, and so costs what has
    /// nothing to do with a server.
    pub fn socket(&self) -> io::Result<Socket> {
        let Self::Tcp(address) = self else {
            return Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None);
        };
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(*address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_congestion(CONGESTION_CONTROL)?;
        Ok(socket)
    }

    /// A listener at this address.
    pub fn listen(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        if let Self::Tcp(_) = self {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&self.to_sock_addr()?)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    /// The address that this socket is bound to.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let name = address.as_abstract_namespace().map(|name| String::from_utf8_lossy(name));
        match (address.as_socket(), name) {
            (Some(address), _) => Ok(Self::Tcp(address)),
            (None, Some(name)) => Ok(Self::Unix(name.into_owned())),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a port nor a name")),
        }
    }

    /// For the system.
    pub fn to_sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Self::Tcp(address) => Ok((*address).into()),
            Self::Unix(name) => SockAddr::unix(format!("\0{name}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(name) => write!(f, "@{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Unix(name.to_owned()));
        }
        text.parse().map(Self::Tcp).map_err(|error| format!("{text}: {error}"))
    }
}

/// The length of a listener's queue.
pub const BACKLOG: i32 = 4096;

/// Each kernel has it, and each user may ask for it.
const CONGESTION_CONTROL: &[u8] = b"reno";
