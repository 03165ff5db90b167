//! Sending: by direct calls, as much as there is room for. While it waits for more, nothing of it is in flight.

use ringloop_driver::Chunk;

use super::core::{Core, Direction};
use super::receiving::is_for_later;
use super::{Destination, Socket};
use crate::{EventLoop, Result};

impl Socket {
    /// Sends all of `data`. A slice is not copied, nor is anything else.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`: a part may have been sent. `EBADF` after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has sent a part from the beginning, perhaps nothing, and sends no more.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::os::unix::net::UnixStream;
    /// use ringloop::Socket;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
    /// ours.sendall("a text").await?;
    /// theirs.sendall(theirs.recv(1024).await?).await?; // Received bytes go on as they are.
    /// assert_eq!(&*ours.recv(1024).await?, b"a text");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn sendall(&self, data: impl Into<Chunk<'_>>) -> Result<()> {
        self.enter(&EventLoop::running()?)?;
        self.core.sendall(&data.into()).await
    }

    /// Sends one datagram, and gives the number of its bytes. Waits only while there is no room for it.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`; [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an address of another family than
    /// the socket's.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has sent nothing.
    pub async fn sendto(
        &self,
        data: impl Into<Chunk<'_>>,
        destination: impl Into<Destination>,
    ) -> Result<usize> {
        let event_loop = EventLoop::running()?;
        self.enter(&event_loop)?;
        self.core.sendto(&data.into(), destination.into(), event_loop).await
    }
}

impl Core {
    pub(super) async fn sendall(&self, data: &[u8]) -> Result<()> {
        let mut rest = data;
        loop {
            match self.try_now(|driver, socket| driver.try_send(socket, rest, None)) {
                Ok(count) if count >= rest.len() => return Ok(()),
                Ok(count) => rest = &rest[count..],
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
            self.ready(Direction::Write).await?;
        }
    }

    pub(super) async fn sendto(
        &self,
        data: &[u8],
        destination: Destination,
        event_loop: EventLoop,
    ) -> Result<usize> {
        let address = destination.resolve(self.kind()?, &event_loop).await?;
        drop(event_loop); // A task must not keep its loop alive.
        loop {
            match self.try_now(|driver, socket| driver.try_send(socket, data, Some(&address))) {
                Err(error) if is_for_later(&error) => {}
                sent => return sent,
            }
            self.ready(Direction::Write).await?;
        }
    }
}
