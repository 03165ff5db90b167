//! Socket calls.

use std::fs::File;
use std::io::{Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Address, Error, SendFile, Socket, Task, timeout};
use ringloop_tests::files::temporary;
use ringloop_tests::idle::{drain_all, settle, turn};
use ringloop_tests::python;
use ringloop_tests::sockets::{self, drain, noise, reset};

use crate::scenario::{Scenario, excluded, kind_of, py, replays, running, with_text};

// spec: SOCK-06, SOCK-08, RISK-01
async fn k02_a_cancelled_receive_loses_no_data(s: Scenario) {
    let (a, mut b) = s.pair();
    let a = shared(a);
    let k = receive(&a, 100);
    turn(2).await;
    k.cancel();
    turn(2).await;
    s.log(format!("cancelled={}", py(k.cancelled())));
    b.write_all(b"abc").unwrap();
    s.log(python::bytes(&a.recv(100).await.unwrap()));
}

// spec: SOCK-20, SOCK-21, RISK-02
async fn k04_a_cancelled_accept_loses_no_connection(s: Scenario) {
    let (listener, address) = listener();
    for i in 0..2 {
        let k = accept(&listener);
        turn(2).await;
        let c = if i == 0 {
            k.cancel();
            turn(2).await;
            TcpStream::connect(address).unwrap()
        } else {
            let c = TcpStream::connect(address).unwrap();
            k.cancel();
            c
        };
        s.log(match k.await {
            Ok(_) => "accepted?".to_owned(),
            Err(error) => python::kind(&error),
        });
        let accepted = timeout(Duration::from_secs(1), listener.accept()).await.unwrap();
        let (server, from) = accepted.unwrap();
        let same = from == Address::from(c.local_addr().unwrap());
        let nonblocking = server.with_fd(|fd| socket2::SockRef::from(&fd).nonblocking());
        let nonblocking = nonblocking.unwrap().unwrap();
        s.log(format!("accepted same={} nonblocking={}", py(same), py(nonblocking)));
    }
}

// spec: SOCK-50, RISK-16
async fn k05_a_slow_reader_gets_every_byte_in_order(s: Scenario) {
    let (a, b) = s.pair();
    let (a, b) = (shared(a), Socket::from(b));
    let data: Rc<Vec<u8>> = Rc::new((0..=255).cycle().take(8 << 20).collect());
    let k = send(&a, &data);
    turn(3).await;
    s.log(format!("done early={}", py(k.done())));
    let mut got = Vec::new();
    while got.len() < data.len() {
        got.extend_from_slice(&b.recv(1 << 20).await.unwrap());
    }
    let result = k.await.unwrap().map_or_else(|error| python::kind(&error), |()| "None".to_owned());
    s.log(format!("equal={} result={result}", py(got == *data)));
}

// spec: SOCK-53, RISK-20
async fn k06_after_a_cancel_nothing_more_is_sent(s: Scenario) {
    let (a, b) = s.pair();
    let a = shared(a);
    let data = Rc::new(noise(4 << 20));
    let k = send(&a, &data);
    turn(3).await;
    k.cancel();
    if let Err(error) = k.await {
        s.log(python::kind(&error));
    }
    let (got, _) = drain(&b);
    settle().await;
    let (more, _) = drain(&b);
    let (prefix, partial) = (data.starts_with(&got), !got.is_empty() && got.len() < data.len());
    s.log(format!("prefix={} partial={} later={}", py(prefix), py(partial), more.len()));
}

// spec: SOCK-04, SOCK-40, SOCK-42
async fn k08_the_end_gives_nothing_and_a_reset_an_error(s: Scenario) {
    for is_reset in [false, true] {
        let (a, b) = sockets::tcp_pair();
        let a = shared(a);
        let k = receive(&a, 10);
        turn(2).await;
        if is_reset {
            reset(b);
        } else {
            drop(b);
        }
        s.log(match k.await.unwrap() {
            Ok(data) => python::bytes(&data),
            Err(error) => python::kind(&error),
        });
    }
}

// spec: SOCK-41, SOCK-43, SOCK-44, SOCK-55
async fn k09_datagrams_come_whole_with_their_senders(s: Scenario) {
    let [sender, receiver] = [(), ()].map(|()| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Rc::new(Socket::from(socket))
    });
    let here = receiver.getsockname().unwrap();
    let task = Rc::clone(&receiver);
    let k = running().create_task(async move { task.recvfrom(100).await });
    turn(2).await;
    s.log(format!("sendto={}", sender.sendto(b"one", &here).await.unwrap()));
    let (data, from) = k.await.unwrap().unwrap();
    let same = from == sender.getsockname().unwrap();
    s.log(format!("{} from_sender={}", python::bytes(&data), py(same)));
    let mut buffer = [0; 10];
    sender.sendto(b"two", &here).await.unwrap();
    let (n, _) = receiver.recvfrom_into(&mut buffer).await.unwrap();
    s.log(format!("{n} {}", python::bytes(&buffer[..n])));
    sender.sendto(b"three", &here).await.unwrap();
    let received = running().sock_recvfrom_into(&receiver, &mut buffer, 2).await;
    let (n, _) = received.unwrap();
    s.log(format!("truncated {n} {}", python::bytes(&buffer[..n])));
    let (a, mut b) = s.pair();
    b.write_all(b"abcdef").unwrap();
    let n = Socket::from(a).recv_into(&mut buffer[..4]).await.unwrap();
    s.log(format!("{n} {}", python::bytes(&buffer[..n])));
}

// spec: SOCK-12
async fn k10_of_two_receives_the_second_takes_over(s: Scenario) {
    let (a, mut b) = s.pair();
    let a = shared(a);
    let k1 = receive(&a, 10);
    turn(2).await;
    let k2 = receive(&a, 10);
    turn(2).await;
    b.write_all(b"x").unwrap();
    settle().await;
    let done = k1.done();
    s.log(format!("k1.done={} k2={}", py(done), python::bytes(&k2.await.unwrap().unwrap())));
    k1.cancel();
    turn(2).await;
    s.log(format!("k1.cancelled={}", py(k1.cancelled())));
}

// spec: SENDFILE-01, SENDFILE-02, SENDFILE-03, SENDFILE-04
async fn k11_files_and_parts_of_them_are_sent(s: Scenario) {
    let data = noise(100_000);
    let mut file = temporary(&data);
    let parts = [(0, None), (10, Some(50)), (99_990, Some(100)), (100_000, None)];
    for (offset, count) in parts {
        let (a, b) = sockets::tcp_pair();
        let a = Socket::from(a);
        let n = timeout(Duration::from_secs(5), a.sendfile(part(&file, offset, count)));
        let n = n.await.unwrap().unwrap();
        drop(a);
        let (got, _) = drain_all(&b).await;
        let end = count.map_or(data.len() as u64, |count| (offset + count).min(data.len() as u64));
        let equal = got == data[offset as usize..end as usize];
        let count = count.map_or_else(|| "None".to_owned(), |count| count.to_string());
        let tell = file.stream_position().unwrap();
        let line = format!("offset={offset} count={count}: returned {n}");
        s.log(format!("{line} equal={} tell={tell}", py(equal)));
    }
    excluded!("K11", 5);
    let (a, _b) = sockets::tcp_pair();
    s.log(with_text(Socket::from(a).sendfile(part(&file, 0, Some(0))).await));
    excluded!("K11", 7);
}

// spec: SOCK-22, RISK-02
async fn k14_a_connection_of_an_accept_that_is_cancelled_late_is_kept(s: Scenario) {
    let (listener, address) = listener();
    let k = accept(&listener);
    turn(2).await;
    let _c = TcpStream::connect(address).unwrap();
    running().call_soon(move |_| assert!(k.cancel())).unwrap();
    turn(3).await;
    s.log(match timeout(Duration::from_millis(100), listener.accept()).await {
        Ok(_) => "kept",
        Err(_) => "lost",
    });
}

// spec: TASK-09, SOCK-07, SOCK-08, RISK-01
async fn k15_data_of_a_receive_that_is_cancelled_late_are_kept(s: Scenario) {
    let (a, mut b) = s.pair();
    let a = shared(a);
    let k = receive(&a, 10);
    turn(2).await;
    b.write_all(b"abc").unwrap();
    running().call_soon(move |_| assert!(k.cancel())).unwrap();
    turn(3).await;
    s.log(python::bytes(&a.recv(10).await.unwrap()));
}

// spec: SOCK-51, SOCK-52
async fn k16_nothing_is_sent_at_once_and_a_broken_pipe_is_told(s: Scenario) {
    let (a, b) = s.pair();
    let a = Socket::from(a);
    a.sendall(b"").await.unwrap();
    s.log("None");
    drop(b);
    s.log(kind_of(a.sendall(b"x").await));
}

// spec: SENDFILE-10, SENDFILE-11, SENDFILE-12
async fn t36_a_file_goes_between_what_is_written_before_and_after(s: Scenario) {
    let (a, mut b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let data = noise(1 << 20);
    let file = Rc::new(temporary(&data));
    transport.write(b"head").unwrap();
    let (sender, sent) = (transport.clone(), Rc::clone(&file));
    let k = running().create_task(async move { running().sendfile(&sender, &*sent).await });
    turn(3).await;
    s.log_proto(with_text(transport.write(b"x")));
    s.log_proto(format!("reading={}", py(transport.is_reading())));
    b.write_all(b"meanwhile").unwrap();
    settle().await;
    s.log_proto("no data callback so far");
    let mut got = Vec::new();
    while got.len() < data.len() + 4 {
        got.extend(drain(&b).0);
        turn(1).await;
    }
    let n = k.await.unwrap().unwrap();
    transport.write(b"tail").unwrap();
    settle().await;
    got.extend(drain(&b).0);
    let equal = got == [b"head", &*data, b"tail"].concat();
    let tell = (&*file).stream_position().unwrap();
    let reading = py(transport.is_reading());
    s.log_proto(format!("n={n} equal={} tell={tell} reading={reading}", py(equal)));
    transport.close();
    protocol.lost().await;
    s.log_proto(with_text(running().sendfile(&transport, &*file).await));
}

replays! {
    plain: [],
    tasks: [
        k02_a_cancelled_receive_loses_no_data,
        k04_a_cancelled_accept_loses_no_connection,
        k05_a_slow_reader_gets_every_byte_in_order,
        k06_after_a_cancel_nothing_more_is_sent,
        k08_the_end_gives_nothing_and_a_reset_an_error,
        k09_datagrams_come_whole_with_their_senders,
        k10_of_two_receives_the_second_takes_over,
        k11_files_and_parts_of_them_are_sent,
        k14_a_connection_of_an_accept_that_is_cancelled_late_is_kept,
        k15_data_of_a_receive_that_is_cancelled_late_are_kept,
        k16_nothing_is_sent_at_once_and_a_broken_pipe_is_told,
    ],
    transports: [t36_a_file_goes_between_what_is_written_before_and_after],
    over_tcp: [
        t36_a_file_goes_between_what_is_written_before_and_after,
        k02_a_cancelled_receive_loses_no_data,
        k05_a_slow_reader_gets_every_byte_in_order,
        k06_after_a_cancel_nothing_more_is_sent,
        k10_of_two_receives_the_second_takes_over,
        k15_data_of_a_receive_that_is_cancelled_late_are_kept,
    ],
}

fn shared(socket: socket2::Socket) -> Rc<Socket> {
    Rc::new(socket.into())
}

fn listener() -> (Rc<Socket>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (Rc::new(listener.into()), address)
}

type Received = Result<ringloop::Received, Error>;

fn receive(socket: &Rc<Socket>, most: usize) -> Task<Received> {
    let socket = Rc::clone(socket);
    running().create_task(async move { socket.recv(most).await })
}

fn accept(listener: &Rc<Socket>) -> Task<Result<(Socket, Address), Error>> {
    let listener = Rc::clone(listener);
    running().create_task(async move { listener.accept().await })
}

fn send(socket: &Rc<Socket>, data: &Rc<Vec<u8>>) -> Task<Result<(), Error>> {
    let (socket, data) = (Rc::clone(socket), Rc::clone(data));
    running().create_task(async move { socket.sendall(&**data).await })
}

fn part(file: &File, offset: u64, count: Option<u64>) -> SendFile<'_> {
    let part = SendFile::new(file).offset(offset);
    count.map_or(part, |count| part.count(count))
}
