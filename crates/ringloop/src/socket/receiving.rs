//! Receiving, by direct calls, once a poll has found something. Bytes of a stream are received for the call that waits, by the
//! handle that wakes it, and are staged if that call was dropped; a datagram is received by the call itself.

use std::io;
use std::num::NonZeroU32;

use ringloop_driver::Received;
use socket2::SockAddr;

use super::core::Core;
use super::side::{Brought, Wanted};
use super::{Socket, replaced};
use crate::source::Direction;
use crate::{Address, EventLoop, Result};

impl Socket {
    /// Receives up to `most` bytes, at least one; none at the end of the stream. Of a datagram socket, one datagram; what is
    /// longer than `most` is lost.
    ///
    /// They come in the buffer that the kernel has filled, without a copy, and at most one buffer of them (16 KiB) a call. Only
    /// what had come for a dropped call is copied, and what has come since is put behind it. That is right for what is passed on
    /// or kept, and for many connections that wait: none of them holds memory meanwhile.
    /// [`recv_into`](Self::recv_into) is right where there is a slice to be filled, above all a large one. Up to one buffer the
    /// two cost the same as far as could be measured; where 64 KiB are there, four calls of `recv` took 2.2 times
    /// [1.7..2.7] as long as one of `recv_into` (`cargo bench -p ringloop-benches --bench parts -- receive`).
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`; `EBADF` after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// No byte and no datagram is lost: what came too late for a dropped future is the next call's.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    /// use ringloop::Socket;
    ///
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let ours = Socket::from(ours);
    /// theirs.write_all(b"hello")?;
    /// assert_eq!(&*ours.recv(1024).await?, b"hello");
    /// drop(theirs);
    /// assert!(ours.recv(1024).await?.is_empty());
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn recv(&self, most: usize) -> Result<Received> {
        // Not by `Core::recv()`: an async function that awaits another costs each message the steps of both.
        match self.core.recv_here(most)? {
            Now::Done(data) => Ok(data),
            Now::Later(wanted) => received(self.core.turn(Direction::Read, wanted).await?),
            Now::Datagram => Ok(self.core.recv_datagram(most).await?.0),
        }
    }

    /// Receives into `buffer`, and gives the number of bytes: none at the end of the stream.
    ///
    /// It is written to inside the call that completes the future, and at no other time. If there is something already, the
    /// kernel writes there itself, as much as fits; else what comes is copied.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv); `buffer` is unchanged then.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use ringloop::Socket;
    ///
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
    /// ours.sendall(b"ping").await?;
    /// let mut buffer = [0; 16];
    /// assert_eq!(theirs.recv_into(&mut buffer).await?, 4);
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn recv_into(&self, buffer: &mut [u8]) -> Result<usize> {
        self.enter(&EventLoop::running()?)?;
        self.core.recv_into(buffer).await
    }

    /// Receives one datagram of up to `most` bytes, with its sender; the rest of a longer one is lost. It may be empty.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// No datagram is lost: it is taken from the kernel inside the call that completes the future.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::net::UdpSocket;
    /// use ringloop::Socket;
    ///
    /// let one = Socket::from(UdpSocket::bind("127.0.0.1:0")?);
    /// let other = Socket::from(UdpSocket::bind("127.0.0.1:0")?);
    /// assert_eq!(one.sendto(b"ping", other.getsockname()?).await?, 4);
    /// assert_eq!(one.sendto(b"pong", other.getsockname()?).await?, 4);
    /// let (data, from) = other.recvfrom(1024).await?;
    /// assert_eq!((&*data, from), (&b"ping"[..], one.getsockname()?));
    /// let mut buffer = [0; 1024];
    /// let (length, _) = other.recvfrom_into(&mut buffer).await?;
    /// assert_eq!(&buffer[..length], b"pong");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn recvfrom(&self, most: usize) -> Result<(Received, Address)> {
        self.enter(&EventLoop::running()?)?;
        self.core.recvfrom(most).await
    }

    /// As [`recvfrom`](Self::recvfrom), into `buffer`. Gives the number of bytes.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recvfrom`](Self::recvfrom); `buffer` is unchanged then.
    pub async fn recvfrom_into(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        self.enter(&EventLoop::running()?)?;
        self.core.recvfrom_into(buffer).await
    }
}

impl Core {
    /// As far as [`Socket::recv`] comes without waiting; what is in the kernel of a stream is received here.
    #[inline(always)]
    fn recv_now(&self, most: usize, event_loop: &EventLoop) -> Result<Now> {
        if most == 0 {
            return Ok(Now::Done(Received::default())); // As in Python, without a system call.
        }
        if !self.is_stream()? {
            return Ok(Now::Datagram);
        }
        match self.bytes_now(most_of(most), event_loop)? {
            Some(received) => Ok(Now::Done(received?)),
            None => Ok(Now::Later(bytes(most))),
        }
    }

    /// The same, on the loop that runs here.
    #[inline(always)]
    fn recv_here(&self, most: usize) -> Result<Now> {
        self.recv_now(most, &self.enter_running()?)
    }

    pub(super) async fn recv(&self, most: usize, event_loop: EventLoop) -> Result<Received> {
        let now = self.recv_now(most, &event_loop);
        drop(event_loop); // A task must not keep its loop alive.
        match now? {
            Now::Done(data) => Ok(data),
            Now::Later(wanted) => received(self.turn(Direction::Read, wanted).await?),
            Now::Datagram => Ok(self.recv_datagram(most).await?.0),
        }
    }

    pub(super) async fn recv_into(&self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.is_stream()? {
            self.recv_bytes_into(buffer).await
        } else {
            Ok(self.recv_datagram_into(buffer).await?.0)
        }
    }

    pub(super) async fn recvfrom(&self, most: usize) -> Result<(Received, Address)> {
        if self.is_stream()? {
            let brought = self.obtain(Direction::Read, bytes(most)).await?;
            return Ok((received(brought)?, Address::Unnamed));
        }
        self.recv_datagram(most).await
    }

    pub(super) async fn recvfrom_into(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        if self.is_stream()? {
            return Ok((self.recv_bytes_into(buffer).await?, Address::Unnamed));
        }
        self.recv_datagram_into(buffer).await
    }

    async fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = bytes(buffer.len());
        let brought = if self.has_nothing_staged() {
            match self.try_now(|driver, socket| driver.try_recv(socket, buffer)) {
                Err(error) if is_for_later(&error) => self.next(Direction::Read, wanted).await?,
                received => return received,
            }
        } else {
            self.obtain(Direction::Read, wanted).await?
        };
        let data = received(brought)?;
        buffer[..data.len()].copy_from_slice(&data);
        Ok(data.len())
    }

    async fn recv_datagram(&self, most: usize) -> Result<(Received, Address)> {
        loop {
            // Memory for it is there while it is received, not while it is waited for.
            let mut buffer = vec![0; most.min(LONGEST)];
            if let Some((count, sender)) = self.try_recv_datagram(&mut buffer)? {
                buffer.truncate(count);
                buffer.shrink_to_fit(); // The caller may keep many small ones.
                return Ok((buffer.into(), sender));
            }
            drop(buffer);
            self.ready(Direction::Read).await?;
        }
    }

    async fn recv_datagram_into(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        loop {
            if let Some(received) = self.try_recv_datagram(buffer)? {
                return Ok(received);
            }
            self.ready(Direction::Read).await?;
        }
    }

    /// `None` if there is none.
    fn try_recv_datagram(&self, buffer: &mut [u8]) -> Result<Option<(usize, Address)>> {
        match self.try_now(|driver, socket| driver.try_recv_from(socket, buffer)) {
            Err(error) if is_for_later(&error) => Ok(None),
            Err(error) => Err(error),
            Ok((count, sender)) => Ok(Some((count, named(sender.as_ref())))),
        }
    }

    /// Whether all that has come is still in the kernel.
    fn has_nothing_staged(&self) -> bool {
        let side = &self.reading;
        side.is_empty() && (!side.op.is_in_flight() || side.brings.get().stays_in_the_kernel())
    }
}

/// How far a receive comes without waiting.
enum Now {
    Done(Received),
    Later(Wanted),
    Datagram,
}

/// Of a stream; `most` is not zero.
fn bytes(most: usize) -> Wanted {
    Wanted::Bytes(most_of(most))
}

fn most_of(most: usize) -> NonZeroU32 {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN)
}

fn received(brought: Brought) -> Result<Received> {
    match brought {
        Brought::Bytes(received) => Ok(received?),
        _ => Err(replaced()),
    }
}

fn named(sender: Option<&SockAddr>) -> Address {
    sender.map_or(Address::Unnamed, Address::from)
}

/// Not now, but the same call may do better when the socket is ready.
pub(super) fn is_for_later(error: &crate::Error) -> bool {
    match error {
        crate::Error::Io(error) => error.kind() == io::ErrorKind::WouldBlock,
        _ => false,
    }
}

/// Of all datagrams: those of a Unix socket are bounded by its buffers.
const LONGEST: usize = 1 << 24;
