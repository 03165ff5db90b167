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
                let found =
                    find(buffer, b"\n", buffer.without_newline()).map(|start| (start, start + 1));
                if found.is_none() {
                    buffer.has_no_newline();
                }
                found
            }
            Separators::One(separator) => {
                find(buffer, separator, from).map(|start| (start, start + separator.len()))
            }
            Separators::Several(separators) => separators
                .iter()
                .filter_map(|separator| {
                    find(buffer, separator, from).map(|start| (start, start + separator.len()))
                })
                .reduce(|first, next| if next.1 < first.1 { next } else { first }),
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

/// The first place at or after `from` at which `separator` begins.
fn find(buffer: &Buffer, separator: &[u8], from: usize) -> Option<usize> {
    let mut base = 0;
    let mut slices = buffer.slices();
    while let Some(slice) = slices.next() {
        let skipped = from.saturating_sub(base);
        if let Some(rest) = slice.get(skipped..) {
            let inside = match separator {
                [byte] => memchr::memchr(*byte, rest),
                _ => memchr::memmem::find(rest, separator),
            };
            if let Some(at) = inside {
                return Some(base + skipped + at);
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
