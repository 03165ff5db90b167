//! Unix sockets: `create_unix_connection()` and `create_unix_server()`.
//!
//! # The life of a socket file
//!
//! ```text
//! a stale one is removed -> bind() makes it -> its number is noted -> Server::close() removes it, if it is still that one
//! ```

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};

use super::client::Given;
use super::options::{check_limit, check_tls, from_sock};
use super::server::{Bound, Server, Serving};
use crate::socket::{AddrInfo, Socket};
use crate::transport::{IntoProtocol, Transport, WriteMode};
use crate::{Address, Error, EventLoop, OsError, Result};

/// Where and how a server listens on a Unix socket: the arguments of
/// [`create_unix_server`](EventLoop::create_unix_server).
///
/// ```
/// use ringloop::UnixListen;
///
/// let file: UnixListen = "/run/example.sock".into();
/// let name = UnixListen::abstract_name("example").backlog(4096);
/// ```
///
/// With other options:
///
/// ```
/// # ringloop::run(async {
/// use ringloop::{EventLoop, Exclusive, UnixListen, WriteMode};
///
/// # let path = std::env::temp_dir().join(format!("ringloop-listen-{}", std::process::id()));
/// let listen = UnixListen::path(&path)
///     .write_mode(WriteMode::Immediate)
///     .cleanup_socket(false)
///     .start_serving(false);
/// let server = EventLoop::running()?.create_unix_server(|| Exclusive::new(()), listen).await?;
/// assert!(!server.is_serving());
/// server.close();
/// std::fs::remove_file(path)?;
/// # Ok::<(), ringloop::Error>(())
/// # })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "it does nothing until it is given to `create_unix_server()`"]
pub struct UnixListen {
    path: Option<PathBuf>,
    sock: Option<Socket>,
    backlog: Option<u32>,
    start_serving: Option<bool>,
    cleanup_socket: Option<bool>,
    write_mode: Option<WriteMode>,
    pub(crate) limit: Option<usize>,
    tls: Tls,
}

/// Where and how to connect to a Unix socket: the arguments of
/// [`create_unix_connection`](EventLoop::create_unix_connection).
///
/// ```
/// use ringloop::UnixTarget;
///
/// let file: UnixTarget = "/run/example.sock".into();
/// let name = UnixTarget::abstract_name("example");
/// ```
///
/// With an option:
///
/// ```
/// use ringloop::{UnixTarget, WriteMode};
///
/// let at_once = UnixTarget::path("/run/example.sock").write_mode(WriteMode::Immediate);
/// ```
#[derive(Debug, Default)]
#[must_use = "it does nothing until it is given to `create_unix_connection()`"]
pub struct UnixTarget {
    path: Option<PathBuf>,
    sock: Option<Socket>,
    write_mode: Option<WriteMode>,
    pub(crate) limit: Option<usize>,
    tls: Tls,
}

/// Which options of TLS were given. There is no TLS yet.
#[derive(Debug, Default)]
struct Tls {
    is_on: bool,
    has_server_hostname: bool,
    has_handshake_timeout: bool,
    has_shutdown_timeout: bool,
}

impl EventLoop {
    /// Connects to a Unix socket, and has `factory` make the protocol: as
    /// [`create_connection`](Self::create_connection), but for a path.
    ///
    /// `target` is a path, a socket that is connected already, or a [`UnixTarget`] with options. A path that begins with a
    /// NUL is a name in Linux's abstract namespace.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for options that contradict each other; [`Error::Io`] as the kernel gives it; the factory's
    /// own error.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any point, what it opened is closed; a socket that was given, too.
    ///
    /// ```
    /// # ringloop::run(async {
    /// # use ringloop::{EventLoop, Exclusive, UnixListen, UnixTarget, WriteMode};
    /// # let path = std::env::temp_dir().join(format!("ringloop-unix-{}", std::process::id()));
    /// let event_loop = EventLoop::running()?;
    /// let server = event_loop.create_unix_server(|| Exclusive::new(()), &*path).await?;
    /// let (transport, _protocol) =
    ///     event_loop.create_unix_connection(|| Exclusive::new(()), &*path).await?;
    /// transport.write("hello\n")?;
    /// transport.close();
    /// server.close();
    /// server.wait_closed().await?;
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub async fn create_unix_connection<P: IntoProtocol>(
        &self,
        factory: impl FnOnce() -> P,
        target: impl Into<UnixTarget>,
    ) -> Result<(Transport, Rc<P::Protocol>)> {
        let UnixTarget { path, sock, write_mode, limit, tls } = target.into();
        tls.check_client()?;
        check_limit(limit)?;
        let given = match (path, sock) {
            (Some(_), Some(_)) => return Err(path_and_sock()),
            (None, None) => {
                return Err(Error::invalid_argument("no path and sock were specified"));
            }
            (None, Some(sock)) => {
                check_unix_stream(&sock)?;
                Given::new(&sock)?
            }
            (Some(path), None) => self.connect_unix(&path).await?,
        };
        let write_mode = write_mode.unwrap_or_else(|| self.write_mode());
        self.start_transport(factory, given, write_mode).await
    }

    /// Listens on a Unix socket, and has `factory` make a protocol for each connection: as
    /// [`create_server`](Self::create_server), but for a path.
    ///
    /// `listen` is a path, a socket that is bound already, or a [`UnixListen`] with options. A path that begins with a NUL is
    /// a name in Linux's abstract namespace. A socket file that somebody has left at the path is replaced, another file is
    /// not; [`Server::close`] removes the file, unless it has been replaced meanwhile.
    ///
    /// ```
    /// # use ringloop::{EventLoop, Exclusive};
    /// # let path = std::env::temp_dir().join(format!("ringloop-doc-{}", std::process::id()));
    /// ringloop::run(async {
    ///     let event_loop = EventLoop::running()?;
    ///     let server = event_loop.create_unix_server(|| Exclusive::new(()), &*path).await?;
    ///     assert!(path.exists());
    ///     server.close();
    ///     assert!(!path.exists());
    ///     server.wait_closed().await
    /// })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for options that contradict each other; [`Error::Io`] if the path cannot be bound, by name
    /// if it is in use; what was bound is closed then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, everything that it opened is closed, and the file removed.
    pub async fn create_unix_server<P, F>(
        &self,
        factory: F,
        listen: impl Into<UnixListen>,
    ) -> Result<Server>
    where
        F: FnMut() -> P + 'static,
        P: IntoProtocol,
    {
        let listen = listen.into();
        listen.tls.check_server()?;
        check_limit(listen.limit)?;
        let socket = match (&listen.path, listen.sock) {
            (Some(_), Some(_)) => return Err(path_and_sock()),
            (None, None) => {
                let text = "path was not specified, and no sock specified";
                return Err(Error::invalid_argument(text));
            }
            (None, Some(sock)) => {
                check_unix_stream(&sock)?;
                sock
            }
            (Some(path), None) => self.bind_unix(path)?,
        };
        let cleans_up = listen.cleanup_socket.unwrap_or(true);
        let file = if cleans_up { SocketFile::of(&socket)? } else { None };
        let serving = Serving {
            backlog: listen.backlog,
            write_mode: listen.write_mode,
            start_serving: listen.start_serving,
        };
        self.serve(factory, vec![Bound::new(&socket, file)?], serving).await
    }

    async fn connect_unix(&self, path: &Path) -> Result<Given> {
        let remote = AddrInfo::unix(unix_address(path)?);
        self.connect_socket(remote, None).await.map_err(|mut errors| match errors.pop() {
            Some(error) => error.into(),
            None => Error::loop_closed(),
        })
    }

    fn bind_unix(&self, path: &Path) -> Result<Socket> {
        let address = unix_address(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM)?;
        if address.as_pathname().is_some() {
            if let Err(error) = remove_stale(path) {
                let path = path.display();
                self.warn(&format!(
                    "Unable to check or remove stale UNIX socket '{path}': {error}"
                ));
            }
        }
        match socket.bind(address.clone()) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                let text =
                    format!("Address {} is already in use", Address::from(&address).as_python());
                Err(OsError::reword(&error, text).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The file of a listening socket, to be removed with it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another file at this path is not ours.
    number: (u64, u64),
}

impl SocketFile {
    /// `None` if the socket has none.
    fn of(socket: &Socket) -> Result<Option<Self>> {
        let address = socket.with_fd(|fd| SockRef::from(&fd).local_addr())??;
        if address.is_unnamed() {
            let text = "the socket is not bound: bind it before, or give a path";
            return Err(Error::invalid_argument(text));
        }
        let Some(path) = address.as_pathname() else { return Ok(None) };
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self { path: path.into(), number: number_of(&found) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes it, if it is still the one that was bound.
    pub(super) fn remove(&self, event_loop: &EventLoop) {
        let removed = fs::metadata(&self.path).and_then(|found| {
            if number_of(&found) == self.number { fs::remove_file(&self.path) } else { Ok(()) }
        });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                event_loop
                    .warn(&format!("Unable to clean up listening UNIX socket '{path}': {error}"));
            }
            _ => {}
        }
    }
}

fn number_of(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unix_address(path: &Path) -> Result<SockAddr> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(Error::invalid_argument("the path of a Unix socket must not be empty"));
    }
    if bytes[0] != 0 && bytes.contains(&0) {
        let text = "a NUL in the path of a Unix socket can only be the first of an abstract name";
        return Err(Error::invalid_argument(text));
    }
    SockAddr::unix(path).map_err(|error| {
        let text = format!("the path of a Unix socket is too long, {} bytes: {error}", bytes.len());
        Error::invalid_argument(text)
    })
}

fn check_unix_stream(sock: &Socket) -> Result<()> {
    let kind = sock.kind()?;
    if kind.domain == Domain::UNIX && kind.socktype == Type::STREAM {
        return Ok(());
    }
    let text = format!("A UNIX Domain Stream Socket was expected, got {sock:?}");
    Err(Error::invalid_argument(text))
}

fn path_and_sock() -> Error {
    Error::invalid_argument("path and sock can not be specified at the same time")
}

fn abstract_path(name: &[u8]) -> PathBuf {
    std::ffi::OsString::from_vec([b"\0", name].concat()).into()
}

impl Tls {
    fn check_client(&self) -> Result<()> {
        if self.is_on && !self.has_server_hostname {
            let text = "you have to pass server_hostname when using ssl";
            return Err(Error::invalid_argument(text));
        }
        if !self.is_on && self.has_server_hostname {
            return Err(Error::invalid_argument("server_hostname is only meaningful with ssl"));
        }
        self.check_server()
    }

    fn check_server(&self) -> Result<()> {
        if self.is_on {
            return check_tls(true);
        }
        if self.has_handshake_timeout {
            let text = "ssl_handshake_timeout is only meaningful with ssl";
            return Err(Error::invalid_argument(text));
        }
        if self.has_shutdown_timeout {
            let text = "ssl_shutdown_timeout is only meaningful with ssl";
            return Err(Error::invalid_argument(text));
        }
        Ok(())
    }
}

impl UnixListen {
    /// At `path`; one that begins with a NUL is an abstract name.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// At a name in Linux's abstract namespace, which has no file.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self::path(abstract_path(name.as_ref()))
    }

    /// On a socket that is bound already. The server owns it: its `close()` closes it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("ringloop-sock-{}", std::process::id()));
    /// let socket = std::os::unix::net::UnixListener::bind(&path)?;
    /// let listen = ringloop::UnixListen::default().sock(socket);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// How many connections the kernel keeps that are not accepted yet; 100 if not said.
    pub fn backlog(self, backlog: u32) -> Self {
        Self { backlog: Some(backlog), ..self }
    }

    /// Whether the server accepts connections at once, or only binds; true if not said.
    pub fn start_serving(self, on: bool) -> Self {
        Self { start_serving: Some(on), ..self }
    }

    /// Whether [`Server::close`] removes the socket file; true if not said.
    pub fn cleanup_socket(self, on: bool) -> Self {
        Self { cleanup_socket: Some(on), ..self }
    }

    /// When the transports of this server give written bytes to the kernel.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// For [`start_unix_server`](crate::start_unix_server): the limit of its readers, in bytes; 64 KiB if not said. A reader
    /// holds up to twice as much, and no line may be longer.
    ///
    /// ```
    /// let short_lines = ringloop::UnixListen::path("/run/example.sock").limit(512);
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// TLS is not supported yet: `create_unix_server()` gives [`Error::Unsupported`].
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, EventLoop, Exclusive, UnixListen};
    ///
    /// let listen = UnixListen::path("/run/example.sock")
    ///     .ssl(true)
    ///     .ssl_handshake_timeout(Duration::from_secs(60))
    ///     .ssl_shutdown_timeout(Duration::from_secs(30));
    /// let refused = EventLoop::running()?.create_unix_server(|| Exclusive::new(()), listen).await;
    /// assert!(matches!(refused, Err(Error::Unsupported(_))));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn ssl(mut self, on: bool) -> Self {
        self.tls.is_on = on;
        self
    }

    /// Only meaningful with TLS, which is not supported yet.
    pub fn ssl_handshake_timeout(mut self, _: Duration) -> Self {
        self.tls.has_handshake_timeout = true;
        self
    }

    /// Only meaningful with TLS, which is not supported yet.
    pub fn ssl_shutdown_timeout(mut self, _: Duration) -> Self {
        self.tls.has_shutdown_timeout = true;
        self
    }
}

impl UnixTarget {
    /// At `path`; one that begins with a NUL is an abstract name.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// At a name in Linux's abstract namespace.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self::path(abstract_path(name.as_ref()))
    }

    /// A socket that is connected already. It belongs to the transport, and is closed if there is to be none.
    ///
    /// ```
    /// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let target = ringloop::UnixTarget::default().sock(ours);
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn sock(self, sock: impl Into<Socket>) -> Self {
        Self { sock: Some(sock.into()), ..self }
    }

    /// When the transport gives written bytes to the kernel.
    pub fn write_mode(self, mode: WriteMode) -> Self {
        Self { write_mode: Some(mode), ..self }
    }

    /// For [`open_unix_connection`](crate::open_unix_connection): the limit of the reader, in bytes; 64 KiB if not said. It
    /// holds up to twice as much, and no line may be longer.
    ///
    /// ```
    /// let short_lines = ringloop::UnixTarget::path("/run/example.sock").limit(512);
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// TLS is not supported yet: `create_unix_connection()` gives [`Error::Unsupported`].
    ///
    /// ```
    /// # ringloop::run(async {
    /// use std::time::Duration;
    /// use ringloop::{Error, EventLoop, Exclusive, UnixTarget};
    ///
    /// let target = UnixTarget::path("/run/example.sock")
    ///     .ssl(true)
    ///     .server_hostname("example.org")
    ///     .ssl_handshake_timeout(Duration::from_secs(60))
    ///     .ssl_shutdown_timeout(Duration::from_secs(30));
    /// let refused = EventLoop::running()?.create_unix_connection(|| Exclusive::new(()), target).await;
    /// assert!(matches!(refused, Err(Error::Unsupported(_))));
    /// # Ok::<(), ringloop::Error>(())
    /// # })??;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn ssl(mut self, on: bool) -> Self {
        self.tls.is_on = on;
        self
    }

    /// Only meaningful with TLS, which is not supported yet.
    pub fn server_hostname(mut self, _: impl Into<String>) -> Self {
        self.tls.has_server_hostname = true;
        self
    }

    /// Only meaningful with TLS, which is not supported yet.
    pub fn ssl_handshake_timeout(mut self, _: Duration) -> Self {
        self.tls.has_handshake_timeout = true;
        self
    }

    /// Only meaningful with TLS, which is not supported yet.
    pub fn ssl_shutdown_timeout(mut self, _: Duration) -> Self {
        self.tls.has_shutdown_timeout = true;
        self
    }
}

/// Makes options of a path of each of these types.
macro_rules! from_path {
    ($options:ident: $($path:ty),*) => {
        $(impl From<$path> for $options {
            fn from(path: $path) -> Self {
                Self::path(path)
            }
        })*
    };
}

from_path!(UnixListen: &str, String, &Path, PathBuf, &PathBuf);
from_path!(UnixTarget: &str, String, &Path, PathBuf, &PathBuf);
from_sock!(UnixListen: Socket, socket2::Socket, OwnedFd, std::os::unix::net::UnixListener);
from_sock!(UnixTarget: Socket, socket2::Socket, OwnedFd, std::os::unix::net::UnixStream);
