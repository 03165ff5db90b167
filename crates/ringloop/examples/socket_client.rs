//! The socket client of the founding document: it sends each line of its standard input and shows the answer, until the line
//! "quit" or the end of the input.

mod support;

use std::io::{self, BufRead};
use std::process::ExitCode;

use ringloop::{EventLoop, Result, Socket};
use socket2::{Domain, Type};

async fn request(host: String, port: u16) -> Result<()> {
    let client = Socket::new(Domain::IPV4, Type::STREAM)?;
    client.connect((host, port)).await?;
    client.sendall("ack from client connect success").await?;
    support::say(String::from_utf8_lossy(&client.recv(1024).await?));
    while let Some(message) = next_line().await? {
        if message.is_empty() {
            continue; // There is nothing to send, and nothing would be answered.
        }
        client.sendall(&message).await?;
        if message == "quit" {
            break;
        }
        let answer = client.recv(1024).await?;
        if answer.is_empty() {
            support::say("the server closed the connection");
            break;
        }
        let answer = String::from_utf8_lossy(&answer);
        support::say(format_args!("got message from server:  {answer}"));
    }
    Ok(())
}

/// The next line of the standard input, read on a thread: the loop goes on meanwhile.
async fn next_line() -> Result<Option<String>> {
    let reading = EventLoop::running()?.run_in_executor(|| {
        let mut line = String::new();
        let count = io::stdin().lock().read_line(&mut line)?;
        Ok::<_, io::Error>((count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    });
    Ok(reading.await??)
}

fn main() -> ExitCode {
    let mut line = support::CommandLine::new(USAGE);
    let host: String = line.value("--host", "127.0.0.1".to_owned());
    let port = line.value("--port", 9006);
    let builder = line.builder();
    line.finish();
    support::exit_code(builder.run(request(host, port)).and_then(|result| result))
}

const USAGE: &str = "\
usage: socket_client [--host HOST] [--port PORT] [--driver DRIVER]

Sends the lines of its standard input, each as one message, and shows what comes back; ends with the line \"quit\".

  --host HOST      the IPv4 address or name of the server (127.0.0.1)
  --port PORT      its port (9006)
  --driver DRIVER  uring, epoll, or auto: io_uring where it can be had (as RINGLOOP_DRIVER says)";
