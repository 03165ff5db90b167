//! Connections over a ring on which all goes wrong that may go wrong without harm: short, late, interrupted, refused.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use ringloop::{Listen, Target, WriteMode};
use ringloop_driver::testing::Faults;
use ringloop_tests::clean::on_loop_with;
use ringloop_tests::idle::{drain_all, settle};
use ringloop_tests::sockets::{End, noise, pair, tcp_pair};

use super::{MODES, attach, events, recorder_with, running};

const SEEDS: u64 = 12;

// spec: RISK-16, RISK-21, WRITE-13
#[test]
fn an_echo_returns_every_byte_in_order() {
    for seed in 0..SEEDS {
        let mode = MODES[seed as usize % 2];
        on_loop_with(Some(Faults::harmless(seed)), async move {
            let (recorder, _) = recorder_with(mode);
            let recorder = std::cell::Cell::new(Some(recorder.count_data().echo()));
            let factory = move || recorder.take().ok_or("one connection is enough");
            let listen = Listen::on("127.0.0.1", 0).write_mode(mode);
            let server = running().create_server(factory, listen).await.unwrap();
            let address = server.local_addr().unwrap();
            let client = move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut reading = stream.try_clone().unwrap();
                let data = noise(3 << 20);
                let expected = data.clone();
                let reader = thread::spawn(move || {
                    let mut got = Vec::new();
                    reading.read_to_end(&mut got).unwrap();
                    assert!(got == expected, "seed {seed}");
                });
                for part in data.chunks(77_777) {
                    stream.write_all(part).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
                reader.join().unwrap();
            };
            running().run_in_executor(client).await.unwrap();
            server.close();
            server.wait_closed().await.unwrap();
            running().shutdown_default_executor(None).await.unwrap();
        });
    }
}

// spec: WRITE-20, PROTO-07, TRANS-33
#[test]
fn what_was_written_before_close_arrives_and_the_connection_is_lost_once() {
    for seed in 0..SEEDS {
        for length in [0, 5, 70_000, 1 << 20] {
            let mode = MODES[seed as usize % 2];
            on_loop_with(Some(Faults::harmless(seed)), async move {
                for (a, mut b) in [pair(), tcp_pair()] {
                    let (recorder, trace) = recorder_with(mode);
                    let (transport, protocol) = attach(a, recorder).await;
                    b.write_all(b"hello").unwrap();
                    settle().await;
                    transport.write(noise(length)).unwrap();
                    transport.close();
                    let (got, end) = drain_all(&b).await;
                    assert!(got == noise(length) && end == End::Eof, "seed {seed}: {end:?}");
                    protocol.lost().await;
                    settle().await;
                    let events = events(&trace);
                    let data: usize = events.iter().filter_map(|event| received(event)).sum();
                    assert_eq!(data, 5);
                    let rest: Vec<_> =
                        events.iter().filter(|event| received(event).is_none()).collect();
                    let pauses = rest.len() == 4;
                    let expected: &[&str] = if pauses {
                        &["connection_made", "pause_writing", "resume_writing", LOST]
                    } else {
                        &["connection_made", LOST]
                    };
                    assert_eq!(rest, expected, "seed {seed}");
                }
            });
        }
    }
}

const LOST: &str = "connection_lost(None)";

/// How many bytes a line of the recorder tells of.
fn received(event: &str) -> Option<usize> {
    let literal = event.strip_prefix("data_received(b'")?.strip_suffix("')")?;
    Some(literal.len())
}

// spec: RISK-24, TRANS-31
#[test]
fn aborted_at_any_moment_it_is_lost_once_and_leaves_nothing() {
    for seed in 0..SEEDS {
        on_loop_with(Some(Faults::harmless(seed)), async move {
            for moment in 0..8 {
                let (a, mut b) = tcp_pair();
                let target = Target::from(a).write_mode(WriteMode::Batched);
                let (recorder, trace) = recorder_with(WriteMode::Batched);
                let (transport, protocol) =
                    running().create_connection(|| recorder.count_data(), target).await.unwrap();
                let _ = b.write(&noise(100_000)).unwrap();
                transport.write(noise(500_000)).unwrap();
                ringloop_tests::idle::turn(moment).await;
                transport.abort();
                protocol.lost().await;
                settle().await;
                assert_eq!(trace.lines().last().unwrap(), "proto: connection_lost(None)");
            }
        });
    }
}
