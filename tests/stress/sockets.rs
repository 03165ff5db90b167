//! A gigabyte through socket calls, in a memory that does not grow with it.

use std::fs;
use std::io::Read;
use std::thread;
use std::time::Duration;

use ringloop::Socket;
use ringloop_tests::clean::on_loop;
use ringloop_tests::files::temporary;
use ringloop_tests::isolated::Test;
use ringloop_tests::sockets::pair;

pub(crate) const TESTS: &[Test] = &[Test {
    name: "a_file_of_one_gib_is_sent_in_little_memory",
    body: a_file_of_one_gib_is_sent_in_little_memory,
    deadline: Duration::from_secs(300),
}];

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

// spec: SENDFILE-01, SENDFILE-03, RISK-34
fn a_file_of_one_gib_is_sent_in_little_memory() {
    let file = temporary(b"");
    // Nothing but a number now and then: the rest takes no room on the disk.
    file.set_len(GIB as u64).unwrap();
    for place in (0..GIB).step_by(MIB) {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&(place as u64 + 1).to_le_bytes(), place as u64).unwrap();
    }
    let before = most_memory();
    on_loop(async {
        let (ours, mut theirs) = pair();
        theirs.set_nonblocking(false).unwrap();
        let reader = thread::spawn(move || {
            let mut block = vec![0; MIB];
            for place in (0..GIB).step_by(MIB) {
                theirs.read_exact(&mut block).unwrap();
                assert_eq!(block[..8], (place as u64 + 1).to_le_bytes());
                assert!(block[8..].iter().all(|&byte| byte == 0));
            }
        });
        assert_eq!(Socket::from(ours).sendfile(&file).await.unwrap(), GIB as u64);
        reader.join().unwrap();
    });
    let grown = most_memory() - before;
    assert!(grown < 64 * MIB, "{grown} bytes");
}

/// The most that this process has had at a time, in bytes.
fn most_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
