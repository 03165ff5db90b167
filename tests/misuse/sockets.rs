//! Sockets without a transport, and files that are sent: waited for by tasks, polled by nobody's waker, given away.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringloop::{EventLoop, SendFile, Socket, Target, Unclaimed, timeout};
use ringloop_tests::sockets::{pair, tcp_pair};
use socket2::{Domain, Type};

use crate::acts::connect;
use crate::bodies::SHORT;
use crate::values::{OwnedBytes, RudeWaker, SendBomb, user_code};
use crate::world::World;

/// A future that nobody awaits: it is polled now and then, and dropped at any moment.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = ()>>>;

/// One call on some socket, awaited for a short time.
pub(crate) async fn use_socket(world: &Rc<World>) {
    let Some(socket) = world.sockets.any(world) else { return open_socket(world) };
    match world.below(12) {
        0 => open_socket(world),
        1..=7 => drop(timeout(SHORT, one_call(Rc::clone(world), socket)).await),
        8 => {
            if let Ok(client) = Socket::new(Domain::IPV4, Type::STREAM) {
                let address = world.servers.any(world).and_then(|server| server.local_addr());
                let refused = ([127, 0, 0, 1], 1).into();
                drop(timeout(SHORT, client.connect(address.unwrap_or(refused))).await);
                world.sockets.put(Rc::new(client));
            }
        }
        9 => {
            let Ok(listener) = socket2::Socket::new(Domain::IPV4, Type::STREAM, None) else {
                return;
            };
            let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
            if listener.bind(&any.into()).and_then(|()| listener.listen(8)).is_ok() {
                let address = listener.local_addr();
                world.sockets.put(Rc::new(listener.into()));
                if let (Ok(address), Ok(peer)) =
                    (address, socket2::Socket::new(Domain::IPV4, Type::STREAM, None))
                {
                    let connected =
                        peer.connect(&address).and_then(|()| peer.set_nonblocking(true));
                    drop(connected.map(|()| world.peers.put(peer)));
                }
            }
        }
        _ => {
            let transport = world.transports.any(world);
            let (Some(transport), Some(event_loop)) = (transport, world.event_loop()) else {
                return;
            };
            let Ok(file) = File::open("/proc/self/exe") else { return };
            let part = SendFile::new(&file).count(1 + world.below(300_000) as u64);
            drop(timeout(SHORT, event_loop.sendfile(&transport, part)).await);
        }
    }
}

/// What needs no task.
pub(crate) fn act_on_socket(world: &Rc<World>, event_loop: &EventLoop) {
    let Some(socket) = world.sockets.take(world) else { return open_socket(world) };
    match world.below(10) {
        0 => socket.close(),
        1 => drop(socket.shutdown(Shutdown::Write)),
        2 => drop(format!("{socket:?}")),
        3 | 4 => {
            let call = one_call(Rc::clone(world), Rc::clone(&socket));
            world.waiting.put(Box::pin(call));
        }
        5 | 6 => poll_one(world),
        7 => {
            if let Ok(socket) = Rc::try_unwrap(socket) {
                let given: std::io::Result<(OwnedFd, Unclaimed)> = socket.into_std();
                if let (Ok((fd, _unclaimed)), true) = (given, world.once_in(2)) {
                    world.sockets.put(Rc::new(fd.into()));
                }
            }
            return;
        }
        8 => {
            if let Ok(socket) = Rc::try_unwrap(socket) {
                connect(world, event_loop, Target::from(socket));
            }
            return;
        }
        _ => return drop(socket),
    }
    world.sockets.put(socket);
}

fn open_socket(world: &World) {
    let (a, b) = if world.once_in(3) { tcp_pair() } else { pair() };
    world.sockets.put(Rc::new(Socket::from(OwnedFd::from(a))));
    if world.once_in(2) {
        world.peers.put(b);
    } else {
        world.sockets.put(Rc::new(Socket::from(OwnedFd::from(b))));
    }
}

async fn one_call(world: Rc<World>, socket: Rc<Socket>) {
    match world.below(9) {
        0 | 1 => {
            if let Ok(lease) = socket.recv(1 + world.below(5000)).await {
                world.leases.put(lease);
            }
        }
        2 => drop(socket.recv_into(&mut vec![0; world.below(3000)]).await),
        3 => drop(socket.sendall(OwnedBytes::bytes(world.below(300_000))).await),
        4 => drop(socket.sendall(&[b's'; 60_000][..world.below(60_000)]).await),
        5 => drop(socket.recvfrom(1 + world.below(5000)).await),
        6 => drop(socket.sendto(OwnedBytes::bytes(9), ("127.0.0.1", 9)).await),
        7 => {
            if let Ok((accepted, _)) = socket.accept().await {
                world.sockets.put(Rc::new(accepted));
            }
        }
        _ => {
            let Ok(file) = File::open("/proc/self/exe") else { return };
            let part = SendFile::new(&file).count(1 + world.below(300_000) as u64);
            drop(socket.sendfile(part).await);
        }
    }
    user_code(2, 12);
}

/// Polls a future that nobody awaits, with a waker that acts and panics.
fn poll_one(world: &World) {
    let Some(mut future) = world.waiting.take(world) else { return };
    let waker = Waker::from(Arc::new(RudeWaker(SendBomb)));
    if future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        world.waiting.put(future);
    }
}
