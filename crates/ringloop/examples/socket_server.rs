//! The socket server of the founding document: it prints what each client sends and answers "got message", until the client
//! sends "quit" or closes its side.

mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ringloop::{Address, EventLoop, Result, Socket};
use socket2::{Domain, SockRef, Type};

async fn handle_client(client: Socket, address: Address) {
    let shown = support::address(Some(address));
    loop {
        let Ok(received) = client.recv(1024).await else { return };
        if received.is_empty() {
            return; // The client has closed its side: nothing more will come.
        }
        let message = String::from_utf8_lossy(&received);
        support::say(format_args!("got from {shown}: {message}"));
        if client.sendall("got message").await.is_err() || message == "quit" {
            return;
        }
    }
}

async fn accept_clients(listener: Socket) {
    loop {
        match listener.accept().await {
            Ok((client, address)) => {
                let shown = support::address(Some(address.clone()));
                support::say(format_args!("connected to client:  {shown}"));
                drop(ringloop::spawn(handle_client(client, address)));
                ringloop::yield_now().await; // While connections are pending, accept() gives control to nobody.
            }
            Err(error) => {
                eprintln!("accept: {error}");
                ringloop::sleep(Duration::from_secs(1)).await; // Too many open files, perhaps.
            }
        }
    }
}

async fn run_server(address: SocketAddr) -> Result<()> {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM)?;
    listener.with_fd(|fd| SockRef::from(&fd).set_reuse_address(true))??;
    listener.bind(address)?;
    listener.listen(128)?;
    let stop = support::stop_signal()?;
    support::say(format_args!("listening on {}", listener.getsockname()?));
    let accepting = EventLoop::running()?.create_task(accept_clients(listener));
    stop.await?;
    accepting.cancel();
    Ok(())
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let host = line.value("--host", std::net::IpAddr::from([127, 0, 0, 1]));
    let address = SocketAddr::new(host, line.value("--port", 9006));
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(run_server(address)).and_then(|result| result))
}

const USAGE: &str = "\
usage: socket_server [--host ADDRESS] [--port PORT] [--driver DRIVER]

Answers each message of a client until that sends \"quit\" or closes; serves until SIGINT or SIGTERM.

  --host ADDRESS   the IP address to listen on (127.0.0.1)
  --port PORT      the port, 0 for a free one (9006)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
