//! Stream transports and their protocols.

use std::cell::{Cell, RefCell, RefMut};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use ringloop::extra_info::{ExtraKey, PEERNAME, SOCKET, SOCKNAME};
use ringloop::{
    Address, AfterEof, Buffered, BufferedProtocol, ProtocolRef, ProtocolResult, Transport,
};
use ringloop_tests::idle::{drain_all, drain_exactly, settle, turn};
use ringloop_tests::python;
use ringloop_tests::sockets::{self, drain, drained, noise, pair, reset, tcp_pair};
use ringloop_tests::trace::Trace;
use socket2::Socket;

use crate::scenario::{Scenario, kind_of, py, replays, running, with_text};

// spec: TRANS-01, TRANS-02, TRANS-03, PROTO-06
async fn t01_connection_made_then_the_creator_then_data(s: Scenario) {
    let (a, mut b) = s.pair();
    b.write_all(b"early").unwrap();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    s.log_proto("create_connection returned");
    turn(2).await;
    transport.close();
    protocol.lost().await;
}

// spec: TRANS-14, TRANS-15
async fn t03_a_connection_kept_open_after_eof_still_writes(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder().keep_open()).await;
    b.shutdown(Shutdown::Write).unwrap();
    settle().await;
    let (closing, reading) = (transport.is_closing(), transport.is_reading());
    s.log(format!("is_closing={} is_reading={}", py(closing), py(reading)));
    transport.write(b"still").unwrap();
    s.log(drained(&b));
    turn(3).await;
    transport.close();
    s.log(format!("closing={}", py(transport.is_closing())));
    protocol.lost().await;
}

// spec: TRANS-17, PROTO-06, RISK-21
async fn t06_data_before_a_reset_are_delivered(s: Scenario) {
    let (a, mut b) = tcp_pair();
    let (_transport, protocol) = s.attach(a, s.recorder()).await;
    b.write_all(b"abc").unwrap();
    reset(b);
    protocol.lost().await;
}

// spec: TRANS-04, TRANS-22, RISK-03, RISK-23
async fn t09_paused_in_connection_made_nothing_is_delivered(s: Scenario) {
    let (a, mut b) = s.pair();
    b.write_all(b"early").unwrap();
    let (transport, protocol) = s.attach(a, s.recorder().on_made(Transport::pause_reading)).await;
    settle().await;
    s.log_proto("quiet");
    transport.resume_reading();
    turn(2).await;
    transport.close();
    protocol.lost().await;
}

// spec: TRANS-20, TRANS-21
async fn t10_pausing_and_resuming_may_be_repeated(s: Scenario) {
    let (a, _b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.pause_reading();
    transport.pause_reading();
    s.log(py(transport.is_reading()));
    transport.resume_reading();
    transport.resume_reading();
    s.log(py(transport.is_reading()));
    transport.close();
    transport.pause_reading();
    transport.resume_reading();
    s.log(py(transport.is_reading()));
    protocol.lost().await;
}

// spec: TRANS-30, TRANS-31, RISK-07
async fn t11_closed_in_data_received_no_more_data_come(s: Scenario) {
    let (a, mut b) = pair();
    b.write_all(&[0; 100_000]).unwrap();
    let (log, b) = (s.clone(), Rc::new(b));
    let peer = Rc::clone(&b);
    let recorder = s.recorder().on_data(move |transport, _| {
        transport.close();
        log.log_proto("close() returned");
        (&*peer).write_all(b"more")?;
        Ok(())
    });
    let (_transport, protocol) = s.attach(a, recorder).await;
    protocol.lost().await;
    turn(3).await;
}

// spec: FLOW-08, WRITE-03, WRITE-21, WRITE-24
async fn t12_write_on_an_idle_socket_sends_before_it_returns(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.write(b"now").unwrap();
    let size = transport.get_write_buffer_size();
    s.log_proto(format!("size={size} peer={}", drained(&b)));
    transport.write(b"ba".to_vec()).unwrap();
    transport.write(&b"mv"[..]).unwrap();
    transport.write(b"").unwrap();
    transport.writelines([&b"1"[..], b"", b"22"]).unwrap();
    s.log_proto(format!("peer={}", drained(&b)));
    transport.close();
    protocol.lost().await;
}

// spec: PROTO-07, FLOW-05, FLOW-06, FLOW-09
async fn t13_pause_writing_comes_inside_write_and_resume_writing_at_the_low_mark(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    s.log_proto(format!("limits={:?}", transport.get_write_buffer_limits()));
    let mut data = noise(2 << 20);
    transport.write(&data).unwrap();
    let over = transport.get_write_buffer_size() > 65536;
    s.log_proto(format!("write returned size>high={}", py(over)));
    transport.write(b"tail").unwrap();
    s.log_proto("second write returned");
    data.extend(b"tail");
    let got = drain_exactly(&b, data.len()).await;
    turn(2).await;
    let size = transport.get_write_buffer_size();
    s.log_proto(format!("equal={} size={size}", py(got == data)));
    transport.close();
    protocol.lost().await;
}

// spec: TRANS-30, FLOW-10, WRITE-20, RISK-18
async fn t14_close_sends_what_is_buffered_first(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let data = noise(1 << 20);
    transport.write(&data).unwrap();
    transport.close();
    s.log_proto(format!(
        "closing={} reading={} buffered={}",
        py(transport.is_closing()),
        py(transport.is_reading()),
        py(transport.get_write_buffer_size() > 0)
    ));
    let (got, end) = drain_all(&b).await;
    s.trace.log("peer", format!("equal={} end={}", py(got == data), end.text()));
    protocol.lost().await;
}

// spec: TRANS-32, FLOW-10, RISK-19
async fn t15_abort_drops_what_is_buffered(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let data = noise(1 << 20);
    transport.write(&data).unwrap();
    transport.abort();
    let size = transport.get_write_buffer_size();
    s.log_proto(format!("abort returned size={size} closing={}", py(transport.is_closing())));
    protocol.lost().await;
    let (got, _) = drain_all(&b).await;
    let (prefix, all) = (data.starts_with(&got), got.len() == data.len());
    s.trace.log("peer", format!("prefix={} all={}", py(prefix), py(all)));
}

// spec: WRITE-02, WRITE-30, WRITE-31, RISK-17
async fn t16_write_eof_closes_the_sending_side_after_the_buffer(s: Scenario) {
    let (a, mut b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let data = noise(1 << 20);
    transport.write(&data).unwrap();
    s.log_proto(format!("can={}", py(transport.can_write_eof())));
    transport.write_eof().unwrap();
    transport.write_eof().unwrap();
    s.log_proto(format!("closing={}", py(transport.is_closing())));
    s.log_proto(with_text(transport.write(b"x")));
    s.log_proto(with_text(transport.writelines([b"x"])));
    let (got, end) = drain_all(&b).await;
    s.log_proto(format!("equal={} end={}", py(got == data), end.text()));
    b.write_all(b"answer").unwrap();
    settle().await;
    drop(b);
    protocol.lost().await;
}

// spec: WRITE-30, RISK-14, RISK-17
async fn t17_write_eof_on_an_idle_transport_is_seen_at_once(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.write(b"x").unwrap();
    transport.write_eof().unwrap();
    s.log_proto(drained(&b));
    transport.close();
    protocol.lost().await;
}

// spec: PROTO-12, ERR-02
async fn t20_an_error_of_a_protocol_is_reported_and_closes(s: Scenario) {
    s.log_reports();
    let (a, mut b) = s.pair();
    let recorder = s.recorder().on_data(|_, _| Err("ValueError".into()));
    let (_transport, protocol) = s.attach(a, recorder).await;
    b.write_all(b"x").unwrap();
    protocol.lost().await;
    drop(b);
    let (a, b) = s.pair();
    let recorder = s.recorder().on_eof(|_| Err("ValueError".into()));
    let (_transport, protocol) = s.attach(a, recorder).await;
    b.shutdown(Shutdown::Write).unwrap();
    protocol.lost().await;
}

// spec: TRANS-35, PROTO-14, PROTO-15
async fn t23_panics_where_nothing_is_returned_are_only_reported(s: Scenario) {
    s.log_reports();
    let (a, b) = s.pair();
    let fail = |_: &Transport| panic!("ValueError");
    let recorder = s.recorder().on_pause(fail).on_resume(fail).on_lost(fail);
    let (transport, _) = s.attach(a, recorder).await;
    let data = vec![0; 1 << 20];
    transport.write(&data).unwrap();
    transport.close();
    let (got, end) = drain_all(&b).await;
    s.log_proto(format!("got={} end={}", py(got.len() == data.len()), end.text()));
}

// spec: TRANS-30, TRANS-33, PROTO-08, ERR-04
async fn t24_connection_lost_comes_once_however_often_it_is_closed(s: Scenario) {
    let close = ("close", Transport::close as fn(&Transport));
    let abort = ("abort", Transport::abort as fn(&Transport));
    for (first, second) in [(close, close), (close, abort), (abort, close), (abort, abort)] {
        let (a, _b) = s.pair();
        let (transport, _) = s.attach(a, s.recorder()).await;
        first.1(&transport);
        second.1(&transport);
        settle().await;
        s.log_proto(format!("{}+{} done", first.0, second.0));
    }
}

// spec: TRANS-33, TRANS-34, RISK-19, RISK-24
async fn t25_abort_after_close_drops_what_is_still_buffered(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let data = noise(1 << 20);
    transport.write(&data).unwrap();
    transport.close();
    turn(3).await;
    s.log_proto("flushing");
    transport.abort();
    protocol.lost().await;
    let (got, _) = drain_all(&b).await;
    s.log_proto(format!("all={}", py(got.len() == data.len())));
}

/// Receives into four bytes, and logs with its own name.
struct FourBytes {
    trace: Trace,
    buffer: RefCell<[u8; 4]>,
}

impl BufferedProtocol for FourBytes {
    fn connection_made(&self, _: &Transport) {
        self.trace.log("proto", "B.connection_made");
    }

    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        let hint = hint.map_or_else(|| "-1".to_owned(), |hint| hint.to_string());
        self.trace.log("proto", format!("get_buffer({hint})"));
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
    }

    fn buffer_updated(&self, _: &Transport, length: usize) -> ProtocolResult {
        let data = python::bytes(&self.buffer.borrow()[..length]);
        self.trace.log("proto", format!("buffer_updated({length}) {data}"));
        Ok(())
    }

    fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
        self.trace.log("proto", "B.eof_received");
        Ok(AfterEof::Close)
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        let kind = python::kind_or_none(error);
        self.trace.log("proto", format!("B.connection_lost({kind})"));
    }
}

// spec: TRANS-41, PROTO-10, RISK-29, RISK-30
async fn t26_the_next_bytes_go_to_the_protocol_that_was_set(s: Scenario) {
    let (a, mut b) = s.pair();
    let trace = s.trace.clone();
    let recorder = s.recorder().on_data(move |transport, _| {
        let next = FourBytes { trace: trace.clone(), buffer: RefCell::default() };
        transport.set_protocol(Buffered::new(next));
        Ok(())
    });
    let (transport, _) = s.attach(a, recorder).await;
    b.write_all(b"first").unwrap();
    turn(3).await;
    b.write_all(b"abcdefg").unwrap();
    turn(4).await;
    let buffered = matches!(transport.get_protocol(), Some(ProtocolRef::Buffered(_)));
    s.log_proto(format!("get_protocol={}", if buffered { "B" } else { "P" }));
    b.shutdown(Shutdown::Write).unwrap();
    settle().await;
}

/// Fails in one of the ways in which a buffered protocol can.
struct Failing {
    trace: Trace,
    mode: &'static str,
    buffer: RefCell<[u8; 10]>,
}

impl BufferedProtocol for Failing {
    fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
        if self.mode == "get" {
            return Err("ValueError".into());
        }
        let length = if self.mode == "zero" { 0 } else { 10 };
        Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..length]))
    }

    fn buffer_updated(&self, _: &Transport, _: usize) -> ProtocolResult {
        Err("ValueError".into())
    }

    fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
        let kind = python::kind_or_none(error);
        self.trace.log("exc", format!("{}: connection_lost({kind})", self.mode));
    }
}

// spec: PROTO-11, RISK-28
async fn t27_no_buffer_and_errors_of_a_buffered_protocol_are_fatal(s: Scenario) {
    s.log_reports();
    for mode in ["zero", "get", "upd"] {
        let (a, mut b) = pair();
        let protocol = Failing { trace: s.trace.clone(), mode, buffer: RefCell::default() };
        running().create_connection(|| Buffered::new(protocol), a).await.unwrap();
        b.write_all(b"x").unwrap();
        settle().await;
    }
}

// spec: TRANS-05, TRANS-06, TRANS-40, CONN-17
async fn t29_extra_info_tells_names_and_lends_the_socket(s: Scenario) {
    let listener = sockets::listener(1);
    let recorder = s.recorder();
    let address = sockets::address_of(&listener);
    let (transport, protocol) = running().create_connection(|| recorder, address).await.unwrap();
    let (b, peer) = listener.accept().unwrap();
    drop(listener);
    let is = |key, address: &socket2::SockAddr| {
        py(transport.get_extra_info(key) == Some(Address::from(address)))
    };
    let ours = b.local_addr().unwrap();
    let nope = || transport.get_extra_info(ExtraKey::<i32>::new("nope"));
    s.log(format!(
        "{} {} {} {} {}",
        is(SOCKNAME, &peer),
        is(PEERNAME, &ours),
        or_none(nope()),
        nope().unwrap_or(3),
        or_none(transport.get_extra_info(ExtraKey::<i32>::new("sslcontext"))),
    ));
    let socket = transport.get_extra_info(SOCKET).unwrap();
    s.log(format!(
        "fileno={} nodelay={} timeout={}",
        py(socket.fileno() > 2),
        py(socket.nodelay().unwrap()),
        socket.timeout().unwrap().as_secs(),
    ));
    s.log(kind_of(socket.set_blocking(true)));
    s.log(kind_of(socket.set_timeout(Some(Duration::from_secs(1)))));
    transport.close();
    s.log(format!("peername kept={}", is(PEERNAME, &ours)));
    protocol.lost().await;
    s.log(format!("fileno after lost={}", socket.fileno()));
}

fn or_none(value: Option<i32>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| value.to_string())
}

// spec: WRITE-22
async fn t32_writelines_pauses_the_protocol(s: Scenario) {
    let (a, _b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.writelines([vec![0; 1 << 20], vec![0; 1 << 20]]).unwrap();
    let over = transport.get_write_buffer_size() > 65536;
    s.log_proto(format!("returned buffered={}", py(over)));
    transport.abort();
    protocol.lost().await;
}

// spec: CONN-15, CONN-16, RISK-09
async fn t33_a_cancelled_create_connection_closes_its_transport(s: Scenario) {
    let (a, b) = s.pair();
    let scenario = s.clone();
    let attach = async move { scenario.attach(a, scenario.recorder()).await };
    let task = running().create_task(attach);
    turn(1).await;
    task.cancel();
    s.log_proto(kind_of(task.await));
    settle().await;
    s.log_proto(format!("peer={}", drained(&b)));
}

// spec: TRANS-38, RISK-06
async fn t34_closing_with_unread_bytes_resets_the_peer(s: Scenario) {
    for (name, make) in [("pair", pair as fn() -> _), ("tcp_pair", tcp_pair)] {
        let (a, mut b): (Socket, Socket) = make();
        let (transport, protocol) = s.attach(a, s.recorder()).await;
        transport.pause_reading();
        b.write_all(b"never read").unwrap();
        settle().await;
        transport.close();
        protocol.lost().await;
        settle().await;
        s.log_proto(format!("{name}: peer {}", drain(&b).1.text()));
    }
}

// spec: TRANS-23, RISK-05
async fn t35_paused_the_end_of_the_stream_is_not_noticed(s: Scenario) {
    let (a, mut b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.pause_reading();
    b.write_all(b"data").unwrap();
    drop(b);
    settle().await;
    s.log_proto(format!("quiet closing={}", py(transport.is_closing())));
    transport.resume_reading();
    protocol.lost().await;
}

// spec: TRANS-42, RISK-08
async fn t37_a_reused_number_gets_no_event_of_the_old_transport(s: Scenario) {
    let (a, mut b) = s.pair();
    let fd = a.as_raw_fd();
    let (transport, protocol) = s.attach(a, s.recorder().lane("old")).await;
    turn(2).await;
    b.write_all(b"stale").unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    transport.abort();
    protocol.lost().await;
    let (a, mut b) = s.pair();
    let same = a.as_raw_fd() == fd;
    let (transport, protocol) = s.attach(a, s.recorder().lane("new")).await;
    s.log(format!("same number={}", py(same)));
    turn(3).await;
    b.write_all(b"fresh").unwrap();
    turn(2).await;
    transport.close();
    protocol.lost().await;
}

// spec: TRANS-31, RISK-07, RISK-22
async fn t38_of_two_transports_each_may_close_the_other(s: Scenario) {
    let (a, mut b) = s.pair();
    let (c, mut d) = s.pair();
    let transports = Rc::new(RefCell::new(Vec::<Transport>::new()));
    let deliveries = Rc::new(Cell::new(0));
    let recorder = |lane| {
        let (all, deliveries) = (Rc::clone(&transports), Rc::clone(&deliveries));
        s.recorder().lane(lane).count_data().on_data(move |transport, _| {
            deliveries.set(deliveries.get() + 1);
            let all = all.borrow().clone();
            all.iter().filter(|other| other.id() != transport.id()).for_each(Transport::close);
            Ok(())
        })
    };
    let (one, _) = s.attach(a, recorder("one")).await;
    let (two, _) = s.attach(c, recorder("two")).await;
    transports.replace(vec![one.clone(), two.clone()]);
    turn(2).await;
    b.write_all(b"x").unwrap();
    d.write_all(b"x").unwrap();
    settle().await;
    let mut closed = [one.is_closing(), two.is_closing()];
    closed.sort_unstable();
    s.log(format!(
        "data callbacks={} closed=[{}, {}]",
        deliveries.get(),
        py(closed[0]),
        py(closed[1])
    ));
    one.close();
    two.close();
    settle().await;
    s.trace.retain(|line| !line.starts_with("one") && !line.starts_with("two"));
}

// spec: WRITE-11
async fn t39_written_after_close_during_the_flush_is_sent(s: Scenario) {
    let (a, b) = s.pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    let mut data = noise(1 << 20);
    transport.write(&data).unwrap();
    transport.close();
    transport.write(b"more").unwrap();
    data.extend(b"more");
    let (got, end) = drain_all(&b).await;
    s.log_proto(format!("equal={} end={}", py(got == data), end.text()));
    protocol.lost().await;
}

// spec: FLOW-10, WRITE-15, ERR-05, ERR-09
async fn t40_a_reset_while_the_buffer_is_full_ends_the_connection_once(s: Scenario) {
    let (a, b) = tcp_pair();
    let (transport, protocol) = s.attach(a, s.recorder()).await;
    transport.write(vec![0; 16 << 20]).unwrap();
    settle().await;
    reset(b);
    protocol.lost().await;
    s.log_proto(format!("closing={}", py(transport.is_closing())));
}

// spec: TRANS-33b, RISK-24
async fn t41_closed_in_resume_writing_connection_lost_comes_once(s: Scenario) {
    s.log_reports();
    let (a, b) = s.pair();
    let (transport, _) = s.attach(a, s.recorder().on_resume(Transport::close)).await;
    transport.set_write_buffer_limits(Some(1000), Some(0)).unwrap();
    let data = noise(1 << 20);
    transport.write(&data).unwrap();
    let (got, end) = drain_all(&b).await;
    settle().await;
    s.log_proto(format!("equal={} end={}", py(got == data), end.text()));
}

replays! {
    plain: [],
    tasks: [],
    transports: [
        t01_connection_made_then_the_creator_then_data,
        t03_a_connection_kept_open_after_eof_still_writes,
        t06_data_before_a_reset_are_delivered,
        t09_paused_in_connection_made_nothing_is_delivered,
        t10_pausing_and_resuming_may_be_repeated,
        t11_closed_in_data_received_no_more_data_come,
        t12_write_on_an_idle_socket_sends_before_it_returns,
        t13_pause_writing_comes_inside_write_and_resume_writing_at_the_low_mark,
        t14_close_sends_what_is_buffered_first,
        t15_abort_drops_what_is_buffered,
        t16_write_eof_closes_the_sending_side_after_the_buffer,
        t17_write_eof_on_an_idle_transport_is_seen_at_once,
        t20_an_error_of_a_protocol_is_reported_and_closes,
        t23_panics_where_nothing_is_returned_are_only_reported,
        t24_connection_lost_comes_once_however_often_it_is_closed,
        t25_abort_after_close_drops_what_is_still_buffered,
        t26_the_next_bytes_go_to_the_protocol_that_was_set,
        t27_no_buffer_and_errors_of_a_buffered_protocol_are_fatal,
        t29_extra_info_tells_names_and_lends_the_socket,
        t32_writelines_pauses_the_protocol,
        t33_a_cancelled_create_connection_closes_its_transport,
        t34_closing_with_unread_bytes_resets_the_peer,
        t35_paused_the_end_of_the_stream_is_not_noticed,
        t37_a_reused_number_gets_no_event_of_the_old_transport,
        t38_of_two_transports_each_may_close_the_other,
        t39_written_after_close_during_the_flush_is_sent,
        t40_a_reset_while_the_buffer_is_full_ends_the_connection_once,
        t41_closed_in_resume_writing_connection_lost_comes_once,
    ],
    over_tcp: [
        t01_connection_made_then_the_creator_then_data,
        t03_a_connection_kept_open_after_eof_still_writes,
        t09_paused_in_connection_made_nothing_is_delivered,
        t10_pausing_and_resuming_may_be_repeated,
        t12_write_on_an_idle_socket_sends_before_it_returns,
        t13_pause_writing_comes_inside_write_and_resume_writing_at_the_low_mark,
        t14_close_sends_what_is_buffered_first,
        t15_abort_drops_what_is_buffered,
        t16_write_eof_closes_the_sending_side_after_the_buffer,
        t17_write_eof_on_an_idle_transport_is_seen_at_once,
        t20_an_error_of_a_protocol_is_reported_and_closes,
        t23_panics_where_nothing_is_returned_are_only_reported,
        t24_connection_lost_comes_once_however_often_it_is_closed,
        t25_abort_after_close_drops_what_is_still_buffered,
        t26_the_next_bytes_go_to_the_protocol_that_was_set,
        t32_writelines_pauses_the_protocol,
        t33_a_cancelled_create_connection_closes_its_transport,
        t35_paused_the_end_of_the_stream_is_not_noticed,
        t37_a_reused_number_gets_no_event_of_the_old_transport,
        t38_of_two_transports_each_may_close_the_other,
        t39_written_after_close_during_the_flush_is_sent,
        t41_closed_in_resume_writing_connection_lost_comes_once,
    ],
}
