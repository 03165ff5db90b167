//! The echo server on nuclei: a task per connection, driven by its proactor.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use nuclei::Handle;
use peers_common::{Address, BUFFER, Mode, Options, announce, end, options};

fn main() -> ExitCode {
    end(serve(options(&[Mode::Echo])))
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
        let listener = Handle::new(TcpListener::from(listener))?;
        loop {
            let (stream, _) = listener.accept().await?;
            nuclei::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: Handle<TcpStream>) {
    let mut buffer = vec![0; BUFFER];
    // An error of the kernel's comes as a count that no buffer holds.
    while let Ok(count @ 1..=BUFFER) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
