//! What the routing thread publishes: how the node's routes are, for the status in the API.
//!
//! Values only. Must not decide anything, and must not know who reads them.

use model::routes::Stage;

/// The node's routes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutesState {
    /// How far the node has withdrawn itself.
    pub stage: Stage,
    /// Number of different prefixes that the node announces in table 102; none before it serves pods.
    pub announced: Option<usize>,
    /// Number of routes to pods of other nodes that this node keeps by itself; none where it keeps no such routes.
    pub reached: Option<usize>,
    /// Addresses of this node's pods that another node claims, too, in words for an operator, at most a few lines.
    pub contests: Vec<String>,
    /// Nodes to which this one has no route, and why, in a few lines; none where it keeps no routes to others.
    pub unreached: Option<Vec<String>>,
    /// Why the kernel does not have all routes that it should; none if it has.
    pub problem: Option<String>,
}
