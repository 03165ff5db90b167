//! Watched descriptors.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use ringloop_tests::idle::{settle, turn};
use ringloop_tests::python;
use ringloop_tests::sockets::{pair, pipe};

use crate::scenario::{Scenario, excluded, kind_of, py, replays, running};

// spec: READY-01, READY-02, READY-15, RISK-10
async fn r01_a_reader_is_called_once_per_iteration_until_all_is_read(s: Scenario) {
    let event_loop = running();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    b.write_all(b"xyz").unwrap();
    let (log, socket) = (s.clone(), Rc::clone(&a));
    event_loop
        .add_reader(&a, move |_| {
            log.log(format!("readable {}", read(&socket, 1)));
        })
        .unwrap();
    for i in 0..5 {
        turn(1).await;
        s.log(format!("turn {i}"));
    }
    for _ in 0..2 {
        s.log(format!("remove={}", py(event_loop.remove_reader(&a).unwrap())));
    }
}

// spec: LOOP-23, READY-04, RISK-10
async fn r04_the_reader_of_a_descriptor_goes_before_its_writer(s: Scenario) {
    let event_loop = running();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let log = s.clone();
    event_loop.add_writer(&a, move |_| log.log("w")).unwrap();
    let log = s.clone();
    event_loop.add_reader(&a, move |_| log.log("r")).unwrap();
    turn(2).await;
    s.log(format!("remove_reader={}", py(event_loop.remove_reader(&a).unwrap())));
    turn(1).await;
    for _ in 0..2 {
        s.log(format!("remove_writer={}", py(event_loop.remove_writer(&a).unwrap())));
    }
}

// spec: READY-09, RISK-08
async fn r05_a_reused_number_gets_no_event_of_its_old_owner(s: Scenario) {
    let event_loop = running();
    let (a, mut b) = pair();
    let fd = a.as_raw_fd();
    b.write_all(b"x").unwrap();
    let log = s.clone();
    event_loop.add_reader(&fd, move |_| log.log("OLD")).unwrap();
    event_loop.remove_reader(&fd).unwrap();
    drop(a);
    let (c, mut d) = pair();
    assert_eq!(c.as_raw_fd(), fd, "the lowest free number is taken");
    let log = s.clone();
    event_loop.add_reader(&fd, move |_| log.log("new readable")).unwrap();
    turn(3).await;
    s.log("quiet");
    d.write_all(b"y").unwrap();
    turn(2).await;
    event_loop.remove_reader(&fd).unwrap();
}

// spec: READY-01, READY-02, READY-16, RISK-10
async fn r06_the_writer_of_an_idle_socket_is_called_in_every_iteration(s: Scenario) {
    let event_loop = running();
    let (a, _b) = pair();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    event_loop.add_writer(&a, move |_| count.set(count.get() + 1)).unwrap();
    turn(4).await;
    event_loop.remove_writer(&a).unwrap();
    let before = calls.get();
    turn(3).await;
    let after = calls.get() - before;
    s.log(format!("fired={} after_remove={after}", py(before >= 3)));
}

// spec: READY-08
async fn r07_the_end_of_the_stream_is_readable(s: Scenario) {
    let event_loop = running();
    let (a, b) = pair();
    drop(b);
    let (log, fd) = (s.clone(), a.as_raw_fd());
    event_loop
        .add_reader(&fd, move |event_loop| {
            log.log(format!("readable {}", read(&a, 10)));
            event_loop.remove_reader(&fd).unwrap();
        })
        .unwrap();
    turn(2).await;
}

// spec: READY-11, SOCK-09
async fn r08_the_descriptor_of_an_open_transport_is_refused(s: Scenario) {
    let event_loop = running();
    let (a, _b) = pair();
    let fd = a.as_raw_fd();
    let (transport, _) = s.attach(a, s.recorder()).await;
    let attempts = [
        ("add_reader", event_loop.add_reader(&fd, |_| ())),
        ("remove_reader", event_loop.remove_reader(&fd).map(drop)),
        ("add_writer", event_loop.add_writer(&fd, |_| ())),
        ("remove_writer", event_loop.remove_writer(&fd).map(drop)),
    ];
    for (name, result) in attempts {
        let error = result.unwrap_err();
        let used = error.to_string().contains("is used by transport");
        s.log(format!("{name} {} used_by_transport={}", python::kind(&error), py(used)));
    }
    excluded!("R08", 6);
    transport.close();
    let removed = event_loop.remove_reader(&fd).unwrap();
    s.log(format!("remove_reader after close()={}", py(removed)));
    settle().await;
}

// spec: READY-12, RISK-39
async fn r09_regular_files_are_refused_and_pipes_are_not(s: Scenario) {
    let event_loop = running();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    s.log(kind_of(event_loop.add_reader(&file, |_| ())));
    let (mut reader, mut writer) = pipe();
    let (log, fd) = (s.clone(), reader.as_raw_fd());
    event_loop
        .add_reader(&fd, move |event_loop| {
            let mut buffer = [0; 10];
            let length = reader.read(&mut buffer).unwrap();
            log.log(format!("pipe {}", python::bytes(&buffer[..length])));
            event_loop.remove_reader(&fd).unwrap();
        })
        .unwrap();
    writer.write_all(b"x").unwrap();
    turn(3).await;
    let negative = event_loop.add_reader(&-1, |_| ());
    s.log(format!("{} for a negative descriptor", kind_of(negative)));
}

replays! {
    plain: [],
    tasks: [
        r01_a_reader_is_called_once_per_iteration_until_all_is_read,
        r04_the_reader_of_a_descriptor_goes_before_its_writer,
        r05_a_reused_number_gets_no_event_of_its_old_owner,
        r06_the_writer_of_an_idle_socket_is_called_in_every_iteration,
        r07_the_end_of_the_stream_is_readable,
        r09_regular_files_are_refused_and_pipes_are_not,
    ],
    transports: [r08_the_descriptor_of_an_open_transport_is_refused],
    over_tcp: [],
}

/// What one receive of at most `most` bytes gives.
fn read(mut socket: &socket2::Socket, most: usize) -> String {
    let mut buffer = vec![0; most];
    let length = socket.read(&mut buffer).unwrap();
    python::bytes(&buffer[..length])
}
