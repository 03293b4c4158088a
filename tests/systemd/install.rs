//! Installed, brought to another version and uninstalled with the real systemd, by nothing but the commands that are printed.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::machine::Machine;
use crate::support::*;

const PLUGIN: &str = "/opt/cni/bin/flock";

/// A node before anybody has thought of flock, with what flock would set on it.
fn node() -> Machine {
    let machine = Machine::bare();
    machine.run("mkdir -p /opt/cni/bin /etc/default");
    machine.run("rmdir /etc/flock");
    machine.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    succeed(&mut machine.inside("hostname host001"));
    machine
}

/// What flock could have changed, line by line: files outside of systemd's own directory, and the kernel.
fn everything(machine: &Machine) -> BTreeSet<String> {
    let files = machine.run("find /etc /opt /usr/local /run -type d -printf %p:%m\\n -o -printf %p:%y:%m:%s\\n");
    let all = files + &machine.fingerprint();
    // The time of a directory tells that something came and went, which is so.
    let not_told = ["/run/systemd/", "/etc/cni/net.d directory"];
    all.lines().filter(|line| !not_told.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

fn uninstall(machine: &Machine, program: &str) -> Output {
    machine.inside(&format!("{program} uninstall")).output().expect("it starts")
}

/// Does what the last line of a report says.
fn do_next(machine: &Machine, said: &str) {
    let next = said.lines().last().and_then(|line| line.strip_prefix("next: ")).expect("what to do next");
    for line in next.split(" && ") {
        succeed(&mut machine.inside(line));
    }
}

// covers: FM-G01
#[test]
fn a_node_is_installed_serves_and_is_as_before_when_flock_is_gone() {
    let machine = node();
    let (a, b) = (machine.pod("a"), machine.pod("b"));
    let before = everything(&machine);
    let said = machine.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    machine.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    do_next(&machine, &said);
    wait_for("the CNI configuration", || machine.path("/etc/cni/net.d/01-flock.conflist").exists().then_some(()));
    let attached = machine.add(&a).program(PLUGIN).result();
    machine.add(&b).program(PLUGIN).result();
    b.assert_pings(attached.ips());

    let refused = |why: &str| {
        let output = uninstall(&machine, "flock-agent");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{text}");
        text
    };
    refused("pods are attached, 2 in all (default/a, default/b)");
    machine.del(&a).program(PLUGIN).done();
    machine.del(&b).program(PLUGIN).done();
    let text = refused("the agent runs");
    machine.systemctl("stop flock-agent.service");
    refused("its socket is held for it");
    assert_eq!(machine.property("flock-agent", "ActiveState"), "inactive", "it was looked at, not called");
    let (_, stop) = text.trim().rsplit_once(": ").expect("what to do");
    succeed(&mut machine.inside(stop));

    let said = String::from_utf8(uninstall(&machine, "flock-agent").stdout).expect("text");
    assert!(said.contains("left /etc/flock/node.yaml: yours"), "{said}");
    do_next(&machine, &said);
    assert_eq!(machine.property("flock-agent.service", "LoadState"), "not-found");
    assert_eq!(machine.property("flock-agent.socket", "LoadState"), "not-found");
    let said = String::from_utf8(succeed(&mut machine.inside(&format!("{FLOCK_AGENT} uninstall --purge"))).into())
        .expect("text");
    assert!(said.starts_with("removed /etc/flock\n"), "{said}");
    let after = everything(&machine);
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    assert_eq!(changed, Vec::<&String>::new());
}

#[test]
fn an_agent_that_holds_its_own_socket_is_followed_by_one_to_which_systemd_hands_it() {
    // As it was before there was a unit for the socket.
    let machine = node();
    machine.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    machine.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    machine.run("rm /etc/systemd/system/flock-agent.socket");
    let unit = include_str!("../../systemd/flock-agent.service");
    let old: Vec<&str> =
        unit.lines().filter(|line| !line.contains("flock-agent.socket") && !line.contains("StandardInput")).collect();
    machine.write("/etc/systemd/system/flock-agent.service", &(old.join("\n") + "\n"));
    machine.systemctl("daemon-reload");
    machine.systemctl("enable --now flock-agent");
    let (pod, witness) = (machine.pod("p"), machine.pod("witness"));
    let address = machine.add(&witness).program(PLUGIN).result().ips();
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                machine.add(&pod).program(PLUGIN).result();
                machine.del(&pod).program(PLUGIN).done();
                calls.fetch_add(2, Ordering::Relaxed);
            }
        });
        let some_calls = || {
            let enough = calls.load(Ordering::Relaxed) + 6;
            wait_for("calls", || (churn.is_finished() || calls.load(Ordering::Relaxed) >= enough).then_some(()));
        };
        some_calls();
        let said = machine.run(&format!("{FLOCK_AGENT} install --cni-conf"));
        do_next(&machine, &said);
        some_calls();
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(machine.property("flock-agent.socket", "ActiveState"), "active");
    assert_eq!(machine.property("flock-agent", "NRestarts"), "0");
    witness.assert_pings(host_addresses());
    assert_eq!(machine.leases().iter().flat_map(|lease| lease.addresses()).collect::<Vec<_>>().len(), address.len());
    machine.del(&witness).program(PLUGIN).done();
    machine.assert_empty();
}
