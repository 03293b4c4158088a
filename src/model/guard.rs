//! What keeps pods from pretending: a pod sends with addresses of its own, or not at all, and tells the host nothing about the
//! network.
//!
//! The check is by (link, source), so it is right for further, anycast and second addresses, whatever the routes are, and comes
//! before the kernel tracks connections, so that a flood costs it no memory. It also keeps the host's table of neighbours: a pod
//! that asks who has which address is learnt by its own addresses alone. Must not know policies, nor how the tables get into the
//! kernel.
//!
//! No rule is about links that only look like a pod's: a link is one by its name in the set `links`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{ContainerId, Family, IfName, POD_LINKS};
use crate::lease::Lease;
use crate::protocol::{ICMP, ICMP6, UDP};
use crate::ruleset::{
    Base, Chain, ChainKind, Element, End, Field, Form, Hook, Op, Rule, Ruleset, Set, Statement, Table, TableFamily,
    TableKey, Value, Verdict,
};

/// The table of what pods send and receive.
pub const FILTER: TableKey = TableKey { family: TableFamily::Inet, name: "flock" };

/// The table of what pods say about hardware addresses.
pub const ARP: TableKey = TableKey { family: TableFamily::Arp, name: "flock" };

/// The links that are checked, of both tables.
pub const LINKS: &str = "links";

/// (link, source) pairs that are right, of both tables.
pub const SOURCES4: &str = "src4";

/// The same for IPv6.
pub const SOURCES6: &str = "src6";

/// The chain that checks sources, of both tables.
pub const SOURCE: &str = "source";
/// The chain of what is sent to the host itself.
const GUARD: &str = "guard";

/// The names of all that is made here.
pub const NAMES: [&str; 5] = [LINKS, SOURCES4, SOURCES6, SOURCE, GUARD];

/// `priority raw`: before connections are tracked.
const RAW: i32 = -300;

/// `priority filter`.
const FILTERING: i32 = 0;

/// Neighbour solicitation (RFC 4861), which a host sends from `::` to find out whether an address is free.
const ND_NEIGHBOR_SOLICIT: u8 = 135;
/// Router advertisement.
const ND_ROUTER_ADVERT: u8 = 134;
/// ICMPv6 redirect.
const ND_REDIRECT: u8 = 137;
/// ICMP redirect (RFC 792).
const ICMP_REDIRECT: u8 = 5;

/// The servers' ports of DHCP and DHCPv6, and the clients'.
const DHCP: [(u16, u16); 2] = [(67, 68), (547, 546)];

/// Adds to `ruleset` what checks the sources of `leases`: [`sets_of`] them, and the chains that look into these. Nothing for none.
pub fn check_sources<'a>(ruleset: &mut Ruleset, leases: impl Iterator<Item = &'a Lease>) {
    for (key, sets) in sets_of(leases) {
        let table = ruleset.entry(key).or_default();
        table.sets.extend(sets.sets);
        if key == ARP {
            add_chain(table, SOURCE, Hook::Input, FILTERING, arp_rules());
        } else {
            add_chain(table, SOURCE, Hook::Prerouting, RAW, source_rules());
            add_chain(table, GUARD, Hook::Input, FILTERING, guard_rules());
        }
    }
}

/// The links of `leases` that are checked, and what each may send from, as sets of both tables. No table for none.
///
/// Of a container with several links, each may bear the addresses of all: an answer leaves by the better default route,
/// whichever way the question came. The pods that may send with any address are left out, and so are links that the Go flock
/// made, whose link-local addresses nobody knows.
pub fn sets_of<'a>(leases: impl Iterator<Item = &'a Lease>) -> Ruleset {
    let mut ruleset = Ruleset::new();
    let mut containers: BTreeMap<&ContainerId, Vec<&Lease>> = BTreeMap::new();
    for lease in leases {
        containers.entry(&lease.attachment.container_id).or_default().push(lease);
    }
    let (mut links, mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for leases in containers.values() {
        for lease in leases {
            let Some(pod_mac) = lease.pod_mac.filter(|_| !lease.any_source) else { continue };
            links.insert(Element::Link(lease.host_link.clone()));
            for ip in leases.iter().flat_map(|lease| lease.all_addresses()) {
                let set = if ip.is_ipv4() { &mut v4 } else { &mut v6 };
                set.insert(Element::LinkAddress(lease.host_link.clone(), ip));
            }
            if lease.ipv6.is_some() {
                v6.insert(Element::LinkAddress(lease.host_link.clone(), pod_mac.link_local().into()));
            }
        }
    }
    if links.is_empty() {
        return ruleset;
    }
    let counted = Form::Links { counted: true };
    let arp = ruleset.entry(ARP).or_default();
    add_set(arp, LINKS, counted, links.clone());
    add_set(arp, SOURCES4, Form::LinkAddresses(Family::V4), v4.clone());
    let filter = ruleset.entry(FILTER).or_default();
    add_set(filter, LINKS, counted, links);
    add_set(filter, SOURCES4, Form::LinkAddresses(Family::V4), v4);
    add_set(filter, SOURCES6, Form::LinkAddresses(Family::V6), v6);
    ruleset
}

fn add_set(table: &mut Table, name: &str, form: Form, elements: BTreeSet<Element>) {
    table.sets.insert(name.into(), Set { form, elements });
}

fn add_chain(table: &mut Table, name: &str, hook: Hook, priority: i32, rules: Vec<Rule>) {
    let base = Some(Base { kind: ChainKind::Filter, hook, priority });
    table.chains.insert(name.into(), Chain { base, rules });
}

/// Before the routing decision. What is right costs a pod's packet one comparison and one look-up.
fn source_rules() -> Vec<Rule> {
    let is = |field, value: u8| Statement::Is(field, Op::Eq, Value::Byte(value));
    let link = Field::Link(End::In);
    vec![
        vec![others(), accept()],
        vec![Statement::of_family(Family::V4), within(vec![link, Field::Source(Family::V4)], SOURCES4), accept()],
        vec![Statement::of_family(Family::V6), within(vec![link, Field::Source(Family::V6)], SOURCES6), accept()],
        vec![
            Statement::of_family(Family::V6),
            Statement::Is(Field::Source(Family::V6), Op::Eq, Value::V6(Ipv6Addr::UNSPECIFIED)),
            is(Field::Protocol, ICMP6),
            is(Field::Icmp6Type, ND_NEIGHBOR_SOLICIT),
            accept(),
        ],
        vec![within(vec![link], LINKS), drop()],
    ]
}

/// What is sent to the host itself about the network. The links' settings have the host ignore most of it already.
fn guard_rules() -> Vec<Rule> {
    let is = |field, value: u8| Statement::Is(field, Op::Eq, Value::Byte(value));
    let mut rules = vec![vec![Statement::In(vec![Field::Link(End::In)], Op::Ne, LINKS.into()), accept()]];
    for (protocol, field, kind) in [
        (ICMP6, Field::Icmp6Type, ND_ROUTER_ADVERT),
        (ICMP6, Field::Icmp6Type, ND_REDIRECT),
        (ICMP, Field::IcmpType, ICMP_REDIRECT),
    ] {
        rules.push(vec![is(Field::Protocol, protocol), is(field, kind), Statement::Count, drop()]);
    }
    for (server, client) in DHCP {
        rules.push(vec![
            is(Field::Protocol, UDP),
            Statement::Is(Field::SourcePort, Op::Eq, Value::Short(server)),
            Statement::Is(Field::DestinationPort, Op::Eq, Value::Short(client)),
            Statement::Count,
            drop(),
        ]);
    }
    rules
}

fn arp_rules() -> Vec<Rule> {
    let link = Field::Link(End::In);
    vec![
        vec![others(), accept()],
        vec![within(vec![link, Field::ArpSource], SOURCES4), accept()],
        // The question whether an address is free (RFC 5227), of which nothing is learnt.
        vec![Statement::Is(Field::ArpSource, Op::Eq, Value::V4(Ipv4Addr::UNSPECIFIED)), accept()],
        vec![within(vec![link], LINKS), drop()],
    ]
}

/// Most packets of the host are not a pod's, and for them this is all.
fn others() -> Statement {
    Statement::NameBegins(End::In, Op::Ne, POD_LINKS)
}

fn within(fields: Vec<Field>, set: &str) -> Statement {
    Statement::In(fields, Op::Eq, String::from(set))
}

fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

/// What a pod's link may send from, as the sets have it.
pub fn sources<'a>(ruleset: &'a Ruleset, link: &'a IfName) -> impl Iterator<Item = IpAddr> + 'a {
    let sets = [SOURCES4, SOURCES6].into_iter().filter_map(|name| ruleset.get(&FILTER)?.sets.get(name));
    sets.flat_map(|set| &set.elements).filter_map(move |element| match element {
        Element::LinkAddress(of, ip) if of == link => Some(*ip),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::examples::lease;

    fn shown(leases: &[Lease]) -> Ruleset {
        let mut ruleset = Ruleset::new();
        check_sources(&mut ruleset, leases.iter());
        ruleset
    }

    fn texts(ruleset: &Ruleset, link: &str) -> Vec<String> {
        let link: IfName = link.parse().expect("literal");
        sources(ruleset, &link).map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn a_pod_sends_with_its_own_further_and_shared_addresses_and_its_link_local_one() {
        let mut pod = lease("a/eth0");
        pod.extra = vec!["203.0.113.9".parse().expect("literal")];
        pod.anycast = vec!["2001:db8:f::53".parse().expect("literal")];
        let ruleset = shown(&[pod.clone()]);
        let may = texts(&ruleset, pod.host_link.as_str());
        let mut wanted: Vec<String> = pod.addresses().chain(pod.anycast.clone()).map(|ip| ip.to_string()).collect();
        wanted.push(pod.pod_mac.expect("known").link_local().to_string());
        assert!(may.len() == wanted.len() && wanted.iter().all(|ip| may.contains(ip)), "{may:?}");
    }

    #[test]
    fn each_link_of_a_container_may_bear_the_addresses_of_all_and_no_other_containers() {
        let named = |key: &str, link: &str, ip: &str| Lease {
            host_link: link.parse().expect("literal"),
            ipv4: ip.parse().ok(),
            ipv6: None,
            ..lease(key)
        };
        let ruleset = shown(&[
            named("a/eth0", "flocka0", "10.0.0.1"),
            named("a/net1", "flocka1", "10.0.0.2"),
            named("b/eth0", "flockb0", "10.0.0.3"),
        ]);
        assert_eq!(texts(&ruleset, "flocka0"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(texts(&ruleset, "flocka1"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(texts(&ruleset, "flockb0"), ["10.0.0.3"]);
    }

    #[test]
    fn without_a_link_to_check_there_is_no_table() {
        let router = Lease { any_source: true, ..lease("a/eth0") };
        let taken_over = Lease { pod_mac: None, ..lease("b/eth0") };
        assert!(shown(&[router.clone(), taken_over.clone()]).is_empty());
        let ruleset = shown(&[router.clone(), taken_over, lease("c/eth0")]);
        assert_eq!(ruleset.len(), 2);
        assert!(texts(&ruleset, router.host_link.as_str()).is_empty());
        let links = &ruleset.get(&FILTER).expect("a table").sets.get(LINKS).expect("a set").elements;
        assert_eq!(links.len(), 1);
    }
}
