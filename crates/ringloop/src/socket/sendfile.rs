//! Sending files from the kernel.
//!
//! # The life of a transfer
//!
//! ```text
//! checked -> a step of up to 256 KiB, from the kernel -> room is waited for -> the next step -> ... -> the end: position set
//!         '-> the first step is refused: blocks are read on a thread and sent, unless that is not wanted
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::Socket;
use super::core::Core;
use super::receiving::is_for_later;
use crate::source::Direction;
use crate::{Error, EventLoop, Result};

/// A file, or a part of one, to be sent: what [`Socket::sendfile`] takes. `&File` stands for all of it.
///
/// ```
/// use ringloop::SendFile;
///
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let part = SendFile::new(&file).offset(64).count(1024);
/// # let _ = part;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until it is given to `sendfile()`"]
pub struct SendFile<'a> {
    file: &'a File,
    offset: u64,
    count: Option<u64>,
    may_fall_back: bool,
}

impl<'a> SendFile<'a> {
    /// All of `file`, from its beginning.
    pub fn new(file: &'a File) -> Self {
        Self { file, offset: 0, count: None, may_fall_back: true }
    }

    /// From this byte on.
    pub fn offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// So many bytes at most; to the end of the file if not said.
    pub fn count(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Whether a file that the kernel cannot send from, as a pipe, is read and sent instead; true if not said.
    ///
    /// ```
    /// use std::fs::File;
    /// use ringloop::SendFile;
    ///
    /// let file = File::open("/proc/self/exe")?;
    /// let part = SendFile::new(&file).offset(16).count(48).fallback(false);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fallback(self, on: bool) -> Self {
        Self { may_fall_back: on, ..self }
    }
}

impl<'a> From<&'a File> for SendFile<'a> {
    fn from(file: &'a File) -> Self {
        Self::new(file)
    }
}

impl Socket {
    /// Sends a file, or a part of it, and gives the number of bytes. They go from the kernel's memory of the file to the
    /// socket, in steps of up to 256 KiB; between two the loop runs.
    ///
    /// A step that needs what is not in memory yet waits for the disk, and the loop with it. Where that counts, read the file
    /// in an [executor](EventLoop::run_in_executor) first, or instead. What the kernel refuses to send from, as a pipe, is
    /// read in an executor, in blocks of 256 KiB.
    ///
    /// The file ends where it ends when that is reached: one that has grown is sent to its new end, of one that was cut short
    /// what was left. After the call, also a failed or dropped one, the file's position is behind the bytes that were sent; if
    /// there were none, where it was.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it is no stream socket, or the count is zero; [`Error::Unsupported`] if the kernel refuses
    /// and [`SendFile::fallback`] is off; those of `sendfile(2)`: a part may have been sent.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has sent a part from the beginning, perhaps nothing, and sends no more. Of a pipe, a block may have been read
    /// that was not sent.
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::fs::File;
    /// use std::os::unix::net::UnixStream;
    /// use ringloop::{SendFile, Socket};
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
    /// let program = File::open("/proc/self/exe")?;
    /// assert_eq!(ours.sendfile(SendFile::new(&program).count(4)).await?, 4);
    /// assert_eq!(&*theirs.recv(1024).await?, b"\x7fELF");
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn sendfile(&self, file: impl Into<SendFile<'_>>) -> Result<u64> {
        self.enter(&EventLoop::running()?)?;
        self.core.sendfile(file.into()).await
    }
}

impl Socket {
    /// After [`enter`](Self::enter).
    pub(crate) async fn sendfile_on(&self, part: SendFile<'_>) -> Result<u64> {
        self.core.sendfile(part).await
    }
}

impl Core {
    pub(super) async fn sendfile(&self, part: SendFile<'_>) -> Result<u64> {
        if !self.is_stream()? {
            let text = "only SOCK_STREAM type sockets are supported";
            return Err(Error::invalid_argument(text));
        }
        if part.count == Some(0) {
            return Err(Error::invalid_argument("count must be a positive integer (got 0)"));
        }
        match self.send_from_kernel(part).await {
            Err(Error::Unsupported(_)) if part.may_fall_back => self.read_and_send(part).await,
            sent => sent,
        }
    }

    async fn send_from_kernel(&self, part: SendFile<'_>) -> Result<u64> {
        let metadata = part.file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::Unsupported("not a regular file".into()));
        }
        if part.offset >= metadata.len() {
            return Ok(0);
        }
        let mut sent = Sent { part: &part, count: 0 };
        while let Some(step) = sent.next_step() {
            let result = self.try_now(|driver, socket| {
                driver.try_sendfile(socket, part.file.as_fd(), sent.place(), step)
            });
            match result {
                Ok(0) => break, // The end of the file.
                Ok(count) => sent.count += count as u64,
                Err(error) if is_for_later(&error) => {}
                Err(_) if sent.count == 0 => {
                    return Err(Error::Unsupported("sendfile call failed".into()));
                }
                Err(error) => return Err(error),
            }
            self.ready(Direction::Write).await?;
        }
        Ok(sent.count)
    }

    async fn read_and_send(&self, part: SendFile<'_>) -> Result<u64> {
        let mut sent = Sent { part: &part, count: 0 };
        let mut block = Vec::new();
        while let Some(step) = sent.next_step() {
            let (file, place) = (part.file.try_clone()?, sent.place());
            let reading = self.event_loop()?.run_in_executor(move || {
                block.resize(step, 0);
                let count = read_at(&file, &mut block, place)?;
                block.truncate(count);
                Ok::<_, io::Error>(block)
            });
            block = reading.await??;
            if block.is_empty() {
                break;
            }
            self.sendall(&block, self.event_loop()?).await?;
            sent.count += block.len() as u64;
        }
        Ok(sent.count)
    }
}

/// How much of a file was sent; dropped, it moves the file's position behind that.
struct Sent<'a> {
    part: &'a SendFile<'a>,
    count: u64,
}

impl Sent<'_> {
    /// Where the next byte is. Beyond the end of any file there is none.
    fn place(&self) -> u64 {
        self.part.offset.saturating_add(self.count)
    }

    /// `None` once all is sent that was asked for.
    fn next_step(&self) -> Option<usize> {
        let left = self.part.count.map_or(u64::MAX, |count| count.saturating_sub(self.count));
        usize::try_from(left.min(STEP)).ok().filter(|&step| step > 0)
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            // What has no position keeps none.
            let _ = { self.part.file }.seek(SeekFrom::Start(self.place()));
        }
    }
}

/// At `place`, or, of what has no places, what comes next.
fn read_at(file: &File, block: &mut [u8], place: u64) -> io::Result<usize> {
    match file.read_at(block, place) {
        Err(error) if error.raw_os_error() == Some(libc::ESPIPE) => { file }.read(block),
        read => read,
    }
}

/// Bytes that the loop may send, or an executor read, before others have their turn.
const STEP: u64 = 256 * 1024;
