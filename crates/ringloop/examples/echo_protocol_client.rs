//! The echo client of asyncio's documentation, as it stands there: it sends one message and waits until the server closes.

mod support;

use std::io;
use std::process::ExitCode;

use ringloop::{EventLoop, LoopFuture, Protocol, ProtocolResult, Received, Target, Transport};

struct EchoClientProtocol {
    message: String,
    on_con_lost: LoopFuture<()>,
}

impl Protocol for EchoClientProtocol {
    fn connection_made(&self, transport: &Transport) {
        transport.write(&self.message).ok(); // It fails after write_eof() only.
        support::say(format_args!("Data sent: {}", self.message));
    }

    fn data_received(&self, _: &Transport, data: Received) -> ProtocolResult {
        support::say(format_args!("Data received: {}", std::str::from_utf8(&data)?));
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        support::say("The server closed the connection");
        self.on_con_lost.set_result(()).ok(); // Nobody waits any more if it was cancelled.
    }
}

async fn talk(target: Target, message: String) -> ringloop::Result<()> {
    let event_loop = EventLoop::running()?;
    let on_con_lost = event_loop.create_future();
    let protocol = EchoClientProtocol { message, on_con_lost: on_con_lost.clone() };
    let (transport, _) = event_loop.create_connection(|| protocol, target).await?;
    on_con_lost.await?;
    transport.close();
    Ok(())
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let host: String = line.value("--host", "127.0.0.1".to_owned());
    let target = Target::new(host, line.value("--port", 8888));
    let message = line.value("--message", "Hello World!".to_owned());
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(talk(target, message)).and_then(|result| result))
}

const USAGE: &str = "\
usage: echo_protocol_client [--host HOST] [--port PORT] [--message TEXT] [--driver DRIVER]

Sends one message and shows what comes back.

  --host HOST      the address of the server (127.0.0.1)
  --port PORT      its port (8888)
  --message TEXT   what to send (Hello World!)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
