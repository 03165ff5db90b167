//! What has arrived and was not delivered yet.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;

use super::staged_source::Arrival;

/// One result of a receive, in the order of the stream.
#[derive(Debug)]
pub(crate) enum Arrived<T> {
    Data(T),
    Eof,
    Error(io::Error),
}

/// Arrivals in order. Never calls out.
///
/// The first one has a place of its own, since most connections have one arrival per iteration: so they allocate nothing,
/// and an idle one holds nothing. What a burst needed beyond is kept up to [`KEPT`] places.
#[derive(Debug)]
pub(crate) struct Staged<T> {
    first: Option<Arrived<T>>,
    /// Boxed, as few connections have one.
    rest: Option<Box<Rest<T>>>,
}

/// What stands behind the first.
#[derive(Debug)]
struct Rest<T> {
    queue: VecDeque<Arrived<T>>,
    /// Of all data in the queue.
    bytes: usize,
}

impl<T> Default for Staged<T> {
    fn default() -> Self {
        Self { first: None, rest: None }
    }
}

impl<T> Default for Rest<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Arrival> Staged<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Of data that were not delivered. Those of one owner may be many times the same.
    pub(crate) fn bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.bytes);
        self.first.as_ref().map_or(0, Arrived::bytes).saturating_add(rest)
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, arrived: Arrived<T>) {
        if self.first.is_none() {
            self.first = Some(arrived);
        } else {
            self.rest.get_or_insert_default().push_back(arrived);
        }
    }

    /// Puts the rest of what was taken back in front.
    pub(crate) fn push_front(&mut self, data: T) {
        if let Some(second) = self.first.replace(Arrived::Data(data)) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    pub(crate) fn first(&self) -> Option<&Arrived<T>> {
        self.first.as_ref()
    }

    /// As [`push`](Self::push), where nothing else is there.
    #[inline(always)]
    pub(crate) fn push_first(&mut self, data: T) {
        debug_assert!(self.is_empty(), "something is there");
        // There is nothing to be dropped.
        let _nothing = ManuallyDrop::new(self.first.replace(Arrived::Data(data)));
    }

    /// As [`pop`](Self::pop), if it is data, and nothing is behind them.
    #[inline(always)]
    pub(crate) fn pop_only(&mut self) -> Option<T> {
        if !matches!(self.first, Some(Arrived::Data(_))) || self.has_rest() {
            return None;
        }
        match self.first.take() {
            Some(Arrived::Data(data)) => Some(data),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Arrived<T>> {
        let arrived = self.first.take()?;
        if self.rest.is_some() {
            self.move_up();
        }
        Some(arrived)
    }

    fn move_up(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        self.first = rest.pop_front();
        if rest.queue.is_empty() && rest.queue.capacity() > KEPT {
            self.rest = None;
        }
    }

    #[inline(always)]
    fn has_rest(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.queue.is_empty())
    }

    fn last(&self) -> Option<&Arrived<T>> {
        let rest = self.rest.as_ref().and_then(|rest| rest.queue.back());
        rest.or(self.first.as_ref())
    }

    /// Whether the end of the stream, or the error that ended it, is staged.
    pub(crate) fn has_end(&self) -> bool {
        matches!(self.last(), Some(Arrived::Eof | Arrived::Error(_)))
    }

    /// The error that the stream has ended with.
    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        if !matches!(self.last(), Some(Arrived::Error(_))) {
            return None;
        }
        let last = self.rest.as_mut().and_then(|rest| rest.pop_back());
        match last.or_else(|| self.first.take()) {
            Some(Arrived::Error(error)) => Some(error),
            _ => None,
        }
    }
}

impl<T: Arrival> Arrived<T> {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Eof | Self::Error(_) => 0,
        }
    }
}

impl<T: Arrival> Rest<T> {
    fn push_back(&mut self, arrived: Arrived<T>) {
        self.bytes = self.bytes.saturating_add(arrived.bytes());
        self.queue.push_back(arrived);
    }

    fn push_front(&mut self, arrived: Arrived<T>) {
        self.bytes = self.bytes.saturating_add(arrived.bytes());
        self.queue.push_front(arrived);
    }

    fn pop_front(&mut self) -> Option<Arrived<T>> {
        let arrived = self.queue.pop_front();
        self.took(arrived)
    }

    fn pop_back(&mut self) -> Option<Arrived<T>> {
        let arrived = self.queue.pop_back();
        self.took(arrived)
    }

    fn took(&mut self, arrived: Option<Arrived<T>>) -> Option<Arrived<T>> {
        let bytes = arrived.as_ref().map_or(0, Arrived::bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        arrived
    }
}

/// Places that an emptied queue keeps.
const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use ringloop_driver::Received;

    use super::*;

    fn data(bytes: &[u8]) -> Arrived<Received> {
        Arrived::Data(bytes.into())
    }

    #[test]
    fn arrivals_leave_in_the_order_in_which_they_came() {
        let mut staged = Staged::default();
        staged.push(data(b"ab"));
        staged.push(data(b"cde"));
        staged.push(Arrived::Eof);
        assert_eq!(staged.bytes(), 5);
        let Some(Arrived::Data(mut first)) = staged.pop() else { panic!("data first") };
        first.advance(1);
        staged.push_front(first);
        assert_eq!(staged.bytes(), 4);
        for expected in [&b"b"[..], b"cde"] {
            assert!(matches!(staged.pop(), Some(Arrived::Data(data)) if *data == *expected));
        }
        assert!(matches!(staged.pop(), Some(Arrived::Eof)));
        assert!(staged.pop().is_none() && staged.is_empty() && staged.bytes() == 0);
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut staged = Staged::default();
        for _ in 0..100 {
            staged.push(data(b"x"));
        }
        while staged.pop().is_some() {}
        assert!(staged.rest.is_none());
    }

    #[test]
    fn only_an_error_at_the_end_is_taken() {
        let mut staged = Staged::<Received>::default();
        assert!(staged.take_error().is_none());
        for bytes in [b"a", b"b"] {
            staged.push(data(bytes));
            assert!(staged.take_error().is_none());
        }
        staged.push(Arrived::Error(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(staged.take_error().unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(staged.bytes(), 2);
        assert!(matches!(staged.pop(), Some(Arrived::Data(data)) if *data == *b"a"));
        assert!(matches!(staged.pop(), Some(Arrived::Data(data)) if *data == *b"b"));
    }
}
