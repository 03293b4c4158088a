//! All boards on which the agent's threads publish, for whoever tells how the node is as a whole.
//!
//! Must not judge what stands there.

use crate::agent::board::Board;
use crate::agent::node::credentials::Ends;
use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::RoutesState;

/// Where the agent's threads publish.
#[derive(Debug, Clone, Default)]
pub struct Boards {
    /// The node.
    pub state: Board<NodeState>,
    /// The nodes of the cluster; none without Kubernetes.
    pub listed: Option<Board<Listed>>,
    /// The node's routes.
    pub routes: Board<RoutesState>,
    /// What pods may send and receive.
    pub policing: Board<PolicingState>,
    /// What is known of the peers.
    pub speaking: Board<Speaking>,
    /// When credentials end.
    pub ends: Board<Ends>,
}
