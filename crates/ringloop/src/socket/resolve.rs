//! Names to addresses.
//!
//! A host that is an address already needs no resolver (RESOLVE-01). All others go to the loop's [`Resolver`]; unless the user
//! has set one, that is the C library's `getaddrinfo`, on a thread of the default executor.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use ringloop_driver::resolve as system;
use socket2::{Domain, SockAddr, Type};

use crate::event_loop::door::{self, Kept};
use crate::{EventLoop, EventLoopBuilder, Result};

/// Finds the addresses of names, in place of the C library: for tests, or for a resolver that needs no thread.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{AddrInfo, AddrRequest, EventLoop, ResolveFuture, Resolver};
///
/// struct Hosts;
///
/// impl Resolver for Hosts {
///     fn getaddrinfo(&self, _: &EventLoop, request: AddrRequest) -> ResolveFuture {
///         let address = ([127, 0, 0, 1], request.port.parse().unwrap_or(0));
///         Box::pin(async move { Ok(vec![AddrInfo::stream(address)]) })
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// event_loop.set_resolver(Rc::new(Hosts));
/// # Ok::<(), ringloop::Error>(())
/// ```
pub trait Resolver {
    /// Gives the addresses for `request`, the best ones first. An empty list makes the call fail that needs an address.
    fn getaddrinfo(&self, event_loop: &EventLoop, request: AddrRequest) -> ResolveFuture;
}

/// What [`Resolver::getaddrinfo`] returns. Dropping it gives the search up.
pub type ResolveFuture = Pin<Box<dyn Future<Output = Result<Vec<AddrInfo>>>>>;

/// What is asked of a [`Resolver`]: the arguments of `getaddrinfo(3)`.
///
/// ```
/// use ringloop::AddrRequest;
///
/// fn is_local(request: &AddrRequest) -> bool {
///     request.host.as_deref().is_none_or(|host| host.ends_with(".local"))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrRequest {
    /// The name; `None` for the addresses of this machine.
    pub host: Option<String>,
    /// The port, or the name of a service.
    pub port: String,
    /// `AF_*`; zero for any.
    pub family: i32,
    /// `SOCK_*`.
    pub socktype: i32,
    /// `IPPROTO_*`; zero for any.
    pub protocol: i32,
    /// `AI_*`.
    pub flags: i32,
}

/// One address, and the kind of socket that reaches it.
///
/// ```
/// let info = ringloop::AddrInfo::stream(([127, 0, 0, 1], 80));
/// assert_eq!(info.address.as_socket().unwrap().port(), 80);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct AddrInfo {
    /// The family.
    pub family: Domain,
    /// The type.
    pub socktype: Type,
    /// `IPPROTO_*`.
    pub protocol: i32,
    /// Where it is.
    pub address: SockAddr,
}

impl AddrInfo {
    /// A Unix socket.
    pub(crate) fn unix(address: SockAddr) -> Self {
        Self { family: Domain::UNIX, socktype: Type::STREAM, protocol: 0, address }
    }

    /// The one address of `ip`, if it is of the kind that is asked for.
    pub(crate) fn of_ip(ip: IpAddr, port: &Port, options: ResolveOptions) -> Option<Self> {
        let Port::Number(port) = *port else { return None };
        let info = Self::stream((ip, port));
        let is_wanted = matches!(options.protocol, 0 | libc::IPPROTO_TCP | libc::IPPROTO_UDP)
            && options.family.is_none_or(|family| family == info.family);
        is_wanted.then_some(info)
    }

    /// A TCP address.
    pub fn stream(address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        Self {
            family: Domain::for_address(address),
            socktype: Type::STREAM,
            protocol: libc::IPPROTO_TCP,
            address: address.into(),
        }
    }
}

/// A port by its number, or by the name of its service.
#[derive(Clone, Debug)]
pub(crate) enum Port {
    Number(u16),
    Service(String),
}

impl Port {
    /// A name that is a number counts as that number, and an empty name as zero (RESOLVE-04).
    pub(crate) fn from_service(name: impl Into<String>) -> Self {
        let name = name.into();
        match name.parse() {
            Ok(number) => Self::Number(number),
            Err(_) if name.is_empty() => Self::Number(0),
            Err(_) => Self::Service(name),
        }
    }
}

impl fmt::Debug for AddrInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddrInfo({})", crate::Address::from(&self.address))
    }
}

impl EventLoop {
    /// Has `resolver` find the addresses of all names from now on.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ringloop::{EventLoop, Resolver};
    ///
    /// fn resolve_by(event_loop: &EventLoop, resolver: impl Resolver + 'static) {
    ///     event_loop.set_resolver(Rc::new(resolver));
    /// }
    /// ```
    pub fn set_resolver(&self, resolver: Rc<dyn Resolver>) {
        self.set_extension(ResolverSlot::new(resolver));
    }

    /// The addresses of `host` and `port`. If `host` is an address itself, no resolver is called (RESOLVE-01).
    pub(crate) async fn ensure_resolved(
        &self,
        host: Option<&str>,
        port: &Port,
        options: ResolveOptions,
    ) -> Result<Vec<AddrInfo>> {
        if let Some(known) = literal(host, port, options) {
            return Ok(vec![known]);
        }
        let request = AddrRequest {
            host: host.filter(|host| !host.is_empty()).map(str::to_owned),
            port: match port {
                Port::Number(number) => number.to_string(),
                Port::Service(name) => name.clone(),
            },
            family: options.family.map_or(libc::AF_UNSPEC, Into::into),
            socktype: options.socktype.unwrap_or(Type::STREAM).into(),
            protocol: options.protocol,
            flags: options.flags,
        };
        let resolver = self.extension::<ResolverSlot>();
        let resolver: &dyn Resolver = match &resolver {
            Some(slot) => &**slot.0,
            None => &SystemResolver,
        };
        let found = resolver.getaddrinfo(self, request.clone());
        let mut found = Kept::new("an attempt to resolve", found);
        let found = found.as_mut();
        if self.get_debug() { self.timed(found, &request).await } else { found.await }
    }

    /// Warns about a name that was slow to resolve (RESOLVE-07).
    async fn timed(
        &self,
        found: impl Future<Output = Result<Vec<AddrInfo>>>,
        request: &AddrRequest,
    ) -> Result<Vec<AddrInfo>> {
        let start = Instant::now();
        let found = found.await;
        let took = start.elapsed();
        let host = request.host.as_deref().unwrap_or("None");
        self.warn_if_slow(took, host, || {
            let took = took.as_secs_f64() * 1000.0;
            let text = format!("Getting address info {host}:{} took {took:.3}ms", request.port);
            match &found {
                Ok(infos) => format!("{text}: {infos:?}"),
                Err(error) => format!("{text}: {}", door::text(error)),
            }
        });
        found
    }
}

impl EventLoopBuilder {
    /// Takes `resolver` for all names.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ringloop::{EventLoop, Resolver, Result};
    ///
    /// fn make_loop(resolver: Rc<dyn Resolver>) -> Result<EventLoop> {
    ///     EventLoop::builder().resolver(resolver).build()
    /// }
    /// ```
    pub fn resolver(self, resolver: Rc<dyn Resolver>) -> Self {
        self.extension(ResolverSlot::new(resolver))
    }
}

struct ResolverSlot(Kept<Rc<dyn Resolver>>);

impl ResolverSlot {
    fn new(resolver: Rc<dyn Resolver>) -> Rc<Self> {
        Rc::new(Self(Kept::new("a resolver", resolver)))
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct ResolveOptions {
    pub(crate) family: Option<Domain>,
    pub(crate) socktype: Option<Type>,
    pub(crate) protocol: i32,
    pub(crate) flags: i32,
}

/// The address that `host` is, if it is one (RESOLVE-03, RESOLVE-05).
fn literal(host: Option<&str>, port: &Port, options: ResolveOptions) -> Option<AddrInfo> {
    // A zone, as in "fe80::1%eth0", is the resolver's business.
    AddrInfo::of_ip(host?.parse().ok()?, port, options)
}

/// The C library's, on a thread of the default executor (RESOLVE-02).
struct SystemResolver;

impl Resolver for SystemResolver {
    fn getaddrinfo(&self, event_loop: &EventLoop, request: AddrRequest) -> ResolveFuture {
        let found = event_loop.run_in_executor(move || {
            let found = system::getaddrinfo(
                request.host.as_deref(),
                Some(&request.port),
                request.family,
                request.socktype,
                request.protocol,
                request.flags,
            );
            found.map(|list| list.into_iter().map(AddrInfo::from).collect())
        });
        Box::pin(async move {
            let found: Result<Vec<AddrInfo>, _> = found.await?;
            Ok(found.map_err(std::io::Error::from)?)
        })
    }
}

impl From<system::AddrInfo> for AddrInfo {
    fn from(found: system::AddrInfo) -> Self {
        Self {
            family: found.family.into(),
            socktype: found.socktype.into(),
            protocol: found.protocol,
            address: found.address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> Port {
        Port::Number(number)
    }

    // spec: RESOLVE-01, RESOLVE-03, RESOLVE-05
    #[test]
    fn only_an_address_of_the_family_is_taken_as_it_is() {
        let any = ResolveOptions::default();
        let found = |host, options| {
            literal(Some(host), &port(80), options).and_then(|info| info.address.as_socket())
        };
        assert_eq!(found("127.0.0.1", any), Some(([127, 0, 0, 1], 80).into()));
        assert_eq!(found("::1", any).map(|address| address.is_ipv6()), Some(true));
        for host in ["localhost", "127.1", "1.2.3.4 ", "::1%lo", "", "0x7f.0.0.1"] {
            assert_eq!(found(host, any), None, "{host}");
        }
        let v6 = ResolveOptions { family: Some(Domain::IPV6), ..any };
        assert_eq!(found("127.0.0.1", v6), None);
        let sctp = ResolveOptions { protocol: 132, ..any };
        assert_eq!(found("127.0.0.1", sctp), None);
        assert!(literal(None, &port(80), any).is_none());
        assert!(literal(Some("127.0.0.1"), &Port::Service("http".into()), any).is_none());
    }
}
