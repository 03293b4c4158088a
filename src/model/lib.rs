//! What is asked, held, wanted in the kernel and to be repaired: values, and decisions about them.
//!
//! A crate of its own and without `std`, so that it has no way to a file, a socket, a thread, a clock, the environment or the
//! log: time and randomness are arguments. It must not know who asks or who carries out what it decides.

#![no_std]

#[macro_use]
extern crate alloc;
#[cfg(test)]
extern crate self as model;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod annotations;
pub mod asked;
pub mod bgp;
pub mod claims;
pub mod configerror;
pub mod desired;
pub mod embed;
#[cfg(test)]
mod examples;
pub mod excerpt;
pub mod fields;
pub mod forwarding;
pub mod guard;
pub mod hostfacts;
pub mod ipam;
pub mod lease;
pub mod masquerade;
pub mod nearest;
pub mod nodeconfig;
pub mod notation;
pub mod observed;
pub mod peers;
pub mod permit;
pub mod plan;
pub mod policing;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod recover;
pub mod routes;
pub mod ruleset;
pub mod sweep;
pub mod syntax;
pub mod text;
pub mod tree;
