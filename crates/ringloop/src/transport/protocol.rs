//! What the user implements: protocols.
//!
//! A protocol is called by its transport, never by the loop itself, and always through one door
//! ([`Transport`]'s `call_protocol`). So while one of its methods runs, nothing of the library is borrowed: it may call
//! any method of any transport, replace itself, or close the loop.

use std::cell::RefMut;
use std::error::Error;
use std::fmt;
use std::io;
use std::rc::Rc;

use ringloop_driver::Received;

use super::{AnyProtocol, Transport};
use crate::event_loop::door::{self, let_go};

/// What a callback gives that can fail.
pub type ProtocolResult<T = ()> = Result<T, ProtocolError>;

/// Why a callback failed. `?` makes it from any error.
///
/// ```
/// use std::io;
/// use ringloop::ProtocolError;
///
/// fn parse(text: &str) -> Result<u32, ProtocolError> {
///     Ok(text.parse()?)
/// }
/// assert!(matches!(parse("x"), Err(ProtocolError::Other(_))));
/// assert!(matches!(io::Error::from(io::ErrorKind::TimedOut).into(), ProtocolError::Io(_)));
/// ```
#[derive(Debug)]
pub enum ProtocolError {
    /// Ends the connection silently, as a peer's reset does.
    Io(io::Error),
    /// Goes to the exception handler, and ends the connection.
    Other(Box<dyn Error>),
}

/// What the transport does once the peer has closed its sending side.
///
/// ```
/// use ringloop::{AfterEof, Protocol, ProtocolResult, Transport};
///
/// /// Answers when the peer has sent everything.
/// struct Answer;
///
/// impl Protocol for Answer {
///     fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
///         transport.write("done\n")?;
///         transport.close();
///         Ok(AfterEof::KeepOpen)
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterEof {
    /// Sends what is still buffered, then closes.
    #[default]
    Close,
    /// Stays open for writing.
    KeepOpen,
}

/// Receives the events of one stream connection.
///
/// Calls come in this order:
///
/// ```text
/// start -> connection_made [-> data_received*] [-> eof_received?] -> connection_lost -> end
/// ```
///
/// `pause_writing` and `resume_writing` alternate, beginning with a pause, and may come at any time between
/// `connection_made` and `connection_lost`.
///
/// # Re-entrancy
///
/// Methods take `&self` because they nest: `transport.write()` inside `data_received()` calls `pause_writing()` before it
/// returns. So take out of your cells what you need, let go of the borrow, then call out. Those who can do with a pause
/// that arrives one call late write a [`Handler`](super::Handler), whose methods take `&mut self`.
///
/// # Errors and panics
///
/// Methods that return a [`ProtocolResult`] end the connection by an error: silently by an [`io::Error`], with a report to
/// the loop's exception handler by any other. A panic in any method is caught and reported; in the ones that return a
/// result it counts as an error, in the others it changes nothing.
///
/// ```
/// use ringloop::{Protocol, ProtocolResult, Received, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
///         transport.write(data)?; // The kernel's buffer goes back to the kernel: no copy.
///         Ok(())
///     }
/// }
/// ```
///
/// The other callbacks:
///
/// ```
/// use std::io;
/// use ringloop::{AfterEof, Protocol, ProtocolResult, Transport};
///
/// struct Greeter;
///
/// impl Protocol for Greeter {
///     fn connection_made(&self, transport: &Transport) {
///         if transport.write("hello\n").is_err() {
///             transport.abort();
///         }
///     }
///
///     fn pause_writing(&self, transport: &Transport) {
///         transport.pause_reading();
///     }
///
///     fn resume_writing(&self, transport: &Transport) {
///         transport.resume_reading();
///     }
///
///     fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
///         Ok(AfterEof::Close)
///     }
///
///     fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
///         println!("the end: {error:?}");
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with what they are given")]
pub trait Protocol {
    /// The connection stands. Nothing was received yet, and nothing is until this returned.
    fn connection_made(&self, transport: &Transport) {}

    /// Bytes have come, at least one. Where one call ends and the next begins has no meaning.
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        Ok(())
    }

    /// The peer will send no more.
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// The connection is gone; the last call. `error` is `None` after [`Transport::close`], [`Transport::abort`], or an end
    /// of the stream that closed it.
    ///
    /// Where bytes were waiting when it was closed, the peer can still be written to in here, and gets what the kernel has
    /// room for; `pause_writing()` is called inside a `write()` of more. Otherwise it comes too late.
    fn connection_lost(&self, transport: &Transport, error: Option<&io::Error>) {}

    /// The write buffer has gone over its high-water mark. Called inside the `write()` that did it.
    fn pause_writing(&self, transport: &Transport) {}

    /// The write buffer is at or below its low-water mark again.
    fn resume_writing(&self, transport: &Transport) {}
}

/// Like [`Protocol`], but receives into buffers of its own.
///
/// ```
/// use std::cell::{RefCell, RefMut};
/// use ringloop::{BufferedProtocol, ProtocolResult, Transport};
///
/// struct Fill {
///     buffer: RefCell<[u8; 4096]>,
/// }
///
/// impl BufferedProtocol for Fill {
///     fn get_buffer(&self, _hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
///         Ok(RefMut::map(self.buffer.borrow_mut(), |buffer| &mut buffer[..]))
///     }
///     fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult {
///         transport.write(&self.buffer.borrow()[..len])?;
///         Ok(())
///     }
/// }
/// ```
///
/// The other callbacks:
///
/// ```
/// # use std::cell::{RefCell, RefMut};
/// # use std::io;
/// # use ringloop::{AfterEof, BufferedProtocol, ProtocolResult, Transport};
/// # struct Fill(RefCell<[u8; 4096]>);
/// impl BufferedProtocol for Fill {
///     fn connection_made(&self, _: &Transport) {}
///     fn pause_writing(&self, transport: &Transport) {
///         transport.pause_reading();
///     }
///     fn resume_writing(&self, transport: &Transport) {
///         transport.resume_reading();
///     }
///     fn eof_received(&self, _: &Transport) -> ProtocolResult<AfterEof> {
///         Ok(AfterEof::Close)
///     }
///     fn connection_lost(&self, _: &Transport, error: Option<&io::Error>) {
///         println!("the end: {error:?}");
///     }
/// #     fn get_buffer(&self, _hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> {
/// #         Ok(RefMut::map(self.0.borrow_mut(), |buffer| &mut buffer[..]))
/// #     }
/// #     fn buffer_updated(&self, _: &Transport, _: usize) -> ProtocolResult {
/// #         Ok(())
/// #     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with what they are given")]
pub trait BufferedProtocol {
    /// As [`Protocol::connection_made`].
    fn connection_made(&self, transport: &Transport) {}

    /// Lends the place for the next bytes. Called right before each delivery, and before
    /// [`eof_received`](Self::eof_received); the loan ends before the next call of any method. `hint` is how many bytes
    /// are to come, where a layer knows.
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection, and so is an empty buffer.
    fn get_buffer(&self, hint: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>>;

    /// The first `len` bytes of the buffer are filled.
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn buffer_updated(&self, transport: &Transport, len: usize) -> ProtocolResult;

    /// As [`Protocol::eof_received`].
    ///
    /// # Errors
    ///
    /// Each is fatal to the connection.
    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&self, transport: &Transport, error: Option<&io::Error>) {}

    /// As [`Protocol::pause_writing`].
    fn pause_writing(&self, transport: &Transport) {}

    /// As [`Protocol::resume_writing`].
    fn resume_writing(&self, transport: &Transport) {}
}

/// What a protocol factory may return: a protocol, an `Rc` of one, a [`Buffered`], or a `Result` of these.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Exclusive, IntoProtocol};
///
/// assert!(Exclusive::new(()).into_protocol().is_ok());
/// assert!(Rc::new(Exclusive::new(())).into_protocol().is_ok());
/// assert!(Err::<Exclusive<()>, _>("no more connections").into_protocol().is_err());
/// ```
pub trait IntoProtocol {
    /// What the maker of the connection gets back, with its own type.
    type Protocol: 'static;

    /// The protocol itself, and how a transport holds it.
    ///
    /// # Errors
    ///
    /// That of a factory that failed.
    fn into_protocol(self) -> ProtocolResult<(Rc<Self::Protocol>, ProtocolRef)>;
}

impl<P: Protocol + 'static> IntoProtocol for P {
    type Protocol = P;

    fn into_protocol(self) -> ProtocolResult<(Rc<P>, ProtocolRef)> {
        Rc::new(self).into_protocol()
    }
}

impl<P: Protocol + 'static> IntoProtocol for Rc<P> {
    type Protocol = P;

    fn into_protocol(self) -> ProtocolResult<(Self, ProtocolRef)> {
        Ok((Self::clone(&self), ProtocolRef::Stream(self)))
    }
}

impl<P: IntoProtocol, E: Into<ProtocolError>> IntoProtocol for Result<P, E> {
    type Protocol = P::Protocol;

    fn into_protocol(self) -> ProtocolResult<(Rc<P::Protocol>, ProtocolRef)> {
        self.map_err(Into::into)?.into_protocol()
    }
}

/// Marks a [`BufferedProtocol`] where a protocol of either kind may stand, as a factory's result.
///
/// ```
/// # use std::cell::RefMut;
/// # use ringloop::{Buffered, BufferedProtocol, IntoProtocol, ProtocolResult, Transport};
/// # struct Fill;
/// # impl BufferedProtocol for Fill {
/// #     fn get_buffer(&self, _: Option<usize>) -> ProtocolResult<RefMut<'_, [u8]>> { unimplemented!() }
/// #     fn buffer_updated(&self, _: &Transport, _: usize) -> ProtocolResult { Ok(()) }
/// # }
/// let factory = || Buffered::new(Fill);
/// assert!(factory().into_protocol().is_ok());
/// ```
#[derive(Debug)]
pub struct Buffered<P>(Rc<P>);

impl<P: BufferedProtocol + 'static> Buffered<P> {
    /// Marks `protocol`. For one that is shared there is `From<Rc<P>>`.
    pub fn new(protocol: P) -> Self {
        Self(Rc::new(protocol))
    }
}

impl<P: BufferedProtocol + 'static> From<Rc<P>> for Buffered<P> {
    fn from(protocol: Rc<P>) -> Self {
        Self(protocol)
    }
}

impl<P: BufferedProtocol + 'static> IntoProtocol for Buffered<P> {
    type Protocol = P;

    fn into_protocol(self) -> ProtocolResult<(Rc<P>, ProtocolRef)> {
        Ok((Rc::clone(&self.0), ProtocolRef::Buffered(self.0)))
    }
}

/// A protocol of either kind, as a transport holds it.
///
/// ```
/// use std::rc::Rc;
/// use ringloop::{Exclusive, ProtocolRef};
///
/// let protocol = ProtocolRef::from(Rc::new(Exclusive::new(())));
/// assert!(matches!(protocol, ProtocolRef::Stream(_)));
/// ```
#[derive(Clone)]
pub enum ProtocolRef {
    /// Is given the received bytes.
    Stream(Rc<dyn Protocol>),
    /// Lends the place for them.
    Buffered(Rc<dyn BufferedProtocol>),
}

impl<P: Protocol + 'static> From<Rc<P>> for ProtocolRef {
    fn from(protocol: Rc<P>) -> Self {
        Self::Stream(protocol)
    }
}

impl<P: BufferedProtocol + 'static> From<Buffered<P>> for ProtocolRef {
    fn from(protocol: Buffered<P>) -> Self {
        Self::Buffered(protocol.0)
    }
}

impl AnyProtocol for ProtocolRef {
    type Transport = Transport;

    fn connection_made(&self, transport: &Transport) {
        match self {
            Self::Stream(protocol) => protocol.connection_made(transport),
            Self::Buffered(protocol) => protocol.connection_made(transport),
        }
    }

    fn connection_lost(&self, transport: &Transport, error: Option<&io::Error>) {
        match self {
            Self::Stream(protocol) => protocol.connection_lost(transport, error),
            Self::Buffered(protocol) => protocol.connection_lost(transport, error),
        }
    }

    fn pause_writing(&self, transport: &Transport) {
        match self {
            Self::Stream(protocol) => protocol.pause_writing(transport),
            Self::Buffered(protocol) => protocol.pause_writing(transport),
        }
    }

    fn resume_writing(&self, transport: &Transport) {
        match self {
            Self::Stream(protocol) => protocol.resume_writing(transport),
            Self::Buffered(protocol) => protocol.resume_writing(transport),
        }
    }

    #[inline(always)]
    fn is_last(&self) -> bool {
        match self {
            Self::Stream(protocol) => Rc::strong_count(protocol) == 1,
            Self::Buffered(protocol) => Rc::strong_count(protocol) == 1,
        }
    }
}

impl ProtocolRef {
    pub(crate) fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        match self {
            Self::Stream(protocol) => protocol.eof_received(transport),
            Self::Buffered(protocol) => protocol.eof_received(transport),
        }
    }
}

impl fmt::Debug for ProtocolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(protocol) => write!(f, "Protocol({:p})", Rc::as_ptr(protocol)),
            Self::Buffered(protocol) => write!(f, "BufferedProtocol({:p})", Rc::as_ptr(protocol)),
        }
    }
}

impl<E: Into<Box<dyn Error>>> From<E> for ProtocolError {
    /// An [`io::Error`] is found inside a box, and inside a [`crate::Error`], too.
    fn from(error: E) -> Self {
        let error = match error.into().downcast::<io::Error>() {
            Ok(error) => return Self::Io(*error),
            Err(error) => error,
        };
        match error.downcast::<crate::Error>() {
            Ok(error) => match *error {
                crate::Error::Io(error) => Self::Io(error),
                error => Self::Other(error.into()),
            },
            Err(error) => Self::Other(error),
        }
    }
}

impl ProtocolError {
    pub(crate) fn from_panic(panic: &crate::Error) -> Self {
        Self::Other(panic.to_string().into())
    }

    /// As [`Protocol::connection_lost`] gets it.
    pub(crate) fn into_io_error(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Other(error) => match error.downcast::<crate::Error>() {
                Ok(error) => (*error).into(),
                Err(error) => {
                    let text = door::text(&error);
                    let_go("an error of a protocol", error);
                    io::Error::other(text)
                }
            },
        }
    }

    pub(crate) fn as_error(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Io(error) => error,
            Self::Other(error) => &**error,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_error(), f)
    }
}
