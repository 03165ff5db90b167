//! Any sequence of feeds, reads, cancellations and ends gives what a simple model of a reader gives.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use ringloop::{Error, Received, Result, StreamReader};

/// What happens to the reader.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes, in pieces of this length.
    Feed(Vec<u8>, usize),
    Eof,
    /// Begins to read, unless a read waits.
    Read(Kind),
    /// Gives up the read that waits.
    Drop,
}

#[derive(Clone, Debug)]
enum Kind {
    Some(usize),
    Exactly(usize),
    Until(Vec<Vec<u8>>),
    Line,
    LineInto,
    All,
}

/// One buffer, and each read from its start.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    has_ended: bool,
    limit: usize,
}

/// What a read gives.
#[derive(Debug, PartialEq)]
enum Outcome {
    Bytes(Vec<u8>),
    Incomplete(Vec<u8>, Option<usize>),
    Overrun(usize),
    TooLong,
}

impl Model {
    /// What `kind` gives now; `None` if it must wait. `given` is what the reader has given, where it may choose.
    fn read(&mut self, kind: &Kind, given: Option<&Outcome>) -> Option<Outcome> {
        let there = self.bytes.len();
        match kind {
            Kind::Some(0) | Kind::Exactly(0) => Some(self.take(0)),
            Kind::Some(_) if there == 0 => self.has_ended.then(|| self.take(0)),
            Kind::Some(most) => {
                let all = there.min(*most);
                let len = match given {
                    // Large pieces come one by one.
                    Some(Outcome::Bytes(given)) if all > SMALL => given.len().clamp(1, all),
                    _ => all,
                };
                Some(self.take(len))
            }
            Kind::Exactly(wanted) if there >= *wanted => Some(self.take(*wanted)),
            Kind::Exactly(wanted) => self.has_ended.then(|| self.incomplete(Some(*wanted))),
            Kind::Until(separators) => match self.find(separators) {
                Some((start, _)) if start > self.limit => Some(Outcome::Overrun(start)),
                Some((_, end)) => Some(self.take(end)),
                None => {
                    let longest = separators.iter().map(Vec::len).max()?;
                    let shortest = separators.iter().map(Vec::len).min()?;
                    let searched = (there + 1).saturating_sub(longest);
                    if there >= shortest && searched > self.limit {
                        return Some(Outcome::Overrun(searched));
                    }
                    self.has_ended.then(|| self.incomplete(None))
                }
            },
            Kind::Line | Kind::LineInto => match self.find(&[b"\n".to_vec()]) {
                Some((start, end)) if start > self.limit => {
                    self.take(end);
                    Some(Outcome::TooLong)
                }
                Some((_, end)) => Some(self.take(end)),
                None if there > self.limit => {
                    self.take(there);
                    Some(Outcome::TooLong)
                }
                None => self.has_ended.then(|| self.take(there)),
            },
            Kind::All => self.has_ended.then(|| self.take(there)),
        }
    }

    /// The separator that ends first, the shorter one of two.
    fn find(&self, separators: &[Vec<u8>]) -> Option<(usize, usize)> {
        (1..=self.bytes.len()).find_map(|end| {
            let here = separators.iter().filter(|one| self.bytes[..end].ends_with(one));
            here.map(Vec::len).min().map(|len| (end - len, end))
        })
    }

    fn take(&mut self, len: usize) -> Outcome {
        Outcome::Bytes(self.bytes.drain(..len).collect())
    }

    fn incomplete(&mut self, expected: Option<usize>) -> Outcome {
        Outcome::Incomplete(std::mem::take(&mut self.bytes), expected)
    }
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>>> + 'a>>;

fn start(reader: &StreamReader, kind: Kind) -> Reading<'_> {
    Box::pin(async move {
        let data = match kind {
            Kind::Some(most) => reader.read(most).await?,
            Kind::Exactly(wanted) => reader.read_exactly(wanted).await?,
            Kind::Until(separators) if separators.len() == 1 => {
                reader.read_until(&separators[0]).await?
            }
            Kind::Until(separators) => reader.read_until_any(&separators).await?,
            Kind::Line => reader.read_line().await?,
            Kind::LineInto => {
                let mut line = b"before".to_vec();
                let len = reader.read_line_into(&mut line).await?;
                assert_eq!(line.len(), len + 6);
                return Ok(line.split_off(6));
            }
            Kind::All => reader.read_to_end().await?,
        };
        Ok(data.to_vec())
    })
}

fn outcome(result: Result<Vec<u8>>) -> Outcome {
    match result {
        Ok(bytes) => Outcome::Bytes(bytes),
        Err(Error::IncompleteRead { partial, expected }) => {
            Outcome::Incomplete(partial.to_vec(), expected)
        }
        Err(Error::LimitOverrun { consumed, .. }) => Outcome::Overrun(consumed),
        Err(Error::InvalidArgument(_)) => Outcome::TooLong,
        Err(error) => panic!("{error}"),
    }
}

/// Plays the steps on both.
fn play(limit: usize, steps: Vec<Step>) {
    let reader = StreamReader::new(limit).unwrap();
    let mut model = Model { limit, ..Model::default() };
    let mut waiting: Option<(Kind, Reading<'_>)> = None;
    for step in steps {
        match step {
            Step::Feed(bytes, length) if !model.has_ended => {
                for piece in bytes.chunks(length) {
                    match length {
                        3 => reader.feed_data(piece).unwrap(), // Copied, where it can be.
                        _ => reader.feed_data(Received::from(piece)).unwrap(),
                    }
                }
                model.bytes.extend(bytes);
            }
            Step::Feed(bytes, _) => assert!(reader.feed_data(&bytes).is_err()),
            Step::Eof => {
                reader.feed_eof();
                model.has_ended = true;
            }
            Step::Read(kind) if waiting.is_none() => {
                waiting = Some((kind.clone(), start(&reader, kind)));
            }
            Step::Read(_) => {}
            Step::Drop => waiting = None,
        }
        if let Some((kind, mut reading)) = waiting.take() {
            match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => {
                    let given = outcome(result);
                    assert_eq!(Some(&given), model.read(&kind, Some(&given)).as_ref(), "{kind:?}");
                }
                Poll::Pending => {
                    assert_eq!(model.read(&kind, None), None, "{kind:?}");
                    waiting = Some((kind, reading));
                }
            }
        }
        assert_eq!(reader.at_eof(), model.has_ended && model.bytes.is_empty());
    }
    drop(waiting);
    reader.feed_eof();
    model.has_ended = true;
    let rest = start(&reader, Kind::All).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(rest) = rest else { panic!("the end has come") };
    assert_eq!(rest.unwrap(), model.bytes);
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let few = prop::collection::vec(prop::sample::select(b"aab#\r\n".to_vec()), 0..30);
    prop_oneof![8 => few.clone(), 1 => few.prop_map(|text| text.repeat(150))]
}

fn kind() -> impl Strategy<Value = Kind> {
    let separator = prop::collection::vec(prop::sample::select(b"aab#\n".to_vec()), 1..4);
    prop_oneof![
        (0..40_usize).prop_map(Kind::Some),
        (0..9000_usize).prop_map(Kind::Some),
        (0..40_usize).prop_map(Kind::Exactly),
        (0..9000_usize).prop_map(Kind::Exactly),
        prop::collection::vec(separator, 1..4).prop_map(Kind::Until),
        Just(Kind::Line),
        Just(Kind::LineInto),
        Just(Kind::All),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (text(), prop::sample::select(vec![1, 2, 3, 7, 100, 5000]))
            .prop_map(|(bytes, length)| Step::Feed(bytes, length)),
        8 => kind().prop_map(Step::Read),
        2 => Just(Step::Drop),
        1 => Just(Step::Eof),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    // spec: STREAM-16, STREAM-20, STREAM-27, STREAM-30
    #[test]
    fn any_sequence_of_steps_gives_what_the_model_gives(
        limit in prop::sample::select(vec![1_usize, 2, 5, 10, 30, 100, 3000]),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        play(limit, steps);
    }
}

/// Up to here `read()` joins pieces.
const SMALL: usize = 2 * 1024;
