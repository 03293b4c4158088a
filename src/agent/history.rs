//! What has happened lately, for whoever asks: requests that failed, rounds, and what was put right.
//!
//! Bounded, and gone with the agent: the log is what lasts. Written where a thing happens, by whoever does it, and never for more
//! than a moment. Must not judge anything, nor log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::process::lock::{Changed, Lock};
use crate::record::boot_clock;
use cni::verb::Verb;
use model::addr::Attachment;
use model::excerpt::Excerpt;
use model::lease::PodName;

/// Failures that are kept apart.
const FAILURES: usize = 32;

/// Longest reason that is kept, in bytes.
const WHY_MAX: usize = 1024;

/// A request that failed, once or again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it last failed so, in milliseconds of the boot clock.
    pub at: u64,
    /// How often.
    pub times: u64,
    /// The verb.
    pub op: Verb,
    /// What it was about, the last time.
    pub attachment: Option<Attachment>,
    /// The pod, if the runtime named one.
    pub pod: Option<PodName>,
    /// The CNI code.
    pub code: u32,
    /// Why, in one line.
    pub why: String,
}

impl Failure {
    /// A failure of now.
    pub fn new(op: Verb, attachment: Option<Attachment>, pod: Option<PodName>, code: u32, why: &str) -> Failure {
        let why = Excerpt::line(why, WHY_MAX).into();
        Failure { at: boot_clock::now_ms(), times: 1, op, attachment, pod, code, why }
    }

    /// Whether `other` is this one again. A pod comes back in another container each time, so its name counts where it has one.
    fn is_again(&self, other: &Failure) -> bool {
        let whose = |failure: &Failure| match (&failure.pod, &failure.attachment) {
            (Some(pod), attachment) => (Some(pod.to_string()), attachment.as_ref().map(|it| it.ifname.to_string())),
            (None, attachment) => (None, attachment.as_ref().map(ToString::to_string)),
        };
        (self.op, &self.why, whose(self)) == (other.op, &other.why, whose(other))
    }
}

/// The comparisons of record and kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rounds {
    /// How many there were.
    pub count: u64,
    /// When the last one ended, in milliseconds of the boot clock.
    pub last: Option<u64>,
    /// Why it failed.
    pub problem: Option<String>,
    /// How much was put right.
    pub repairs: u64,
    /// The last repair, and when it was, in milliseconds of the boot clock.
    pub last_repair: Option<(u64, String)>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The newest last.
    failures: VecDeque<Failure>,
    rounds: Rounds,
}

/// Where it is kept. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Place>);

#[derive(Debug, Default)]
struct Place {
    kept: Lock<Kept>,
    /// A round has ended.
    round: Changed,
}

impl History {
    /// A request has failed.
    pub fn failed(&self, failure: Failure) {
        let mut kept = self.0.kept.lock();
        let failures = &mut kept.failures;
        let before = failures.iter().position(|known| known.is_again(&failure)).and_then(|at| failures.remove(at));
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        if failures.len() >= FAILURES {
            failures.pop_front();
        }
        failures.push_back(Failure { times, ..failure });
    }

    /// A round has ended, well or not.
    pub fn round(&self, problem: Option<String>) {
        let mut kept = self.0.kept.lock();
        let rounds = &mut kept.rounds;
        (rounds.last, rounds.problem) = (Some(boot_clock::now_ms()), problem);
        rounds.count = rounds.count.saturating_add(1);
        self.0.round.wake_all();
    }

    /// Waits until there were so many rounds. False at `deadline`.
    pub fn wait_for_round(&self, count: u64, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let kept = self.0.round.wait_while(self.0.kept.lock(), left, |kept| kept.rounds.count < count);
        kept.rounds.count >= count
    }

    /// Something was put right.
    pub fn repaired(&self, what: &str) {
        let what = Excerpt::line(what, WHY_MAX).into();
        let rounds = &mut self.0.kept.lock().rounds;
        rounds.repairs = rounds.repairs.saturating_add(1);
        rounds.last_repair = Some((boot_clock::now_ms(), what));
    }

    /// The failures, the newest first, and the rounds, of one moment.
    pub fn told(&self) -> (Vec<Failure>, Rounds) {
        let kept = self.0.kept.lock();
        (kept.failures.iter().rev().cloned().collect(), kept.rounds.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(op: Verb, key: &str, pod: Option<&str>, why: &str) -> Failure {
        let pod = pod.map(|name| PodName { namespace: "shop".into(), name: name.into(), uid: None });
        Failure::new(op, Some(key.parse().expect("a key")), pod, 11, why)
    }

    fn told(history: &History) -> Vec<(String, u64)> {
        let line = |failure: Failure| {
            let container =
                failure.attachment.map(|attachment| attachment.container_id.to_string()).unwrap_or_default();
            (format!("{} {container} {}", failure.op, failure.why), failure.times)
        };
        history.told().0.into_iter().map(line).collect()
    }

    #[test]
    fn what_fails_again_is_told_once_with_how_often_and_the_newest_first() {
        let history = History::default();
        for failure in [
            failure(Verb::Add, "a1/eth0", Some("web"), "full"),
            failure(Verb::Add, "b1/eth0", Some("api"), "full"),
            // The same pod in its next sandbox.
            failure(Verb::Add, "a2/eth0", Some("web"), "full"),
            failure(Verb::Add, "a3/eth0", Some("web"), "late"),
            failure(Verb::Add, "a3/net1", Some("web"), "late"),
            // Without a pod's name, another container is another one.
            failure(Verb::Add, "c1/eth0", None, "full"),
            failure(Verb::Add, "c2/eth0", None, "full"),
            failure(Verb::Del, "c2/eth0", None, "full"),
        ] {
            history.failed(failure);
        }
        let expected = [
            ("DEL c2 full", 1),
            ("ADD c2 full", 1),
            ("ADD c1 full", 1),
            ("ADD a3 late", 1),
            ("ADD a3 late", 1),
            ("ADD a2 full", 2),
            ("ADD b1 full", 1),
        ];
        assert_eq!(told(&history), expected.map(|(line, times)| (line.to_owned(), times)));
    }

    #[test]
    fn no_more_is_kept_than_somebody_reads() {
        let history = History::default();
        for number in 0..1000 {
            history.failed(failure(Verb::Add, &format!("c{number}/eth0"), None, &"é".repeat(10_000)));
        }
        let failures = history.told().0;
        assert_eq!(failures.len(), FAILURES);
        assert_eq!(failures[0].attachment.as_ref().expect("one").to_string(), "c999/eth0");
        assert!(failures.iter().all(|failure| failure.why.len() <= WHY_MAX));
    }

    #[test]
    fn rounds_and_repairs_are_dated() {
        let history = History::default();
        assert_eq!(history.told().1, Rounds::default());
        let before = boot_clock::now_ms();
        history.repaired("a route");
        history.round(Some("no".into()));
        history.repaired("b route");
        history.round(None);
        let rounds = history.told().1;
        assert!(history.wait_for_round(2, Instant::now()) && !history.wait_for_round(3, Instant::now()));
        assert!(rounds.last >= Some(before) && rounds.problem.is_none() && rounds.repairs == 2, "{rounds:?}");
        assert!(rounds.last_repair.is_some_and(|(at, what)| at >= before && what == "b route"));
    }
}
