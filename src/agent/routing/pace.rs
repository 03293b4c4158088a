//! When the routing thread makes its next round, and how much that round reads anew.
//!
//! Decides on times that are arguments. Must not wait, ask the clock, or know what a round finds.

use std::time::{Duration, Instant};

use crate::agent::routing::news::Heard;
use model::routes::Stage;

/// Interval between rounds without being woken, 20 s.
pub const INTERVAL: Duration = Duration::from_secs(20);

/// Interval between looks at the file that says that the node is withdrawn, 0.5 s, while it is.
const DRAIN_INTERVAL: Duration = Duration::from_millis(500);

/// Pause after a round that failed, 1 s.
const RETRY: Duration = Duration::from_secs(1);

/// Denominator of the share of its time that the thread spends at most with rounds for which only the kernel has asked, a
/// twentieth: on a host with a full table of the internet's routes a round takes long, and links may come and go all the time.
const KERNEL_SHARE: u32 = 20;

/// Why a round is made. A round for anything else looks only at what it is told to have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// It is a round of the interval, or somebody has asked for one: everything is read anew.
    pub due: bool,
    /// The kernel has announced something since the last round that succeeded.
    pub kernel: bool,
}

/// What the next round waits for.
#[derive(Debug)]
pub struct Pace {
    /// The next round of the interval.
    next: Instant,
    /// When to look again without any news: something changes by itself then, or a round has failed.
    again_at: Option<Instant>,
    /// What no round has done yet.
    open: Round,
    /// When a round may be made at the earliest for the kernel's announcements alone.
    kernel_allowed: Instant,
}

impl Pace {
    /// A first round is made at once.
    pub fn new(now: Instant) -> Pace {
        Pace { next: now, again_at: None, open: Round::default(), kernel_allowed: now }
    }

    /// How long to wait for news, with the node at `stage`.
    pub fn wait(&self, stage: Stage, now: Instant) -> Duration {
        let kernel = self.open.kernel.then_some(self.kernel_allowed);
        let drain = (stage != Stage::Announcing).then_some(now + DRAIN_INTERVAL);
        let until = [self.again_at, kernel, drain].into_iter().flatten().fold(self.next, Instant::min);
        until.saturating_duration_since(now)
    }

    /// The round that is to be made after what was heard; none before its time. `turned` says that the node's stage is another.
    pub fn round(&mut self, heard: Heard, turned: bool, now: Instant) -> Option<Round> {
        let due = heard.again || now >= self.next;
        self.open.kernel |= heard.kernel;
        let answers = self.open.kernel && now >= self.kernel_allowed;
        if !(due || answers || heard.look || turned || self.again_at.is_some_and(|at| now >= at)) {
            return None;
        }
        if due {
            self.next = now + INTERVAL;
        }
        self.again_at = None;
        let open = std::mem::take(&mut self.open);
        Some(Round { due: due || open.due, ..open })
    }

    /// A round has ended at `now` that began at `began`. `again_at` says when something changes by itself.
    pub fn succeeded(&mut self, began: Instant, again_at: Option<Instant>, now: Instant) {
        self.again_at = again_at;
        self.kernel_allowed = now + (now - began) * KERNEL_SHARE;
    }

    /// This round has failed, and is made once more after a pause. The kernel's announcements do not shorten it.
    pub fn failed(&mut self, round: Round, began: Instant, now: Instant) {
        self.succeeded(began, Some(now + RETRY), now);
        self.kernel_allowed = self.kernel_allowed.max(now + RETRY);
        self.open = round;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(10);
    const KERNEL: Heard = Heard { look: false, pods: false, proxies: false, kernel: true, again: false, stop: false };
    const LOOK: Heard = Heard { look: true, pods: false, proxies: false, kernel: false, again: false, stop: false };

    /// The rounds that a thread makes within `time` that is woken by nobody, each of which takes no time to speak of. At most a
    /// hundred.
    fn rounds(
        pace: &mut Pace,
        began: Instant,
        time: Duration,
        mut end: impl FnMut(&mut Pace, Round, Instant),
    ) -> usize {
        let (mut now, mut made) = (began, 0);
        while now < began + time && made < 100 {
            now += pace.wait(Stage::Announcing, now);
            if let Some(round) = pace.round(Heard::default(), false, now) {
                made += 1;
                end(pace, round, now);
                now += QUICK;
            }
        }
        made
    }

    /// After the first round, and an announcement of the kernel's.
    fn woken(began: Instant) -> Pace {
        let mut pace = Pace::new(began);
        assert_eq!(pace.round(Heard::default(), false, began), Some(Round { due: true, kernel: false }));
        pace.succeeded(began, None, began + QUICK);
        assert_eq!(pace.round(KERNEL, false, began + QUICK), None, "not yet");
        pace
    }

    #[test]
    fn an_announcement_of_the_kernels_is_answered_by_one_round_whatever_that_does() {
        let began = Instant::now();
        let mut pace = woken(began);
        let mut made = Vec::new();
        let within = |pace: &mut Pace, round, now| {
            made.push(round);
            pace.succeeded(now, None, now + QUICK);
        };
        assert_eq!(rounds(&mut pace, began + QUICK, Duration::from_secs(50), within), 4);
        assert_eq!(made[0], Round { due: false, kernel: true });
        assert!(made[1..].iter().all(|round| *round == Round { due: true, kernel: false }), "{made:?}");
    }

    #[test]
    fn a_round_that_fails_at_once_is_made_again_as_it_was_after_a_pause_whatever_the_kernel_says() {
        let began = Instant::now();
        let mut pace = woken(began);
        let mut made = Vec::new();
        let fails = |pace: &mut Pace, round, now| {
            made.push(round);
            pace.failed(round, now, now + QUICK);
            assert_eq!(pace.round(KERNEL, false, now + QUICK), None);
        };
        assert_eq!(rounds(&mut pace, began + QUICK, Duration::from_secs(10), fails), 11);
        assert!(made.iter().all(|round| round.kernel), "{made:?}");
        let mut pace = Pace::new(began);
        let whole = pace.round(Heard::default(), false, began).expect("the first");
        pace.failed(whole, began, began);
        assert_eq!(pace.round(LOOK, false, began), Some(whole), "it counts as the one that failed");
    }

    #[test]
    fn what_changes_by_itself_is_looked_at_then_and_is_no_round_of_the_interval() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let mut made = Vec::new();
        let each_second = |pace: &mut Pace, round: Round, now| {
            made.push(round.due);
            pace.succeeded(now, Some(now + Duration::from_secs(1)), now + QUICK);
        };
        assert_eq!(rounds(&mut pace, began, Duration::from_secs(30), each_second), 31);
        assert_eq!(made.iter().filter(|due| **due).count(), 2, "{made:?}");
    }

    #[test]
    fn a_node_that_is_withdrawn_looks_often_whether_it_still_is() {
        let began = Instant::now();
        let mut pace = woken(began);
        pace.round(KERNEL, false, began + INTERVAL / 2);
        assert_eq!(pace.wait(Stage::Withdrawn, began + INTERVAL / 2), DRAIN_INTERVAL);
        assert_eq!(pace.round(Heard::default(), false, began + INTERVAL / 2), None);
        assert_eq!(pace.round(Heard::default(), true, began + INTERVAL / 2), Some(Round::default()));
    }
}
