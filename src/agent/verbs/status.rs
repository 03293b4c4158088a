//! STATUS: whether an ADD could be served. An error of it evicts the pods of the node.
//!
//! Must never ask the ledger, which may be waiting for a slow disk, and must not speak of a full pool.

use crate::agent::fault::{Fault, Step};
use crate::agent::verbs::Verbs;
use cni::error::{Code, Error};

impl Verbs {
    /// Speaks of the agent, its NodeConfig, its host, and of whether it can be set what pods may send and receive.
    pub(super) fn status(&self) -> Result<(), Fault> {
        let error = Error::new(Code::NotAvailable, "ADD cannot be served");
        let state = self.node.state();
        let why = match (&state.view, state.host.problem()) {
            (None, _) => "no valid NodeConfig yet; the log of flock-agent says why".to_owned(),
            (Some(_), Some(problem)) => problem.to_string(),
            (Some(_), None) => match self.policing.get().refusal() {
                Some(refusal) => refusal.to_string(),
                None => return Ok(()),
            },
        };
        Err(Fault::new(Step::Receive, error.with_details(why)))
    }
}
