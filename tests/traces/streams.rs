//! Streams: readers that are fed by hand, and connections with both halves.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use ringloop::{
    Error, Listen, Received, Result, Server, StreamReader, StreamWriter, Target, Task, Transport,
    UnixListen, UnixTarget, current_task, open_connection, start_server,
};
use ringloop_tests::folder::Folder;
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::python;
use ringloop_tests::sockets::{drained, reset};
use socket2::Socket;

use crate::scenario::{Scenario, excluded, kind_of, py, replays, running, with_text};
use crate::servers::{HERE, client};

/// A reader that the scenario feeds.
fn reader(limit: usize) -> Rc<StreamReader> {
    Rc::new(StreamReader::new(limit).unwrap())
}

/// A task that reads.
fn reading<F: Future<Output = Result<Received>> + 'static>(
    reader: &Rc<StreamReader>,
    read: impl Fn(Rc<StreamReader>) -> F + 'static,
) -> Task<Result<Received>> {
    running().create_task(read(Rc::clone(reader)))
}

/// The bytes as Python shows them, or the error.
fn shown(read: Result<Received>) -> String {
    match read {
        Ok(data) => python::bytes(&data),
        Err(Error::LimitOverrun { message, consumed }) => {
            format!("LimitOverrunError consumed={consumed} {message}")
        }
        Err(Error::IncompleteRead { partial, expected }) => {
            let shown = expected.map_or_else(|| "None".to_owned(), |expected| expected.to_string());
            let text = Error::IncompleteRead { partial: partial.clone(), expected };
            let partial = python::bytes(&partial);
            format!("IncompleteReadError partial={partial} expected={shown} {text}")
        }
        Err(error) => format!("{}: {error}", python::kind(&error)),
    }
}

// spec: STREAM-12, STREAM-20, STREAM-21
async fn m01_read_takes_what_is_there_up_to_a_number_or_the_end(s: Scenario) {
    let r = reader(65536);
    r.feed_data(b"hello world").unwrap();
    s.log(shown(r.read(0).await));
    s.log(shown(r.read(5).await));
    s.log(shown(r.read(100).await));
    let task = reading(&r, |r| async move { r.read(10).await });
    turn(1).await;
    r.feed_data(b"later").unwrap();
    s.log(shown(task.await.unwrap()));
    r.feed_data(&[b'x'; 10]).unwrap();
    r.feed_eof();
    s.log(format!("at_eof={}", py(r.at_eof())));
    s.log(shown(r.read_to_end().await));
    s.log(format!("at_eof={}", py(r.at_eof())));
    s.log(shown(r.read(5).await));
    s.log(shown(r.read_to_end().await));
}

// spec: STREAM-31, STREAM-32
async fn m02_a_line_over_the_limit_is_dropped_and_the_next_is_read(s: Scenario) {
    let r = reader(10);
    r.feed_data(b"0123456789\nabc\n").unwrap();
    s.log(shown(r.read_line().await));
    s.log(shown(r.read_line().await));
    r.feed_data(b"01234567890\nnext\n").unwrap();
    s.log(shown(r.read_line().await));
    s.log(shown(r.read_line().await));
    r.feed_data(b"0123456789012345").unwrap();
    s.log(shown(r.read_line().await));
    r.feed_data(b"tail").unwrap();
    r.feed_eof();
    s.log(shown(r.read_line().await));
    s.log(shown(r.read_line().await));
}

// spec: STREAM-25, STREAM-26, STREAM-27, STREAM-28
async fn m03_read_until_tells_where_a_separator_is_that_comes_too_late(s: Scenario) {
    let r = reader(8);
    r.feed_data(b"ab\r\ncd").unwrap();
    s.log(shown(r.read_until(b"\r\n").await));
    let task = reading(&r, |r| async move { r.read_until(b"\r\n").await });
    turn(1).await;
    r.feed_data(b"\r").unwrap();
    turn(1).await;
    r.feed_data(b"\nrest").unwrap();
    s.log(shown(task.await.unwrap()));
    s.log(shown(r.read(10).await));
    r.feed_data(b"0123456789##").unwrap();
    s.log(shown(r.read_until(b"##").await));
    s.log(shown(r.read_exactly(12).await));
    r.feed_data(b"0123456789#").unwrap();
    s.log(shown(r.read_until(b"##").await));
    s.log(shown(r.read_exactly(11).await));
    r.feed_data(b"part#").unwrap();
    r.feed_eof();
    s.log(shown(r.read_until(b"##").await));
    s.log(shown(r.read_until(b"").await));
}

// spec: STREAM-23, STREAM-24
async fn m05_read_exactly_gives_all_or_what_there_was(s: Scenario) {
    let r = reader(65536);
    let task = reading(&r, |r| async move { r.read_exactly(6).await });
    turn(1).await;
    r.feed_data(b"abc").unwrap();
    turn(2).await;
    s.log(format!("done={}", py(task.done())));
    r.feed_data(b"defgh").unwrap();
    s.log(shown(task.await.unwrap()));
    s.log(shown(r.read_exactly(0).await));
    excluded!("M05", 4);
    r.feed_eof();
    s.log(shown(r.read_exactly(5).await));
    s.log(format!("at_eof={}", py(r.at_eof())));
}

// spec: STREAM-15, STREAM-16
async fn m06_a_second_read_that_must_wait_is_refused(s: Scenario) {
    let r = reader(65536);
    let task = reading(&r, |r| async move { r.read(10).await });
    turn(1).await;
    s.log(shown(r.read(1).await));
    s.log(shown(r.read_line().await));
    s.log(shown(r.read_exactly(1).await));
    s.log(shown(r.read_until(b"x").await));
    r.feed_data(b"ok").unwrap();
    s.log(shown(task.await.unwrap()));
    let task = reading(&r, |r| async move { r.read(10).await });
    turn(1).await;
    task.cancel();
    turn(2).await;
    r.feed_data(b"kept").unwrap();
    s.log(format!("after cancel: {}", shown(r.read(10).await)));
}

// spec: STREAM-17
async fn m08_an_error_that_was_set_comes_before_the_bytes(s: Scenario) {
    let reset = || Error::other("ConnectionResetError");
    let r = reader(65536);
    let task = reading(&r, |r| async move { r.read(5).await });
    turn(1).await;
    r.set_exception(reset());
    let reads =
        [task.await.unwrap(), r.read(1).await, r.read_line().await, r.read_exactly(1).await];
    for read in reads {
        s.log(kind_of(read));
    }
    let r = reader(65536);
    r.feed_data(b"data\n").unwrap();
    r.set_exception(reset());
    s.log(kind_of(r.read_line().await));
}

// spec: STREAM-33
async fn m09_lines_come_one_by_one_and_the_last_may_lack_its_newline(s: Scenario) {
    let r = reader(65536);
    r.feed_data(b"a\nb\n\nc").unwrap();
    r.feed_eof();
    let mut lines = r.lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        s.log(python::bytes(&line));
    }
    s.log("end");
}

async fn streams(s: &Scenario, target: impl Into<Target>) -> (StreamReader, StreamWriter) {
    open_connection(target.into().write_mode(s.how.mode)).await.unwrap()
}

fn listen(s: &Scenario) -> Listen {
    Listen::from(HERE).write_mode(s.how.mode)
}

/// A client of `server`.
async fn connect(s: &Scenario, server: &Server) -> (StreamReader, StreamWriter) {
    streams(s, server.local_addr().unwrap()).await
}

// spec: STREAM-01, STREAM-02
async fn m10_a_server_and_its_client_talk_through_streams(s: Scenario) {
    let scenario = s.clone();
    let handler = move |r: StreamReader, w: StreamWriter| {
        let s = scenario.clone();
        async move {
            loop {
                let data = r.read(100).await?;
                if data.is_empty() {
                    break;
                }
                s.trace.log("srv", format!("got {}", python::bytes(&data)));
                w.write(data)?;
                w.drain().await?;
            }
            s.trace.log("srv", format!("eof at_eof={}", py(r.at_eof())));
            w.close();
            w.wait_closed().await?;
            s.trace.log("srv", "closed");
            Result::<()>::Ok(())
        }
    };
    let server = start_server(handler, listen(&s)).await.unwrap();
    let (r, w) = connect(&s, &server).await;
    w.write(b"hello").unwrap();
    w.drain().await.unwrap();
    s.trace.log("cli", shown(r.read_exactly(5).await));
    w.writelines([b"a", b"b"]).unwrap();
    w.write_eof().unwrap();
    s.trace.log("cli", shown(r.read_to_end().await));
    s.trace.log("cli", format!("at_eof={} closing={}", py(r.at_eof()), py(w.is_closing())));
    w.close();
    w.wait_closed().await.unwrap();
    s.trace.log("cli", "closed");
    server.close();
    server.wait_closed().await.unwrap();
}

// spec: STREAM-47, STREAM-51, STREAM-57
async fn m12_a_reset_is_the_error_of_read_drain_and_wait_closed(s: Scenario) {
    let (a, b) = ringloop_tests::sockets::tcp_pair();
    let (r, w) = streams(&s, a).await;
    let r = Rc::new(r);
    let task = reading(&r, |r| async move { r.read(10).await });
    turn(2).await;
    reset(b);
    s.log(kind_of(task.await.unwrap()));
    s.log(kind_of(w.drain().await));
    s.log(kind_of(w.wait_closed().await));
    let error = r.exception().unwrap();
    s.log(format!("closing={} exception={}", py(w.is_closing()), python::kind(&error)));
}

// spec: STREAM-42, STREAM-43
async fn m13_a_handler_that_fails_is_reported_and_its_connection_closed(s: Scenario) {
    let calls = Rc::new(Cell::new(0));
    let handler = move |_r: StreamReader, _w: StreamWriter| {
        let calls = Rc::clone(&calls);
        async move {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                return Err(std::io::Error::other("ValueError"));
            }
            current_task().unwrap().cancel();
            ringloop::sleep(std::time::Duration::from_secs(1)).await;
            Ok(())
        }
    };
    let server = start_server(handler, listen(&s)).await.unwrap();
    for _ in 0..2 {
        let c = client(&server);
        settle().await;
        s.log(format!("peer={}", drained(&c)));
    }
    server.close();
}

// spec: STREAM-57, STREAM-59
async fn m15_after_close_what_was_received_can_be_read(s: Scenario) {
    let (a, mut b): (Socket, Socket) = s.pair();
    let (r, w) = streams(&s, a).await;
    b.write_all(b"unread").unwrap();
    settle().await;
    w.write(vec![0; 1 << 20]).unwrap();
    w.close();
    s.log(format!("closing={}", py(w.is_closing())));
    let (got, end) = drain_all(&b).await;
    s.log(format!("peer got all={} {}", py(got.len() == 1 << 20), end.text()));
    w.wait_closed().await.unwrap();
    s.log(shown(r.read(100).await));
    s.log(format!("at_eof={}", py(r.at_eof())));
}

// spec: STREAM-16
async fn m17_a_cancelled_read_leaves_its_bytes(s: Scenario) {
    let r = reader(65536);
    let reads = [
        |r: &Rc<StreamReader>| reading(r, |r| async move { r.read_exactly(6).await }),
        |r: &Rc<StreamReader>| reading(r, |r| async move { r.read_until(b"#").await }),
        |r: &Rc<StreamReader>| reading(r, |r| async move { r.read_line().await }),
    ];
    for read in reads {
        let task = read(&r);
        turn(1).await;
        r.feed_data(b"abc").unwrap();
        turn(2).await;
        task.cancel();
        turn(2).await;
        s.log(format!("cancelled={} {}", py(task.cancelled()), shown(r.read(100).await)));
    }
}

// spec: STREAM-05, STREAM-10
async fn m18_feeding_nothing_wakes_nobody_and_after_the_end_is_refused(s: Scenario) {
    let r = reader(65536);
    let task = reading(&r, |r| async move { r.read(5).await });
    turn(1).await;
    r.feed_data(b"").unwrap();
    turn(2).await;
    s.log(format!("done={}", py(task.done())));
    r.feed_eof();
    s.log(shown(task.await.unwrap()));
    let error = r.feed_data(b"x").unwrap_err();
    assert_eq!(error.to_string(), "feed_data after feed_eof");
    s.log("AssertionError");
    s.log(with_text(StreamReader::new(0)));
}

// spec: STREAM-55
async fn m19_a_drain_ends_without_error_when_the_connection_does(s: Scenario) {
    let (a, _b) = s.pair();
    let (_r, w) = streams(&s, a).await;
    let w = Rc::new(w);
    w.write(vec![0; 1 << 20]).unwrap();
    let writer = Rc::clone(&w);
    let task = running().create_task(async move { writer.drain().await });
    turn(2).await;
    w.transport().abort();
    turn(3).await;
    s.log(match task.await.unwrap() {
        Ok(()) => "drain returned".to_owned(),
        Err(error) => python::kind(&error),
    });
    let error = w.drain().await.unwrap_err();
    let Error::Io(reset) = &error else { panic!("{error}") };
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    s.log(format!("ConnectionResetError: {error}"));
}

// spec: UNIX-05, UNIX-06, UNIX-07
async fn x01_a_socket_file_is_made_replaced_and_removed(s: Scenario) {
    let folder = Folder::new();
    let path = folder.file("s");
    let listen = || UnixListen::path(&path).write_mode(s.how.mode);
    let scenario = s.clone();
    let factory = move || scenario.recorder().lane("srv").echo();
    let server = running().create_unix_server(factory, listen()).await.unwrap();
    let hi = |transport: &Transport| transport.write(b"hi").unwrap();
    let close = |transport: &Transport, _| {
        transport.close();
        Ok(())
    };
    let recorder = s.recorder().lane("cli").on_made(hi).on_data(close);
    let target = UnixTarget::path(&path).write_mode(s.how.mode);
    let (_, protocol) = running().create_unix_connection(|| recorder, target).await.unwrap();
    protocol.lost().await;
    settle().await;
    server.close();
    server.wait_closed().await.unwrap();
    s.log(format!("path exists after close={}", py(path.exists())));
    drop(UnixListener::bind(&path).unwrap());
    let scenario = s.clone();
    let server = running().create_unix_server(move || scenario.recorder(), listen()).await.unwrap();
    s.log("stale socket replaced");
    server.close();
    let file = folder.file("f");
    std::fs::write(&file, "").unwrap();
    let scenario = s.clone();
    let refused = running().create_unix_server(move || scenario.recorder(), &file).await;
    let error = refused.unwrap_err();
    let text = error.to_string().replace(file.to_str().unwrap(), "PATH");
    s.log(format!("{} {text}", python::kind(&error)));
}

replays! {
    plain: [],
    tasks: [
        m01_read_takes_what_is_there_up_to_a_number_or_the_end,
        m02_a_line_over_the_limit_is_dropped_and_the_next_is_read,
        m03_read_until_tells_where_a_separator_is_that_comes_too_late,
        m05_read_exactly_gives_all_or_what_there_was,
        m06_a_second_read_that_must_wait_is_refused,
        m08_an_error_that_was_set_comes_before_the_bytes,
        m09_lines_come_one_by_one_and_the_last_may_lack_its_newline,
        m17_a_cancelled_read_leaves_its_bytes,
        m18_feeding_nothing_wakes_nobody_and_after_the_end_is_refused,
    ],
    transports: [
        m10_a_server_and_its_client_talk_through_streams,
        m12_a_reset_is_the_error_of_read_drain_and_wait_closed,
        m13_a_handler_that_fails_is_reported_and_its_connection_closed,
        m15_after_close_what_was_received_can_be_read,
        m19_a_drain_ends_without_error_when_the_connection_does,
        x01_a_socket_file_is_made_replaced_and_removed,
    ],
    over_tcp: [
        m15_after_close_what_was_received_can_be_read,
        m19_a_drain_ends_without_error_when_the_connection_does,
    ],
}
