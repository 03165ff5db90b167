//! An echo server: whatever a client sends, it gets back.
//!
//! A client that does not read its answers is read from no further, so it cannot make the server large.

mod support;

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use ringloop::{EventLoop, Listen, Protocol, ProtocolResult, Received, Transport, WriteMode};

struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }

    // The client reads more slowly than it sends: it gets no more answers to wait for.
    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }
}

async fn serve(listen: Listen, with_stats: bool) -> ringloop::Result<()> {
    let event_loop = EventLoop::running()?;
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    let factory = move || {
        counted.set(counted.get() + 1);
        Echo
    };
    let server = event_loop.create_server(factory, listen).await?;
    support::serve_until_signal(&server).await?;
    if with_stats {
        support::say(support::stats(connections.get(), &event_loop.counters()));
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let write_mode = match &*line.value("--write-mode", "batched".to_owned()) {
        "batched" => WriteMode::Batched,
        "immediate" => WriteMode::Immediate,
        other => line.refuse(format_args!("no write mode is called {other}")),
    };
    let host: String = line.value("--host", "127.0.0.1".to_owned());
    let listen = Listen::on(host, line.value("--port", 8888)).backlog(4096).write_mode(write_mode);
    let with_stats = line.flag("--stats");
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(serve(listen, with_stats)).and_then(|result| result))
}

const USAGE: &str = "\
usage: echo [--host HOST] [--port PORT] [--write-mode MODE] [--driver DRIVER] [--stats]

Sends back what each client sends, until SIGINT or SIGTERM.

  --host HOST        the address to listen on (127.0.0.1)
  --port PORT        the port, 0 for a free one (8888)
  --write-mode MODE  batched: with the iteration's one system call; immediate: inside write()
  --driver DRIVER    uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)
  --stats            write what the loop has counted as a last line of JSON";
