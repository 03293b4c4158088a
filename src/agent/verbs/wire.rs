//! Makes, repairs and removes the link of one lease. Undo is the same removal: there is no second clean-up.
//!
//! Works on values and the kernel; must not know requests, the ledger or the allocator.

use std::net::IpAddr;
use std::time::Instant;

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::observe;
use crate::agent::policing::handle::{Admission, Admitted};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::link::Pair;
use crate::kernel::netlink::removal::LinkRemover;
use crate::kernel::netns::{Netns, NetnsError, Visit, Visitors};
use crate::kernel::sysctl::{self, SysctlError};
use crate::process::turns::Turns;
use model::addr::{Attachment, Family, IfName};
use model::lease::Lease;
use model::observed::Observed;
use model::plan::{self, Change, Wiring};

/// The namespace of a pod that is to be attached, and the one visit to it: the socket that is opened there stays there.
#[derive(Debug)]
pub struct Sandbox {
    netns: Netns,
    visitors: Visitors,
    visit: Option<Visit<Result<Conn, NetlinkError>>>,
}

impl Sandbox {
    /// Begins the visit, which goes on beside what an ADD does before it needs the pod.
    ///
    /// # Errors
    /// [`NetnsError::Enter`].
    pub fn enter(netns: Netns, visitors: &Visitors, deadline: Instant) -> Result<Sandbox, NetnsError> {
        let visit = Some(visitors.visit(&netns, move || Conn::open(deadline))?);
        Ok(Sandbox { netns, visitors: visitors.clone(), visit })
    }

    fn conn(&mut self, deadline: Instant) -> Result<Conn, Cause> {
        let visit = match self.visit.take() {
            Some(visit) => visit,
            // The pod's link was made before, with an address that proved to be somebody's.
            None => self.visitors.visit(&self.netns, move || Conn::open(deadline))?,
        };
        Ok(visit.wait()??)
    }

    fn enable_ipv6(&self, link: &IfName) -> Result<bool, Cause> {
        let key = format!("ipv6/conf/{link}/disable_ipv6");
        Ok(self.visitors.visit(&self.netns, move || sysctl::ensure(&key, "0"))?.wait()??)
    }
}

/// Makes the link that `lease` asks for, its pod end in `sandbox`, and has it up as soon as its pod is admitted. When it returns,
/// the first packet works. Returns the index of the host end, and as what the pod was admitted.
///
/// # Errors
/// Part of it may stand; [`unwire`] removes it. [`Cause::AddressTaken`] when somebody has a route to one of its addresses.
pub fn wire(
    lease: &Lease,
    sandbox: &mut Sandbox,
    admission: Admission,
    (remover, turns): (&LinkRemover, &Turns),
    deadline: Instant,
) -> Result<(u32, Admitted), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Wire, cause };
    let wiring = plan::wiring(lease);
    let mut host = Conn::open(deadline).map_err(|e| fail(e.into()))?;
    let mut pod = sandbox.conn(deadline).map_err(fail)?;
    let turn = turns.take(deadline).ok_or_else(|| fail(Cause::Late))?;
    let pair = create(&mut host, &wiring, &sandbox.netns, remover, deadline).map_err(fail)?;
    let name = wiring.host_link.as_str();
    set_ipv6(name, wiring.host.iter(), &pair.settings6).map_err(|e| fail(e.into()))?;
    // A link that is down carries nothing, so it is made beside what has to be in force before it does.
    let admitted = admission.wait().map_err(fail)?;
    host.apply(pair.host, name, &wiring.host).map_err(|e| fail(e.into()))?;
    let ifname = wiring.ifname.as_str();
    match pod.apply(pair.pod, ifname, &wiring.pod) {
        // Hosts that switch IPv6 off by default do so for both ends, since namespaces may inherit it. This pod is to have it.
        Err(refused) if refused.error.is_switched_off() && lease.ipv6.is_some() => {
            sandbox.enable_ipv6(&wiring.ifname).map_err(fail)?;
            pod.apply(pair.pod, ifname, &wiring.pod).map_err(|e| fail(e.into()))?;
        }
        applied => applied.map_err(|e| fail(e.into()))?,
    }
    drop(turn);
    // The host end was up first, without a carrier. The pod end sends from the moment that it is up.
    host.wait_until_operational(pair.host, name).map_err(|e| fail(e.into()))?;
    for ip in lease.all_addresses().filter(IpAddr::is_ipv6) {
        pod.wait_until_local(pair.pod, ip).map_err(|e| fail(e.into()))?;
    }
    Ok((pair.host, admitted))
}

/// What the host shows of the host end of `lease`; none if it does not stand.
///
/// # Errors
/// The kernel could not be asked.
pub fn shown(lease: &Lease, deadline: Instant) -> Result<Option<Observed>, Fault> {
    let fail = |cause: Cause| Fault { step: Step::Wire, cause };
    let Some(link) = observe::link(lease, deadline).map_err(fail)? else { return Ok(None) };
    let mut conn = Conn::open(deadline).map_err(|e| fail(e.into()))?;
    observe::host_end(&mut conn, lease, link).map(Some).map_err(fail)
}

/// Gives `end`, the host end of `lease`, back what it lacks.
///
/// # Errors
/// Some of it may be missing still.
pub fn rewire(lease: &Lease, end: &Observed, lacks: &[&Change], deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Wire, cause };
    let mut conn = Conn::open(deadline).map_err(|e| fail(e.into()))?;
    set_ipv6(&end.name, lacks.iter().copied(), &end.settings6).map_err(|e| fail(e.into()))?;
    // All but the identity, lacking or not: a link that was down has lost more with that than could be seen before.
    let changes =
        plan::kept_host_end(lease).into_iter().filter(|change| !change.is_identity() || lacks.contains(&change));
    let (names, changes): (Vec<Change>, Vec<Change>) = changes.partition(|change| matches!(change, Change::Name(_)));
    conn.apply(end.index, &end.name, &changes).map_err(|e| fail(e.into()))?;
    // Last, as older kernels refuse it, and a pod does without.
    if names.is_empty() { Ok(()) } else { conn.apply(end.index, &end.name, &names).map_err(|e| fail(e.into())) }
}

/// Writes those IPv6 settings among `changes` that the link does not have yet: the kernel takes them by `/proc` alone, and a
/// write costs as much as three netlink messages.
fn set_ipv6<'a>(link: &str, changes: impl Iterator<Item = &'a Change>, shown: &[i32]) -> Result<(), SysctlError> {
    for change in changes {
        if let Change::Setting(setting) = change
            && setting.family == Family::V6
            && shown.get(setting.place).is_some_and(|value| *value != setting.value)
        {
            sysctl::set(&format!("ipv6/conf/{link}/{}", setting.key), &setting.value.to_string())?;
        }
    }
    Ok(())
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

/// Removes the link of `lease`, whatever somebody has made of its name. Returns once it has left the namespace; if there is
/// none, there is nothing to do.
///
/// # Errors
/// The link may still stand.
pub fn unwire(lease: &Lease, remover: &LinkRemover, deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Unwire, cause };
    match observe::link(lease, deadline).map_err(fail)? {
        Some(link) => remover.remove(link.index, deadline).map_err(|e| fail(e.into())),
        None => Ok(()),
    }
}

/// Removes every link that bears the mark of `attachment`, of which there is no record: the state may have been lost.
///
/// # Errors
/// Some of them may still stand.
pub fn unwire_unrecorded(attachment: &Attachment, remover: &LinkRemover, deadline: Instant) -> Result<(), Fault> {
    let fail = |cause: Cause| Fault { step: Step::Unwire, cause };
    let links = observe::unrecorded_links(attachment, deadline).map_err(fail)?;
    // Each is tried, whatever became of the others.
    let removals: Vec<_> = links.into_iter().map(|link| remover.remove(link.index, deadline)).collect();
    removals.into_iter().collect::<Result<(), _>>().map_err(|e| fail(e.into()))
}
