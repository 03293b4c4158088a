//! Stories of nodes that Kubernetes gives their ranges: `--pod-cidrs`, without a NodeConfig, beside one, and without an API server.

use serde_json::{Value, json};

use crate::peers::{other_node, routes, uplink, wait_peer};
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::programs::FLOCK_AGENT;
use crate::support::waiting::{wait_for, wait_or};
use crate::{pod_object, wait_condition};

const POD_CIDRS: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

/// The agent of a node that has `--pod-cidrs`.
fn agent<'a>(host: &'a Host, plane: &ControlPlane<'_>) -> Agent<'a> {
    let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
    host.agent().config(None).kubeconfig(&kubeconfig).args(&["--pod-cidrs"]).start()
}

/// Makes the Node as kubelet and kube-controller-manager do, and returns its uid.
fn node(plane: &ControlPlane<'_>, cidrs: &[&str]) -> String {
    let spec = match cidrs.first() {
        Some(first) => json!({"podCIDR": first, "podCIDRs": cidrs}),
        None => json!({}),
    };
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "host001"}, "spec": spec});
    plane.apply(&object.to_string()).expect("accepted");
    plane.run("get node host001 -o jsonpath={.metadata.uid}")
}

fn owner(peer: &Value) -> (&str, &str) {
    let owner = &peer["metadata"]["ownerReferences"][0];
    (owner["kind"].as_str().unwrap_or_default(), owner["uid"].as_str().unwrap_or_default())
}

#[test]
fn a_node_without_a_node_config_has_its_pod_cidrs_and_a_node_config_that_appears_wins() {
    let host = Host::new();
    uplink(&host);
    let plane = ControlPlane::start(&host);
    for name in ["a", "b", "c"] {
        plane.apply(&pod_object(name, "host001", &json!({}), &json!({}))).expect("accepted");
    }
    let agent = agent(&host, &plane);
    agent.wait_log("neither a NodeConfig nor a Node of the name host001");
    let a = host.pod("a");
    assert_eq!(host.add(&a).annotations(&[]).error().code, 11);
    node(&plane, &[]);
    let line = agent.wait_log("Node of this name has no spec.podCIDRs");
    assert!(line.contains("kube-controller-manager") && line.contains("--allocate-node-cidrs=true"), "{line}");

    // kube-controller-manager sees to it.
    let uid = node(&plane, &POD_CIDRS);
    agent.wait_log("the ranges are the podCIDRs of the Node");
    agent.wait_log("NodeConfig in force cidr6=fd00:10:244:1::/64 cidr4=10.244.1.0/24");
    let first = host.add(&a).annotations(&[]).result();
    let status = host.run(&format!("{FLOCK_AGENT} status"));
    assert!(status.contains("from spec.podCIDRs of the Node, https://127.0.0.1:6443, in force"), "{status}");
    let (v4, v6) = (first.ipv4().expect("IPv4").to_string(), first.ipv6().expect("IPv6").to_string());
    assert!(v4.starts_with("10.244.1.") && v6.starts_with("fd00:10:244:1:"), "{v4} {v6}");

    // Other nodes learn of it and it of them, as of any other.
    let peer = wait_peer(&plane, "host001", |peer| owner(peer) == ("Node", &uid));
    assert_eq!((&peer["spec"]["cidr4"], &peer["spec"]["cidr6"]), (&json!(POD_CIDRS[0]), &json!(POD_CIDRS[1])));
    other_node(&plane, "host002", "10.244.2.0/24");
    let near = "10.244.2.0/24 via 192.0.2.2 dev up0";
    wait_or(|| routes(&host), || routes(&host).contains(near).then_some(()));

    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    agent.wait_log("the ranges are those of the NodeConfig");
    wait_condition(&plane, "Ready", "True", "Serving");
    wait_condition(&plane, "Valid", "True", "Accepted");
    let b = host.pod("b");
    let second = host.add(&b).annotations(&[]).result().ipv4().expect("IPv4");
    assert!(second.to_string().starts_with("10.25.214."), "{second}");
    let first = v4.parse().expect("an address");
    wait_for("a pod to be reached by the address that it had", || b.pings(first).then_some(()));
    let uid_of_config = plane.run("get nodeconfig host001 -o jsonpath={.metadata.uid}");
    wait_peer(&plane, "host001", |peer| {
        owner(peer) == ("NodeConfig", &uid_of_config) && peer["spec"]["cidr4"] == CIDR4
    });

    plane.run("delete nodeconfig host001");
    agent.wait_log_times("the ranges are the podCIDRs of the Node", 2);
    agent.wait_log_times("NodeConfig in force cidr6=fd00:10:244:1::/64", 2);
    let c = host.pod("c");
    let third = host.add(&c).annotations(&[]).result().ipv4().expect("IPv4");
    assert!(third.to_string().starts_with("10.244.1."), "{third}");
    wait_for("all three to be reached", || (b.pings(first) && c.pings(second)).then_some(()));
    wait_peer(&plane, "host001", |peer| owner(peer) == ("Node", &uid) && peer["spec"]["cidr4"] == POD_CIDRS[0]);
    for pod in [&a, &b, &c] {
        host.del(pod).done();
    }
    agent.stop();
}

#[test]
fn a_node_config_that_cannot_be_used_is_not_passed_over_and_nothing_is_valid_that_is_not_there() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    node(&plane, &POD_CIDRS);
    // Nobody has asked for podCIDRs.
    let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
    let without = host.agent().config(None).kubeconfig(&kubeconfig).start();
    let line = without.wait_log("NodeConfig is missing");
    assert!(line.contains("--pod-cidrs") && line.contains("in_force=none"), "{line}");
    let pod = host.pod("a");
    assert_eq!(host.add(&pod).annotations(&[]).error().code, 11);
    without.stop();

    plane.apply(&node_config("ff02:1::/64", "")).expect("well-formed");
    let agent = agent(&host, &plane);
    wait_condition(&plane, "Valid", "False", "Invalid");
    wait_condition(&plane, "Ready", "False", "NotConfigured");
    agent.wait_log("API server heard resource=nodes");
    assert_eq!(host.add(&pod).annotations(&[]).error().code, 11, "its owner wants something else than podCIDRs");
    plane.run("delete nodeconfig host001");
    agent.wait_log("NodeConfig in force");
    host.add(&pod).annotations(&[]).result();
    // Where it was asked for and cannot be done, what was good stays.
    plane.run("delete node host001");
    node(&plane, &["10.244.1.0/31"]);
    let line = agent.wait_log("podCIDRs of the Node cannot be used");
    assert!(line.contains("too small") && line.contains("the last good one"), "{line}");
    host.del(&pod).done();
    host.add(&pod).annotations(&[]).result();
    agent.stop();
}

// covers: FM-D10
#[test]
fn pod_cidrs_outlive_the_api_server_and_a_start_of_the_agent() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    node(&plane, &POD_CIDRS);
    let before = agent(&host, &plane);
    before.wait_log("NodeConfig in force");
    plane.stop_api("KILL");
    before.stop();
    let kubeconfig = "/run/k8s/agent.kubeconfig";
    let start = |arguments: &[&str]| host.agent().config(None).kubeconfig(kubeconfig).args(arguments).start();
    let agent = start(&["--pod-cidrs"]);
    agent.wait_log("NodeConfig of the last run is in force");
    let pod = host.pod("a");
    let own = host.add(&pod).annotations(&[]).result().ipv4().expect("IPv4").to_string();
    assert!(own.starts_with("10.244.1."), "{own}");
    plane.start_api();
    agent.wait_log("the ranges are the podCIDRs of the Node");
    assert!(!agent.log().contains("NodeConfig is missing"), "{}", agent.log());
    agent.stop();

    // Without the flag nobody says ranges any more, and what was good stays, as after the loss of a NodeConfig.
    let agent = start(&[]);
    let line = agent.wait_log("NodeConfig is missing");
    assert!(line.contains("the last good one"), "{line}");
    agent.stop();
}
