//! Where a socket is.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// Where a socket is, or its peer: what `getsockname` and `getpeername` say.
///
/// ```
/// use ringloop::Address;
///
/// let address = Address::from("127.0.0.1:80".parse::<std::net::SocketAddr>()?);
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// assert_eq!(address.as_ip().map(|ip| ip.port()), Some(80));
/// # Ok::<_, std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// IPv4 or IPv6.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Path(Box<Path>),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(Box<[u8]>),
    /// A Unix socket without a name, as a socket pair has.
    Unnamed,
    /// An address of a family that has no variant here.
    Other(i32),
}

impl Address {
    /// The IP address and port, if it is one.
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// As Python writes it, and so asyncio's error texts: `('127.0.0.1', 80)`.
    pub(crate) fn as_python(&self) -> String {
        match self {
            Self::Ip(SocketAddr::V4(v4)) => format!("('{}', {})", v4.ip(), v4.port()),
            Self::Ip(SocketAddr::V6(v6)) => {
                format!("('{}', {}, {}, {})", v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id())
            }
            Self::Unnamed => "''".to_owned(),
            other => format!("'{other}'"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<&SockAddr> for Address {
    fn from(address: &SockAddr) -> Self {
        if let Some(ip) = address.as_socket() {
            Self::Ip(ip)
        } else if let Some(path) = address.as_pathname() {
            Self::Path(path.into())
        } else if let Some(name) = address.as_abstract_namespace() {
            Self::Abstract(name.into())
        } else if address.is_unnamed() {
            Self::Unnamed
        } else {
            Self::Other(address.family().into())
        }
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Path(path.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Self::Unnamed => f.write_str("unnamed"),
            Self::Other(family) => write!(f, "family {family}"),
        }
    }
}
