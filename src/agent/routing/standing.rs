//! What the routing thread publishes: how the node's routes are, for the status in the API.
//!
//! Values only. Must not decide anything, and must not know who reads them.

use model::routes::Stage;

/// The node's routes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// How far the node has withdrawn itself.
    pub stage: Stage,
    /// Number of different prefixes that the node announces in table 102.
    pub announced: usize,
    /// Number of ranges of other nodes that are reached directly.
    pub reached: usize,
    /// What keeps a range of this node from being its own alone, in words for an operator.
    pub overlaps: Vec<String>,
    /// What an operator should know, at most a few lines: nodes that are not reached, and why.
    pub remarks: Vec<String>,
    /// Why the kernel does not have all routes that it should; none if it has.
    pub problem: Option<String>,
}
