//! Reads the links of pods from the kernel, as `observed` compares them: all of the host's for a round,
//! one with both its ends for CHECK, and the one that is a lease's for whoever is about to act on it.
//!
//! Must not decide anything about what it sees, and never changes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::agent::fault::Cause;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::link::Link;
use model::addr::{Attachment, LinkEnd};
use model::lease::Lease;
use model::observed::{Observed, host_end_of};
use model::plan;

/// Every veth link of the host, with what the host has given it. Any of them may be a pod's, whatever it is called.
///
/// # Errors
/// The kernel could not be asked.
pub fn host_links(deadline: Instant) -> Result<Vec<Observed>, Cause> {
    let mut conn = Conn::open(deadline)?;
    let links = conn.pairs()?.into_iter().filter(|link| link.veth);
    let mut seen: BTreeMap<u32, Observed> = links.map(|link| (link.index, shown(link))).collect();
    let mut routes = conn.own_routes()?;
    // Links that were taken over from the Go flock keep the routes that it made.
    routes.extend(conn.unmarked_routes()?);
    for route in routes {
        if let Some(link) = route.link.and_then(|index| seen.get_mut(&index)) {
            link.routes.push((route.to, route.via));
        }
    }
    for address in conn.addresses(None)? {
        if let Some(link) = seen.get_mut(&address.link) {
            link.addresses.push(address.ip);
        }
    }
    for neighbour in conn.permanent_neighbours()? {
        if let Some(link) = seen.get_mut(&neighbour.link) {
            link.neighbours.push((neighbour.ip, neighbour.mac));
            link.further.extend(neighbour.marked.then_some(neighbour.ip));
        }
    }
    for route in conn.announced_routes()? {
        let ip = route.to.addr();
        if route.to.prefix_len() == route.to.max_prefix_len()
            && let Some(link) = route.link.and_then(|index| seen.get_mut(&index))
            && link.routed().all(|own| own != ip)
        {
            link.shared.push(ip);
        }
    }
    Ok(seen.into_values().collect())
}

/// The host end of `lease`, if it stands, by whatever sign there is of it.
///
/// # Errors
/// The kernel could not be asked.
pub fn link(lease: &Lease, deadline: Instant) -> Result<Option<Link>, Cause> {
    let mut conn = Conn::open(deadline)?;
    // The kernel gives an index to one link only, so where the lease has it, no other sign is needed.
    if let Some(index) = lease.host_index {
        let Some(link) = conn.link_at(index)?.filter(|link| link.veth) else { return Ok(None) };
        if is_of(lease, &link) {
            return Ok(Some(link));
        }
        // Name, alias and hardware address can all be changed. The link's addresses and routes tell whose it is.
        let end = host_end(&mut conn, lease, link.clone())?;
        return Ok(host_end_of(lease, [&end]).map(|_| link));
    }
    if let Some(link) = conn.link_named(lease.host_link.as_str())?.filter(|link| is_of(lease, link)) {
        return Ok(Some(link));
    }
    Ok(conn.pairs()?.into_iter().find(|link| is_of(lease, link)))
}

fn is_of(lease: &Lease, link: &Link) -> bool {
    link.veth && host_end_of(lease, [&shown(link.clone())]).is_some()
}

/// The host ends of `attachment`, of which there is no record: all links that bear its mark.
///
/// # Errors
/// The kernel could not be asked.
pub fn unrecorded_links(attachment: &Attachment, deadline: Instant) -> Result<Vec<Link>, Cause> {
    let (alias, mac) = (plan::alias(attachment), attachment.mac(LinkEnd::Host));
    let marked = |link: &Link| link.veth && (link.mac == Some(mac) || link.alias.as_ref() == Some(&alias));
    Ok(Conn::open(deadline)?.pairs()?.into_iter().filter(marked).collect())
}

/// What the host shows of the link that it has for `lease`.
///
/// # Errors
/// The kernel could not be asked.
pub fn host_end(conn: &mut Conn, lease: &Lease, link: Link) -> Result<Observed, Cause> {
    let index = link.index;
    let mut end = shown(link);
    end.addresses = usable_addresses(conn, index)?;
    for ip in lease.addresses() {
        // As a packet would go: a route of somebody else that wins counts, and no table has to be read.
        end.routes
            .extend(conn.route_for(ip)?.filter(|route| route.link == Some(index)).map(|route| (route.to, route.via)));
        end.neighbours.extend(conn.permanent_neighbour(index, ip)?.map(|neighbour| (neighbour.ip, neighbour.mac)));
    }
    Ok(end)
}

/// What the pod shows of its end, with a connection that was opened inside.
///
/// # Errors
/// The kernel could not be asked.
pub fn pod_end(conn: &mut Conn, link: Link) -> Result<Observed, Cause> {
    let index = link.index;
    let mut end = shown(link);
    end.addresses = usable_addresses(conn, index)?;
    let routes: Vec<(IpNet, Option<IpAddr>)> = conn
        .all_routes()?
        .into_iter()
        .filter(|route| route.link == Some(index))
        .map(|route| (route.to, route.via))
        .collect();
    end.routes = routes;
    let neighbours = conn.permanent_neighbours()?.into_iter().filter(|neighbour| neighbour.link == index);
    end.neighbours = neighbours.map(|neighbour| (neighbour.ip, neighbour.mac)).collect();
    Ok(end)
}

fn usable_addresses(conn: &mut Conn, index: u32) -> Result<Vec<IpAddr>, Cause> {
    let usable = conn.addresses(Some(index))?.into_iter().filter(|address| !address.tentative);
    Ok(usable.map(|address| address.ip).collect())
}

fn shown(link: Link) -> Observed {
    Observed {
        index: link.index,
        name: link.name,
        mac: link.mac,
        mtu: link.mtu,
        alias: link.alias,
        up: link.up,
        carrier: link.carrier,
        settings4: link.settings4,
        settings6: link.settings6,
        ..Observed::default()
    }
}
