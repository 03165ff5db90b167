//! Files that are sent from the kernel, by sockets and by transports.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::rc::Rc;

use ringloop::{Error, EventLoop, Exclusive, SendFile, Socket, Transport, WriteMode};
use ringloop_tests::files::temporary;
use ringloop_tests::idle::{drain_exactly, settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::memory::Memory;
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{self, drain, noise, reset};
use ringloop_tests::trace::Trace;

use crate::support::{errno, on_loop, pair, poll_once, running, tcp_pair};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_file_is_sent_in_steps_between_which_others_run,
    an_empty_file_and_its_end_give_nothing,
    a_file_that_grows_is_sent_to_its_new_end,
    a_file_that_is_cut_short_ends_the_transfer_there,
    a_pipe_is_read_and_sent,
    without_a_fallback_a_pipe_is_refused,
    a_socket_that_blocks_is_served_by_the_fallback,
    an_error_after_some_bytes_is_raised_as_it_is,
    a_transport_sends_nothing_else_meanwhile,
    a_write_right_after_a_file_that_has_filled_the_socket_pauses_inside_the_call,
    a_transport_that_is_lost_ends_the_transfer,
    a_transport_whose_flush_fails_tells_the_error,
    a_transfer_that_is_given_up_leaves_the_transport_as_it_was,
    a_transport_that_did_not_read_does_not_read_afterwards,
    a_transport_without_a_socket_sends_no_file,
];

// spec: SENDFILE-01, RISK-34
fn a_file_is_sent_in_steps_between_which_others_run() {
    on_loop(async {
        let (ours, theirs) = tcp_pair();
        let data = noise(3 << 20);
        let file = Rc::new(temporary(&data));
        let (socket, sent) = (Rc::clone(&ours), Rc::clone(&file));
        let k = running().create_task(async move { socket.sendfile(&*sent).await });
        let mut got = Vec::new();
        let mut steps = 0;
        while got.len() < data.len() {
            let (more, _) = drain(&theirs);
            assert!(more.len() <= 256 * 1024, "{} bytes in one iteration", more.len());
            got.extend(more);
            steps += 1;
            turn(1).await;
        }
        assert!(steps >= 12 && got == data);
        assert_eq!(k.await.unwrap().unwrap(), data.len() as u64);
        assert_eq!((&*file).stream_position().unwrap(), data.len() as u64);
    });
}

// spec: SENDFILE-03, SENDFILE-04
fn an_empty_file_and_its_end_give_nothing() {
    on_loop(async {
        let (ours, theirs) = pair();
        let empty = temporary(b"");
        assert_eq!(ours.sendfile(&empty).await.unwrap(), 0);
        let mut file = temporary(b"0123456789");
        file.seek(std::io::SeekFrom::Start(3)).unwrap();
        for offset in [10, 11, 1 << 40, i64::MAX as u64] {
            let part = SendFile::new(&file).offset(offset);
            assert_eq!(ours.sendfile(part).await.unwrap(), 0, "{offset}");
            assert_eq!(file.stream_position().unwrap(), 3);
        }
        let part = SendFile::new(&file).offset(4).count(u64::MAX);
        assert_eq!(ours.sendfile(part).await.unwrap(), 6);
        assert_eq!((drain(&theirs).0, file.stream_position().unwrap()), (b"456789".to_vec(), 10));
    });
}

// spec: SENDFILE-01
fn a_file_that_grows_is_sent_to_its_new_end() {
    on_loop(async {
        let (ours, theirs) = pair();
        let file = temporary(&noise(1 << 20));
        let mut sending = pin!(ours.sendfile(&file));
        assert!(poll_once(sending.as_mut()).is_pending());
        file.write_at(b"and more", 1 << 20).unwrap();
        let total = (1 << 20) + 8;
        let reading = async { drain_exactly(&theirs, total).await };
        let (sent, got) = both(sending, reading).await;
        assert_eq!(sent.unwrap(), total as u64);
        assert!(got.ends_with(b"and more"));
    });
}

async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none() {
            if let std::task::Poll::Ready(output) = a.as_mut().poll(cx) {
                first = Some(output);
            }
        }
        if second.is_none() {
            if let std::task::Poll::Ready(output) = b.as_mut().poll(cx) {
                second = Some(output);
            }
        }
        if first.is_some() && second.is_some() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    (first.unwrap(), second.unwrap())
}

// spec: SENDFILE-01, SENDFILE-03
fn a_file_that_is_cut_short_ends_the_transfer_there() {
    on_loop(async {
        let (ours, theirs) = pair();
        let data = noise(1 << 20);
        let mut file = temporary(&data);
        let shortened = file.try_clone().unwrap();
        let count = {
            let mut sending = pin!(ours.sendfile(&file));
            assert!(poll_once(sending.as_mut()).is_pending());
            shortened.set_len(300_000).unwrap();
            let (sent, got) = both(sending, async { drain_exactly(&theirs, 300_000).await }).await;
            assert!(got == data[..300_000]);
            sent.unwrap()
        };
        assert_eq!((count, file.stream_position().unwrap()), (300_000, 300_000));
    });
}

// spec: SENDFILE-05
fn a_pipe_is_read_and_sent() {
    on_loop(async {
        let (ours, theirs) = pair();
        let (reader, mut writer) = sockets::pipe();
        writer.write_all(b"through a pipe").unwrap();
        let part = SendFile::new(&reader).count(10);
        assert_eq!(ours.sendfile(part).await.unwrap(), 10);
        drop(writer);
        assert_eq!(ours.sendfile(&reader).await.unwrap(), 4);
        assert_eq!(drain(&theirs).0, b"through a pipe");
        let zeros = File::open("/dev/zero").unwrap();
        let part = SendFile::new(&zeros).count(300_000);
        let (sent, got) =
            both(ours.sendfile(part), async { drain_exactly(&theirs, 300_000).await }).await;
        assert_eq!(sent.unwrap(), 300_000);
        assert!(got.iter().all(|&byte| byte == 0));
    });
}

// spec: SENDFILE-05
fn without_a_fallback_a_pipe_is_refused() {
    on_loop(async {
        let (ours, theirs) = pair();
        let (reader, mut writer) = sockets::pipe();
        writer.write_all(b"x").unwrap();
        let refused = ours.sendfile(SendFile::new(&reader).fallback(false)).await.unwrap_err();
        assert!(matches!(refused, Error::Unsupported(_)), "{refused:?}");
        assert_eq!(refused.to_string(), "not a regular file");
        assert!(drain(&theirs).0.is_empty());
        assert_eq!(ours.sendfile(SendFile::new(&reader).count(1)).await.unwrap(), 1);
    });
}

// spec: SENDFILE-05, RISK-41
fn a_socket_that_blocks_is_served_by_the_fallback() {
    on_loop(async {
        let (ours, theirs) = sockets::tcp_pair();
        ours.set_nonblocking(false).unwrap();
        let ours = Socket::from(ours);
        let data = noise(8 << 20);
        let mut file = temporary(&data);
        let refused = ours.sendfile(SendFile::new(&file).fallback(false)).await;
        assert!(matches!(refused, Err(Error::Unsupported(_))));
        let (sent, got) =
            both(ours.sendfile(&file), async { drain_exactly(&theirs, data.len()).await }).await;
        assert_eq!(sent.unwrap(), data.len() as u64);
        assert!(got == data);
        assert_eq!(file.stream_position().unwrap(), data.len() as u64);
    });
}

// spec: SENDFILE-03, SENDFILE-06
fn an_error_after_some_bytes_is_raised_as_it_is() {
    on_loop(async {
        let (ours, theirs) = tcp_pair();
        let mut file = temporary(&noise(16 << 20));
        let k = {
            let mut sending = pin!(ours.sendfile(&file));
            assert!(poll_once(sending.as_mut()).is_pending());
            turn(3).await;
            reset(theirs);
            sending.await
        };
        let errno = errno(k);
        assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno), "{errno}");
        assert!(file.stream_position().unwrap() > 0);
    });
}

async fn attach(
    event_loop: &EventLoop,
    mode: WriteMode,
    socket: socket2::Socket,
) -> (Transport, Rc<Recorder>, Trace) {
    let trace = Trace::new();
    let recorder = Recorder::new(&trace, mode);
    let (transport, recorder) = event_loop.create_connection(|| recorder, socket).await.unwrap();
    transport.set_write_mode(mode);
    (transport, recorder, trace)
}

fn text<T>(result: Result<T, Error>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "no error".to_owned())
}

// spec: SENDFILE-11, SENDFILE-12
fn a_transport_sends_nothing_else_meanwhile() {
    for mode in [WriteMode::Batched, WriteMode::Immediate] {
        on_loop(async {
            let (ours, theirs) = sockets::pair();
            let (transport, protocol, _) = attach(&running(), mode, ours).await;
            let (head, data) = (noise(2 << 20), noise(1 << 20));
            let file = Rc::new(temporary(&data));
            transport.write(&head).unwrap();
            let (sender, sent) = (transport.clone(), Rc::clone(&file));
            let k = running().create_task(async move { running().sendfile(&sender, &*sent).await });
            turn(2).await;
            let text_of = |what: &str| format!("unable to {what}; sendfile is in progress");
            assert_eq!(text(transport.write(b"x")), text_of("write"));
            assert_eq!(text(transport.writelines([b"x"])), text_of("writelines"));
            let second = running().sendfile(&transport, &*file).await;
            assert_eq!(text(second), "Empty waiter is already set");
            assert!(!transport.is_reading());
            let got = drain_exactly(&theirs, head.len() + data.len()).await;
            assert_eq!(k.await.unwrap().unwrap(), data.len() as u64);
            assert!(got == [head, data].concat());
            assert!(transport.is_reading());
            transport.write(b"after").unwrap();
            settle().await;
            assert_eq!(drain(&theirs).0, b"after");
            transport.close();
            protocol.lost().await;
            assert_eq!(text(running().sendfile(&transport, &*file).await), "Transport is closing");
        });
    }
}

// spec: SENDFILE-11, FLOW-05
fn a_write_right_after_a_file_that_has_filled_the_socket_pauses_inside_the_call() {
    for mode in [WriteMode::Batched, WriteMode::Immediate] {
        on_loop(async {
            let (ours, theirs) = sockets::pair();
            let (transport, protocol, trace) = attach(&running(), mode, ours).await;
            transport.set_write_buffer_limits(Some(1000), None).unwrap();
            transport.write(noise(2000)).unwrap();
            settle().await;
            drain(&theirs);
            let mut file = temporary(&noise(4 << 20));
            {
                let event_loop = running();
                let mut sending = pin!(event_loop.sendfile(&transport, &file));
                for _ in 0..3 {
                    assert!(poll_once(sending.as_mut()).is_pending());
                    turn(1).await;
                }
            }
            trace.retain(|_| false);
            transport.write(noise(50_000)).unwrap();
            assert_eq!(trace.lines().len(), 1, "{:?}", trace.lines());
            assert!(trace.lines()[0].contains("pause_writing"));
            let sent = file.stream_position().unwrap() as usize;
            drain_exactly(&theirs, sent + 50_000).await;
            transport.close();
            protocol.lost().await;
        });
    }
}

// spec: SENDFILE-13
fn a_transport_that_is_lost_ends_the_transfer() {
    on_loop(async {
        for aborts_early in [true, false] {
            let (ours, theirs) = sockets::pair();
            let (transport, protocol, _) = attach(&running(), WriteMode::Batched, ours).await;
            if aborts_early {
                transport.write(noise(2 << 20)).unwrap(); // It is waited for.
            }
            let file = Rc::new(temporary(&noise(4 << 20)));
            let (sender, sent) = (transport.clone(), Rc::clone(&file));
            let k = running().create_task(async move { running().sendfile(&sender, &*sent).await });
            turn(3).await;
            transport.abort();
            protocol.lost().await;
            let error = k.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "Connection is closed by peer");
            settle().await;
            drain(&theirs);
            settle().await;
            assert!(drain(&theirs).0.is_empty(), "nothing comes after the end");
        }
    });
}

// spec: SENDFILE-13
fn a_transport_whose_flush_fails_tells_the_error() {
    on_loop(async {
        let (ours, theirs) = sockets::pair();
        let (transport, protocol, _) = attach(&running(), WriteMode::Batched, ours).await;
        transport.write(noise(2 << 20)).unwrap();
        let file = Rc::new(temporary(b"data"));
        let (sender, sent) = (transport.clone(), Rc::clone(&file));
        let k = running().create_task(async move { running().sendfile(&sender, &*sent).await });
        turn(3).await;
        drop(theirs);
        assert_eq!(errno(k.await.unwrap()), libc::EPIPE);
        protocol.lost().await;
    });
}

// spec: SENDFILE-07, SENDFILE-11
fn a_transfer_that_is_given_up_leaves_the_transport_as_it_was() {
    on_loop(async {
        for head in [0, 2 << 20] {
            let (ours, theirs) = sockets::pair();
            let (transport, protocol, _) = attach(&running(), WriteMode::Batched, ours).await;
            let head = noise(head);
            let data = noise(4 << 20);
            transport.write(&head).unwrap();
            let mut file = temporary(&data);
            {
                let event_loop = running();
                let mut sending = pin!(event_loop.sendfile(&transport, &file));
                for _ in 0..3 {
                    assert!(poll_once(sending.as_mut()).is_pending());
                    turn(1).await;
                }
            }
            assert!(transport.is_reading());
            transport.write(b"the end").unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"the end") {
                got.extend(drain(&theirs).0);
                turn(1).await;
            }
            let sent = file.stream_position().unwrap() as usize;
            assert!(got == [&head[..], &data[..sent], b"the end"].concat());
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: SENDFILE-11
fn a_transport_that_did_not_read_does_not_read_afterwards() {
    on_loop(async {
        let (ours, theirs) = sockets::pair();
        let (transport, protocol, _) = attach(&running(), WriteMode::Batched, ours).await;
        transport.pause_reading();
        let file = temporary(b"data");
        assert_eq!(running().sendfile(&transport, &file).await.unwrap(), 4);
        assert!(!transport.is_reading());
        assert_eq!(drain(&theirs).0, b"data");
        transport.close();
        protocol.lost().await;
    });
}

// spec: SENDFILE-10
fn a_transport_without_a_socket_sends_no_file() {
    on_loop(async {
        let protocols = [(), ()].map(|()| Rc::new(Exclusive::new(())).into());
        let [left, right] = protocols;
        let (transport, _other) = Memory::connect(left, right);
        let file = temporary(b"data");
        let refused = running().sendfile(&transport, &file).await;
        let wanted = format!("sendfile is not supported for transport {transport:?}");
        assert_eq!(text(refused), wanted);
        transport.close();
        settle().await;
    });
}
