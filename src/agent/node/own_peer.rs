//! What this node says of itself for the other nodes: its NodePeer in the API.
//!
//! One thread writes it, never in the way of a request: only when it differs from what the watch shows, at most once a second, and
//! later when the server does not take it. It belongs to the NodeConfig, or to the Node where there is none, and goes with it. Must
//! not decide what the node's pods have or by which addresses it is reached: the routing thread publishes the one, the node's
//! thread the other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::board::Board;
use crate::agent::node::peers::{Listed, RESOURCE};
use crate::agent::node::report::{RETRY, RETRY_MAX, Unreported, jittered, refused};
use crate::agent::node::state::{Basis, NodeState};
use crate::agent::routing::state::Held;
use crate::kube::client::{Client, Method};
use crate::kube::explained;
use crate::kube::objects::node_peers;
use crate::kube::url::encoded;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use model::nodeconfig::{API_VERSION, KIND};
use model::peers::{Claim, Owner, Peer};

/// Interval between looks at what there is to write, 1 s.
const INTERVAL: Duration = Duration::from_secs(1);

/// First pause after a request that the server did not take, 1 s; each further one doubles it, up to [`RETRY`]'s fourfold.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// What is applied: the server takes over the fields of this manager as a whole, and creates the object where there is none. So
/// the right to create can be bound to one name, which a plain creation cannot.
const APPLY: &str = "application/apply-patch+yaml";

/// The writer's state.
#[derive(Debug)]
pub struct OwnPeer {
    client: Arc<Client>,
    node: String,
    state: Board<NodeState>,
    listed: Board<Listed>,
    held: Board<Option<Held>>,
    /// What the server has taken last, and when. Should the watch not show it, nothing is gained by writing it each second.
    written: Option<(Peer, Instant)>,
    /// How often the client had moved to another server at the last look.
    moves: u64,
    pause: Duration,
    not_before: Option<Instant>,
    failing: Lasting,
}

impl OwnPeer {
    /// A writer that has written nothing yet, for the node of this name, whose pods have what is `held`.
    pub fn new(
        client: Arc<Client>,
        node: String,
        state: Board<NodeState>,
        listed: Board<Listed>,
        held: Board<Option<Held>>,
    ) -> OwnPeer {
        let (written, moves, pause, not_before) = (None, 0, PAUSE_MIN, None);
        OwnPeer { client, node, state, listed, held, written, moves, pause, not_before, failing: Lasting::default() }
    }

    /// Writes until `stop` says so or is dropped. Whoever cannot wait for that shuts the client down.
    pub fn run(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.round();
        }
    }

    fn round(&mut self) {
        // Another server does not have what the former one has taken.
        if self.client.moves() != self.moves {
            self.moves = self.client.moves();
            (self.written, self.not_before, self.pause) = (None, None, PAUSE_MIN);
        }
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        let listed = self.listed.get();
        let shown = listed.of(&self.node);
        let former = shown.map(|shown| shown.claims.as_slice()).unwrap_or_default();
        // What an agent before this one has said stands until this one has looked.
        let held = self.held.get();
        let wanted = held.iter().filter(|_| listed.heard).find_map(|held| wanted(&self.state.get(), held, former));
        let Some(wanted) = wanted else { return };
        if shown.is_some_and(|shown| **shown == wanted) {
            self.written = None;
            return;
        }
        if self.written.as_ref().is_some_and(|(written, at)| *written == wanted && at.elapsed() < RETRY) {
            return;
        }
        match self.apply(&wanted) {
            Ok(()) => {
                let line = log::info("NodePeer written").with("node", &self.node).with("spec", spec(&wanted));
                self.failing.ended(line).write_limited();
                self.pause = PAUSE_MIN;
                self.written = Some((wanted, Instant::now()));
            }
            Err((why, asked)) => {
                let wait = asked.unwrap_or_default().min(RETRY_MAX).max(jittered(self.pause, 1));
                self.not_before = Some(Instant::now() + wait);
                self.pause = (self.pause * 2).min(RETRY * 4);
                self.failing.met(why, || {
                    log::warn("NodePeer cannot be written: other nodes do not learn the way to the pods of this one")
                });
            }
        }
    }

    /// Creates or replaces the object. An error is in words for an operator, with the pause that the server asks for.
    fn apply(&self, peer: &Peer) -> Result<(), (String, Option<Duration>)> {
        let path = format!("{}/{}?fieldManager=flock-agent&force=true", node_peers(), encoded(&self.node));
        let body = object(&self.node, peer).to_string();
        let answer = self.client.send(Method::Patch, &path, APPLY, body.as_bytes());
        let answer = answer.map_err(|error| (explained(&error), None))?;
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        // One request needs two rights, and the server says which is missing.
        let verb = match answer.body.windows(13).any(|words| words == b"cannot create") {
            true => "create",
            false => "patch",
        };
        match refused(verb, RESOURCE, &answer) {
            Unreported::Gone => Err(("the API server lost it while it was written".into(), answer.retry_after)),
            Unreported::Failed { why, wait } => Err((why, wait)),
        }
    }
}

/// What this node should say of itself; none as long as there is nothing to say, or no object in the API to which it would
/// belong. A claim that is among `former`, which the others have been told, never becomes younger: the earlier one of two nodes
/// counts, and an agent that was started anew may not know yet how old its own is.
fn wanted(state: &NodeState, held: &Held, former: &[Claim]) -> Option<Peer> {
    let aged = |claim: &Claim| {
        let known = former.iter().filter(|told| claim.continues(told));
        let earlier = known.map(|told| &told.since).chain([&claim.since]).min();
        Claim { since: earlier.unwrap_or(&claim.since).clone(), ..claim.clone() }
    };
    let owner = match &state.verdict.basis {
        Basis::NodeConfig(edit) => Owner::NodeConfig(edit.uid.as_str().into()),
        Basis::PodCidrs(uid) => Owner::Node(uid.as_str().into()),
        Basis::Nothing | Basis::File => return None,
    };
    Some(Peer {
        cidr6: held.cidr6,
        cidr4: held.cidr4,
        next_hops: state.whereabouts.next_hops.clone(),
        claims: held.claims.iter().map(aged).collect(),
        owner: Some(owner),
        problems: Vec::new(),
    })
}

fn object(node: &str, peer: &Peer) -> Value {
    let owner = peer.owner.iter().map(|owner| {
        let (version, kind, uid) = match owner {
            Owner::NodeConfig(uid) => (API_VERSION, KIND, uid),
            Owner::Node(uid) => ("v1", "Node", uid),
        };
        json!({"apiVersion": version, "kind": kind, "name": node, "uid": uid})
    });
    json!({
        "apiVersion": API_VERSION,
        "kind": "NodePeer",
        "metadata": {"name": node, "ownerReferences": owner.collect::<Vec<_>>()},
        "spec": spec(peer),
    })
}

fn spec(peer: &Peer) -> Value {
    let hops = peer.next_hops.iter().map(|hop| match hop.link_local {
        Some(link_local) => json!({"address": hop.address, "linkLocal": link_local}),
        None => json!({"address": hop.address}),
    });
    let claims = peer.claims.iter().map(|claim| {
        let mut entry = json!({"address": claim.address, "pod": claim.pod, "since": claim.since});
        if let (true, Some(fields)) = (claim.shared, entry.as_object_mut()) {
            fields.insert("shared".into(), true.into());
        }
        entry
    });
    let mut spec = json!({"nextHops": hops.collect::<Vec<_>>()});
    if let Some(fields) = spec.as_object_mut() {
        fields.extend(peer.cidr6.map(|net| ("cidr6".into(), net.to_string().into())));
        fields.extend(peer.cidr4.map(|net| ("cidr4".into(), net.to_string().into())));
        let claims: Vec<Value> = claims.collect();
        fields.extend((!claims.is_empty()).then(|| ("claims".into(), claims.into())));
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::state::{Basis, Edit, Verdict, Whereabouts};
    use crate::kube::kind::Kind as _;
    use crate::kube::objects::NodePeers;
    use model::peers::NextHop;
    use serde_json::value::RawValue;

    fn of(basis: Basis) -> Verdict {
        Verdict { basis, ..Verdict::default() }
    }

    fn state() -> NodeState {
        let hop = |address: &str, link_local: &str| NextHop {
            address: address.parse().expect("an address"),
            link_local: link_local.parse().ok(),
        };
        let next_hops = vec![hop("2001:db8:f::1", "fe80::1:2"), hop("192.0.2.1", "")];
        NodeState {
            verdict: of(Basis::NodeConfig(Edit { uid: "u1".into(), generation: 1 })),
            whereabouts: Arc::new(Whereabouts { next_hops, ..Whereabouts::default() }),
            ..NodeState::default()
        }
    }

    fn held(claims: &[Claim]) -> Held {
        Held { cidr6: "2001:db8::/64".parse().ok(), cidr4: "10.0.0.0/24".parse().ok(), claims: claims.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_by_others_as_it_was_meant() {
        let claim = |host: u8, shared| Claim {
            address: [203, 0, 113, host].into(),
            pod: "web/a".into(),
            since: "2026-11-26T12:00:00Z".into(),
            shared,
        };
        for claims in [vec![], vec![claim(7, false), claim(53, true)]] {
            for state in [state(), NodeState { verdict: of(Basis::PodCidrs("u2".into())), ..state() }] {
                let meant = wanted(&state, &held(&claims), &[]).expect("something to say");
                let raw = RawValue::from_string(object("n", &meant).to_string()).expect("JSON");
                assert_eq!(NodePeers.reduce(&raw), Ok(Some(meant)));
            }
        }
    }

    #[test]
    fn a_claim_never_becomes_younger_by_a_start_of_the_agent() {
        let claim = |pod: &str, since: &str| Claim {
            address: [203, 0, 113, 7].into(),
            pod: pod.into(),
            since: since.into(),
            shared: false,
        };
        let shared = |pod: &str, since: &str| Claim { shared: true, ..claim(pod, since) };
        let (early, late) = ("2026-11-26T12:00:00Z", "2026-11-26T13:00:00Z");
        for (now, told, expected) in [
            (shared("web/b", late), shared("web/a", early), early),
            // The same pod, made anew with the other annotation: what it was before is over.
            (shared("web/a", late), claim("web/a", early), late),
            (claim("web/a", late), shared("web/a", early), late),
            (claim("web/a", late), claim("web/a", early), early),
            (claim("web/a", early), claim("web/a", late), early),
            (claim("web/b", late), claim("web/a", early), late),
        ] {
            let said = wanted(&state(), &held(std::slice::from_ref(&now)), &[told]).expect("something to say");
            assert_eq!(said.claims, [Claim { since: expected.into(), ..now }]);
        }
    }

    #[test]
    fn nothing_is_said_before_there_is_an_object_that_it_belongs_to() {
        assert!(wanted(&state(), &held(&[]), &[]).is_some());
        for basis in [Basis::Nothing, Basis::File] {
            assert_eq!(wanted(&NodeState { verdict: of(basis), ..state() }, &held(&[]), &[]), None);
        }
    }
}
