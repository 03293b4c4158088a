//! What a verb wants done and said: made before the first change, and carried out as a whole. Must not look at anything.

use std::os::fd::OwnedFd;

use crate::install::host::Lock;
use crate::install::plan::Step;

/// The work of one run.
#[derive(Debug, Default)]
pub struct Work {
    /// What is done, in this order, and said.
    pub steps: Vec<Step>,
    /// What is said at the end.
    pub notes: Vec<String>,
    /// What keeps agents from starting until it is done.
    pub lock: Option<Lock>,
    /// What keeps others from doing the same until it is done.
    pub held: Option<OwnedFd>,
}
