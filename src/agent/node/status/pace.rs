//! When a report is written: what an operator waits for at once, counts at most once a minute, and each of a thousand nodes at a
//! time of its own.
//!
//! Decides on values, with the time as an argument. Must not know how a report is made or sent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::node::report::{jittered, up_to};
use crate::agent::node::state::Edit;
use crate::agent::node::status::counts::Counts;
use crate::agent::suspicion::Budget;

/// Interval between reports of which only the time is new, 5 min: as rare as kubelet's, so that a thousand nodes are three writes a
/// second. Jitter adds a fifth at most.
const HEARD_INTERVAL: Duration = Duration::from_secs(300);

/// Interval between looks at the counts, 60 s, with jitter that adds a half at most. One policy changes those of many nodes in the
/// same moment, and each of them writes when its own time has come.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);

/// Reports at once of which more is new than counts.
const NEWS_MAX: u32 = 6;

/// Interval between further ones, 10 s: what comes and goes all the time is a burden to the API server, and no news.
const NEWS_INTERVAL: Duration = Duration::from_secs(10);

/// How much later each further node of the cluster may write its first report, 10 ms: a thousand that start together are a hundred
/// writes a second, and a node alone does not wait.
const START_PER_NODE: Duration = Duration::from_millis(10);

/// Longest wait for the first report, 60 s.
const START_MAX: Duration = Duration::from_secs(60);

/// What a report says.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of which edit of the NodeConfig it speaks.
    pub edit: Edit,
    /// What is told at once.
    pub news: Value,
    /// What is told in a while.
    pub counts: Counts,
}

impl Report {
    /// What these conditions, sessions (by the peer's name, and whether they are established) and counts say.
    pub fn new(edit: Edit, conditions: &[Value], sessions: &[(String, bool)], counts: Counts) -> Report {
        let news = json!([conditions, sessions, counts.policy.get("mode")]);
        Report { edit, news, counts }
    }
}

/// What was written, and when the next report is due.
#[derive(Debug)]
pub struct Pace {
    written: Option<Report>,
    /// Before this, there is no first report; none as long as nobody could write one.
    first_at: Option<Instant>,
    counts_at: Instant,
    heard_at: Instant,
    news: Budget,
}

impl Pace {
    /// Nothing has been written yet.
    pub fn new(now: Instant) -> Pace {
        let news = Budget::new(NEWS_MAX, NEWS_INTERVAL, now);
        Pace { written: None, first_at: None, counts_at: now, heard_at: now, news }
    }

    /// Whether there was a report.
    pub fn has_begun(&self) -> bool {
        self.written.is_some()
    }

    /// Whether the first report, in a cluster of so many nodes, has to wait.
    pub fn waits_to_begin(&mut self, nodes: usize, now: Instant) -> bool {
        let most = START_PER_NODE.saturating_mul(u32::try_from(nodes.saturating_sub(1)).unwrap_or(u32::MAX));
        let first_at = self.first_at.get_or_insert_with(|| now + up_to(most.min(START_MAX)));
        self.written.is_none() && now < *first_at
    }

    /// Whether a report is due that says nothing new but the time.
    pub fn is_regular(&self, now: Instant) -> bool {
        self.written.is_none() || now >= self.heard_at
    }

    /// Whether this report is to be written now.
    pub fn is_due(&mut self, report: &Report, now: Instant) -> bool {
        let Some(written) = &self.written else { return true };
        if self.is_regular(now) {
            return true;
        }
        if (&written.edit, &written.news) != (&report.edit, &report.news) {
            return self.news.take(now);
        }
        if now < self.counts_at {
            return false;
        }
        self.counts_at = now + jittered(COUNTS_INTERVAL, 2);
        written.counts.are_far_from(&report.counts)
    }

    /// The server has taken this report, and with it all counts.
    pub fn written(&mut self, report: Report, now: Instant) {
        self.written = Some(report);
        self.counts_at = now + jittered(COUNTS_INTERVAL, 2);
        self.heard_at = now + jittered(HEARD_INTERVAL, 5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::status::counts::{Family, Room, routing};
    use crate::agent::node::status::standing::tests::{session, speaking};
    use crate::agent::routing::state::RoutesState;
    use crate::bird::sessions::Session;

    fn report(condition: &str, pods: u64) -> Report {
        let ipv4 = Family { allocated: pods, range: Some(Room { free: 1000 - pods, usable: 1000 }) };
        let counts = Counts { pods, ipv4, ..Counts::default() };
        Report { edit: Edit { uid: "u".into(), generation: 1 }, news: json!([condition]), counts }
    }

    /// A node that looks each second for so long, of which the report is what `report` says: the seconds at which it wrote.
    fn written(pace: &mut Pace, began: Instant, seconds: u64, report: impl Fn(u64) -> Report) -> Vec<u64> {
        let mut times = Vec::new();
        for second in 0..seconds {
            let now = began + Duration::from_secs(second);
            let report = report(second);
            if pace.is_due(&report, now) {
                pace.written(report, now);
                times.push(second);
            }
        }
        times
    }

    /// One that has written this at second 0.
    fn begun(first: Report) -> (Pace, Instant) {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.written(first, began);
        (pace, began)
    }

    #[test]
    fn what_an_operator_waits_for_is_written_at_once_unless_it_comes_and_goes() {
        let (mut pace, began) = begun(report("Ready", 1));
        assert_eq!(written(&mut pace, began, 50, |second| report(["Ready", "Full"][usize::from(second >= 7)], 1)), [7]);
        let (mut pace, began) = begun(report("Ready", 1));
        let times = written(&mut pace, began, 290, |second| report(["Ready", "Full"][usize::from(second % 2 == 0)], 1));
        assert_eq!(times[..6], [0, 1, 2, 3, 4, 5]);
        assert!((20..=36).contains(&times.len()), "{times:?}");
        // Another edit is none less.
        let (mut pace, began) = begun(report("Ready", 1));
        let edited = |second| Report {
            edit: Edit { uid: "u".into(), generation: 1 + i64::from(second >= 3) },
            ..report("Ready", 1)
        };
        assert_eq!(written(&mut pace, began, 50, edited), [3]);
    }

    #[test]
    fn counts_are_written_in_a_minute_or_along_with_something_else() {
        let (mut pace, began) = begun(report("Ready", 1));
        let times = written(&mut pace, began, 290, |second| report("Ready", 1 + second));
        assert!((2..=4).contains(&times.len()) && times[0] >= 60, "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{times:?}");
        // Those that an operator does not miss wait for the regular report.
        let (mut pace, began) = begun(report("Ready", 100));
        let times = written(&mut pace, began, 400, |second| report("Ready", 100 + second % 9));
        assert!(times.len() == 1 && (300..=360).contains(&times[0]), "{times:?}");
        // One report says it all.
        let (mut pace, began) = begun(report("Ready", 1));
        let times = written(&mut pace, began, 290, |second| match second {
            0..30 => report("Ready", 1),
            _ => report("Full", 50),
        });
        assert_eq!(times, [30]);
    }

    #[test]
    fn a_count_of_routes_or_a_try_to_connect_is_no_report_of_its_own() {
        let of = |sessions: &[Session]| {
            let counts = Counts { routing: routing(&RoutesState::default(), sessions), ..report("Ready", 1).counts };
            Report::new(report("Ready", 1).edit, &[], &speaking(sessions, None).sessions, counts)
        };
        let turned = |first: &str, second: &str| of(&[session("a", first, None), session("b", second, None)]);
        let again = Session { sent: 4000, since: Some("2026-11-26T12:00:01Z".into()), ..session("b", "Active", None) };
        let (mut pace, began) = begun(turned("Established", "Connect"));
        let later = of(&[session("a", "Established", None), again]);
        assert_eq!(written(&mut pace, began, 290, |_| later.clone()), [0_u64; 0]);
        for (first, second) in [("Connect", "Established"), ("Established", "Established")] {
            let (mut pace, began) = begun(turned("Established", "Connect"));
            assert_eq!(written(&mut pace, began, 50, |_| turned(first, second)), [0]);
        }
        let mode = |mode| {
            Report::new(
                report("Ready", 1).edit,
                &[],
                &[],
                Counts { policy: json!({"mode": mode}), ..Counts::default() },
            )
        };
        let (mut pace, began) = begun(mode("enforce"));
        assert_eq!(written(&mut pace, began, 50, |_| mode("audit")), [0]);
    }

    #[test]
    fn a_thousand_nodes_that_start_together_do_not_write_together() {
        let began = Instant::now();
        let first = |nodes: usize| {
            let mut pace = Pace::new(began);
            (0..).find(|ms| !pace.waits_to_begin(nodes, began + Duration::from_millis(*ms))).expect("once")
        };
        assert_eq!((first(0), first(1)), (0, 0), "a node alone");
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            tenths[usize::try_from(first(1000)).expect("small") / 1000] += 1;
        }
        assert!(tenths.iter().all(|nodes| (50..150).contains(nodes)), "{tenths:?}");
        assert!(first(1_000_000) < 60_000);
        // One policy more, and later the regular reports.
        let (mut at_once, mut regular) = ([0; 31], [0; 61]);
        for _ in 0..300 {
            let (mut pace, began) = begun(report("Ready", 1));
            let times = written(&mut pace, began, 400, |_| report("Ready", 2));
            at_once[usize::try_from(times[0]).expect("small") - 60] += 1;
            let (mut pace, began) = begun(report("Ready", 1));
            let times = written(&mut pace, began, 400, |_| report("Ready", 1));
            regular[usize::try_from(times[0]).expect("small") - 300] += 1;
        }
        assert!(at_once.iter().chain(&regular).all(|nodes| *nodes < 40), "{at_once:?} {regular:?}");
    }
}
