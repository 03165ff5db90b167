//! What a server runs for each connection, and how that ends.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    Error, HandlerOutput, Listen, Server, StreamReader, StreamWriter, Transport, current_task,
    sleep, spawn, start_server,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::sockets::{connect, drained};
use socket2::Socket;

use super::{MODES, running};

const HERE: (&str, u16) = ("127.0.0.1", 0);

/// What the exception handler is told: the message, the error, and whether it names a transport.
fn reports() -> Rc<RefCell<Vec<(String, String, bool)>>> {
    let reports = Rc::<RefCell<Vec<_>>>::default();
    let seen = Rc::clone(&reports);
    running().set_exception_handler(move |_, context| {
        let transport =
            context.transport.is_some_and(|transport| transport.as_any().is::<Transport>());
        let error = context.error.map(ToString::to_string).unwrap_or_default();
        seen.borrow_mut().push((context.message.to_string(), error, transport));
    });
    reports
}

fn client(server: &Server) -> Socket {
    connect(server.local_addr().unwrap())
}

async fn fails(reader: StreamReader, _writer: StreamWriter) -> Result<(), Error> {
    let line = reader.read_line().await?;
    match &line[..] {
        b"error\n" => Err(io::Error::other("went wrong").into()),
        b"panic\n" => panic!("went very wrong"),
        b"cancel\n" => {
            current_task().unwrap().cancel();
            sleep(Duration::from_secs(3600)).await;
            Ok(())
        }
        b"await what is cancelled\n" => {
            let other = spawn(std::future::pending());
            other.cancel();
            other.await
        }
        _ => Ok(()),
    }
}

// spec: STREAM-42, STREAM-43
#[test]
fn a_handler_that_fails_or_panics_is_reported_and_any_end_but_a_normal_one_closes() {
    on_loop(async {
        let reports = reports();
        for mode in MODES {
            let listen = Listen::from(HERE).write_mode(mode);
            let server = start_server(fails, listen).await.unwrap();
            for (line, expected) in [
                ("error\n", Some("went wrong")),
                ("panic\n", Some("went very wrong")),
                ("cancel\n", None),
                ("await what is cancelled\n", None),
            ] {
                let mut client = client(&server);
                client.write_all(line.as_bytes()).unwrap();
                settle().await;
                assert_eq!(drained(&client), "(b'', 'EOF')", "{line}");
                let message = "Unhandled exception in client_connected_cb".to_owned();
                let expected: Vec<_> =
                    expected.map(|error| (message, error.to_owned(), true)).into_iter().collect();
                assert_eq!(reports.take(), expected, "{line}");
            }
            assert_eq!(running().stats().warnings, 0);
            assert!(server.is_serving());
            server.close();
            server.wait_closed().await.unwrap();
        }
    });
}

// spec: STREAM-44, STREAM-62
#[test]
fn a_handler_that_returns_without_closing_is_warned_of_and_its_connection_closed() {
    on_loop(async {
        let reports = reports();
        let server = start_server(fails, HERE).await.unwrap();
        let mut client = client(&server);
        client.write_all(b"return\n").unwrap();
        settle().await;
        assert_eq!(drained(&client), "(b'', 'EOF')");
        assert_eq!((reports.take(), running().stats().warnings), (vec![], 1));
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: STREAM-44, STREAM-46
#[test]
fn a_writer_that_outlives_its_handler_keeps_the_connection_open() {
    on_loop(async {
        let kept = Rc::<RefCell<Vec<StreamWriter>>>::default();
        let writers = Rc::clone(&kept);
        let handler = move |_reader, writer| {
            writers.borrow_mut().push(writer);
            std::future::ready(())
        };
        let server = start_server(handler, HERE).await.unwrap();
        let client = client(&server);
        settle().await;
        let writer = kept.borrow_mut().pop().unwrap();
        writer.write(b"still open").unwrap();
        settle().await;
        assert_eq!(drained(&client), "(b'still open', 'EAGAIN')");
        drop(client);
        settle().await;
        assert!(!writer.is_closing(), "the end of the peer's stream leaves ours open");
        writer.close();
        writer.wait_closed().await.unwrap();
        assert_eq!(running().stats().warnings, 0);
        server.close();
    });
}

// spec: STREAM-40, STREAM-41, STREAM-02
#[test]
fn the_handler_is_called_in_connection_made_and_its_future_becomes_a_task() {
    on_loop(async {
        let calls = Rc::<RefCell<Vec<&str>>>::default();
        let log = Rc::clone(&calls);
        let handler = move |reader: StreamReader, writer: StreamWriter| {
            assert!(current_task().is_none(), "it is called by the transport");
            log.borrow_mut().push("called");
            let log = Rc::clone(&log);
            async move {
                assert!(current_task().is_some());
                assert_eq!(reader.limit(), 77);
                log.borrow_mut().push("runs");
                writer.close();
            }
        };
        let listen = Listen::from(HERE).limit(77);
        let server = start_server(handler, listen).await.unwrap();
        let _client = client(&server);
        settle().await;
        assert_eq!(calls.take(), ["called", "runs"]);
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: STREAM-41
#[test]
fn a_handler_that_panics_before_it_has_a_future_is_an_error_of_connection_made() {
    on_loop(async {
        let reports = reports();
        let kept = Rc::<RefCell<Option<StreamWriter>>>::default();
        let writers = Rc::clone(&kept);
        let handler = move |_reader: StreamReader, writer: StreamWriter| {
            writers.replace(Some(writer));
            if true {
                panic!("no future");
            }
            std::future::ready(())
        };
        let server = start_server(handler, HERE).await.unwrap();
        let client = client(&server);
        settle().await;
        let [(message, error, true)] = &reports.take()[..] else { panic!("one report") };
        assert_eq!(message, "Exception in callback connection_made()");
        assert_eq!(error, "no future");
        assert_eq!(drained(&client), "(b'', 'EAGAIN')", "the connection stays open");
        kept.take().unwrap().close();
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: STREAM-02
#[test]
fn each_connection_has_a_reader_and_a_task_of_its_own() {
    on_loop(async {
        let count = Rc::new(Cell::new(0));
        let counter = Rc::clone(&count);
        let handler = move |reader: StreamReader, writer: StreamWriter| {
            let counter = Rc::clone(&counter);
            async move {
                counter.set(counter.get() + 1);
                let number = counter.get();
                let line = reader.read_line().await?;
                writer.writelines([&line[..], format!("{number}").as_bytes()])?;
                writer.close();
                writer.wait_closed().await
            }
        };
        let server = start_server(handler, HERE).await.unwrap();
        let mut clients = [client(&server), client(&server), client(&server)];
        settle().await;
        for client in clients.iter_mut().rev() {
            client.write_all(b"number \n").unwrap();
        }
        settle().await;
        let answers = clients.each_ref().map(drained);
        let expected = [1, 2, 3].map(|number| format!("(b'number \\n{number}', 'EOF')"));
        assert_eq!(answers, expected);
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: STREAM-05, STREAM-01, STREAM-02
#[test]
fn a_limit_of_zero_is_refused_where_it_is_given_and_where_there_are_no_streams() {
    on_loop(async {
        let error = start_server(fails, Listen::from(HERE).limit(0)).await.unwrap_err();
        assert_eq!(error.to_string(), "Limit cannot be <= 0");
        let target = || ringloop::Target::new("127.0.0.1", 1).limit(0);
        let error = ringloop::open_connection(target()).await.unwrap_err();
        assert_eq!(error.to_string(), "Limit cannot be <= 0");
        let factory = || ringloop::Exclusive::new(());
        let error = running().create_connection(factory, target()).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "limit is only meaningful with streams");
        let error =
            running().create_server(factory, Listen::from(HERE).limit(9)).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
    });
}

// spec: STREAM-43
#[test]
fn a_loop_that_closes_drops_its_handlers_and_closes_their_connections_in_silence() {
    let event_loop = ringloop::EventLoop::new().unwrap();
    let client = event_loop
        .run_until_complete(async {
            let handler = async |reader: StreamReader, _writer: StreamWriter| {
                reader.read(1).await.unwrap();
            };
            let handler = move |reader, writer| {
                let handler = handler;
                async move { handler(reader, writer).await }
            };
            let server = start_server(handler, HERE).await.unwrap();
            let client = client(&server);
            settle().await;
            client
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(drained(&client), "(b'', 'EOF')");
}

// spec: STREAM-43
#[test]
fn a_handler_may_end_itself_in_the_middle_of_a_write() {
    on_loop(async {
        let handler = |_reader: StreamReader, writer: StreamWriter| async move {
            writer.write(vec![7; 1 << 20])?;
            current_task().unwrap().cancel();
            writer.drain().await
        };
        let server = start_server(handler, HERE).await.unwrap();
        let client = client(&server);
        turn(5).await;
        let (data, end) = ringloop_tests::idle::drain_all(&client).await;
        assert_eq!((data.len(), end.text()), (1 << 20, "EOF"), "what was written is sent");
        server.close();
        server.wait_closed().await.unwrap();
    });
}

// spec: STREAM-42
#[test]
fn an_output_that_panics_when_it_is_asked_for_its_error_is_reported_and_closes() {
    struct Rude;
    impl HandlerOutput for Rude {
        fn into_error(self) -> Option<Box<dyn std::error::Error>> {
            panic!("ask somebody else")
        }
    }
    on_loop(async {
        let reports = reports();
        let handler = |_: StreamReader, writer: StreamWriter| async move {
            writer.write("x").unwrap();
            Rude
        };
        let server = start_server(handler, HERE).await.unwrap();
        let client = client(&server);
        settle().await;
        let message = "Unhandled exception in client_connected_cb".to_owned();
        assert_eq!(reports.take(), [(message, "ask somebody else".to_owned(), true)]);
        assert_eq!(drained(&client), "(b'x', 'EOF')");
        server.close();
        server.wait_closed().await.unwrap();
    });
}
