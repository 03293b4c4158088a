//! Many measurements of one thing, and what is said of them: percentiles by nearest rank, and the spread between rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::Verb;

/// Measurements in the order in which they were made.
#[derive(Debug, Clone, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Times of calls in microseconds, by who was called and for what.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<(String, Verb), Figures>);

impl Times {
    pub fn add(&mut self, name: &str, verb: Verb, took: Duration) {
        self.0.entry((name.to_owned(), verb)).or_default().0.push(micros(took));
    }

    /// None for somebody who did not take part.
    pub fn of(&self, name: &str, verb: Verb) -> Option<&Figures> {
        self.0.get(&(name.to_owned(), verb))
    }
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let figures = Figures((1..=200).rev().map(f64::from).collect());
        assert_eq!([50, 90, 99, 100].map(|percent| figures.percentile(percent)), [100.0, 180.0, 198.0, 200.0]);
        assert_eq!(Figures(vec![3.0]).percentile(99), 3.0);
        assert_eq!((figures.least(), figures.most()), (1.0, 200.0));
    }
}
