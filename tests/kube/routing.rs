//! Stories of what `kubectl` shows of a node's routes, as a real API server has taken it.

use serde_json::{Value, json};

use crate::peers::{other_node, uplink};
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::programs::FLOCK_AGENT;
use crate::support::waiting::wait_or;
use crate::wait_condition;

/// `status.routing` as the server has it; null where it has none.
fn routing(plane: &ControlPlane<'_>) -> Value {
    let object: Value = serde_json::from_str(&plane.run("get nodeconfig host001 -o json")).expect("JSON");
    object["status"]["routing"].clone()
}

#[track_caller]
fn wait_routing(plane: &ControlPlane<'_>, wanted: &Value) {
    wait_or(|| format!("{} instead of {wanted}", routing(plane)), || (routing(plane) == *wanted).then_some(()));
}

#[test]
fn kubectl_shows_what_a_node_announces_and_nothing_of_what_it_has_not_any_more() {
    let host = Host::new();
    uplink(&host);
    let plane = ControlPlane::start(&host);
    let spec = |more: Value| {
        let mut spec = json!({"cidr6": CIDR6, "cidr4": CIDR4});
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        plane.apply(&node_config_spec(spec)).expect("accepted");
    };
    spec(json!({}));
    let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
    let bird = ["--bird-config", "/run/bird/bird.conf", "--bird-socket", "/run/bird/bird.ctl"];
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).args(&bird).start();
    wait_condition(&plane, "Ready", "True", "Serving");
    assert_eq!(routing(&plane), Value::Null, "before it serves pods");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    wait_condition(&plane, "Routing", "True", "Announced");
    wait_routing(&plane, &json!({"announced": 2, "reached": 0}));
    // A count is as new as the report, for which one pod more is a reason.
    other_node(&plane, "host002", "10.25.215.0/24");
    let further = host.pod("b");
    host.add(&further).annotations(&[]).result();
    wait_routing(&plane, &json!({"announced": 2, "reached": 1}));

    host.run(&format!("{FLOCK_AGENT} withdraw --wait 0"));
    let message = wait_condition(&plane, "Routing", "False", "Withdrawn");
    assert!(message.contains("`flock-agent announce` ends that"), "{message}");
    assert_eq!(routing(&plane)["announced"], 0);
    let wide = plane.run("get nodeconfigs -o wide");
    assert!(wide.contains("ROUTING") && wide.contains("Withdrawn"), "{wide}");
    host.run(&format!("{FLOCK_AGENT} announce"));
    wait_condition(&plane, "Routing", "True", "Announced");

    spec(json!({"peers": "none"}));
    wait_routing(&plane, &json!({"announced": 2}));
    // Peers without a daemon that speaks to them; and none any more.
    host.run("mkdir -p /run/bird");
    spec(json!({"bgp": {"asn": 65001, "peers": [{"name": "tor1", "address": "192.0.2.9", "asn": 65100}]}}));
    let message = wait_condition(&plane, "Routing", "False", "BirdUnreachable");
    assert!(message.contains("/run/bird/bird.ctl"), "{message}");
    spec(json!({}));
    wait_condition(&plane, "Routing", "True", "Announced");
    assert_eq!(routing(&plane)["peers"], Value::Null);
    agent.stop();
}
