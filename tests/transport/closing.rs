//! How a connection ends: once, last, and as the peer would see it from asyncio.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use ringloop::{Transport, extra_info, yield_now};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::sockets::{End, drain, pair, reset, tcp_pair};

use super::{MODES, attach, events, recorder, recorder_with, running};

// spec: TRANS-30, RISK-18
#[test]
fn with_staged_bytes_connection_lost_comes_as_soon_as_without() {
    on_loop(async {
        for mode in MODES {
            for (data, turns) in [(&b""[..], 1), (b"small", 1)] {
                let (a, b) = pair();
                let (recorder, trace) = recorder_with(mode);
                let (transport, _) = attach(a, recorder).await;
                settle().await;
                transport.write(data).unwrap();
                transport.close();
                assert_eq!(events(&trace), ["connection_made"]);
                turn(turns).await;
                assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
                assert_eq!(drain(&b), (data.to_vec(), End::Eof));
            }
        }
    });
}

// spec: WRITE-11, WRITE-20
#[test]
fn staged_bytes_that_do_not_all_fit_are_flushed_before_the_end() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            a.set_send_buffer_size(4096).unwrap();
            let (recorder, trace) = recorder_with(mode);
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            transport.write(vec![1; 60_000]).unwrap(); // Below the high-water mark.
            transport.close();
            turn(5).await;
            assert_eq!(events(&trace), ["connection_made"]);
            transport.write(b"more").unwrap();
            let (got, end) = drain_all(&b).await;
            assert_eq!((got.len(), end), (60_004, End::Eof));
            protocol.lost().await;
            assert_eq!(events(&trace), ["connection_made", "connection_lost(None)"]);
        }
    });
}

// spec: WRITE-11
#[test]
fn a_write_right_after_close_counts_only_if_the_kernel_had_no_room() {
    on_loop(async {
        for mode in MODES {
            for (length, arrives) in [(10, false), (60_000, true)] {
                let (a, b) = pair();
                a.set_send_buffer_size(4096).unwrap();
                let (recorder, _) = recorder_with(mode);
                let (transport, protocol) = attach(a, recorder).await;
                transport.write(vec![1; length]).unwrap();
                transport.close();
                transport.write(b"more").unwrap();
                let (got, end) = drain_all(&b).await;
                assert_eq!((got.len(), end), (length + if arrives { 4 } else { 0 }, End::Eof));
                protocol.lost().await;
            }
        }
    });
}

// spec: ERR-05, TRANS-33
#[test]
fn an_error_of_staged_bytes_is_the_end_that_close_expected() {
    on_loop(async {
        for mode in MODES {
            let (a, b) = pair();
            let (recorder, trace) = recorder_with(mode);
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            drop(b);
            transport.write(b"lost").unwrap();
            transport.close();
            protocol.lost().await;
            settle().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "connection_lost(BrokenPipeError[EPIPE])"]
            );
        }
    });
}

// spec: TRANS-34, RISK-19
#[test]
fn aborted_after_close_it_loses_the_connection_once() {
    on_loop(async {
        for mode in MODES {
            for length in [0, 10, 60_000, 1 << 20] {
                let (a, b) = pair();
                a.set_send_buffer_size(4096).unwrap();
                let (recorder, trace) = recorder_with(mode);
                let (transport, protocol) = attach(a, recorder).await;
                transport.write(vec![1; length]).unwrap();
                transport.close();
                transport.abort();
                transport.abort();
                protocol.lost().await;
                settle().await;
                let events = events(&trace);
                let lost: Vec<_> = events.iter().filter(|event| event.contains("lost")).collect();
                assert_eq!(lost, ["connection_lost(None)"]);
                let (got, _) = drain(&b);
                assert_eq!(got.len() == length, length <= 10, "{}", got.len());
            }
        }
    });
}

// spec: TRANS-38, RISK-06
#[test]
fn undelivered_bytes_reset_a_tcp_peer() {
    on_loop(async {
        // Closed at the first delivery, with more behind it: staged in the loop, or still in the kernel.
        for length in [20_000, 1 << 20] {
            let (a, mut b) = tcp_pair();
            let sent = b.write(&vec![1; length]).unwrap();
            assert!(sent > 16 * 1024);
            let (recorder, _) = recorder();
            let recorder = recorder.on_data(|transport, _| {
                transport.close();
                Ok(())
            });
            let (_transport, protocol) = attach(a, recorder).await;
            protocol.lost().await;
            settle().await;
            assert_eq!(b.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        // With everything delivered it is a clean end.
        let (a, mut b) = tcp_pair();
        b.write_all(b"all").unwrap();
        let (recorder, _) = recorder();
        let recorder = recorder.on_data(|transport, _| {
            transport.close();
            Ok(())
        });
        let (_transport, protocol) = attach(a, recorder).await;
        protocol.lost().await;
        settle().await;
        assert_eq!(b.read(&mut [0; 1]).unwrap(), 0);
    });
}

// spec: TRANS-35, RISK-09
#[test]
fn the_socket_is_open_in_connection_lost_and_closed_right_after() {
    on_loop(async {
        for (a, b) in [pair(), tcp_pair()] {
            let number = Rc::new(Cell::new(-2));
            let seen = Rc::clone(&number);
            let (recorder, _) = recorder();
            let recorder = recorder.on_lost(move |transport| {
                seen.set(transport.get_extra_info(extra_info::SOCKET).unwrap().fileno());
            });
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            transport.abort();
            protocol.lost().await;
            assert!(number.get() > 2);
            assert_eq!(transport.get_extra_info(extra_info::SOCKET).unwrap().fileno(), -1);
            assert_eq!(drain(&b), (Vec::new(), End::Eof));
        }
    });
}

// spec: TRANS-33b, RISK-24
#[test]
fn closed_or_aborted_in_any_callback_it_is_lost_once() {
    on_loop(async {
        for end in [Transport::close as fn(&Transport), Transport::abort] {
            for mode in MODES {
                for place in 0..5 {
                    let (a, mut b) = pair();
                    let (recorder, trace) = recorder_with(mode);
                    let recorder = match place {
                        0 => recorder.on_made(end),
                        1 => recorder.on_data(move |transport, _| {
                            end(transport);
                            Ok(())
                        }),
                        2 => recorder.on_eof(move |transport| {
                            end(transport);
                            Ok(())
                        }),
                        3 => recorder.on_pause(end),
                        _ => recorder.on_resume(end),
                    };
                    let (transport, protocol) = attach(a, recorder).await;
                    transport.write(vec![1; 500_000]).unwrap();
                    let _ = b.write_all(b"x"); // It may be closed already.
                    turn(3).await;
                    let _ = b.shutdown(std::net::Shutdown::Write);
                    turn(3).await;
                    drain_all(&b).await;
                    transport.close();
                    protocol.lost().await;
                    settle().await;
                    let events = events(&trace);
                    let lost = events.iter().filter(|event| event.contains("lost")).count();
                    assert_eq!(
                        (lost, events.last().unwrap().as_str()),
                        (1, "connection_lost(None)")
                    );
                }
            }
        }
    });
}

// spec: ERR-08, ERR-09, TRANS-13
#[test]
fn a_reset_of_an_idle_peer_is_silent_and_final() {
    on_loop(async {
        for writes in [false, true] {
            let (a, b) = tcp_pair();
            let (recorder, trace) = recorder();
            let reports = Rc::new(Cell::new(0));
            let count = Rc::clone(&reports);
            running().set_exception_handler(move |_, _| count.set(count.get() + 1));
            let (transport, protocol) = attach(a, recorder).await;
            settle().await;
            reset(b);
            if writes {
                transport.write(b"too late").unwrap();
            }
            protocol.lost().await;
            settle().await;
            assert_eq!(
                events(&trace),
                ["connection_made", "connection_lost(ConnectionResetError[ECONNRESET])"]
            );
            assert_eq!(reports.get(), 0);
        }
    });
}

#[test]
fn a_lost_transport_is_an_empty_shell() {
    on_loop(async {
        let (a, _b) = pair();
        let (recorder, trace) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        transport.close();
        protocol.lost().await;
        transport.write(b"x").unwrap();
        transport.writelines([b"x"]).unwrap();
        transport.write_eof().unwrap();
        transport.pause_reading();
        transport.resume_reading();
        transport.set_write_buffer_limits(Some(0), None).unwrap();
        transport.close();
        transport.abort();
        transport.set_protocol(Rc::new(ringloop::Exclusive::new(())));
        assert!(transport.get_protocol().is_none() && transport.is_closing());
        assert_eq!((transport.is_reading(), transport.get_write_buffer_size()), (false, 0));
        assert!(transport.get_extra_info(extra_info::SOCKNAME).is_some());
        assert_eq!(format!("{transport:?}"), "<Transport closed>");
        settle().await;
        assert_eq!(events(&trace).len(), 2);
    });
}

// spec: TRANS-42, READY-11
#[test]
fn a_closing_transport_gives_its_number_free_for_watching() {
    on_loop(async {
        let event_loop = running();
        let (a, _b) = pair();
        let watched = a.try_clone().unwrap();
        let (recorder, _) = recorder();
        let (transport, protocol) = attach(a, recorder).await;
        let socket = transport.get_extra_info(extra_info::SOCKET).unwrap();
        assert!(event_loop.add_reader(&socket, |_| ()).is_err());
        transport.close();
        assert!(!event_loop.remove_reader(&socket).unwrap());
        protocol.lost().await;
        drop(watched);
    });
}

// spec: PROTO-08, ERR-03
#[test]
fn the_first_forced_cause_is_the_argument_of_connection_lost() {
    on_loop(async {
        for aborts_first in [true, false] {
            let (a, mut b) = pair();
            let seen = Rc::new(RefCell::new(Vec::new()));
            let (recorder, trace) = recorder();
            let recorder = recorder.on_data(move |transport, data| {
                seen.borrow_mut().push(data);
                if aborts_first {
                    transport.abort();
                }
                Err(std::io::Error::from(ErrorKind::ConnectionAborted).into())
            });
            let (_transport, protocol) = attach(a, recorder).await;
            b.write_all(b"x").unwrap();
            protocol.lost().await;
            let expected = if aborts_first { "None" } else { "connection aborted" };
            let last = events(&trace).pop().unwrap();
            assert_eq!(last, format!("connection_lost({expected})"));
            yield_now().await;
        }
    });
}
