//! Making connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ringloop::extra_info::{PEERNAME, SOCKNAME};
use ringloop::{
    AddrInfo, AddrRequest, Address, ConnectFuture, Connector, EventLoop, ResolveFuture, Resolver,
    Target, sleep,
};
use ringloop_tests::sockets::{self, bound};
use socket2::{Domain, Socket, Type};

use crate::scenario::{Scenario, excluded, py, replays, running, with_text};
use crate::servers::{HERE, echo_server, with_errno, without_socket};

// spec: CONN-08
async fn c01_a_refused_connection_gives_its_own_error(s: Scenario) {
    let address = refusing();
    let recorder = s.recorder();
    let error = running().create_connection(|| recorder, address).await.unwrap_err();
    s.log(with_errno(&error, address.port()));
}

// spec: CONN-05
async fn c03_the_second_address_is_tried_when_the_first_fails(s: Scenario) {
    let event_loop = running();
    let (server, made) = echo_server(&s, HERE).await;
    let port = server.local_addr().unwrap().port();
    resolve_to(&event_loop, [local(9, port), local(1, port)]);
    let (recorder, target) = (s.recorder().lane("cli"), Target::new("name", port));
    let (transport, protocol) = event_loop.create_connection(|| recorder, target).await.unwrap();
    s.log(ip_of(transport.get_extra_info(PEERNAME)));
    transport.close();
    protocol.lost().await;
    made.get(0).lost().await;
    server.close();
}

/// Has the attempt to reach 127.0.0.9 wait, and logs all of them.
struct Slow(Scenario);

impl Connector for Slow {
    fn connect(&self, address: &Address, connect: ConnectFuture) -> ConnectFuture {
        let (scenario, ip) = (self.0.clone(), ip_of(Some(address.clone())));
        Box::pin(async move {
            scenario.trace.log("att", format!("attempt {ip}"));
            if ip == "127.0.0.9" {
                let _cancelled = LogOnDrop(scenario, "attempt 127.0.0.9 cancelled");
                sleep(Duration::from_secs(10)).await;
            }
            connect.await
        })
    }
}

/// Where Python's attempt sees a `CancelledError`, ours is dropped.
struct LogOnDrop(Scenario, &'static str);

impl Drop for LogOnDrop {
    fn drop(&mut self) {
        self.0.trace.log("att", self.1);
    }
}

// spec: SOCK-34, CONN-11
async fn c04_a_slow_first_address_is_overtaken(s: Scenario) {
    let event_loop = running();
    let (server, made) = echo_server(&s, HERE).await;
    let port = server.local_addr().unwrap().port();
    resolve_to(&event_loop, [local(9, port), local(1, port)]);
    event_loop.set_connector(Rc::new(Slow(s.clone())));
    let delay = Duration::from_millis(50);
    let (recorder, target) =
        (s.recorder().lane("cli"), Target::new("name", port).happy_eyeballs_delay(delay));
    let start = event_loop.time();
    let (transport, protocol) = event_loop.create_connection(|| recorder, target).await.unwrap();
    let waited = event_loop.time() - start;
    let waited_delay = delay <= waited && waited < Duration::from_secs(10);
    let ip = ip_of(transport.get_extra_info(PEERNAME));
    s.log(format!("{ip} waited_delay={}", py(waited_delay)));
    transport.close();
    protocol.lost().await;
    made.get(0).lost().await;
    server.close();
}

// spec: CONN-02
async fn c06_contradicting_options_are_refused(s: Scenario) {
    let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    let targets = [
        Target::new("h", 1).sock(sockets::tcp_socket()),
        Target::default(),
        Target::default().sock(datagram),
    ];
    for target in targets {
        let recorder = s.recorder();
        let refused = running().create_connection(|| recorder, target).await;
        s.log(without_socket(&with_text(refused)));
    }
    excluded!("C06", 4);
    excluded!("C06", 5);
    excluded!("C06", 6);
    excluded!("C06", 7);
    excluded!("C06", 8);
}

// spec: CONN-07
async fn c07_a_local_address_is_bound_first(s: Scenario) {
    let event_loop = running();
    let (server, made) = echo_server(&s, HERE).await;
    let address = server.local_addr().unwrap();
    let target = || Target::new("127.0.0.1", address.port());
    let recorder = s.recorder().lane("cli");
    let from = target().local_addr("127.0.0.5", 0);
    let (transport, protocol) = event_loop.create_connection(|| recorder, from).await.unwrap();
    s.log(ip_of(transport.get_extra_info(SOCKNAME)));
    transport.close();
    protocol.lost().await;
    let (recorder, from) = (s.recorder(), target().local_addr("127.0.0.1", address.port()));
    let error = event_loop.create_connection(|| recorder, from).await.unwrap_err();
    s.log(with_errno(&error, address.port()));
    made.get(0).lost().await;
    server.close();
}

replays! {
    plain: [],
    tasks: [],
    transports: [
        c01_a_refused_connection_gives_its_own_error,
        c03_the_second_address_is_tried_when_the_first_fails,
        c04_a_slow_first_address_is_overtaken,
        c06_contradicting_options_are_refused,
        c07_a_local_address_is_bound_first,
    ],
    over_tcp: [],
}

/// Knows the same addresses for every name.
struct Fixed(Vec<SocketAddr>);

impl Resolver for Fixed {
    fn getaddrinfo(&self, _: &EventLoop, _: AddrRequest) -> ResolveFuture {
        let found = self.0.iter().map(|&address| AddrInfo::stream(address)).collect();
        Box::pin(async move { Ok(found) })
    }
}

/// Has every name resolved to `addresses`.
pub(crate) fn resolve_to(event_loop: &EventLoop, addresses: impl Into<Vec<SocketAddr>>) {
    event_loop.set_resolver(Rc::new(Fixed(addresses.into())));
}

/// 127.0.0.`last`.
pub(crate) fn local(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// An address of this machine at which nobody listens.
pub(crate) fn refusing() -> SocketAddr {
    sockets::address_of(&bound())
}

fn ip_of(address: Option<Address>) -> String {
    address.unwrap().as_ip().unwrap().ip().to_string()
}
