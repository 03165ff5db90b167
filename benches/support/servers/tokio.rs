//! The server on tokio: a task per connection on the `current_thread` runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

use super::{BUFFER, Stats};
use crate::cell::{Mode, SMALL};

/// Does what the mode says.
pub(super) fn serve(listener: TcpListener, mode: Mode) -> io::Result<Stats> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let bytes = Arc::new(AtomicU64::new(0));
    let (everyone, _) = broadcast::channel(16);
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
            let everyone = everyone.clone();
            tokio::spawn(async move {
                let bytes = match mode {
                    Mode::Lines => answer_lines(stream).await,
                    Mode::Small => echo(stream, SMALL).await,
                    Mode::FanOut => fan_out(stream, everyone).await,
                    Mode::Send => pour(stream).await,
                    Mode::Receive => sink(stream).await,
                    _ => echo(stream, BUFFER).await,
                };
                total.fetch_add(bytes, Ordering::Relaxed);
            });
        }
    })?;
    let bytes = bytes.load(Ordering::Relaxed);
    Ok(Stats { connections, bytes_in: bytes, bytes_out: bytes, ..Stats::default() })
}

/// One connection, to its end; how many bytes went through. Each write is of `most` bytes at most.
async fn echo(mut stream: TcpStream, most: usize) -> u64 {
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

/// Tells everybody what comes in here, and sends here what anybody tells.
async fn fan_out(stream: TcpStream, everyone: broadcast::Sender<Bytes>) -> u64 {
    let mut told = everyone.subscribe();
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER];
        let mut bytes = 0;
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            let _ = everyone.send(Bytes::copy_from_slice(&buffer[..count])); // This one hears it.
            bytes += count as u64;
        }
        bytes
    });
    while let Ok(message) = told.recv().await {
        if writer.write_all(&message).await.is_err() {
            break;
        }
    }
    reading.await.unwrap_or(0)
}

/// Sends for as long as somebody reads.
async fn pour(mut stream: TcpStream) -> u64 {
    let block = vec![0; BUFFER];
    let mut bytes = 0;
    while stream.write_all(&block).await.is_ok() {
        bytes += BUFFER as u64;
    }
    bytes
}

async fn sink(mut stream: TcpStream) -> u64 {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
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
