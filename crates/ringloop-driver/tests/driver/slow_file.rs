//! A file whose reads wait in the kernel until the test answers them: no signal and no cancel ends one. It is a file system of
//! its own (FUSE), with one file as its root, shown to this process alone.
//!
//! A child serves it, as a process that waits for its own file system cannot even be killed; the child ends by itself.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use ringloop_driver::Descriptor;

pub(crate) struct SlowFile {
    answer: UnixStream,
    path: String,
}

impl SlowFile {
    /// `None` where there is no FUSE, or it is not ours to use.
    pub(crate) fn new(len: u32) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let Ok(device) = device else {
            println!("skipped: /dev/fuse does not open");
            return None;
        };
        let path = format!("/tmp/ringloop-slow-{}", std::process::id());
        File::create(&path).unwrap();
        // SAFETY: no pointers are passed.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(alone, 0, "{}", io::Error::last_os_error());
        mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").unwrap();
        let options = format!("fd={},rootmode=100444,user_id=0,group_id=0", device.as_raw_fd());
        if let Err(error) = mount("slow", &path, "fuse", 0, &options) {
            println!("skipped: no mount of FUSE: {error}");
            fs::remove_file(&path).unwrap();
            return None;
        }
        let (answer, byte) = UnixStream::pair().unwrap();
        // SAFETY: the test has one thread yet.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: no pointers are passed.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::alarm(SECONDS) };
            drop(answer);
            serve(device, len, byte);
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        assert!(child > 0, "{}", io::Error::last_os_error());
        Some(Self { answer, path })
    }

    pub(crate) fn open(&self) -> Descriptor {
        OwnedFd::from(File::open(&self.path).unwrap()).into()
    }

    /// Lets all reads end: the file is full of `byte`.
    pub(crate) fn answer(&self, byte: u8) {
        (&self.answer).write_all(&[byte]).unwrap();
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        let path = CString::new(&*self.path).unwrap();
        // SAFETY: the path ends in a zero.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_file(&self.path);
    }
}

/// Speaks the kernel's protocol: `struct fuse_in_header` and `fuse_out_header` of <linux/fuse.h>.
fn serve(mut device: File, len: u32, mut answer: UnixStream) {
    let mut known = None;
    let mut request = vec![0; 1 << 20];
    while let Ok(count) = device.read(&mut request) {
        let word = |place: usize| u32::from_ne_bytes(request[place..place + 4].try_into().unwrap());
        assert!(count >= 40);
        let unique = request[8..16].to_vec();
        let (error, body) = match word(4) {
            INIT => (0, init()),
            OPEN => (0, words(&[0; 4])),
            GETATTR => (0, attributes(len)),
            FLUSH | RELEASE => (0, Vec::new()),
            FORGET | INTERRUPT | BATCH_FORGET => continue,
            READ => {
                // What comes meanwhile, an interrupt, waits too.
                let mut byte = [known.unwrap_or_default()];
                if known.is_none() && answer.read_exact(&mut byte).is_err() {
                    return;
                }
                known = Some(byte[0]);
                (0, vec![byte[0]; word(56) as usize])
            }
            _ => (-libc::ENOSYS, Vec::new()),
        };
        if reply(&device, &unique, error, &body).is_err() {
            return;
        }
    }
}

fn reply(mut device: impl Write, unique: &[u8], error: i32, body: &[u8]) -> io::Result<()> {
    let mut message = words(&[16 + body.len() as u32, error as u32]);
    message.extend(unique);
    message.extend(body);
    device.write_all(&message)
}

/// `struct fuse_init_out`. Without `FUSE_ASYNC_READ` the ring's thread would wait for what is read ahead.
fn init() -> Vec<u8> {
    words(&[7, 31, 0, ASYNC_READ, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// `struct fuse_attr_out`: a regular file that everybody may read.
fn attributes(len: u32) -> Vec<u8> {
    let mut attributes = [0; 26];
    attributes[4] = 1; // The inode's number.
    attributes[6] = len;
    attributes[19] = libc::S_IFREG | 0o444;
    attributes[20] = 1; // Links.
    words(&attributes)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let [source, target, kind, data] =
        [source, target, kind, data].map(|text| CString::new(text).unwrap());
    let kind = if kind.is_empty() { ptr::null() } else { kind.as_ptr() };
    // SAFETY: the strings end in a zero, and live until after the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, data.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ASYNC_READ: u32 = 1;

/// The child lives as long at most: it bounds a failure.
const SECONDS: u32 = 50;
