//! flock: a Kubernetes CNI for bare-metal nodes.
//!
//! ```text
//! kubelet -> runtime -> flock (plugin) -> rpc -> agent handler -> ipam -> store -> netlink -> store -> result
//! ```
//!
//! Data flows one way along that line, and so do the arrows between modules: binaries use `agent` and `plugin`, these
//! use the edges, the edges use the pure core, the core uses `addr`. `tests/tidy.rs` holds the arrows as data.
//!
//! The pure core does no I/O and reads no clock: time and randomness are arguments.

// The pure core.
pub mod addr;
pub mod annotations;
pub mod cni;
pub mod desired;
pub mod embed;
pub mod hostfacts;
pub mod ipam;
pub mod lease;
pub mod nodeconfig;
pub mod plan;
pub mod recover;
pub mod text;

// The edges.
pub mod boot;
pub mod disk;
pub mod failpoint;
pub mod intents;
pub mod kube;
pub mod log;
pub mod netlink;
pub mod netns;
pub mod outside;
pub mod program;
pub mod pulse;
pub mod rpc;
pub mod stop;
pub mod store;
pub mod sysctl;

// The two programs.
pub mod agent;
pub mod plugin;
