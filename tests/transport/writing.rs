//! What is written, when it is sent, and which callbacks that causes.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ringloop::{Transport, TransportSocket, WriteMode, extra_info, yield_now};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_all, drain_exactly, settle, turn};
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{End, drain, noise, pair, reset, tcp_pair};
use ringloop_tests::trace::Trace;
use socket2::{SockRef, Socket};

use super::{MODES, attach, events, recorder, recorder_with, running};

/// A pair whose kernel buffers hold little.
fn narrow_pair() -> (Socket, Socket) {
    let (a, b) = pair();
    a.set_send_buffer_size(4096).unwrap();
    (a, b)
}

/// A transport on the first socket of a pair, the recorder that is its protocol, the trace, and the second socket.
async fn connected(
    mode: WriteMode,
    (ours, theirs): (Socket, Socket),
) -> (Transport, Rc<Recorder>, Trace, Socket) {
    let (recorder, trace) = recorder_with(mode);
    let (transport, protocol) = attach(ours, recorder).await;
    (transport, protocol, trace, theirs)
}

// spec: WRITE-01, WRITE-04, WRITE-05, WRITE-13
#[test]
fn chunks_of_all_kinds_arrive_whole_and_in_order() {
    on_loop(async {
        for mode in MODES {
            for (a, b) in [narrow_pair(), tcp_pair()] {
                let (recorder, _) = recorder_with(mode);
                let (transport, protocol) = attach(a, recorder).await;
                let data = noise(1 << 20);
                let mut rest = &data[..];
                for length in [1, 100, 300, 5000, 20_000, 70_000].into_iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (part, left) = rest.split_at(length.min(rest.len()));
                    rest = left;
                    match length {
                        300 => transport.write(part.to_vec()).unwrap(),
                        5000 => transport.write(Bytes::copy_from_slice(part)).unwrap(),
                        20_000 => transport.write(ringloop::Received::from(part)).unwrap(),
                        70_000 => transport.writelines(part.chunks(999)).unwrap(),
                        _ => transport.write(part).unwrap(),
                    }
                }
                assert!(drain_exactly(&b, data.len()).await == data);
                settle().await;
                assert_eq!(transport.get_write_buffer_size(), 0);
                transport.close();
                protocol.lost().await;
            }
        }
    });
}

// spec: WRITE-06
#[test]
fn what_the_caller_keeps_is_not_changed_and_may_change() {
    on_loop(async {
        let (transport, protocol, _, b) = connected(WriteMode::Batched, narrow_pair()).await;
        let shared = Bytes::from(noise(100_000));
        let mut own = noise(100_000);
        transport.write(shared.clone()).unwrap();
        transport.write(&own).unwrap();
        own.fill(0);
        let got = drain_exactly(&b, 200_000).await;
        assert!(got[..100_000] == shared[..] && got[100_000..] == noise(100_000)[..]);
        assert!(shared[..] == noise(100_000)[..]);
        transport.close();
        protocol.lost().await;
    });
}

// spec: WRITE-12, WRITE-21
#[test]
fn more_chunks_than_one_send_may_gather_go_out_in_several() {
    on_loop(async {
        for mode in MODES {
            let (transport, protocol, _, b) = connected(mode, tcp_pair()).await;
            let data = noise(5000 * 7);
            transport.writelines(data.chunks(7).map(Bytes::copy_from_slice)).unwrap();
            assert!(drain_exactly(&b, data.len()).await == data);
            settle().await;
            assert_eq!(transport.get_write_buffer_size(), 0);
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: WRITE-14, WRITE-08
#[test]
fn a_full_socket_changes_nothing_until_there_is_room() {
    on_loop(async {
        for mode in MODES {
            let (transport, protocol, trace, b) = connected(mode, pair()).await;
            transport.write(vec![1; 1 << 20]).unwrap();
            let size = transport.get_write_buffer_size();
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            turn(20).await;
            assert_eq!(transport.get_write_buffer_size(), size);
            transport.write(b"tail").unwrap();
            assert_eq!(transport.get_write_buffer_size(), size + 4);
            assert_eq!(drain_exactly(&b, (1 << 20) + 4).await[1 << 20..], *b"tail");
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing", "resume_writing"]);
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: WRITE-16, WRITE-33, WRITE-20
#[test]
fn closed_after_write_eof_it_sends_everything_first() {
    on_loop(async {
        for mode in MODES {
            for length in [10, 1 << 20] {
                let (transport, protocol, trace, b) = connected(mode, pair()).await;
                transport.write(vec![1; length]).unwrap();
                transport.write_eof().unwrap();
                transport.close();
                let (got, end) = drain_all(&b).await;
                assert_eq!((got.len(), end), (length, End::Eof));
                protocol.lost().await;
                let lost = events(&trace).iter().filter(|line| line.contains("lost")).count();
                assert_eq!(lost, 1);
                assert_eq!(events(&trace).last().unwrap(), "connection_lost(None)");
            }
        }
    });
}

// spec: WRITE-17, FLOW-10
#[test]
fn a_queued_write_event_does_nothing_after_an_abort() {
    on_loop(async {
        let (transport, protocol, trace, b) = connected(WriteMode::Batched, pair()).await;
        transport.write(vec![1; 300_000]).unwrap();
        turn(2).await;
        drain(&b);
        yield_now().await; // The event that would resume stands behind this step in the queue.
        transport.abort();
        assert_eq!(transport.get_write_buffer_size(), 0);
        protocol.lost().await;
        assert_eq!(events(&trace), ["connection_made", "pause_writing", "connection_lost(None)"]);
    });
}

// spec: WRITE-10, WRITE-23
#[test]
fn writes_after_the_loss_are_counted_and_the_sixth_warns() {
    on_loop(async {
        for mode in MODES {
            let (transport, protocol, _, b) = connected(mode, pair()).await;
            transport.close();
            let before = running().stats().warnings;
            for _ in 0..5 {
                transport.write(b"x").unwrap();
                transport.writelines([b"y"]).unwrap();
                transport.write(b"").unwrap();
            }
            assert_eq!(running().stats().warnings - before, 6);
            protocol.lost().await;
            assert_eq!(drain(&b), (Vec::new(), End::Eof));
        }
    });
}

// spec: WRITE-02
#[test]
fn after_write_eof_writing_is_an_error_even_of_nothing() {
    on_loop(async {
        let (transport, protocol, _, _b) = connected(WriteMode::Batched, pair()).await;
        transport.write_eof().unwrap();
        let error = transport.write(b"").unwrap_err();
        assert_eq!(error.to_string(), "Cannot call write() after write_eof()");
        let error = transport.writelines([b""]).unwrap_err();
        assert_eq!(error.to_string(), "Cannot call writelines() after write_eof()");
        transport.close();
        protocol.lost().await;
    });
}

// spec: WRITE-30, WRITE-32
#[test]
fn write_eof_to_a_peer_that_has_reset_is_no_error() {
    on_loop(async {
        let (transport, protocol, trace, b) = connected(WriteMode::Batched, tcp_pair()).await;
        reset(b);
        transport.write_eof().unwrap();
        protocol.lost().await;
        assert_eq!(
            events(&trace),
            ["connection_made", "connection_lost(ConnectionResetError[ECONNRESET])"]
        );
    });
}

// spec: WRITE-07, ERR-04
#[test]
fn a_write_to_a_peer_that_has_gone_returns_and_ends_the_connection() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (recorder, trace) = recorder_with(mode);
            let (transport, protocol) = attach(a, recorder.keep_open()).await;
            settle().await;
            drop(b);
            transport.write(b"lost").unwrap();
            protocol.lost().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "connection_lost(BrokenPipeError[EPIPE])"]
            );
        }
    });
}

// spec: WRITE-30, WRITE-10, RISK-14
#[test]
fn write_eof_behind_a_write_that_fails_comes_too_late_and_forbids_nothing() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (recorder, _) = recorder_with(mode);
            let (transport, protocol) = attach(a, recorder.keep_open()).await;
            settle().await;
            drop(b);
            transport.write(b"lost").unwrap();
            transport.write_eof().unwrap();
            assert!(transport.is_closing());
            transport.write(b"ignored").unwrap();
            protocol.lost().await;
        }
    });
}

// spec: FLOW-07
#[test]
fn what_resume_writing_writes_goes_out_before_the_end() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (recorder, _) = recorder_with(mode);
            let more = Rc::new(Cell::new(true));
            let recorder = recorder.on_resume(move |transport| {
                if more.replace(false) {
                    transport.write(vec![2; 500_000]).unwrap();
                }
            });
            let (transport, protocol) = attach(a, recorder).await;
            transport.write(vec![1; 500_000]).unwrap();
            transport.close();
            let (got, end) = drain_all(&b).await;
            assert_eq!((got.len(), end), (1_000_000, End::Eof));
            assert!(got[500_000..].iter().all(|&byte| byte == 2));
            protocol.lost().await;
        }
    });
}

/// Shared bytes whose drop writes.
struct Parting {
    data: Vec<u8>,
    drops: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Parting {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        PARTING.with_borrow(|transport| {
            if let Some(transport) = transport {
                transport.write(b"bye").unwrap();
                transport.get_write_buffer_size();
            }
        });
    }
}

thread_local! {
    static PARTING: RefCell<Option<Transport>> = const { RefCell::new(None) };
}

#[test]
fn code_that_runs_when_sent_bytes_are_dropped_may_write() {
    on_loop(async {
        for mode in MODES {
            for length in [10, 400_000] {
                let (transport, protocol, _, b) = connected(mode, pair()).await;
                let drops = Arc::new(AtomicUsize::new(0));
                let parting = Parting { data: vec![1; length], drops: Arc::clone(&drops) };
                PARTING.set(Some(transport.clone()));
                transport.write(Bytes::from_owner(parting)).unwrap();
                transport.write(b"next").unwrap();
                let got = drain_exactly(&b, length + 7).await;
                assert_eq!(drops.load(Ordering::Relaxed), 1);
                let mut tail = got[length..].to_vec();
                tail.sort_unstable();
                assert_eq!(tail, b"beentxy".map(|byte| byte).to_vec());
                PARTING.set(None);
                transport.close();
                protocol.lost().await;
                let unsent = Parting { data: vec![1], drops: Arc::clone(&drops) };
                transport.write(Bytes::from_owner(unsent)).unwrap();
                assert_eq!(drops.load(Ordering::Relaxed), 2);
            }
        }
    });
}

// spec: RISK-14
#[test]
fn staged_bytes_go_out_with_the_next_enter_at_the_latest() {
    on_loop(async {
        let (transport, protocol, _, b) = connected(WriteMode::Batched, pair()).await;
        settle().await;
        transport.write(b"staged").unwrap();
        assert_eq!(drain(&b), (Vec::new(), End::Again));
        yield_now().await;
        assert_eq!(drain(&b), (b"staged".to_vec(), End::Again));
        transport.close();
        protocol.lost().await;
    });
}

#[test]
fn staged_bytes_do_not_wait_for_many_callbacks() {
    on_loop(async {
        let (transport, protocol, _, b) = connected(WriteMode::Batched, pair()).await;
        settle().await;
        let seen_at = Rc::new(Cell::new(None));
        let (writer, peer) = (transport.clone(), Rc::new(b));
        running().call_soon(move |_| writer.write(b"first").unwrap()).unwrap();
        for index in 0..1000 {
            let (seen_at, peer, writer) =
                (Rc::clone(&seen_at), Rc::clone(&peer), transport.clone());
            let look = move |_: &ringloop::EventLoop| {
                if index == 500 {
                    writer.write(b"second").unwrap();
                }
                let (got, _) = drain(&peer);
                if got == b"second" {
                    seen_at.set(Some(index));
                }
            };
            running().call_soon(look).unwrap();
        }
        yield_now().await;
        let seen_at = seen_at.get().expect("within this iteration");
        assert!((501..800).contains(&seen_at), "{seen_at}");
        transport.close();
        protocol.lost().await;
    });
}

// spec: FLOW-08, TRANS-40
#[test]
fn what_observes_the_socket_sends_first() {
    on_loop(async {
        let observers: [fn(&Transport); 7] = [
            |transport| assert_eq!(transport.get_write_buffer_size(), 0),
            |transport| transport.set_write_buffer_limits(None, None).unwrap(),
            |transport| transport.set_write_mode(WriteMode::Batched),
            |transport| {
                transport.get_extra_info(extra_info::SOCKET).unwrap().with_fd(|_| ()).unwrap();
            },
            |transport| drop(transport.get_extra_info(extra_info::SOCKET).unwrap().dup().unwrap()),
            |transport| transport.abort(),
            |_| running().flush().unwrap(),
        ];
        for observe in observers {
            let (transport, protocol, _, b) = connected(WriteMode::Batched, pair()).await;
            transport.write(b"sent").unwrap();
            observe(&transport);
            assert_eq!(drain(&b).0, b"sent");
            transport.close();
            protocol.lost().await;
        }
        let (transport, protocol, _, b) = connected(WriteMode::Batched, pair()).await;
        transport.write(b"sent").unwrap();
        let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&b), (b"sent".to_vec(), End::Eof));
        transport.close();
        protocol.lost().await;
    });
}

// spec: RISK-33
#[test]
fn written_bytes_are_sent_though_the_loop_stops_or_closes() {
    for close in [false, true] {
        let event_loop = ringloop::EventLoop::new().unwrap();
        let (a, mut b) = pair();
        let (recorder, _) = recorder();
        let transport = event_loop
            .run_until_complete(async {
                let (transport, _) = attach(a, recorder).await;
                transport.write(b"sent").unwrap();
                transport
            })
            .unwrap();
        if close {
            event_loop.close().unwrap();
        }
        let mut got = [0; 8];
        assert_eq!(b.read(&mut got).unwrap(), 4);
        transport.close();
        drop(transport);
        drop(event_loop);
        assert!(matches!(b.read(&mut got), Ok(0)));
        assert_eq!(b.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

/// A pair of either kind whose kernel buffers surely hold [`LARGE`].
fn wide_pairs() -> [(Socket, Socket); 2] {
    let (a, b) = pair();
    a.set_send_buffer_size(WIDE).unwrap();
    [(a, b), tcp_pair()]
}

// spec: FLOW-05, RISK-14
#[test]
fn a_large_write_that_the_kernel_has_room_for_waits_for_the_one_call_and_pauses_nobody() {
    on_loop(async {
        for (a, b) in wide_pairs() {
            let (recorder, trace) = recorder();
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            let data = noise(LARGE + 2);
            let rounds = running().counters().rounds;
            transport.write(&data[..LARGE]).unwrap();
            transport.write(&data[LARGE..=LARGE]).unwrap();
            transport.writelines([&data[LARGE + 1..]]).unwrap();
            assert_eq!(running().counters().rounds, rounds);
            assert_eq!(drain(&b), (Vec::new(), End::Again));
            yield_now().await;
            assert_eq!(running().counters().rounds, rounds + 1);
            assert!(drain_exactly(&b, data.len()).await == data);
            assert_eq!(transport.get_write_buffer_size(), 0);
            transport.close();
            protocol.lost().await;
            assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
        }
    });
}

// spec: FLOW-05, FLOW-06
#[test]
fn a_large_write_that_the_kernel_has_no_room_for_pauses_before_it_returns() {
    on_loop(async {
        for mode in MODES {
            let (transport, protocol, trace, b) = connected(mode, narrow_pair()).await;
            transport.write(vec![1; LARGE]).unwrap();
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            assert_eq!(drain_exactly(&b, LARGE).await.len(), LARGE);
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing", "resume_writing"]);
            transport.close();
            protocol.lost().await;
        }
    });
}

/// Sends until the kernel takes no more. Gives how much that was.
fn fill(mut socket: &Socket) -> usize {
    let mut filled = 0;
    for length in [65536, 1024, 1] {
        while let Ok(sent) = socket.write(&vec![0; length]) {
            filled += sent;
        }
    }
    filled
}

// spec: FLOW-05, FLOW-06
#[test]
fn small_writes_behind_others_are_counted_and_pause_before_they_return() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = narrow_pair();
            let other = a.try_clone().unwrap();
            let (transport, protocol, trace, b) = connected(mode, (a, b)).await;
            transport.set_write_buffer_limits(Some(100), None).unwrap();
            settle().await;
            let filled = fill(&other);
            transport.write([1; 40].as_slice()).unwrap();
            transport.write([2; 40].as_slice()).unwrap();
            assert_eq!(events(&trace), ["connection_made"]);
            transport.write([3; 40].as_slice()).unwrap();
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            assert_eq!(transport.get_write_buffer_size(), 120);
            let got = drain_exactly(&b, filled + 120).await;
            assert!(got[filled..] == [[1; 40], [2; 40], [3; 40]].concat());
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing", "resume_writing"]);
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: FLOW-05, FLOW-06, RISK-14
#[test]
fn room_that_another_writer_takes_before_the_flush_is_missed_late_and_nothing_is_lost() {
    on_loop(async {
        for (a, b) in wide_pairs() {
            let other = a.try_clone().unwrap();
            let (recorder, trace) = recorder();
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            let data = noise(LARGE);
            transport.write(&data).unwrap();
            let filled = fill(&other);
            assert_eq!(events(&trace), ["connection_made"]);
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            let got = drain_exactly(&b, filled + LARGE).await;
            assert!(got[filled..] == data);
            settle().await;
            assert_eq!(events(&trace), ["connection_made", "pause_writing", "resume_writing"]);
            transport.write(b"on").unwrap();
            assert_eq!(drain_exactly(&b, 2).await, b"on");
            transport.close();
            protocol.lost().await;
        }
    });
}

// spec: FLOW-05, TRANS-40
#[test]
fn room_that_the_program_takes_through_the_socket_is_missed_in_time() {
    on_loop(async {
        let takers: [fn(&TransportSocket, &OwnedFd); 3] = [
            |socket, _| socket.set_send_buffer_size(4096).unwrap(),
            |socket, _| {
                socket
                    .with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(4096))
                    .unwrap()
                    .unwrap();
            },
            |_, dup| SockRef::from(dup).set_send_buffer_size(4096).unwrap(),
        ];
        for take in takers {
            let (a, b) = pair();
            a.set_send_buffer_size(WIDE).unwrap();
            let (recorder, trace) = recorder();
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
            let dup = socket.dup().unwrap();
            // The kernel was asked, and has room for more than this.
            transport.write(noise(70_000)).unwrap();
            yield_now().await;
            assert_eq!(drain(&b).0.len(), 70_000);
            take(&socket, &dup);
            transport.write(noise(LARGE)).unwrap();
            assert_eq!(events(&trace), ["connection_made", "pause_writing"]);
            transport.abort();
            protocol.lost().await;
        }
    });
}

// spec: TRANS-40, FLOW-08, RISK-14
#[test]
fn what_was_written_before_the_send_buffer_is_made_smaller_is_sent_before() {
    on_loop(async {
        let (a, b) = pair();
        a.set_send_buffer_size(WIDE).unwrap();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        settle().await;
        transport.write(vec![1; LARGE]).unwrap();
        let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        assert_eq!(drain(&b).0.len(), LARGE);
        assert_eq!(transport.get_write_buffer_size(), 0);
        transport.close();
        protocol.lost().await;
        assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
    });
}

// spec: FLOW-05
#[test]
fn with_a_limit_on_unsent_bytes_a_large_write_is_offered_at_once() {
    on_loop(async {
        let (a, b) = tcp_pair();
        a.set_tcp_notsent_lowat(1 << 20).unwrap();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        settle().await;
        let data = noise(LARGE);
        // A ring enters the kernel; over epoll the bytes are sent by a call of their own.
        let offered = || (running().counters().rounds, running().counters().bytes_out);
        let before = offered();
        transport.write(&data).unwrap();
        assert_ne!(offered(), before);
        let is_over = transport.get_write_buffer_size() > 65536;
        assert_eq!(events(&trace).len(), 1 + usize::from(is_over));
        assert!(drain_exactly(&b, LARGE).await == data);
        transport.close();
        protocol.lost().await;
    });
}

// spec: WRITE-16, WRITE-11
#[test]
fn what_is_written_in_connection_lost_after_a_flush_is_sent_unasked() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (recorder, _) = recorder_with(mode);
            let recorder = recorder.on_lost(|transport| {
                transport.write(b"la").unwrap();
                transport.writelines([b"s", b"t"]).unwrap();
            });
            let (transport, protocol) = attach(a, recorder).await;
            transport.write(vec![1; 500_000]).unwrap();
            transport.close();
            let (got, end) = drain_all(&b).await;
            assert_eq!((&got[500_000..], end), (&b"last"[..], End::Eof));
            protocol.lost().await;
        }
    });
}

// spec: WRITE-23, WRITE-21, TRANS-33
#[test]
fn writelines_that_empties_the_buffer_of_a_closing_transport_ends_it() {
    on_loop(async {
        for mode in MODES {
            let (transport, protocol, trace, b) = connected(mode, pair()).await;
            transport.write(vec![1; 300_000]).unwrap();
            transport.close();
            turn(2).await;
            let mut got = drain(&b).0;
            transport.writelines([vec![2; 10], vec![3; 10]]).unwrap();
            let told =
                ["connection_made", "pause_writing", "resume_writing", "connection_lost(None)"];
            assert_eq!(events(&trace), told);
            transport.write(b"late").unwrap();
            let (rest, end) = drain_all(&b).await;
            got.extend(rest);
            assert_eq!((got.len(), &got[300_009..300_011], end), (300_020, &[2, 3][..], End::Eof));
            protocol.lost().await;
            settle().await;
            assert_eq!(events(&trace), told);
        }
    });
}

/// More than the default high-water mark.
const LARGE: usize = 100_000;
/// For a send buffer that is sure to take a few of them, as the kernel doubles it.
const WIDE: usize = 200_000;
