//! What the agent's memory is for: at its start, at rest with 110 pods and watches of a real API server, and after a burst of a
//! thousand ADD and DEL. Run by `make bench-memory`.
//!
//! The parts are those that the kernel counts for each mapping (`/proc/PID/smaps`). Nothing is asserted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::node_config;
use crate::support::moment::moment;

/// Pods of the node.
const PODS: usize = 110;
/// ADD and DEL of the burst, and how many at a time.
const BURST: usize = 1000;
const CALLERS: usize = 8;

fn main() {
    println!("{}", moment());
    println!(
        "| KiB | resident | program, read | program, written | heap and buffers | stacks of threads | stacks, number |\n|---|---|---|---|---|---|---|"
    );
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config("2001:db8:1::/64", "10.25.208.0/20")).expect("accepted");
    let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    agent.wait_log("NodeConfig in force");
    agent.wait_log("API server heard resource=nodepeers");
    row("started", agent.pid());

    let items: Vec<Value> = (0..PODS).map(|n| object(&format!("own-{n}"))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    fs::write(host.path("/run/k8s/list.json"), list.to_string()).expect("writable");
    plane.run("create -f /run/k8s/list.json");
    let pods: Vec<_> = (0..PODS).map(|n| host.pod(&format!("own-{n}"))).collect();
    row("the pods are objects", agent.pid());
    pods.iter()
        .enumerate()
        .for_each(|(n, pod)| drop(host.add(pod).kubernetes("default", &format!("own-{n}")).result()));
    row("at rest with 110 pods", agent.pid());

    let burst: Vec<_> = (0..CALLERS).map(|n| host.pod(&format!("burst-{n}"))).collect();
    let left = AtomicUsize::new(BURST / CALLERS);
    std::thread::scope(|scope| {
        for pod in &burst {
            scope.spawn(|| {
                for _ in 0..BURST / CALLERS {
                    host.add(pod).annotations(&[]).result();
                    host.del(pod).done();
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    row("after the burst", agent.pid());
    for wait in [15, 45] {
        std::thread::sleep(Duration::from_secs(wait));
        row(&format!("{wait} s later"), agent.pid());
    }
    if std::env::var_os("MAPS").is_some() {
        print!("{}", fs::read_to_string(format!("/proc/{}/smaps", agent.pid())).expect("readable"));
    }
    agent.stop();
}

/// A pod of some two kilobytes, bound to the node.
fn object(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": {"pad": "x".repeat(2000)}},
        "spec": {"nodeName": "host001", "containers": [{"name": "c", "image": "registry.example/web:1"}]},
    })
}

/// Resident memory of a process by what it is for, in KiB.
fn row(what: &str, pid: u32) {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("readable");
    let (mut read, mut written, mut heap, mut stacks, mut count) = (0, 0, 0, 0, 0);
    let (mut head, mut is_stack) = (String::new(), false);
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            head = line.to_owned();
            // As the library makes them.
            is_stack = line.ends_with("[stack]") || length(first) == 2 << 20;
            count += u32::from(is_stack && line.contains(" rw-p "));
        }
        let Some(rss) = line.strip_prefix("Rss:").and_then(|text| text.trim().strip_suffix(" kB")) else { continue };
        let rss: u64 = rss.trim().parse().expect("a number");
        let is_program = head.contains('/');
        match () {
            () if is_program && head.contains(" rw-p ") || head.contains(".data") => written += rss,
            () if is_program && head.contains(" r--p ") && private(&smaps, &head) => written += rss,
            () if is_program => read += rss,
            () if is_stack => stacks += rss,
            () => heap += rss,
        }
    }
    let all = read + written + heap + stacks;
    println!("| {what} | {all} | {read} | {written} | {heap} | {stacks} | {count} |");
}

fn length(range: &str) -> u64 {
    let address = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
    range.split_once('-').map_or(0, |(from, to)| address(to) - address(from))
}

/// Whether the pages of this mapping have been written, as those that hold addresses are at the start.
fn private(smaps: &str, head: &str) -> bool {
    let Some(from) = smaps.find(head) else { return false };
    let part = &smaps[from..];
    part.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).is_some_and(|text| !text.trim().starts_with("0 "))
}
