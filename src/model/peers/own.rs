//! What a node says of itself for the others: the addresses by which they reach it.
//!
//! Chooses among values that were read elsewhere; must not ask the kernel, nor know how other nodes use the outcome.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{NEXT_HOPS_MAX, NextHop, Surroundings};
use crate::hostfacts::Seen;

/// A link of the host, and what it bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub place: Place,
    /// Its addresses with their prefix lengths, but for those that may go by themselves: tentative, deprecated and temporary ones,
    /// and further IPv4 addresses of one network, which are those of services that move between hosts.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What a link is for; better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A default route leads through it.
    WayOut,
    /// There is a device behind it.
    Physical,
    /// Anything else that can lead to another host.
    Other,
    /// Loopback, a pod's link, a bridge without a physical port.
    Inside,
}

/// The addresses by which other nodes can reach this one, best first, at most [`NEXT_HOPS_MAX`], each with the link-local address
/// of its link. The same links give the same list, in whatever order they are read.
///
/// Links with a default route come first, then physical ones; others count only where none of these has an address. Of a link, IPv6
/// comes first. An address without a network around it (/32, /128) is left out where its link has another one of the family: it
/// is probably a service's. Where it is all that the link has, it is the host's, as in clouds.
pub fn next_hops(links: &[HostLink]) -> Vec<NextHop> {
    let of = |places: &[Place]| {
        let mut links: Vec<&HostLink> = links.iter().filter(|link| places.contains(&link.place)).collect();
        links.sort_by_key(|link| (link.place, link.name.as_str()));
        let mut hops: Vec<NextHop> = Vec::new();
        for hop in links.into_iter().flat_map(of_link) {
            if hops.len() < NEXT_HOPS_MAX && hops.iter().all(|other| other.address != hop.address) {
                hops.push(hop);
            }
        }
        hops
    };
    let outside = of(&[Place::WayOut, Place::Physical]);
    if outside.is_empty() { of(&[Place::Other]) } else { outside }
}

fn of_link(link: &HostLink) -> Vec<NextHop> {
    let link_local = |(ip, _): &(IpAddr, u8)| match ip {
        IpAddr::V6(ip) => Some(*ip).filter(Ipv6Addr::is_unicast_link_local),
        IpAddr::V4(_) => None,
    };
    let link_local = link.addresses.iter().filter_map(link_local).min();
    let single = |ip: &IpAddr, len: u8| len == if ip.is_ipv6() { 128 } else { 32 };
    let mut found = Vec::new();
    for v6 in [true, false] {
        let mut all: Vec<(IpAddr, u8)> =
            link.addresses.iter().copied().filter(|(ip, _)| ip.is_ipv6() == v6 && is_reachable(*ip)).collect();
        all.sort_unstable();
        let has_network = all.iter().any(|(ip, len)| !single(ip, *len));
        let fit = all.into_iter().filter(|(ip, len)| !(has_network && single(ip, *len)));
        found.extend(fit.map(|(address, _)| NextHop { address, link_local }));
    }
    found
}

/// An address that another host can have a packet sent to.
pub fn is_reachable(ip: IpAddr) -> bool {
    let odd = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets().first() == Some(&0),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !odd && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified()
}

/// What routes to other nodes could take away from this host.
pub fn surroundings(seen: &Seen) -> Surroundings {
    let mut found = Surroundings::default();
    let is_network = |net: &IpNet| {
        let len = net.prefix_len();
        len > 0 && len < net.max_prefix_len() && is_reachable(net.addr())
    };
    for (link, ip, prefix_len) in
        seen.addresses.iter().filter(|(link, ip, _)| seen.is_foreign(*link) && is_reachable(*ip))
    {
        found.addresses.insert(*ip);
        let loopback = seen.links.get(link).is_some_and(|link| link.loopback);
        let network = IpNet::new(*ip, *prefix_len).ok().map(|net| net.trunc());
        found.networks.extend(network.filter(|net| !loopback && is_network(net)));
    }
    for route in &seen.routes {
        let on_link =
            |hop: &(Option<u32>, Option<IpAddr>)| hop.1.is_none() && hop.0.is_some_and(|link| seen.is_foreign(link));
        if route.main && !route.hops.is_empty() && route.hops.iter().all(on_link) && is_network(&route.to) {
            found.networks.insert(route.to);
        }
        let vias = route.hops.iter().filter(|hop| seen.leads_elsewhere(hop)).filter_map(|(_, via)| *via);
        found.gateways.extend(vias.filter(|ip| is_reachable(*ip)));
    }
    found.gateways.extend(seen.gateways.iter().filter(|ip| is_reachable(**ip)));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostfacts::{SeenLink, SeenRoute};

    fn link(name: &str, place: Place, addresses: &[&str]) -> HostLink {
        let read = |text: &&str| {
            let (ip, len) = text.split_once('/').expect("a length");
            (ip.parse().expect("an address"), len.parse().expect("a length"))
        };
        HostLink { name: name.into(), place, addresses: addresses.iter().map(read).collect() }
    }

    /// The chosen addresses, those with a link-local one as `ADDRESS%LINKLOCAL`.
    fn chosen(links: &[HostLink]) -> Vec<String> {
        let text = |hop: NextHop| match hop.link_local {
            Some(link_local) => format!("{}%{link_local}", hop.address),
            None => format!("{}", hop.address),
        };
        next_hops(links).into_iter().map(text).collect()
    }

    #[test]
    fn the_link_with_the_default_route_comes_first_and_links_inside_the_host_never() {
        let eth1 = link("eth1", Place::Physical, &["198.51.100.1/24"]);
        let eth0 = link("eth0", Place::WayOut, &["192.0.2.1/24", "fe80::1:1/64", "2001:db8::1/64"]);
        let lo = link("lo", Place::Inside, &["127.0.0.1/8", "::1/128", "203.0.113.1/32"]);
        let docker0 = link("docker0", Place::Inside, &["172.17.0.1/16"]);
        let wg0 = link("wg0", Place::Other, &["10.9.0.1/24"]);
        let all = [wg0.clone(), docker0.clone(), eth1, lo.clone(), eth0];
        assert_eq!(chosen(&all), ["2001:db8::1%fe80::1:1", "192.0.2.1%fe80::1:1", "198.51.100.1"]);
        assert_eq!(chosen(&[lo.clone(), docker0.clone(), wg0]), ["10.9.0.1"], "where there is nothing else");
        assert_eq!(chosen(&[lo, docker0]), [""; 0]);
    }

    #[test]
    fn an_address_of_a_service_that_moves_is_not_the_host_s_unless_it_is_all_there_is() {
        let with_vip =
            link("eth0", Place::WayOut, &["192.0.2.1/24", "192.0.2.100/32", "2001:db8::1/64", "2001:db8::100/128"]);
        assert_eq!(chosen(&[with_vip]), ["2001:db8::1", "192.0.2.1"]);
        let in_a_cloud = link("eth0", Place::WayOut, &["10.128.0.7/32", "fe80::7/64", "2001:db8::7/128"]);
        assert_eq!(chosen(&[in_a_cloud]), ["2001:db8::7%fe80::7", "10.128.0.7%fe80::7"]);
    }

    #[test]
    fn what_nobody_can_send_to_is_no_next_hop() {
        for address in [
            "127.0.0.1/8",
            "169.254.1.1/16",
            "224.0.0.1/4",
            "0.0.0.0/8",
            "255.255.255.255/32",
            "::1/128",
            "fe80::1/64",
            "ff02::1/64",
            "::ffff:1.2.3.4/96",
            "::/0",
        ] {
            assert_eq!(chosen(&[link("eth0", Place::WayOut, &[address])]), [""; 0], "{address}");
        }
    }

    #[test]
    fn networks_gateways_and_addresses_of_the_host_are_found_and_those_of_pods_are_not() {
        let link = |name: &str| SeenLink {
            name: name.into(),
            mtu: 1500,
            loopback: name == "lo",
            ours: name.starts_with("flock"),
        };
        let route = |to: &str, hops: &[(u32, &str)], main| SeenRoute {
            to: to.parse().expect("a prefix"),
            hops: hops.iter().map(|(link, via)| (Some(*link), via.parse().ok())).collect(),
            main,
        };
        let address = |link: u32, text: &str| {
            let net: IpNet = text.parse().expect("an address with its length");
            (link, net.addr(), net.prefix_len())
        };
        let seen = Seen {
            links: [(1, link("lo")), (2, link("eth0")), (9, link("flock1"))].into(),
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(1, "203.0.113.1/32"),
                address(2, "192.0.2.1/24"),
                address(2, "fe80::1/64"),
                address(9, "169.254.1.1/32"),
            ],
            routes: vec![
                route("0.0.0.0/0", &[(2, "192.0.2.254")], true),
                route("::/0", &[(2, "fe80::fe")], true),
                route("192.0.2.0/24", &[(2, "")], true),
                route("198.51.100.0/24", &[(2, "")], true),
                route("198.51.101.0/24", &[(2, "")], false),
                route("10.0.0.5/32", &[(9, "")], true),
                route("10.7.0.0/16", &[(9, "10.0.0.5")], true),
                route("fe80::/64", &[(2, "")], true),
            ],
            gateways: vec!["2001:db8::fe".parse().expect("an address")],
            ..Seen::default()
        };
        let found = surroundings(&seen);
        let text = |set: Vec<String>| set.join(" ");
        assert_eq!(text(found.addresses.iter().map(|ip| format!("{ip}")).collect()), "192.0.2.1 203.0.113.1");
        assert_eq!(text(found.networks.iter().map(|net| format!("{net}")).collect()), "192.0.2.0/24 198.51.100.0/24");
        assert_eq!(text(found.gateways.iter().map(|ip| format!("{ip}")).collect()), "192.0.2.254 2001:db8::fe");
    }

    proptest! {
        #[test]
        fn the_list_is_bounded_and_the_same_in_whatever_order_the_kernel_shows(
            seed in proptest::collection::vec((0u8..6, 0u8..4, 0u8..40, 22u8..=32), 0..60), turn in 0usize..60,
        ) {
            let mut links: Vec<HostLink> = Vec::new();
            for (n, place, host, len) in &seed {
                let place = [Place::WayOut, Place::Physical, Place::Other, Place::Inside][usize::from(*place)];
                let name = format!("eth{n}");
                let at = links.iter().position(|link| link.name == name).unwrap_or_else(|| {
                    links.push(HostLink { name: name.clone(), place, addresses: Vec::new() });
                    links.len() - 1
                });
                let address = (IpAddr::from([10, *n, 0, *host]), *len);
                if !links[at].addresses.contains(&address) {
                    links[at].addresses.push(address);
                }
            }
            let first = next_hops(&links);
            if !links.is_empty() {
                let many = links.len();
                links.rotate_left(turn % many);
            }
            links.iter_mut().for_each(|link| link.addresses.reverse());
            prop_assert_eq!(&next_hops(&links), &first);
            prop_assert!(first.len() <= NEXT_HOPS_MAX);
            let inside: Vec<&HostLink> = links.iter().filter(|link| link.place == Place::Inside).collect();
            prop_assert!(first.iter().all(|hop| inside.iter().all(|link| link.addresses.iter().all(|(ip, _)| *ip != hop.address))));
        }
    }
}
