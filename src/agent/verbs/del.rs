//! DEL: receive, unwire, release. What is gone already needs nothing, and that is success.
//!
//! DEL never enters the namespace: its path may have come to name another pod's. Must not need a NodeConfig or the API server.

use std::time::Instant;

use crate::agent::fault::Fault;
use crate::agent::verbs::{Trace, Verbs, key, pod_of, receive};
use crate::rpc::message::Request;
use cni::verb::Verb;

impl Verbs {
    /// Detaches a container.
    pub(super) fn del(&self, request: &Request, deadline: Instant, trace: &mut Trace) -> Result<(), Fault> {
        receive(request, Verb::Del)?;
        let attachment = key(request)?;
        trace.attachment = Some(attachment.clone());
        trace.pod = pod_of(request);
        let claim = self.claim(&attachment, deadline)?;
        trace.found(claim.lease());
        self.take_down(claim, &[], deadline).map(drop)
    }
}
