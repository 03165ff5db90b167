//! Scenarios of our own, for rows that no published one proves: `own.py` has CPython's side.

use std::cell::{Cell, RefCell, RefMut};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use ringloop::extra_info::PEERNAME;
use ringloop::{
    Address, Buffered, BufferedProtocol, ContextVar, Error, EventLoop, Listen, LoopFuture,
    ProtocolRef, ProtocolResult, Received, Server, Target, Task, Transport, catch_cancel,
    copy_context, gather, sleep, timeout, yield_now,
};
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::python;
use ringloop_tests::recorder::{Event, Recorder};
use ringloop_tests::sockets::{
    drain, drained, listener, noise, pair, pipe, reset, tcp_pair, tcp_socket,
};
use socket2::Socket;

use crate::connections::{local, refusing, resolve_to};
use crate::loops::wait_until;
use crate::scenario::{Scenario, kind_of, py, replays, running, with_text};
use crate::servers::{HERE, Made, client, echo_server, serve_forever};

// spec: LOOP-20
fn own_l08_a_callback_that_fails_is_reported_and_the_others_run(s: &Scenario) {
    let event_loop = s.new_loop();
    let log = |text: &'static str| {
        let s = s.clone();
        move |_: &EventLoop| s.log(text)
    };
    event_loop.call_soon(log("A")).unwrap();
    event_loop.call_soon(|_| panic!("ValueError")).unwrap();
    event_loop.call_soon(log("B")).unwrap();
    event_loop.call_later(Duration::ZERO, |_| panic!("ValueError")).unwrap();
    event_loop.call_soon(EventLoop::stop).unwrap();
    event_loop.run_forever().unwrap();
    s.log("ended");
    event_loop.close().unwrap();
}

// spec: FUT-02, FUT-03, FUT-04, FUT-06
async fn own_l10_a_future_is_done_once_and_its_callbacks_come_soon(s: Scenario) {
    let future = running().create_future::<i32>();
    let log = |text: &'static str| {
        let s = s.clone();
        move |_: &LoopFuture<i32>| s.log(text)
    };
    let first = s.clone();
    future.add_done_callback(move |future: &LoopFuture<i32>| {
        first.log(format!("first {}", future.result().unwrap()));
    });
    let second = future.add_done_callback(log("second"));
    future.add_done_callback(log("third"));
    future.add_again(&second);
    let removed = future.remove_done_callback(&second);
    s.log(format!("removed={removed} again={}", future.remove_done_callback(&second)));
    future.set_result(1).unwrap();
    s.log(format!("done={}", py(future.done())));
    s.log(kind_of(future.set_result(2)));
    s.log(kind_of(future.set_exception(Error::other("ValueError"))));
    s.log(format!("cancel={}", py(future.cancel())));
    turn(1).await;
    future.add_done_callback(log("late"));
    s.log("added");
    turn(1).await;
    let future = running().create_future::<i32>();
    let cancelled = s.clone();
    future.add_done_callback(move |future: &LoopFuture<i32>| {
        cancelled.log(format!("g cancelled={}", py(future.cancelled())));
    });
    s.log(kind_of(future.result()));
    s.log(kind_of(future.exception()));
    let cancelled = future.cancel();
    s.log(format!("cancel={} again={}", py(cancelled), py(future.cancel())));
    turn(1).await;
    s.log(kind_of(future.await));
    let future = running().create_future::<i32>();
    future.set_result(3).unwrap();
    let soon = s.clone();
    running().call_soon(move |_| soon.log("soon")).unwrap();
    s.log(format!("at once {}", future.await.unwrap()));
    turn(1).await;
}

static NUMBER: ContextVar<u32> = ContextVar::new("number");

// spec: MAP-16
async fn own_l42_tasks_and_callbacks_begin_with_what_is_set_where_they_are_made(s: Scenario) {
    fn seen(s: &Scenario, who: impl std::fmt::Display) {
        let number = NUMBER.get().map_or_else(|| "None".to_owned(), |number| number.to_string());
        s.log(format!("{who} {number}"));
    }
    let log = |who: &'static str| {
        let s = s.clone();
        move || seen(&s, who)
    };
    let event_loop = running();
    seen(&s, "main");
    NUMBER.set(1);
    let (soon, then, inner) = (log("soon"), log("soon then"), log("soon inner"));
    let soon = move |event_loop: &EventLoop| {
        soon();
        NUMBER.set(11);
        then();
        event_loop.call_soon(move |_| inner()).unwrap();
    };
    event_loop.call_soon(soon).unwrap();
    let later = log("later");
    event_loop.call_later(Duration::ZERO, move |_| later()).unwrap();
    let of_child = s.clone();
    let child = event_loop.create_task(async move {
        seen(&of_child, "child");
        NUMBER.set(21);
        turn(1).await;
        seen(&of_child, "child then");
        let of_grandchild = of_child.clone();
        let grandchild = ringloop::spawn(async move {
            seen(&of_grandchild, "grandchild");
            NUMBER.set(31);
        });
        grandchild.await.unwrap();
        seen(&of_child, "child after");
    });
    let future = event_loop.create_future::<()>();
    let done = log("done");
    future.add_done_callback(move |_| done());
    NUMBER.set(2);
    future.set_result(()).unwrap();
    seen(&s, "main");
    let last = log("last");
    event_loop.call_soon(move |_| last()).unwrap();
    let context = copy_context();
    NUMBER.set(3);
    child.await.unwrap();
    seen(&s, "main");
    s.log(format!("copy {}", context.run(|| NUMBER.get()).unwrap()));
    let other = log("in a copy");
    context.run(|| event_loop.create_task(async move { other() })).await.unwrap();
    let many = [1, 2].map(|number| {
        let s = s.clone();
        async move {
            seen(&s, format!("of many {number}"));
            NUMBER.set(number);
        }
    });
    gather(many).await.unwrap();
    seen(&s, "main");
}

// spec: TASK-05, TASK-06, TASK-07, TASK-08
async fn own_l11_a_cancelled_task_is_not_done_yet_and_may_go_on(s: Scenario) {
    let wait = |name: &'static str, goes_on: bool| {
        let s = s.clone();
        let body = async move {
            s.log(format!("{name} begins"));
            if let Err(cancelled) = catch_cancel(sleep(LONG)).await {
                s.log(format!("{name} CancelledError"));
                if !goes_on {
                    cancelled.propagate().await;
                }
            }
            turn(1).await;
            s.log(format!("{name} ends"));
            name
        };
        running().create_task(body)
    };
    let task = wait("one", false);
    turn(1).await;
    let cancelled = task.cancel();
    s.log(format!("cancel={} done={}", py(cancelled), py(task.done())));
    turn(1).await;
    let (done, cancelled) = (task.done(), task.cancelled());
    s.log(format!("done={} cancelled={} cancel={}", py(done), py(cancelled), py(task.cancel())));
    let mut task = wait("two", true);
    turn(1).await;
    task.cancel();
    let result = (&mut task).await.unwrap();
    let cancelling = task.task_ref().cancelling();
    s.log(format!("result={result} cancelled={} cancelling={cancelling}", py(task.cancelled())));
    let mut task: Task<&str> = wait("three", true);
    task.cancel();
    if let Err(Error::Cancelled) = (&mut task).await {
        s.log(format!("cancelled={}", py(task.cancelled())));
    }
    let task = wait("four", true);
    turn(1).await;
    task.cancel();
    task.cancel();
    let cancelling = task.task_ref().cancelling();
    s.log(format!("cancelling={cancelling} uncancel={}", task.task_ref().uncancel()));
    s.log(format!("result={}", task.await.unwrap()));
}

// spec: TASK-10
async fn own_l13_gather_keeps_the_order_and_tells_the_first_error(s: Scenario) {
    let begin = |name: &'static str, turns: usize, fails: bool| {
        let s = s.clone();
        async move {
            s.log(format!("{name} begins"));
            let mut guard = CancelGuard(Some((s.clone(), format!("{name} CancelledError"))));
            turn(turns).await;
            guard.0 = None;
            s.log(format!("{name} ends"));
            if fails {
                panic!("ValueError");
            }
            name
        }
    };
    s.log(gather([begin("a", 3, false), begin("b", 1, false)]).await.unwrap().join(", "));
    let nothing: [std::future::Ready<()>; 0] = [];
    s.log(format!("empty={}", gather(nothing).await.unwrap().len()));
    let error = gather([begin("c", 3, false), begin("d", 0, true)]).await.unwrap_err();
    s.log(python::kind(&error));
    turn(4).await;
    let results = gather([begin("e", 1, true), begin("f", 2, false)]).settled().await;
    let results = results.iter().map(|result| match result {
        Ok(name) => (*name).to_owned(),
        Err(error) => python::kind(error),
    });
    s.log(results.collect::<Vec<_>>().join(", "));
    let both = gather([begin("g", 50, false), begin("h", 50, false)]);
    turn(1).await;
    s.log(format!("cancel={}", py(both.cancel())));
    s.log(kind_of(both.await));
    let both = gather([begin("i", 50, false), begin("j", 50, false)]);
    let task = running().create_task(async { both.await.map(drop) });
    turn(2).await;
    task.cancel();
    turn(3).await;
    s.log(format!("cancelled={}", py(task.cancelled())));
}

/// Where Python's body sees a `CancelledError`, ours is dropped.
struct CancelGuard(Option<(Scenario, String)>);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some((scenario, text)) = self.0.take() {
            scenario.log(text);
        }
    }
}

// spec: LOOP-01, LOOP-08
fn own_l40_calls_of_other_threads_stand_in_the_one_queue(s: &Scenario) {
    thread_local! {
        static SCENARIO: RefCell<Option<Scenario>> = const { RefCell::new(None) };
    }
    fn log(event: &str) {
        SCENARIO.with_borrow(|scenario| scenario.as_ref().unwrap().log(event));
    }
    fn send(event_loop: &EventLoop, events: &'static [&'static str]) {
        let proxy = event_loop.proxy();
        let call = move || {
            for event in events {
                proxy.call_soon_threadsafe(move |_| log(event)).unwrap();
            }
        };
        thread::spawn(call).join().unwrap();
    }
    SCENARIO.set(Some(s.clone()));
    let event_loop = s.new_loop();
    send(&event_loop, &["early"]);
    let first = |event_loop: &EventLoop| {
        log("first");
        send(event_loop, &["X"]);
        event_loop.call_soon(|_| log("Y")).unwrap();
        send(event_loop, &["Z", "Z again"]);
        let stop = |event_loop: &EventLoop| {
            event_loop.call_soon(EventLoop::stop).unwrap();
        };
        event_loop.call_soon(stop).unwrap();
    };
    event_loop.call_soon(first).unwrap();
    send(&event_loop, &["late"]);
    event_loop.run_forever().unwrap();
    event_loop.close().unwrap();
    SCENARIO.set(None);
}

// spec: TASK-13, FUT-04
async fn own_l41_a_value_that_comes_with_the_deadline_is_refused_and_not_lost(s: Scenario) {
    let event_loop = running();
    let future = event_loop.create_future::<i32>();
    let (log, awaited) = (s.clone(), future.clone());
    let task = event_loop.create_task(async move {
        if let Err(Error::Timeout) = timeout(Duration::from_millis(20), awaited).await {
            log.log("TimeoutError");
        }
    });
    turn(1).await;
    let give = move |_: &EventLoop| match future.set_result(1) {
        Ok(()) => s.log("set"),
        Err(_) => s.log(format!("refused, cancelled={}", py(future.cancelled()))),
    };
    event_loop.call_later(Duration::from_millis(21), give).unwrap();
    wait_until(Instant::now() + Duration::from_millis(50)); // Both timers are due when the loop looks.
    task.await.unwrap();
}

// spec: SIGNAL-01, SIGNAL-03
fn own_x10_signals_are_told_one_by_one_in_the_order_of_their_arrival(s: &Scenario) {
    const ONE: i32 = 10;
    const TWO: i32 = 12;
    let raise = |signum: i32| {
        let arguments = [format!("-{signum}"), std::process::id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    };
    let event_loop = s.new_loop();
    for (signum, event) in [(ONE, "one"), (TWO, "two")] {
        let s = s.clone();
        event_loop.add_signal_handler(signum, move |_| s.log(event)).unwrap();
    }
    let run = || {
        event_loop.call_later(Duration::from_millis(50), EventLoop::stop).unwrap();
        event_loop.run_forever().unwrap();
    };
    [TWO, ONE, ONE, TWO].into_iter().for_each(raise);
    run();
    raise(TWO);
    event_loop.remove_signal_handler(TWO);
    raise(ONE);
    run();
    event_loop.close().unwrap();
}

// spec: READY-06, READY-18, RISK-11
async fn own_r02_remove_reader_takes_back_a_queued_callback(s: Scenario) {
    let event_loop = running();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let log = s.clone();
    event_loop.add_reader(&a, move |_| log.log("taken back")).unwrap();
    turn(1).await;
    s.log(format!("remove={}", py(event_loop.remove_reader(&a).unwrap())));
    turn(2).await;
    let (c, mut d) = pair();
    d.write_all(b"x").unwrap();
    let (calls, watched) = (Rc::new(Cell::new(0)), [a.as_raw_fd(), c.as_raw_fd()]);
    for fd in &watched {
        let calls = Rc::clone(&calls);
        let callback = move |event_loop: &EventLoop| {
            calls.set(calls.get() + 1);
            for fd in &watched {
                event_loop.remove_reader(fd).unwrap();
            }
        };
        event_loop.add_reader(fd, callback).unwrap();
    }
    turn(4).await;
    s.log(format!("calls={}", calls.get()));
    let (log, fd) = (s.clone(), a.as_raw_fd());
    let first = move |event_loop: &EventLoop| {
        log.log("first");
        let log = log.clone();
        let second = move |event_loop: &EventLoop| {
            log.log("second");
            event_loop.remove_reader(&fd).unwrap();
        };
        event_loop.add_reader(&fd, second).unwrap();
    };
    event_loop.add_reader(&a, first).unwrap();
    turn(4).await;
}

// spec: READY-05, HANDLE-03, RISK-11
async fn own_r03_a_new_callback_replaces_one_that_is_queued(s: Scenario) {
    let event_loop = running();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let log = |text: &'static str| {
        let s = s.clone();
        move |_: &EventLoop| s.log(text)
    };
    event_loop.add_reader(&a, log("old")).unwrap();
    turn(1).await;
    event_loop.add_reader(&a, log("new")).unwrap();
    s.log("replaced");
    turn(2).await;
    s.log(format!("remove={}", py(event_loop.remove_reader(&a).unwrap())));
    event_loop.add_writer(&a, log("old writer")).unwrap();
    turn(1).await;
    event_loop.add_writer(&a, log("new writer")).unwrap();
    s.log("replaced");
    turn(2).await;
    s.log(format!("remove={}", py(event_loop.remove_writer(&a).unwrap())));
}

// spec: READY-08, READY-13, RISK-42
async fn own_r10_what_is_full_fires_no_writer_until_it_hangs_up(s: Scenario) {
    let event_loop = running();
    let writer_of = |fd, text: &'static str| {
        let s = s.clone();
        move |event_loop: &EventLoop| {
            s.log(text);
            event_loop.remove_writer(&fd).unwrap();
        }
    };
    let (reader, writer) = pipe();
    fill_pipe(&writer);
    event_loop.add_writer(&writer, writer_of(writer.as_raw_fd(), "pipe writer")).unwrap();
    turn(3).await;
    s.log("full");
    drop(reader);
    turn(3).await;
    let (mut a, b) = pair();
    let error = loop {
        if let Err(error) = a.write(&[0; 65536]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    event_loop.add_writer(&a, writer_of(a.as_raw_fd(), "socket writer")).unwrap();
    turn(3).await;
    s.log("full");
    drop(b);
    turn(3).await;
    let (a, b) = pair();
    b.shutdown(Shutdown::Write).unwrap();
    let (log, fd) = (s.clone(), a.as_raw_fd());
    let reader = move |event_loop: &EventLoop| {
        log.log(format!("half-closed {}", python::bytes(&drain(&a).0)));
        event_loop.remove_reader(&fd).unwrap();
    };
    event_loop.add_reader(&fd, reader).unwrap();
    turn(3).await;
    let listener = listener(1);
    let (log, fd) = (s.clone(), listener.as_raw_fd());
    let reader = move |event_loop: &EventLoop| {
        log.log("listener");
        event_loop.remove_reader(&fd).unwrap();
    };
    event_loop.add_reader(&fd, reader).unwrap();
    turn(3).await;
    s.log("quiet");
    let _c = TcpStream::connect(ringloop_tests::sockets::address_of(&listener)).unwrap();
    turn(3).await;
}

// spec: TRANS-14, PROTO-06, PROTO-08
async fn own_t02_the_end_of_the_stream_closes(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    b.shutdown(Shutdown::Write).unwrap();
    protocol.lost().await;
    s.log(format!("closing={} peer={}", py(transport.is_closing()), drained(&b)));
}

// spec: TRANS-13, PROTO-08, ERR-08
async fn own_t04_a_reset_is_the_end_and_not_reported(s: Scenario) {
    s.log_reports();
    let (a, b) = tcp_pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    reset(b);
    protocol.lost().await;
    s.log(format!("closing={}", py(transport.is_closing())));
}

// spec: TRANS-16, PROTO-06, RISK-21
async fn own_t05_data_and_eof_are_told_in_iterations_of_their_own(s: Scenario) {
    let (a, mut b) = s.pair();
    b.write_all(b"data").unwrap();
    drop(b);
    s.attach(a, s.recorder()).await;
    for i in 0..5 {
        turn(1).await;
        s.log_proto(format!("turn {i}"));
    }
}

// spec: TRANS-21, TRANS-25, RISK-03, RISK-26
async fn own_t07_paused_is_silent_though_the_event_is_queued(s: Scenario) {
    let (a, mut b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    turn(2).await;
    b.write_all(b"one").unwrap();
    turn(1).await;
    transport.pause_reading();
    s.log_proto("paused");
    settle().await;
    s.log_proto("quiet");
    transport.resume_reading();
    s.log_proto("resumed");
    turn(2).await;
    b.write_all(b"two").unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    turn(1).await;
    transport.pause_reading();
    settle().await;
    s.log_proto("quiet");
    transport.resume_reading();
    s.log_proto("resumed");
    protocol.lost().await;
}

// spec: TRANS-10, TRANS-24, RISK-04, RISK-22
async fn own_t08_paused_the_peer_is_throttled(s: Scenario) {
    let (a, b) = s.pair();
    let data = noise(4 << 20);
    let got = Rc::new(RefCell::new(Vec::<Vec<u8>>::new()));
    let (log, all) = (s.clone(), Rc::clone(&got));
    let recorder = s.recorder().count_data().on_data(move |transport, data| {
        all.borrow_mut().push(data.to_vec());
        if all.borrow().len() == 1 {
            transport.pause_reading();
            log.log_proto("paused");
        }
        Ok(())
    });
    let (transport, protocol) = s.attach(a, recorder).await;
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        let more = send_some(&b, &data[sent..]);
        sent += more;
        quiet = if more == 0 { quiet + 1 } else { 0 };
        turn(1).await;
    }
    let one_call = got.borrow().len() == 1;
    s.log(format!("throttled={} one call={}", py(sent < data.len() / 2), py(one_call)));
    transport.resume_reading();
    while sent < data.len() {
        sent += send_some(&b, &data[sent..]);
        turn(1).await;
    }
    drop(b);
    protocol.lost().await;
    s.log(format!("equal={}", py(got.borrow().concat() == data)));
}

// spec: WRITE-10
async fn own_t18_written_after_the_loss_is_ignored_and_warned_about(s: Scenario) {
    let (a, b) = pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.close();
    for _ in 0..10 {
        transport.write(b"x").unwrap();
    }
    transport.write(b"").unwrap();
    s.log(format!("warnings={}", running().stats().warnings));
    protocol.lost().await;
    transport.write(b"x").unwrap();
    s.log(format!("peer={} size={}", drained(&b), transport.get_write_buffer_size()));
}

// spec: WRITE-07, ERR-09, RISK-42
async fn own_t19_a_send_that_fails_loses_the_connection_with_its_error(s: Scenario) {
    s.log_reports();
    let (a, b) = pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.pause_reading();
    drop(b);
    transport.write(b"x").unwrap();
    s.log_proto("write returned");
    s.log_proto(format!("closing={}", py(transport.is_closing())));
    transport.write(b"y").unwrap();
    protocol.lost().await;
    let (a, b) = tcp_pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    reset(b);
    transport.write(b"x").unwrap();
    protocol.lost().await;
}

// spec: ERR-02, ERR-03
async fn own_t21_an_error_of_the_system_in_a_protocol_is_silent(s: Scenario) {
    s.log_reports();
    let (a, mut b) = s.pair();
    let recorder = s.recorder().on_data(|_, _| Err(os_error(libc::ECONNABORTED).into()));
    let (_transport, protocol) = s.attach(a, recorder).await;
    b.write_all(b"x").unwrap();
    protocol.lost().await;
    let (a, b) = s.pair();
    let boxed: fn() -> Box<dyn std::error::Error> = || os_error(libc::ETIMEDOUT).into();
    let recorder = s.recorder().on_eof(move |_| Err(boxed().into()));
    let (_transport, protocol) = s.attach(a, recorder).await;
    b.shutdown(Shutdown::Write).unwrap();
    protocol.lost().await;
    let (a, mut b) = s.pair();
    let recorder = s.recorder().on_data(|_, _| Err("ValueError".into()));
    let (_transport, protocol) = s.attach(a, recorder).await;
    b.write_all(b"x").unwrap();
    protocol.lost().await;
}

// spec: PROTO-13
async fn own_t22_a_connection_made_that_fails_is_only_reported(s: Scenario) {
    s.log_reports();
    let (a, mut b) = s.pair();
    b.write_all(b"x").unwrap();
    let recorder = s.recorder().on_made(|_| panic!("ValueError"));
    let (transport, protocol) = s.attach(a, recorder).await;
    s.log_proto("returned");
    turn(2).await;
    s.log_proto(format!("closing={}", py(transport.is_closing())));
    transport.write(b"y").unwrap();
    turn(2).await;
    s.log_proto(format!("peer={}", drained(&b)));
    transport.close();
    protocol.lost().await;
}

// spec: FLOW-01, FLOW-02, FLOW-03, FLOW-04
async fn own_t28_water_marks_may_pause_at_once_and_never_resume(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let log_limits = || s.log_proto(format!("{:?}", transport.get_write_buffer_limits()));
    log_limits();
    let limits = [
        (Some(100), None),
        (None, Some(100)),
        (Some(10), Some(3)),
        (Some(0), None),
        (Some(7), None),
        (None, Some(0)),
        (None, None),
    ];
    for (high, low) in limits {
        transport.set_write_buffer_limits(high, low).unwrap();
        log_limits();
    }
    s.log_proto(with_text(transport.set_write_buffer_limits(Some(5), Some(6))));
    log_limits();
    transport.set_write_buffer_limits(Some(4 << 20), None).unwrap();
    transport.write(vec![0; 1 << 20]).unwrap();
    s.log_proto("written");
    let size = transport.get_write_buffer_size();
    transport.set_write_buffer_limits(Some(size), None).unwrap();
    s.log_proto("as large");
    transport.set_write_buffer_limits(Some(size - 1), None).unwrap();
    s.log_proto("smaller");
    transport.set_write_buffer_limits(Some(4 << 20), Some(2 << 20)).unwrap();
    s.log_proto("larger");
    transport.write(b"x").unwrap();
    drain(&b);
    settle().await;
    transport.abort();
    protocol.lost().await;
}

// spec: TRANS-37, TRANS-04, RISK-07
async fn own_t30_closed_in_connection_made_nothing_is_delivered(s: Scenario) {
    let ways = [("close", Transport::close as fn(&Transport)), ("abort", Transport::abort)];
    for (name, way) in ways {
        let (a, mut b) = s.pair();
        b.write_all(b"early").unwrap();
        let (transport, protocol) = s.attach(a, s.recorder().on_made(way)).await;
        s.log_proto(format!("{name}: returned closing={}", py(transport.is_closing())));
        protocol.lost().await;
        turn(2).await;
    }
    let (a, mut b) = s.pair();
    b.write_all(b"early").unwrap();
    let recorder = s.recorder().on_made(|transport| {
        transport.write(b"bye").unwrap();
        transport.close();
    });
    let (_transport, protocol) = s.attach(a, recorder).await;
    protocol.lost().await;
    s.log_proto(format!("peer={}", python::bytes(&drain(&b).0)));
}

// spec: FLOW-07, PROTO-16, RISK-15, RISK-16
async fn own_t31_resume_writing_may_write_again(s: Scenario) {
    let (a, b) = s.pair();
    let (c, d) = s.pair();
    let data = noise(1 << 20);
    let (other, other_protocol) = s.attach(c, s.recorder().lane("other")).await;
    let (log, to, again, calls) = (s.clone(), other.clone(), data.clone(), Cell::new(0));
    let recorder = s.recorder().on_resume(move |transport| {
        calls.set(calls.get() + 1);
        to.write(calls.get().to_string().as_bytes()).unwrap();
        let low = transport.get_write_buffer_size() <= 16384;
        log.log_proto(format!("size<=low={}", py(low)));
        if calls.get() < 3 {
            transport.write(&again).unwrap();
            log.log_proto("written again");
        }
    });
    let (transport, protocol) = s.attach(a, recorder).await;
    transport.write(&data).unwrap();
    let all = data.repeat(3);
    let mut got = Vec::new();
    while got.len() < all.len() {
        got.extend(drain(&b).0);
        turn(1).await;
    }
    settle().await;
    let size = transport.get_write_buffer_size();
    s.log_proto(format!("equal={} size={size}", py(got == all)));
    s.log_proto(format!("other={}", drained(&d)));
    transport.close();
    protocol.lost().await;
    other.close();
    other_protocol.lost().await;
}

// spec: WRITE-10, WRITE-11, TRANS-33, TRANS-35
async fn own_t42_in_connection_lost_only_a_flush_leaves_writing_open(s: Scenario) {
    let late = || {
        let log = s.clone();
        s.recorder().on_lost(move |transport| write_in_connection_lost(&log, transport))
    };
    let half_close = |transport: &Transport, _: &Socket| {
        transport.write_eof().unwrap();
        transport.close();
    };
    let close = |transport: &Transport, _: &Socket| transport.close();
    let abort = |transport: &Transport, _: &Socket| transport.abort();
    let peers_eof = |_: &Transport, peer: &Socket| peer.shutdown(Shutdown::Write).unwrap();
    let ends: [(&str, End, usize); 9] = [
        ("close", close, 0),
        ("close, sent", close, 10),
        ("close, flushed", close, MIB),
        ("write_eof and close", half_close, 0),
        ("write_eof and close, flushed", half_close, MIB),
        ("abort", abort, 0),
        ("abort, full", abort, MIB),
        ("eof", peers_eof, 0),
        ("eof, flushed", peers_eof, MIB),
    ];
    for (name, end, length) in ends {
        s.log_proto(name);
        let (a, b) = pair();
        let (transport, protocol) = s.attach(a, late()).await;
        if length > 0 {
            transport.write(vec![0; length]).unwrap();
        }
        end(&transport, &b);
        turn(4).await;
        let (got, end) = drain_all(&b).await;
        protocol.lost().await;
        let (rest, whole) = (got.get(length..).unwrap_or_default(), py(got.len() >= length));
        s.log_proto(format!("peer: {} whole={whole} {}", python::bytes(rest), end.text()));
        let size = transport.get_write_buffer_size();
        let protocol = transport.get_protocol().map_or("None", |_| "some");
        let closing = py(transport.is_closing());
        s.log_proto(format!("closing={closing} size={size} protocol={protocol}"));
    }
    for (kept, length) in [("flushed", MIB), ("sent", 10)] {
        s.log_proto(format!("kept open, {kept}"));
        let (a, b) = pair();
        let (transport, protocol) = s.attach(a, late().keep_open()).await;
        b.shutdown(Shutdown::Write).unwrap();
        turn(4).await;
        transport.write(vec![0; length]).unwrap();
        transport.close();
        let (got, end) = drain_all(&b).await;
        protocol.lost().await;
        s.log_proto(format!("peer: {} {}", python::bytes(&got[length..]), end.text()));
    }
    s.log_proto("reset");
    let (a, b) = tcp_pair();
    let (_transport, protocol) = s.attach(a, late()).await;
    turn(2).await;
    reset(b);
    protocol.lost().await;
    s.log_proto("gone while full");
    let (a, b) = pair();
    let (transport, protocol) = s.attach(a, late()).await;
    transport.pause_reading();
    transport.write(vec![0; MIB]).unwrap();
    turn(2).await;
    drop(b);
    protocol.lost().await;
}

type End = fn(&Transport, &Socket);

/// Whatever may be called there is.
fn write_in_connection_lost(s: &Scenario, transport: &Transport) {
    let state = || {
        let (closing, reading) = (py(transport.is_closing()), py(transport.is_reading()));
        format!("closing={closing} reading={reading} size={}", transport.get_write_buffer_size())
    };
    s.log_proto(state());
    match transport.write(b"late").and_then(|()| transport.write(b"r")) {
        Ok(()) => s.log_proto("written"),
        Err(error) => s.log_proto(with_text::<()>(Err(error))),
    }
    transport.write_eof().unwrap();
    transport.pause_reading();
    transport.resume_reading();
    transport.set_write_buffer_limits(Some(0), None).unwrap();
    transport.close();
    let other = Rc::new(Recorder::new(&s.trace, s.how.mode).lane("other"));
    transport.set_protocol(Rc::clone(&other));
    let is_set = matches!(transport.get_protocol(), Some(ProtocolRef::Stream(protocol))
        if std::ptr::addr_eq(Rc::as_ptr(&protocol), Rc::as_ptr(&other)));
    let limits = transport.get_write_buffer_limits();
    s.log_proto(format!("{} limits={limits:?} set={}", state(), py(is_set)));
}

// spec: WRITE-16, FLOW-05
async fn own_t43_more_than_fits_in_connection_lost_pauses_and_is_cut(s: Scenario) {
    let log = s.clone();
    let recorder = s.recorder().on_lost(move |transport| {
        transport.write(vec![0; MIB]).unwrap();
        log.log_proto(format!("buffered={}", py(transport.get_write_buffer_size() > 0)));
    });
    let (a, b) = pair();
    let (transport, protocol) = s.attach(a, recorder).await;
    transport.write(vec![0; MIB]).unwrap();
    transport.close();
    let (got, end) = drain_all(&b).await;
    protocol.lost().await;
    let some = got.len() > MIB && got.len() < 2 * MIB;
    s.log_proto(format!("some={} {}", py(some), end.text()));
}

// spec: WRITE-21, FLOW-06
async fn own_t44_writelines_that_finds_room_resumes_inside(s: Scenario) {
    let (a, b) = pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.write(vec![0; 300_000]).unwrap();
    s.log_proto(format!("buffered={}", py(transport.get_write_buffer_size() > 0)));
    transport.writelines([b"x"]).unwrap();
    s.log_proto("still full");
    drain(&b);
    transport.writelines([b"y", b"z"]).unwrap();
    s.log_proto(format!("size={}", transport.get_write_buffer_size()));
    turn(4).await;
    let (got, end) = drain(&b);
    s.log_proto(format!("{} {}", python::bytes(&got[got.len() - 3..]), end.text()));
    transport.write(vec![0; 300_000]).unwrap();
    drain(&b);
    transport.writelines([vec![0; 300_000]]).unwrap();
    s.log_proto("full again");
    drain(&b);
    settle().await;
    s.log_proto(format!("size={}", transport.get_write_buffer_size()));
    transport.close();
    protocol.lost().await;
}

// spec: WRITE-07, ERR-04, ERR-09
async fn own_t45_a_write_that_meets_a_peer_that_is_gone_comes_before_the_read_event(s: Scenario) {
    let writes: [(&str, Act); 3] = [
        ("nothing", |_| ()),
        ("write", |transport| transport.write(b"x").unwrap()),
        ("writelines", |transport| transport.writelines([b"x", b"y"]).unwrap()),
    ];
    for unread in [true, false] {
        for (name, write) in writes {
            for turns in [0, 1] {
                s.log_proto(format!("{name}, unread={} turns={turns}", py(unread)));
                let (a, b) = pair();
                let (transport, protocol) = s.attach(a, s.recorder()).await;
                turn(2).await;
                if unread {
                    transport.write(b"unread").unwrap();
                    turn(2).await;
                }
                drop(b);
                turn(turns).await;
                write(&transport);
                protocol.lost().await;
            }
        }
    }
    for (name, write) in writes {
        for turns in [0, 1] {
            s.log_proto(format!("{name}, full turns={turns}"));
            let (a, b) = pair();
            let (transport, protocol) = s.attach(a, s.recorder()).await;
            transport.write(vec![0; MIB]).unwrap();
            turn(2).await;
            drop(b);
            turn(turns).await;
            write(&transport);
            protocol.lost().await;
        }
    }
    for turns in [0, 1] {
        s.log_proto(format!("reset turns={turns}"));
        let (a, b) = tcp_pair();
        let (transport, protocol) = s.attach(a, s.recorder()).await;
        turn(2).await;
        reset(b);
        turn(turns).await;
        transport.write(b"x").unwrap();
        protocol.lost().await;
    }
}

type Act = fn(&Transport);

/// Logs when it is asked for its buffer.
struct Asked {
    s: Scenario,
    buffer: RefCell<Vec<u8>>,
    lost: Event,
}

impl BufferedProtocol for Asked {
    fn connection_made(&self, transport: &Transport) {
        transport.set_write_mode(self.s.how.mode);
    }

    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        self.s.log_proto("get_buffer(-1)");
        Ok(RefMut::map(self.buffer.borrow_mut(), Vec::as_mut_slice))
    }

    fn buffer_updated(&self, _: &Transport, _: usize) -> ProtocolResult {
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.s.log_proto(format!("connection_lost({})", python::kind_or_none(error)));
        self.lost.set();
    }
}

// spec: PROTO-10, PROTO-11, RISK-29, ERR-02
async fn own_t46_a_buffer_is_asked_for_before_an_error_is_found(s: Scenario) {
    for is_tcp in [true, false] {
        for length in [4, 0] {
            let (a, b) = if is_tcp { tcp_pair() } else { pair() };
            let buffer = RefCell::new(vec![0; length]);
            let asked = Asked { s: s.clone(), buffer, lost: Event::default() };
            let factory = || Buffered::new(asked);
            let (transport, asked) = running().create_connection(factory, a).await.unwrap();
            if is_tcp {
                reset(b);
            } else {
                transport.write(b"unread").unwrap();
                turn(2).await;
                drop(b);
            }
            asked.lost.wait().await;
        }
    }
}

/// Has a small buffer, and logs what comes into it.
struct FillsFour {
    s: Scenario,
    buffer: RefCell<[u8; 4]>,
}

impl BufferedProtocol for FillsFour {
    fn connection_made(&self, transport: &Transport) {
        transport.set_write_mode(self.s.how.mode);
    }

    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, _: &Transport, len: usize) -> ProtocolResult {
        self.s.log_proto(format!("filled {}", python::bytes(&self.buffer.borrow()[..len])));
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        self.s.log_proto(format!("connection_lost({})", python::kind_or_none(error)));
    }
}

// spec: PROTO-10, RISK-22
async fn own_t47_a_buffered_protocol_fills_one_buffer_in_each_iteration(s: Scenario) {
    let (a, mut b) = pair();
    let fills = FillsFour { s: s.clone(), buffer: RefCell::default() };
    running().create_connection(|| Buffered::new(fills), a).await.unwrap();
    b.write_all(b"abcdefghij").unwrap();
    drop(b);
    for index in 0..8 {
        turn(1).await;
        s.log_proto(format!("turn {index}"));
    }
}

// spec: ERR-09, RISK-21
async fn own_t48_a_write_that_meets_a_reset_comes_before_the_data(s: Scenario) {
    for writes in [false, true] {
        s.log_proto(format!("writes={}", py(writes)));
        let (a, mut b) = tcp_pair();
        let (transport, protocol) = s.attach(a, s.recorder()).await;
        turn(2).await;
        b.write_all(b"abc").unwrap();
        reset(b);
        if writes {
            transport.write(b"x").unwrap();
        }
        protocol.lost().await;
    }
}

// spec: LOOP-03, WRITE-03
async fn own_t49_what_one_transport_writes_reaches_another_of_a_busy_loop_in_the_next_iteration(
    s: Scenario,
) {
    let answer = |mark: u8| {
        move |transport: &Transport, data: Received| {
            if data.len() < 5 || mark == b'b' {
                transport.write([&*data, &[mark]].concat()).unwrap();
            }
            Ok(())
        }
    };
    let (a, b) = pair();
    let recorder = |mark| s.recorder().lane("main").on_data(answer(mark));
    let (first, one) = s.attach(a, recorder(b'a')).await;
    let (second, two) = s.attach(b, recorder(b'b')).await;
    turn(2).await;
    first.write(b"x").unwrap();
    for i in 0..8 {
        s.log(format!("turn {i}"));
        turn(1).await;
    }
    first.abort();
    second.abort();
    one.lost().await;
    two.lost().await;
}

// spec: SERVER-40, SERVER-47, SERVER-49, RISK-32
async fn own_v02_factories_are_called_in_the_order_of_the_accepts(s: Scenario) {
    let (made, transports) = (Made::default(), Rc::new(RefCell::new(Vec::<Transport>::new())));
    let (scenario, all, connected) = (s.clone(), made.clone(), Rc::clone(&transports));
    let log = move |event: String| scenario.trace.log("srv", event);
    let scenario = s.clone();
    let factory = move || {
        let index = all.0.borrow().len();
        let (log_made, connected) = (log.clone(), Rc::clone(&connected));
        let recorder = Rc::new(scenario.recorder().lane("srv").on_made(move |transport| {
            connected.borrow_mut().push(transport.clone());
            log_made(format!("index {index}"));
        }));
        all.0.borrow_mut().push(Rc::clone(&recorder));
        log(format!("factory {index}"));
        recorder
    };
    let server = running().create_server(factory, HERE).await.unwrap();
    let clients: Vec<_> = (0..5).map(|_| client(&server)).collect();
    settle().await;
    let transports = transports.borrow().clone();
    let peers = transports.iter().map(|transport| transport.get_extra_info(PEERNAME));
    let names = clients.iter().map(|client| Some(Address::from(&client.local_addr().unwrap())));
    s.trace.log("srv", format!("in order={}", py(peers.eq(names))));
    server.close();
    transports.iter().for_each(Transport::abort);
    server.wait_closed().await.unwrap();
    s.trace.log("srv", "closed");
}

// spec: SERVER-27
async fn own_v08_close_ends_serve_forever(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let task = serve_forever(&server);
    turn(2).await;
    server.close();
    let ended = match task.await {
        Ok(ended) => kind_of(ended),
        Err(error) => python::kind(&error),
    };
    s.log(format!("{ended} serving={}", py(server.is_serving())));
}

// spec: SERVER-31
async fn own_v09_clients_are_closed_or_aborted_together(s: Scenario) {
    let transports = Rc::new(RefCell::new(Vec::<Transport>::new()));
    let (scenario, all, made) = (s.clone(), Rc::clone(&transports), Made::default());
    let protocols = made.clone();
    let factory = move || {
        let (all, lane) = (Rc::clone(&all), format!("srv{}", protocols.0.borrow().len()));
        let recorder = scenario.recorder().lane(lane).on_made(move |transport| {
            all.borrow_mut().push(transport.clone());
        });
        let recorder = Rc::new(recorder);
        protocols.0.borrow_mut().push(Rc::clone(&recorder));
        recorder
    };
    let transport = |index: usize| transports.borrow()[index].clone();
    let server = running().create_server(factory, HERE).await.unwrap();
    let c = client(&server);
    settle().await;
    transport(0).write(b"bye").unwrap();
    server.close_clients();
    made.get(0).lost().await;
    s.log(format!("peer={} serving={}", drained(&c), py(server.is_serving())));
    let c = client(&server);
    settle().await;
    transport(1).write(vec![0; 8 << 20]).unwrap();
    server.close();
    server.abort_clients();
    made.get(1).lost().await;
    s.log(format!("all={}", py(drain_all(&c).await.0.len() == 8 << 20)));
    server.wait_closed().await.unwrap();
    s.log("closed");
}

// spec: SERVER-42, SERVER-43, RISK-31
async fn own_v13_out_of_descriptors_it_reports_once_and_rests(s: Scenario) {
    s.log_reports();
    limit_descriptors("64:");
    let (server, made) = echo_server(&s, Listen::from(HERE).backlog(1)).await;
    let mut c = tcp_socket();
    c.set_nonblocking(true).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    let _ = c.connect(&server.local_addr().unwrap().into()); // In progress.
    settle().await;
    drop(held);
    s.log(format!("accepted={} serving={}", made.0.borrow().len(), py(server.is_serving())));
    c.write_all(b"hi").unwrap();
    while made.0.borrow().is_empty() {
        yield_now().await;
    }
    settle().await;
    s.log(format!("peer={}", drained(&c)));
    drop(c);
    made.get(0).lost().await;
    server.close();
}

// spec: SERVER-51, TRANS-16, RISK-21
async fn own_v14_a_client_that_is_gone_when_it_is_accepted_is_heard(s: Scenario) {
    let (server, _made) = echo_server(&s, HERE).await;
    let mut c = client(&server);
    c.write_all(b"hello").unwrap();
    c.shutdown(Shutdown::Write).unwrap();
    settle().await;
    s.trace.log("srv0", format!("peer={}", drained(&c)));
    server.close();
    server.wait_closed().await.unwrap();
    s.trace.log("srv0", "closed");
}

// spec: SERVER-25, SERVER-26, SERVER-27
async fn own_v18_a_cancelled_serve_forever_is_awaited_until_the_last_client_has_gone(s: Scenario) {
    let again = async |server: &Server| {
        let error = server.serve_forever().await.unwrap_err().to_string();
        match () {
            () if error.contains("already being awaited") => "already awaited".to_owned(),
            () if error.contains("is closed") => "closed".to_owned(),
            () => error,
        }
    };
    for cancels in [true, false] {
        let (server, made) = echo_server(&s, HERE).await;
        let task = serve_forever(&server);
        let c = client(&server);
        settle().await;
        if cancels {
            task.cancel();
        } else {
            server.close();
        }
        turn(3).await;
        s.log(format!("done={} serving={}", py(task.done()), py(server.is_serving())));
        s.log(again(&server).await);
        drop(c);
        made.get(0).lost().await;
        let ended = match task.await {
            Ok(ended) => kind_of(ended),
            Err(error) => python::kind(&error),
        };
        s.log(ended);
        s.log(again(&server).await);
    }
}

// spec: CONN-04, CONN-08, RESOLVE-10
async fn own_c02_when_all_addresses_fail_all_errors_are_told(s: Scenario) {
    let event_loop = running();
    let port = refusing().port();
    let one = [local(1, port), local(1, port)];
    let two = [local(1, port), local(2, port)];
    let attempts: [(&[SocketAddr], bool); 4] =
        [(&one, false), (&two, false), (&two, true), (&[], false)];
    for (addresses, all_errors) in attempts {
        resolve_to(&event_loop, addresses);
        let (recorder, target) = (s.recorder(), Target::new("name", port).all_errors(all_errors));
        let error = event_loop.create_connection(|| recorder, target).await.unwrap_err();
        s.log(error_text(&error).replace(&port.to_string(), "PORT"));
    }
}

/// With the kind of each error.
fn error_text(error: &Error) -> String {
    match error {
        Error::Multiple(errors) => {
            let message = errors.message();
            let errors = errors.errors().iter();
            let errors = errors.map(|error| format!("{} {error}", python::kind(error)));
            format!("{message}: {}", errors.collect::<Vec<_>>().join(", "))
        }
        error => match python::kind(error) {
            kind if kind.ends_with(']') => format!("{kind} {error}"),
            _ => format!("OSError {error}"),
        },
    }
}

// spec: CONN-09, CONN-10
async fn own_c05_addresses_of_two_families_alternate(s: Scenario) {
    let event_loop = running();
    let port = refusing().port();
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    resolve_to(&event_loop, [local(1, port), local(2, port), local(3, port), v6, v6]);
    let target = || Target::new("name", port).all_errors(true);
    let targets = [
        target(),
        target().interleave(0),
        target().interleave(1),
        target().interleave(2),
        target().happy_eyeballs_delay(Duration::from_secs(10)),
    ];
    for target in targets {
        let recorder = s.recorder();
        match event_loop.create_connection(|| recorder, target).await {
            Err(Error::Multiple(errors)) => {
                let hosts = errors.errors().iter().map(|error| error.to_string());
                let hosts: Vec<_> = hosts
                    .map(|text| text.split('\'').nth(1).unwrap_or_default().to_owned())
                    .collect();
                s.log(hosts.join(", "));
            }
            other => panic!("{:?}", other.err()),
        }
    }
}

replays! {
    plain: [
        own_l08_a_callback_that_fails_is_reported_and_the_others_run,
        own_l40_calls_of_other_threads_stand_in_the_one_queue,
        own_x10_signals_are_told_one_by_one_in_the_order_of_their_arrival,
    ],
    tasks: [
        own_l10_a_future_is_done_once_and_its_callbacks_come_soon,
        own_l11_a_cancelled_task_is_not_done_yet_and_may_go_on,
        own_l42_tasks_and_callbacks_begin_with_what_is_set_where_they_are_made,
        own_l13_gather_keeps_the_order_and_tells_the_first_error,
        own_l41_a_value_that_comes_with_the_deadline_is_refused_and_not_lost,
        own_r02_remove_reader_takes_back_a_queued_callback,
        own_r03_a_new_callback_replaces_one_that_is_queued,
        own_r10_what_is_full_fires_no_writer_until_it_hangs_up,
    ],
    transports: [
        own_t02_the_end_of_the_stream_closes,
        own_t04_a_reset_is_the_end_and_not_reported,
        own_t05_data_and_eof_are_told_in_iterations_of_their_own,
        own_t07_paused_is_silent_though_the_event_is_queued,
        own_t08_paused_the_peer_is_throttled,
        own_t18_written_after_the_loss_is_ignored_and_warned_about,
        own_t19_a_send_that_fails_loses_the_connection_with_its_error,
        own_t21_an_error_of_the_system_in_a_protocol_is_silent,
        own_t22_a_connection_made_that_fails_is_only_reported,
        own_t28_water_marks_may_pause_at_once_and_never_resume,
        own_t30_closed_in_connection_made_nothing_is_delivered,
        own_t31_resume_writing_may_write_again,
        own_t42_in_connection_lost_only_a_flush_leaves_writing_open,
        own_t43_more_than_fits_in_connection_lost_pauses_and_is_cut,
        own_t44_writelines_that_finds_room_resumes_inside,
        own_t45_a_write_that_meets_a_peer_that_is_gone_comes_before_the_read_event,
        own_t46_a_buffer_is_asked_for_before_an_error_is_found,
        own_t47_a_buffered_protocol_fills_one_buffer_in_each_iteration,
        own_t48_a_write_that_meets_a_reset_comes_before_the_data,
        own_t49_what_one_transport_writes_reaches_another_of_a_busy_loop_in_the_next_iteration,
        own_v02_factories_are_called_in_the_order_of_the_accepts,
        own_v08_close_ends_serve_forever,
        own_v09_clients_are_closed_or_aborted_together,
        own_v13_out_of_descriptors_it_reports_once_and_rests,
        own_v14_a_client_that_is_gone_when_it_is_accepted_is_heard,
        own_v18_a_cancelled_serve_forever_is_awaited_until_the_last_client_has_gone,
        own_c02_when_all_addresses_fail_all_errors_are_told,
        own_c05_addresses_of_two_families_alternate,
    ],
    over_tcp: [
        own_t02_the_end_of_the_stream_closes,
        own_t05_data_and_eof_are_told_in_iterations_of_their_own,
        own_t07_paused_is_silent_though_the_event_is_queued,
        own_t08_paused_the_peer_is_throttled,
        own_t21_an_error_of_the_system_in_a_protocol_is_silent,
        own_t22_a_connection_made_that_fails_is_only_reported,
        own_t28_water_marks_may_pause_at_once_and_never_resume,
        own_t30_closed_in_connection_made_nothing_is_delivered,
        own_t31_resume_writing_may_write_again,
    ],
}

/// Fills a pipe, which then would block.
fn fill_pipe(writer: &impl AsRawFd) {
    use std::os::unix::fs::OpenOptionsExt;
    // By its number it is opened once more, without blocking.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut writer = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    let error = loop {
        if let Err(error) = writer.write(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// What the socket takes of `data`.
fn send_some(mut socket: &Socket, data: &[u8]) -> usize {
    match socket.write(&data[..data.len().min(65536)]) {
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Has this process hold no more descriptors than `limit` says.
fn limit_descriptors(limit: &str) {
    let pid = std::process::id().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}")]).status();
    assert!(status.unwrap().success());
}

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(10);
