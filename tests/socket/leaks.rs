//! Futures that are never dropped: the kernel works on no memory of theirs.

use std::io::{ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::net::TcpStream;

use ringloop_tests::idle::{settle, turn};
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::{drain, noise};

use crate::support::{listener, on_loop, pair, poll_once, running, unread};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_receive_that_is_leaked_writes_to_no_memory_of_the_callers,
    a_leaked_send_sends_nothing_more,
    a_leaked_accept_keeps_no_listener_open,
];

// spec: SOCK-41, RISK-28
fn a_receive_that_is_leaked_writes_to_no_memory_of_the_callers() {
    on_loop(async {
        let (ours, mut theirs) = pair();
        let mut buffer = vec![0xee; 4096];
        let mut receiving = Box::pin(ours.recv_into(&mut buffer));
        assert!(poll_once(receiving.as_mut()).is_pending());
        turn(2).await;
        let _leaked = ManuallyDrop::new(receiving);
        theirs.write_all(&noise(4096)).unwrap();
        settle().await;
        assert!(buffer.iter().all(|&byte| byte == 0xee));
        drop(buffer);
        // What came belongs to a call that never comes back, as with asyncio's; the next one waits for more.
        theirs.write_all(b"next").unwrap();
        settle().await;
        assert_eq!(unread(&ours), 4);
        drop(ours);
        assert_eq!(running().counters().in_flight, 0);
    });
}

// spec: SOCK-53, SOCK-54, RISK-20
fn a_leaked_send_sends_nothing_more() {
    on_loop(async {
        let (ours, theirs) = pair();
        let data = noise(4 << 20);
        let mut sending = Box::pin(ours.sendall(&data));
        assert!(poll_once(sending.as_mut()).is_pending());
        turn(2).await;
        let _leaked = ManuallyDrop::new(sending);
        let (got, _) = drain(&theirs);
        assert!(!got.is_empty() && data.starts_with(&got));
        drop(data);
        settle().await;
        assert!(drain(&theirs).0.is_empty());
        ours.sendall(b"next").await.unwrap();
        assert_eq!(drain(&theirs).0, b"next");
        drop(ours);
        assert_eq!(running().counters().in_flight, 0);
    });
}

// spec: SOCK-14
fn a_leaked_accept_keeps_no_listener_open() {
    on_loop(async {
        let (listener, address) = listener();
        let mut accepting = Box::pin(listener.accept());
        assert!(poll_once(accepting.as_mut()).is_pending());
        turn(1).await;
        let _leaked = ManuallyDrop::new(accepting);
        drop(listener);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(running().counters().in_flight, 0);
    });
}
