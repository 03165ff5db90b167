//! Where a sandbox or a limit stands between the program and io_uring.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use seccompiler::{BpfMap, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

use crate::program::{Server, path_of};

#[test]
fn where_a_filter_refuses_io_uring_the_echo_serves_on_epoll_and_says_why_once() {
    let echo = path_of("echo");
    for (errno, name) in FILTERS {
        in_sandbox(refusal(errno), || {
            let said = serve(Command::new(&echo).args(["--driver", "auto"]));
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("io_uring_setup") && said.contains(name), "{said}");
            assert_is_explained(&said);
            let said = serve(Command::new(&echo).args(["--driver", "epoll"]));
            assert_eq!(said, "", "it is what was asked for");
        });
    }
}

#[test]
fn where_a_filter_refuses_io_uring_an_echo_that_must_have_it_exits_with_1_and_names_the_remedy() {
    let echo = path_of("echo");
    for (errno, _) in FILTERS {
        in_sandbox(refusal(errno), || assert_refused(&mut Command::new(&echo)));
    }
}

#[test]
fn under_the_profile_of_the_documents_the_echo_serves_on_io_uring() {
    let echo = path_of("echo");
    in_sandbox(profile(), || {
        assert!(std::os::unix::fs::chroot("/").is_err(), "the profile does not name this call");
        let said = serve(Command::new(&echo).args(["--driver", "uring"]));
        assert_eq!(said, "");
    });
}

#[test]
fn without_memlock_the_echo_serves_on_epoll_and_one_that_must_have_io_uring_says_why_not() {
    // Without the privilege that lifts the limit, even where the tests run as root.
    let limited = || {
        let mut limited = Command::new("setpriv");
        limited.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "sh", "-c"]);
        limited.arg("ulimit -l 0; exec \"$@\"").arg("sh").arg(path_of("echo"));
        limited
    };
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: there is no setpriv");
        return;
    }
    let said = serve(limited().args(["--driver", "auto"]));
    assert!(said.contains("memlock"), "{said}");
    assert_is_explained(&said);
    assert_refused(&mut limited());
}

// The sysctl is the machine's, and other tests need io_uring meanwhile: the echo sees a file in its place, and a filter refuses as
// the kernel would. `ci/kernels.sh` boots a kernel with the sysctl itself.
#[test]
fn with_the_sysctl_off_the_echo_serves_on_epoll_and_one_that_must_have_io_uring_says_why_not() {
    let off = temporary("sysctl");
    fs::write(&off, "2\n").expect("a file");
    let switched_off = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("mount --bind \"$0\" {SYSCTL} && exec \"$@\"")).arg(&off);
        command
    };
    if !switched_off().arg("true").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no namespace of its own for a user");
        return;
    }
    let switched_off = || {
        let mut command = switched_off();
        command.arg(path_of("echo"));
        command
    };
    in_sandbox(refusal(libc::EPERM), || {
        let said = serve(switched_off().args(["--driver", "auto"]));
        assert!(said.contains("sysctl kernel.io_uring_disabled is 2"), "{said}");
        assert_is_explained(&said);
        assert_refused(&mut switched_off());
    });
    fs::remove_file(&off).expect("it is ours");
}

/// An echo that must have io_uring ends with an error, and names a remedy.
fn assert_refused(echo: &mut Command) {
    let output = echo.args(["--driver", "uring", "--port", "0"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with("error: ") && text.contains("\nremedy: "), "{text}");
    assert_is_explained(&text);
}

/// Whoever has seen this finds its words in the table of the page on deploying.
fn assert_is_explained(said: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy.md");
    let page = fs::read_to_string(path).expect("it is there");
    let (_, table) = page.split_once("## What the refusals mean").expect("its table");
    let (table, _) = table.split_once("\n## ").expect("the next part");
    let mut words = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert!(words.any(|words| said.contains(words)), "docs/deploy.md does not explain: {said}");
}

/// Exchanges bytes with a server and ends it; gives what it said on stderr.
fn serve(command: &mut Command) -> String {
    let errors = temporary("errors");
    let file = File::create(&errors).expect("a file for what it says");
    let server = Server::start(command.args(["--port", "0"]).stderr(file));
    for len in [1, 64, 300_000] {
        let message: Vec<u8> = (0..len).map(|place| (place % 251) as u8).collect();
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.write_all(&message).expect("the server reads");
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer).expect("the server answers");
        assert!(answer == message, "the bytes are others");
    }
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
    let said = fs::read_to_string(&errors).expect("text");
    fs::remove_file(&errors).expect("it is ours");
    said
}

/// Runs `body` in a thread whose calls, and those of the programs that it starts, go through `filter`.
fn in_sandbox(filter: Value, body: impl FnOnce() + Send) {
    let text = json!({ "only": filter }).to_string();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
    let programs: BpfMap = compile_from_json(text.as_bytes(), arch).expect("a filter");
    std::thread::scope(|scope| {
        let sandbox = scope.spawn(|| {
            apply_filter(&programs["only"]).expect("whoever wants less may have it");
            body();
        });
        if let Err(panic) = sandbox.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// All calls but those of io_uring.
fn refusal(errno: i32) -> Value {
    let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    json!({
        "mismatch_action": "allow",
        "match_action": { "errno": errno },
        "filter": calls.map(|call| json!({ "syscall": call })),
    })
}

/// `docs/seccomp.json`, in the words of the compiler.
fn profile() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/seccomp.json");
    let text = fs::read_to_string(path).expect("it is there");
    let profile: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let mut calls = Vec::new();
    for group in profile["syscalls"].as_array().expect("a list") {
        assert_eq!(group["action"], "SCMP_ACT_ALLOW");
        for name in group["names"].as_array().expect("a list") {
            calls.push(json!({ "syscall": name }));
        }
    }
    json!({
        "mismatch_action": { "errno": profile["defaultErrnoRet"] },
        "match_action": "allow",
        "filter": calls,
    })
}

fn temporary(name: &str) -> PathBuf {
    let thread = std::thread::current().id();
    std::env::temp_dir().join(format!("ringloop-{name}-{}-{thread:?}", std::process::id()))
}

const FILTERS: [(i32, &str); 2] = [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")];

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
