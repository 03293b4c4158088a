//! Links that come and go: how often one may come back, so that no pod makes routers turn to it and away all the time.
//!
//! A link that goes counts as gone at once. Must not look at a link itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::agent::suspicion::Budget;

/// How often a link may come back at once.
const RETURNS: u32 = 5;

/// Interval between further returns, 10 s.
const CALM: Duration = Duration::from_secs(10);

/// Pause before the next look at a link that may not come back yet, 1 s.
const PAUSE: Duration = Duration::from_secs(1);

/// One link.
#[derive(Debug)]
struct Link {
    down: bool,
    held: bool,
    returns: Budget,
}

/// What a link counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// One that is down.
    Down,
    /// One that is down though it is up, as it has come back too often. `first` is true once each time that this begins.
    Held {
        /// Nobody was told yet.
        first: bool,
    },
    /// One that is up.
    Up,
}

/// The links that somebody rests on, by their index.
#[derive(Debug, Default)]
pub struct Flaps {
    links: BTreeMap<u32, Link>,
    again_at: Option<Instant>,
}

impl Flaps {
    /// Begins a look at these links; others are forgotten.
    pub fn look(&mut self, links: &BTreeSet<u32>) {
        self.links.retain(|index, _| links.contains(index));
        self.again_at = None;
    }

    /// What a link that is up, or is not, counts as.
    pub fn count(&mut self, index: u32, up: bool, now: Instant) -> Counted {
        let new = || Link { down: false, held: false, returns: Budget::new(RETURNS, CALM, now) };
        let link = self.links.entry(index).or_insert_with(new);
        if !up {
            link.down = true;
            return Counted::Down;
        }
        if link.down && !link.returns.take(now) {
            let first = !std::mem::replace(&mut link.held, true);
            self.again_at = Some(now + PAUSE);
            return Counted::Held { first };
        }
        (link.down, link.held) = (false, false);
        Counted::Up
    }

    /// When to look again without any news, since a link is up and does not count yet.
    pub fn again_at(&self) -> Option<Instant> {
        self.again_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_comes_back_at_once_unless_it_does_so_all_the_time() {
        let (mut flaps, began) = (Flaps::default(), Instant::now());
        let (mut returns, mut told) = (0, 0);
        for millis in 0..100_000 {
            let now = began + Duration::from_millis(millis);
            flaps.look(&BTreeSet::from([7, 8]));
            assert_eq!(flaps.count(8, true, now), Counted::Up, "another one");
            assert_eq!(flaps.count(7, false, now), Counted::Down, "gone at once");
            match flaps.count(7, true, now) {
                Counted::Up => returns += 1,
                counted => told += u32::from(counted == Counted::Held { first: true }),
            }
        }
        assert_eq!((returns, told), (RETURNS + 9, 10));
        assert!(flaps.again_at().is_some());
        let later = began + Duration::from_secs(200);
        flaps.look(&BTreeSet::from([7, 8]));
        assert_eq!((flaps.count(7, true, later), flaps.again_at()), (Counted::Up, None));
        // Of a link that is gone, nothing is known when its number comes again.
        flaps.look(&BTreeSet::new());
        assert!(flaps.links.is_empty());
    }
}
