//! `#[ringloop::test]`.

use std::net::TcpListener;
use std::time::Duration;

use ringloop::{EventLoop, Exclusive, Listen, sleep, spawn, yield_now};

// spec: RUN-01
#[ringloop::test]
async fn a_test_runs_on_a_loop_and_may_fail_by_an_error() -> Result<(), ringloop::Error> {
    let task = spawn(async { 42 });
    assert_eq!(task.await?, 42);
    Ok(())
}

// spec: TASK-18
#[ringloop::test]
#[should_panic = "the test left behind:\n  <Task pending name='the left one' created at"]
async fn a_test_that_leaves_a_task_behind_fails() {
    drop(spawn(sleep(Duration::from_secs(3600))).named("the left one"));
}

// spec: MAP-04
#[ringloop::test]
#[should_panic = "the test left behind:"]
async fn a_test_that_leaves_a_server_behind_fails() {
    let event_loop = EventLoop::running().unwrap();
    let server = event_loop.create_server(|| Exclusive::new(()), Listen::on("127.0.0.1", 0)).await;
    server.unwrap();
}

// spec: TRANS-33
#[ringloop::test]
async fn what_a_test_closes_has_time_to_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let event_loop = EventLoop::running().unwrap();
    let address = listener.local_addr().unwrap();
    let connected = event_loop.create_connection(|| Exclusive::new(()), address).await;
    let (transport, _) = connected.unwrap();
    yield_now().await;
    transport.close();
}

#[ringloop::test]
#[should_panic = "of the body"]
async fn a_panic_of_the_body_is_the_failure_of_the_test() {
    drop(spawn(sleep(Duration::from_secs(3600))));
    panic!("of the body");
}
