//! What systemd is told: how the node is, and whether the agent gets on.

use std::fs;

use crate::machine::Machine;
use crate::support::failpoints::ARMED;
use crate::support::*;

/// A machine whose agent has to be heard within `seconds`, and can be held at the points that a test arms.
fn watched(seconds: u32) -> Machine {
    let machine = Machine::boot();
    machine.adapt(
        "flock-agent.service",
        "watchdog",
        &format!("[Service]\nWatchdogSec={seconds}s\nEnvironment=FLOCK_FAILPOINTS={ARMED}\n"),
    );
    machine.systemctl("enable --now flock-agent");
    machine
}

fn restarts(machine: &Machine) -> String {
    machine.property("flock-agent", "NRestarts")
}

/// Waits until systemd has heard from the agent so many times more.
fn wait_heard(machine: &Machine, times: usize) {
    let mut last = machine.property("flock-agent", "WatchdogTimestampMonotonic");
    for _ in 0..times {
        last = wait_for("systemd to hear from the agent", || {
            Some(machine.property("flock-agent", "WatchdogTimestampMonotonic")).filter(|time| *time != last)
        });
    }
}

#[test]
fn systemctl_status_tells_how_many_pods_there_are_and_how_much_is_free() {
    let machine = Machine::boot();
    fs::remove_file(machine.path("/etc/flock/node.yaml")).expect("removed");
    machine.systemctl("enable --now flock-agent");
    let status = |text: &str| {
        wait_for(text, || (machine.property("flock-agent", "StatusText") == text).then_some(()));
        assert!(machine.ask("systemctl --no-pager status flock-agent").contains(text));
    };
    status("waiting for a NodeConfig: pods=0 held4=0 held6=0 free4=0 free6=0");
    machine.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    status("serving pods: pods=0 held4=0 held6=0 free4=253 free6=~2^64");
    let (a, b) = (machine.pod("a"), machine.pod("b"));
    machine.add(&a).result();
    machine.add(&b).annotations(&[("ipv6", "false")]).result();
    status("serving pods: pods=2 held4=2 held6=1 free4=251 free6=~2^64");
    machine.del(&a).done();
    // Two rest for a while.
    status("serving pods: pods=1 held4=1 held6=0 free4=251 free6=~2^64");
}

#[test]
fn a_healthy_agent_is_heard_often_enough_and_left_alone() {
    let machine = watched(2);
    wait_heard(&machine, 8);
    assert_eq!(restarts(&machine), "0", "{}", machine.log());
}

#[test]
fn an_agent_that_was_stopped_is_restarted_and_calls_that_waited_are_served() {
    let machine = watched(2);
    let pod = machine.pod("p");
    machine.systemctl("kill --signal STOP flock-agent");
    machine.add(&pod).result();
    assert_eq!(restarts(&machine), "1");
    machine.del(&pod).done();
    machine.assert_empty();
}

// covers: FM-E06
#[test]
fn a_disk_that_stalls_for_some_seconds_does_not_cost_the_agent_its_life() {
    let machine = watched(4);
    machine.arm("ledger/disk.sync 1 hang 5000\n");
    machine.add(&machine.pod("p")).result();
    wait_heard(&machine, 2);
    assert_eq!(restarts(&machine), "0", "{}", machine.log());
    assert!(!machine.log().contains("stuck"), "{}", machine.log());
}

// covers: FM-C11
#[test]
fn a_disk_that_is_slow_under_load_for_long_does_not_cost_the_agent_its_life() {
    let machine = watched(2);
    // Forty records of a fifth of a second each: whoever asks the ledger something waits for more than two intervals, and an ADD
    // for less than its limit.
    let pods: Vec<Pod<'_>> = (0..20).map(|n| machine.pod(&format!("p{n}"))).collect();
    machine.arm("ledger/disk.sync * hang 200\n");
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| machine.add(pod).result());
        }
    });
    assert_eq!(restarts(&machine), "0", "{}", machine.log());
    assert!(!machine.log().contains("stuck"), "{}", machine.log());
}

// covers: FM-C11
#[test]
fn an_agent_with_a_part_that_is_stuck_says_which_and_is_restarted() {
    for (point, part) in [("ledger/disk.sync", "ledger"), ("reconcile/netlink.dump", "reconcile")] {
        let machine = watched(2);
        machine.arm(&format!("{point} * hang 600000\n"));
        machine.systemctl("kill --signal HUP flock-agent");
        let pod = machine.pod("p");
        std::thread::scope(|scope| {
            let add = scope.spawn(|| machine.add(&pod).result());
            wait_for("the restart", || (restarts(&machine) == "1").then_some(()));
            machine.disarm();
            add.join().expect("an answer");
        });
        machine.wait_log("flock-agent listens", 2);
        let log = machine.log();
        let complaints: Vec<&str> = log.lines().filter(|line| line.contains("agent is stuck")).collect();
        assert_eq!(complaints.len(), 1, "{log}");
        assert!(complaints[0].ends_with(&format!(" stuck={part}")), "{log}");
        machine.del(&pod).done();
        machine.assert_empty();
    }
}
