//! Many bytes in both directions at once, by checksum.

use std::rc::Rc;

use ringloop::Socket;
use ringloop_tests::isolated::Test;
use ringloop_tests::seeds::Random;
use ringloop_tests::sockets;

use crate::support::{on_loop, running};

pub(crate) const TESTS: &[Test] = crate::tests![
    sixty_four_mib_go_both_ways_at_once,
    sixty_four_mib_go_both_ways_at_once_without_a_copy,
];

const TOTAL: usize = 64 << 20;

/// FNV-1a over words: each byte and its place count.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sum {
    hash: u64,
    bytes: usize,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.bytes += bytes.len();
    }
}

async fn send(socket: Rc<Socket>, seed: u64, owned: bool) -> Sum {
    let mut random = Random::new(seed);
    let mut sum = Sum::default();
    let mut block = vec![0; 1 << 20];
    while sum.bytes < TOTAL {
        let len = (1 + random.below(block.len())).min(TOTAL - sum.bytes);
        for word in block[..len].chunks_mut(8) {
            word.copy_from_slice(&random.number().to_le_bytes()[..word.len()]);
        }
        sum.add(&block[..len]);
        if owned {
            socket.sendall(block[..len].to_vec()).await.unwrap();
        } else {
            socket.sendall(&block[..len]).await.unwrap();
        }
    }
    sum
}

async fn receive(socket: Rc<Socket>, seed: u64, owned: bool) -> Sum {
    let mut random = Random::new(seed);
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 18];
    while sum.bytes < TOTAL {
        let most = 1 + random.below(buffer.len());
        if owned {
            sum.add(&socket.recv(most).await.unwrap());
        } else {
            let count = socket.recv_into(&mut buffer[..most]).await.unwrap();
            sum.add(&buffer[..count]);
        }
    }
    sum
}

fn transfer(owned: bool) {
    on_loop(async {
        let (left, right) = sockets::tcp_pair();
        let (left, right) = (Rc::new(Socket::from(left)), Rc::new(Socket::from(right)));
        let start = |future| running().create_task(future);
        let sends = [(&left, 1), (&right, 2)]
            .map(|(socket, seed)| running().create_task(send(Rc::clone(socket), seed, owned)));
        let receives = [(&right, 3), (&left, 4)]
            .map(|(socket, seed)| start(receive(Rc::clone(socket), seed, owned)));
        for (sent, received) in sends.into_iter().zip(receives) {
            let (sent, received) = (sent.await.unwrap(), received.await.unwrap());
            assert_eq!((sent, sent.bytes), (received, TOTAL));
        }
    });
}

// spec: SOCK-40, SOCK-41, SOCK-50
fn sixty_four_mib_go_both_ways_at_once() {
    transfer(false);
}

// spec: SOCK-40, SOCK-50, SOCK-54
fn sixty_four_mib_go_both_ways_at_once_without_a_copy() {
    transfer(true);
}
