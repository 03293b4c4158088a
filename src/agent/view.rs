//! What requests may know of the node: one immutable value, swapped as a whole. Readers never wait for a writer's work.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use model::nodeconfig::NodeConfig;

/// The node as it is configured now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The last good NodeConfig.
    pub config: NodeConfig,
    /// MTU for new links, in bytes.
    pub mtu: u32,
    /// The next hop of new pods' IPv4 default route.
    pub gateway4: Ipv4Addr,
}

/// The place where the present view is found; none before the first good NodeConfig.
#[derive(Debug, Clone, Default)]
pub struct Present(Arc<Mutex<Option<Arc<View>>>>);

impl Present {
    /// The present view. The lock is held for the copy of a pointer.
    pub fn get(&self) -> Option<Arc<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another view in its place.
    pub fn set(&self, view: View) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(view));
    }
}
