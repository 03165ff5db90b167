//! The socket calls under their names in asyncio, as methods of the loop.

use ringloop_driver::{Chunk, Received};

use super::{Destination, SendFile, Socket};
use crate::{Address, EventLoop, Result};

/// Socket calls: each is the method of [`Socket`] that its text names, on this loop.
impl EventLoop {
    /// As [`Socket::accept`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::net::TcpListener;
    /// use ringloop::{EventLoop, Socket};
    /// use socket2::{Domain, Type};
    ///
    /// let event_loop = EventLoop::running()?;
    /// let listener = Socket::from(TcpListener::bind("127.0.0.1:0")?);
    /// let client = Socket::new(Domain::IPV4, Type::STREAM)?;
    /// event_loop.sock_connect(&client, listener.getsockname()?).await?;
    /// let (server, _address) = event_loop.sock_accept(&listener).await?;
    /// event_loop.sock_sendall(&client, b"pingping").await?;
    /// assert_eq!(event_loop.sock_recv(&server, 4).await?, b"ping");
    /// let mut buffer = [0; 4];
    /// assert_eq!(event_loop.sock_recv_into(&server, &mut buffer).await?, 4);
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn sock_accept(&self, socket: &Socket) -> Result<(Socket, Address)> {
        socket.enter(self)?;
        socket.accept_on().await
    }

    /// As [`Socket::connect`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_connect(
        &self,
        socket: &Socket,
        destination: impl Into<Destination>,
    ) -> Result<()> {
        socket.enter(self)?;
        let address = destination.into().resolve(socket.core.kind()?, self).await?;
        socket.connect_to(address).await
    }

    /// As [`Socket::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// A transport or a TLS stream is no socket:
    ///
    /// ```compile_fail,E0308
    /// # async fn f(event_loop: ringloop::EventLoop, transport: ringloop::Transport) {
    /// event_loop.sock_recv(&transport, 1024).await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_recv(&self, socket: &Socket, most: usize) -> Result<Received> {
        socket.enter(self)?;
        socket.core.recv(most, self.clone()).await
    }

    /// As [`Socket::recv_into`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_recv_into(&self, socket: &Socket, buffer: &mut [u8]) -> Result<usize> {
        socket.enter(self)?;
        socket.core.recv_into(buffer).await
    }

    /// As [`Socket::recvfrom`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::net::UdpSocket;
    /// use ringloop::{EventLoop, Socket};
    ///
    /// let event_loop = EventLoop::running()?;
    /// let one = Socket::from(UdpSocket::bind("127.0.0.1:0")?);
    /// let other = Socket::from(UdpSocket::bind("127.0.0.1:0")?);
    /// event_loop.sock_sendto(&one, b"ping", other.getsockname()?).await?;
    /// event_loop.sock_sendto(&one, b"pong", other.getsockname()?).await?;
    /// let (data, from) = event_loop.sock_recvfrom(&other, 1024).await?;
    /// assert_eq!((&*data, from), (&b"ping"[..], one.getsockname()?));
    /// let mut buffer = [0; 1024];
    /// let (length, _) = event_loop.sock_recvfrom_into(&other, &mut buffer, 1024).await?;
    /// assert_eq!(&buffer[..length], b"pong");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn sock_recvfrom(&self, socket: &Socket, most: usize) -> Result<(Received, Address)> {
        socket.enter(self)?;
        socket.core.recvfrom(most).await
    }

    /// As [`Socket::recvfrom_into`], of up to `most` bytes; zero stands for the length of `buffer`.
    ///
    /// # Errors
    ///
    /// As there; [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `most` is more than the length.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_recvfrom_into(
        &self,
        socket: &Socket,
        buffer: &mut [u8],
        most: usize,
    ) -> Result<(usize, Address)> {
        socket.enter(self)?;
        let len = buffer.len();
        let Some(part) = buffer.get_mut(..if most == 0 { len } else { most }) else {
            let text = format!("nbytes is greater than the length of the buffer ({len})");
            return Err(crate::Error::invalid_argument(text));
        };
        socket.core.recvfrom_into(part).await
    }

    /// As [`Socket::sendall`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_sendall(&self, socket: &Socket, data: impl Into<Chunk<'_>>) -> Result<()> {
        socket.enter(self)?;
        socket.core.sendall(&data.into(), self.clone()).await
    }

    /// As [`Socket::sendto`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    pub async fn sock_sendto(
        &self,
        socket: &Socket,
        data: impl Into<Chunk<'_>>,
        destination: impl Into<Destination>,
    ) -> Result<usize> {
        socket.enter(self)?;
        socket.core.sendto(&data.into(), destination.into(), self.clone()).await
    }

    /// As [`Socket::sendfile`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```compile_fail,E0600
    /// # async fn f(event_loop: ringloop::EventLoop, socket: ringloop::Socket, file: std::fs::File) {
    /// let part = ringloop::SendFile::new(&file).offset(-1u64); // Offsets and counts are unsigned.
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As there: the future may be dropped at any time.
    ///
    /// ```
    /// use std::fs::File;
    /// use ringloop::{EventLoop, SendFile, Socket};
    ///
    /// async fn send_second_page(event_loop: &EventLoop, socket: &Socket) -> ringloop::Result<u64> {
    ///     let file = File::open("/usr/share/dict/words")?;
    ///     let part = SendFile::new(&file).offset(4096).count(4096).fallback(true);
    ///     event_loop.sock_sendfile(socket, part).await
    /// }
    /// ```
    pub async fn sock_sendfile(
        &self,
        socket: &Socket,
        file: impl Into<SendFile<'_>>,
    ) -> Result<u64> {
        socket.enter(self)?;
        socket.core.sendfile(file.into()).await
    }
}
