//! The echo server on nuclei: a task per connection, driven by its proactor.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use nuclei::Handle;
use peers_common::{BUFFER, Options, announce, end, listen, options};

fn main() -> ExitCode {
    end(serve(options()))
}

fn serve(options: Options) -> io::Result<()> {
    if !options.defaults {
        let config = nuclei::config::NucleiConfig {
            iouring: nuclei::config::IoUringConfiguration::interrupt_driven(4096),
        };
        let _ = nuclei::Proactor::with_config(config);
    }
    nuclei::drive(async move {
        let listener = listen(options.address)?;
        announce(listener.local_addr()?);
        let listener: Handle<TcpListener> = Handle::new(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            nuclei::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: Handle<TcpStream>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
