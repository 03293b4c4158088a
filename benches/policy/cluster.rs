//! The cluster that is measured with: pods of many nodes, and for each pod of this node twenty policies, as charts have them.

use serde_json::{Value, json};

use crate::support::manifests::NODE;

/// The namespaces of the pods of this node.
pub const LOCAL: usize = 10;
/// The namespaces of all others.
const NAMESPACES: usize = 50;
/// Workloads of a namespace.
const APPS: usize = 20;
/// Policies that select each pod of this node.
pub const POLICIES: usize = 20;
/// Port of everything that answers.
pub const PORT: u16 = 7;
/// The policy that lets pods of this node speak to each other, and comes last.
pub const LAST: &str = "policy-z";

/// Which pods of others the policies are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Each policy is about one workload.
    Workloads,
    /// All are about all.
    All,
}

/// The namespace of the local pod with this number. Two in a row are of one.
pub fn namespace(number: usize) -> String {
    format!("local-{}", number / 2 % LOCAL)
}

pub fn namespaces() -> Vec<Value> {
    let names = (0..LOCAL).map(|n| namespace(2 * n)).chain((0..NAMESPACES).map(|n| format!("ns-{n}")));
    names.map(|name| json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})).collect()
}

/// The policies of the local namespaces: each selects all pods there, both ways.
pub fn policies(about: About) -> Vec<Value> {
    (0..LOCAL).flat_map(|of| (0..POLICIES).map(move |n| policy(&namespace(2 * of), n, about))).collect()
}

/// One of them.
pub fn policy(namespace: &str, number: usize, about: About) -> Value {
    let is_last = number + 1 == POLICIES;
    let name = if is_last { LAST.to_owned() } else { format!("policy-{number}") };
    let labels = match about {
        About::Workloads => json!({"app": format!("app-{number}")}),
        About::All => json!({"tier": "peer"}),
    };
    let others = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}]);
    let ports = json!([{"port": 80}, {"port": 8000, "endPort": 8010}, {"port": 53, "protocol": "UDP"}]);
    let mut ingress = json!([{"from": others, "ports": ports}]);
    let block = json!({"cidr": format!("198.51.{number}.0/24"), "except": [format!("198.51.{number}.16/28")]});
    let mut egress = json!([{"to": others, "ports": ports}, {"to": [{"ipBlock": block}]}]);
    if is_last {
        for (rules, way) in [(&mut ingress, "from"), (&mut egress, "to")] {
            let neighbours = json!({way: [{"podSelector": {}}]});
            rules.as_array_mut().expect("a list").push(neighbours);
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("policy-{namespace}-{number}"), "resourceVersion": "1"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress},
    })
}

/// A pod of this node. It has no address until it is told.
pub fn own(number: usize, name: &str, addresses: &[std::net::IpAddr]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    pod(&namespace(number), name, &format!("app-{}", number % APPS), "local", &json!(NODE), &ips)
}

/// A pod of another node, some kilobytes.
pub fn peer(number: usize) -> Value {
    let app = format!("app-{}", number % APPS);
    let addresses = [
        json!({"ip": format!("10.{}.{}.{}", 64 + number / 65_536, number / 256 % 256, number % 256)}),
        json!({"ip": format!("2001:db8:77::{:x}", number + 1)}),
    ];
    let namespace = format!("ns-{}", number / APPS % NAMESPACES);
    let node = json!(format!("node-{}", number % 997));
    pod(&namespace, &format!("{app}-6d5f8c7b9d-{number:05}"), &app, "peer", &node, &addresses)
}

fn pod(namespace: &str, name: &str, app: &str, tier: &str, node: &Value, addresses: &[Value]) -> Value {
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": "http://service.example:8080/path"})).collect();
    let number = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "resourceVersion": "1",
            "uid": format!("{:08x}-{:04x}-4000-8000-{:012x}", number >> 32, number >> 16 & 0xffff, number & 0xffff_ffff_ffff),
            "labels": {
                "app": app, "tier": tier, "pod-template-hash": "6d5f8c7b9d",
                "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": namespace, "app.kubernetes.io/managed-by": "Helm",
            },
        },
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "app", "image": "registry.example/team/app:1", "env": env,
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
            }],
        },
        "status": {"phase": "Running", "podIP": addresses.first().map(|first| &first["ip"]), "podIPs": addresses},
    })
}
