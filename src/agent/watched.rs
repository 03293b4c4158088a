//! What is heard of the API server, watch by watch: when it last said anything, and for how long and why requests fail.
//!
//! Gone with the watch: nobody need know of what is not asked for any more. Must not know what is watched for, nor judge it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::process::lock::Lock;
use crate::record::boot_clock;
use model::excerpt::Excerpt;

/// Longest reason that is kept, in bytes.
const WHY_MAX: usize = 512;

/// What is heard by one watch, or by all of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// When the server last said anything, in milliseconds of the boot clock; none if it never has.
    pub last: Option<u64>,
    /// Since when requests fail, in milliseconds of the boot clock, and how the last one did; none if they do not.
    pub failing: Option<(u64, String)>,
}

#[derive(Debug, Default)]
struct Kept {
    begun: u64,
    watches: BTreeMap<u64, (&'static str, Heard)>,
}

/// What all watches hear. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Lock<Kept>>);

/// The entry of one watch, which ends with it.
#[derive(Debug)]
pub struct Ear {
    watched: Watched,
    number: u64,
}

impl Watched {
    /// A watch of `resource`, which has heard nothing yet.
    pub fn begin(&self, resource: &'static str) -> Ear {
        let mut kept = self.0.lock();
        kept.begun += 1;
        let number = kept.begun;
        kept.watches.insert(number, (resource, Heard::default()));
        Ear { watched: self.clone(), number }
    }

    /// What is heard of each resource: of several watches, what the one has heard that has heard least.
    pub fn told(&self) -> BTreeMap<&'static str, Heard> {
        let mut all: BTreeMap<&'static str, Heard> = BTreeMap::new();
        for (resource, heard) in self.0.lock().watches.values() {
            let known = all.entry(*resource).or_insert_with(|| heard.clone());
            known.last = known.last.min(heard.last);
            let since = |heard: &Heard| heard.failing.as_ref().map(|(since, _)| *since);
            if heard.failing.is_some() && since(known).is_none_or(|known| since(heard) < Some(known)) {
                known.failing.clone_from(&heard.failing);
            }
        }
        all
    }
}

impl Ear {
    /// The server has said something.
    pub fn heard(&self) {
        self.change(|heard, now| heard.last = Some(now));
    }

    /// A request has failed.
    pub fn failed(&self, why: &str) {
        let why: String = Excerpt::line(why, WHY_MAX).into();
        self.change(|heard, now| {
            let since = heard.failing.as_ref().map_or(now, |(since, _)| *since);
            heard.failing = Some((since, why));
        });
    }

    /// Requests do not fail any more.
    pub fn recovered(&self) {
        self.change(|heard, _| heard.failing = None);
    }

    fn change(&self, change: impl FnOnce(&mut Heard, u64)) {
        if let Some((_, heard)) = self.watched.0.lock().watches.get_mut(&self.number) {
            change(heard, boot_clock::now_ms());
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.watched.0.lock().watches.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_is_told_by_the_watch_that_has_heard_least_and_a_watch_that_has_ended_is_not() {
        let watched = Watched::default();
        assert_eq!(watched.told(), BTreeMap::new());
        let (own, second, first) = (watched.begin("nodeconfigs"), watched.begin("pods"), watched.begin("pods"));
        own.heard();
        first.heard();
        let told = watched.told();
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), ["nodeconfigs", "pods"]);
        assert!(told["nodeconfigs"].last.is_some() && told["pods"].last.is_none(), "{told:?}");
        second.failed("403: forbidden");
        let since = watched.told()["pods"].failing.clone().expect("it fails").0;
        second.failed(&"é".repeat(1000));
        first.failed("later");
        let (still, why) = watched.told()["pods"].failing.clone().expect("it fails");
        assert!(still == since && why.len() <= WHY_MAX && why.starts_with('é'), "{still} {why}");
        drop(second);
        let pods = watched.told()["pods"].clone();
        assert!(pods.last.is_some() && pods.failing.is_some_and(|(_, why)| why == "later"));
        first.recovered();
        assert_eq!(watched.told()["pods"].failing, None);
        drop((own, first));
        assert_eq!(watched.told(), BTreeMap::new());
    }
}
