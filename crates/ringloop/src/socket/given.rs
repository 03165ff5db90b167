//! Giving a socket away: what it holds goes along.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ringloop_driver::{Descriptor, Received};

use super::side::Brought;
use super::{Kind, Socket};

/// What a socket had received for calls that were cancelled, and nobody has asked for since.
///
/// It is not in the kernel any more, so whoever gets the descriptor must get it, too.
///
/// ```
/// use std::net::TcpStream;
/// use ringloop::Socket;
///
/// fn give_away(socket: Socket) -> std::io::Result<TcpStream> {
///     let (stream, unclaimed) = socket.into_std()?;
///     assert!(unclaimed.is_empty(), "no call was dropped while bytes came");
///     Ok(stream)
/// }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "these bytes and connections are nowhere else"]
pub struct Unclaimed {
    /// Bytes of a stream, in their order; or the error that was reported instead of them.
    pub received: Vec<io::Result<Received>>,
    /// Connections that a listener had accepted, or the error that was reported.
    pub accepted: Vec<io::Result<Socket>>,
}

impl Unclaimed {
    /// Whether there is nothing, as is usual: only a cancelled call leaves something.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty() && self.accepted.is_empty()
    }
}

impl Socket {
    /// Gives the descriptor to something else, such as a [`TcpStream`](std::net::TcpStream), with what had come for cancelled
    /// calls. The loop has no part in it any more. Whether it blocks stays as it is.
    ///
    /// # Errors
    ///
    /// `EBADF` after [`close`](Self::close); those of `dup(2)`, if a leaked future still holds the descriptor.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::net::{TcpListener, TcpStream};
    /// use ringloop::Socket;
    /// use socket2::{Domain, Type};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM)?;
    /// socket.connect(listener.local_addr()?).await?;
    /// let (stream, unclaimed): (TcpStream, _) = socket.into_std()?;
    /// assert!(unclaimed.is_empty());
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn into_std<T: From<OwnedFd>>(self) -> io::Result<(T, Unclaimed)> {
        let (descriptor, unclaimed) = self.release()?;
        let fd = match descriptor.into_owned() {
            Ok(fd) => fd,
            Err(shared) => shared.as_fd().try_clone_to_owned()?,
        };
        Ok((fd.into(), unclaimed))
    }

    /// The same within the library: nothing is left but an empty shell.
    pub(crate) fn release(&self) -> io::Result<(Descriptor, Unclaimed)> {
        self.core.check_open()?;
        let kind = self.core.kind().ok();
        let (descriptor, staged) = self.core.take();
        let descriptor = descriptor.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        Ok((descriptor, Unclaimed::sort(staged, kind)))
    }
}

impl Unclaimed {
    fn sort(staged: Vec<Brought>, kind: Option<Kind>) -> Self {
        let mut unclaimed = Self::default();
        for brought in staged {
            match brought {
                // The kernel returns the end of the stream again to the next receive.
                Brought::Bytes(Ok(data)) if data.is_empty() => {}
                Brought::Bytes(received) => unclaimed.received.push(received),
                Brought::Connection(accepted) => {
                    let socket = accepted.map(|connection| Socket::open(connection, kind));
                    unclaimed.accepted.push(socket);
                }
                _ => {}
            }
        }
        unclaimed
    }
}
