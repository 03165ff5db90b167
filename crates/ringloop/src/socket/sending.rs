//! Sending: by direct calls, as much as there is room for. While it waits for more, nothing of it is in flight.

use ringloop_driver::Chunk;

use super::core::Core;
use super::receiving::is_for_later;
use super::{Destination, Socket};
use crate::source::Direction;
use crate::{EventLoop, Result};

impl Socket {
    /// Sends all of `data`. A slice is not copied, nor is anything else: the kernel takes it from where it is, inside of direct
    /// calls. So a borrowed slice costs no more than owned or shared bytes, which are for tasks that outlive their caller.
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
        let data = data.into();
        let sent = self.core.send_here(&data)?;
        if sent == data.len() {
            return Ok(());
        }
        self.core.send_rest(&data[sent..]).await
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
    pub(super) async fn sendall(&self, data: &[u8], event_loop: EventLoop) -> Result<()> {
        let sent = self.send_now(data, &event_loop);
        drop(event_loop); // A task must not keep its loop alive.
        self.send_rest(&data[sent?..]).await
    }

    /// Sends what could not be sent at once.
    async fn send_rest(&self, mut rest: &[u8]) -> Result<()> {
        while !rest.is_empty() {
            self.ready(Direction::Write).await?;
            rest = &rest[self.send_now(rest, &self.event_loop()?)?..];
        }
        Ok(())
    }

    /// As [`send_now`](Self::send_now), at the begin of a call on the loop that runs here.
    #[inline(always)]
    fn send_here(&self, data: &[u8]) -> Result<usize> {
        self.send_now(data, &self.enter_running()?)
    }

    /// Sends what there is room for, and gives how much that is.
    #[inline(always)]
    fn send_now(&self, data: &[u8], event_loop: &EventLoop) -> Result<usize> {
        match self.try_on(event_loop, |driver, socket| driver.try_send(socket, data, None)) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(0),
            sent => Ok(sent?.min(data.len())),
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
