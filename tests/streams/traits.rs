//! Both halves through the traits of futures and of tokio, with the crates that people use.

use std::future::poll_fn;
use std::io::{ErrorKind, Write};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, SinkExt, StreamExt};
use ringloop::{
    Error, Received, StreamPair, StreamReader, StreamWriter, Target, open_connection, sleep,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_exactly, settle, turn};
use ringloop_tests::sockets::{drain, drained, noise, pair, reset, tcp_pair};
use socket2::Socket;
use tokio::io::ReadBuf;
use tokio_util::codec::{Framed, LengthDelimitedCodec, LinesCodec};

use super::{MODES, reader, running, spawn};

async fn halves(socket: Socket) -> (StreamReader, StreamWriter) {
    open_connection(socket).await.unwrap()
}

async fn stream(socket: Socket) -> StreamPair {
    halves(socket).await.into()
}

/// Both ends of a connection, in one loop.
async fn both_ends() -> (StreamPair, StreamPair) {
    let (a, b) = pair();
    (stream(a).await, stream(b).await)
}

// spec: STREAM-50, STREAM-25
#[test]
fn framed_lines_go_both_ways() {
    use tokio::io::AsyncWriteExt;
    on_loop(async {
        let (here, there) = both_ends().await;
        let mut here = Framed::new(here, LinesCodec::new());
        let mut there = Framed::new(there, LinesCodec::new());
        let answering = spawn(async move {
            while let Some(line) = there.next().await {
                there.send(format!("<{}>", line.unwrap())).await.unwrap();
            }
            there.get_mut().shutdown().await.unwrap();
        });
        for line in ["one", "", "a longer line than the others"] {
            here.send(line).await.unwrap();
            assert_eq!(here.next().await.unwrap().unwrap(), format!("<{line}>"));
        }
        here.get_mut().shutdown().await.unwrap();
        assert!(here.next().await.is_none());
        answering.await.unwrap();
        drop(here);
        assert_eq!(running().stats().warnings, 0, "closing by the trait is closing");
    });
}

// spec: STREAM-50
#[test]
fn framed_messages_of_any_length_arrive_whole() {
    use tokio::io::AsyncWriteExt;
    on_loop(async {
        let (here, there) = both_ends().await;
        let mut here = Framed::new(here, LengthDelimitedCodec::new());
        let mut there = Framed::new(there, LengthDelimitedCodec::new());
        let data = noise(700_000);
        let sent = data.clone();
        let sending = spawn(async move {
            for length in [0, 1, 16 * 1024, 300_000, 383_615] {
                here.send(Bytes::copy_from_slice(&sent[..length])).await.unwrap();
            }
            here.get_mut().shutdown().await.unwrap();
            here
        });
        for length in [0, 1, 16 * 1024, 300_000, 383_615] {
            let message: BytesMut = there.next().await.unwrap().unwrap();
            assert!(message[..] == data[..length]);
        }
        assert!(there.next().await.is_none());
        there.get_mut().shutdown().await.unwrap();
        drop(sending.await.unwrap());
    });
}

// spec: STREAM-20
#[test]
fn futures_copies_from_one_stream_to_another() {
    on_loop(async {
        let ((a, mut peer), (b, out)) = (pair(), pair());
        let (reader, writer) = (halves(a).await, halves(b).await);
        let data = noise(1 << 20);
        let sent = data.clone();
        let copying = spawn(async move {
            let ((reader, w), (r, mut writer)) = (reader, writer);
            let count = futures_util::io::copy(reader, &mut writer).await.unwrap();
            futures_util::AsyncWriteExt::close(&mut writer).await.unwrap();
            drop((w, r, writer));
            count
        });
        let mut at = 0;
        let mut got = Vec::new();
        while at < sent.len() {
            at += peer.write(&sent[at..]).unwrap_or(0);
            got.extend(drain(&out).0);
            turn(1).await;
        }
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        got.extend(drain_exactly(&out, data.len() - got.len()).await);
        assert_eq!(copying.await.unwrap(), 1 << 20);
        assert!(got == data);
    });
}

// spec: STREAM-20, STREAM-31
#[test]
fn tokios_extensions_read_and_write() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    on_loop(async {
        for mode in MODES {
            let (a, mut b) = pair();
            let target = Target::from(a).write_mode(mode);
            let (mut reader, mut writer) = open_connection(target).await.unwrap();
            writer.write_all(b"hello").await.unwrap();
            writer.flush().await.unwrap();
            assert_eq!(drained(&b), "(b'hello', 'EAGAIN')", "flushed is with the kernel");
            b.write_all(b"line\nnext\n\x01\x02rest").unwrap();
            let mut line = String::new();
            AsyncBufReadExt::read_line(&mut reader, &mut line).await.unwrap();
            assert_eq!(line, "line\n");
            assert_eq!(reader.read_until("\n").await.unwrap(), b"next\n", "mixed with our own");
            assert_eq!(reader.read_u16().await.unwrap(), 0x0102);
            b.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            AsyncReadExt::read_to_end(&mut reader, &mut rest).await.unwrap();
            assert_eq!(rest, b"rest");
            writer.shutdown().await.unwrap();
            assert_eq!(drained(&b), "(b'', 'EOF')");
            drop((reader, writer));
        }
    });
}

// spec: STREAM-33
#[test]
fn lines_are_a_stream_of_futures() {
    on_loop(async {
        let reader = reader(6);
        reader.feed_data(b"one\ntwo\ntoo long\nthree").unwrap();
        reader.feed_eof();
        let lines: Vec<_> =
            reader.lines().map(|line| line.map_err(|error| error.to_string())).collect().await;
        let line = |text: &[u8]| Ok(Received::from(text));
        let too_long = "Separator is found, but chunk is longer than limit".to_owned();
        assert_eq!(lines, [line(b"one\n"), line(b"two\n"), Err(too_long), line(b"three")]);
    });
}

// spec: STREAM-33
#[test]
fn lines_of_a_connection_that_is_lost_end_after_the_error() {
    on_loop(async {
        let reader = reader(6);
        reader.set_exception(Error::Timeout);
        let mut lines = reader.lines();
        assert!(matches!(lines.next().await, Some(Err(Error::Timeout))));
        assert!(lines.next().await.is_none());
    });
}

// spec: STREAM-51, STREAM-47
#[test]
fn a_flush_tells_the_error_of_bytes_that_were_taken_but_could_not_be_sent() {
    use futures_util::AsyncWriteExt;
    on_loop(async {
        for mode in MODES {
            let (a, b) = tcp_pair();
            let target = Target::from(a).write_mode(mode);
            let (_reader, mut writer) = open_connection(target).await.unwrap();
            reset(b);
            settle().await;
            let written = writer.write_all(b"lost").await;
            let flushed = match written {
                Ok(()) => writer.flush().await,
                error => error,
            };
            let error = flushed.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                "{error}"
            );
            assert!(writer.flush().await.is_err(), "and so do the next ones");
            assert!(writer.write_all(b"more").await.is_err());
            assert!(AsyncWriteExt::close(&mut writer).await.is_err());
        }
    });
}

// spec: STREAM-51
#[test]
fn a_flush_that_waits_ends_with_the_error_of_the_connection() {
    use futures_util::AsyncWriteExt;
    on_loop(async {
        let (a, b) = tcp_pair();
        let (_reader, mut writer) = halves(a).await;
        writer.write_all(&noise(60_000)).await.unwrap();
        let mut total = 60_000;
        while total < 16 << 20 {
            // More than the kernel takes.
            let mut write = pin!(AsyncWriteExt::write(&mut writer, &[7; 60_000]));
            match write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(count) => total += count.unwrap(),
                Poll::Pending => break,
            }
            settle().await;
        }
        let flushing = spawn(async move { writer.flush().await });
        settle().await;
        assert!(!flushing.done());
        reset(b);
        let error = flushing.await.unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    });
}

// spec: STREAM-51
#[test]
fn a_flush_after_an_abort_tells_whether_something_was_dropped() {
    use futures_util::AsyncWriteExt;
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (_reader, mut writer) =
                open_connection(Target::from(a).write_mode(mode)).await.unwrap();
            writer.write_all(b"sent").await.unwrap();
            writer.transport().abort();
            settle().await;
            writer.flush().await.unwrap();
            assert_eq!(drained(&b), "(b'sent', 'EOF')");

            let (a, _b) = pair();
            let (_reader, mut writer) =
                open_connection(Target::from(a).write_mode(mode)).await.unwrap();
            StreamWriter::write(&writer, vec![7; 1 << 20]).unwrap();
            let transport = writer.transport().clone();
            let flushing = spawn(async move { (writer.flush().await, writer.flush().await) });
            settle().await;
            assert!(!flushing.done());
            transport.abort();
            let (first, second) = flushing.await.unwrap();
            for flushed in [first, second] {
                assert_eq!(flushed.unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

// spec: STREAM-54, STREAM-53
#[test]
fn a_write_waits_while_there_is_no_room_and_its_last_waker_is_woken_once() {
    use futures_util::AsyncWrite;
    on_loop(async {
        let (a, b) = pair();
        let (_reader, mut writer) = halves(a).await;
        let (counts, wakers): (Vec<_>, Vec<_>) = [Count::new(), Count::new()].into_iter().unzip();
        let mut write = |waker: &Waker| {
            let mut cx = Context::from_waker(waker);
            Pin::new(&mut writer).poll_write(&mut cx, &[7; 50_000])
        };
        let mut total = 0;
        while let Poll::Ready(count) = write(&wakers[0]) {
            total += count.unwrap();
            settle().await;
        }
        assert!(write(&wakers[1]).is_pending());
        drain_exactly(&b, total).await;
        settle().await;
        assert_eq!([counts[0].get(), counts[1].get()], [0, 1]);
        assert!(write(&wakers[1]).is_ready());
        writer.close();
        drain_exactly(&b, 50_000).await;
    });
}

// spec: STREAM-15, STREAM-16
#[test]
fn a_read_that_polled_and_was_given_up_makes_way_for_the_next() {
    on_loop(async {
        let (a, mut b) = pair();
        let (mut reader, writer) = halves(a).await;
        let (count, waker) = Count::new();
        let mut buffer = [0; 10];
        let poll = futures_util::AsyncRead::poll_read(
            Pin::new(&mut reader),
            &mut Context::from_waker(&waker),
            &mut buffer,
        );
        assert!(poll.is_pending());
        let reader = Rc::new(reader);
        let reading = spawn({
            let reader = Rc::clone(&reader);
            async move { reader.read(10).await }
        });
        turn(1).await;
        b.write_all(b"x").unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b"x");
        assert_eq!(count.get(), 0);
        writer.close();
    });
}

// spec: STREAM-16, STREAM-60
#[test]
fn bytes_that_were_looked_at_and_not_consumed_are_still_there() {
    use futures_util::AsyncBufReadExt;
    on_loop(async {
        let (a, mut b) = pair();
        let (mut reader, writer) = halves(a).await;
        b.write_all(b"abcdef").unwrap();
        assert_eq!(reader.fill_buf().await.unwrap(), b"abcdef");
        reader.consume_unpin(2);
        assert_eq!(reader.read(2).await.unwrap(), b"cd");
        assert_eq!(reader.fill_buf().await.unwrap(), b"ef");
        reader.consume_unpin(100);
        b.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reader.fill_buf().await.unwrap(), b"");
        assert!(reader.at_eof());
        writer.close();
        sleep(std::time::Duration::ZERO).await;
    });
}

// spec: STREAM-50
#[test]
fn a_pair_is_split_for_a_while_or_for_good() {
    on_loop(async {
        let (a, mut b) = pair();
        let stream = stream(a).await;
        {
            let (reader, writer) = stream.split();
            b.write_all(b"one\n").unwrap();
            writer.write(reader.read_line().await.unwrap()).unwrap();
        }
        let (reader, writer) = stream.into_split();
        b.write_all(b"two\n").unwrap();
        writer.write(reader.read_line().await.unwrap()).unwrap();
        settle().await;
        assert_eq!(drained(&b), "(b'one\\ntwo\\n', 'EAGAIN')");
        writer.close();
        writer.wait_closed().await.unwrap();
    });
}

// spec: STREAM-50
#[test]
fn a_read_into_nothing_is_done_at_once_and_takes_nothing() {
    fn read_nothing(reader: &mut StreamReader) {
        let cx = &mut Context::from_waker(Waker::noop());
        let read = futures_util::io::AsyncRead::poll_read(Pin::new(reader), cx, &mut []);
        assert!(matches!(read, Poll::Ready(Ok(0))));
        let mut room = ReadBuf::new(&mut []);
        let read = tokio::io::AsyncRead::poll_read(Pin::new(reader), cx, &mut room);
        assert!(matches!(read, Poll::Ready(Ok(()))));
    }
    on_loop(async {
        let mut reader = StreamReader::new(100).unwrap();
        read_nothing(&mut reader);
        reader.feed_data(b"hello").unwrap();
        read_nothing(&mut reader);
        assert_eq!(reader.read(10).await.unwrap(), b"hello");
        reader.feed_eof();
        read_nothing(&mut reader);
        assert!(reader.at_eof());
    });
}

/// How many bytes wait in the reader: its text tells.
fn held(reader: &StreamReader) -> usize {
    let text = format!("{reader:?}");
    let count = text.strip_prefix("<StreamReader ").and_then(|text| text.split_once(" bytes"));
    count.map_or(0, |(count, _)| count.parse().unwrap())
}

// spec: STREAM-50, STREAM-13
#[test]
fn a_huge_frame_passes_in_small_parts() {
    on_loop(async {
        let (here, there) = both_ends().await;
        let codec = || LengthDelimitedCodec::builder().max_frame_length(16 << 20).new_codec();
        let (mut here, mut there) = (Framed::new(here, codec()), Framed::new(there, codec()));
        let frame = Bytes::from(noise(16 << 20));
        let sent = frame.clone();
        let sending = spawn(async move {
            let mut most = 0;
            here.start_send_unpin(sent).unwrap();
            poll_fn(|cx| {
                let flushed = SinkExt::<Bytes>::poll_flush_unpin(&mut here, cx);
                most = most.max(here.get_ref().split().1.transport().get_write_buffer_size());
                flushed
            })
            .await
            .unwrap();
            SinkExt::<Bytes>::close(&mut here).await.unwrap();
            most
        });
        let mut most = 0;
        let received = poll_fn(|cx| {
            most = most.max(held(there.get_ref().split().0));
            there.poll_next_unpin(cx)
        });
        assert!(received.await.unwrap().unwrap() == frame);
        assert!(most <= 1 << 20, "{most} bytes have waited in the reader");
        let most = sending.await.unwrap();
        assert!(most <= 1 << 20, "{most} bytes have waited in the transport");
        SinkExt::<Bytes>::close(&mut there).await.unwrap();
    });
}

// spec: STREAM-50
#[test]
fn a_frame_that_is_announced_as_too_long_is_refused_before_it_is_there() {
    on_loop(async {
        let (a, mut peer) = pair();
        let codec = LengthDelimitedCodec::builder().max_frame_length(16 << 20).new_codec();
        let mut frames = Framed::new(stream(a).await, codec);
        for length in [(16 << 20) + 1, 64 << 20, u32::MAX] {
            peer.write_all(&length.to_be_bytes()).unwrap();
            peer.write_all(b"begin").unwrap();
            let error = frames.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(frames.read_buffer().capacity() < 1 << 20, "nothing was reserved for it");
            assert!(frames.next().await.is_none(), "the codec ends there");
            frames.read_buffer_mut().clear();
        }
        frames.send(Bytes::from_static(b"goodbye")).await.unwrap();
        settle().await;
        assert_eq!(drained(&peer), "(b'\\x00\\x00\\x00\\x07goodbye', 'EAGAIN')");
        frames.get_ref().split().1.close();
        frames.get_ref().split().1.wait_closed().await.unwrap();
    });
}

/// Bytes of a user's that panic in one of their methods, or lie about their length.
struct Rude {
    bytes: &'static [u8],
    claims: usize,
    panics_in: &'static str,
}

impl Rude {
    fn pass(&self, method: &str) {
        assert!(self.panics_in != method, "{method}");
    }
}

impl Buf for Rude {
    fn remaining(&self) -> usize {
        self.pass("remaining");
        self.claims
    }

    fn chunk(&self) -> &[u8] {
        self.pass("chunk");
        self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.pass("advance");
        self.bytes = &self.bytes[count..];
        self.claims = self.claims.saturating_sub(count);
    }
}

// spec: STREAM-50
#[test]
fn bytes_that_panic_or_lie_harm_only_who_writes_them() {
    use tokio::io::AsyncWriteExt;
    on_loop(async {
        for (panics_in, claims, written, ends) in [
            ("remaining", 5, "", "remaining"),
            ("chunk", 5, "", "chunk"),
            ("advance", 5, "bytes", "advance"), // They are written by then.
            ("", 9, "bytes", "write zero"),
            ("", 1, "bytes", "Ok"),
            ("", 0, "", "Ok"),
        ] {
            let (a, peer) = pair();
            let mut stream = stream(a).await;
            let writing = spawn(async move {
                let mut bytes = Rude { bytes: b"bytes", claims, panics_in };
                let write = AssertUnwindSafe(stream.write_all_buf(&mut bytes)).catch_unwind();
                let text = match write.await {
                    Ok(Ok(())) => "Ok".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic.downcast_ref::<String>().unwrap().clone(),
                };
                stream.write_all(b", end").await.unwrap();
                stream.shutdown().await.unwrap();
                text
            });
            let text = writing.await.unwrap();
            assert!(text.starts_with(ends), "{text}");
            assert_eq!(drained(&peer), format!("(b'{written}, end', 'EOF')"));
        }
    });
}
