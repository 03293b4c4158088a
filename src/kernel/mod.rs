//! The kernel: netlink, network namespaces, and settings under `/proc/sys/net`.
//!
//! Says what is there and does what it is told, once. Must not decide what should be there.

pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod sysctl;
