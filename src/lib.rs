//! flock: a Kubernetes CNI for bare-metal nodes.
//!
//! ```text
//! kubelet -> runtime -> flock (plugin) -> rpc -> agent: verbs -> record -> kernel -> record -> result
//! ```
//!
//! Data flows one way along that line, and so do the arrows between folders. Each folder is one box of that picture:
//!
//! - `model` and `cni` are crates of their own, with neither files nor sockets, threads, clocks and environment: what a pod
//!   asks, holds and needs of the kernel as values, and the CNI protocol as values. Time and randomness are arguments.
//! - `process`, `record`, `kernel`, `kube` and `rpc` are the edges: each talks to one thing outside.
//! - `agent`, `install` and `plugin` are the programs; `cli` is the command line of the first two.
//!
//! `tests/tidy.rs` holds the arrows as data.

// The edges.
pub mod kernel;
pub mod kube;
pub mod process;
pub mod record;
pub mod rpc;

// The programs.
pub mod agent;
pub mod install;
pub mod plugin;

// What is typed.
pub mod cli;
