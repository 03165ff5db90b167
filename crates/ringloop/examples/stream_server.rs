//! The echo server with streams of asyncio's documents: it answers the first message of each client and closes.

mod support;

use std::error::Error;
use std::process::ExitCode;

use ringloop::{Listen, StreamReader, StreamWriter, extra_info, start_server};

async fn handle_echo(reader: StreamReader, writer: StreamWriter) -> Result<(), Box<dyn Error>> {
    let data = reader.read(100).await?;
    let message = support::quoted(std::str::from_utf8(&data)?);
    let peer = support::address(writer.get_extra_info(extra_info::PEERNAME));
    support::say(format_args!("Received {message} from {peer}"));

    support::say(format_args!("Send: {message}"));
    writer.write(data)?;
    writer.drain().await?;

    support::say("Close the connection");
    writer.close();
    writer.wait_closed().await?;
    Ok(())
}

async fn serve(listen: Listen) -> ringloop::Result<()> {
    let server = start_server(handle_echo, listen).await?;
    let address = server.local_addr().map(Into::into);
    let serving = || support::say(format_args!("Serving on {}", support::address(address)));
    support::serve_and_say(&server, serving).await
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let host: String = line.value("--host", "127.0.0.1".to_owned());
    let listen = Listen::on(host, line.value("--port", 8888)).backlog(4096);
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(serve(listen)).and_then(|result| result))
}

const USAGE: &str = "\
usage: stream_server [--host HOST] [--port PORT] [--driver DRIVER]

Sends up to 100 bytes of each client back and closes the connection, until SIGINT or SIGTERM.

  --host HOST      the address to listen on (127.0.0.1)
  --port PORT      the port, 0 for a free one (8888)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
