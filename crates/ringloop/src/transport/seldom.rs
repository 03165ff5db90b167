//! What few connections ever use.

use std::cell::OnceCell;

/// A value in a box of its own that is made when it is first used. Who never uses it has a word of it, and a message that only sees
/// whether it is there touches no other memory.
pub(crate) struct Seldom<T>(OnceCell<Box<T>>);

impl<T: Default> Seldom<T> {
    /// `None` if nobody has used it yet.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get().map(|value| &**value)
    }

    pub(crate) fn get_or_make(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}
