//! Socket calls: the lowest of the three ways to use a connection, without transport and protocol.
//!
//! # The life of a call
//!
//! A call first takes what is staged, then tries the kernel. If that works, the call does not give up control. Otherwise an op is
//! in flight while the call waits ([`core`]).
//!
//! | call | tries | waits by |
//! | --- | --- | --- |
//! | `accept` | an accept op | the same op |
//! | `recv`, `recv_into` of a stream | a direct call, into a buffer that is lent or into the caller's slice | a poll that stays for the next call; when it tells of bytes, a direct call receives them for who waits |
//! | `recv`, `recvfrom` and the like of datagrams | a direct call | a poll: each datagram stays whole in the kernel until it is asked for |
//! | `connect` | a connect op | the same op |
//! | `sendall`, `sendto`, `sendfile` | a direct call | a poll: nothing is sent while nobody runs |

mod calls;
mod core;
mod destination;
mod given;
mod receiving;
mod resolve;
mod sendfile;
mod sending;
mod side;

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::rc::Rc;

use ringloop_driver::Descriptor;
use socket2::{Domain, Protocol, SockAddr, Type};

use self::core::Core;
pub(crate) use self::core::Kind;
use self::side::{Brought, Wanted};
use crate::source::Direction;
use crate::{Address, Error, EventLoop, OsError, Result};

pub use self::destination::Destination;
pub use self::given::Unclaimed;
pub use self::resolve::{AddrInfo, AddrRequest, ResolveFuture, Resolver};
pub(crate) use self::resolve::{Port, ResolveOptions};
pub use self::sendfile::SendFile;

/// A socket and the calls of asyncio's `sock_*` family, for streams, listeners and datagrams.
///
/// Made from one of the standard library's, from a descriptor, or [new](Self::new); used on one loop at a time, that of the
/// first call. Several tasks may share it in an [`Rc`]: one receives while another one sends. Of two calls that wait for the
/// same direction the later one is completed; the earlier one never is, as in asyncio.
///
/// A call that can be done at once does not give up control, so a loop over sockets that are always ready should
/// [yield](crate::yield_now) now and then. To know whether it can, each call asks the kernel: two or three system calls a
/// message. For many small messages streams and protocols cost less, as they share one call among all connections.
///
/// # Cancel safety
///
/// Every future of a socket may be dropped at any time, by [`timeout`](crate::timeout()) for example, and nothing is lost: what
/// the kernel had given to a receive or an accept is staged for the next call, and after a dropped
/// [`sendall`](Self::sendall) or [`sendfile`](Self::sendfile) nothing more is sent. A future that is leaked is no danger
/// either: the kernel works on no memory of the caller's.
///
/// ```
/// use std::net::TcpListener;
/// use ringloop::Socket;
/// use socket2::{Domain, Type};
///
/// ringloop::run(async {
///     let listener = Socket::from(TcpListener::bind("127.0.0.1:0")?);
///     let client = Socket::new(Domain::IPV4, Type::STREAM)?;
///     client.connect(listener.getsockname()?).await?;
///     let (server, _address) = listener.accept().await?;
///     client.sendall(b"ping").await?;
///     assert_eq!(&*server.recv(1024).await?, b"ping");
///     Ok::<(), ringloop::Error>(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
///
/// A socket that was given to a transport is its own:
///
/// ```compile_fail,E0382
/// # async fn f(event_loop: ringloop::EventLoop, socket: ringloop::Socket) -> ringloop::Result<()> {
/// event_loop.create_connection(|| ringloop::Exclusive::new(()), socket).await?;
/// socket.recv(1024).await?;
/// # Ok(())
/// # }
/// ```
pub struct Socket {
    core: Rc<Core>,
}

impl Socket {
    /// A new socket, which does not block and is not inherited by programs that are started.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn new(domain: Domain, socktype: Type) -> io::Result<Self> {
        Self::with_protocol(domain, socktype, None)
    }

    /// The same with a protocol.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_protocol(
        domain: Domain,
        socktype: Type,
        protocol: Option<Protocol>,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(domain, socktype.nonblocking(), protocol)?;
        Ok(Self::open(socket.into(), Some(Kind { domain, socktype })))
    }

    /// Accepts one connection: the socket for it, which does not block, and the address of the peer.
    ///
    /// While connections are pending it never gives up control.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`, as they come: nothing is tried again. `EBADF` after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// No connection is lost: one that came too late for a dropped future is the next call's.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, Socket, timeout};
    ///
    /// let listener = Socket::from(std::net::TcpListener::bind("127.0.0.1:0")?);
    /// let nobody = timeout(Duration::from_millis(1), listener.accept()).await;
    /// assert!(matches!(nobody, Err(Error::Timeout)));
    /// # Ok::<(), Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn accept(&self) -> Result<(Self, Address)> {
        self.enter(&EventLoop::running()?)?;
        self.accept_on().await
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// The system's, with the words "Connect call failed" and the address where the peer refused or did not answer;
    /// [`Error::InvalidArgument`] for an address of another family than the socket's; what the resolver says.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. The system may go on connecting; close the socket, as nothing else can be done with it.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::Socket;
    /// use socket2::{Domain, Type};
    ///
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM)?;
    /// let error = socket.connect(("127.0.0.1", 1)).await.unwrap_err();
    /// assert_eq!(error.to_string(), "[Errno 111] Connect call failed ('127.0.0.1', 1)");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn connect(&self, destination: impl Into<Destination>) -> Result<()> {
        let event_loop = EventLoop::running()?;
        self.enter(&event_loop)?;
        let kind = self.core.kind()?;
        let address = destination.into().resolve(kind, &event_loop).await?;
        drop(event_loop); // A task must not keep its loop alive.
        self.connect_to(address).await
    }

    /// Binds the socket to an address of this machine: as `bind(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn bind(&self, address: impl Into<SockAddr>) -> io::Result<()> {
        let address = address.into();
        self.core.with_socket(|socket| socket.bind(&address))
    }

    /// Makes it a listener, as `listen(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    ///
    /// ```
    /// use ringloop::Socket;
    /// use socket2::{Domain, Protocol, Type};
    ///
    /// let listener = Socket::with_protocol(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    /// listener.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    /// listener.listen(100)?;
    /// assert!(listener.getpeername().is_err(), "it has no peer");
    /// listener.close();
    /// assert_eq!(listener.fileno(), -1);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn listen(&self, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        self.core.with_socket(|socket| socket.listen(backlog))
    }

    /// The address of our side.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn getsockname(&self) -> io::Result<Address> {
        self.core.with_socket(|socket| socket.local_addr()).map(|address| (&address).into())
    }

    /// The address of the peer.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn getpeername(&self) -> io::Result<Address> {
        self.core.with_socket(|socket| socket.peer_addr()).map(|address| (&address).into())
    }

    /// Ends one or both directions of the connection, for every holder of the socket.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::net::Shutdown;
    /// use ringloop::Socket;
    ///
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
    /// ours.shutdown(Shutdown::Write)?;
    /// assert!(theirs.recv(1024).await?.is_empty());
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.core.with_socket(|socket| socket.shutdown(how))
    }

    /// The descriptor's number; -1 after [`close`](Self::close).
    pub fn fileno(&self) -> RawFd {
        self.core.as_raw_fd().unwrap_or(-1)
    }

    /// Lends the descriptor, for options and whatever else has no method here: [`socket2::SockRef`] takes it. What a cancelled
    /// call had received is not in the kernel any more; the next call here gives it.
    ///
    /// # Errors
    ///
    /// `EBADF` after [`close`](Self::close).
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::Socket;
    /// use socket2::{Domain, SockRef, Type};
    ///
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM)?;
    /// socket.with_fd(|fd| SockRef::from(&fd).set_tcp_nodelay(true))??;
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn with_fd<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.core.settle();
        let mut call = Some(call);
        self.core.with_socket(|socket| match call.take() {
            Some(call) => Ok(call(socket.as_fd())),
            None => Err(io::ErrorKind::Other.into()),
        })
    }

    /// Closes it: every later call fails with `EBADF`. Calls that wait go on, and keep the descriptor open so long. What
    /// cancelled calls had received is thrown away, as what is still in the kernel is. Dropping the socket does the same.
    pub fn close(&self) {
        self.core.close();
    }

    pub(crate) fn open(descriptor: Descriptor, kind: Option<Kind>) -> Self {
        Self { core: Core::new(descriptor, kind) }
    }

    /// Before each call: the socket is open, and belongs to this loop from the first call on.
    pub(crate) fn enter(&self, event_loop: &EventLoop) -> Result<()> {
        self.core.enter(event_loop)
    }

    pub(crate) fn kind(&self) -> io::Result<Kind> {
        self.core.kind()
    }

    /// What transports and servers are made of.
    pub(crate) fn check_stream(&self) -> Result<()> {
        if self.core.is_stream()? {
            return Ok(());
        }
        Err(Error::invalid_argument(format!("A Stream Socket was expected, got {self:?}")))
    }

    async fn accept_on(&self) -> Result<(Self, Address)> {
        let brought = self.core.obtain(Direction::Read, Wanted::Connection).await?;
        let Brought::Connection(accepted) = brought else { return Err(replaced()) };
        let socket = Self::open(accepted?, self.core.kind().ok());
        // A peer that has gone already has no address any more.
        let address = socket.getpeername().unwrap_or(Address::Unnamed);
        Ok((socket, address))
    }

    /// Connects to an address of the socket's own family.
    pub(crate) async fn connect_to(&self, address: SockAddr) -> Result<()> {
        let kind = self.core.kind()?;
        // Of a TCP connection asyncio always says that it is in progress; all others stand at once or fail.
        let waits = kind.socktype == Type::STREAM && kind.domain != Domain::UNIX;
        let connected = self.core.connected(&address, !waits).await;
        match connected {
            Err(Error::Io(error)) if waits && is_answer(&error) => {
                let address = Address::from(&address).as_python();
                Err(OsError::reword(&error, format!("Connect call failed {address}")).into())
            }
            connected => connected,
        }
    }
}

/// What is refused at once has the system's own words in asyncio.
fn is_answer(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::EISCONN
                | libc::EALREADY
                | libc::EINVAL
                | libc::EAFNOSUPPORT
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::EACCES
                | libc::EPERM
                | libc::ENETUNREACH
                | libc::EBADF
        )
    )
}

/// Another call has taken the socket's op: one that waits for something else on the same side.
fn replaced() -> Error {
    Error::state("another call has taken over")
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.core.discard();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fd) = self.core.as_raw_fd() else { return f.write_str("<Socket closed>") };
        write!(f, "<Socket fd={fd}")?;
        if let Ok(address) = self.getsockname() {
            write!(f, ", laddr={}", address.as_python())?;
        }
        if let Ok(address) = self.getpeername() {
            write!(f, ", raddr={}", address.as_python())?;
        }
        f.write_str(">")
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self::open(fd.into(), None)
    }
}

macro_rules! from_sockets {
    ($($socket:ty),*) => {
        $(
            /// Whether it blocks stays as it is; it makes no difference but in debug mode, which refuses one that does.
            impl From<$socket> for Socket {
                fn from(socket: $socket) -> Self {
                    OwnedFd::from(socket).into()
                }
            }
        )*
    };
}

from_sockets!(
    TcpStream,
    TcpListener,
    UdpSocket,
    UnixStream,
    UnixListener,
    UnixDatagram,
    socket2::Socket
);
