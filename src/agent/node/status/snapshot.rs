//! What stood on the boards at one moment, for whoever wants the conditions and does not write them.
//!
//! Must not judge: `standing` and `others` do.

use std::sync::Arc;

use crate::agent::ledger::Usage;
use crate::agent::node::credentials::Ends;
use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use crate::agent::node::status::condition::Condition;
use crate::agent::node::status::others::{Others, judge_others};
use crate::agent::node::status::standing::{Standing, has_bgp, judge, judge_credentials};
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::RoutesState;
use crate::bird::sessions::Session;

/// What the conditions are made of, but for the ledger's counts: what stood on the boards at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node.
    pub state: Arc<NodeState>,
    /// The nodes of the cluster; none without Kubernetes.
    pub listed: Option<Arc<Listed>>,
    /// Its routes.
    pub routes: Arc<RoutesState>,
    /// What its pods may send and receive.
    pub policing: Arc<PolicingState>,
    /// What is known of its peers.
    pub speaking: Arc<Speaking>,
    /// When its credentials end.
    pub ends: Arc<Ends>,
}

impl Snapshot {
    /// The conditions of the node of this name, as its status in the API has them.
    pub fn conditions(&self, node: &str, usage: &Usage) -> Vec<Condition> {
        let Snapshot { state, listed, routes, policing, speaking, ends } = self;
        let others = listed.as_ref().map(|listed| Others::of(node, state, listed, routes.unreached.clone()));
        let standing = Standing {
            credentials: judge_credentials(ends),
            ..Standing::of(state, others.clone().unwrap_or_default(), routes, policing, speaking)
        };
        let config = state.view.as_ref().map(|view| &view.config);
        let mut conditions = judge(&standing, config, usage);
        if config.is_none() && state.verdict.problem.is_none() {
            // There is nothing that could be valid.
            conditions.retain(|condition| condition.kind != "Valid");
        }
        conditions.extend(others.iter().flat_map(judge_others));
        conditions
    }

    /// The sessions with the peers that the NodeConfig in force names.
    pub fn sessions(&self) -> &[Session] {
        self.speaking.wanted(has_bgp(&self.state))
    }
}
