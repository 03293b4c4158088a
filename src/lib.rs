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
