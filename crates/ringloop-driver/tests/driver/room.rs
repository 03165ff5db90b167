//! How much a socket is sure to take.

use std::fs::File;
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use ringloop_driver::{Descriptor, SEND_OVERHEAD};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::isolated::Test;
use crate::random::Random;
use crate::support::{fill, tcp_pair, unix_pair};
use crate::sys::{pipe, set_socket_option};

pub(crate) const TESTS: &[Test] = crate::tests![
    sends_within_the_assured_room_of_a_unix_stream_are_never_short,
    sends_within_the_assured_room_of_a_tcp_connection_are_never_short,
    sends_within_the_assured_room_are_never_short_where_the_peer_takes_little_at_a_time,
    sends_within_the_assured_room_are_never_short_when_those_of_many_sockets_alternate,
    room_that_was_assured_once_stays_assured_while_the_peer_reads,
    a_full_socket_has_no_assured_room_and_has_it_again_when_its_peer_has_read,
    a_socket_whose_room_no_figure_tells_has_none_assured,
    a_limit_on_unsent_bytes_leaves_no_assured_room,
];

/// Both ends of a connection, with buffers as asked: the sender's, and the one of the peer, who reads nothing.
#[derive(Debug)]
struct Scene {
    kind: Kind,
    send_buffer: usize,
    receive_buffer: usize,
    /// Of TCP: bytes of a segment.
    segment: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unix,
    Tcp,
}

impl Scene {
    fn pair(&self) -> (Socket, Socket) {
        let (ours, theirs) = match self.kind {
            Kind::Unix => Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap(),
            Kind::Tcp => self.tcp(),
        };
        if self.send_buffer != 0 {
            ours.set_send_buffer_size(self.send_buffer).unwrap();
        }
        (ours, theirs)
    }

    fn tcp(&self) -> (Socket, Socket) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let ours = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if self.receive_buffer != 0 {
            listener.set_recv_buffer_size(self.receive_buffer).unwrap();
        }
        if let Some(segment) = self.segment {
            ours.set_tcp_mss(segment).unwrap();
        }
        listener.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.listen(1).unwrap();
        ours.connect(&listener.local_addr().unwrap()).unwrap();
        ours.set_tcp_nodelay(true).unwrap();
        let theirs = listener.accept().unwrap().0;
        (ours, theirs)
    }
}

fn descriptor(socket: &Socket) -> Descriptor {
    socket.as_fd().try_clone_to_owned().unwrap().into()
}

/// Sends of up to `largest` bytes, as long as they are assured, and then one that fills the socket up. Gives how many bytes
/// were assured and taken.
fn send_all_that_is_assured(ours: &Socket, random: &mut Random, scene: &Scene) -> usize {
    let descriptor = descriptor(ours);
    let mut count = 0;
    // What was assured once, and what is assured anew after each send.
    for anew in [false, true] {
        let mut left = descriptor.assured_room();
        while left > SEND_OVERHEAD {
            let most = left - SEND_OVERHEAD;
            // Of every magnitude alike.
            let magnitude = 1 << random.below(21);
            let len = (random.below(magnitude) as usize + 1).min(most);
            let sent = send_now(ours, len);
            assert!(
                matches!(sent, Ok(sent) if sent == len),
                "{sent:?} of {len}, with {left} left, after {count}: {:?} {} {} {:?}",
                scene.kind,
                scene.send_buffer,
                scene.receive_buffer,
                scene.segment
            );
            count += len;
            left = if anew { descriptor.assured_room() } else { most - len };
            if anew && random.below(4) == 0 {
                break;
            }
        }
    }
    count
}

fn send_now(socket: &Socket, len: usize) -> std::io::Result<usize> {
    socket.send_with_flags(&CHUNK[..len], libc::MSG_DONTWAIT)
}

static CHUNK: &[u8] = &[7; 1 << 20];

/// From the least that a socket may have, to more than an unprivileged one may ask for; zero leaves it to the kernel.
const SEND_BUFFERS: [usize; 12] =
    [0, 1, 3000, 4000, 5000, 8 << 10, 16 << 10, 40_000, 64 << 10, 100_000, 208 << 10, 4 << 20];

fn are_never_short(scenes: impl Iterator<Item = Scene>) {
    let mut random = Random::new();
    let mut total = 0;
    for scene in scenes {
        for _ in 0..20 {
            let (ours, mut theirs) = scene.pair();
            total += send_all_that_is_assured(&ours, &mut random, &scene);
            // Once more, somewhere between an empty socket and a full one.
            if random.below(2) == 0 {
                fill(NonBlocking(&ours));
            }
            let mut buffer = vec![0; 1 + random.below(1 << 18) as usize];
            for _ in 0..random.below(4) {
                theirs.set_nonblocking(true).unwrap();
                let _ = theirs.read(&mut buffer);
                total += send_all_that_is_assured(&ours, &mut random, &scene);
            }
        }
    }
    assert!(total > 1 << 20, "only {total} bytes were assured");
}

struct NonBlocking<'a>(&'a Socket);

impl std::io::Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        send_now(self.0, bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn sends_within_the_assured_room_of_a_unix_stream_are_never_short() {
    are_never_short(SEND_BUFFERS.into_iter().map(|send_buffer| Scene {
        kind: Kind::Unix,
        send_buffer,
        receive_buffer: 0,
        segment: None,
    }));
}

fn sends_within_the_assured_room_of_a_tcp_connection_are_never_short() {
    are_never_short(SEND_BUFFERS.into_iter().map(|send_buffer| Scene {
        kind: Kind::Tcp,
        send_buffer,
        receive_buffer: 0,
        segment: None,
    }));
}

fn sends_within_the_assured_room_are_never_short_where_the_peer_takes_little_at_a_time() {
    let segments = [None, Some(88), Some(536), Some(1220), Some(1448)];
    are_never_short(SEND_BUFFERS.into_iter().flat_map(move |send_buffer| {
        segments.into_iter().flat_map(move |segment| {
            [0, 1, 4000, 20_000].into_iter().map(move |receive_buffer| Scene {
                kind: Kind::Tcp,
                send_buffer,
                receive_buffer,
                segment,
            })
        })
    }));
}

fn sends_within_the_assured_room_are_never_short_when_those_of_many_sockets_alternate() {
    let mut random = Random::new();
    for kind in [Kind::Tcp, Kind::Unix] {
        let scene = Scene { kind, send_buffer: 64 << 10, receive_buffer: 0, segment: None };
        let pairs: Vec<_> = (0..20).map(|_| scene.pair()).collect();
        let mut left: Vec<_> =
            pairs.iter().map(|(ours, _)| descriptor(ours).assured_room()).collect();
        let mut count = 0;
        while left.iter().any(|&left| left > SEND_OVERHEAD) {
            for ((ours, _), left) in pairs.iter().zip(&mut left) {
                if *left <= SEND_OVERHEAD {
                    continue;
                }
                let most = *left - SEND_OVERHEAD;
                let len = (1 + random.below(5000) as usize).min(most);
                assert_eq!(send_now(ours, len).unwrap(), len, "{kind:?}");
                *left = most - len;
                count += 1;
            }
        }
        assert!(count > 60, "{kind:?}: only {count} sends");
    }
}

fn a_full_socket_has_no_assured_room_and_has_it_again_when_its_peer_has_read() {
    for kind in [Kind::Tcp, Kind::Unix] {
        let scene = Scene { kind, send_buffer: 64 << 10, receive_buffer: 8 << 10, segment: None };
        let (ours, mut theirs) = scene.pair();
        let descriptor = descriptor(&ours);
        let empty = descriptor.assured_room();
        assert!(empty > 32 << 10, "{kind:?}: {empty}");
        send_now(&ours, 1000).unwrap();
        let filled = 1000 + fill(NonBlocking(&ours));
        assert_eq!(descriptor.assured_room(), 0, "{kind:?}");
        let mut buffer = vec![0; filled];
        theirs.read_exact(&mut buffer).unwrap();
        // An acknowledgement may come later than the bytes.
        while descriptor.assured_room() < empty {
            std::thread::yield_now();
        }
    }
}

fn a_socket_whose_room_no_figure_tells_has_none_assured() {
    let (_, write) = pipe();
    assert_eq!(Descriptor::from(OwnedFd::from(write)).assured_room(), 0, "a pipe");
    let file = File::open("/dev/null").unwrap();
    assert_eq!(Descriptor::from(OwnedFd::from(file)).assured_room(), 0, "no socket");
    let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    assert_eq!(Descriptor::from(OwnedFd::from(udp)).assured_room(), 0, "UDP");
    // A full queue of the peer's refuses datagrams, whatever room there is.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    assert_eq!(Descriptor::from(OwnedFd::from(ours)).assured_room(), 0, "datagrams");
    let (ours, its_peer) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    assert_eq!(descriptor(&ours).assured_room(), 0, "packets");
    drop((theirs, its_peer));
    assert!(unix_pair().0.assured_room() > 0 && tcp_pair().0.assured_room() > 0);
}

fn a_limit_on_unsent_bytes_leaves_no_assured_room() {
    let (ours, _theirs) = tcp_pair();
    assert!(ours.assured_room() > 0);
    let option = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
    for limit in [1, 16 << 10, 1 << 30] {
        set_socket_option(&ours.as_fd(), option.0, option.1, limit);
        assert_eq!(ours.assured_room(), 0, "{limit}");
    }
    set_socket_option(&ours.as_fd(), option.0, option.1, -1);
    assert!(ours.assured_room() > 0, "no limit");
}

fn room_that_was_assured_once_stays_assured_while_the_peer_reads() {
    let mut random = Random::new();
    let mut buffer = vec![0; 1 << 18];
    let mut count = 0;
    for segment in [None, Some(88), Some(536), Some(1448)] {
        for receive_buffer in [0, 1, 4000, 20_000] {
            for send_buffer in [20_000, 64 << 10, 208 << 10, 4 << 20] {
                for kind in [Kind::Tcp, Kind::Unix] {
                    let scene = Scene { kind, send_buffer, receive_buffer, segment };
                    let (ours, mut theirs) = scene.pair();
                    theirs.set_nonblocking(true).unwrap();
                    for _ in 0..5 {
                        // What is sent already may be cut into smaller pieces on its way.
                        let before = random.below(2 * send_buffer as u64) as usize;
                        let _ = send_now(&ours, before.min(CHUNK.len()));
                        let mut left = descriptor(&ours).assured_room();
                        while left > SEND_OVERHEAD {
                            let most = left - SEND_OVERHEAD;
                            let magnitude = 1 << random.below(18);
                            let len = (random.below(magnitude) as usize + 1).min(most);
                            let sent = send_now(&ours, len);
                            assert!(
                                matches!(sent, Ok(sent) if sent == len),
                                "{sent:?} of {len}: {scene:?}"
                            );
                            left = most - len;
                            count += 1;
                            let few = 1 << random.below(18);
                            let len = 1 + random.below(few) as usize;
                            let _ = theirs.read(&mut buffer[..len]);
                        }
                    }
                }
            }
        }
    }
    assert!(count > 300, "{count} sends");
}
