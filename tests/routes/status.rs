//! What `kubectl` shows of the sessions of a node whose NodeConfig has a `bgp` block: a real API server takes the agent's report
//! of a real BIRD.

use serde_json::{Value, json};

use crate::network::{Network, Node};
use crate::router;
use crate::support::control_plane::ControlPlane;
use crate::support::routers::Debian;
use crate::support::waiting::wait_or;

const BIRD: [&str; 4] = ["--bird-config", "/run/bird/bird.conf", "--bird-socket", "/run/bird/bird.ctl"];

/// The node's status as the server has it.
fn status(plane: &ControlPlane<'_>, node: &Node) -> Value {
    let object = plane.run(&format!("get nodeconfig {} -o json", node.name));
    serde_json::from_str::<Value>(&object).expect("JSON")["status"].clone()
}

/// Waits until the condition says this, and tells the sessions that the status has beside it.
#[track_caller]
fn wait_reason(plane: &ControlPlane<'_>, node: &Node, truth: &str, reason: &str) -> Value {
    let mut shown = Value::Null;
    let last = std::cell::RefCell::new(String::new());
    wait_or(
        || last.borrow().clone(),
        || {
            shown = status(plane, node);
            *last.borrow_mut() = shown.to_string();
            let conditions = shown["conditions"].as_array()?;
            let routing = conditions.iter().find(|condition| condition["type"] == "Routing")?;
            (routing["status"] == truth && routing["reason"] == reason).then_some(())
        },
    );
    shown["routing"]["peers"].clone()
}

#[test]
fn the_status_of_a_node_has_its_sessions_as_long_as_there_is_a_bgp_block() {
    let network = Network::new();
    let node = &network.one;
    let plane = ControlPlane::start_at(&network.router, "192.0.2.1");
    let router = router::bird(&network);
    let _bird = node.host.bird(Debian::Bookworm, "log stderr all;\nrouter id 192.0.2.99;\nprotocol device { }\n");
    let kubeconfig = plane.kubeconfig_on(&node.host);
    let tor = json!({"name": "tor1", "address": "2001:db8:a25::1", "asn": 65100});
    plane.apply(&node.config(json!({"bgp": {"asn": 65001, "peers": [tor]}}))).expect("accepted");
    let agent = node.host.agent().node(&node.name).config(None).kubeconfig(&kubeconfig).args(&BIRD).start();
    agent.wait_log("NodeConfig in force");
    node.attach("web", &[]);
    network.wait_learned(&["10.25.1.0/24 via node1", "2001:db8:1:1::/64 via node1"]);
    let peers = wait_reason(&plane, node, "True", "Established");
    assert_eq!((&peers[0]["name"], &peers[0]["state"]), (&json!("tor1"), &json!("Established")), "{peers}");
    assert!(peers[0]["since"].is_string() && peers[0]["sent"].is_u64(), "{peers}");
    drop(router);
    let peers = wait_reason(&plane, node, "False", "SessionDown");
    assert_eq!((&peers[0]["name"], &peers[0]["state"]), (&json!("tor1"), &json!("Down")), "{peers}");
    let _router = router::bird(&network);
    wait_reason(&plane, node, "True", "Established");
    plane.apply(&node.config(json!({}))).expect("accepted");
    let peers = wait_reason(&plane, node, "True", "Announced");
    assert_eq!(peers, Value::Null);
    assert_eq!(status(&plane, node)["routing"]["announced"], 2);
    agent.stop();
}
