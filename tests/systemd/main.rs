//! Stories with the real systemd: the shipped units on a host that systemd has booted. Run by `make test-systemd`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

mod bird;
mod hardening;
mod host;
mod install;
mod journal;
mod socket;
#[path = "../support/mod.rs"]
mod support;
mod watchdog;

use crate::support::host::{Host, host_addresses};

#[test]
fn the_shipped_units_serve_pods() {
    let host = Host::with_service();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).result();
    let other = host.add(&b).result();
    a.assert_pings(host_addresses());
    a.assert_pings(other.ips());
    host.cni("STATUS").done();
    host.del(&a).done();
    host.del(&b).done();
    host.assert_empty();
}
