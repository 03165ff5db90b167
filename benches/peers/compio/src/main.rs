//! The echo server on compio: a task per connection, and an owned buffer that goes to the kernel and comes back.

use std::io;
use std::process::ExitCode;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use peers_common::{BUFFER, Options, announce, end, listen, options};

fn main() -> ExitCode {
    end(serve(options()))
}

fn serve(options: Options) -> io::Result<()> {
    let mut builder = RuntimeBuilder::new();
    if !options.defaults {
        let mut proactor = ProactorBuilder::new();
        proactor.capacity(4096).single_issuer(true).defer_taskrun(true).taskrun_flag(true);
        builder.with_proactor(proactor);
    }
    let runtime = builder.build()?;
    runtime.block_on(async {
        let listener = listen(options.address)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        announce(address);
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let BufResult(result, read) = stream.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            return;
        }
        let BufResult(result, written) = stream.write_all(read).await;
        if result.is_err() {
            return;
        }
        buffer = written;
        buffer.clear();
    }
}
