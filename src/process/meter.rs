//! Numbers that are counted where a fact happens and read by whoever looks: counters, gauges and histograms.
//!
//! Counting is an addition or two without a lock, so it may stand on any path. Must not know what is counted or who reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that grows, or one that is set.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// One less, of what is there and not of what has happened.
    pub fn less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Another number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One number for each of `N` kinds, which their owner numbers from 0 on.
#[derive(Debug)]
pub struct Tally<const N: usize>([Meter; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Tally<N> {
        Tally(std::array::from_fn(|_| Meter::default()))
    }
}

impl<const N: usize> Tally<N> {
    /// So many more of this kind; nothing of a kind that there is not.
    pub fn add(&self, kind: usize, more: u64) {
        if let Some(meter) = self.0.get(kind) {
            meter.add(more);
        }
    }

    /// The number of this kind.
    pub fn get(&self, kind: usize) -> u64 {
        self.0.get(kind).map(Meter::get).unwrap_or_default()
    }
}

/// How long something took, in ranges.
#[derive(Debug)]
pub struct Histogram {
    /// The upper ends of the ranges, ascending, in microseconds.
    bounds: &'static [u64],
    /// How many were in each, and behind the last one.
    counts: Box<[Meter]>,
    /// All of them together, in microseconds.
    sum: Meter,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The upper end of each range in seconds, and how many were not above it.
    pub ranges: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// A histogram with ranges up to these ends, in microseconds and ascending, and one behind them.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| Meter::default()).collect(), sum: Meter::default() }
    }

    /// It took so long.
    pub fn took(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let range = self.bounds.partition_point(|bound| *bound < time);
        if let Some(meter) = self.counts.get(range) {
            meter.count();
        }
        self.sum.add(time);
    }

    /// What was counted so far.
    pub fn shown(&self) -> Shown {
        let mut count = 0;
        let below = self.counts.iter().map(|meter| {
            count += meter.get();
            count
        });
        let below: Vec<u64> = below.collect();
        let ranges = self.bounds.iter().map(|bound| seconds(*bound)).zip(below).collect();
        Shown { ranges, count, sum: seconds(self.sum.get()) }
    }
}

/// Microseconds in seconds. Beyond 2^53 of them, some are lost.
#[expect(clippy::cast_precision_loss, reason = "a sum of 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_range_that_reaches_it_and_in_all_behind_it() {
        let histogram = Histogram::new(&[1_000, 10_000]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 5_000_000] {
            histogram.took(Duration::from_micros(micros));
        }
        let shown = histogram.shown();
        assert_eq!(shown.ranges, [(0.001, 2), (0.01, 4)]);
        assert_eq!(shown.count, 6);
        assert!((shown.sum - 5.022_002).abs() < 1e-9, "{}", shown.sum);
    }

    #[test]
    fn each_kind_has_a_number_of_its_own() {
        let tally = Tally::<2>::default();
        tally.add(1, 3);
        tally.add(2, 9);
        assert_eq!((tally.get(0), tally.get(1), tally.get(2)), (0, 3, 0));
        let meter = Meter::default();
        meter.count();
        meter.add(4);
        meter.less();
        assert_eq!(meter.get(), 4);
        meter.set(7);
        assert_eq!(meter.get(), 7);
    }
}
