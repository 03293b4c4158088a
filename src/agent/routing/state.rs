//! What the routing thread publishes: how the node's routes are, for the status in the API, and what its pods have, for other
//! nodes.
//!
//! Values only. Must not decide anything, and must not know who reads them.

use ipnet::{Ipv4Net, Ipv6Net};
use model::peers::Claim;
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

/// What this node's pods have, at one moment. Other nodes give up the way to a range that the node has not any more, but for what
/// it claims there: they must not hear of the new range before the claims in the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The node's IPv6 range.
    pub cidr6: Option<Ipv6Net>,
    /// The node's IPv4 range.
    pub cidr4: Option<Ipv4Net>,
    /// The addresses beyond these ranges that pods have.
    pub claims: Vec<Claim>,
}
