//! The echo server of asyncio's documentation, as it stands there: it answers the first message and closes.
//!
//! One answer is all that it keeps for a client. A server that goes on reading must also stop: see the example `echo`.

mod support;

use std::process::ExitCode;

use ringloop::{EventLoop, Listen, Protocol, ProtocolResult, Received, Transport, extra_info};

struct EchoServerProtocol;

impl Protocol for EchoServerProtocol {
    fn connection_made(&self, transport: &Transport) {
        let peer = support::address(transport.get_extra_info(extra_info::PEERNAME));
        support::say(format_args!("Connection from {peer}"));
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        let message = std::str::from_utf8(&data)?;
        support::say(format_args!("Data received: {message}"));
        support::say(format_args!("Send: {message}"));
        transport.write(&*data)?;
        support::say("Close the client socket");
        transport.close();
        Ok(())
    }
}

async fn serve(listen: Listen) -> ringloop::Result<()> {
    let event_loop = EventLoop::running()?;
    let server = event_loop.create_server(|| EchoServerProtocol, listen).await?;
    support::serve_until_signal(&server).await
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
usage: echo_protocol_server [--host HOST] [--port PORT] [--driver DRIVER]

Sends the first message of each client back and closes the connection, until SIGINT or SIGTERM.

  --host HOST      the address to listen on (127.0.0.1)
  --port PORT      the port, 0 for a free one (8888)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
