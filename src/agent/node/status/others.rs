//! How the node stands to the others: whether somebody has addresses of its ranges, and whom it does not reach.
//!
//! Must not find that out: it says what the boards hold, as conditions.

use std::collections::BTreeSet;

use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use crate::agent::node::status::condition::{Condition, NOTES_MAX, Truth};
use model::excerpt::Excerpt;
use model::peers::{self, Own};

/// Overlaps with other nodes that are named. How many more there are is not said, since it changes whenever a node comes or goes.
const OVERLAPS_MAX: usize = 3;

/// How the node stands to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Whose ranges overlap this node's, a line each; none as long as the others are not known, or this node has no ranges.
    pub overlaps: Option<Vec<String>>,
    /// What an operator has to do to make them known.
    pub remedy: Option<String>,
    /// Which of them are not reached and why; none where this node keeps no routes to them.
    pub unreached: Option<Vec<String>>,
}

impl Others {
    /// How it stands by what these hold, for the node of this name.
    pub fn of(node: &str, state: &NodeState, listed: &Listed, unreached: Option<Vec<String>>) -> Others {
        let remedy = listed.remedy.clone();
        let (Some(_), Some(view)) = (&listed.nodes, &state.view) else {
            return Others { overlaps: None, remedy, unreached };
        };
        let own =
            Own { name: node, ranges: &view.config.prefixes(), held: &BTreeSet::new(), host: &state.whereabouts.host };
        let found = peers::overlaps(&own, &listed.peers());
        let mut overlaps: Vec<String> = found.iter().take(OVERLAPS_MAX).map(ToString::to_string).collect();
        if found.len() > OVERLAPS_MAX {
            overlaps.push("and so do others".into());
        }
        Others { overlaps: Some(overlaps), remedy: None, unreached }
    }
}

/// What there is to say of the other nodes. Whether they are reached is said only where this node sees to it.
pub fn judge_others(others: &Others) -> Vec<Condition> {
    let condition = |kind, status, reason, message: String| Condition { kind, status, reason, message };
    let lines = |lines: &[String]| Excerpt::line(&lines.join("; "), NOTES_MAX).into();
    let unique = match (others.overlaps.as_deref(), &others.remedy) {
        (Some([]), _) => {
            condition("RangesUnique", Truth::True, "Unique", "no other node has addresses of this node's ranges".into())
        }
        (Some(overlaps), _) => condition("RangesUnique", Truth::False, "RangesOverlap", lines(overlaps)),
        (None, Some(remedy)) => condition("RangesUnique", Truth::Unknown, "NotHeard", remedy.clone()),
        (None, None) => {
            condition("RangesUnique", Truth::Unknown, "NotHeard", "the ranges of all nodes are not known yet".into())
        }
    };
    let reached = others.unreached.as_deref().map(|unreached| match unreached {
        [] => condition("PeersReached", Truth::True, "Reached", "there is a route to each node that is known".into()),
        unreached => condition("PeersReached", Truth::False, "NotReached", lines(unreached)),
    });
    [unique].into_iter().chain(reached).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::agent::node::state::View;
    use crate::kube::kind::{Name, Objects};
    use model::addr::GATEWAY4;
    use model::nodeconfig::NodeConfig;
    use model::peers::Peer;

    fn config(spec: &str) -> NodeConfig {
        let head = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\n";
        model::nodeconfig::parse(format!("{head}spec: {spec}\n")).expect("valid")
    }

    fn view() -> Arc<View> {
        Arc::new(View { config: config("{cidr4: 10.0.0.0/24}"), mtu: 1500, gateway4: GATEWAY4 })
    }

    fn others(ranges: &[(&str, &str)]) -> Others {
        let peer = |range: &str| Arc::new(Peer { cidr4: range.parse().ok(), ..Peer::default() });
        let name = |name: &str| Name { namespace: String::new(), name: name.into() };
        let nodes: Objects<Peer> = ranges.iter().map(|(node, range)| (Arc::new(name(node)), peer(range))).collect();
        let listed = Listed { nodes: Some(Arc::new(nodes)), heard: true, ..Listed::default() };
        Others::of("n", &NodeState { view: Some(view()), ..NodeState::default() }, &listed, None)
    }

    #[test]
    fn a_node_with_the_range_of_another_is_told_which() {
        let [unique] = &judge_others(&others(&[("n", "10.0.0.0/24"), ("m", "10.0.1.0/24")]))[..] else { panic!("one") };
        assert_eq!((unique.status, unique.reason), (Truth::True, "Unique"));
        let [unique] = &judge_others(&others(&[("n", "10.0.0.0/24"), ("m", "10.0.0.0/16")]))[..] else { panic!("one") };
        assert_eq!((unique.kind, unique.status, unique.reason), ("RangesUnique", Truth::False, "RangesOverlap"));
        assert!(unique.message.contains("node m has 10.0.0.0/16, which overlaps 10.0.0.0/24"), "{}", unique.message);
        // In a cluster that is wrong as a whole, a node more or less is no news.
        let many: Vec<String> = (0..1000).map(|n| format!("m{n:04}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|node| (node.as_str(), "10.0.0.0/24")).collect();
        assert_eq!(others(&many), others(&many[..999]));
        assert!(judge_others(&others(&many))[0].message.len() <= NOTES_MAX);
    }

    #[test]
    fn nodes_that_are_not_known_or_not_reached_are_told_with_the_remedy() {
        let unknown = Others { remedy: Some("kubectl apply".into()), ..Others::default() };
        let [unique] = &judge_others(&unknown)[..] else { panic!("one") };
        assert_eq!(
            (unique.status, unique.reason, unique.message.as_str()),
            (Truth::Unknown, "NotHeard", "kubectl apply")
        );
        let reached = |lines: &[&str]| {
            let lines = lines.iter().map(ToString::to_string).collect();
            judge_others(&Others { unreached: Some(lines), ..Others::default() }).remove(1)
        };
        assert_eq!((reached(&[]).kind, reached(&[]).status), ("PeersReached", Truth::True));
        let far = reached(&["node m is beyond a router", "node k, too"]);
        assert_eq!((far.status, far.message.as_str()), (Truth::False, "node m is beyond a router; node k, too"));
    }
}
