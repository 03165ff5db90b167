//! Both halves of a stream on different tasks, whose reads and drains are given up at any poll.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use ringloop::{Error, StreamReader, StreamWriter, Target, open_connection};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::turn;
use ringloop_tests::seeds::{Random, each_seed};
use ringloop_tests::sockets::{narrow_tcp_pair, pair};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use super::{MODES, spawn};

/// What `future` gives in so many iterations, or nothing.
async fn within<F: Future>(future: F, iterations: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = iterations;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The bytes at a place of a stream.
fn bytes_at(place: usize, length: usize) -> Vec<u8> {
    (place..place + length).map(|place| (place * 7 + (place >> 8) * 13) as u8).collect()
}

/// Short as often as long.
fn any_length(random: &mut Random, most_bits: usize) -> usize {
    let most = 1 << random.below(most_bits);
    random.below(most)
}

async fn write_all(writer: StreamWriter, mut random: Random) -> (StreamWriter, usize) {
    let mut written = 0;
    for _ in 0..40 {
        let length = any_length(&mut random, 17);
        writer.write(bytes_at(written, length)).unwrap();
        written += length;
        match random.below(4) {
            0 => writer.drain().await.unwrap(),
            1 => {
                within(writer.drain(), random.below(3)).await.transpose().unwrap();
            }
            2 => turn(random.below(3)).await,
            _ => {}
        }
    }
    writer.write_eof().unwrap();
    (writer, written)
}

async fn read_all(mut reader: StreamReader, mut random: Random) -> Vec<u8> {
    let mut got = Vec::new();
    while !reader.at_eof() {
        let (polls, most) = (random.below(4), 1 + any_length(&mut random, 16));
        let read = match random.below(6) {
            0 => within(reader.read(most), polls).await,
            1 => within(reader.read_exactly(most), polls).await,
            2 => within(reader.read_until([random.below(256) as u8]), polls).await,
            3 => within(reader.read_until_any(&[&[7][..], &[9, 16]]), polls).await,
            4 => {
                let mut some = vec![0; most];
                let read = within(AsyncReadExt::read(&mut reader, &mut some), polls).await;
                some.truncate(read.transpose().unwrap().unwrap_or(0));
                got.append(&mut some);
                continue;
            }
            _ => {
                let first = within(reader.fill_buf(), polls).await.transpose().unwrap();
                let count = first.map_or(0, |first| {
                    let count = most.min(first.len());
                    got.extend_from_slice(&first[..count]);
                    count
                });
                AsyncBufReadExt::consume(&mut reader, count);
                continue;
            }
        };
        match read {
            None => {}
            Some(Ok(data)) => got.extend_from_slice(&data),
            Some(Err(Error::LimitOverrun { consumed, .. })) => {
                got.extend_from_slice(&reader.read_exactly(consumed).await.unwrap());
            }
            Some(Err(Error::IncompleteRead { partial, .. })) => got.extend_from_slice(&partial),
            Some(Err(error)) => panic!("{error}"),
        }
    }
    got
}

// spec: STREAM-16, STREAM-56, STREAM-26
#[test]
fn reads_and_drains_that_are_given_up_at_any_poll_lose_no_byte() {
    each_seed(30, |seed| {
        on_loop(async {
            for mode in MODES {
                let mut random = Random::new(seed);
                let (a, b) = if random.below(2) == 0 { pair() } else { narrow_tcp_pair() };
                let limit = [1, 100, 5000, 64 * 1024, usize::MAX][random.below(5)];
                let [a, b] =
                    [a, b].map(|socket| Target::from(socket).write_mode(mode).limit(limit));
                let (its_reader, its_writer) = open_connection(a).await.unwrap();
                let (reader, writer) = open_connection(b).await.unwrap();
                let its_seed = Random::new(seed + 1);
                let writing = [
                    spawn(write_all(its_writer, random.clone())),
                    spawn(write_all(writer, its_seed.clone())),
                ];
                let reading =
                    [spawn(read_all(reader, random)), spawn(read_all(its_reader, its_seed))];
                let mut writers = Vec::new();
                for (writing, reading) in writing.into_iter().zip(reading) {
                    let (writer, written) = writing.await.unwrap();
                    let got = reading.await.unwrap();
                    assert!(got == bytes_at(0, written), "{} of {written} bytes", got.len());
                    writers.push(writer);
                }
                writers.iter().for_each(StreamWriter::close);
            }
        });
    });
}
