//! The server on tokio: a task per connection on the `current_thread` runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{BUFFER, Stats};

/// Sends everything back.
pub(super) fn echo(listener: TcpListener) -> io::Result<Stats> {
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
                total.fetch_add(serve(stream).await, Ordering::Relaxed);
            });
        }
    })?;
    let bytes = bytes.load(Ordering::Relaxed);
    Ok(Stats { connections, bytes_in: bytes, bytes_out: bytes, ..Stats::default() })
}

/// One connection, to its end; how many bytes went through.
async fn serve(mut stream: TcpStream) -> u64 {
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
