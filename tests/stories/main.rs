//! Every story that needs nothing but this machine, as one program: `make test`, or one subject by its name,
//! `tests/sandbox cargo test --features failpoints --test stories -- recovery::`.
//!
//! The stories run side by side in one process, so none of them may change what all of them share: the working directory, the
//! environment, the mask of new files, the limits and the signals of the process. What has to be changed is changed for a program
//! that the story starts, on a host of its own; a program that a story has made is put in place by `support::programs`.
//!
//! Programs of their own are only `tidy`, `documents` and `conformance_doc`, which look at texts, need neither root nor the feature and are
//! built in seconds, and the suites that need a special machine: `kube`, `kernels`, `libcni`, `runtimes`, `soak`, `systemd`. The
//! one story about the end of its own process (`conformance::output`) starts this program again for itself alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod addresses;
mod api;
mod check;
mod config;
mod conflist;
mod conformance;
mod crash;
mod deletes;
mod fuzz_seeds;
mod guard;
mod host_page;
mod hosts;
mod install;
mod kernel;
mod kernel_routes;
mod kube_client;
mod limits;
mod log;
mod masquerade;
mod metrics;
mod netlink_faults;
mod nftables;
mod node;
mod odd_links;
mod old_kernels;
mod operator;
mod policing;
mod policy_page;
mod recovery;
mod routes;
mod rpc;
mod rules;
mod ruleset_text;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod units;
mod validate;
