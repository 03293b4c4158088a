//! Stories and properties of routes to other nodes.

use std::borrow::ToOwned as _;
use std::vec;

use core::net::Ipv4Addr;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// A node: its ranges of either family, its addresses, each with an optional link-local one behind `%`.
fn node(ranges: &[&str], hops: &[&str]) -> Peer {
    let mut peer = Peer::default();
    for range in ranges {
        match net(range) {
            IpNet::V6(net) => peer.cidr6 = Some(net),
            IpNet::V4(net) => peer.cidr4 = Some(net),
        }
    }
    for hop in hops {
        let (address, link_local) = hop.split_once('%').unwrap_or((hop, ""));
        peer.next_hops.push(NextHop { address: ip(address), link_local: link_local.parse().ok() });
    }
    peer
}

/// This node: `me`, with a range of each family, an address on link 2 and a router there.
struct Me {
    ranges: Vec<IpNet>,
    held: BTreeSet<IpAddr>,
    host: Surroundings,
}

impl Me {
    fn new() -> Me {
        let host = Surroundings {
            addresses: [ip("192.0.2.1"), ip("2001:db8::1")].into(),
            networks: [net("192.0.2.0/24"), net("2001:db8::/64"), net("172.17.0.0/16")].into(),
            gateways: [ip("192.0.2.254"), ip("198.18.0.1")].into(),
        };
        Me { ranges: vec![net("2001:db8:1::/64"), net("10.1.0.0/24")], held: BTreeSet::new(), host }
    }

    fn own(&self) -> Own<'_> {
        Own { name: "me", ranges: &self.ranges, held: &self.held, host: &self.host }
    }
}

/// The addresses that are on link 2 of this node, among those that are asked about.
fn on_link(own: &Own<'_>, peers: &Peers<'_>) -> Reach {
    let there = |ip: &IpAddr| own.host.networks.iter().any(|network| network.contains(ip));
    asked(own, peers).into_iter().filter(there).map(|ip| (ip, 2)).collect()
}

/// Routes as `to via link`, and remarks as they are said.
fn found(peers: &[(&str, &Peer)]) -> (Vec<String>, Vec<String>) {
    found_beside(peers, &BTreeMap::new())
}

fn found_beside(peers: &[(&str, &Peer)], shown: &BTreeMap<IpNet, Via>) -> (Vec<String>, Vec<String>) {
    let (me, peers) = (Me::new(), peers.iter().copied().collect::<Peers<'_>>());
    let (routes, remarks) = routes(&me.own(), &peers, &on_link(&me.own(), &peers), shown);
    (
        routes.iter().map(|route| format!("{} via {} link {}", route.to, route.via, route.link)).collect(),
        remarks.iter().map(|remark| format!("{remark}")).collect(),
    )
}

#[test]
fn pods_of_a_node_on_the_same_switch_are_reached_by_its_address_of_their_family() {
    let two = node(&["2001:db8:2::/64", "10.2.0.0/24"], &["192.0.2.2", "2001:db8::2"]);
    let (routes, remarks) = found(&[("two", &two), ("me", &node(&["10.9.0.0/24"], &["192.0.2.1"]))]);
    assert_eq!(routes, ["10.2.0.0/24 via 192.0.2.2 link 2", "2001:db8:2::/64 via 2001:db8::2 link 2"]);
    assert_eq!(remarks.len(), 0, "{remarks:?}");
}

#[test]
fn a_family_in_which_the_node_has_no_address_goes_by_the_other() {
    for (hops, v4, v6) in [
        (&["2001:db8::2%fe80::2"][..], Some("2001:db8::2"), Some("2001:db8::2")),
        (&["192.0.2.2%fe80::2"], Some("192.0.2.2"), Some("fe80::2")),
        (&["192.0.2.2"], Some("192.0.2.2"), None),
        // The link-local address of another link of that node says nothing here.
        (&["198.51.100.2%fe80::9", "192.0.2.2%fe80::2"], Some("192.0.2.2"), Some("fe80::2")),
        (&["198.51.100.2%fe80::9", "192.0.2.2"], Some("192.0.2.2"), None),
        (&["192.0.2.2", "192.0.2.3%fe80::3"], Some("192.0.2.2"), Some("fe80::3")),
    ] {
        let two = node(&["2001:db8:2::/64", "10.2.0.0/24"], hops);
        let (routes, remarks) = found(&[("two", &two)]);
        let to = |range: &str, via: Option<&str>| via.map(|via| format!("{range} via {via} link 2"));
        let expected: Vec<String> = to("10.2.0.0/24", v4).into_iter().chain(to("2001:db8:2::/64", v6)).collect();
        assert_eq!(routes, expected, "{hops:?}");
        assert_eq!(remarks.len(), 2 - routes.len(), "{remarks:?}");
        assert!(remarks.iter().all(|remark| remark.contains("two") && remark.contains("2001:db8:2::/64")));
    }
}

#[test]
fn a_node_beyond_a_router_is_left_alone_and_said() {
    let far = node(&["10.3.0.0/24", "2001:db8:3::/64"], &["198.51.100.3%fe80::3"]);
    let near = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let nowhere = node(&["10.4.0.0/24"], &[]);
    let (routes, remarks) = found(&[("far", &far), ("near", &near), ("nowhere", &nowhere)]);
    assert_eq!(routes, ["10.2.0.0/24 via 192.0.2.2 link 2"]);
    assert_eq!(
        remarks,
        [
            "node far is beyond a router: it needs bgp, or a route there",
            "node nowhere names no address that it could be reached by"
        ]
    );
}

#[test]
fn no_range_of_another_node_takes_anything_away_from_this_host() {
    for (range, words) in [
        ("10.1.0.0/24", &["10.1.0.0/24 of this node"][..]),
        ("10.1.0.128/25", &["10.1.0.128/25", "10.1.0.0/24 of this node"]),
        ("10.0.0.0/8", &["10.0.0.0/8", "10.1.0.0/24"]),
        ("2001:db8:1::/80", &["2001:db8:1::/80", "2001:db8:1::/64"]),
        ("192.0.2.0/24", &["192.0.2.0/24", "a network of this host"]),
        ("172.16.0.0/12", &["172.17.0.0/16", "a network of this host"]),
        ("192.0.2.0/30", &["192.0.2.1", "an address of this host"]),
        ("192.0.2.248/29", &["192.0.2.254", "a gateway of this host"]),
        ("198.18.0.0/15", &["198.18.0.1", "a gateway of this host"]),
        ("192.0.2.8/29", &["192.0.2.9", "an address of node third"]),
        ("0.0.0.0/0", &["0.0.0.0/0", "10.1.0.0/24 of this node"]),
        ("::/0", &["::/0", "2001:db8:1::/64 of this node"]),
        ("127.0.0.0/8", &["loopback"]),
        ("fe80::/10", &["link-local"]),
        ("ff00::/8", &["multicast"]),
    ] {
        let bad = node(&[range], &["192.0.2.2", "2001:db8::2"]);
        let good = node(&["10.3.0.0/24"], &["192.0.2.9"]);
        let (routes, remarks) = found(&[("bad", &bad), ("third", &good)]);
        assert_eq!(routes, ["10.3.0.0/24 via 192.0.2.9 link 2"], "{range}");
        let [remark] = &remarks[..] else { panic!("{range}: {remarks:?}") };
        for word in words.iter().chain(&["node bad"]) {
            assert!(remark.contains(word), "{range}: {remark}");
        }
    }
}

#[test]
fn nobody_gets_a_default_route_not_even_a_node_without_ranges() {
    let mut me = Me::new();
    (me.ranges, me.host) = (Vec::new(), Surroundings::default());
    let bad = node(&["::/0", "0.0.0.0/0"], &["192.0.2.2", "2001:db8::2"]);
    let peers = Peers::from([("bad", &bad)]);
    let reach = Reach::from([(ip("192.0.2.2"), 2), (ip("2001:db8::2"), 2)]);
    let (routes, remarks) = routes(&me.own(), &peers, &reach, &BTreeMap::new());
    assert_eq!(routes, []);
    assert!(remarks.len() == 2 && remarks.iter().all(|remark| format!("{remark}").contains("every address")));
}

#[test]
fn a_range_inside_of_the_network_that_all_nodes_share_is_reached_by_its_node() {
    // A hoster's prefix, of which each node answers for a part.
    let two = node(&["2001:db8::2:0:0/96", "192.0.2.64/28"], &["192.0.2.2", "2001:db8::2"]);
    let (routes, remarks) = found(&[("two", &two)]);
    assert_eq!(routes, ["192.0.2.64/28 via 192.0.2.2 link 2", "2001:db8::2:0:0/96 via 2001:db8::2 link 2"]);
    assert_eq!(remarks.len(), 0, "{remarks:?}");
    // An address that is one of its pods' is no next hop to them.
    let loops = node(&["192.0.2.64/28"], &["192.0.2.65", "192.0.2.2"]);
    assert_eq!(found(&[("loops", &loops)]).0, ["192.0.2.64/28 via 192.0.2.2 link 2"]);
    let only = node(&["192.0.2.64/28"], &["192.0.2.65"]);
    assert_eq!(found(&[("only", &only)]).0, [""; 0]);
}

#[test]
fn an_address_of_this_host_or_of_a_pod_of_this_node_is_never_a_next_hop() {
    let mut me = Me::new();
    me.host.networks.insert(net("10.0.0.0/8"));
    let liar = node(&["10.2.0.0/24"], &["192.0.2.1", "10.1.0.7"]);
    let peers = Peers::from([("liar", &liar)]);
    assert_eq!(asked(&me.own(), &peers).len(), 0);
    let reach = Reach::from([(ip("192.0.2.1"), 2), (ip("10.1.0.7"), 9)]);
    assert_eq!(routes(&me.own(), &peers, &reach, &BTreeMap::new()).0, []);
}

#[test]
fn of_two_nodes_with_the_same_range_the_one_that_has_the_route_keeps_it() {
    let (a, b) = (node(&["10.2.0.0/24"], &["192.0.2.2"]), node(&["10.2.0.0/24"], &["192.0.2.3"]));
    let peers = [("a", &a), ("b", &b)];
    let (routes, remarks) = found(&peers);
    assert_eq!(routes, ["10.2.0.0/24 via 192.0.2.2 link 2"], "the first by name");
    assert!(remarks.len() == 1 && remarks[0].contains("node b, as node a has the same range"), "{remarks:?}");
    let shown = BTreeMap::from([(net("10.2.0.0/24"), (ip("192.0.2.3"), 2))]);
    let (routes, remarks) = found_beside(&peers, &shown);
    assert_eq!(routes, ["10.2.0.0/24 via 192.0.2.3 link 2"]);
    assert!(remarks.len() == 1 && remarks[0].contains("node a, as node b has the same range"), "{remarks:?}");
    // One that is not to be reached has nothing to keep.
    let far = node(&["10.2.0.0/24"], &["198.51.100.2"]);
    assert_eq!(found(&[("a", &far), ("b", &b)]).0, ["10.2.0.0/24 via 192.0.2.3 link 2"]);
}

// covers: FM-M10
#[test]
fn of_ranges_that_meet_the_one_that_has_the_route_keeps_it_however_narrow_the_other_is() {
    let (wide, narrow) = (node(&["10.4.0.0/16"], &["192.0.2.2"]), node(&["10.4.7.0/24"], &["192.0.2.3"]));
    let further = node(&["10.4.8.0/24"], &["192.0.2.4"]);
    let peers = [("a-narrow", &narrow), ("b-wide", &wide), ("c-narrow", &further)];
    let (routes, remarks) = found(&peers);
    assert_eq!(routes, ["10.4.7.0/24 via 192.0.2.3 link 2", "10.4.8.0/24 via 192.0.2.4 link 2"], "the first by name");
    let line = "no route to 10.4.0.0/16 of node b-wide, as node a-narrow has 10.4.7.0/24: one of the two needs another";
    assert_eq!(remarks, [line]);
    let shown = BTreeMap::from([(net("10.4.0.0/16"), (ip("192.0.2.2"), 2))]);
    let (routes, remarks) = found_beside(&peers, &shown);
    assert_eq!(routes, ["10.4.0.0/16 via 192.0.2.2 link 2"]);
    assert_eq!(remarks.len(), 2);
    let line = "no route to 10.4.7.0/24 of node a-narrow, as node b-wide has 10.4.0.0/16: one of the two needs another";
    assert_eq!(remarks[0], line);
}

#[test]
fn of_several_ranges_that_a_lost_one_meets_the_same_is_named_before_and_after_there_are_routes() {
    let (wide, upper) = (node(&["10.4.0.0/22"], &["192.0.2.2"]), node(&["10.4.2.0/23"], &["192.0.2.3"]));
    let lower = node(&["10.4.0.0/23"], &["192.0.2.4"]);
    let peers = [("a-upper", &upper), ("b-wide", &wide), ("c-lower", &lower)];
    let shown =
        BTreeMap::from([(net("10.4.0.0/23"), (ip("192.0.2.4"), 2)), (net("10.4.2.0/23"), (ip("192.0.2.3"), 2))]);
    let (before, after) = (found(&peers), found_beside(&peers, &shown));
    assert_eq!(before, after);
    assert!(before.1.len() == 1 && before.1[0].contains("node b-wide, as node c-lower has"), "{before:?}");
}

/// The node, with pods that have these addresses since the start of that hour.
fn claiming(mut peer: Peer, hour: u8, claims: &[&str]) -> Peer {
    peer.claims.extend(claims.iter().map(|address| claim(ip(address), "web/www-0", hour)));
    peer
}

fn claim(address: IpAddr, pod: &str, hour: u8) -> Claim {
    Claim { address, pod: pod.into(), since: format!("2026-11-26T{hour:02}:00:00Z").into(), shared: false }
}

#[test]
fn an_address_that_a_pod_of_another_node_names_is_reached_on_that_node() {
    let two = node(&["10.2.0.0/24"], &["192.0.2.2%fe80::2"]);
    let two = claiming(two, 9, &["203.0.113.5", "2001:db8:f::5", "10.2.0.7"]);
    let (routes, remarks) = found(&[("two", &two)]);
    let expected = [
        "10.2.0.0/24 via 192.0.2.2 link 2",
        "203.0.113.5/32 via 192.0.2.2 link 2",
        "2001:db8:f::5/128 via fe80::2 link 2",
    ];
    assert_eq!(routes, expected, "what is in its range needs no route of its own");
    assert_eq!(remarks.len(), 0, "{remarks:?}");
    // A node that has no range has pods all the same.
    let (routes, remarks) =
        found(&[("two", &claiming(node(&[], &["192.0.2.2"]), 9, &["203.0.113.5", "2001:db8:f::5"]))]);
    assert_eq!(routes, ["203.0.113.5/32 via 192.0.2.2 link 2"]);
    assert!(remarks.len() == 1 && remarks[0].contains("no route to 2001:db8:f::5/128 of node two"), "{remarks:?}");
    let (_, remarks) = found(&[("far", &claiming(node(&[], &["198.51.100.2"]), 9, &["203.0.113.5"]))]);
    assert_eq!(remarks, ["node far is beyond a router: it needs bgp, or a route there"]);
}

#[test]
fn no_address_that_another_node_claims_takes_anything_away() {
    let third = node(&["10.3.0.0/24"], &["192.0.2.9%fe80::9"]);
    for (address, words) in [
        ("192.0.2.1", "an address of this host"),
        ("2001:db8::1", "an address of this host"),
        ("192.0.2.254", "a gateway of this host"),
        ("192.0.2.255", "first or last address of 192.0.2.0/24, a network of this host"),
        ("192.0.2.0", "first or last address of 192.0.2.0/24, a network of this host"),
        ("2001:db8::", "first or last address of 2001:db8::/64, a network of this host"),
        ("192.0.2.9", "an address of node third"),
        ("192.0.2.2", "an address of node bad"),
        ("10.1.0.7", "in 10.1.0.0/24, a range of this node"),
        ("10.3.0.7", "in 10.3.0.0/24, a range of node third"),
        ("203.0.113.9", "an address of a pod of this node"),
        ("127.0.0.1", "loopback"),
        ("fe80::9", "link-local"),
        ("224.0.0.5", "multicast"),
    ] {
        let mut me = Me::new();
        me.held.insert(ip("203.0.113.9"));
        let bad = claiming(node(&[], &["192.0.2.2", "2001:db8::2"]), 9, &[address]);
        let peers = Peers::from([("bad", &bad), ("third", &third)]);
        let (found, remarks) = routes(&me.own(), &peers, &on_link(&me.own(), &peers), &BTreeMap::new());
        assert_eq!(found, [PeerRoute { to: net("10.3.0.0/24"), via: ip("192.0.2.9"), link: 2 }], "{address}");
        let [remark] = &remarks[..] else { panic!("{address}: {remarks:?}") };
        let remark = remark.to_string();
        let start = format!("no route to {address} for pod web/www-0 of node bad, as that is ");
        assert!(remark.starts_with(&start) && remark.contains(words), "{remark}");
    }
    // Others in a network of this host are what a hoster's prefix is made of.
    let good = claiming(node(&[], &["192.0.2.2", "2001:db8::2"]), 9, &["192.0.2.7", "2001:db8::ffff:ffff:ffff:ffff"]);
    assert_eq!(found(&[("good", &good)]).0.len(), 2);
}

#[test]
fn of_two_nodes_that_claim_an_address_the_one_whose_claim_counts_is_led_to() {
    let claimed = |n: u8, pod: &str, hour: u8| {
        let mut peer = node(&[], &[&format!("192.0.2.{n}")]);
        peer.claims.push(claim(ip("203.0.113.5"), pod, hour));
        peer
    };
    let via = |n: u8| format!("203.0.113.5/32 via 192.0.2.{n} link 2");
    for (a, b, counts) in [
        (claimed(2, "x/p", 9), claimed(3, "x/q", 10), 2),
        (claimed(2, "x/p", 10), claimed(3, "x/q", 9), 3),
        (claimed(2, "x/p", 9), claimed(3, "x/q", 9), 2),
        // The same pod has moved.
        (claimed(2, "x/p", 9), claimed(3, "x/p", 10), 3),
    ] {
        assert_eq!(found(&[("a", &a), ("b", &b)]).0, [via(counts)]);
        // Whom the address is led to makes no difference: its own node announces it.
        let shown = BTreeMap::from([(net("203.0.113.5/32"), (ip("192.0.2.2"), 2))]);
        assert_eq!(found_beside(&[("a", &a), ("b", &b)], &shown).0, [via(counts)]);
    }
    // One that counts and is not to be reached leaves nothing to the other.
    let far = Peer { next_hops: node(&[], &["198.51.100.2"]).next_hops, ..claimed(2, "x/p", 9) };
    assert_eq!(found(&[("a", &far), ("b", &claimed(3, "x/q", 10))]).0, [""; 0]);
}

#[test]
fn what_cannot_be_read_of_one_node_harms_no_other() {
    let broken = Peer { problems: vec!["spec.cidr4: \"x\" is none".into()], ..node(&[], &["192.0.2.3"]) };
    let two = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let (routes, remarks) = found(&[("broken", &broken), ("two", &two)]);
    assert_eq!(routes, ["10.2.0.0/24 via 192.0.2.2 link 2"]);
    assert_eq!(remarks, ["NodePeer broken: spec.cidr4: \"x\" is none"]);
}

#[test]
fn a_thousand_remarks_are_a_few_lines() {
    let beyond = |n: usize| Remark { node: format!("n{n:04}"), what: Finding::BeyondRouter };
    let other = |n: usize| Remark { node: format!("n{n:04}"), what: Finding::NoNextHop };
    assert_eq!(summary(&[]), [""; 0]);
    assert_eq!(summary(&[beyond(1)]), ["node n0001 is beyond a router: it needs bgp, or a route there"]);
    assert!(summary(&[beyond(1), beyond(2)])[0].starts_with("nodes n0001, n0002 are beyond"));
    let thousand: Vec<Remark> = (0..1000).map(beyond).chain((0..1000).map(other)).collect();
    let lines = summary(&thousand);
    assert_eq!(lines.len(), SUMMARY_MAX);
    assert!(lines[0].starts_with("nodes n0000, n0001, n0002 and 997 more are beyond"), "{}", lines[0]);
    assert_eq!(lines[SUMMARY_MAX - 1], "994 more such remarks about other nodes");
    for many in 0..20 {
        let lines = summary(&(0..many).map(other).collect::<Vec<_>>());
        assert!(lines.len() == many.min(SUMMARY_MAX), "{many}: {lines:?}");
    }
}

/// A cluster over time, as this node sees it.
struct Story {
    me: Me,
    keeper: Keeper,
    shown: BTreeMap<IpNet, Via>,
    now: u64,
}

impl Story {
    fn new() -> Story {
        Story { me: Me::new(), keeper: Keeper::default(), shown: BTreeMap::new(), now: 1_000_000 }
    }

    /// Decides, and carries it out. The destinations that are there afterwards.
    fn decide(&mut self, word: Word<'_>) -> Vec<String> {
        let decision = self.decision(word);
        decision.routes.iter().map(|route| route.to.to_string()).collect()
    }

    fn decision(&mut self, word: Word<'_>) -> Decision {
        let own = self.me.own();
        let peers = match word {
            Word::None => Peers::new(),
            Word::Heard(peers) | Word::Away(peers) => peers.clone(),
        };
        let mut reach = on_link(&own, &peers);
        let there = |ip: &IpAddr| own.host.networks.iter().any(|network| network.contains(ip));
        reach.extend(self.keeper.asked().filter(there).map(|ip| (ip, 2)));
        let decision = self.keeper.decide(self.now, &own, word, &reach, &self.shown);
        self.shown = decision.routes.iter().map(|route| (route.to, (route.via, route.link))).collect();
        decision
    }

    fn after(&mut self, seconds: u64) -> &mut Story {
        self.now += seconds * 1000;
        self
    }

    /// The agent is started anew: what it remembers is lost, the kernel's routes are not.
    fn restart(&mut self) -> &mut Story {
        self.keeper = Keeper::default();
        self
    }
}

#[test]
fn a_node_that_is_deleted_and_made_again_never_loses_its_route() {
    let two = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let (with, without) = (Peers::from([("two", &two)]), Peers::new());
    let mut story = Story::new();
    for _ in 0..3 {
        assert_eq!(story.after(30).decide(Word::Heard(&with)), ["10.2.0.0/24"]);
        assert_eq!(story.after(30).decide(Word::Heard(&without)), ["10.2.0.0/24"]);
        let decision = story.after(59).decision(Word::Heard(&without));
        assert_eq!((decision.routes.len(), decision.again_at), (1, Some(story.now + 1000)));
    }
    assert_eq!(story.after(1).decide(Word::Heard(&without)), [""; 0]);
    assert_eq!(story.decision(Word::Heard(&without)).again_at, None);
}

#[test]
fn with_the_api_server_away_every_route_stays() {
    let two = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let (with, without) = (Peers::from([("two", &two)]), Peers::new());
    let mut story = Story::new();
    story.decide(Word::Heard(&with));
    assert_eq!(story.after(9999).decide(Word::Away(&with)), ["10.2.0.0/24"]);
    assert_eq!(story.decide(Word::Heard(&without)), ["10.2.0.0/24"]);
    let away = story.after(9999).decision(Word::Away(&without));
    assert_eq!((away.routes.len(), away.again_at), (1, None));
    // It is still missing, and has been for longer than the grace.
    assert_eq!(story.decide(Word::Heard(&without)), [""; 0]);
}

#[test]
fn an_agent_that_is_started_anew_gives_the_same_grace_to_routes_that_it_finds() {
    let two = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let (with, without) = (Peers::from([("two", &two)]), Peers::new());
    let mut story = Story::new();
    story.decide(Word::Heard(&with));
    assert_eq!(story.restart().after(9999).decide(Word::None), ["10.2.0.0/24"], "nothing has been heard yet");
    assert_eq!(story.after(9999).decide(Word::Heard(&without)), ["10.2.0.0/24"]);
    assert_eq!(story.after(59).decide(Word::Heard(&without)), ["10.2.0.0/24"]);
    assert_eq!(story.after(1).decide(Word::Heard(&without)), [""; 0]);
}

#[test]
fn a_living_node_s_former_range_and_a_former_node_s_taken_range_go_at_once() {
    let (old, new) = (node(&["10.2.0.0/24"], &["192.0.2.2"]), node(&["10.3.0.0/24"], &["192.0.2.2"]));
    let mut story = Story::new();
    story.decide(Word::Heard(&Peers::from([("two", &old)])));
    assert_eq!(story.decide(Word::Heard(&Peers::from([("two", &new)]))), ["10.3.0.0/24"]);
    // The same after a restart: its next hop tells whose the route was.
    story.restart().shown.insert(net("10.2.0.0/24"), (ip("192.0.2.2"), 2));
    assert_eq!(story.decide(Word::Heard(&Peers::from([("two", &new)]))), ["10.3.0.0/24"]);
    // A successor with the range of a node that is gone need not wait.
    let successor = node(&["10.3.0.0/24"], &["192.0.2.9"]);
    let decision = story.decision(Word::Heard(&Peers::from([("three", &successor)])));
    assert_eq!(decision.routes, [PeerRoute { to: net("10.3.0.0/24"), via: ip("192.0.2.9"), link: 2 }]);
    assert_eq!(decision.remarks, []);
}

// covers: FM-M09
#[test]
fn pods_of_a_range_that_their_node_has_given_up_are_reached_until_the_last_one_goes() {
    let old = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let new = |claims: &[&str]| claiming(node(&["10.3.0.0/24"], &["192.0.2.2"]), 9, claims);
    let (full, one, none) = (new(&["10.2.0.7", "10.2.0.8"]), new(&["10.2.0.8"]), new(&[]));
    let mut story = Story::new();
    story.decide(Word::Heard(&Peers::from([("two", &old)])));
    let there = ["10.2.0.0/24", "10.2.0.7/32", "10.2.0.8/32", "10.3.0.0/24"];
    for _ in 0..3 {
        // A node may have more pods there than it can tell: the range stays beside the addresses.
        assert_eq!(story.after(999).decide(Word::Heard(&Peers::from([("two", &full)]))), there);
        assert_eq!(story.restart().decide(Word::Heard(&Peers::from([("two", &full)]))), there);
    }
    let fewer = ["10.2.0.0/24", "10.2.0.8/32", "10.3.0.0/24"];
    assert_eq!(story.decide(Word::Heard(&Peers::from([("two", &one)]))), fewer);
    // The node goes, and is back within the grace, or not.
    assert_eq!(story.decide(Word::Heard(&Peers::new())), fewer);
    assert_eq!(story.after(59).decide(Word::Heard(&Peers::from([("two", &one)]))), fewer);
    assert_eq!(story.after(59).decide(Word::Heard(&Peers::new())), fewer);
    assert_eq!(story.after(59).decide(Word::Heard(&Peers::new())), fewer);
    assert_eq!(story.decide(Word::Heard(&Peers::from([("two", &one)]))), fewer);
    assert_eq!(story.decide(Word::Heard(&Peers::from([("two", &none)]))), ["10.3.0.0/24"]);
}

#[test]
fn a_given_up_range_is_its_next_owner_s_but_for_the_addresses_of_pods_that_are_left_in_it() {
    let old = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let new = claiming(node(&["10.3.0.0/24"], &["192.0.2.2"]), 9, &["10.2.0.7"]);
    let mut story = Story::new();
    story.decide(Word::Heard(&Peers::from([("two", &old)])));
    for owner in ["10.2.0.0/24", "10.2.0.0/23"] {
        let mut story =
            Story { me: Me::new(), keeper: story.keeper.clone(), shown: story.shown.clone(), now: story.now };
        let three = node(&[owner], &["192.0.2.9"]);
        let peers = Peers::from([("two", &new), ("three", &three)]);
        for _ in 0..2 {
            let decision = story.decision(Word::Heard(&peers));
            let route = |to: &str, via: &str| PeerRoute { to: net(to), via: ip(via), link: 2 };
            let expected =
                [route(owner, "192.0.2.9"), route("10.2.0.7/32", "192.0.2.2"), route("10.3.0.0/24", "192.0.2.2")];
            assert_eq!(decision.routes, expected);
            assert_eq!(decision.remarks, []);
        }
    }
}

#[test]
fn a_pod_that_comes_here_takes_its_address_along_at_once() {
    let two = claiming(node(&[], &["192.0.2.2"]), 9, &["203.0.113.5"]);
    let (with, without) = (Peers::from([("two", &two)]), Peers::new());
    let mut story = Story::new();
    assert_eq!(story.decide(Word::Heard(&with)), ["203.0.113.5/32"]);
    assert_eq!(story.decide(Word::Heard(&without)), ["203.0.113.5/32"], "for its grace");
    story.me.held.insert(ip("203.0.113.5"));
    assert_eq!(story.decide(Word::Heard(&without)), [""; 0]);
    assert_eq!(story.decide(Word::Heard(&with)), [""; 0]);
}

#[test]
fn however_many_routes_there_are_that_of_a_node_which_is_gone_has_its_grace() {
    let name = |n: usize| format!("n{n:05}");
    let hop = |n: usize| if n == KEPT_MAX { "192.0.2.3" } else { "192.0.2.2" };
    let of = |n: usize| node(&[&format!("10.{}.{}.0/24", 2 + n / 256, n % 256)], &[hop(n)]);
    let nodes: Vec<(String, Peer)> = (0..=KEPT_MAX).map(|n| (name(n), of(n))).collect();
    let mut peers: Peers<'_> = nodes.iter().map(|(name, peer)| (name.as_str(), peer)).collect();
    let mut story = Story::new();
    assert_eq!(story.decide(Word::Heard(&peers)).len(), nodes.len());
    peers.pop_last();
    assert_eq!(story.decide(Word::Heard(&peers)).len(), nodes.len());
}

#[test]
fn addresses_beside_ranges_are_bounded_and_the_rest_is_said() {
    let many = |n: u16| {
        let mut peer = node(&[], &["192.0.2.2"]);
        peer.claims.extend(
            (0..=u8::MAX)
                .map(|m| claim(Ipv4Addr::from([11, n.to_be_bytes()[0], n.to_be_bytes()[1], m]).into(), "x/p", 9)),
        );
        peer
    };
    let nodes: Vec<(String, Peer)> = (0..40).map(|n| (format!("n{n:02}"), many(n))).collect();
    let peers: Vec<(&str, &Peer)> = nodes.iter().map(|(name, peer)| (name.as_str(), peer)).collect();
    let (routes, remarks) = found(&peers);
    assert_eq!(routes.len(), SINGLES_MAX);
    assert_eq!(remarks.len(), 40 - SINGLES_MAX / 256, "one for each node");
    assert!(remarks[0].contains("node n32"), "{remarks:?}");
}

#[test]
fn a_route_of_a_gone_node_comes_back_with_its_link_and_goes_when_it_would_do_harm() {
    let two = node(&["10.2.0.0/24"], &["192.0.2.2"]);
    let without = Peers::new();
    let mut story = Story::new();
    story.decide(Word::Heard(&Peers::from([("two", &two)])));
    assert_eq!(story.decide(Word::Heard(&without)), ["10.2.0.0/24"]);
    let networks = std::mem::take(&mut story.me.host.networks);
    story.shown.clear();
    assert_eq!(story.after(1).decide(Word::Heard(&without)), [""; 0], "the link is down");
    story.me.host.networks = networks;
    assert_eq!(story.after(1).decide(Word::Heard(&without)), ["10.2.0.0/24"]);
    story.me.ranges.push(net("10.2.0.0/16"));
    assert_eq!(story.after(1).decide(Word::Heard(&without)), [""; 0]);
}

/// A small world in which everything meets everything: few ranges, few addresses.
fn small_range() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u8..4, 22u8..=26)
            .prop_map(|(n, len)| IpNet::new(IpAddr::from([10, 0, n, 0]), len).expect("a length").trunc()),
        (0u16..4, 62u8..=66).prop_map(|(n, len)| {
            IpNet::new(Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 0).into(), len).expect("a length").trunc()
        }),
        (24u8..=30).prop_map(|len| IpNet::new(ip("192.0.2.0"), len).expect("a length")),
        Just(net("0.0.0.0/0")),
        Just(net("::/0")),
    ]
}

fn small_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (1u8..12).prop_map(|n| IpAddr::from([192, 0, 2, n])),
        4 => (1u16..12).prop_map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()),
        1 => (0u8..4).prop_map(|n| IpAddr::from([10, 0, n, 1])),
        1 => (1u8..4).prop_map(|n| IpAddr::from([198, 51, 100, n])),
    ]
}

fn small_peer() -> impl Strategy<Value = Peer> {
    let hop = (small_address(), proptest::option::of(1u16..20)).prop_map(|(address, local)| NextHop {
        address,
        link_local: local.map(|n| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)),
    });
    let claimed = prop_oneof![
        2 => small_address(),
        1 => (0u8..4, 0u8..8).prop_map(|(n, m)| IpAddr::from([10, 0, n, m * 32])),
        2 => (1u8..8).prop_map(|n| IpAddr::from([203, 0, 113, n])),
    ];
    let claims = (claimed, "[pq]", 0u8..3).prop_map(|(address, pod, hour)| claim(address, &pod, hour));
    let (ranges, claims) = (proptest::collection::vec(small_range(), 0..3), proptest::collection::vec(claims, 0..4));
    (ranges, proptest::collection::vec(hop, 0..4), claims).prop_map(|(ranges, next_hops, claims)| {
        let mut peer = Peer { next_hops, claims, ..Peer::default() };
        for range in ranges {
            match range {
                IpNet::V6(net) => peer.cidr6 = Some(net),
                IpNet::V4(net) => peer.cidr4 = Some(net),
            }
        }
        peer
    })
}

fn small_cluster() -> impl Strategy<Value = BTreeMap<String, Peer>> {
    proptest::collection::btree_map("[a-f]", small_peer(), 0..6)
}

fn view(cluster: &BTreeMap<String, Peer>) -> Peers<'_> {
    cluster.iter().map(|(name, peer)| (name.as_str(), peer)).collect()
}

fn table(routes: &[PeerRoute]) -> BTreeMap<IpNet, Via> {
    routes.iter().map(|route| (route.to, (route.via, route.link))).collect()
}

proptest! {
    #[test]
    fn a_route_leads_to_its_node_and_takes_nothing_from_this_host(
        cluster in small_cluster(), down in proptest::collection::btree_set(small_address(), 0..4),
    ) {
        let (mut me, peers) = (Me::new(), view(&cluster));
        me.held.insert(ip("203.0.113.1"));
        let own = me.own();
        let mut reach = on_link(&own, &peers);
        reach.retain(|ip, _| !down.contains(ip));
        let (found, remarks) = routes(&own, &peers, &reach, &BTreeMap::new());
        for route in &found {
            let claims = |peer: &Peer| peer.claims.iter().any(|claim| IpNet::from(claim.address) == route.to);
            let has = |peer: &&Peer| peer.ranges().any(|range| range == route.to) || claims(peer);
            let nodes: Vec<&Peer> = cluster.values().filter(has).collect();
            prop_assert!(nodes.iter().any(|peer| peer.bears(route.via)), "{route:?} leads to another node");
            let hop = |hop: &NextHop| reach.get(&hop.address) == Some(&route.link)
                && (hop.address == route.via || hop.link_local.map(IpAddr::from) == Some(route.via));
            prop_assert!(nodes.iter().any(|peer| peer.next_hops.iter().any(hop)), "{route:?} is not on a link");
            prop_assert!(route.via.is_ipv6() || route.to.addr().is_ipv4(), "{route:?}: no IPv6 over IPv4");
            prop_assert!(!route.to.contains(&route.via), "{route:?} leads through itself");
            prop_assert!(!me.host.addresses.contains(&route.via));
            prop_assert!(own.ranges.iter().all(|ours| !meets(ours, &route.to)));
            let held = me.host.addresses.iter().chain(&me.host.gateways).chain(&me.held).chain(reach.keys());
            let held: Vec<&IpAddr> = held.filter(|ip| route.to.contains(*ip)).collect();
            prop_assert!(held.is_empty(), "{route:?} covers {held:?}");
            prop_assert!(me.host.networks.iter().all(|network| !route.to.contains(network)));
        }
        prop_assert_eq!(table(&found).len(), found.len(), "one route per destination");
        // Whatever has no route is said.
        for (name, peer) in &cluster {
            let routed = |range: IpNet| found.iter().any(|route| route.to == range && peer.bears(route.via));
            let said = remarks.iter().any(|remark| remark.node == *name);
            prop_assert!(said || peer.ranges().all(routed), "{name}: {peer:?}");
        }
        // What is there is what there should be: nothing goes to and fro.
        let (again, _) = routes(&own, &peers, &reach, &table(&found));
        prop_assert_eq!(&again, &found);
        for (one, other) in found.iter().flat_map(|one| found.iter().map(move |other| (one, other))) {
            let apart = one.to == other.to || is_single(&one.to) || is_single(&other.to) || !meets(&one.to, &other.to);
            prop_assert!(apart, "{one:?} and {other:?}");
        }
    }

    /// Ranges and addresses change hands at any moment, and the agent is started anew.
    #[test]
    fn what_stands_stays_until_somebody_says_something_else(
        clusters in proptest::collection::vec(small_cluster(), 1..5), restarts in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let mut story = Story::new();
        for (cluster, restart) in clusters.iter().zip(restarts) {
            let peers = view(cluster);
            let first = story.decision(Word::Heard(&peers));
            if restart {
                story.restart();
            }
            let again = story.decision(Word::Heard(&peers));
            prop_assert_eq!(&again.routes, &first.routes);
            prop_assert_eq!(&again.remarks, &first.remarks);
            prop_assert_eq!(&story.decision(Word::Away(&peers)).routes, &first.routes);
            // Whoever is here and alive has what it claims, if that is disputed by nobody and nothing.
            for (name, peer) in cluster {
                for claim in peer.beside() {
                    let alone = cluster.iter().all(|(other, peer)| {
                        let mut ranges = peer.ranges();
                        other == name || peer.claims.iter().all(|c| c.address != claim.address) && !ranges.any(|r| r.contains(&claim.address))
                    });
                    let routed = || first.routes.iter().any(|r| r.to == IpNet::from(claim.address) && peer.bears(r.via));
                    let said = || again.remarks.iter().any(|remark| remark.node == *name);
                    prop_assert!(!alone || routed() || said(), "{name}: {claim:?}");
                }
            }
        }
    }

    #[test]
    fn a_further_node_changes_no_route_but_those_of_the_ranges_that_it_meets(cluster in small_cluster(), further in small_peer()) {
        let me = Me::new();
        let mut more = cluster.clone();
        more.insert("g".to_owned(), further.clone());
        let (before, after) = (view(&cluster), view(&more));
        let routes_of = |peers: &Peers<'_>| table(&routes(&me.own(), peers, &on_link(&me.own(), peers), &BTreeMap::new()).0);
        let (before, after) = (routes_of(&before), routes_of(&after));
        let hop_in = |to: &IpNet| further.next_hops.iter().any(|hop| to.contains(&hop.address));
        // A range that has gone may have stood in the way of another one, in which the address is.
        let frees = before.keys().any(hop_in);
        let claims = |to: &IpNet| further.claims.iter().any(|claim| IpNet::from(claim.address) == *to);
        let takes = |to: &IpNet| is_single(to) && (frees || claims(to) || further.ranges().any(|range| range.contains(to)));
        for (to, via) in &before {
            prop_assert!(hop_in(to) || takes(to) || after.get(to) == Some(via), "{to} by {via:?}");
        }
    }

    /// Nodes come and go, the API server and the agent too; links stay. The model is a plain book of who was listed when.
    #[test]
    fn a_route_outlives_its_node_by_the_grace_and_no_less(
        steps in proptest::collection::vec((0u8..8, 0u64..25, 0u8..8), 1..60),
    ) {
        // Four nodes with a range and an address each.
        let nodes: Vec<(String, Peer)> = (2u8..6)
            .map(|n| (format!("n{n}"), node(&[&format!("10.{n}.0.0/24")], &[&format!("192.0.2.{n}")])))
            .collect();
        let mut story = Story::new();
        let mut listed: BTreeSet<usize> = BTreeSet::new();
        // For each node with a route: when it was first missed, if it is.
        let mut book: BTreeMap<usize, Option<u64>> = BTreeMap::new();
        let (mut heard, mut ever) = (false, false);
        for (what, seconds, which) in steps {
            story.after(seconds);
            let which_node = usize::from(which) % nodes.len();
            match what {
                0 | 1 => { if heard && !listed.remove(&which_node) { listed.insert(which_node); } }
                2 => heard = false,
                3 => (ever, heard) = (false, false),
                _ => (ever, heard) = (true, true),
            }
            if what == 3 {
                story.restart();
                book.values_mut().for_each(|missed| *missed = None);
            }
            let peers: Peers<'_> = listed.iter().map(|n| (nodes[*n].0.as_str(), &nodes[*n].1)).collect();
            let word = match (ever, heard) {
                (false, _) => Word::None,
                (true, true) => Word::Heard(&peers),
                (true, false) => Word::Away(&peers),
            };
            let there = story.decide(word);
            if ever {
                for n in &listed {
                    book.insert(*n, None);
                }
                let now = story.now;
                if heard {
                    book.retain(|n, missed| listed.contains(n) || now - *missed.get_or_insert(now) < GRACE);
                    for n in &listed {
                        book.insert(*n, None);
                    }
                }
            }
            let expected: Vec<String> = book.keys().map(|n| format!("10.{}.0.0/24", n + 2)).collect();
            prop_assert_eq!(there, expected);
        }
    }
}
