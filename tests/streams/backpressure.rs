//! What is held for peers that do not read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ringloop::{Listen, Result, StreamWriter, start_server};
use ringloop_tests::clean::on_loop;
use ringloop_tests::idle::settle;
use ringloop_tests::sockets::tcp_socket;

use super::{MODES, running};

/// Bytes that count themselves as long as somebody holds them: what the kernel has taken is dropped here.
struct Counted(Vec<u8>, Arc<Held>);

#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counted {
    fn bytes(len: usize, held: &Arc<Held>) -> Bytes {
        let now = held.now.fetch_add(len, Ordering::Relaxed) + len;
        held.most.fetch_max(now, Ordering::Relaxed);
        Bytes::from_owner(Self(vec![7; len], Arc::clone(held)))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

// spec: STREAM-60, FLOW-05, STREAM-53
#[test]
fn of_what_is_written_to_clients_that_never_read_little_is_held_for_each() {
    const CLIENTS: usize = 100;
    for mode in MODES {
        for piece in [1000, 16 * 1024, 60 * 1024] {
            on_loop(async {
                let helds: Rc<[Arc<Held>]> = (0..CLIENTS).map(|_| Arc::default()).collect();
                let (all, next) = (Rc::clone(&helds), Cell::new(0));
                let handler = move |_reader, writer: StreamWriter| {
                    let held = Arc::clone(&all[next.replace(next.get() + 1)]);
                    async move {
                        loop {
                            writer.write(Counted::bytes(piece, &held))?;
                            writer.drain().await?;
                        }
                        #[expect(unreachable_code, reason = "it ends by an error")]
                        Result::<()>::Ok(())
                    }
                };
                let listen = Listen::from(("127.0.0.1", 0)).write_mode(mode);
                let server = start_server(handler, listen).await.unwrap();
                let address = server.local_addr().unwrap();
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|_| {
                        let client = tcp_socket();
                        client.set_recv_buffer_size(1).unwrap();
                        client.connect(&address.into()).unwrap();
                        client
                    })
                    .collect();
                settle().await;
                let most = helds.iter().map(|held| held.most.load(Ordering::Relaxed)).max();
                assert!(most < Some(400 * 1024), "{most:?} by pieces of {piece}, {mode:?}");
                for held in &*helds {
                    // One piece is over the mark, and of another one the kernel has taken a part.
                    let now = held.now.load(Ordering::Relaxed);
                    assert!(now <= HIGH_WATER + 2 * piece, "{now} by pieces of {piece}, {mode:?}");
                }
                server.close();
                for task in running().all_tasks() {
                    if task != ringloop::current_task().unwrap() {
                        task.cancel();
                    }
                }
                drop(clients);
                server.wait_closed().await.unwrap();
            });
        }
    }
}

/// Of a transport whose marks nobody has set, in bytes.
const HIGH_WATER: usize = 64 * 1024;
