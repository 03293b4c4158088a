//! What outlives the agent: the lease log, the delete notes, and the clock by which both are dated.
//!
//! Also the way in which files are replaced whole. Must not know the kernel's network state or who asks.

pub mod boot_clock;
pub mod disk;
#[cfg(test)]
#[path = "../model/examples.rs"]
pub(crate) mod examples;
pub mod format;
pub mod import;
pub mod notes;
pub mod replacement;
pub mod store;

/// Where the agent keeps its record unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/flock/state";
