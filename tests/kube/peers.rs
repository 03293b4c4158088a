//! Stories of what nodes tell each other through a real API server: who writes it, who may, and what it costs a large cluster.

use std::net::UdpSocket;
use std::path::Path;

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::manifests::{CIDR4, CIDR6, node_config, node_config_spec};
use crate::support::waiting::{PATIENCE, wait_for, wait_or};
use crate::{agent_of, condition, rss_kib, wait_condition};

const PEERS: &str = "/apis/flock.fritzlab.net/v1alpha1/nodepeers";

/// A link of the host that leads to other nodes, with an address of each family.
pub(crate) fn uplink(host: &Host) {
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip addr add 192.0.2.1/24 dev up0");
    host.run("ip addr add 2001:db8:9::1/64 dev up0 nodad");
    host.run("ip link set up0 up");
    host.run("ip link set up1 up");
}

/// A node's NodePeer, as it is now.
fn peer(plane: &ControlPlane<'_>, node: &str) -> Option<Value> {
    let shown = plane.run(&format!("get nodepeer {node} --ignore-not-found -o json"));
    if shown.trim().is_empty() { None } else { Some(serde_json::from_str(&shown).expect("JSON")) }
}

/// Waits until a node's NodePeer is as `right` says.
pub(crate) fn wait_peer(plane: &ControlPlane<'_>, node: &str, right: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let found = std::cell::RefCell::new(String::new());
    wait_or(
        || format!("NodePeer {node}: {}", found.borrow()),
        || {
            last = peer(plane, node);
            *found.borrow_mut() = format!("{last:?}");
            last.clone().filter(&right)
        },
    )
}

/// Makes the NodePeer of another node, in the name of its agent.
pub(crate) fn other_node(plane: &ControlPlane<'_>, name: &str, cidr4: &str) {
    let object = json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer", "metadata": {"name": name},
        "spec": {"cidr4": cidr4, "nextHops": [{"address": "192.0.2.2"}]},
    });
    plane.apply(&object.to_string()).expect("accepted");
}

#[test]
fn pods_of_other_nodes_see_a_pods_own_address_and_the_outside_sees_the_node() {
    const ELSEWHERE: &str = "10.25.215.5";
    let host = Host::new();
    let router = host.machine("up0", &["192.0.2.1/24"], &["192.0.2.2/24", &format!("{ELSEWHERE}/32")]);
    router.run(&format!("ip route add {CIDR4} via 192.0.2.1"));
    host.run("ip route add default via 192.0.2.2");
    let plane = ControlPlane::start(&host);
    let _agent = agent_of(&host, &plane);
    let spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "masquerade": {"ipv4": true}, "policy": {"mode": "none"}});
    plane.apply(&node_config_spec(spec)).expect("accepted");
    wait_condition(&plane, "Ready", "True", "Serving");
    let pod = host.pod("p");
    let own = host.add(&pod).annotations(&[]).result().ipv4().expect("IPv4");
    let open = |netns: &Path, ip: &str| {
        let bind = || UdpSocket::bind((ip, 0)).expect("an own address");
        let socket = Netns::open(netns).expect("a namespace").run(bind).expect("entered");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket
    };
    let seen = |to: &str| {
        let (here, there) = (open(&pod.netns(), &own.to_string()), open(&router.netns(), to));
        here.send_to(b"?", there.local_addr().expect("bound")).expect("sent");
        there.recv_from(&mut [0; 8]).expect("it arrives").1.ip().to_string()
    };
    assert_eq!([seen(ELSEWHERE), seen("192.0.2.2")], ["192.0.2.1", "192.0.2.1"], "nobody knows of that node yet");
    other_node(&plane, "host002", "10.25.215.0/24");
    wait_for("the pod's own address", || (seen(ELSEWHERE) == own.to_string()).then_some(()));
    assert_eq!(seen("192.0.2.2"), "192.0.2.1");
    plane.run("delete nodepeer host002");
    wait_for("the node's address", || (seen(ELSEWHERE) == "192.0.2.1").then_some(()));
}

fn uid_of_node_config(plane: &ControlPlane<'_>) -> String {
    plane.run("get nodeconfig host001 -o jsonpath={.metadata.uid}")
}

#[test]
fn a_node_tells_the_others_its_ranges_and_by_which_addresses_it_is_reached() {
    let host = Host::new();
    uplink(&host);
    let plane = ControlPlane::start(&host);
    let agent = agent_of(&host, &plane);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let said = wait_peer(&plane, "host001", |peer| peer["spec"]["nextHops"][0]["linkLocal"].is_string());
    let spec = &said["spec"];
    assert_eq!((&spec["cidr6"], &spec["cidr4"]), (&json!(CIDR6), &json!(CIDR4)));
    let addresses: Vec<&Value> =
        spec["nextHops"].as_array().expect("a list").iter().map(|hop| &hop["address"]).collect();
    assert_eq!(addresses, ["2001:db8:9::1", "192.0.2.1"]);
    let owner = |peer: &Value| peer["metadata"]["ownerReferences"].clone();
    let expected = |uid: &str| json!([{"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "name": "host001", "uid": uid}]);
    assert_eq!(owner(&said), expected(&uid_of_node_config(&plane)));
    assert!(plane.run("get nodepeers").contains("2001:db8:9::1"));

    // Whatever changes is told.
    plane.apply(&node_config("", "10.26.0.0/24")).expect("accepted");
    let edited = wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == "10.26.0.0/24");
    assert_eq!(edited["spec"]["cidr6"], Value::Null);
    host.run("ip addr add 198.51.100.1/24 dev up0");
    host.run("ip addr del 192.0.2.1/24 dev up0");
    wait_peer(&plane, "host001", |peer| peer["spec"]["nextHops"][1]["address"] == "198.51.100.1");

    // What somebody else removes or changes is put back.
    plane.run("delete nodepeer host001");
    wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == "10.26.0.0/24");
    other_node(&plane, "host001", "10.99.0.0/24");
    wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == "10.26.0.0/24");

    // It belongs to the NodeConfig of its name, also to one that is made anew.
    plane.run("delete nodeconfig host001");
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let uid = uid_of_node_config(&plane);
    wait_peer(&plane, "host001", |peer| owner(peer) == expected(&uid) && peer["spec"]["cidr4"] == CIDR4);
    agent.stop();
}

#[test]
fn two_nodes_with_overlapping_ranges_are_told_of_each_other() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    other_node(&plane, "host002", "10.25.215.0/24");
    let agent = agent_of(&host, &plane);
    wait_condition(&plane, "RangesUnique", "True", "Unique");
    other_node(&plane, "host003", "10.25.0.0/16");
    let message = wait_condition(&plane, "RangesUnique", "False", "RangesOverlap");
    for words in ["host003", "10.25.0.0/16", CIDR4] {
        assert!(message.contains(words) && !message.contains("host002"), "{message}");
    }
    assert!(plane.run("describe nodeconfig host001").contains("RangesOverlap"));
    wait_condition(&plane, "Ready", "True", "Serving");
    plane.run("delete nodepeer host003");
    wait_condition(&plane, "RangesUnique", "True", "Unique");
    agent.stop();
}

/// Routes to other nodes, as `ip` shows them.
pub(crate) fn routes(host: &Host) -> String {
    host.run("ip -4 route show proto 102") + &host.run("ip -6 route show proto 102")
}

#[test]
fn pods_of_a_node_on_the_same_link_are_reached_without_being_told_and_one_beyond_a_router_is_named() {
    let host = Host::new();
    uplink(&host);
    let mut plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");
    // A node does nothing for others before it serves pods.
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    let near = "10.25.215.0/24 via 192.0.2.2 dev up0";
    let wait_route = |there: bool| {
        wait_or(|| routes(&host), || (routes(&host).contains(near) == there).then_some(()));
    };
    other_node(&plane, "host002", "10.25.215.0/24");
    wait_route(true);
    wait_condition(&plane, "PeersReached", "True", "Reached");
    let far = json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer", "metadata": {"name": "host003"},
        "spec": {"cidr4": "10.25.216.0/24", "nextHops": [{"address": "198.51.100.3"}]},
    });
    plane.apply(&far.to_string()).expect("accepted");
    let message = wait_condition(&plane, "PeersReached", "False", "NotReached");
    assert!(message.contains("node host003 is beyond a router"), "{message}");

    // A node that is made anew keeps its route, and so does everybody while the API server is away, over a start of the agent.
    plane.run("delete nodepeer host002 host003");
    wait_condition(&plane, "PeersReached", "True", "Reached");
    assert!(routes(&host).contains(near), "{}", routes(&host));
    other_node(&plane, "host002", "10.25.215.0/24");
    plane.stop_api("KILL");
    agent.wait_log("API server cannot be asked");
    agent.stop();
    let agent = host.agent().config(None).kubeconfig("/run/k8s/agent.kubeconfig").start();
    agent.wait_log("NodeConfig of the last run is in force");
    let further = host.pod("b");
    host.add(&further).annotations(&[]).result();
    assert!(routes(&host).contains(near), "{}", routes(&host));
    plane.start_api();

    // Switched off, nothing of it stays, and the others are told of this node all the same.
    let spec = json!({"cidr4": "10.26.0.0/24", "peers": "none"});
    plane.apply(&node_config_spec(spec)).expect("accepted");
    wait_route(false);
    wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == "10.26.0.0/24");
    wait_for("a status without the condition", || condition(&plane, "PeersReached").is_none().then_some(()));
    plane.apply(&node_config_spec(json!({"cidr4": "10.26.0.0/24", "peers": "direct"}))).expect("accepted");
    wait_route(true);
    agent.stop();
}

#[test]
fn a_crd_that_is_missing_is_named_with_the_remedy_and_pods_need_it_not() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    plane.run("delete crd nodepeers.flock.fritzlab.net");
    let agent = agent_of(&host, &plane);
    let line = agent.wait_log("the CRD nodepeers.flock.fritzlab.net is missing");
    assert!(line.contains("kubectl apply -k deploy/base"), "{line}");
    let message = wait_condition(&plane, "RangesUnique", "Unknown", "NotHeard");
    assert!(message.contains("kubectl apply -k deploy/base"), "{message}");
    wait_condition(&plane, "Ready", "True", "Serving");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    host.del(&pod).done();
    plane.run(&format!("apply -k {}/deploy/base", env!("CARGO_MANIFEST_DIR")));
    wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == CIDR4);
    wait_condition(&plane, "RangesUnique", "True", "Unique");
    agent.stop();
}

#[test]
fn an_agent_that_may_not_tell_the_others_says_which_right_it_lacks() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    // The place of the rule in deploy/base/rbac.yaml.
    let rights = |verbs: &[&str]| {
        let rule = json!([{"op": "replace", "path": "/rules/2/verbs", "value": verbs}]).to_string();
        let output = plane.kubectl(&["patch", "clusterrole", "flock-agent", "--type=json", "-p", &rule]);
        assert!(output.status.success(), "{output:?}");
    };
    assert!(plane.run("get clusterrole flock-agent -o jsonpath={.rules[2].resources}").contains("nodepeers"));
    rights(&["list", "watch"]);
    let agent = agent_of(&host, &plane);
    let line = agent.wait_log("NodePeer cannot be written");
    assert!(line.contains("the verb patch on the resource nodepeers of apiGroup flock.fritzlab.net"), "{line}");
    rights(&["list", "watch", "patch"]);
    agent.wait_log("the verb create on the resource nodepeers");
    rights(&["list", "watch", "create", "patch"]);
    wait_peer(&plane, "host001", |peer| peer["spec"]["cidr4"] == CIDR4);
    agent.stop();
}

/// Events of NodePeers after a version, as an agent's watch gets them: each a line.
fn events_after(plane: &ControlPlane<'_>, version: &str) -> Vec<String> {
    let lines =
        plane.kubectl(&["get", "--raw", &format!("{PEERS}?watch=1&resourceVersion={version}&timeoutSeconds=2")]);
    let text = String::from_utf8(lines.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

fn list_version(plane: &ControlPlane<'_>) -> (String, usize) {
    let list = plane.run(&format!("get --raw {PEERS}?limit=0"));
    let version = serde_json::from_str::<Value>(&list).expect("JSON")["metadata"]["resourceVersion"].clone();
    (version.as_str().expect("a version").to_owned(), list.len())
}

// covers: FM-E03
#[test]
fn a_thousand_other_nodes_cost_an_agent_little_and_their_heartbeats_nothing() {
    let host = Host::new();
    uplink(&host);
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    wait_peer(&plane, "host001", |peer| peer["spec"]["nextHops"][0]["linkLocal"].is_string());
    wait_condition(&plane, "RangesUnique", "True", "Unique");
    let before = rss_kib(agent.pid());

    // As an agent writes them: with an owner, two addresses, and the server's own book of who wrote what.
    let node = |n: usize, kind: &str| {
        let name = format!("node-{n:04}.example");
        let ranges = (format!("2001:db8:1{:03x}::/64", n), format!("10.{}.{}.0/24", 64 + n / 250, n % 250));
        let mut object = json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": kind, "metadata": {"name": &name},
            "spec": {"cidr6": ranges.0, "cidr4": ranges.1},
        });
        if kind == "NodePeer" {
            let local = format!("fe80::a00:27ff:fe{:02x}:{:x}", n / 256, n % 256 + 1);
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "name": name,
                "uid": format!("00000000-0000-4000-8000-{n:012}")}]);
            object["spec"]["nextHops"] = json!([
                {"address": format!("2001:db8:9::{:x}", n + 16), "linkLocal": &local},
                {"address": format!("192.0.{}.{}", 3 + n / 250, n % 250 + 1), "linkLocal": &local}]);
        }
        object
    };
    let apply = |objects: Vec<Value>| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(host.path("/run/k8s/list.json"), list.to_string()).expect("writable");
        plane.run("apply --server-side --force-conflicts --field-manager=flock-agent -f /run/k8s/list.json");
    };
    for batch in 0..10 {
        apply((0..100).map(|n| node(batch * 100 + n, "NodePeer")).collect());
    }
    // The last one has the range of this node: when that is told, all others have been heard.
    let clash = |cidr4: &str| {
        let mut last = node(1000, "NodePeer");
        last["spec"]["cidr4"] = json!(cidr4);
        apply(vec![last]);
    };
    clash(CIDR4);
    wait_condition(&plane, "RangesUnique", "False", "RangesOverlap");
    let after = rss_kib(agent.pid());
    println!("agent: {before} KiB before, {after} KiB with 1001 other nodes that it has heard of one by one");

    // An event costs each other agent one line.
    let (version, bytes) = list_version(&plane);
    println!("list of {} NodePeers: {bytes} bytes", 1002);
    clash("10.250.0.0/24");
    let events = events_after(&plane, &version);
    println!("an edit of one NodePeer: {} event of {} bytes for each agent", events.len(), events[0].len());
    assert_eq!(events.len(), 1, "{events:?}");
    wait_condition(&plane, "RangesUnique", "True", "Unique");

    // Heartbeats and counts of other nodes are no event for anybody.
    let configs = 20;
    apply((0..configs).map(|n| node(n, "NodeConfig")).collect());
    let (version, _) = list_version(&plane);
    for n in 0..configs {
        let status = json!({"status": {"pods": n, "lastHeard": "2026-11-26T12:00:00Z"}}).to_string();
        let name = format!("node-{n:04}.example");
        let output =
            plane.kubectl(&["patch", "nodeconfig", &name, "--subresource=status", "--type=merge", "-p", &status]);
        assert!(output.status.success(), "{output:?}");
    }
    // This node's own report changes, too, and its pods come and go.
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    let own: Value = serde_json::from_str(&node_config(CIDR6, CIDR4)).expect("JSON");
    let mut edited = own.clone();
    edited["spec"]["mtu"] = json!(1400);
    plane.apply(&edited.to_string()).expect("accepted");
    wait_for("the count of pods", || plane.run("get nodeconfig host001").contains("   1  ").then_some(()));
    host.del(&pod).done();
    let events = events_after(&plane, &version);
    println!("{configs} heartbeats of other nodes, a pod here: {} events of NodePeers", events.len());
    assert_eq!(events, [""; 0]);
    agent.stop();

    // An agent that starts in such a cluster hears all of them in one list.
    let agent = agent_of(&host, &plane);
    let line = agent.wait_log("API server heard resource=nodepeers");
    println!("agent started among them: {} KiB ({line})", rss_kib(agent.pid()));
    assert!(condition(&plane, "RangesUnique").is_some());
    assert!(after < before + 2048, "{before} KiB before, {after} KiB after");
    agent.stop();
}
