//! Unix sockets: paths, abstract names, socket files.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use ringloop::{
    Address, Error, Exclusive, Server, StreamReader, StreamWriter, UnixListen, UnixTarget,
    extra_info, open_unix_connection, start_unix_server,
};
use ringloop_tests::clean::on_loop;
use ringloop_tests::folder::Folder;
use ringloop_tests::idle::{settle, turn};
use ringloop_tests::recorder::Recorder;
use ringloop_tests::sockets::{pair, tcp_socket};
use ringloop_tests::trace::Trace;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{MODES, running, spawn};

async fn echo(reader: StreamReader, writer: StreamWriter) -> ringloop::Result<()> {
    while let data @ [_, ..] = &*reader.read(1000).await? {
        writer.write(data)?;
    }
    writer.close();
    writer.wait_closed().await
}

async fn serve(listen: impl Into<UnixListen>) -> ringloop::Result<Server> {
    start_unix_server(echo, listen).await
}

async fn end(server: Server) {
    server.close();
    server.wait_closed().await.unwrap();
}

fn abstract_name(name: &str) -> String {
    format!("ringloop-test-{}-{name}", std::process::id())
}

fn text_of<T>(result: ringloop::Result<T>) -> String {
    match result {
        Err(Error::InvalidArgument(text)) => text.into_owned(),
        Err(error) => format!("{error:?}"),
        Ok(_) => "no error".to_owned(),
    }
}

// spec: STREAM-04, UNIX-08
#[test]
fn streams_over_a_path_and_over_an_abstract_name() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let name = abstract_name("streams");
        for mode in MODES {
            for (listen, target) in [
                (UnixListen::path(&path), UnixTarget::path(&path)),
                (UnixListen::abstract_name(&name), UnixTarget::path(format!("\0{name}"))),
            ] {
                let server = serve(listen.write_mode(mode).limit(500)).await.unwrap();
                let target = target.write_mode(mode).limit(600);
                let (reader, writer) = open_unix_connection(target).await.unwrap();
                assert_eq!((reader.limit(), writer.transport().write_mode()), (600, mode));
                writer.write(b"hello").unwrap();
                assert_eq!(reader.read_exactly(5).await.unwrap(), b"hello");
                let peer = writer.get_extra_info(extra_info::PEERNAME).unwrap();
                assert!(
                    peer == Address::from(path.clone()) || peer.to_string() == format!("@{name}")
                );
                let ours = writer.get_extra_info(extra_info::SOCKNAME).unwrap();
                assert_eq!(ours, Address::Unnamed);
                writer.close();
                writer.wait_closed().await.unwrap();
                end(server).await;
            }
        }
    });
}

// spec: UNIX-01
#[test]
fn what_contradicts_itself_or_is_no_unix_stream_is_refused() {
    on_loop(async {
        let factory = || Exclusive::new(());
        let connect = |target: UnixTarget| async {
            text_of(running().create_unix_connection(factory, target).await)
        };
        let both = "path and sock can not be specified at the same time";
        assert_eq!(connect(UnixTarget::path("x").sock(pair().0)).await, both);
        assert_eq!(connect(UnixTarget::default()).await, "no path and sock were specified");
        let datagram = UnixDatagram::unbound().unwrap();
        for sock in [tcp_socket(), Socket::from(datagram)] {
            let text = connect(UnixTarget::default().sock(sock)).await;
            assert!(text.starts_with("A UNIX Domain Stream Socket was expected, got "), "{text}");
        }
        assert_eq!(
            connect(UnixTarget::path("x").limit(1)).await,
            "limit is only meaningful with streams"
        );
    });
}

// spec: UNIX-04
#[test]
fn a_server_needs_a_path_or_a_bound_socket_but_not_both() {
    on_loop(async {
        let listen = |listen: UnixListen| async {
            text_of(running().create_unix_server(|| Exclusive::new(()), listen).await)
        };
        let both = "path and sock can not be specified at the same time";
        assert_eq!(listen(UnixListen::path("x").sock(pair().0)).await, both);
        let neither = "path was not specified, and no sock specified";
        assert_eq!(listen(UnixListen::default()).await, neither);
        for sock in [tcp_socket(), Socket::from(UnixDatagram::unbound().unwrap())] {
            let text = listen(UnixListen::default().sock(sock)).await;
            assert!(text.starts_with("A UNIX Domain Stream Socket was expected, got "), "{text}");
        }
        let unbound = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let text = listen(UnixListen::default().sock(unbound)).await;
        assert_eq!(text, "the socket is not bound: bind it before, or give a path");
    });
}

// spec: UNIX-02, UNIX-04
#[test]
fn options_of_tls_are_refused_without_it_and_with_it_it_is_not_there_yet() {
    on_loop(async {
        let second = Duration::from_secs(1);
        let connect = |target: UnixTarget| async {
            text_of(running().create_unix_connection(|| Exclusive::new(()), target).await)
        };
        let target = || UnixTarget::path("x");
        assert_eq!(
            connect(target().ssl(true)).await,
            "you have to pass server_hostname when using ssl"
        );
        let text = connect(target().server_hostname("name")).await;
        assert_eq!(text, "server_hostname is only meaningful with ssl");
        let text = connect(target().ssl_handshake_timeout(second)).await;
        assert_eq!(text, "ssl_handshake_timeout is only meaningful with ssl");
        let text = connect(target().ssl_shutdown_timeout(second)).await;
        assert_eq!(text, "ssl_shutdown_timeout is only meaningful with ssl");
        let text = connect(target().ssl(true).server_hostname("name")).await;
        assert!(text.starts_with("Unsupported"), "{text}");
        let listen = |listen: UnixListen| async {
            text_of(running().create_unix_server(|| Exclusive::new(()), listen).await)
        };
        let text = listen(UnixListen::path("x").ssl_handshake_timeout(second)).await;
        assert_eq!(text, "ssl_handshake_timeout is only meaningful with ssl");
        let text = listen(UnixListen::path("x").ssl_shutdown_timeout(second)).await;
        assert_eq!(text, "ssl_shutdown_timeout is only meaningful with ssl");
        assert!(listen(UnixListen::path("x").ssl(true)).await.starts_with("Unsupported"));
    });
}

// spec: UNIX-01, UNIX-04
#[test]
fn paths_that_the_kernel_cannot_take_are_refused_by_name() {
    on_loop(async {
        let long = "x".repeat(200);
        for (path, expected) in [
            ("", "the path of a Unix socket must not be empty"),
            (
                "a\0b",
                "a NUL in the path of a Unix socket can only be the first of an abstract name",
            ),
            (&long, "the path of a Unix socket is too long, 200 bytes"),
        ] {
            let text = text_of(open_unix_connection(path).await);
            assert!(text.starts_with(expected), "{text}");
            let text = text_of(serve(path).await);
            assert!(text.starts_with(expected), "{text}");
        }
    });
}

// spec: UNIX-03
#[test]
fn a_connect_that_fails_or_is_cancelled_leaves_nothing_open() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let error = open_unix_connection(&path).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        drop(UnixListener::bind(&path).unwrap());
        let error = open_unix_connection(path.to_str().unwrap()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        for turns in 0..5 {
            let path = path.clone();
            let task = spawn(async move { open_unix_connection(path).await.map(drop) });
            turn(turns).await;
            task.cancel();
            settle().await;
            drop(task.await);
            if let Ok((mut accepted, _)) = listener.accept() {
                assert_eq!(accepted.read(&mut [0]).unwrap(), 0, "the other end is closed");
            }
        }
    });
}

// spec: UNIX-05
#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_not() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        drop(UnixListener::bind(&path).unwrap());
        end(serve(&path).await.unwrap()).await;
        let directory = folder.file("directory");
        fs::create_dir(&directory).unwrap();
        fs::write(&path, "important").unwrap();
        for path in [&path, &directory] {
            let error = serve(path).await.unwrap_err();
            let text = format!("[Errno 98] Address '{}' is already in use", path.display());
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(fs::read(&path).unwrap(), b"important");
        assert_eq!(running().stats().warnings, 0);
    });
}

// spec: UNIX-05, UNIX-06
#[test]
fn where_the_stale_socket_cannot_be_looked_at_it_is_warned_and_bind_decides() {
    on_loop(async {
        let folder = Folder::new();
        let file = folder.file("file");
        fs::write(&file, "").unwrap();
        let error = serve(file.join("socket")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR), "bind's own error is unchanged");
        assert_eq!(running().stats().warnings, 1);
        let error = serve(folder.file("nowhere").join("socket")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(running().stats().warnings, 1);
    });
}

// spec: UNIX-06
#[test]
fn an_abstract_name_that_is_in_use_is_named() {
    on_loop(async {
        let name = abstract_name("used");
        let server = serve(UnixListen::abstract_name(&name)).await.unwrap();
        let error = serve(UnixListen::abstract_name(&name)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("[Errno 98] Address '@{name}' is already in use"));
        end(server).await;
        end(serve(UnixListen::abstract_name(&name)).await.unwrap()).await;
    });
}

// spec: UNIX-07
#[test]
fn close_removes_the_file_unless_it_was_replaced_or_is_to_stay() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let server = serve(&path).await.unwrap();
        assert!(path.exists());
        server.close();
        assert!(!path.exists(), "inside close()");
        server.wait_closed().await.unwrap();

        let server = serve(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        end(server).await;

        let server = serve(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        end(server).await;
        assert_eq!(fs::read(&path).unwrap(), b"another");
        fs::remove_file(&path).unwrap();

        end(serve(UnixListen::path(&path).cleanup_socket(false)).await.unwrap()).await;
        assert!(path.exists());

        fs::remove_file(&path).unwrap();
        end(serve(UnixListener::bind(&path).unwrap()).await.unwrap()).await;
        assert!(!path.exists(), "that of a socket that was given, too");
        assert_eq!(running().stats().warnings, 0);
    });
}

// spec: UNIX-07
#[test]
fn a_file_that_cannot_be_removed_is_warned_of() {
    on_loop(async {
        let folder = Folder::new();
        let (link, path) = (folder.file("link"), folder.file("socket"));
        symlink(folder.file("."), &link).unwrap();
        let server = serve(link.join("socket")).await.unwrap();
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        end(server).await;
        assert!(path.exists());
        assert_eq!(running().stats().warnings, 1);
    });
}

// spec: UNIX-04
#[test]
fn a_server_may_bind_first_and_serve_later_with_a_backlog_of_its_own() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let listen = UnixListen::path(&path).start_serving(false).backlog(3);
        let server = serve(listen).await.unwrap();
        assert!(UnixStream::connect(&path).is_err());
        server.start_serving().await.unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        settle().await;
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        end(server).await;
    });
}

// spec: UNIX-03, UNIX-04
#[test]
fn whatever_names_a_path_or_a_socket_is_taken() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let text = path.to_str().unwrap().to_owned();
        end(serve(&*text).await.unwrap()).await;
        end(serve(text.clone()).await.unwrap()).await;
        end(serve(Path::new(&text)).await.unwrap()).await;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        let server = serve(socket).await.unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let (reader, writer) = open_unix_connection(stream).await.unwrap();
        writer.write("x").unwrap();
        assert_eq!(reader.read(1).await.unwrap(), b"x");
        writer.close();
        end(server).await;
    });
}

// spec: UNIX-09
#[test]
fn all_that_was_sent_before_a_hang_up_is_read_before_the_end() {
    on_loop(async {
        for mode in MODES {
            let (a, mut b) = pair();
            b.write_all(&[7; 100_000]).unwrap();
            b.shutdown(Shutdown::Both).unwrap();
            drop(b);
            let target = UnixTarget::default().sock(a).write_mode(mode);
            let (reader, writer) = open_unix_connection(target).await.unwrap();
            assert_eq!(reader.read_to_end().await.unwrap()[..], [7; 100_000]);
            writer.close();
            writer.wait_closed().await.unwrap();
        }
    });
}

// spec: UNIX-08
#[test]
fn protocols_over_a_unix_socket_are_called_as_over_any_other() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let server = serve(&path).await.unwrap();
        for mode in MODES {
            let trace = Trace::new();
            let recorder = Recorder::new(&trace, mode);
            let target = UnixTarget::path(&path).write_mode(mode);
            let (transport, protocol) =
                running().create_unix_connection(|| recorder, target).await.unwrap();
            transport.write(b"x").unwrap();
            settle().await;
            transport.write_eof().unwrap();
            protocol.lost().await;
            assert_eq!(
                trace.lines(),
                [
                    "proto: connection_made",
                    "proto: data_received(b'x')",
                    "proto: eof_received",
                    "proto: connection_lost(None)"
                ]
            );
        }
        end(server).await;
    });
}

/// The error number with which a connect to `path` fails.
async fn refusal(path: &Path) -> Option<i32> {
    open_unix_connection(path).await.unwrap_err().raw_os_error()
}

/// Sends something there and back.
async fn exchange(reader: &StreamReader, writer: &StreamWriter) {
    writer.write("hello").unwrap();
    assert_eq!(reader.read_exactly(5).await.unwrap(), b"hello");
}

async fn connect_and_exchange(path: &Path) -> (StreamReader, StreamWriter) {
    let (reader, writer) = open_unix_connection(path).await.unwrap();
    exchange(&reader, &writer).await;
    (reader, writer)
}

async fn close((_reader, writer): (StreamReader, StreamWriter)) {
    writer.close();
    writer.wait_closed().await.unwrap();
}

// spec: UNIX-03, UNIX-05
#[test]
fn what_stands_at_a_path_decides_how_a_connect_and_a_server_fare() {
    on_loop(async {
        let folder = Folder::new();
        let [file, directory, dangling, link, live] =
            ["file", "directory", "dangling", "link", "live"].map(|name| folder.file(name));
        fs::write(&file, "important").unwrap();
        fs::create_dir(&directory).unwrap();
        symlink("nowhere", &dangling).unwrap();
        assert_eq!(refusal(&file).await, Some(libc::ECONNREFUSED));
        assert_eq!(refusal(&directory).await, Some(libc::ECONNREFUSED));
        assert_eq!(refusal(&dangling).await, Some(libc::ENOENT));
        assert_eq!(refusal(&file.join("socket")).await, Some(libc::ENOTDIR));
        for path in [&file, &directory, &dangling] {
            let error = serve(path).await.unwrap_err();
            let text = format!("[Errno 98] Address '{}' is already in use", path.display());
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(fs::read_link(&dangling).unwrap(), Path::new("nowhere"));
        let server = serve(&live).await.unwrap();
        symlink(&live, &link).unwrap();
        close(connect_and_exchange(&link).await).await;
        // As in asyncio, a link to a socket counts as one: the new server's file takes its place.
        let other = serve(&link).await.unwrap();
        assert!(fs::read_link(&link).is_err());
        close(connect_and_exchange(&live).await).await;
        close(connect_and_exchange(&link).await).await;
        end(other).await;
        end(server).await;
    });
}

// spec: UNIX-01, UNIX-04
#[test]
fn a_path_may_be_any_bytes_and_as_long_as_the_kernel_takes_it() {
    on_loop(async {
        let folder = Folder::new();
        let odd = folder.file("x").with_file_name(OsStr::from_bytes(b"\xff\xfe\n socket"));
        let room = 107 - odd.parent().unwrap().as_os_str().len() - 1; // And the NUL behind it.
        let longest = odd.with_file_name("x".repeat(room));
        for path in [&odd, &longest] {
            let server = serve(path).await.unwrap();
            let (reader, writer) = connect_and_exchange(path).await;
            let peer = writer.get_extra_info(extra_info::PEERNAME).unwrap();
            assert_eq!(peer, Address::from(path.clone()));
            close((reader, writer)).await;
            end(server).await;
            assert!(!path.exists());
        }
        let text = text_of(serve(odd.with_file_name("x".repeat(room + 1))).await);
        assert!(text.starts_with("the path of a Unix socket is too long, 108 bytes"), "{text}");
    });
}

// spec: UNIX-05, UNIX-07
#[test]
fn a_server_whose_file_is_removed_or_taken_over_serves_on_and_closes_in_silence() {
    on_loop(async {
        let folder = Folder::new();
        let path = folder.file("socket");
        let first = serve(&path).await.unwrap();
        let open = connect_and_exchange(&path).await;
        fs::remove_file(&path).unwrap();
        assert_eq!(refusal(&path).await, Some(libc::ENOENT));
        exchange(&open.0, &open.1).await;
        let second = serve(&path).await.unwrap();
        let of_second = connect_and_exchange(&path).await;
        first.close();
        exchange(&open.0, &open.1).await;
        close(open).await;
        first.wait_closed().await.unwrap();
        exchange(&of_second.0, &of_second.1).await;
        close(connect_and_exchange(&path).await).await;
        fs::remove_file(&path).unwrap();
        close(of_second).await;
        end(second).await;
        assert_eq!(running().stats().warnings, 0);
    });
}
