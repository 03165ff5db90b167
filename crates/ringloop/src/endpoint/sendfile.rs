//! Sending a file through a transport.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::socket::Socket;
use crate::{EventLoop, Result, SendFile, Transport};

impl EventLoop {
    /// Sends a file, or a part of it, behind all that was written to `transport`, and gives the number of bytes: as
    /// [`Socket::sendfile`], which says how. What is written afterwards comes behind it.
    ///
    /// Reading is paused meanwhile, and goes on afterwards if it was on; nothing can be written meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::State`](crate::Error::State) if the transport is closing, has no socket of its own, or sends a file already;
    /// what the transport was lost with; as [`Socket::sendfile`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has sent a part from the beginning, perhaps nothing, and sends no more. The transport goes on.
    ///
    /// ```
    /// # use ringloop::{EventLoop, Exclusive, SendFile};
    /// # ringloop::run(async {
    /// # let event_loop = EventLoop::running()?;
    /// use std::io::Read;
    ///
    /// let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let (transport, _) = event_loop.create_connection(|| Exclusive::new(()), ours).await?;
    /// let program = std::fs::File::open("/proc/self/exe")?;
    /// event_loop.sendfile(&transport, SendFile::new(&program).count(4)).await?;
    /// let mut magic = [0; 4];
    /// theirs.read_exact(&mut magic)?;
    /// assert_eq!(&magic, b"\x7fELF");
    /// transport.close();
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn sendfile(
        &self,
        transport: &Transport,
        file: impl Into<SendFile<'_>>,
    ) -> Result<u64> {
        let part = file.into();
        let reads_on = transport.is_reading();
        transport.begin_lending()?;
        let lent = Lent { transport, reads_on };
        transport.pause_reading();
        let descriptor = poll_fn(|cx| transport.poll_drained(cx)).await?;
        let socket = Socket::open(descriptor, None);
        socket.enter(self)?;
        let sent = {
            let mut sending = pin!(socket.sendfile_on(part));
            poll_fn(|cx| match transport.poll_lost(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => sending.as_mut().poll(cx),
            })
            .await
        };
        drop(lent);
        sent
    }
}

/// While a file is sent.
struct Lent<'a> {
    transport: &'a Transport,
    reads_on: bool,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.transport.end_lending();
        if self.reads_on {
            self.transport.resume_reading();
        }
    }
}
