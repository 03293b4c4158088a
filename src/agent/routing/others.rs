//! The other nodes, as far as this node's routes concern them: the routes to their ranges, and the addresses that both claim.
//!
//! `model::peers` and `model::claims` decide; this file asks the kernel which of their addresses are on a link, and publishes what
//! this node claims. Only with Kubernetes. Must not change a route itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

use crate::agent::board::Board;
use crate::agent::fault::Cause;
use crate::agent::node::peers::Listed;
use crate::agent::node::reach::OnLink;
use crate::agent::node::state::{NodeState, View};
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::Held;
use crate::kernel::netlink::Hop;
use crate::kernel::netlink::conn::Conn;
use crate::process::dates::timestamp;
use model::addr::is_link_local;
use model::claims::{self, Claimed, Contest};
use model::lease::Lease;
use model::nodeconfig;
use model::peers::{CLAIMS_MAX, Claim, Keeper, Own, Peer, Peers, Remark, Via, Word, asked, overlaps};
use model::routes::{MAIN, RouteKey, Routes, Way};

/// Denominator of the share of its time that the thread spends with questions about the same addresses again, a twentieth: with
/// a thousand nodes they take some milliseconds, and links of a host may come and go all the time.
const REACH_SHARE: u32 = 20;

/// Metric of a route to another node's range, as the kernel shows one without: that of IPv6 routes. IPv4 routes have none.
const METRIC6: u32 = 1024;

/// Metric of a route to a single address on another node. A pod's own route to its link is better and can stand beside it: a pod
/// that moves here has its route before this thread has heard of it. One that BIRD imports is worse (2048).
const METRIC_SINGLE: u32 = 1536;

/// Most pods that are named because of their address in another node's range.
const ASTRAY_MAX: usize = 4;

/// The other nodes.
#[derive(Debug)]
pub struct Others {
    /// This node's name.
    node: String,
    listed: Board<Listed>,
    /// How peers of `spec.bgp` are told.
    speaking: Board<Speaking>,
    /// What this node tells the others that its pods have.
    held: Board<Option<Held>>,
    keeper: Keeper,
    on_link: OnLink,
    /// Links, addresses or routes of the host may have changed since the kernel was asked about an address.
    stale: bool,
    /// When the kernel may be asked again about addresses that it was asked about.
    ask_again: Instant,
    /// The start of the clock on which [`Keeper`] counts.
    began: Instant,
}

/// What the other nodes mean for this one.
#[derive(Debug, Default)]
pub struct Judgement {
    /// This node keeps routes to others by itself.
    pub direct: bool,
    /// The routes to their ranges.
    pub routes: Routes,
    /// Ranges of this node that others have, too.
    pub overlaps: Vec<Remark>,
    /// Nodes that are not reached, and why; none where this node keeps no routes to others.
    pub remarks: Option<Vec<Remark>>,
    /// Addresses that another node claims, too.
    pub contests: Vec<Contest>,
    /// What else of this node's claims other nodes are in the way of, in words for an operator.
    pub astray: Vec<String>,
    /// When this changes without any news.
    pub again_at: Option<Instant>,
}

impl Others {
    /// The nodes on the board `listed`, seen from the node of this name, which is `speaking` with routers and tells what its pods
    /// have on the last board.
    pub fn new(node: String, listed: Board<Listed>, speaking: Board<Speaking>, held: Board<Option<Held>>) -> Others {
        let (keeper, on_link, now) = (Keeper::default(), OnLink::default(), Instant::now());
        Others { node, listed, speaking, held, keeper, on_link, stale: false, ask_again: now, began: now }
    }

    /// What the other nodes mean now. `shown` is what the kernel shows of this node's routes; `fresh` says that links, addresses or
    /// routes of the host may have changed.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn judge(
        &mut self,
        conn: &mut Conn,
        (state, view): (&NodeState, &View),
        leases: &[Lease],
        shown: &Routes,
        fresh: bool,
    ) -> Result<Judgement, Cause> {
        let began = Instant::now();
        // What cannot be looked at now is not forgotten.
        self.stale |= fresh;
        let listed = self.listed.get();
        let peers = listed.peers();
        let ranges = view.config.prefixes();
        let had = leases.iter().flat_map(Lease::all_addresses).collect();
        let own = Own { name: &self.node, ranges: &ranges, held: &had, host: &state.whereabouts.host };
        let (held, untold) = self.tell(leases, view);
        let claimed = held.claims;
        let mut astray = claims::astray(&self.node, &claimed, &peers, ASTRAY_MAX);
        astray.extend((untold > 0).then(untold_line));
        let mut judgement = Judgement {
            overlaps: overlaps(&own, &peers),
            contests: claims::contests(&self.node, &claimed, &peers),
            astray,
            ..Judgement::default()
        };
        let direct = directness(view.config.peers, view.config.bgp.is_some(), &self.speaking.get());
        if direct == Directness::None {
            self.keeper = Keeper::default();
            return Ok(judgement);
        }
        judgement.direct = true;
        let asks_anew = self.stale && began >= self.ask_again;
        if asks_anew {
            self.on_link.forget();
        }
        let addresses: Vec<IpAddr> = asked(&own, &peers).into_iter().chain(self.keeper.asked()).collect();
        let reach = self.on_link.among(addresses.into_iter(), conn)?;
        if asks_anew {
            self.ask_again = Instant::now() + began.elapsed() * REACH_SHARE;
            self.stale = false;
        }
        let word = if direct == Directness::Kept { Word::None } else { listed.word(&peers) };
        let decision = self.keeper.decide(self.ms(began), &own, word, &reach, &reached(shown));
        let routes = decision.routes.iter().map(|route| {
            let metric = match route.to {
                to if to.prefix_len() == to.max_prefix_len() => METRIC_SINGLE,
                IpNet::V6(_) => METRIC6,
                IpNet::V4(_) => 0,
            };
            (RouteKey { table: MAIN, to: route.to, metric }, Way::Gateway { via: route.via, link: route.link })
        });
        judgement.routes.routes = routes.collect();
        // Before the first word of the API server nobody is known to be unreached.
        judgement.remarks = listed.nodes.as_ref().filter(|_| direct == Directness::Wanted).map(|_| decision.remarks);
        let grace_ends = decision.again_at.map(|ms| self.began + Duration::from_millis(ms));
        judgement.again_at = grace_ends.into_iter().chain(self.stale.then_some(self.ask_again)).min();
        Ok(judgement)
    }

    /// The other nodes as they are now.
    pub fn listed(&self) -> Arc<Listed> {
        self.listed.get()
    }

    /// Tells the others what this node's pods have. Returns it, and of how many addresses they cannot be told.
    pub fn tell(&self, leases: &[Lease], view: &View) -> (Held, usize) {
        let (listed, told) = (self.listed.get(), self.held.get());
        let published = listed.of(&self.node).map(|own| own.claims.as_slice()).unwrap_or_default();
        // What is published is older: after a start, it tells what the agent before this one claimed.
        let told_claims = told.iter().flat_map(|held| &held.claims);
        let former: Vec<Claim> = published.iter().chain(told_claims).cloned().collect();
        let (ranges, named) = (view.config.prefixes(), &view.config.extra_prefixes);
        let Claimed { claims, untold } = claims::own(leases, &ranges, named, &former, &timestamp(SystemTime::now()));
        let held = Held { cidr6: view.config.cidr6, cidr4: view.config.cidr4, claims };
        if told.as_ref().as_ref() != Some(&held) {
            self.held.set(Some(held.clone()));
        }
        (held, untold)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether this node keeps routes to others by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directness {
    /// It does.
    Wanted,
    /// It does until a router tells it the way, and says nothing of those that it does not reach.
    Meanwhile,
    /// It is not known yet: what is there stays, and nothing is added.
    Kept,
    /// Routers know the way to all nodes, or nobody wants such routes.
    None,
}

/// Without a word of the operator, a node reaches others directly unless routers are told of it: they know the way to all nodes
/// then. They do not before the first session is established, and not any more while none is.
fn directness(peers: Option<nodeconfig::Peers>, bgp: bool, speaking: &Speaking) -> Directness {
    match (peers, bgp, speaking.is_heard()) {
        (Some(nodeconfig::Peers::Direct), ..) | (None, false, _) => Directness::Wanted,
        (Some(nodeconfig::Peers::None), ..) | (None, true, Some(true)) => Directness::None,
        (None, true, Some(false)) => Directness::Meanwhile,
        (None, true, None) => Directness::Kept,
    }
}

/// Whether somebody else's route by these hops, in whose place one of `way` is wanted, leads to the same one of `peers`.
pub fn leads_there(peers: &Peers<'_>, way: Way, hops: &[Hop]) -> bool {
    let Way::Gateway { via, link } = way else { return false };
    leads_to_the_same(peers, (via, link), hops)
}

/// Whether all of `hops` are addresses of a node that `wanted` leads to. A link-local one is that of a node on one link only.
fn leads_to_the_same(peers: &Peers<'_>, (wanted, link): Via, hops: &[Hop]) -> bool {
    let leads = |hop: &Hop, bears: &dyn Fn(IpAddr) -> bool| match *hop {
        (Some(by), Some(via)) => bears(via) && (by == link || !is_link_local(via)),
        _ => false,
    };
    let all = |bears: &dyn Fn(IpAddr) -> bool| !hops.is_empty() && hops.iter().all(|hop| leads(hop, bears));
    let of_peer = |peer: &Peer| peer.bears(wanted) && all(&|via| peer.bears(via));
    // A node that is gone has its route for a while.
    all(&|via| via == wanted) || peers.values().any(|peer| of_peer(peer))
}

/// Without their number, which changes with each pod.
fn untold_line() -> String {
    format!(
        "pods of this node have addresses beside its ranges of which other nodes are not told, as {CLAIMS_MAX} are the most: another \
         node may give one to another pod, and on a flat network has no route to them; move pods to other nodes"
    )
}

/// The routes to other nodes that the kernel shows.
fn reached(shown: &Routes) -> BTreeMap<IpNet, Via> {
    let of_others = shown.routes.iter().filter(|(key, _)| key.table == MAIN);
    of_others
        .filter_map(|(key, way)| match way {
            Way::Gateway { via, link } => Some((key.to, (*via, *link))),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::routing::bird::Trouble;
    use crate::bird::sessions::Session;
    use model::nodeconfig::Peers as Asked;
    use model::peers::NextHop;

    fn speaking(states: &[&str]) -> Speaking {
        let session = |state: &&str| Session {
            peer: "tor1".into(),
            state: (*state).into(),
            since: None,
            sent: 0,
            accepted: 0,
            last_error: None,
        };
        Speaking { sessions: states.iter().map(session).collect(), ..Speaking::default() }
    }

    #[test]
    fn a_node_with_bgp_reaches_others_directly_until_a_session_is_established() {
        let silent = Speaking { trouble: Some(Trouble::Unreachable("no BIRD".into())), ..Speaking::default() };
        for (speaking, expected) in [
            (speaking(&[]), Directness::Kept),
            (silent, Directness::Meanwhile),
            (speaking(&["Connect"]), Directness::Meanwhile),
            (speaking(&["Unknown", "Active"]), Directness::Meanwhile),
            (speaking(&["Active", "Established"]), Directness::None),
        ] {
            assert_eq!(directness(None, true, &speaking), expected, "{speaking:?}");
            // Whoever has said what he wants gets it, and a node without bgp speaks with nobody.
            assert_eq!(directness(Some(Asked::Direct), true, &speaking), Directness::Wanted);
            assert_eq!(directness(Some(Asked::None), true, &speaking), Directness::None);
            assert_eq!(directness(None, false, &speaking), Directness::Wanted);
        }
    }

    #[test]
    fn somebody_elses_route_counts_only_if_each_of_its_next_hops_is_the_same_node() {
        let hop = |address: &str, link_local: &str| NextHop {
            address: address.parse().expect("literal"),
            link_local: link_local.parse().ok(),
        };
        let next_hops = vec![hop("192.0.2.2", "fe80::2"), hop("192.0.2.3", "")];
        let (two, three) =
            (Peer { next_hops, ..Peer::default() }, Peer { next_hops: vec![hop("192.0.2.9", "")], ..Peer::default() });
        let peers = Peers::from([("two", &two), ("three", &three)]);
        let by = |link: u32, via: &str| (Some(link), via.parse().ok());
        for (hops, expected) in [
            (&[by(2, "192.0.2.2")][..], true),
            (&[by(3, "192.0.2.3")], true),
            (&[by(2, "192.0.2.3"), by(2, "192.0.2.2")], true),
            (&[by(2, "fe80::2")], true),
            (&[by(3, "fe80::2")], false),
            (&[by(2, "192.0.2.9")], false),
            (&[by(2, "192.0.2.2"), by(2, "192.0.2.9")], false),
            (&[(Some(2), None)], false),
            (&[], false),
        ] {
            assert_eq!(leads_to_the_same(&peers, ([192, 0, 2, 2].into(), 2), hops), expected, "{hops:?}");
        }
        let gone = Peers::new();
        assert!(leads_to_the_same(&gone, ([192, 0, 2, 2].into(), 2), &[by(2, "192.0.2.2")]));
        assert!(!leads_to_the_same(&gone, ([192, 0, 2, 2].into(), 2), &[by(2, "192.0.2.3")]));
    }
}
