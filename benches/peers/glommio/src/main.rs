//! The echo server on glommio: a task per connection on one executor.

use std::net::SocketAddr;
use std::process::ExitCode;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use peers_common::{BUFFER, Options, announce, end, options};

fn main() -> ExitCode {
    end(serve(options()))
}

fn serve(options: Options) -> glommio::Result<(), ()> {
    let mut builder = LocalExecutorBuilder::new(Placement::Unbound);
    if !options.defaults {
        builder = builder.ring_depth(4096).io_memory(10 << 20);
    }
    let executor = builder.make()?;
    executor.run(accept(options.address))
}

/// glommio makes its own listener; what the others set on theirs is set on each connection here.
async fn accept(address: SocketAddr) -> glommio::Result<(), ()> {
    let listener = TcpListener::bind(address)?;
    announce(listener.local_addr()?);
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        glommio::spawn_local(echo(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
