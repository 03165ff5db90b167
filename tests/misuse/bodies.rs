//! Tasks that wait for this and that: futures, groups, locks, queues, sockets, streams.

use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    Error, JoinSet, ReturnWhen, Server, StreamReader, StreamWriter, TaskGroup, UnixListen,
    UnixTarget, as_completed, catch_cancel, gather, open_connection, open_unix_connection, shield,
    sleep, start_server, start_unix_server, timeout, wait, yield_now,
};
use ringloop_tests::sockets::pair;

use crate::sockets::use_socket;
use crate::values::{OwnedBytes, Owner, Rude, SendBomb, Value, user_code};
use crate::world::World;

/// Waits for some things in turn.
pub(crate) async fn body(world: Rc<World>) -> Value {
    let owner = world.owner();
    user_code(3, 20);
    for _ in 0..world.below(4) {
        match world.below(5) {
            0 => wait_for_one(&world).await,
            1 => wait_for_many(&world).await,
            2 => meet(&world).await,
            3 => use_socket(&world).await,
            _ => stream(&world).await,
        }
        user_code(2, 20);
    }
    Value(owner)
}

async fn wait_for_one(world: &Rc<World>) {
    match world.below(10) {
        0 => yield_now().await,
        1 => sleep(Duration::from_micros(world.below(300) as u64)).await,
        2 | 3 => {
            if let Some(future) = world.futures.any(world) {
                drop(future.await);
            }
        }
        4 => {
            let inner = world.owner();
            let caught = catch_cancel(async move {
                let _inner = inner;
                drop(timeout(SHORT, pending::<()>()).await);
            });
            if let Err(cancelled) = caught.await {
                match cancelled.propagate().await {}
            }
        }
        5 => {
            if let Some(job) = world.jobs.take(world) {
                drop(timeout(SHORT, job).await);
            }
        }
        6 => {
            if let Some(fd) = world.async_fds.any(world) {
                drop(timeout(SHORT, fd.readable()).await);
            }
        }
        7 => {
            if let Some(task) = world.tasks.take(world) {
                drop(timeout(SHORT, shield(task)).await);
            }
        }
        8 => {
            if let Some(remote) = world.remotes.take(world) {
                drop(timeout(SHORT, remote).await);
            }
        }
        _ => {
            let looked = world.tasks.take(world).map(|task| task.task_ref());
            if let Some(task) = looked {
                drop(timeout(SHORT, task.finished()).await);
            }
        }
    }
}

async fn wait_for_many(world: &Rc<World>) {
    let many = || (0..world.below(4)).map(|_| small(Rc::clone(world)));
    match world.below(6) {
        0 => drop(gather(many()).await),
        1 => drop(gather(many()).settled().await),
        2 => {
            let mut set = JoinSet::new();
            many().for_each(|future| drop(set.spawn(future)));
            drop(set.join_next().await);
            user_code(3, 8);
            if world.once_in(2) {
                drop(timeout(SHORT, set.join_all()).await);
            }
        }
        3 => {
            let group = TaskGroup::run(async |group| {
                for future in many() {
                    let fails = world.once_in(4);
                    let child = group.create_task(async move {
                        let value = future.await;
                        if fails { Err(Rude(SendBomb)) } else { Ok(value) }
                    });
                    drop(child);
                }
                user_code(3, 12);
                yield_now().await;
                Ok::<_, Rude>(Value(world.owner()))
            });
            drop(timeout(SHORT, group).await);
        }
        4 => {
            let tasks: Vec<_> = many().map(ringloop::spawn).collect();
            let when = [ReturnWhen::FirstCompleted, ReturnWhen::AllCompleted][world.below(2)];
            drop(wait(tasks, Some(SHORT), when).await);
        }
        _ => {
            let tasks: Vec<_> = many().map(ringloop::spawn).collect();
            if let Ok(mut ends) = as_completed(tasks, Some(SHORT)) {
                drop(ends.next().await);
            }
        }
    }
}

pub(crate) async fn small(world: Rc<World>) -> Value {
    let owner = world.owner();
    for _ in 0..world.below(3) {
        yield_now().await;
        user_code(4, 12);
    }
    Value(owner)
}

/// Where tasks meet: a lock, a queue, an event, a semaphore.
async fn meet(world: &Rc<World>) {
    let meeting = &world.meeting;
    match world.below(8) {
        0 | 1 => {
            let guard = timeout(SHORT, meeting.lock.acquire()).await;
            user_code(2, 8);
            if let (Ok(mut guard), true) = (guard, world.once_in(2)) {
                guard.replace(Value(world.owner()));
            }
        }
        2 => drop(timeout(SHORT, meeting.queue.put(Value(world.owner()))).await),
        3 => drop(timeout(SHORT, meeting.queue.get()).await),
        4 => drop(timeout(SHORT, meeting.event.wait()).await),
        5 => {
            let permit = timeout(SHORT, meeting.semaphore.acquire()).await;
            yield_now().await;
            user_code(2, 8);
            drop(permit);
        }
        6 => {
            let guard = timeout(SHORT, meeting.lock.acquire()).await;
            if let Ok(guard) = guard {
                drop(timeout(SHORT, meeting.condition.wait(guard)).await);
            }
        }
        _ => act_on_meeting(world),
    }
}

/// From any place, without waiting.
pub(crate) fn act_on_meeting(world: &Rc<World>) {
    let meeting = &world.meeting;
    match world.below(7) {
        0 => meeting.event.set(),
        1 => meeting.event.clear(),
        2 => drop(meeting.queue.put_nowait(Value(world.owner()))),
        3 => drop(meeting.queue.get_nowait()),
        4 => meeting.condition.notify_all(),
        5 => drop(meeting.lock.try_acquire().map(|mut guard| guard.take())),
        _ => drop(meeting.semaphore.try_acquire()),
    }
}

async fn stream(world: &Rc<World>) {
    match world.below(5) {
        0 => {
            let (a, b) = pair();
            world.peers.put(b);
            if let Ok((reader, writer)) = open_connection(a).await {
                let (this, owner) = (Rc::clone(world), world.owner());
                world.tasks.put(ringloop::spawn(async move {
                    let _ = talk(&this, reader, writer).await;
                    Value(owner)
                }));
            }
        }
        1 => {
            let name = format!("ringloop-misuse-{}-{}", std::process::id(), world.below(1 << 20));
            let (this, owner) = (Rc::clone(world), world.owner());
            let server = start_unix_server(handler(this, owner), UnixListen::abstract_name(&name));
            let Ok(server) = server.await else { return };
            world.serves(server);
            let target = UnixTarget::abstract_name(&name);
            if let Ok((reader, writer)) = open_unix_connection(target).await {
                let _ = talk(world, reader, writer).await;
            }
        }
        2 => {
            let (this, owner) = (Rc::clone(world), world.owner());
            if let Ok(server) = start_server(handler(this, owner), ("127.0.0.1", 0)).await {
                world.serves(server);
            }
        }
        3 => {
            let address = world.servers.any(world).and_then(|server| server.local_addr());
            let Some(address) = address else { return };
            if let Ok((reader, writer)) = open_connection(address).await {
                let _ = talk(world, reader, writer).await;
            }
        }
        _ => {
            let server: Option<Server> = world.servers.any(world);
            if let Some(server) = server {
                drop(timeout(SHORT, server.wait_closed()).await);
            }
        }
    }
}

fn handler(
    world: Rc<World>,
    owner: Owner,
) -> impl Fn(StreamReader, StreamWriter) -> Pin<Box<dyn Future<Output = Result<(), Rude>>>> + 'static
{
    move |reader, writer| {
        let (_owner, world) = (&owner, Rc::clone(&world));
        user_code(3, 10);
        Box::pin(async move {
            let _ = talk(&world, reader, writer).await;
            if world.once_in(4) { Err(Rude(SendBomb)) } else { Ok(()) }
        })
    }
}

async fn talk(world: &Rc<World>, reader: StreamReader, writer: StreamWriter) -> Result<(), Error> {
    world.transports.put(writer.transport().clone());
    for _ in 0..world.below(4) {
        match world.below(7) {
            0 | 1 => writer.write(OwnedBytes::bytes(world.below(100_000)))?,
            2 => drop(timeout(SHORT, writer.drain()).await),
            3 => drop(timeout(SHORT, reader.read(world.below(5000))).await),
            4 => drop(timeout(SHORT, reader.read_line()).await),
            5 => writer.write_eof()?,
            _ => reader.feed_data(OwnedBytes::bytes(world.below(300)))?,
        }
        user_code(2, 12);
    }
    if world.once_in(2) {
        writer.close();
        drop(timeout(SHORT, writer.wait_closed()).await);
    }
    Ok(())
}

pub(crate) const SHORT: Duration = Duration::from_micros(400);
