//! The numbers of the status, and how far apart they have to be for a report of their own.
//!
//! Must not decide when they are written.

use serde_json::{Map, Value, json};

use crate::agent::policing::state::PolicingState;
use crate::agent::routing::state::RoutesState;
use crate::bird::sessions::Session;
use model::ipam::FamilyCounts;
use model::policing::Mode;

/// The part of a number by which another one has to differ, and of a range that is left when it is nearly full: a tenth.
const PART: u64 = 10;

/// All counts of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Pods with a lease.
    pub pods: u64,
    /// Of IPv6.
    pub ipv6: Family,
    /// Of IPv4.
    pub ipv4: Family,
    /// Of routes and sessions. They are never a reason to write: one event in a cluster changes those of every node.
    pub routing: Value,
    /// Of policies.
    pub policy: Value,
}

/// Addresses of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// Held by pods.
    pub allocated: u64,
    /// Those of the range that a pod could have, of which so many are free; none where there is no range.
    pub range: Option<Room>,
}

/// How much of a range is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Addresses that a pod would get.
    pub free: u64,
    /// Addresses that pods may have, free or not.
    pub usable: u64,
}

impl Family {
    /// What the ledger counts, of a family with or without a range.
    pub fn of(counts: &FamilyCounts, has_range: bool) -> Family {
        let room = Room { free: counts.free, usable: counts.usable };
        Family { allocated: counts.allocated, range: has_range.then_some(room) }
    }

    /// A family without a range has nothing that could be free. Null takes away what was written before.
    fn told(&self) -> Value {
        json!({"allocated": self.allocated, "free": self.range.map(|room| room.free.to_string())})
    }

    fn is_far_from(&self, other: &Family) -> bool {
        let free = |family: &Family| family.range.map_or(0, |room| room.free);
        let is_nearly_full = |family: &Family| family.range.is_some_and(|room| room.free <= room.usable / PART);
        are_far(self.allocated, other.allocated)
            || are_far(free(self), free(other))
            || is_nearly_full(self) != is_nearly_full(other)
    }
}

impl Counts {
    /// As the status has them.
    pub fn told(&self) -> Value {
        json!({
            "pods": self.pods,
            "ipv6": self.ipv6.told(),
            "ipv4": self.ipv4.told(),
            "routing": self.routing,
            "policy": self.policy,
        })
    }

    /// Whether an operator who has read these misses something: one of them differs by a tenth, as each does that was or is zero,
    /// or a range is nearly full, or is so no more.
    pub fn are_far_from(&self, other: &Counts) -> bool {
        let policies =
            |counts: &Counts, key: &String| counts.policy.get(key).and_then(Value::as_u64).unwrap_or_default();
        let mut keys = self.policy.as_object().into_iter().flat_map(Map::keys);
        are_far(self.pods, other.pods)
            || self.ipv6.is_far_from(&other.ipv6)
            || self.ipv4.is_far_from(&other.ipv4)
            || keys.any(|key| are_far(policies(self, key), policies(other, key)))
    }
}

/// Whether two numbers differ by the tenth of the larger one.
fn are_far(one: u64, other: u64) -> bool {
    one != other && one.abs_diff(other) >= one.max(other) / PART
}

/// The counts of routes and the sessions with the peers; null takes away what was written before. In which state of connecting a
/// session is changes by the second, and is nothing that anybody needs.
pub fn routing(routes: &RoutesState, sessions: &[Session]) -> Value {
    let peer = |session: &Session| {
        let state = if session.is_established() { "Established" } else { "Down" };
        json!({
            "name": session.peer,
            "state": state,
            "since": session.since,
            "sent": session.sent,
            "accepted": session.accepted,
            "lastError": session.last_error,
        })
    };
    let peers = (!sessions.is_empty()).then(|| sessions.iter().map(peer).collect::<Vec<_>>());
    if routes.announced.is_none() && routes.reached.is_none() && peers.is_none() {
        return Value::Null;
    }
    json!({"announced": routes.announced, "reached": routes.reached, "peers": peers})
}

/// What becomes of policies, and the counts of what is in force; null takes away what was written before.
pub fn policy(policing: &PolicingState) -> Value {
    if !policing.looked {
        return Value::Null;
    }
    let (kept, counts) = (&policing.kept, &policing.counts);
    let mode = match kept.policies {
        Some(Mode::Enforce) => "enforce",
        Some(Mode::Audit) => "audit",
        Some(Mode::None) | None => "none",
    };
    json!({
        "mode": mode,
        "policies": counts.policies,
        "isolatedPods": counts.isolated,
        "quarantined": counts.quarantined,
        "audited": counts.audited,
        "checkedLinks": counts.links,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::status::standing::tests::session;
    use crate::agent::policing::state::{self as policed, Kept};

    #[test]
    fn a_tenth_is_far_and_so_is_whatever_begins_ends_or_is_nearly_full() {
        for (one, other, far) in [
            (0, 0, false),
            (0, 1, true),
            (9, 10, true),
            (19, 20, false),
            (18, 20, true),
            (100, 109, false),
            (100, 112, true),
            (u64::MAX, u64::MAX - 1, false),
            (u64::MAX, 0, true),
        ] {
            assert_eq!((are_far(one, other), are_far(other, one)), (far, far), "{one} {other}");
        }
        let of = |allocated, free| {
            let range = Some(Room { free, usable: 253 });
            Counts { pods: 100, ipv4: Family { allocated, range }, ..Counts::default() }
        };
        assert!(!of(200, 53).are_far_from(&of(199, 54)));
        assert!(of(227, 26).are_far_from(&of(228, 25)) && of(228, 25).are_far_from(&of(227, 26)), "nearly full");
        assert!(of(252, 1).are_far_from(&of(253, 0)) && of(228, 25).are_far_from(&of(230, 22)));
        // A cluster's routes are not this node's alone.
        assert!(!Counts { routing: json!({"reached": 7}), ..of(1, 252) }.are_far_from(&of(1, 252)));
        let policies =
            |policies: u64| Counts { policy: json!({"mode": "enforce", "policies": policies}), ..of(1, 252) };
        assert!(policies(1).are_far_from(&policies(2)) && !policies(40).are_far_from(&policies(41)));
        let told = Counts { ipv6: Family { allocated: 1, range: None }, ..of(1, 252) }.told();
        assert_eq!((&told["ipv4"]["free"], &told["ipv6"]), (&json!("252"), &json!({"allocated": 1, "free": null})));
    }

    #[test]
    fn what_a_node_does_not_have_any_more_is_taken_out_of_its_status() {
        let (up, counts) = (session("tor1", "Established", None), RoutesState::default());
        assert_eq!(super::routing(&counts, &[]), Value::Null);
        let counts = RoutesState { announced: Some(2), reached: Some(7), ..counts };
        let both = super::routing(&counts, &[up]);
        assert_eq!(
            (&both["announced"], &both["reached"], &both["peers"][0]["sent"]),
            (&2.into(), &7.into(), &3.into())
        );
        // Left out, a field would keep its former value.
        let alone = super::routing(&RoutesState { reached: None, ..counts }, &[]);
        assert_eq!(alone, json!({"announced": 2, "reached": null, "peers": null}));
    }

    #[test]
    fn counts_of_policies_are_told_once_they_are_known() {
        assert_eq!(super::policy(&PolicingState::default()), Value::Null);
        let counts = policed::Counts { policies: 1, isolated: 2, audited: 3, quarantined: 4, links: 5 };
        let kept = Kept { policies: Some(Mode::Audit), sources: true };
        let told = super::policy(&PolicingState { looked: true, counts, kept, ..PolicingState::default() });
        let expected = json!({
            "mode": "audit", "policies": 1, "isolatedPods": 2, "audited": 3, "quarantined": 4, "checkedLinks": 5
        });
        assert_eq!(told, expected);
    }
}
