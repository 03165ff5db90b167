//! Peers that are slow, rude, gone or greedy.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;

use ringloop::{Listen, Protocol, ProtocolResult, Received, Server, Transport, WriteMode};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::{connect, noise, reset};
use socket2::Socket;

use super::{MODES, running};

/// Echoes, and stops reading while its own buffer is full, as a good server does.
struct Echo {
    open: Rc<Cell<usize>>,
}

impl Protocol for Echo {
    fn connection_made(&self, _: &Transport) {
        self.open.set(self.open.get() + 1);
    }
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        transport.write(data)?;
        Ok(())
    }
    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }
    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }
    fn connection_lost(&self, _: &Transport, _: Option<&std::io::Error>) {
        self.open.set(self.open.get() - 1);
    }
}

async fn serve(mode: WriteMode) -> (Server, SocketAddr, Rc<Cell<usize>>) {
    let open = Rc::new(Cell::new(0));
    let count = Rc::clone(&open);
    let factory = move || Echo { open: Rc::clone(&count) };
    let listen = Listen::on("127.0.0.1", 0).backlog(4096).write_mode(mode);
    let server = running().create_server(factory, listen).await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address, open)
}

/// Runs `client` on a thread of its own, and the loop meanwhile.
async fn on_thread<T: Send + 'static>(client: impl FnOnce() -> T + Send + 'static) -> T {
    running().run_in_executor(client).await.unwrap()
}

async fn end(server: Server, open: &Cell<usize>) {
    server.close();
    server.wait_closed().await.unwrap();
    assert_eq!(open.get(), 0);
    running().shutdown_default_executor(None).await.unwrap();
}

// spec: WRITE-13, RISK-16, RISK-15
#[test]
fn sixty_four_mib_come_back_whole() {
    on_loop(async {
        for mode in MODES {
            let (server, address, open) = serve(mode).await;
            on_thread(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut reading = stream.try_clone().unwrap();
                let block = noise(1 << 20);
                let expected = block.clone();
                let reader = thread::spawn(move || {
                    let mut got = vec![0; 1 << 20];
                    for _ in 0..64 {
                        reading.read_exact(&mut got).unwrap();
                        assert!(got == expected);
                    }
                    reading.read(&mut got).unwrap()
                });
                for _ in 0..64 {
                    stream.write_all(&block).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(reader.join().unwrap(), 0);
            })
            .await;
            server.close();
            server.wait_closed().await.unwrap();
            assert_eq!(open.get(), 0);
        }
    });
}

// spec: FLOW-09, TRANS-24
#[test]
fn a_peer_that_never_reads_is_not_read_from_for_ever() {
    on_loop(async {
        let (server, address, open) = serve(WriteMode::Batched).await;
        let mut peer = connect(address);
        let block = vec![1; 1 << 16];
        let mut sent = 0;
        let mut is_stuck = false;
        loop {
            match peer.write(&block) {
                Ok(more) => {
                    sent += more;
                    is_stuck = false;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    if is_stuck {
                        break; // With nothing left to happen on the server's side.
                    }
                    settle().await;
                    is_stuck = true;
                }
            }
        }
        assert!(sent < 64 << 20, "{sent}");
        assert!(running().counters().leased <= 32);
        drop(peer);
        end(server, &open).await;
    });
}

#[test]
fn peers_that_end_in_every_way_leave_nothing_behind() {
    on_loop(async {
        for mode in MODES {
            let (server, address, open) = serve(mode).await;
            on_thread(move || {
                let mut chance = noise(600).into_iter();
                for _ in 0..200 {
                    let mut stream = TcpStream::connect(address).unwrap();
                    let size = [0, 1, 100, 40_000][usize::from(chance.next().unwrap() % 4)];
                    stream.write_all(&vec![1; size]).unwrap();
                    let reads = chance.next().unwrap() < 128;
                    match chance.next().unwrap() % 4 {
                        0 => reset(Socket::from(stream)),
                        1 => drop(stream),
                        2 => {
                            stream.shutdown(Shutdown::Write).unwrap();
                            if reads {
                                assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), size);
                            }
                        }
                        _ => {
                            if reads {
                                stream.read_exact(&mut vec![0; size]).unwrap();
                            }
                            let _ = stream.shutdown(Shutdown::Both);
                        }
                    }
                }
            })
            .await;
            settle().await;
            assert_eq!(open.get(), 0);
            server.close();
            server.wait_closed().await.unwrap();
        }
    });
}

#[test]
fn many_connections_at_once_each_get_their_own() {
    on_loop(async {
        let (server, address, open) = serve(WriteMode::Batched).await;
        let most = on_thread(move || {
            let mut streams: Vec<_> =
                (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
            for round in 0..5_u32 {
                for (number, stream) in streams.iter_mut().enumerate() {
                    stream.write_all(format!("{round} {number:4}").as_bytes()).unwrap();
                }
                for (number, stream) in streams.iter_mut().enumerate() {
                    let mut got = [0; 6];
                    stream.read_exact(&mut got).unwrap();
                    assert_eq!(got, *format!("{round} {number:4}").as_bytes());
                }
            }
            streams.len()
        })
        .await;
        assert_eq!(most, 300);
        end(server, &open).await;
    });
}

/// Answers a question of eight bytes, and closes.
#[derive(Default)]
struct Answer {
    received: Cell<usize>,
}

impl Protocol for Answer {
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        self.received.set(self.received.get() + data.len());
        if self.received.get() == 8 {
            transport.write(vec![2; 16 << 20])?;
            transport.close();
        }
        Ok(())
    }
}

// spec: WRITE-20, TRANS-30
#[test]
fn a_slow_reader_gets_the_whole_answer_of_a_server_that_has_closed() {
    on_loop(async {
        for mode in MODES {
            let listen = Listen::on("127.0.0.1", 0).write_mode(mode);
            let server = running().create_server(Answer::default, listen).await.unwrap();
            let address = server.local_addr().unwrap();
            let got = on_thread(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"question").unwrap();
                let mut got = Vec::new();
                let mut part = [0; 10_000];
                loop {
                    match stream.read(&mut part).unwrap() {
                        0 => break got,
                        length => got.extend_from_slice(&part[..length]),
                    }
                }
            })
            .await;
            assert!(got == vec![2; 16 << 20]);
            server.close();
            server.wait_closed().await.unwrap();
        }
    });
}

// spec: RISK-16, TRANS-15
#[test]
fn a_half_closed_peer_that_reads_slowly_gets_everything_and_costs_no_thread() {
    on_loop(async {
        for mode in MODES {
            let (server, address, open) = serve(mode).await;
            let mut peer = connect(address);
            // Until the server reads no more, as its own buffer is full: then it does not know of the end that follows.
            let mut sent = 0;
            let block = noise(1 << 16);
            loop {
                match peer.write(&block) {
                    Ok(more) => sent += more,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let before = sent;
                        settle().await;
                        sent += peer.write(&block).unwrap_or(0);
                        if sent == before {
                            break;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            peer.shutdown(Shutdown::Write).unwrap();
            let mut got = 0;
            let mut part = vec![0; 100_000];
            loop {
                let rounds = running().counters().rounds;
                settle().await;
                assert!(running().counters().rounds - rounds < 200, "it spins");
                match peer.read(&mut part) {
                    Ok(0) => break,
                    Ok(length) => got += length,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            assert_eq!(got, sent);
            assert_eq!(kernel_workers(), 0);
            server.close();
            server.wait_closed().await.unwrap();
            assert_eq!(open.get(), 0);
        }
    });
}

/// Threads that the kernel has started in this process for ops that it could not do otherwise.
fn kernel_workers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("comm")));
    names.flatten().filter(|name| name.starts_with("iou-wrk")).count()
}
