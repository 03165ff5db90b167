//! Descriptors that stay open while the kernel works on them.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};

use socket2::{SockAddr, SockRef};

use crate::epoll::Registration;
use crate::sys;

/// A descriptor with shared ownership.
///
/// Each op in flight on it holds a clone, so `close(2)` comes with the last clone, after the last completion. A number
/// can therefore never be reused while an op still knows it.
#[derive(Clone)]
pub struct Descriptor(Rc<Shared>);

struct Shared {
    /// Before the descriptor that they are of: they end before it is closed.
    registrations: RefCell<Registrations>,
    fd: OwnedFd,
}

/// With how many epoll instances it is registered. Nearly always it is one, for which nothing is allocated.
#[derive(Default)]
enum Registrations {
    #[default]
    None,
    One(Registration),
    Many(Vec<Registration>),
}

impl Registrations {
    fn add(&mut self, registration: Registration) {
        *self = match mem::take(self) {
            Self::One(other) if other.is_alive() => Self::Many(vec![other, registration]),
            Self::None | Self::One(_) => Self::One(registration),
            Self::Many(mut list) => {
                list.retain(Registration::is_alive);
                list.push(registration);
                Self::Many(list)
            }
        };
    }
}

impl Descriptor {
    /// How many own it: the caller's clones and the ops in flight.
    pub fn holders(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// A reference that does not keep it open.
    pub fn downgrade(&self) -> WeakDescriptor {
        WeakDescriptor(Rc::downgrade(&self.0))
    }

    /// The descriptor itself, if this was the last clone and no op is in flight; else the clone comes back.
    pub fn into_owned(self) -> Result<OwnedFd, Self> {
        let Shared { registrations, fd } = Rc::try_unwrap(self.0).map_err(Self)?;
        drop(registrations);
        Ok(fd)
    }

    /// The address of a socket's peer: what accept(2) gives, or would give. That of TCP is known for as long as the socket is open,
    /// where getpeername(2) knows it no more once the connection was reset or has ended in both directions.
    ///
    /// # Errors
    ///
    /// Those of getpeername(2), above all [`io::ErrorKind::NotConnected`] where there never was a peer.
    pub fn peer_addr(&self) -> io::Result<SockAddr> {
        sys::peer_of_ip(self.as_fd()).map_or_else(|| SockRef::from(self).peer_addr(), Ok)
    }

    /// It ends before the descriptor is closed or given away.
    pub(crate) fn add_registration(&self, registration: Registration) {
        self.0.registrations.borrow_mut().add(registration);
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        Self(Rc::new(Shared { registrations: RefCell::default(), fd }))
    }
}

impl From<socket2::Socket> for Descriptor {
    fn from(socket: socket2::Socket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptor({})", self.as_raw_fd())
    }
}

/// A [`Descriptor`] that others may close meanwhile.
#[derive(Clone)]
pub struct WeakDescriptor(Weak<Shared>);

impl WeakDescriptor {
    /// `None` once it is closed.
    pub fn upgrade(&self) -> Option<Descriptor> {
        self.0.upgrade().map(Descriptor)
    }
}

impl fmt::Debug for WeakDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(fd) => write!(f, "WeakDescriptor({})", fd.as_raw_fd()),
            None => write!(f, "WeakDescriptor(closed)"),
        }
    }
}
