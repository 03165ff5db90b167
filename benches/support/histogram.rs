//! Latencies, to 1.6 %.

use std::time::Duration;

/// Counts durations in buckets that widen with the duration. It allocates when it is made only.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1].into(), count: 0 }
    }

    /// Adds a duration.
    pub fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// The duration that this part of all do not exceed; zero if there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(middle(index));
            }
        }
        Duration::ZERO
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }
}

/// Values below 2 x `PARTS` have a bucket each; above, each power of two has `PARTS` buckets.
fn bucket(value: u64) -> usize {
    let shift = value.max(PARTS).ilog2() - PARTS.ilog2();
    (u64::from(shift) * PARTS + (value >> shift)) as usize
}

/// A value in the middle of the bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / PARTS).saturating_sub(1);
    let low = (bucket - shift * PARTS) << shift;
    low + ((1 << shift) >> 1)
}

const PARTS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000);
        }
        for (part, truth) in [(0.001, 1e3), (0.5, 500e3), (0.99, 990e3), (1.0, 1e6)] {
            let error = histogram.quantile(part).as_nanos() as f64 / truth - 1.0;
            assert!(error.abs() < 0.016, "{part}: {error}");
        }
        histogram.clear();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn each_value_is_near_the_middle_of_its_bucket() {
        let mut before = 0;
        for value in (0..200).chain((8..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit])) {
            assert!(bucket(value) >= before);
            before = bucket(value);
            let error = middle(bucket(value)).abs_diff(value);
            assert!(error as f64 <= value as f64 * 0.016, "{value}: {error}");
        }
    }
}
