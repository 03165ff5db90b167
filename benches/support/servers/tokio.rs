//! The server on tokio: a task per connection on the `current_thread` runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{BUFFER, Stats};
use crate::cell::Mode;

/// Sends everything back, as it comes or line by line.
pub(super) fn serve(listener: TcpListener, mode: Mode) -> io::Result<Stats> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let bytes = Arc::new(AtomicU64::new(0));
    let mut connections = 0;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?.0,
                _ = terminated.recv() => return io::Result::Ok(()),
                _ = interrupted.recv() => return Ok(()),
            };
            connections += 1;
            let total = Arc::clone(&bytes);
            tokio::spawn(async move {
                let bytes = match mode {
                    Mode::Echo => echo(stream).await,
                    Mode::Lines => answer_lines(stream).await,
                };
                total.fetch_add(bytes, Ordering::Relaxed);
            });
        }
    })?;
    let bytes = bytes.load(Ordering::Relaxed);
    Ok(Stats { connections, bytes_in: bytes, bytes_out: bytes, ..Stats::default() })
}

/// One connection, to its end; how many bytes went through.
async fn echo(mut stream: TcpStream) -> u64 {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        bytes += count as u64;
    }
    bytes
}

/// The same for one whose messages are lines.
async fn answer_lines(mut stream: TcpStream) -> u64 {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let mut line = String::new();
    let mut bytes = 0;
    while let Ok(count @ 1..) = reader.read_line(&mut line).await {
        if writer.write_all(line.as_bytes()).await.is_err() {
            break;
        }
        line.clear();
        bytes += count as u64;
    }
    bytes
}
