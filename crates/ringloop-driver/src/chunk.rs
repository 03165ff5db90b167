//! What is written: borrowed, owned, shared or received bytes.

use std::ops::Deref;

use bytes::Bytes;

use crate::{Received, SendBuffer};

/// Bytes to be sent. A slice is copied; a `Vec`, a [`SendBuffer`], `Bytes` or [`Received`] is taken as it is.
///
/// ```
/// use ringloop_driver::Chunk;
///
/// let chunks: [Chunk<'_>; 3] = [b"copied".as_slice().into(), vec![1, 2].into(), "text".into()];
/// assert_eq!(chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), 12);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Chunk<'a> {
    /// Copied into a pooled buffer.
    Borrowed(&'a [u8]),
    /// Moved.
    Vec(Vec<u8>),
    /// Moved, and pooled again when it is sent.
    Buffer(SendBuffer),
    /// Shared.
    Bytes(Bytes),
    /// The lease goes on to the kernel.
    Received(Received),
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Vec(bytes) => bytes,
            Self::Buffer(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
            Self::Received(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Chunk<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Chunk<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Chunk<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a str> for Chunk<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl<'a> From<&'a String> for Chunk<'a> {
    fn from(text: &'a String) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl From<Vec<u8>> for Chunk<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Vec(bytes)
    }
}

impl From<String> for Chunk<'_> {
    fn from(text: String) -> Self {
        Self::Vec(text.into_bytes())
    }
}

impl From<SendBuffer> for Chunk<'_> {
    fn from(bytes: SendBuffer) -> Self {
        Self::Buffer(bytes)
    }
}

impl From<Bytes> for Chunk<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Received> for Chunk<'_> {
    fn from(bytes: Received) -> Self {
        Self::Received(bytes)
    }
}
