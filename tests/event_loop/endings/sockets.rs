//! The futures that need a socket: calls on sockets, connections, servers and streams.
//!
//! The peers are sockets of the same process, and are closed with the future.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;

use ringloop::{
    Exclusive, Listen, SendFile, Server, Socket, StreamReader, StreamWriter, Transport,
    open_connection, open_unix_connection, start_server, start_unix_server, timeout,
};
use ringloop_tests::folder::Folder;
use ringloop_tests::{files, sockets};

use super::{Entry, SHORT, later, running, turns};

pub(super) const FUTURES: &[Entry] = &[
    (&["Socket::accept", "Socket::connect"], || {
        Box::pin(async {
            let (listener, address) = listener();
            let ours = Socket::from(sockets::tcp_socket());
            later(&Rc::new(()), move |()| drop(sockets::connect(address)));
            drop(listener.accept().await.unwrap());
            ours.connect(address).await.unwrap();
        })
    }),
    (&["EventLoop::sock_accept", "EventLoop::sock_connect"], || {
        Box::pin(async {
            let (listener, address) = listener();
            let ours = Socket::from(sockets::tcp_socket());
            later(&Rc::new(()), move |()| drop(sockets::connect(address)));
            drop(running().sock_accept(&listener).await.unwrap());
            running().sock_connect(&ours, address).await.unwrap();
        })
    }),
    (&["Socket::recv", "Socket::recv_into", "Socket::sendall", "Socket::sendfile"], || {
        Box::pin(async {
            let (ours, peer) = pair();
            let file = files::temporary(&sockets::noise(LARGE));
            let mut buffer = [0; 8];
            send_later(&peer);
            drop(ours.recv(8).await.unwrap());
            send_later(&peer);
            assert_eq!(ours.recv_into(&mut buffer).await.unwrap(), 4);
            drains(&peer);
            ours.sendall(sockets::noise(LARGE)).await.unwrap();
            ours.sendfile(&file).await.unwrap();
        })
    }),
    (
        &[
            "EventLoop::sock_recv",
            "EventLoop::sock_recv_into",
            "EventLoop::sock_sendall",
            "EventLoop::sock_sendfile",
        ],
        || {
            Box::pin(async {
                let (ours, peer) = pair();
                let file = files::temporary(&sockets::noise(LARGE));
                let mut buffer = [0; 8];
                send_later(&peer);
                drop(running().sock_recv(&ours, 8).await.unwrap());
                send_later(&peer);
                assert_eq!(running().sock_recv_into(&ours, &mut buffer).await.unwrap(), 4);
                drains(&peer);
                running().sock_sendall(&ours, sockets::noise(LARGE)).await.unwrap();
                running().sock_sendfile(&ours, &file).await.unwrap();
            })
        },
    ),
    (&["Socket::recvfrom", "Socket::recvfrom_into", "Socket::sendto"], || {
        Box::pin(async {
            let (ours, peer, address) = datagrams();
            let mut buffer = [0; 8];
            send_later(&peer);
            drop(ours.recvfrom(8).await.unwrap());
            send_later(&peer);
            assert_eq!(ours.recvfrom_into(&mut buffer).await.unwrap().0, 4);
            ours.sendto("data", address).await.unwrap();
        })
    }),
    (
        &["EventLoop::sock_recvfrom", "EventLoop::sock_recvfrom_into", "EventLoop::sock_sendto"],
        || {
            Box::pin(async {
                let (ours, peer, address) = datagrams();
                let mut buffer = [0; 8];
                send_later(&peer);
                drop(running().sock_recvfrom(&ours, 8).await.unwrap());
                send_later(&peer);
                let received = running().sock_recvfrom_into(&ours, &mut buffer, 0).await;
                assert_eq!(received.unwrap().0, 4);
                running().sock_sendto(&ours, "data", address).await.unwrap();
            })
        },
    ),
    (&["EventLoop::create_server", "Server::serve_forever", "Server::wait_closed"], || {
        Box::pin(async {
            let server = serve().await;
            drop(timeout(SHORT, server.0.serve_forever()).await);
            server.0.close();
            server.0.wait_closed().await.unwrap();
        })
    }),
    (&["Server::start_serving", "Server::scope"], || {
        Box::pin(async {
            let server = serve().await;
            server.0.start_serving().await.unwrap();
            let client = sockets::connect(server.0.local_addr().unwrap());
            later(&Rc::new(()), move |()| drop(client)); // The server waits for its end.
            let body = async |server: &Server| {
                turns(3).await;
                server.close_clients();
            };
            server.0.scope(body).await.unwrap();
        })
    }),
    (&["EventLoop::create_connection", "EventLoop::sendfile"], || {
        Box::pin(async {
            let (_listener, address) = listener();
            let file = files::temporary(b"of a file");
            let connected = running().create_connection(|| Exclusive::new(()), address).await;
            let transport = CloseOnDrop(connected.unwrap().0);
            transport.0.write("first").unwrap();
            running().sendfile(&transport.0, SendFile::new(&file)).await.unwrap();
        })
    }),
    (&["EventLoop::connect_accepted_socket"], || {
        Box::pin(async {
            let (ours, _theirs) = sockets::tcp_pair();
            let factory = || Exclusive::new(());
            let connected = running().connect_accepted_socket(factory, ours).await;
            drop(CloseOnDrop(connected.unwrap().0));
        })
    }),
    (&["EventLoop::create_unix_server", "EventLoop::create_unix_connection"], || {
        Box::pin(async {
            let folder = Folder::new();
            let path = folder.file("socket");
            let factory = || Exclusive::new(());
            let server = running().create_unix_server(factory, &*path).await.unwrap();
            let _server = CloseServer(server);
            let connected = running().create_unix_connection(factory, &*path).await;
            drop(CloseOnDrop(connected.unwrap().0));
        })
    }),
    (&["start_server", "open_connection"], || {
        Box::pin(async {
            let server = CloseServer(start_server(echo, ("127.0.0.1", 0)).await.unwrap());
            let connected = open_connection(server.0.local_addr().unwrap()).await;
            let (reader, writer) = connected.unwrap();
            talk(&reader, &writer).await;
        })
    }),
    (&["start_unix_server", "open_unix_connection"], || {
        Box::pin(async {
            let folder = Folder::new();
            let path = folder.file("socket");
            let _server = CloseServer(start_unix_server(echo, &*path).await.unwrap());
            let (reader, writer) = open_unix_connection(&*path).await.unwrap();
            talk(&reader, &writer).await;
        })
    }),
    (
        &[
            "StreamReader::read",
            "StreamReader::read_to_end",
            "StreamReader::read_exactly",
            "StreamReader::read_until",
            "StreamReader::read_until_any",
            "StreamReader::read_line",
            "StreamReader::read_line_into",
            "Lines::next_line",
        ],
        || {
            Box::pin(async {
                let reader = Rc::new(StreamReader::new(100).unwrap());
                let feed = || later(&reader, |reader| reader.feed_data(b"one\n").unwrap());
                let mut line = Vec::new();
                feed();
                drop(reader.read(10).await.unwrap());
                feed();
                drop(reader.read_exactly(4).await.unwrap());
                feed();
                drop(reader.read_until("\n").await.unwrap());
                feed();
                drop(reader.read_until_any(&["\r", "\n"]).await.unwrap());
                feed();
                drop(reader.read_line().await.unwrap());
                feed();
                assert_eq!(reader.read_line_into(&mut line).await.unwrap(), 4);
                feed();
                assert_eq!(reader.lines().next_line().await.unwrap().unwrap(), b"one\n");
                later(&reader, |reader| reader.feed_eof());
                drop(reader.read_to_end().await.unwrap());
            })
        },
    ),
    (&["StreamWriter::drain", "StreamWriter::wait_closed"], || {
        Box::pin(async {
            let (ours, theirs) = sockets::pair();
            let peer = Rc::new(theirs);
            let (_reader, writer) = open_connection(Socket::from(ours)).await.unwrap();
            writer.write(sockets::noise(LARGE)).unwrap();
            drains(&peer);
            writer.drain().await.unwrap();
            writer.close();
            writer.wait_closed().await.unwrap();
        })
    }),
];

/// More than a socket takes at once.
const LARGE: usize = 1 << 20;

fn listener() -> (Socket, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (Socket::from(listener), address)
}

/// A socket for the loop, and its peer.
fn pair() -> (Socket, Rc<socket2::Socket>) {
    let (ours, theirs) = sockets::pair();
    (Socket::from(ours), Rc::new(theirs))
}

/// The same for datagrams, with the peer's address.
fn datagrams() -> (Socket, Rc<socket2::Socket>, SocketAddr) {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (ours, theirs) = (bind(), bind());
    ours.set_nonblocking(true).unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    let address = theirs.local_addr().unwrap();
    (Socket::from(ours), Rc::new(theirs.into()), address)
}

fn send_later(peer: &Rc<socket2::Socket>) {
    later(peer, |peer| assert_eq!(peer.send(b"data").unwrap(), 4));
}

/// Reads what comes, for as long as the future has the peer.
fn drains(peer: &Rc<socket2::Socket>) {
    let peer = Rc::downgrade(peer);
    drop(running().create_task(async move {
        while let Some(peer) = peer.upgrade() {
            sockets::drain(&peer);
            drop(peer);
            turns(1).await;
        }
    }));
}

async fn serve() -> CloseServer {
    let listen = Listen::on("127.0.0.1", 0);
    CloseServer(running().create_server(|| Exclusive::new(()), listen).await.unwrap())
}

async fn echo(reader: StreamReader, writer: StreamWriter) -> ringloop::Result<()> {
    writer.write(reader.read_line().await?)?;
    writer.drain().await
}

async fn talk(reader: &StreamReader, writer: &StreamWriter) {
    writer.write("hello\n").unwrap();
    assert_eq!(reader.read_line().await.unwrap(), b"hello\n");
    writer.close();
    writer.wait_closed().await.unwrap();
}

/// A server that nobody holds goes on, and so do its clients.
struct CloseServer(Server);

impl Drop for CloseServer {
    fn drop(&mut self) {
        self.0.close();
        self.0.abort_clients();
    }
}

/// A transport that nobody holds goes on, too.
struct CloseOnDrop(Transport);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
