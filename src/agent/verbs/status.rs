//! STATUS: whether an ADD could be served. An error of it evicts the pods of the node.
//!
//! Must never ask the ledger, which may be waiting for a slow disk, and must not speak of a full pool.

use crate::agent::fault::{Fault, Step};
use crate::agent::node::state::NodeState;
use crate::agent::policing::state::PolicingState;
use crate::agent::verbs::Verbs;
use cni::error::{Code, Error};

impl Verbs {
    /// Speaks of the agent, its NodeConfig, its host, and of whether it can be set what pods may send and receive.
    pub(super) fn status(&self) -> Result<(), Fault> {
        let error = Error::new(Code::NotAvailable, "ADD cannot be served");
        match unavailable(&self.node.state(), &self.policing.get()) {
            Some(why) => Err(Fault::new(Step::Receive, error.with_details(why))),
            None => Ok(()),
        }
    }
}

/// Why no ADD can be served; none if it can.
pub fn unavailable(node: &NodeState, policing: &PolicingState) -> Option<String> {
    match (&node.view, node.host.problem()) {
        (None, _) => Some("no valid NodeConfig yet; the log of flock-agent says why".to_owned()),
        (Some(_), Some(problem)) => Some(problem.to_string()),
        (Some(_), None) => policing.refusal().map(ToString::to_string),
    }
}
