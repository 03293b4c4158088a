//! The neighbour proxies of one lease: made before its ADD is answered, so that a router on the link reaches the pod at once, and
//! gone before its addresses are free.
//!
//! On a node without `spec.proxyNeighbours` both ask the kernel nothing. What is missing or left behind is a matter of the round
//! (`agent/neighbours.rs`), so no ADD fails by it. Must not decide on which link the host answers.

use std::time::Instant;

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::neighbours::uplink;
use crate::agent::routing::news::News;
use crate::agent::verbs::Verbs;
use crate::kernel::netlink::conn::Conn;
use crate::process::failpoint;
use crate::process::log;
use cni::verb::Verb;
use model::lease::Lease;
use model::proxy::Proxy;

/// What is done about the proxies of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Make,
    Remove,
}

impl Verbs {
    /// Has the host answer for the addresses of `lease` on its uplink, if the NodeConfig asks for that and the link is there.
    pub(super) fn proxy_for(&self, lease: &Lease, deadline: Instant) {
        if let Err(cause) = self.proxies_of(lease, Deed::Make, deadline) {
            log::warn("neighbours do not find a pod yet, its proxies are tried again")
                .with("op", Verb::Add)
                .about(lease)
                .with("err", Fault { step: Step::Wire, cause })
                .write_limited();
            self.tell_of_proxies();
        }
    }

    /// Has the proxies compared, if the host answers for its pods on some link. To be called after each end of a lease: a
    /// comparison that was adding entries may have put back what was removed.
    pub(super) fn tell_of_proxies(&self) {
        if self.node.state().view.as_ref().is_some_and(|view| view.config.proxy_neighbours.is_some()) {
            // It ends only with the agent.
            self.routing.send(News::Proxies).ok();
        }
    }

    /// Has the host answer for the addresses of `lease` no more.
    ///
    /// # Errors
    /// It may still answer.
    pub(super) fn proxy_no_more(&self, lease: &Lease, deadline: Instant) -> Result<(), Fault> {
        self.proxies_of(lease, Deed::Remove, deadline).map_err(|cause| Fault { step: Step::Unwire, cause })
    }

    fn proxies_of(&self, lease: &Lease, deed: Deed, deadline: Instant) -> Result<(), Cause> {
        let state = self.node.state();
        let Some(link) = state.view.as_ref().and_then(|view| view.config.proxy_neighbours.as_ref()) else {
            return Ok(());
        };
        failpoint::pass(if deed == Deed::Make { "neighbours.add" } else { "neighbours.remove" }).ok();
        let mut conn = Conn::open(deadline)?;
        let Some(link) = uplink(&mut conn, link)? else { return Ok(()) };
        let proxies: Vec<Proxy> = lease.addresses().map(|ip| Proxy { link: link.index, ip }).collect();
        // Each is tried, whatever became of the others.
        let done = proxies.into_iter().map(|proxy| match deed {
            Deed::Make => conn.add_proxy(proxy),
            Deed::Remove => conn.remove_proxy(proxy),
        });
        let done: Vec<_> = done.collect();
        Ok(done.into_iter().collect::<Result<(), _>>()?)
    }
}
