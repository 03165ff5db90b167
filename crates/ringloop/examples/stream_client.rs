//! The echo client with streams of asyncio's documents: it sends one message and shows what comes back.

mod support;

use std::process::ExitCode;

use ringloop::{Error, Result, Target, open_connection};

async fn tcp_echo_client(target: Target, message: String) -> Result<()> {
    let (reader, writer) = open_connection(target).await?;

    support::say(format_args!("Send: {}", support::quoted(&message)));
    writer.write(&message)?;
    writer.drain().await?;

    let data = reader.read(100).await?;
    let answer = std::str::from_utf8(&data).map_err(Error::other)?;
    support::say(format_args!("Received: {}", support::quoted(answer)));

    support::say("Close the connection");
    writer.close();
    writer.wait_closed().await?;
    Ok(())
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let host: String = line.value("--host", "127.0.0.1".to_owned());
    let target = Target::new(host, line.value("--port", 8888));
    let message = line.value("--message", "Hello World!".to_owned());
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(tcp_echo_client(target, message)).and_then(|result| result))
}

const USAGE: &str = "\
usage: stream_client [--host HOST] [--port PORT] [--message TEXT] [--driver DRIVER]

Sends one message and shows what comes back, up to 100 bytes.

  --host HOST      the address of the server (127.0.0.1)
  --port PORT      its port (8888)
  --message TEXT   what to send (Hello World!)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
