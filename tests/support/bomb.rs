//! Values whose drop panics.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

/// Panics with its text when it is dropped.
#[derive(Debug)]
pub struct Bomb(pub &'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Bomb {
    /// Bytes with its text, which it owns.
    pub fn bytes(text: &'static str) -> Bytes {
        Bytes::from_owner(Self(text))
    }
}

/// Panics when it is dropped, with another one as payload, which does the same.
#[derive(Debug)]
pub struct Endless;

impl Drop for Endless {
    fn drop(&mut self) {
        panic_any(Self);
    }
}

/// Counts its drop, then panics.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicU32>);

impl Drops {
    /// How many of its [`bomb`](Self::bomb)s are gone.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// A value that counts.
    pub fn bomb(&self) -> Counted {
        Counted(Arc::clone(&self.0))
    }
}

/// Of [`Drops`].
#[derive(Debug)]
pub struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("boom");
    }
}
