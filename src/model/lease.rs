//! The lease: what one attachment holds. It is the line of data that travels from the allocator through the store and
//! the kernel to the CNI result, so it must not know any of them.

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Attachment, IfName, Mac};

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The addresses are taken; the kernel may know some, all or nothing of it. Undone at the next start.
    Pending,
    /// The link stands and the runtime may have been told. Kept until DEL, or until the link is gone.
    Committed,
}

/// The pod behind an attachment, as far as the runtime told. For people and logs; nothing is keyed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One attachment and everything that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The key.
    pub attachment: Attachment,
    /// Pending or committed.
    pub phase: Phase,
    /// The CNI network name that it was made under, the scope of GC.
    pub network: String,
    /// The namespace path as the runtime gave it. Only printed: a path can come to name another pod's namespace.
    pub netns: String,
    /// The host end's name.
    pub host_link: IfName,
    /// The host end's hardware address: the proof that a link of this name is really this lease's.
    pub host_mac: Mac,
    /// The pod end's hardware address; none for a link that the Go flock made, where it was left to chance.
    pub pod_mac: Option<Mac>,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// The pod's IPv6 address, a /128.
    pub ipv6: Option<Ipv6Addr>,
    /// The pod's IPv4 address, a /32.
    pub ipv4: Option<Ipv4Addr>,
    /// The next hop of the pod's IPv4 default route, an address of the host end.
    pub gateway4: Ipv4Addr,
    /// The host end's index, since the attachment was committed: what of a link nobody can change.
    pub host_index: Option<u32>,
    /// The pod's name, when the runtime gave one.
    pub pod: Option<PodName>,
    /// When the lease was made, in milliseconds of the boot clock. Orders it against delete notes.
    pub since: u64,
    /// Which call of the plugin made it. The same call, repeated over a new connection, gets the same answer.
    pub call: Option<String>,
}

impl Lease {
    /// Its addresses, IPv6 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.ipv6.map(IpAddr::V6);
        let v4 = self.ipv4.map(IpAddr::V4);
        v6.into_iter().chain(v4)
    }
}
