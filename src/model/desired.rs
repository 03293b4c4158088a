//! What flock needs of the host itself, as one list: each entry with what is done when the kernel shows something else.
//!
//! The twin of `plan`, which is the list for one pod's link. Start, ADD, rounds and signals are the same comparison over
//! it. Pure: reads and changes nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ipnet::IpNet;

use crate::addr::Family;

/// What is done about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is flock's to set: put back, and said. Where that fails, no pod can be served and the node is not ready.
    PutBack,
    /// It is flock's to set, and pods work without it: put back, and said. Where that fails, this is said, and the node is ready.
    Offer,
    /// It is somebody else's: said, with the remedy.
    Say,
    /// It cannot be had by changing anything: the node is not ready.
    NotReady,
}

/// What the host serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    /// The node's prefixes.
    pub prefixes: Vec<IpNet>,
    /// Several pods may share an address, and what they are sent is spread over them by flow.
    pub shares_flows: bool,
    /// Why the pods' IPv4 gateway cannot be an address of this host, if so.
    pub gateway4_taken: Option<String>,
    /// The host answers for pods on the link that [`Shows::proxy`] shows.
    pub proxies: bool,
}

impl Wants {
    fn serves(&self, family: Family) -> bool {
        self.prefixes.iter().any(|prefix| prefix.addr().is_ipv6() == (family == Family::V6))
    }
}

/// What the kernel shows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shows {
    /// `net.ipv4.ip_forward`; none where the kernel has no IPv4.
    pub forwarding4: Option<i32>,
    /// `net.ipv6.conf.all.forwarding`; none where the kernel has no IPv6.
    pub forwarding6: Option<i32>,
    /// `net.ipv4.fib_multipath_hash_policy`; none where the kernel has no IPv4.
    pub hash_policy4: Option<i32>,
    /// `net.ipv6.fib_multipath_hash_policy`; none where the kernel has no IPv6.
    pub hash_policy6: Option<i32>,
    /// `net.ipv4.conf.all.arp_ignore`.
    pub arp_ignore: i32,
    /// The unreachable routes with flock's mark.
    pub unreachable: Vec<IpNet>,
    /// The links that packets leave by, or that router advertisements count on.
    pub uplinks: Vec<Uplink>,
    /// The link on which the host is to answer for pods; none if that is wanted of no link, or the link is not there.
    pub proxy: Option<ProxyLink>,
}

/// The link on which the host answers for pods. A setting is none where the kernel does not have it for this link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyLink {
    /// Its name.
    pub name: String,
    /// It forwards IPv4.
    pub forwarding4: Option<i32>,
    /// It forwards IPv6.
    pub forwarding6: Option<i32>,
    /// Its `proxy_ndp`.
    pub proxy_ndp: Option<i32>,
    /// Its `proxy_delay` for IPv4.
    pub delay4: Option<i32>,
    /// Its `proxy_delay` for IPv6.
    pub delay6: Option<i32>,
}

/// A link of the host that leads away from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// An IPv4 default route leads through it, and the link forwards IPv4 or not.
    pub forwards4: Option<bool>,
    /// Its `accept_ra`.
    pub accept_ra: Option<i32>,
    /// It has a route from a router advertisement.
    pub has_advertised_route: bool,
    /// It is a physical link, which may still be waiting for its first advertisement.
    pub physical: bool,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The kernel was started without this family.
    NoFamily(Family),
    /// The pods' IPv4 gateway is somebody else's; why.
    GatewayTaken(String),
    /// A link that would lose its advertised default route once the host forwards, unless `accept_ra` is 2.
    AcceptRa(String),
    /// The host does not forward this family.
    Forwarding(Family),
    /// The host chooses among several next hops by addresses alone, so all clients behind one address would get one pod.
    HashPolicy(Family),
    /// A node prefix without its unreachable route.
    Reachable(IpNet),
    /// An unreachable route that no node prefix asks for any more.
    Unreachable(IpNet),
    /// The link that the host leaves by does not forward IPv4, though the host does.
    UplinkForwarding(String),
    /// The host does not answer ARP for the gateway that its pods have.
    ArpIgnore(i32),
    /// IPv6 proxies of this link are not answered for.
    ProxyNdp(String),
    /// The host waits before it answers for a proxy of this link.
    ProxyDelay(Family, String),
    /// Proxies of this link are not answered for, since it does not forward this family, though the host does.
    ProxyForwarding(Family, String),
}

impl Difference {
    /// What is done about it.
    pub fn policy(&self) -> Policy {
        match self {
            Difference::NoFamily(_) | Difference::GatewayTaken(_) => Policy::NotReady,
            Difference::AcceptRa(_)
            | Difference::Forwarding(_)
            | Difference::HashPolicy(_)
            | Difference::Reachable(_)
            | Difference::Unreachable(_) => Policy::PutBack,
            Difference::ProxyNdp(_) | Difference::ProxyDelay(..) => Policy::Offer,
            Difference::UplinkForwarding(_) | Difference::ArpIgnore(_) | Difference::ProxyForwarding(..) => Policy::Say,
        }
    }
}

/// For [`Policy::PutBack`] and [`Policy::Offer`], the state that is made; for the others, what is wrong and what to do about it.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::NoFamily(family) => {
                let field = if *family == Family::V6 { "spec.cidr6" } else { "spec.cidr4" };
                write!(
                    f,
                    "{field} is set, and this kernel runs without {family}: remove it, or boot a kernel with {family}"
                )
            }
            Difference::GatewayTaken(why) => f.write_str(why),
            Difference::AcceptRa(link) => write!(f, "net/ipv6/conf/{link}/accept_ra=2"),
            Difference::Forwarding(Family::V4) => f.write_str("net/ipv4/ip_forward=1"),
            Difference::Forwarding(Family::V6) => f.write_str("net/ipv6/conf/all/forwarding=1"),
            Difference::HashPolicy(Family::V4) => f.write_str("net/ipv4/fib_multipath_hash_policy=1"),
            Difference::HashPolicy(Family::V6) => f.write_str("net/ipv6/fib_multipath_hash_policy=1"),
            Difference::Reachable(prefix) => write!(f, "unreachable {prefix}"),
            Difference::Unreachable(prefix) => write!(f, "no longer unreachable {prefix}"),
            Difference::UplinkForwarding(link) => write!(
                f,
                "link {link} does not forward IPv4, so nothing from outside reaches pods by it: sysctl -w net/ipv4/conf/{link}/forwarding=1"
            ),
            Difference::ArpIgnore(value) => write!(
                f,
                "net.ipv4.conf.all.arp_ignore is {value}, so pods that lose their permanent neighbour of the gateway lose IPv4: use 0 or 1"
            ),
            Difference::ProxyNdp(link) => write!(f, "net/ipv6/conf/{link}/proxy_ndp=1"),
            Difference::ProxyDelay(family, link) => write!(f, "net/{}/neigh/{link}/proxy_delay=0", directory(*family)),
            Difference::ProxyForwarding(family, link) => write!(
                f,
                "link {link} of spec.proxyNeighbours does not forward {family}, so the host does not answer for pods there: sysctl -w net/{}/conf/{link}/forwarding=1",
                directory(*family)
            ),
        }
    }
}

/// The directory of a family's settings.
fn directory(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// What sets the host apart from what `wants` says, in the order in which it is to be put right.
pub fn differences(wants: &Wants, shows: &Shows) -> Vec<Difference> {
    let mut found = Vec::new();
    let (v4, v6) = (wants.serves(Family::V4), wants.serves(Family::V6));
    if v4 && shows.forwarding4.is_none() {
        found.push(Difference::NoFamily(Family::V4));
    }
    if v6 && shows.forwarding6.is_none() {
        found.push(Difference::NoFamily(Family::V6));
    }
    found.extend(wants.gateway4_taken.clone().map(Difference::GatewayTaken));
    if v4 && shows.forwarding4 == Some(0) {
        found.push(Difference::Forwarding(Family::V4));
    }
    if v6 && let Some(forwards) = shows.forwarding6 {
        // A forwarding host ignores router advertisements, and loses a default route that it has from one, unless told
        // otherwise first. A physical link may still be waiting for its first one at the moment of switching; later, an
        // operator's own choice for it cannot be told from the kernel's default. A bridge or veth is neither: whoever is
        // behind it must not become the host's router.
        let accepts =
            |link: &&Uplink| link.accept_ra == Some(1) && (link.has_advertised_route || link.physical && forwards == 0);
        found.extend(shows.uplinks.iter().filter(accepts).map(|link| Difference::AcceptRa(link.name.clone())));
        if forwards == 0 {
            found.push(Difference::Forwarding(Family::V6));
        }
    }
    // Any other value is an operator's choice.
    if wants.shares_flows {
        let of = [(Family::V4, shows.hash_policy4), (Family::V6, shows.hash_policy6)];
        let by_addresses = of.into_iter().filter(|(_, policy)| *policy == Some(0));
        found.extend(by_addresses.map(|(family, _)| Difference::HashPolicy(family)));
    }
    let lacking = wants.prefixes.iter().filter(|prefix| !shows.unreachable.contains(prefix));
    found.extend(lacking.map(|prefix| Difference::Reachable(*prefix)));
    let idle = shows.unreachable.iter().filter(|prefix| !wants.prefixes.contains(prefix));
    found.extend(idle.map(|prefix| Difference::Unreachable(*prefix)));
    if v4 {
        // One that is switched on now is switched on for every link.
        let silent = shows.uplinks.iter().filter(|link| link.forwards4 == Some(false) && shows.forwarding4 != Some(0));
        found.extend(silent.map(|link| Difference::UplinkForwarding(link.name.clone())));
        if shows.arp_ignore > 1 {
            found.push(Difference::ArpIgnore(shows.arp_ignore));
        }
    }
    if let (true, Some(link)) = (wants.proxies, &shows.proxy) {
        proxy_differences(link, (v4, v6), shows, &mut found);
    }
    found
}

/// What keeps the host from answering for pods on `link` at once: by default the kernel answers for IPv4 proxies alone, and waits a
/// random time of up to 0.8 s before it does, in case there is a better answer, which there is not for pods.
fn proxy_differences(link: &ProxyLink, (v4, v6): (bool, bool), shows: &Shows, found: &mut Vec<Difference>) {
    let name = || link.name.clone();
    let off = |value: Option<i32>| value == Some(0);
    if v6 && off(link.proxy_ndp) {
        found.push(Difference::ProxyNdp(name()));
    }
    for (serves, family, delay) in [(v6, Family::V6, link.delay6), (v4, Family::V4, link.delay4)] {
        if serves && delay.is_some_and(|delay| delay != 0) {
            found.push(Difference::ProxyDelay(family, name()));
        }
    }
    // Where the host is to begin to forward now, each link does.
    if v6 && off(link.forwarding6) && !off(shows.forwarding6) {
        found.push(Difference::ProxyForwarding(Family::V6, name()));
    }
    let said = |other: &Uplink| other.name == link.name && other.forwards4 == Some(false);
    if v4 && off(link.forwarding4) && !off(shows.forwarding4) && !shows.uplinks.iter().any(said) {
        found.push(Difference::ProxyForwarding(Family::V4, name()));
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const V6: &str = "2001:db8::/64";
    const V4: &str = "10.0.0.0/24";

    #[test]
    fn clients_behind_one_address_are_spread_over_pods_unless_an_operator_has_chosen() {
        let shares = Wants { shares_flows: true, ..wants(&[V6, V4]) };
        let policies = |policy4, policy6| {
            let shows = Shows { hash_policy4: policy4, hash_policy6: policy6, ..in_order(&[V6, V4]) };
            differences(&shares, &shows)
        };
        let both = [Difference::HashPolicy(Family::V4), Difference::HashPolicy(Family::V6)];
        assert_eq!(policies(Some(0), Some(0)), both);
        assert_eq!(policies(Some(2), None), []);
        let shows = Shows { hash_policy4: Some(0), ..in_order(&[V6, V4]) };
        assert_eq!(differences(&wants(&[V6, V4]), &shows), [], "nobody shares an address here");
    }

    fn wants(prefixes: &[&str]) -> Wants {
        Wants {
            prefixes: prefixes.iter().map(|p| p.parse().expect("a prefix")).collect(),
            shares_flows: false,
            gateway4_taken: None,
            proxies: true,
        }
    }

    fn in_order(prefixes: &[&str]) -> Shows {
        let v6 = Uplink {
            name: "up0".into(),
            forwards4: Some(true),
            accept_ra: Some(2),
            has_advertised_route: true,
            physical: true,
        };
        Shows {
            forwarding4: Some(1),
            forwarding6: Some(1),
            hash_policy4: Some(1),
            hash_policy6: Some(1),
            arp_ignore: 1,
            unreachable: wants(prefixes).prefixes,
            uplinks: vec![v6],
            proxy: Some(ProxyLink {
                name: "up0".into(),
                forwarding4: Some(1),
                forwarding6: Some(1),
                proxy_ndp: Some(1),
                delay4: Some(0),
                delay6: Some(0),
            }),
        }
    }

    #[track_caller]
    fn check(prefixes: &[&str], damage: fn(&mut Shows), expected: &[&str]) {
        let mut shows = in_order(prefixes);
        damage(&mut shows);
        let found = differences(&wants(prefixes), &shows);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
        let made = |difference: &&Difference| matches!(difference.policy(), Policy::PutBack | Policy::Offer);
        for said in found.iter().filter(|difference| !made(difference)) {
            assert!(said.to_string().contains(": "), "a remedy: {said}");
        }
    }

    #[test]
    fn a_host_in_order_needs_nothing() {
        for prefixes in [&[V6, V4][..], &[V6], &[V4], &[]] {
            check(prefixes, |_| {}, &[]);
        }
    }

    #[test]
    fn whatever_the_host_has_lost_is_named_in_the_order_of_putting_it_back() {
        let both = &[V6, V4];
        check(both, |host| host.forwarding4 = Some(0), &["ipv4/ip_forward=1"]);
        check(both, |host| host.forwarding6 = Some(0), &["ipv6/conf/all/forwarding=1"]);
        check(both, |host| host.unreachable.truncate(1), &["unreachable 10.0.0.0/24"]);
        check(
            both,
            |host| host.unreachable.push("10.9.0.0/24".parse().expect("a prefix")),
            &["no longer unreachable 10.9.0.0/24"],
        );
        check(
            both,
            |host| (host.forwarding6, host.uplinks[0].accept_ra) = (Some(0), Some(1)),
            &["up0/accept_ra=2", "ipv6/conf/all/forwarding=1"],
        );
    }

    #[test]
    fn a_default_route_from_an_advertisement_is_kept_also_when_others_make_the_host_forward() {
        let both = &[V6, V4];
        check(both, |host| host.uplinks[0].accept_ra = Some(1), &["up0/accept_ra=2"]);
        // An operator who has it off wants it off, and a physical link without a route may be meant to have none.
        check(both, |host| host.uplinks[0].accept_ra = Some(0), &[]);
        check(both, |host| (host.uplinks[0].accept_ra, host.uplinks[0].has_advertised_route) = (Some(1), false), &[]);
    }

    #[test]
    fn what_is_the_hosts_is_said_and_left() {
        check(&[V4], |host| host.uplinks[0].forwards4 = Some(false), &["net/ipv4/conf/up0/forwarding=1"]);
        check(&[V4], |host| (host.forwarding4, host.uplinks[0].forwards4) = (Some(0), Some(false)), &["ip_forward"]);
        check(&[V4], |host| host.arp_ignore = 3, &["arp_ignore is 3"]);
        check(&[V6], |host| (host.arp_ignore, host.uplinks[0].forwards4) = (3, Some(false)), &[]);
    }

    /// The link on which the host answers.
    fn proxy(shows: &mut Shows) -> &mut ProxyLink {
        shows.proxy.as_mut().expect("there")
    }

    #[test]
    fn the_host_answers_for_pods_at_once_and_in_the_families_that_it_serves() {
        let fresh = |host: &mut Shows| {
            *proxy(host) = ProxyLink { proxy_ndp: Some(0), delay4: Some(80), delay6: Some(80), ..proxy(host).clone() };
        };
        check(&[V6, V4], fresh, &["up0/proxy_ndp=1", "ipv6/neigh/up0/proxy_delay=0", "ipv4/neigh/up0/proxy_delay=0"]);
        check(&[V4], fresh, &["ipv4/neigh/up0/proxy_delay=0"]);
        check(&[V6], fresh, &["up0/proxy_ndp=1", "ipv6/neigh/up0/proxy_delay=0"]);
        check(&[V6, V4], |host| host.proxy = None, &[]);
        let mut off = wants(&[V6, V4]);
        off.proxies = false;
        let mut shows = in_order(&[V6, V4]);
        fresh(&mut shows);
        assert_eq!(differences(&off, &shows), [], "nobody asks for it");
    }

    #[test]
    fn a_link_that_does_not_forward_answers_for_nobody_and_that_is_said_once() {
        let dead = |host: &mut Shows| {
            *proxy(host) = ProxyLink { forwarding4: Some(0), forwarding6: Some(0), ..proxy(host).clone() };
        };
        check(&[V6, V4], dead, &["net/ipv6/conf/up0/forwarding=1", "net/ipv4/conf/up0/forwarding=1"]);
        check(
            &[V4],
            |host| (host.uplinks[0].forwards4, proxy(host).forwarding4) = (Some(false), Some(0)),
            &["nothing from outside reaches pods by it"],
        );
        check(&[V6], |host| (host.forwarding6, proxy(host).forwarding6) = (Some(0), Some(0)), &["all/forwarding=1"]);
    }

    #[test]
    fn a_family_that_is_not_served_is_left_alone_and_one_that_cannot_be_served_is_said() {
        check(&[V4], |host| host.forwarding6 = Some(0), &[]);
        check(&[V6], |host| host.forwarding4 = Some(0), &[]);
        check(&[V4], |host| host.forwarding6 = None, &[]);
        check(&[V6, V4], |host| host.forwarding6 = None, &["spec.cidr6 is set"]);
        let mut taken = wants(&[V4]);
        taken.gateway4_taken = Some("169.254.1.1 is somebody's: use another".into());
        let found = differences(&taken, &in_order(&[V4]));
        assert_eq!(found.iter().map(Difference::policy).collect::<Vec<_>>(), [Policy::NotReady]);
    }
}
