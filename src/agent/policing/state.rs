//! What the policing thread publishes: how flock's tables are, for requests and the status in the API.
//!
//! Values only. Must not decide anything, and must not know who reads them.

/// The tables at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicingState {
    /// How many links are checked for the source of what they send.
    pub links: usize,
    /// Why the kernel does not have what it should; none if it has.
    pub problem: Option<String>,
}
