//! Peers that mean no good, and handlers that end wherever they stand.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;

use ringloop::{Error, Listen, Result, Server, StreamReader, StreamWriter, start_server};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::sockets::{connect, drained, reset};
use socket2::Socket;

use super::{running, spawn};

const HERE: (&str, u16) = ("127.0.0.1", 0);

fn client(server: &Server) -> Socket {
    connect(server.local_addr().unwrap())
}

async fn end(server: Server) {
    server.close();
    server.wait_closed().await.unwrap();
}

/// Answers each line with itself.
async fn lines(reader: StreamReader, writer: StreamWriter) -> Result<()> {
    while let line @ [_, ..] = &*reader.read_line().await? {
        writer.write(line)?;
        writer.drain().await?;
    }
    writer.close();
    writer.wait_closed().await
}

/// The texts of what goes to the exception handler.
fn reports() -> Rc<RefCell<Vec<String>>> {
    let reports = Rc::<RefCell<Vec<_>>>::default();
    let seen = Rc::clone(&reports);
    running().set_exception_handler(move |_, context| {
        seen.borrow_mut().push(context.error.map(ToString::to_string).unwrap_or_default());
    });
    reports
}

// spec: STREAM-32, STREAM-42, STREAM-60
#[test]
fn an_endless_line_ends_its_connection_with_a_clear_error_and_no_other() {
    on_loop(async {
        let reports = reports();
        let server = start_server(lines, Listen::from(HERE).limit(10_000)).await.unwrap();
        let (mut good, bad) = (client(&server), client(&server));
        let mut sent = 0;
        while reports.borrow().is_empty() {
            sent += (&bad).write(&[b'x'; 5000]).unwrap_or(0);
            turn(1).await;
            assert!(sent < 1 << 20, "nobody has stopped it");
        }
        assert_eq!(reports.take(), ["Separator is not found, and chunk exceed the limit"]);
        good.write_all(b"hello\n").unwrap();
        settle().await;
        assert_eq!(drained(&good), "(b'hello\\n', 'EAGAIN')");
        drop((good, bad));
        end(server).await;
    });
}

// spec: STREAM-24, STREAM-28, STREAM-31
#[test]
fn a_peer_that_goes_in_the_middle_leaves_what_it_has_sent() {
    on_loop(async {
        type Partial = Rc<RefCell<Vec<String>>>;
        let seen = Partial::default();
        let log = Rc::clone(&seen);
        let handler = move |reader: StreamReader, writer: StreamWriter| {
            let log = Rc::clone(&log);
            async move {
                let partial = match &*reader.read_line().await? {
                    b"exactly\n" => reader.read_exactly(100).await,
                    b"until\n" => reader.read_until("#").await,
                    _ => reader.read_line().await,
                };
                log.borrow_mut().push(match partial {
                    Ok(line) => format!("{line:?}"),
                    Err(error) => error.to_string(),
                });
                writer.close();
                Result::<()>::Ok(())
            }
        };
        let server = start_server(handler, HERE).await.unwrap();
        for (kind, expected) in [
            ("exactly", "4 bytes read on a total of 100 expected bytes"),
            ("until", "4 bytes read on a total of undefined expected bytes"),
            ("line", "Received(\"part\")"),
        ] {
            let mut client = client(&server);
            write!(client, "{kind}\npart").unwrap();
            settle().await;
            drop(client);
            settle().await;
            assert_eq!(seen.take(), [expected]);
        }
        for kind in ["exactly", "until", "line"] {
            let mut client = client(&server);
            write!(client, "{kind}\npart").unwrap();
            settle().await;
            reset(client);
            settle().await;
            assert!(seen.take()[0].contains("reset"), "{kind}");
        }
        end(server).await;
    });
}

/// Everything that a handler may wait for, with a note before each.
async fn every_wait(reader: StreamReader, writer: StreamWriter, at: Rc<Cell<usize>>) -> Result<()> {
    let note = |place| at.set(place);
    note(1);
    reader.read(5).await?;
    note(2);
    reader.read_exactly(5).await?;
    note(3);
    reader.read_until("#").await?;
    note(4);
    reader.read_line().await?;
    note(5);
    writer.write(vec![7; 8 << 20])?;
    writer.drain().await?;
    note(6);
    reader.read_to_end().await?;
    note(7);
    writer.wait_closed().await
}

/// What the peer sends so that the handler gets to each of its waits.
const SENT: [&[u8]; 5] = [b"", b"12345", b"12345", b"12#", b"12\n"];

// spec: STREAM-16, STREAM-43, STREAM-56
#[test]
fn a_handler_that_is_dropped_at_any_wait_leaves_nothing_behind() {
    on_loop(async {
        for place in 1..=7 {
            let at = Rc::new(Cell::new(0));
            let handler_at = Rc::clone(&at);
            let handler = move |reader, writer| every_wait(reader, writer, Rc::clone(&handler_at));
            let server = start_server(handler, HERE).await.unwrap();
            let client = client(&server);
            for sent in &SENT[..place.min(5)] {
                (&client).write_all(sent).unwrap();
                settle().await;
            }
            if place >= 6 {
                while at.get() < 6 {
                    drop(drained(&client));
                    settle().await;
                }
            }
            if place == 7 {
                client.shutdown(std::net::Shutdown::Write).unwrap();
                settle().await;
            }
            assert_eq!(at.get(), place);
            let tasks = running().all_tasks();
            assert_eq!(tasks.len(), 2);
            for task in tasks.iter().filter(|task| **task != ringloop::current_task().unwrap()) {
                task.cancel();
            }
            while running().all_tasks().len() > 1 {
                settle().await;
            }
            let (_, end_of) = ringloop_tests::idle::drain_all(&client).await;
            assert_eq!(end_of.text(), "EOF", "the connection is closed, wherever it stood");
            end(server).await;
        }
    });
}

// spec: STREAM-42
#[test]
fn a_handler_that_panics_while_it_is_dropped_is_reported_and_the_loop_goes_on() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    on_loop(async {
        let reports = reports();
        let handler = |reader: StreamReader, writer: StreamWriter| async move {
            let _bomb = Bomb;
            reader.read(1).await?;
            writer.close();
            Result::<()>::Ok(())
        };
        let server = start_server(handler, HERE).await.unwrap();
        let mut first = client(&server);
        first.write_all(b"x").unwrap();
        settle().await;
        assert_eq!(drained(&first), "(b'', 'EOF')");
        assert_eq!(reports.take(), ["dropped"]);
        let second = client(&server);
        settle().await;
        for task in running().all_tasks() {
            if task != ringloop::current_task().unwrap() {
                task.cancel();
            }
        }
        settle().await;
        assert_eq!(drained(&second), "(b'', 'EOF')");
        reports.take();
        end(server).await;
    });
}

// spec: STREAM-15, STREAM-17
#[test]
fn readers_and_writers_may_be_used_by_many_tasks_and_dropped_in_any_order() {
    on_loop(async {
        let handler = |reader: StreamReader, writer: StreamWriter| async move {
            let (reader, writer) = (Rc::new(reader), Rc::new(writer));
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let (reader, writer) = (Rc::clone(&reader), Rc::clone(&writer));
                    spawn(async move {
                        let mut refused = 0;
                        loop {
                            match reader.read_line().await {
                                Ok(line) if line.is_empty() => return refused,
                                Ok(line) => writer.write(line).unwrap(),
                                Err(Error::State(_)) => refused += 1, // Another one waits.
                                Err(error) => panic!("{error}"),
                            }
                            turn(1).await;
                        }
                    })
                })
                .collect();
            drop(reader);
            for task in tasks {
                let _ = task.await;
            }
            writer.close();
        };
        let server = start_server(handler, HERE).await.unwrap();
        let mut client = client(&server);
        for _ in 0..3 {
            client.write_all(b"one\ntwo\n").unwrap();
            for _ in 0..20 {
                turn(1).await;
            }
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (data, _) = ringloop_tests::idle::drain_all(&client).await;
        assert_eq!(data.len(), 24, "no line is lost");
        end(server).await;
    });
}
