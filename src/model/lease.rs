//! The lease: what one attachment holds. It is the line of data that travels from the allocator through the store and
//! the kernel to the CNI result, so it must not know any of them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

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
    /// What tells it from an earlier or later pod of this name, as the runtime gave it: at most 128 bytes. That of a static pod is
    /// not the one that the API server knows.
    pub uid: Option<String>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
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
    /// Further addresses of the pod's interface, by its annotation `addresses`, in that order. Of each family only where the pod
    /// has an address of it above, and none twice.
    pub extra: Vec<IpAddr>,
    /// Addresses that the pod shares with others, by its annotation `anycast`. They are nobody's alone, so they are neither held
    /// nor routed here. Of each family only where the pod has an address of it above, and none twice.
    pub anycast: Vec<IpAddr>,
    /// The pod sends for others, too, as the node's owner lets it: the source of its packets is not checked.
    pub any_source: bool,
    /// What the policies of its pod forbid is counted and passes, as long as the node's owner lets it.
    pub audit: bool,
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
    /// Whether the node has routes for it beside those of its link: for anycast addresses, and for addresses outside of `ranges`,
    /// the node's own.
    pub fn is_routed_apart(&self, ranges: &[IpNet]) -> bool {
        !self.anycast.is_empty() || self.outside(ranges).next().is_some()
    }

    /// Its [`Lease::addresses`] that are in none of `ranges`.
    pub fn outside(&self, ranges: &[IpNet]) -> impl Iterator<Item = IpAddr> {
        self.addresses().filter(|ip| !ranges.iter().any(|range| range.contains(ip)))
    }

    /// The one address of each family that the runtime is told of, IPv6 first: the pod's default routes belong to these.
    pub fn primary(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.ipv6.map(IpAddr::V6);
        let v4 = self.ipv4.map(IpAddr::V4);
        v6.into_iter().chain(v4)
    }

    /// All addresses that are its own, [`Lease::primary`] first: nobody else has one of them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        // Nothing is allocated for an empty list.
        self.primary().chain(self.extra.clone())
    }

    /// All addresses behind its link: its own, and those that it shares with others.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.addresses().chain(self.anycast.clone())
    }
}
