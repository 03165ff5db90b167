//! Servers.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Listen, Server, Transport, timeout};
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::python;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{self, connect, drain, drained};
use socket2::{Domain, Socket, Type};

use crate::scenario::{Scenario, excluded, kind_of, py, py_list, replays, running, with_text};

/// A server that writes back what it receives, and the protocols that it has made: `srv0`, `srv1`…
pub(crate) async fn echo_server(s: &Scenario, listen: impl Into<Listen>) -> (Server, Made) {
    let (made, scenario) = (Made::default(), s.clone());
    let all = made.clone();
    let factory = move || {
        let lane = format!("srv{}", all.0.borrow().len());
        let recorder = Rc::new(scenario.recorder().lane(lane).echo());
        all.0.borrow_mut().push(Rc::clone(&recorder));
        recorder
    };
    (running().create_server(factory, listen).await.unwrap(), made)
}

/// What a server's factory has made.
#[derive(Clone, Default)]
pub(crate) struct Made(pub(crate) Rc<RefCell<Vec<Rc<Recorder>>>>);

impl Made {
    pub(crate) fn get(&self, index: usize) -> Rc<Recorder> {
        Rc::clone(&self.0.borrow()[index])
    }
}

/// On a free port of this machine.
pub(crate) const HERE: (&str, u16) = ("127.0.0.1", 0);

/// A connection to `server` that does not block.
pub(crate) fn client(server: &Server) -> Socket {
    connect(server.local_addr().unwrap())
}

// spec: SERVER-01
async fn v01_a_server_echoes_to_the_loop_as_its_client(s: Scenario) {
    let (server, made) = echo_server(&s, HERE).await;
    s.log(format!("serving={} sockets={}", py(server.is_serving()), server.sockets().len()));
    let hello = |transport: &Transport| transport.write(b"hello").unwrap();
    let close = |transport: &Transport, _| {
        transport.close();
        Ok(())
    };
    let recorder = s.recorder().lane("cli").on_made(hello).on_data(close);
    let address = server.local_addr().unwrap();
    let (_transport, protocol) = running().create_connection(|| recorder, address).await.unwrap();
    protocol.lost().await;
    made.get(0).lost().await;
    server.close();
    server.wait_closed().await.unwrap();
    s.log("wait_closed returned");
}

// spec: SERVER-21, SERVER-22, SERVER-23, SERVER-24
async fn v03_a_closed_server_refuses_and_its_connections_go_on(s: Scenario) {
    let (server, made) = echo_server(&s, HERE).await;
    let mut c = client(&server);
    settle().await;
    let address = server.local_addr().unwrap();
    server.close();
    server.close();
    let sockets = if server.sockets().is_empty() { "()" } else { "some" };
    s.log(format!("serving={} sockets={sockets}", py(server.is_serving())));
    s.log(refused(address));
    c.write_all(b"hi").unwrap();
    settle().await;
    s.log(drained(&c));
    drop(c);
    made.get(0).lost().await;
    timeout(SOON, server.wait_closed()).await.unwrap().unwrap();
}

// spec: SERVER-28, SERVER-29
async fn v04_wait_closed_waits_for_the_server_and_its_connections(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let c = client(&server);
    settle().await;
    let waiting = [wait_closed(&server), wait_closed(&server)];
    let done = || py_list(waiting.iter().map(|task| py(task.done())));
    settle().await;
    s.log(format!("open: done={}", done()));
    server.close();
    settle().await;
    s.log(format!("closed, 1 client: done={}", done()));
    drop(c);
    settle().await;
    s.log(format!("no client: done={}", done()));
    server.wait_closed().await.unwrap();
    s.log("third returned");
}

// spec: SERVER-28
async fn v05_without_connections_wait_closed_waits_for_close(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let task = wait_closed(&server);
    settle().await;
    s.log(format!("before close done={}", py(task.done())));
    server.close();
    settle().await;
    s.log(format!("after close done={}", py(task.done())));
}

// spec: SERVER-13, SERVER-20
async fn v06_a_server_that_does_not_serve_yet_refuses(s: Scenario) {
    let (server, made) = echo_server(&s, Listen::from(HERE).start_serving(false)).await;
    let address = server.local_addr().unwrap();
    s.log(format!("serving={}", py(server.is_serving())));
    s.log(refused(address));
    server.start_serving().await.unwrap();
    server.start_serving().await.unwrap();
    s.log(format!("serving={}", py(server.is_serving())));
    let c = client(&server);
    settle().await;
    drop(c);
    made.get(0).lost().await;
    server.close();
}

// spec: SERVER-25, SERVER-26
async fn v07_a_cancelled_serve_forever_closes_the_server(s: Scenario) {
    let (server, _made) = echo_server(&s, Listen::from(HERE).start_serving(false)).await;
    let task = serve_forever(&server);
    turn(2).await;
    s.log(format!("serving={}", py(server.is_serving())));
    let error = server.serve_forever().await.unwrap_err();
    let already = error.to_string().contains("already being awaited");
    s.log(format!("{} already={}", python::kind(&error), py(already)));
    task.cancel();
    s.log(format!("{} serving={}", kind_of(task.await), py(server.is_serving())));
    let error = server.serve_forever().await.unwrap_err();
    let closed = error.to_string().contains("is closed");
    s.log(format!("{} closed={}", python::kind(&error), py(closed)));
}

// spec: SERVER-02, SERVER-03, SERVER-10
async fn v10_contradicting_options_and_used_addresses_are_refused(s: Scenario) {
    let event_loop = running();
    let stream = || sockets::tcp_socket();
    let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    for listen in
        [Listen::from(HERE).sock(stream()), Listen::default(), Listen::default().sock(datagram)]
    {
        let scenario = s.clone();
        let refused = event_loop.create_server(move || scenario.recorder(), listen).await;
        s.log(without_socket(&with_text(refused)));
    }
    excluded!("V10", 4);
    excluded!("V10", 5);
    excluded!("V10", 6);
    let listener = sockets::listener(1);
    let address = sockets::address_of(&listener);
    let scenario = s.clone();
    let error = event_loop.create_server(move || scenario.recorder(), address).await.unwrap_err();
    s.log(with_errno(&error, address.port()));
}

// spec: SERVER-04
async fn v11_each_host_is_bound_once(s: Scenario) {
    let hosts: &[&str] = &["127.0.0.1", "127.0.0.1", "127.0.0.2"];
    let scenario = s.clone();
    let factory = move || scenario.recorder();
    let server = running().create_server(factory, (hosts, 0)).await.unwrap();
    let sockets = server.sockets().into_iter();
    let mut hosts: Vec<_> = sockets
        .map(|socket| format!("'{}'", socket.getsockname().unwrap().as_ip().unwrap().ip()))
        .collect();
    hosts.sort();
    s.log(py_list(hosts));
    server.close();
}

// spec: SERVER-45, SERVER-46, DEBUG-05
async fn v12_a_factory_that_fails_drops_its_connection_only(s: Scenario) {
    s.log_reports();
    let event_loop = running();
    let (scenario, calls) = (s.clone(), Cell::new(0));
    let factory = move || {
        calls.set(calls.get() + 1);
        if calls.get() < 3 { Err("ValueError") } else { Ok(scenario.recorder().lane("srv")) }
    };
    let server = event_loop.create_server(factory, HERE).await.unwrap();
    for debug in [false, true] {
        event_loop.set_debug(debug);
        let c = client(&server);
        settle().await;
        s.log(format!("debug={} peer={}", py(debug), drained(&c)));
    }
    event_loop.set_debug(false);
    let c = client(&server);
    settle().await;
    drop(c);
    settle().await;
    server.close();
}

// spec: SERVER-32, SERVER-34, RISK-31
async fn v15_a_connection_accepted_by_a_server_that_closes_is_dropped(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let c = client(&server);
    turn(2).await;
    server.close();
    settle().await;
    let made = s.trace.lines().iter().any(|line| line.contains("connection_made"));
    s.log(format!("made={} peer={}", py(made), drain(&c).1.text()));
    timeout(SOON, server.wait_closed()).await.unwrap().unwrap();
}

// spec: SERVER-26
async fn v16_a_cancelled_serve_forever_waits_for_its_connections(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let c = client(&server);
    let task = serve_forever(&server);
    settle().await;
    task.cancel();
    settle().await;
    s.log(format!("done={} serving={}", py(task.done()), py(server.is_serving())));
    drop(c);
    settle().await;
    s.log(format!("done={} cancelled={}", py(task.done()), py(task.cancelled())));
}

// spec: SERVER-28
async fn v17_wait_closed_after_close_waits_for_the_connections(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let c = client(&server);
    settle().await;
    server.close();
    let task = wait_closed(&server);
    settle().await;
    s.log(format!("done={}", py(task.done())));
    drop(c);
    settle().await;
    s.log(format!("done={}", py(task.done())));
}

replays! {
    plain: [],
    tasks: [],
    transports: [
        v01_a_server_echoes_to_the_loop_as_its_client,
        v03_a_closed_server_refuses_and_its_connections_go_on,
        v04_wait_closed_waits_for_the_server_and_its_connections,
        v05_without_connections_wait_closed_waits_for_close,
        v06_a_server_that_does_not_serve_yet_refuses,
        v07_a_cancelled_serve_forever_closes_the_server,
        v10_contradicting_options_and_used_addresses_are_refused,
        v11_each_host_is_bound_once,
        v12_a_factory_that_fails_drops_its_connection_only,
        v15_a_connection_accepted_by_a_server_that_closes_is_dropped,
        v16_a_cancelled_serve_forever_waits_for_its_connections,
        v17_wait_closed_after_close_waits_for_the_connections,
    ],
    over_tcp: [],
}

/// A task in `serve_forever()`.
pub(crate) fn serve_forever(server: &Server) -> ringloop::Task<ringloop::Result<()>> {
    let server = server.clone();
    running().create_task(async move { server.serve_forever().await })
}

fn wait_closed(server: &Server) -> ringloop::Task<()> {
    let server = server.clone();
    running().create_task(async move { server.wait_closed().await.unwrap() })
}

/// How a connect fails.
fn refused(address: SocketAddr) -> String {
    kind_of(TcpStream::connect(address))
}

/// A refused argument, without the description of the socket.
pub(crate) fn without_socket(text: &str) -> &str {
    text.split(", got").next().expect("a split has a first part")
}

/// Kind and text of an error that names a port.
pub(crate) fn with_errno(error: &ringloop::Error, port: u16) -> String {
    let text = error.to_string().replace(&port.to_string(), "PORT");
    format!("{} {text}", python::kind(error))
}

/// For what must not hang.
const SOON: Duration = Duration::from_secs(10);
