//! The numbers of the status.
//!
//! Must not decide when they are written.

use serde_json::{Value, json};

use crate::agent::policing::state::PolicingState;
use crate::agent::routing::state::RoutesState;
use crate::bird::sessions::Session;
use model::policing::Mode;

/// What a report says beside its conditions, of the same moment as they.
#[derive(Debug)]
pub struct Counts {
    /// Of routes and sessions.
    pub routing: Value,
    /// Of policies.
    pub policy: Value,
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
