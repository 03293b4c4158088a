//! Stories with a real Kubernetes API server: kubectl on one side, the agent on the other. Run by `make test-kube`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod container;
mod daemon_set;
mod deploy;
mod events;
mod peers;
mod pod_cidrs;
mod policies;
mod policing;
mod routing;
mod stage;
mod start;
#[allow(unreachable_pub, reason = "it is of two test programs")]
#[path = "../policy/streams.rs"]
mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config, node_config_spec};
use crate::support::waiting::wait_for;

/// A pod object that is bound to `node`.
fn pod_object(name: &str, node: &str, annotations: &Value, extra: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "registry.example/web:1"}]},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    pod.to_string()
}

fn agent_of<'a>(host: &'a Host, plane: &ControlPlane<'_>) -> Agent<'a> {
    let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
    host.agent().config(None).kubeconfig(&kubeconfig).start()
}

/// A condition of the node's status, as `kubectl` shows it: status, reason, message.
fn condition(plane: &ControlPlane<'_>, kind: &str) -> Option<(String, String, String)> {
    let object: Value = serde_json::from_str(&plane.run("get nodeconfig host001 -o json")).expect("JSON");
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

fn wait_condition(plane: &ControlPlane<'_>, kind: &str, status: &str, reason: &str) -> String {
    wait_for(&format!("{kind}={status} ({reason})"), || {
        condition(plane, kind).filter(|(s, r, _)| s == status && r == reason).map(|(.., message)| message)
    })
}

// covers: FM-G05
#[test]
fn a_node_config_is_applied_edited_deleted_and_made_again() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    let agent = agent_of(&host, &plane);
    let a = host.pod("a");
    let refused = host.add(&a).annotations(&[]).error();
    assert_eq!(refused.code, 11, "{refused:?}");

    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let applied = Instant::now();
    agent.wait_log("NodeConfig in force");
    println!("end of kubectl apply to in force: {} ms", applied.elapsed().as_millis());
    let first = host.add(&a).annotations(&[]).result();
    assert!(first.ipv4().expect("an address").to_string().starts_with("10.25.214."));
    wait_condition(&plane, "Ready", "True", "Serving");
    wait_condition(&plane, "Valid", "True", "Accepted");
    let table = plane.run("get nodeconfigs");
    for word in ["CIDR6", CIDR6, CIDR4, "FREE4", "True", "HEARD", "AGE"] {
        assert!(table.contains(word), "{table}");
    }

    plane.apply(&node_config("2001:db8:2::/64", "10.26.0.0/24")).expect("accepted");
    agent.wait_log("cidr4=10.26.0.0/24");
    // A pod alone is no reason to write; what is written says how many there are.
    wait_for("the count of pods", || {
        let table = plane.run("get nodeconfigs");
        (table.contains("   1  ") && table.contains("253")).then_some(())
    });
    let b = host.pod("b");
    assert!(host.add(&b).annotations(&[]).result().ipv4().expect("an address").to_string().starts_with("10.26.0."));

    plane.run("delete nodeconfig host001");
    agent.wait_log("NodeConfig is missing");
    let c = host.pod("c");
    assert!(host.add(&c).annotations(&[]).result().ipv4().expect("an address").to_string().starts_with("10.26.0."));

    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    agent.wait_log_times(&format!("cidr4={CIDR4}"), 2);
    wait_condition(&plane, "Ready", "True", "Serving");
    for pod in [&a, &b, &c] {
        host.del(pod).done();
    }
    host.assert_empty();
    agent.stop();
}

#[test]
fn a_bad_node_config_is_refused_by_the_server_or_explained_in_its_status() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    let agent = agent_of(&host, &plane);
    for (spec, why) in [
        (json!({}), "at least one of cidr6 and cidr4"),
        (json!({"cidr6": "2001:db8::1/64"}), "bits set behind"),
        (json!({"cidr6": "10.0.0.0/24"}), "IPv6 prefix"),
        (json!({"cidr6": "hello"}), "IPv6 prefix"),
        (json!({"cidr6": "2001:db8::/8"}), "prefix length"),
        (json!({"cidr4": "2001:db8::/64"}), "IPv4 prefix"),
        (json!({"cidr4": "10.0.0.0/31"}), "8 to 30"),
        (json!({"cidr4": "10.0.0.7/24"}), "bits set behind"),
        (json!({"cidr4": 7}), "string"),
        (json!({"cidr4": CIDR4, "mtu": 100}), "576"),
        (json!({"cidr6": CIDR6, "mtu": 600}), "1280"),
        (json!({"cidr4": CIDR4, "defaults": {"ipv6": true}}), "no cidr6"),
        (json!({"cidr4": CIDR4, "defaults": {"ipv6": "yes"}}), "boolean"),
    ] {
        let error = plane.apply(&node_config_spec(spec.clone())).expect_err(&spec.to_string());
        assert!(error.contains(why), "{spec}: {error}");
    }
    // What the schema cannot say, the agent says.
    plane.apply(&node_config("ff02:1::/64", "")).expect("well-formed");
    let message = wait_condition(&plane, "Valid", "False", "Invalid");
    assert!(message.contains("spec.cidr6") && message.contains("multicast"), "{message}");
    wait_condition(&plane, "Ready", "False", "NotConfigured");
    agent.wait_log("NodeConfig is not valid");
    assert!(plane.run("describe nodeconfig host001").contains("multicast"));

    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    wait_condition(&plane, "Valid", "True", "Accepted");
    plane.apply(&node_config("ff02:1::/64", "")).expect("well-formed");
    wait_condition(&plane, "Valid", "False", "Invalid");
    wait_condition(&plane, "Ready", "True", "LastGood");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    host.del(&pod).done();
    agent.stop();
}

#[test]
fn an_operator_sees_where_the_node_config_comes_from_and_when_the_api_server_was_heard() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    let agent = agent_of(&host, &plane);
    let none = host.types("status");
    assert!(none.code == 1 && none.line("nodeconfig") == "none in force; from https://127.0.0.1:6443", "{none:?}");
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let told = host.types("status --wait 60");
    assert_eq!(told.code, 0, "{told:?}");
    let config = told.line("nodeconfig");
    assert!(config.starts_with("generation 1, from https://127.0.0.1:6443, in force for "), "{told:?}");
    let api = |heard: &dyn Fn(&Value) -> bool| {
        let look = || host.types("status -o json").json()["api"].clone();
        // Where nothing changes, the first that a watch hears of a server is a bookmark, which takes a minute.
        wait_for_long("news of each watch", 150, || look().as_array().expect("a list").iter().all(heard).then(look))
    };
    let watches = api(&|watch| watch["heardSeconds"].is_u64());
    let resources: Vec<_> = watches.as_array().expect("a list").iter().map(|watch| watch["resource"].clone()).collect();
    assert_eq!(resources, ["namespaces", "networkpolicies", "nodeconfigs", "nodepeers", "pods"]);
    assert!(host.types("status").line("api").contains("nodeconfigs: heard "));
    plane.stop_api("KILL");
    api(&|watch| watch["failingSeconds"].is_u64() && watch["problem"].is_string());
    assert_eq!(host.types("status -q").code, 0, "pods are served without an API server");
    plane.start_api();
    api(&|watch| watch["failingSeconds"].is_null());
    agent.stop();
}

#[test]
fn a_bgp_block_is_refused_by_the_server_as_by_the_agent() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    let object = |bgp: &Value| node_config_spec(json!({"cidr4": CIDR4, "bgp": bgp}));
    let read = |object: &str| model::nodeconfig::parse(object).map(|config| config.bgp.is_some());
    let peer = |fields: Value| {
        let mut peer = json!({"name": "tor1", "address": "192.0.2.1", "asn": 65100});
        for (key, value) in fields.as_object().expect("an object") {
            peer[key] = value.clone();
        }
        json!({"asn": 65001, "peers": [peer]})
    };
    let asn = |asn: Value| json!({"asn": asn, "peers": [{"name": "a", "address": "192.0.2.1", "asn": 1}]});
    let with = |key: &str, value: Value| {
        let mut bgp = asn(json!(1));
        bgp[key] = value;
        bgp
    };
    for (bgp, why) in [
        (json!({"asn": 65001}), "peers"),
        (json!({"asn": 65001, "peers": []}), "peers"),
        (json!({"peers": [{"name": "a", "address": "192.0.2.1", "asn": 1}]}), "asn"),
        (asn(json!(0)), "asn"),
        (asn(json!(4_294_967_295_u32)), "asn"),
        (with("routerID", json!("0.0.0.0")), "not be 0.0.0.0"),
        (with("routerID", json!("2001:db8::1")), "IPv4"),
        (with("import", json!(["10.0.0.1/8"])), "bits set behind"),
        (with("import", json!(["10.0.0.1"])), "must be a prefix"),
        (with("import", json!(["10.0.0.0/8", "10.0.0.0/8"])), "Duplicate"),
        (with("peers", json!([{"name": "a", "asn": 1}])), "address or interface"),
        (with("peers", json!([{"name": "a", "address": "fe80::1", "asn": 1}])), "link-local"),
        (with("peers", json!([{"name": "a", "interface": "eth0", "multihop": 2, "asn": 1}])), "multihop"),
        (peer(json!({"name": "Tor1"})), "name"),
        (peer(json!({"name": "a".repeat(32)})), "name"),
        (peer(json!({"address": "router"})), "address of a router"),
        (peer(json!({"address": "192.0.2.1/24"})), "address of a router"),
        (peer(json!({"address": "::"})), "address of a router"),
        (peer(json!({"address": "::1"})), "address of a router"),
        (peer(json!({"interface": "eth*"})), "interface"),
        (peer(json!({"interface": "lo"})), "name of a link"),
        (peer(json!({"asn": 0})), "AS number"),
        (peer(json!({"asn": "65100"})), "word external"),
        (peer(json!({"asn": "internal"})), "word external"),
        (peer(json!({"multihop": 0})), "multihop"),
        (peer(json!({"holdTime": 2})), "holdTime"),
        (peer(json!({"passwordFile": "secret"})), "passwordFile"),
        (peer(json!({"bfd": {"interval": 9}})), "interval"),
        (peer(json!({"bfd": {"multiplier": 1}})), "multiplier"),
        (peer(json!({"bfd": true})), "bfd"),
        (peer(json!({"bfd": {}, "multihop": 2})), "not with multihop"),
    ] {
        let error = plane.apply(&object(&bgp)).expect_err(&bgp.to_string());
        assert!(error.contains(why), "{bgp}: {error}");
        assert!(read(&object(&bgp)).is_err(), "the agent takes {bgp}, which the server refuses");
    }
    for bgp in [
        asn(json!(4_294_967_294_u32)),
        with("routerID", json!("192.0.2.11")),
        with("import", json!(["10.0.0.0/8", "::/0", "0.0.0.0/0"])),
        peer(json!({"asn": "external"})),
        peer(json!({"address": "fe80::1", "interface": "eth1.100", "passwordFile": "/etc/flock/bgp/tor1"})),
        peer(json!({"address": "2001:db8::1", "multihop": 255, "holdTime": 3})),
        with(
            "peers",
            json!([{"name": "a", "interface": "eth2", "asn": "external", "bfd": {"interval": 300, "multiplier": 3}}]),
        ),
    ] {
        plane.apply(&object(&bgp)).unwrap_or_else(|error| panic!("{bgp}: {error}"));
        assert_eq!(read(&object(&bgp)), Ok(true), "{bgp}");
    }
}

// covers: FM-D08
#[test]
fn pods_get_what_their_annotations_in_the_api_say() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");

    // Without annotations from the runtime, the pod is waited for.
    let late = host.pod("late");
    let unknown = host.add(&late).error();
    assert_eq!((unknown.code, unknown.msg.as_str()), (11, "pod is not known yet"), "{unknown:?}");

    let owner = json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-789df685f", "uid": "u", "controller": true}],
        "labels": {"pod-template-hash": "789df685f"}});
    let annotations = json!({"flock.fritzlab.net/ip-algo": "namespace,app,image", "flock.fritzlab.net/ipv4": "false"});
    let names = ["web-789df685f-aaaaa", "web-789df685f-bbbbb"];
    let mut addresses = Vec::new();
    for (name, netns) in names.iter().zip(["w1", "w2"]) {
        plane.apply(&pod_object(name, "host001", &annotations, &owner)).expect("accepted");
        let pod = host.pod(netns);
        let attached = host.add(&pod).kubernetes("default", name).result();
        assert_eq!(attached.ipv4(), None);
        addresses.push(attached.ipv6().expect("an address").to_string());
    }
    let replica = |address: &String| address[..address.len() - 1].to_owned();
    assert_eq!(replica(&addresses[0]), replica(&addresses[1]), "replicas differ in the last digit only");

    // What the runtime hands over counts, and needs no API server.
    let told = host.pod("told");
    let attached = host.add(&told).annotations(&[("ipv6", "false")]).result();
    assert_eq!((attached.ipv6(), attached.ips().len()), (None, 1));

    // A pod of the same name that was deleted and made again is another pod.
    plane.apply(&pod_object("again", "host001", &json!({}), &json!({}))).expect("accepted");
    let uid = plane.run("get pod again -o jsonpath={.metadata.uid}");
    let again = host.pod("again");
    let with_uid = |uid: &str| {
        host.add(&again).env("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME=again;K8S_POD_UID={uid}"))
    };
    assert_eq!(with_uid("00000000-0000-0000-0000-000000000000").error().code, 11);
    with_uid(&uid).result();

    // A static pod is known to the runtime by the hash of its file.
    let mirror = json!({"kubernetes.io/config.mirror": "0123abcd", "kubernetes.io/config.hash": "0123abcd"});
    plane.apply(&pod_object("etcd-host001", "host001", &mirror, &json!({}))).expect("accepted");
    let fixed = host.pod("static");
    host.add(&fixed)
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=etcd-host001;K8S_POD_UID=0123abcd")
        .result();
    agent.stop();
}

#[test]
fn pods_and_configs_of_other_nodes_never_reach_this_one() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");
    let own: Vec<Value> = (0..110)
        .map(|n| {
            let pod = pod_object(&format!("own-{n}"), "host001", &json!({"pad": "x".repeat(2000)}), &json!({}));
            serde_json::from_str(&pod).expect("JSON")
        })
        .collect();
    let create = |items: Vec<Value>| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        fs::write(host.path("/run/k8s/list.json"), list.to_string()).expect("writable");
        plane.run("create -f /run/k8s/list.json");
    };
    create(own);
    let last = host.pod("last");
    host.add(&last).kubernetes("default", "own-109").result();
    let before = rss_kib(agent.pid());
    println!("agent with two watches and 110 pods: {before} KiB");
    for batch in 0..10 {
        let mut items = Vec::new();
        for n in 0..200 {
            let name = format!("other-{batch}-{n}");
            let pod = pod_object(&name, "elsewhere", &json!({"pad": "x".repeat(2000)}), &json!({}));
            items.push(serde_json::from_str::<Value>(&pod).expect("JSON"));
        }
        for n in 0..500 {
            let mut config: Value = serde_json::from_str(&node_config("2001:db8:9::/64", "10.9.0.0/24")).expect("JSON");
            config["metadata"]["name"] = json!(format!("node-{batch}-{n}"));
            items.push(config);
        }
        create(items);
    }
    // Something of ours behind all of that: when it has arrived, nothing else is on its way.
    plane.apply(&pod_object("mine", "host001", &json!({}), &json!({}))).expect("accepted");
    let pod = host.pod("mine");
    host.add(&pod).result();
    let after = rss_kib(agent.pid());
    println!("agent: {before} KiB before, {after} KiB after 2000 pods and 5000 NodeConfigs of other nodes");
    assert!(after < before + 1024, "{before} KiB before, {after} KiB after");
    host.del(&pod).done();
    agent.stop();
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn rbac_that_is_too_small_is_named_and_its_arrival_noticed() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    plane.run("delete clusterrolebinding flock-agent");
    let agent = agent_of(&host, &plane);
    for resource in ["nodeconfigs", "pods"] {
        let line = agent.wait_log(&format!("RBAC is too small verb=list resource={resource}"));
        assert!(line.contains("cannot list resource"), "{line}");
    }
    plane.run(
        "create clusterrolebinding flock-agent --clusterrole=flock-agent --serviceaccount=kube-system:flock-agent",
    );
    agent.wait_log("NodeConfig in force");
    wait_condition(&plane, "Ready", "True", "Serving");
    agent.stop();
}

#[test]
fn one_identity_per_node_may_read_and_write_its_own_node_config_only() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    plane.run("delete clusterrolebinding flock-agent");
    let template = plane.run(&format!("kustomize {}/deploy/overlays/per-node-identity", env!("CARGO_MANIFEST_DIR")));
    plane.apply(&template.replace("NODE", "host001")).expect("accepted");
    let token = plane.run("create token flock-agent-host001 --namespace kube-system --duration=1h");
    let kubeconfig = plane.kubeconfig("per-node", token.trim());
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).args(&["--pod-cidrs"]).start();
    agent.wait_log("NodeConfig in force");
    agent.wait_log("API server heard resource=nodes");
    wait_condition(&plane, "Ready", "True", "Serving");
    let can = |what: &str| {
        let line = format!("auth can-i {what} --as=system:serviceaccount:kube-system:flock-agent-host001");
        let args: Vec<&str> = line.split_whitespace().collect();
        plane.kubectl(&args).status.success()
    };
    assert!(can("patch nodeconfigs/host001 --subresource=status"));
    assert!(!can("patch nodeconfigs/host002 --subresource=status"));
    assert!(!can("list nodeconfigs"));
    for what in ["pods", "namespaces", "networkpolicies"] {
        assert!(
            can(&format!("list {what} -A")) && can(&format!("watch {what} -A")) && !can(&format!("patch {what} -A")),
            "{what}"
        );
    }
    assert!(!can("patch nodeconfigs/host001"));
    assert!(
        can("watch nodes/host001") && !can("list nodes") && !can("watch nodes/host002") && !can("patch nodes/host001")
    );
    assert!(can("create events.events.k8s.io -n default") && can("create events.events.k8s.io -n kube-system"));
    assert!(!can("list events.events.k8s.io -n default") && !can("patch events.events.k8s.io -n default"));
    host.add(&host.pod("a")).annotations(&[]).result();
    wait_for("an Event", || plane.run("get events.events.k8s.io -n default").contains("host001").then_some(()));
    // It speaks to the others for itself and for nobody else; RBAC checks the name even where the patch creates the object.
    wait_for("the NodePeer", || plane.run("get nodepeers").contains(CIDR4).then_some(()));
    assert!(can("list nodepeers") && can("patch nodepeers/host001"));
    assert!(!can("create nodepeers") && !can("patch nodepeers/host002") && !can("delete nodepeers/host001"));
    let forged = json!({"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer", "spec": {"cidr4": CIDR4}});
    let forge = |name: &str| {
        let mut object = forged.clone();
        object["metadata"] = json!({"name": name});
        fs::write(host.path("/run/k8s/forged.json"), object.to_string()).expect("writable");
        let who = "--as=system:serviceaccount:kube-system:flock-agent-host001";
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=flock-agent",
            who,
            "-f",
            "/run/k8s/forged.json",
        ];
        plane.kubectl(&apply).status.success()
    };
    assert!(forge("host001") && !forge("host002"));
    agent.stop();
}

// covers: FM-A03 FM-D10
#[test]
fn pods_come_and_go_without_an_api_server_and_the_view_is_right_when_it_is_back() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    // As the owner wants it, a pod that the server has not told of is open.
    let open = json!({"cidr6": CIDR6, "cidr4": CIDR4, "policy": {"unknown": "open"}});
    plane.apply(&node_config_spec(open)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).annotations(&[]).result();

    plane.stop_api("KILL");
    agent.wait_log("API server cannot be asked");
    let attached = host.add(&b).annotations(&[]).result();
    assert!(a.pings(attached.ipv6().expect("an address")));
    host.del(&a).done();
    agent.stop();

    // A start without an API server: the last good NodeConfig is on disk.
    let kubeconfig = "/run/k8s/agent.kubeconfig";
    let agent = host.agent().config(None).kubeconfig(kubeconfig).start();
    agent.wait_log("NodeConfig of the last run is in force");
    host.add(&a).annotations(&[]).result();
    host.cni("STATUS").done();

    plane.start_api();
    let ready = Instant::now();
    plane.apply(&node_config("2001:db8:5::/64", "10.5.0.0/24")).expect("accepted");
    agent.wait_log("cidr4=10.5.0.0/24");
    println!("API server ready again to a new NodeConfig in force: {} ms", ready.elapsed().as_millis());
    host.del(&a).done();
    host.del(&b).done();
    host.assert_empty();
    agent.stop();
}

// covers: FM-D01
#[test]
fn an_api_server_that_hangs_for_a_minute_is_noticed_and_heals() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");
    plane.signal_api("STOP");
    let stopped = Instant::now();
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    host.del(&pod).done();
    wait_for_long("a minute", 90, || (stopped.elapsed().as_secs() >= 60).then_some(()));
    plane.signal_api("CONT");
    wait_for_long("kubectl", 60, || plane.apply(&node_config("2001:db8:6::/64", "10.6.0.0/24")).ok());
    let began = Instant::now();
    wait_for_long("the new NodeConfig", 90, || agent.log().contains("cidr4=10.6.0.0/24").then_some(()));
    println!("after a minute of silence: in force {} ms after kubectl", began.elapsed().as_millis());
    agent.stop();
}

fn wait_for_long<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed().as_secs() < seconds, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

// covers: FM-D02 FM-D03
#[test]
fn a_restored_etcd_and_a_compacted_one_do_not_confuse_the_agent() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    plane.stop_api("TERM");
    plane.stop_etcd();
    plane.backup();
    plane.start_etcd();
    plane.start_api();
    let agent = agent_of(&host, &plane);
    agent.wait_log(&format!("cidr4={CIDR4}"));

    // Back to before an edit: resource versions go backwards.
    // Few enough that the log has a line for each.
    for n in 0..5 {
        plane.apply(&node_config("2001:db8:7::/64", &format!("10.7.{n}.0/24"))).expect("accepted");
    }
    agent.wait_log("cidr4=10.7.4.0/24");
    plane.stop_api("TERM");
    plane.stop_etcd();
    plane.restore();
    let restored = || agent.log().matches(&format!("in force cidr6={CIDR6}")).count();
    let times = restored();
    plane.start_etcd();
    plane.start_api();
    // Such a server may take a watch from a version that it has not reached yet, and says nothing until it is beyond that.
    let mut n = 0;
    wait_for_long("the restored NodeConfig", 120, || {
        n += 1;
        plane.run(&format!("label nodeconfig host001 --overwrite edit={n}"));
        (restored() > times).then_some(())
    });

    // The server forgets what the agent last saw while the agent is away from it.
    agent.signal("STOP");
    for n in 0..5 {
        plane.apply(&node_config("2001:db8:8::/64", &format!("10.8.{n}.0/24"))).expect("accepted");
    }
    plane.stop_api("TERM");
    plane.compact();
    plane.start_api();
    agent.signal("CONT");
    wait_for_long("the newest NodeConfig", 60, || agent.log().contains("cidr4=10.8.4.0/24").then_some(()));
    agent.stop();
}

// covers: FM-D05
#[test]
fn a_rotated_token_is_used_without_a_restart() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let path = host.path("/run/k8s/agent.token");
    fs::write(&path, "not-a-token").expect("writable");
    let kubeconfig = plane.kubeconfig_with("rotating", "tokenFile: agent.token");
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    let line = agent.wait_log("API server refuses the credentials");
    assert!(line.contains("401"), "{line}");
    assert!(!agent.log().contains("not-a-token"));
    fs::write(&path, plane.agent_token()).expect("writable");
    agent.wait_log("NodeConfig in force");
    // And over a restart of the server, with the next token.
    let next = plane.agent_token();
    fs::write(&path, &next).expect("writable");
    plane.stop_api("TERM");
    plane.start_api();
    plane.apply(&node_config("2001:db8:3::/64", "10.3.0.0/24")).expect("accepted");
    agent.wait_log("cidr4=10.3.0.0/24");
    assert!(!agent.log().contains(next.trim()), "no token in any log");
    agent.stop();
}

#[test]
fn a_token_and_a_certificate_that_end_soon_are_told_in_log_and_status_until_there_are_others() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let token = |hours: u32| {
        plane.run(&format!("create token flock-agent --namespace kube-system --duration={hours}h")).trim().to_owned()
    };
    let path = host.path("/run/k8s/agent.token");
    fs::write(&path, token(9 * 24)).expect("writable");
    let kubeconfig = plane.kubeconfig_with("ending", "tokenFile: agent.token");
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    let line = agent.wait_log("a credential for the API server ends soon");
    for words in ["warn ", "part=token", "file=/run/k8s/agent.token", "hours_left=215", "put a new one into"] {
        assert!(line.contains(words), "{line}");
    }
    let message = wait_condition(&plane, "CredentialsLasting", "False", "EndSoon");
    assert!(message.starts_with("the token in /run/k8s/agent.token ends at 2"), "{message}");
    wait_condition(&plane, "Ready", "True", "Serving");
    fs::write(&path, token(90 * 24)).expect("writable");
    wait_condition(&plane, "CredentialsLasting", "True", "Lasting");
    assert_eq!(agent.log().matches("a credential for the API server").count(), 1, "not with each look");
    agent.stop();

    plane.run("create clusterrolebinding by-certificate --clusterrole=flock-agent --user=node-host001");
    plane.client_certificate("node-host001");
    let kubeconfig = plane.kubeconfig_with("certificate", "client-certificate: agent.crt, client-key: agent.key");
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    let message = wait_condition(&plane, "CredentialsLasting", "False", "EndSoon");
    assert!(message.starts_with("the client certificate in /run/k8s/agent.crt ends at 2"), "{message}");
    agent.wait_log("part=\"client certificate\"");
    agent.stop();
}

#[test]
fn a_rotated_client_certificate_is_used_without_a_restart() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    plane.run("create clusterrolebinding by-certificate --clusterrole=flock-agent --user=node-host001");
    plane.client_certificate("somebody-else");
    let kubeconfig = plane.kubeconfig_with("certificate", "client-certificate: agent.crt, client-key: agent.key");
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    let line = agent.wait_log("RBAC is too small");
    assert!(line.contains("somebody-else"), "{line}");
    plane.client_certificate("node-host001");
    wait_for_long("the new certificate", 90, || agent.log().contains("NodeConfig in force").then_some(()));
    // And the next one, over a restart of the server, with watches open.
    plane.client_certificate("node-host001");
    plane.stop_api("TERM");
    plane.start_api();
    plane.apply(&node_config("2001:db8:4::/64", "10.4.0.0/24")).expect("accepted");
    wait_for_long("the edit", 90, || agent.log().contains("cidr4=10.4.0.0/24").then_some(()));
    agent.stop();
}
