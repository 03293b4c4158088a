//! Addresses that belong to one pod of the whole cluster (annotation `addresses`): which this node claims, and what happens when
//! another node claims one, too.
//!
//! Nodes tell each other their claims, and each decides by the same rule (`peers::claim`), so all decide alike: the earlier claim
//! counts, and of two of one moment that of the node whose name comes first. Of two claims for one pod the later one counts: the
//! pod has moved, and the node that it has left may be dead. What does not count is not announced; its pod keeps the address, as no
//! living pod is ever harmed. Decides on values; must not ask the API server, and knows the time only as an argument.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::lease::Lease;
use crate::peers::claim::counting;
use crate::peers::{CLAIMS_MAX, Claim, Peer, Peers};

/// An address that this node and another one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contest {
    /// This node's claim.
    pub ours: Claim,
    /// The other node.
    pub node: String,
    /// Its claim.
    pub theirs: Claim,
    /// The other node's counts.
    pub lost: bool,
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contest { ours, node, theirs, lost } = self;
        write!(f, "{} is claimed by pod {} here and by pod {} of node {node}", ours.address, ours.pod, theirs.pod)?;
        f.write_str(match lost {
            true => ", which counts: this node does not announce it; delete one of the pods",
            false => ", which does not count and is not announced there; delete one of the pods",
        })?;
        write!(f, ", or `kubectl delete nodeconfig {node}` if that node is gone")
    }
}

/// What this node claims: the addresses of `leases` outside of `prefixes`, the node's ranges, in order, and at most [`CLAIMS_MAX`]
/// of them. Of more, those in `named`, the prefixes from which pods name addresses, come first: others are in a range that the node
/// had, which other nodes lead here as long as anything in it is claimed. A claim that is among `former` keeps its time; the others
/// begin at `now`, which is RFC 3339 in UTC.
pub fn own<'a>(
    leases: impl IntoIterator<Item = &'a Lease>,
    prefixes: &[IpNet],
    named: &[IpNet],
    former: &[Claim],
    now: &str,
) -> Vec<Claim> {
    let mut claims = Vec::new();
    for lease in leases {
        let outside = lease.addresses().filter(|ip| !prefixes.iter().any(|prefix| prefix.contains(ip)));
        claims.extend(outside.map(|address| {
            let pod = holder(lease);
            let known = former.iter().find(|claim| claim.address == address && *claim.pod == *pod);
            Claim { address, since: known.map_or_else(|| now.into(), |claim| claim.since.clone()), pod: pod.into() }
        }));
    }
    let is_named = |claim: &Claim| named.iter().any(|prefix| prefix.contains(&claim.address));
    claims.sort_by_key(|claim| (!is_named(claim), claim.address));
    claims.truncate(CLAIMS_MAX);
    claims.sort_by_key(|claim| claim.address);
    claims
}

/// The pod that a lease is for, `NAMESPACE/NAME`; the container where no pod was named.
fn holder(lease: &Lease) -> String {
    match &lease.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => format!("container {}", lease.attachment.container_id),
    }
}

/// The addresses that `node` claims by `ours` and that others claim, too, in order.
pub fn contests<'a>(node: &'a str, ours: &'a [Claim], peers: &Peers<'a>) -> Vec<Contest> {
    let mut found = Vec::new();
    for claim in ours {
        let of = |peer: &'a Peer| peer.claims.iter().filter(|theirs| theirs.address == claim.address);
        let elsewhere = peers.iter().filter(|(other, _)| **other != node);
        let mut all: Vec<(&str, &Claim)> =
            elsewhere.flat_map(|(other, peer)| of(peer).map(|theirs| (*other, theirs))).collect();
        all.push((node, claim));
        let counts = counting(&all);
        all.pop();
        found.extend(all.into_iter().map(|one| {
            let (other, theirs) = one;
            let lost = counts == Some(one);
            Contest { ours: claim.clone(), node: other.to_owned(), theirs: theirs.clone(), lost }
        }));
    }
    found
}

/// The first other node that claims `ip` for another pod than `pod`, with its pod; none if nobody does. What one claims for `pod`
/// is of an earlier life of it, and hides no other claim.
pub fn holder_elsewhere(ip: IpAddr, pod: Option<&str>, node: &str, peers: &Peers<'_>) -> Option<(String, String)> {
    peers.iter().filter(|(other, _)| **other != node).find_map(|(other, peer)| {
        let claim = peer.claims.iter().find(|claim| claim.address == ip && Some(&*claim.pod) != pod)?;
        Some(((*other).to_owned(), String::from(&*claim.pod)))
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;
    use crate::examples::lease;
    use crate::lease::PodName;

    const FIRST: &str = "2026-01-01T00:00:00Z";
    const SECOND: &str = "2026-01-01T00:00:01Z";

    fn claim(address: &str, pod: &str, since: &str) -> Claim {
        Claim { address: address.parse().expect("literal"), pod: pod.into(), since: since.into() }
    }

    fn peer(claims: &[Claim]) -> Peer {
        Peer { claims: claims.to_vec(), ..Peer::default() }
    }

    #[test]
    fn a_node_claims_what_its_pods_have_beyond_its_ranges_and_keeps_the_time_of_the_claim() {
        let ranges: Vec<IpNet> = ["2001:db8::/64"].iter().map(|net| net.parse().expect("a prefix")).collect();
        let mut fixed = lease("abc/eth0");
        fixed.ipv4 = "203.0.113.5".parse().ok();
        fixed.pod = Some(PodName { namespace: "web".into(), name: "www-0".into(), uid: None });
        let first = own([&fixed], &ranges, &[], &[], FIRST);
        assert_eq!(first, [claim("203.0.113.5", "web/www-0", FIRST)]);
        assert_eq!(own([&fixed], &ranges, &[], &first, SECOND), first);
        // Another pod with the same address claims it anew.
        fixed.pod = None;
        let other = own([&fixed], &ranges, &[], &first, SECOND);
        assert_eq!(other, [claim("203.0.113.5", "container abc", SECOND)]);
    }

    #[test]
    fn of_more_addresses_than_a_node_can_tell_those_that_pods_name_come_first() {
        let former = |n: usize| {
            let mut lease = lease(&format!("c{n}/eth0"));
            lease.ipv6 = None;
            lease.ipv4 = format!("10.1.{}.{}", n / 256, n % 256).parse().ok();
            lease
        };
        let mut leases: Vec<Lease> = (0..CLAIMS_MAX).map(former).collect();
        let named: IpNet = "203.0.113.0/28".parse().expect("a prefix");
        leases[7].extra.push("203.0.113.5".parse().expect("literal"));
        let claims = own(&leases, &[], &[named], &[], FIRST);
        assert_eq!(claims.len(), CLAIMS_MAX);
        assert!(claims.iter().any(|claim| named.contains(&claim.address)));
        assert!(claims.is_sorted_by_key(|claim| claim.address));
    }

    #[test]
    fn of_three_claims_of_an_address_exactly_one_counts_whoever_decides() {
        // Pod p was on a and is now on c; q on b wanted the address in between.
        let three = [
            ("a", claim("192.0.2.1", "x/p", FIRST)),
            ("b", claim("192.0.2.1", "x/q", SECOND)),
            ("c", claim("192.0.2.1", "x/p", "2026-01-01T00:00:02Z")),
        ];
        let nodes: Vec<Peer> = three.iter().map(|(_, claim)| peer(std::slice::from_ref(claim))).collect();
        let peers: Peers<'_> = three.iter().zip(&nodes).map(|((name, _), peer)| (*name, peer)).collect();
        let loses = |(node, own): &(&'static str, Claim)| {
            let found = contests(node, std::slice::from_ref(own), &peers);
            assert_eq!(found.len(), 2);
            found.iter().any(|contest| contest.lost)
        };
        assert_eq!(three.iter().map(loses).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn two_nodes_decide_alike_who_announces_an_address() {
        for (a_since, b_since, a_wins) in [(FIRST, SECOND, true), (SECOND, FIRST, false), (FIRST, FIRST, true)] {
            let (of_a, of_b) = (claim("192.0.2.1", "x/a", a_since), claim("192.0.2.1", "x/b", b_since));
            let (a, b) = (peer(std::slice::from_ref(&of_a)), peer(std::slice::from_ref(&of_b)));
            let peers = Peers::from([("a", &a), ("b", &b)]);
            let lost =
                |node, own| contests(node, &[own], &peers).iter().map(|contest| contest.lost).collect::<Vec<_>>();
            assert_eq!(lost("a", of_a), [!a_wins]);
            assert_eq!(lost("b", of_b), [a_wins]);
        }
    }

    #[test]
    fn a_pod_that_has_moved_from_a_dead_node_is_announced_where_it_is_now() {
        let (old, new) = (claim("192.0.2.1", "x/www-0", FIRST), claim("192.0.2.1", "x/www-0", SECOND));
        let dead = peer(std::slice::from_ref(&old));
        let lost = |node, own| contests(node, &[own], &Peers::from([("a", &dead)]))[0].lost;
        assert!(!lost("b", new.clone()));
        let alive = peer(std::slice::from_ref(&new));
        assert!(contests("a", &[old], &Peers::from([("b", &alive)]))[0].lost, "should it come back");
    }

    #[test]
    fn an_address_that_another_node_claims_is_told_with_its_pod() {
        let own = peer(&[claim("192.0.2.1", "x/own", FIRST)]);
        let other = peer(&[claim("192.0.2.2", "x/web", FIRST)]);
        let peers = Peers::from([("a", &own), ("b", &other)]);
        let elsewhere = |ip: &str| holder_elsewhere(ip.parse().expect("literal"), None, "a", &peers);
        assert_eq!(elsewhere("192.0.2.1"), None, "its own claim is no other node's");
        assert_eq!(elsewhere("192.0.2.2"), Some(("b".to_string(), "x/web".to_string())));
        assert_eq!(elsewhere("192.0.2.3"), None);
        let text = contests("a", &[claim("192.0.2.2", "x/mine", SECOND)], &peers)[0].to_string();
        assert!(
            text.contains("x/mine") && text.contains("x/web of node b") && text.contains("does not announce it"),
            "{text}"
        );
        assert!(text.ends_with("`kubectl delete nodeconfig b` if that node is gone"), "{text}");
    }

    // covers: FM-M07
    #[test]
    fn what_a_dead_node_claims_for_the_same_pod_hides_no_living_pod_of_another_node() {
        let dead = peer(&[claim("192.0.2.2", "x/www-0", FIRST)]);
        let other = peer(&[claim("192.0.2.2", "x/other", FIRST)]);
        let peers = Peers::from([("b-dead", &dead), ("c", &other)]);
        let elsewhere = |pod| holder_elsewhere("192.0.2.2".parse().expect("literal"), pod, "a", &peers);
        assert_eq!(elsewhere(Some("x/www-0")), Some(("c".to_string(), "x/other".to_string())));
        assert_eq!(elsewhere(Some("x/other")), Some(("b-dead".to_string(), "x/www-0".to_string())));
        let peers = Peers::from([("b-dead", &dead)]);
        assert_eq!(holder_elsewhere("192.0.2.2".parse().expect("literal"), Some("x/www-0"), "a", &peers), None);
    }
}
