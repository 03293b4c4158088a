//! Links that come and go: how often one may come back, so that no pod makes routers turn to it and away all the time.
//!
//! A link that goes counts as gone at once. Must not look at a link itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::agent::suspicion::Budget;
use crate::process::log;

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

    /// Whether a link that is up, or is not, counts as one that is.
    pub fn counts(&mut self, index: u32, up: bool, now: Instant) -> bool {
        let new = || Link { down: false, held: false, returns: Budget::new(RETURNS, CALM, now) };
        let link = self.links.entry(index).or_insert_with(new);
        if !up {
            link.down = true;
            return false;
        }
        if link.down && !link.returns.take(now) {
            if !link.held {
                log::warn("a pod takes its interface down again and again, and gets less of what it shares")
                    .with("link", index)
                    .write_limited();
            }
            link.held = true;
            self.again_at = Some(now + PAUSE);
            return false;
        }
        (link.down, link.held) = (false, false);
        true
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
        let mut returns = 0;
        for millis in 0..100_000 {
            let now = began + Duration::from_millis(millis);
            flaps.look(&BTreeSet::from([7, 8]));
            assert!(flaps.counts(8, true, now), "another one");
            assert!(!flaps.counts(7, false, now), "gone at once");
            returns += u32::from(flaps.counts(7, true, now));
        }
        assert_eq!(returns, RETURNS + 9);
        assert!(flaps.again_at().is_some());
        let later = began + Duration::from_secs(200);
        flaps.look(&BTreeSet::from([7, 8]));
        assert!(flaps.counts(7, true, later) && flaps.again_at().is_none());
        // Of a link that is gone, nothing is known when its number comes again.
        flaps.look(&BTreeSet::new());
        assert!(flaps.links.is_empty());
    }
}
