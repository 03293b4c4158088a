//! How long the API server will believe this agent: what of its credentials ends soon or has ended, said in the log once and then
//! daily, and published for the status.
//!
//! Whatever is read of a credential, `kube` reads. Must not renew anything, nor talk to the API server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::agent::board::Board;
use crate::kube::expiry::{Expiry, Nearness, date};
use crate::kube::pem::Origin;
use crate::process::log;

/// Interval between lines about one end, a day.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// The credentials that end, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// Each of them, whenever it ends.
    pub all: Vec<Expiry>,
    /// Those of which an operator should know, each with how near its end is; the first to end comes first.
    pub near: Vec<(Expiry, Nearness)>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub struct Credentials {
    board: Board<Ends>,
    seen: BTreeMap<Place, Seen>,
}

/// What kind of credential it is, and where it stands: another one may take its place.
type Place = (&'static str, String);

#[derive(Debug)]
struct Seen {
    until: SystemTime,
    /// Another one has taken its place before, which ended later: somebody sees to it.
    renewed: bool,
    /// What the log has said last, and when.
    said: Option<(Nearness, Instant)>,
}

impl Credentials {
    /// Nothing has been looked at yet. What is found goes to `board`.
    pub fn new(board: Board<Ends>) -> Credentials {
        Credentials { board, seen: BTreeMap::new() }
    }

    /// Takes up what is in use at this time, and returns what of it is near its end.
    pub fn look(&mut self, in_use: Vec<Expiry>, now: SystemTime) -> Ends {
        let ends = self.judge(in_use, now);
        for (expiry, nearness) in &ends.near {
            if self.is_due(expiry, *nearness, Instant::now()) {
                say(expiry, *nearness, now);
            }
        }
        if *self.board.get() != ends {
            self.board.set(ends.clone());
        }
        ends
    }

    fn judge(&mut self, mut in_use: Vec<Expiry>, now: SystemTime) -> Ends {
        for expiry in &mut in_use {
            let seen =
                self.seen.entry(place(expiry)).or_insert(Seen { until: expiry.until, renewed: false, said: None });
            if expiry.until != seen.until {
                seen.renewed |= expiry.until > seen.until;
                (seen.until, seen.said) = (expiry.until, None);
            }
            expiry.renewed |= seen.renewed;
        }
        self.seen.retain(|known, _| in_use.iter().any(|expiry| place(expiry) == *known));
        let near = in_use.iter().map(|expiry| (expiry.clone(), expiry.nearness(now)));
        let mut near: Vec<_> = near.filter(|(_, nearness)| *nearness != Nearness::Far).collect();
        near.sort_by_key(|(expiry, _)| expiry.until);
        Ends { all: in_use, near }
    }

    /// Whether the log is to say this now; then it counts as said.
    fn is_due(&mut self, expiry: &Expiry, nearness: Nearness, now: Instant) -> bool {
        let Some(seen) = self.seen.get_mut(&place(expiry)) else { return false };
        let fresh = |(said, at): (Nearness, Instant)| said == nearness && now.saturating_duration_since(at) < REMINDER;
        let due = !seen.said.is_some_and(fresh);
        if due {
            seen.said = Some((nearness, now));
        }
        due
    }
}

fn place(expiry: &Expiry) -> Place {
    (expiry.kind.name(), expiry.origin.to_string())
}

fn say(expiry: &Expiry, nearness: Nearness, now: SystemTime) {
    let line = match nearness {
        Nearness::Past => {
            log::error("a credential for the API server has ended: nothing new is heard of NodeConfig and pods")
        }
        Nearness::Soon | Nearness::Far => log::warn("a credential for the API server ends soon"),
    };
    let left = expiry.until.duration_since(now).unwrap_or_default();
    let line = line.with("part", expiry.kind.name());
    let line = match &expiry.origin {
        Origin::File(path) => line.with("file", path.display()),
        origin => line.with("in", origin),
    };
    line.with("ends", date(expiry.until))
        .with("hours_left", left.as_secs() / 3600)
        .with("remedy", expiry.remedy())
        .write();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::expiry::Kind;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NOW: Duration = Duration::from_secs(20_000 * 24 * 3600);

    fn token(hours_left: u32) -> Expiry {
        let until = UNIX_EPOCH + NOW + DAY * hours_left / 24;
        Expiry { kind: Kind::Token, origin: Origin::File("/t".into()), since: Some(until - DAY), until, renewed: false }
    }

    #[test]
    fn an_end_is_said_once_and_daily_and_anew_when_it_has_come() {
        let (mut credentials, began) = (Credentials::default(), Instant::now());
        let mut due = |hours_left: u32, age: Duration, hours: u32| {
            let near = credentials.judge(vec![token(hours_left)], UNIX_EPOCH + NOW + age).near;
            near.first()
                .is_some_and(|(expiry, nearness)| credentials.is_due(expiry, *nearness, began + DAY * hours / 24))
        };
        assert!(!due(24 * 15, Duration::ZERO, 0));
        assert!(due(24 * 15, DAY * 2, 48));
        assert!(!due(24 * 15, DAY * 2, 71));
        assert!(due(24 * 15, DAY * 3, 72));
        assert!(due(24 * 15, DAY * 15, 80), "it has come");
        assert!(!due(24 * 15, DAY * 15, 81));
    }

    #[test]
    fn who_renews_in_time_hears_nothing_after_the_first_time() {
        let mut credentials = Credentials::default();
        let mut near = |hours_left: u32| credentials.judge(vec![token(hours_left)], UNIX_EPOCH + NOW).near.len();
        assert_eq!(near(24), 1, "nobody knows yet that it is renewed");
        assert_eq!(near(30), 0);
        assert_eq!(near(30), 0);
        assert_eq!(near(1), 1, "an earlier end is no renewal, and this one is near");
    }

    #[test]
    fn the_first_to_end_comes_first_and_what_is_gone_is_forgotten() {
        let mut credentials = Credentials::default();
        let certificate = Expiry { kind: Kind::Certificate, ..token(10) };
        let ends = credentials.judge(vec![token(20), certificate.clone()], UNIX_EPOCH + NOW);
        assert_eq!((ends.all.len(), &ends.near[0].0), (2, &certificate));
        assert_eq!(credentials.judge(Vec::new(), UNIX_EPOCH + NOW), Ends::default());
        assert!(credentials.seen.is_empty());
    }
}
