//! The host as pods need it: forwarding, what it does with advertisements and sources, MTU, ranges, and how many neighbours and
//! routes its kernel remembers.
//!
//! What is flock's to set is compared by the agent's own list (`model::desired`), and what is the operator's is judged as the agent
//! judges it (`model::hostfacts`). Must not set anything.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::kernel::sysctl;
use crate::operator::check::finding::{Area, Finding};
use crate::operator::check::scene::Scene;
use model::addr::Family;
use model::desired::{Difference, Policy, Wants, differences};
use model::hostfacts::{About, Holder};

/// Routes of IPv6 that the kernel is asked for beyond those of the pods of a node, until it knows of them.
const OTHER_ROUTES: usize = 512;

/// What is not as pods need it.
pub fn look(scene: &Scene) -> Vec<Finding> {
    let mut found = settings(scene);
    found.extend(sources(scene));
    found.extend(route_cache(scene));
    if !found.iter().any(|finding| finding.area == Area::Sysctls) {
        let families = families(&scene.prefixes);
        let forwards = if families.is_empty() {
            "no range, so nothing is forwarded".into()
        } else {
            format!("forwarding on for {families}")
        };
        found.push(Finding::ok(Area::Sysctls, forwards));
    }
    found.extend(ranges(scene));
    found.extend(mtu(scene));
    found
}

fn families(prefixes: &[IpNet]) -> String {
    let names: BTreeSet<&str> =
        prefixes.iter().map(|prefix| if prefix.addr().is_ipv6() { "IPv6" } else { "IPv4" }).collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}

/// The agent's own comparison.
fn settings(scene: &Scene) -> Vec<Finding> {
    let facts = &scene.survey.facts;
    let wants = Wants {
        prefixes: scene.prefixes.clone(),
        shares_flows: scene.recorded.leases.iter().any(|lease| !lease.anycast.is_empty()),
        gateway4_taken: facts.gateway4_taken.clone(),
        proxies: false,
    };
    differences(&wants, &scene.shows).iter().map(finding).collect()
}

fn finding(difference: &Difference) -> Finding {
    let (area, what) = match difference {
        Difference::Forwarding(Family::V4) => {
            (Area::Sysctls, "net.ipv4.ip_forward is 0: no IPv4 packet of a pod leaves this node".to_owned())
        }
        Difference::Forwarding(Family::V6) => {
            (Area::Sysctls, "net.ipv6.conf.all.forwarding is 0: no IPv6 packet of a pod leaves this node".to_owned())
        }
        Difference::AcceptRa(link) => (
            Area::Sysctls,
            format!(
                "net.ipv6.conf.{link}.accept_ra is 1 on a host that forwards: its advertised default route will end"
            ),
        ),
        Difference::HashPolicy(family) => (
            Area::Sysctls,
            format!(
                "fib_multipath_hash_policy of {family} is 0: all clients behind one address get one pod of an anycast address"
            ),
        ),
        Difference::Reachable(prefix) => (
            Area::Routes,
            format!("the unreachable route of {prefix} is missing: packets to free addresses leave by the uplink"),
        ),
        Difference::Unreachable(prefix) => {
            (Area::Routes, format!("{prefix} is no range of this node any more, and has an unreachable route"))
        }
        other => {
            let text = other.to_string();
            let finding = match other.policy() {
                Policy::NotReady => Finding::fail(Area::Configuration, text),
                _ => Finding::warn(Area::Sysctls, text),
            };
            return finding;
        }
    };
    Finding::fail(area, what).repairable()
}

/// Links that drop what comes another way than the answer would go, where there is another way. What the kernel takes is the larger
/// of two values.
fn sources(scene: &Scene) -> Vec<Finding> {
    let value = |link: &str| number(&format!("ipv4/conf/{link}/rp_filter")).unwrap_or_default();
    let of_family = scene.ends.iter().filter(|ends| ends.pods.iter().any(|(_, ip)| ip.is_ipv4()));
    let ways: BTreeSet<&str> = of_family.flat_map(|ends| &ends.beyond).map(|(link, _)| link.name.as_str()).collect();
    if ways.len() < 2 {
        return Vec::new();
    }
    let strict = ways.iter().filter(|link| value("all").max(value(link)) == 1);
    let said = |name: &str| {
        let what = format!(
            "rp_filter is strict on {name}: what comes to pods by another way than the one that answers take is dropped there"
        );
        // The names of some links have dots in them.
        Finding::warn(Area::Sysctls, what).cured_by(format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2"))
    };
    strict.map(|link| said(link)).collect()
}

/// Kernels before 6.3 count the routes of IPv6 against a bound.
fn route_cache(scene: &Scene) -> Option<Finding> {
    let limit = usize::try_from(number("ipv6/route/max_size")?).ok()?;
    let needed = 4 * scene.recorded.leases.len() + OTHER_ROUTES;
    (limit < needed && scene.prefixes.iter().any(|prefix| prefix.addr().is_ipv6())).then(|| {
        let what = format!(
            "net.ipv6.route.max_size is {limit}, and {} pods can need {needed} routes",
            scene.recorded.leases.len()
        );
        let remedy = format!("sysctl -w net.ipv6.route.max_size={}", needed.next_power_of_two().max(16_384));
        Finding::warn(Area::Sysctls, what).cured_by(remedy)
    })
}

fn number(key: &str) -> Option<i64> {
    sysctl::get(key).ok()??.parse().ok()
}

/// Ranges that meet what is somebody else's, and addresses in them that are.
fn ranges(scene: &Scene) -> Vec<Finding> {
    let facts = &scene.survey.facts;
    let mut found = Vec::new();
    for remark in &facts.remarks {
        let area = match remark.about {
            About::Ranges => Area::Addresses,
            About::Neighbours => Area::Sysctls,
            About::Mtu => Area::Mtu,
            About::Proxy => Area::Configuration,
        };
        found.push(Finding::warn(area, &remark.text));
    }
    let inside = |ip: &std::net::IpAddr| scene.prefixes.iter().find(|prefix| prefix.contains(ip));
    for (ip, holder) in facts.taken.iter().filter(|(_, holder)| **holder == Holder::NextHop) {
        let Some(range) = inside(ip) else { continue };
        let what = format!("{ip} is {holder} and inside {range}, so no pod gets it");
        found.push(Finding::warn(Area::Gateway, what).cured_by("give the node a range of its own"));
    }
    for lease in &scene.recorded.leases {
        for (ip, holder) in lease.addresses().filter_map(|ip| facts.taken.get_key_value(&ip)) {
            let whose = lease.pod.as_ref().map_or_else(
                || format!("container {}", lease.attachment.container_id),
                |pod| format!("{}/{}", pod.namespace, pod.name),
            );
            let area = if *holder == Holder::NextHop { Area::Gateway } else { Area::Addresses };
            let what = format!("{ip} is {holder}, and {whose} has it");
            found.push(Finding::fail(area, what).cured_by("delete the pod"));
        }
    }
    if !scene.prefixes.is_empty() && !found.iter().any(|finding| finding.area == Area::Addresses) {
        let ranges: Vec<String> = scene.prefixes.iter().map(ToString::to_string).collect();
        found.push(Finding::ok(Area::Addresses, format!("{} meet nobody else's networks", ranges.join(" and "))));
    }
    found
}

/// Pods whose packets are larger than an uplink takes.
fn mtu(scene: &Scene) -> Option<Finding> {
    let smallest = scene.uplinks.iter().min_by_key(|link| link.mtu)?;
    // What lies beyond these bounds is told with the ranges.
    let (name, takes) = match &scene.survey.facts.uplink {
        Some(uplink) if uplink.mtu <= smallest.mtu => (&uplink.name, scene.survey.facts.mtu),
        _ => (&smallest.name, smallest.mtu),
    };
    let larger = scene.recorded.leases.iter().map(|lease| lease.mtu).filter(|mtu| *mtu > takes);
    Some(match larger.max() {
        Some(mtu) => {
            let what = format!(
                "pods have an MTU of {mtu}, and the uplink {name} takes {takes}: large packets to anybody beyond are lost"
            );
            Finding::warn(Area::Mtu, what).cured_by(format!("spec.mtu: {takes}, and restart the pods"))
        }
        None => Finding::ok(Area::Mtu, format!("pods fit the uplink {name}, whose MTU is {takes}")),
    })
}
