//! The host in the kernel's words: read for `hostfacts` and `desired` to judge, and changed by what they decide.
//!
//! Decides nothing, and never touches what bears somebody else's mark. Used by the node's own thread alone, so no two writers
//! meet: while the kernel changes a forwarding setting, another reader sees it done already, and of two writers the later can
//! undo it for the links and leave it shown as set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::neighbours;
use crate::agent::node::state::Whereabouts;
use crate::kernel::netlink::Hop;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::foreign::ForeignRoute;
use crate::kernel::netlink::link::Link;
use crate::kernel::sysctl;
use model::addr::{Family, IfName};
use model::desired::{Difference, ProxyLink, Shows, Uplink};
use model::hostfacts::{self, HostFacts, Seen, SeenLink, SeenRoute, WayOut};
use model::peers::own::{self, HostLink, Place};
use model::plan;

/// Place of `forwarding` among either family's settings of a link message (`plan::SETTINGS` has the others).
const FORWARDING: usize = 0;
/// Place of `accept_ra` among the IPv6 settings of a link message.
const ACCEPT_RA: usize = 3;
/// Place of `proxy_ndp` among the IPv6 settings of a link message.
const PROXY_NDP: usize = 22;

/// Addresses that stand for "somewhere on the internet". Nothing is sent to them: flock asks the kernel for the way there, and its
/// answer for one address costs the same with three routes as with a full BGP table.
pub const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1))];

/// How many neighbours the kernel remembers of each family.
const NEIGHBOUR_LIMITS: [(Family, &str); 2] =
    [(Family::V4, "ipv4/neigh/default/gc_thresh3"), (Family::V6, "ipv6/neigh/default/gc_thresh3")];

/// What one look at the whole host found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What the survey means for pods.
    pub facts: HostFacts,
    /// Where the host is among others.
    pub whereabouts: Whereabouts,
    /// Indexes of the links that IPv4 packets leave by.
    uplinks4: BTreeSet<u32>,
    /// Indexes of the links that have a route from a router advertisement.
    advertised: BTreeSet<u32>,
}

/// Surveys the host for pods in `prefixes` whose IPv4 gateway is to be `gateway4`, and for whom the host is to answer on the link
/// `proxies`. Reads whole tables.
///
/// # Errors
/// The kernel could not be asked.
pub fn take(
    prefixes: &[IpNet],
    gateway4: Ipv4Addr,
    proxies: Option<&IfName>,
    deadline: Instant,
) -> Result<Survey, NetlinkError> {
    let mut conn = Conn::open(deadline)?;
    let objects = conn.nexthop_objects()?;
    let routes = conn.foreign_routes(&objects)?;
    let shown = conn.links()?;
    let links: BTreeMap<u32, SeenLink> = shown.iter().map(|link| (link.index, seen(link))).collect();
    let mut ways_out = Vec::new();
    for ip in ANYWHERE {
        let best = conn.foreign_route_for(ip, &objects)?;
        // The best way may lead nowhere that matters, such as a default route to the host itself; then the next one counts.
        let mut others: Vec<&ForeignRoute> = routes
            .iter()
            .filter(|route| {
                route.in_main_table && route.to.prefix_len() == 0 && route.to.addr().is_ipv6() == ip.is_ipv6()
            })
            .collect();
        others.sort_by_key(|route| route.metric);
        let ways = best.iter().chain(others);
        ways_out.extend(ways.map(|way| WayOut { v6: ip.is_ipv6(), links: links_of(&way.hops).collect() }));
    }
    let uplinks4 = ways_out.iter().filter(|way| !way.v6).flat_map(|way| way.links.iter().copied());
    let uplinks4 = uplinks4.filter(|index| links.get(index).is_some_and(|link| !link.loopback && !link.ours)).collect();
    let advertised = routes.iter().filter(|route| route.advertised).flat_map(|route| links_of(&route.hops)).collect();
    let borne = conn.addresses(None)?;
    let host_link = |link: &Link| {
        let addresses = borne.iter().filter(|address| address.link == link.index && address.lasting);
        HostLink {
            name: link.name.clone(),
            place: place(link, &ways_out),
            addresses: addresses.map(|address| (address.ip, address.prefix_len)).collect(),
        }
    };
    let host_links: Vec<HostLink> = shown.iter().filter(|link| link.up).map(host_link).collect();
    let addresses: Vec<(u32, IpAddr, u8)> =
        borne.iter().map(|address| (address.link, address.ip, address.prefix_len)).collect();
    // A host knows up to a thousand neighbours, which matter only where its networks meet the pods' ranges.
    let meets = |(_, ip, prefix_len): &(u32, IpAddr, u8)| {
        IpNet::new(*ip, *prefix_len)
            .is_ok_and(|net| prefixes.iter().any(|p| net.contains(p) || p.contains(&net.trunc())))
    };
    let neighbours = if addresses.iter().any(meets) { conn.known_neighbours()? } else { Vec::new() };
    let seen = Seen {
        links,
        addresses,
        routes: routes
            .into_iter()
            .map(|route| SeenRoute { to: route.to, hops: route.hops, main: route.in_main_table })
            .collect(),
        gateways: objects.gateways().collect(),
        neighbours: neighbours.into_iter().map(|neighbour| (neighbour.link, neighbour.ip)).collect(),
        ways_out,
    };
    let whereabouts = Whereabouts { next_hops: own::next_hops(&host_links), host: own::surroundings(&seen) };
    let mut facts = hostfacts::judge(&seen, prefixes, gateway4);
    for (family, key) in NEIGHBOUR_LIMITS {
        // What cannot be read is not shown to this network namespace.
        let limit = setting(key).ok().flatten().and_then(|limit| u32::try_from(limit).ok());
        facts.remarks.extend(hostfacts::neighbours_remark(prefixes, family, limit));
    }
    facts.remarks.extend(proxies.and_then(|link| hostfacts::proxy_remark(&seen, link)));
    Ok(Survey { facts, whereabouts, uplinks4, advertised })
}

/// What a link is for, as far as others may reach this host by it.
fn place(link: &Link, ways_out: &[WayOut]) -> Place {
    let seen = seen(link);
    if seen.loopback || seen.ours {
        return Place::Inside;
    }
    if ways_out.iter().any(|way| way.links.contains(&link.index)) {
        return Place::WayOut;
    }
    let in_sysfs = |name: &str, what: &str| fs::exists(format!("/sys/class/net/{name}/{what}")).unwrap_or(false);
    if in_sysfs(&link.name, "device") {
        return Place::Physical;
    }
    if !in_sysfs(&link.name, "bridge") {
        return Place::Other;
    }
    let ports = fs::read_dir(format!("/sys/class/net/{}/brif", link.name)).into_iter().flatten().flatten();
    let physical = ports.into_iter().any(|port| in_sysfs(&port.file_name().to_string_lossy(), "device"));
    if physical { Place::Other } else { Place::Inside }
}

fn links_of(hops: &[Hop]) -> impl Iterator<Item = u32> {
    hops.iter().filter_map(|(link, _)| *link)
}

fn seen(link: &Link) -> SeenLink {
    let marked = link.alias.as_deref().is_some_and(|alias| plan::attachment_of_alias(alias).is_some());
    SeenLink {
        name: link.name.clone(),
        mtu: link.mtu,
        loopback: link.loopback,
        // This includes a link whose alias is lost, or not written yet.
        ours: link.veth && (marked || link.name.starts_with("flock")),
    }
}

/// What the kernel shows of the settings and routes that pods need, for the links of `survey`, and for the one on which the host is
/// to answer for pods. Costs a handful of small questions, whatever the tables hold.
///
/// # Errors
/// The kernel could not be asked.
pub fn settings(survey: &Survey, proxies: Option<&IfName>, deadline: Instant) -> Result<Shows, Cause> {
    let forwarding6 = setting("ipv6/conf/all/forwarding")?;
    let mut conn = Conn::open(deadline)?;
    let unreachable = conn.own_unreachable_routes()?.into_iter().map(|route| route.to).collect();
    let mut links = Vec::new();
    if forwarding6 == Some(0) {
        // The moment of switching concerns links without any route, too.
        links = conn.links()?;
    } else {
        for index in survey.uplinks4.union(&survey.advertised) {
            links.extend(conn.link_at(*index)?);
        }
    }
    let proxy = match proxies {
        Some(name) => neighbours::uplink(&mut conn, name)?.map(proxy_link).transpose()?,
        None => None,
    };
    let uplink = |link: Link| Uplink {
        forwards4: survey.uplinks4.contains(&link.index).then(|| link.settings4.get(FORWARDING) != Some(&0)),
        accept_ra: link.settings6.get(ACCEPT_RA).copied(),
        has_advertised_route: survey.advertised.contains(&link.index),
        physical: fs::exists(format!("/sys/class/net/{}/device", link.name)).unwrap_or(false),
        name: link.name,
    };
    Ok(Shows {
        forwarding4: setting("ipv4/ip_forward")?,
        forwarding6,
        hash_policy4: setting("ipv4/fib_multipath_hash_policy")?,
        hash_policy6: setting("ipv6/fib_multipath_hash_policy")?,
        arp_ignore: setting("ipv4/conf/all/arp_ignore")?.unwrap_or(0),
        unreachable,
        uplinks: links.into_iter().map(uplink).collect(),
        proxy,
    })
}

fn proxy_link(link: Link) -> Result<ProxyLink, Cause> {
    Ok(ProxyLink {
        forwarding4: link.settings4.get(FORWARDING).copied(),
        forwarding6: link.settings6.get(FORWARDING).copied(),
        proxy_ndp: link.settings6.get(PROXY_NDP).copied(),
        delay4: setting(&format!("ipv4/neigh/{}/proxy_delay", link.name))?,
        delay6: setting(&format!("ipv6/neigh/{}/proxy_delay", link.name))?,
        name: link.name,
    })
}

fn setting(key: &str) -> Result<Option<i32>, Cause> {
    // A value that is no number cannot be compared, and counts as missing.
    Ok(sysctl::get(key)?.and_then(|text| text.parse().ok()))
}

/// Puts back what is flock's to set.
///
/// # Errors
/// The setting or route could not be made; pods would have no way out.
pub fn put_back(difference: &Difference, deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Host, cause };
    let done: Result<(), Cause> = match difference {
        Difference::AcceptRa(link) => sysctl::set(&format!("ipv6/conf/{link}/accept_ra"), "2").map_err(Cause::from),
        Difference::Forwarding(Family::V4) => sysctl::set("ipv4/ip_forward", "1").map_err(Cause::from),
        Difference::Forwarding(Family::V6) => sysctl::set("ipv6/conf/all/forwarding", "1").map_err(Cause::from),
        Difference::HashPolicy(Family::V4) => sysctl::set("ipv4/fib_multipath_hash_policy", "1").map_err(Cause::from),
        Difference::HashPolicy(Family::V6) => sysctl::set("ipv6/fib_multipath_hash_policy", "1").map_err(Cause::from),
        Difference::Reachable(prefix) => {
            Conn::open(deadline).and_then(|mut conn| conn.add_unreachable(*prefix)).map_err(Cause::from)
        }
        Difference::Unreachable(prefix) => {
            Conn::open(deadline).and_then(|mut conn| conn.delete_unreachable(*prefix)).map_err(Cause::from)
        }
        Difference::ProxyNdp(link) => sysctl::set(&format!("ipv6/conf/{link}/proxy_ndp"), "1").map_err(Cause::from),
        Difference::ProxyDelay(family, link) => {
            let family = if *family == Family::V6 { "ipv6" } else { "ipv4" };
            sysctl::set(&format!("{family}/neigh/{link}/proxy_delay"), "0").map_err(Cause::from)
        }
        Difference::NoFamily(_)
        | Difference::GatewayTaken(_)
        | Difference::UplinkForwarding(_)
        | Difference::ArpIgnore(_)
        | Difference::ProxyForwarding(..) => Ok(()),
    };
    done.map_err(fail)
}
