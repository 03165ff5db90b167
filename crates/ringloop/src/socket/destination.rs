//! Where a socket call connects or sends to.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr};

use super::core::Kind;
use super::resolve::{Port, ResolveOptions};
use crate::{Address, Error, EventLoop, Result};

/// Where a socket call connects or sends to: an address, or the name of a host and a port, which are resolved first.
///
/// ```
/// use std::path::Path;
/// use ringloop::Destination;
///
/// let by_name: Destination = ("localhost", 80).into();
/// let by_path: Destination = Path::new("/run/service.sock").into();
/// # let _ = (by_name, by_path);
/// ```
#[derive(Clone, Debug)]
pub struct Destination(Kinds);

#[derive(Clone, Debug)]
enum Kinds {
    Known(SockAddr),
    Name(String, u16),
    Path(PathBuf),
    /// What no call can take.
    Refused(Address),
}

impl Destination {
    /// The address, for a socket of this kind: the first that is found.
    pub(super) async fn resolve(self, kind: Kind, event_loop: &EventLoop) -> Result<SockAddr> {
        let address = match self.0 {
            Kinds::Known(address) => address,
            Kinds::Path(path) => SockAddr::unix(path)?,
            Kinds::Refused(address) => {
                let text = format!("no socket can be at the address {address}");
                return Err(Error::invalid_argument(text));
            }
            Kinds::Name(host, port) => {
                if !matches!(kind.domain, Domain::IPV4 | Domain::IPV6) {
                    return Err(wrong_family(kind, &format!("{host}:{port}")));
                }
                let options = ResolveOptions {
                    family: Some(kind.domain),
                    socktype: Some(kind.socktype),
                    ..ResolveOptions::default()
                };
                let port = Port::Number(port);
                let found = event_loop.ensure_resolved(Some(&host), &port, options).await?;
                match found.into_iter().next() {
                    Some(info) => info.address,
                    None => {
                        let text = format!("getaddrinfo({host}) returned empty list");
                        return Err(io::Error::other(text).into());
                    }
                }
            }
        };
        if Domain::from(i32::from(address.family())) != kind.domain {
            return Err(wrong_family(kind, &Address::from(&address).to_string()));
        }
        Ok(address)
    }
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self(Kinds::Known(address.into()))
    }
}

impl From<SockAddr> for Destination {
    fn from(address: SockAddr) -> Self {
        Self(Kinds::Known(address))
    }
}

impl From<(&str, u16)> for Destination {
    fn from((host, port): (&str, u16)) -> Self {
        Self(Kinds::Name(host.to_owned(), port))
    }
}

impl From<(String, u16)> for Destination {
    fn from((host, port): (String, u16)) -> Self {
        Self(Kinds::Name(host, port))
    }
}

impl From<&Path> for Destination {
    fn from(path: &Path) -> Self {
        Self(Kinds::Path(path.to_owned()))
    }
}

impl From<PathBuf> for Destination {
    fn from(path: PathBuf) -> Self {
        Self(Kinds::Path(path))
    }
}

/// What `getsockname()`, `accept()` and `recvfrom()` gave.
impl From<&Address> for Destination {
    fn from(address: &Address) -> Self {
        Self(match address {
            Address::Ip(ip) => Kinds::Known((*ip).into()),
            Address::Path(path) => Kinds::Path(path.to_path_buf()),
            Address::Abstract(name) => Kinds::Path(abstract_path(name)),
            other => Kinds::Refused(other.clone()),
        })
    }
}

impl From<Address> for Destination {
    fn from(address: Address) -> Self {
        Self::from(&address)
    }
}

/// As socket2 takes a name in the abstract namespace.
fn abstract_path(name: &[u8]) -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(&[&[0], name].concat()))
}

fn wrong_family(kind: Kind, address: &str) -> Error {
    let family = match kind.domain {
        Domain::IPV4 => "AF_INET",
        Domain::IPV6 => "AF_INET6",
        Domain::UNIX => "AF_UNIX",
        _ => "another family",
    };
    Error::invalid_argument(format!(
        "{address} is no address for a socket of {family}: use one of its family, or a socket of that of the address"
    ))
}
