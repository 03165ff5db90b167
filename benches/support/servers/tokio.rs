//! The server on tokio: a task per connection on the `current_thread` runtime.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use peers_common::{BUFFER, Check, source};
use socket2::Socket;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{Face, Stats};
use crate::cell::{Mode, SMALL};

/// Does what the mode says.
pub(super) fn serve(listener: Socket, face: Face, mode: Mode, verify: bool) -> io::Result<Stats> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let bytes = Arc::new(AtomicU64::new(0));
    let everyone = Everyone::default();
    let mut connections = 0;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let listener = Listener::new(listener, mode)?;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = terminated.recv() => return io::Result::Ok(()),
                _ = interrupted.recv() => return Ok(()),
            };
            connections += 1;
            let total = Arc::clone(&bytes);
            let everyone = Arc::clone(&everyone);
            tokio::spawn(async move {
                let bytes = match stream {
                    Stream::Unix(stream) => echo(stream, face.buffer()).await,
                    Stream::Tcp(stream) => match (mode, face) {
                        (Mode::Lines, Face::Buffered) => answer_lines_together(stream).await,
                        (Mode::Lines, _) => answer_lines(stream).await,
                        (Mode::Small, Face::Buffered) => small_together(stream).await,
                        (Mode::Small, _) => echo(stream, SMALL).await,
                        (Mode::FanOut, _) => fan_out(stream, everyone).await,
                        (Mode::Send, _) => pour(stream).await,
                        (Mode::Receive, _) => sink(stream, face.buffer(), verify).await,
                        _ => echo(stream, face.buffer()).await,
                    },
                };
                total.fetch_add(bytes, Ordering::Relaxed);
            });
        }
    })?;
    let bytes = bytes.load(Ordering::Relaxed);
    Ok(Stats { connections, bytes_in: bytes, bytes_out: bytes, ..Stats::default() })
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    fn new(listener: Socket, mode: Mode) -> io::Result<Self> {
        if mode == Mode::Unix {
            return tokio::net::UnixListener::from_std(UnixListener::from(listener))
                .map(Self::Unix);
        }
        tokio::net::TcpListener::from_std(TcpListener::from(listener)).map(Self::Tcp)
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// One connection, to its end; how many bytes went through. Each write is of `most` bytes at most.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, most: usize) -> u64 {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        for piece in buffer[..count].chunks(most) {
            if stream.write_all(piece).await.is_err() {
                return bytes;
            }
        }
        bytes += count as u64;
    }
    bytes
}

/// Small writes that go out together.
async fn small_together(mut stream: TcpStream) -> u64 {
    let (mut reader, writer) = stream.split();
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        for piece in buffer[..count].chunks(SMALL) {
            if writer.write_all(piece).await.is_err() {
                return bytes;
            }
        }
        if writer.flush().await.is_err() {
            break;
        }
        bytes += count as u64;
    }
    bytes
}

type Everyone = Arc<Mutex<Vec<Arc<Member>>>>;

/// A connection that hears what anybody says.
struct Member {
    stream: TcpStream,
    /// What the socket had no room for.
    unsent: Mutex<Vec<u8>>,
    /// Told when there is some.
    left: Notify,
}

impl Member {
    /// Writes at once; a task for each would have to be woken for each message.
    fn tell(&self, message: &[u8]) {
        let mut unsent = self.unsent.lock().expect("nobody panics");
        let sent = if unsent.is_empty() { self.stream.try_write(message).unwrap_or(0) } else { 0 };
        if sent < message.len() {
            unsent.extend_from_slice(&message[sent..]);
            self.left.notify_one();
        }
    }

    async fn listen(&self, everyone: &Everyone) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut bytes = 0;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => {
                    let everyone = everyone.lock().expect("nobody panics");
                    everyone.iter().for_each(|member| member.tell(&buffer[..count]));
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn flush(&self) -> io::Result<u64> {
        loop {
            self.left.notified().await;
            self.stream.writable().await?;
            let mut unsent = self.unsent.lock().expect("nobody panics");
            match self.stream.try_write(&unsent) {
                Ok(sent) => drop(unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !unsent.is_empty() {
                self.left.notify_one();
            }
        }
    }
}

/// Tells everybody what comes in here.
async fn fan_out(stream: TcpStream, everyone: Everyone) -> u64 {
    let unsent = Mutex::default();
    let member = Arc::new(Member { stream, unsent, left: Notify::new() });
    everyone.lock().expect("nobody panics").push(Arc::clone(&member));
    let ended = tokio::select! {
        biased;
        ended = member.listen(&everyone) => ended,
        failed = member.flush() => failed,
    };
    everyone.lock().expect("nobody panics").retain(|other| !Arc::ptr_eq(other, &member));
    ended.unwrap_or(0)
}

/// Sends for as long as somebody reads.
async fn pour(mut stream: TcpStream) -> u64 {
    let source = source();
    let mut bytes = 0;
    for block in source.chunks(BUFFER).cycle() {
        if stream.write_all(block).await.is_err() {
            break;
        }
        bytes += block.len() as u64;
    }
    bytes
}

async fn sink(mut stream: TcpStream, size: usize, verify: bool) -> u64 {
    let mut check = verify.then(Check::new);
    let mut buffer = vec![0; size];
    let mut bytes = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if let Some(check) = &mut check {
            check.see(&buffer[..count]);
        }
        bytes += count as u64;
    }
    if let Some(check) = check {
        let _ = stream.write_all(&check.answer()).await; // Who does not hear it says so.
    }
    bytes
}

/// The same for one whose messages are lines.
async fn answer_lines(mut stream: TcpStream) -> u64 {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let mut line = Vec::new();
    let mut bytes = 0;
    while let Ok(count @ 1..) = reader.read_until(b'\n', &mut line).await {
        if writer.write_all(&line).await.is_err() {
            break;
        }
        line.clear();
        bytes += count as u64;
    }
    bytes
}

/// The same, but lines that came together are answered together.
async fn answer_lines_together(mut stream: TcpStream) -> u64 {
    let (reader, writer) = stream.split();
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    let mut line = Vec::new();
    let mut bytes = 0;
    while let Ok(count @ 1..) = reader.read_until(b'\n', &mut line).await {
        if writer.write_all(&line).await.is_err() {
            break;
        }
        if reader.buffer().is_empty() && writer.flush().await.is_err() {
            break;
        }
        line.clear();
        bytes += count as u64;
    }
    bytes
}
