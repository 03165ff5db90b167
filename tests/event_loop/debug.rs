//! Debug mode.

use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringloop::{EventLoop, Exclusive, Listen, UnixTarget, open_unix_connection, spawn, yield_now};

use super::turn;

fn debug_loop() -> EventLoop {
    let long = Duration::from_secs(3600);
    EventLoop::builder().debug(true).slow_callback_duration(long).build().unwrap()
}

// spec: DEBUG-02
#[test]
fn what_is_slow_is_counted() {
    let event_loop = debug_loop();
    event_loop
        .call_soon(|event_loop| event_loop.set_slow_callback_duration(Duration::ZERO))
        .unwrap();
    turn(&event_loop);
    let stats = event_loop.stats();
    assert_eq!((stats.slow, stats.warnings), (1, 1));
}

// spec: DEBUG-02, DEBUG-07
#[test]
fn another_thread_sees_what_blocks_a_loop() {
    let event_loop = debug_loop();
    let proxy = event_loop.proxy();
    assert!(proxy.running().is_none());
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let watcher = thread::spawn(move || {
        let seen = asked.iter().map(|()| {
            let running = proxy.running().unwrap();
            answer.send(()).unwrap();
            running
        });
        seen.collect::<Vec<_>>()
    });
    let blocks = move || {
        ask.send(()).unwrap();
        answered.recv().unwrap();
    };
    let (of_callback, of_task) = (std::rc::Rc::new(blocks), ());
    let again = std::rc::Rc::clone(&of_callback);
    event_loop.call_soon(move |_| of_callback()).unwrap();
    let task = event_loop.create_task(async move { again() }).named("the blocker");
    event_loop.run_until_complete(task).unwrap().unwrap();
    let () = of_task;
    let seen = watcher.join().unwrap();
    assert!(seen[0].what.starts_with("<Handle ") && seen[0].what.contains("debug.rs:"));
    assert!(
        seen[1].what.contains("name='the blocker' created at") && seen[1].since >= seen[0].since
    );
    assert!(event_loop.proxy().running().is_none());
}

// spec: MAP-04
#[test]
fn what_is_open_when_the_loop_closes_is_told_in_debug_mode() {
    let event_loop = debug_loop();
    let server = event_loop.create_server(|| Exclusive::new(()), Listen::on("127.0.0.1", 0));
    let server = event_loop.run_until_complete(server).unwrap().unwrap();
    event_loop.close().unwrap();
    assert_eq!(event_loop.stats().unclosed, 1);
    drop(server);
    let event_loop = debug_loop();
    event_loop.close().unwrap();
    assert_eq!(event_loop.stats().unclosed, 0);
}

// spec: MAP-04, TRANS-39, STREAM-62
#[test]
fn a_transport_and_a_stream_that_nobody_closed_are_counted_once_in_every_mode() {
    for debug in [false, true] {
        let event_loop = EventLoop::builder().debug(debug).build().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peers = [ours, theirs].map(|socket| {
            let stream = open_unix_connection(UnixTarget::default().sock(socket));
            event_loop.run_until_complete(stream).unwrap().unwrap()
        });
        let [(_, first), (_, second)] = peers;
        drop(first);
        assert_eq!(event_loop.stats().unclosed, 1, "the stream");
        event_loop.close().unwrap();
        assert_eq!(event_loop.stats().unclosed, 2, "the transport of the other, debug={debug}");
        assert_eq!(event_loop.stats().warnings, 2);
        drop(second);
    }
}

// spec: MAP-03, FUT-09
#[test]
fn a_result_that_nobody_took_is_told_in_debug_mode() {
    let event_loop = debug_loop();
    event_loop
        .run_until_complete(async {
            drop(spawn(async { Err::<u8, _>("nobody knows") }));
            drop(spawn(async { Ok::<(), ringloop::Error>(()) }));
            drop(spawn(async { 42 }));
            let looked_at = spawn(async { Err::<(), _>(std::fmt::Error) });
            assert!(looked_at.await.unwrap().is_err());
            yield_now().await;
        })
        .unwrap();
    assert_eq!(event_loop.stats().unretrieved, 1);
}

// spec: DEBUG-06
#[test]
fn what_connections_do_is_noted_in_debug_mode() {
    for (event_loop, notes) in [(debug_loop(), 6), (EventLoop::new().unwrap(), 0)] {
        event_loop
            .run_until_complete(async {
                let this = EventLoop::running().unwrap();
                let factory = || Exclusive::new(());
                let server = this.create_server(factory, Listen::on("127.0.0.1", 0)).await.unwrap();
                let connected = this.create_connection(factory, server.local_addr().unwrap()).await;
                let (transport, _) = connected.unwrap();
                ringloop_tests::idle::settle().await; // The server's side is there.
                transport.pause_reading();
                transport.resume_reading();
                transport.close(); // The server's side receives the end, and closes, too.
                server.close();
                server.wait_closed().await.unwrap();
            })
            .unwrap();
        assert_eq!(event_loop.stats().notes, notes);
    }
}
