//! Names and addresses, by the C library's resolver: what std's gives neither in full nor in order.
//!
//! These calls block, for seconds if a name server does not answer: they belong on a thread of an executor.

use std::error::Error;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::io;
use std::mem;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// One way to reach a host, as `struct addrinfo` has it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AddrInfo {
    /// `AF_INET`, `AF_INET6`…
    pub family: i32,
    /// `SOCK_STREAM`, `SOCK_DGRAM`…
    pub socktype: i32,
    /// `IPPROTO_TCP`…
    pub protocol: i32,
    /// The host's own name for itself, in the first entry and if `AI_CANONNAME` was asked for.
    pub canonname: Option<String>,
    /// Where it is.
    pub address: SockAddr,
}

/// Why a name has no address, or an address no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// Of the `EAI_*` family.
    code: i32,
    /// With `EAI_SYSTEM`.
    errno: Option<i32>,
}

/// The addresses of `host` and `service`, in the C library's order. Zero stands for "any" in the numbers.
///
/// # Errors
///
/// As `getaddrinfo(3)`; [`ResolveError::code`] says which.
///
/// ```
/// use ringloop_driver::resolve::getaddrinfo;
///
/// let found = getaddrinfo(Some("127.0.0.1"), Some("80"), 0, libc::SOCK_STREAM, 0, libc::AI_NUMERICHOST)?;
/// assert_eq!(found[0].address.as_socket(), Some(([127, 0, 0, 1], 80).into()));
/// # Ok::<(), ringloop_driver::resolve::ResolveError>(())
/// ```
pub fn getaddrinfo(
    host: Option<&str>,
    service: Option<&str>,
    family: i32,
    socktype: i32,
    protocol: i32,
    flags: i32,
) -> Result<Vec<AddrInfo>, ResolveError> {
    let host = host.map(c_string).transpose()?;
    let service = service.map(c_string).transpose()?;
    // SAFETY: an `addrinfo` of zeros is valid: null pointers, and "any" in every field.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_family = family;
    hints.ai_socktype = socktype;
    hints.ai_protocol = protocol;
    hints.ai_flags = flags;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    let mut list = List(ptr::null_mut());
    // SAFETY: both strings end in a zero and live until after the call, as do the hints; `list` is a place for the result.
    let code = unsafe {
        libc::getaddrinfo(pointer(&host), pointer(&service), &raw const hints, &raw mut list.0)
    };
    if code != 0 {
        return Err(ResolveError::new(code));
    }
    Ok(list.entries())
}

/// The names of the host and of the service at `address`; numbers where there are none, unless `flags` say otherwise.
///
/// # Errors
///
/// As `getnameinfo(3)`; [`ResolveError::code`] says which.
pub fn getnameinfo(address: &SockAddr, flags: i32) -> Result<(String, String), ResolveError> {
    let mut host = [0; NAME_BYTES];
    let mut service = [0; NAME_BYTES];
    // SAFETY: the address is valid for its length, and both buffers for theirs.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            host.as_mut_ptr(),
            NAME_BYTES as libc::socklen_t,
            service.as_mut_ptr(),
            NAME_BYTES as libc::socklen_t,
            flags,
        )
    };
    if code != 0 {
        return Err(ResolveError::new(code));
    }
    Ok((text_in(&host), text_in(&service)))
}

impl ResolveError {
    /// An `EAI_*` number.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What the system said, where the code is `EAI_SYSTEM`.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.errno
    }

    fn new(code: i32) -> Self {
        let system = code == libc::EAI_SYSTEM;
        Self { code, errno: system.then(io::Error::last_os_error).and_then(|e| e.raw_os_error()) }
    }
}

impl fmt::Display for ResolveError {
    /// The C library's words: `gai_strerror(3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errno) = self.errno {
            return io::Error::from_raw_os_error(errno).fmt(f);
        }
        // SAFETY: it takes any number, and gives a string that is never changed or freed.
        let text = unsafe { libc::gai_strerror(self.code) };
        // SAFETY: as above, and it ends in a zero.
        let text = unsafe { CStr::from_ptr(text) };
        f.write_str(&text.to_string_lossy())
    }
}

impl Error for ResolveError {}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> Self {
        match error.errno {
            Some(errno) => Self::from_raw_os_error(errno),
            None => Self::other(error),
        }
    }
}

/// A list of the C library's, freed by it.
struct List(*mut libc::addrinfo);

impl List {
    fn entries(&self) -> Vec<AddrInfo> {
        let mut entries = Vec::new();
        let mut next = self.0;
        // SAFETY: the list's pointers are null or lead to entries that live as long as the list.
        while let Some(entry) = unsafe { next.as_ref() } {
            entries.extend(AddrInfo::copied(entry));
            next = entry.ai_next;
        }
        entries
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: `getaddrinfo` made it, and nothing of it is used any more.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

impl AddrInfo {
    /// `None` for an address that is longer than any that the system knows.
    fn copied(entry: &libc::addrinfo) -> Option<Self> {
        let mut storage = SockAddrStorage::zeroed();
        if entry.ai_addr.is_null() || entry.ai_addrlen > storage.size_of() {
            return None;
        }
        let len = entry.ai_addrlen as usize;
        // SAFETY: every address structure, and every part of one, is plain bytes.
        let place = unsafe { storage.view_as::<SockAddrStorage>() };
        let place = (&raw mut *place).cast::<u8>();
        // SAFETY: the entry's address is `len` bytes long, the storage at least that, and they are apart.
        unsafe { ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), place, len) };
        // SAFETY: the storage holds an address of that length.
        let address = unsafe { SockAddr::new(storage, entry.ai_addrlen) };
        let canonname = (!entry.ai_canonname.is_null()).then(|| {
            // SAFETY: the name ends in a zero, and lives as long as the entry.
            let name = unsafe { CStr::from_ptr(entry.ai_canonname) };
            name.to_string_lossy().into_owned()
        });
        Some(Self {
            family: entry.ai_family,
            socktype: entry.ai_socktype,
            protocol: entry.ai_protocol,
            canonname,
            address,
        })
    }
}

/// A name with a zero in it is none.
fn c_string(text: &str) -> Result<CString, ResolveError> {
    CString::new(text).map_err(|_| ResolveError { code: libc::EAI_NONAME, errno: None })
}

fn text_in(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> =
        buffer.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `NI_MAXHOST`; services are shorter.
const NAME_BYTES: usize = 1025;
