//! The echo server on nuclei: a task per connection, driven by its proactor.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use nuclei::Handle;
use peers_common::{Address, BUFFER, Mode, Options, announce, end, options};

fn main() -> ExitCode {
    end(serve(options(&[Mode::Echo, Mode::Unix])))
}

fn serve(options: Options) -> io::Result<()> {
    if !options.defaults {
        let config = nuclei::config::NucleiConfig {
            iouring: nuclei::config::IoUringConfiguration::interrupt_driven(4096),
        };
        let _ = nuclei::Proactor::with_config(config);
    }
    nuclei::drive(async move {
        let listener = options.address.listen()?;
        announce(&Address::of(&listener)?);
        if options.mode == Mode::Unix {
            let listener = Handle::new(UnixListener::from(listener))?;
            loop {
                let (stream, _) = listener.accept().await?;
                nuclei::spawn(echo(stream)).detach();
            }
        }
        let listener = Handle::new(TcpListener::from(listener))?;
        loop {
            let (stream, _) = listener.accept().await?;
            nuclei::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
