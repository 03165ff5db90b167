//! What a program may do, wherever it is just called from.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use ringloop::extra_info::{ExtraKey, SOCKNAME};
use ringloop::{
    AddrInfo, AddrRequest, Address, AsyncFd, Chunk, ConnectFuture, Connector, Error, EventLoop,
    Exclusive, Listen, ResolveFuture, Resolver, Target, Transport, Upgrade, WriteMode, yield_now,
};
use ringloop_tests::sockets::{pair, reset, tcp_pair};
use socket2::Domain;

use crate::bodies::{act_on_meeting, body};
use crate::guests::{Arrival, Guest, any_guest};
use crate::sockets::act_on_socket;
use crate::values::{
    OwnedBytes, Owner, Rude, RudeWaker, SendBomb, Value, panic_once_in, user_code,
};
use crate::world::World;

/// Does something, unless the program is at its end or deep in acts.
pub(crate) fn act(world: &Rc<World>) {
    let (budget, depth) = (world.budget.get(), world.depth.get());
    if budget == 0 || depth == DEEPEST {
        return;
    }
    world.budget.set(budget - 1);
    world.acts.set(world.acts.get() + 1);
    world.depth.set(depth + 1);
    let _depth = Back(&world.depth, depth);
    let Some(event_loop) = world.event_loop() else { return };
    match world.below(11) {
        0..=4 => match world.transports.any(world) {
            Some(transport) => act_on_transport(world, &transport),
            None => open(world, &event_loop),
        },
        5 => act_on_peer(world),
        6 => open(world, &event_loop),
        7 | 8 => act_on_loop(world, &event_loop),
        9 => act_on_socket(world, &event_loop),
        _ => act_on_future(world, &event_loop),
    }
}

struct Back<'a>(&'a Cell<usize>, usize);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

fn act_on_transport(world: &Rc<World>, transport: &Transport) {
    let below = |end| world.below(end);
    // Only a `write_eof()` before, or an iterator that panics, makes a write fail.
    match below(34) {
        0 | 1 => transport.close(),
        2 => transport.abort(),
        3 => transport.pause_reading(),
        4 | 5 => transport.resume_reading(),
        6 => drop(transport.write(&[b'c'; 30_000][..below(300)])),
        7 => drop(transport.write(vec![b'v'; below(60_000)])),
        8 | 9 => drop(transport.write(OwnedBytes::bytes(below(600)))),
        10 => drop(transport.write(OwnedBytes::bytes(below(300_000)))),
        11 => drop(transport.writelines((0..below(6)).map(|_| {
            user_code(6, 20);
            OwnedBytes::bytes(world.below(2000))
        }))),
        12 => drop(transport.writelines([&b"one"[..], b"", b"two"])),
        13 => {
            if let Some(lease) = world.leases.take(world) {
                drop(transport.write(lease));
            }
        }
        14 => drop(transport.write_eof()),
        15 => {
            drop(transport.write(OwnedBytes::bytes(below(200_000))));
            transport.close();
        }
        16 | 17 => replace_protocol(world, transport),
        18 | 19 => upgrade(world, transport),
        20 | 21 => {
            let limits = [None, Some(0), Some(1), Some(below(9000)), Some(usize::MAX)];
            drop(transport.set_write_buffer_limits(limits[below(5)], limits[below(5)]));
        }
        22 => drop(transport.get_write_buffer_size()),
        23 => transport.set_write_mode([WriteMode::Batched, WriteMode::Immediate][below(2)]),
        24 | 25 => transport.set_extra_info(EXTRA, Rc::new(Value(world.owner()))),
        26 => drop(transport.get_extra_info(EXTRA_CLONED)),
        27 => transport.set_extra_info(EXTRA_CLONED, Value(world.owner())),
        28 => drop(transport.get_protocol()),
        29 => drop(format!("{transport:?} {:?}", transport.get_extra_info(SOCKNAME))),
        30 => drop(world.transports.take(world)),
        31 => drop(transport.write(Chunk::from(Bytes::new()))),
        32 => drop(world.leases.take(world)),
        _ => drop(transport.get_extra_info(EXTRA)),
    }
}

fn replace_protocol(world: &Rc<World>, transport: &Transport) {
    let old = transport.get_protocol();
    transport.set_protocol(any_guest(world, Arrival::Silent));
    // The old one may live a little longer.
    drop(old);
}

fn upgrade(world: &Rc<World>, transport: &Transport) {
    let announced = world.once_in(2);
    let arrival = if announced { Arrival::Announced } else { Arrival::Silent };
    let mut upgrade = Upgrade::to(any_guest(world, arrival));
    if announced {
        upgrade = upgrade.connection_made();
    }
    if world.once_in(3) {
        upgrade = upgrade.unread(OwnedBytes::bytes(world.below(3000)));
    }
    let old = transport.upgrade(upgrade);
    if !announced && world.once_in(2) {
        transport.resume_reading();
    }
    drop(old);
}

/// An error shows that the connection is over, which a peer need not notice.
fn act_on_peer(world: &Rc<World>) {
    let Some(mut peer) = world.peers.take(world) else { return };
    match world.below(8) {
        0 | 1 => drop(peer.read(&mut [0; 4096])),
        2 => {
            let mut all = Vec::new();
            drop(peer.read_to_end(&mut all));
        }
        3 | 4 => drop(peer.write(&[b'p'; 5000][..world.below(5000)])),
        5 => drop(peer.shutdown(Shutdown::Write)),
        6 if peer.domain().is_ok_and(|domain| domain == Domain::IPV4) => return reset(peer),
        6 => return drop(peer),
        _ => {}
    }
    world.peers.put(peer);
}

/// A connection, of which one side or both are transports.
fn open(world: &Rc<World>, event_loop: &EventLoop) {
    match world.below(6) {
        0 => {
            let Some(server) = world.servers.any(world) else { return serve(world, event_loop) };
            match world.below(6) {
                0 => server.close_clients(),
                1 => server.abort_clients(),
                2 if world.once_in(3) => server.close(),
                _ => {
                    if let Some(address) = server.local_addr() {
                        connect(world, event_loop, Target::from(address));
                    }
                }
            }
        }
        1 => {
            let (a, b) = tcp_pair();
            world.peers.put(b);
            connect(world, event_loop, a.into());
        }
        2 => {
            let (a, b) = if world.once_in(3) { tcp_pair() } else { pair() };
            connect(world, event_loop, a.into());
            connect(world, event_loop, b.into());
        }
        3 => {
            let host = ["127.0.0.1", "x\0"][world.below(2)];
            connect(world, event_loop, Target::new(host, 1));
        }
        _ => {
            let (a, b) = pair();
            world.peers.put(b);
            connect(world, event_loop, a.into());
        }
    }
}

pub(crate) fn connect(world: &Rc<World>, event_loop: &EventLoop, target: Target) {
    let mode = [WriteMode::Batched, WriteMode::Immediate][world.below(2)];
    let target = target.write_mode(mode);
    let (this, guests, owner) = (event_loop.downgrade(), Rc::clone(world), world.owner());
    let kind = world.below(3);
    spawn(world, event_loop, async move {
        let Some(event_loop) = this.upgrade() else { return Value(owner) };
        let fails = guests.once_in(20);
        let factory = move || {
            user_code(8, 20);
            if fails { Err(Rude(SendBomb)) } else { Ok(Guest::new(&guests, Arrival::Announced)) }
        };
        let held = match kind {
            0 => {
                let exclusive = || Ok::<_, Rude>(Exclusive::new(factory()?));
                made(event_loop.create_connection(exclusive, target).await)
            }
            _ => made(event_loop.create_connection(factory, target).await),
        };
        drop(event_loop);
        if let Some(transport) = held {
            yield_now().await;
            user_code(2, 10);
            drop(transport);
        }
        Value(owner)
    });
}

fn made<P>(result: Result<(Transport, Rc<P>), Error>) -> Option<Transport> {
    Some(result.ok()?.0)
}

fn serve(world: &Rc<World>, event_loop: &EventLoop) {
    let (this, guests, owner) = (event_loop.downgrade(), Rc::clone(world), world.owner());
    let factory_owner = world.owner();
    spawn(world, event_loop, async move {
        let Some(event_loop) = this.upgrade() else { return Value(owner) };
        let keeps = Rc::clone(&guests);
        let factory = move || {
            let _owner = &factory_owner;
            user_code(8, 12);
            match guests.below(12) {
                0 => Err(Rude(SendBomb)),
                _ => Ok(Guest::new(&guests, Arrival::Announced)),
            }
        };
        let listen = Listen::from(("127.0.0.1", 0)).backlog(64);
        if let Ok(server) = event_loop.create_server(factory, listen).await {
            keeps.serves(server);
        }
        Value(owner)
    });
}

fn spawn(world: &Rc<World>, event_loop: &EventLoop, body: impl Future<Output = Value> + 'static) {
    world.tasks.put(event_loop.create_task(body));
}

fn act_on_loop(world: &Rc<World>, event_loop: &EventLoop) {
    let owner = world.owner();
    let callback = move |_: &EventLoop| {
        let _owner = owner;
        user_code(1, 8);
    };
    match world.below(24) {
        0..=2 => drop(event_loop.call_soon(callback).map(|handle| world.handles.put(handle))),
        3 => {
            let delay = [Duration::ZERO, Duration::from_micros(200), Duration::MAX][world.below(3)];
            drop(event_loop.call_later(delay, callback).map(|timer| world.timers.put(timer)));
        }
        4 => {
            let past = event_loop.time().checked_sub(Duration::from_secs(1));
            let when = past.unwrap_or_else(|| event_loop.time());
            drop(event_loop.call_at(when, callback).map(|timer| world.timers.put(timer)));
        }
        5 | 6 => drop(world.handles.take(world).map(|handle| handle.cancel())),
        7 => drop(world.timers.take(world).map(|timer| timer.cancel())),
        8 => {
            let bomb = SendBomb;
            drop(event_loop.proxy().call_soon_threadsafe(move |_| {
                let _bomb = bomb;
                user_code(1, 8);
            }));
        }
        9 => {
            let (bomb, proxy) = (SendBomb, event_loop.proxy());
            let remote = proxy.spawn(move || {
                let _bomb = bomb;
                user_code(3, 12);
                async {
                    yield_now().await;
                    user_code(3, 12);
                    SendBomb
                }
            });
            world.remotes.put(remote);
        }
        10 | 11 => {
            let bomb = SendBomb;
            let job = event_loop.run_in_executor(move || {
                let _bomb = bomb;
                panic_once_in(4);
                SendBomb
            });
            world.jobs.put(job);
        }
        12 => drop(world.jobs.take(world).map(|job| job.cancel())),
        13 => drop(world.remotes.take(world).map(|remote| remote.cancel())),
        14 => watch(world, event_loop),
        15 => {
            if let Some(pair) = world.watched.take(world) {
                drop(event_loop.remove_reader(&pair.0));
                drop(event_loop.remove_writer(&pair.0));
            }
        }
        16 => {
            if let Ok((ours, mut theirs)) = UnixStream::pair() {
                drop(theirs.write(b"x"));
                drop(AsyncFd::new(ours).map(|fd| world.async_fds.put(Rc::new(fd))));
            }
        }
        17 => drop(world.async_fds.take(world)),
        18 => {
            let _ = event_loop.add_signal_handler(libc::SIGWINCH, move |event_loop| {
                let _owner = &callback;
                user_code(1, 8);
                if World::current().is_some_and(|world| world.once_in(2)) {
                    event_loop.remove_signal_handler(libc::SIGWINCH);
                }
            });
        }
        19 => {
            if world.once_in(2) {
                event_loop.remove_signal_handler(libc::SIGWINCH);
            } else if event_loop.add_signal_handler(libc::SIGWINCH, |_| user_code(1, 8)).is_ok() {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH);
            }
        }
        20 => set_helpers(world, event_loop),
        21 => {
            event_loop.set_debug(world.once_in(2));
            event_loop.set_slow_callback_duration(Duration::MAX);
            set_exception_handler(world, event_loop);
        }
        22 => drop((event_loop.flush(), event_loop.stats(), event_loop.counters())),
        _ => match world.below(6) {
            0 => event_loop.stop(),
            1 => event_loop.request_exit(7),
            2 => drop(event_loop.run_until_complete(async {})), // Refused inside of a run.
            3 if event_loop.is_running() => drop(event_loop.close()),
            4 if world.once_in(6) => fork(),
            _ => drop(event_loop.all_tasks().into_iter().next().map(|task| task.cancel())),
        },
    }
}

/// A child that has a copy of the ring for a moment: giving it a user keeps the library from its shorter way.
fn fork() {
    let mut command = Command::new("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.uid(nix::unistd::getuid().as_raw());
    drop(command.status());
}

fn watch(world: &Rc<World>, event_loop: &EventLoop) {
    let (Ok((ours, theirs)), owner) = (UnixStream::pair(), world.owner()) else { return };
    drop((&theirs).write(b"x"));
    let pair = Rc::new((ours, theirs));
    let weak = Rc::downgrade(&pair);
    let callback = move |event_loop: &EventLoop| {
        let _owner = &owner;
        if let (Some(pair), true) =
            (weak.upgrade(), World::current().is_none_or(|it| it.once_in(3)))
        {
            drop(event_loop.remove_reader(&pair.0));
            drop(event_loop.remove_writer(&pair.0));
        }
        user_code(2, 8);
    };
    let added = if world.once_in(2) {
        event_loop.add_reader(&pair.0, callback)
    } else {
        event_loop.add_writer(&pair.0, callback)
    };
    if added.is_ok() {
        world.watched.put(pair);
    }
}

/// Notes what is no report of something planned.
pub(crate) fn set_exception_handler(world: &Rc<World>, event_loop: &EventLoop) {
    let owner = world.owner();
    event_loop.set_exception_handler(move |_, context| {
        let _owner = &owner;
        drop(format!("{context}"));
        user_code(6, 12);
    });
}

fn set_helpers(world: &Rc<World>, event_loop: &EventLoop) {
    if world.once_in(2) {
        event_loop.set_resolver(Rc::new(Helper(world.owner())));
    } else {
        event_loop.set_connector(Rc::new(Helper(world.owner())));
    }
}

struct Helper(#[expect(dead_code, reason = "for its drop")] Owner);

impl Resolver for Helper {
    fn getaddrinfo(&self, _: &EventLoop, _: AddrRequest) -> ResolveFuture {
        user_code(2, 8);
        let bomb = SendBomb;
        Box::pin(async move {
            yield_now().await;
            let _bomb = bomb;
            user_code(2, 8);
            Ok(vec![AddrInfo::stream(([127, 0, 0, 1], 1))])
        })
    }
}

impl Connector for Helper {
    fn connect(&self, _: &Address, connect: ConnectFuture) -> ConnectFuture {
        user_code(2, 8);
        let bomb = SendBomb;
        Box::pin(async move {
            connect.await?;
            let _bomb = bomb;
            user_code(2, 8);
            Ok(())
        })
    }
}

fn act_on_future(world: &Rc<World>, event_loop: &EventLoop) {
    let future = || world.futures.any(world);
    match world.below(20) {
        0 | 1 => world.futures.put(event_loop.create_future()),
        2 | 3 => drop(future().map(|future| future.set_result(Value(world.owner())))),
        4 => drop(future().map(|future| future.set_exception(Error::other(Rude(SendBomb))))),
        5 => drop(future().map(|future| future.cancel())),
        6 => {
            if let Some(future) = future() {
                let owner = world.owner();
                let callback = future.add_done_callback(move |_| {
                    let _owner = &owner;
                    user_code(2, 6);
                });
                world.callbacks.put(callback);
            }
        }
        7 => {
            if let (Some(future), Some(callback)) = (future(), world.callbacks.any(world)) {
                if world.once_in(2) {
                    future.remove_done_callback(&callback);
                } else {
                    future.add_again(&callback);
                }
            }
        }
        8 => drop(future().map(|future| future.result())),
        9 => drop(future().map(|future| future.exception())),
        10 => poll_rudely(world),
        11 => drop(world.wakers.any(world).map(|waker| waker.wake_by_ref())),
        12 => drop(world.wakers.take(world).map(Waker::wake)),
        13 => drop(world.tasks.take(world).map(|task| task.cancel())),
        14 => drop(world.tasks.take(world).map(|task| task.result())),
        15 => act_on_meeting(world),
        _ => spawn(world, event_loop, body(Rc::clone(world))),
    }
}

/// Polls something once, with a waker of nobody's.
fn poll_rudely(world: &Rc<World>) {
    let waker = Waker::from(Arc::new(RudeWaker(SendBomb)));
    world.wakers.put(waker.clone());
    let mut cx = Context::from_waker(&waker);
    if let Some(future) = world.futures.take(world) {
        let mut future = pin!(future);
        let _ = future.as_mut().poll(&mut cx);
        let _ = future.as_mut().poll(&mut cx);
    }
    if let Some(mut task) = world.tasks.take(world) {
        let _ = pin!(&mut task).poll(&mut cx);
        world.tasks.put(task);
    }
}

const EXTRA: ExtraKey<Rc<Value>> = ExtraKey::new("shared");
const EXTRA_CLONED: ExtraKey<Value> = ExtraKey::new("cloned");

/// Acts inside of each other.
const DEEPEST: usize = 6;
