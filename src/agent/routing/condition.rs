//! Whether routers and other nodes are told the way to this node's pods, in one condition for the status.
//!
//! The only place that decides it, from what the routing thread and BIRD's keeper publish. Must not ask anybody.

use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::RoutesState;
use model::excerpt::Excerpt;
use model::routes::Stage;

/// Longest text of the condition, in bytes.
const TEXT_MAX: usize = 2048;

/// What there is to say of the node's routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Nothing is to be done.
    pub well: bool,
    /// The first thing that is to be done, or that all is well, in one word of the Kubernetes API conventions.
    pub reason: &'static str,
    /// Everything that is to be done, in one line for an operator.
    pub message: String,
}

/// The node's routing as it is now; none as long as nothing is known of it. `bgp` says whether the NodeConfig names peers.
pub fn judge(routes: &RoutesState, speaking: &Speaking, bgp: bool) -> Option<Judged> {
    let mut wrong: Vec<(&'static str, String)> = Vec::new();
    match routes.stage {
        Stage::Announcing => {}
        Stage::Draining => wrong.push((
            "Draining",
            "routers are told to prefer other nodes, as `flock-agent withdraw` asked; `flock-agent announce` ends that"
                .into(),
        )),
        Stage::Withdrawn => wrong.push((
            "Withdrawn",
            "this node announces nothing, as `flock-agent withdraw` asked; `flock-agent announce` ends that".into(),
        )),
    }
    wrong.extend(routes.problem.iter().map(|problem| ("RoutesRefused", problem.clone())));
    let (mut well, sessions) = match speaking.judge(bgp) {
        Some((true, reason, message)) => (Some((reason, message)), None),
        Some((false, reason, message)) => (None, Some((reason, message))),
        None => (None, None),
    };
    wrong.extend(sessions);
    wrong.extend(routes.contests.iter().map(|contest| ("AddressesContested", contest.clone())));
    if !bgp && routes.announced.is_some() {
        let text = "kernel table 102 holds what this node announces; without spec.bgp, flock tells no router of it";
        well = Some(("Announced", text.into()));
    }
    let text = |message: &str| Excerpt::line(message, TEXT_MAX).into();
    if let Some((reason, _)) = wrong.first() {
        let all: Vec<&str> = wrong.iter().map(|(_, message)| message.as_str()).collect();
        return Some(Judged { well: false, reason, message: text(&all.join("; ")) });
    }
    well.map(|(reason, message)| Judged { well: true, reason, message: text(&message) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::routing::bird::Trouble;

    #[test]
    fn a_node_that_is_withdrawn_refused_or_contested_says_so_with_and_without_bgp() {
        let fine = RoutesState { announced: Some(2), ..RoutesState::default() };
        let nothing = Speaking::default();
        let alone = |routes: &RoutesState| judge(routes, &nothing, false).expect("a condition");
        assert_eq!(judge(&RoutesState::default(), &nothing, false), None, "before it serves");
        assert_eq!(judge(&fine, &nothing, true), None, "before BIRD was asked");
        assert_eq!((alone(&fine).well, alone(&fine).reason), (true, "Announced"));
        let draining = RoutesState { stage: Stage::Draining, ..fine.clone() };
        let withdrawn = RoutesState { stage: Stage::Withdrawn, announced: Some(0), ..fine.clone() };
        let refused = RoutesState { problem: Some("route 10.2.0.0/24: File exists".into()), ..fine.clone() };
        let contested = RoutesState { contests: vec!["192.0.2.1 has two pods".into()], ..fine.clone() };
        for (routes, reason, words) in [
            (&draining, "Draining", "flock-agent announce"),
            (&withdrawn, "Withdrawn", "flock-agent announce"),
            (&refused, "RoutesRefused", "10.2.0.0/24"),
            (&contested, "AddressesContested", "two pods"),
        ] {
            let judged = alone(routes);
            assert_eq!((judged.well, judged.reason), (false, reason));
            assert!(judged.message.contains(words), "{judged:?}");
        }
        // What is asked for comes first, and nothing else is hidden by it.
        let down = Speaking { trouble: Some(Trouble::Unreachable("BIRD is away".into())), ..Speaking::default() };
        let both = judge(&withdrawn, &down, true).expect("a condition");
        assert_eq!(both.reason, "Withdrawn");
        assert!(both.message.ends_with("; BIRD is away"), "{both:?}");
        // Without spec.bgp, a BIRD that cannot be told so goes on as before.
        let hangs = judge(&fine, &down, false).expect("a condition");
        assert_eq!((hangs.well, hangs.reason, &*hangs.message), (false, "BirdUnreachable", "BIRD is away"));
        let many = RoutesState { contests: vec!["é".repeat(1000); 8], ..fine };
        assert!(alone(&many).message.len() <= TEXT_MAX);
    }
}
