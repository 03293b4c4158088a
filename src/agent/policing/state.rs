//! What the policing thread publishes: how flock's tables are, for requests and the status in the API.
//!
//! Values only. Must not decide anything, and must not know who reads them.

use cni::error::Error;
use model::policing::Mode;

/// The tables at one moment, and the policies in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicingState {
    /// Whether the kernel was brought to what a NodeConfig wants, or would not be. False before the first one.
    pub looked: bool,
    /// Why the kernel does not have what it should; none if it has.
    pub problem: Option<Problem>,
    /// What is kept.
    pub kept: Kept,
    /// How many there are of what is kept.
    pub counts: Counts,
    /// What is wrong with policies.
    pub ails: Ails,
}

/// Why the kernel does not have what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In words for an operator, with a remedy where one is known.
    pub error: Error,
    /// No pod can be added until it is over. False where it may be over in a moment, or nothing is wanted of the kernel.
    pub refuses_pods: bool,
}

/// What of the tables is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// What becomes of policies; none where there is nobody to tell of any.
    pub policies: Option<Mode>,
    /// Pods send with addresses of their own, or not at all.
    pub sources: bool,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Policies in force that select pods of this node.
    pub policies: usize,
    /// Pods that such policies isolate, those included whose policies are audited.
    pub isolated: usize,
    /// Pods among them of which nothing is dropped.
    pub audited: usize,
    /// Pods that send and receive nothing, as it is not known which policies they have.
    pub quarantined: usize,
    /// Links that are checked for the source of what they send.
    pub links: usize,
}

/// What is wrong with policies, a line each, in words for an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ails {
    /// What the API server refuses to tell, with the remedy.
    pub refused: Vec<String>,
    /// What is missing although the server has had time enough, so that what was in force before goes on.
    pub missing: Vec<String>,
    /// The pods that have been in quarantine for too long, and what is missing of each.
    pub quarantined: Vec<String>,
    /// The policies of this node's pods that are not understood in part, and what of them.
    pub misunderstood: Vec<String>,
}

impl PolicingState {
    /// Why no pod can be added; none as far as is known.
    pub fn refusal(&self) -> Option<&Error> {
        self.problem.as_ref().filter(|problem| problem.refuses_pods).map(|problem| &problem.error)
    }

    /// Whether pods can be added, as far as the tables are concerned.
    pub fn is_ready(&self) -> bool {
        self.looked && self.refusal().is_none()
    }
}
