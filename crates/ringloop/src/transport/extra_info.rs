//! Facts about a connection, such as its addresses: [`Transport::get_extra_info`](super::Transport::get_extra_info).
//!
//! Keys are typed, and more may be added by layers above (TLS has its own): a name and the type of its value.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use super::TransportSocket;
use crate::Address;
use crate::event_loop::door::let_go_all;

/// A key of [`get_extra_info`](super::Transport::get_extra_info): a name, and the type of what is found under it.
///
/// ```
/// use ringloop::extra_info::ExtraKey;
///
/// const CIPHER: ExtraKey<String> = ExtraKey::new("cipher");
/// assert_eq!(CIPHER.name(), "cipher");
/// ```
pub struct ExtraKey<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

/// The socket itself, in a view that can neither send, receive nor close.
pub const SOCKET: ExtraKey<TransportSocket> = ExtraKey::new("socket");
/// The address of this side of the connection.
pub const SOCKNAME: ExtraKey<Address> = ExtraKey::new("sockname");
/// The address of the peer, also after it has reset the connection.
pub const PEERNAME: ExtraKey<Address> = ExtraKey::new("peername");

impl<T> ExtraKey<T> {
    /// The key for what is known as `name`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for ExtraKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ExtraKey<T> {}

impl<T> fmt::Debug for ExtraKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraKey({:?})", self.name)
    }
}

/// What was noted by layers above and by users.
#[derive(Default)]
#[allow(
    clippy::box_collection,
    reason = "most connections have none, and a box is smaller than a map"
)]
pub(crate) struct ExtraMap(Option<Box<BTreeMap<&'static str, Rc<dyn Any>>>>);

impl ExtraMap {
    pub(crate) fn get(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.0.as_ref()?.get(name).cloned()
    }

    /// Gives what stood there, to be dropped outside of borrows.
    pub(crate) fn set(&mut self, name: &'static str, value: Rc<dyn Any>) -> Option<Rc<dyn Any>> {
        self.0.get_or_insert_default().insert(name, value)
    }

    pub(crate) fn let_go(self) {
        if let Some(map) = self.0 {
            let_go_all("extra info", map.into_values());
        }
    }
}
