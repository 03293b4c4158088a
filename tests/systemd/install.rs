//! Installed, brought to another version and uninstalled with the real systemd, by nothing but the commands that are printed.

use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::host::bare;
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::programs::{FLOCK_AGENT, succeed};
use crate::support::waiting::wait_for;

const PLUGIN: &str = "/opt/cni/bin/flock";

fn uninstall(host: &Host, program: &str) -> Output {
    host.inside(&format!("{program} uninstall")).output().expect("it starts")
}

// covers: FM-G01
#[test]
fn a_node_is_installed_serves_and_is_as_before_when_flock_is_gone() {
    let host = bare();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.everything();
    let said = host.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    host.do_next(&said);
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
    host.do_next(&said);
    assert_eq!(host.property("flock-agent.service", "LoadState"), "not-found");
    assert_eq!(host.property("flock-agent.socket", "LoadState"), "not-found");
    let said =
        String::from_utf8(succeed(&mut host.inside(&format!("{FLOCK_AGENT} uninstall --purge"))).into()).expect("text");
    assert!(said.starts_with("removed /etc/flock\n"), "{said}");
    let after = host.everything();
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    assert_eq!(changed, Vec::<&String>::new());
}

#[test]
fn an_agent_that_holds_its_own_socket_is_followed_by_one_to_which_systemd_hands_it() {
    // As it was before there was a unit for the socket.
    let host = bare();
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
        host.do_next(&said);
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

#[test]
fn on_a_host_of_k3s_the_agent_starts_before_it_and_writes_where_it_looks() {
    const CONFLIST: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d/01-flock.conflist";
    let host = bare();
    host.write(
        "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/var/lib/rancher/k3s/data/cni']\n\
         conf_dir = '/var/lib/rancher/k3s/agent/etc/cni/net.d'\n",
    );
    host.write(
        "/etc/systemd/system/k3s.service",
        "[Service]\nType=exec\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
    );
    let pod = host.pod("p");
    let before = host.everything();
    let said = host.run(&format!("{FLOCK_AGENT} install --cni-conf"));
    assert!(said.contains("runtime: k3s (/var/lib/rancher/k3s/agent/etc/containerd/config.toml); "), "{said}");
    host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
    host.do_next(&said);
    wait_for("the CNI configuration", || host.path(CONFLIST).exists().then_some(()));
    assert!(host.property("k3s.service", "After").split(' ').any(|unit| unit == "flock-agent.service"));
    let plugin = "/var/lib/rancher/k3s/data/cni/flock";
    let attached = host.add(&pod).program(plugin).result();
    // What it has lost is there at once when the agent is told to look.
    host.run(&format!("ip route del {}/32 dev {}", attached.ipv4().expect("IPv4"), attached.host_link()));
    host.systemctl("reload flock-agent");
    wait_for("the route", || {
        host.run(&format!("ip route show {}", attached.ipv4().expect("IPv4"))).contains("flock").then_some(())
    });
    pod.assert_pings(host_addresses());
    host.del(&pod).program(plugin).done();
    host.systemctl("disable --now flock-agent.service flock-agent.socket");
    let said = host.run("flock-agent uninstall --purge");
    assert!(said.contains(&format!("removed {CONFLIST}\n")), "{said}");
    let after = host.everything();
    assert_eq!(before.symmetric_difference(&after).collect::<Vec<_>>(), Vec::<&String>::new());
}
