//! Stories of routes between machines: two nodes with real agents, a router with a real routing daemon, and a client behind it.
//! Run by `make test-routes`. What arrived at the router, its kernel is asked and never a daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod bgp;
mod bird;
mod documented;
mod failover;
mod flat;
mod network;
mod on_link;
mod own_daemons;
mod restart;
mod router;
mod speaker;
mod static_routes;
mod status;
#[path = "../support/mod.rs"]
mod support;
