//! Other nodes of the cluster: what they say of themselves, which of their ranges this host reaches by which next hop, and how
//! long a route outlives its node.
//!
//! Only what is on a link of this host is ever a next hop, so a route that is made here leads to its node or to nobody. Decides on
//! values; must not ask the kernel or the API server, and knows the time only as an argument.

pub mod claim;
pub mod own;

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::net::{IpAddr, Ipv6Addr};
use core::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{AddrError, check_prefix4, check_prefix6, is_edge};
use claim::counting;
pub use claim::{CLAIMS_MAX, Claim};

/// Most next hops of one node.
pub const NEXT_HOPS_MAX: usize = 16;

/// How long the routes to a node stay that the API server does not have any more, in milliseconds: objects are deleted and made
/// again.
pub const GRACE: u64 = 60_000;

/// Most routes to single addresses that pods of other nodes have beside their nodes' ranges; the first ones in order have theirs.
pub const SINGLES_MAX: usize = 8192;

/// Lines of [`summary`] at most.
pub const SUMMARY_MAX: usize = 8;

/// Nodes, or ranges, that one line of [`summary`] names.
const NAMED_MAX: usize = 3;

/// A node as it describes itself for the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its IPv6 range for pods.
    pub cidr6: Option<Ipv6Net>,
    /// Its IPv4 range for pods.
    pub cidr4: Option<Ipv4Net>,
    /// Where packets for its pods can be sent, best first; at most [`NEXT_HOPS_MAX`].
    pub next_hops: Vec<NextHop>,
    /// Addresses outside of its ranges that its pods have; at most [`CLAIMS_MAX`].
    pub claims: Vec<Claim>,
    /// The object with which what it says of itself goes.
    pub owner: Option<Owner>,
    /// What could not be read of it, in words for an operator. It counts as absent.
    pub problems: Vec<String>,
}

/// The object of the API that stands for a node, and without which nothing is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Its NodeConfig, by its uid.
    NodeConfig(Box<str>),
    /// Its Node, by its uid, where it has no NodeConfig.
    Node(Box<str>),
}

/// An address of a node on one of its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The address; never a link-local one.
    pub address: IpAddr,
    /// The link-local address of the same link.
    pub link_local: Option<Ipv6Addr>,
}

/// Nodes by their names.
pub type Peers<'a> = BTreeMap<&'a str, &'a Peer>;

/// Addresses that are on a link of this host, with the index of that link.
pub type Reach = BTreeMap<IpAddr, u32>;

/// Where a route to another node leads: gateway, and index of the link.
pub type Via = (IpAddr, u32);

/// What a host's network looks like, as far as a route to another node could harm it. Less what bears flock's mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The addresses of the host, but for loopback and link-local ones.
    pub addresses: BTreeSet<IpAddr>,
    /// The networks that it is connected to.
    pub networks: BTreeSet<IpNet>,
    /// The gateways of its routes.
    pub gateways: BTreeSet<IpAddr>,
}

/// This node.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its name, which is none of another node's.
    pub name: &'a str,
    /// Its ranges for pods.
    pub ranges: &'a [IpNet],
    /// The addresses that its pods have.
    pub held: &'a BTreeSet<IpAddr>,
    /// What its host is connected to.
    pub host: &'a Surroundings,
}

/// A route to pods of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoute {
    /// The range, or a single address.
    pub to: IpNet,
    /// The next hop, of either family.
    pub via: IpAddr,
    /// Index of the link that the next hop is on.
    pub link: u32,
}

/// Something about another node that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The other node.
    pub node: String,
    /// What.
    pub what: Finding,
}

/// Why another node, or one of its ranges, has no route here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Its range and one of this node's have addresses in common.
    Overlap {
        /// The other node's range.
        theirs: IpNet,
        /// This node's.
        ours: IpNet,
    },
    /// Its range would take something away from this host.
    Covers {
        /// The range.
        range: IpNet,
        /// What is in it.
        what: Covered,
    },
    /// Another node has the same range, or one that meets it, and keeps it.
    SameRange {
        /// The range.
        range: IpNet,
        /// The node that keeps its own.
        keeps: String,
        /// The range of that node.
        kept: IpNet,
    },
    /// An address of one of its pods would take something away.
    Claimed {
        /// The address.
        address: IpAddr,
        /// The pod, `NAMESPACE/NAME`.
        pod: Box<str>,
        /// What the address is.
        what: Covered,
    },
    /// Nodes have more addresses beside their ranges than [`SINGLES_MAX`].
    TooMany,
    /// None of its addresses is on a link of this host.
    BeyondRouter,
    /// It names no address.
    NoNextHop,
    /// It is on a link of this host, but not in the family of the range, and says no link-local address of that link.
    NoLinkLocal {
        /// The range.
        range: IpNet,
    },
    /// A part of what it says cannot be read; the reason.
    Unreadable(String),
}

/// What the range of another node must not have in it, and an address of its pods must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Covered {
    /// An address of this host.
    Address(IpAddr),
    /// A network of this host.
    Network(IpNet),
    /// The gateway of a route of this host.
    Gateway(IpAddr),
    /// The next hop to a third node.
    NextHop(IpAddr, String),
    /// Addresses that no node's pods can have.
    Absurd(&'static str),
    /// The first or last address of a network of this host, which stand for the network.
    Edge(IpNet),
    /// A part of a range of this node.
    OwnRange(IpNet),
    /// A part of a range of a third node.
    Range(IpNet, String),
    /// An address of a pod of this node.
    Pod(IpAddr),
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Covered::Address(ip) => write!(f, "{ip}, an address of this host"),
            Covered::Network(net) => write!(f, "{net}, a network of this host"),
            Covered::Gateway(ip) => write!(f, "{ip}, a gateway of this host"),
            Covered::NextHop(ip, node) => write!(f, "{ip}, an address of node {node}"),
            Covered::Absurd(what) => f.write_str(what),
            Covered::Edge(net) => write!(f, "the first or last address of {net}, a network of this host"),
            Covered::OwnRange(net) => write!(f, "in {net}, a range of this node"),
            Covered::Range(net, node) => write!(f, "in {net}, a range of node {node}"),
            Covered::Pod(ip) => write!(f, "{ip}, an address of a pod of this node"),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.what {
            Finding::Overlap { theirs, ours } => {
                write!(
                    f,
                    "node {node} has {theirs}, which overlaps {ours} of this node: one of the two needs another range"
                )
            }
            Finding::Covers { range, what } => {
                write!(f, "no route to {range} of node {node}, as it holds {what}: give that node another range")
            }
            Finding::SameRange { range, keeps, kept } => {
                write!(f, "no route to {range} of node {node}, as node {keeps} has ")?;
                match range == kept {
                    true => f.write_str("the same range")?,
                    false => write!(f, "{kept}")?,
                }
                f.write_str(": one of the two needs another")
            }
            Finding::Claimed { address, pod, what } => {
                write!(f, "no route to {address} for pod {pod} of node {node}, as that is {what}")
            }
            Finding::TooMany => write!(
                f,
                "no route to some pods' addresses beside the ranges of node {node}: there is room for {SINGLES_MAX} of all nodes"
            ),
            Finding::BeyondRouter => write!(f, "node {node} is beyond a router: it needs bgp, or a route there"),
            Finding::NoNextHop => write!(f, "node {node} names no address that it could be reached by"),
            Finding::NoLinkLocal { range } => {
                write!(
                    f,
                    "no route to {range} of node {node}: of its addresses on a link of this host, none is of that family or link-local"
                )
            }
            Finding::Unreadable(why) => write!(f, "NodePeer {node}: {why}"),
        }
    }
}

impl Peer {
    /// Its ranges, IPv6 first.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.cidr6.map(IpNet::from).into_iter().chain(self.cidr4.map(IpNet::from))
    }

    /// What its pods have, each alone, outside of its ranges.
    fn beside(&self) -> impl Iterator<Item = &Claim> {
        let inside = |claim: &Claim| self.ranges().any(|range| range.contains(&claim.address));
        self.claims.iter().filter(move |claim| !claim.shared && !inside(claim))
    }

    /// Whether `ip` is one of its next hops or their link-local addresses.
    pub fn bears(&self, ip: IpAddr) -> bool {
        self.next_hops.iter().any(|hop| hop.address == ip || hop.link_local.map(IpAddr::from) == Some(ip))
    }

    /// The addresses that can be a next hop: one of its pods' would lead to itself, one of this node's pods or of this host
    /// leads nowhere.
    fn usable(&self, own: &Own<'_>) -> impl Iterator<Item = &NextHop> {
        let pods = |ip: &IpAddr| self.ranges().chain(own.ranges.iter().copied()).any(|range| range.contains(ip));
        let here = |ip: &IpAddr| own.host.addresses.contains(ip) || own.held.contains(ip);
        self.next_hops.iter().filter(move |hop| !here(&hop.address) && !pods(&hop.address))
    }
}

/// The addresses about which [`routes`] and [`Keeper::decide`] want to know whether they are on a link.
pub fn asked(own: &Own<'_>, peers: &Peers<'_>) -> BTreeSet<IpAddr> {
    others(own, peers).flat_map(|(_, peer)| peer.usable(own).map(|hop| hop.address).collect::<Vec<_>>()).collect()
}

/// The ranges that other nodes have in common with this one, in order.
pub fn overlaps(own: &Own<'_>, peers: &Peers<'_>) -> Vec<Remark> {
    let mut found = Vec::new();
    for (name, peer) in others(own, peers) {
        for theirs in peer.ranges() {
            if let Some(ours) = own.ranges.iter().find(|ours| meets(ours, &theirs)) {
                let what = Finding::Overlap { theirs, ours: *ours };
                found.push(Remark { node: name.to_owned(), what });
            }
        }
    }
    found
}

/// The routes to the other nodes, in order of their destinations, and why others have none, in order of the nodes.
///
/// Beside its ranges, a node is led to by each address outside of them that one of its pods has, if its claim is the one that
/// counts. `reach` tells which of [`asked`] are on a link. `shown` are the routes to other nodes that are there: of two nodes with
/// ranges that meet, or with an address in the range of the other, the one to which it leads already keeps it.
pub fn routes(
    own: &Own<'_>,
    peers: &Peers<'_>,
    reach: &Reach,
    shown: &BTreeMap<IpNet, Via>,
) -> (Vec<PeerRoute>, Vec<Remark>) {
    let guard = Guard::new(own, peers);
    let counting = counting_nodes(own, peers);
    let mut remarks = overlaps(own, peers);
    let mut ranges: Vec<Candidate<'_>> = Vec::new();
    let mut singles: BTreeMap<IpAddr, (Candidate<'_>, &Claim)> = BTreeMap::new();
    for (name, peer) in others(own, peers) {
        let mut say = |what| remarks.push(Remark { node: name.to_owned(), what });
        peer.problems.iter().for_each(|problem| say(Finding::Unreadable(problem.clone())));
        let usable: Vec<(&NextHop, Option<u32>)> =
            peer.usable(own).map(|hop| (hop, reach.get(&hop.address).copied())).collect();
        let admitted: Vec<IpNet> = peer
            .ranges()
            .filter(|range| match guard.refusal(name, range) {
                None => true,
                Some(Finding::Overlap { .. }) => false,
                Some(finding) => {
                    say(finding);
                    false
                }
            })
            .collect();
        let mut beside: Vec<&Claim> = peer.beside().filter(|c| counting.get(&c.address) == Some(&name)).collect();
        let mut refused = None;
        beside.retain(|claim| match guard.refusal_of_single(claim.address) {
            None => true,
            Some(what) => {
                refused.get_or_insert((*claim, what));
                false
            }
        });
        // One line for a node that may claim hundreds.
        if let Some((claim, what)) = refused {
            say(Finding::Claimed { address: claim.address, pod: claim.pod.clone(), what });
        }
        if admitted.is_empty() && beside.is_empty() {
            continue;
        }
        if usable.iter().all(|(_, link)| link.is_none()) {
            say(if peer.next_hops.is_empty() { Finding::NoNextHop } else { Finding::BeyondRouter });
            continue;
        }
        let ways = [true, false].map(|v6| way(v6, &usable));
        let way = |to: &IpNet| if to.addr().is_ipv6() { ways[0] } else { ways[1] };
        let mut lacking = BTreeSet::new();
        for to in admitted {
            match way(&to) {
                Some(via) => ranges.push(Candidate { name, peer, to, via }),
                None => lacking.extend([to]),
            }
        }
        for claim in beside {
            let to = IpNet::from(claim.address);
            match way(&to) {
                Some(via) => _ = singles.insert(claim.address, (Candidate { name, peer, to, via }, claim)),
                // Only IPv6 can lack a way where there is one at all.
                None if lacking.is_empty() => lacking.extend([to]),
                None => {}
            }
        }
        lacking.into_iter().for_each(|range| say(Finding::NoLinkLocal { range }));
    }
    let mut accepted: BTreeMap<IpNet, (&str, Via)> = BTreeMap::new();
    let has_it = |one: &Candidate<'_>| shown.get(&one.to).is_some_and(|(via, _)| one.peer.bears(*via));
    ranges.sort_by_key(|one| (!has_it(one), one.name, one.to));
    ranges.retain(|one| {
        let meets = meeting(&accepted, &one.to).is_some();
        if !meets {
            accepted.insert(one.to, (one.name, one.via));
        }
        meets
    });
    // Of several that it meets, the same one is named whichever was accepted first.
    for Candidate { name, to, .. } in ranges {
        if let Some((kept, (keeps, _))) = meeting(&accepted, &to) {
            let what = Finding::SameRange { range: to, keeps: (*keeps).to_owned(), kept: *kept };
            remarks.push(Remark { node: name.to_owned(), what });
        }
    }
    let mut found: Vec<PeerRoute> =
        accepted.iter().map(|(to, (_, (via, link)))| PeerRoute { to: *to, via: *via, link: *link }).collect();
    let (mut room, mut told) = (SINGLES_MAX, BTreeSet::new());
    for (address, (Candidate { name, peer, to, via: (via, link) }, claim)) in singles {
        let third = meeting(&accepted, &to).filter(|(_, (node, _))| *node != name);
        // A gateway that both bear tells nothing.
        let bears = |node: &str, via| peers.get(node).is_some_and(|third| third.bears(via));
        let is_led = |third: &str| leads(shown, address).is_some_and(|via| peer.bears(via) && !bears(third, via));
        let what = match third {
            Some((net, (node, _))) if !is_led(node) => {
                let what = Covered::Range(*net, (*node).to_owned());
                Finding::Claimed { address, pod: claim.pod.clone(), what }
            }
            _ if room == 0 => Finding::TooMany,
            _ => {
                room -= 1;
                found.push(PeerRoute { to, via, link });
                continue;
            }
        };
        if told.insert(name) {
            remarks.push(Remark { node: name.to_owned(), what });
        }
    }
    found.sort_by_key(|route| route.to);
    remarks.sort();
    (found, remarks)
}

/// A range or an address that could be led to a node.
struct Candidate<'a> {
    name: &'a str,
    peer: &'a Peer,
    to: IpNet,
    via: Via,
}

/// For each address that a pod of another node has alone, the node whose claim counts.
fn counting_nodes<'a>(own: &Own<'_>, peers: &Peers<'a>) -> BTreeMap<IpAddr, &'a str> {
    let mut claims: Vec<(&str, &Claim)> =
        others(own, peers).flat_map(|(name, peer)| peer.claims.iter().map(move |claim| (name, claim))).collect();
    claims.sort_by_key(|(_, claim)| claim.address);
    let of_one = claims.chunk_by(|(_, one), (_, other)| one.address == other.address);
    of_one.filter_map(counting).filter(|(_, claim)| !claim.shared).map(|(name, claim)| (claim.address, name)).collect()
}

/// That one of `ranges`, of which no two meet, that `range` meets; the first of several.
fn meeting<'a, T>(ranges: &'a BTreeMap<IpNet, T>, range: &IpNet) -> Option<(&'a IpNet, &'a T)> {
    let around = ranges.range(..=range).next_back().filter(|(other, _)| meets(other, range));
    around.or_else(|| ranges.range(range..).next().filter(|(other, _)| meets(other, range)))
}

/// The gateway to which `routes` lead a packet to `ip`.
fn leads(routes: &BTreeMap<IpNet, Via>, ip: IpAddr) -> Option<IpAddr> {
    around(IpNet::from(ip)).find_map(|net| routes.get(&net)).map(|(via, _)| *via)
}

/// `net` and each network that it is in, the smallest first.
fn around(net: IpNet) -> impl Iterator<Item = IpNet> {
    core::iter::successors(Some(net), IpNet::supernet)
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn others<'a>(own: &Own<'_>, peers: &Peers<'a>) -> impl Iterator<Item = (&'a str, &'a Peer)> {
    peers.iter().filter(|(name, _)| **name != own.name).map(|(name, peer)| (*name, *peer))
}

/// The best way to addresses of a family by next hops of which it is known whether they are on a link: one of that family, then
/// for IPv4 one of the other, then the link-local address of a next hop that is on a link.
fn way(v6: bool, hops: &[(&NextHop, Option<u32>)]) -> Option<Via> {
    let on_link = || hops.iter().filter_map(|(hop, link)| Some((*hop, (*link)?)));
    let of = |v6: bool| on_link().find(|(hop, _)| hop.address.is_ipv6() == v6).map(|(hop, link)| (hop.address, link));
    let other = || if v6 { None } else { of(true) };
    let link_local = || on_link().find_map(|(hop, link)| Some((hop.link_local?.into(), link)));
    of(v6).or_else(other).or_else(link_local)
}

fn meets(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn span(range: &IpNet) -> RangeInclusive<IpAddr> {
    range.network()..=range.broadcast()
}

/// Those of a sorted list whose address is in `span`.
fn within<'s, 'a>(list: &'s [(IpAddr, &'a str)], span: RangeInclusive<IpAddr>) -> &'s [(IpAddr, &'a str)] {
    let from = list.partition_point(|(ip, _)| ip < span.start());
    let behind = list.partition_point(|(ip, _)| ip <= span.end());
    list.get(from..behind).unwrap_or_default()
}

/// What no route to another node may take away.
struct Guard<'a> {
    own: Own<'a>,
    /// The next hops of all nodes and whose they are, in order.
    hops: Vec<(IpAddr, &'a str)>,
    /// The link-local addresses beside them, the same way.
    link_locals: Vec<(IpAddr, &'a str)>,
}

impl<'a> Guard<'a> {
    fn new(own: &Own<'a>, peers: &Peers<'a>) -> Guard<'a> {
        let of_all = || others(own, peers).flat_map(|(name, peer)| peer.next_hops.iter().map(move |hop| (name, hop)));
        let link_local = |(name, hop): (&'a str, &NextHop)| Some((IpAddr::from(hop.link_local?), name));
        let mut hops: Vec<_> = of_all().map(|(name, hop)| (hop.address, name)).collect();
        let mut link_locals: Vec<_> = of_all().filter_map(link_local).collect();
        hops.sort_unstable();
        link_locals.sort_unstable();
        Guard { own: *own, hops, link_locals }
    }

    /// The nodes that bear `via`, as a next hop or the link-local address beside one.
    fn bearers(&self, via: IpAddr) -> impl Iterator<Item = &'a str> {
        let of = |list| within(list, via..=via);
        of(&self.hops).iter().chain(of(&self.link_locals)).map(|(_, name)| *name)
    }

    /// Why `range` of the node `name` gets no route whatever is on a link; none if it may have one. A range that a node's own next
    /// hop is in may: only that next hop is of no use then.
    fn refusal(&self, name: &str, range: &IpNet) -> Option<Finding> {
        if let Some(ours) = self.own.ranges.iter().find(|ours| meets(ours, range)) {
            return Some(Finding::Overlap { theirs: *range, ours: *ours });
        }
        let covered = |what| Some(Finding::Covers { range: *range, what });
        if let Some(what) = absurd(range) {
            return covered(Covered::Absurd(what));
        }
        let host = self.own.host;
        if let Some(network) = host.networks.iter().find(|network| range.contains(*network)) {
            return covered(Covered::Network(*network));
        }
        if let Some(ip) = host.addresses.range(span(range)).next() {
            return covered(Covered::Address(*ip));
        }
        if let Some(ip) = host.gateways.range(span(range)).next() {
            return covered(Covered::Gateway(*ip));
        }
        let hop = within(&self.hops, span(range)).iter().find(|(_, node)| *node != name);
        hop.and_then(|(ip, node)| covered(Covered::NextHop(*ip, (*node).to_owned())))
    }
}

impl Guard<'_> {
    /// What `ip`, an address of another node's pod beside its ranges, is already; none if it may have a route. No node's address
    /// may, as it would lead to itself.
    fn refusal_of_single(&self, ip: IpAddr) -> Option<Covered> {
        if self.own.held.contains(&ip) {
            return Some(Covered::Pod(ip));
        }
        match self.refusal("", &IpNet::from(ip)) {
            Some(Finding::Overlap { ours, .. }) => return Some(Covered::OwnRange(ours)),
            Some(Finding::Covers { what, .. }) => return Some(what),
            _ => {}
        }
        self.own.host.networks.iter().find(|net| is_edge(net, ip)).map(|net| Covered::Edge(*net))
    }

    /// Whether one of the nodes that bear `via` has still pods in `to`, a range that is none of a node any more.
    fn is_inhabited(&self, peers: &Peers<'_>, to: &IpNet, via: IpAddr) -> bool {
        let inhabits = |name: &str| {
            let inside = |peer: &Peer| peer.claims.iter().any(|claim| !claim.shared && to.contains(&claim.address));
            peers.get(name).is_some_and(|peer| inside(peer)) && self.refusal(name, to).is_none()
        };
        self.bearers(via).any(inhabits)
    }
}

/// Why no node's pods can have addresses in `range`, if so. What the NodeConfig refuses is refused here, too.
fn absurd(range: &IpNet) -> Option<&'static str> {
    if range.prefix_len() == 0 {
        return Some("every address");
    }
    let unfit = match range {
        IpNet::V6(net) => check_prefix6(*net).err(),
        IpNet::V4(net) => check_prefix4(*net).err(),
    };
    match unfit? {
        AddrError::NotUnicast(what) => Some(what),
        _ => Some("bits behind its prefix length"),
    }
}

/// How many routes to nodes without an object are kept, at most.
const KEPT_MAX: usize = 8192;

/// A route whose node the API server does not have.
#[derive(Debug, Clone, Copy)]
struct Kept {
    via: Via,
    /// When it was first missed in a list of the API server; none as long as there was no list.
    missed: Option<u64>,
}

/// Remembers the routes of nodes that are gone, until their grace is over.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    /// The routes of the last decision that had their node.
    last: BTreeMap<IpNet, Via>,
    kept: BTreeMap<IpNet, Kept>,
}

/// What [`Keeper::decide`] finds right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The routes that there should be, in order of their destinations.
    pub routes: Vec<PeerRoute>,
    /// What an operator should know, in order of the nodes.
    pub remarks: Vec<Remark>,
    /// When the next grace ends, on the clock of `now`: time to decide again. None ends while the API server is away.
    pub again_at: Option<u64>,
}

/// What the API server has said of the nodes.
#[derive(Debug, Clone, Copy)]
pub enum Word<'a> {
    /// Nothing, since the agent was started.
    None,
    /// These, and it is heard.
    Heard(&'a Peers<'a>),
    /// These, and it has not been heard since.
    Away(&'a Peers<'a>),
}

impl Keeper {
    /// The addresses about which [`Keeper::decide`] wants to know whether they are on a link, beside [`asked`].
    pub fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.kept.values().map(|kept| kept.via).chain(self.last.values().copied()).map(|(ip, _)| ip)
    }

    /// The routes that there should be at `now`, in milliseconds of a clock that does not jump.
    ///
    /// `shown` are the routes to other nodes that the kernel has: main table, flock's mark, a gateway. One whose node the API
    /// server does not have any more stays for [`GRACE`], counted from when it was first missed in a list; as long as the API
    /// server is away, it stays. A route to a range that a living node has given up stays as long as that node has pods in it, and
    /// goes at once when it has none, or when another range that holds it has a route.
    pub fn decide(
        &mut self,
        now: u64,
        own: &Own<'_>,
        word: Word<'_>,
        reach: &Reach,
        shown: &BTreeMap<IpNet, Via>,
    ) -> Decision {
        let nobody = Peers::new();
        let (peers, heard) = match word {
            Word::None => (&nobody, false),
            Word::Heard(peers) => (peers, true),
            Word::Away(peers) => (peers, false),
        };
        let (mut routes, remarks) = routes(own, peers, reach, shown);
        let guard = Guard::new(own, peers);
        let before = mem::take(&mut self.last);
        self.last = routes.iter().map(|route| (route.to, (route.via, route.link))).collect();
        for (to, via) in before.iter().chain(shown).filter(|(to, _)| !self.last.contains_key(*to)) {
            if self.kept.len() < KEPT_MAX {
                self.kept.entry(*to).or_insert(Kept { via: *via, missed: None });
            }
        }
        self.kept.retain(|to, kept| {
            if self.last.contains_key(to) {
                return false;
            }
            if guard.bearers(kept.via.0).next().is_some() {
                kept.missed = None;
                let is_taken = || around(*to).any(|net| self.last.contains_key(&net));
                return !is_single(to) && guard.is_inhabited(peers, to, kept.via.0) && !is_taken();
            }
            let is_refused = if is_single(to) {
                guard.refusal_of_single(to.addr()).is_some()
            } else {
                guard.refusal("", to).is_some()
            };
            if is_refused {
                return false;
            }
            !heard || now.saturating_sub(*kept.missed.get_or_insert(now)) < GRACE
        });
        for (to, kept) in &self.kept {
            let (via, link) = kept.via;
            // Only what the kernel would take: it refuses a gateway that is on none of its links.
            if shown.get(to) == Some(&kept.via) || reach.get(&via) == Some(&link) {
                routes.push(PeerRoute { to: *to, via, link });
            }
        }
        routes.sort_by_key(|route| route.to);
        let first = self.kept.values().filter_map(|kept| kept.missed).min().filter(|_| heard);
        let again_at = first.map(|missed| missed.saturating_add(GRACE));
        Decision { routes, remarks, again_at }
    }
}

/// The remarks in a few lines, for a status that everybody can read: at most [`SUMMARY_MAX`], each of bounded length. Nodes beyond
/// a router are one line, however many there are.
pub fn summary(remarks: &[Remark]) -> Vec<String> {
    let beyond: Vec<&str> =
        remarks.iter().filter(|r| r.what == Finding::BeyondRouter).map(|remark| remark.node.as_str()).collect();
    let others: Vec<&Remark> = remarks.iter().filter(|remark| remark.what != Finding::BeyondRouter).collect();
    let mut lines = Vec::new();
    match beyond[..] {
        [] => {}
        [node] => lines.push(Remark { node: node.to_owned(), what: Finding::BeyondRouter }.to_string()),
        _ => {
            let more = beyond.len().saturating_sub(NAMED_MAX);
            let named = beyond.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
            let and = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("nodes {named}{and} are beyond a router: they need bgp, or routes there"));
        }
    }
    let room = SUMMARY_MAX - 1 - lines.len();
    let more = if others.len() > room + 1 { others.len() - room } else { 0 };
    lines.extend(others.iter().take(others.len() - more).map(|remark| remark.to_string()));
    if more > 0 {
        lines.push(format!("{more} more such remarks about other nodes"));
    }
    lines
}

#[cfg(test)]
mod tests;
