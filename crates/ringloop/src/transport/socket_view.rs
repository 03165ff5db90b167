//! The socket of a transport or a server, as users may see it.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Weak;
use std::time::Duration;

use ringloop_driver::{Descriptor, WeakDescriptor};
use socket2::{Domain, Protocol, SockRef, Type};

use super::StreamTransport;
use crate::{Address, Error, Result};

/// A view of the socket of a transport or a server that can neither send, receive nor close: asyncio's `TransportSocket`.
///
/// It does not keep the socket open: once the transport has closed it, [`fileno`](Self::fileno) is -1 and every other
/// method fails with `EBADF`. What could show that written bytes are still on their way sends them first.
///
/// ```
/// # ringloop::run(async {
/// use std::net::Shutdown;
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
/// use ringloop::{EventLoop, Exclusive, extra_info};
/// use socket2::{Domain, Type};
///
/// let event_loop = EventLoop::running()?;
/// let server = event_loop.create_server(|| Exclusive::new(()), ("127.0.0.1", 0)).await?;
/// let target = server.local_addr().unwrap();
/// let (transport, _) = event_loop.create_connection(|| Exclusive::new(()), target).await?;
/// let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
///
/// assert_eq!((socket.family()?, socket.r#type()?), (Domain::IPV4, Type::STREAM));
/// println!("{:?}: {} to {}", socket.protocol()?, socket.getsockname()?, socket.getpeername()?);
/// assert!(socket.nodelay()? && !socket.keepalive()?);
/// socket.set_nodelay(false)?;
/// socket.set_keepalive(true)?;
/// socket.set_send_buffer_size(64 * 1024)?;
/// assert!(socket.send_buffer_size()? >= 64 * 1024);
/// socket.set_recv_buffer_size(64 * 1024)?;
/// assert!(socket.recv_buffer_size()? >= 64 * 1024);
/// socket.set_linger(Some(Duration::from_secs(1)))?;
/// assert_eq!(socket.with_fd(|fd| fd.as_raw_fd())?, socket.fileno());
/// drop(socket.dup()?);
///
/// socket.set_blocking(false)?; // It cannot be made to block.
/// socket.set_timeout(Some(Duration::ZERO))?;
/// assert_eq!(socket.timeout(), Some(Duration::ZERO));
///
/// socket.shutdown(Shutdown::Both)?;
/// transport.abort();
/// server.close();
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Clone)]
pub struct TransportSocket {
    /// `None` if it was closed already.
    descriptor: Option<WeakDescriptor>,
    /// Whose unsent bytes go out first.
    transport: Option<Weak<dyn StreamTransport>>,
}

impl TransportSocket {
    pub(crate) fn new(
        descriptor: Option<&Descriptor>,
        transport: Option<Weak<dyn StreamTransport>>,
    ) -> Self {
        Self { descriptor: descriptor.map(Descriptor::downgrade), transport }
    }

    /// The descriptor's number, -1 once it is closed.
    pub fn fileno(&self) -> RawFd {
        self.flush();
        self.open().map_or(-1, |descriptor| descriptor.as_raw_fd())
    }

    /// Lends the descriptor itself, for options that have no method here. Written bytes are sent first.
    ///
    /// # Errors
    ///
    /// `EBADF` once it is closed.
    pub fn with_fd<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.flush();
        Ok(call(self.open()?.as_fd()))
    }

    /// `AF_INET`, `AF_INET6` or `AF_UNIX`, as [`socket2::Domain`].
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn family(&self) -> io::Result<Domain> {
        self.with_socket(|socket| socket.domain())
    }

    /// The type of the socket.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn r#type(&self) -> io::Result<Type> {
        self.with_socket(|socket| socket.r#type())
    }

    /// The protocol of the socket.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn protocol(&self) -> io::Result<Option<Protocol>> {
        self.with_socket(|socket| socket.protocol())
    }

    /// The address of our side.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn getsockname(&self) -> io::Result<Address> {
        self.with_socket(|socket| socket.local_addr()).map(|address| (&address).into())
    }

    /// The address of the peer.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn getpeername(&self) -> io::Result<Address> {
        self.with_socket(|socket| socket.peer_addr()).map(|address| (&address).into())
    }

    /// Whether small writes are sent without waiting for an acknowledgement (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.with_socket(|socket| socket.tcp_nodelay())
    }

    /// Sets `TCP_NODELAY`; transports of TCP connections have it on.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.with_socket(|socket| socket.set_tcp_nodelay(on))
    }

    /// Whether `SO_KEEPALIVE` is on.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.with_socket(|socket| socket.keepalive())
    }

    /// Sets `SO_KEEPALIVE`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        self.with_socket(|socket| socket.set_keepalive(on))
    }

    /// The size of the kernel's send buffer (`SO_SNDBUF`).
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        self.with_socket(|socket| socket.send_buffer_size())
    }

    /// Sets `SO_SNDBUF`; the kernel doubles what is given. Written bytes are sent first.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn set_send_buffer_size(&self, size: usize) -> io::Result<()> {
        self.flush();
        self.with_socket(|socket| socket.set_send_buffer_size(size))
    }

    /// The size of the kernel's receive buffer (`SO_RCVBUF`).
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        self.with_socket(|socket| socket.recv_buffer_size())
    }

    /// Sets `SO_RCVBUF`; the kernel doubles what is given.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn set_recv_buffer_size(&self, size: usize) -> io::Result<()> {
        self.with_socket(|socket| socket.set_recv_buffer_size(size))
    }

    /// What `close(2)` does with bytes that are still on their way (`SO_LINGER`).
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.with_socket(|socket| socket.set_linger(linger))
    }

    /// Closes one or both directions of the connection, for every holder of the socket. Written bytes are sent first.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.flush();
        self.with_socket(|socket| socket.shutdown(how))
    }

    /// A second descriptor of the same socket, which the caller owns. Written bytes are sent first.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn dup(&self) -> io::Result<OwnedFd> {
        self.flush();
        self.open()?.as_fd().try_clone_to_owned()
    }

    /// Sockets of transports never block, and cannot be made to.
    ///
    /// # Errors
    ///
    /// If `blocking` is true.
    pub fn set_blocking(&self, blocking: bool) -> Result<()> {
        if blocking {
            let text = "setblocking(): transport sockets cannot be blocking";
            return Err(Error::invalid_argument(text));
        }
        Ok(())
    }

    /// Sockets of transports have the timeout zero, and no other.
    ///
    /// # Errors
    ///
    /// If `timeout` is not zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        if timeout != Some(Duration::ZERO) {
            let text = "settimeout(): only 0 timeout is allowed on transport sockets";
            return Err(Error::invalid_argument(text));
        }
        Ok(())
    }

    /// Zero: see [`set_timeout`](Self::set_timeout).
    pub fn timeout(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn with_socket<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        let descriptor = self.open()?;
        call(&SockRef::from(&descriptor))
    }

    fn open(&self) -> io::Result<Descriptor> {
        let open = self.descriptor.as_ref().and_then(WeakDescriptor::upgrade);
        open.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn flush(&self) {
        if let Some(transport) = self.transport.as_ref().and_then(Weak::upgrade) {
            transport.lend();
        }
    }
}

impl AsRawFd for TransportSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fileno()
    }
}

impl fmt::Debug for TransportSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(descriptor) = self.open() else {
            return f.write_str("<TransportSocket closed>");
        };
        write!(f, "<TransportSocket fd={}", descriptor.as_raw_fd())?;
        if let Ok(address) = self.getsockname() {
            write!(f, ", laddr={}", address.as_python())?;
        }
        if let Ok(address) = self.getpeername() {
            write!(f, ", raddr={}", address.as_python())?;
        }
        f.write_str(">")
    }
}
