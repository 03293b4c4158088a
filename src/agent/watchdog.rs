//! The watchdog: tells the service manager that the agent makes progress, and how full the node is.
//!
//! `WATCHDOG=1` means that the parts which every pod needs still make progress: the ledger is not stuck in one batch of
//! commands, nor are accept, node and reconcile in one round. It says nothing of the API server or of the speed of the disk: a
//! restart of the agent would not cure those. The log names each stuck part once before the manager ends the agent. Must not
//! end anything itself.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::ledger::{Ledger, Usage};
use crate::agent::node::state::NodeState;
use crate::process::log;
use crate::process::notify;
use crate::process::progress::Progress;

/// Longest pause between two looks, 1 s. The numbers that an operator reads in the status are hardly older than that.
const LOOK: Duration = Duration::from_secs(1);

/// The smallest count that is shown as a power of two.
const LARGE: u64 = 1 << 20;

/// The thread's state.
#[derive(Debug)]
pub struct Watchdog {
    ledger: Ledger,
    node: Board<NodeState>,
    parts: Vec<(&'static str, Progress)>,
    /// The longest time between two signs of life that the manager allows; none if it does not watch.
    interval: Option<Duration>,
    /// When the manager was last told that all is well.
    told: Option<Instant>,
    /// The status that the manager has.
    status: String,
    withheld: bool,
}

impl Watchdog {
    /// A watchdog over `parts`, each with its name for the log, that asks `ledger` how full the node is. None where there is no
    /// service manager.
    pub fn new(ledger: Ledger, node: Board<NodeState>, parts: Vec<(&'static str, Progress)>) -> Option<Watchdog> {
        notify::has_manager().then(|| Watchdog {
            ledger,
            node,
            parts,
            interval: notify::watchdog_interval(),
            told: None,
            status: String::new(),
            withheld: false,
        })
    }

    /// Watches until `stop` is dropped.
    pub fn run(mut self, stop: &Receiver<()>) {
        // A look and the rest after it take a third of the interval at most, so that the manager gets two signs in it.
        let pause = self.interval.map_or(LOOK, |interval| LOOK.min(interval / 6));
        loop {
            self.look(Instant::now() + pause);
            if !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    fn look(&mut self, deadline: Instant) {
        if let Ok(usage) = self.ledger.usage(deadline) {
            let status = status(&usage, self.node.get().view.is_some());
            if status != self.status {
                notify::send(&format!("STATUS={status}"));
                self.status = status;
            }
        }
        if let Some(interval) = self.interval
            && self.told.is_none_or(|told| told.elapsed() >= interval / 3)
        {
            self.tell(interval);
        }
    }

    fn tell(&mut self, interval: Duration) {
        let parts = self.parts.iter().map(|(name, progress)| (*name, progress.at_work_since()));
        let stuck = stuck(parts, Instant::now(), interval);
        if stuck.is_empty() {
            notify::send("WATCHDOG=1");
            self.told = Some(Instant::now());
            if self.withheld {
                log::info("agent gets on again").write();
            }
        } else if !self.withheld {
            log::error("agent is stuck, the service manager is going to restart it")
                .with("stuck", stuck.join(","))
                .write();
        }
        self.withheld = !stuck.is_empty();
    }
}

/// The parts that have not got on for twice the manager's `interval`. With the shipped unit that is two minutes: more than the
/// longest deadline of a request, and far more than a disk takes that is merely slow.
fn stuck(
    parts: impl Iterator<Item = (&'static str, Option<Instant>)>,
    now: Instant,
    interval: Duration,
) -> Vec<&'static str> {
    let stuck = parts.filter(|(_, since)| since.is_some_and(|since| now.duration_since(since) > interval * 2));
    stuck.map(|(name, _)| name).collect()
}

/// One line for `systemctl status`; its words are also for programs.
fn status(usage: &Usage, configured: bool) -> String {
    let state = if configured { "serving pods" } else { "waiting for a NodeConfig" };
    let (v4, v6) = (&usage.addresses.ipv4, &usage.addresses.ipv6);
    let (held4, held6, free4, free6) = (v4.allocated, v6.allocated, shown(v4.free), shown(v6.free));
    format!("{state}: pods={} held4={held4} held6={held6} free4={free4} free6={free6}", usage.leases)
}

/// A count in words that people can read: large ones as a power of two.
fn shown(count: u64) -> String {
    if count < LARGE {
        return count.to_string();
    }
    // To the nearest power: of a /64 with some pods, 2^64 are free rather than 2^63.
    let down = count.ilog2();
    let next_is_nearer = count - (1 << down) > (1 << down) / 2;
    format!("~2^{}", down + u32::from(next_is_nearer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ipam::{Counts, FamilyCounts};

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_a_part_that_has_been_at_work_for_two_intervals_is_stuck() {
        let began = Instant::now();
        let after = |seconds| {
            let parts = [("ledger", Some(began)), ("node", Some(began + MINUTE)), ("accept", None)];
            stuck(parts.into_iter(), began + Duration::from_secs(seconds), MINUTE)
        };
        // A sync that stalls, and a full house of requests that take as long as they may.
        for seconds in [0, 5, 20, 60, 120] {
            assert_eq!(after(seconds), Vec::<&str>::new(), "{seconds} s");
        }
        assert_eq!(after(121), ["ledger"]);
        assert_eq!(after(181), ["ledger", "node"]);
        assert_eq!(after(1_000_000), ["ledger", "node"], "who rests is never stuck");
    }

    #[test]
    fn the_status_is_for_people_and_for_programs() {
        let family = |allocated, free| FamilyCounts { allocated, free, usable: free, resting: 3 };
        let addresses = Counts { ipv6: family(12, u64::MAX), ipv4: family(11, 241) };
        assert_eq!(
            status(&Usage { leases: 12, pending: 0, addresses }, true),
            "serving pods: pods=12 held4=11 held6=12 free4=241 free6=~2^64"
        );
        assert_eq!(
            status(&Usage::default(), false),
            "waiting for a NodeConfig: pods=0 held4=0 held6=0 free4=0 free6=0"
        );
    }

    #[test]
    fn large_counts_are_powers_of_two() {
        for (count, text) in [
            (0, "0"),
            ((1 << 20) - 1, "1048575"),
            (1 << 20, "~2^20"),
            ((1 << 24) - 3, "~2^24"),
            ((1 << 24) + 3, "~2^24"),
            (1 << 63, "~2^63"),
            (u64::MAX - 1000, "~2^64"),
        ] {
            assert_eq!(shown(count), text);
        }
    }
}
