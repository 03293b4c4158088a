//! What a host is like for pods: the MTU that its uplinks allow, the addresses in the pods' ranges that are somebody's
//! already, and what an operator should know about both.
//!
//! Judges values that were read elsewhere, by the same limits as what an operator gives. Does no I/O and changes nothing.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::addr::{Family, IfName, is_link_local};
use crate::nodeconfig::{MTU_MAX, MTU_MIN4, MTU_MIN6};

/// MTU where neither the NodeConfig nor an uplink gives one, in bytes.
pub const DEFAULT_MTU: u32 = 1500;

/// Addresses that are kept away from pods. A range with more foreign addresses in it belongs to somebody else.
const TAKEN_MAX: usize = 4096;

/// Pods of a node without an IPv4 range to say how many there can be.
const USUAL_PODS: u32 = 256;

/// Pods that are reckoned with, however large the range is: kubelet's usual bounds are 110 and 250.
const PODS_MAX: u32 = 1024;

/// Neighbours that a host may have on networks of its own: routers, other nodes.
const OTHER_NEIGHBOURS: u32 = 512;

/// Overlapping prefixes that are named, per range.
const SHOWN_MAX: usize = 4;

/// What the kernel shows of a host, less what bears flock's mark.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The links that anything below names.
    pub links: BTreeMap<u32, SeenLink>,
    /// Every address of the host: its link, itself, its prefix length.
    pub addresses: Vec<(u32, IpAddr, u8)>,
    /// Every route of every table.
    pub routes: Vec<SeenRoute>,
    /// The gateways of nexthop objects, used or not.
    pub gateways: Vec<IpAddr>,
    /// The neighbours that the host knows: link and address.
    pub neighbours: Vec<(u32, IpAddr)>,
    /// The ways out of the host, the best of each family first: the links of each.
    pub ways_out: Vec<WayOut>,
}

/// A link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLink {
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// It leads back to the host itself.
    pub loopback: bool,
    /// A link of flock's own.
    pub ours: bool,
}

/// A route of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRoute {
    /// Its destination.
    pub to: IpNet,
    /// Where it leads: link and gateway of each next hop.
    pub hops: Vec<(Option<u32>, Option<IpAddr>)>,
    /// It stands in the main table.
    pub main: bool,
}

/// A route that leads out of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    /// For IPv6.
    pub v6: bool,
    /// The links of its next hops.
    pub links: Vec<u32>,
}

/// What holds an address that no pod may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The host itself.
    Host,
    /// A router: it is the next hop of a route.
    NextHop,
    /// Somebody has a route for it alone.
    Route,
    /// A machine on a link of the host.
    Neighbour,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Holder::Host => "the host's own address",
            Holder::NextHop => "the next hop of a route of the host",
            Holder::Route => "the destination of somebody else's route",
            Holder::Neighbour => "the address of a machine that the host has as its neighbour",
        })
    }
}

/// The link by which packets leave the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenUplink {
    /// Its name.
    pub name: String,
    /// Its own MTU, in bytes.
    pub mtu: u32,
}

/// What follows for pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// MTU of the uplink, in bytes: the smallest one where packets leave by several links.
    pub mtu: u32,
    /// The uplink that says so; none where that is just [`DEFAULT_MTU`].
    pub uplink: Option<SeenUplink>,
    /// Addresses that no pod may get: all of the host's, and those of others that are in the node's ranges.
    pub taken: BTreeMap<IpAddr, Holder>,
    /// Why the pods' IPv4 gateway cannot be an address of this host, if so.
    pub gateway4_taken: Option<String>,
    /// What an operator should know.
    pub remarks: Vec<Remark>,
}

/// One thing that an operator should know, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What it is about.
    pub about: About,
    /// The line.
    pub text: String,
}

/// What a [`Remark`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The node's ranges, and others who have addresses there.
    Ranges,
    /// How many neighbours the kernel remembers.
    Neighbours,
    /// The MTU of the uplink.
    Mtu,
    /// The link on which the host is to answer for pods.
    Proxy,
}

impl Remark {
    fn new(about: About, text: String) -> Remark {
        Remark { about, text }
    }
}

/// Judges the host for pods in `prefixes`, whose IPv4 gateway is to be `gateway4`.
pub fn judge(seen: &Seen, prefixes: &[IpNet], gateway4: Ipv4Addr) -> HostFacts {
    let mut facts = HostFacts::default();
    let v6 = prefixes.iter().any(|prefix| prefix.addr().is_ipv6());
    facts.uplink = uplink(seen).map(|link| SeenUplink { name: link.name.clone(), mtu: link.mtu });
    let min = if v6 { MTU_MIN6 } else { MTU_MIN4 };
    facts.mtu = facts.uplink.as_ref().map_or(DEFAULT_MTU, |uplink| mtu_by(uplink, min, &mut facts.remarks));
    take(seen, prefixes, &mut facts);
    for prefix in prefixes {
        overlaps(seen, prefix, &mut facts.remarks);
    }
    if prefixes.iter().any(|prefix| prefix.addr().is_ipv4()) {
        facts.gateway4_taken = gateway_taken(seen, gateway4.into());
    }
    facts
}

/// What is wrong with `name`, the link on which the host is to answer for pods, if anything is.
pub fn proxy_remark(seen: &Seen, name: &IfName) -> Option<Remark> {
    let link = seen.links.values().find(|link| link.name == name.as_str());
    let why = match link {
        None => "is no link of this host (yet)",
        Some(link) if link.ours => "is a pod's link",
        Some(link) if link.loopback => "leads to the host itself",
        Some(_) => return None,
    };
    let text = format!(
        "spec.proxyNeighbours: {name} {why}, so the host answers for pods nowhere: name the link on which routers look for pods"
    );
    Some(Remark::new(About::Proxy, text))
}

/// What is wrong with the number of neighbours that the kernel remembers of a family, all network namespaces together, if anything
/// is: `limit` is `gc_thresh3`; none where it is not shown, as outside of the first network namespace. Neighbours that flock makes
/// are permanent and do not count. Two more are reckoned with for each pod: it and the host may know each other by link-local
/// addresses, too, and it may have neighbours behind itself.
pub fn neighbours_remark(prefixes: &[IpNet], family: Family, limit: Option<u32>) -> Option<Remark> {
    let v6 = family == Family::V6;
    prefixes.iter().find(|prefix| prefix.addr().is_ipv6() == v6)?;
    // Of IPv4, each pod of the node has an address.
    let range4 = prefixes.iter().find(|prefix| prefix.addr().is_ipv4());
    let pods =
        range4.map_or(USUAL_PODS, |range| 1_u32.checked_shl(u32::from(32 - range.prefix_len())).unwrap_or(u32::MAX));
    let pods = pods.min(PODS_MAX);
    let needed = 2 * pods + OTHER_NEIGHBOURS;
    let limit = limit.filter(|limit| *limit < needed)?;
    let key = if v6 { "net.ipv6.neigh.default.gc_thresh3" } else { "net.ipv4.neigh.default.gc_thresh3" };
    let text = format!(
        "{key} is {limit}: the kernel knows no more neighbours at a time, those of all pods together, and {pods} pods and the host's \
         own neighbours can need {needed}, beyond which nobody is found who is new: sysctl -w {key}={}",
        needed.next_power_of_two()
    );
    Some(Remark::new(About::Neighbours, text))
}

/// The uplink of the smallest MTU; none where no packet leaves the host.
fn uplink(seen: &Seen) -> Option<&SeenLink> {
    let mut smallest: Option<&SeenLink> = None;
    for v6 in [true, false] {
        let ways = seen.ways_out.iter().filter(|way| way.v6 == v6);
        let links = |way: &WayOut| {
            let links = way.links.iter().filter_map(|index| seen.links.get(index));
            links.filter(|link| !link.loopback && !link.ours).min_by_key(|link| link.mtu)
        };
        // A way that leads to the host itself says nothing; the next best one does.
        let uplink = ways.into_iter().find_map(links);
        smallest = [smallest, uplink].into_iter().flatten().min_by_key(|link| link.mtu);
    }
    smallest
}

/// The MTU that an uplink leaves to pods.
fn mtu_by(uplink: &SeenUplink, min: u32, remarks: &mut Vec<Remark>) -> u32 {
    let mtu = uplink.mtu.clamp(min, MTU_MAX);
    if mtu != uplink.mtu {
        let text = format!(
            "the uplink {} has an MTU of {}, and pods get {mtu}, as a pod's link needs {min} to {MTU_MAX}: set the uplink's MTU or \
             spec.mtu",
            uplink.name, uplink.mtu
        );
        remarks.push(Remark::new(About::Mtu, text));
    }
    mtu
}

impl Seen {
    /// A link of somebody else. One that is not among the links came or went while the host was looked at, as pods' links do:
    /// the next look tells.
    pub fn is_foreign(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|link| !link.ours)
    }

    /// A next hop that does not lead to a pod. One without a link says nothing of pods.
    pub fn leads_elsewhere(&self, (link, _): &(Option<u32>, Option<IpAddr>)) -> bool {
        link.is_none_or(|link| self.is_foreign(link))
    }
}

fn take(seen: &Seen, prefixes: &[IpNet], facts: &mut HostFacts) {
    // The gateways that every host end bears are no addresses of the host that a pod could meet.
    for (_, ip, _) in seen.addresses.iter().filter(|(_, ip, _)| !is_link_local(*ip) && !ip.is_loopback()) {
        facts.taken.insert(*ip, Holder::Host);
    }
    let hops = seen.routes.iter().flat_map(|route| &route.hops).filter(|hop| seen.leads_elsewhere(hop));
    let hops = hops.filter_map(|(_, via)| *via);
    let next_hops = hops.chain(seen.gateways.iter().copied()).map(|ip| (ip, Holder::NextHop));
    let single = seen.routes.iter().filter(|route| route.to.prefix_len() == route.to.max_prefix_len());
    // Those of the Go flock lead to its pods, and bear no mark.
    let single = single.filter(|route| route.hops.is_empty() || route.hops.iter().any(|hop| seen.leads_elsewhere(hop)));
    let single = single.map(|route| (route.to.addr(), Holder::Route));
    let neighbours = seen.neighbours.iter().filter(|(link, _)| seen.is_foreign(*link));
    let neighbours = neighbours.map(|(_, ip)| (*ip, Holder::Neighbour));
    for (ip, holder) in next_hops.chain(single).chain(neighbours) {
        if !prefixes.iter().any(|prefix| prefix.contains(&ip)) {
            continue;
        }
        if facts.taken.len() >= TAKEN_MAX {
            let text = format!(
                "more than {TAKEN_MAX} addresses of the node's ranges are somebody else's: give the node ranges of its own"
            );
            facts.remarks.push(Remark::new(About::Ranges, text));
            return;
        }
        facts.taken.entry(ip).or_insert(holder);
    }
}

/// Prefixes of others that the node's range meets. Pods work there, but somebody else may give out the same addresses.
fn overlaps(seen: &Seen, prefix: &IpNet, remarks: &mut Vec<Remark>) {
    let field = if prefix.addr().is_ipv6() { "spec.cidr6" } else { "spec.cidr4" };
    let meets = |net: &IpNet| net.contains(prefix) || prefix.contains(net);
    let name = |link: &u32| seen.links.get(link).filter(|link| !link.ours).map(|link| link.name.clone());
    let mut found: Vec<(IpNet, String)> = Vec::new();
    for (link, ip, prefix_len) in &seen.addresses {
        let (Ok(net), Some(name)) = (IpNet::new(*ip, *prefix_len), name(link)) else { continue };
        let net = net.trunc();
        if net.prefix_len() < net.max_prefix_len() && meets(&net) {
            found.push((net, format!("the network of link {name}")));
        }
    }
    for route in &seen.routes {
        let single = route.to.prefix_len() == route.to.max_prefix_len();
        let connected = found.iter().any(|(net, _)| *net == route.to);
        if !single && !connected && route.to != *prefix && prefix.contains(&route.to) {
            found.push((route.to, "somebody else's route".into()));
        }
    }
    found.sort();
    found.dedup_by(|one, other| one.0 == other.0);
    let more = found.len().saturating_sub(SHOWN_MAX);
    for (net, what) in found.into_iter().take(SHOWN_MAX) {
        let text = format!(
            "{field} {prefix} meets {net}, {what}: machines there may have addresses that pods get; use a range of the node's own, \
             or keep it out of every other pool"
        );
        remarks.push(Remark::new(About::Ranges, text));
    }
    if more > 0 {
        let text = format!("{field} {prefix} meets {more} more prefixes of others");
        remarks.push(Remark::new(About::Ranges, text));
    }
}

fn gateway_taken(seen: &Seen, gateway: IpAddr) -> Option<String> {
    let leads_there = |hop: &(Option<u32>, Option<IpAddr>)| hop.1 == Some(gateway) && seen.leads_elsewhere(hop);
    let next_hop = seen.routes.iter().find(|route| route.hops.iter().any(leads_there));
    let single = |route: &SeenRoute| {
        route.to == IpNet::from(gateway)
            && route.hops.iter().any(|(link, _)| link.is_some_and(|link| seen.is_foreign(link)))
    };
    let what = if let Some(route) = next_hop {
        format!("the next hop of the host's route to {}", route.to)
    } else if seen.gateways.contains(&gateway) {
        "the gateway of a nexthop object of the host".into()
    } else if seen.addresses.iter().any(|(link, ip, _)| *ip == gateway && seen.is_foreign(*link)) {
        "an address of another link of the host".into()
    } else if seen.neighbours.iter().any(|(link, ip)| *ip == gateway && seen.is_foreign(*link)) {
        "a neighbour of the host".into()
    } else if seen.routes.iter().any(single) {
        "the destination of a route of the host".into()
    } else {
        return None;
    };
    Some(format!(
        "{gateway} is {what}, and as the gateway of pods it would become an address of this host: set spec.gateway4 to another \
         link-local address, such as 169.254.1.2"
    ))
}

#[cfg(test)]
mod tests {
    use std::borrow::ToOwned as _;
    use std::string::ToString as _;

    use super::*;
    use crate::addr::GATEWAY4;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn link(name: &str, mtu: u32) -> SeenLink {
        SeenLink { name: name.into(), mtu, loopback: name == "lo", ours: name.starts_with("flock") }
    }

    /// A host with lo, two uplinks and a pod's link; no routes.
    fn host() -> Seen {
        let links = [(1, link("lo", 65536)), (2, link("up0", 1500)), (3, link("up1", 1400)), (9, link("flock1", 1500))];
        Seen { links: links.into(), ..Seen::default() }
    }

    fn route(to: &str, hops: &[(u32, &str)]) -> SeenRoute {
        let hops = hops.iter().map(|(link, via)| (Some(*link), (!via.is_empty()).then(|| ip(via))));
        SeenRoute { to: net(to), hops: hops.collect(), main: true }
    }

    fn way(v6: bool, links: &[u32]) -> WayOut {
        WayOut { v6, links: links.into() }
    }

    #[test]
    fn the_mtu_is_the_smallest_of_all_links_that_packets_leave_by() {
        for (ways, mtu) in [
            (vec![], 1500),
            (vec![way(false, &[2])], 1500),
            (vec![way(false, &[2, 3])], 1400),
            (vec![way(false, &[2]), way(true, &[3])], 1400),
            // Only the best way of a family counts, unless it leads nowhere.
            (vec![way(false, &[2]), way(false, &[3])], 1500),
            (vec![way(false, &[1]), way(false, &[3])], 1400),
            (vec![way(false, &[9]), way(false, &[3])], 1400),
            (vec![way(false, &[1])], 1500),
            (vec![way(true, &[7])], 1500),
        ] {
            let seen = Seen { ways_out: ways.clone(), ..host() };
            let facts = judge(&seen, &[net("10.0.0.0/24")], GATEWAY4);
            assert_eq!((facts.mtu, facts.remarks.len()), (mtu, 0), "{ways:?}");
        }
    }

    #[test]
    fn a_kernel_that_knows_too_few_neighbours_for_the_pods_is_told_with_the_setting() {
        let (four, wide, six) = (net("10.0.0.0/24"), net("10.0.0.0/22"), net("2001:db8::/64"));
        for (prefixes, family, limit, wants) in [
            // The kernel's default is enough for what is usual.
            (vec![four, six], Family::V4, Some(1024), None),
            (vec![six], Family::V6, Some(1024), None),
            (vec![four], Family::V4, Some(1023), Some("256 pods and the host's own neighbours can need 1024")),
            (vec![six], Family::V6, Some(128), Some("sysctl -w net.ipv6.neigh.default.gc_thresh3=1024")),
            (vec![wide, six], Family::V6, Some(1024), Some("sysctl -w net.ipv6.neigh.default.gc_thresh3=4096")),
            (vec![wide], Family::V4, Some(2560), None),
            (vec![net("10.0.0.0/8")], Family::V4, Some(2559), Some("1024 pods")),
            // Where there is no such pod, or the host does not show it, there is nothing to say.
            (vec![six], Family::V4, Some(1), None),
            (vec![four], Family::V4, None, None),
        ] {
            let remark = neighbours_remark(&prefixes, family, limit);
            match wants {
                None => assert_eq!(remark, None, "{prefixes:?}"),
                Some(words) => assert!(remark.as_ref().is_some_and(|remark| remark.text.contains(words)), "{remark:?}"),
            }
        }
    }

    #[test]
    fn a_link_on_which_nobody_looks_for_pods_is_said_with_what_to_do() {
        let mut seen = host();
        seen.links.insert(10, SeenLink { ours: true, ..link("renamed", 1500) });
        seen.links.insert(11, SeenLink { loopback: true, ..link("self", 1500) });
        for (name, told) in [
            ("up0", None),
            ("up9", Some("spec.proxyNeighbours: up9 is no link of this host (yet), so")),
            ("self", Some("spec.proxyNeighbours: self leads to the host itself, so")),
            ("renamed", Some("spec.proxyNeighbours: renamed is a pod's link, so")),
        ] {
            let remark = proxy_remark(&seen, &name.parse().expect("a name"));
            match told {
                None => assert_eq!(remark, None),
                Some(told) => {
                    let remark = remark.expect("said");
                    let text = remark.text;
                    assert!(text.starts_with(told) && text.contains(": name the link"), "{text}");
                }
            }
        }
    }

    #[test]
    fn an_mtu_that_no_node_config_could_have_is_bounded_and_said() {
        for (mtu, prefix, expected) in [
            (1000, "2001:db8::/64", 1280),
            (1000, "10.0.0.0/24", 1000),
            (500, "10.0.0.0/24", 576),
            (99999, "10.0.0.0/24", 65535),
        ] {
            let mut seen = Seen { ways_out: vec![way(false, &[2])], ..host() };
            seen.links.insert(2, link("up0", mtu));
            let facts = judge(&seen, &[net(prefix)], GATEWAY4);
            assert_eq!(facts.mtu, expected);
            assert_eq!(
                facts.remarks.iter().filter(|r| r.text.contains("up0") && r.text.contains("spec.mtu")).count(),
                usize::from(mtu != expected)
            );
        }
    }

    #[test]
    fn whoever_has_an_address_of_the_range_already_keeps_it() {
        let mut seen = host();
        seen.addresses = vec![
            (2, ip("192.0.2.10"), 24),
            (9, ip("169.254.1.1"), 32),
            (2, ip("fe80::1"), 64),
            (1, ip("127.0.0.1"), 8),
        ];
        seen.routes = vec![
            route("0.0.0.0/0", &[(2, "192.0.2.254")]),
            route("198.51.100.0/24", &[(2, "192.0.2.253"), (3, "192.0.2.252")]),
            route("203.0.113.0/24", &[(2, "2001:db8::fe")]),
            route("192.0.2.251/32", &[(3, "")]),
            route("192.0.2.255/32", &[]),
            route("198.51.100.7/32", &[(3, "198.51.100.1")]),
        ];
        seen.gateways = vec![ip("192.0.2.250")];
        seen.neighbours = vec![(2, ip("192.0.2.249")), (9, ip("192.0.2.248"))];
        let facts = judge(&seen, &[net("192.0.2.0/24"), net("2001:db8::/64")], GATEWAY4);
        let taken: Vec<(String, Holder)> = facts.taken.iter().map(|(ip, holder)| (ip.to_string(), *holder)).collect();
        let expected = [
            ("192.0.2.10", Holder::Host),
            ("192.0.2.249", Holder::Neighbour),
            ("192.0.2.250", Holder::NextHop),
            ("192.0.2.251", Holder::Route),
            ("192.0.2.252", Holder::NextHop),
            ("192.0.2.253", Holder::NextHop),
            ("192.0.2.254", Holder::NextHop),
            ("192.0.2.255", Holder::Route),
            ("2001:db8::fe", Holder::NextHop),
        ];
        assert_eq!(taken, expected.map(|(ip, holder)| (ip.to_owned(), holder)));
        assert_eq!(facts.remarks.len(), 1, "{:?}", facts.remarks);
        assert!(
            facts.remarks[0].text.starts_with("spec.cidr4 192.0.2.0/24 meets 192.0.2.0/24, the network of link up0")
        );
    }

    #[test]
    fn links_of_pods_that_come_and_go_while_the_host_is_looked_at_are_nobody_elses() {
        let gone = 77;
        let mut seen = host();
        seen.addresses = vec![(gone, GATEWAY4.into(), 32)];
        seen.neighbours = vec![(gone, ip("10.0.0.5")), (9, ip("10.0.0.6"))];
        seen.routes = vec![
            // The kernel's own, for the gateway address of a host end, and those of the Go flock.
            route("169.254.1.1/32", &[(gone, "")]),
            route("10.0.0.7/32", &[(9, "")]),
            // Somebody routes a network through a pod.
            route("198.51.100.0/24", &[(9, "10.0.0.8")]),
        ];
        let facts = judge(&seen, &[net("10.0.0.0/24")], GATEWAY4);
        assert_eq!((facts.taken.len(), facts.gateway4_taken, facts.remarks.len()), (0, None, 0), "{:?}", facts.taken);
    }

    #[test]
    fn a_range_that_is_the_nodes_own_is_nothing_to_remark_on() {
        let mut seen = host();
        seen.addresses = vec![(2, ip("192.0.2.10"), 24), (2, ip("2001:db8:ffff::10"), 64), (1, ip("10.25.214.1"), 32)];
        seen.routes = vec![
            route("0.0.0.0/0", &[(2, "192.0.2.1")]),
            route("10.25.214.0/24", &[]),
            route("10.25.0.0/16", &[(2, "192.0.2.7")]),
        ];
        let facts = judge(&seen, &[net("10.25.214.0/24"), net("2001:db8:1:f001::/64")], GATEWAY4);
        assert_eq!((facts.remarks, facts.gateway4_taken), (vec![], None));
    }

    #[test]
    fn prefixes_of_others_inside_the_range_are_named_and_not_without_end() {
        let mut seen = host();
        seen.routes = (0..40).map(|n| route(&format!("10.25.214.{}/30", n * 4), &[(2, "192.0.2.1")])).collect();
        let facts = judge(&seen, &[net("10.25.214.0/24")], GATEWAY4);
        assert_eq!(facts.remarks.len(), SHOWN_MAX + 1, "{:?}", facts.remarks);
        assert!(facts.remarks[SHOWN_MAX].text.contains("36 more"));
        seen.routes = (0..9999).map(|n| route(&format!("2001:db8::{n:x}/128"), &[])).collect();
        let facts = judge(&seen, &[net("2001:db8::/64")], GATEWAY4);
        assert_eq!((facts.taken.len(), facts.remarks.len()), (TAKEN_MAX, 1));
    }

    #[test]
    fn a_gateway_of_pods_that_is_the_hosts_own_gateway_is_refused_with_the_remedy() {
        let check = |change: fn(&mut Seen), words: &str| {
            let mut seen = host();
            seen.addresses = vec![(9, GATEWAY4.into(), 32)];
            seen.routes = vec![route("169.254.1.1/32", &[(9, "")])];
            change(&mut seen);
            let taken = judge(&seen, &[net("10.0.0.0/24")], GATEWAY4).gateway4_taken;
            assert_eq!(taken.is_some(), !words.is_empty(), "{taken:?}");
            let text = taken.unwrap_or_default();
            assert!(text.contains(words) && (text.is_empty() || text.contains("spec.gateway4")), "{text}");
            assert_eq!(judge(&seen, &[net("2001:db8::/64")], GATEWAY4).gateway4_taken, None, "no IPv4, no gateway");
        };
        check(|_| {}, "");
        check(
            |seen| seen.routes.push(route("0.0.0.0/0", &[(2, "169.254.1.1")])),
            "next hop of the host's route to 0.0.0.0/0",
        );
        check(
            |seen| seen.routes.push(route("10.9.0.0/16", &[(2, "192.0.2.1"), (3, "169.254.1.1")])),
            "route to 10.9.0.0/16",
        );
        check(|seen| seen.gateways.push(GATEWAY4.into()), "nexthop object");
        check(|seen| seen.addresses.push((2, GATEWAY4.into(), 16)), "another link");
        check(|seen| seen.neighbours.push((2, GATEWAY4.into())), "neighbour");
        check(|seen| seen.routes.push(route("169.254.1.1/32", &[(2, "")])), "destination of a route");
    }
}
