//! How Python writes what stands in traces: bytes, booleans, kinds of errors.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;

use ringloop::{Error, OsError};

/// The longest byte string that a trace shows in full.
pub const LONGEST_LITERAL: usize = 24;

/// `b'abc'`.
pub fn bytes(data: &[u8]) -> String {
    let quote = if data.contains(&b'\'') && !data.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for &byte in data {
        match byte {
            b'\\' => text.push_str(r"\\"),
            b'\n' => text.push_str(r"\n"),
            b'\r' => text.push_str(r"\r"),
            b'\t' => text.push_str(r"\t"),
            b' '..=b'~' if char::from(byte) == quote => {
                text.push('\\');
                text.push(quote);
            }
            b' '..=b'~' => text.push(byte.into()),
            _ => write!(text, r"\x{byte:02x}").expect("a String takes everything"),
        }
    }
    text.push(quote);
    text
}

/// As [`bytes()`], or `<N bytes>` if there are many.
pub fn short(data: &[u8]) -> String {
    if data.len() <= LONGEST_LITERAL { bytes(data) } else { format!("<{} bytes>", data.len()) }
}

/// As [`bytes()`], or the length and the Adler-32 checksum if there are many.
pub fn shown(data: &[u8]) -> String {
    if data.len() <= LONGEST_LITERAL {
        return bytes(data);
    }
    let (low, high) = data.iter().fold((1, 0), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65521;
        (low, (high + low) % 65521)
    });
    format!("<{} bytes, {}>", data.len(), high << 16 | low)
}

/// The bytes that [`bytes()`] wrote.
pub fn parse_bytes(literal: &str) -> Option<Vec<u8>> {
    let literal = literal.strip_prefix('b')?;
    let quote = literal.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    let mut rest = literal.get(1..)?.strip_suffix(quote)?.bytes();
    let mut data = Vec::new();
    while let Some(byte) = rest.next() {
        data.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
            other => other,
        });
    }
    Some(data)
}

/// `True` or `False`.
pub fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The kind of what `connection_lost` was given: `None`, `ConnectionResetError[ECONNRESET]`, `ValueError`.
pub fn kind_or_none(error: Option<&io::Error>) -> String {
    error.map_or_else(|| "None".to_owned(), |error| kind(error))
}

/// The kind of an error: that of the system with its errno, that of the library by its variant, and for one that a
/// scenario made itself its text.
pub fn kind(error: &(dyn StdError + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<Error>() {
        return kind_of_ours(error);
    }
    let Some(error) = error.downcast_ref::<io::Error>() else { return error.to_string() };
    if let Some(errno) = OsError::errno_of(error) {
        return kind_of_errno(errno);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => kind_of_ours(error),
        None => error.to_string(),
    }
}

/// What Python calls the error of misuse that this is. That of an argument is a `ValueError`; a scenario in which Python
/// has a `TypeError` says so itself.
fn kind_of_ours(error: &Error) -> String {
    match error {
        Error::State(_) => "RuntimeError".to_owned(),
        Error::InvalidArgument(_) => "ValueError".to_owned(),
        Error::InvalidState(_) => "InvalidStateError".to_owned(),
        Error::Cancelled => "CancelledError".to_owned(),
        Error::Timeout => "TimeoutError".to_owned(),
        Error::Io(error) => kind(error),
        other => other.to_string(),
    }
}

fn kind_of_errno(errno: i32) -> String {
    let (name, kind) = match errno {
        libc::EPERM => ("EPERM", "PermissionError"),
        libc::EACCES => ("EACCES", "PermissionError"),
        libc::ENOENT => ("ENOENT", "FileNotFoundError"),
        libc::EBADF => ("EBADF", "OSError"),
        libc::EAGAIN => ("EAGAIN", "BlockingIOError"),
        libc::EINPROGRESS => ("EINPROGRESS", "BlockingIOError"),
        libc::EINTR => ("EINTR", "InterruptedError"),
        libc::EINVAL => ("EINVAL", "OSError"),
        libc::EMFILE => ("EMFILE", "OSError"),
        libc::ENFILE => ("ENFILE", "OSError"),
        libc::EPIPE => ("EPIPE", "BrokenPipeError"),
        libc::EADDRINUSE => ("EADDRINUSE", "OSError"),
        libc::EADDRNOTAVAIL => ("EADDRNOTAVAIL", "OSError"),
        libc::ENETUNREACH => ("ENETUNREACH", "OSError"),
        libc::EHOSTUNREACH => ("EHOSTUNREACH", "OSError"),
        libc::EISCONN => ("EISCONN", "OSError"),
        libc::ENOTCONN => ("ENOTCONN", "OSError"),
        libc::ECONNABORTED => ("ECONNABORTED", "ConnectionAbortedError"),
        libc::ECONNREFUSED => ("ECONNREFUSED", "ConnectionRefusedError"),
        libc::ECONNRESET => ("ECONNRESET", "ConnectionResetError"),
        libc::ETIMEDOUT => ("ETIMEDOUT", "TimeoutError"),
        other => return format!("OSError[{other}]"),
    };
    format!("{kind}[{name}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_python_does() {
        assert_eq!(bytes(b"abc"), "b'abc'");
        assert_eq!(bytes(b"a\\\n\r\t\x00\xff"), r"b'a\\\n\r\t\x00\xff'");
        assert_eq!(bytes(b"it's"), "b\"it's\"");
        assert_eq!(bytes(b"'\""), r#"b'\'"'"#);
    }

    #[test]
    fn written_bytes_are_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for data in [&b""[..], b"it's", b"'\"", &all] {
            assert_eq!(parse_bytes(&bytes(data)).as_deref(), Some(data));
        }
        for wrong in ["", "b", "b'", "'abc'", r"b'\x1'", "<5 bytes>"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn errors_show_their_kind_and_the_name_of_their_errno() {
        let reset = io::Error::from_raw_os_error(libc::ECONNRESET);
        assert_eq!(kind_or_none(Some(&reset)), "ConnectionResetError[ECONNRESET]");
        assert_eq!(kind(&Error::Io(reset)), "ConnectionResetError[ECONNRESET]");
        assert_eq!(kind(&io::Error::other("ValueError")), "ValueError");
        assert_eq!(kind(&Error::State("no".into())), "RuntimeError");
        assert_eq!(kind(&io::Error::from(Error::State("no".into()))), "RuntimeError");
        assert_eq!(kind_or_none(None), "None");
    }
}
