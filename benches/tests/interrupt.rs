//! What `compare` leaves behind when it is interrupted.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use ringloop_benches::raw;

/// All that `compare` starts inherits its stderr, so that its end comes when the last of them has gone.
#[test]
fn an_interrupted_comparison_leaves_no_process_and_no_file() {
    for workload in ["echo", "unix"] {
        let folder =
            std::env::temp_dir().join(format!("ringloop-interrupt-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut compare = Command::new(env!("CARGO_BIN_EXE_compare"))
            .args(["--only", workload, "--servers", "epoll,tokio", "--cells", "2x64x1"])
            // Long enough to be interrupted; a comparison that is deaf to it ends, and this test fails.
            .args(["--rounds", "1", "--secs", "30"])
            .env("TMPDIR", &folder)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(compare.stderr.take().unwrap());
        // "… round 1: epoll: " comes before the load is started, which then goes on for long.
        let mut progress = Vec::new();
        stderr.read_until(b':', &mut progress).unwrap();
        let progress = String::from_utf8(progress).unwrap();
        assert!(progress.contains("round 1"), "{progress}");
        raw::signal(compare.id(), libc::SIGINT).unwrap();
        stderr.read_to_end(&mut Vec::new()).unwrap();
        assert!(!compare.wait().unwrap().success());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
    }
}
