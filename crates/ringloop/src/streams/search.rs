//! Looking for separators in what lies in pieces.

use super::buffer::Buffer;

/// A search that goes on where it has stopped, when more has arrived.
pub(super) struct Search<'a> {
    /// The shortest first, so that of two that end together the shorter one counts.
    separators: Separators<'a>,
    /// Up to here in the stream no separator begins.
    from: u64,
}

enum Separators<'a> {
    Newline,
    One(&'a [u8]),
    Several(Vec<&'a [u8]>),
}

/// What a search comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A separator, from `start` to `end`.
    Separator { start: usize, end: usize },
    /// More than the limit comes before the separator.
    TooLate { start: usize },
    /// There is none in the first bytes, which are more than the limit.
    NotWithin { searched: usize },
}

impl<'a> Search<'a> {
    /// For the end of a line, from where other such searches have stopped.
    pub(super) fn newline() -> Self {
        Self { separators: Separators::Newline, from: 0 }
    }

    pub(super) fn one(separator: &'a [u8]) -> Self {
        Self { separators: Separators::One(separator), from: 0 }
    }

    pub(super) fn several(separators: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut separators: Vec<_> = separators.collect();
        separators.sort_by_key(|separator| separator.len());
        Self { separators: Separators::Several(separators), from: 0 }
    }

    /// Length of the shortest separator, and of the longest. `None` if there is none.
    pub(super) fn lengths(&self) -> Option<(usize, usize)> {
        match &self.separators {
            Separators::Newline => Some((1, 1)),
            Separators::One(separator) => Some((separator.len(), separator.len())),
            Separators::Several(separators) => {
                Some((separators.first()?.len(), separators.last()?.len()))
            }
        }
    }

    /// `None` if more must arrive, or the end.
    pub(super) fn run(&mut self, buffer: &mut Buffer, limit: usize) -> Option<Found> {
        let (shortest, longest) = self.lengths()?;
        if buffer.len() < shortest {
            return None;
        }
        let from = usize::try_from(self.from.saturating_sub(buffer.place())).unwrap_or(usize::MAX);
        let found = match &self.separators {
            Separators::Newline => {
                let found = find_one(buffer, b"\n", buffer.without_newline())
                    .map(|start| (start, start + 1));
                if found.is_none() {
                    buffer.has_no_newline();
                }
                found
            }
            Separators::One(separator) => {
                find_one(buffer, separator, from).map(|start| (start, start + separator.len()))
            }
            Separators::Several(separators) => separators.iter().fold(None, |first, separator| {
                // Only one that ends before the first so far is of interest.
                let until = first.map_or(usize::MAX, |(_, end)| end - 1);
                let next = find(buffer, separator, from, until);
                let next = next.map(|start| (start, start + separator.len()));
                next.filter(|&(_, end)| end <= until).or(first)
            }),
        };
        match found {
            Some((start, _)) if start > limit => Some(Found::TooLate { start }),
            Some((start, end)) => Some(Found::Separator { start, end }),
            None => {
                let searched = (buffer.len() + 1).saturating_sub(longest);
                self.from = buffer.place() + searched as u64;
                (searched > limit).then_some(Found::NotWithin { searched })
            }
        }
    }
}

/// The first place at or after `from` at which `separator` begins. As a rule it is a newline, and lies in the first piece.
#[inline]
fn find_one(buffer: &Buffer, separator: &[u8], from: usize) -> Option<usize> {
    let (&[byte], Some(slice)) = (separator, buffer.first_from(from)) else {
        return find(buffer, separator, from, usize::MAX);
    };
    #[cfg(test)]
    tests::looked_at(slice.len());
    let inside = memchr::memchr(byte, slice).map(|at| from + at);
    inside.or_else(|| find(buffer, separator, from + slice.len(), usize::MAX))
}

/// The first place at or after `from` at which `separator` begins. What begins at or after `until` is not looked at.
fn find(buffer: &Buffer, separator: &[u8], from: usize, until: usize) -> Option<usize> {
    let (mut base, mut slices) = buffer.slices_from(from);
    while let Some(whole) = slices.next().filter(|_| base < until) {
        let slice = &whole[..whole.len().min(until.saturating_sub(base))];
        let skipped = from.saturating_sub(base);
        #[cfg(test)]
        tests::looked_at(slice.len().saturating_sub(skipped));
        if let Some(rest) = slice.get(skipped..) {
            let inside = match separator {
                [byte] => memchr::memchr(*byte, rest),
                _ => memchr::memmem::find(rest, separator),
            };
            if let Some(at) = inside {
                return Some(base + skipped + at);
            }
            if slice.len() < whole.len() {
                return None;
            }
            let first_across = slice.len().saturating_sub(separator.len() - 1).max(skipped);
            let across = (first_across..slice.len())
                .find(|&at| begins_with(&slice[at..], slices.clone(), separator));
            if let Some(at) = across {
                return Some(base + at);
            }
        }
        base += slice.len();
    }
    None
}

/// Whether `first` and what comes after it begin with `wanted`.
fn begins_with<'a>(
    first: &[u8],
    mut next: impl Iterator<Item = &'a [u8]>,
    mut wanted: &[u8],
) -> bool {
    let mut slice = first;
    loop {
        let len = slice.len().min(wanted.len());
        if slice[..len] != wanted[..len] {
            return false;
        }
        wanted = &wanted[len..];
        if wanted.is_empty() {
            return true;
        }
        match next.next() {
            Some(more) => slice = more,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ringloop_driver::Received;

    use super::super::buffer::SMALL;
    use super::*;

    thread_local! {
        /// Bytes and pieces that searches of this thread have looked at.
        static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn looked_at(bytes_of_a_piece: usize) {
        LOOKED_AT.set(LOOKED_AT.get() + 1 + bytes_of_a_piece);
    }

    // spec: STREAM-30
    #[test]
    fn a_search_looks_at_each_byte_once_however_many_pieces_there_are() {
        let pieces = if cfg!(miri) { 50 } else { 2000 };
        for separators in [&[&b"\n"[..]][..], &[b"\r\n"], &[b"\n", b"\r\n"]] {
            let mut buffer = Buffer::default();
            let mut search = match separators {
                [b"\n"] => Search::newline(),
                [one] => Search::one(one),
                several => Search::several(several.iter().copied()),
            };
            LOOKED_AT.set(0);
            for _ in 0..pieces {
                buffer.push(Received::from(&[b'x'; SMALL][..]));
                assert_eq!(search.run(&mut buffer, usize::MAX), None);
            }
            // A separator of two bytes may have begun with the last one.
            let most = pieces * (SMALL + 3) * separators.len();
            assert!(LOOKED_AT.get() <= most, "{} for {separators:?}", LOOKED_AT.get());
            buffer.push(Received::from(&b"\r\n"[..]));
            let end = pieces * SMALL + 2;
            let start =
                if separators.len() > 1 || separators[0] == b"\n" { end - 1 } else { end - 2 };
            let found = search.run(&mut buffer, usize::MAX);
            assert_eq!(found, Some(Found::Separator { start, end }), "{separators:?}");
        }
    }

    /// Small numbers, any of which may come.
    fn numbers(mut seed: u32) -> impl FnMut(usize) -> usize {
        move |below| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as usize % below
        }
    }

    #[test]
    fn the_separator_that_ends_first_is_found_however_the_bytes_are_cut() {
        for seed in 0..2000 {
            let mut number = numbers(seed);
            let bytes: Vec<u8> = (0..number(30)).map(|_| b"ab\n"[number(3)]).collect();
            let mut separators = [&b"ab\n"[..], b"\n", b"aab", b"ba", b"abab\na"].to_vec();
            separators.rotate_left(number(5));
            separators.truncate(1 + number(4));
            let mut buffer = Buffer::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(1 + number(rest.len()));
                buffer.push(piece.into());
                rest = next;
            }
            let ends = |end: usize| {
                let ending =
                    separators.iter().filter(|separator| bytes[..end].ends_with(separator));
                ending.map(|separator| separator.len()).min()
            };
            let expected = (0..=bytes.len())
                .find_map(|end| ends(end).map(|len| Found::Separator { start: end - len, end }));
            let found = Search::several(separators.iter().copied()).run(&mut buffer, 100);
            assert_eq!(found, expected, "{} of {separators:?}, seed {seed}", bytes.escape_ascii());
        }
    }
}
