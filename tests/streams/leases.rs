//! How long a reader keeps the buffers that the kernel has filled.

use std::io::Write;

use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::pair;

use super::{running, streams};

fn leased() -> u64 {
    running().counters().leased
}

// spec: STREAM-60
#[test]
fn a_few_bytes_that_nobody_reads_hold_no_buffer() {
    on_loop(async {
        let (a, mut b) = pair();
        let (reader, writer) = streams(a).await;
        b.write_all(&[7; 2047]).unwrap();
        settle().await;
        assert_eq!(leased(), 0);
        assert_eq!(reader.read(4000).await.unwrap()[..], [7; 2047]);
        b.write_all(&[7; 4096]).unwrap();
        settle().await;
        assert_eq!(leased(), 1, "many bytes stay where they are");
        let most = reader.read(4000).await.unwrap();
        assert_eq!(leased(), 1);
        drop(most);
        settle().await;
        assert_eq!(leased(), 0, "what is left of them is copied");
        assert_eq!(reader.read(4000).await.unwrap()[..], [7; 96]);
        writer.close();
    });
}

// spec: STREAM-60
#[test]
fn a_line_that_comes_byte_by_byte_holds_no_buffer() {
    on_loop(async {
        let (a, mut b) = pair();
        let (reader, writer) = streams(a).await;
        let line = async {
            let mut line = Vec::new();
            reader.read_line_into(&mut line).await.unwrap();
            line
        };
        let bytes = async {
            for byte in [&[b'x'; 3000][..], b"\n"].concat() {
                b.write_all(&[byte]).unwrap();
                settle().await;
                assert!(leased() <= 1);
            }
        };
        let mut line = Box::pin(line);
        let mut bytes = Box::pin(bytes);
        let line = std::future::poll_fn(|cx| {
            let _ = bytes.as_mut().poll(cx);
            line.as_mut().poll(cx)
        })
        .await;
        assert_eq!(line.len(), 3001);
        writer.close();
    });
}

// spec: STREAM-20
#[test]
fn what_a_read_gives_is_the_lease_itself() {
    on_loop(async {
        let (a, mut b) = pair();
        let (reader, writer) = streams(a).await;
        b.write_all(b"one\ntwo\nthree").unwrap();
        let one = reader.read_line().await.unwrap();
        let two = reader.read_line().await.unwrap();
        let three = reader.read(100).await.unwrap();
        assert!(!one.is_copy() && !two.is_copy() && !three.is_copy());
        assert_eq!(leased(), 1, "the three share one buffer");
        settle().await;
        assert_eq!([&one[..], &two, &three].concat(), b"one\ntwo\nthree");
        drop((one, two, three));
        assert_eq!(leased(), 0);
        writer.close();
    });
}
