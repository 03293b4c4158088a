//! flock: a Kubernetes CNI for bare-metal nodes.
//!
//! ```text
//! kubelet -> runtime -> flock (plugin) -> rpc -> agent: verbs -> record -> kernel -> record -> result
//! ```
//!
//! That is the way of one call. What uses what is another order, in which no arrow leads back: programs use edges, and edges
//! use values.
//!
//! - Values: `model` is what a pod asks, holds and needs of the kernel, and decisions about that; `cni` is the CNI protocol. Both
//!   are crates of their own and have no file, socket, thread, clock or environment. Time and randomness are arguments.
//! - Edges: `process`, `record` (what outlives the agent), `kernel`, `kube` (the API server), `bird` (the routing daemon) and `rpc`
//!   (the line between plugin and agent). Each talks to one thing outside.
//! - Programs: `agent` (the daemon), `install`, `operator` (what an operator runs beside the agent) and `plugin`. `cli` is the
//!   command line of all but the last.
//!
//! `tests/tidy.rs` holds the arrows as data. `docs/architecture.md` says where a change goes.

// The edges.
#[cfg(feature = "agent")]
pub mod bird;
#[cfg(feature = "agent")]
pub mod kernel;
#[cfg(feature = "agent")]
pub mod kube;
pub mod process;
pub mod record;
pub mod rpc;

// The programs.
#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod install;
#[cfg(feature = "agent")]
pub mod operator;
pub mod plugin;

// The command line of all but the last.
#[cfg(feature = "agent")]
pub mod cli;
