//! Stories with the real systemd: the shipped units on a host that systemd has booted. Run by `make test-systemd`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

mod hardening;
mod install;
mod machine;
mod socket;
#[path = "../support/mod.rs"]
mod support;
mod watchdog;

use machine::Machine;
use support::*;

#[test]
fn the_shipped_units_serve_pods() {
    let machine = Machine::with_agent();
    let (a, b) = (machine.pod("a"), machine.pod("b"));
    machine.add(&a).result();
    let other = machine.add(&b).result();
    a.assert_pings(host_addresses());
    a.assert_pings(other.ips());
    machine.cni("STATUS").done();
    machine.del(&a).done();
    machine.del(&b).done();
    machine.assert_empty();
}
