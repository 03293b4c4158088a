//! CHECK: compares a lease and the result that the runtime remembers with what the kernel shows. Must not change anything.
//!
//! Only what flock made is compared, by the list that it was made from. Later plugins of a chain may have added addresses,
//! routes and interfaces, and may have changed the MTU.

use std::path::Path;
use std::time::Instant;

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::observe;
use crate::agent::verbs::{Trace, Verbs, key, pod_of, receive};
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netns::{Netns, Visitors};
use crate::rpc::server::Call;
use cni::result::WireResult;
use cni::verb::Verb;
use model::lease::Lease;
use model::plan::{self, Change};

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
    // Of further and anycast addresses it does not know.
    for ip in lease.primary() {
        if !prev.ips.iter().any(|theirs| theirs.address.addr() == ip) {
            return differs(format!("prevResult lacks the address {ip}"));
        }
    }
    Ok(())
}

/// Compares the kernel with the lease: everything that the plan says of both ends of the link.
///
/// # Errors
/// [`Cause::Differs`] with what is missing or wrong, or why the kernel could not be asked.
pub fn kernel(lease: &Lease, netns: &Netns, visitors: &Visitors, deadline: Instant) -> Result<(), Cause> {
    host_end(lease, deadline)?;
    pod_end(lease, netns, visitors, deadline)
}

fn host_end(lease: &Lease, deadline: Instant) -> Result<(), Cause> {
    let name = &lease.host_link;
    let Some(link) = observe::link(lease, deadline)? else {
        return Err(Cause::Differs(format!("host link {name} is missing")));
    };
    let end = observe::host_end(&mut Conn::open(deadline)?, lease, link)?;
    differs(&end.lacks(&plan::kept_host_end(lease)), |change| match change {
        Change::Up => format!("host link {name} is down"),
        Change::Route { to, .. } => format!("the host has no route {} through {name}", to.addr()),
        other => format!("host link {name} lacks the {other}"),
    })
}

fn pod_end(lease: &Lease, netns: &Netns, visitors: &Visitors, deadline: Instant) -> Result<(), Cause> {
    let ifname = lease.attachment.ifname.as_str();
    let mut conn = visitors.visit(netns, move || Conn::open(deadline))?.wait()??;
    let Some(link) = conn.link_named(ifname)? else {
        return Err(Cause::Differs(format!("the pod has no interface {ifname}")));
    };
    let end = observe::pod_end(&mut conn, link)?;
    differs(&end.lacks(&plan::kept_pod_end(lease)), |change| match change {
        Change::Up => format!("the pod's interface {ifname} is down"),
        Change::Route { via: Some(gateway), .. } => format!("the pod lacks the default route via {gateway}"),
        other => format!("the pod's interface {ifname} lacks the {other}"),
    })
}

fn differs(lacks: &[&Change], told: impl Fn(&Change) -> String) -> Result<(), Cause> {
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Cause::Differs(lacks.iter().map(|change| told(change)).collect::<Vec<_>>().join("; ")))
}

impl Verbs {
    /// Compares an attachment with what ADD has made of it.
    pub(super) fn check(&self, call: &Call<'_>, trace: &mut Trace) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        let request = call.request;
        let conf = receive(request, Verb::Check)?;
        let prev = conf.expected_state().map_err(|e| Fault::new(Step::Receive, e))?;
        let attachment = key(request)?;
        trace.attachment = Some(attachment.clone());
        trace.pod = pod_of(request);
        let claim = self.claim(&attachment, call.deadline)?;
        let lease = claim.lease().ok_or_else(|| fail(Cause::Unknown(attachment)))?;
        trace.found(Some(lease));
        let netns = Netns::open(Path::new(&request.netns)).map_err(|e| fail(e.into()))?;
        let began = Instant::now();
        let compared =
            result(lease, &request.netns, prev).and_then(|()| kernel(lease, &netns, &self.visitors, call.deadline));
        self.took(Step::Compare, began, lease);
        compared.map_err(fail)
    }
}
