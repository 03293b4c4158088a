//! What the kernel has announced and flock has not done. The thread that listens collects it, and the threads that look take it.
//!
//! An announcement only says "look again"; the same comparison as in every round finds what is wrong. Must not ask the kernel
//! itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::process::lock::Lock;

/// Most suspicious links, and most suspicious addresses, that are listed one by one. With more than that, all links are suspicious.
const APART_MAX: usize = 256;

/// Pods' links that may have lost something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects {
    /// All links are suspicious: announcements were lost, or there were too many.
    pub all: bool,
    /// Addresses to which a route of flock's is gone.
    pub addresses: BTreeSet<IpAddr>,
    /// Indexes of links that were changed.
    pub links: BTreeSet<u32>,
}

impl Suspects {
    /// Notes that a route of flock's to this address is gone.
    pub fn address(&mut self, ip: IpAddr) {
        self.addresses.insert(ip);
    }

    /// Notes that the link of this index was changed.
    pub fn link(&mut self, index: u32) {
        self.links.insert(index);
    }
}

#[derive(Debug, Default)]
struct Pending {
    host: bool,
    surroundings: bool,
    routes: bool,
    /// The links whose carrier the routes rest on.
    watched: BTreeSet<u32>,
    /// The destinations of the node's routes in the main table.
    places: BTreeSet<IpNet>,
    suspects: Option<Suspects>,
}

/// The place where suspicions wait.
#[derive(Debug, Clone, Default)]
pub struct Suspicions(Arc<Lock<Pending>>);

impl Suspicions {
    fn with<T>(&self, work: impl FnOnce(&mut Pending) -> T) -> T {
        work(&mut self.0.lock())
    }

    /// Notes that the host may have lost what pods need. True if that was not noted yet.
    pub fn host(&self) -> bool {
        self.with(|pending| !std::mem::replace(&mut pending.host, true))
    }

    /// Notes that addresses or routes of others have changed. True if that was not noted yet.
    pub fn surroundings(&self) -> bool {
        self.with(|pending| !std::mem::replace(&mut pending.surroundings, true))
    }

    /// Notes that the node's routes may be others than before, or that they may have to be. True if that was not noted yet.
    pub fn routes(&self) -> bool {
        self.with(|pending| !std::mem::replace(&mut pending.routes, true))
    }

    /// Names the links whose carrier the node's routes rest on, from now on. To be said before one looks at them.
    pub fn watch(&self, links: BTreeSet<u32>) {
        self.with(|pending| pending.watched = links);
    }

    /// As [`Suspicions::routes`], if the node's routes rest on the carrier of the link of this index. Every new link has one to
    /// tell of, and hardly any carries such routes.
    pub fn carrier(&self, link: u32) -> bool {
        self.with(|pending| pending.watched.contains(&link) && !std::mem::replace(&mut pending.routes, true))
    }

    /// Names the destinations of the node's routes in the main table, from now on. To be said before one makes them.
    pub fn keep_places(&self, places: BTreeSet<IpNet>) {
        self.with(|pending| pending.places = places);
    }

    /// As [`Suspicions::routes`], if this destination is one of the node's routes: somebody else's may stand in the place of that
    /// one, or not any more.
    pub fn place(&self, to: IpNet) -> bool {
        self.with(|pending| pending.places.contains(&to) && !std::mem::replace(&mut pending.routes, true))
    }

    /// Notes with `add` that a pod's link may have lost something. True if no link was suspicious before.
    pub fn link(&self, add: impl FnOnce(&mut Suspects)) -> bool {
        self.with(|pending| {
            let first = pending.suspects.is_none();
            let suspects = pending.suspects.get_or_insert_default();
            add(suspects);
            if suspects.addresses.len() + suspects.links.len() > APART_MAX {
                *suspects = Suspects { all: true, ..Suspects::default() };
            }
            first
        })
    }

    /// Takes the suspicion about the host.
    pub fn take_host(&self) -> bool {
        self.with(|pending| std::mem::take(&mut pending.host))
    }

    /// Takes the suspicion about addresses and routes of others.
    pub fn take_surroundings(&self) -> bool {
        self.with(|pending| std::mem::take(&mut pending.surroundings))
    }

    /// Takes the suspicion about the node's routes.
    pub fn take_routes(&self) -> bool {
        self.with(|pending| std::mem::take(&mut pending.routes))
    }

    /// Takes the suspicions about links.
    pub fn take_links(&self) -> Option<Suspects> {
        self.with(|pending| pending.suspects.take())
    }
}

/// How often something may be done out of turn: at once at first; when it is needed again and again, only now and then.
#[derive(Debug)]
pub struct Budget {
    most: u32,
    /// The time after which one more may be done.
    interval: Duration,
    left: u32,
    refilled: Instant,
}

impl Budget {
    /// A budget of `most` times at once, and one more after each `interval`.
    pub fn new(most: u32, interval: Duration, now: Instant) -> Budget {
        Budget { most, interval, left: most, refilled: now }
    }

    /// Takes one time from the budget. False if none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.left < self.most && now.duration_since(self.refilled) >= self.interval {
            self.left += 1;
            self.refilled += self.interval;
        }
        if self.left == self.most {
            self.refilled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_answered_at_once_for_a_while_and_then_in_turns() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut budget = Budget::new(3, Duration::from_secs(10), began);
        let taken = |budget: &mut Budget, seconds| (0..9).filter(|_| budget.take(at(seconds))).count();
        assert_eq!(taken(&mut budget, 0), 3);
        assert_eq!(taken(&mut budget, 9), 0);
        assert_eq!(taken(&mut budget, 10), 1);
        assert_eq!(taken(&mut budget, 29), 1);
        assert_eq!(taken(&mut budget, 1000), 3, "never more than at the beginning");
        assert_eq!(taken(&mut budget, 1009), 0);
    }

    #[test]
    fn suspicions_are_said_once_and_kept_apart_within_bounds() {
        let suspicions = Suspicions::default();
        assert!(suspicions.host() && !suspicions.host() && suspicions.take_host() && !suspicions.take_host());
        assert!(!suspicions.carrier(7), "nothing rests on it");
        suspicions.watch(BTreeSet::from([7]));
        assert!(suspicions.carrier(7) && !suspicions.carrier(7) && !suspicions.routes() && suspicions.take_routes());
        let [net, other] = ["10.2.0.0/24", "10.3.0.0/24"].map(|net| net.parse().expect("a prefix"));
        suspicions.keep_places(BTreeSet::from([net]));
        assert!(
            !suspicions.place(other) && suspicions.place(net) && !suspicions.place(net) && suspicions.take_routes()
        );
        assert!(suspicions.link(|suspects| suspects.link(7)));
        assert!(!suspicions.link(|suspects| suspects.link(8)));
        assert_eq!(suspicions.take_links().map(|suspects| suspects.links.len()), Some(2));
        assert_eq!(suspicions.take_links(), None);
        for index in 0..100_000 {
            suspicions.link(|suspects| suspects.link(index));
        }
        let suspects = suspicions.take_links().expect("some");
        assert!(suspects.all && suspects.links.len() <= APART_MAX);
    }
}
