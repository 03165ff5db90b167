//! Both halves over a connection.

use std::io::Write;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringloop::{
    Error, EventLoop, StreamReader, StreamWriter, Target, open_connection, start_server,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::sockets::{drained, noise, pair, tcp_pair};

use super::{MODES, running, spawn, streams, streams_with};

async fn unused(_: StreamReader, _: StreamWriter) {}

// spec: STREAM-03
#[test]
fn without_a_running_loop_there_are_no_streams() {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pin!(open_connection(("127.0.0.1", 1))).poll(&mut cx) else {
        panic!("it fails at once")
    };
    assert_eq!(error.to_string(), "no running event loop");
    let Poll::Ready(Err(error)) = pin!(start_server(unused, ("127.0.0.1", 0))).poll(&mut cx) else {
        panic!("it fails at once")
    };
    assert!(matches!(error, Error::State(_)));
}

// spec: STREAM-01, STREAM-02
#[test]
fn a_megabyte_goes_to_a_server_and_back() {
    on_loop(async {
        for mode in MODES {
            let echo = |reader: StreamReader, writer: StreamWriter| async move {
                while let data @ [_, ..] = &*reader.read(100_000).await? {
                    writer.write(data)?;
                    writer.drain().await?;
                }
                writer.close();
                writer.wait_closed().await
            };
            let listen = ringloop::Listen::on("127.0.0.1", 0).write_mode(mode);
            let server = start_server(echo, listen).await.unwrap();
            let target = Target::from(server.local_addr().unwrap()).write_mode(mode).limit(1000);
            let (reader, writer) = streams_with(target).await;
            assert_eq!(reader.limit(), 1000);
            let data = noise(1 << 20);
            let sent = data.clone();
            let sending = spawn({
                let writer = Rc::clone(&writer);
                async move {
                    for part in sent.chunks(30_000) {
                        writer.write(part)?;
                        writer.drain().await?;
                    }
                    writer.write_eof()
                }
            });
            let received = reader.read_to_end().await.unwrap();
            assert!(received[..] == data[..]);
            sending.await.unwrap().unwrap();
            writer.close();
            writer.wait_closed().await.unwrap();
            server.close();
            server.wait_closed().await.unwrap();
        }
    });
}

// spec: STREAM-45, STREAM-46
#[test]
fn the_end_of_the_peers_stream_leaves_ours_open_for_writing() {
    on_loop(async {
        for (a, mut b) in [pair(), tcp_pair()] {
            let (reader, writer) = streams(a).await;
            b.write_all(b"last").unwrap();
            b.shutdown(Shutdown::Write).unwrap();
            assert_eq!(reader.read_to_end().await.unwrap(), b"last");
            settle().await;
            assert!(reader.at_eof() && !writer.is_closing());
            writer.write(b"answer").unwrap();
            writer.close();
            assert_eq!(drain_all(&b).await.0, b"answer");
            writer.wait_closed().await.unwrap();
        }
    });
}

// spec: STREAM-48, MAP-06
#[test]
fn what_arrives_when_both_halves_are_gone_is_dropped() {
    on_loop(async {
        let (a, mut b) = pair();
        let (reader, writer) = open_connection(a).await.unwrap();
        let transport = writer.transport().clone();
        // The writer needs the reader for its errors, so the reader is fed as long as one of them lives.
        drop(reader);
        b.write_all(b"kept").unwrap();
        settle().await;
        assert_eq!(running().counters().leased, 0, "a few bytes are copied");
        writer.close();
        drop(writer);
        b.write_all(b"dropped").unwrap();
        settle().await;
        assert!(transport.is_closing());
    });
}

// spec: STREAM-11, STREAM-13, STREAM-60
#[test]
fn a_peer_is_throttled_while_nobody_reads_and_nothing_is_lost() {
    on_loop(async {
        let (a, b) = pair();
        let (reader, writer) = streams_with(Target::from(a).limit(1000)).await;
        let data = noise(2 << 20);
        let mut sent = 0;
        let mut quiet = 0;
        while quiet < 3 {
            match (&b).write(&data[sent..]) {
                Ok(count) => (sent, quiet) = (sent + count, 0),
                Err(_) => quiet += 1,
            }
            settle().await;
        }
        assert!(!writer.transport().is_reading());
        // Twice the limit, one iteration's receives, and what the kernel holds.
        assert!(sent < 1 << 20, "{sent}");
        let mut received = Vec::new();
        while received.len() < sent {
            received.extend_from_slice(&reader.read(700).await.unwrap());
        }
        assert!(received == data[..sent]);
        assert!(writer.transport().is_reading());
        writer.close();
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-01
#[test]
fn an_open_connection_that_is_dropped_at_any_point_leaves_nothing() {
    on_loop(async {
        let server = start_server(unused, ("127.0.0.1", 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        for turns in 0..8 {
            let task = spawn(async move { open_connection(address).await.map(drop) });
            turn(turns).await;
            task.cancel();
            settle().await;
        }
        server.close();
        server.wait_closed().await.unwrap();
        assert_eq!(running().all_tasks().len(), 1);
    });
}

// spec: STREAM-47
#[test]
fn a_read_that_waits_ends_when_the_connection_is_closed_here() {
    on_loop(async {
        let (a, b) = pair();
        let (reader, writer) = streams(a).await;
        let task = spawn({
            let reader = Rc::clone(&reader);
            async move { reader.read(1).await }
        });
        settle().await;
        writer.close();
        assert_eq!(task.await.unwrap().unwrap(), b"");
        assert_eq!(drained(&b), "(b'', 'EOF')");
    });
}

// spec: STREAM-47
#[test]
fn who_waits_on_another_loop_hears_that_the_loop_of_the_stream_has_closed() {
    let (first, second) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    let (ours, mut theirs) = pair();
    let (reader, writer) = first.run_until_complete(streams(ours)).unwrap();
    theirs.write_all(b"a part").unwrap();
    first.run_until_complete(settle()).unwrap();
    writer.write(noise(4 << 20)).unwrap();
    let (reads, drains, closes) = (Rc::clone(&reader), Rc::clone(&writer), Rc::clone(&writer));
    let read = second.create_task(async move { reads.read_exactly(10).await });
    let drain = second.create_task(async move { drains.drain().await });
    let close = second.create_task(async move { closes.wait_closed().await });
    second.run_until_complete(turn(3)).unwrap();
    assert!(!read.done() && !drain.done() && !close.done());
    first.close().unwrap();
    let text = "Event loop is closed";
    second
        .run_until_complete(async {
            assert_eq!(read.await.unwrap().unwrap_err().to_string(), text);
            assert_eq!(drain.await.unwrap().unwrap_err().to_string(), text);
            assert_eq!(close.await.unwrap().unwrap_err().to_string(), text);
            assert_eq!(reader.read(10).await.unwrap(), b"a part");
            assert_eq!(reader.read(10).await.unwrap_err().to_string(), text);
        })
        .unwrap();
    second.close().unwrap();
}
