//! Makes and removes the link of one lease. Undo is the same removal: there is no second clean-up.
//!
//! Works on values and the kernel; must not know requests, the ledger or the allocator.

use std::time::Instant;

use crate::addr::{IfName, Mac};
use crate::agent::fault::{Cause, Fault, Step};
use crate::lease::Lease;
use crate::netlink::conn::Conn;
use crate::netlink::events::LinkRemover;
use crate::netlink::link::{Link, Pair};
use crate::netns::Netns;
use crate::plan::{self, Wiring};
use crate::sysctl::{self, SysctlError};

/// Makes the link that `lease` asks for, its pod end in `netns`. When it returns, the first packet works.
///
/// # Errors
/// Part of it may stand; [`unwire`] removes it.
pub fn wire(lease: &Lease, netns: &Netns, remover: &LinkRemover, deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Wire, cause };
    let wiring = plan::wiring(lease);
    let mut host = Conn::open(deadline).map_err(|e| fail(e.into()))?;
    let host_ipv6_off = ipv6_is_off_by_default();
    // One visit to the namespace: the socket that is opened there stays there.
    let visit = netns.run(|| (Conn::open(deadline), ipv6_is_off_by_default()));
    let (pod, pod_ipv6_off) = visit.map_err(|e| fail(e.into()))?;
    let mut pod = pod.map_err(|e| fail(e.into()))?;

    let pair = create(&mut host, &wiring, netns, remover, deadline).map_err(fail)?;
    // Hosts that switch IPv6 off by default do so for both ends, since namespaces may inherit it. This pod is to have it.
    if lease.ipv6.is_some() && host_ipv6_off.map_err(|e| fail(e.into()))? {
        enable_ipv6(&wiring.host_link).map_err(|e| fail(e.into()))?;
    }
    host.apply(pair.host, wiring.host_link.as_str(), &wiring.host).map_err(|e| fail(e.into()))?;
    if lease.ipv6.is_some() && pod_ipv6_off.map_err(|e| fail(e.into()))? {
        netns.run(|| enable_ipv6(&wiring.ifname)).map_err(|e| fail(e.into()))?.map_err(|e| fail(e.into()))?;
    }
    pod.apply(pair.pod, wiring.ifname.as_str(), &wiring.pod).map_err(|e| fail(e.into()))?;
    // The host end was up first, without a carrier. The pod end sends from the moment that it is up.
    host.wait_until_it_sends(pair.host, wiring.host_link.as_str()).map_err(|e| fail(e.into()))?;
    match lease.ipv6 {
        Some(ip) => pod.wait_until_taken_in(ip.into()).map_err(|e| fail(e.into())),
        None => Ok(()),
    }
}

fn ipv6_is_off_by_default() -> Result<bool, SysctlError> {
    Ok(sysctl::get("ipv6/conf/default/disable_ipv6")?.as_deref() == Some("1"))
}

fn enable_ipv6(link: &IfName) -> Result<bool, SysctlError> {
    sysctl::ensure(&format!("ipv6/conf/{link}/disable_ipv6"), "0")
}

fn create(
    host: &mut Conn,
    wiring: &Wiring,
    netns: &Netns,
    remover: &LinkRemover,
    deadline: Instant,
) -> Result<Pair, Cause> {
    match host.create_pair(wiring, netns.fd()) {
        Ok(pair) => return Ok(pair),
        Err(error) if !error.is_exists() => return Err(error.into()),
        Err(_) => {}
    }
    // The kernel does not say which of the two names is taken.
    let Some(link) = host.link_named(wiring.host_link.as_str())? else {
        return Err(Cause::InterfaceExists(wiring.ifname.clone()));
    };
    if link.mac != Some(wiring.host_mac) {
        return Err(Cause::HostLinkExists(wiring.host_link.clone()));
    }
    // This attachment's own link, of an attempt whose record was lost. The ledger has no lease for it, so nobody uses it.
    remover.remove(link.index, deadline)?;
    match host.create_pair(wiring, netns.fd()) {
        Err(error) if error.is_exists() => Err(Cause::InterfaceExists(wiring.ifname.clone())),
        other => Ok(other?),
    }
}

/// Removes the link `name` if it is the one with this hardware address. Returns once it has left the namespace; if there
/// is none, or it is somebody else's, there is nothing to do.
///
/// # Errors
/// The link may still stand.
pub fn unwire(name: &IfName, mac: Mac, remover: &LinkRemover, deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Unwire, cause };
    match own_link(name, mac, deadline).map_err(fail)? {
        Some(link) => remover.remove(link.index, deadline).map_err(|e| fail(e.into())),
        None => Ok(()),
    }
}

/// The link `name`, if it is the one with this hardware address.
///
/// # Errors
/// The kernel could not be asked.
pub fn own_link(name: &IfName, mac: Mac, deadline: Instant) -> Result<Option<Link>, Cause> {
    let link = Conn::open(deadline)?.link_named(name.as_str())?;
    Ok(link.filter(|link| link.mac == Some(mac)))
}
