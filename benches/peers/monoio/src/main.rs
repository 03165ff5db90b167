//! The echo server on monoio: a task per connection, and an owned buffer that goes to the kernel and comes back.

use std::io;
use std::process::ExitCode;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use peers_common::{BUFFER, Options, announce, end, listen, options};

fn main() -> ExitCode {
    end(serve(options()))
}

fn serve(options: Options) -> io::Result<()> {
    let mut builder = RuntimeBuilder::<IoUringDriver>::new();
    if !options.defaults {
        let mut flags = io_uring::IoUring::builder();
        flags.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder = builder.with_entries(4096).uring_builder(flags);
    }
    let mut runtime = builder.build()?;
    runtime.block_on(async {
        let listener = listen(options.address)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        announce(address);
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(echo(stream));
        }
    })
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, read) = stream.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            return;
        }
        let (result, written) = stream.write_all(read).await;
        if result.is_err() {
            return;
        }
        buffer = written;
        buffer.clear();
    }
}
