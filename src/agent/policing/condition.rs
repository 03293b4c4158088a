//! Whether what pods may send and receive is in force, in one condition for the status.
//!
//! The only place that decides it, from what the policing thread publishes. Must not ask anybody.

use crate::agent::policing::state::{Kept, PolicingState};
use crate::agent::routing::condition::Judged;
use model::excerpt::Excerpt;
use model::policing::Mode;

/// Longest text of the condition, in bytes.
const TEXT_MAX: usize = 2048;

/// Pods, policies and resources that are named of each kind.
const NAMED_MAX: usize = 4;

/// What pods may send and receive as it is now; none before that was looked at.
pub fn judge(state: &PolicingState) -> Option<Judged> {
    let ails = &state.ails;
    let mut wrong: Vec<(&'static str, String)> = Vec::new();
    wrong.extend(state.problem.iter().map(|problem| ("TablesRefused", problem.error.to_string())));
    let mut lines = |reason, lines: &[String]| {
        wrong.extend(lines.iter().take(NAMED_MAX).map(|line| (reason, line.clone())));
        if lines.len() > NAMED_MAX {
            wrong.push((reason, "and so do others".into()));
        }
    };
    lines("NotWatched", &ails.refused);
    lines("PodsQuarantined", &ails.quarantined);
    lines("NotKnown", &ails.missing);
    lines("NotUnderstood", &ails.misunderstood);
    let text = |message: &str| Excerpt::line(message, TEXT_MAX).into();
    if let Some((reason, _)) = wrong.first() {
        let all: Vec<&str> = wrong.iter().map(|(_, message)| message.as_str()).collect();
        return Some(Judged { well: false, reason, message: text(&all.join("; ")) });
    }
    state.looked.then(|| {
        let (reason, message) = in_force(state.kept);
        Judged { well: true, reason, message: text(&message) }
    })
}

fn in_force(Kept { policies, sources }: Kept) -> (&'static str, String) {
    let (reason, words) = match policies {
        Some(Mode::Enforce) => ("Enforced", "NetworkPolicies are in force"),
        Some(Mode::Audit) => ("Audited", "what NetworkPolicies forbid is counted, and passes"),
        Some(Mode::None) | None if sources => ("SourcesOnly", "NetworkPolicies are not looked at"),
        Some(Mode::None) | None => ("Off", "NetworkPolicies are not looked at"),
    };
    let addresses = if sources { "addresses of their own only" } else { "whatever addresses they like" };
    (reason, format!("{words}; pods send with {addresses}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policing::state::{Ails, Problem};
    use cni::error::{Code, Error};

    #[test]
    fn what_holds_is_said_and_what_ails_comes_first_with_all_of_it() {
        assert_eq!(judge(&PolicingState::default()), None, "before anybody has looked");
        let kept = |policies, sources| PolicingState {
            looked: true,
            kept: Kept { policies, sources },
            ..PolicingState::default()
        };
        for (policies, sources, reason, words) in [
            (
                Some(Mode::Enforce),
                true,
                "Enforced",
                "NetworkPolicies are in force; pods send with addresses of their own only",
            ),
            (
                Some(Mode::Audit),
                false,
                "Audited",
                "is counted, and passes; pods send with whatever addresses they like",
            ),
            (Some(Mode::None), true, "SourcesOnly", "not looked at; pods send with addresses of their own only"),
            (None, true, "SourcesOnly", "not looked at"),
            (None, false, "Off", "not looked at; pods send with whatever"),
        ] {
            let judged = judge(&kept(policies, sources)).expect("a condition");
            assert_eq!((judged.well, judged.reason), (true, reason));
            assert!(judged.message.contains(words), "{judged:?}");
        }
        let one = |line: &str| vec![line.to_owned()];
        let fine = kept(Some(Mode::Enforce), true);
        let error = Error::new(Code::Internal, "cannot be set").with_details("modprobe nf_tables");
        for (state, reason, words) in [
            (
                PolicingState { problem: Some(Problem { error, refuses_pods: false }), ..fine.clone() },
                "TablesRefused",
                "modprobe",
            ),
            (
                PolicingState { ails: Ails { refused: one("apply rbac"), ..Ails::default() }, ..fine.clone() },
                "NotWatched",
                "rbac",
            ),
            (
                PolicingState { ails: Ails { quarantined: one("web/p"), ..Ails::default() }, ..fine.clone() },
                "PodsQuarantined",
                "web/p",
            ),
            (
                PolicingState { ails: Ails { missing: one("a list"), ..Ails::default() }, ..fine.clone() },
                "NotKnown",
                "a list",
            ),
            (
                PolicingState { ails: Ails { misunderstood: one("web/x"), ..Ails::default() }, ..fine.clone() },
                "NotUnderstood",
                "web/x",
            ),
        ] {
            let judged = judge(&state).expect("a condition");
            assert_eq!((judged.well, judged.reason), (false, reason));
            assert!(judged.message.contains(words), "{judged:?}");
        }
        let ails = Ails { refused: one("why"), quarantined: vec!["pod".into(); 9], ..Ails::default() };
        let judged = judge(&PolicingState { ails, ..fine }).expect("a condition");
        assert_eq!((judged.reason, &*judged.message), ("NotWatched", "why; pod; pod; pod; pod; and so do others"));
    }
}
