//! What systemd is told: how the node is, and whether the agent gets on.

use std::fs;

use crate::support::failpoints::ARMED;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

/// A machine whose agent has to be heard within `seconds`, and can be held at the points that a test arms.
fn watched(seconds: u32) -> Host {
    let host = Host::with_units();
    host.adapt(
        "flock-agent.service",
        "watchdog",
        &format!("[Service]\nWatchdogSec={seconds}s\nEnvironment=FLOCK_FAILPOINTS={ARMED}\n"),
    );
    host.systemctl("enable --now flock-agent");
    host
}

fn restarts(host: &Host) -> String {
    host.property("flock-agent", "NRestarts")
}

/// Waits until systemd has heard from the agent so many times more.
fn wait_heard(host: &Host, times: usize) {
    let mut last = host.property("flock-agent", "WatchdogTimestampMonotonic");
    for _ in 0..times {
        last = wait_for("systemd to hear from the agent", || {
            Some(host.property("flock-agent", "WatchdogTimestampMonotonic")).filter(|time| *time != last)
        });
    }
}

#[test]
fn systemctl_status_tells_how_many_pods_there_are_and_how_much_is_free() {
    let host = Host::with_units();
    fs::remove_file(host.path("/etc/flock/node.yaml")).expect("removed");
    host.systemctl("enable --now flock-agent");
    let status = |text: &str| {
        wait_for(text, || (host.property("flock-agent", "StatusText") == text).then_some(()));
        assert!(host.ask("systemctl --no-pager status flock-agent").contains(text));
    };
    status("waiting for a NodeConfig: pods=0 held4=0 held6=0 free4=0 free6=0");
    host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    status("serving pods: pods=0 held4=0 held6=0 free4=253 free6=~2^64");
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).result();
    host.add(&b).annotations(&[("ipv6", "false")]).result();
    status("serving pods: pods=2 held4=2 held6=1 free4=251 free6=~2^64");
    host.del(&a).done();
    // Two rest for a while.
    status("serving pods: pods=1 held4=1 held6=0 free4=251 free6=~2^64");
}

#[test]
fn a_healthy_agent_is_heard_often_enough_and_left_alone() {
    let host = watched(2);
    wait_heard(&host, 8);
    assert_eq!(restarts(&host), "0", "{}", host.log());
}

#[test]
fn an_agent_that_was_stopped_is_restarted_and_calls_that_waited_are_served() {
    let host = watched(2);
    let pod = host.pod("p");
    host.systemctl("kill --signal STOP flock-agent");
    host.add(&pod).result();
    assert_eq!(restarts(&host), "1");
    host.del(&pod).done();
    host.assert_empty();
}

// covers: FM-E06
#[test]
fn a_disk_that_stalls_for_some_seconds_does_not_cost_the_agent_its_life() {
    let host = watched(4);
    host.arm("ledger/disk.sync 1 hang 5000\n");
    host.add(&host.pod("p")).result();
    wait_heard(&host, 2);
    assert_eq!(restarts(&host), "0", "{}", host.log());
    assert!(!host.log().contains("stuck"), "{}", host.log());
}

// covers: FM-C11
#[test]
fn a_disk_that_is_slow_under_load_for_long_does_not_cost_the_agent_its_life() {
    let host = watched(2);
    // Forty records of a fifth of a second each: whoever asks the ledger something waits for more than two intervals, and an ADD
    // for less than its limit.
    let pods: Vec<Pod<'_>> = (0..20).map(|n| host.pod(&format!("p{n}"))).collect();
    host.arm("ledger/disk.sync * hang 200\n");
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| host.add(pod).result());
        }
    });
    assert_eq!(restarts(&host), "0", "{}", host.log());
    assert!(!host.log().contains("stuck"), "{}", host.log());
}

// covers: FM-C11
#[test]
fn an_agent_with_a_part_that_is_stuck_says_which_and_is_restarted() {
    for (point, part) in [("ledger/disk.sync", "ledger"), ("reconcile/netlink.dump", "reconcile")] {
        let host = watched(2);
        host.arm(&format!("{point} * hang 600000\n"));
        host.systemctl("kill --signal HUP flock-agent");
        let pod = host.pod("p");
        std::thread::scope(|scope| {
            let add = scope.spawn(|| host.add(&pod).result());
            wait_for("the restart", || (restarts(&host) == "1").then_some(()));
            host.disarm();
            add.join().expect("an answer");
        });
        host.wait_log("flock-agent listens", 2);
        let log = host.log();
        let complaints: Vec<&str> = log.lines().filter(|line| line.contains("agent is stuck")).collect();
        assert_eq!(complaints.len(), 1, "{log}");
        // Parts that wait for it may be named as well: with so short an interval they have not given up yet.
        let (_, stuck) = complaints[0].split_once(" stuck=").expect("named");
        assert!(stuck.split(',').any(|named| named == part), "{log}");
        host.del(&pod).done();
        host.assert_empty();
    }
}
