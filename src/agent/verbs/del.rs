//! DEL: receive, unwire, release. What is gone already needs nothing, and that is success.
//!
//! DEL never enters the namespace: its path may have come to name another pod's. Must not need a NodeConfig or the API server.

use std::time::Instant;

use crate::agent::fault::Fault;
use crate::agent::verbs::{Trace, Verbs, key, receive};
use crate::rpc::message::Request;
use cni::verb::Verb;
use model::lease::Lease;

impl Verbs {
    /// Detaches a container.
    pub(super) fn del(&self, request: &Request, deadline: Instant, trace: &mut Trace) -> Result<(), Fault> {
        receive(request, Verb::Del)?;
        let attachment = key(request)?;
        trace.attachment = Some(attachment.clone());
        let claim = self.claim(&attachment, deadline)?;
        trace.addresses = claim.lease().into_iter().flat_map(Lease::addresses).collect();
        self.take_down(claim, &[], deadline).map(drop)
    }
}
