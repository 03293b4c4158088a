//! Whoever is measured: something that attaches and detaches pods on a host of its own.

use std::time::Duration;

use crate::call::Verb;
use crate::host::{Host, Pod};

/// Somebody who takes part in a benchmark.
pub trait Contestant: Sync {
    /// What it is called in tables.
    fn name(&self) -> &str;

    /// Where its calls are made from.
    fn host(&self) -> &Host;

    /// One call, by a thread that is on its host; how long the caller waited.
    fn call(&self, verb: Verb, pod: &Pod) -> Duration;

    /// The processor time so far of what it has that lives on. What it starts for a call is the caller's to count.
    fn resident(&self) -> Duration {
        Duration::ZERO
    }
}
