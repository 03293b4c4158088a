//! The node itself: what it looks like to pods, and the few settings that routing needs.
//!
//! Nothing is changed before the node begins to serve, nothing is changed that has the value already, and routes without
//! flock's mark are never touched.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;

use crate::agent::fault::{Cause, Fault, Step};
use crate::netlink::NetlinkError;
use crate::netlink::conn::Conn;
use crate::sysctl;

/// MTU where neither the NodeConfig nor an uplink gives one.
const DEFAULT_MTU: u32 = 1500;

/// What the host tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// MTU of the uplink, in bytes: the smaller one where the families leave by different links.
    pub mtu: u32,
    /// Addresses of the host, less those that every host end of a pod link bears.
    pub addresses: Vec<IpAddr>,
}

/// Looks at the host.
///
/// # Errors
/// The kernel could not be asked.
pub fn look(deadline: Instant) -> Result<HostFacts, NetlinkError> {
    let mut conn = Conn::open(deadline)?;
    let mut mtu: Option<u32> = None;
    // Nothing is sent to these. They stand for "somewhere on the internet", and asking for one route costs the same with
    // three routes as with a full BGP table.
    let anywhere: [IpAddr; 2] = [Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1).into(), Ipv4Addr::new(1, 0, 0, 1).into()];
    for ip in anywhere {
        let Some(index) = conn.route_for(ip)?.and_then(|route| route.link) else { continue };
        let Some(link) = conn.link_at(index)? else { continue };
        mtu = Some(mtu.map_or(link.mtu, |smaller| smaller.min(link.mtu)));
    }
    let addresses = conn.addresses(None)?.into_iter().map(|address| address.ip);
    let own = addresses.filter(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    });
    let mut own: Vec<IpAddr> = own.collect();
    own.sort();
    own.dedup();
    Ok(HostFacts { mtu: mtu.unwrap_or(DEFAULT_MTU), addresses: own })
}

/// Makes the host forward packets of the families in `prefixes`, and end packets to addresses that no pod has. May be
/// repeated. Returns what was changed, for the log.
///
/// # Errors
/// A setting or route could not be made; pods would have no way out.
pub fn prepare(prefixes: &[IpNet], deadline: Instant) -> Result<Vec<String>, Fault> {
    let fail = |cause: Cause| Fault { step: Step::Host, cause };
    let mut changed = Vec::new();
    let mut ensure = |key: &str, value: &str| -> Result<(), Fault> {
        if sysctl::ensure(key, value).map_err(|e| fail(e.into()))? {
            changed.push(format!("net/{key}={value}"));
        }
        Ok(())
    };
    if prefixes.iter().any(|prefix| prefix.addr().is_ipv4()) {
        ensure("ipv4/ip_forward", "1")?;
    }
    if prefixes.iter().any(|prefix| prefix.addr().is_ipv6()) {
        let forwards = sysctl::get("ipv6/conf/all/forwarding").map_err(|e| fail(e.into()))?;
        if forwards.as_deref() != Some("1") {
            // A forwarding host ignores router advertisements, and loses a default route that it has from one, unless told
            // otherwise first.
            for name in advertised_uplinks(deadline).map_err(|e| fail(e.into()))? {
                ensure(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
            }
            ensure("ipv6/conf/all/forwarding", "1")?;
        }
    }
    changed.extend(unreachable_routes(prefixes, deadline).map_err(|e| fail(e.into()))?);
    Ok(changed)
}

/// Gives each of `prefixes` its unreachable route and takes those away that are no longer wanted.
fn unreachable_routes(prefixes: &[IpNet], deadline: Instant) -> Result<Vec<String>, NetlinkError> {
    let mut conn = Conn::open(deadline)?;
    let routes = conn.own_routes()?;
    let present: Vec<IpNet> = routes.iter().filter(|route| route.unreachable).map(|route| route.to).collect();
    let mut changed = Vec::new();
    for prefix in prefixes.iter().filter(|prefix| !present.contains(prefix)) {
        conn.add_unreachable(*prefix)?;
        changed.push(format!("unreachable {prefix}"));
    }
    for prefix in present.iter().filter(|prefix| !prefixes.contains(prefix)) {
        conn.delete_unreachable(*prefix)?;
        changed.push(format!("no longer unreachable {prefix}"));
    }
    Ok(changed)
}

/// Links whose router advertisements count today and would be ignored once the host forwards: those that have a route from
/// one, and physical ones, which may still be waiting for theirs. A bridge or veth is neither: whoever is behind it must
/// not become the host's router.
fn advertised_uplinks(deadline: Instant) -> Result<Vec<String>, NetlinkError> {
    let mut conn = Conn::open(deadline)?;
    let routed: Vec<u32> = conn.advertised_routes()?.into_iter().filter_map(|route| route.link).collect();
    let mut names = Vec::new();
    for link in conn.links()? {
        let physical = fs::exists(format!("/sys/class/net/{}/device", link.name)).unwrap_or(false);
        let accepts = sysctl::get(&format!("ipv6/conf/{}/accept_ra", link.name)).ok().flatten();
        if (physical || routed.contains(&link.index)) && accepts.as_deref() == Some("1") {
            names.push(link.name);
        }
    }
    Ok(names)
}
