//! Addresses beside the ranges of nodes, which pods of the whole cluster name: one pod alone has them (annotation `addresses`), or
//! pods share them (`anycast`). Which this node claims, and what happens when other nodes claim one, too.
//!
//! Nodes tell each other their claims, and each decides by the same rule (`peers::claim`), so all decide alike: the earlier claim
//! counts, and of two of one moment that of the node whose name comes first. Of two claims for one pod the later one counts: the
//! pod has moved, and the node that it has left may be dead. Claims that are shared do not contest each other. What does not count
//! is not announced; its pod keeps the address, as no living pod is ever harmed. Decides on values; must not ask the API server,
//! and knows the time only as an argument.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::annotations::{ADDRESSES, ANYCAST};
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
        let how = |claim: &Claim| if claim.shared { "shared by" } else { "claimed by" };
        write!(f, "{} is {} pod {} here and ", ours.address, how(ours), ours.pod)?;
        if ours.shared != theirs.shared {
            write!(f, "{} ", how(theirs))?;
        } else {
            f.write_str("by ")?;
        }
        write!(f, "pod {} of node {node}", theirs.pod)?;
        f.write_str(match lost {
            true => ", which counts: this node does not announce it; delete one of the pods",
            false => ", which does not count and is not announced there; delete one of the pods",
        })?;
        write!(f, ", or `kubectl delete nodeconfig {node}` if that node is gone")
    }
}

/// What this node claims, and tells the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// In order of the addresses, at most [`CLAIMS_MAX`].
    pub claims: Vec<Claim>,
    /// How many more there would be.
    pub untold: usize,
}

/// What this node claims: the addresses of `leases` outside of `prefixes`, the node's ranges, and what they share. Of too many,
/// those in `named`, the prefixes from which pods name addresses, come first: others are in a range that the node had, which other
/// nodes lead here as long as anything in it is claimed. A claim that is among `former` keeps its time; the others begin at `now`,
/// which is RFC 3339 in UTC.
pub fn own<'a>(
    leases: impl IntoIterator<Item = &'a Lease>,
    prefixes: &[IpNet],
    named: &[IpNet],
    former: &[Claim],
    now: &str,
) -> Claimed {
    let mut claims = Vec::new();
    let mut sharers: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for lease in leases {
        claims.extend(lease.outside(prefixes).map(|address| {
            let new = Claim { address, since: now.into(), pod: holder(lease).into(), shared: false };
            match former.iter().find(|former| new.continues(former)) {
                Some(known) => Claim { since: known.since.clone(), ..new },
                None => new,
            }
        }));
        lease.anycast.iter().for_each(|ip| sharers.entry(*ip).or_default().push(holder(lease)));
    }
    claims.extend(sharers.into_iter().filter_map(|(address, pods)| {
        let known = former.iter().find(|claim| claim.address == address && claim.shared);
        // The pod that was named stays named as long as it is there, so that nothing is written when another one comes.
        let named = known.filter(|known| pods.iter().any(|pod| **pod == *known.pod)).map(|known| known.pod.clone());
        let pod = named.or_else(|| pods.into_iter().min().map(Into::into))?;
        let since = known.map_or_else(|| now.into(), |claim| claim.since.clone());
        Some(Claim { address, since, pod, shared: true })
    }));
    claims.sort_by_key(|claim| (!is_named(claim, named), claim.address));
    let untold = claims.len().saturating_sub(CLAIMS_MAX);
    claims.truncate(CLAIMS_MAX);
    claims.sort_by_key(|claim| claim.address);
    Claimed { claims, untold }
}

fn is_named(claim: &Claim, named: &[IpNet]) -> bool {
    named.iter().any(|prefix| prefix.contains(&claim.address))
}

/// The pod that a lease is for, `NAMESPACE/NAME`; the container where no pod was named.
fn holder(lease: &Lease) -> String {
    match &lease.pod {
        Some(pod) => pod.to_string(),
        None => format!("container {}", lease.attachment.container_id),
    }
}

/// The addresses that `node` claims by `ours` and that others claim, too, in order. Of the nodes that share one of them, one
/// stands for all.
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
        let is_lost = |one: &(&str, &Claim)| counts == Some(*one);
        let (mut shared, mut alone): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, theirs)| theirs.shared);
        shared.sort_by_key(|one| !is_lost(one));
        shared.truncate(usize::from(!claim.shared));
        alone.extend(shared);
        found.extend(alone.into_iter().map(|one| {
            let (other, theirs) = one;
            Contest { ours: claim.clone(), node: other.to_owned(), theirs: theirs.clone(), lost: is_lost(&one) }
        }));
    }
    found
}

/// Why a pod of this node cannot have an address that it names, as far as other nodes are concerned. In words for an operator, who
/// reads them at the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A pod of another node has it.
    Claimed {
        /// The pod that wants it, and whether it would share it.
        wanted: Claim,
        /// The other node.
        node: String,
        /// Its claim.
        theirs: Claim,
        /// The node of the pod that wants it.
        here: String,
    },
    /// It is in a range of another node, which gives it to any pod.
    InRange {
        /// The address.
        ip: IpAddr,
        /// The range.
        range: IpNet,
        /// The node that has the range.
        node: String,
    },
    /// This node's pods name so many addresses that it could not tell others of this one.
    Untold {
        /// The address.
        ip: IpAddr,
        /// This node.
        here: String,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gone = |f: &mut fmt::Formatter<'_>, node: &str| {
            write!(f, "; if that node is gone: kubectl delete nodeconfig {node}")
        };
        match self {
            Obstacle::Claimed { wanted, node, theirs, .. } if wanted.shared == theirs.shared => {
                write!(f, "{} is held by {} on node {node}", wanted.address, theirs.pod)?;
                gone(f, node)
            }
            Obstacle::Claimed { wanted, node, theirs, here } => {
                let way = |claim: &Claim| if claim.shared { ANYCAST } else { ADDRESSES };
                write!(
                    f,
                    "{} is held by {} on node {node} by annotation {}, and {} on node {here} names it by annotation {}: an address \
                     is one pod's or shared, so one of the two pods needs another",
                    wanted.address,
                    theirs.pod,
                    way(theirs),
                    wanted.pod,
                    way(wanted)
                )?;
                gone(f, node)
            }
            Obstacle::InRange { ip, range, node } => {
                write!(
                    f,
                    "{ip} is in {range}, the range of node {node}, which gives it to any pod: name one outside of all nodes' ranges"
                )?;
                gone(f, node)
            }
            Obstacle::Untold { ip, here } => write!(
                f,
                "node {here} tells other nodes of at most {CLAIMS_MAX} addresses beside its ranges and its pods name as many, so none \
                 of them would know whose {ip} is: run the pod on another node, or delete one that names addresses here"
            ),
        }
    }
}

/// A wish of a pod to have addresses beside the node's ranges.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The pod, `NAMESPACE/NAME`, if the runtime has named one.
    pub pod: Option<&'a str>,
    /// What it would have alone.
    pub alone: &'a [IpAddr],
    /// What it would share.
    pub shared: &'a [IpAddr],
}

/// The first reason why a pod of `node`, which tells others that it claims `ours`, cannot have what it wishes for; none if there is
/// none. What another node claims for a pod of the same name is of an earlier life of it, and hides no other claim. What is outside
/// of `named`, the prefixes from which pods name addresses, makes room for what is inside (see [`own`]).
pub fn obstacle(wish: Wish<'_>, node: &str, ours: &[Claim], named: &[IpNet], peers: &Peers<'_>) -> Option<Obstacle> {
    let alone = wish.alone.iter().map(|ip| (*ip, false));
    let mut all = alone.chain(wish.shared.iter().map(|ip| (*ip, true)));
    let mut room = CLAIMS_MAX.saturating_sub(ours.iter().filter(|claim| is_named(claim, named)).count());
    all.find_map(|(ip, shared)| {
        let found = peers.iter().filter(|(other, _)| **other != node).find_map(|(other, peer)| {
            let other = || (*other).to_owned();
            let hinders = |c: &&Claim| c.address == ip && Some(&*c.pod) != wish.pod && !(shared && c.shared);
            if let Some(theirs) = peer.claims.iter().find(hinders).cloned() {
                let (pod, since) = (wish.pod.unwrap_or("a container").into(), "".into());
                let wanted = Claim { address: ip, pod, since, shared };
                return Some(Obstacle::Claimed { wanted, node: other(), theirs, here: node.to_owned() });
            }
            let range = peer.ranges().find(|range| range.contains(&ip))?;
            Some(Obstacle::InRange { ip, range, node: other() })
        });
        if found.is_some() {
            return found;
        }
        if ours.iter().any(|claim| claim.address == ip) {
            return None;
        }
        match room.checked_sub(1) {
            Some(left) => room = left,
            None => return Some(Obstacle::Untold { ip, here: node.to_owned() }),
        }
        None
    })
}

/// The addresses of this node's pods that are in a range of another node, in words for an operator: that range has come later, or
/// its node was not heard. At most `most`.
pub fn astray(node: &str, ours: &[Claim], peers: &Peers<'_>, most: usize) -> Vec<String> {
    let holders = ours.iter().filter_map(|claim| {
        let mut others = peers.iter().filter(|(other, _)| **other != node);
        let (other, range) =
            others.find_map(|(other, peer)| Some((other, peer.ranges().find(|range| range.contains(&claim.address))?)))?;
        let Claim { address, pod, .. } = claim;
        Some(format!(
            "{address} of pod {pod} here is in {range}, the range of node {other}, which may give it to another pod: delete the pod, \
             or give that node another range"
        ))
    });
    holders.take(most).collect()
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
        Claim { address: address.parse().expect("literal"), pod: pod.into(), since: since.into(), shared: false }
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
        let first = own([&fixed], &ranges, &[], &[], FIRST).claims;
        assert_eq!(first, [claim("203.0.113.5", "web/www-0", FIRST)]);
        assert_eq!(own([&fixed], &ranges, &[], &first, SECOND).claims, first);
        // Another pod with the same address claims it anew.
        fixed.pod = None;
        let other = own([&fixed], &ranges, &[], &first, SECOND).claims;
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
        let Claimed { claims, untold } = own(&leases, &[], &[named], &[], FIRST);
        assert_eq!(untold, 1, "and how many were left out is said");
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

    /// What hinders `pod` of node a from having these addresses alone, and sharing those.
    fn hindered(
        pod: Option<&str>,
        alone: &[&str],
        shared: &[&str],
        ours: &[Claim],
        peers: &Peers<'_>,
    ) -> Option<String> {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect::<Vec<IpAddr>>();
        let wish = Wish { pod, alone: &ips(alone), shared: &ips(shared) };
        let named = ["192.0.0.0/16", "198.51.100.0/24"].map(|net| net.parse().expect("literal"));
        obstacle(wish, "a", ours, &named, peers).map(|obstacle| obstacle.to_string())
    }

    // covers: FM-M06
    #[test]
    fn an_address_that_another_node_claims_is_refused_by_its_pod_and_the_command_that_frees_it() {
        let own = peer(&[claim("192.0.2.1", "x/own", FIRST)]);
        let other = peer(&[claim("192.0.2.2", "x/web", FIRST)]);
        let peers = Peers::from([("a", &own), ("b", &other)]);
        let elsewhere = |ip: &str| hindered(None, &[ip], &[], &own.claims, &peers);
        assert_eq!(elsewhere("192.0.2.1"), None, "its own claim is no other node's");
        let text = "192.0.2.2 is held by x/web on node b; if that node is gone: kubectl delete nodeconfig b";
        assert_eq!(elsewhere("192.0.2.2").as_deref(), Some(text));
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
        let held_by = |pod: &str, peers: &Peers<'_>| hindered(Some(pod), &["192.0.2.2"], &[], &[], peers);
        let peers = Peers::from([("b-dead", &dead), ("c", &other)]);
        assert!(held_by("x/www-0", &peers).is_some_and(|text| text.contains("held by x/other on node c")));
        assert!(held_by("x/other", &peers).is_some_and(|text| text.contains("held by x/www-0 on node b-dead")));
        assert_eq!(held_by("x/www-0", &Peers::from([("b-dead", &dead)])), None);
    }

    fn shared(address: &str, pod: &str, since: &str) -> Claim {
        Claim { shared: true, ..claim(address, pod, since) }
    }

    // covers: FM-M12
    #[test]
    fn an_address_is_one_pods_or_shared_on_all_nodes_and_not_one_here_and_the_other_there() {
        let b = peer(&[claim("192.0.2.2", "x/web", FIRST), shared("192.0.2.53", "x/dns", FIRST)]);
        let peers = Peers::from([("b", &b)]);
        let wants = |alone: &[&str], shared: &[&str]| hindered(Some("y/p"), alone, shared, &[], &peers);
        assert_eq!(wants(&["192.0.2.9"], &["192.0.2.53"]), None, "what others share can be shared here");
        let text = wants(&["192.0.2.53"], &[]).expect("others share it");
        let says = "192.0.2.53 is held by x/dns on node b by annotation flock.fritzlab.net/anycast, and y/p on node a names it by \
                    annotation flock.fritzlab.net/addresses: ";
        assert!(text.starts_with(says) && text.ends_with("kubectl delete nodeconfig b"), "{text}");
        let text = wants(&[], &["192.0.2.53", "192.0.2.2"]).expect("it is another pod's");
        assert!(
            text.starts_with("192.0.2.2 is held by x/web on node b by annotation flock.fritzlab.net/addresses"),
            "{text}"
        );
    }

    #[test]
    fn two_nodes_that_have_not_heard_of_each_other_decide_alike_whether_an_address_is_shared() {
        for (alone_since, shared_since, alone_wins) in [(FIRST, SECOND, true), (SECOND, FIRST, false)] {
            let (one, other) = (claim("192.0.2.1", "x/a", alone_since), shared("192.0.2.1", "x/b", shared_since));
            let nodes = [
                peer(std::slice::from_ref(&one)),
                peer(std::slice::from_ref(&other)),
                peer(std::slice::from_ref(&other)),
            ];
            let peers = Peers::from([("a", &nodes[0]), ("b", &nodes[1]), ("c", &nodes[2])]);
            let lost = |node, own: &Claim| {
                let found = contests(node, std::slice::from_ref(own), &peers);
                assert_eq!(found.len(), 1, "one for all that share: {found:?}");
                found[0].lost
            };
            assert_eq!(lost("a", &one), !alone_wins);
            assert_eq!([lost("b", &other), lost("c", &other)], [alone_wins; 2]);
        }
    }

    #[test]
    fn a_node_says_once_that_its_pods_share_an_address_and_goes_on_saying_so_by_the_same_pod() {
        let pod = |name: &str| {
            let mut lease = lease(&format!("{name}/eth0"));
            (lease.ipv6, lease.ipv4) = (None, None);
            lease.anycast = vec!["192.0.2.53".parse().expect("literal")];
            lease.pod = Some(PodName { namespace: "x".into(), name: name.into(), uid: None });
            lease
        };
        let (b, a) = (pod("b"), pod("a"));
        let first = own([&b], &[], &[], &[], FIRST).claims;
        assert_eq!(first, [shared("192.0.2.53", "x/b", FIRST)]);
        assert_eq!(own([&a, &b], &[], &[], &first, SECOND).claims, first);
        assert_eq!(own([&a], &[], &[], &first, SECOND).claims, [shared("192.0.2.53", "x/a", FIRST)]);
    }

    // covers: FM-M13
    #[test]
    fn an_address_in_the_range_of_another_node_is_refused_and_a_pod_that_has_one_is_named() {
        let b = Peer { cidr4: "192.0.2.0/24".parse().ok(), ..Peer::default() };
        let peers = Peers::from([("b", &b)]);
        for (alone, shared) in [(&["192.0.2.7"][..], &[][..]), (&[], &["192.0.2.7"])] {
            let text = hindered(Some("y/p"), alone, shared, &[], &peers).expect("it is in the range of b");
            let says = "192.0.2.7 is in 192.0.2.0/24, the range of node b, which gives it to any pod: ";
            assert!(text.starts_with(says) && text.ends_with("kubectl delete nodeconfig b"), "{text}");
        }
        assert_eq!(hindered(Some("y/p"), &["192.0.3.7"], &[], &[], &peers), None);
        // The range has come later.
        let ours =
            [claim("192.0.2.7", "y/p", FIRST), claim("192.0.2.8", "y/q", FIRST), claim("192.0.3.7", "y/r", FIRST)];
        let told = astray("a", &ours, &peers, 8);
        assert!(told.len() == 2 && told[0].starts_with("192.0.2.7 of pod y/p here is in 192.0.2.0/24"), "{told:?}");
        assert_eq!(astray("a", &ours, &peers, 1).len(), 1);
    }

    // covers: FM-M14
    #[test]
    fn an_address_of_which_other_nodes_could_not_be_told_is_given_to_nobody() {
        let full: Vec<Claim> =
            (0..CLAIMS_MAX).map(|n| claim(&format!("192.0.{}.{}", n / 256, n % 256), "x/p", FIRST)).collect();
        let wants = |alone: &[&str], ours: &[Claim]| hindered(Some("y/p"), alone, &[], ours, &Peers::new());
        assert_eq!(wants(&["198.51.100.1"], &full[1..]), None);
        let text = wants(&["198.51.100.1", "198.51.100.2"], &full[1..]).expect("the second is one too many");
        assert!(text.starts_with("node a tells other nodes of at most 256") && text.contains("198.51.100.2"), "{text}");
        assert_eq!(wants(&["192.0.0.7"], &full), None, "of that one they know");
        // No pod can be told to give up what it has of a range that the node had. It is what others are not told then.
        let in_former = |n: usize| claim(&format!("10.9.{}.{}", n / 256, n % 256), "x/p", FIRST);
        let most: Vec<Claim> = full[..5].iter().cloned().chain((5..CLAIMS_MAX).map(in_former)).collect();
        assert_eq!(wants(&["198.51.100.1"], &most), None);
    }
}
