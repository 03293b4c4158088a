//! flock beside another CNI, and in its place: the reference plugin ptp with host-local has pods on the node before flock
//! comes, and whatever is done then, none of them loses its network.

use std::net::IpAddr;
use std::path::Path;

use serde_json::json;

use crate::node::{MACHINE4, MACHINE6, NET_D, NEWEST, Node, Runtime, machine, newest_plugin};
use crate::support::host::host_addresses;
use crate::support::machine::Machine;
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

const OTHER: &str = "10-other.conflist";

/// A node on which another CNI has been at work: its plugins, and its configuration as the first one.
fn node_of_another() -> Node {
    let node = Node::new();
    for name in ["ptp", "host-local"] {
        node.plugin(name, &newest_plugin(name));
    }
    let ranges = json!([[{"subnet": "10.90.0.0/24"}], [{"subnet": "2001:db8:90::/64"}]]);
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let ipam = json!({"type": "host-local", "dataDir": "/run/host-local", "ranges": ranges, "routes": routes});
    let list = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp", "ipam": ipam}]});
    node.conf(OTHER, &list);
    node
}

/// The runtime with the configuration that it would take now.
fn runtime(node: &Node) -> Runtime<'_> {
    node.runtime(NEWEST).conf(&node.first_conf())
}

/// A new sandbox.
fn sandbox<'a>(node: &'a Node, name: &str) -> Pod<'a> {
    let pod = node.host.pod(name);
    // Nobody answers them here, and they would be seen as neighbours that come and go.
    pod.run("sysctl -q net.ipv6.conf.default.router_solicitations=0");
    pod
}

/// A pod of the CNI whose configuration is the first one.
fn added<'a>(node: &'a Node, name: &str) -> (Pod<'a>, Vec<IpAddr>) {
    let pod = sandbox(node, name);
    let ips = runtime(node).add(&pod).ips();
    assert_eq!(ips.len(), 2);
    if !of_flock(&ips) {
        // ptp does not wait until the host's end is free to answer.
        wait_for("the first answer to a pod of ptp", || pod.pings(host_addresses()[0]).then_some(()));
    }
    (pod, ips)
}

/// Everybody reaches everybody, and the world.
#[track_caller]
fn assert_all_work(machine: &Machine<'_>, pods: &[&(Pod<'_>, Vec<IpAddr>)]) {
    let world: [IpAddr; 2] = [MACHINE4.parse().unwrap(), MACHINE6.parse().unwrap()];
    for (pod, ips) in pods {
        pod.assert_pings(host_addresses().into_iter().chain(world));
        machine.assert_pings(ips.iter().copied());
        for (_, ips) in pods.iter().filter(|(other, _)| other.name != pod.name) {
            pod.assert_pings(ips.iter().copied());
        }
    }
}

/// Whose pod this is.
fn of_flock(ips: &[IpAddr]) -> bool {
    ips.iter().all(|ip| ip.to_string().starts_with("10.25.214.") || ip.to_string().starts_with("2001:db8:1:f001:"))
}

/// Addresses that host-local has given out.
fn reserved(node: &Node) -> usize {
    let text = node.host.run("find /run/host-local/other -type f -not -name last_reserved* -not -name lock");
    text.lines().count()
}

/// The host as it is when nobody talks. Whoever has talked asks for a while whether the other is still there, which makes
/// entries of neighbours whatever a CNI does; who has forgotten the other does not.
fn quiet_fingerprint(node: &Node, machine: &Machine<'_>, pods: &[&(Pod<'_>, Vec<IpAddr>)]) -> String {
    pods.iter().for_each(|(pod, _)| drop(pod.run("ip neigh flush all")));
    machine.run("ip neigh flush all");
    node.host.run("ip neigh flush all");
    node.host.fingerprint()
}

// covers: FM-G02
#[test]
fn an_agent_that_is_not_installed_changes_nothing_on_a_node_of_another_cni() {
    let node = node_of_another();
    let machine = machine(&node.host);
    let (a, b) = (added(&node, "a"), added(&node, "b"));
    assert_all_work(&machine, &[&a, &b]);
    let fingerprint = || quiet_fingerprint(&node, &machine, &[&a, &b]);
    let before = fingerprint();

    let agent = node.host.agent().start();
    agent.wait_log("NodeConfig in force");
    agent.signal("HUP");
    agent.wait_log("looking again");
    // It can be asked how it is, and is told of pods that are not its own, without any effect.
    let status = node.host.cni("STATUS").run();
    assert_eq!(status.succeeded(), "");
    node.host.del(&a.0).done();
    assert_eq!(fingerprint(), before, "while it runs");
    agent.stop();
    assert_eq!(fingerprint(), before, "after its end");
    node.host.agent().start().kill();
    node.host.agent().start().stop();
    assert_eq!(fingerprint(), before, "after a crash and another start");

    assert_all_work(&machine, &[&a, &b]);
    let other = runtime(&node);
    [&a, &b].iter().for_each(|(pod, _)| other.del(pod));
    assert_eq!(reserved(&node), 0);
}

// covers: FM-G02
#[test]
fn a_node_is_taken_over_from_another_cni_while_its_pods_run() {
    let node = node_of_another();
    let machine = machine(&node.host);
    let links = node.host.run("ip -br link");
    let (a, b) = (added(&node, "a"), added(&node, "b"));
    assert!(!of_flock(&a.1));

    // First beside the other one, then in its place, by nothing but the flag.
    let beside = node.host.agent().start();
    assert!(node.first_conf().ends_with(OTHER));
    beside.stop();
    let agent = node.installed_agent();
    assert_eq!(node.first_conf(), format!("{NET_D}/01-flock.conflist"));
    assert!(node.host.path(&format!("{NET_D}/{OTHER}")).exists(), "the other configuration stays as it is");
    assert_all_work(&machine, &[&a, &b]);

    let c = added(&node, "c");
    assert!(of_flock(&c.1) && !of_flock(&b.1));
    assert_all_work(&machine, &[&a, &b, &c]);
    runtime(&node).check(&c.0);
    runtime(&node).status().done();
    runtime(&node).gc(&["c"]).done();
    agent.signal("HUP");
    agent.wait_log("looking again");
    agent.kill();
    let agent = node.host.agent().args(&["--cni-conf-dir", NET_D]).start();
    assert_all_work(&machine, &[&a, &b, &c]);

    // CRI-O deletes an old pod by the list of its ADD, so the other CNI's own plugin is called.
    runtime(&node).conf(&format!("{NET_D}/{OTHER}")).call("del-as-cached", &a.0).done();
    assert_eq!(reserved(&node), 2);
    assert_all_work(&machine, &[&b, &c]);

    // containerd deletes it by the list that is loaded now. flock knows nothing of it and leaves it alone, so what the
    // other CNI holds for it stays: the reason for draining a node first.
    runtime(&node).del(&b.0);
    assert_eq!(reserved(&node), 2);
    assert_all_work(&machine, &[&b, &c]);
    let forced = runtime(&node).conf(&format!("{NET_D}/{OTHER}"));
    forced.del(&b.0);
    assert_eq!(reserved(&node), 0);

    // From here on flock is alone.
    assert_all_work(&machine, &[&c]);
    runtime(&node).del(&c.0);
    assert_eq!(runtime(&node).cached(), Vec::<String>::new());
    node.host.assert_empty();
    assert_eq!(node.host.run("ip -br link"), links);
    agent.stop();
}

// covers: FM-G03
#[test]
fn a_node_goes_back_to_the_other_cni_and_flocks_pods_end_in_order() {
    let node = node_of_another();
    let machine = machine(&node.host);
    let agent = node.installed_agent();
    let (a, b) = (added(&node, "a"), added(&node, "b"));
    assert!(of_flock(&a.1) && of_flock(&b.1));

    // The agent stays for the sake of its pods, and does not write again what was removed.
    agent.stop();
    std::fs::remove_file(node.host.path(&format!("{NET_D}/01-flock.conflist"))).unwrap();
    let agent = node.host.agent().start();
    let c = added(&node, "c");
    assert!(!of_flock(&c.1));
    assert_all_work(&machine, &[&a, &b, &c]);
    assert!(!Path::new(&node.host.path(&format!("{NET_D}/01-flock.conflist"))).exists());

    // By the list of the ADD, flock is called; by the list that is loaded now, the other plugin removes the pod's end, and
    // the agent finds out by itself.
    runtime(&node)
        .conf(&node.conf(
            "elsewhere.json",
            &json!({
                "cniVersion": "1.0.0", "name": "flock", "plugins": [{"type": "flock"}],
            }),
        ))
        .call("del-as-cached", &a.0)
        .done();
    assert_eq!(node.host.leases().len(), 1);
    runtime(&node).del(&b.0);
    wait_for("the end of the lease", || {
        agent.signal("HUP");
        node.host.leases().is_empty().then_some(())
    });
    assert_eq!(node.host.flock_links(), Vec::<String>::new());
    assert_all_work(&machine, &[&c]);
    runtime(&node).del(&c.0);
    node.host.assert_empty();
    agent.stop();
}
