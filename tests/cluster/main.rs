//! Stories of a whole cluster: two nodes with kubelet, containerd and kube-proxy under systemd, and flock as its documents install
//! it. Run by `make test-cluster`.
//!
//! A cluster takes half a minute to start, so the stories share two: one in which everything is done the first way, and one in
//! which everything is done the other way. The last line is as cargo's own harness has it.
//!
//! On a cluster of the first kind also Kubernetes' own tests are run, and the soak.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs
)]

mod anycast;
mod asking;
mod cluster;
mod dns;
mod e2e;
mod faults;
mod installation;
mod joining;
mod node;
mod pods;
mod policies;
mod report;
mod services;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use crate::cluster::{Cluster, Ground};
use crate::installation::Installation;
use crate::node::Proxy;

type Story = (&'static str, fn(&mut Cluster<'_>));

/// What every cluster goes through first, whatever was asked for.
const BEGINNING: [Story; 2] = [
    ("a_node_is_ready_when_it_serves_pods_and_not_before", joining::ready),
    ("names_are_found_by_a_dns_whose_pods_have_probes", dns::found),
];

const STORIES: [Story; 10] = [
    ("pods_of_two_nodes_reach_each_other_with_their_own_addresses", pods::reach),
    ("kubelet_reaches_pods_of_either_family", pods::kubelet),
    ("a_static_pod_is_served_like_any_other", pods::static_pod),
    ("fifty_pods_come_at_once_and_go_at_once", pods::fifty),
    ("services_lead_to_their_pods_and_keep_whom_they_promise_to_keep", services::lead),
    ("a_headless_service_names_its_pods", services::headless),
    ("a_policy_holds_between_nodes", policies::hold),
    ("a_drained_node_is_empty_and_takes_pods_again", faults::drain),
    ("what_dies_under_load_comes_back_and_no_pod_notices", faults::die),
    ("a_node_that_loses_power_comes_back_with_other_pods", faults::reboot),
];

/// What some clusters have and others have not.
const OF_DAEMON_SET: [Story; 1] = [("a_new_version_is_rolled_out_under_pods_that_come_and_go", faults::roll_out)];
const OF_SYSTEMD: [Story; 2] = [
    ("a_fixed_address_moves_with_its_pod_to_another_node", pods::fixed),
    ("an_address_that_pods_share_is_answered_by_whoever_is_left", anycast::shared),
];

const END: [Story; 1] = [("a_cluster_without_pods_has_nothing_left_of_them", joining::empty)];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["e2e"] => e2e::run(None),
        ["e2e", focus] => e2e::run(Some(focus)),
        ["soak"] => soak::run(),
        wanted => stories(wanted),
    }
}

/// Tells the stories whose names have one of these words in them, or all.
fn stories(wanted: &[&str]) -> ExitCode {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let began = Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    for (proxy, installation, own) in [
        (Proxy::Nftables, Installation::DaemonSet, OF_DAEMON_SET.as_slice()),
        (Proxy::Iptables, Installation::Systemd, &OF_SYSTEMD),
    ] {
        let way = format!("{installation}, {proxy}");
        let chosen: Vec<&Story> =
            STORIES.iter().chain(own).filter(|(name, _)| is_wanted(&format!("{way}: {name}"))).collect();
        if chosen.is_empty() {
            continue;
        }
        let ground = Ground::new();
        let mut cluster = Cluster::start(&ground, proxy, installation);
        println!("{way}: two nodes have registered after {} s", began.elapsed().as_secs());
        for (name, story) in BEGINNING.iter().chain(chosen).chain(&END) {
            let began = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| story(&mut cluster)));
            let how = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{way}: {name} {} ms ... {how}", began.elapsed().as_millis());
            match result {
                Ok(()) => passed += 1,
                Err(_) => {
                    failed.push(format!("{way}: {name}"));
                    cluster.tell();
                }
            }
        }
    }
    if passed == 0 && failed.is_empty() {
        println!("no story has one of these words in its name: {}", wanted.join(" "));
    }
    failed.iter().for_each(|name| println!("failed: {name}"));
    close(passed, failed.len(), began)
}

/// The last line, as cargo's own harness has it, and what the program ends with. Nothing that ran is no success.
fn close(passed: usize, failed: usize, began: Instant) -> ExitCode {
    let is_ok = failed == 0 && passed > 0;
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        if is_ok { "ok" } else { "FAILED" },
        began.elapsed().as_secs_f64()
    );
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
