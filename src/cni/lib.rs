//! The CNI protocol as values: what a runtime says to the plugin, and what the plugin may answer.
//!
//! ```text
//! environment -> env::Invocation -> args::PodArgs     (who, where, for which pod)
//! stdin       -> netconf::NetConf                     (which network, which version)
//! agent       -> result::WireResult -> stdout         (in the version that was asked for)
//! any failure -> error::Error       -> stdout
//! agent       -> conflist           -> the runtime    (that it runs the plugin at all)
//! ```
//!
//! Everything here turns text into checked values or values into text. The crate is without `std`, so it cannot open, read,
//! connect, wait or log. It must not know the agent: both halves of the program use it.

#![no_std]

#[macro_use]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod args;
pub mod conflist;
pub mod env;
pub mod error;
pub mod netconf;
pub mod result;
pub mod verb;
pub mod version;
