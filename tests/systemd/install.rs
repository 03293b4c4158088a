//! Installed, brought to another version and uninstalled with the real systemd, by nothing but the commands that are printed.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::programs::{FLOCK_AGENT, succeed};
use crate::support::waiting::wait_for;

const PLUGIN: &str = "/opt/cni/bin/flock";

/// A node before anybody has thought of flock, with what flock would set on it.
fn node() -> Host {
    let host = Host::with_systemd();
    host.run("mkdir -p /opt/cni/bin /etc/default");
    host.run("rmdir /etc/flock");
    host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    succeed(&mut host.inside("hostname host001"));
    host
}

/// What flock could have changed, line by line: files outside of systemd's own directory, and the kernel.
fn everything(host: &Host) -> BTreeSet<String> {
    let files = host.run("find /etc /opt /usr/local /run -type d -printf %p:%m\\n -o -printf %p:%y:%m:%s\\n");
    let all = files + &host.fingerprint();
    // The time of a directory tells that something came and went, which is so.
    let not_told = ["/run/systemd/", "/etc/cni/net.d directory"];
    all.lines().filter(|line| !not_told.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

fn uninstall(host: &Host, program: &str) -> Output {
    host.inside(&format!("{program} uninstall")).output().expect("it starts")
}

/// Does what the last line of a report says.
fn do_next(host: &Host, said: &str) {
    let next = said.lines().last().and_then(|line| line.strip_prefix("next: ")).expect("what to do next");
    for line in next.split(" && ") {
        succeed(&mut host.inside(line));
    }
}

// covers: FM-G01
#[test]
fn a_node_is_installed_serves_and_is_as_before_when_flock_is_gone() {
    let host = node();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = everything(&host);
    let said = host.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    do_next(&host, &said);
    wait_for("the CNI configuration", || host.path("/etc/cni/net.d/01-flock.conflist").exists().then_some(()));
    let attached = host.add(&a).program(PLUGIN).result();
    host.add(&b).program(PLUGIN).result();
    b.assert_pings(attached.ips());

    let refused = |why: &str| {
        let output = uninstall(&host, "flock-agent");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{text}");
        text
    };
    refused("pods are attached, 2 in all (default/a, default/b)");
    host.del(&a).program(PLUGIN).done();
    host.del(&b).program(PLUGIN).done();
    let text = refused("the agent runs");
    host.systemctl("stop flock-agent.service");
    refused("its socket is held for it");
    assert_eq!(host.property("flock-agent", "ActiveState"), "inactive", "it was looked at, not called");
    let (_, stop) = text.trim().rsplit_once(": ").expect("what to do");
    succeed(&mut host.inside(stop));

    let said = String::from_utf8(uninstall(&host, "flock-agent").stdout).expect("text");
    assert!(said.contains("left /etc/flock/node.yaml: yours"), "{said}");
    do_next(&host, &said);
    assert_eq!(host.property("flock-agent.service", "LoadState"), "not-found");
    assert_eq!(host.property("flock-agent.socket", "LoadState"), "not-found");
    let said =
        String::from_utf8(succeed(&mut host.inside(&format!("{FLOCK_AGENT} uninstall --purge"))).into()).expect("text");
    assert!(said.starts_with("removed /etc/flock\n"), "{said}");
    let after = everything(&host);
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    assert_eq!(changed, Vec::<&String>::new());
}

#[test]
fn an_agent_that_holds_its_own_socket_is_followed_by_one_to_which_systemd_hands_it() {
    // As it was before there was a unit for the socket.
    let host = node();
    host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    host.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    host.run("rm /etc/systemd/system/flock-agent.socket");
    let unit = include_str!("../../systemd/flock-agent.service");
    let old: Vec<&str> =
        unit.lines().filter(|line| !line.contains("flock-agent.socket") && !line.contains("StandardInput")).collect();
    host.write("/etc/systemd/system/flock-agent.service", &(old.join("\n") + "\n"));
    host.systemctl("daemon-reload");
    host.systemctl("enable --now flock-agent");
    let (pod, witness) = (host.pod("p"), host.pod("witness"));
    let address = host.add(&witness).program(PLUGIN).result().ips();
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                host.add(&pod).program(PLUGIN).result();
                host.del(&pod).program(PLUGIN).done();
                calls.fetch_add(2, Ordering::Relaxed);
            }
        });
        let some_calls = || {
            let enough = calls.load(Ordering::Relaxed) + 6;
            wait_for("calls", || (churn.is_finished() || calls.load(Ordering::Relaxed) >= enough).then_some(()));
        };
        some_calls();
        let said = host.run(&format!("{FLOCK_AGENT} install --cni-conf"));
        do_next(&host, &said);
        some_calls();
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(host.property("flock-agent.socket", "ActiveState"), "active");
    assert_eq!(host.property("flock-agent", "NRestarts"), "0");
    witness.assert_pings(host_addresses());
    assert_eq!(host.leases().iter().flat_map(|lease| lease.addresses()).collect::<Vec<_>>().len(), address.len());
    host.del(&witness).program(PLUGIN).done();
    host.assert_empty();
}
