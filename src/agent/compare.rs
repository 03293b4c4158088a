//! CHECK: compares a lease and the result that the runtime remembers with what the kernel shows. Changes nothing.
//!
//! Only what flock made is compared. Later plugins of a chain may have added addresses, routes and interfaces, and may
//! have changed the MTU.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{GATEWAY4, GATEWAY6};
use crate::agent::attach::own_link;
use crate::agent::fault::Cause;
use crate::cni::result::WireResult;
use crate::lease::Lease;
use crate::netlink::conn::Conn;
use crate::netns::Netns;

/// Compares the result that the runtime remembers with the lease.
///
/// # Errors
/// [`Cause::Differs`] with what is missing or wrong.
pub fn result(lease: &Lease, netns: &str, prev: &WireResult) -> Result<(), Cause> {
    let ifname = lease.attachment.ifname.as_str();
    let differs = |what: String| Err(Cause::Differs(what));
    let Some(interface) = prev.interfaces.iter().find(|i| i.name == ifname && i.sandbox == netns) else {
        return differs(format!("prevResult has no interface {ifname} in {netns}"));
    };
    if let (Some(theirs), Some(ours)) = (Some(&interface.mac).filter(|mac| !mac.is_empty()), lease.pod_mac)
        && !theirs.eq_ignore_ascii_case(&ours.to_string())
    {
        return differs(format!(
            "prevResult says that {ifname} has hardware address {theirs}, and it was made with {ours}"
        ));
    }
    for ip in lease.addresses() {
        if !prev.ips.iter().any(|theirs| theirs.address.addr() == ip) {
            return differs(format!("prevResult lacks the address {ip}"));
        }
    }
    Ok(())
}

/// Compares the kernel with the lease: both ends of the link, the pod's addresses and default routes, the host's routes.
///
/// # Errors
/// [`Cause::Differs`] with what is missing or wrong, or why the kernel could not be asked.
pub fn kernel(lease: &Lease, netns: &Netns, deadline: Instant) -> Result<(), Cause> {
    host_end(lease, deadline)?;
    pod_end(lease, netns, deadline)
}

fn host_end(lease: &Lease, deadline: Instant) -> Result<(), Cause> {
    let name = &lease.host_link;
    let Some(link) = own_link(name, lease.host_mac, deadline)? else {
        return Err(Cause::Differs(format!("host link {name} is missing")));
    };
    if !link.up {
        return Err(Cause::Differs(format!("host link {name} is down")));
    }
    let mut conn = Conn::open(deadline)?;
    let gateways = conn.addresses(Some(link.index))?;
    for ip in lease.addresses() {
        let gateway = gateway(ip);
        if !gateways.iter().any(|address| address.ip == gateway) {
            return Err(Cause::Differs(format!("host link {name} lacks the address {gateway}")));
        }
        let route = conn.route_for(ip)?;
        if !route.is_some_and(|route| route.to == IpNet::from(ip) && route.link == Some(link.index)) {
            return Err(Cause::Differs(format!("the host has no route {ip} through {name}")));
        }
    }
    Ok(())
}

fn pod_end(lease: &Lease, netns: &Netns, deadline: Instant) -> Result<(), Cause> {
    let ifname = lease.attachment.ifname.as_str();
    let mut conn = netns.run(|| Conn::open(deadline))??;
    let Some(link) = conn.link_named(ifname)? else {
        return Err(Cause::Differs(format!("the pod has no interface {ifname}")));
    };
    if !link.up {
        return Err(Cause::Differs(format!("the pod's interface {ifname} is down")));
    }
    let addresses = conn.addresses(Some(link.index))?;
    let routes = conn.all_routes()?;
    for ip in lease.addresses() {
        if !addresses.iter().any(|address| address.ip == ip && !address.tentative) {
            return Err(Cause::Differs(format!("the pod's interface {ifname} lacks the address {ip}")));
        }
        let (everywhere, gateway) = (everywhere(ip), gateway(ip));
        let has_default = routes
            .iter()
            .any(|route| route.to == everywhere && route.link == Some(link.index) && route.via == Some(gateway));
        if !has_default {
            return Err(Cause::Differs(format!("the pod lacks the default route via {gateway}")));
        }
    }
    Ok(())
}

fn gateway(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => GATEWAY4.into(),
        IpAddr::V6(_) => GATEWAY6.into(),
    }
}

fn everywhere(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    }
}
